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
	server => "requests_per_minute '0', timeout '2'");
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
	# polls and submissions share it
	my $first = ask('Third');
	my $second = ask('Second');
	wait_for_state('uncertain', $second);
	my @seen = submissions('Second');
	is(scalar @seen, 1, 'the service has seen the request once');
	cmp_ok($seen[0]{nth_on_connection}, '>', 1, 'on a connection that was used before');
	is(call(call_of($second), "state || ' ' || sqlstate"), 'uncertain 08007', 'and the worker does not send it again');
	is_deeply($mock->summary->{duplicates}, {}, 'nothing was paid twice');
	answer($first);
	$mock->reset;
};

done_testing();
