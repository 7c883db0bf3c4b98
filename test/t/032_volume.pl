# Many rows, from the table to the service and back.  The mock's ledger is the
# witness.
use strict;
use warnings FATAL => 'all';

use Test::More;

use SixtyfourTest;

my ($inserted, $bulk) = SixtyfourTest::slow() ? (50, 150) : (500, 5000);
my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('volume', $mock, server => "requests_per_minute '0'");
my $session = SixtyfourTest::Session->new($node);

$mock->settings({ quirks => 'none', found => 'all', email_shape => '3' });
$session->value(q(CREATE TABLE lead (id int PRIMARY KEY, name text, company text, email text)));
$session->value(q(SELECT sixtyfour_create_enrichment('emails', 'lead', 'find_email',
	'{"name": "name", "company": "company"}', '{"email": "$.email[0][0]"}')));

sub insert
{
	my ($first, $last) = @_;
	$session->value("INSERT INTO lead SELECT i, 'Person ' || i, 'Acme ' || i FROM generate_series($first, $last) i");
	return;
}

# Every lead that was asked for, and how often
sub asked
{
	my %asked;
	foreach my $entry (@{ $mock->ledger(path => '/find-email*', accepted => 1) })
	{
		$asked{ $_->{name} }++ foreach @{ $entry->{body}{leads} // [ $entry->{body}{lead} ] };
	}
	return %asked;
}

sub check
{
	my ($what, $rows, $most) = @_;
	my %asked = asked();
	my $requests = @{ $mock->ledger(path => '/find-email*', accepted => 1) };

	is($session->value('SELECT count(email) FROM lead'), $rows, "$what: each row has its answer");
	is($session->value(q(SELECT count(*) FROM lead WHERE email NOT LIKE 'person.' || id || '@%')), 0, 'its own');
	is(scalar keys %asked, $rows, 'each was asked for');
	is(scalar(grep { $_ != 1 } values %asked), 0, 'once');
	cmp_ok($requests, '<=', $most, 'many travelled together');
	is($session->value("SELECT sum(cents) FROM sixtyfour.calls"), $mock->summary->{billed_cents}, 'our books are the service\'s');
	return;
}

# an INSERT that is taken back asks nothing
$session->value('BEGIN');
insert(1, $inserted);
$session->value('ROLLBACK');

# nor does a row that is too large to be asked about, which is none of the INSERT's business
my $large = $session->query(q(INSERT INTO lead VALUES (0, repeat('x', 1100000), 'Acme')));
is($large->{error}, undef, 'a row with a large value is let in');
is($large->{notices}[0]{message}, 'enrichment "emails" leaves out 1 row, whose input is too large to be sent', 'with a warning');
is($session->value(q(SELECT sixtyfour_run_enrichment('emails'))), 0, 'nor is it found later');
my $error = $session->query(q(SELECT sixtyfour_find_email_async(jsonb_build_object('name', repeat('x', 1100000)))))->{error};
is("$error->{sqlstate} $error->{message}", '54000 the request of a job is too large', 'asked for alone it is refused');
$session->value('DELETE FROM lead');
is($session->value('SELECT count(*) FROM sixtyfour.jobs'), 0, 'and nothing is queued');

# who waits with an older snapshot sees the end, too
my $older = SixtyfourTest::Session->new($node);
$older->value('BEGIN ISOLATION LEVEL REPEATABLE READ');
$older->value('SELECT count(*) FROM sixtyfour.jobs');
insert(1, $inserted);
$older->value(q(SELECT sixtyfour_wait_enrichment('emails', '120 s')));
is($session->value(q(SELECT count(*) FROM sixtyfour.jobs WHERE state <> 'succeeded' OR delivery <> 'applied')), 0,
	'REPEATABLE READ: a wait lasts until all is done');
is($older->value('SELECT count(*) FROM sixtyfour.jobs'), 0, 'REPEATABLE READ: which the views do not show');
$older->close;
$session->value(q(SELECT sixtyfour_wait_enrichment('emails', '120 s')));
check("$inserted rows by trigger", $inserted, 5 + $inserted / 50);

# a whole table, some of which is enriched already
$session->value('ALTER TABLE lead DISABLE TRIGGER USER');
insert($inserted + 1, $inserted + $bulk);
is($session->value(q(SELECT sixtyfour_run_enrichment('emails'))), $bulk, 'what is not enriched yet is queued');
is($session->value(q(SELECT sixtyfour_run_enrichment('emails'))), 0, 'once');
$session->value(q(SELECT sixtyfour_wait_enrichment('emails', '120 s')));
check("$bulk rows in bulk", $inserted + $bulk, 10 + ($inserted + $bulk) / 50);

is_deeply($mock->summary->{duplicates}, {}, 'nothing was bought twice');
done_testing();
