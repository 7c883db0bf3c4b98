-- Arguments are checked before anything is sent.  Nothing listens at the
-- server's address, so what passes the checks fails to connect.
SET client_min_messages = warning;
CREATE EXTENSION sixtyfour;
CREATE SERVER sixtyfour FOREIGN DATA WRAPPER sixtyfour
	OPTIONS (base_url 'http://127.0.0.1:9', requests_per_minute '0');
CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (api_key 'api_key');

-- 'sent', or why not
CREATE FUNCTION try(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	EXECUTE 'SELECT sixtyfour_' || call;
	RETURN 'answered';
EXCEPTION
	WHEN sqlclient_unable_to_establish_sqlconnection THEN
		RETURN 'sent';
	WHEN invalid_parameter_value THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
		RETURN concat_ws(E'\n', message, 'HINT: ' || nullif(hint, ''));
END $$;

-- the errors as psql shows them
SELECT sixtyfour_find_email('{}');
SELECT sixtyfour_enrich_lead('{"name":"Jane"}', '{"age":{"description":"Age","type":"number"}}');
\set VERBOSITY terse
SELECT sixtyfour_find_email('{"name":"Jane"}');
\set VERBOSITY default

-- subjects
SELECT lead, try(format('find_email(%L)', lead)) FROM (VALUES
	('{"name":"Jane"}'), ('{"name":"","company":"Acme"}'), ('{"n":0}'), ('{"b":false}'), ('{"a":{"b":null}}'),
	('{}'), ('{"name":""}'), ('{"name":null,"a":[],"b":{},"c":""}'), ('[]'), ('[{"name":"Jane"}]'), ('"Jane"'), ('7'), ('null')) v (lead);
SELECT call, try(call) FROM (VALUES
	('find_phone(''{}'')'), ('find_phone(''null'')'), ('enrich_lead(''{}'', ''{"a":"A"}'')'), ('enrich_company(''[]'', ''{"a":"A"}'')'),
	('qa_agent(''{"a":""}'', ''[]'')'), ('enrich_dataframe('''', ''phone'')'), ('enrich_dataframe(''a'', NULL)'), ('enrich_dataframe(''a'', '''')'),
	('enrich_dataframe(''a'', ''phone'')'), ('job_status('''')'), ('job_status(''..'')'), ('job_status(''a/b'')')) v (call);

-- whole bodies
SELECT call, try(call) FROM (VALUES
	('enrich_lead(''{"lead_info":{"name":"Jane"},"struct":{"a":"A"}}'')'), ('enrich_lead(''{"lead_info":{"name":"Jane"}}'')'),
	('enrich_lead(''{"struct":{"a":"A"}}'')'), ('enrich_lead(''{}'')'), ('enrich_lead(''[]'')'), ('enrich_lead(''7'')'),
	('enrich_company(''{"target_company":{"name":"Acme"},"struct":{"a":"A"},"find_people":true}'')'), ('enrich_company(''{"target_company":{"name":"Acme"},"struct":{"a":"A"},"find_people":1}'')'),
	('qa_agent(''{"data":{"a":1}}'')')) v (call);

-- struct
SELECT struct, try(format('enrich_lead(''{"name":"Jane"}'', %L)', struct)) FROM (VALUES
	('{"a":"A"}'), ('{"a":{"description":"A"}}'), ('{"a":{"description":"A","type":"str"}}'), ('{"a":{"description":"A","type":"int"}}'),
	('{"a":{"description":"A","type":"float"}}'), ('{"a":{"description":"A","type":"bool"}}'), ('{"a":{"description":"A","type":"list"}}'),
	('{"a":{"description":"A","type":"list[str]"}}'), ('{"a":{"description":"A","type":"list[int]"}}'), ('{"a":{"description":"A","type":"list[float]"}}'),
	('{"a":{"description":"A","type":"dict"}}'),
	(NULL), ('null'), ('{}'), ('[]'), ('"a"'), ('{"a":""}'), ('{"a":null}'), ('{"a":1}'), ('{"a":[]}'), ('{"a":{}}'), ('{"a":{"type":"str"}}'),
	('{"a":{"description":""}}'), ('{"a":{"description":1}}'), ('{"":"A"}'), ('{"b":"B","a":{"description":"A","type":"date"}}'),
	('{"a":{"description":"A","type":"Str"}}'), ('{"a":{"description":"A","type":"list[bool]"}}'), ('{"a":{"description":"A","type":"str int"}}'),
	('{"a":{"description":"A","type":null}}'), ('{"a":{"description":"A","type":["str"]}}')) v (struct);
SELECT call, try(call) FROM (VALUES
	('enrich_company(''{"name":"Acme"}'', ''{"a":"A"}'', ''{"a":{"description":"A","type":"list[float]"}}'')'),
	('enrich_company(''{"name":"Acme"}'', ''{"a":"A"}'', ''{"a":{"type":"str"}}'')'),
	('enrich_company(''{"name":"Acme"}'', ''{"a":"A"}'', ''[]'')')) v (call);

-- modes and options
SELECT mode, try(format('find_email(''{"name":"Jane"}'', %L)', mode)) FROM (VALUES
	('PROFESSIONAL'), ('PERSONAL'), (NULL), (''), ('personal'), ('PERSONAL '), ('PROFESSIONAL PERSONAL')) v (mode);
SELECT options, try(format('enrich_company(''{"name":"Acme"}'', ''{"a":"A"}'', find_people => true, options => %L)', options)) FROM (VALUES
	('{}'), (NULL), ('{"some_new_field":[1]}'), ('{"tier":"micro"}'), ('{"tier":"xhigh"}'), ('{"tier":null}'), ('{"tier":"huge"}'), ('{"tier":1}'),
	('{"find_people":true}'), ('{"target_company":{"name":"B"}}'), ('{"lead_struct":{"a":"A"}}'), ('{"lead_struct":{"a":7}}'),
	('{"research_plan":"x"}'), ('{"research_plan":""}'), ('{"research_plan":7}'), ('{"people_focus_prompt":[]}'),
	('{"full_org_chart":true}'), ('{"full_org_chart":"true"}'), ('{"field_confidence":0}'),
	('{"max_iterations":1}'), ('{"max_iterations":1e2}'), ('{"max_iterations":0}'), ('{"max_iterations":2.5}'), ('{"max_iterations":"2"}'),
	('{"webhook_url":"https://a.test/hook"}'), ('{"webhook_url":"http://a.test/hook"}'), ('{"webhook_url":"https://"}'), ('{"webhook_url":7}'),
	('[]'), ('"tier"'), ('null')) v (options);
SELECT n, try(format('find_phone(''{"name":"Jane"}'', %L)', jsonb_build_object('webhook_url', 'https://a.test/' || repeat('x', n - 15))))
FROM (VALUES (2083), (2084)) v (n);
SELECT options, try(format('find_phone(''{"name":"Jane"}'', %L)', options)) FROM (VALUES
	('{"providers":["a"]}'), ('{"providers":[]}'), ('{"providers":"a"}'), ('{"providers":["a",""]}'), ('{"lead":{}}')) v (options);

-- qa_agent
SELECT criteria, try(format('qa_agent(''{"a":1}'', %L)', criteria)) FROM (VALUES
	('[{"criteria_name":"a","description":"b","weight":1}]'), ('[{"criteria_name":"a","description":"b","weight":0.5,"threshold":3,"more":true}]'),
	('[{"criteria_name":"a","description":"b","weight":1,"threshold":null}]'),
	(NULL), ('{}'), ('[]'), ('[7]'), ('[{"description":"b","weight":1}]'), ('[{"criteria_name":"","description":"b","weight":1}]'),
	('[{"criteria_name":"a","weight":1}]'), ('[{"criteria_name":"a","description":"b"}]'), ('[{"criteria_name":"a","description":"b","weight":"1"}]'),
	('[{"criteria_name":"a","description":"b","weight":1},{"criteria_name":"a","description":"b","weight":1,"threshold":"1"}]')) v (criteria);
SELECT list, try(format('qa_agent(''{"a":1}'', ''[{"criteria_name":"a","description":"b","weight":1}]'', %L)', list)) FROM (VALUES
	('[]'), (NULL), ('[{"url":"https://a.test"}]'), ('[{"url":"https://a.test","description":"b"}]'),
	('{}'), ('["https://a.test"]'), ('[{"description":"b"}]'), ('[{"url":""}]'), ('[{"url":"https://a.test"},{"url":"https://b.test","description":1}]')) v (list);

-- sixtyfour_request
SELECT arguments, try(format('request(%s)', arguments)) FROM (VALUES
	('''GET'', ''/workflows'''), ('''GET'', ''/a/b%20c/...'''), ('''POST'', ''/a'', ''{"b":[1,"c",true,null]}'', ''[]'''), ('''DELETE'', ''/a'''),
	('''PUT'', ''/a'', NULL, ''7'''), ('''PATCH'', ''/a'', NULL, ''{}'''),
	('''get'', ''/a'''), ('''HEAD'', ''/a'''), (''''', ''/a'''), ('''GET'', '''''), ('''GET'', ''a'''), ('''GET'', ''https://a.test/'''), ('''GET'', ''/a?b=c'''),
	('''GET'', ''/a#b'''), ('''GET'', ''/a b'''), ('''GET'', ''/ü'''), ('''GET'', E''/a\r\nb'''), ('''GET'', ''/a/../b'''), ('''GET'', ''/..'''), ('''GET'', ''/./a'''),
	('''GET'', ''/a'', ''[]'''), ('''GET'', ''/a'', ''"b=c"'''), ('''GET'', ''/a'', ''{"b":{}}'''), ('''GET'', ''/a'', ''{"b":[[]]}'''),
	('''GET'', ''/a'', NULL, ''{}''')) v (arguments);

-- what jsonb cannot hold; only SQLSTATEs, as PostgreSQL's words differ between versions
\set VERBOSITY sqlstate
SELECT sixtyfour_find_email('{"name":"a\u0000b"}');
SELECT sixtyfour_find_email('{"name":"\ud83d"}');
SELECT sixtyfour_find_email('{name: Jane}');

-- calls that are ambiguous or incomplete
SELECT sixtyfour_find_email();
SELECT sixtyfour_enrich_dataframe('a');
SELECT sixtyfour_find_email('{"name":"Jane"}'::json);
SELECT sixtyfour_enrich_lead(leads => '{}');

DROP FUNCTION try;
DROP EXTENSION sixtyfour CASCADE;
