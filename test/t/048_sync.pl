# Synchronous calls through the worker: the answer outlives whatever becomes of
# the session and its transaction, and is asked for once.  The mock's ledger is
# the witness.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use SixtyfourTest;

my $crowd = SixtyfourTest::slow() ? 20 : 500;
my $mock  = SixtyfourTest::Mock->start('--keys' => 'api_good,api_second');
my $node  = SixtyfourTest::cluster('sync', $mock,
	route  => 'auto',
	conf   => "max_connections = " . ($crowd + 50) . "\nrestart_after_crash = on\n",
	server => "requests_per_minute '0', timeout '60'");
my $session = SixtyfourTest::Session->new($node);

$mock->settings({ quirks => 'none', found => 'all' });

# ---- helpers ----

sub value { return $session->value("SELECT $_[0]"); }
sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}'); }
sub call { return 'sixtyfour_enrich_lead(' . question($_[0]) . ')'; }

sub job
{
	my ($name, $what) = @_;
	return value("$what FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' = '$name' ORDER BY id LIMIT 1");
}

sub submissions
{
	my ($name) = @_;
	return scalar grep { $_->{path} eq '/enrich-lead-async' && $_->{body}{lead_info}{name} eq $name }
	  @{ $mock->ledger };
}

sub error_of
{
	my ($sql, $who) = @_;
	return ($who // $session)->query($sql)->{error} // {};
}

# Wait until the service works on it.
sub running
{
	my ($name, $state) = @_;
	$state //= 'running';
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' = '$name' AND state = '$state'")
	  or die "$name is not $state";
	return;
}

sub rule_for
{
	my ($name, %rule) = @_;
	$mock->rule({ match => { path => '/enrich-lead-async', body_contains => qq("$name") }, %rule });
	return;
}

sub create_server
{
	my ($name, $key, $url) = @_;
	$session->value("CREATE SERVER $name FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$url')");
	$session->value("CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key '$key')");
	return;
}

# Let the task go on until finish().
sub hold { rule_for($_[0], task_seconds => undef); return; }
sub finish { $mock->control('POST', 'tasks/all', { action => 'finish' }); return; }

# ---- asked, kept, asked again ----

like(value(call('Ada')), qr/"structured_data"/, 'an answer');
is(submissions('Ada'), 1, 'the worker asked for it');
is(job('Ada', "concat_ws(' ', state, owner, payer, priority)"), 'succeeded postgres postgres 0', 'as a job');
is(value("state || ' ' || items FROM sixtyfour.calls"), 'done 1', 'with a call');
like(value(call('Ada')), qr/"structured_data"/, 'asking again gets the same');
is(submissions('Ada'), 1, 'without a request');
$session->value('SET sixtyfour.cache_ttl = 0');
like(value(call('Ada')), qr/"structured_data"/, 'unless no stored answer will do');
is(submissions('Ada'), 2, 'then it is asked for');
$session->value('RESET sixtyfour.cache_ttl');

$session->value('BEGIN ISOLATION LEVEL REPEATABLE READ');
$session->value('SELECT 1');
like(value(call('Repeatable')), qr/"structured_data"/, 'an answer comes under REPEATABLE READ too');
$session->value('ROLLBACK');
is(job('Repeatable', 'state'), 'succeeded', 'and survives a ROLLBACK');
like(value(call('Repeatable')), qr/"structured_data"/, 'asking again');
is(submissions('Repeatable'), 1, 'costs nothing');
$session->value('BEGIN READ ONLY');
like(value(call('Read only')), qr/"structured_data"/, 'a read-only transaction may ask');
$session->value('COMMIT');

# free requests stay the session's own
is(error_of(q(SELECT sixtyfour_job_status('no-such-task')))->{sqlstate}, '02000', 'what is free is asked directly');
is(value(q(sixtyfour_enrich_lead(NULL, '{"a":"b"}'))), undef, 'NULL asks nothing');

# ---- what may become of the session ----

my %ends = (
	'statement_timeout' => sub { return; },
	'a cancel'          => sub { $_[0]->cancel; },
	'a termination'     => sub { value('pg_terminate_backend(' . $_[0]->pid . ')'); },
	'a disconnect'      => sub { $_[0]->close; });
my %sqlstates = ('statement_timeout' => '57014', 'a cancel' => '57014', 'a termination' => '57P01');

foreach my $end (sort keys %ends)
{
	my $name  = "After $end";
	my $other = SixtyfourTest::Session->new($node);
	hold($name);
	$other->value("SET client_connection_check_interval = '100 ms'") if $end eq 'a disconnect';
	$other->value("SET statement_timeout = '1 s'") if $end eq 'statement_timeout';
	$other->send('SELECT ' . call($name));
	running($name);
	my $pid = $other->pid;
	$ends{$end}->($other);
	if ($end ne 'a disconnect')
	{
		my $error = $other->receive->{error};
		is($error->{sqlstate}, $sqlstates{$end}, "$end ends the wait");
		my $id = job($name, 'id');
		like($error->{context}, qr/^Sixtyfour job $id, whose answer is kept once it is sent/, 'and says what goes on')
		  if $end ne 'a termination';
	}
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND query LIKE '%After%' AND state = 'active'")
	  or die "the session goes on after $end";
	is(job($name, 'state'), 'running', "$end: the task goes on");
	# asked again, the question in flight is joined
	$session->send('SELECT ' . call($name));
	$node->poll_query_until('postgres', "SELECT count(*) = 2 FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' = '$name' AND state = 'running'")
	  or die 'it is not joined';
	finish();
	like($session->receive->{rows}[0][0], qr/"structured_data"/, 'asked again, it has its answer');
	is(submissions($name), 1, 'and was paid for once');
	$mock->clear_rules;
}

# a session that dies takes all of the server along
hold('After a crash');
my $dying = SixtyfourTest::Session->new($node);
$dying->send('SELECT ' . call('After a crash'));
running('After a crash');
kill 'KILL', $dying->pid;
ok($dying->receive->{closed}, 'a session is killed while it waits');
SixtyfourTest::poll_until(sub { !eval { value('1') } }) or die 'the server goes on';
SixtyfourTest::poll_until(sub { $session = eval { SixtyfourTest::Session->new($node) } }) or die 'the server does not come back';
is(job('After a crash', 'state'), 'running', 'a crash: the task goes on');
$session->send('SELECT ' . call('After a crash'));
$node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' = 'After a crash' AND state = 'running'))
  or die 'it is not joined';
finish();
like($session->receive->{rows}[0][0], qr/"structured_data"/, 'asked again, it has its answer');
is(submissions('After a crash'), 1, 'and was paid for once');
$mock->clear_rules;

# two at the same time
hold('Twins');
my @twins = map { SixtyfourTest::Session->new($node) } 1 .. 2;
$_->send('SELECT ' . call('Twins')) foreach @twins;
$node->poll_query_until('postgres', "SELECT count(*) = 2 FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' = 'Twins' AND state = 'running'")
  or die 'they are not both running';
finish();
my @answers = map { $_->receive->{rows}[0][0] } @twins;
is($answers[0], $answers[1], 'two sessions that ask the same at once get the same');
is(submissions('Twins'), 1, 'and pay for it once');
$mock->clear_rules;

# ---- failures, as they are said to who waits ----

my %failures = (
	422 => [ '22023', 'enrich_lead: the service does not accept the request', 'failed' ],
	404 => [ '02000', 'enrich_lead: the service does not know what was asked for', 'failed' ],
	403 => [ '42501', 'enrich_lead: the account may not do this', 'failed' ]);
foreach my $status (sort keys %failures)
{
	rule_for("Status $status", status => 0 + $status);
	my $error = error_of('SELECT ' . call("Status $status"));
	my ($sqlstate, $message, $state) = @{ $failures{$status} };
	is_deeply([ @{$error}{qw(sqlstate message detail)} ], [ $sqlstate, $message, "HTTP status $status: Asked by a rule" ], "status $status");
	isnt($error->{hint}, '', 'with a hint');
	is(job("Status $status", 'state'), $state, 'its job');
}
rule_for('Lost', fault => 'close_after_body');
my $lost = error_of('SELECT ' . call('Lost'));
my $call = job('Lost', 'call');
is($lost->{sqlstate}, '08007', 'what may have been billed is uncertain');
like($lost->{hint}, qr/sixtyfour_resolve\($call, /, 'the hint names the call');
is(error_of('SELECT ' . call('Lost'))->{sqlstate}, '08007', 'and stays so');
is(submissions('Lost'), 1, 'asking again sends nothing');
$mock->clear_rules;

# what would be tried again is said at once, and not left in the queue
create_server('refused', 'api_refused', $mock->url);
$session->value('SET sixtyfour.server = refused');
is(error_of('SELECT ' . call('Bad key'))->{sqlstate}, '28000', 'a refused key is said at once');
running('Bad key', 'cancelled');
is(error_of('SELECT ' . call('While paused by the key'))->{sqlstate}, '28000', 'and while the account pauses');
is(submissions('While paused by the key'), 0, 'without a request');
$session->value(q(ALTER USER MAPPING FOR PUBLIC SERVER refused OPTIONS (SET api_key 'api_good')));
like(value(call('Key mended')), qr/"structured_data"/, 'which a good key ends at once');
create_server('nobody', 'api_nobody', 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port());
$session->value('SET sixtyfour.server = nobody');
is(error_of('SELECT ' . call('Unconnected'))->{sqlstate}, '08001', 'no connection is said at once');
running('Unconnected', 'cancelled');
$session->value(q(ALTER SERVER nobody OPTIONS (ADD daily_budget_cents '10')));
is(error_of('SELECT ' . call('Too dear'))->{sqlstate}, '53400', 'a budget that does not suffice too');
is(job('Too dear', 'id'), undef, 'and nothing is queued');
$session->value('RESET sixtyfour.server');

my $waiting = SixtyfourTest::Session->new($node);
$waiting->value('BEGIN');
my $own = $waiting->value('SELECT sixtyfour_enrich_lead_async(' . question('Own') . ')');
is_deeply([ @{ error_of('SELECT ' . call('Own'), $waiting) }{qw(sqlstate message hint)} ],
	[ '55000', "job $own was queued by this transaction", 'Commit first.' ], 'what this transaction has queued is not asked for');
$waiting->value('ROLLBACK');
value('sixtyfour_pause()');
is(error_of('SELECT ' . call('Paused'))->{sqlstate}, '55000', 'nor while the queue is paused');
value('sixtyfour_resume()');

# the account's timeout ends the wait, not the question
$session->value(q(ALTER SERVER sixtyfour OPTIONS (SET timeout '1')));
hold('Slow');
my $slow = error_of('SELECT ' . call('Slow'));
my $job  = job('Slow', 'id');
is_deeply([ @{$slow}{qw(sqlstate message detail hint)} ],
	[ '08006', 'enrich_lead: the service did not answer in time', "Job $job goes on.",
		"Ask again, or use sixtyfour_wait($job), to get its answer." ], 'the timeout of the account');
finish();
like(value("sixtyfour_wait($job)"), qr/"structured_data"/, 'its answer comes all the same');
$session->value(q(ALTER SERVER sixtyfour OPTIONS (SET timeout '60')));
$mock->clear_rules;

# one that nobody waits for any more, and that was not accepted, is not sent again
my $url = $mock->url;
$session->value("ALTER SERVER nobody OPTIONS (SET base_url '$url', DROP daily_budget_cents)");
$session->value(q(ALTER USER MAPPING FOR PUBLIC SERVER nobody OPTIONS (SET api_key 'api_second')));
rule_for('Throttled', status => 429, headers => { 'Retry-After' => '30' });
my $impatient = SixtyfourTest::Session->new($node);
$impatient->value('SET sixtyfour.server = nobody');
$impatient->send('SELECT ' . call('Throttled'));
$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' = 'Throttled' AND state = 'queued' AND sqlstate = '53400'))
  or die 'it is not throttled';
$impatient->cancel;
is($impatient->receive->{error}{sqlstate}, '57014', 'a wait for the rate limit can be cancelled');
# the next question makes the worker look
value(call('Looks'));
running('Throttled', 'cancelled');
is(submissions('Throttled'), 1, 'and then nothing more is sent');
$mock->clear_rules;

# ---- locks ----

# the caller holds a row that the writer wants
$session->value(q(CREATE TABLE lead (id int PRIMARY KEY, name text, title text)));
$session->value(q(SELECT sixtyfour_create_enrichment('titles', 'lead', 'enrich_lead', '{"name": "name"}',
	'{"title": "$.structured_data.title"}', struct => '{"title":"their title"}')));
hold('Locked');
value(q(1 FROM (SELECT 1) s));
$session->value(q(INSERT INTO lead VALUES (1, 'Locked')));
running('Locked');
$session->value('BEGIN');
$session->value(q(SELECT 1 FROM lead WHERE id = 1 FOR UPDATE));
$session->send('SELECT ' . call('Locked'));
$node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' = 'Locked' AND state = 'running'))
  or die 'the row\'s question is not joined';
finish();
like($session->receive->{rows}[0][0], qr/"structured_data"/, 'who holds the row that the answer belongs to gets it');
$session->value('COMMIT');
value(q(sixtyfour_wait_enrichment('titles', '60 s')));
$node->poll_query_until('postgres', 'SELECT title IS NOT NULL FROM lead')
  or die 'it is not written';
pass('and then it is written');
is(submissions('Locked'), 1, 'asked for once');
$mock->clear_rules;

# ---- answers that are to be forgotten, questions that are asked already ----

like(value(call('Forgotten')), qr/"structured_data"/, 'an answer');
$session->value('BEGIN');
is($session->value(q(SELECT sixtyfour_forget('{"name":"Forgotten"}'))), 2, 'is forgotten, with its job');
is(error_of('SELECT ' . call('Forgotten'))->{sqlstate}, '02000', 'who is about to forget an answer does not get it');
$session->value('ROLLBACK');
like(value(call('Forgotten')), qr/"structured_data"/, 'others do');

hold('Asked already');
my $async = value('sixtyfour_enrich_lead_async(' . question('Asked already') . ')');
running('Asked already');
my $asked = job('Asked already', 'call');
$session->value("SET sixtyfour.route = 'direct'");
is_deeply([ @{ error_of('SELECT ' . call('Asked already')) }{qw(sqlstate message)} ],
	[ '55006', "call $asked asks the same, and has no answer yet" ], 'the session does not ask what the worker has asked');
$session->value('RESET sixtyfour.route');
finish();
value("sixtyfour_wait($async)");
is(submissions('Asked already'), 1, 'and nobody pays twice');
$mock->clear_rules;

# in a parallel plan the leader asks
$session->value(q(CREATE TABLE big AS SELECT i, 'Parallel ' || i % 2 AS name FROM generate_series(1, 10000) i));
$session->value('ANALYZE big');
$session->value("SET $_") foreach 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0',
  'min_parallel_table_scan_size = 0', 'max_parallel_workers_per_gather = 2';
my $parallel = q(SELECT count(sixtyfour_enrich_lead(jsonb_build_object('name', name), '{"title":"their title"}'))
	FROM (SELECT DISTINCT name FROM big OFFSET 0) s);
like(join("\n", map { $_->[0] } @{ $session->query("EXPLAIN $parallel")->{rows} }), qr/Gather/, 'a parallel plan');
is($session->value($parallel), 2, 'under Gather too');
is(value('count(sixtyfour_result(id)) > 0 FROM sixtyfour.jobs, (SELECT count(*) FROM big) b'), 't', 'results can be read there');

# ---- a crowd ----

$mock->settings({ task_seconds => 2 });
my @crowd = map { SixtyfourTest::Session->new($node) } 1 .. $crowd;
$crowd[$_]->send('SELECT ' . call("Crowd $_")) foreach 0 .. $#crowd;
my $answered = grep { @{ $_->{rows} } && $_->{rows}[0][0] =~ /"structured_data"/ } map { $_->receive } @crowd;
is($answered, $crowd, "$crowd sessions wait at the same time");
is(scalar(grep { submissions_of($_) != 1 } 0 .. $#crowd), 0, 'each was asked for once');
$_->close foreach @crowd;
$mock->settings({ task_seconds => 0.2 });

my %counted;

sub submissions_of
{
	my ($i) = @_;
	if (!%counted)
	{
		$counted{ $_->{body}{lead_info}{name} }++
		  foreach grep { $_->{path} eq '/enrich-lead-async' } @{ $mock->ledger };
	}
	return $counted{"Crowd $i"} // 0;
}

# ---- a pooler that gives each transaction another session ----

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
PostgreSQL::Test::Utils::append_to_file("$dir/pgbouncer.ini", <<"INI");
[databases]
postgres = host=${\$node->host} port=${\$node->port} dbname=postgres user=postgres
[pgbouncer]
listen_port = $port
unix_socket_dir = $dir
auth_type = any
pool_mode = transaction
default_pool_size = 2
logfile = $dir/log
pidfile = $dir/pid
INI
system_or_bail('/usr/sbin/pgbouncer', '-q', '-d', "$dir/pgbouncer.ini");
SixtyfourTest::poll_until(sub { -S "$dir/.s.PGSQL.$port" }) or die 'no pooler';
my $pooler = bless { host => $dir, port => $port }, 'Pooler';
my @pooled = map { SixtyfourTest::Session->new($pooler, user => 'postgres') } 1 .. 4;
$_->send('SELECT ' . call('Pooled')) foreach @pooled;
is(scalar(grep { ($_->receive->{rows}[0][0] // '') =~ /"structured_data"/ } @pooled), 4, 'through a pooler in transaction mode');
is(submissions('Pooled'), 1, 'the same question is asked once');
$_->close foreach @pooled;
kill 'TERM', slurp_file("$dir/pid");

# ---- nobody there ----

$node->append_conf('postgresql.conf', "sixtyfour.databases = 'other'");
$node->reload;
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker'");
like(value(call('Direct')), qr/"structured_data"/, 'where no worker may be, the session asks itself');
is(job('Direct', 'id'), undef, 'without a job');
is(scalar(grep { $_->{path} eq '/enrich-lead' } @{ $mock->ledger }), 1, 'at the synchronous endpoint');
$session->value("SET sixtyfour.route = 'worker'");
is(error_of('SELECT ' . call('Only by the worker'))->{sqlstate}, '55000', 'unless it is told not to');
$session->value("RESET sixtyfour.route");
$session->value('CREATE ROLE somebody LOGIN');
my $somebody = SixtyfourTest::Session->new($node, user => 'somebody');
is(error_of("SET sixtyfour.route = 'direct'", $somebody)->{sqlstate}, '42501', 'which is for superusers to choose');

is(scalar keys %{ $mock->summary->{duplicates} }, 1, 'nothing was bought twice but what was to be');
done_testing();

package Pooler;

sub host { return $_[0]{host}; }
sub port { return $_[0]{port}; }
