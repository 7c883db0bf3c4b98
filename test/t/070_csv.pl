# CSV texts beyond what a regression test can do: large ones, other encodings,
# and the way to the service and back.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

use SixtyfourTest;

my $json = JSON::PP->new->canonical->utf8->allow_nonref;
my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('csv', $mock, server => "requests_per_minute '0'");
my $session = SixtyfourTest::Session->new($node);
my $MB      = 1024 * 1024;

$mock->settings({ quirks => 'none', found => 'all', email_shape => '3',
		phone_shape => 'text' });

# The rows of a statement that works, each as a line of fields; or its error
sub rows
{
	my ($sql, $in) = @_;
	my $reply = ($in // $session)->query($sql);
	return "$reply->{error}{sqlstate}: $reply->{error}{message} ($reply->{error}{context})"
	  if $reply->{error};
	return join "\n",
	  map { join '|', map { $_ // 'NULL' } @$_ } @{ $reply->{rows} };
}

# ---- from a table to the service and back ----

rows(q(CREATE TABLE people (id int PRIMARY KEY, name text, company text, phone text, seen date);
	INSERT INTO people VALUES (1, 'Jane Doe', 'Acme, Inc.'), (2, 'Zoë "Z" Müller', E'two\nlines'), (3, 'Ada', NULL)));
is(rows(q(SELECT r->>'id', r->>'name', r->>'company', r->>'phone' ~ '^\+' FROM
		sixtyfour_dataframe_rows(sixtyfour_enrich_dataframe(sixtyfour_csv('SELECT id, name, company FROM people ORDER BY id'), 'phone')) r)),
	qq(1|Jane Doe|Acme, Inc.|t\n2|Zoë "Z" Müller|two\nlines|t\n3|Ada|NULL|t), 'a dataframe goes there and comes back as rows');
is($json->encode($mock->ledger->[0]{body}),
	$json->encode($json->decode(q({"enrichment_type":"phone","csv_data":"id,name,company\n1,Jane Doe,\"Acme, Inc.\"\n2,\"Zoë \"\"Z\"\" Müller\",\"two\nlines\"\n3,Ada,\n"}))),
	'as CSV that others can read');
is(rows(q(WITH answer AS MATERIALIZED (SELECT sixtyfour_enrich_dataframe(sixtyfour_csv('SELECT id, name FROM people'), 'phone') AS a),
		done AS (UPDATE people SET phone = (found).phone FROM answer, sixtyfour_dataframe_rows(a) r, sixtyfour_populate(NULL::people, r) found
			WHERE people.id = (found).id RETURNING people.phone)
		SELECT count(*), count(DISTINCT phone) FROM done)), '3|3', 'and by populate into the table');

$mock->settings({ quirks => 'all' });
rows(q(CREATE TABLE leads (id int PRIMARY KEY, title text, num_reports int, score float8, is_founder boolean, skills text[], years int[], more jsonb);
	COMMENT ON COLUMN leads.title IS 'Current job title'));
is(rows(q(SELECT title <> '', num_reports >= 0, score >= 0, is_founder IS NOT NULL, cardinality(skills) > 0, cardinality(years) > 0, jsonb_typeof(more)
		FROM sixtyfour_populate(NULL::leads, sixtyfour_enrich_lead('{"name":"Jane Doe","company":"Acme"}', sixtyfour_struct('leads'))))),
	't|t|t|t|t|t|object', 'a table asks, and takes the answer in the forms that it comes in');
is($json->encode($mock->ledger->[-1]{body}{struct}{title}), '{"description":"Current job title","type":"str"}', 'with its comments');
$mock->settings({ quirks => 'none' });

SKIP:
{
	skip 'no hstore', 2
	  if rows('CREATE EXTENSION hstore') ne '';
	rows('CREATE TABLE facts (f hstore, d text)');
	is(rows(q(SELECT sixtyfour_struct('facts')->'f'->>'type')), 'dict', 'hstore is a dict');
	is(rows(q(SELECT f->'a', f->'b"\\', f->'c', f ? 'd', f->'d', f->'e', f->'f' FROM (VALUES
			('{"a":1.50,"b\"\\\\":"x\"\\\\y","c":true,"d":null,"e":["x"],"f":{"k":"v"}}'), ('"{''a'': ''x'', ''c'': None}"'), ('{}'), ('""')) v (given),
			LATERAL sixtyfour_populate(NULL::facts, format('{"f":%s}', given)::jsonb) p)),
		qq(1.50|x"\\y|true|t|NULL|["x"]|{"k": "v"}\nx|NULL|NULL|f|NULL|NULL|NULL\nNULL|NULL|NULL|f|NULL|NULL|NULL\nNULL|NULL|NULL|NULL|NULL|NULL|NULL),
		'and is made of one');
}

# ---- other encodings ----

foreach my $charset (qw(LATIN1 SQL_ASCII))
{
	my $database = lc $charset;
	rows("CREATE DATABASE $database TEMPLATE template0 ENCODING '$charset' LC_COLLATE 'C' LC_CTYPE 'C'");
	SixtyfourTest::install($node, $database, $mock, server => "requests_per_minute '0'");
	my $in = SixtyfourTest::Session->new($node, database => $database);
	my $bytes = $charset eq 'LATIN1' ? 4 : 5;

	rows(q(SET client_encoding = 'UTF8'), $in) unless $charset eq 'SQL_ASCII';
	is(rows(q(SELECT r->>'größe', octet_length(r->>'größe') FROM sixtyfour_csv_rows('\xefbbbf'::bytea || '\x6772c3b6c39f650a'::bytea || '\x5a6fc3ab210a'::bytea) r), $in),
		"Zoë!|$bytes", "$charset: bytes are UTF-8");
	is(rows(q(SELECT r->>'größe', octet_length(r->>'größe') FROM sixtyfour_csv_rows(E'größe\nZoë!\n') r), $in),
		"Zoë!|$bytes", "$charset: a text is in the database's encoding");
	is(rows(q(SELECT r->>'ö' FROM sixtyfour_csv_rows(sixtyfour_csv('SELECT ''"Zoë",'' AS "ö"')) r), $in), '"Zoë",', "$charset: there and back");
	is(rows(q(SELECT r->>'name' FROM sixtyfour_dataframe_rows(sixtyfour_enrich_dataframe(sixtyfour_csv('SELECT ''Zoë''::text AS name'), 'phone')) r), $in),
		'Zoë', "$charset: by way of the service");
	like(rows(q(SELECT * FROM sixtyfour_csv_rows('a\0121\012\377'::bytea)), $in),
		qr/^08P01: invalid byte sequence for encoding "UTF8": 0xff \(CSV line 3\)$/, "$charset: what is no UTF-8");
	next if $charset eq 'SQL_ASCII';
	like(rows(q(SELECT * FROM sixtyfour_csv_rows('\x610a0a310a22e697a5220a'::bytea)), $in),
		qr/^08P01: character with byte sequence 0xe6 0x97 0xa5 in encoding "UTF8" has no equivalent in encoding "LATIN1" \(CSV line 4\)$/,
		"$charset: what it has no characters for");
}

# ---- volume ----

# The outcome of a statement, and the most memory that a session of its own has
# had for it, in MB
sub peak
{
	my ($sql) = @_;
	my $fresh = SixtyfourTest::Session->new($node);
	my $value = rows($sql, $fresh);
	my ($peak) = slurp_file('/proc/' . $fresh->pid . '/status') =~ /^VmHWM:\s+(\d+) kB/m;

	$fresh->close;
	return ($value, $peak / 1024);
}

SKIP:
{
	skip 'no /proc', 4 unless -r "/proc/$$/status";
	my $size   = SixtyfourTest::slow() ? 5 : 200;
	my $record = qq(Jane Doe,"Acme, ""Inc.""","two\nlines, and more of them",\n);
	my $count  = int($size * $MB / length $record);
	my $file   = $node->data_dir . '/large.csv';

	# its last line is a fault, which is found when all others were read
	open(my $out, '>', $file) or die "$file: $!";
	print $out "name,company,note,nothing\n";
	print $out $record x 1000 foreach 1 .. $count / 1000;
	print $out $record x ($count % 1000), "Jane\n";
	close $out or die "$file: $!";

	my (undef, $base) = peak("SELECT octet_length(pg_read_binary_file('large.csv'))");
	my ($found, $peak) = peak("SELECT count(*) FROM sixtyfour_csv_rows(pg_read_binary_file('large.csv'))");
	is($found, "08P01: line ${\(2 * $count + 2)} of the CSV text has 1 field instead of 4 ()", "a text of $size MB is read to its last line");
	cmp_ok($peak - $base, '<', 24, "with little more memory than it has itself ($base MB)");
	unlink $file;

	(undef, $base) = peak('SELECT 1');
	(my $made, $peak) = peak("SELECT length(sixtyfour_csv('SELECT i, repeat(''a \"text\"'', 100) AS t, NULL AS n FROM generate_series(1, $size * 500) i'))");
	cmp_ok($made, '>', $size * 0.5 * 1000000, 'a query makes a large text');
	cmp_ok($peak - $base, '<', $made / $MB + 24, 'with little more memory than it has');
}

SKIP:
{
	my ($free) = -r '/proc/meminfo' ? slurp_file('/proc/meminfo') =~ /^MemAvailable:\s+(\d+) kB/m : ();
	skip 'too little memory', 1 if SixtyfourTest::slow() || ($free // 0) < 4 * $MB;
	like(rows(q(SELECT length(sixtyfour_csv('SELECT repeat(''x'', 20000000) AS x FROM generate_series(1, 60)')))),
		qr/^54000: CSV text of the query would be larger than 1 GB/, 'a text of more than 1 GB is refused');
}

done_testing();
