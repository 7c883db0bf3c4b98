# The paths of launcher, worker and writer, of jobs and of enrichments, walked
# once each with few processes, as each of them takes its time under valgrind.
# What is right is tested elsewhere (test/t); here it is enough that all is done.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good,api_other');
my $node = SixtyfourTest::cluster('background', $mock, route => 'auto',
	conf   => "max_prepared_transactions = 2\nautovacuum = off\n",
	server => "requests_per_minute '0', timeout '60'");
my $session = SixtyfourTest::Session->new($node);
my $json    = JSON::PP->new->canonical->allow_nonref;

$mock->settings({ quirks => 'none', found => 'all' });

# ---- helpers ----

sub value { return $session->value("SELECT $_[0]"); }

sub error_of
{
	my ($expression, $who) = @_;
	my $error = ($who // $session)->query("SELECT $expression")->{error} // {};
	return $error->{sqlstate} // 'none';
}

sub lead { return qq{sixtyfour_enrich_lead_async('{"name":"$_[0]"}', '{"title":"title"}'} . ($_[1] // '') . ')'; }
sub ask { return value(lead(@_)); }
sub state { return value("state FROM sixtyfour.job WHERE id = $_[0]"); }

sub wait_until
{
	my ($condition) = @_;
	SixtyfourTest::poll_until(sub { value($condition) eq 't' }) or die "never: $condition";
	return;
}

# All jobs are where they stay.
sub settle
{
	wait_until(q(count(*) = 0 FROM sixtyfour.job WHERE state IN ('queued', 'sending', 'running')));
	return;
}

sub rule_for
{
	my ($name, %rule) = @_;
	$mock->rule({ match => { path => '/*-async', body_contains => qq("$name") }, %rule });
	return;
}

# ---- every way of asking ----

my $struct = q('{"title":"their title","age":{"description":"years","type":"int"}}');
my $criteria = q('[{"criteria_name":"fit","description":"fits?","weight":1,"threshold":0.5}]');
my @jobs = map { value($_) } (
	qq{sixtyfour_enrich_lead_async('{"name":"Ada"}', $struct, 'plan', '{"tier":"low"}', 50)},
	q{sixtyfour_enrich_lead_async('{"lead_info":{"name":"Request"},"struct":{"title":"t"}}')},
	qq{sixtyfour_enrich_company_async('{"name":"Acme"}', $struct, '{"name":"their name"}', true)},
	q{sixtyfour_find_email_async('{"name":"Ada","company":"Acme"}', 'PERSONAL')},
	q{sixtyfour_find_phone_async('{"name":"Ada","company":"Acme"}')},
	qq{sixtyfour_qa_agent_async('{"name":"Ada"}', $criteria)},
	q{sixtyfour_enrich_dataframe_async(E'name,company\nAda,Acme\n', 'phone')},
	lead('Ada Twice'), lead('Ada Twice'));
my @bulk = value(q{sixtyfour_find_email_bulk_async((SELECT jsonb_agg(jsonb_build_object('name', 'Bulk ' || n)) FROM generate_series(1, 30) n))}) =~ /\d+/g;
is(error_of("sixtyfour_wait($jobs[0], '1 ms')"), '57014', 'a wait ends in time');
value("sixtyfour_why($_)") foreach @jobs;
my $all = "'{" . join(',', @jobs, @bulk) . "}'";
value("sixtyfour_wait_all($all)");
is(value("count(*) FROM sixtyfour.jobs WHERE state = 'succeeded'"), @jobs + @bulk, 'all are answered');
like(value("sixtyfour_wait($jobs[0])"), qr/title/, 'a wait returns the answer');
value("sixtyfour_result($_), sixtyfour_why($_)") foreach @jobs;
my $cached = ask('Ada Twice');
like(value("sixtyfour_wait($cached)"), qr/title/, 'the same question has the stored answer');
is(error_of(q(sixtyfour_find_email_async('{"name":"Ada"}', 'SECRET'))), '22023', 'bad arguments');
is(error_of(q(sixtyfour_wait(123456789))), '42704', 'an unknown job');

# ---- searches, workflows, pages, files ----

sub rows { return scalar @{ $session->query("SELECT * FROM $_[0]")->{rows} }; }

my $definition = q('{"blocks":[{"sequence_number":1,"block_type":"webhook","block_name":"webhook","specs":{}}],"edges":[]}');
my $flow = value("sixtyfour_create_workflow('W', $definition) ->> 'id'");
$mock->rule({ match => { path => $_ }, fault => 'close_after_body', times => 1 }) foreach '/search/start-deep-search', '/workflows/run';
foreach my $route (qw(auto direct))
{
	$session->value("SET sixtyfour.route = $route");
	is(rows("sixtyfour_search('somebody $route', max_results => 3)"), 3, "a search ($route)");
	is(rows(qq{sixtyfour_run_workflow('$flow', '[{"company_name":"Acme $route"}]')}), 1, 'a run');
	is(rows(qq{sixtyfour_filter_search('{"industry":"robotics $route"}', max_results => 12, options => '{"page_size":5}')}), 12, 'pages');
}
$session->value('RESET sixtyfour.route');
my $found = value(q(sixtyfour_search_async('in the background')));
value("sixtyfour_wait($found)");
is(rows("sixtyfour_rows($found)"), 25, 'rows of a job');
$mock->rule({ match => { path => '/files/*' }, fault => $_, times => 1 }) foreach qw(expired_address);
is(rows("sixtyfour_rows($found)"), 25, 'at another address');
$mock->rule({ match => { path => '/files/*' }, fault => 'cut', times => 1 });
is(error_of("count(*) FROM sixtyfour_rows($found)"), '08006', 'a file that breaks off');
value("count(*) FROM sixtyfour_workflows()");
value(qq(sixtyfour_update_workflow('$flow', '{"workflow_name":"V"}')));
value("sixtyfour_delete_workflow('$flow')");
is(rows("sixtyfour_csv_rows(sixtyfour_csv('SELECT id, state FROM sixtyfour.jobs'))"), value('count(*) FROM sixtyfour.jobs'), 'CSV there and back');
$mock->clear_rules;

# ---- transactions ----

$session->value('BEGIN');
my $mine = ask('Mine');
is(error_of("sixtyfour_wait($mine)"), '55000', 'a job of the same transaction');
$session->value('ROLLBACK');
$session->value('BEGIN; SAVEPOINT s');
ask('Undone');
$session->value('ROLLBACK TO s');
my $kept = ask('Kept');
$session->value("PREPARE TRANSACTION 'p'");
$session->value("COMMIT PREPARED 'p'");
like(value("sixtyfour_wait($kept)"), qr/title/, 'a prepared job is sent');
my $reader = SixtyfourTest::Session->new($node);
$reader->value('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM sixtyfour.jobs');
my $later = ask('Later', q(, priority => 1, run_at => now() + interval '1 s'));
like($reader->value("SELECT sixtyfour_wait($later)"), qr/title/, 'an older snapshot waits as well');
$reader->value('COMMIT');

# ---- what goes wrong with submissions, and with polls ----

my @uncertain = qw(close_after_body reset_after_body cut cut_headers bad_chunk not_json empty invalid_utf8 wrong_shape redirect);
$mock->settings({ task_seconds => undef });
rule_for($_, fault => $_) foreach @uncertain;
rule_for('no_task', answer => { status => 'RUNNING' });
rule_for('bill500', status => 500, accept => JSON::PP::true);
rule_for("refused$_", status => $_) foreach 400, 404, 422;
rule_for('limited', status => 429, headers => { 'Retry-After' => '1' }, times => 1);
my %odd = map { $_ => ask($_) } @uncertain, 'no_task', 'bill500';
my %fine = map { $_ => ask($_) } qw(refused400 refused404 refused422 limited
  running failing nul huge_number garbage gone cancelled nothing large deep);
wait_until("count(*) = " . (keys %odd) . " FROM sixtyfour.job WHERE state = 'uncertain'");
wait_until(q(count(*) = 0 FROM sixtyfour.job WHERE state IN ('queued', 'sending')));
my %task = map { $_->{body}{lead_info}{name} => $_->{task_id} }
  @{ $mock->ledger(path => '/enrich-lead-async', accepted => 1) };
is(error_of("sixtyfour_wait($odd{cut})"), '08007', 'an uncertain job');
is(error_of(q(sixtyfour_enrich_lead('{"name":"cut"}', '{"title":"title"}'))), '08007', 'and the question asked at once');
value("sixtyfour_why($_)") foreach values %odd, values %fine;
is(value("sixtyfour_cancel($fine{cancelled})"), 't', 'a job is cancelled');
is(value("sixtyfour_retry($fine{cancelled})"), 't', 'and tried again');
value('count(*) FROM sixtyfour.' . $_) foreach qw(jobs calls results attention accounts workers enrichments);

# a worker and a writer that end, and a server
foreach my $type (qw(worker writer))
{
	my $pid = value("pid FROM pg_stat_activity WHERE backend_type = 'sixtyfour $type'") or next;
	value("pg_terminate_backend($pid)");
	wait_until("count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
}
$mock->rule({ match => { path => '/enrich-lead-async', body_contains => '"held"' }, hold => JSON::PP::true });
my $held = ask('held');
$mock->wait_for(held => 1);
$_->close foreach $session, $reader;
$node->stop('fast');
$node->start;
$session = SixtyfourTest::Session->new($node);
$mock->control('POST', 'release');
wait_until("state = 'uncertain' FROM sixtyfour.job WHERE id = $held");
pass('what was held is uncertain');

$mock->rule({ match => { path => "/job-status/$task{garbage}" }, fault => 'not_json' });
$mock->rule({ match => { path => "/job-status/$task{nul}" }, fault => 'nul' });
$mock->control('POST', "tasks/$task{failing}", { action => 'fail', error => 'nobody knows' });
$mock->control('POST', "tasks/$task{gone}", { action => 'forget' });
$mock->control('POST', "tasks/$task{nothing}", { action => 'finish', result => undef });
$mock->control('POST', "tasks/$task{large}", { action => 'finish', result => { text => 'x' x 300000 } });
my $deep = 1;
$deep = [$deep] foreach 1 .. 500;
$mock->control('POST', "tasks/$task{deep}", { action => 'finish', result => { deep => $deep } });
sub call_of { return value("call FROM sixtyfour.job WHERE id = $_[0]"); }
is(error_of('sixtyfour_resolve(' . call_of($odd{cut}) . ", '')"), '22023', 'an action that is none');
value('sixtyfour_resolve(' . call_of($odd{$_}) . ", 'abandon')") foreach qw(empty redirect);
value('sixtyfour_resolve(' . call_of($odd{$_}) . ", '$task{$_}')") foreach qw(cut close_after_body bill500);
$mock->clear_rules;
$mock->rule({ match => { path => "/job-status/$task{garbage}" }, fault => 'not_json' });
$mock->settings({ task_seconds => 0.2 });
value('sixtyfour_resolve(' . call_of($odd{$_}) . ", 'resubmit')") foreach qw(reset_after_body no_task not_json);
value('sixtyfour_resolve(' . call_of($held) . ", 'resubmit')");
foreach (1 .. 3)
{
	$mock->control('POST', 'tasks/all', { action => 'finish' });
}
settle();
is(value("string_agg(DISTINCT state, ' ' ORDER BY state) FROM sixtyfour.job"), 'failed succeeded uncertain', 'all are settled');
value("sixtyfour_why($_)") foreach values %odd, values %fine;
value('count(*) FROM sixtyfour.' . $_) foreach qw(jobs calls results attention accounts);
is(value("sixtyfour_retry($fine{failing})"), 't', 'what failed is tried again');
value("sixtyfour_wait($fine{failing})");

# bulk answers with less than was asked
my %shapes = (missing => { bulk_missing => 2, bulk_shuffle => JSON::PP::true }, unmatched => { bulk_unmatched => 3 },
	results => { bulk_shape => 'results' }, senseless => { result => { nothing => 'here' } });
foreach my $shape (sort keys %shapes)
{
	$mock->rule({ match => { body_contains => qq("bulk $shape") }, %{ $shapes{$shape} } });
	my $leads = $json->encode([ map { { name => "$shape $_" } } 1 .. 12 ]);
	value(qq{sixtyfour_find_email_bulk_async('$leads', options => '{"providers":["bulk $shape"]}')});
}
settle();

# a synchronous call, also one that is given up
$mock->clear_rules;
like(value(q(sixtyfour_enrich_lead('{"name":"At once"}', '{"title":"title"}'))), qr/title/, 'a synchronous call');
$mock->rule({ match => { body_contains => '"Slow"' }, delay => 8 });
$session->value('SET statement_timeout = 5000');
is(error_of(q(sixtyfour_enrich_lead('{"name":"Slow"}', '{"title":"title"}'))), '57014', 'and one that is cancelled');
$session->value('RESET statement_timeout');
$mock->clear_rules;

# ---- rows ----

$mock->rule({ match => { path => '/enrich-company-async', body_contains => qq("$_->[0]") }, result => $json->decode($_->[1]) }) foreach (
	[ 'good', '{"n":3,"r":"4.25","b":"Yes","d":"2024-02-29","tags":["a","b"],"nums":"[1, \'2\']","j":{"x":[1]},"m":"good","short":"abc","structured_data":{"leads":[{"name":"Ann","score":"9.5"},{"name":"Bob"},{}]}}' ],
	[ 'odd', q({"n":"8.0","r":"","b":"","tags":"['a', \"b's\"]","nums":5,"j":"{'x': None}","m":""}) ],
	[ 'many', '{"n":"many"}' ], [ 'long', '{"short":"abcd"}' ], [ 'trigger', '{"n":666}' ],
	[ 'enum', '{"m":"ugly"}' ], [ 'text', '"not an object"' ], [ 'lead', '{"structured_data":{"leads":""}}' ]);
$session->value(q{
	CREATE ROLE alice;
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO alice;
	GRANT CREATE, USAGE ON SCHEMA public TO alice;
	SET ROLE alice;
	CREATE TYPE mood AS ENUM ('good', 'bad');
	CREATE TABLE firms (id int PRIMARY KEY, name text, vip boolean DEFAULT true, n int, r numeric(6,1), b boolean, d date,
		tags text[], nums int[], j jsonb, m mood, short varchar(3));
	CREATE TABLE people (firm bigint, full_name text, score numeric, email text, id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, UNIQUE (firm, full_name));
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN IF NEW.n = 666 THEN RAISE 'no'; END IF; RETURN NEW; END$$;
	CREATE TRIGGER refuse BEFORE UPDATE ON firms FOR EACH ROW EXECUTE FUNCTION refuse();
	SELECT sixtyfour_create_enrichment('firm', 'firms', 'enrich_company', '{"company_name":"name"}',
		'{"n":"$.n", "r":"$.r", "b":"$.b", "d":"$.d", "tags":"$.tags[*]", "nums":"$.nums", "j":"$.j", "m":"$.m", "short":"$.short",
		  "leads":{"table":"people","key":{"firm":"id"},"columns":{"full_name":"$.name","score":"$.score"}}}',
		'{"n":"number of employees"}', on_update => true, condition => 'vip');
	SELECT sixtyfour_create_enrichment('person', 'people', 'find_email', '{"name":"full_name"}', '{"email":"$.email[0][0]"}', payer => 'owner');
	RESET ROLE;
});
is(error_of(q{sixtyfour_create_enrichment('e', 'firms', 'find_email', '{"name":"nom"}', '{"short":"$.a"}')}), '42703', 'a column that is not there');
is(error_of(q{sixtyfour_create_enrichment('e', 'firms', 'find_email', '{"name":"name"}', '{"short":"$["}')}), '42601', 'a path that is none');
is(error_of(q{sixtyfour_create_enrichment('e', 'firms', 'find_email', '{"name":"name"}', '{"short":"$.a"}', condition => 'name')}), '42804', 'a condition that is none');
my @names = qw(good odd many long trigger enum text lead);
$session->value("INSERT INTO firms (id, name, vip) VALUES " . join(', ', map { "($_, '$names[$_ - 1]', true)" } 1 .. @names)
	  . ", (20, 'not vip', false), (21, NULL, true), (22, 'gone', true), (23, 'changed', true), (24, 'locked', true)");
my $other = SixtyfourTest::Session->new($node);
$session->value("DELETE FROM firms WHERE id = 22; UPDATE firms SET name = 'changed too' WHERE id = 23");
$other->value('BEGIN; SELECT 1 FROM firms WHERE id = 24 FOR UPDATE');
settle();
wait_until(q(count(*) = 1 FROM sixtyfour.job WHERE delivery = 'pending'));
value(q(count(*) FROM sixtyfour.enrichments));
$other->value('ROLLBACK');
wait_until(q(count(*) = 0 FROM sixtyfour.job WHERE delivery = 'pending'));
is(value(q(string_agg(concat_ws(' ', row_key -> 'id', delivery, sqlstate), ', ' ORDER BY id) FROM sixtyfour.job WHERE enrichment = 1)),
	'1 applied, 2 applied, 3 unapplied 22P02, 4 unapplied 22001, 5 unapplied P0001, 6 unapplied 22P02, 7 applied, 8 applied, 22 unapplied 02000, 23 unapplied 55000, 24 applied, 23 applied',
	'what became of the answers');
wait_until(q(count(*) = 2 FROM people WHERE email IS NOT NULL));
$session->value('ALTER TABLE firms DISABLE TRIGGER refuse');
is(value(q(sixtyfour_reapply('firm'))), 6, 'answers that are to be written again');
value(q(sixtyfour_wait_enrichment('firm', '60 s')));
wait_until(q(count(*) = 0 FROM sixtyfour.job WHERE delivery = 'pending'));
$session->value("UPDATE firms SET vip = true WHERE id = 20; INSERT INTO firms SELECT i, 'F' || i FROM generate_series(100, 300) i");
$session->value('SELECT * FROM ' . "sixtyfour_estimate('firm')");
value(q(sixtyfour_run_enrichment('firm', 'id <> 20', 10)));
value(q(sixtyfour_run_enrichment('firm')));
settle();
value(q(sixtyfour_wait_enrichment('firm', '600 s')));
is(value(q(sixtyfour_forget('{"name":"Ann"}'))) > 0, 1, 'somebody is forgotten');
$session->value("ALTER TABLE firms DROP COLUMN d; SELECT sixtyfour_reapply('firm')");
wait_until(q(count(*) = 0 FROM sixtyfour.job WHERE delivery = 'pending'));
$session->value("DROP TABLE people; SELECT sixtyfour_reapply('firm')");
wait_until(q(count(*) = 0 FROM sixtyfour.job WHERE delivery = 'pending'));
value(q(sixtyfour_drop_enrichment('firm')));

# ---- rows of searches and workflows ----

$mock->rule({ match => { body_contains => '"good file"' }, result_csv => qq{id,name,"tags",n\n1,"A ""b""","[""x""]",1\n2,,,\n} });
$mock->rule({ match => { body_contains => '"bad file"' }, result_csv => "id,name\n1,a\n2\n" });
$mock->rule({ match => { body_contains => '"bad value"' }, result_csv => "id\n1\nmany\n" });
$mock->rule({ match => { path => '/files/*' }, fault => $_, times => 1 }) foreach qw(expired_address cut);
$session->value('CREATE TABLE found (id int, name text, tags text[])');
my @imports = map { value("sixtyfour_search_async('$_', into_table => 'found')") } 'good file', 'bad file', 'bad value', 'Some';
wait_until(q(count(*) = 4 FROM sixtyfour.job WHERE delivery IN ('applied', 'unapplied') AND into_table IS NOT NULL));
is(value(q(string_agg(concat_ws(' ', delivery, sqlstate), ', ' ORDER BY id) FROM sixtyfour.job WHERE into_table IS NOT NULL)),
	'applied, unapplied 08P01, unapplied 22P02, applied', 'what became of the rows');
value("sixtyfour_why($_)") foreach @imports;
is(value("sixtyfour_retry($imports[1])"), 't', 'a file that is to be imported again');
value("sixtyfour_wait($imports[1])");
value('count(*) FROM sixtyfour.attention');

# ---- other databases ----

$session->value('SELECT sixtyfour_pause()');
my $paused = ask('Paused');
value("sixtyfour_why($paused)");
$session->value('SELECT sixtyfour_resume()');
value("sixtyfour_wait($paused)");
$session->value("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
SixtyfourTest::install($node, 'latin', $mock, server => "requests_per_minute '0'");
my $latin = SixtyfourTest::Session->new($node, database => 'latin');
$mock->rule({ match => { body_contains => 'Snow' }, result => { notes => "\x{2603}" } });
my $cafe = $latin->value('SELECT ' . lead("Caf\xe9"));
my $snow = $latin->value('SELECT ' . lead('Snow'));
like($latin->value("SELECT sixtyfour_wait($cafe)"), qr/title/, 'another encoding');
is(error_of("sixtyfour_wait($snow)", $latin), '08P01', 'an answer that it cannot hold');
$latin->value('SELECT * FROM sixtyfour.workers');
$latin->close;
$session->value('CREATE DATABASE copy TEMPLATE latin');
my $copy = SixtyfourTest::Session->new($node, database => 'copy');
$copy->value('SELECT sixtyfour_resume()');
$copy->value('DROP EXTENSION sixtyfour CASCADE');
$copy->close;
$session->value("DROP DATABASE $_") foreach qw(copy latin);
$session->value('DROP EXTENSION sixtyfour CASCADE');
$_->close foreach $session, $other;
$node->stop('fast');

done_testing();
