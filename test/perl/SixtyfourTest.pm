# SixtyfourTest.pm: what the TAP tests share: a mock of the service, and a
# cluster whose account points to it.
#
#	my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
#	my $node = SixtyfourTest::cluster('main', $mock);
#	my $error = SixtyfourTest::sql_error($node, "SELECT ...");
package SixtyfourTest;

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename ();

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

# A running cluster with the extension, a server named sixtyfour that points to
# the mock, and a PUBLIC mapping with key api_good.
# Options: preload => 0, conf => "lines", extra => [initdb arguments],
# server => "further server options", start => 0, route => 'auto': who makes
# synchronous calls, if it is not the session
sub cluster
{
	my ($name, $mock, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => $options{extra} // []);
	my $route = $options{route} // 'direct';

	$node->append_conf('postgresql.conf', "log_statement = none\nsixtyfour.route = $route\n");
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n")
	  if defined $options{preload} && !$options{preload};
	$node->append_conf('postgresql.conf', $options{conf}) if $options{conf};
	return $node if defined $options{start} && !$options{start};
	$node->start;
	install($node, 'postgres', $mock, %options);
	return $node;
}

# Configuration lines with which a cluster finds, instead of the usual library,
# one with the points at which a process can be made to fail (src/fault.h).  Only
# what knows of the points is compiled anew.
sub fault_settings
{
	my $top     = abs_path(File::Basename::dirname(__FILE__) . '/../..');
	my $library = PostgreSQL::Test::Utils::tempdir();
	my @make    = ('make', '-s', '-C', $library, 'with_llvm=no', 'COPT=-DS64_FAULTS',
		'PG_CONFIG=' . ($ENV{PG_CONFIG} // 'pg_config'));

	system_log('cp', '-a', "$top/Makefile", "$top/sixtyfour.control", glob("$top/*.sql"), "$top/src", $library);
	foreach my $source (glob "$library/src/*.c")
	{
		unlink $source =~ s/c$/o/r if slurp_file($source) =~ /"fault\.h"/;
	}
	system_log(@make, 'install', "DESTDIR=$library/inst") == 0
	  or die 'the library could not be built';
	return slurp_file($ENV{TEMP_CONFIG}) =~ s{\Q$top\E/inst}{$library/inst}gr;
}

# The folder in which such a cluster looks for faults
sub fault_folder
{
	my ($node) = @_;
	my $folder = $node->data_dir . '/sixtyfour_faults';

	mkdir $folder or die "$folder: $!";
	append_to_file("$folder/log", '');
	return $folder;
}

# Create extension, server and mapping in a database.
sub install
{
	my ($node, $database, $mock, %options) = @_;
	my $url   = $mock->url;
	my $extra = $options{server} ? ", $options{server}" : '';

	$node->safe_psql($database, qq{
		SET client_min_messages = error;
		CREATE EXTENSION sixtyfour;
		CREATE SERVER sixtyfour FOREIGN DATA WRAPPER sixtyfour
			OPTIONS (base_url '$url'$extra);
		CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour
			OPTIONS (api_key 'api_good');
	});
	return;
}

# Run SQL that is expected to fail; returns a hash with sqlstate, message,
# detail, hint, context (each '' if absent) and text, all of stderr.  A
# statement that succeeds gives an empty sqlstate.
sub sql_error
{
	my ($node, $sql, %options) = @_;
	my ($rc, $stdout, $stderr) =
	  $node->psql($options{database} // 'postgres', $sql,
		extra_params => ['-v', 'VERBOSITY=verbose'], %{ $options{psql} // {} });
	my %error = map { $_ => '' } qw(sqlstate message detail hint context);

	$error{text}   = $stderr;
	$error{stdout} = $stdout;
	@error{qw(sqlstate message)} = ($1, $2)
	  if $stderr =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}): (.*)/;
	foreach my $part (qw(detail hint context))
	{
		my $label = uc $part;
		$error{$part} = $1 if $stderr =~ /^$label:  (.*?)(?=^[A-Z]+:  |\z)/ms;
		chomp $error{$part};
	}
	return \%error;
}

# 1 in a run under valgrind, where counts are small and times mean nothing
sub slow { return $ENV{SIXTYFOUR_SLOW} ? 1 : 0; }

# Wait until $condition->() is true, looking often; false if it never is.
sub poll_until
{
	my ($condition) = @_;
	foreach (1 .. 200 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if $condition->();
		select undef, undef, undef, 0.005;
	}
	return 0;
}

# To be called in a BEGIN block: start the test anew in a network and mount
# namespace of its own, where it may listen on any port and mount files over
# others.  Where that is not possible it goes on, and in_namespace() is false.
sub enter_namespace
{
	my @unshare = qw(unshare --user --map-current-user --net --mount --keep-caps);

	return if in_namespace() || $> == 0;
	return if system("@unshare ip link set lo up >/dev/null 2>&1") != 0;
	$ENV{SIXTYFOUR_NAMESPACE} = 1;
	exec @unshare, 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', $^X, $0;
}

sub in_namespace { return $ENV{SIXTYFOUR_NAMESPACE} ? 1 : 0; }

# In such a namespace, put a file or folder in the place of another.
sub mount_over
{
	my ($path, $source) = @_;
	return system_log('mount', '--bind', $source, $path) == 0;
}

# make_certificate("dir/name"): an authority (name-ca.pem), and a certificate
# (name.pem, name.key) by it for a server on 127.0.0.1
sub make_certificate
{
	my ($base) = @_;
	my @new = qw(openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes);

	append_to_file("$base.ext", "subjectAltName=IP:127.0.0.1\n");
	foreach my $command (
		[ @new, qw(-x509 -days 2 -subj), '/CN=authority ' . File::Basename::basename($base),
			'-keyout', "$base-ca.key", '-out', "$base-ca.pem" ],
		[ @new, qw(-subj /CN=service -keyout), "$base.key", '-out', "$base.csr" ],
		[ qw(openssl x509 -req -days 2 -CAcreateserial -in), "$base.csr",
			'-CA', "$base-ca.pem", '-CAkey', "$base-ca.key",
			'-extfile', "$base.ext", '-out', "$base.pem" ])
	{
		system_log(@$command) == 0 or die 'openssl failed';
	}
	return;
}

# The ways in which a statement is stopped from outside.  Each has a name, SQL
# for the session before the statement (setup), how to do it to a session (act),
# the SQLSTATE and message that follow, and the ms (late) after which it comes
# by itself.  $watcher is another session.
sub ways_to_stop
{
	my ($watcher, $timeout) = @_;
	my $by_function = sub {
		my ($function) = @_;
		return sub { $watcher->value("SELECT $function(" . $_[0]->pid . ')'); };
	};

	return (
		{   name  => 'statement_timeout',
			setup => "SET statement_timeout = $timeout",
			late  => $timeout,
			act   => sub { },
			error => [ '57014', 'canceling statement due to statement timeout' ] },
		{   name  => 'Ctrl-C',
			act   => sub { $_[0]->cancel; },
			error => [ '57014', 'canceling statement due to user request' ] },
		{   name  => 'pg_cancel_backend',
			act   => $by_function->('pg_cancel_backend'),
			error => [ '57014', 'canceling statement due to user request' ] },
		{   name  => 'pg_terminate_backend',
			act   => $by_function->('pg_terminate_backend'),
			error => [ '57P01', 'terminating connection due to administrator command' ] });
}

# Run a statement and stop it once $started->($session) returns; returns the
# reply and the ms that stopping took.
sub stop_statement
{
	my ($session, $sql, $started, $way) = @_;

	$session->value($way->{setup}) if $way->{setup};
	$session->send($sql);
	$started->($session) or die "the statement does not wait as it should";
	my $begin = $session->now;
	$way->{act}->($session);
	my $reply = $session->receive;
	return ($reply, 1000 * $reply->{elapsed} - $way->{late}) if $way->{late};
	return ($reply, 1000 * ($reply->{at} - $begin));
}

package SixtyfourTest::Mock;

use strict;
use warnings FATAL => 'all';

use Carp;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use HTTP::Tiny;
use JSON::PP;
use POSIX ();

my $program = abs_path(dirname(__FILE__) . '/../mock/mock.py');
my $json    = JSON::PP->new->canonical->utf8->allow_nonref;

# Start a mock; arguments are its command line's.
sub start
{
	my ($class, @arguments) = @_;

	pipe(my $reader, my $writer) or croak "pipe: $!";
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		close $reader;
		POSIX::dup2(fileno($writer), 1);
		exec($ENV{PYTHON} // '/usr/bin/python3', $program, '--die-with-parent',
			@arguments)
		  or POSIX::_exit(127);
	}
	close $writer;
	my $url = <$reader>;
	croak "the mock did not start" unless defined $url;
	chomp $url;
	# without this reference the mock would lose its standard output
	return bless { pid => $pid, url => $url, stdout => $reader,
		owner => $$, http => HTTP::Tiny->new(timeout => 120, verify_SSL => 0) },
	  $class;
}

sub url  { return $_[0]{url}; }
sub port { return $_[0]{url} =~ /:(\d+)$/ ? $1 : undef; }

# One request to the control side; dies unless it answers 200.
sub control
{
	my ($self, $method, $path, $body) = @_;
	my %options = defined $body
	  ? (content => $json->encode($body),
		headers => { 'Content-Type' => 'application/json' })
	  : ();
	my $reply = $self->{http}->request($method, "$self->{url}/_mock/$path", \%options);

	croak "$method /_mock/$path: $reply->{status} $reply->{content}"
	  unless $reply->{success};
	return length $reply->{content} ? $json->decode($reply->{content}) : undef;
}

# rule({match => {...}, status => 429, ...}): misbehave from now on
sub rule { my ($self, $rule) = @_; return $self->control('POST', 'rules', $rule); }
sub clear_rules { return $_[0]->control('DELETE', 'rules'); }
sub settings { my ($self, $s) = @_; return $self->control('POST', 'settings', $s); }
sub summary { return $_[0]->control('GET', 'summary'); }
sub reset_ledger { return $_[0]->control('DELETE', 'ledger'); }

# Everything back to the beginning: rules, ledger
sub reset
{
	my ($self) = @_;
	$self->clear_rules;
	$self->reset_ledger;
	return;
}

sub query
{
	my (%filter) = @_;
	return join '&', map { "$_=$filter{$_}" } sort keys %filter;
}

# ledger(path => '/find-email', ...): array of recorded requests
sub ledger { my ($self, %f) = @_; return $self->control('GET', 'ledger?' . query(%f)); }

# wait_for(count => 1, path => ..., stage => 'received_body'): block until it is so
sub wait_for { my ($self, %f) = @_; return $self->control('GET', 'wait?' . query(%f)); }

sub stop
{
	my ($self) = @_;
	return unless $self->{pid} && $self->{owner} == $$;
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = undef;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	$self->stop;
	return;
}

# A mock that speaks TLS, started with --tls-cert and --tls-key.  Its control
# side is spoken to by Python, whose TLS is always there.
package SixtyfourTest::TlsMock;

use strict;
use warnings FATAL => 'all';

use Carp;
use IPC::Open2;

our @ISA = ('SixtyfourTest::Mock');

# Reads [method, url, body] from each line, writes the answer as a line.
my $talk = <<'PYTHON';
import json, ssl, sys, urllib.request
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))
for line in sys.stdin:
    method, url, body = json.loads(line)
    request = urllib.request.Request(
        url, body.encode() if body else None, method=method,
        headers={"Content-Type": "application/json"})
    with opener.open(request, timeout=120) as reply:
        print(json.dumps(json.load(reply)), flush=True)
