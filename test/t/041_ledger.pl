# What becomes of a submission and of its money: refusals, retries, calls of
# which nobody knows whether they were billed, answers that are no use, and
# accounts that cannot be used for a while.  The mock's ledger is the witness.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use SixtyfourTest;

my @keys = qw(api_good api_second api_mended api_frugal);
my $mock = SixtyfourTest::Mock->start('--keys' => join ',', @keys);
my $node = SixtyfourTest::cluster('ledger', $mock,
	conf   => "log_min_messages = debug1\n",
	server => "requests_per_minute '0', timeout '2'");
my $session = SixtyfourTest::Session->new($node);

$mock->settings({ quirks => 'none', found => 'all' });

# ---- helpers ----

sub value { return $session->value("SELECT $_[0]"); }

sub error_parts
{
	my $error = $session->query("SELECT $_[0]")->{error} // {};
	return [ map { $error->{$_} } qw(sqlstate message detail hint) ];
}

sub error_of
{
	my ($expression, $who) = @_;
	my $error = ($who // $session)->query("SELECT $expression")->{error}
	  or return 'no error';
	return "$error->{sqlstate}: $error->{message}";
}

# An enrich_lead about somebody, which is never part of a bulk request
sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}'); }
sub ask { return value('sixtyfour_enrich_lead_async(' . question($_[0]) . ')'); }
sub job { return value("$_[1] FROM sixtyfour.jobs WHERE id = $_[0]"); }
sub call { return value("$_[1] FROM sixtyfour.calls WHERE id = (SELECT call FROM sixtyfour.jobs WHERE id = $_[0])"); }
sub why { return value("sixtyfour_why($_[0])"); }

# why, of a job that is tried now and again
sub why_again
{
	my ($job) = @_;
	my $why;
	SixtyfourTest::poll_until(sub { ($why = why($job)) =~ /tried again/ });
	return $why;
}

sub answer { return value("sixtyfour_wait($_[0], '60 s')"); }

sub wait_for_state
{
	my ($state, @jobs) = @_;
	foreach my $job (@jobs)
	{
		$node->poll_query_until('postgres', "SELECT state = '$state' FROM sixtyfour.jobs WHERE id = $job")
		  or die "job $job does not become $state, but is " . job($job, "state || ' ' || coalesce(message, '')");
	}
	return;
}

# Misbehave towards submissions that are about somebody.
sub rule_for
{
	my ($name, %rule) = @_;
	$mock->rule({ match => { path => '/*-async', body_contains => qq("$name") }, %rule });
	return;
}

sub submissions
{
	my ($name) = @_;
	return grep { $_->{path} eq '/enrich-lead-async' && $_->{body}{lead_info}{name} eq $name }
	  @{ $mock->ledger };
}

# ---- refusals: not billed, and not asked again ----

my %refusals = (
	400 => [ '22023', 'the service does not accept the request' ],
	403 => [ '42501', 'the account may not do this' ],
	404 => [ '02000', 'the service does not know what was asked for' ],
	422 => [ '22023', 'the service does not accept the request' ]);
my %refused;
foreach my $status (sort keys %refusals)
{
	rule_for("Refused $status", status => $status + 0);
	$refused{$status} = ask("Refused $status");
}
wait_for_state('failed', values %refused);
foreach my $status (sort keys %refusals)
{
	my ($sqlstate, $said) = @{ $refusals{$status} };
	my $message = "enrich_lead: $said";
	my $id      = $refused{$status};
	my $error  = error_parts("sixtyfour_wait($id)");
	my $detail = "HTTP status $status: Asked by a rule";
	is_deeply([ @$error[ 0 .. 2 ] ], [ $sqlstate, $message, $detail ], "status $status: the error");
	isnt($error->[3], '', 'with a hint');
	is(why($id), "It failed: $message ($detail).", 'why');
	is(call($id, "concat_ws(' ', state, sqlstate, cents)"), "rejected $sqlstate", 'its call was not billed');
	is(scalar submissions("Refused $status"), 1, 'it was sent once');
}
$mock->clear_rules;
is(value("sixtyfour_retry($refused{422})"), 't', 'what was refused can be tried again');
like(answer($refused{422}), qr/structured_data/, 'and has its answer then');

# ---- what may have been accepted and billed ----

