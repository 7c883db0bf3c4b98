# SixtyfourTest.pm: what the TAP tests share: a mock of the service, and a
# cluster whose account points to it.
#
#	my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
#	my $node = SixtyfourTest::cluster('main', $mock);
#	my $error = SixtyfourTest::sql_error($node, "SELECT ...");
package SixtyfourTest;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

# A running cluster with the extension, a server named sixtyfour that points to
# the mock, and a PUBLIC mapping with key api_good.
# Options: preload => 0, conf => "lines", extra => [initdb arguments],
# server => "further server options", start => 0
sub cluster
{
	my ($name, $mock, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => $options{extra} // []);
	$node->append_conf('postgresql.conf', "log_statement = none\n");
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n")
	  if defined $options{preload} && !$options{preload};
	$node->append_conf('postgresql.conf', $options{conf}) if $options{conf};
	return $node if defined $options{start} && !$options{start};
	$node->start;
	install($node, 'postgres', $mock, %options);
	return $node;
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

1;
