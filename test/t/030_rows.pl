# Enrichments: rows into the queue, answers into the rows.  The worker is
# paused; what it would do to a job is done here, by a superuser.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::BackgroundPsql;
use Test::More;

use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('rows', $mock);

sub psql
{
	my ($sql, $role) = @_;
	return $node->safe_psql('postgres', ($role ? "SET ROLE $role;\n" : '') . $sql);
}

# fails(what, sql, sqlstate, message, [hint]): an error, word for word
sub fails
{
	my ($what, $sql, $sqlstate, $message, $hint) = @_;
	my $error = SixtyfourTest::sql_error($node, $sql);

	is("$error->{sqlstate} $error->{message}", "$sqlstate $message", $what);
	is($error->{hint}, $hint, "$what: hint") if defined $hint;
	return;
}

# What the worker does when a task has ended; the writer is woken by reapply.
$node->safe_psql('postgres', q{
	SELECT sixtyfour_pause();
	CREATE FUNCTION answer(enrichment_name text, key jsonb, answer jsonb) RETURNS void
	LANGUAGE SQL AS $$
		WITH r AS (
			INSERT INTO sixtyfour.result (call, item, account, fingerprint, operation, answer, cents)
			SELECT j.id, 0, gen_random_uuid(), j.fingerprint, j.operation, answer, 5
			FROM sixtyfour.job j JOIN sixtyfour.enrichment e ON e.id = j.enrichment
			WHERE e.name = enrichment_name AND j.row_key = key AND j.state = 'queued'
			RETURNING id, call)
		UPDATE sixtyfour.job SET state = 'succeeded', delivery = 'unapplied', result = r.id,
			finished_at = clock_timestamp()
		FROM r WHERE job.id = r.call
	$$;
	CREATE ROLE alice;
	CREATE ROLE bob;
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO alice;
	GRANT CREATE, USAGE ON SCHEMA public TO alice;
});

sub answer
{
	my ($name, $key, $answer) = @_;
	$answer =~ s/'/''/g;
	psql("SELECT answer('$name', '$key', '$answer')");
	return;
}

# Bring all answers home, and say what became of the jobs: "key state reason"
sub deliver
{
	my ($name) = @_;
	psql("SELECT sixtyfour_reapply('$name')");
	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM sixtyfour.job WHERE delivery = 'pending' AND sqlstate IS DISTINCT FROM '55P03'")
	  or die "answers are not delivered";
	return deliveries($name);
}