PYTHON

sub control
{
	my ($self, $method, $path, $body) = @_;
	my $python = $ENV{PYTHON} // '/usr/bin/python3';

	open2($self->{from_python}, $self->{to_python}, $python, '-uc', $talk)
	  unless $self->{to_python};
	my $text = defined $body ? $json->encode($body) : '';
	syswrite($self->{to_python},
		$json->encode([ $method, "$self->{url}/_mock/$path", $text ]) . "\n");
	my $answer = readline $self->{from_python};
	croak "$method /_mock/$path failed" unless defined $answer;
	return $json->decode($answer);
}

# A session of its own, spoken to in PostgreSQL's protocol: a statement can be
# sent and awaited apart from each other, and times are not psql's.
#
#	my $session = SixtyfourTest::Session->new($node);
#	$session->send("SELECT ...");		# then, for example:
#	$session->cancel;
#	my $reply = $session->receive;
#	is($reply->{error}{sqlstate}, '57014');
package SixtyfourTest::Session;

use strict;
use warnings FATAL => 'all';

use Carp;
use IO::Select;
use IO::Socket::UNIX;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;
my %fields   = (
	S => 'severity', C => 'sqlstate', M => 'message',
	D => 'detail', H => 'hint', W => 'context');

# new($node, user => ..., database => ...)
sub new
{
	my ($class, $node, %options) = @_;
	my $self = bless { node => $node, buffer => '' }, $class;
	my %start = (
		user     => $options{user}     // $ENV{PGUSER} // scalar getpwuid($<),
		database => $options{database} // 'postgres');

	$self->{socket} = open_socket($node);
	my $packet = pack('N', 196608) . join '', map { "$_\0" } %start, '';
	$self->{socket}->syswrite(pack('N', 4 + length $packet) . $packet);
	my $reply = $self->receive;
	croak "no session: $reply->{error}{message}" if $reply->{error};
	croak 'no session: the server is gone' if $reply->{closed};
	return $self;
}

sub open_socket
{
	my ($node) = @_;
	my $path = $node->host . '/.s.PGSQL.' . $node->port;
	return IO::Socket::UNIX->new(Peer => $path) // croak "connect to $path: $!";
}

sub pid { return $_[0]{pid}; }
sub now { return clock_gettime(CLOCK_MONOTONIC); }

# Send statements; receive() must follow.
sub send
{
	my ($self, $sql) = @_;
	my $canceller = delete $self->{canceller};
	1 while $canceller && $canceller->sysread(my $rest, 1);
	$self->{sent} = now();
	$self->{socket}->syswrite('Q' . pack('N', 5 + length $sql) . "$sql\0");
	return;
}

# One message of the server, as (type, content); nothing if it is gone
sub message
{
	my ($self) = @_;
	my $until = now() + $patience;

	for (;;)
	{
		my ($type, $length) = unpack 'aN', $self->{buffer};
		if (length $self->{buffer} >= 5 && length $self->{buffer} > $length)
		{
			my $content = substr $self->{buffer}, 5, $length - 4;
			substr($self->{buffer}, 0, $length + 1) = '';
			return ($type, $content);
		}
		IO::Select->new($self->{socket})->can_read($until - now())
		  or croak "the server does not answer";
		return
		  unless $self->{socket}->sysread($self->{buffer}, 65536, length $self->{buffer});
	}
}

# The outcome of what was sent: rows (arrays of texts), error, notices, whether
# the server closed the connection, and seconds since send()
sub receive
{
	my ($self) = @_;
	my %reply = (rows => [], notices => [], closed => 0);

	for (;;)
	{
		my ($type, $content) = $self->message;
		$reply{closed} = 1 unless defined $type;
		last if !defined $type || $type eq 'Z';
		if ($type eq 'E' || $type eq 'N')
		{
			my $said = said($content);
			$reply{error} //= $said if $type eq 'E';
			push @{ $reply{notices} }, $said if $type eq 'N';
			$reply{at} //= now();
		}
		elsif ($type eq 'D')
		{
			push @{ $reply{rows} }, row($content);
		}
		elsif ($type eq 'K')
		{
			@{$self}{qw(pid secret)} = unpack 'NN', $content;
		}
	}
	$reply{at} //= now();
	$reply{elapsed} = $reply{at} - ($self->{sent} // $reply{at});
	return \%reply;
}

sub said
{
	my %raw  = map { substr($_, 0, 1) => substr($_, 1) } grep { length } split /\0/, $_[0];
	my %said = map { $fields{$_} => $raw{$_} // '' } keys %fields;
	return \%said;
}

sub row
{
	my ($content) = @_;
	my ($n, $at, @values) = (unpack('n', $content), 2);
	foreach (1 .. $n)
	{
		my $length = unpack 'l>', substr $content, $at, 4;
		push @values, $length < 0 ? undef : substr $content, $at + 4, $length;
		$at += 4 + ($length < 0 ? 0 : $length);
	}
	return \@values;
}

sub query
{
	my ($self, $sql) = @_;
	$self->send($sql);
	return $self->receive;
}

# The first value that statements return; dies if they fail
sub value
{
	my ($self, $sql) = @_;
	my $reply = $self->query($sql);
	croak "$sql: $reply->{error}{sqlstate} $reply->{error}{message}" if $reply->{error};
	croak "$sql: the server is gone" if $reply->{closed};
	return @{ $reply->{rows} } ? $reply->{rows}[0][0] : undef;
}

# Ask the postmaster to cancel what the session does, as psql does on Ctrl-C.
# It signals the process and then its group, which is the process again, so the
# next statement waits until it has (see send).
sub cancel
{
	my ($self) = @_;
	my $socket = $self->{canceller} = open_socket($self->{node});
	$socket->syswrite(pack 'NNNN', 16, 80877102, @{$self}{qw(pid secret)});
	return;
}

sub close { $_[0]{socket}->close; return; }

# A server that is not one: it reads a request, answers with the bytes it was
# given and closes the connection.  What it received is kept, to the byte.
#
#	my $raw = SixtyfourTest::Raw->start("HTTP/1.1 200 OK\r\n\r\n{}");
#	... request $raw->url ...
#	like($raw->received, qr{^GET /workflows HTTP/1.1\r\n});
package SixtyfourTest::Raw;

use strict;
use warnings FATAL => 'all';

use Carp;
use File::Temp;
use IO::Select;
use IO::Socket::INET;
use POSIX ();

sub start
{
	my ($class, $answer) = @_;
	my $listener = IO::Socket::INET->new(Listen => 16, LocalAddr => '127.0.0.1')
	  or croak "listen: $!";
	my $log = File::Temp->new;

	pipe(my $alive, my $parent) or croak "pipe: $!";
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		close $parent;
		eval { serve($listener, $alive, $answer, $log->filename); };
		POSIX::_exit(0);
	}
	# the child ends when this end of the pipe is closed
	return bless { port => $listener->sockport, pid => $pid, parent => $parent,
		log => $log, owner => $$ }, $class;
}

sub serve
{
	my ($listener, $alive, $answer, $path) = @_;
	my $select = IO::Select->new($listener, $alive);

	for (;;)
	{
		return if grep { $_ == $alive } $select->can_read;
		my $client = $listener->accept or next;
		local $SIG{PIPE} = 'IGNORE';
		my $request = read_request($client);
		open(my $log, '>>', $path) or die;
		syswrite $log, $request;
		close $log;
		syswrite $client, $answer;
		close $client;
	}
}

# Headers, and as much of a body as they announce
sub read_request
{
	my ($client) = @_;
	my $request = '';

	for (;;)
	{
		return $request
		  if $request =~ /\r\n\r\n/
		  && $+[0] + ($request =~ /^content-length: *(\d+)/mi ? $1 : 0) <= length $request;
		return $request unless sysread $client, $request, 65536, length $request;
	}
}

sub url  { return "http://127.0.0.1:$_[0]{port}"; }
sub port { return $_[0]{port}; }

# All that was received so far, and forget it
sub received
{
	my ($self) = @_;
	open(my $log, '<', $self->{log}->filename) or croak "open: $!";
	my $text = do { local $/; <$log> } // '';
	truncate $self->{log}->filename, 0;
	return $text;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	return unless $self->{owner} == $$;
	close $self->{parent};
	waitpid $self->{pid}, 0;
	return;
}

# Certificates for tests, made below a directory.
package SixtyfourTest::Tls;

use strict;
use warnings FATAL => 'all';

use Carp;

# make($directory): an authority (ca.pem), and by it a server for 127.0.0.1
# (server.pem, server.key) and one for elsewhere (other.pem, other.key)
sub make
{
	my ($directory) = @_;
	my @new = qw(req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2);
	my %names = (server => 'IP:127.0.0.1', other => 'DNS:elsewhere.example');

	openssl(@new, '-subj', '/CN=Authority of a test',
		'-keyout', "$directory/ca.key", '-out', "$directory/ca.pem");
	foreach my $name (keys %names)
	{
		openssl(@new, '-subj', "/CN=$name", '-CA', "$directory/ca.pem",
			'-CAkey', "$directory/ca.key",
			'-addext', "subjectAltName=$names{$name}",
			'-addext', 'basicConstraints=critical,CA:FALSE',
			'-keyout', "$directory/$name.key", '-out', "$directory/$name.pem");
	}
	return;
}

sub openssl
{
	my @command = ('openssl', @_);
	my $said = '';
	IPC::Run::run(\@command, '>&', \$said) or croak "@command: $said";
	return;
}

1;
