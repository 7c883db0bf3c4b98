-- The foreign-data wrapper: what servers and user mappings may say.
SET client_min_messages = warning;
CREATE EXTENSION sixtyfour;

-- What a statement does, undone: 'ok', or its error
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RAISE EXCEPTION 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	IF message = 'ok' THEN
		RETURN 'ok';
	END IF;
	RETURN concat_ws(E'\n', state || ': ' || message,
		'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, ''));
END $$;
CREATE FUNCTION try_server(option text, value text) RETURNS text LANGUAGE SQL AS $$
	SELECT try(format('CREATE SERVER s FOREIGN DATA WRAPPER sixtyfour OPTIONS (%s %L)', option, value));
$$;
CREATE FUNCTION try_mapping(option text, value text) RETURNS text LANGUAGE SQL AS $$
	SELECT try(format('CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (%s %L)', option, value));
$$;

CREATE SERVER sixtyfour FOREIGN DATA WRAPPER sixtyfour;

-- options that there are not
CREATE SERVER s FOREIGN DATA WRAPPER sixtyfour OPTIONS (nonsense '1');
CREATE SERVER s FOREIGN DATA WRAPPER sixtyfour OPTIONS (api_key 'k');
CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (base_url 'https://a.test');
ALTER SERVER sixtyfour OPTIONS (ADD "BASE_URL" 'https://a.test');
ALTER FOREIGN DATA WRAPPER sixtyfour OPTIONS (ADD base_url 'https://a.test');
CREATE FOREIGN TABLE t (a int) SERVER sixtyfour OPTIONS (base_url 'https://a.test');

-- there is nothing to read from
CREATE FOREIGN TABLE t (a int) SERVER sixtyfour;
SELECT * FROM t;
DROP FOREIGN TABLE t;

-- all options at once
CREATE SERVER s FOREIGN DATA WRAPPER sixtyfour OPTIONS (
	base_url 'https://a.test/v1', requests_per_minute '100', timeout '60',
	connect_timeout '5', webhook_url 'https://b.test/hook',
	ca_file '/etc/ssl/ca.pem', proxy 'http://proxy.test:3128',
	daily_budget_cents '1000', assumed_cents '480');
SELECT option_name, option_value FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = 's';
DROP SERVER s;

SELECT value, try_server('base_url', value) FROM (VALUES
	('https://api.example.test'), ('https://api.example.test/'), ('http://localhost:8080/a/b'), ('http://127.0.0.1:1'),
	('https://[::1]:8443'), (''), ('api.example.test'), ('ftp://a.test'), ('https://'), ('https:///a'), ('https://:80'),
	('https://user@a.test'), ('https://user:word@a.test'), ('https://a.test/?a=1'), ('https://a.test/#a'),
	('https://a.test\b'), ('https://a b.test'), ('https://ä.test'), (E'https://a.test\r\nX-Evil: 1'), (' https://a.test'),
	('https://a.test:port'), ('https://a.test:70000'), ('https://a.test:1:2')) v (value);

SELECT value, try_server('requests_per_minute', value) FROM (VALUES
	('1'), ('500'), ('1000000'), ('0'), ('-1'), ('1000001'), ('2.5'), ('many'), (''), ('1 s'), ('NaN'), ('1e400')) v (value);
SELECT value, try_server('timeout', value) FROM (VALUES
	('900'), ('0.5'), ('250ms'), ('2 min'), ('1h'), ('1d'), ('1ms'), ('0'), ('-1'), ('2d'), ('0.1ms'), ('soon'), (''), ('5 fortnights'), ('5 MB')) v (value);
SELECT value, try_server('connect_timeout', value) FROM (VALUES ('10'), ('10min'), ('0'), ('601'), ('x')) v (value);
SELECT value, try_server('daily_budget_cents', value) FROM (VALUES ('0'), ('2147483647'), ('-1'), ('2147483648'), ('1.5'), ('$5')) v (value);
SELECT value, try_server('assumed_cents', value) FROM (VALUES ('0'), ('480'), ('1000000'), ('1000001'), ('-1'), ('')) v (value);
SELECT left(value, 25) AS value, length(value), regexp_replace(try_server('webhook_url', value), 'x{50,}', 'x...x') AS try_server FROM (VALUES
	('https://a.test/hook?x=1'), ('https://a.test/' || repeat('x', 2068)), ('https://a.test/' || repeat('x', 2069)),
	('http://a.test'), ('https://'), ('a.test'), (''), ('https://a.test/ b')) v (value);
SELECT value, try_server('ca_file', value) FROM (VALUES ('/etc/ssl/ca.pem'), ('ca.pem'), ('../ca.pem'), ('')) v (value);
SELECT value, try_server('proxy', value) FROM (VALUES ('proxy.test:3128'), ('socks5h://[::1]:1080'), (''), ('a b')) v (value);

-- the value of a key is never repeated
SELECT n, try_mapping('api_key', value) FROM (VALUES
	(1, 'api_0123456789abcdefghijklmnopqrstuv'), (2, repeat('k', 512)), (3, repeat('k', 513)), (4, ''), (5, 'secret key'),
	(6, E'secret\nkey'), (7, 'secret"key'), (8, 'secret\key'), (9, 'schlüssel'), (10, E'secret\x7f')) v (n, value);
SELECT value, try_mapping('api_key_file', value) FROM (VALUES ('/var/lib/key'), ('key'), ('~/key'), ('')) v (value);
CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (api_key 'a', api_key_file '/b');
CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (api_key 'a');
ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (ADD api_key_file '/b');
ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (DROP api_key, ADD api_key_file '/b');
DROP USER MAPPING FOR PUBLIC SERVER sixtyfour;

-- calls without an account
CREATE ROLE regress_sixtyfour;
SET ROLE regress_sixtyfour;
SELECT sixtyfour_find_email('{"name":"Jane"}');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER sixtyfour TO regress_sixtyfour;
SET ROLE regress_sixtyfour;
SELECT sixtyfour_find_email('{"name":"Jane"}');
SET sixtyfour.server = 'not there';
SELECT sixtyfour_find_email('{"name":"Jane"}');
-- NULL asks nothing
SELECT sixtyfour_find_email(NULL);
RESET sixtyfour.server;
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER sixtyfour FROM regress_sixtyfour;
DROP ROLE regress_sixtyfour;

-- settings
SELECT name, setting, unit, context, min_val, max_val FROM pg_settings WHERE name LIKE 'sixtyfour.%' ORDER BY name COLLATE "C";
SET sixtyfour.max_response_size = '1MB';
SHOW sixtyfour.max_response_size;
SELECT regexp_replace(try(format('SET sixtyfour.max_response_size = %L', value)), ' kB(?=[ )])', '', 'g')
FROM (VALUES ('0'), ('1GB')) v (value);
RESET sixtyfour.max_response_size;
SET sixtyfour.nonsense = 1;

DROP FUNCTION try_mapping;
DROP FUNCTION try_server;
DROP FUNCTION try;
DROP EXTENSION sixtyfour CASCADE;
