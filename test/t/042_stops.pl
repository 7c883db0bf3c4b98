# Stops and crashes with work under way: nothing is asked twice, nothing that
# was accepted is lost, and what nobody can know is said to be uncertain.  The
# mock's ledger is the witness.  SIXTYFOUR_SEED repeats a run's random moments.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $seed = $ENV{SIXTYFOUR_SEED} // int(time) % 100000;
srand $seed;
note "SIXTYFOUR_SEED=$seed";

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('stops', $mock,
	conf   => "restart_after_crash = on\nwal_level = replica\nmax_wal_senders = 2\n",
	server => "requests_per_minute '0'");
my $session = SixtyfourTest::Session->new($node);

$mock->settings({ quirks => 'none', found => 'all', keep_tasks => 100000 });

# ---- helpers ----

sub value { return $session->value("SELECT $_[0]"); }

# A new session, once the server takes one
sub reconnect
{
	SixtyfourTest::poll_until(sub {
			$session = eval { SixtyfourTest::Session->new($node) };
		}) or die 'the server does not come back';
	return;
}

sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}'); }
sub ask { return map { value('sixtyfour_enrich_lead_async(' . question($_) . ')') } @_; }

# A bulk of find_email
sub ask_many
{
	my $leads = JSON::PP->new->encode([ map { { name => $_ } } @_ ]);
	return value("sixtyfour_find_email_bulk_async('$leads')") =~ /\d+/g;
}

sub states
{
	return value("coalesce(string_agg(state || ' ' || n, ', ' ORDER BY state), '') FROM (SELECT state, count(*) AS n FROM sixtyfour.jobs WHERE id = ANY ('{"
		  . join(',', @_) . "}') GROUP BY 1) s");
}

sub wait_for_states
{
	my ($expected, @jobs) = @_;
	SixtyfourTest::poll_until(sub { states(@jobs) eq $expected })
	  or die "jobs do not become $expected: " . states(@jobs);
	return;
}

sub wait_for_end
{
	my (@jobs) = @_;
	# nor is the service being asked about tasks that were named
	SixtyfourTest::poll_until(sub { states(@jobs) !~ /queued|sending|running/ && value('count(*) FROM sixtyfour.candidate') == 0 })
	  or die 'jobs do not end: ' . states(@jobs);
	return;
}

