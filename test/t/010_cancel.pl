# A call waits on the latch: statement_timeout, Ctrl-C, pg_cancel_backend() and
# pg_terminate_backend() stop it within 50 ms, whatever it is waiting for.
#
# Times are asserted here.  As the machine may be busy with other things, the
# best of a few tries counts; the tries are shown.
use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use List::Util qw(min);
use Socket;
use Test::More;

use SixtyfourTest;

my $slow    = SixtyfourTest::slow();
my $tries   = $slow ? 1 : 5;
my $promise = $slow ? 60_000 : 50;    # ms
my $timeout = $slow ? 3_000 : 500;    # ms, for statement_timeout

my $lead = q{'{"name":"Jane Doe","company":"Acme"}'};
my $paid = 'Sixtyfour request find_email, which may have been accepted and billed';

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('cancel', $mock,
	server => "requests_per_minute '0'");
my $watcher = SixtyfourTest::Session->new($node);

# Servers that do not answer: one takes connections and says nothing (there
# TLS stalls), one has a full queue of connections and ignores the next.
my $silent = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1')
  or die "listen: $!";
socket(my $full, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
bind($full, pack_sockaddr_in(0, INADDR_LOOPBACK)) or die "bind: $!";
listen($full, 0) or die "listen: $!";
my ($full_port) = unpack_sockaddr_in(getsockname $full);
my $filler = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $full_port)
  or die "connect: $!";

my %servers = (
	limited => [ $mock->url, ", requests_per_minute '1'" ],
	patient => [ $mock->url, ", requests_per_minute '1', timeout '30s'" ],
	stalled => [ 'https://127.0.0.1:' . $silent->sockport, '' ],
	deaf    => [ "http://127.0.0.1:$full_port", '' ]);
foreach my $name (sort keys %servers)
{
	my ($url, $more) = @{ $servers{$name} };
	$node->safe_psql('postgres', qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$url'$more);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key 'api_good');
	});
}

sub received
{
	my ($stage) = @_;
	return sub { $mock->wait_for(count => 1, stage => $stage); return 1; };
}

# Use up the minute of server "limited", so that a call waits 30 s at least.
sub use_up
{
	$watcher->query("SET sixtyfour.server = patient; SELECT sixtyfour_find_email($lead)");
	return;
}

# The call waits for the latch with no transfer under way.
sub is_waiting
{
	my ($session) = @_;
	return SixtyfourTest::poll_until(sub {
		$watcher->value('SELECT count(*) FROM pg_stat_activity WHERE pid = '
			  . $session->pid . q{ AND wait_event_type = 'Extension'}) });
}

# The first bytes of a TLS handshake have come.
my $handshake;

sub is_shaking_hands
{
	IO::Select->new($silent)->can_read(60) or return 0;
	$handshake = $silent->accept;
	return $handshake->sysread(my $hello, 1) == 1;
}

# A SYN to the full port is without an answer: state 02 in /proc/net/tcp.
sub is_unheard
{
	my $mark = sprintf '0100007F:%04X 02', $full_port;
	return SixtyfourTest::poll_until(
		sub { PostgreSQL::Test::Utils::slurp_file('/proc/net/tcp') =~ /$mark/ });
}

