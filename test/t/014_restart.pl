# Crashes and restarts during a call; what sessions share, and what a restart
# makes of it.
use strict;
use warnings FATAL => 'all';

use List::Util qw(min);
use Test::More;

use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $slow = SixtyfourTest::slow();
my $lead = q{'{"name":"Jane Doe","company":"Acme"}'};
my $call = "SELECT sixtyfour_best_email(sixtyfour_find_email($lead))";
my $mail = 'jane.doe@acme.example';

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good,api_other,api_turns');
my $node = SixtyfourTest::cluster('restart', $mock,
	server => "requests_per_minute '0'",
	conf   => "restart_after_crash = on\n");

# add_server($database, $name, $options)
sub add_server
{
	my ($database, $name, $options) = @_;
	my $url = $mock->url;
	$node->safe_psql($database, qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER sixtyfour
			OPTIONS (base_url '$url', $options);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key 'api_good');
		GRANT USAGE ON FOREIGN SERVER $name TO PUBLIC;
	});
	return;
}

# One request a minute: the second cannot be made before the timeout.
add_server('postgres', 'minute', "requests_per_minute '1', timeout '20s'");

sub session
{
	my ($server, %options) = @_;
	my $session = SixtyfourTest::Session->new($node, %options);
	$session->value("SET sixtyfour.server = $server");
	return $session;
}

# What a call with a server comes to: the address, or the SQLSTATE
sub ask
{
	my ($server, %options) = @_;
	my $session = session($server, %options);
	my $reply   = $session->query($call);
	$session->close;
	return $reply->{error} ? $reply->{error}{sqlstate} : $reply->{rows}[0][0];
}

# A session whose call hangs at the service
sub hanging_session
{
	$mock->reset;
	$mock->rule({ match => { path => '/find-email' }, fault => 'hang', times => 1 });
	my $session = session('sixtyfour');
	$session->send($call);
	$mock->wait_for(count => 1, stage => 'received_body');
	return $session;
}

sub is_gone
{
	my ($session) = @_;
	return SixtyfourTest::poll_until(sub { !-d '/proc/' . $session->pid });
}

# The server works, and the limiter has forgotten what was before.
sub check_recovered
{
	is(ask('sixtyfour'), $mail, 'the next call is answered');
	is(scalar @{ $mock->ledger(path => '/find-email') },
		2, 'the call before the crash was not made again');
	is(ask('minute'), $mail,   'the limiter has begun anew');
	is(ask('minute'), '53400', 'and limits');
	return;
}

subtest 'what sessions share' => sub {
	$node->safe_psql('postgres', q{
		CREATE ROLE first LOGIN;
		CREATE ROLE second LOGIN;
		CREATE ROLE third LOGIN;
		CREATE USER MAPPING FOR third SERVER minute OPTIONS (api_key 'api_other');
		CREATE DATABASE elsewhere;
	});
	SixtyfourTest::install($node, 'elsewhere', $mock);
	add_server('elsewhere', 'minute', "requests_per_minute '1', timeout '20s'");
	add_server('postgres', 'twin', "requests_per_minute '1', timeout '20s'");

	is(ask('minute', user => 'first'), $mail, 'a role makes the request of this minute');
	my $session = session('minute', user => 'second');
	my $error = $session->query($call)->{error};
	is_deeply([ @{$error}{qw(sqlstate message hint)} ],
		[ '53400', 'find_email: the rate limit of server "minute" is reached',
			'Try again later; nothing was sent.' ], 'another role with the same key has none left');
	like($error->{detail},
		qr/^The next request may be made in \d+\.\d s, which is after the timeout\.$/,
		'the detail says when');
	$session->close;
	is(ask('twin'), '53400', 'nor has another server with the same key');
	is(ask('minute', database => 'elsewhere'), '53400', 'nor has another database');
	is(ask('minute', user => 'third'), $mail, 'a role with another key has one');
};