sub deliveries
{
	my ($name) = @_;
	return psql("SELECT concat_ws(' ', row_key, delivery, j.sqlstate, message)
		FROM sixtyfour.job j JOIN sixtyfour.enrichment e ON e.id = j.enrichment
		WHERE e.name = '$name' AND delivery <> 'none' ORDER BY j.id");
}

sub queued
{
	my ($name) = @_;
	return psql("SELECT string_agg(row_key::text, ' ' ORDER BY j.id)
		FROM sixtyfour.job j JOIN sixtyfour.enrichment e ON e.id = j.enrichment
		WHERE e.name = '$name' AND state = 'queued'");
}

# ---- declaring ----

psql(q{
	CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		name text, company text, vip boolean DEFAULT false, email text,
		upper_name text GENERATED ALWAYS AS (upper(name)) STORED);
	CREATE TABLE keyless (name text, email text);
	CREATE VIEW people_view AS SELECT * FROM people;
}, 'alice');

my $in  = q('{"name":"name","company":"company"}');
my $out = q('{"email":"$.email[0][0]"}');

sub create { my ($rest) = @_; return "SET ROLE alice; SELECT sixtyfour_create_enrichment($rest)"; }

fails('no name', create("NULL, 'people', 'find_email', $in, $out"),
	'22004', 'name must not be null');
fails('an empty name', create("'', 'people', 'find_email', $in, $out"),
	'42602', 'the name of an enrichment must not be empty');
fails('a view', create("'e', 'people_view', 'find_email', $in, $out"),
	'42809', '"people_view" is not a table');
fails('no key', create("'e', 'keyless', 'find_email', $in, $out"),
	'55000', 'table "keyless" has no primary key',
	'An answer finds its row by the primary key.');
fails('no such operation', create("'e', 'people', 'search', $in, $out"),
	'22023', 'operation "search" cannot enrich rows',
	'Use enrich_lead, enrich_company, find_email, find_phone, qa_agent, people_intelligence, company_intelligence, '
	. 'reverse_email, reverse_phone, research_agent, get_linkedin or enrich_linkedin.');
fails('empty input', create("'e', 'people', 'find_email', '{}', $out"),
	'22023', '"input" must be a JSON object that names at least one column');
fails('input that is no name', create("'e', 'people', 'find_email', '{\"name\":1}', $out"),
	'22023', 'the values of "input" must be names of columns');
fails('input column missing', create("'e', 'people', 'find_email', '{\"name\":\"nom\"}', $out"),
	'42703', 'column "nom" of table "people" does not exist');
fails('empty output', create("'e', 'people', 'find_email', $in, '{}'"),
	'22023', '"output" must be a JSON object that names at least one column');
fails('output column missing', create("'e', 'people', 'find_email', $in, '{\"mail\":\"\$\"}'"),
	'42703', 'column "mail" of table "people" does not exist');
fails('bad jsonpath', create("'e', 'people', 'find_email', $in, '{\"email\":\"\$[\"}'"),
	'42601', 'syntax error at end of jsonpath input');
fails('path that is no text', create("'e', 'people', 'find_email', $in, '{\"email\":1}'"),
	'22023', 'the path for output column "email" must be a text');
fails('output to a generated column', create("'e', 'people', 'find_email', $in, '{\"upper_name\":\"\$\"}'"),
	'428C9', 'column "upper_name" of table "people" is generated: nothing can be written to it');
fails('output to an input', create("'e', 'people', 'find_email', $in, '{\"name\":\"\$\"}'"),
	'22023', 'column "name" is both input and output', 'The answer would be another question.');
fails('struct missing', create("'e', 'people', 'enrich_lead', $in, $out"),
	'22023', '"struct" is required');
fails('struct superfluous', create("'e', 'people', 'find_email', $in, $out, '{\"a\":\"b\"}'"),
	'22023', 'operation find_email takes no "struct"');
fails('struct malformed', create("'e', 'people', 'enrich_lead', $in, $out, '{\"a\":1}'"),
	'22023', 'field "a" of "struct" has no description');
fails('criteria missing', create("'e', 'people', 'qa_agent', $in, $out"),
	'22023', '"qualification_criteria" is required');
fails('options: mode', create("'e', 'people', 'find_email', $in, $out, options => '{\"mode\":\"X\"}'"),
	'22023', 'unknown value of "mode"');
fails('options: subject', create("'e', 'people', 'find_email', $in, $out, options => '{\"lead\":{}}'"),
	'22023', '"lead" comes from the row and cannot be given in "options"');
fails('condition: not boolean', create("'e', 'people', 'find_email', $in, $out, condition => 'name'"),
	'42804', 'argument of condition must be type boolean, not type text');
fails('condition: two expressions', create("'e', 'people', 'find_email', $in, $out, condition => 'true), (true'"),
	'42601', 'the condition must be one boolean expression');
fails('condition: subquery', create("'e', 'people', 'find_email', $in, $out, condition => 'EXISTS (SELECT 1)'"),
	'0A000', 'cannot use subquery in trigger WHEN condition');
fails('condition: whole row', create("'e', 'people', 'find_email', $in, $out, condition => 'people IS NOT NULL'"),
	'0A000', 'the condition cannot use system columns or the whole row');
fails('payer', create("'e', 'people', 'find_email', $in, $out, payer => 'me'"),
	'22023', 'invalid payer: "me"', 'Use inserter or owner.');
fails('refresh_after', create("'e', 'people', 'find_email', $in, $out, refresh_after => '0'"),
	'22023', 'refresh_after must be positive');
fails('leads of a lead', create("'e', 'people', 'find_email', $in, '{\"leads\":{\"table\":\"keyless\",\"key\":{\"name\":\"name\"},\"columns\":{\"email\":\"\$\"}}}'"),
	'22023', 'operation find_email finds no "leads"', 'Use enrich_company or company_intelligence.');
fails('server missing', "SET sixtyfour.server = 'gone'; " . create("'e', 'people', 'find_email', $in, $out"),
	'28000', 'server "gone" does not exist');
fails('somebody else\'s table', "SET ROLE bob; SELECT sixtyfour_create_enrichment('e', 'people', 'find_email', $in, $out)",
	'42501', 'must be owner of table people');
psql(q{GRANT bob TO alice; CREATE TABLE bobs (id int PRIMARY KEY, name text, email text); ALTER TABLE bobs OWNER TO bob});
fails('no USAGE on the server',
	"SET ROLE bob; SELECT sixtyfour_create_enrichment('e', 'bobs', 'find_email', '{\"name\":\"name\"}', $out)",
	'42501', 'permission denied for foreign server sixtyfour');
fails('an owner who pays and may not',
	"SELECT sixtyfour_create_enrichment('e', 'bobs', 'find_email', '{\"name\":\"name\"}', $out, payer => 'owner')",
	'42501', 'permission denied for foreign server sixtyfour');

psql(qq{SELECT sixtyfour_create_enrichment('mail', 'people', 'find_email', $in, $out,
	options => '{"mode":"PERSONAL"}', on_update => true, condition => 'NOT vip')}, 'alice');
fails('a name that is taken', create("'mail', 'people', 'find_email', $in, $out"),
	'42710', 'enrichment "mail" already exists');
is(psql(q{SELECT string_agg(tgname, ' ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 'people'::regclass}),
	'sixtyfour_mail_insert sixtyfour_mail_update', 'two triggers');
is(psql('SELECT owner, condition, input_attnums - \'\' FROM sixtyfour.enrichment'),
	'alice|(NOT vip)|{"id": 1, "vip": 4, "name": 2, "company": 3}', 'what is kept');

# ---- triggers ----

psql(q{GRANT SELECT, INSERT, UPDATE, DELETE ON people TO bob});
psql(q{INSERT INTO people (name, company, vip, email) VALUES
	('Ann', 'Acme', false, NULL), ('Vip', 'Acme', true, NULL), ('Known', 'Acme', false, 'k@acme.example'),
	('  ', '', false, NULL), (NULL, NULL, false, NULL), ('Cher', NULL, false, NULL)}, 'bob');
is(psql('SELECT row_key, body, row_input, owner, payer, priority, server FROM sixtyfour.job ORDER BY id'),
	join("\n",
		'{"id": 1}|{"lead": {"name": "Ann", "company": "Acme"}, "mode": "PERSONAL"}|{"name": "Ann", "company": "Acme"}|bob|bob|100|sixtyfour',
		'{"id": 6}|{"lead": {"name": "Cher"}, "mode": "PERSONAL"}|{"name": "Cher", "company": null}|bob|bob|100|sixtyfour'),
	'rows with usable input, that meet the condition, with something to fill; bob has no right to spend and may insert');

psql(q{BEGIN; INSERT INTO people (name) VALUES ('Rolled back'); ROLLBACK});
psql(q{INSERT INTO people (name) SELECT 'none' WHERE false});
is(queued('mail'), '{"id": 1} {"id": 6}', 'ROLLBACK takes the jobs back, no rows give none');

psql(q{UPDATE people SET email = NULL; UPDATE people SET name = name});
is(queued('mail'), '{"id": 1} {"id": 6}', 'an update of other columns, or without a change, asks nothing');
psql(q{UPDATE people SET company = 'Beta' WHERE id IN (1, 2)});
is(queued('mail'), '{"id": 1} {"id": 6} {"id": 1}', 'changed input asks again, within the condition');
psql(q{UPDATE people SET company = 'Acme' WHERE id = 1});
is(queued('mail'), '{"id": 1} {"id": 6} {"id": 1} {"id": 1}', 'so does changing it back');
psql(q{DELETE FROM sixtyfour.job WHERE id > 2});

psql(q{ALTER TABLE people RENAME COLUMN company TO firm; ALTER TABLE people RENAME COLUMN vip TO important}, 'alice');
psql(q{INSERT INTO people (name, firm) VALUES ('Dora', 'Acme'), ('Eve', 'Acme')}, 'alice');
is(psql('SELECT body, row_input FROM sixtyfour.job ORDER BY id DESC LIMIT 1'),
	'{"lead": {"name": "Eve", "company": "Acme"}, "mode": "PERSONAL"}|{"name": "Eve", "company": "Acme"}',
	'renamed columns are found by number');
my ($stdout, $stderr);
psql(q{DROP VIEW people_view}, 'alice');
$node->psql('postgres', q{BEGIN; ALTER TABLE people DROP COLUMN firm;
	INSERT INTO people (name) VALUES ('No firm'); SELECT count(*) FROM people WHERE name = 'No firm'; ROLLBACK},
	stdout => \$stdout, stderr => \$stderr);
is($stdout, '1', 'an insert goes on where the enrichment cannot') or diag($stderr);
like($stderr, qr/WARNING:  enrichment "mail" did not see the new rows of table "people": column "company" does not exist\nHINT:  Mend or drop/,
	'and says so');

# a function that the condition calls can be dropped, which is no reason to refuse rows
psql(q{CREATE TABLE picky (id int PRIMARY KEY, name text, email text);
	CREATE FUNCTION wanted(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
	SELECT sixtyfour_create_enrichment('picky', 'picky', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}', condition => 'wanted(name)')}, 'alice');
$node->psql('postgres', q{INSERT INTO picky VALUES (1, 'One');
	ALTER FUNCTION wanted(text) RENAME TO unwanted;
	INSERT INTO picky VALUES (2, 'Two');
	INSERT INTO picky VALUES (3, 'Three'), (1, 'Again') ON CONFLICT DO NOTHING;
	BEGIN; SAVEPOINT s; INSERT INTO picky VALUES (4, 'Four'); ROLLBACK TO s; INSERT INTO picky VALUES (5, 'Five'); COMMIT;
	SELECT string_agg(id::text, ' ' ORDER BY id) FROM picky}, stdout => \$stdout, stderr => \$stderr, on_error_stop => 0);
is($stdout, '1 2 3 5', 'an insert goes on where the condition cannot be evaluated any more') or diag($stderr);
like($stderr, qr/WARNING:  enrichment "picky" did not see the new rows of table "picky": function public\.wanted\(text\) does not exist\nHINT:  Mend or drop/, 'and says why');
is(queued('picky'), '{"id": 1}', 'with nothing queued');
psql(q{ALTER FUNCTION unwanted(text) RENAME TO wanted; INSERT INTO picky VALUES (6, 'Six')});
is(queued('picky'), '{"id": 1} {"id": 6}', 'until it can');
is(psql(q{SELECT sixtyfour_run_enrichment('picky')}, 'alice'), '3', 'what was missed is found');
psql(q{SELECT sixtyfour_drop_enrichment('picky')});

# names that are the same once they are cut to that of a trigger
my $long = 'n' x 70;
psql(qq{CREATE TABLE IF NOT EXISTS lengthy (id int PRIMARY KEY, name text, email text);
	SELECT sixtyfour_create_enrichment('$long$_', 'lengthy', 'find_email', '{"name": "name"}', '{"email": "\$.email[0][0]"}', on_update => true)}) foreach 1, 2;
is(psql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'lengthy'::regclass}), 4, 'enrichments of long names have their triggers');
psql(qq{SELECT sixtyfour_drop_enrichment('${long}1')});
is(psql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'lengthy'::regclass}), 2, 'each its own');
psql(qq{SELECT sixtyfour_drop_enrichment('${long}2'); DROP TABLE lengthy});

fails('a trigger of the wrong kind', q{CREATE TRIGGER wrong AFTER INSERT ON people FOR EACH ROW
	EXECUTE FUNCTION sixtyfour_enrich_trigger('mail'); INSERT INTO people (name) VALUES ('x')},
	'39P01', 'sixtyfour_enrich_trigger() must be called by an AFTER INSERT or AFTER UPDATE trigger');
psql(q{DROP TRIGGER wrong ON people});

$node->psql('postgres', q{CREATE TABLE other (id int PRIMARY KEY, name text, company text, vip bool, email text);
	CREATE TRIGGER t AFTER INSERT ON other REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION sixtyfour_enrich_trigger('mail'); INSERT INTO other VALUES (1, 'x')}, stderr => \$stderr);
like($stderr, qr/enrichment "mail" did not see the new rows of table "other": it is about another table/,
	'an enrichment of another table spends nothing for this one');

# an operator in front of pg_catalog's is not used
psql(q{CREATE SCHEMA evil; CREATE FUNCTION evil.fail(text, text) RETURNS boolean LANGUAGE plpgsql AS
	$$BEGIN RAISE 'as %', current_user; END$$;
	CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.fail);
	CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.fail);
	GRANT USAGE ON SCHEMA evil TO PUBLIC});
psql(q{SET search_path = evil, pg_catalog, public; INSERT INTO public.people (name) VALUES ('Fay'), ('Gil');
	UPDATE public.people SET firm = 'Gamma' WHERE id OPERATOR(pg_catalog.=) 1;
	SELECT public.sixtyfour_run_enrichment('mail')}, 'alice');
is(queued('mail'), '{"id": 1} {"id": 6} {"id": 8} {"id": 9} {"id": 12} {"id": 13} {"id": 1} {"id": 3}',
	'whatever the search_path is');
is(psql(q{BEGIN; INSERT INTO people (name) VALUES ('x'); SHOW search_path; ROLLBACK}), '"$user", public', 'which stays as it is');

# ---- answers into rows ----

psql(q{TRUNCATE sixtyfour.job; DELETE FROM people});
psql(q{INSERT INTO people (name) SELECT 'P' || i FROM generate_series(1, 12) i}, 'alice');
my ($first) = psql('SELECT min(id) FROM people');
my @ids = map { $first + $_ } 0 .. 11;
my @keys = map { qq({"id": $_}) } @ids;

answer('mail', $keys[0], '{"email":[["one@x.example","OK"]]}');
answer('mail', $keys[1], '{"email":[]}');
answer('mail', $keys[2], '{"email":[["",""]]}');
answer('mail', $keys[3], '{"email":[[null]]}');
answer('mail', $keys[4], '{"email":[["gone@x.example"]]}');
psql("DELETE FROM people WHERE id = $ids[4]");
answer('mail', $keys[5], '{"email":[["changed@x.example"]]}');
psql("ALTER TABLE people DISABLE TRIGGER USER; UPDATE people SET firm = 'New' WHERE id = $ids[5];
	UPDATE people SET email = 'old' WHERE id IN ($ids[1], $ids[2], $ids[3]); ALTER TABLE people ENABLE TRIGGER USER");
is(deliver('mail'), join("\n",
		"$keys[0] applied", "$keys[1] applied", "$keys[2] applied", "$keys[3] applied",
		"$keys[4] unapplied 02000 the row is not there any more",
		"$keys[5] unapplied 55000 the row's input has changed since it was asked about"),
	'what became of the answers');
is(psql("SELECT string_agg(coalesce(email, 'NULL'), '|' ORDER BY id) FROM people WHERE id <= $ids[5]"),
	'one@x.example|old||NULL|NULL', 'found; nothing found stays; empty; null; changed stays');
is(queued('mail'), join(' ', @keys[ 6 .. 11 ]), 'a write-back asks nothing');

# a row that is locked
my $locker = $node->background_psql('postgres');
$locker->query_safe("BEGIN; SELECT 1 FROM people WHERE id = $ids[6] FOR UPDATE");
answer('mail', $keys[6], '{"email":[["seven@x.example"]]}');
answer('mail', $keys[7], '{"email":[["eight@x.example"]]}');
psql("SELECT sixtyfour_reapply('mail')");
$node->poll_query_until('postgres', "SELECT email IS NOT NULL FROM people WHERE id = $ids[7]") or die;
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM sixtyfour.job WHERE sqlstate = '55P03'") or die;
is(psql("SELECT delivery, sqlstate, message FROM sixtyfour.job WHERE row_key = '$keys[6]'"),
	'pending|55P03|another transaction has locked the row; it is tried again',
	'a locked row is left for later, the others are not');
psql(q{UPDATE sixtyfour.job SET state = 'cancelled' WHERE state = 'queued'});
($stdout, $stderr) = ('', '');
$node->psql('postgres', q{SELECT sixtyfour_wait_enrichment('mail')}, stderr => \$stderr);
like($stderr, qr/NOTICE:  1 answers wait for rows that other transactions have locked/, 'a wait does not wait for it');
$locker->query_safe('COMMIT');
$locker->quit;
$node->poll_query_until('postgres', "SELECT email = 'seven\@x.example' FROM people WHERE id = $ids[6]")
  or die "the row was not tried again";
pass('and written when it is free');
is(psql("SELECT delivery, sqlstate FROM sixtyfour.job WHERE row_key = '$keys[6]'"), 'applied|', 'once');

# a table that is locked holds back no other
psql(q{CREATE TABLE calm (id int PRIMARY KEY, name text, email text);
	SELECT sixtyfour_create_enrichment('calm', 'calm', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
	INSERT INTO calm VALUES (1, 'Calm')}, 'alice');
psql("UPDATE people SET email = NULL; SELECT sixtyfour_run_enrichment('mail')");
$locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE people IN SHARE MODE');
answer('mail', $keys[9], '{"email":[["ten@x.example"]]}');
answer('calm', '{"id": 1}', '{"email":[["calm@x.example"]]}');
psql(q{SELECT sixtyfour_reapply('mail'), sixtyfour_reapply('calm')});
$node->poll_query_until('postgres', q{SELECT email IS NOT NULL FROM calm}) or die;
$node->poll_query_until('postgres', "SELECT sqlstate = '55P03' FROM sixtyfour.job WHERE row_key = '$keys[9]' AND delivery = 'pending'") or die;
pass('a locked table holds back no other');
$locker->query_safe('COMMIT');
$locker->quit;
$node->poll_query_until('postgres', "SELECT email IS NOT NULL FROM people WHERE id = $ids[9]") or die;
pass('and gets its answers when it is free');

# a later answer is not overwritten by an earlier one
psql(q{TRUNCATE sixtyfour.job; UPDATE people SET email = NULL});
psql(q{SELECT sixtyfour_run_enrichment('mail', 'name = ''P9''')}, 'alice');
psql(q{INSERT INTO sixtyfour.job (priority, run_at, operation, body, fingerprint, server, owner, payer,
	home_system, home_database, enrichment, row_key, row_input)
	SELECT priority, run_at, operation, body, fingerprint, server, owner, payer,
	home_system, home_database, enrichment, row_key, row_input FROM sixtyfour.job});
psql(q{UPDATE sixtyfour.job SET state = 'sending' WHERE id = (SELECT min(id) FROM sixtyfour.job)});
answer('mail', $keys[8], '{"email":[["later@x.example"]]}');
deliver('mail');
psql(q{UPDATE sixtyfour.job SET state = 'queued' WHERE state = 'sending'});
answer('mail', $keys[8], '{"email":[["earlier@x.example"]]}');
is(deliver('mail'), "$keys[8] unapplied 55000 a later answer has been written to the row\n$keys[8] applied",
	'an answer that comes late stays out');
is(psql("SELECT email FROM people WHERE id = $ids[8]"), 'later@x.example', 'and the row keeps the later one');

# ---- types, constraints, triggers of the user's ----

psql(q{
	CREATE DOMAIN score AS int NOT NULL CHECK (VALUE <= 10);
	CREATE TYPE mood AS ENUM ('good', 'bad');
	CREATE TABLE audit (who name, what text, path text);
	CREATE TABLE firms (id int, at timestamptz, name varchar(20), PRIMARY KEY (id, at),
		n int, big bigint, r numeric(6,1), f float8, b boolean, d date, tags text[], nums int[], j jsonb, m mood,
		s score DEFAULT 1, short varchar(3), parent int);
	CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
		IF NEW.n = 666 THEN RAISE 'no such number' USING ERRCODE = 'ZZ666'; END IF;
		INSERT INTO public.audit VALUES (current_user, NEW.name, current_setting('search_path'));
		RETURN NEW; END$$;
	CREATE TRIGGER audit BEFORE UPDATE ON firms FOR EACH ROW EXECUTE FUNCTION audit();
	CREATE TABLE parents (id int PRIMARY KEY);
	ALTER TABLE firms ADD FOREIGN KEY (parent) REFERENCES parents DEFERRABLE INITIALLY DEFERRED;
	SELECT sixtyfour_create_enrichment('firm', 'firms', 'enrich_company', '{"company_name":"name"}',
		'{"n":"$.n", "big":"$.big", "r":"$.r", "f":"$.f", "b":"$.b", "d":"$.d", "tags":"$.tags[*]", "nums":"$.nums",
		  "j":"$.j", "m":"$.m", "s":"$.s", "short":"$.short", "parent":"$.parent"}',
		'{"n":"number of employees"}', if_unchanged => false);
	INSERT INTO firms (id, at, name) SELECT i, '2024-01-01 12:00+02', 'F' || i FROM generate_series(1, 12) i;
}, 'alice');
is(psql(q{SET timezone = 'Asia/Tokyo'; INSERT INTO firms (id, at, name) VALUES (13, '2024-01-01 12:00+09', 'F13');
	SELECT row_key FROM sixtyfour.job ORDER BY id DESC LIMIT 1}),
	'{"at": "2024-01-01T03:00:00Z", "id": 13}', 'a moment is the same in every time zone');
my @firms = map { qq({"id": $_, "at": "2024-01-01T10:00:00Z"}) } 0 .. 12;
answer('firm', $firms[1], '{"n":3,"big":"12","r":4.25,"f":"1.5","b":true,"d":"2024-02-29","tags":["a","b"],"nums":[1,2],"j":{"x":[1]},"m":"good","s":7,"short":"abc"}');
answer('firm', $firms[2], '{"n":"8.0","big":12.5,"r":"9.5","f":2,"b":"Yes","d":"","tags":["[\'a\', \"b\'s\"]"],"nums":"[1, \'2\']","j":"{\'x\': None}","m":"bad","short":""}');
answer('firm', $firms[3], '{"n":"","big":null,"r":"","b":"","tags":"","nums":5,"j":"text","m":""}');
answer('firm', $firms[4], '{"n":"many"}');
answer('firm', $firms[5], '{"short":"abcd"}');
answer('firm', $firms[6], '{"s":11}');
answer('firm', $firms[7], '{"n":666}');
answer('firm', $firms[8], '{"parent":1}');
answer('firm', $firms[9], '{"n":9}');
answer('firm', $firms[10], '{"m":"ugly"}');
answer('firm', $firms[11], '"not an object"');
my $fk = 'insert or update on table "firms" violates foreign key constraint "firms_parent_fkey" (Key (parent)=(1) is not present in table "parents".)';
is(psql("SELECT replace('" . deliver('firm') =~ s/'/''/gr . q{', '"at": "2024-01-01T10:00:00Z", ', '')}), join("\n",
		'{"id": 1} applied', '{"id": 2} applied', '{"id": 3} applied',
		'{"id": 4} unapplied 22P02 invalid input syntax for type integer: "many"',
		'{"id": 5} unapplied 22001 value too long for type character varying(3)',
		'{"id": 6} unapplied 23514 value for domain public.score violates check constraint "score_check"',
		'{"id": 7} unapplied ZZ666 no such number',
		"{\"id\": 8} unapplied 23503 $fk",
		'{"id": 9} applied',
		'{"id": 10} unapplied 22P02 invalid input value for enum public.mood: "ugly"',
		'{"id": 11} applied'),
	'each bad answer has its reason and holds back no other');
