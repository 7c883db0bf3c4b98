# docs/reference.md: its signatures are those of the functions that there are,
# and its examples run and give what it shows; README.md: likewise, where it
# shows a result.
#
# An example is a block of SQL, its result the block without a language that
# follows at once.  Each example is a session of psql.  In a result, "…" stands
# for what is different each time, spaces at the ends of lines, blank lines and
# results of type void count for nothing, and psql's footers are off.  A result
# without a line of dashes is as of psql -At.  An example after a comment
# <!-- mock: {...} --> meets a service that follows this rule of the mock.
use strict;
use warnings FATAL => 'all';

use File::Basename;
use IPC::Run;
use JSON::PP;
use Test::More;

use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('reference', $mock, route => 'auto',
	server => "requests_per_minute '0'", conf => "timezone = 'UTC'\n");
my $top = dirname(__FILE__) . '/../..';

sub text_of { my ($file) = @_; return slurp_file("$top/$file"); }

# The blocks of a text, each with its language and text, and an example with its
# result and the rule of the mock before it
sub blocks
{
	my ($text) = @_;
	my @blocks;
	my $end = 0;

	while ($text =~ /^(?:<!-- mock: (?<rule>.*?) -->\n+)?```(?<language>\w*)\n(?<text>.*?)^```$/msg)
	{
		my %block   = %+;
		my $between = substr $text, $end, $-[0] - $end;
		if ($block{language} eq '' && $between =~ /^\s*\z/ && @blocks && $blocks[-1]{language} eq 'sql')
		{
			$blocks[-1]{result} = $block{text};
		}
		else
		{
			push @blocks, \%block;
		}
		$end = $+[0];
	}
	return @blocks;
}

# ---- signatures ----

# The signatures that a text lists, by name.  "…" is the arguments of the line
# before.
sub listed
{
	my (@blocks) = @_;
	my (%listed, $arguments);

	foreach my $line (map { split /\n/, $_->{text} } grep { $_->{language} eq '' } @blocks)
	{
		next unless $line =~ /^(sixtyfour_\w+)\((.*)\) → (.+)$/;
		my ($name, $own, $result) = ($1, $2, $3);
		$own =~ s/…/$arguments/;
		$arguments = $own unless $line =~ /…/;
		push @{ $listed{$name} }, "$name($own) → $result";
	}
	return \%listed;
}

# Those that there are, as psql's \df shows them, but for casts of defaults
sub existing
{
	my %existing;
	my $rows = $node->safe_psql('postgres', q{
		SELECT p.proname, p.proname || '(' || pg_get_function_arguments(p.oid) || ') → ' || pg_get_function_result(p.oid)
		FROM pg_extension e JOIN pg_depend d ON d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass
			JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
		WHERE e.extname = 'sixtyfour' AND p.pronamespace = e.extnamespace ORDER BY 1});

	foreach my $row (split /\n/, $rows)
	{
		my ($name, $signature) = split /\|/, $row, 2;
		$signature =~ s/timestamp with time zone/timestamptz/g;
		$signature =~ s/::[a-z ]+(?:\[\])?(?=[,)])//g;
		push @{ $existing{$name} }, $signature;
	}
	return \%existing;
}

my @examples = blocks(text_of('docs/reference.md'));
my $existing = existing();
my $listed   = listed(@examples);

subtest 'every function has its signature' => sub {
	foreach my $name (sort keys %$existing)
	{
		is(join("\n", sort @{ $listed->{$name} // [] }), join("\n", sort @{ $existing->{$name} }),
			"docs/reference.md has $name as it is");
	}
};

foreach my $file (qw(docs/reference.md README.md docs/operations.md))
{
	my %named = map { $_ => 1 } text_of($file) =~ /\b(sixtyfour_\w+)/g;
	is(join(' ', grep { !$existing->{$_} } sort keys %named), '', "$file names no function that there is not");
}

# ---- examples ----

sub tidy
{
	my ($text) = @_;
	$text =~ s/^ sixtyfour_\w+ *\n-+\n *\n//mg;		# void
	$text =~ s/ +$//mg;
	$text =~ s/^\n//mg;
	return $text;
}

sub run_example
{
	my ($database, $example) = @_;
	my $aligned = $example->{result} =~ /^-[-+]*$/m;
	my $said = '';
	local $ENV{PGOPTIONS} = '-c client_min_messages=warning';

	$mock->rule(JSON::PP::decode_json($example->{rule})) if $example->{rule};
	IPC::Run::run([ 'psql', '-X', $aligned ? '-q' : '-qAt', '-P', 'footer=off', '-d', $node->connstr($database) ],
		'<', \$example->{text}, '>&', \$said);
	$mock->clear_rules;
	return tidy($said);
}

# Run each example of a file that has a result, and compare.
sub check
{
	my ($file, $database, @examples) = @_;

	foreach my $example (grep { defined $_->{result} } @examples)
	{
		my $name   = "$file: " . $example->{text} =~ s/\n.*//sr;
		my $got    = run_example($database, $example);
		my $wanted = tidy($example->{result});
		my $like   = join '.*?', map { quotemeta } split /…/, $wanted, -1;

		ok($got =~ /\A$like\z/, $name) or diag("got:\n${got}instead of:\n$wanted");
	}
	return;
}

# Equal requests have equal answers.
$mock->settings({ quirks => 'none', found => 'all', email_shape => '3', phone_shape => 'text', search_rows => 3 });

is(join('', map { $_->{text} } grep { $_->{language} eq 'sql' && !defined $_->{result} } @examples), '',
	'every example of docs/reference.md has a result');
{
	my $all = join "\n", map { $_->{text} } grep { $_->{language} eq 'sql' } @examples;
	my @names = grep { !/_async$/ } sort keys %$existing;
	is(join(' ', grep { $all !~ /\b$_(?:(?:_bulk)?_async)?\b/ } @names), '', 'every function, or its twin that queues, has an example');
}
check('docs/reference.md', 'postgres', @examples);
is($node->safe_psql('postgres', 'SELECT count(*) FROM sixtyfour.attention'), 0, 'nothing is left to be decided');

# Of README.md what stands for itself: the beginning, and how to ask
$node->safe_psql('postgres', 'CREATE DATABASE readme');
SixtyfourTest::install($node, 'readme', $mock, server => "requests_per_minute '0'");
$node->safe_psql('readme', q{CREATE TABLE people (name text, company text, title text);
	INSERT INTO people VALUES ('Jane Doe', 'Acme', 'CEO'), ('John Roe', 'Globex', NULL), ('Nobody Known', 'Initech', NULL)});
check('README.md', 'readme', map { blocks($_) } grep { !/^## (?!Asking)/ } split /^(?=## )/m, text_of('README.md'));

done_testing();
