# The model of jobs, calls and worker (test/model): the design keeps its promises
# in every state that can be reached, and each of a number of mistakes breaks one.
use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Test::More;

use PostgreSQL::Test::Utils;
use SixtyfourTest;

plan skip_all => 'nothing of the library is in it' if SixtyfourTest::slow();

my $program = abs_path(dirname(__FILE__) . '/../model/model.py');
my @deep = $ENV{SIXTYFOUR_DEEP} ? '--deep' : ();

# run(arguments): exit status and output
sub run
{
	my @command = ($ENV{PYTHON} // '/usr/bin/python3', $program, @_);
	my ($said, $complained) = ('', '');
	my $fine = IPC::Run::run(\@command, '>', \$said, '2>', \$complained);

	diag $complained if $complained;
	note $said;
	return ($fine ? 0 : $? >> 8, $said);
}

my ($status, $said) = run(@deep);
is($status, 0, 'the design has no violation');
foreach my $kind (qw(once again))
{
	my @states = $said =~ /^the design, $kind, .*: (\d+) states, no violation$/mg;
	cmp_ok(scalar @states, '>=', 2, "a service that accepts what comes $kind: searched within several bounds");
	cmp_ok((sort { $a <=> $b } @states)[-1], '>', 20000, 'in many states');
}
my ($states) = $said =~ /^(\d+) states in all, no violation$/m;
cmp_ok($states, '>', 100000, "$states states in all");

my %breaks = (
	'requeue-on-timeout'  => 'twice',
	'requeue-on-takeover' => 'twice',
	'send-before-durable' => 'twice',
	'libcurl-resends'     => 'twice',
	'no-join'             => 'twice',
	'uncertain-frees'     => 'twice',
	'cancel-closes'       => 'twice',
	'close-before-result' => 'lost',
	'unfenced'            => 'undone',
	'poll-error-closes'   => 'lost',
	'no-takeover'         => 'stuck',
	'resolve-unguarded'   => 'undone',
	'copy-goes-on'        => 'twice',
	# what the service knows again
	'resend-unknown'      => 'twice',
	'new-name'            => 'twice',
	'service-forgets'     => 'twice',
	'no-window'           => 'twice',
	'other-key'           => 'twice',
	'refusal-believed'    => 'twice',
	# answers that cannot be read
	'retry-buys'          => 'twice',
	'cancelled-buys'      => 'twice',
	'reopen-unguarded'    => 'undone',
	'reopened-frees'      => 'twice');
(undef, $said) = run('--list');
is_deeply([ sort $said =~ /^([a-z-]+):/mg ], [ sort keys %breaks ], 'the mistakes');
foreach my $mistake (sort keys %breaks)
{
	($status, $said) = run('--break', $mistake);
	is($status, 1, "$mistake: a violation");
	like($said, qr/ states, $breaks{$mistake}: a worker starts; /, 'of the promise that it breaks');
}

done_testing();