is(psql('SELECT n, big, r, f, b, d, tags, nums, j, m, s, short FROM firms WHERE id <= 3 ORDER BY id'), join("\n",
		'3|12|4.3|1.5|t|2024-02-29|{a,b}|{1,2}|{"x": [1]}|good|7|abc',
		q(8|13|9.5|2|t||{a,b's}|{1,2}|{"x": null}|bad|1|),
		'|||||||{5}|"text"||1|'),
	'values become what the columns are');
is(psql(q{SELECT DISTINCT who, path FROM audit}), 'alice|pg_catalog, pg_temp',
	'the table\'s triggers run as its owner, with the search_path pinned');

psql(q{INSERT INTO parents VALUES (1)}, 'alice');
like(deliver('firm'), qr/"id": 8\} applied/, 'reapply writes what is possible now, without a call');

psql(q{INSERT INTO firms (id, at, name) VALUES (20, '2024-01-01 12:00+02', 'F20'), (21, '2024-01-01 12:00+02', 'F21')}, 'alice');
(my $f20 = $firms[1]) =~ s/1,/20,/;
answer('firm', $f20, '{"n":20}');
psql('ALTER TABLE firms DROP COLUMN f', 'alice');
like(deliver('firm'), qr/"id": 20\} unapplied 42703 column "f" of table "firms" does not exist/, 'a dropped column');
psql('ALTER TABLE firms ADD COLUMN f text; ALTER TABLE firms OWNER TO postgres; REVOKE ALL ON firms FROM alice');
like(deliver('firm'), qr/"id": 20\} unapplied 42501 permission denied for table firms/, 'a privilege that was lost');
psql('ALTER TABLE firms OWNER TO alice');
like(deliver('firm'), qr/"id": 20\} applied/, 'and given back');
(my $f21 = $firms[1]) =~ s/1,/21,/;
answer('firm', $f21, '{"n":21}');
psql('DROP TABLE firms', 'alice');
like(deliver('firm'), qr/"id": 21\} unapplied 42P01 the table does not exist any more/, 'a table that was dropped');
fails('running it', q{SELECT sixtyfour_run_enrichment('firm')}, '42P01',
	'the table of enrichment "firm" does not exist any more');
