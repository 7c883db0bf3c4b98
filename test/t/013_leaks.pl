# A session that makes many calls, is often cancelled and meets many errors
# keeps neither descriptors nor memory.
use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use JSON::PP;
use Test::More;

use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $slow = SixtyfourTest::slow();
my %count = $slow ? (calls => 20, cancels => 10, errors => 22)
  : (calls => 1000, cancels => 300, errors => 300);
my %warm_up = $slow ? (calls => 5, cancels => 2, errors => 22)
  : (calls => 200, cancels => 50, errors => 100);

# What may be gained from the end of the warm-up to the end, in bytes: nothing in
# fact, as every round ends with what it began with.  But malloc keeps freed
# memory in pieces, and libcurl and OpenSSL have caches, so the process may grow
# by what would be 160 bytes per call.
my $contexts_may_gain = 8 * 1024;
my $process_may_gain  = 256 * 1024;

my $dir = PostgreSQL::Test::Utils::tempdir();
SixtyfourTest::make_certificate("$dir/$_") foreach qw(tls other);

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $tls  = SixtyfourTest::TlsMock->start('--keys' => 'api_good',
	'--tls-cert' => "$dir/tls.pem", '--tls-key' => "$dir/tls.key");
$_->settings({ keep_bodies => JSON::PP::false }) foreach $mock, $tls;
my $node = SixtyfourTest::cluster('leaks', $mock,
	server => "requests_per_minute '0'");

my $dead = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp')
  or die "bind: $!";
my %servers = (
	tls     => { base_url => $tls->url, ca_file => "$dir/tls-ca.pem" },
	not_ca  => { base_url => $tls->url, ca_file => "$dir/other-ca.pem" },
	not_tls => { base_url => $mock->url =~ s/^http/https/r },
	dead    => { base_url => 'http://127.0.0.1:' . $dead->sockport },
	hasty   => { base_url => $mock->url, timeout => '20ms' },
	poor    => { base_url => $mock->url, daily_budget_cents => 0 });
foreach my $name (sort keys %servers)
{
	my %options = (requests_per_minute => 0, %{ $servers{$name} });
	my $options = join ', ', map { "$_ '$options{$_}'" } sort keys %options;
	$node->safe_psql('postgres', qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER sixtyfour OPTIONS ($options);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key 'api_good');
	});
}

my $email = "sixtyfour_find_email('{\"name\":\"Jane Doe\",\"company\":\"Acme\"}')";

# The calls that succeed, one after the other: server, SQL.  Each over TLS makes
# a new connection.
my @calls = (
	[ 'sixtyfour', "SELECT $email" ],
	[ 'sixtyfour', q{SELECT sixtyfour_request('GET', '/workflows')} ],
	[ 'sixtyfour', "SELECT * FROM sixtyfour_emails($email)" ],
	[ 'sixtyfour', "SELECT $email FROM generate_series(1, 5)" ],
	[ 'sixtyfour',
		q{SELECT length(sixtyfour_enrich_dataframe(E'name,notes\nJane,' || repeat('x', 100000), 'email')::text)} ],
	[ 'tls', "SELECT $email" ]);
$tls->rule({ fault => 'connection_close' });

# The errors: SQLSTATE and what makes them, which is a fault or another rule of
# the mock, a server or a statement
my @errors = (
	[ '38000', rule => { status => 500 } ],
	[ '28000', rule => { status => 401 } ],
	[ '22023', rule => { status => 422 } ],
	[ '08P01', rule => { fault => 'not_json' } ],
	[ '08P01', rule => { fault => 'invalid_utf8' } ],
	[ '08P01', rule => { fault => 'wrong_shape' } ],
	[ '08P01', rule => { fault => 'redirect' } ],
	[ '54000', rule => { fault => 'huge', size_bytes => 1 << 20 } ],
	[ '08006', rule => { fault => 'cut' } ],
	[ '08006', rule => { fault => 'cut_headers' } ],
	[ '08006', rule => { fault => 'bad_chunk' } ],
	[ '08006', rule => { fault => 'close_after_body' } ],
	[ '08006', rule => { fault => 'reset_after_body' } ],
	[ '08006', rule => { fault => 'hang' }, server => 'hasty' ],
	[ '08001', server => 'dead' ],
	[ '08001', server => 'not_tls' ],
	[ '08001', server => 'not_ca' ],
	[ '53400', server => 'poor' ],
	[ '28000', server => 'nowhere' ],
	[ '22023', sql    => q{SELECT sixtyfour_find_email('[]')} ],
	[ '02000', sql    => q{SELECT sixtyfour_job_status('unknown')} ],
	[ '22012', sql    => "SELECT $email, 1 / (i - 3) FROM generate_series(1, 5) i" ]);

