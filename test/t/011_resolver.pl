# A name server that hangs: libcurl looks names up in threads, which cannot be
# stopped.  A call is stopped within 50 ms all the same, and so is the process;
# the threads take no signals and leave nothing behind.
#
# Runs in namespaces of its own, in which this test is the name server.
use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use List::Util qw(min);
use Test::More;

use PostgreSQL::Test::Utils;
use SixtyfourTest;

BEGIN { SixtyfourTest::enter_namespace(); }

plan skip_all => 'no namespaces for this user' unless SixtyfourTest::in_namespace();

my $slow      = SixtyfourTest::slow();
my $tries     = $slow ? 1 : 5;
my $promise   = $slow ? 60_000 : 50;     # ms
my $timeout   = $slow ? 5_000 : 500;     # ms, for statement_timeout
my $hang      = $slow ? 10 : 3;         # s that a resolver thread waits
my $shutdowns = $slow ? 1 : 3;

my $lead = q{'{"name":"Jane Doe","company":"Acme"}'};
my $call = "SELECT sixtyfour_best_email(sixtyfour_find_email($lead))";

# Put other contents in the place of a file, for this test alone.
sub replace_file
{
	my ($path, $contents) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/file';
	append_to_file($file, $contents);
	return SixtyfourTest::mount_over($path, $file);
}

plan skip_all => 'no mounts in a namespace'
  unless replace_file('/etc/resolv.conf',
	"nameserver 127.0.0.1\nsearch .\noptions timeout:$hang attempts:1\n")
  && replace_file('/etc/nsswitch.conf', "hosts: files dns\npasswd: files\ngroup: files\n");

my $dns = IO::Socket::INET->new(LocalAddr => '127.0.0.1:53', Proto => 'udp')
  or die "name server: $!";

# A query that has come, within a time: its bytes and the sender
sub next_query
{
	my ($patience) = @_;
	IO::Select->new($dns)->can_read($patience) or return;
	my $from = $dns->recv(my $query, 512);
	return ($query, $from);
}

# What has come until now is of no interest.
sub forget_queries
{
	while (my @query = next_query(0)) { }
	return;
}

sub is_asked { return defined((next_query($PostgreSQL::Test::Utils::timeout_default))[0]); }

# Answer one query: 127.0.0.1 where an A record is asked for, else nothing.
sub answer
{
	my ($query, $from) = @_;
	my ($id, $flags, @counts) = unpack 'n6', $query;
	my ($name, $type) = unpack 'Z* n', substr $query, 12;
	my $question = substr $query, 12, length($name) + 1 + 4;
	my $record   = $type == 1 ? pack('nnnNna4', 0xc00c, 1, 1, 60, 4, "\x7f\0\0\1") : '';

	$dns->send(pack('n6', $id, 0x8180, 1, $record ? 1 : 0, 0, 0) . $question . $record,
		0, $from);
	return;
}

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('resolver', $mock,
	server => "requests_per_minute '0'");
$node->safe_psql('postgres',
	"ALTER SERVER sixtyfour OPTIONS (SET base_url 'http://slow.test:" . $mock->port . "')");
my $watcher = SixtyfourTest::Session->new($node);

# The threads of a process, its first one apart
sub threads
{
	my ($pid) = @_;
	return grep { $_ != $pid } map { m{/(\d+)$} } glob "/proc/$pid/task/*";
}

sub descriptors { return scalar(() = glob "/proc/$_[0]/fd/*"); }

sub threads_are_gone
{
	my ($pid) = @_;
	return SixtyfourTest::poll_until(sub { !threads($pid) });
}

foreach my $way (SixtyfourTest::ways_to_stop($watcher, $timeout))
{
	subtest $way->{name} => sub {
		my @times;
		my $session = SixtyfourTest::Session->new($node);

		foreach my $try (1 .. ($way->{late} ? min(3, $tries) : $tries))
		{
			forget_queries();
			my ($reply, $ms) =
			  SixtyfourTest::stop_statement($session, $call, \&is_asked, $way);
			push @times, $ms;
			is_deeply([ @{ $reply->{error} }{qw(sqlstate message context)} ],
				[ @{ $way->{error} }, 'Sixtyfour request find_email' ],
				'the error says what happened, and nothing of a bill');
			if ($reply->{closed})
			{
				ok(SixtyfourTest::poll_until(sub { !-d '/proc/' . $session->pid }),
					'the process ends');
				$session = SixtyfourTest::Session->new($node);
			}
			is($session->value('SELECT 1'), '1', 'a session works');
		}
		note sprintf '%s: %s ms', $way->{name}, join ', ',
		  map { sprintf '%.1f', $_ } @times;
		cmp_ok(min(@times), '<', $promise, "stopped within $promise ms");
		$session->close;
	};
}