# name of each person in accepted requests => the task's id
sub accepted
{
	my %tasks;
	foreach my $entry (@{ $mock->ledger(method => 'POST', accepted => 1) })
	{
		my $body = $entry->{body};
		$tasks{ $_->{name} } = $entry->{task_id} foreach @{ $body->{leads} // [ $body->{lead} // $body->{lead_info} ] };
	}
	return \%tasks;
}

# What a person would do about uncertain calls, who sees the service's tasks:
# name those that exist, and submit the others again.
sub resolve_all
{
	my $accepted = accepted();
	my $calls = $session->query(q(SELECT DISTINCT ON (c.id) c.id, coalesce(j.body #>> '{lead,name}', j.body #>> '{lead_info,name}')
		FROM sixtyfour.calls c JOIN sixtyfour.jobs j ON j.call = c.id WHERE c.state = 'uncertain'))->{rows};
	my %done = (known => 0, unknown => 0);
	foreach my $row (@$calls)
	{
		my ($call, $name) = @$row;
		my $task = $accepted->{$name};
		value("sixtyfour_resolve($call, '" . ($task // 'resubmit') . "')");
		$done{ defined $task ? 'known' : 'unknown' }++;
	}
	return \%done;
}

sub worker_pid
{
	my $pid;
	SixtyfourTest::poll_until(sub {
			$pid = value(q(pid FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker'));
		}) or die 'there is no worker';
	return $pid;
}

# ---- a fast stop ----

my @times;
my (@tasks, @held);
foreach my $round (1 .. 3)
{
	my @lost;
	$mock->settings({ task_seconds => undef });
	push @tasks, my @new = ask(map { "Task $round.$_" } 1 .. 20);
	wait_for_states('running 20', @new);
	$mock->rule({ match => { body_contains => 'Held' }, hold => JSON::PP::true });
	push @held, ask(map { "Held $round.$_" } 1 .. 5);
	$mock->wait_for(held => 5);
	$session->close;
	my $start = time;
	$node->stop('fast');
	push @times, time - $start;
	$mock->clear_rules;
	$mock->control('POST', 'release');
	$node->start;
	reconnect();
}
my ($best) = sort { $a <=> $b } @times;
cmp_ok($best, '<', 0.5, 'pg_ctl stop -m fast is fast with requests and tasks under way')
  unless SixtyfourTest::slow();
note "stops took @times s";
wait_for_states('uncertain 15', @held);
is(states(@tasks), 'running 60', 'tasks run on, what was being sent is uncertain');
is(value("string_agg(DISTINCT concat_ws(' ', state, sqlstate, message), ',') FROM sixtyfour.calls WHERE id IN (SELECT call FROM sixtyfour.jobs WHERE state = 'uncertain')"),
	'uncertain 08007 the worker ended before the service answered', 'and says why');
$mock->control('POST', 'tasks/all', { action => 'finish' });
wait_for_states('succeeded 60', @tasks);
is(scalar keys %{ accepted() }, 75, 'a restart continues to poll and asks for nothing again');

# replies that come while the server stops are not lost
$mock->settings({ task_seconds => 0.2 });
$mock->rule({ match => { body_contains => 'Just' }, delay => 0.05 });
my @just = ask(map { "Just $_" } 1 .. 5);
SixtyfourTest::poll_until(sub { 5 == grep { /^Just/ } keys %{ accepted() } });
$session->close;
$node->stop('fast');
$node->start;
reconnect();
wait_for_end(@just);
is(states(@just), 'succeeded 5', 'replies that are about to come are waited for');
$mock->clear_rules;

# a worker that is asked to go does so in good order, and another one comes
my $pid = worker_pid();
my @gone = ask(map { "Gone $_" } 1 .. 5);
value("pg_terminate_backend($pid)");
wait_for_end(@gone);
is(states(@gone), 'succeeded 5', 'a terminated worker leaves nothing behind');
isnt(worker_pid(), $pid, 'another one has come');

# ---- a fast stop while a synchronous standby is away ----

# commits wait for it, those of the worker too: with tasks to follow, submissions
# to make and answers to bring home
$mock->settings({ task_seconds => undef });
my @before = ask(map { "Before the standby $_" } 1 .. 5);
wait_for_states('running 5', @before);
value('sixtyfour_pause()');
$session->value(q(
	CREATE TABLE person (id int PRIMARY KEY, name text, title text);
	SELECT sixtyfour_create_enrichment('standby', 'person', 'enrich_lead', '{"name":"name"}', '{"title":"$.structured_data.title"}', struct => '{"title":"their title"}');
	INSERT INTO person VALUES (1, 'On the way home')));
value('sixtyfour_resume()');
SixtyfourTest::poll_until(sub { accepted()->{'On the way home'} }) or die 'the row is not asked about';
my @waiting = map { "Behind the standby $_" } 1 .. 5;
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
sub waits_for { return value("coalesce((SELECT concat_ws(' ', state, wait_event_type, wait_event) FROM pg_stat_activity WHERE pid = $_[0]), '')"); }
SixtyfourTest::poll_until(sub {
		my $probe = SixtyfourTest::Session->new($node);
		$probe->send(q(SELECT pg_logical_emit_message(true, 'probe', 'probe')));
		SixtyfourTest::poll_until(sub { waits_for($probe->pid) =~ /^idle|SyncRep/ });
		return waits_for($probe->pid) =~ /SyncRep/;
	}) or die 'nothing waits for the standby';
$session->value('SET synchronous_commit = local');
@waiting = ask(@waiting);
$pid = worker_pid();
SixtyfourTest::poll_until(sub { waits_for($pid) =~ /SyncRep/ }) or die 'the worker does not wait for the standby';
like(waits_for($pid), qr/IPC SyncRep$/, 'the worker waits for the standby, and says so');
is(scalar(grep { /^Behind/ } keys %{ accepted() }), 0, 'and sends nothing meanwhile');
$session->close;
my $begin = time;
$node->stop('fast');
note sprintf 'stopped in %.2f s', time - $begin;
pass('a fast stop does not wait for the standby');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/\[$pid\].*canceling the wait for synchronous replication/, 'its wait was ended');
$node->adjust_conf('postgresql.conf', 'synchronous_standby_names', q(''));
$mock->settings({ task_seconds => 0.2 });
$mock->control('POST', 'tasks/all', { action => 'finish' });
$node->start;
reconnect();
wait_for_end(@before, @waiting);
resolve_all();
wait_for_end(@before, @waiting);
is(states(@before, @waiting), 'succeeded 10', 'afterwards all goes on');
SixtyfourTest::poll_until(sub { value('title FROM person') }) or die 'the answer does not come home';
is(scalar(grep { /standby/ } keys %{ accepted() }), 10, 'each question was asked');
is_deeply([ $mock->summary->{duplicates}, $mock->summary->{duplicate_leads} ], [ {}, {} ], 'nothing was paid for twice');
$session->value('SET client_min_messages = error; SELECT sixtyfour_drop_enrichment(\'standby\'); DROP TABLE person');

resolve_all();
wait_for_end(@held);
is(states(@held), 'succeeded 15', 'what was uncertain has its answers once its tasks are named');
is_deeply([ $mock->summary->{duplicates}, $mock->summary->{duplicate_leads} ], [ {}, {} ], 'nothing was paid for twice');

# ---- a call that somebody locks while workers change ----

$mock->reset;
$mock->rule({ match => { body_contains => 'Locked' }, hold => JSON::PP::true });
my @locked = ask('Locked');
$mock->wait_for(held => 1);
my $locker = SixtyfourTest::Session->new($node);
$locker->value("BEGIN; SELECT 1 FROM sixtyfour.call WHERE state = 'sending' FOR UPDATE");
value("pg_terminate_backend(pid) FROM sixtyfour.workers WHERE kind = 'worker'");
wait_for_states('succeeded 1', ask('After the change'));
$locker->value('COMMIT');
wait_for_states('uncertain 1', @locked);
pass('a call that was locked is taken over later');
$locker->close;
$mock->control('POST', 'release');
value("count(sixtyfour_resolve(id, 'abandon')) FROM sixtyfour.calls WHERE state = 'uncertain'");

# ---- a backend that dies while it queues ----

$mock->reset;
foreach my $statement ("SELECT sixtyfour_enrich_lead_async('{\"name\":\"Never\"}', '{\"a\":\"b\"}')",
	q(SELECT count(sixtyfour_enrich_lead_async(jsonb_build_object('name', 'Never ' || n), '{"a":"b"}')) FROM generate_series(1, 1000000) n))
{
	my $dying = SixtyfourTest::Session->new($node);
	$dying->value('BEGIN');
	$dying->send($statement);
	if ($statement =~ /generate_series/)
	{
		SixtyfourTest::poll_until(sub { value('pg_relation_size(\'sixtyfour.job\')') > 1000000 });
	}
	else
	{
		$dying->receive;
	}
	kill 'KILL', $dying->pid;
	SixtyfourTest::poll_until(sub { !eval { value('1') } });
	reconnect();
}
my @after = ask('After a crash');
wait_for_states('succeeded 1', @after);
is_deeply([ keys %{ accepted() } ], ['After a crash'], 'what a crash undid was not sent');
is(value(q(count(*) FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' LIKE 'Never%')), 0, 'and is not there');

# ---- crashes ----

# Fifteen jobs, and then the end of the worker, and with it of all processes, at
# some moment; twenty times.  Then the end of the whole server, five times.
$mock->reset;
$mock->settings({ latency => 20, task_seconds => 0.5 });
my @jobs;
my $kills = SixtyfourTest::slow() ? 3 : 20;
foreach my $round (1 .. $kills + 5)
{
	my $victim = worker_pid();
	push @jobs, ask(map { "Lead $round.$_" } 1 .. 5), ask_many(map { "Person $round.$_" } 1 .. 10);
	select undef, undef, undef, rand 0.4;
	if ($round <= $kills)
	{
		kill 'KILL', $victim;
		SixtyfourTest::poll_until(sub { !eval { value('1') } });
	}
	else
	{
		$node->stop('immediate');
		$node->start;
	}
	reconnect();
}
wait_for_end(@jobs);
note states(@jobs);
is_deeply([ $mock->summary->{duplicates}, $mock->summary->{duplicate_leads} ], [ {}, {} ], 'crashes make nobody pay twice');

# every accepted task has its results, or its call is uncertain
my $lost = accepted();
my $rows = $session->query(qq(SELECT coalesce(body #>> '{lead,name}', body #>> '{lead_info,name}') FROM sixtyfour.jobs j JOIN sixtyfour.calls c ON c.id = j.call
	WHERE j.id = ANY ('{${\join ',', @jobs}}') AND (j.state = 'succeeded' AND c.state = 'done' AND j.result IN (SELECT id FROM sixtyfour.results WHERE call = c.id)
	OR j.state = 'uncertain' AND c.state = 'uncertain' AND c.id IN (SELECT id FROM sixtyfour.attention WHERE kind = 'call'))))->{rows};
delete $lost->{ $_->[0] } foreach @$rows;
is_deeply($lost, {}, 'every accepted task has a result or stands in attention');
is(scalar @$rows, scalar @jobs, 'and so does every job');

my $resolved = resolve_all();
note "uncertain calls: $resolved->{known} accepted, $resolved->{unknown} not";
wait_for_end(@jobs);
is(states(@jobs), 'succeeded ' . @jobs, 'with the tasks named, all have their answers');
is_deeply([ $mock->summary->{duplicates}, $mock->summary->{duplicate_leads} ], [ {}, {} ], 'still nothing was paid for twice');
is(value("count(*) FROM sixtyfour.calls WHERE state IN ('sending', 'accepted', 'uncertain', 'expired')"), 0, 'no call is left open');
is(value('count(*) FROM sixtyfour.call_item WHERE open'), 0, 'and no question held');

done_testing();