psql(q{SELECT sixtyfour_drop_enrichment('firm')});

# ---- enrichments that lose their owner, or are dropped ----

my $restart = q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sixtyfour writer'};
psql(q{CREATE ROLE carol; CREATE ROLE dave; GRANT ALL ON SCHEMA public TO carol, dave; GRANT USAGE ON FOREIGN SERVER sixtyfour TO carol});
psql(q{CREATE TABLE hers (id int PRIMARY KEY, name text, email text);
	SELECT sixtyfour_create_enrichment('hers', 'hers', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
	SELECT sixtyfour_create_enrichment('hers too', 'hers', 'find_phone', '{"name":"name"}', '{"email":"$.phone"}', payer => 'owner');
	INSERT INTO hers VALUES (1, 'One'), (2, 'Two')}, 'carol');
answer('hers', '{"id": 1}', '{"email":[["one@x.example","OK"]]}');
psql(q{REASSIGN OWNED BY carol TO dave; DROP OWNED BY carol; DROP ROLE carol});
is(deliver('hers'), '{"id": 1} applied', 'the owner was dropped: who has the table now writes');
is(psql('SELECT id, email FROM hers ORDER BY id'), "1|one\@x.example\n2|", 'to the row');
answer('hers', '{"id": 2}', '{"email":[["two@x.example","OK"]]}');
psql('REVOKE UPDATE ON hers FROM dave');
is(deliver('hers'), qq({"id": 1} applied\n{"id": 2} unapplied 42501 permission denied for table hers), 'with no more rights than that role has');
psql('GRANT UPDATE ON hers TO dave');
is(psql(q{SELECT name, owner FROM sixtyfour.enrichments ORDER BY name}, 'dave'), "hers|dave\nhers too|dave", 'that role sees them');
is(psql(q{SELECT what_to_do FROM sixtyfour.attention WHERE kind = 'job' AND operation = 'find_email' AND reason ~ 'hers$'}),
	q(mend the row, then sixtyfour_reapply('hers')), 'what to do');
is(psql(q{SELECT sixtyfour_reapply('hers')}, 'dave'), '1', 'and commands them');
$node->poll_query_until('postgres', q{SELECT email IS NOT NULL FROM hers WHERE id = 2}) or die;
psql(q{INSERT INTO hers VALUES (3, 'Three')}, 'dave');
like(psql(q{SELECT string_agg(sixtyfour_why(j.id), '') FROM sixtyfour.job j JOIN sixtyfour.enrichment e ON e.id = j.enrichment WHERE e.name = 'hers too' AND row_key = '{"id": 3}' AND j.payer::oid NOT IN (SELECT oid FROM pg_roles)}),
	qr/paused/, 'but does not pay for what the other one was to pay for');

psql(q{BEGIN; SELECT answer('hers', '{"id": 3}', '{"email":[["three@x.example"]]}');
	UPDATE sixtyfour.job SET delivery = 'pending' WHERE delivery = 'unapplied' AND row_key = '{"id": 3}';
	SELECT sixtyfour_drop_enrichment('hers'); COMMIT; } . $restart);
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM sixtyfour.job WHERE delivery = 'pending'}) or die;
is(psql(q{SELECT delivery, sqlstate, message FROM sixtyfour.job WHERE row_key = '{"id": 3}' AND operation = 'find_email'}),
	'unapplied|42704|the enrichment was dropped', 'an answer to an enrichment that was dropped');
