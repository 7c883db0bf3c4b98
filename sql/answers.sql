-- Reading answers: every shape that is documented or was seen, and some that
-- were not.
SET client_min_messages = warning;
CREATE EXTENSION sixtyfour;

-- email addresses
CREATE TABLE emails (n int, answer jsonb);
INSERT INTO emails VALUES
	-- as documented
	(1, '{"name":"J","email":[["a@x.test","OK","COMPANY"]],"cost_cents":5}'),
	(2, '{"email":[["a@x.test","UNKNOWN"]]}'),
	(3, '{"email":[["a@x.test","UNKNOWN","COMPANY"],["b@x.test","OK","PERSONAL"],["c@x.test","OK","COMPANY"]]}'),
	(4, '{"email":[["a@x.test","OK","COMPANY"]],"personal_email":[["p@y.test","OK","PERSONAL"]]}'),
	(5, '{"email":[],"personal_email":[["p@y.test","UNKNOWN","PERSONAL"]]}'),
	(6, '{"email":[["","NOT_FOUND","COMPANY"]]}'),
	(7, '{"email":[]}'),
	(8, '{"email":""}'),
	(9, '{"name":"J"}'),
	(10, '{"name":"J","email":"a@x.test"}'),	-- echoed: the lead had it
	(11, '{"email":[["a@x.test","OK","COMPANY"]],"personal_email":[["p@y.test","UNKNOWN"]]}'),
	-- other statuses
	(20, '{"email":[["a@x.test","INVALID","COMPANY"]]}'),
	(21, '{"email":[["a@x.test","NOT_FOUND","COMPANY"],["b@x.test","INVALID"]]}'),
	(22, '{"email":[["r@x.test","RISKY"],["u@x.test","UNKNOWN"],["c@x.test","CATCH_ALL"]]}'),
	(23, '{"email":[["r@x.test","RISKY"],["n@x.test","NEW_STATUS"]]}'),
	(24, '{"email":[["a@x.test","ok","company"]]}'),
	(25, '{"email":[["i@x.test","INVALID"]],"personal_email":[["p@y.test","RISKY"]]}'),
	-- other shapes
	(30, '{"email":[["a@x.test"]]}'),
	(31, '{"email":["a@x.test","OK","COMPANY"]}'),
	(32, '{"email":["a@x.test","OK"]}'),
	(33, '{"email":["a@x.test","b@x.test"]}'),
	(34, '{"email":["a@x.test"]}'),
	(35, '{"email":"a@x.test"}'),
	(36, '{"email":[{"address":"a@x.test","status":"OK","kind":"COMPANY"},{"email":"b@x.test","type":"personal"}]}'),
	(37, '{"email":{"address":"a@x.test","status":"OK"}}'),
	(38, '{"email":" a@x.test "}'),
	(39, '{"personal_email":"p@y.test"}'),
	(40, '{"personal_email":""}'),
	(41, '{"personal_email":null,"email":null}'),
	(42, '{"email":[["a@x.test","OK","COMPANY"]],"personal_email":"p@y.test"}'),
	(43, '{"email":[["a@x.test","OK","COMPANY","more",1]]}'),
	-- nonsense
	(50, '{"email":[null,7,true,[],{},[null,"OK"],[7,"OK"],["a@x.test",null,null]]}'),
	(51, '{"email":7,"personal_email":true}'),
	(52, '[]'), (53, '"a@x.test"'), (54, 'null'), (55, '{}'), (56, NULL);
SELECT n, e.*, answer FROM emails LEFT JOIN LATERAL sixtyfour_emails(answer) WITH ORDINALITY e ON true ORDER BY n, ordinality;
SELECT n, sixtyfour_best_email(answer) FROM emails ORDER BY n;

