# Results are fetched from a signed address: whole or not at all, in bounded
# memory, without telling anybody the key or the address; by a session that reads
# while it comes, and by a background process that has no transaction open.
use strict;
use warnings FATAL => 'all';

use Digest::MD5;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Test::More;
use Time::HiRes qw(time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $slow    = SixtyfourTest::slow();
my $large   = $slow ? 2_000_000 : 200_000_000;
my $cancels = $slow ? 5 : 200;
my $dir     = PostgreSQL::Test::Utils::tempdir();
my $json    = JSON::PP->new->allow_nonref;
my $secret  = 'c2lnbmF0dXJl/bXVzdC1ub3Q+c2hvdw';
my $what    = 'could not download the results';

# ---- a server of files, which does what it is asked for ----

# Its files repeat this.
my $pattern = join '', map { sprintf qq{%07d,"Jane ""%d"" Doe",=\n}, $_, $_ } 1 .. 4096;

# "bytes digest" of a file of that size
sub expected
{
	my ($size) = @_;
	my $md5 = Digest::MD5->new;
	for (my $left = $size; $left > 0; $left -= length $pattern)
	{
		$md5->add(substr $pattern, 0, $left);
	}
	return "$size " . $md5->hexdigest;
}

# Write all; note in the log when the other side does not take any more.
sub put
{
	my ($client, $log, $bytes) = @_;
	my $select = IO::Select->new($client);
	while (length $bytes)
	{
		if (!$select->can_write(0.3))
		{
			append_to_file($log, "STUCK\n");
			$select->can_write;
		}
		my $n = syswrite($client, $bytes) or POSIX::_exit(0);
		substr($bytes, 0, $n) = '';
	}
	return;
}

sub put_file
{
	my ($client, $log, $size, $chunked) = @_;
	for (my $left = $size; $left > 0; $left -= length $pattern)
	{
		my $piece = substr $pattern, 0, $left;
		put($client, $log, $chunked ? sprintf("%x\r\n%s\r\n", length $piece, $piece) : $piece);
	}
	return;
}

my %answers = (
	# kind => head, [ bytes of the pattern, in chunks ], what comes then
	whole      => sub { length_of($_[0]), [ $_[0] ] },
	chunked    => sub { "Transfer-Encoding: chunked\r\n", [ $_[0], 1 ], "0\r\n\r\n" },
	trailer    => sub { "Transfer-Encoding: chunked\r\n", [ $_[0], 1 ], "0\r\nX-More: 1\r\n\r\n" },
	cut        => sub { length_of($_[0]), [ int $_[0] / 2 ] },
	cut_chunks => sub { "Transfer-Encoding: chunked\r\n", [ $_[0], 1 ] },
	excess     => sub { length_of($_[0]), [ 2 * $_[0] ] },
	endless    => sub { '', [ $_[0] ] },
	gzip       => sub { length_of($_[0]) . "Content-Encoding: gzip\r\n", [ $_[0] ] });

sub length_of { return "Content-Length: $_[0]\r\n"; }

sub serve
{
	my ($client, $log) = @_;
	my $request = SixtyfourTest::Raw::read_request($client);
	append_to_file($log, $request);
	my ($kind, $argument) = $request =~ m{^GET /+(\w+)/(\d+)} or return;

	if ($kind eq 'status')
	{
		my $body = "You asked:\n$request";
		put($client, $log, "HTTP/1.1 $argument So be it\r\n" . length_of(length $body)
			  . "Location: /whole/1000\r\n\r\n$body");
	}
	elsif ($kind eq 'drip')
	{
		put($client, $log, "HTTP/1.1 200 OK\r\n" . length_of($argument) . "\r\n");
		foreach my $at (0 .. $argument - 1)
		{
			put($client, $log, substr $pattern, $at, 1);
			select undef, undef, undef, 0.1;
		}
	}
	elsif ($kind eq 'error')
	{
		my ($value) = $request =~ /signature=(\S+)/;
		my $body = "$value, which is " . $value =~ s/%([0-9a-f]{2})/chr hex $1/gier . ".\n" . ('x' x $argument);
		put($client, $log, "HTTP/1.1 500 So be it\r\n" . length_of(length $body) . "\r\n$body");
	}
	elsif ($kind eq 'part')
	{
		put($client, $log, "HTTP/1.1 206 Partial\r\n" . length_of(4) . "\r\nfour");
	}
	elsif ($kind eq 'hang')
	{
		put($client, $log, "HTTP/1.1 200 OK\r\n" . length_of(1_000_000_000) . "\r\n") if $argument;
		put_file($client, $log, $argument);
		sysread $client, $request, 1;
		append_to_file($log, "LEFT\n");
	}
	else
	{
		my ($head, $file, $tail) = $answers{$kind}->($argument);
		put($client, $log, "HTTP/1.1 200 OK\r\n$head\r\n");
		put_file($client, $log, @$file);
		put($client, $log, $tail) if $tail;
	}
	return;
}

# A process for each connection, of which each takes one request
sub start_server
{
	my ($log) = @_;
	my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1')
	  or die "listen: $!";
	append_to_file($log, '');
	my $pid = fork() // die "fork: $!";
	return ($pid, $listener->sockport) if $pid;
	local $SIG{CHLD} = 'IGNORE';
	local $SIG{PIPE} = 'IGNORE';
	for (;;)
	{
		my $client = $listener->accept or next;
		next if fork();
		serve($client, $log);
		POSIX::_exit(0);
	}
}

my $log = "$dir/files.log";
my ($server_pid, $port) = start_server($log);
my $test_pid = $$;
END { kill 'TERM', $server_pid if $$ == $test_pid && $server_pid; }

# The address of a file there
sub file
{
	my ($kind, $argument, $host) = @_;
	$host //= '127.0.0.1';
	return "http://$host:$port/$kind/$argument?expires=99999999&signature="
	  . $secret =~ s{/}{%2F}r =~ s{\+}{%2b}r;
}

# What the server wrote down, from now on
sub since
{
	my $offset = -s $log;
	return sub { return slurp_file($log, $offset); };
}

# ---- the extension ----

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('download', $mock,
	conf => SixtyfourTest::fault_settings() . "log_temp_files = 0\nautovacuum = off\n",
	server => "requests_per_minute '0', timeout '20'");
my $dead = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp')
  or die "bind: $!";

$node->safe_psql('postgres', q{
	CREATE FUNCTION same_origin(text, text) RETURNS boolean STRICT
		AS 'sixtyfour', 'sixtyfour_test_same_origin' LANGUAGE C;
	CREATE FUNCTION is_url(text) RETURNS boolean STRICT
		AS 'sixtyfour', 'sixtyfour_test_is_url' LANGUAGE C;
	CREATE FUNCTION download(url text, piece integer DEFAULT 65536, spool boolean DEFAULT false,
			hold boolean DEFAULT false) RETURNS text STRICT
		AS 'sixtyfour', 'sixtyfour_test_download' LANGUAGE C;
	CREATE FUNCTION two_downloads(text, text) RETURNS text STRICT
		AS 'sixtyfour', 'sixtyfour_test_two_downloads' LANGUAGE C;
	CREATE FUNCTION background() RETURNS boolean
		AS 'sixtyfour', 'sixtyfour_test_background' LANGUAGE C;
});

sub add_server
{
	my ($name, $options) = @_;
	$node->safe_psql('postgres', qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER sixtyfour
			OPTIONS (requests_per_minute '0', $options);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key 'api_good');
	});
	return;
}
add_server('files', "base_url 'http://127.0.0.1:$port/api', timeout '20'");
add_server('https', "base_url 'https://127.0.0.1:$port'");
add_server('hasty', "base_url '" . $mock->url . "', timeout '300ms'");
add_server('proxied', "base_url '" . $mock->url . "', proxy 'http://127.0.0.1:"
	  . $dead->sockport . "'");