# name; before: done first; rule: of the mock; server; sql; timeout: where it
# takes long to begin; started: true when the call waits as it should; accepted:
# by the mock; context: of the error
my @scenarios = (
	{   name     => 'the answer does not come',
		rule     => { match => { path => '/find-email' }, fault => 'hang' },
		started  => received('received_body'),
		accepted => 1,
		context  => $paid },
	{   name     => 'the body is not read',
		rule     => { match => { path => '/find-email' }, fault => 'hang_before_body' },
		started  => received('received_headers'),
		accepted => 0,
		context  => $paid },
	# more than the kernel takes from us
	{   name     => 'a body of 12 MB is not read',
		rule     => { match => { path => '/enrich-dataframe' }, fault => 'hang_before_body' },
		timeout  => 4 * $timeout,
		sql      => q{sixtyfour_enrich_dataframe(repeat('name,company' || chr(10), 1000000), 'x')},
		started  => received('received_headers'),
		accepted => 0,
		context  => $paid =~ s/find_email/enrich_dataframe/r },
	{   name     => 'the answer drips',
		rule     => { match => { path => '/find-email' }, fault => 'drip' },
		started  => received('received_body'),
		accepted => 1,
		context  => $paid },
	{   name     => 'a reading request hangs',
		rule     => { match => { path => '/workflows' }, fault => 'hang' },
		sql      => q{sixtyfour_request('GET', '/workflows')},
		started  => received('received_body'),
		accepted => 1,
		context  => 'Sixtyfour request GET /workflows' },
	{   name     => 'the rate limiter says wait',
		before   => \&use_up,
		server   => 'limited',
		started  => \&is_waiting,
		accepted => 0,
		context  => '' },
	{   name     => 'the TLS handshake stalls',
		server   => 'stalled',
		started  => \&is_shaking_hands,
		accepted => 0,
		context  => 'Sixtyfour request find_email' },
	{   name     => 'a SYN is not answered',
		server   => 'deaf',
		started  => \&is_unheard,
		accepted => 0,
		context  => 'Sixtyfour request find_email' });

# Start the call and stop it; returns the reply and the ms that it took.
sub stop_call
{
	my ($session, $scenario, $way) = @_;
	my $sql = $scenario->{sql} // "sixtyfour_find_email($lead)";

	$scenario->{before}->() if $scenario->{before};
	$mock->reset;
	$mock->rule($scenario->{rule}) if $scenario->{rule};
	$session->value('SET sixtyfour.server = ' . ($scenario->{server} // 'sixtyfour'));
	my @stopped = SixtyfourTest::stop_statement($session, "SELECT $sql",
		$scenario->{started}, $way);
	$handshake->close if $handshake;
	$handshake = undef;
	return @stopped;
}

# The session, or a new one where it was terminated, is as good as new.
sub check_afterwards
{
	my ($session, $scenario, $way) = @_;

	$session = SixtyfourTest::Session->new($node) if $way->{error}[0] eq '57P01';
	$session->value('RESET statement_timeout');
	$session->value('RESET sixtyfour.server');
	is($session->value("SELECT sixtyfour_best_phone(sixtyfour_find_phone($lead)) IS NOT NULL"),
		't', 'the next call is answered');
	my $path = ($scenario->{rule} // {})->{match}{path} // '/find-email';
	my @seen = @{ $mock->ledger(path => $path) };
	is(@seen, $scenario->{rule} ? 1 : 0, 'the service has seen the request this often');
	is(scalar(grep { $_->{accepted} } @seen), $scenario->{accepted}, 'and accepted it');
	return $session;
}

foreach my $scenario (@scenarios)
{
	subtest $scenario->{name} => sub {
		my $session = SixtyfourTest::Session->new($node);
		foreach my $way (SixtyfourTest::ways_to_stop($watcher, $scenario->{timeout} // $timeout))
		{
			subtest $way->{name} => sub {
				my (@times, $reply);
				foreach my $try (1 .. ($way->{late} ? min(3, $tries) : $tries))
				{
					($reply, my $ms) = stop_call($session, $scenario, $way);
					push @times, $ms;
					is_deeply([ @{ $reply->{error} }{qw(sqlstate message context)} ],
						[ @{ $way->{error} }, $scenario->{context} ],
						'the error says what happened');
					is($reply->{closed}, $way->{error}[0] eq '57P01' ? 1 : 0,
						'the connection is kept unless terminated');
					$session = check_afterwards($session, $scenario, $way);
				}
				note sprintf '%s, %s: %s ms', $scenario->{name}, $way->{name},
				  join ', ', map { sprintf '%.1f', $_ } @times;
				cmp_ok(min(@times), '<', $promise, "stopped within $promise ms");
			};
		}
		$session->close;
	};
}

done_testing();
