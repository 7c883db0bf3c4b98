# What may have been billed without an answer: which ends of a request mean so,
# who decides, how the task is found, and what the same question costs.  The
# mock's ledger is the witness.
use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use JSON::PP;
use Test::More;

use SixtyfourTest;

my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my @keys = qw(api_good api_other);
my $mock = SixtyfourTest::Mock->start('--keys' => join ',', @keys);
my $node = SixtyfourTest::cluster('uncertain', $mock,
	server => "requests_per_minute '0', timeout '60'");
my $session = SixtyfourTest::Session->new($node);

$mock->settings({ quirks => 'none', found => 'all' });
$session->value(q(
	CREATE ROLE one LOGIN;
	CREATE ROLE two LOGIN;
	CREATE ROLE chief LOGIN IN ROLE one, two;
	CREATE ROLE payer LOGIN;
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO one, two, chief, payer;
));
my %as = map { $_ => SixtyfourTest::Session->new($node, user => $_) } qw(one two chief payer monitor);

# ---- helpers ----

sub value { return $session->value("SELECT $_[0]"); }

sub error_of
{
	my ($expression, $who) = @_;
	my $error = ($who // $session)->query("SELECT $expression")->{error}
	  or return 'no error';
	return "$error->{sqlstate}: $error->{message}";
}

sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}'); }
sub ask { return ($_[1] // $session)->value('SELECT sixtyfour_enrich_lead_async(' . question($_[0]) . ')'); }
sub job { return value("$_[1] FROM sixtyfour.jobs WHERE id = $_[0]"); }
sub call_of { return job($_[0], 'call'); }
sub call { return value("$_[1] FROM sixtyfour.calls WHERE id = $_[0]"); }
sub answer { return value("sixtyfour_wait($_[0], '60 s')"); }

sub wait_until
{
	my ($condition, $what) = @_;
	$node->poll_query_until('postgres', "SELECT $condition") or die "never: $what";
	return;
}

sub wait_for_state
{
	my ($state, @jobs) = @_;
	wait_until("count(*) = " . @jobs . " FROM sixtyfour.jobs WHERE state = '$state' AND id IN (" . join(',', @jobs) . ')', "@jobs $state");
	return;
}

sub rule_for
{
	my ($name, %rule) = @_;
	$mock->rule({ match => { path => '/*-async', body_contains => qq("$name") }, %rule });
	return;
}

sub submissions
{
	my ($name) = @_;
	return grep { $_->{path} =~ /-async$/ && JSON::PP::encode_json($_->{body}) =~ /"\Q$name\E"/ } @{ $mock->ledger };
}

# A call about somebody of which nobody knows whether it was billed; returns
# its job, its id and the task that the service made of it.
sub uncertain
{
	my ($name, $who) = @_;
	rule_for($name, fault => 'close_after_body', times => 1);
	my $job = ask($name, $who);
	wait_for_state('uncertain', $job);
	my ($seen) = submissions($name);
	return ($job, call_of($job), $seen->{task_id});
}

# ---- which ends of a submission mean what ----

subtest 'every HTTP status is a refusal, an answer, or uncertain' => sub {
	# 401, 402 and 429 are about the account, which then pauses: 041_ledger.pl
	my %unbilled = map { $_ => 1 } 400, 403, 404, 422;
	my @statuses = grep { $_ != 401 && $_ != 402 && $_ != 429 } 200 .. 599;
	my %expected = map { $_ => $unbilled{$_} ? 'rejected' : 'uncertain' } @statuses;

	# an answer that names no task, as a refusal's does not
	$mock->rule([ map { { match => { path => '/enrich-lead-async', body_contains => qq("Status $_.") },
				status => $_ + 0, body => { detail => 'odd' }, accept => $true } } @statuses ]);
	my $list = join ',', @statuses;
	value(qq[count(sixtyfour_enrich_lead_async(jsonb_build_object('name', format('Status %s.', s)), '{"title":"their title"}'))
		FROM unnest(ARRAY[$list]) s]);
	wait_until("count(*) = 0 FROM sixtyfour.job WHERE state IN ('queued', 'sending')", 'all sent');
	my %got = map { @$_ } @{ $session->query(
		q(SELECT regexp_replace(j.body #>> '{lead_info,name}', '\D', '', 'g'), c.state
		  FROM sixtyfour.call c JOIN sixtyfour.job j ON j.call = c.id))->{rows} };
	is_deeply(\%got, \%expected, 'as the table says');
	is(value("string_agg(DISTINCT j.state || ' ' || c.state, ', ' ORDER BY j.state || ' ' || c.state) FROM sixtyfour.job j JOIN sixtyfour.call c ON c.id = j.call"),
		'failed rejected, uncertain uncertain', 'and the jobs follow');
	my %times;
	$times{ $_->{body}{lead_info}{name} }++ foreach @{ $mock->ledger(path => '/enrich-lead-async') };
	is(join(' ', grep { $times{$_} != 1 } sort keys %times), '', 'none was sent twice');
	is(scalar keys %times, scalar @statuses, 'all were sent');
	$mock->reset;
};

# A server that does not answer as one should: what it says, and what that means
subtest 'every end of a connection' => sub {
	my $dead = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp') or die "bind: $!";
	my %replies = (
		nothing         => '',
		garbage         => "SSH-2.0-OpenSSH_9.2\r\n",
		'HTTP/0.9'      => "hello\n",
		'half a status' => 'HTTP/1.',
		'half a head'   => "HTTP/1.1 200 OK\r\nContent-Type: appl",
		'half a body'   => qq(HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"task_id":"t"),
		'bad chunk'     => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
		'bad encoding'  => "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
		'huge head'     => "HTTP/1.1 200 OK\r\n" . join('', map { "X-$_: " . 'y' x 4000 . "\r\n" } 1 .. 100) . "\r\n{}",
		'status 100'    => "HTTP/1.1 100 Continue\r\n\r\n",
		'status 199'    => "HTTP/1.1 199 Odd\r\n\r\n",
		'status 600'    => "HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
		'status 999'    => "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
		'HTTP/3 status' => "HTTP/3.0 200 OK\r\n\r\n",
		'two lengths'   => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		'a task id of NULs' => qq(HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"task_id":"\\u0000id"}));
	# each holds on to those before it, so they end in the reverse order
	my @raw = map { [ $_, SixtyfourTest::Raw->start($replies{$_}) ] } sort keys %replies;
	my %raw = map { @$_ } @raw;
	my %where = (
		(map { $_ => $raw{$_}->url } keys %raw),
		'nobody listens' => 'http://127.0.0.1:' . $dead->sockport,
		'no such name'   => 'http://nowhere.invalid',
		'no TLS'         => $raw{garbage}->url =~ s/^http:/https:/r);
	my %expected = map { $_ => $raw{$_} ? 'uncertain' : 'rejected' } keys %where;
	my %got;

	# the server is not asked again within the test
	my $n = 0;
	my %server = map { $_ => 'odd' . $n++ } sort keys %where;
	foreach my $name (sort keys %where)
	{
		$session->value("CREATE SERVER $server{$name} FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$where{$name}', requests_per_minute '0', timeout '10')");
		$session->value("CREATE USER MAPPING FOR PUBLIC SERVER $server{$name} OPTIONS (api_key 'api_good')");
		$session->value("SET sixtyfour.server = $server{$name}");
		ask($name);
	}
	$session->value('RESET sixtyfour.server');
	wait_until('count(DISTINCT server) = ' . keys(%where) . " FROM sixtyfour.call WHERE server LIKE 'odd%' AND state <> 'sending'", 'all ended');
	foreach my $name (sort keys %where)
	{
		is(value("min(state) || ' ' || max(state) FROM sixtyfour.call WHERE server = '$server{$name}'"), "$expected{$name} $expected{$name}", $name);
		next unless $raw{$name};
		my @posts = $raw{$name}->received =~ /^POST /mg;
		is(scalar @posts, 1, 'sent once') unless $name eq 'garbage';
	}
	is(value("count(sixtyfour_cancel(id)) FROM sixtyfour.jobs WHERE server LIKE 'odd%' AND state = 'queued'"), 3, 'what was not sent would be tried again');
	%raw = ();
	pop @raw while @raw;
};

subtest 'a connection that is used again dies' => sub {
	$mock->reset;
	like(answer(ask('First')), qr/structured_data/, 'a connection stands');
	rule_for('Second', fault => 'close_reused');
	my $second = ask('Second');
	wait_for_state('uncertain', $second);
	my @seen = submissions('Second');
	is(scalar @seen, 1, 'the service has seen the request once');
	cmp_ok($seen[0]{nth_on_connection}, '>', 1, 'on a connection that was used before');
	is(call(call_of($second), "state || ' ' || sqlstate"), 'uncertain 08007', 'and the worker does not send it again');
	is_deeply($mock->summary->{duplicates}, {}, 'nothing was paid twice');
	$mock->reset;
};

# All that is uncertain now, out of the way
sub give_up
{
	$session->value(q(SELECT count(sixtyfour_resolve(id, 'abandon')) FROM sixtyfour.calls WHERE state IN ('uncertain', 'expired')));
	$mock->reset;
	return;
}
give_up();

# ---- the task of an uncertain call ----

sub name_task
{
	my ($call, $task, $who) = @_;
	my $reply = ($who // $session)->query("SELECT sixtyfour_resolve($call, '$task')");
	return $reply->{error} ? "$reply->{error}{sqlstate}: $reply->{error}{message}"
	  : join ', ', map { "$_->{severity}: $_->{message}" } @{ $reply->{notices} };
}

sub hold_poll
{
	my ($task) = @_;
	$mock->rule({ match => { path => "/job-status/$task" }, hold => $true });
	return;
}

sub candidates { return value("count(*) FROM sixtyfour.candidate WHERE call = $_[0]"); }

subtest 'a task that the service knows' => sub {
	my ($job, $call, $task) = uncertain('Known');
	is(name_task($call, $task), qq(NOTICE: call $call goes on if the service knows task "$task"), 'naming it');
	like(answer($job), qr/structured_data/, 'its answer comes home');
	is(call($call, "concat_ws(' ', state, task_id, sqlstate, message)"), "done $task", 'the call has it');
	is(scalar submissions('Known'), 1, 'nothing was sent again');
	wait_until("count(*) = 0 FROM sixtyfour.candidate", 'candidate forgotten');
	is(name_task($call, $task), "55000: call $call is not uncertain", 'once and for all');
};

subtest 'a task that is not the call\'s' => sub {
	my ($job, $call, $task) = uncertain('Doubtful');
	my $known   = ask('Another');
	my $email   = value(q(sixtyfour_request('POST', '/find-email-async', NULL, '{"lead":{"name":"Ada"}}') ->> 'task_id'));
	my $early   = value(q(sixtyfour_request('POST', '/enrich-lead-async', NULL, '{"lead_info":{"name":"Early"},"struct":{"title":"t"}}') ->> 'task_id'));
	my $strange = value(q(sixtyfour_request('POST', '/enrich-lead-async', NULL, '{"lead_info":{"name":"Strange"},"struct":{"title":"t"}}') ->> 'task_id'));
	answer($known);
	my $taken = call(call_of($known), 'task_id');

	is(name_task($call, $taken), qq(42710: task "$taken" is that of another call), 'another call\'s is refused at once');
	$mock->rule({ match => { path => "/job-status/$strange" }, answer => { state => 'of affairs' } });
	my %said = (
		'no such task' => 'the service does not know task "no such task"',
		$email   => qq(task "$email" is not of this call, but of operation find_email),
		$strange => qq(the service's answer about task "$strange" is not about a task of that name));
	foreach my $id (sort keys %said)
	{
		name_task($call, $id);
		is(error_of("sixtyfour_wait($job, '60 s')"), "08007: call $call may have been accepted and billed, but its answer is unknown",
			'a wait waits for what the service says, and then says that nobody knows');
		is(call($call, "state || ': ' || message"), "uncertain: $said{$id}", 'and why');
		is(job($job, 'message'), $said{$id}, 'the job says so');
		is(value("reason FROM sixtyfour.attention WHERE id = $call"), $said{$id}, 'as does attention');
		is(candidates($call), 0, 'it is not asked about any more');
	}
	$session->value("UPDATE sixtyfour.call SET created_at = now() + interval '1 hour' WHERE id = $call");
	name_task($call, $early);
	is((error_of("sixtyfour_wait($job, '60 s')") =~ /^(\w+)/)[0], '08007', 'one that began before the call');
	like(call($call, 'message'), qr/^task "\Q$early\E" is not of this call, but began before it, at \d/, 'is not its');
	$session->value("UPDATE sixtyfour.call SET created_at = now() WHERE id = $call");
	name_task($call, $task);
	like(answer($job), qr/structured_data/, 'the right one is, at last');
	is(scalar submissions('Doubtful'), 1, 'nothing was sent again');
};

subtest 'while the service is being asked' => sub {
	my ($job, $call, $task) = uncertain('Asked');
	my ($other_job, $other) = uncertain('Other');
	hold_poll($task);
	name_task($call, $task);
	$mock->wait_for(held => 1);
	is(value("reason FROM sixtyfour.attention WHERE id = $call"), call($call, 'message') . "; the service is being asked about task '$task'", 'attention says so');
	is(value("sixtyfour_why($job)"), "Call $call may have been accepted and billed; the service is being asked about a task that is said to be its.", 'as does why');
	is(error_of("sixtyfour_wait($job, '10 ms')"), '57014: canceling wait due to its timeout', 'a wait waits');
	is(name_task($call, $task), qq(NOTICE: call $call goes on if the service knows task "$task"), 'naming it again changes nothing');
	is(candidates($call), 1, 'indeed');
	is(name_task($other, $task), qq(42710: task "$task" is that of another call), 'nobody else can have it');
	hold_poll('wrong*');
	name_task($call, "wrong$_") foreach 1 .. 2;
	is(name_task($call, 'wrong3'), "53400: the service is being asked about other tasks for call $call", 'a few at a time');

	# another worker begins anew
	my $before = $mock->summary->{requests};
	is(value("pg_terminate_backend(pid, 60000) FROM sixtyfour.workers WHERE kind = 'worker' AND database = current_database()"), 't', 'the worker ends');
	wait_until("count(*) > 0 FROM sixtyfour.workers WHERE kind = 'worker' AND pid IS NOT NULL", 'a worker');
	$mock->wait_for(count => 2, path => "/job-status/$task", stage => 'received_headers');

	# a transaction that decides, and then does not
	$session->value('BEGIN');
	value("sixtyfour_resolve($call, 'abandon')");
	$mock->clear_rules;
	$mock->control('POST', 'release');
	$mock->wait_for(count => 3, path => "/job-status/$task", stage => 'replied');
	$session->value('ROLLBACK');
	like(answer($job), qr/structured_data/, 'the answer comes home all the same');
	wait_until("count(*) = 0 FROM sixtyfour.candidate", 'the wrong ones are forgotten');
	is(scalar submissions('Asked'), 1, 'nothing was sent again');
	give_up();
};

# ---- who decides ----

subtest 'a call with jobs of several roles' => sub {
	my ($job, $call) = uncertain('Shared', $as{one});
	my $joined = ask('Shared', $as{two});
	wait_for_state('uncertain', $joined);
	is(call_of($joined), $call, 'two roles, one call');
	$session->value("UPDATE sixtyfour.call SET raw = 'secret' WHERE id = $call");

	my $denied = "42501: permission denied for call $call";
	my $decide = "sixtyfour_resolve($call, 'resubmit' | 'abandon' | task id)";
	is(error_of("sixtyfour_resolve($call, '$_')", $as{two}), $denied, "who only joined may not decide: $_") foreach qw(resubmit abandon task-1);
	is($as{two}->query("SELECT sixtyfour_resolve($call, 'abandon')")->{error}{hint},
		'Who has the rights of its payer, or of the owners of all its jobs, may decide.', 'and is told who may');
	my %what = (one => $decide, two => "as one, or a superuser: $decide", chief => $decide);
	is($as{$_}->value("SELECT what_to_do FROM sixtyfour.attention WHERE id = $call"), $what{$_}, "attention tells $_") foreach sort keys %what;
	my %raw = (one => undef, two => undef, chief => 'secret', monitor => 'secret');
	is($as{$_}->value("SELECT raw FROM sixtyfour.calls WHERE id = $call"), $raw{$_}, "$_ sees of a joint answer what is theirs to see") foreach sort keys %raw;
	is($as{payer}->value("SELECT count(*) FROM sixtyfour.calls WHERE id = $call"), 0, 'strangers see nothing');

	# somebody else's money
	$session->value("UPDATE sixtyfour.call SET payer = 'payer' WHERE id = $call");
	is(error_of("sixtyfour_resolve($call, 'abandon')", $as{one}), $denied, 'with another payer, one owner alone may not');
	is($as{payer}->value("SELECT concat(state, raw) FROM sixtyfour.calls WHERE id = $call"), 'uncertain', 'the payer sees the call, not the answer');
	is($as{payer}->value("SELECT what_to_do FROM sixtyfour.attention WHERE id = $call"), $decide, 'and what to do');
	foreach my $who (qw(payer chief))
	{
		$session->value('BEGIN') ;
		$session->value("SET LOCAL ROLE $who");
		is(value("sixtyfour_resolve($call, 'abandon')"), '', "$who may");
		$session->value('ROLLBACK');
	}
	is($as{two}->value("SELECT sixtyfour_cancel($joined)"), 't', 'one of two cancels');
	is(error_of("sixtyfour_resolve($call, 'abandon')", $as{two}), $denied, 'and has no say any more');
	is($as{one}->value("SELECT sixtyfour_resolve($call, 'abandon')"), '', 'so the other may decide alone');
	is(job($joined, 'state') . ' ' . job($job, 'state'), 'cancelled failed', 'which it did');
};

# ---- sixtyfour.on_uncertain ----

sub configure
{
	my (@settings) = @_;
	$session->value("ALTER SYSTEM SET $_") foreach @settings;
	value('pg_reload_conf()');
	return;
}

subtest 'sixtyfour.on_uncertain' => sub {
	is(value("current_setting('sixtyfour.on_uncertain')"), 'hold', 'the default');
	is($as{one}->query('SET sixtyfour.on_uncertain = resubmit')->{error}{sqlstate}, '42501', 'not for everybody');
	is($session->query('SET sixtyfour.on_uncertain = perhaps')->{error}{sqlstate}, '22023', 'a word it does not know');
	give_up();

	rule_for('Once',  fault => 'close_after_body', times => 1);
	rule_for('Twice', fault => 'close_after_body', times => 2);
	my ($once, $twice) = (ask('Once'), ask('Twice'));
	wait_for_state('uncertain', $once, $twice);
	my ($expired) = (ask('Expired'));
	answer($expired);
	$session->value("UPDATE sixtyfour.call SET state = 'expired' WHERE id = " . call_of($expired));
	my ($named_job, $named, $task) = uncertain('Named');
	hold_poll($task);
	name_task($named, $task);
	my ($unwanted_job, $unwanted) = uncertain('Unwanted');
	value("sixtyfour_cancel($unwanted_job)");
	my $first = call_of($twice);

	configure('sixtyfour.resubmit_after = 1', 'sixtyfour.on_uncertain = resubmit');
	wait_for_state('succeeded', $once);
	pass('what is uncertain is submitted again');
	wait_until("count(*) = 1 FROM sixtyfour.jobs WHERE id = $twice AND state = 'uncertain' AND call > $first", 'uncertain again');
	is(call($first, "concat_ws(' ', state, sqlstate, message)"), 'rejected 08007 to be submitted again, as sixtyfour.on_uncertain says', 'the first call says why');
	# until the worker has looked again
	my $turn = value("max(last_turn) FROM sixtyfour.workers WHERE kind = 'worker'");
	$session->value("UPDATE sixtyfour.call SET created_at = created_at - interval '1 hour' WHERE state IN ('uncertain', 'expired')");
	like(answer(ask('Look')), qr/structured_data/, 'the worker looks');
	is(job($twice, 'state') . ' ' . value("resubmits FROM sixtyfour.job WHERE id = $twice"), 'uncertain 1', 'but once only');
	is(join(' ', map { scalar submissions($_) } qw(Once Twice Expired Named Unwanted)), '2 2 1 1 1',
		'not what was accepted, whose task is being looked for, or that nobody wants');
	configure('sixtyfour.on_uncertain = hold');
	$mock->clear_rules;
	$mock->control('POST', 'release');
	like(answer($named_job), qr/structured_data/, 'the task is found');
	give_up();
};

# ---- same question, one call ----

subtest 'the same questions in opposite order' => sub {
	my @sessions = @as{qw(one two)};
	$mock->settings({ task_seconds => undef });
	$_->value("SET statement_timeout = '20s'; BEGIN") foreach @sessions;
	my @jobs = (ask('Left', $sessions[0]), ask('Right', $sessions[1]), ask('Right', $sessions[0]), ask('Left', $sessions[1]));
	pass('nobody waits for anybody');
	is(value("count(*) FROM sixtyfour.job WHERE id IN (" . join(',', @jobs) . ')'), 0, 'nothing is committed yet');
	$_->value('COMMIT') foreach @sessions;
	wait_for_state('running', @jobs);
	is(call_of($jobs[0]) . ' ' . call_of($jobs[1]), call_of($jobs[3]) . ' ' . call_of($jobs[2]), 'two calls for four jobs');

	my $later = ask('Left');
	wait_for_state('running', $later);
	is(call_of($later), call_of($jobs[0]), 'a later job joins a call in flight');
	$session->value("CREATE SERVER apart FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '${\$mock->url}', requests_per_minute '0')");
	$session->value("CREATE USER MAPPING FOR PUBLIC SERVER apart OPTIONS (api_key 'api_other')");
	$session->value('SET sixtyfour.server = apart');
	my $apart = ask('Left');
	$session->value('RESET sixtyfour.server');
	wait_for_state('running', $apart);
	isnt(call_of($apart), call_of($jobs[0]), 'but not one of another account');
	$mock->control('POST', 'tasks/all', { action => 'finish' });
	$mock->settings({ task_seconds => 0.2 });
	answer($_) foreach @jobs, $later, $apart;
	is(scalar submissions('Left'), 2, 'each account has asked once');
	is(scalar submissions('Right'), 1, 'and each question was sent once');
	is(value("string_agg(shared::text, ' ' ORDER BY id) FROM sixtyfour.jobs WHERE id IN (" . join(',', @jobs[0, 3], $later, $apart) . ") AND shared"),
		'true true', 'the jobs say who got it for nothing');

	my $stored = ask('Left');
	like(answer($stored), qr/structured_data/, 'a stored answer');
	is(job($stored, "concat_ws(' ', state, call, shared)"), 'succeeded t', 'needs no call');
	$session->value('SET sixtyfour.cache_ttl = 0');
	my $fresh = ask('Left');
	$session->value('RESET sixtyfour.cache_ttl');
	answer($fresh);
	is(job($fresh, "concat_ws(' ', state, call IS NOT NULL, shared)"), 'succeeded t f', 'unless none is wanted');
	is(scalar submissions('Left'), 3, 'which is paid for');
	$_->value('RESET statement_timeout') foreach @sessions;
};

subtest 'what was saved' => sub {
	$session->value(q(
		CREATE TABLE people (id int PRIMARY KEY, name text, email text);
		SELECT sixtyfour_create_enrichment('saving', 'people', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
		INSERT INTO people SELECT i, 'Ada Twin' FROM generate_series(1, 3) i;
	));
	value("sixtyfour_wait_enrichment('saving', '60 s')");
	is(value("concat_ws(' ', total, succeeded, cents, saved_cents) FROM sixtyfour.enrichments WHERE name = 'saving'"), '3 3 5 10', 'one of three was paid for');
	is(scalar submissions('Ada Twin'), 1, 'as the service says');
};

# ---- answers that cannot be read ----

# A webhook makes the worker ask about the task, once a second, until it gives up.
sub wait_for_failure
{
	my ($task, @jobs) = @_;
	my $failed = "count(*) FILTER (WHERE state = 'failed') FROM sixtyfour.jobs WHERE id IN (" . join(',', @jobs) . ')';
	SixtyfourTest::poll_until(sub {
		value(qq(sixtyfour_webhook('{"task_id":"$task"}')));
		return value($failed) == @jobs;
	}) or die "@jobs do not fail";
	return;
}

sub unreadable
{
	my ($name) = @_;
	$mock->settings({ task_seconds => undef });
	my $job = ask($name);
	wait_for_state('running', $job);
	my $task = call(call_of($job), 'task_id');
	$mock->rule({ match => { path => "/job-status/$task" }, fault => 'not_json' });
	$mock->control('POST', "tasks/$task", { action => 'finish' });
	wait_for_failure($task, $job);
	$mock->settings({ task_seconds => 0.2 });
	return ($job, call_of($job));
}

sub retry
{
	my ($job, $who) = @_;
	my $reply = ($who // $session)->query("SELECT sixtyfour_retry($job)");
	return "$reply->{error}{sqlstate}: $reply->{error}{message}" if $reply->{error};
	return join '; ', $reply->{rows}[0][0], map { $_->{message} . ($_->{detail} ? " ($_->{detail})" : '') } @{ $reply->{notices} };
}

subtest 'an answer that can be read now' => sub {
	my ($job, $call) = unreadable('Readable');
	is(retry($job, $as{one}), "42501: permission denied for job $job", 'not by others');
	is(retry(987654), '42704: job 987654 does not exist', 'not what is not there');
	$session->value(qq(UPDATE sixtyfour.call SET raw = '{"status":"completed","charge_amount":7,"result":{"notes":"kept"}}' WHERE id = $call));
	is(retry($job), "t; job $job has the answer kept with call $call, and is not asked again", 'is read');
	is(answer($job), '{"notes": "kept"}', 'and is the job\'s');
	is(value("string_agg(cents::text, ' ') FROM sixtyfour.results WHERE call = $call"), '7', 'at the price that it tells');
	is(call($call, "concat_ws(' ', state, sqlstate, message)"), 'done', 'the call is done');
	is(scalar submissions('Readable'), 1, 'nothing was asked again');
	is(retry($job), 'f', 'once');
};

my $again = qr/^t; the service is asked again for the answer to job \d+, which costs nothing/;

subtest 'an answer that still cannot' => sub {
	my ($job, $call) = unreadable('Unreadable');
	my $risk = q(at_risk_cents FROM sixtyfour.accounts WHERE server = 'sixtyfour' AND payer = 'postgres'::regrole);
	my $before = value($risk);
	my $cents = call($call, 'expected_cents');

	# whoever asks the same meanwhile joins
	cmp_ok($cents, '>', 0, 'a call that costs something');
	like(retry($job), qr/$again \(What is kept with call $call cannot be read: .+\)$/, 'is asked for again at the service, for nothing');
	is(call($call, "concat_ws(' ', state, sqlstate)"), 'expired 08007', 'by its call');
	wait_until("open FROM sixtyfour.call_item WHERE call = $call", 'its question is held again');
	my $same = ask('Unreadable');
	wait_for_state('uncertain', $job, $same);
	like(value("sixtyfour_why($job)"), qr/the service is being asked about a task/, 'as it says');
	wait_until("count(*) = 0 FROM sixtyfour.candidate WHERE call = $call", 'it is odd again');
	like(error_of("sixtyfour_wait($job)"), qr/^08007: /, 'if it cannot be read again, a person has to decide');
	is(value("cents_at_risk FROM sixtyfour.attention WHERE kind = 'call' AND id = $call"), $cents, 'which attention says');
	is(value($risk), $before + $cents, 'and the account');
	is(retry($job), 'f', 'it is not failed any more');
	$mock->clear_rules;
	value("sixtyfour_resolve($call, '" . call($call, 'task_id') . "')");
	like(answer($_), qr/structured_data/, 'it is there when it can be read') foreach $job, $same;
	is(scalar submissions('Unreadable'), 1, 'and was paid for once');
	is(call($call, "concat_ws(' ', state, finished_at IS NOT NULL)"), 'done t', 'the call is done');
	is(value($risk), $before, 'and no risk any more');
};

subtest 'an answer that was too large' => sub {
	my $set = sub {
		$node->append_conf('postgresql.conf', "sixtyfour.max_response_size = '$_[0]'");
		$node->reload;
	};
	$mock->settings({ task_seconds => undef });
	my ($job, $other) = map { ask('Large', $_) } $session, $as{one};
	wait_for_state('running', $job, $other);
	my $task = call(call_of($job), 'task_id');
	$mock->rule({ match => { path => "/job-status/$task" }, fault => 'huge', size_bytes => 100_000 });
	$set->('64kB');
	$mock->control('POST', "tasks/$task", { action => 'finish' });
	wait_for_failure($task, $job, $other);
	$mock->settings({ task_seconds => 0.2 });
	is(job($job, 'sqlstate'), '54000', 'fails');
	$set->('16MB');
	$mock->clear_rules;
	like(retry($_), $again, 'with room for it the service is asked for it again') foreach $job, $other;
	like(answer($_), qr/structured_data/, 'and has it still') foreach $job, $other;
	is(scalar submissions('Large'), 1, 'paid for once');
};

subtest 'an answer that came after its job was cancelled' => sub {
	$mock->settings({ task_seconds => undef });
	my ($job, $other) = map { ask('Cancelled first', $_) } $session, $as{one};
	wait_for_state('running', $job, $other);
	my $task = call(call_of($job), 'task_id');
	value("sixtyfour_cancel($job)");
	$mock->rule({ match => { path => "/job-status/$task" }, fault => 'not_json' });
	$mock->control('POST', "tasks/$task", { action => 'finish' });
	wait_for_failure($task, $other);
	$mock->settings({ task_seconds => 0.2 });
	$mock->clear_rules;
	like(retry($job), $again, 'is asked for again at the service');
	like(retry($other), $again, 'as for the other job');
	like(answer($_), qr/structured_data/, 'and is there') foreach $job, $other;
	is(scalar submissions('Cancelled first'), 1, 'paid for once');
};

subtest 'an answer that says nothing' => sub {
	my ($job, $call);

	my %raw = (
		'It gives no result.' => '{"status":"running"}',
		'It has nothing that can be told to be about this lead.' => '{"status":"completed","result":[]}');
	foreach my $why (sort keys %raw)
	{
		($job, $call) = unreadable("No $why");
		$session->value("UPDATE sixtyfour.call SET items = 2, raw = '$raw{$why}' WHERE id = $call");
		$mock->clear_rules;
		$session->value('BEGIN');
		is(retry($job), "t; job $job is asked again, which may cost again (The answer kept with call $call still cannot be read: $why)", $why);
		$session->value('ROLLBACK');
	}
	$session->value(qq(UPDATE sixtyfour.call SET items = 1, message = 'the service''s answer cannot be stored', raw = '{"status":"completed","result":{}}' WHERE id = $call));
	like(retry($job), $again, 'a text that is not the whole truth is not read');
	like(answer($job), qr/structured_data/, 'but asked for again');
	is(value("call FROM sixtyfour.jobs WHERE id = $job"), $call, 'by the same call, so it is paid for once');
};

# ---- where the service tells requests apart ----

subtest 'Idempotency-Key' => sub {
	my $run = q(sixtyfour_request('POST', '/workflows/run', '{"workflow_id":"wf"}', '{"webhook_payload":[{"company_name":"Acme"}]}'));
	my $flow = value(q(sixtyfour_request('POST', '/workflows', NULL, '{"workflow_name":"W","workflow_definition":{"blocks":[{"sequence_number":1,"block_type":"webhook","block_name":"webhook","specs":{}}],"edges":[]}}')));
	my $id = JSON::PP::decode_json($flow)->{workflow_id} // JSON::PP::decode_json($flow)->{id};
	$run =~ s/"wf"/"$id"/;
	$mock->reset_ledger;
	$mock->rule({ match => { path => '/workflows/run' }, fault => 'close_after_body', times => 1 });
	like(value($run), qr/"job_id"/, 'a request whose reply is lost is sent again');
	my @sent = @{ $mock->ledger(path => '/workflows/run') };
	is(scalar @sent, 2, 'once');
	my @seen = map { $_->{headers}{'idempotency-key'} } @sent;
	like($seen[0], qr/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'with a key');
	is($seen[1], $seen[0], 'that is the same');
	is($sent[1]{billed}, 0, 'so it is paid once');
	is_deeply($mock->summary->{duplicates}, {}, 'and done once');
	like(value($run), qr/"job_id"/, 'another request');
	isnt($mock->ledger(path => '/workflows/run')->[2]{headers}{'idempotency-key'}, $seen[0], 'has another key');
	$mock->rule({ match => { path => '/workflows/run' }, status => 500, accept => $true });
	is((error_of($run) =~ /^(\w+)/)[0], '38000', 'a service that fails on and on');
	is(scalar @{ $mock->ledger(path => '/workflows/run') }, 6, 'is asked three times');
	$mock->reset;
	value(q(sixtyfour_find_email('{"name":"Ada"}')));
	is($mock->ledger(path => '/find-email')->[0]{headers}{'idempotency-key'}, undef, 'none where the service knows none');
};

my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/PANIC|TRAP|server process .* was terminated/, 'no crash');
unlike($log, qr/ (?:ERROR|FATAL): .*(?:could not serialize|deadlock|lock timeout|duplicate key)/, 'and no error of the ledger');

done_testing();
