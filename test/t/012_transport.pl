# Connections are reused, and a request that counts is never sent twice; TLS
# and proxies are used as the account says; nothing disturbs a waiting session.
use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Test::More;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $slow = SixtyfourTest::slow();
my $lead = q{'{"name":"Jane Doe","company":"Acme"}'};
my $call = "SELECT sixtyfour_best_email(sixtyfour_find_email($lead))";
my $dir  = PostgreSQL::Test::Utils::tempdir();
my $may_be_billed =
  'The request may have been accepted and billed; look at the account before asking again.';

SixtyfourTest::make_certificate("$dir/good");
SixtyfourTest::make_certificate("$dir/other");

# A port on which nobody listens: bound, but not listening
my $dead = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp')
  or die "bind: $!";

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $tls  = SixtyfourTest::TlsMock->start('--keys' => 'api_good',
	'--tls-cert' => "$dir/good.pem", '--tls-key' => "$dir/good.key");

# The whole test runs with proxies in the environment of the server.
my $node = SixtyfourTest::cluster('transport', $mock, start => 0);
{
	my $proxy = 'http://127.0.0.1:' . $dead->sockport;
	my @names = qw(http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY);
	local @ENV{ @names, 'no_proxy', 'NO_PROXY' } = (($proxy) x @names, 'unrelated.test', '');
	$node->start;
}
SixtyfourTest::install($node, 'postgres', $mock, server => "requests_per_minute '0'");

# Another server for the wrapper; it is used with SET sixtyfour.server.
sub add_server
{
	my ($name, $url, $more) = @_;
	$node->safe_psql('postgres', qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER sixtyfour
			OPTIONS (base_url '$url', requests_per_minute '0', $more);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key 'api_good');
	});
	return;
}
add_server('tls', $tls->url, "ca_file '$dir/good-ca.pem'");
$_->settings({ keep_bodies => JSON::PP::false }) foreach $mock, $tls;

# A session of its own with a server
sub session
{
	my ($server) = @_;
	my $session = SixtyfourTest::Session->new($node);
	$session->value("SET sixtyfour.server = $server") if $server;
	return $session;
}