like(psql(q{SELECT what_to_do FROM sixtyfour.attention WHERE reason = 'the enrichment was dropped'}), qr/^nothing: the enrichment is gone/, 'what to do');
psql(q{SELECT sixtyfour_drop_enrichment('hers too'); DROP TABLE hers}, 'dave');

# ---- people of a company ----

psql(q{
	CREATE TABLE companies (id int PRIMARY KEY, name text, industry text);
	CREATE TABLE contacts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, company_id bigint, full_name text, score numeric, email text,
		UNIQUE (company_id, full_name));
	SELECT sixtyfour_create_enrichment('company', 'companies', 'enrich_company', '{"company_name":"name"}',
		'{"industry":"$.structured_data.industry",
		  "leads":{"table":"contacts","key":{"company_id":"id"},"columns":{"full_name":"$.name","score":"$.score"}}}',
		'{"industry":"industry"}');
	SELECT sixtyfour_create_enrichment('contact', 'contacts', 'find_email', '{"name":"full_name"}', '{"email":"$.email[0][0]"}', payer => 'owner');
	INSERT INTO companies VALUES (1, 'Acme'), (2, 'Beta');
}, 'alice');
is(psql(q{SELECT output #>> '{leads,table}' FROM sixtyfour.enrichment WHERE name = 'company'}), 'public.contacts',
	'the child table is known by its full name');
answer('company', '{"id": 1}', '{"structured_data":{"industry":"Anvils","leads":[{"name":"Ann","score":"9.5"},{"name":"Bob"},{"name":"Ann","score":1},{}]}}');
answer('company', '{"id": 2}', '{"structured_data":{"leads":""}}');
is(deliver('company'), qq({"id": 1} applied\n{"id": 2} applied), 'companies with people');
is(psql('SELECT company_id, full_name, score FROM contacts ORDER BY id'), "1|Ann|9.5\n1|Bob|", 'people are in the child table');
is(psql(q{SELECT row_key, j.payer FROM sixtyfour.job j JOIN sixtyfour.enrichment e ON e.id = j.enrichment AND e.name = 'contact' ORDER BY j.id}),
	qq({"id": 1}|alice\n{"id": 2}|alice), 'and are enriched themselves');
psql(q{UPDATE sixtyfour.job SET delivery = 'unapplied' WHERE delivery = 'applied'});
deliver('company');
is(psql('SELECT count(*) FROM contacts'), '2', 'writing an answer again adds nobody');

# columns of the child table may be called as anything
psql(q{
	CREATE TABLE sites (company_id int, place text, nr text, t text, s text);
	SELECT sixtyfour_create_enrichment('sites', 'companies', 'enrich_company', '{"company_name":"name"}',
		'{"leads":{"table":"sites","key":{"company_id":"id"},"columns":{"place":"$.place","nr":"$.nr","t":"$.t","s":"$.s"}}}',
		'{"industry":"industry"}');
	SELECT sixtyfour_run_enrichment('sites');
}, 'alice');
answer('sites', '{"id": 1}', '{"structured_data":{"leads":[{"place":"Oslo","nr":"2","t":"T"},{"place":"Bern","nr":"1","s":"S"}]}}');
is(deliver('sites'), '{"id": 1} applied', 'people go to columns of any name');
is(psql('SELECT * FROM sites'), "1|Oslo|2|T|\n1|Bern|1||S", 'in their order');
psql(q{SELECT sixtyfour_drop_enrichment('sites'); DROP TABLE sites}, 'alice');

psql(q{CREATE TABLE ring (id int PRIMARY KEY, a text, b text);
	SELECT sixtyfour_create_enrichment('a', 'ring', 'enrich_lead', '{"name":"a"}', '{"b":"$.b"}', '{"b":"b"}', on_update => true)}, 'alice');
fails('a circle', create(q{'b', 'ring', 'enrich_lead', '{"name":"b"}', '{"a":"$.a"}', '{"a":"a"}', on_update => true}),
	'22023', 'enrichments "b" and "a" would set off each other for ever',
	'One writes columns that the other reads; do not let both follow updates.');

# ---- partitions ----

psql(q{
	CREATE TABLE parted (id int, name text, email text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
	CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
	CREATE TABLE part2 (email text, junk int, id int NOT NULL, name text);
	ALTER TABLE part2 DROP COLUMN junk;
	ALTER TABLE parted ATTACH PARTITION part2 FOR VALUES FROM (100) TO (200);
	SELECT sixtyfour_create_enrichment('parted', 'parted', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}', on_update => true);
	INSERT INTO parted VALUES (1, 'a'), (101, 'b');
	INSERT INTO part1 VALUES (2, 'c');
	INSERT INTO part2 (id, name) VALUES (102, 'd');
	CREATE TABLE part3 PARTITION OF parted FOR VALUES FROM (200) TO (300);
	INSERT INTO part3 VALUES (201, 'e');
}, 'alice');
is(queued('parted'), '{"id": 1} {"id": 101} {"id": 2} {"id": 102}', 'direct inserts into partitions are seen, new partitions not');
is(psql(q{SELECT sixtyfour_run_enrichment('parted')}, 'alice'), '1', 'run finds what is missing')
  or diag(queued('parted'));
answer('parted', qq({"id": $_}), qq({"email":[["$_\@x.example"]]})) foreach (1, 102, 201);
deliver('parted');
is(psql('SELECT id, email FROM parted WHERE email IS NOT NULL ORDER BY id'),
	"1|1\@x.example\n102|102\@x.example\n201|201\@x.example", 'answers find their partition');
psql(q{SELECT sixtyfour_drop_enrichment('parted')}, 'alice');
is(psql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('parted'::regclass, 'part1'::regclass, 'part2'::regclass)}),
	'0', 'dropping an enrichment drops all its triggers');

# ---- the whole table ----

psql(q{SELECT sixtyfour_drop_enrichment(name) FROM sixtyfour.enrichment; TRUNCATE sixtyfour.job});
psql(q{
	CREATE TABLE bulk (id int PRIMARY KEY, name text, email text);
	INSERT INTO bulk SELECT i, 'N' || i, CASE WHEN i % 10 = 0 THEN 'x' END FROM generate_series(1, 5000) i;
	SELECT sixtyfour_create_enrichment('bulk', 'bulk', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}', on_insert => false);
}, 'alice');
is(psql(q{SELECT * FROM sixtyfour_estimate('bulk')}, 'alice'), '4500|0|45|22500|22500|00:00:24.6875', 'an estimate');
is(psql(q{SELECT sixtyfour_run_enrichment('bulk', max_rows => 1200)}, 'alice'), '1200', 'some rows');
is(psql(q{SELECT sixtyfour_run_enrichment('bulk', 'id > 4000 AND id IN (SELECT b.id FROM bulk b) -- all')}, 'alice'), '900', 'a filter');
is(psql(q{SELECT sixtyfour_run_enrichment('bulk')}, 'alice'), '2400', 'the rest');
is(psql(q{SELECT sixtyfour_run_enrichment('bulk')}, 'alice'), '0', 'and then nothing');
is(psql(q{SELECT count(DISTINCT row_key), count(*), min(priority) FROM sixtyfour.job}), '4500|4500|200', 'each row once, behind single ones');
is(psql(q{UPDATE sixtyfour.job SET state = 'failed' WHERE (row_key ->> 'id')::int <= 3; SELECT sixtyfour_run_enrichment('bulk')}), '3',
	'those that failed are asked again');
fails('a filter that is a query', q{SELECT sixtyfour_run_enrichment('bulk', 'true) FROM secret WHERE (true')},
	'42601', 'the filter must be one boolean expression');
fails('a filter that is two', q{SELECT sixtyfour_run_enrichment('bulk', 'true) UNION SELECT (true')},
	'42601', 'the filter must be one boolean expression');
psql('CREATE TABLE secret (id int)');
fails('a filter reads as the caller', q{SET ROLE alice; SELECT sixtyfour_run_enrichment('bulk', 'id IN (SELECT id FROM secret)')},
	'42501', 'permission denied for table secret');
fails('max_rows', q{SELECT sixtyfour_run_enrichment('bulk', max_rows => -1)}, '22023', 'max_rows must not be negative');
fails('an unknown name', q{SELECT sixtyfour_run_enrichment('none')}, '42704', 'enrichment "none" does not exist');
foreach my $command ("run_enrichment('bulk')", "drop_enrichment('bulk')", "reapply('bulk')", "wait_enrichment('bulk')")
{
	fails("not the owner: $command", "SET ROLE bob; SELECT sixtyfour_$command", '42501', 'must be owner of enrichment "bulk"');
}

# ---- once, whatever happens ----

psql(q{
	CREATE TABLE counted (id int PRIMARY KEY, name text, email text, writes int DEFAULT 0);
	CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
		PERFORM count(*) FROM pg_catalog.generate_series(1, 20000); NEW.writes := OLD.writes + 1; RETURN NEW; END$$;
	SELECT sixtyfour_create_enrichment('counted', 'counted', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
	INSERT INTO counted SELECT i, 'C' || i FROM generate_series(1, 1500) i;
	CREATE TRIGGER count_writes BEFORE UPDATE ON counted FOR EACH ROW EXECUTE FUNCTION count_writes();
}, 'alice');
psql(q{SELECT answer('counted', jsonb_build_object('id', id), '{"email":[["x@x.example"]]}') FROM counted;
	SELECT sixtyfour_reapply('counted')});
foreach my $applied (200, 600)
{
	$node->poll_query_until('postgres', "SELECT count(*) >= $applied FROM counted WHERE writes > 0") or die;
	if ($applied == 600)
	{
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		psql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sixtyfour writer'});
	}
}
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM sixtyfour.job WHERE delivery = 'pending'}) or die;
is(psql('SELECT writes, count(*) FROM counted GROUP BY writes'), '1|1500',
	'killed and crashed writers write each answer exactly once');