my %odd = (
	close    => { fault => 'close_after_body' },
	reset    => { fault => 'reset_after_body' },
	cut      => { fault => 'cut' },
	hang     => { fault => 'hang' },
	bad500   => { status => 500, accept => JSON::PP::true },
	bad502   => { status => 502, accept => JSON::PP::true },
	odd409   => { status => 409, accept => JSON::PP::true },
	moved    => { fault => 'redirect' },
	not_json => { fault => 'not_json' },
	empty    => { fault => 'empty' },
	no_task  => { answer => { status => 'RUNNING' } },
	blank    => { answer => { task_id => '', status => 'RUNNING' } },
	array    => { fault => 'wrong_shape' },
	utf8     => { fault => 'invalid_utf8' },
	key      => { raw_base64 => 'PGh0bWw+YXBpX2dvb2QgaXMgeW91ciBrZXk8L2h0bWw+' });
my %said = (
	close    => 'connection to the service was lost',
	hang     => 'the service did not answer in time',
	bad500   => 'the service failed',
	odd409   => 'the service refuses the request',
	moved    => 'the service answered with a redirect, which is not followed',
	not_json => "the service's answer cannot be read",
	no_task  => 'the service accepted the request without naming a task',
	key      => "the service's answer cannot be read");

$mock->reset;
rule_for("Odd $_", %{ $odd{$_} }) foreach keys %odd;
my %job = map { $_ => ask("Odd $_") } sort keys %odd;
wait_for_state('uncertain', values %job);
my %call = map { $_ => job($job{$_}, 'call') } keys %job;
foreach my $name (sort keys %odd)
{
	is(call($job{$name}, "concat_ws(' ', state, sqlstate, cents, finished_at)"), 'uncertain 08007', "$name: the call is uncertain");
	like(call($job{$name}, 'message'), qr/^(enrich_lead: )?\Q$said{$name}\E/, "$name: and says why") if $said{$name};
}
is(value('count(*) FROM sixtyfour.calls WHERE state = \'uncertain\''), scalar keys %odd, 'nothing else is uncertain');
my $text = call($job{no_task}, 'message');
is_deeply(error_parts("sixtyfour_wait($job{no_task})"),
	[ '08007', "call $call{no_task} may have been accepted and billed, but its answer is unknown", $text,
		"Look at the account at the service, then use sixtyfour_resolve($call{no_task}, 'resubmit' | 'abandon' | task id)." ],
	'a wait says what happened and what to do');
is((error_parts("sixtyfour_wait_all('{$job{no_task}}')"))->[0], '08007', 'and so does one for all');
is(why($job{no_task}),
	"Call $call{no_task} may have been accepted and billed, but its answer is unknown ($text); use sixtyfour_resolve($call{no_task}, ...).", 'why');
is(value("sixtyfour_result($job{no_task})"), undef, 'no result');
is(value("sixtyfour_retry($job{no_task})"), 'f', 'it cannot be simply tried again');
is(value("concat_ws('|', kind, id, operation, cents_at_risk, what_to_do) FROM sixtyfour.attention WHERE kind = 'call' AND id = $call{no_task}"),
	"call|$call{no_task}|enrich_lead|500|sixtyfour_resolve($call{no_task}, 'resubmit' | 'abandon' | task id)", 'attention says what to do');
is(value('count(*) FROM sixtyfour.attention'), scalar keys %odd, 'for each of them');
is(call($job{not_json}, "raw LIKE '%Bad gateway%'"), 't', 'an answer that cannot be read is kept');
is(call($job{key}, 'raw'), '<html>******** is your key</html>', 'without the key');

# asking again sends nothing
my $requests = $mock->summary->{requests};
my %again = map { $_ => ask("Odd $_") } sort keys %odd;
wait_for_state('uncertain', values %again);
is(join(' ', map { job($again{$_}, 'call') } sort keys %odd), join(' ', map { $call{$_} } sort keys %odd),
	'the same question gets the same uncertain call');
is(error_parts('sixtyfour_enrich_lead(' . question('Odd close') . ')')->[1],
	"call $call{close} may have been accepted and billed, but its answer is unknown", 'asked synchronously as well');