my $session = SixtyfourTest::Session->new($node);
my $watcher = SixtyfourTest::Session->new($node);

sub quoted { return "'" . $_[0] =~ s/'/''/gr . "'"; }

sub download
{
	my ($url, %options) = @_;
	my $spool = $options{spool} ? 'true' : 'false';
	my $piece = $options{piece} // 65536;
	$session->value('SET sixtyfour.server = ' . ($options{server} // 'sixtyfour'));
	return $session->query('SELECT download(' . quoted($url) . ", $piece, $spool)");
}

# SQLSTATE, message and detail of an error
# libcurl 8 has other words for the same
sub in_old_words
{
	my ($said) = @_;
	return defined $said ? $said =~ s/end of response with (\d+) bytes missing/transfer closed with $1 bytes remaining to read/r : undef;
}

sub told
{
	my ($reply) = @_;
	return [ map { in_old_words($_) } @{ $reply->{error} // {} }{qw(sqlstate message detail)} ];
}

# One way of reading after the other
sub both_ways
{
	my ($name, $url, $check, %options) = @_;
	foreach my $spool (0, 1)
	{
		$check->(download($url, %options, spool => $spool), $name . ($spool ? ', spooled' : ''));
	}
	return;
}

sub fails
{
	my ($name, $url, $expected, %options) = @_;
	both_ways($name, $url, sub {
			my ($reply, $called) = @_;
			is_deeply(told($reply), $expected, $called);
			unlike(join("\n", values %{ $reply->{error} // {} }), qr/c2lnbm|bXVzdC1|api_good/, 'no secret is told');
		}, %options);
	return;
}

sub gives
{
	my ($name, $url, $expected, %options) = @_;
	both_ways($name, $url,
		sub { is_deeply($_[0]{rows}, [ [$expected] ], $_[1]) or diag(explain($_[0]{error})); },
		%options);
	return;
}

subtest 'addresses' => sub {
	my @same = (
		[ 'https://api.sixtyfour.ai', 'https://api.sixtyfour.ai/files/1?a=b' ],
		[ 'https://api.sixtyfour.ai', 'HTTPS://API.Sixtyfour.AI/' ],
		[ 'https://api.sixtyfour.ai', 'https://api.sixtyfour.ai:443' ],
		[ 'https://api.sixtyfour.ai', 'https://api.sixtyfour.ai:0443/' ],
		[ 'https://api.sixtyfour.ai', 'https://api%2esixtyfour.ai/' ],
		[ 'http://127.0.0.1',         'http://127.0.0.1:80#fragment' ],
		[ 'http://127.0.0.1:6464',    'http://127.0.0.1:6464?query' ],
		[ 'http://[::1]:6464',        'http://[::1]:6464/x' ],
		[ 'https://api.sixtyfour.ai', 'https://api.sixtyfour.ai/@evil' ]);
	my @others = map { [ 'https://api.sixtyfour.ai', $_ ] } (
		'http://api.sixtyfour.ai',       'https://api.sixtyfour.ai:8443',
		'https://api.sixtyfour.ai.',     'https://api.sixtyfour.ai.evil.test',
		'https://evil.test',             'https://sixtyfour.ai',
		'https://xapi.sixtyfour.ai',     'https://api.sixtyfour.ai:44',
		'https://api.sixtyfour.a%69%2f', 'https://evil.test/https://api.sixtyfour.ai',
		'https://evil.test?https://api.sixtyfour.ai',
		'https://evil.test#@api.sixtyfour.ai');
	push @others, [ 'http://[::1]', 'http://[::2]' ], [ 'http://[::1]', 'http://127.0.0.1' ],
	  [ 'http://127.0.0.1', 'http://localhost' ],
	  [ 'http://[fe80::1%25one]', 'http://[fe80::1%25two]' ],
	  [ 'http://[fe80::1]', 'http://[fe80::1%25one]' ];
	my @none = (
		'https://api.sixtyfour.ai@evil.test',   'https://api.sixtyfour.ai:443@evil.test/',
		'https://@api.sixtyfour.ai',            'https://:secret@api.sixtyfour.ai',
		'https://user:secret@api.sixtyfour.ai', 'https://evil.test\\@api.sixtyfour.ai',
		'https://api.sixtyfour.ai\\@evil.test', 'https:\\\\api.sixtyfour.ai',
		'https:/api.sixtyfour.ai',              'https:///api.sixtyfour.ai',
		'https:api.sixtyfour.ai',               '//api.sixtyfour.ai',
		'api.sixtyfour.ai',                     '',
		'https://',                             'https:///',
		'https://api.sixtyfour.ai:port',        'https://api.sixtyfour.ai:99999',
		'https://api.sixtyfour.ai /',           "https://api.sixtyfour.ai/\n",
		"https://api.sixtyfour.ai/\x{c3}\x{bc}", ' https://api.sixtyfour.ai',
		'ftp://api.sixtyfour.ai',               'file:///etc/passwd',
		'https://[::1',                         'https://[::g]/');

	foreach my $pair (@same, @others)
	{
		my $is = (grep { $_ == $pair } @same) ? 't' : 'f';
		my ($one, $two) = map { quoted($_) } @$pair;
		is($session->value("SELECT same_origin($one, $two)"), $is, "@$pair: $is");
		is($session->value("SELECT same_origin($two, $one)"), $is, 'and the other way round');
	}
	foreach my $url (@none)
	{
		my $it = quoted($url);
		is($session->value("SELECT is_url($it)"), 'f', "no URL: $url");
		is($session->value("SELECT same_origin($it, $it)"), 'f', 'nor the same as itself');
	}
	is($session->value('SELECT is_url(' . quoted(file('whole', 1)) . ')'), 't', 'a URL');

	my $is_none = 'The address that the service gave is no http or https URL, or has a user or password.';
	my $unused  = [ '08P01', "$what: the service gave an address that is not to be used" ];
	my $since   = since();
	fails('userinfo', "http://127.0.0.1:$port\@evil.test/$secret", [ @$unused, $is_none ]);
	fails('another protocol', "file:///$secret", [ @$unused, $is_none ]);
	fails('in the clear', file('whole', 10),
		[ @$unused, 'The address that the service gave is http, where the service itself is https.' ],
		server => 'https');
	fails('too long', file('whole', 10) . ('x' x 16384),
		[ @$unused, 'The address that the service gave is too long.' ]);
	is($since->(), '', 'nothing was asked for');
	gives('a scheme in capitals', file('whole', 10) =~ s/^http/HTTP/r, expected(10));
};

subtest 'who is told the key' => sub {
	foreach my $case (
		[ 'the service itself', 'files', '127.0.0.1', 1 ],
		[ 'another name for it', 'files', 'localhost', 0 ],
		[ 'another port', 'sixtyfour', '127.0.0.1', 0 ])
	{
		my ($name, $server, $host, $told) = @$case;
		my $since = since();
		gives($name, file('whole', 1000, $host), expected(1000), server => $server);
		my $requests = $since->();
		is(() = $requests =~ m{^GET /whole/1000\?expires=\d+&signature=\S+ HTTP/1\.1\r$}mg, 2, 'two requests');
		is(() = $requests =~ /^x-api-key: api_good\r$/mig, 2 * $told, 'with the key or without');
		unlike($requests, qr/accept-encoding/i, 'nothing compressed is asked for');
		like($requests, qr{^Accept: \*/\*\r$}m, 'of any type');
	}
};

subtest 'whole files' => sub {
	foreach my $size (0, 1, 65536, 262143, 262144, 262145, 5_000_000)
	{
		gives("$size bytes", file('whole', $size), expected($size));
		gives("$size bytes in chunks", file('chunked', $size), expected($size));
	}
	gives('chunks with a trailer', file('trailer', 100_000), expected(100_000));
	gives("pieces of $_", file('whole', 300_000), expected(300_000), piece => $_) foreach 7, 1_000_000;
	gives('what is behind the announced length is not of the file',
		file('excess', 100_000), expected(100_000));
};

subtest 'failures' => sub {
	my $lost = [ '08006', "$what: connection to the service was lost" ];
	my $unreadable = [ '08P01', "$what: the service's answer cannot be read" ];
	foreach my $size (1000, 1_000_000)
	{
		my $left = $size - int $size / 2;
		fails("lost at half of $size bytes", file('cut', $size),
			[ @$lost, "transfer closed with $left bytes remaining to read." ]);
		fails("lost between chunks after $size bytes", file('cut_chunks', $size),
			[ @$lost, 'transfer closed with outstanding read data remaining.' ]);
	}
	fails('an end that cannot be told from a loss', file('endless', 1000),
		[ @$unreadable, 'It does not say how long it is, so that a part could pass for the whole.' ]);
	fails('compressed', file('gzip', 1000), [ @$unreadable, 'It is compressed, which was not asked for.' ]);
	fails('a part', file('part', 0), [ @$unreadable, 'It is a part of the file, which was not asked for.' ]);
	foreach my $after (0, 1000, 300_000)
	{
		both_ways("nothing more after $after bytes", file('hang', $after), sub {
				my ($reply, $name) = @_;
				my ($sqlstate, $message, $detail) = @{ told($reply) };
				is($sqlstate, '08006', $name);
				is($message, "$what: the service did not answer in time", 'in time');
				like($detail, qr/^Nothing came for 3\d\d ms\.$/, 'says for how long');
			}, server => 'hasty') unless $slow;
	}
	foreach my $server ('sixtyfour', 'proxied')
	{
		my $url = $server eq 'proxied' ? file('whole', 10) : 'http://127.0.0.1:' . $dead->sockport . "/x?$secret";
		both_ways("no connection: $server", $url, sub {
				my ($reply, $name) = @_;
				is_deeply([ @{ told($reply) }[ 0, 1 ] ], [ '08001', "$what: could not connect to the service" ], $name);
				is($reply->{error}{hint}, 'Check the network, and options "ca_file" and "proxy" of the server.', 'a hint');
			}, server => $server);
	}
	my %refusals = (500 => 'the service failed', 503 => 'the service failed',
		302 => 'the service answered with a redirect, which is not followed',
		(map { $_ => 'the service refuses the request' } 401, 402, 416, 429));
	foreach my $status (sort keys %refusals)
	{
		my $since = since();
		both_ways("status $status", file('status', $status), sub {
				my ($reply, $name) = @_;
				my ($sqlstate, $message, $detail) = @{ told($reply) };
				is_deeply([ $sqlstate, $message ], [ '38000', "$what: $refusals{$status}" ], $name);
				like($detail, qr{^HTTP status $status: You asked:\nGET /status/$status\?\*+ HTTP/1\.1},
					'what it said, without the secrets');
				unlike(join("\n", values %{ $reply->{error} }), qr/c2lnbm|bXVzdC1|99999999|api_good/, 'nowhere');
			}, server => 'files');
		is(() = $since->() =~ /^GET/mg, 2, 'no redirect is followed, and nothing repeated');
	}
	foreach my $size (100, 500_000)
	{
		both_ways("an error of $size bytes", file('error', $size), sub {
				my ($reply, $name) = @_;
				like($reply->{error}{detail},
					$size > 65536 ? qr/^HTTP status 500: \*+, which is \*+\.\nx{900,} \.\.\. \(65536 bytes in all\)$/
					: qr/^HTTP status 500: \*+, which is \*+\.\nx{100}$/, "$name is told, as far as it is of use");
			});
	}
	gives("expired: $_", file('status', $_), 'expired') foreach 400, 403, 404, 410;
	gives('the next one', file('whole', 1000), expected(1000));
};

subtest "the service's own files" => sub {
	my $task = $session->value(q{SET sixtyfour.server = sixtyfour;
		SELECT sixtyfour_request('POST', '/search/start-deep-search', NULL, '{"query": "dentists"}')->>'task_id'});
	my $address = sub {
		return $session->value(
			qq{SELECT sixtyfour_request('GET', '/search/download', '{"resource_handle_id": "rh-$task"}')->>'url'});
	};
	$mock->wait_for(tasks_done => 1);

	my $url = $address->();
	my $csv = HTTP::Tiny->new->get($url)->{content};
	my $all = length($csv) . ' ' . Digest::MD5::md5_hex($csv);
	my $keys = sub { return [ map { $_->{key_sha256} ? 1 : 0 } @{ $mock->ledger(path => '/files/*') } ]; };
	$mock->reset_ledger;
	gives('a file', $url, $all);
	is_deeply($keys->(), [ 1, 1 ], 'is asked for with the key');
	$mock->settings({ download_host => 'localhost' });
	$url = $address->();
	$mock->reset_ledger;
	gives('of another origin', $url, $all);
	is_deeply($keys->(), [ 0, 0 ], 'is asked for without');
	$mock->settings({ download_host => '', download_seconds => -1 });
	gives('expired', $address->(), 'expired');
	gives('a wrong signature', $url . '0', 'expired');
	$mock->settings({ download_seconds => 900 });

	my $lost = [ '08006', "$what: connection to the service was lost" ];
	my %faults = (
		cut              => $lost,
		cut_headers      => $lost,
		bad_chunk        => $lost,
		close_after_body => $lost,
		reset_after_body => $lost,
		unasked_gzip     => [ '08P01', "$what: the service's answer cannot be read" ],
		redirect         => [ '38000', "$what: the service answered with a redirect, which is not followed" ]);
	foreach my $fault (sort keys %faults)
	{
		$mock->rule({ match => { path => '/files/*' }, fault => $fault });
		both_ways($fault, $url,
			sub { is_deeply([ @{ told($_[0]) }[ 0, 1 ] ], $faults{$fault}, $_[1]); });
		$mock->clear_rules;
	}
	foreach my $fault ('connection_close', 'close_reused', 'drip')
	{
		$mock->rule({ match => { path => '/files/*' }, fault => $fault, interval => 0.0001, times => 2 });
		gives("$fault does no harm", $url, $all);
		$mock->clear_rules;
	}
};

subtest 'TLS' => sub {
	SixtyfourTest::make_certificate("$dir/$_") foreach qw(good other);
	my $tls = SixtyfourTest::TlsMock->start('--keys' => 'api_good',
		'--tls-cert' => "$dir/good.pem", '--tls-key' => "$dir/good.key");
	my $rows = [ map { { name => "Jane $_", notes => 'x' x 10_000 } } 1 .. 100 ];

	add_server('tls', "base_url '" . $tls->url . "', ca_file '$dir/good-ca.pem'");
	add_server('tls_other', "base_url '" . $tls->url . "', ca_file '$dir/other-ca.pem'");
	$tls->rule({ match => { path => '/search/start-deep-search' }, result => $rows });
	$session->value('SET sixtyfour.server = tls');
	my $task = $session->value(
		q{SELECT sixtyfour_request('POST', '/search/start-deep-search', NULL, '{"query": "dentists"}')->>'task_id'});
	$tls->wait_for(tasks_done => 1);
	my $url = $session->value(
		qq{SELECT sixtyfour_request('GET', '/search/download', '{"resource_handle_id": "rh-$task"}')->>'url'});
	both_ways('a file', $url, sub { like($_[0]{rows}[0][0], qr/^10\d{5} /, $_[1]); }, server => 'tls');
	both_ways('from nobody we know', $url, sub {
			is_deeply([ @{ told($_[0]) }[ 0, 1 ] ], [ '08001', "$what: could not connect to the service" ], $_[1]);
		}, server => 'tls_other');
	$tls->rule({ match => { path => '/files/*' }, fault => 'cut' });
	both_ways('lost', $url, sub {
			is_deeply([ @{ told($_[0]) }[ 0, 1 ] ], [ '08006', "$what: connection to the service was lost" ], $_[1]);
		}, server => 'tls');
};

subtest 'beside HTTP/2' => sub {
	my $nginx = (grep { -x } '/usr/sbin/nginx', '/usr/bin/nginx')[0];
	plan skip_all => 'nginx is not installed' unless $nginx;

	my $h2_port = PostgreSQL::Test::Cluster::get_free_port();
	my $access = "$dir/nginx.access";
	my $api = $mock->url;
	append_to_file("$dir/nginx.conf", <<"CONF");
daemon off;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/nginx.error;
events { worker_connections 64; }
http {
	log_format of_test '\$server_protocol \$uri';
	access_log $access of_test;
	client_body_temp_path $dir/nginx.body;
	proxy_temp_path $dir/nginx.proxy;
	fastcgi_temp_path $dir/nginx.fastcgi;
	uwsgi_temp_path $dir/nginx.uwsgi;
	scgi_temp_path $dir/nginx.scgi;
	server {
		listen 127.0.0.1:$h2_port ssl http2;
		ssl_certificate $dir/good.pem;
		ssl_certificate_key $dir/good.key;
		proxy_http_version 1.1;
		location /whole/ { proxy_pass http://127.0.0.1:$port; }
		location /cut/ { proxy_pass http://127.0.0.1:$port; }
		location / { proxy_pass $api; }
	}
}
CONF
	my $pid = fork() // die "fork: $!";
	exec $nginx, '-p', $dir, '-c', "$dir/nginx.conf", '-e', "$dir/nginx.error" or POSIX::_exit(127)
	  unless $pid;
	SixtyfourTest::poll_until(
		sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h2_port) })
	  or die 'nginx does not start';

	add_server('h2', "base_url 'https://127.0.0.1:$h2_port', ca_file '$dir/good-ca.pem', timeout '20'");
	$session->value('SET sixtyfour.server = h2');
	my $ask = q{SELECT sixtyfour_request('GET', '/workflows') IS NOT NULL};
	is($session->value($ask), 't', 'a connection stands');
	gives('a file', file('whole', 20_000_000) =~ s{^http://[^/]+}{https://127.0.0.1:$h2_port}r,
		expected(20_000_000), server => 'h2');
	is($session->value($ask), 't', 'and goes on to be used');
	both_ways('lost', file('cut', 2_000_000) =~ s{^http://[^/]+}{https://127.0.0.1:$h2_port}r,
		sub { is(told($_[0])->[0], '08006', $_[1]); }, server => 'h2');
	is(slurp_file($access), join("\n", 'HTTP/2.0 /workflows', ('HTTP/1.1 /whole/20000000') x 2, 'HTTP/2.0 /workflows',
			('HTTP/1.1 /cut/2000000') x 2) . "\n", 'files come by HTTP/1.1, answers by HTTP/2');
	kill 'QUIT', $pid;
	waitpid $pid, 0;
};

# A number of kB from /proc/PID/status
sub memory
{
	my ($pid, $name) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^$name:\s+(\d+) kB/m;
	return $kb;
}

# Wait until somebody waits for the lock that $watcher has; returns who
sub held
{
	my $pid;
	SixtyfourTest::poll_until(sub {
			$pid = $watcher->value(
				"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 64 AND NOT granted");
		}) or die 'nobody waits';
	return $pid;
}

subtest 'a large file in little memory' => sub {
	# one whose peak is not that of others' deeds
	$session->close;
	$session = SixtyfourTest::Session->new($node);
	my $pid = $session->pid;
	my $expected = expected($large);
	gives('to warm up', file('whole', 1_000_000), expected(1_000_000));
	foreach my $way ([ 'whole', 0 ], [ 'chunked', 0 ], [ 'whole', 1 ])
	{
		my ($kind, $spool) = @$way;
		my $before = memory($pid, 'VmHWM');
		my $reply = download(file($kind, $large), spool => $spool);
		is_deeply($reply->{rows}, [ [$expected] ], "$kind, " . ($spool ? 'spooled' : 'streamed'));
		my $grown = memory($pid, 'VmHWM') - $before;
		cmp_ok($grown, '<', 2048, "the process has not grown ($grown kB)");
		note sprintf '%s %d: %.2f s', $kind, $spool, $reply->{elapsed};
	}
};

subtest 'a reader that is slow' => sub {
	$watcher->value('SELECT pg_advisory_lock(64)');
	$session->value('SET sixtyfour.server = hasty');
	my $before = memory($session->pid, 'RssAnon');
	my $since = since();
	my $size  = $slow ? 20_000_000 : 100_000_000;
	$session->send('SELECT download(' . quoted(file('whole', $size)) . ', 1000, false, true)');
	held();
	ok(SixtyfourTest::poll_until(sub { $since->() =~ /STUCK/ }), 'the service cannot send more');
	my $until = time + 1;
	SixtyfourTest::poll_until(sub { time > $until });
	cmp_ok(memory($session->pid, 'RssAnon') - $before, '<', 2048, 'nothing is piled up');
	$watcher->value('SELECT pg_advisory_unlock(64)');
	my $reply = $session->receive;
	is_deeply($reply->{rows}, [ [ expected($size) ] ],
		'goes on, though more than the timeout has passed') or diag(explain($reply->{error}));

	# the second takes longer than the timeout, though it never stops for so long
	is($session->value('SELECT two_downloads(' . quoted(file('whole', $size)) . ', ' . quoted(file('drip', 8)) . ')'),
		expected(8) . ', ' . expected($size), 'one that pauses while another is waited for')
	  unless $slow;

	# the whole file is in the buffer, and the connection has ended
	$watcher->value('SELECT pg_advisory_lock(64)');
	foreach my $kind ('whole', 'chunked')
	{
		$session->send('SELECT download(' . quoted(file($kind, 200_000)) . ', 1000, false, true)');
		held();
		$watcher->value('SELECT pg_advisory_unlock(64); SELECT pg_advisory_lock(64)');
		is_deeply($session->receive->{rows}, [ [ expected(200_000) ] ], "$kind: all that is buffered");
	}
	$watcher->value('SELECT pg_advisory_unlock(64)');
};

sub descriptors
{
	return [ sort map { readlink($_) =~ s/:\[\d+\]//r =~ s{.*/base/.*}{a file of the database}r }
		  glob '/proc/' . $session->pid . '/fd/*' ];
}

sub temporary_files
{
	my @files = glob $node->data_dir . '/base/pgsql_tmp/*';
	return scalar @files;
}

subtest 'stopped in the middle' => sub {
	# one that has no other connection
	$session->close;
	$session = SixtyfourTest::Session->new($node);
	gives('a file', file('whole', 1000), expected(1000));
	foreach my $spool ('false', 'true')
	{
		foreach my $after (0, 1000, 1_000_000)
		{
			my $since = since();
			my $before = descriptors();
			$session->value('SET sixtyfour.server = sixtyfour');
			$session->send('SELECT download(' . quoted(file('hang', $after)) . ", 65536, $spool)");
			SixtyfourTest::poll_until(sub { $since->() =~ /^GET/ }) or die 'nothing was asked';
			if ($spool eq 'true' && $after)
			{
				ok(SixtyfourTest::poll_until(sub { temporary_files() == 1 }), 'there is a temporary file');
			}
			$session->cancel;
			is($session->receive->{error}{sqlstate}, '57014', "canceled after $after bytes, spool $spool");
			ok(SixtyfourTest::poll_until(sub { $since->() =~ /^LEFT/m }), 'the connection is closed');
			is_deeply(descriptors(), $before, 'the same descriptors are open');
			is(temporary_files(), 0, 'no temporary file is left');
		}
	}

	# The context of a cursor outlives the error of a subtransaction.
	my $since = since();
	my $error = $session->query('BEGIN; DECLARE c CURSOR FOR SELECT download('
		  . quoted(file('hang', 1000)) . "); SAVEPOINT s; SET LOCAL statement_timeout = '500ms'; FETCH c")->{error};
	is($error->{sqlstate}, '57014', 'canceled in a cursor');
	$session->value('ROLLBACK TO s');
	ok(SixtyfourTest::poll_until(sub { $since->() =~ /^LEFT/m }), 'the connection is closed at once');
	$session->value('ROLLBACK');
};

subtest 'nothing leaks' => sub {
	my $pid = $session->pid;
	my $look = sub {
		my ($bytes, $ours) = @{ $session->query(
				q{SELECT sum(total_bytes), count(*) FILTER (WHERE name LIKE 'sixtyfour%')
				  FROM pg_backend_memory_contexts})->{rows}[0] };
		return { fds => descriptors(), contexts => $bytes, ours => $ours, process => memory($pid, 'RssAnon') };
	};
	my $round = sub {
		my ($count) = @_;
		my %seen;
		foreach my $n (1 .. $count)
		{
			my $spool = $n % 2 ? 'true' : 'false';
			my $url = quoted(file('hang', ($n % 3) * 150_000));
			my $ms = $slow ? 3000 : 1 + $n % 12;
			my $reply = $session->query("BEGIN; SET LOCAL statement_timeout = $ms; SELECT download($url, 65536, $spool)");
			$seen{ $reply->{error}{sqlstate} }++;
			$session->value('ROLLBACK');
		}
		foreach my $kind ('cut/300000', 'status/500', 'status/403', 'gzip/1000', 'whole/300000')
		{
			foreach my $spool ('true', 'false')
			{
				$session->query("SELECT download('http://127.0.0.1:$port/$kind', 65536, $spool)");
			}
		}
		is_deeply(\%seen, { 57014 => $count }, "$count downloads canceled");
	};
	$session->value('SET sixtyfour.server = sixtyfour');
	$look->();
	$round->($slow ? 2 : 60);
	my $before = $look->();
	$round->($cancels);
	my $after = $look->();
	is_deeply($after->{fds}, $before->{fds}, 'the same descriptors are open');
	is($after->{ours}, 0, 'no memory context of ours is left');
	note "contexts: $before->{contexts}, $after->{contexts}; process: $before->{process}, $after->{process}";
	cmp_ok($after->{contexts} - $before->{contexts}, '<=', 0, 'memory contexts have not grown');
	cmp_ok($after->{process} - $before->{process}, '<', 512, 'the process has not grown') unless $slow;
	is(temporary_files(), 0, 'no temporary file is left');
};

# What a background process says that downloads it
sub in_background
{
	my ($url, $meanwhile) = @_;
	my $offset = -s $node->logfile;
	my $said;
	$node->safe_psql('postgres', 'ALTER DATABASE postgres SET probe.url = ' . quoted($url));
	$node->safe_psql('postgres', 'SELECT background()');
	$meanwhile->() if $meanwhile;
	SixtyfourTest::poll_until(sub {
			$said = slurp_file($node->logfile, $offset);
			return $said =~ /exited with exit code|probe: |probe 2: /
			  && !$watcher->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sixtyfour probe'");
		}) or die 'the background process says nothing';
	unlike($said, qr/c2lnbm|api_good/, 'no secret is in the log');
	return join "\n", $said =~ /(?:LOG|ERROR|DETAIL):\s+((?:probe|temporary file size|HTTP status|transfer|end of response).*)/g;
}

subtest 'a background process' => sub {
	my $expected = expected($large);
	$watcher->value('SELECT pg_advisory_lock(64)');
	is(in_background(file('whole', $large), sub {
				my $pid = held();
				is(temporary_files(), 1, 'the file is there, in a later transaction');
				cmp_ok(memory($pid, 'RssAnon'), '<', 16384, 'it is not in memory');
				$watcher->value('SELECT pg_advisory_unlock(64)');
			}), "probe 1: $expected\nprobe 2: $expected", 'a large file, read twice');
	is(temporary_files(), 0, 'it is gone');
	is(in_background(file('whole', 0)), "probe 1: " . expected(0) . "\nprobe 2: " . expected(0), 'an empty file');
	is(in_background(file('status', 403)), 'probe: expired', 'expired');
	is(in_old_words(in_background(file('cut', 1_000_000))),
		"probe: $what: connection to the service was lost\ntransfer closed with 500000 bytes remaining to read.", 'lost');
	is(in_background(file('status', 500)), "probe: $what: the service failed\nHTTP status 500: You asked:", 'refused');

	$node->safe_psql('postgres', "ALTER DATABASE postgres SET temp_file_limit = '1MB'");
	is(in_background(file('whole', 5_000_000)), 'temporary file size exceeds temp_file_limit (1024kB)', 'too large for the disk');
	is(temporary_files(), 0, 'it is gone');
	$session->value("SET temp_file_limit = '1MB'");
	is_deeply([ @{ told(download(file('whole', 5_000_000), spool => 1)) }[ 0, 1 ] ],
		[ '53400', 'temporary file size exceeds temp_file_limit (1024kB)' ], 'the same in a session');
	is_deeply(download(file('whole', 5_000_000))->{rows}, [ [ expected(5_000_000) ] ], 'which needs none to read');
	is(temporary_files(), 0, 'it is gone');
};

$session->close;
done_testing();