# A rule is for the lead whose name is the error's number.
foreach my $n (0 .. $#errors)
{
	my ($sqlstate, %cause) = @{ $errors[$n] };
	$mock->rule({ match => { body_contains => qq{"error $n"} }, %{ $cause{rule} } })
	  if $cause{rule};
}
$mock->rule({ match => { body_contains => '"slow"' }, fault => 'hang' });

my $session = SixtyfourTest::Session->new($node);
my $pid     = $session->pid;
$session->value("SET sixtyfour.max_response_size = '512kB'");

# Run a statement with a server; returns its SQLSTATE or 'ok'.
sub sqlstate
{
	my ($server, $sql) = @_;
	$session->value("SET sixtyfour.server = $server");
	my $reply = $session->query($sql);
	return $reply->{error} ? $reply->{error}{sqlstate} : 'ok';
}

sub call { return sqlstate(@{ $calls[ $_[0] % @calls ] }); }

# Cancelled by statement_timeout after 1 to 8 ms, at any moment of the call
sub cancelled_call
{
	my ($n) = @_;
	my $ms = $slow ? 3000 : 1 + $n % 8;
	my $sqlstate = sqlstate('sixtyfour', qq{BEGIN; SET LOCAL statement_timeout = $ms;
		SELECT sixtyfour_find_email('{"name":"slow"}')});
	$session->value('ROLLBACK');
	return $sqlstate;
}

sub failing_call
{
	my $n = $_[0] % @errors;
	my ($sqlstate, %cause) = @{ $errors[$n] };
	return sqlstate($cause{server} // 'sixtyfour',
		$cause{sql} // qq{SELECT sixtyfour_find_email('{"name":"error $n"}')});
}

sub run_all
{
	my ($when, %n) = @_;
	my @expected = map { $errors[ $_ % @errors ][0] } 0 .. $n{errors} - 1;

	is_deeply([ map { call($_) } 1 .. $n{calls} ], [ ('ok') x $n{calls} ],
		"$when: $n{calls} calls");
	is_deeply([ map { cancelled_call($_) } 1 .. $n{cancels} ],
		[ ('57014') x $n{cancels} ], "$when: $n{cancels} cancels");
	is_deeply([ map { failing_call($_) } 0 .. $n{errors} - 1 ], \@expected,
		"$when: $n{errors} errors");
	is_deeply([ map { call($_) } 1 .. @calls ], [ ('ok') x @calls ], "$when: calls again");
	return;
}

# Descriptors, bytes of memory contexts, contexts of ours, bytes of the process
sub look
{
	my $status = slurp_file("/proc/$pid/status");
	my ($rss) = $status =~ /^RssAnon:\s+(\d+) kB/m;
	my $reply = $session->query(
		q{SELECT sum(total_bytes), count(*) FILTER (WHERE name LIKE 'sixtyfour%')
		  FROM pg_backend_memory_contexts});
	my ($bytes, $ours) = @{ $reply->{rows}[0] };
	# which of its own files PostgreSQL keeps open is its business, but not how many
	my @fds = sort map { readlink($_) =~ s/:\[\d+\]//r =~ s{.*/base/.*}{a file of the database}r } glob "/proc/$pid/fd/*";

	return { fds => \@fds, contexts => $bytes, ours => $ours, process => 1024 * $rss };
}

look();
run_all('to warm up', %warm_up);
my $before = look();
run_all('then', %count);
my $after = look();

is_deeply($after->{fds}, $before->{fds}, 'the same descriptors are open');
is($after->{ours}, 0, 'no memory context of ours is left');
note "memory contexts: $before->{contexts}, $after->{contexts}; "
  . "process: $before->{process}, $after->{process}";
cmp_ok($after->{contexts} - $before->{contexts}, '<', $contexts_may_gain,
	'memory contexts have not grown');
cmp_ok($after->{process} - $before->{process}, '<', $process_may_gain,
	'the process has not grown')
  unless $slow;

# Errors that are caught leave nothing while their transaction goes on.
is($session->value('RESET sixtyfour.server; BEGIN; DO $$ BEGIN FOR i IN 1 .. 20 LOOP BEGIN
		PERFORM sixtyfour_find_email(\'{"name":"error 0"}\');
	EXCEPTION WHEN external_routine_exception THEN NULL; END; END LOOP; END $$;
	SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE \'sixtyfour%\''),
	0, 'errors caught in a transaction leave no memory context');
$session->value('COMMIT');

$session->close;
$mock->wait_for(open_connections_at_most => 0);
is($mock->summary->{open_connections}, 0, 'the service has no connection left');

done_testing();