is(error_parts("sixtyfour_wait($again{close})")->[0], '08007', 'a wait for it says so');
is($mock->summary->{requests}, $requests, 'and nothing is sent');
is(value("sixtyfour_cancel($again{moved})"), 't', 'a job can be cancelled');
is(job($again{moved}, 'state') . ' ' . call($job{moved}, 'state'), 'cancelled uncertain', 'which decides nothing about the call');

# ---- resolving ----

$session->value(q(
	CREATE ROLE owner LOGIN;
	CREATE ROLE other LOGIN;
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO owner, other;
));
my $owner = SixtyfourTest::Session->new($node, user => 'owner');
my $other = SixtyfourTest::Session->new($node, user => 'other');

is_deeply(error_parts("sixtyfour_resolve($call{close}, '')"),
	[ '22023', "the action must be 'resubmit', 'abandon' or a task id", '', '' ], 'an empty action');
is(error_of('sixtyfour_resolve(987654, \'abandon\')'), '55000: call 987654 is not uncertain', 'an unknown call');
is(error_of("sixtyfour_resolve($call{close}, 'abandon')", $other), "42501: permission denied for call $call{close}", 'by another role');
is($other->value('SELECT count(*) FROM sixtyfour.attention'), 0, 'which does not see it either');

# the owner of a job may decide, as may a superuser
$mock->clear_rules;
rule_for('Owned', fault => 'close_after_body');
my $owned = $owner->value('SELECT sixtyfour_enrich_lead_async(' . question('Owned') . ')');
wait_for_state('uncertain', $owned);
$mock->clear_rules;
is($owner->value('SELECT count(*) FROM sixtyfour.attention'), 1, 'the owner sees it');
my $owned_call = job($owned, 'call');
is($owner->value("SELECT sixtyfour_resolve($owned_call, 'abandon')"), '', 'and may decide');
is(job($owned, "state || ' ' || sqlstate"), 'failed 08007', 'an abandoned job fails');
is(error_of("sixtyfour_wait($owned)", $owner), '08007: abandoned, as a person said; it may have been billed', 'and says so');
is(call($owned, "state || (finished_at IS NOT NULL)"), 'abandonedtrue', 'the call is closed');
is(error_of("sixtyfour_resolve($owned_call, 'resubmit')"), "55000: call $owned_call is not uncertain", 'once and for all');
is($owner->value("SELECT sixtyfour_retry($owned)"), 't', 'its job can be tried again');

# a rolled back decision is none
$session->value('BEGIN');
value("sixtyfour_resolve($call{cut}, 'resubmit')");
$session->value('ROLLBACK');

# 'resubmit'
value("sixtyfour_resolve($call{$_}, 'resubmit')") foreach qw(close moved);
# a task id, as the service's list of tasks would tell it
my %task = map { ($_->{body}{lead_info}{name} =~ /^Odd (.*)/ ? $1 : '') => $_->{task_id} }
  @{ $mock->ledger(path => '/enrich-lead-async', accepted => 1) };
value("sixtyfour_resolve($call{$_}, '$task{$_}')") foreach qw(reset cut hang bad500);
# a task id that is none, found out below
value("sixtyfour_resolve($call{blank}, 'no/such task')");
like(answer($job{$_}), qr/structured_data/, "$_: submitted again, a job has its answer") foreach qw(close moved);
like(answer($again{close}), qr/structured_data/, 'and so has one that followed');
is(job($again{moved}, 'state'), 'cancelled', 'but not one that was cancelled');
foreach my $name (qw(reset cut hang bad500))
{
	like(answer($job{$name}), qr/structured_data/, "$name: with its task known, a job has its answer");
	like(answer($again{$name}), qr/structured_data/, 'and so has one that followed');
}
like(answer($owned), qr/structured_data/, 'what was abandoned and tried again has an answer');
is(scalar submissions('Odd reset'), 1, 'a named task was not submitted again');
is(scalar submissions('Odd close'), 2, 'what was to be submitted again was, once');
is(scalar keys %{ $mock->summary->{duplicates} }, 2, 'paid twice is what a person wanted to be');

# ---- retries ----

