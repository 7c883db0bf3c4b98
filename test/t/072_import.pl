# Rows of searches, exports and runs of workflows into tables: the writer fetches
# them and inserts them as the job's owner.  They come once or not at all,
# whatever is killed; and what stands in their way is told, and tried again.
#
# The library is built with points at which a process can be made to fail.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

use PostgreSQL::Test::Utils;
use SixtyfourTest;

# a step that hangs is not waited for until the end of time
alarm 600;

my $true = JSON::PP::true;
my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good,api_other');
my $node = SixtyfourTest::cluster('import', $mock,
	conf   => SixtyfourTest::fault_settings() . "restart_after_crash = on\nautovacuum = off\nshared_buffers = 16MB\n",
	server => "requests_per_minute '0'");
my $faults = SixtyfourTest::fault_folder($node);

$mock->settings({ task_seconds => 0.05, search_limit => 100 });

sub psql
{
	my ($sql, $role) = @_;
	return $node->safe_psql('postgres', ($role ? "SET ROLE $role;\n" : '') . $sql);
}

sub wait_until
{
	my ($condition, $what) = @_;
	$node->poll_query_until('postgres', "SELECT $condition")
	  or die "gave up waiting for $what: "
	  . psql(q{SELECT string_agg(concat_ws(' ', id, state, delivery, sqlstate, message), E'\n' ORDER BY id) FROM sixtyfour.job});
	return;
}