-- phone numbers
CREATE TABLE phones (n int, answer jsonb);
INSERT INTO phones VALUES
	-- as documented
	(1, '{"name":"J","phone":"+1 555-123-4567","cost_cents":30}'),
	(2, '{"phone":[{"number":"+1 555-123-4567","region":"US"}]}'),
	(3, '{"phone":[{"number":"+1 555-123-4567","region":"US"},{"number":"+44 20 7946 0000","region":"GB"}]}'),
	(4, '{"phone":""}'),
	(5, '{"name":"J","phone":"","cost_cents":30}'),
	-- others
	(20, '{"phone":[]}'),
	(21, '{"phone":[{"number":"","region":"US"},{"number":"+44 20 7946 0000"}]}'),
	(22, '{"phone":["+1 555-123-4567","+44 20 7946 0000"]}'),
	(23, '{"phone":{"number":"+1 555-123-4567","region":"US"}}'),
	(24, '{"phone":" +1 555-123-4567 "}'),
	(25, '{"phone":null}'),
	(26, '{"name":"J"}'),
	-- nonsense
	(30, '{"phone":[null,7,true,[],{},{"number":null},{"region":"US"},["+1"]]}'),
	(31, '{"phone":true}'),
	(32, '[]'), (33, '"+1"'), (34, 'null'), (35, NULL);
SELECT n, p.*, answer FROM phones LEFT JOIN LATERAL sixtyfour_phones(answer) WITH ORDINALITY p ON true ORDER BY n, ordinality;
SELECT n, sixtyfour_best_phone(answer) FROM phones ORDER BY n;

-- people of a company, best score first
SELECT * FROM sixtyfour_leads('{"notes":"n","structured_data":{"num_employees":3,"leads":[{"name":"Jane Doe","title":"CEO","phone":"","score":"9.5"}]},"findings":[],"references":{},"confidence_score":9.5}');
SELECT l->>'name' AS name, l->'score' AS score FROM sixtyfour_leads('{"structured_data":{"leads":[
	{"name":"a","score":2},{"name":"b","score":"9.5"},{"name":"c","score":10},{"name":"d"},{"name":"e","score":"high"},
	{"name":"f","score":9.5},{"name":"g","score":null},{"name":"h","score":"10"},{"name":"i","score":" 3 "},{"name":"j","score":"2.25"},
	{"name":"k","score":""},{"name":"l","score":[9]},{"name":"m","score":0},{"name":"n","score":true},{"name":"o","score":"1e1000000"},
	{"name":"p","score":"9.50.1"}]}}') l;
SELECT * FROM sixtyfour_leads('{"structured_data":{"leads":["text",{"score":1},null,[{"score":9}]]}}');
SELECT answer, (SELECT count(*) FROM sixtyfour_leads(answer)) FROM (VALUES
	('{"structured_data":{"leads":[]}}'::jsonb), ('{"structured_data":{"leads":""}}'), ('{"structured_data":{"leads":null}}'),
	('{"structured_data":{"leads":{"name":"a"}}}'), ('{"structured_data":{}}'), ('{"structured_data":[]}'), ('{"leads":[{"name":"a"}]}'),
	('{}'), ('[]'), ('null'), (NULL)) v (answer);

-- they can stand in an index or a generated column
CREATE TABLE generated (answer jsonb, email text GENERATED ALWAYS AS (sixtyfour_best_email(answer)) STORED,
	phone text GENERATED ALWAYS AS (sixtyfour_best_phone(answer)) STORED);
INSERT INTO generated VALUES ('{"email":[["a@x.test","OK","COMPANY"]],"phone":"+1"}');
SELECT email, phone FROM generated;

-- names of arguments and of columns
SELECT address, status, kind FROM sixtyfour_emails(answer => '{"email":[["a@x.test","OK","COMPANY"]]}');
SELECT number, region FROM sixtyfour_phones(answer => '{"phone":[{"number":"+1","region":"US"}]}');
SELECT sixtyfour_best_email(answer => NULL), sixtyfour_best_phone(answer => NULL);

DROP TABLE emails, phones, generated;
DROP EXTENSION sixtyfour CASCADE;