# 429, and its Retry-After: nothing is billed, and nothing lost
$mock->reset;
rule_for('Throttled', status => 429, headers => { 'Retry-After' => SixtyfourTest::slow() ? '15' : '1' }, times => 2);
my $throttled = ask('Throttled');
$mock->wait_for(count => 1, path => '/enrich-lead-async', stage => 'replied');
wait_for_state('queued', $throttled);
$node->poll_query_until('postgres', "SELECT attempts > 0 FROM sixtyfour.jobs WHERE id = $throttled");
like(why_again($throttled), qr/^It is tried again at .*: enrich_lead: the service's rate limit is reached \(HTTP status 429: Asked by a rule\)\.$/, '429: why');
is(job($throttled, "concat_ws(' ', sqlstate, call)"), '53400', '429: the job says so and has no call');

# nobody listens at first
my $absent = SixtyfourTest::Mock->start('--keys' => 'api_second');
my $port   = $absent->port;
$absent->stop;
$session->value("CREATE SERVER second FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url 'http://127.0.0.1:$port', requests_per_minute '0')");
$session->value("CREATE USER MAPPING FOR PUBLIC SERVER second OPTIONS (api_key 'api_second')");
$session->value("SET sixtyfour.server = second");
my $early = ask('Early');
$session->value("RESET sixtyfour.server");
$node->poll_query_until('postgres', "SELECT attempts > 1 FROM sixtyfour.jobs WHERE id = $early");
is(job($early, "state || ' ' || sqlstate"), 'queued 08001', 'no connection: the job waits');
like(why_again($early), qr/^It is tried again at .*: enrich_lead: could not connect to the service \(.*\)\.$/, 'no connection: why');
is(value("string_agg(DISTINCT concat_ws(' ', state, sqlstate, cents), ',') FROM sixtyfour.calls WHERE server = 'second'"),
	'rejected 08001', 'no connection: nothing was billed');
is(value("bool_and(retry_at - finished_at BETWEEN interval '0.5 s' * 2 ^ (place - 1) AND interval '1.1 s' * 2 ^ (place - 1)) FROM (SELECT retry_at, finished_at, row_number() OVER (ORDER BY id) AS place FROM sixtyfour.call WHERE server = 'second') s"),
	't', 'no connection: each pause is twice the last');
$absent = SixtyfourTest::Mock->start('--keys' => 'api_second', '--port' => $port);
like(answer($early), qr/structured_data/, 'when somebody listens the job goes on');
is($absent->summary->{accepted} - @{ $absent->ledger(path => '/job-status/*') }, 1, 'and is sent once');
like(answer($throttled), qr/structured_data/, '429: it goes on');
is(job($throttled, 'attempts'), 2, '429: after two attempts');
is(join(' ', map { $_->{status} . ':' . $_->{billed} } submissions('Throttled')), '429:0 429:0 200:480', '429: one of three requests was billed');
is($mock->summary->{billed_cents}, 480, 'and nothing else');

# ---- answers of tasks, and accounts that cannot be used: all at once ----

$mock->reset;
$mock->settings({ task_seconds => undef });

# databases in other encodings: a question that cannot be sent, and an answer that
# cannot be held
my %encoding = (ascii => 'SQL_ASCII', latin => 'LATIN1');
foreach my $database (sort keys %encoding)
{
	$session->value("CREATE DATABASE $database TEMPLATE template0 ENCODING '$encoding{$database}' LC_COLLATE 'C' LC_CTYPE 'C'");
	SixtyfourTest::install($node, $database, $mock, server => "requests_per_minute '0'");
}
my $ascii = SixtyfourTest::Session->new($node, database => 'ascii');
my $latin = SixtyfourTest::Session->new($node, database => 'latin');
$mock->rule({ match => { body_contains => 'Snow' }, result => { notes => "\x{2603}" } });
my $bad  = $ascii->value('SELECT sixtyfour_enrich_lead_async(' . question("Caf\xe9") . ')');
my $fine = $ascii->value('SELECT sixtyfour_enrich_lead_async(' . question('Plain') . ')');
my $cafe = $latin->value('SELECT sixtyfour_enrich_lead_async(' . question("Caf\xe9") . ')');
my $snow = $latin->value('SELECT sixtyfour_enrich_lead_async(' . question('Snow') . ')');

# roles of their own, each with a way of not being able to pay
$session->value("CREATE ROLE $_ LOGIN") foreach qw(mistaken revoked unmapped serverless vanished frugal);
$session->value('GRANT USAGE ON FOREIGN SERVER sixtyfour TO mistaken, revoked, unmapped, vanished');
$session->value("CREATE USER MAPPING FOR mistaken SERVER sixtyfour OPTIONS (api_key 'api_mistaken')");
foreach my $server (qw(third fourth fifth))
{
	$session->value("CREATE SERVER $server FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '${\$mock->url}', requests_per_minute '0')");
}
$session->value("CREATE USER MAPPING FOR unmapped SERVER third OPTIONS (api_key 'api_good')");
$session->value("CREATE USER MAPPING FOR PUBLIC SERVER fourth OPTIONS (api_key 'api_good')");
$session->value("CREATE USER MAPPING FOR frugal SERVER fifth OPTIONS (api_key 'api_frugal')");
$session->value("ALTER SERVER fifth OPTIONS (ADD daily_budget_cents '12')");
$session->value('GRANT USAGE ON FOREIGN SERVER third, fourth, fifth TO unmapped, serverless, frugal');
my %server = (unmapped => 'third', serverless => 'fourth', frugal => 'fifth');
my %payer  = map { $_ => SixtyfourTest::Session->new($node, user => $_) }
  qw(mistaken revoked unmapped serverless vanished);

sub ask_as
{
	my ($who, $name) = @_;
	my $server = $server{$who} // 'sixtyfour';
	$payer{$who}->value("SET sixtyfour.server = $server");
	return $payer{$who}->value('SELECT sixtyfour_enrich_lead_async(' . question($name) . ')');
}

# tasks that run when their account becomes unusable, and jobs that wait
my %in_flight = map { $_ => ask_as($_, "In flight of $_") } qw(revoked unmapped serverless);
wait_for_state('running', values %in_flight);
value('sixtyfour_pause()');
my %waiting = map { $_ => ask_as($_, "Waiting of $_") } keys %payer;
$waiting{"mistaken$_"} = ask_as('mistaken', "Waiting of mistaken $_") foreach 2 .. 4;
$session->value('REVOKE USAGE ON FOREIGN SERVER sixtyfour FROM revoked, vanished');
$session->value('DROP USER MAPPING FOR unmapped SERVER third');
$session->value('DROP SERVER fourth CASCADE');
$payer{vanished}->close;
$session->value('DROP ROLE vanished');
value('sixtyfour_resume()');

# tasks whose answers are odd; those of the rules are about one task each
my @tasks = qw(forgotten transient failing404 persistent nul broken failed poison late good);
my %poll = map { $_ => ask("Poll $_") } @tasks;
$poll{bogus} = $job{blank};
wait_for_state('running', map { $poll{$_} } @tasks);
my %id = map { $_ => call($poll{$_}, 'task_id') } @tasks;
my %polls = (
	transient  => { fault => 'not_json', times => 2 },
	failing404 => { status => 404, times => 2 },
	persistent => { fault => 'not_json' },
	nul        => { fault => 'nul' },
	broken     => { fault => 'invalid_utf8' },
	late       => { status => 503, times => 2 });
$mock->rule({ match => { path => "/job-status/$id{$_}" }, %{ $polls{$_} } }) foreach keys %polls;
$mock->control('POST', "tasks/$id{forgotten}", { action => 'forget' });
$mock->control('POST', "tasks/$id{failed}",    { action => 'fail', status => 'timed_out', error => 'took too long' });
$mock->control('POST', "tasks/$id{poison}",    { action => 'finish', result => { notes => 'poison', who => "caf\x{e9}" } });

# what the tables refuse for its contents, and what they refuse for now
$session->value(q(
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.answer ->> 'notes' = 'poison' THEN
			RAISE SQLSTATE '22P05' USING MESSAGE = 'a character that nobody can store';
		ELSIF to_regclass('public.full_disk') IS NOT NULL AND NEW.answer ->> 'notes' = 'disk' THEN
			RAISE SQLSTATE '53100' USING MESSAGE = 'no space left';
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER refuse BEFORE INSERT ON sixtyfour.result FOR EACH ROW EXECUTE FUNCTION refuse();
	CREATE TABLE full_disk ();
));
my $disk = ask('Disk');
wait_for_state('running', $disk);
my $disk_task = call($disk, 'task_id');
$mock->control('POST', "tasks/$disk_task", { action => 'finish', result => { notes => 'disk' } });
$mock->control('POST', 'tasks/all', { action => 'finish' });
$mock->settings({ task_seconds => 0.2 });

# good answers come through meanwhile
like(answer($poll{good}), qr/structured_data/, 'a good answer is not held up by odd ones');
wait_for_state('failed', $poll{poison});
is(error_of("sixtyfour_wait($poll{poison})"), "08P01: the service's answer cannot be stored", 'an answer that cannot be stored fails its job');
like(call($poll{poison}, 'raw'), qr/"who": *"caf\\xc3\\xa9", *"notes": *"poison"/, 'its text is kept, to the byte');
is(call($poll{poison}, "concat_ws(' ', state, sqlstate)"), 'failed 08P01', 'the call says so');
is(error_of("sixtyfour_wait($poll{failed})"), '38000: the service could not do it: took too long', 'a task that failed fails its job');

# an account whose key is refused: nothing but one try
wait_for_state('queued', grep { defined } map { $waiting{$_} } qw(mistaken mistaken2 mistaken3 mistaken4));
is(scalar(grep { ($_->{status} // 0) == 401 } @{ $mock->ledger(path => '/enrich-lead-async') }), 4, 'requests of one turn with a bad key are refused');
my $more = ask_as('mistaken', 'More of mistaken');
like(answer(ask('After more')), qr/structured_data/, 'others go on');
is(scalar(grep { ($_->{status} // 0) == 401 } @{ $mock->ledger(path => '/enrich-lead-async') }), 4, 'and then no more are sent');
like(why($_), qr/^Its account is tried again at \d{4}-.*, or with another key: the service refuses the API key\.$/, 'why')
  foreach $waiting{mistaken}, $more;
is(job($waiting{mistaken}, 'sqlstate'), '28000', 'the job says what it met');
is($payer{mistaken}->value("SELECT paused_by FROM sixtyfour.accounts WHERE server = 'sixtyfour' AND payer = 'mistaken'::regrole"),
	'the service refuses the account (28000)', 'as does the account');

my %unusable = (
	revoked    => 'permission denied for foreign server sixtyfour',
	unmapped   => 'user mapping not found for "unmapped"',
	serverless => 'server "fourth" does not exist');
foreach my $who (sort keys %unusable)
{
	is(why($waiting{$who}), "It waits until its account can be used: $unusable{$who}.", "$who: why a job waits");
	is(job($waiting{$who}, 'state'), 'queued', 'as it does');
	# what is paid for may be asked for without the right to spend
	if ($who eq 'revoked')
	{
		like(answer($in_flight{$who}), qr/structured_data/, 'but gets what is paid for');
		next;
	}
	is(job($in_flight{$who}, 'state'), 'running', 'and a task is waited for');
	is(why($in_flight{$who}), 'The service works on it, as call ' . job($in_flight{$who}, 'call')
		  . ", but its account cannot be used to ask for the answer: $unusable{$who}.", 'but says what is in the way');
}
is(why($waiting{vanished}), 'It is never sent, as the role that was to pay for it was dropped.', 'a job of a role that is gone says so');
is(value("sixtyfour_cancel($waiting{vanished})"), 't', 'and can be cancelled');

# a budget
$payer{frugal} = SixtyfourTest::Session->new($node, user => 'frugal');
$payer{frugal}->value('SET sixtyfour.server = fifth');
my @frugal = map { $payer{frugal}->value(qq(SELECT sixtyfour_find_email_async('{"name":"Frugal $_"}'))) } 1 .. 4;
$node->poll_query_until('postgres', "SELECT count(*) = 2 FROM sixtyfour.jobs WHERE id = ANY ('{" . join(',', @frugal) . "}') AND state IN ('running', 'succeeded')");
like(answer(ask('After frugal')), qr/structured_data/, 'others go on');
is(scalar @{ $mock->ledger(path => '/find-email-async') }, 2, 'as many are sent as the daily budget allows');
like($payer{frugal}->value("SELECT string_agg(sixtyfour_why(id), '') FROM sixtyfour.jobs WHERE state = 'queued'"),
	qr/^(The daily budget of server "fifth" is reached: of 12 cents, 10 are spent or at risk today \(UTC\)\.){2}$/, 'the others say why they wait');

# mended, they go on by themselves
$session->value("ALTER SERVER fifth OPTIONS (SET daily_budget_cents '20')");
$session->value("ALTER USER MAPPING FOR mistaken SERVER sixtyfour OPTIONS (SET api_key 'api_mended')");
$session->value('GRANT USAGE ON FOREIGN SERVER sixtyfour TO revoked');
$session->value("CREATE USER MAPPING FOR unmapped SERVER third OPTIONS (api_key 'api_good')");
$session->value("CREATE SERVER fourth FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '${\$mock->url}', requests_per_minute '0')");
$session->value("CREATE USER MAPPING FOR PUBLIC SERVER fourth OPTIONS (api_key 'api_good')");
$session->value('GRANT USAGE ON FOREIGN SERVER fourth TO serverless');
is(job($disk, 'state'), 'running', 'what cannot be stored now waits');
$session->value('DROP TABLE full_disk');
is(answer($disk), '{"notes": "disk"}', 'and is stored when that is mended');
is(scalar @{ $mock->ledger(path => "/job-status/$disk_task", accepted => 1) }, 1, 'without being asked for again')
  or diag explain [ map { $_->{status} } @{ $mock->ledger(path => "/job-status/$disk_task") } ];
foreach my $who (sort keys %unusable)
{
	like(answer($waiting{$who}),   qr/structured_data/, "$who: mended, a job goes on");
	like(answer($in_flight{$who}), qr/structured_data/, 'and a task has its answer');
}
like(answer($waiting{$_}), qr/structured_data/, 'with a good key jobs go on') foreach grep { /^mistaken/ } sort keys %waiting;
like(answer($more), qr/structured_data/, 'all of them');
like(answer($_), qr/email/, 'and so do they with a larger budget') foreach @frugal;
is(scalar(grep { ($_->{status} // 0) == 401 } @{ $mock->ledger(path => '/enrich-lead-async') }), 4, 'the bad key was not tried again');

# odd answers, in the end
like(answer($poll{$_}), qr/structured_data/, "$_: polled again, the task has its answer") foreach qw(transient failing404 late);
wait_for_state('failed', map { $poll{$_} } qw(persistent nul broken));
my %raw = (persistent => qr/Bad gateway/, nul => qr/before\\u0000after/, broken => qr/caf\\xe9/);
foreach my $name (sort keys %raw)
{
	like(job($poll{$name}, "sqlstate || ': ' || message"), qr/^08P01: job_status: the service's answer cannot be read$/, "$name: an answer that stays odd fails its job");
	like(call($poll{$name}, 'raw'), $raw{$name}, 'its text is kept');
	is(scalar @{ $mock->ledger(path => "/job-status/$id{$name}", status => 200) }, 5, 'after five polls');
}
wait_for_state('uncertain', map { $poll{$_} } qw(forgotten bogus));
my %expired = (
	forgotten => 'expired: the service no longer knows the task',
	bogus     => 'uncertain: the service does not know task "no/such task"');
foreach my $name (qw(forgotten bogus))
{
	is(call($poll{$name}, "state || ': ' || message"), $expired{$name}, "$name: the call says why");
	is(error_parts("sixtyfour_wait($poll{$name})")->[0], '08007', 'a wait says that nobody knows');
}
is(value("count(*) FROM sixtyfour.attention WHERE id IN (" . job($poll{forgotten}, 'call') . ", $call{blank})"), 2, 'attention shows them');
value("sixtyfour_resolve($call{blank}, '$task{blank}')");
value("sixtyfour_resolve($_, 'resubmit')") foreach job($poll{forgotten}, 'call');
like(answer($job{blank}), qr/structured_data/, 'a wrong task id can be corrected') if $task{blank};
like(answer($poll{forgotten}), qr/structured_data/, 'a forgotten task can be submitted again');

# ---- other encodings: nothing of that stands in the way of others ----

like($ascii->value("SELECT sixtyfour_wait($fine, '60 s')"), qr/structured_data/, 'SQL_ASCII: a question that is UTF-8 has its answer');
is(error_of("sixtyfour_wait($bad)", $ascii), '22P05: the request has characters that cannot be sent in UTF-8', 'and one that is not is refused');
like($latin->value("SELECT sixtyfour_wait($cafe, '60 s')"), qr/structured_data/, 'LATIN1: a question is sent in UTF-8');
is(scalar submissions("Caf\xe9"), 1, 'as the service sees');
my $unreadable = $latin->query("SELECT sixtyfour_wait($snow, '60 s')")->{error};
like("$unreadable->{sqlstate}: $unreadable->{message} $unreadable->{detail}",
	qr/^08P01: job_status: the service's answer cannot be read character with byte sequence 0xe2 0x98 0x83/,
	'and an answer without a form in LATIN1 fails its job');
like($latin->value("SELECT raw FROM sixtyfour.calls WHERE state = 'failed'"), qr/"notes":"\\xe2\\x98\\x83"/, 'its text is kept');
$_->close foreach $ascii, $latin;

# ---- an answer at once that says nothing ----

$mock->rule({ match => { path => '/enrich-dataframe' }, fault => 'empty' });
my $empty = value(q(sixtyfour_enrich_dataframe_async(E'name\nAda\n', 'phone')));
is(error_of("sixtyfour_wait($empty, '60 s')"), "08P01: the service's answer is empty", 'an empty answer fails its job');
is(call($empty, "concat_ws(' ', state, sqlstate, '<' || raw || '>')"), 'failed 08P01 <>', 'and its call, which tells so');

# of an answer that is paid for and cannot be asked for again, all of it is kept
$mock->reset;
my $lines = "name,phone\n" . join '', map { "Person $_,+1555$_\n" } 10000 .. 15000;
$mock->rule({ match => { path => '/enrich-dataframe' }, answer => { text => "$lines\0end" }, content_type => 'text/csv' });
my $long = value(q(sixtyfour_enrich_dataframe_async(E'name\nBea\n', 'phone')));
is(error_of("sixtyfour_wait($long, '60 s')"), "08P01: enrich_dataframe: the service's answer cannot be read", 'a long answer that cannot be read');
is(call($long, 'raw'), "$lines\\x00end", 'is kept to its end');
cmp_ok(length(job($long, 'detail')), '<', 9000, 'though people are told its beginning only');

# ---- a task that does not end ----

$mock->reset;
$mock->settings({ task_seconds => undef });
my $endless = ask('Endless');
wait_for_state('running', $endless);
$session->value("UPDATE sixtyfour.call SET accepted_at = now() - interval '4 hours 1 second' WHERE id = (SELECT call FROM sixtyfour.job WHERE id = $endless)");
value("pg_terminate_backend(pid) FROM sixtyfour.workers WHERE database = 'postgres' AND kind = 'worker'");
wait_for_state('uncertain', $endless);
is(call($endless, "concat_ws(' ', state, sqlstate, message)"), 'expired 08007 the task did not end in time', 'after four hours a task is given up');
$mock->control('POST', 'tasks/all', { action => 'finish' });
my $endless_task = (submissions('Endless'))[0]{task_id};
value("sixtyfour_resolve(" . job($endless, 'call') . ", '$endless_task')");
like(answer($endless), qr/structured_data/, 'and can be asked about again');
is(scalar submissions('Endless'), 1, 'without being submitted again');

# ---- in the end ----

is(value("string_agg(DISTINCT state, ' ' ORDER BY state) FROM sixtyfour.jobs"), 'cancelled failed succeeded uncertain', 'every job is where it stays');
is(value("count(*) FROM sixtyfour.jobs j JOIN sixtyfour.calls c ON c.id = j.call WHERE j.state = 'uncertain' AND c.state NOT IN ('uncertain', 'expired')"), 0, 'uncertain ones with their calls');
foreach my $key (@keys, 'api_mistaken')
{
	foreach my $table (qw(state job call call_item result enrichment jobs calls results attention accounts workers enrichments))
	{
		is(value("count(*) FROM sixtyfour.$table t WHERE t::text LIKE '%$key%'"), 0, "no key in $table");
	}
}
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/\Q$_\E/, 'no key in the log') foreach @keys, 'api_mistaken';
unlike($log, qr/PANIC|TRAP|server process .* was terminated/, 'no crash');
is(scalar(() = $log =~ /LOG:  sixtyfour: submissions over server "sixtyfour" pause/g), 1, 'a pause is logged once');

done_testing();