# A search of alice's whose rows go into a table; returns the job
sub search
{
	my ($query, $table, $more) = @_;
	return psql("SELECT sixtyfour_search_async('$query', into_table => '$table'" . ($more // '') . ')', 'alice');
}

# The same, of which the service says that it found this
sub search_for
{
	my ($query, $table, $csv) = @_;
	$mock->rule({ match => { method => 'POST', body_contains => qq("$query") }, result_csv => $csv });
	return search($query, $table);
}

# Wait until what becomes of the rows is known: "delivery sqlstate message"
sub ended
{
	my ($job) = @_;
	wait_until("state = 'succeeded' AND delivery NOT IN ('none', 'pending') FROM sixtyfour.job WHERE id = $job", "the rows of job $job");
	return fate($job);
}

# Wait until they are held up, which is told likewise
sub held_up
{
	my ($job) = @_;
	wait_until("delivery = 'pending' AND sqlstate IS NOT NULL FROM sixtyfour.job WHERE id = $job", "trouble of job $job");
	return fate($job);
}

sub fate { return psql("SELECT concat_ws(' ', delivery, sqlstate, message) FROM sixtyfour.job WHERE id = $_[0]"); }

# What was postponed is due now.
sub hurry
{
	my ($job) = @_;
	psql("SELECT sixtyfour_retry($job)", 'alice');
	return;
}

sub why { return psql("SELECT sixtyfour_why($_[0])"); }
sub writer { return psql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sixtyfour writer'}); }

# Nothing that costs was asked twice
sub asked_once
{
	my ($what) = @_;
	is_deeply($mock->summary->{duplicates}, {}, "$what: nothing is paid twice");
	return;
}

psql(q{
	CREATE ROLE alice;
	CREATE ROLE bob;
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO alice, bob;
	GRANT CREATE, USAGE ON SCHEMA public TO alice, bob;
});

# ---- the good case ----

psql(q{
	CREATE TABLE people (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, title text, company text, website text,
		location text, summary text, score numeric, added_by text DEFAULT current_user);
}, 'alice');
my $job = search('good', 'people');
like(psql("SELECT sixtyfour_wait($job)", 'alice'), qr/resource_handle_id/, 'a wait for a search returns its status');
is(fate($job), 'applied 25 rows were inserted; the table has no column "linkedin_url"', 'its rows are in the table');
is(why($job), 'It succeeded: 25 rows were inserted; the table has no column "linkedin_url".', 'as sixtyfour_why says');
is(psql(q{SELECT count(*), count(score), min(id), max(id), string_agg(DISTINCT added_by, ',') FROM people}), '25|25|1|25|alice', 'all of them, in order, by their owner');
is(psql(q{SELECT count(*) FROM people WHERE summary LIKE E'First line\nsecond line'}) > 0, 1, 'quoted line ends and all');
is(psql(q{SELECT string_agg(name, '/' ORDER BY id) = (SELECT string_agg(r->>'name', '/' ORDER BY n) FROM sixtyfour_search('good') WITH ORDINALITY AS s (r, n)) FROM people}),
	't', 'those that sixtyfour_search() returns');

$mock->reset_ledger;

# ---- runs of workflows, exports, few rows ----

my $flow = psql(q{SELECT sixtyfour_create_workflow('flow', '{"blocks":[{"block_id":"a","block_type":"trigger","block_name":"webhook","sequence_number":0,"specs":{}},
	{"block_id":"b","block_type":"action","block_name":"find_email","sequence_number":1,"specs":{}}],"edges":[{"from_block_id":"a","to_block_id":"b"}]}')->>'id'}, 'alice');

sub run_flow
{
	my ($name, $table) = @_;
	return psql(qq{SELECT sixtyfour_run_workflow_async('$flow', '[{"name":"$name 1"},{"name":"$name 2"}]', '$table')}, 'alice');
}

psql('CREATE TABLE runs (name text, email text, note text)', 'alice');
psql('CREATE TABLE exported (name text, company text)', 'alice');
my %jobs = (
	file   => run_flow('File', 'runs'),
	none   => search_for('none', 'people', "name,company\n"),
	empty  => search_for('empty', 'people', ''),
	one    => search_for('one', 'exported', "name,company\nAda,Acme\n"),
	nofile => search('no file', 'people', q(, options => '{"output_mode":"query_only"}')),
	export => psql(q{SELECT sixtyfour_export_search_async(parsed_query => '{"query":"exported"}', mode => 'people', max_results => 7, into_table => 'exported')}, 'alice'));
is(ended($jobs{file}), 'applied 2 rows were inserted', 'a run of a workflow');
$mock->settings({ last_result => 'inline' });
is(ended(run_flow('Inline', 'runs')), 'applied 2 rows were inserted', 'one whose rows come with the answer');
$mock->settings({ last_result => 'file' });
is(psql(q{SELECT string_agg(name, ', ' ORDER BY name), count(email) FROM runs}), 'File 1, File 2, Inline 1, Inline 2|4', 'all are there');
is(ended($jobs{export}), 'applied 7 rows were inserted; the table has no column "title", "website", "location", "summary", "score", "linkedin_url"', 'an export');
is(ended($jobs{none}), 'applied 0 rows were inserted', 'a file without rows');
is(ended($jobs{empty}), 'applied 0 rows were inserted', 'an empty file');
is(ended($jobs{one}), 'applied 1 row was inserted', 'one row');
is(ended($jobs{nofile}), 'applied 0 rows were inserted', 'a search without a file');

# ---- columns and types ----

psql(q{
	CREATE TYPE mood AS ENUM ('good', 'bad');
	CREATE DOMAIN short AS varchar(4) CHECK (VALUE <> 'no');
	CREATE TABLE kinds (t text, i int, d date, j jsonb, a text[], n int[], m mood, s short, b boolean, "Odd ""name""" text,
		g int GENERATED ALWAYS AS (i * 2) STORED, always int GENERATED ALWAYS AS IDENTITY, gone int, def int DEFAULT 7);
	ALTER TABLE kinds DROP COLUMN gone;
}, 'alice');
$jobs{alien} = search_for('alien', 'kinds', "x,y\n1,2\n");
is(ended(search_for('kinds', 'kinds', qq{t,i,d,j,a,n,m,s,b,"Odd ""name""",g,always,gone,T,a,\n}
		  . qq{x,1,2024-02-29,"{""k"":[1]}","[""p"",""q""]","[1, 2]",good,abcd,yes,odd,9,9,9,9,9,9\n}
		  . qq{"","","","","","","","","","","","","","",,\n}
		  . qq{,,,,,,,,,,,,,,,\n})),
	'applied 3 rows were inserted; the table has no column "g", "always", "gone", "T", "a_2", ""', 'columns go by name');
is(psql(q{SELECT t, i, d, j, a, n, m, s, b, "Odd ""name""", g, always, def FROM kinds ORDER BY always}),
	qq{x|1|2024-02-29|{"k": [1]}|{p,q}|{1,2}|good|abcd|t|odd|2|1|7\n} . "|||||||||||2|7\n" . '|||||||||||3|7', 'texts become what the types make of them');
is(psql(q{SELECT string_agg(coalesce(t, 'NULL'), ' ' ORDER BY always) FROM kinds}), 'x  NULL', 'an empty text is one to a text alone');
is(ended($jobs{alien}), 'unapplied 42703 no column of table "kinds" has the name of one of the file: 0 rows were inserted; the table has no column "x", "y"', 'no column fits');

# ---- what is wrong with the rows: none is inserted ----

psql(q{CREATE TABLE strict (id int PRIMARY KEY, name text NOT NULL CHECK (name <> 'bad'))}, 'alice');
my @cases = (
	[ 'ragged', "id,name\n1,a\n2\n", '08P01 line 3 of the CSV text has 1 field instead of 2' ],
	[ 'quote', qq{id,name\n1,a\n2,"b\n}, '08P01 unterminated CSV quoted field (CSV line 3)' ],
	[ 'cast', "id,name\n1,a\nmany,b\n", '22P02 invalid input syntax for type integer: "many"; it is among the records of lines 2 to 3' ],
	[ 'null', "id,name\n1,a\n2,b\n3,\n", '23502 null value in column "name" of relation "strict" violates not-null constraint (Failing row contains (3, null).); it is among the records of lines 2 to 4' ],
	[ 'check', "id,name\n1,bad\n", '23514 new row for relation "strict" violates check constraint "strict_name_check" (Failing row contains (1, bad).); it is among the records of lines 2 to 2' ],
	[ 'twice', "id,name\n1,a\n1,b\n", '23505 duplicate key value violates unique constraint "strict_pkey" (Key (id)=(1) already exists.); it is among the records of lines 2 to 3' ],
	[ 'late', "id,name\n" . join('', map { "$_,n\n" } 1 .. 600, 5), '23505 duplicate key value violates unique constraint "strict_pkey" (Key (id)=(5) already exists.); it is among the records of lines 502 to 602' ]);
$jobs{ $_->[0] } = search_for($_->[0], 'strict', $_->[1]) foreach @cases;
is(ended($jobs{ $_->[0] }), "unapplied $_->[2]", "a file: $_->[0]") foreach @cases;
is(psql('SELECT count(*) FROM strict'), '0', 'nothing of them is in the table');
is(why($jobs{ragged}), "It succeeded, but its rows could not be inserted into public.strict: line 3 of the CSV text has 1 field instead of 2; mend it, then use sixtyfour_retry($jobs{ragged}).",
	'sixtyfour_why says what to do');
is(psql("SELECT kind, operation, reason, what_to_do FROM sixtyfour.attention WHERE id = $jobs{ragged}", 'alice'),
	"job|search|line 3 of the CSV text has 1 field instead of 2|mend it, then sixtyfour_retry($jobs{ragged})", 'as does sixtyfour.attention');
is(psql("GRANT pg_monitor TO bob; SET ROLE bob; SELECT what_to_do FROM sixtyfour.attention WHERE id = $jobs{ragged}"),
	"mend it, then as alice: sixtyfour_retry($jobs{ragged})", 'and who may');
my $session = SixtyfourTest::Session->new($node);
$session->value('SET ROLE alice');
my $reply = $session->query("SELECT sixtyfour_wait($jobs{ragged}) IS NOT NULL");
is($reply->{rows}[0][0], 't', 'a wait returns the answer');
is($reply->{notices}[0]{message}, "job $jobs{ragged} has its answer, but its rows could not be inserted", 'and says that its rows are not there');
is($reply->{notices}[0]{detail}, 'line 3 of the CSV text has 1 field instead of 2', 'and why');

# mended, and tried again
psql('ALTER TABLE strict DROP CONSTRAINT strict_pkey; ALTER TABLE strict ALTER id TYPE text, ALTER name DROP NOT NULL', 'alice');
is(psql("SELECT sixtyfour_retry($jobs{$_})", 'alice'), 't', "$_ is tried again") foreach qw(cast null twice ragged);
is(ended($jobs{cast}), 'applied 2 rows were inserted', 'and inserted');
is(ended($jobs{null}), 'applied 3 rows were inserted', 'as is the next');
is(ended($jobs{twice}), 'applied 2 rows were inserted', 'and the next');
like(ended($jobs{ragged}), qr/^unapplied 08P01/, 'what is as it was is not');
is(psql('SELECT count(*) FROM strict'), '7', 'each once');
is(psql("SELECT sixtyfour_retry($jobs{cast})", 'alice'), 'f', 'what is inserted is not tried again');
psql('REVOKE pg_monitor FROM bob');
is(SixtyfourTest::sql_error($node, "SET ROLE bob; SELECT sixtyfour_retry($jobs{quote})")->{message}, "permission denied for job $jobs{quote}", 'nor by others');
asked_once('files');

# ---- what is in the way of the rows for good ----

sub set_conf
{
	my ($name, $value) = @_;
	psql("ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

# Searches whose rows cannot be fetched before clear_rules, by name, each into a
# table of that name
my %stuck;

sub stuck
{
	my (@names) = @_;
	$mock->rule({ match => { path => '/search/download' }, status => 503 });
	%stuck = map { $_ => search_for($_, $_, "name\n$_\n") } @names;
	is(held_up($stuck{$_}), q(pending 38000 search_download: the service failed (HTTP status 503: Asked by a rule)), "$_ is held up")
	  foreach @names;
	return;
}

my @gone = qw(dropped revoked schemaless hidden no_owner no_result unknown senseless);
psql('CREATE ROLE carol; GRANT USAGE ON FOREIGN SERVER sixtyfour TO carol; CREATE SCHEMA closed AUTHORIZATION bob; GRANT USAGE ON SCHEMA closed TO alice');
psql(join('; ', map { "CREATE TABLE $_ (name text); GRANT INSERT ON $_ TO alice" } 'closed.schemaless', @gone), 'bob');
psql('GRANT INSERT ON no_owner TO carol', 'bob');
stuck(@gone);
like(why($stuck{dropped}), qr/^It succeeded; its rows are tried again at 20.*: search_download: the service failed \(HTTP status 503: Asked by a rule\)\.$/, 'sixtyfour_why says so');
psql("REVOKE INSERT ON no_owner FROM carol; REVOKE USAGE ON FOREIGN SERVER sixtyfour FROM carol;
	UPDATE sixtyfour.job SET owner = 'carol' WHERE id = $stuck{no_owner};
	UPDATE sixtyfour.job SET into_table = 'closed.schemaless' WHERE id = $stuck{schemaless};
	DELETE FROM sixtyfour.result WHERE id = (SELECT result FROM sixtyfour.job WHERE id = $stuck{no_result});
	DROP ROLE carol; REVOKE USAGE ON SCHEMA closed FROM alice; REVOKE INSERT ON revoked FROM alice; DROP TABLE dropped;
	ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON hidden WITH CHECK (name <> 'hidden')");
$mock->clear_rules;
is(ended($stuck{dropped}), 'unapplied 42P01 the table does not exist any more', 'a table that was dropped');
is(ended($stuck{revoked}), 'unapplied 42501 permission denied for table revoked', 'a right that was revoked');
is(ended($stuck{schemaless}), 'unapplied 42501 permission denied for schema closed; it is among the records of lines 2 to 2', 'that to the schema');
is(ended($stuck{hidden}), 'unapplied 42501 new row violates row-level security policy for table "hidden"; it is among the records of lines 2 to 2', 'a policy');
is(ended($stuck{no_owner}), 'unapplied 42704 the role that owns the job does not exist any more', 'a role that was dropped');
is(ended($stuck{no_result}), 'unapplied 02000 the result is not in the ledger any more', 'a result that is gone');
psql('GRANT INSERT ON revoked TO alice; ALTER POLICY p ON hidden WITH CHECK (true)');
psql("SELECT sixtyfour_retry($stuck{$_})", 'alice') foreach qw(revoked hidden);
is(ended($stuck{revoked}), 'applied 1 row was inserted', 'a right that was granted again');
is(ended($stuck{hidden}), 'applied 1 row was inserted', 'a policy that was changed');

foreach my $case (
	[ 'not known', { status => 404 }, '02000 search_download: the service does not know what was asked for (HTTP status 404: Asked by a rule)' ],
	[ 'senseless', { answer => { hello => 'world' } }, q(08P01 search_download: the service's answer cannot be used (It has no address of the file.)) ])
{
	my ($name, $rule, $reason) = @$case;
	$mock->reset_ledger;
	$mock->rule({ match => { path => '/search/download' }, %$rule });
	is(ended(search($name, 'people')), "unapplied $reason", "a file that is $name");
	is(scalar @{ $mock->ledger(path => '/search/download') }, 3, 'was asked for a few times');
	$mock->clear_rules;
}

# ---- what passes ----

my @later = qw(refused limited key mapping network expired cut locked);
psql(join('; ', map { "CREATE TABLE $_ (name text)" } @later), 'alice');
stuck(qw(refused key));
psql(q{ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key 'api_unknown')});
$mock->clear_rules;
wait_until("sqlstate = '28000' FROM sixtyfour.job WHERE id = $stuck{key}", 'a refusal');
like(fate($stuck{key}), qr/^pending 28000 search_download: the service refuses the API key/, 'a key that is refused');
psql('DROP USER MAPPING FOR PUBLIC SERVER sixtyfour');
hurry($stuck{key});
wait_until("message ~ 'mapping' FROM sixtyfour.job WHERE id = $stuck{key}", 'a missing mapping');
is(fate($stuck{key}), 'pending 28000 user mapping not found for "alice"', 'an account that is missing');
psql(q{CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (api_key 'api_good')});
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $url = $mock->url;
psql("ALTER SERVER sixtyfour OPTIONS (SET base_url 'http://127.0.0.1:$port')");
hurry($stuck{key});
wait_until("sqlstate = '08001' FROM sixtyfour.job WHERE id = $stuck{key}", 'a missing service');
like(fate($stuck{key}), qr/^pending 08001 search_download: could not connect to the service \(/, 'a service that is away');
psql("ALTER SERVER sixtyfour OPTIONS (SET base_url '$url')");
hurry($_) foreach @stuck{qw(refused key)};
is(ended($stuck{key}), 'applied 1 row was inserted', 'once all that is mended the rows are here');
is(ended($stuck{refused}), 'applied 1 row was inserted', 'all of them');

$mock->rule({ match => { path => '/search/download' }, status => 429, headers => { 'Retry-After' => '1' }, times => 1 });
$job = search_for('limited', 'limited', "name\nx\n");
like(held_up($job), qr/^pending 53400 /, 'a rate limit');
is(ended($job), 'applied 1 row was inserted', 'passes by itself');
$mock->reset_ledger;
$mock->rule({ match => { path => '/files/*' }, fault => 'expired_address', times => 2 });
$job = search_for('expired', 'expired', "name\nx\n");
is(ended($job), 'applied 1 row was inserted', 'addresses that have expired');
is(scalar @{ $mock->ledger(path => '/search/download') }, 3, 'are asked for again');
$mock->rule({ match => { path => '/files/*' }, fault => 'expired_address', times => 3 });
$mock->rule({ match => { path => '/files/*' }, fault => 'cut', times => 1 });
$job = search_for('cut', 'cut', "name\n" . "x\n" x 1000);
is(held_up($job), 'pending 38000 could not download the results: the addresses that the service gives have expired already', 'for a while');
wait_until("sqlstate = '08006' FROM sixtyfour.job WHERE id = $job", 'a lost connection');
like(fate($job), qr/^pending 08006 could not download the results: /, 'then the file breaks off');
is(ended($job), 'applied 1000 rows were inserted', 'then it comes');
is(psql('SELECT count(*) FROM cut'), '1000', 'once');

my $gate = SixtyfourTest::Session->new($node);
stuck('locked');
$job = $stuck{locked};
$gate->value('BEGIN; LOCK TABLE locked');
$mock->clear_rules;
wait_until("sqlstate = '55P03' FROM sixtyfour.job WHERE id = $job", 'a lock');
is(fate($job), 'pending 55P03 another transaction has locked the table; it is tried again', 'a table that is locked');
$reply = $session->query("SELECT sixtyfour_wait($job) IS NOT NULL");
is_deeply([ map { "$_->{message} ($_->{detail})" } @{ $reply->{notices} } ],
	[ "job $job has its answer, but its rows are held up, and are inserted later (another transaction has locked the table; it is tried again)" ], 'a wait says so');
$gate->value('COMMIT');
is(ended($job), 'applied 1 row was inserted', 'and is unlocked');

set_conf('temp_file_limit', '1MB');
$mock->rule({ match => { method => 'POST', body_contains => '"large"' }, result_rows => 20000 });
psql('CREATE TABLE large (row_number int, name text, title text)', 'alice');
$job = search('large', 'large');
is(held_up($job), 'pending 53400 temporary file size exceeds temp_file_limit (1024kB)', 'a file for which there is no room');
set_conf('temp_file_limit', '-1');
hurry($job);
like(ended($job), qr/^applied 20000 rows were inserted; /, 'there is room');
is(psql('SELECT count(*), count(DISTINCT row_number), min(row_number), max(row_number) FROM large'), '20000|20000|1|20000', 'for each row');
asked_once('passing trouble');

# ---- triggers that take long, or will not end ----

psql(q{
	CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_catalog.pg_advisory_xact_lock_shared(64);
				RETURN NEW;
			EXCEPTION WHEN query_canceled THEN
				IF NEW.name <> 'deaf' THEN
					RAISE;
				END IF;
			END;
		END LOOP;
	END$$;
	CREATE TABLE gated (name text);
	CREATE TRIGGER t BEFORE INSERT ON gated FOR EACH ROW EXECUTE FUNCTION wait_at_gate();
}, 'alice');
$gate->value('SELECT pg_advisory_lock(64)');
set_conf('sixtyfour.write_timeout', '500ms');
my $deaf = search_for('deaf', 'gated', "name\ndeaf\n");
$job = search_for('slow', 'gated', "name\nslow\n");
is(ended($job), 'unapplied 57014 writing it took longer than sixtyfour.write_timeout (500 ms); it is among the records of lines 2 to 2', 'a slow trigger');
is(ended($deaf), 'unapplied 57014 a trigger of the table did not end when it was cancelled', 'one that will not end');
$gate->value('SELECT pg_advisory_unlock(64)');
set_conf('sixtyfour.write_timeout', '20s');
psql("SELECT sixtyfour_retry($_)", 'alice') foreach $deaf, $job;
is(ended($_), 'applied 1 row was inserted', 'once it is fast the rows are here') foreach $deaf, $job;
is(psql('SELECT string_agg(name, \' \' ORDER BY name) FROM gated'), 'deaf slow', 'each once');

# ---- while the network is waited for ----

psql(q{
	CREATE TABLE leads (id int PRIMARY KEY, name text, email text);
	SELECT sixtyfour_create_enrichment('leads', 'leads', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
	CREATE TABLE held (name text);
}, 'alice');
$mock->settings({ found => 'all', quirks => 'none' });
$mock->rule({ match => { path => '/files/*' }, hold => $true });
$job = search_for('held', 'held', "name\nx\n");
$mock->wait_for(held => 1);
is(why($job), 'It succeeded; its rows are on their way into public.held.', 'rows are on their way');
is(psql(q{SELECT count(*), count(backend_xmin), count(backend_xid), count(xact_start) FROM pg_stat_activity WHERE backend_type = 'sixtyfour writer'}), '1|0|0|0',
	'a writer that waits for the network has no transaction');
is(psql(q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE backend_type = 'sixtyfour writer' AND NOT l.fastpath AND l.locktype <> 'advisory'}), '0', 'and no locks');
is(psql(q{SELECT state, in_flight FROM sixtyfour.workers WHERE kind = 'writer'}), 'fetching rows|1', 'sixtyfour.workers says what it does');
psql(q{INSERT INTO leads VALUES (1, 'Ada')}, 'alice');
wait_until('email IS NOT NULL FROM leads', 'another answer');
pass('other answers are written meanwhile');
my $free = search('free', 'people');
$mock->wait_for(held => 2);
my $began = time;
$node->restart;
cmp_ok(time - $began, '<', 20, 'the server can stop');
$mock->clear_rules;
$mock->control('POST', 'release');
is(ended($job), 'applied 1 row was inserted', 'and the rows come later');
like(ended($free), qr/^applied 25 rows/, 'all of them');
is(psql('SELECT count(*) FROM held'), '1', 'once');

# a job that is erased meanwhile
$session = SixtyfourTest::Session->new($node);
$mock->rule({ match => { path => '/files/*' }, hold => $true });
$job = search_for('erased', 'held', "name\nx\n");
$mock->wait_for(held => 1);
psql("DELETE FROM sixtyfour.job WHERE id = $job");
$mock->clear_rules;
$mock->control('POST', 'release');
is(ended(search_for('next', 'held', "name\ny\n")), 'applied 1 row was inserted', 'a job that is erased is left alone');
is(psql('SELECT string_agg(name, \' \') FROM held'), 'x y', 'and nothing of it inserted');

# a trigger that asks the service itself, while another import waits for its answer
psql(q{
	CREATE FUNCTION ask() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.sixtyfour_usage(); RETURN NULL; END $$;
	CREATE TABLE asking (name text);
	CREATE TRIGGER t AFTER INSERT ON asking FOR EACH STATEMENT EXECUTE FUNCTION ask();
}, 'alice');
$mock->reset_ledger;
$mock->rule({ match => { path => '/search/download' }, hold => $true, times => 1 });
$job = search_for('waiting', 'held', "name\nw\n");
$mock->wait_for(held => 1);
$mock->rule({ match => { path => '/api/usage' }, delay => 1, times => 1 });
my $asking = search_for('asking', 'asking', "name\na\n");
$mock->wait_for(count => 1, path => '/api/usage', stage => 'received_headers');
$mock->control('POST', 'release');
is(ended($_), 'applied 1 row was inserted', 'a trigger that asks the service takes nobody\'s answer') foreach $asking, $job;
$mock->clear_rules;

# ---- exactly once ----

# The same search each time, which is stored, into an empty table
psql('CREATE TABLE counted (n int)', 'alice');
$mock->rule({ match => { method => 'POST', body_contains => '"counted"' }, result_csv => "n\n" . join('', map { "$_\n" } 1 .. 1200) });

sub count
{
	psql('TRUNCATE counted');
	return search('counted', 'counted');
}

sub counted
{
	my ($what) = @_;
	is(ended($job), 'applied 1200 rows were inserted', $what);
	is(psql('SELECT count(*), count(DISTINCT n) FROM counted'), '1200|1200', 'rows come once');
	return;
}

# Wait until the server has started again after this place in its log.
sub wait_for_recovery
{
	my ($log) = @_;
	SixtyfourTest::poll_until(sub { slurp_file($node->logfile, $log) =~ /database system is ready to accept/ })
	  or die 'the server does not come back';
	return;
}

sub arm { my ($point, $action) = @_; append_to_file("$faults/$point", "$action 1\n"); return; }

my @points = qw(import-begin import-inside import-before-commit import-after);
foreach my $point (@points)
{
	foreach my $action (qw(kill error exit))
	{
		my $log = -s $node->logfile;
		arm($point, $action);
		$job = count();
		wait_for_recovery($log) if $action eq 'kill';
		SixtyfourTest::poll_until(sub { !-e "$faults/$point" }) or die "nobody comes to $point";
		counted("$action at $point");
	}
}
foreach my $point (@points)
{
	arm($point, 'pause');
	$job = count();
	SixtyfourTest::poll_until(sub { -e "$faults/$point.paused" }) or die "nobody comes to $point";
	$node->stop('immediate');
	unlink "$faults/$point.paused";
	$node->start;
	counted("a crash at $point");
}
$mock->rule({ match => { path => '/files/*' }, hold => $true });
$job = count();
$mock->wait_for(held => 1);
my $log = -s $node->logfile;
kill 'KILL', writer();
wait_for_recovery($log);
$mock->clear_rules;
$mock->control('POST', 'release');
counted('a writer that is killed while it fetches');
asked_once('kills');

# ---- leaving, pruning, copies ----

psql('CREATE TABLE asleep (name text)', 'alice');
set_conf('sixtyfour.idle_timeout', '1s');
stuck('asleep');
$node->poll_query_until('postgres', q{SELECT pid IS NULL FROM sixtyfour.workers WHERE kind = 'writer'}) or die 'the writer does not leave';
psql(q{UPDATE sixtyfour.job SET enqueued_at = enqueued_at - interval '1 year', finished_at = finished_at - interval '1 year';
	UPDATE sixtyfour.result SET created_at = created_at - interval '10 years'; UPDATE sixtyfour.state SET pruned_at = NULL});
hurry($stuck{asleep});
wait_until("count(*) = 0 FROM sixtyfour.job WHERE delivery IN ('applied', 'none') AND enrichment IS NULL", 'pruning');
is(psql(q{SELECT DISTINCT delivery FROM sixtyfour.job WHERE enrichment IS NULL ORDER BY 1}), "pending\nunapplied", 'what is not in its table is not pruned');
is(psql(q{SELECT count(*) FROM sixtyfour.job j WHERE delivery <> 'none' AND NOT EXISTS (SELECT FROM sixtyfour.result r WHERE r.id = j.result)}), '1', 'nor are its answers');
$mock->clear_rules;
hurry($stuck{asleep});
is(ended($stuck{asleep}), 'applied 1 row was inserted', 'a writer that left comes back');
set_conf('sixtyfour.idle_timeout', '5min');

psql('CREATE DATABASE second');
SixtyfourTest::install($node, 'second', $mock, server => "requests_per_minute '0'");
$mock->rule({ match => { path => '/search/download' }, status => 503 });
$mock->rule({ match => { method => 'POST', body_contains => '"both"' }, result_csv => "name\nboth\n" });
my $sql = sub { return $node->safe_psql($_[0], $_[1]); };
my $other = $sql->('second', q{CREATE TABLE held (name text); SELECT sixtyfour_search_async('both', into_table => 'held')});
$node->poll_query_until('second', q{SELECT sqlstate = '38000' FROM sixtyfour.job}) or die 'the rows are not held up';
psql('CREATE DATABASE copy TEMPLATE second');
$mock->clear_rules;
$node->poll_query_until('second', q{SELECT delivery = 'applied' FROM sixtyfour.job}) or die 'no rows';
$node->poll_query_until('copy', q{SELECT state = 'idle' FROM sixtyfour.workers WHERE kind = 'writer' AND database = 'copy'}) or die 'no writer';
is($sql->('copy', "SELECT sixtyfour_why($other)"), 'It succeeded in a database that this one is a copy of; its rows wait for sixtyfour_resume().', 'a copy imports nothing');
is($sql->('copy', 'SELECT delivery, (SELECT count(*) FROM held) FROM sixtyfour.job'), 'pending|0', 'by itself');
$reply = SixtyfourTest::Session->new($node, database => 'copy')->query("SELECT sixtyfour_wait($other)");
is($reply->{notices}[0]{message}, "job $other has its answer, but its rows wait for sixtyfour_resume()", 'as a wait says');
$sql->('copy', "SELECT sixtyfour_resume(), sixtyfour_retry($other)");
$node->poll_query_until('copy', q{SELECT delivery = 'applied' FROM sixtyfour.job}) or die 'no rows';
is($sql->($_, 'SELECT string_agg(name, \' \') FROM held'), 'both', "$_ has its rows") foreach qw(second copy);
is($sql->('copy', "SELECT sixtyfour_why($other)"), 'It succeeded: 1 row was inserted.', 'as it says');

$mock->rule({ match => { path => '/files/*' }, hold => $true });
$sql->($_, q{SELECT sixtyfour_search_async('dropped', into_table => 'held')}) foreach qw(second copy);
$mock->wait_for(held => 2);
$sql->('second', 'DROP EXTENSION sixtyfour CASCADE');
psql('DROP DATABASE copy');
pass('DROP EXTENSION and DROP DATABASE wait for no file');
$mock->clear_rules;
$mock->control('POST', 'release');

# ---- a large file ----

SKIP:
{
	skip 'too slow', 3 if SixtyfourTest::slow();
	my $rows = 330_000;
	psql('CREATE UNLOGGED TABLE huge (row_number int, name text, company text)', 'alice');
	ended(search_for('small', 'held', "name\nx\n"));
	my $hwm = sub { return slurp_file('/proc/' . writer() . '/status') =~ /^VmHWM:\s+(\d+) kB/m ? $1 : die; };
	my $before = $hwm->();
	$mock->rule({ match => { method => 'POST', body_contains => '"huge"' }, result_rows => $rows });
	my $start = time;
	like(ended(search('huge', 'huge')), qr/^applied $rows rows were inserted/, 'a file of 50 MB');
	is(psql('SELECT count(*), count(DISTINCT row_number) FROM huge'), "$rows|$rows", 'each row once');
	my $grown = $hwm->() - $before;
	note sprintf 'it took %.1f s, and %d kB', time - $start, $grown;
	# what it has seen of shared_buffers counts as well
	cmp_ok($grown, '<', 25_000, 'in bounded memory');
}

done_testing();