# An error's SQLSTATE, message and hint
sub told
{
	my ($reply) = @_;
	return [ @{ $reply->{error} // {} }{qw(sqlstate message hint)} ];
}

sub lost
{
	my ($what) = @_;
	return [ '08006', "$what: connection to the service was lost", $may_be_billed ];
}

subtest 'reading requests of a session share one connection' => sub {
	my $count   = $slow ? 20 : 1000;
	my $session = session();
	my $id      = $session->value(
		qq{SELECT sixtyfour_request('POST', '/find-email-async', NULL, '{"lead":{"name":"Jane"}}')->>'task_id'});

	$mock->reset_ledger;
	is($session->value("SELECT count(sixtyfour_job_status('$id')) FROM generate_series(1, $count)"),
		$count, 'many in one statement');
	my $answers = 0;
	$answers += defined $session->value("SELECT sixtyfour_job_status('$id')") foreach 1 .. $count;
	is($answers, $count, 'many in a statement each');
	is($mock->summary->{requests},    2 * $count, 'all have been sent');
	is($mock->summary->{connections}, 1,          'on one connection');
	$session->close;
};

subtest 'so do those that are paid' => sub {
	my $count   = $slow ? 10 : 500;
	my $session = session();

	$mock->wait_for(open_connections_at_most => 0);
	$mock->reset;
	is($session->value(
			"SELECT count(sixtyfour_find_email(jsonb_build_object('name', 'N' || i, 'company', 'Acme')))
			 FROM generate_series(1, $count) i"), $count, 'many answers');
	my $summary = $mock->summary;
	is($summary->{accepted}, $count, 'each accepted once');
	is_deeply($summary->{duplicates}, {}, 'none twice');
	is($summary->{connections}, 1, 'on one connection');
	$session->close;
};

# name, SQL, method, path, what: of requests that must be sent at most once
my @once = (
	[ 'a POST', "SELECT sixtyfour_find_email($lead)", '/find-email', 'find_email' ],
	[ 'a POST of 5 MB',
		q{SELECT sixtyfour_enrich_dataframe(E'name,notes\n' || repeat('Jane,' || repeat('x', 10000) || E'\n', 500), 'email')},
		'/enrich-dataframe', 'enrich_dataframe' ],
	[ 'a POST without a body', q{SELECT sixtyfour_request('POST', '/any')}, '/any', 'POST /any' ],
	[ 'a DELETE', q{SELECT sixtyfour_request('DELETE', '/any')}, '/any', 'DELETE /any' ],
	[ 'a PATCH', q{SELECT sixtyfour_request('PATCH', '/any', NULL, '{"a":1}')},
		'/any', 'PATCH /any' ]);

foreach my $service ([ 'sixtyfour', $mock ], [ 'tls', $tls ])
{
	my ($server, $where) = @$service;

	foreach my $fault ('close_reused', 'close_before_body', 'reset_after_body')
	{
		subtest "$fault, server $server" => sub {
			my $session = session($server);
			foreach my $request (@once)
			{
				my ($name, $sql, $path, $what) = @$request;

				$where->reset;
				is(defined $session->value("SELECT sixtyfour_find_phone($lead)"), 1,
					'a connection stands');
				$where->rule({ match => { path => $path, nth_on_connection_at_least => 2 },
						$path eq '/any' ? (accept => JSON::PP::false) : (), fault => $fault });
				is_deeply(told($session->query($sql)), lost($what), "$name is given up");
				my @seen = @{ $where->ledger(path => $path) };
				is(scalar(@seen), 1, 'the service has seen it once');
				cmp_ok($seen[0]{nth_on_connection}, '>', 1, 'on the connection that stood');
				is($session->query($sql)->{error}{sqlstate} // 'none',
					$path eq '/any' ? '02000' : 'none', 'the next one is answered');
				is($where->ledger(path => $path)->[1]{nth_on_connection},
					1, 'on a new connection');
			}
			$session->close;
		};
	}

	subtest "connections that end, server $server" => sub {
		my $session = session($server);

		$where->reset;
		is($session->value($call), 'jane.doe@acme.example', 'a connection stands');
		$where->rule({ match => { method => 'GET' }, fault => 'close_reused' });
		is($session->query("SELECT sixtyfour_request('GET', '/workflows')")->{error},
			undef, 'a reading request is repeated when it ends');
		is(scalar @{ $where->ledger(path => '/workflows') }, 2, 'it was sent twice');

		# with a goodbye, which over TLS waits for ours, and without
		foreach my $ended ('connections', 'connections?all=1')
		{
			foreach my $request (@once[ 0, 1 ])
			{
				my ($name, $sql, $path) = @$request;

				$where->reset;
				is($session->query($sql)->{error}, undef, "$name is answered");
				$where->control('DELETE', $ended);
				$where->wait_for(open_connections_at_most => 0)
				  unless $server eq 'tls' && $ended eq 'connections';
				is($session->query($sql)->{error}, undef, 'and again after its connection has ended');
				my @seen = @{ $where->ledger(path => $path) };
				is(scalar(grep { $_->{accepted} } @seen), @seen, 'each was accepted');
				is(scalar(@seen), 2, 'and sent once');
				is($seen[1]{nth_on_connection}, 1, 'the second on a new connection');
			}
		}

		$where->reset;
		$where->rule({ fault => 'connection_close' });
		is($session->value($call), 'jane.doe@acme.example',
			"an answer with \"Connection: close\", no. $_")
		  foreach 1 .. 3;
		is($where->summary->{accepted}, 3, 'each was asked once');
		$session->close;
	};
}

subtest 'TLS' => sub {
	my $port = $tls->port;
	add_server('tls_unknown', $tls->url, "timeout '60'");
	add_server('tls_other', $tls->url, "ca_file '$dir/other-ca.pem'");
	add_server('tls_nowhere', $tls->url, "ca_file '$dir/nowhere.pem'");
	add_server('tls_name', "https://localhost:$port", "ca_file '$dir/good-ca.pem'");
	add_server('tls_plain', $mock->url =~ s/^http:/https:/r, "ca_file '$dir/good-ca.pem'");
	add_server('plain_tls', "http://127.0.0.1:$port", "timeout '60'");

	$tls->reset;
	is(session('tls')->value($call), 'jane.doe@acme.example', 'the right authority');
	my %detail = (
		tls_unknown => qr/certificate|issuer/,
		tls_other   => qr/certificate|issuer/,
		tls_nowhere => qr/certificate|CAfile/,
		tls_name    => qr/subject|name/,
		tls_plain   => qr/wrong version number|SSL/);
	foreach my $server (sort keys %detail)
	{
		my $reply = session($server)->query($call);
		is_deeply(told($reply),
			[ '08001', 'find_email: could not connect to the service',
				'Nothing was sent. Check the network and option "base_url" of the server.' ],
			"$server is refused");
		like($reply->{error}{detail}, $detail{$server}, 'the detail says why');
	}
	# a key must not go to the right service in the clear: this one goes nowhere
	isnt(session('plain_tls')->query($call)->{error}, undef, 'plain HTTP to TLS fails');
	is($tls->summary->{requests}, 1, 'only the first was sent');
};

# A proxy: tunnels (CONNECT) and forwards http:// URLs.  It writes the first
# line of each connection to a file.  One process per connection.
sub pump
{
	my ($one, $other) = @_;
	my $select = IO::Select->new($one, $other);
	for (;;)
	{
		foreach my $from ($select->can_read)
		{
			sysread($from, my $bytes, 65536) or return;
			syswrite(($from == $one ? $other : $one), $bytes);
		}
	}
}

sub serve_proxy
{
	my ($client, $log) = @_;
	my $head = '';
	while ($head !~ /\r\n\r\n/)
	{
		sysread($client, $head, 65536, length $head) or return;
	}
	my ($line) = $head =~ /^(.*)\r\n/;
	append_to_file($log, "$line\n");
	my ($where) = $line =~ m{^[A-Z]+ (?:http://)?([^/ ]+)};
	my $target = IO::Socket::INET->new(PeerAddr => $where) or return;
	if ($line =~ /^CONNECT/)
	{
		syswrite($client, "HTTP/1.1 200 Connection established\r\n\r\n");
	}
	else
	{
		$head =~ s{^([A-Z]+) http://[^/]+}{$1 };
		syswrite($target, $head);
	}
	pump($client, $target);
	return;
}

sub start_proxy
{
	my ($log) = @_;
	my $listener = IO::Socket::INET->new(Listen => 8, LocalAddr => '127.0.0.1')
	  or die "listen: $!";
	my $pid = fork() // die "fork: $!";
	return ($pid, $listener->sockport) if $pid;
	$SIG{CHLD} = 'IGNORE';
	while (my $client = $listener->accept)
	{
		next if fork();
		serve_proxy($client, $log);
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}

subtest 'proxies' => sub {
	my $log = "$dir/proxy.log";
	my ($pid, $port) = start_proxy($log);

	add_server('forwarded', $mock->url, "proxy 'http://127.0.0.1:$port'");
	add_server('tunneled', $tls->url, "ca_file '$dir/good-ca.pem', proxy '127.0.0.1:$port'");
	add_server('dead_proxy', $mock->url, "proxy '127.0.0.1:" . $dead->sockport . "'");

	$_->reset foreach $mock, $tls;
	my $session = session();
	is($session->value(q{CREATE TEMP TABLE environment (line text);
			COPY environment FROM PROGRAM 'env' (DELIMITER E'\x01');
			SELECT count(*) FROM environment WHERE line ~* '^(https?|all)_proxy=.'}),
		5, 'the environment has proxies');
	is($session->value($call), 'jane.doe@acme.example', 'they are not used');
	$session->close;
	ok(!-e $log, 'nor is ours yet');
	$session = session('forwarded');
	is($session->value($call), 'jane.doe@acme.example', 'a proxy that is named is used');
	is(slurp_file($log), 'POST ' . $mock->url . "/find-email HTTP/1.1\n", 'and forwards');
	$session->close;
	unlink $log;
	$session = session('tunneled');
	is($session->value($call), 'jane.doe@acme.example', "answer no. $_ through a tunnel")
	  foreach 1 .. 2;
	is(slurp_file($log), 'CONNECT 127.0.0.1:' . $tls->port . " HTTP/1.1\n", 'is one tunnel');

	$tls->rule({ match => { path => '/find-email' }, fault => 'close_reused' });
	is_deeply(told($session->query($call)), lost('find_email'),
		'a paid request in a tunnel that ends is given up');
	is($tls->summary->{accepted}, 3, 'and was sent once');
	$session->close;

	my $reply = session('dead_proxy')->query($call);
	is($reply->{error}{sqlstate}, '08001', 'a proxy that is not there: no connection');
	kill 'TERM', $pid;
	waitpid $pid, 0;
};

subtest 'signals and notices do not disturb a wait' => sub {
	my $session = session();
	my $other   = session();
	my $pid     = $session->pid;

	$mock->reset;
	$mock->rule({ match => { path => '/find-email' }, hold => JSON::PP::true });
	$session->value('LISTEN noise');
	$session->send($call);
	$mock->wait_for(count => 1, stage => 'received_body');
	foreach my $round (1 .. 20)
	{
		$other->value("SELECT pg_log_backend_memory_contexts($pid)");
		$other->value('NOTIFY noise');
		kill $_, $pid foreach qw(USR1 CHLD URG CONT HUP);
		$node->reload if $round % 10 == 0;
	}
	# more invalidation messages than a backend may be behind
	$other->value('DO $$ BEGIN FOR i IN 1 .. ' . ($slow ? 10 : 200)
		  . ' LOOP CREATE TABLE storm (a int, b text, c int); DROP TABLE storm; END LOOP; END $$');
	is($mock->control('POST', 'release')->{released}, 1, 'the request is still waiting');
	my $reply = $session->receive;
	is_deeply($reply->{rows}, [ ['jane.doe@acme.example'] ], 'its answer arrives');
	is($mock->summary->{requests}, 1, 'it was sent once');
	$session->close;
};

subtest 'many sessions at once' => sub {
	my $count    = $slow ? 3 : 40;
	my @sessions = map { session() } 1 .. $count;

	$mock->wait_for(open_connections_at_most => 0);
	$mock->reset;
	$mock->rule({ hold => JSON::PP::true });
	$sessions[$_]->send(
		qq{SELECT sixtyfour_find_email('{"name":"Jane $_","company":"Acme"}')->>'name'})
	  foreach 0 .. $#sessions;
	$mock->wait_for(count => $count, stage => 'received_body');
	$mock->control('POST', 'release');
	is_deeply([ map { $_->receive->{rows}[0][0] } @sessions ],
		[ map { "Jane $_" } 0 .. $#sessions ], 'each gets its own answer');
	my $summary = $mock->summary;
	is($summary->{accepted},    $count, 'each asked once');
	is($summary->{connections}, $count, 'each on its connection');
	$_->close foreach @sessions;
};

subtest 'the size of an answer' => sub {
	my $session = session();
	foreach my $kb (1, 64, $slow ? () : 5 * 1024)
	{
		$session->value("SET sixtyfour.max_response_size = '${kb}kB'");
		$mock->reset;
		$mock->rule({ fault => 'huge', size_bytes => $kb * 1024, times => 1 });
		$mock->rule({ fault => 'huge', size_bytes => $kb * 1024 + 1 });
		is($session->value(
				"SELECT length(a->>'notes') FROM sixtyfour_find_email($lead) a"),
			$kb * 1024 - length '{"notes":""}', "$kb kB are as much as is allowed");
		is_deeply(told($session->query($call)),
			[ '54000', "find_email: the service's answer is too large",
				'The request was probably billed; raise "sixtyfour.max_response_size" before asking again.' ],
			'one byte more is too much');
	}
	$session->value('RESET sixtyfour.max_response_size');
	$mock->reset;
	is($session->value($call), 'jane.doe@acme.example', 'the next call is answered');
	$session->close;
};

subtest 'HTTP/2' => sub {
	my $nginx = (grep { -x } '/usr/sbin/nginx', '/usr/bin/nginx')[0];
	plan skip_all => 'nginx is not installed' unless $nginx;

	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $log  = "$dir/nginx.access";
	my $url  = $mock->url;
	append_to_file("$dir/nginx.conf", <<"CONF");
daemon off;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/nginx.error;
events { worker_connections 64; }
http {
	log_format of_test '\$server_protocol \$connection \$request_uri';
	access_log $log of_test;
	client_body_temp_path $dir/nginx.body;
	proxy_temp_path $dir/nginx.proxy;
	fastcgi_temp_path $dir/nginx.fastcgi;
	uwsgi_temp_path $dir/nginx.uwsgi;
	scgi_temp_path $dir/nginx.scgi;
	client_max_body_size 64m;
	server {
		listen 127.0.0.1:$port ssl http2;
		ssl_certificate $dir/good.pem;
		ssl_certificate_key $dir/good.key;
		location / { proxy_pass $url; proxy_read_timeout 600s; }
	}
}
CONF
	my $pid;
	my $start = sub {
		$pid = fork() // die "fork: $!";
		exec $nginx, '-p', $dir, '-c', "$dir/nginx.conf", '-e', "$dir/nginx.error" or POSIX::_exit(127)
		  unless $pid;
		SixtyfourTest::poll_until(
			sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) })
		  or die 'nginx does not start';
	};
	my $stop = sub { kill $_[0], $pid; waitpid $pid, 0; };

	$start->();
	add_server('h2', "https://127.0.0.1:$port", "ca_file '$dir/good-ca.pem'");
	$mock->reset;
	my $session = session('h2');
	is($session->value($call), 'jane.doe@acme.example', "answer no. $_") foreach 1 .. 3;
	is($session->query($once[1][1])->{error}, undef, 'a large body');
	my @lines = split /\n/, slurp_file($log);
	is_deeply([ map { /^(\S+)/ } @lines ], [ ('HTTP/2.0') x 4 ], 'all spoke HTTP/2');
	my %connections = map { (split)[1] => 1 } @lines;
	is(scalar(keys %connections), 1, 'on one connection');

	$mock->reset;
	$mock->rule({ match => { path => '/find-email' }, fault => 'hang' });
	$session->send($call);
	$mock->wait_for(count => 1, stage => 'received_body');
	$stop->('TERM');
	is_deeply(told($session->receive), lost('find_email'), 'nginx is stopped during a call');
	is_deeply(told($session->query($call)),
		[ '08001', 'find_email: could not connect to the service',
			'Nothing was sent. Check the network and option "base_url" of the server.' ],
		'and away');
	$start->();
	$mock->clear_rules;
	is($session->value($call), 'jane.doe@acme.example', 'the session works when it is back');
	is($mock->summary->{accepted}, 2, 'the service saw what was answered and what was lost');

	# a call that is cancelled leaves the connection to the next one
	$mock->reset;
	$mock->rule({ match => { path => '/find-email' }, fault => 'hang', times => 1 });
	$session->send($call);
	$mock->wait_for(count => 1, stage => 'received_body');
	$session->cancel;
	is($session->receive->{error}{sqlstate}, '57014', 'a call is cancelled');
	is($session->value($call), 'jane.doe@acme.example', 'the next is answered');
	$session->close;
	$stop->('QUIT');
};

done_testing();
