# Whom TLS trusts: the system's authorities, or instead of them those of ca_file.
#
# Runs in namespaces of its own, in which the system's authorities are ours.
use strict;
use warnings FATAL => 'all';

use Test::More;

use PostgreSQL::Test::Utils;
use SixtyfourTest;

BEGIN { SixtyfourTest::enter_namespace(); }

plan skip_all => 'no namespaces for this user' unless SixtyfourTest::in_namespace();

my $call = q{SELECT sixtyfour_best_email(sixtyfour_find_email('{"name":"Jane Doe","company":"Acme"}'))};
my $dir  = PostgreSQL::Test::Utils::tempdir();
SixtyfourTest::make_certificate("$dir/$_") foreach qw(system other);

# As Debian has them: all in one file, and each under the hash of its name
mkdir "$dir/certs" or die "mkdir: $!";
append_to_file("$dir/certs/ca-certificates.crt", slurp_file("$dir/system-ca.pem"));
append_to_file("$dir/certs/system.pem",          slurp_file("$dir/system-ca.pem"));
plan skip_all => 'no mounts in a namespace'
  unless system_log('openssl', 'rehash', "$dir/certs") == 0
  && SixtyfourTest::mount_over('/etc/ssl/certs', "$dir/certs");

my %mocks = map {
	$_ => SixtyfourTest::TlsMock->start('--keys' => 'api_good',
		'--tls-cert' => "$dir/$_.pem", '--tls-key' => "$dir/$_.key")
} qw(system other);
my $node = SixtyfourTest::cluster('trust', $mocks{system});

# What a call to a service comes to, where the server has that ca_file
sub ask
{
	my ($name, $service, $ca_file) = @_;
	my $url = $mocks{$service}->url;
	my $ca  = $ca_file ? ", ca_file '$dir/$ca_file-ca.pem'" : '';
	$node->safe_psql('postgres', qq{
		CREATE SERVER $name FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$url'$ca);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key 'api_good');
	});
	my $session = SixtyfourTest::Session->new($node);
	$session->value("SET sixtyfour.server = $name");
	my $reply = $session->query($call);
	$session->close;
	return $reply->{error} ? $reply->{error}{sqlstate} : $reply->{rows}[0][0];
}

is(ask('a', 'system'), 'jane.doe@acme.example', 'the system\'s authorities are trusted');
is(ask('b', 'other'),  '08001',                 'others are not');
is(ask('c', 'other', 'other'), 'jane.doe@acme.example', 'unless ca_file names them');
is(ask('d', 'system', 'other'), '08001', 'which then are trusted alone');
is($mocks{$_}->summary->{requests}, 1, "one request has reached the service \"$_\"")
  foreach qw(system other);

done_testing();
