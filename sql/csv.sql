-- CSV texts: read, and made of queries.
SET client_min_messages = warning;
CREATE EXTENSION sixtyfour;
\pset format unaligned
\pset null NULL

-- what goes wrong with a statement, and where in the CSV text
CREATE FUNCTION fault(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	code text; message text; context text; hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', code, message, nullif(hint, ''), substring(context FROM '^CSV line [0-9]+'));
END $$;
CREATE FUNCTION csv_fault(csv text) RETURNS text LANGUAGE sql AS $$
	SELECT fault(format('SELECT * FROM sixtyfour_csv_rows(%L::text)', csv)) $$;

-- fields
SELECT * FROM sixtyfour_csv_rows(E'name,note\nJane Doe,"Acme, Inc."\n"a ""b"" c",""""\n"a\nb","\n"\n" a ", b \na"b"c,x"y,z"""\n');
SELECT * FROM sixtyfour_csv_rows(E'a,b,c\n1,,""\n,,\n"","",""\n');
SELECT * FROM sixtyfour_csv_rows(E'größe,日本\nμ,🙂\n');
SELECT * FROM sixtyfour_csv_rows('a,b' || chr(10) || 'no newline,at the end');
SELECT r ->> 'a' AS a, r -> 'b' AS b, r -> 'b' = 'null' AS missing FROM sixtyfour_csv_rows(csv => E'a,b\n1,\n2,""\n') r;
-- neither numbers nor words are anything but text
SELECT * FROM sixtyfour_csv_rows(E'a,b,c,d,e\n007,1e3,true,null,\\N\n');

-- lines: \n, \r\n, \r, and all of them
SELECT * FROM sixtyfour_csv_rows(E'a,b\r\n1,"x\r\ny"\r\n2,"x\ny"\r\n');
SELECT * FROM sixtyfour_csv_rows(E'a,b\r1,"x\ry"\r2,z');
SELECT * FROM sixtyfour_csv_rows(E'a,b\n1,"x\r\ny"\r\n2,"x\ry"\r3,"x\ny"\n4,z');

-- blank lines
SELECT * FROM sixtyfour_csv_rows(E'\n\r\na,b\n\n1,2\r\n\r\n\n3,4\n\n');
SELECT * FROM sixtyfour_csv_rows(E'a\n1\n\n""\n3\n');

-- the header
SELECT * FROM sixtyfour_csv_rows(E'\uFEFFa,b\n1,2\n');
SELECT * FROM sixtyfour_csv_rows(E'\uFEFF"a",b\n1,\uFEFF2\n');
SELECT * FROM sixtyfour_csv_rows(E'a,a,a\n1,2,3\n');
SELECT * FROM sixtyfour_csv_rows(E'a,a,a_2,a_2,a\n1,2,3,4,5\n');
SELECT * FROM sixtyfour_csv_rows(E',x,"",\n1,2,3,4\n');
SELECT * FROM sixtyfour_csv_rows(E'"a ""b""","c\nd", E \n1,2,3\n');
SELECT count(*), count(DISTINCT key), min(key), max(length(key)) FROM sixtyfour_csv_rows('a' || repeat(',a', 9999) || E'\n' || repeat(',', 9999)) r, jsonb_object_keys(r) key;

-- nothing
SELECT count(*) FROM sixtyfour_csv_rows('');
SELECT count(*) FROM sixtyfour_csv_rows(E'\n\n');
SELECT count(*) FROM sixtyfour_csv_rows(E'\uFEFF');
SELECT count(*) FROM sixtyfour_csv_rows('a,b');
SELECT count(*) FROM sixtyfour_csv_rows(E'a,b\n');
SELECT count(*) FROM sixtyfour_csv_rows(NULL::text);
SELECT count(*) FROM sixtyfour_csv_rows(NULL::bytea);

-- a line \. is a line as any other
SELECT * FROM sixtyfour_csv_rows(E'a\n1\n\\.\n2\n"\\."\n\\\n\\.x\n\\"."\n""\\.\n\\.');
SELECT * FROM sixtyfour_csv_rows(E'\\.\n1\n');
SELECT * FROM sixtyfour_csv_rows(E'\uFEFF\\.\r\n\\.\r\n1\r\n');
SELECT * FROM sixtyfour_csv_rows(E'a,b\n1,"x\n\\.\ny"\n"\\.\n\\.\n",2\n\\.,3\n4,\\.\n');

-- wherever the borders of buffers are: at each byte of what is behind the first field
SELECT count(*), min(rows), max(rows), bool_and(same) FROM (
	SELECT array_length(rows, 1), rows[2:] = '{"{\"a\": \"\\\\.\"}","{\"a\": \"x\\r\\n\\\\.\\n\\\"y\"}","{\"a\": null}","{\"a\": \"\\\\\"}","{\"a\": \"ä🙂\"}"}'
	FROM (VALUES (16384), (32768), (65536), (131072)) border (place), generate_series(0, 45) shift,
		LATERAL (SELECT array_agg(r) FROM sixtyfour_csv_rows(
			E'a\n' || repeat('x', place - shift) || E'\r\n\\.\r\n"x\r\n\\.\n""y"\n\r\n\\\rä🙂\r\n') r) AS _ (rows)) AS _ (rows, same);

-- what is no CSV: the line at which the record begins
SELECT csv_fault(E'a,b\n1,2,3\n');
SELECT csv_fault(E'a,b\n1\n');
SELECT csv_fault(E'a,b\n1,2\n\n"x\n\r\n\ry",2\n3\n');
SELECT csv_fault(E'"a\n\n",b\r\n1,2\r3,4,5\n');
SELECT csv_fault(E'a,b\n""\n');
SELECT csv_fault(E'a,b\n"x\ny",2\n3,"4\n\n\n');
SELECT csv_fault(E'a,"b\n1,2\n');
SELECT csv_fault(E'a,b\n\\.\n');
SELECT csv_fault('a,b' || repeat(E'\n1,2', 100000) || E'\n1');
SELECT csv_fault(repeat(',', 65535)), csv_fault(repeat(',', 65536));

-- bytes
SELECT * FROM sixtyfour_csv_rows(convert_to(E'\uFEFFa,b\nä,2\n', 'UTF8'));
SELECT fault($$SELECT * FROM sixtyfour_csv_rows('a,b\01212,\377\0123,4'::bytea)$$);
SELECT fault($$SELECT * FROM sixtyfour_csv_rows('a,b\0121,2\0123,\000\0125,6'::bytea)$$);
SELECT fault($$SELECT * FROM sixtyfour_csv_rows('a,b\0121,2\0123,4\303'::bytea)$$);
SELECT fault($$SELECT * FROM sixtyfour_csv_rows('a,\000'::bytea)$$);
SELECT fault($$SELECT * FROM sixtyfour_csv_rows('\357\273'::bytea)$$);

-- several at once, in a SELECT list, in a subtransaction that fails, left early
SELECT sixtyfour_csv_rows(E'a\n1\n2\n'), sixtyfour_csv_rows(E'b\n3\n');
SELECT x, y FROM sixtyfour_csv_rows(E'a\n1\n2\n') x, LATERAL sixtyfour_csv_rows(E'b\n' || (x ->> 'a')) y;
SELECT * FROM sixtyfour_csv_rows(E'a\n1\n2\n3\n') LIMIT 1;
SELECT count(*) FROM generate_series(1, 3), LATERAL csv_fault(E'a\n1,2\n');
SELECT count(*) FROM pg_stat_progress_copy;

-- a query as CSV
SELECT replace(sixtyfour_csv($$SELECT * FROM (VALUES (1, 'a', NULL), (2, '', 'a "b", c'), (3, E'x\ny', E'x\r'), (4, ' a ', '\.')) v (id, "a ""b"", c", x)$$), E'\r', '\r') AS csv;
SELECT sixtyfour_csv('SELECT 1.50 AS a, true AS b, ARRAY[1, NULL] AS c, ''{"a": "b"}''::jsonb AS d, date ''2026-11-23'' AS e, ''\xff''::bytea AS f, ROW(1, ''a'') AS g');
SELECT sixtyfour_csv('SELECT 1 AS a WHERE false');
SELECT sixtyfour_csv('VALUES (1), (NULL), (3)');
SELECT sixtyfour_csv('WITH x AS (SELECT 1 AS a) SELECT a, a FROM x;');
SELECT sixtyfour_csv(NULL);
SELECT fault(format('SELECT sixtyfour_csv(%L)', query)) FROM (VALUES
	(''), ('nonsense'), ('SELECT 1; SELECT 2'), ('SELECT'), ('SELECT 1 / 0'), ('SHOW work_mem'), ('CREATE TABLE x (a int)'), ('SELECT 1 AS a INTO x'),
	('INSERT INTO pg_am DEFAULT VALUES RETURNING 1'), ('WITH x AS (DELETE FROM pg_am RETURNING 1) SELECT * FROM x'),
	('SELECT 1 FROM pg_am FOR UPDATE'), ('SELECT * FROM (SELECT 1 FROM pg_am FOR SHARE) x'), ('SELECT $1'), ('SELECT * FROM missing')) v (query);
-- as the caller, who sees what the calling statement sees
CREATE TABLE private (a int);
INSERT INTO private VALUES (1);
CREATE ROLE regress_sixtyfour_csv;
SET ROLE regress_sixtyfour_csv;
SELECT fault($$SELECT sixtyfour_csv('TABLE private')$$);
RESET ROLE;
DROP ROLE regress_sixtyfour_csv;
WITH w AS (INSERT INTO private VALUES (2)) SELECT sixtyfour_csv('TABLE private');
SELECT sixtyfour_csv('TABLE private');

-- and back
CREATE TABLE ugly (n serial, a text, b text);
INSERT INTO ugly (a, b) VALUES ('', NULL), (NULL, ''), (NULL, NULL), ('"', '""'), (',', ', '), (E'\n', E'\r'), (E'\r\n', E'a\n\n\\.\n\n"b'), ('\.', '\'),
	('\N', 'NULL'), (' ', E'\t'), (E'\uFEFF', E'\u200B'), ('ä', '日本🙂'), (E'\x01\x1A', E'\x7F'), ('=1+1', '''x'''), (repeat('"', 70000), repeat(E'\n', 70000)),
	(repeat(E'\\.\n', 50000), repeat(E'"\r\n', 50000));
SELECT count(*), bool_and(to_jsonb(u.a) IS NOT DISTINCT FROM nullif(r -> 'a', 'null')), bool_and(u.b IS NOT DISTINCT FROM r ->> 'b')
FROM ugly u LEFT JOIN sixtyfour_csv_rows(sixtyfour_csv('SELECT a, b, n FROM ugly')) r ON u.n = (r ->> 'n')::int;
SELECT count(*), bool_and(a IS NOT DISTINCT FROM r ->> 'a') FROM
	(SELECT a, row_number() OVER (ORDER BY n) FROM ugly) u JOIN
	sixtyfour_csv_rows(sixtyfour_csv('SELECT a FROM ugly ORDER BY n')) WITH ORDINALITY r (r, place) ON row_number = place;
-- as COPY writes it
COPY (SELECT * FROM ugly WHERE n IN (1, 2, 3, 4, 5, 9, 10, 12, 14)) TO STDOUT WITH (FORMAT csv, HEADER);
SELECT sixtyfour_csv('SELECT * FROM ugly WHERE n IN (1, 2, 3, 4, 5, 9, 10, 12, 14)');

-- answers of enrich_dataframe
SELECT answer, r FROM (VALUES
	(1, to_jsonb(E'a,b\n1,\n'::text)), (2, jsonb_build_object('csv_data', E'a,b\n1,\n')), (3, jsonb_build_object('csv', E'a\n1\n', 'data', 7)),
	(4, jsonb_build_object('data', E'a\n1\n')), (5, jsonb_build_object('result', E'a\n1\n')), (6, jsonb_build_object('csv_data', NULL, 'result', E'a\n1\n')),
	(7, '[{"a":1,"b":null},{"a":[2],"c":{}}]'), (8, '{"rows":[{"a":1}]}'), (9, '{"results":[{"a":1}],"total":1}'), (10, '{"data":[{"a":1},{}]}'),
	(11, '{"csv_data":[{"a":1}]}'), (12, '[]'), (13, '""'), (14, '{"csv_data":""}'), (15, '{"csv_data":"a,b\n"}'), (16, '{"rows":[]}'), (17, NULL)) v (n, answer)
	LEFT JOIN LATERAL sixtyfour_dataframe_rows(answer) r ON true ORDER BY n, r;
SELECT answer, fault(format('SELECT * FROM sixtyfour_dataframe_rows(%L)', answer)) FROM (VALUES
	('null'), ('7'), ('true'), ('{}'), ('{"csv_data":null}'), ('{"csv_data":7}'), ('{"data":{"a":1}}'), ('{"rows":[{"a":1},2]}'), ('[["a"]]'), ('[null]'),
	('{"error":"x"}'), ('"a,b\n1"')) v (answer);

DROP FUNCTION fault, csv_fault;
DROP TABLE private, ugly;
DROP EXTENSION sixtyfour;
