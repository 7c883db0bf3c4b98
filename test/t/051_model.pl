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
my ($states) = sort { $b <=> $a } $said =~ /(\d+) states, no violation/g;
cmp_ok($states, '>', 10000, 'in many states');

my %breaks = (
	'requeue-on-timeout'  => 'twice',
	'requeue-on-takeover' => 'twice',
	'send-before-durable' => 'twice',
	'libcurl-resends'     => 'twice',
	'no-join'             => 'twice',
	'uncertain-frees'     => 'twice',
	'cancel-closes'       => 'twice',
	'close-before-result' => 'twice',
	'unfenced'            => 'stuck',
	'poll-error-closes'   => 'lost',
	'no-takeover'         => 'stuck',
	'resolve-unguarded'   => 'undone');
(undef, $said) = run('--list');
is_deeply([ sort $said =~ /^([a-z-]+):/mg ], [ sort keys %breaks ], 'the mistakes');
foreach my $mistake (sort keys %breaks)
{
	($status, $said) = run('--break', $mistake);
	is($status, 1, "$mistake: a violation");
	like($said, qr/ states, $breaks{$mistake}: a worker starts; /, 'of the promise that it breaks');
}

done_testing();