psql(q{SELECT sixtyfour_drop_enrichment('counted'); DELETE FROM sixtyfour.job WHERE message IS NULL AND delivery = 'applied'});

# ---- waiting, seeing, dropping ----

fails('waiting for one\'s own transaction', q{BEGIN; UPDATE sixtyfour.job SET state = 'failed' WHERE row_key = '{"id": 7}';
	SAVEPOINT s; SELECT sixtyfour_run_enrichment('bulk'); RELEASE s; SELECT sixtyfour_wait_enrichment('bulk')},
	'25001', 'cannot wait for enrichment "bulk" in the transaction that queued its rows', 'Nothing is sent before COMMIT.');
fails('waiting too long', q{SELECT sixtyfour_wait_enrichment('bulk', '100 ms')}, '57014',
	'enrichment "bulk" was not done before the timeout');
answer('bulk', '{"id": 11}', '{"email":[["11@x.example"]]}');
deliver('bulk');
is(psql('SELECT name, target, operation, owner, total, queued, succeeded, failed, unapplied, cents FROM sixtyfour.enrichments', 'alice'),
	'bulk|bulk|find_email|alice|4503|4499|1|3|0|5', 'its owner sees how far it is');
is(psql('SELECT count(*) FROM sixtyfour.enrichments', 'bob'), '0', 'others do not');
psql('GRANT pg_monitor TO bob');
is(psql('SELECT count(*) FROM sixtyfour.enrichments', 'bob'), '1', 'pg_monitor does');
psql(q{SELECT sixtyfour_drop_enrichment('bulk')}, 'alice');
is(psql(q{SELECT state, count(*) FROM sixtyfour.job GROUP BY state ORDER BY state}), "cancelled|4499\nfailed|3\nsucceeded|1",
	'dropping cancels what is not sent');
psql(q{SELECT sixtyfour_wait_enrichment(name) FROM sixtyfour.enrichment});

is(psql('SELECT count(*) FROM sixtyfour.job WHERE into_table IS NOT NULL'), '0', 'rows of an enrichment go to no other table');

done_testing();