subtest 'a terminated process does not wait for its threads' => sub {
	my @times;

	foreach my $try (1 .. $tries)
	{
		my $session = SixtyfourTest::Session->new($node);
		my $pid     = $session->pid;

		forget_queries();
		$session->send($call);
		is_asked();
		is(scalar(threads($pid)), 1, 'a thread looks the name up');
		my $begin = $session->now;
		kill 'TERM', $pid;
		ok(SixtyfourTest::poll_until(sub { !-d "/proc/$pid" }), 'the process ends');
		push @times, 1000 * ($session->now - $begin);
	}
	note join ', ', map { sprintf '%.1f ms', $_ } @times;
	cmp_ok(min(@times), '<', 1000 * $hang / 2, 'at once');
};

subtest 'resolver threads take no signal' => sub {
	my $session = SixtyfourTest::Session->new($node);
	my $pid     = $session->pid;

	forget_queries();
	$session->send($call);
	is_asked();
	my ($thread) = threads($pid);
	my $status = slurp_file("/proc/$pid/task/$thread/status");
	my ($blocked) = map { hex } $status =~ /^SigBlk:\s*[0-9a-f]{8}([0-9a-f]{8})$/m;
	my ($caught)  = map { hex } $status =~ /^SigCgt:\s*[0-9a-f]{8}([0-9a-f]{8})$/m;
	my @open = grep { !($blocked >> ($_ - 1) & 1) } 1 .. 31;

	# KILL and STOP cannot be blocked; ILL, TRAP, ABRT, BUS, FPE and SEGV are
	# what faults of the thread itself raise; libc keeps 32 and 33
	is_deeply(\@open, [ 4, 5, 6, 7, 8, 9, 11, 19 ], 'all are blocked that can be');
	is($caught & ~$blocked & 0x7fffffff & ~0x5f8, 0,
		'and all that the backend handles');
	kill 'INT', $pid;
	is($session->receive->{error}{sqlstate}, '57014', 'the backend takes them');
	$session->close;
};

subtest 'many cancelled lookups leave nothing' => sub {
	my $session = SixtyfourTest::Session->new($node);
	my $count   = $slow ? 5 : 20;

	forget_queries();
	SixtyfourTest::stop_statement($session, $call, \&is_asked,
		(SixtyfourTest::ways_to_stop($watcher, $timeout))[2]);
	threads_are_gone($session->pid) or die 'a thread stays';
	my $before = descriptors($session->pid);
	my @errors;
	foreach (1 .. $count)
	{
		forget_queries();
		my ($reply) = SixtyfourTest::stop_statement($session, $call, \&is_asked,
			(SixtyfourTest::ways_to_stop($watcher, $timeout))[2]);
		push @errors, $reply->{error}{sqlstate};
	}
	is_deeply(\@errors, [ ('57014') x $count ], "$count calls are cancelled");
	my $threads = threads($session->pid);
	my $more    = descriptors($session->pid) - $before;
	note "$threads threads and $more more descriptors at the end";
	cmp_ok($more, '<=', 2 * $threads, 'only the threads hold descriptors, two each');
	ok(threads_are_gone($session->pid), 'the threads end by themselves');
	is(descriptors($session->pid), $before, 'and no descriptor is left');
	$session->close;
};

subtest 'a lookup that is answered' => sub {
	my $session = SixtyfourTest::Session->new($node);

	# behind a thread that still hangs
	forget_queries();
	SixtyfourTest::stop_statement($session, $call, \&is_asked,
		(SixtyfourTest::ways_to_stop($watcher, $timeout))[2]);
	forget_queries();
	$session->send($call);
	my $select = IO::Select->new($dns, $session->{socket});
	for (;;)
	{
		my @ready = $select->can_read($PostgreSQL::Test::Utils::timeout_default);
		last if !@ready || grep { $_ == $session->{socket} } @ready;
		answer(next_query(0));
	}
	my $reply = $session->receive;
	is_deeply([ $reply->{rows}, $reply->{error} ],
		[ [ ['jane.doe@acme.example'] ], undef ], 'leads to the answer');
	$session->close;
};

subtest 'a lookup that fails' => sub {
	my $session = SixtyfourTest::Session->new($node);

	$session->value('SET statement_timeout = ' . 1000 * $PostgreSQL::Test::Utils::timeout_default);
	my $error = $session->query($call)->{error};
	is($error->{sqlstate}, '08001', 'is a failure to connect');
	like($error->{detail}, qr/slow\.test/, 'that names the host');
	$session->close;
};

subtest 'a fast shutdown does not wait for threads' => sub {
	my @times;
	foreach my $try (1 .. $shutdowns)
	{
		my $session = SixtyfourTest::Session->new($node);

		forget_queries();
		$session->send($call);
		is_asked();
		my $begin = $session->now;
		$node->stop('fast');
		push @times, $session->now - $begin;
		is($session->receive->{error}{sqlstate}, '57P01', 'the call is ended');
		$node->start;
	}
	note join ', ', map { sprintf '%.3f s', $_ } @times;
	cmp_ok(min(@times), '<', $slow ? 60 : 0.5, 'the server stops at once');
};

done_testing();
