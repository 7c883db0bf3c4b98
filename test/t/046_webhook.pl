# Webhooks: the URL that the service is told, a doorbell of which nothing is
# believed, calls whose task it tells, and its signature.
use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256_hex);
use Encode qw(encode_utf8);
use JSON::PP;
use Test::More;

use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('webhook', $mock, server => "requests_per_minute '0', timeout '60'");
my $session = SixtyfourTest::Session->new($node);
my $uuid    = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

$mock->settings({ quirks => 'none', found => 'all' });

sub value { return $session->value("SELECT $_[0]"); }
sub error_of { return ($_[1] // $session)->query("SELECT $_[0]")->{error}{sqlstate} // 'none'; }

sub ask
{
	my ($name, $options) = @_;
	$options //= '{}';
	return value(qq[sixtyfour_enrich_lead_async('{"name":"$name"}', '{"title":"their title"}', options => '$options')]);
}

sub job { return value("$_[1] FROM sixtyfour.jobs WHERE id = $_[0]"); }
sub call { return value("$_[1] FROM sixtyfour.calls WHERE id = (SELECT call FROM sixtyfour.jobs WHERE id = $_[0])"); }
sub answer { return value("sixtyfour_wait($_[0], '60 s')"); }
sub submissions { my ($name) = @_; return grep { JSON::PP::encode_json($_->{body} // {}) =~ /"\Q$name\E/ } @{ $mock->ledger }; }

sub wait_for_state
{
	my ($state, $job) = @_;
	$node->poll_query_until('postgres', "SELECT state = '$state' FROM sixtyfour.jobs WHERE id = $job") or die "job $job: never $state";
	return;
}

sub ring
{
	my ($payload, $call) = @_;
	my $json = JSON::PP->new->allow_nonref->encode($payload);
	return value('sixtyfour_webhook(' . (defined $call ? "'$call', " : '') . "'$json')");
}

# ---- the URL ----

subtest 'the URL that the service is told' => sub {
	answer(ask('No webhook'));
	is((submissions('No webhook'))[0]{body}{webhook_url}, undef, 'none by default');
	my @urls = (
		[ 'https://relay.test/hook',           'https://relay.test/hook?call=', '' ],
		[ 'https://relay.test/hook?from=pg',   'https://relay.test/hook?from=pg&call=', '' ],
		[ 'https://relay.test/hook?a#b',       'https://relay.test/hook?a&call=', '#b' ],
		[ 'https://relay.test/' . 'x' x 2022,  'https://relay.test/' . 'x' x 2022 . '?call=', '' ]);
	my $change = 'ADD';
	foreach my $url (@urls)
	{
		my ($option, $before, $after) = @$url;
		$session->value("ALTER SERVER sixtyfour OPTIONS ($change webhook_url '$option')");
		$change = 'SET';
		my $job = ask("Webhook $option");
		answer($job);
		is((submissions("Webhook $option"))[0]{body}{webhook_url}, $before . call($job, 'uuid') . $after, length $option > 50 ? 'as long as it may be' : $option);
	}
	my $long = 'https://relay.test/' . 'x' x 2023;
	$session->value("ALTER SERVER sixtyfour OPTIONS (SET webhook_url '$long')");
	answer(ask('Too long'));
	is((submissions('Too long'))[0]{body}{webhook_url}, $long, 'one with which it would be too long stays as it is');
	$session->value("ALTER SERVER sixtyfour OPTIONS (SET webhook_url 'https://relay.test/hook')");

	answer(ask('Own', '{"webhook_url":"https://own.test/"}'));
	is((submissions('Own'))[0]{body}{webhook_url}, 'https://own.test/', 'a job\'s own is left alone');
	my $jobs = value(q[sixtyfour_find_email_bulk_async((SELECT jsonb_agg(jsonb_build_object('name', 'Bulk ' || i)) FROM generate_series(1, 12) i))]);
	value("sixtyfour_wait_all('$jobs')");
	my ($bulk) = @{ $mock->ledger(path => '/find-email-bulk-async') };
	like($bulk->{body}{webhook_url}, qr{^https://relay\.test/hook\?call=$uuid$}, 'a bulk request has it too');
	is(value("items FROM sixtyfour.calls WHERE uuid = '" . ($bulk->{body}{webhook_url} =~ /call=(.*)/)[0] . "'"), 12, 'that of its call');
	value(q(sixtyfour_request('POST', '/find-email', NULL, '{"lead":{"name":"Direct"}}')));
	is((submissions('Direct'))[0]{body}{webhook_url}, undef, 'a request that is answered at once has none');
	is_deeply($mock->summary->{duplicates}, {}, 'nothing was asked twice');
};

# ---- the doorbell ----

subtest 'a doorbell' => sub {
	$mock->settings({ task_seconds => undef });
	my $job = ask('Doorbell');
	wait_for_state('running', $job);
	my $task = call($job, 'task_id');
	my $id   = call($job, 'uuid');
	my $polls = sub { return scalar @{ $mock->ledger(path => "/job-status/$task") }; };

	# so old a task is asked about seldom
	$mock->wait_for(count => 1, path => "/job-status/$task", stage => 'replied');
	$session->value("UPDATE sixtyfour.call SET accepted_at = now() - interval '1 hour' WHERE uuid = '$id'");
	is(value("pg_terminate_backend(pid, 60000) FROM sixtyfour.workers WHERE kind = 'worker' AND database = current_database()"), 't', 'a worker that knows no more than the ledger');
	my $before = $polls->();
	$mock->wait_for(count => $before + 1, path => "/job-status/$task", stage => 'replied');

	is(ring({ task_id => $task, status => 'completed', result => { notes => 'forged' } }), 't', 'it rings');
	is(ref $mock->wait_for(count => $before + 2, path => "/job-status/$task", stage => 'replied', timeout => 5), 'HASH', 'the worker asks');
	is(job($job, 'state'), 'running', 'and believes the service, not the bell');
	ring({ task_id => $task }, $id) foreach 1 .. 100;
	$mock->wait_for(count => $before + 3, path => "/job-status/$task", stage => 'replied');
	$mock->control('POST', "tasks/$task", { action => 'finish', result => { notes => 'true' } });
	is(ring({ task_id => $task }, $id), 't', 'by the uuid of the call as well');
	is(answer($job), '{"notes": "true"}', 'the service\'s answer');
	cmp_ok($polls->(), '<', $before + 50, 'however often it rings');

	is(ring({ task_id => $task }), 'f', 'nobody waits for a task that has ended');
	is(ring({ task_id => $task }, $id), 'f', 'nor does its call');
	is(ring($_), 'f', 'nothing to ring for') foreach { task_id => 'unknown' }, {}, [], 'text', { task_id => 7 }, { task_id => 'x' x 5000 };
	is(value('sixtyfour_webhook(NULL)'), undef, 'nor for NULL');
	is(value("sixtyfour_webhook(NULL, '{}')"), undef, 'without a call');
	my $other = ask('Other bell');
	wait_for_state('running', $other);
	is(ring({ task_id => call($other, 'task_id') }, $id), 'f', 'another call\'s task is not this one\'s');
	$mock->settings({ task_seconds => 0.2 });
	$mock->control('POST', 'tasks/all', { action => 'finish' });
	answer($other);
};

subtest 'who may ring' => sub {
	$session->value('CREATE ROLE relay LOGIN');
	my $relay = SixtyfourTest::Session->new($node, user => 'relay');
	my @rings = (q(sixtyfour_webhook('{"task_id":"t"}')), q(sixtyfour_webhook(gen_random_uuid(), '{"task_id":"t"}')));
	is(error_of($_, $relay), '42501', 'not everybody') foreach @rings;
	$session->value('GRANT EXECUTE ON FUNCTION sixtyfour_webhook(jsonb), sixtyfour_webhook(uuid, jsonb) TO relay');
	is($relay->value("SELECT $_"), 'f', 'but whom it was granted') foreach @rings;
	is(error_of(q(sixtyfour_verify_webhook('', '', '')), $relay), 'none', 'a signature may be checked by everybody');
};

# ---- the task of a call of which nobody knows ----

subtest 'a call whose reply was lost' => sub {
	$mock->rule({ match => { path => '/*-async', body_contains => '"Lost"' }, fault => 'close_after_body' });
	my $job = ask('Lost');
	wait_for_state('uncertain', $job);
	my ($sent) = submissions('Lost');
	my ($id)   = $sent->{body}{webhook_url} =~ /call=(.*)/;
	is($id, call($job, 'uuid'), 'the webhook has the call\'s uuid');

	is(ring({ task_id => 'forged', status => 'completed', result => {} }, $id), 't', 'a task that is said to be its');
	is(error_of("sixtyfour_wait($job, '60 s')"), '08007', 'but that the service does not know');
	is(call($job, "state || ': ' || message"), 'uncertain: the service does not know task "forged"', 'is none');
	is(ring({ task_id => $sent->{task_id} }), 'f', 'a task without a call tells nothing');
	is(ring({ task_id => $sent->{task_id}, status => 'completed' }, $id), 't', 'the real one');
	like(answer($job), qr/structured_data/, 'is found');
	is(scalar submissions('Lost'), 1, 'without asking again');
	is(ring({ task_id => $sent->{task_id} }, $id), 'f', 'then it is over');
};

subtest 'a webhook that comes before the reply is lost' => sub {
	$mock->rule({ match => { path => '/*-async', body_contains => '"Overtaken"' }, hold => JSON::PP::true });
	my $job = ask('Overtaken');
	$mock->wait_for(held => 1);
	my ($sent) = submissions('Overtaken');
	my ($id)   = $sent->{body}{webhook_url} =~ /call=(.*)/;
	is(job($job, 'state'), 'sending', 'no reply yet');
	my ($task) = map { $_->{id} // $_->{task_id} } grep { ($_->{id} // $_->{task_id}) eq ($sent->{task_id} // '') } @{ $mock->control('GET', 'tasks') };
	is(ring({ task_id => $task }, $id), 't', 'it is remembered');
	is(ring({ task_id => "other$_" }, $id), $_ < 3 ? 't' : 'f', "no. $_ besides") foreach 1 .. 3;
	$mock->control('DELETE', 'connections?all=1');
	like(answer_of_uncertain($job), qr/structured_data/, 'and the task found, once the reply is lost');
	is(scalar submissions('Overtaken'), 1, 'without asking again');
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM sixtyfour.candidate') or die;
	pass('what else was said is forgotten');
};

# Its state may be uncertain for a moment
sub answer_of_uncertain
{
	my ($job) = @_;
	wait_for_state('succeeded', $job);
	return value("sixtyfour_result($job)");
}

# ---- signatures ----

my $secret = 'sk_whsec_' . '0123456789abcdef' x 4;
my $old    = 'sk_whsec_' . 'fedcba9876543210' x 4;
my $body   = qq({"task_id":"t","result":{"notes":"Caf\x{e9} \x{2603}"}});
my $time   = 1767225600;

sub code { my ($key, $at, $text) = @_; return hmac_sha256_hex("$at." . encode_utf8($text), $key); }

sub verified
{
	my ($text, $signature, $key, $now) = @_;
	my @arguments = map { defined $_ ? quoted($_) : 'NULL' } $text, $signature, $key;
	push @arguments, "to_timestamp($now)" if defined $now;
	return value('sixtyfour_verify_webhook(' . join(', ', @arguments) . ')');
}

sub quoted { my ($text) = @_; $text = encode_utf8($text); $text =~ s/'/''/g; return "'$text'"; }

subtest 'a signature' => sub {
	my $good = code($secret, $time, $body);
	my $bad  = code($old, $time, $body);
	my $v1   = "t=$time,v1=$good";

	is(verified($body, $v1, $secret, $time), 't', 'a good one');
	is(verified($body, $v1, $secret, $time + $_), 't', "$_ s off") foreach 300, -300;
	is(verified($body, $v1, $secret, $time + $_), 'f', "$_ s off") foreach 301, -301, 86400;
	is(verified($body, "t=$time,v1=$bad,v1=$good", $secret, $time), 't', 'the second of two, while secrets change');
	is(verified($body, "t=$time,v1=$good,v1=$bad", $secret, $time), 't', 'the first of two');
	is(verified($body, "t=$time,v0=$bad,v1=$good", $secret, $time), 't', 'besides what is not known');
	my $now = value('floor(extract(epoch FROM now()))');
	is(verified($body, "t=$now,v1=" . code($secret, $now, $body), $secret), 't', 'now');
	is(verified($body, $v1, $secret), 'f', 'not now');

	my %wrong = (
		'another secret'      => [ $body, $v1, $old ],
		'another body'        => [ "$body ", $v1, $secret ],
		'another time'        => [ $body, 't=' . ($time + 1) . ",v1=$good", $secret ],
		'no secret'           => [ $body, "t=$time,v1=" . hmac_sha256_hex("$time." . encode_utf8($body), ''), '' ],
		'no signature'        => [ $body, '', $secret ],
		'no code'             => [ $body, "t=$time", $secret ],
		'an empty code'       => [ $body, "t=$time,v1=", $secret ],
		'a short code'        => [ $body, "t=$time,v1=" . substr($good, 0, 63), $secret ],
		'a long code'         => [ $body, "t=$time,v1=${good}0", $secret ],
		'another scheme'      => [ $body, "t=$time,v0=$good", $secret ],
		'no time'             => [ $body, "v1=$good", $secret ],
		'an empty time'       => [ $body, "t=,v1=" . code($secret, '', $body), $secret ],
		'a negative time'     => [ $body, "t=-$time,v1=$good", $secret ],
		'a time that is none' => [ $body, "t=${time}x,v1=" . code($secret, "${time}x", $body), $secret ],
		'a huge time'         => [ $body, 't=' . '9' x 40 . ",v1=$good", $secret ],
		'NULL as body'        => [ undef, $v1, $secret ],
		'NULL as signature'   => [ $body, undef, $secret ],
		'NULL as secret'      => [ $body, $v1, undef ]);
	is(verified(@{ $wrong{$_} }, $time), 'f', $_) foreach sort keys %wrong;
	is(value("sixtyfour_verify_webhook('', '', '', NULL)"), 'f', 'NULL as time');

	# what is signed is UTF-8, whatever the database has
	$session->value("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
	my $latin = SixtyfourTest::Session->new($node, database => 'latin');
	$latin->value('CREATE EXTENSION sixtyfour');
	my $text = qq({"name":"Caf\xe9"});
	is($latin->value("SELECT sixtyfour_verify_webhook('$text', 't=$time,v1=" . code($secret, $time, $text) . "', '$secret', to_timestamp($time))"), 't', 'in LATIN1');
	$latin->close;
};

my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/PANIC|TRAP|server process .* was terminated/, 'no crash');

done_testing();
