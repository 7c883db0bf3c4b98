# Who asks, with which key, at which server; who may say so; and that the key
# is never shown.  (What the validator refuses, whoever asks, is in
# sql/account.sql.)
use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use Test::More;

use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start;
my $node = SixtyfourTest::cluster('account', $mock);
my $url  = $mock->url;
my $file = $node->basedir . '/key';

# Sessions of a superuser and of two roles with few rights
my $root = SixtyfourTest::Session->new($node);
$root->value(q(
	CREATE ROLE sales LOGIN;
	CREATE ROLE boss LOGIN;
	GRANT CREATE ON DATABASE postgres TO boss;
	GRANT CREATE ON SCHEMA public TO boss;
	ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key 'api_secret_public');
));
my $sales = SixtyfourTest::Session->new($node, user => 'sales');
my $boss  = SixtyfourTest::Session->new($node, user => 'boss');

my $email = q(SELECT sixtyfour_find_email('{"name":"Jane Doe","company":"Acme"}'));
my $n     = 0;

# The result of a statement, or its error, as one text
sub outcome
{
	my ($session, $sql) = @_;
	my $reply = $session->query($sql);
	my $error = $reply->{error}
	  or return join "\n", map { join '|', map { $_ // 'NULL' } @$_ } @{ $reply->{rows} };
	return join "\n", "$error->{sqlstate}: $error->{message}",
	  $error->{detail} ne '' ? "DETAIL: $error->{detail}" : (),
	  $error->{hint} ne ''   ? "HINT: $error->{hint}"     : ();
}

# A session's call is paid with this key.
sub pays
{
	my ($name, $session, $key, $sql) = @_;
	$n++;
	$mock->reset;
	my $failed = $session->query($sql // "SELECT sixtyfour_find_email('{\"name\":\"Jane Doe $n\"}')")->{error};
	my @hashes = map { $_->{key_sha256} } @{ $mock->ledger };
	is($failed ? "$failed->{sqlstate} $failed->{message}" : "@hashes", sha256_hex($key), $name);
	return;
}

# A session's call fails before anything is sent.
sub fails
{
	my ($name, $session, $error, $sql) = @_;
	$mock->reset;
	is(outcome($session, $sql // $email), $error, $name);
	is($mock->summary->{requests}, 0, 'nothing was sent');
	return;
}

# ---- options that need a superuser ----

my $only = 'HINT: Only a superuser may create or alter an object with this option.';
sub denied { return qq(42501: permission denied to set option "$_[0]"\n$only); }

is(outcome($boss, 'CREATE SERVER mine FOREIGN DATA WRAPPER sixtyfour'),
	'42501: permission denied for foreign-data wrapper sixtyfour', 'a server needs USAGE on the wrapper');
$root->value('GRANT USAGE ON FOREIGN DATA WRAPPER sixtyfour TO boss');
my %special = (
	base_url    => $url,
	webhook_url => 'https://me.test/hook',
	ca_file     => '/etc/ssl/ca.pem',
	proxy       => 'http://proxy.test:3128');
foreach my $option (sort keys %special)
{
	is(outcome($boss, "CREATE SERVER mine FOREIGN DATA WRAPPER sixtyfour OPTIONS ($option '$special{$option}')"),
		denied($option), "option $option needs a superuser");
	is(outcome($root, "CREATE SERVER mine FOREIGN DATA WRAPPER sixtyfour OPTIONS ($option '$special{$option}'); DROP SERVER mine"),
		'', 'who may set it');
}
is(outcome($boss, q(CREATE SERVER mine FOREIGN DATA WRAPPER sixtyfour OPTIONS (requests_per_minute '0'))),
	qq(42501: permission denied to set option "requests_per_minute" to unlimited\nHINT: Only a superuser may lift the limit on requests.),
	'no limit needs a superuser');
is(outcome($boss, q(CREATE SERVER mine FOREIGN DATA WRAPPER sixtyfour OPTIONS (requests_per_minute '-0'))),
	qq(42501: permission denied to set option "requests_per_minute" to unlimited\nHINT: Only a superuser may lift the limit on requests.),
	'however zero is spelled');
is(outcome($boss, q(CREATE SERVER mine FOREIGN DATA WRAPPER sixtyfour OPTIONS (requests_per_minute '10', timeout '5', connect_timeout '2s', daily_budget_cents '100', assumed_cents '50'))),
	'', 'the other options are everyone\'s');
is(outcome($boss, "ALTER SERVER mine OPTIONS (ADD base_url '$url')"), denied('base_url'), 'ALTER is no way round');
is(outcome($boss, q(ALTER SERVER mine OPTIONS (SET requests_per_minute '0'))) =~ /^42501: /, 1, 'nor for no limit');
is(outcome($boss, q(ALTER SERVER mine OPTIONS (SET timeout '6'))), '', 'an owner alters what is its own');
is(outcome($root, "ALTER SERVER mine OPTIONS (ADD base_url '$url')"), '', 'a superuser sends it elsewhere');
is(outcome($boss, q(ALTER SERVER mine OPTIONS (SET timeout '7'))), denied('base_url'), 'from then on only superusers alter it');

is(outcome($boss, "CREATE USER MAPPING FOR boss SERVER mine OPTIONS (api_key_file '$file')"), denied('api_key_file'), 'option api_key_file needs a superuser');
is(outcome($boss, q(CREATE USER MAPPING FOR boss SERVER mine OPTIONS (api_key 'api_secret_boss'))), '', 'an owner of a server makes mappings');
is(outcome($boss, "ALTER USER MAPPING FOR boss SERVER mine OPTIONS (DROP api_key, ADD api_key_file '$file')"), denied('api_key_file'), 'ALTER is no way round');
is(outcome($boss, q(ALTER USER MAPPING FOR boss SERVER mine OPTIONS (SET api_key 'api_secret_boss2'))), '', 'a key can be changed');
pays('the changed key is used', $boss, 'api_secret_boss2', q(SET sixtyfour.server = mine; SELECT sixtyfour_find_email('{"name":"B B"}')));
$boss->value('RESET sixtyfour.server');

# ---- who may ask ----

fails('without USAGE', $sales, '42501: permission denied for foreign server sixtyfour');
$root->value('GRANT USAGE ON FOREIGN SERVER sixtyfour TO sales');
pays('PUBLIC\'s key', $sales, 'api_secret_public');
is(outcome($sales, q(CREATE USER MAPPING FOR sales SERVER sixtyfour OPTIONS (api_key 'api_secret_sales'))), '', 'a role with USAGE brings its own key');
pays('which is used instead of PUBLIC\'s', $sales, 'api_secret_sales');
pays('by this role alone', $root, 'api_secret_public');
is(outcome($sales, q(ALTER USER MAPPING FOR sales SERVER sixtyfour OPTIONS (SET api_key 'api_secret_sales2'))), '', 'and may change it');
pays('which counts at once', $sales, 'api_secret_sales2');
pays('SET ROLE', $root, 'api_secret_sales2', qq(SET ROLE sales; $email));
$root->value('RESET ROLE');
$sales->value(qq(PREPARE ask AS $email));
pays('a prepared statement', $sales, 'api_secret_sales2', 'EXECUTE ask');
$root->value('REVOKE USAGE ON FOREIGN SERVER sixtyfour FROM sales');
fails('USAGE that was revoked', $sales, '42501: permission denied for foreign server sixtyfour', 'EXECUTE ask');
$root->value('GRANT USAGE ON FOREIGN SERVER sixtyfour TO sales');

# a mapping without a key is not PUBLIC's
$root->value('ALTER USER MAPPING FOR sales SERVER sixtyfour OPTIONS (DROP api_key)');
fails('a mapping without key', $sales, qq(28000: user mapping of server "sixtyfour" has no API key\nHINT: Use ALTER USER MAPPING ... OPTIONS (ADD api_key '...').));
$root->value('DROP USER MAPPING FOR sales SERVER sixtyfour; DROP USER MAPPING FOR PUBLIC SERVER sixtyfour');
fails('no mapping', $sales, qq(28000: user mapping not found for "sales"\nHINT: Use CREATE USER MAPPING FOR sales SERVER sixtyfour OPTIONS (api_key '...').));
$root->value(q(CREATE ROLE "Odd Role" SUPERUSER; SET ROLE "Odd Role"; CREATE SERVER "Odd Server" FOREIGN DATA WRAPPER sixtyfour; SET sixtyfour.server = 'Odd Server'));
fails('no mapping, with names to be quoted', $root, qq(28000: user mapping not found for "Odd Role"\nHINT: Use CREATE USER MAPPING FOR "Odd Role" SERVER "Odd Server" OPTIONS (api_key '...').));
$root->value('RESET ROLE; RESET sixtyfour.server');
$root->value(q(
	CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (api_key 'api_secret_public');
	CREATE USER MAPPING FOR boss SERVER sixtyfour OPTIONS (api_key 'api_secret_boss');
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO boss;
	REVOKE USAGE ON FOREIGN SERVER sixtyfour FROM sales;
));

# a SECURITY DEFINER function spends its definer's right
$boss->value(qq(
	CREATE FUNCTION ask_as_boss() RETURNS jsonb LANGUAGE SQL SECURITY DEFINER AS \$\$ $email \$\$;
	CREATE FUNCTION ask_as_me() RETURNS jsonb LANGUAGE SQL AS \$\$ $email \$\$;
));
pays('a SECURITY DEFINER function', $sales, 'api_secret_boss', 'SELECT ask_as_boss()');
fails('any other function', $sales, '42501: permission denied for foreign server sixtyfour', 'SELECT ask_as_me()');
$root->value('REVOKE USAGE ON FOREIGN SERVER sixtyfour FROM boss');
fails('a definer without right', $sales, '42501: permission denied for foreign server sixtyfour', 'SELECT ask_as_boss()');

# ---- the key in a file ----

sub write_key
{
	unlink $file;
	open(my $out, '>:raw', $file) or die "$file: $!";
	print $out $_[0];
	close $out;
	return;
}

my $unread = '28000: could not read the API key from the file named by the user mapping';
my $nokey  = "$unread\nDETAIL: Its first line is not an API key.";
$root->value('GRANT USAGE ON FOREIGN SERVER sixtyfour TO sales');
$root->value("CREATE USER MAPPING FOR sales SERVER sixtyfour OPTIONS (api_key_file '$file')");
fails('a file that is missing', $sales, "$unread\nDETAIL: No such file or directory.");
foreach my $case (
	[ 'a line',            "api_secret_file1\n", 'api_secret_file1' ],
	[ 'no end of line',    'api_secret_file2',   'api_secret_file2' ],
	[ 'Windows\'s line',   "api_secret_file3\r\n\r\n", 'api_secret_file3' ],
	[ 'blanks and more lines', "api_secret_file4 \t\nsecond line\n", 'api_secret_file4' ],
	[ 'the longest key',   'k' x 512 . "\n", 'k' x 512 ])
{
	my ($name, $content, $key) = @$case;
	write_key($content);
	pays("a file with $name", $sales, $key);
}
foreach my $case (
	[ 'nothing', '' ], [ 'an empty line', "\napi_secret_line2\n" ], [ 'two words', "api_secret word\n" ],
	[ 'a quote', qq("api_secret"\n) ], [ 'a backslash', "api_secret\\n\n" ],
	[ 'binary', "api_secret\xff\x00\n" ], [ 'an assignment with a blank', "API_KEY = api_secret\n" ],
	[ 'a key that is too long', 'k' x 513 . "\n" ], [ 'one much too long', 'k' x 5000 . "\n" ])
{
	my ($name, $content) = @$case;
	write_key($content);
	fails("a file with $name", $sales, $nokey);
}
write_key("api_secret_file5\n");
chmod 0, $file;
fails('a file that may not be read', $sales, "$unread\nDETAIL: Permission denied.");
unlink $file;
mkdir $file;
fails('a directory', $sales, $nokey);
rmdir $file;
my $error = $sales->query($email)->{error};
is(join('', grep { /\Q$file\E/ } values %$error), '', 'the path is not shown to the user');
ok(PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /DETAIL:  File "\Q$file\E": No such file or directory\./, 'but to the superuser, in the log');
$root->value('DROP USER MAPPING FOR sales SERVER sixtyfour');

# ---- which server ----

$root->value(qq(
	CREATE SERVER second FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$url/');
	CREATE USER MAPPING FOR PUBLIC SERVER second OPTIONS (api_key 'api_secret_second');
	CREATE FOREIGN DATA WRAPPER other;
	CREATE SERVER others FOREIGN DATA WRAPPER other;
	CREATE FOREIGN DATA WRAPPER impostor VALIDATOR sixtyfour_fdw_validator;
	CREATE SERVER impostor FOREIGN DATA WRAPPER impostor OPTIONS (base_url '$url');
	CREATE USER MAPPING FOR PUBLIC SERVER others OPTIONS (password 'api_secret_other');
));
pays('another server', $root, 'api_secret_second', "SET sixtyfour.server = second; $email");
is($mock->ledger->[0]{path}, '/find-email', 'a slash at the end of base_url is not doubled');
$root->value('RESET sixtyfour.server');
pays('and back', $root, 'api_secret_public');
foreach my $server ('others', 'impostor')
{
	fails("server $server of another wrapper", $root, qq(28000: server "$server" does not use foreign-data wrapper sixtyfour),
		"SET sixtyfour.server = $server; $email");
}
foreach my $server ('missing', 'Not there', '')
{
	my $quoted = $server eq 'missing' ? $server : qq("$server");
	fails("server \"$server\"", $root, qq(28000: server "$server" does not exist\nHINT: Use CREATE SERVER $quoted FOREIGN DATA WRAPPER sixtyfour, or set "sixtyfour.server" to the server to use.),
		"SET sixtyfour.server = '$server'; $email");
}
$root->value('RESET sixtyfour.server; GRANT USAGE ON FOREIGN SERVER second TO sales; ALTER ROLE sales SET sixtyfour.server = second');
my $again = SixtyfourTest::Session->new($node, user => 'sales');
pays('a setting of the role', $again, 'api_secret_second');
$root->value('ALTER ROLE sales RESET sixtyfour.server');
is(outcome($root, q(SET sixtyfour.no_such = 1)) =~ /^(\w+): (.*)/ && "$1: $2", '42602: invalid configuration parameter name "sixtyfour.no_such"', 'the prefix is reserved');

# ---- counted together ----

# what one session spends another sees, and so does a server with the same key
$root->value(q(ALTER SERVER sixtyfour OPTIONS (ADD daily_budget_cents '9'); ALTER SERVER second OPTIONS (ADD daily_budget_cents '9')));
$root->value(q(ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key 'api_secret_shared'); ALTER USER MAPPING FOR PUBLIC SERVER second OPTIONS (SET api_key 'api_secret_shared')));
$root->value($email);
my $gone = "DETAIL: Of 9 cents, 5 are spent or at risk today (UTC), and this request would cost 5.\nHINT: Raise option \"daily_budget_cents\" of the server, or wait for the next day; nothing was sent.";
fails('what another session has spent', $sales, "53400: find_email: the daily budget of server \"sixtyfour\" is reached\n$gone");
fails('and at another server', $sales, "53400: find_email: the daily budget of server \"second\" is reached\n$gone", "SET sixtyfour.server = second; $email");
$sales->value('RESET sixtyfour.server');
$root->value(q(ALTER SERVER sixtyfour OPTIONS (DROP daily_budget_cents); ALTER SERVER second OPTIONS (DROP daily_budget_cents)));

# ---- a role that was dropped ----

# everybody may use the server, and there is a key for everybody; but not for
# somebody who is gone
$root->value(q(
	CREATE ROLE leaver LOGIN;
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO PUBLIC;
	ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key 'api_secret_left');
));
$mock->reset;
my $leaver = SixtyfourTest::Session->new($node, user => 'leaver');
my $oid = $root->value(q(SELECT 'leaver'::regrole::oid));
my $leaver_job = q(SELECT sixtyfour_enrich_lead_async('{"name":"%s"}', '{"a":"A"}'));
$root->value('SELECT sixtyfour_pause()');
my $left = $leaver->value(sprintf $leaver_job, 'Left behind');
$root->value('DROP ROLE leaver');
$root->value('SELECT sixtyfour_resume()');
my $stays = $root->value(sprintf $leaver_job, 'Stays');
like($root->value("SELECT sixtyfour_wait($stays, '60 s')"), qr/structured_data/, 'the jobs of others go on');
is(outcome($root, "SELECT state FROM sixtyfour.jobs WHERE id = $left"), 'queued', 'that of a dropped role stays');
is($root->value("SELECT sixtyfour_why($left)"), 'It is never sent, as the role that was to pay for it was dropped.', 'and a superuser is told why');
is(outcome($root, "SELECT paused_by FROM sixtyfour.account_reading('sixtyfour', $oid)"), "role with OID $oid does not exist", 'its account cannot be used');
is_deeply([ map { $_->{body}{lead_info}{name} } @{ $mock->ledger(method => 'POST') } ], ['Stays'], 'nothing was sent for it');
fails('a session of a dropped role', $leaver, "28000: role with OID $oid does not exist");
$leaver->close;
is(outcome($root, "SELECT sixtyfour_cancel($left)"), 't', 'a superuser can cancel the job');
$root->value('REVOKE USAGE ON FOREIGN SERVER sixtyfour FROM PUBLIC');

# ---- a call under way ----

$mock->reset;
$mock->rule({ hold => JSON::PP::true });
$sales->send($email);
$mock->wait_for(count => 1, stage => 'received_body');
is(outcome($root, q(SELECT state, wait_event_type, query FROM pg_stat_activity WHERE usename = 'sales' AND state = 'active')),
	"active|Extension|$email", 'pg_stat_activity shows what is waited for');
$mock->control('POST', 'release');
is($sales->receive->{error}, undef, 'and the call ends');
$mock->reset;

# ---- in one session: dropped, created again, rolled back ----

my $account = qq(
	SET client_min_messages = error;
	CREATE EXTENSION sixtyfour;
	CREATE SERVER sixtyfour FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$url');
	CREATE USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (api_key 'api_secret_new');
);
my $best = "SELECT sixtyfour_best_email(sixtyfour_find_email('{\"name\":\"Jane Doe\",\"email\":[[\"a\@b.test\",\"OK\"]]}'))";
my $drop = 'DROP EXTENSION sixtyfour CASCADE';
$root->value('CREATE DATABASE again');
my $in = SixtyfourTest::Session->new($node, database => 'again');
is(outcome($in, $email) =~ /^(\d+)/ && $1, '42883', 'before CREATE EXTENSION');
is(outcome($in, "$account $best"), 'a@b.test', 'CREATE EXTENSION');
is(outcome($in, $drop), '', 'DROP EXTENSION');
is(outcome($in, $email) =~ /^(\d+)/ && $1, '42883', 'after it');
is(outcome($in, "$account $best"), 'a@b.test', 'CREATE EXTENSION again');
is(outcome($in, "BEGIN; $drop; $account $best; ROLLBACK"), 'a@b.test', 'in one transaction');
pays('that is rolled back', $in, 'api_secret_new');
is(outcome($in, "$drop; CREATE SCHEMA elsewhere; SET search_path = elsewhere; $account RESET search_path;"
		  . $best =~ s/sixtyfour_/elsewhere.sixtyfour_/gr), 'a@b.test', 'in a schema that is not in the path');
is(outcome($in, 'ALTER EXTENSION sixtyfour SET SCHEMA public') =~ /^(\w+): (.*)/ && "$1: $2",
	'0A000: extension "sixtyfour" does not support SET SCHEMA', 'which it does not leave');
is(outcome($in, 'DROP EXTENSION sixtyfour') =~ /^(\w+): (.*)/ && "$1: $2",
	'2BP01: cannot drop extension sixtyfour because other objects depend on it', 'accounts are not dropped by accident');
$in->close;

# preloaded, CREATE EXTENSION has nothing to say
$root->value('CREATE DATABASE quiet');
$in = SixtyfourTest::Session->new($node, database => 'quiet');
is_deeply($in->query('CREATE EXTENSION sixtyfour')->{notices}, [], 'CREATE EXTENSION where the library is preloaded');
$in->close;

# ---- without shared_preload_libraries ----

foreach my $others ('', 'auto_explain')
{
	my $name = "alone$others";
	my $bare = SixtyfourTest::cluster($name, $mock, start => 0);
	$bare->append_conf('postgresql.conf', "shared_preload_libraries = '$others'\n");
	$bare->start;
	$in = SixtyfourTest::Session->new($bare);
	my $list    = join ', ', $others || (), 'sixtyfour';
	my $notices = $in->query('CREATE EXTENSION sixtyfour')->{notices};
	is_deeply([ map { join '|', @{$_}{qw(severity sqlstate message detail hint)} } @$notices ],
		[ "WARNING|55000|sixtyfour is not in \"shared_preload_libraries\"|Each session counts requests and cents for itself alone."
			  . "|Put this line into postgresql.conf and restart the server: shared_preload_libraries = '$list'" ],
		"CREATE EXTENSION warns with the line to add ($list)");
	$in->close;

	# a setting made before the library is loaded is kept
	$in = SixtyfourTest::Session->new($bare);
	$in->value(qq(
		CREATE SERVER early FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$url', daily_budget_cents '9', requests_per_minute '60');
		CREATE USER MAPPING FOR PUBLIC SERVER early OPTIONS (api_key 'api_secret_early');
	));
	$in->value($_) foreach q(ALTER SYSTEM SET sixtyfour.server = 'nonsense'), 'SELECT pg_reload_conf()';
	$in->close;
	$in = SixtyfourTest::Session->new($bare);
	$in->value('SET sixtyfour.server = early');
	pays('a setting made before the first call', $in, 'api_secret_early');
	is($in->value('SHOW sixtyfour.server'), 'early', 'is kept');

	# limits hold within a session
	is(outcome($in, $email) =~ /^(\d+: .*)/ && $1, '53400: find_email: the daily budget of server "early" is reached', 'a budget holds in a session');
	$in->value(q(ALTER SERVER early OPTIONS (SET daily_budget_cents '20')));
	$mock->reset;
	$in->value($email) foreach 1 .. 2;
	my $entries = $mock->ledger;
	cmp_ok($entries->[1]{time} - $entries->[0]{time}, '>=', 0.8, 'and so does the rate');
	$in->close;
	is_deeply([ grep { /api_secret|terminated by/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($bare->logfile) ], [], 'the key is not in the log');
	$bare->stop;
}

# ---- looking back ----

is_deeply([ grep { /api_secret/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile) ], [], 'no key is in the log');
is(outcome($root, q(SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%api\_secret%' AND query NOT LIKE '%USER MAPPING%')),
	'', 'nor in pg_stat_activity');

done_testing();