subtest 'a session waits for its turn' => sub {
	# 60 a minute, of which 96 % are used: 1.04 s apart
	add_server('postgres', 'second', "requests_per_minute '60', timeout '60s'");
	$node->safe_psql('postgres', q{
		ALTER USER MAPPING FOR PUBLIC SERVER second OPTIONS (SET api_key 'api_turns')});
	$mock->reset;
	is(ask('second', user => 'first'),  $mail, 'one role asks');
	is(ask('second', user => 'second'), $mail, 'another role is answered, too');
	my @times = map { $_->{time} } @{ $mock->ledger(path => '/find-email') };
	cmp_ok($times[1] - $times[0], '>', 1, 'but a second later');
};

subtest 'options outlive reload and restart' => sub {
	my $options = q{SELECT string_agg(srvname || srvoptions::text, '; ' ORDER BY srvname)
		|| string_agg(umuser || umoptions::text, '; ' ORDER BY m.oid)
		FROM pg_foreign_server s JOIN pg_user_mapping m ON m.umserver = s.oid};
	my $before  = $node->safe_psql('postgres', $options);
	my $session = session('sixtyfour');

	is($session->value('SHOW sixtyfour.max_response_size'), '16MB', 'a setting');
	$node->append_conf('postgresql.conf', "sixtyfour.max_response_size = '5MB'");
	$node->reload;
	ok(SixtyfourTest::poll_until(
			sub { $session->value('SHOW sixtyfour.max_response_size') eq '5MB' }),
		'is changed by a reload in a session that goes on');
	is($session->value($call), $mail, 'which works');
	$session->close;
	$node->restart;
	is($node->safe_psql('postgres', 'SHOW sixtyfour.max_response_size'),
		'5MB', 'and is kept by a restart');
	is($node->safe_psql('postgres', $options), $before, 'as are the accounts');
	is(ask('sixtyfour'), $mail, 'which work');
};

subtest 'an immediate shutdown during a call' => sub {
	is(ask('minute'), $mail,   'the limiter is new');
	is(ask('minute'), '53400', 'and used up');
	my $session = hanging_session();
	$node->stop('immediate');
	is($session->receive->{closed}, 1, 'the session ends');
	ok(is_gone($session), 'and its process');
	$node->start;
	check_recovered();
};

subtest 'a backend is killed during a call' => sub {
	my $session = hanging_session();
	my $other   = session('sixtyfour');

	kill 'KILL', $session->pid;
	is($_->receive->{closed}, 1, 'a session ends') foreach $session, $other;
	$node->poll_query_until('postgres', 'SELECT true') or die 'no recovery';
	check_recovered();
};

subtest 'the postmaster is killed during a call' => sub {
	my $session = hanging_session();

	$node->kill9;
	is($session->receive->{closed}, 1, 'the session ends');
	ok(is_gone($session), 'and its process');
	# other processes may need a moment more
	SixtyfourTest::poll_until(sub { $node->start(fail_ok => 1) }) or die 'no start';
	check_recovered();
};

subtest 'a fast shutdown during a call of 20 s' => sub {
	my @times;
	foreach my $try (1 .. ($slow ? 1 : 3))
	{
		my $session = session('sixtyfour');

		$mock->reset;
		$mock->rule({ match => { path => '/find-email' }, delay => 20, times => 1 });
		$session->send($call);
		$mock->wait_for(count => 1, stage => 'received_body');
		my $begin = $session->now;
		$node->stop('fast');
		push @times, $session->now - $begin;
		my $error = $session->receive->{error};
		is($error->{sqlstate}, '57P01', 'the call is ended');
		is($error->{context}, 'Sixtyfour request find_email, which may have been accepted and billed',
			'and may be billed');
		$node->start;
	}
	note join ', ', map { sprintf '%.3f s', $_ } @times;
	cmp_ok(min(@times), '<', $slow ? 60 : 0.5, 'the server stops at once');
	is(ask('sixtyfour'), $mail, 'the next call is answered');
};

done_testing();
