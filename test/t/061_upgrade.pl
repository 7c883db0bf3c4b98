# An upgrade with jobs in flight, in every order: library first, extension first,
# and a library that is put back.  Where the two disagree nothing is done, and it
# is said what is to be done; afterwards all goes on.  The mock's ledger is the
# witness that nothing is asked twice.
#
# The next version is made here: control file and update script as CONTRIBUTING.md
# asks for them, and a full script, which must come to the same.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $source = $ENV{TESTDIR};
my ($old)  = slurp_file("$source/sixtyfour.control") =~ /^default_version = '([\d.]+)'/m;
my $new    = $old =~ s/(\d+)$/$1 + 1/er;
my $temp   = PostgreSQL::Test::Utils::tempdir();
my ($sharedir) = run_command([ 'pg_config', '--sharedir' ]);
my $scripts    = "$sharedir/extension";
my %files      = ($old => "$source/inst", $new => "$temp/new");	# an installation of each

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good,api_A,api_B,api_C');

# tasks run until finish()
$mock->settings({ quirks => 'none', found => 'all', task_seconds => undef });

# ---- the next version ----

# What changes, as update script and in the full one
my $functions = <<'SQL';

CREATE FUNCTION @extschema@.sixtyfour_labelled(label text) RETURNS bigint
	LANGUAGE SQL STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT count(*) FROM sixtyfour.job j WHERE j.label = sixtyfour_labelled.label;
END;
COMMENT ON FUNCTION @extschema@.sixtyfour_labelled(text) IS
'how many jobs have a label';
SQL
my $in_library = <<'SQL';

CREATE FUNCTION @extschema@.sixtyfour_library() RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_library() IS
'the version of the library';
SQL

sub write_file
{
	my ($path, $text) = @_;
	open(my $file, '>', $path) or die "$path: $!";
	print $file $text;
	close $file;
	return;
}

# A part of the text, which must be there once, becomes another.
sub edited
{
	my ($text, $part, $other) = @_;
	is(scalar(() = $text =~ /\Q$part/g), 1, 'what is to be changed is there once') or die $part;
	return $text =~ s/\Q$part/$other/r;
}

# The full script of the new version: a column, and a view that shows it
sub full_script
{
	my $text = slurp_file("$source/sixtyfour--$old.sql");

	$text = edited($text, "-- where the rows go that its answer speaks of\n)",
		"-- where the rows go that its answer speaks of\n\t, label text NOT NULL DEFAULT ''\n)");
	return edited($text, "\n\tFROM sixtyfour.job\n", ", label\n\tFROM sixtyfour.job\n") . $functions;
}

sub update_script
{
	my ($full) = @_;
	my ($view) = $full =~ /^(CREATE VIEW sixtyfour\.jobs .*?;\n)/ms;

	return "\\echo Use \"ALTER EXTENSION sixtyfour UPDATE\" to load this file. \\quit\n"
	  . "SET LOCAL search_path TO pg_catalog, pg_temp;\n"
	  . "ALTER TABLE sixtyfour.job ADD COLUMN label text NOT NULL DEFAULT '';\n"
	  . $view =~ s/CREATE VIEW/CREATE OR REPLACE VIEW/r . $functions;
}

# Build and install it in a folder of its own.
sub make_new_version
{
	my $tree = "$temp/tree";
	my @make = ('make', '-s', '-C', $tree, 'PG_CONFIG=pg_config', 'with_llvm=no');

	mkdir $tree;
	system_or_bail('sh', '-c', "tar cf - -C '$source' Makefile src sixtyfour.control \$(cd '$source' && ls sixtyfour--*.sql) | tar xf - -C '$tree'");
	my $full = full_script();
	write_file("$tree/sixtyfour--$new.sql", $full . $in_library);
	write_file("$tree/sixtyfour--$old--$new.sql", update_script($full) . $in_library);
	write_file("$tree/sixtyfour.control", slurp_file("$source/sixtyfour.control") =~ s/'\Q$old\E'/'$new'/r);
	append_to_file("$tree/src/accounts.c", qq{
#include "fmgr.h"
#include "utils/builtins.h"
S64_FUNCTION(sixtyfour_library);
Datum
sixtyfour_library(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(S64_VERSION));
}
});
	system_or_bail(@make);
	system_or_bail(@make, 'install', "DESTDIR=$files{$new}");
	return;
}

# ---- clusters with files of their own ----

# The files of a version in the place of another's, as a package would put them
# there: a server that runs keeps the library that it has loaded.
sub put
{
	my ($node, $version) = @_;
	my $root = $node->{sixtyfour_files};

	mkdir $root;
	unlink glob "$root$scripts/sixtyfour*";
	system_or_bail('cp', '-r', '--remove-destination', "$files{$version}/.", $root);
	return;
}

sub start_cluster
{
	my ($name) = @_;
	my $root = "$temp/$name";
	my $node = SixtyfourTest::cluster($name, $mock, start => 0, route => 'auto',
		conf => slurp_file($ENV{TEMP_CONFIG}) =~ s/\Q$files{$old}\E/$root/gr
		  . "max_prepared_transactions = 5\nautovacuum = off\n");
	my $url = $mock->url;

	$node->{sixtyfour_files} = $root;
	put($node, $old);
	$node->start;
	SixtyfourTest::install($node, 'postgres', $mock, server => "requests_per_minute '0'");
	$node->safe_psql('postgres', qq{
		CREATE TABLE person (name text PRIMARY KEY, title text);
		SELECT sixtyfour_create_enrichment('titles', 'person', 'enrich_lead', '{"name": "name"}',
			'{"title": "\$.structured_data.title"}', struct => '{"title":"their title"}');
		CREATE SERVER slow FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$url', requests_per_minute '1');
		CREATE USER MAPPING FOR PUBLIC SERVER slow OPTIONS (api_key 'none');
	});
	return $node;
}

# Stop it, give it another version's files unless it has them, and start it.
sub restart_with
{
	my ($node, $version) = @_;
	$node->stop('fast');
	put($node, $version) if defined $version;
	$node->start;
	return;
}

sub sql { return $_[0]->safe_psql('postgres', $_[1]); }

sub wait_until
{
	my ($node, $condition) = @_;
	$node->poll_query_until('postgres', "SELECT $condition")
	  or die "gave up on: $condition; jobs: "
	  . sql($node, q{SELECT string_agg(concat_ws(' ', body, state, delivery, message), '; ') FROM sixtyfour.jobs})
	  . '; workers: ' . sql($node, q{SELECT string_agg(w::text, '; ') FROM sixtyfour.workers w});
	return;
}

sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}'); }
sub ask { return sql($_[0], ($_[2] // '') . 'SELECT sixtyfour_enrich_lead_async(' . question($_[1]) . ')'); }

# The first job about somebody
sub job
{
	my ($node, $name, $what) = @_;
	return sql($node, "SELECT $what FROM sixtyfour.jobs WHERE body->'lead_info'->>'name' = '$name' ORDER BY id LIMIT 1");
}

sub why { return job(@_, 'sixtyfour_why(id)'); }

sub states
{
	my ($node, $tag) = @_;
	return sql($node, qq{SELECT string_agg(substr(name, length('$tag') + 2) || ' ' || state
			|| CASE delivery WHEN 'none' THEN '' ELSE ' ' || delivery END, ', ' ORDER BY name)
		FROM (SELECT body->'lead_info'->>'name' AS name, state, delivery FROM sixtyfour.jobs) j WHERE name LIKE '$tag %'});
}

sub wait_for_states
{
	my ($node, $tag, $expected, $what) = @_;
	SixtyfourTest::poll_until(sub { states($node, $tag) eq $expected });
	return is(states($node, $tag), $expected, $what);
}

# Billed requests about somebody
sub requests
{
	my ($name) = @_;
	return grep { (($_->{body}{lead_info} // {})->{name} // '') eq $name }
	  grep { ref $_->{body} } @{ $mock->ledger(accepted => 1) };
}

# Wait until somebody is asked about, and end the task of it.
sub finish
{
	foreach my $name (@_)
	{
		SixtyfourTest::poll_until(sub { requests($name) }) or die "nobody asks about $name";
		$mock->control('POST', "tasks/$_->{task_id}", { action => 'finish' }) foreach requests($name);
	}
	return;
}

sub rule
{
	my ($about, %rule) = @_;
	$mock->rule({ match => { body_contains => $about }, %rule });
	return;
}

# ---- what is under way when the versions change ----

# A task that runs; an answer that cannot be written, as its row is locked; two
# calls that nobody knows the outcome of; a request without a reply; a job that
# waits for the rate limit; and one of a transaction that is prepared.
sub load_cargo
{
	my ($node, $tag, %leave_out) = @_;

	sql($node, qq{ALTER SERVER slow OPTIONS (SET requests_per_minute '1');
		ALTER USER MAPPING FOR PUBLIC SERVER slow OPTIONS (SET api_key 'api_$tag')});
	rule("$tag sent", hold => JSON::PP::true);
	rule("$tag lost", fault => 'close_after_body');
	rule("$tag gone", fault => 'close_after_body');
	sql($node, qq{INSERT INTO person VALUES ('$tag row')});
	sql($node, qq{BEGIN; SELECT FROM person WHERE name = '$tag row' FOR UPDATE; PREPARE TRANSACTION '$tag lock'});
	finish("$tag row");
	ask($node, "$tag $_") foreach qw(gone lost running sent);
	ask($node, "$tag first", 'SET sixtyfour.server = slow; ');
	wait_until($node, qq{count(*) = 1 FROM sixtyfour.jobs WHERE state = 'running' AND server = 'slow'});
	ask($node, "$tag limited", 'SET sixtyfour.server = slow; ');
	sql($node, 'BEGIN; SELECT sixtyfour_enrich_lead_async(' . question("$tag prepared") . qq{); PREPARE TRANSACTION '$tag job'})
	  if !$leave_out{prepared};
	SixtyfourTest::poll_until(sub { requests("$tag sent") }) or die 'it is not sent';
	wait_for_states($node, $tag,
		'first running, gone uncertain, limited queued, lost uncertain, row succeeded pending, running running, sent sending',
		'what is under way');
	$mock->clear_rules;
	return;
}

# Nothing is done with it, and it is said why.
sub is_idle
{
	my ($node, $tag, $message, $from, %state) = @_;
	my $says = q{SELECT string_agg(concat_ws('|', kind, state, message), ' ' ORDER BY kind)
		FROM sixtyfour.workers WHERE database = 'postgres'};
	my $sent = $mock->summary->{requests};
	my $ledger = q{SELECT md5(string_agg(c::text, ' ' ORDER BY id)) || max(s::text) FROM sixtyfour.call c, sixtyfour.state s};
	my $call = job($node, "$tag running", 'call');

	ok($node->poll_query_until('postgres', $says, "worker|idle|$message writer|idle|$message"), 'sixtyfour.workers says why')
	  or diag sql($node, $says);
	my $before = sql($node, $ledger);
	ok($node->wait_for_log(qr/LOG:  sixtyfour $_ for database \d+ does nothing: \Q$message\E\n/, $from), "the log too: $_")
	  foreach qw(worker writer);

	finish(map { "$tag $_" } qw(running first));
	sql($node, "COMMIT PREPARED '$tag lock'");
	sql($node, "COMMIT PREPARED '$tag job'") if !$state{queued};
	ask($node, "$tag prepared") if $state{queued};
	my $now = sql($node, 'SELECT clock_timestamp()');
	ask($node, "$tag after");
	wait_until($node, "last_turn > '$now' FROM sixtyfour.workers WHERE kind = 'worker' AND database = 'postgres'");

	is(why($node, "$tag $_"), "The worker of this database cannot work: $message.", "sixtyfour_why() says so: $_")
	  foreach qw(after prepared);
	is(why($node, "$tag running"), "The service works on it, as call $call, but the worker of this database cannot work: $message.",
		'and of a task');
	is(why($node, "$tag row"), "It succeeded; its answer waits to be written to the row, but the writer of this database cannot work: $message.",
		'and of an answer');
	asks_directly($node, $tag, \$sent);
	is($mock->summary->{requests}, $sent, 'nothing else is sent, and no task is asked about');
	is(sql($node, $ledger), $before, 'the ledger is as it was');
	sql($node, 'SELECT sixtyfour_resolve(' . job($node, "$tag gone", 'call') . q{, 'abandon')});
	$state{sent} //= 'sending';
	is(states($node, $tag),
		"after queued, first running, gone failed, limited queued, lost uncertain, prepared queued, row succeeded pending, running running, sent $state{sent}",
		'a person may decide about a call');
	sql($node, q{ALTER SERVER slow OPTIONS (SET requests_per_minute '0')});
	return;
}

# What a session asks meanwhile is asked directly, but not what is under way.
sub asks_directly
{
	my ($node, $tag, $sent) = @_;
	my $running = job($node, "$tag running", 'call');
	my %said;

	# each waits for the worker first
	foreach my $who (qw(herself nobody running lost))
	{
		$said{$who} = SixtyfourTest::Session->new($node);
		$said{$who}->value(q{SET sixtyfour.route = 'worker'}) if $who eq 'nobody';
		$said{$who}->send('SELECT sixtyfour_enrich_lead(' . question("$tag $who") . ')');
	}
	$_ = $_->receive foreach values %said;
	like($said{herself}{rows}[0][0], qr/"structured_data"/, 'what a session asks is answered');
	is(join(' ', map { $_->{path} } requests("$tag herself")), '/enrich-lead', 'directly');
	is(job($node, "$tag herself", 'id'), '', 'without a job');
	$$sent++;
	is_deeply([ @{ $said{nobody}{error} }{qw(sqlstate message)} ],
		[ '55000', 'there is no worker to ask' ], 'unless only the worker may');
	is_deeply([ @{ $said{running}{error} }{qw(sqlstate message hint)} ],
		[ '55006', "call $running asks the same, and has no answer yet",
			'Ask again when it has one; sixtyfour.workers shows who waits for it.' ], 'what is under way is not asked again');
	is($said{lost}{error}{sqlstate}, '08007', 'nor what is uncertain');
	return;
}

# All of it comes to its end.
sub goes_on
{
	my ($node, $tag) = @_;

	finish(map { "$tag $_" } qw(after limited prepared));
	wait_for_states($node, $tag,
		'after succeeded, first succeeded, gone failed, limited succeeded, lost uncertain, prepared succeeded, row succeeded applied, running succeeded, sent uncertain',
		'all goes on');
	is(sql($node, "SELECT title IS NOT NULL FROM person WHERE name = '$tag row'"), 't', 'the answer is in its row');
	is(sql($node, q{SELECT count(message) FROM sixtyfour.workers}), 0, 'nothing is wrong any more');

	foreach my $name ("$tag lost", "$tag sent")
	{
		my ($request) = requests($name);
		sql($node, 'SELECT sixtyfour_resolve(' . job($node, $name, 'call') . ", '$request->{task_id}')");
		finish($name);
	}
	wait_until($node, "count(*) = 2 FROM sixtyfour.jobs WHERE body->'lead_info'->>'name' IN ('$tag lost', '$tag sent') AND state = 'succeeded'");
	is(join(' ', map { scalar requests("$tag $_") } qw(after first gone herself limited lost nobody prepared row running sent)),
		'1 1 1 1 1 1 0 1 1 1 1', 'what was uncertain is found, and nothing was asked twice');
	is_deeply([ @{ $mock->summary }{qw(duplicates duplicate_leads)} ], [ {}, {} ], 'says the service');
	return;
}

# The version of the library that asked about somebody
sub asked_by
{
	my ($name) = @_;
	return (requests($name))[0]{headers}{'user-agent'} =~ m{^sixtyfour/([\d.]+) } ? $1 : '';
}

my $update  = "the extension has version $old, the library $new: use ALTER EXTENSION sixtyfour UPDATE";
my $install = "the extension has version $new, the library $old: install the library of version $new, and restart the server";

make_new_version();
my $node = start_cluster('upgrade');

subtest 'the library first' => sub {
	load_cargo($node, 'A');
	my $from = -s $node->logfile;
	restart_with($node, $new);
	is_idle($node, 'A', $update, $from);

	sql($node, 'ALTER EXTENSION sixtyfour UPDATE');
	is(sql($node, q{SELECT extversion || ' ' || sixtyfour_library() || ' ' || sixtyfour_labelled('') FROM pg_extension WHERE extname = 'sixtyfour'}),
		"$new $new 9", 'the extension is the new one');
	is(sql($node, q{SELECT count(*) FROM sixtyfour.jobs WHERE label = ''}), 9, 'so are its views');
	goes_on($node, 'A');
	is(join(' ', map { asked_by("A $_") } qw(first running prepared after)), "$old $old $new $new", 'each library has asked');
	return;
};

subtest 'a library that is put back' => sub {
	load_cargo($node, 'B');
	my $from = -s $node->logfile;
	restart_with($node, $old);
	is_idle($node, 'B', $install, $from);
	is(SixtyfourTest::sql_error($node, 'SELECT sixtyfour_library()')->{sqlstate}, '42883', 'what needs the new library fails');
	is(SixtyfourTest::sql_error($node, "ALTER EXTENSION sixtyfour UPDATE TO '$old'")->{sqlstate}, '22023', 'there is no way back');

	restart_with($node, $new);
	goes_on($node, 'B');
	return;
};

subtest 'the extension first' => sub {
	my $other = start_cluster('other');
	my $file  = "$other->{sixtyfour_files}$scripts/sixtyfour--$old--$new.sql";

	# a transaction that has queued something must end before the table can change
	load_cargo($other, 'C', prepared => 1);
	put($other, $new);
	my $error = SixtyfourTest::sql_error($other, 'ALTER EXTENSION sixtyfour UPDATE');
	is($error->{sqlstate}, '42883', 'an update that needs the new library is refused');
	like($error->{message}, qr/^could not find function "sixtyfour_library" in file ".*"$/, 'with a reason');
	wait_until($other, q{count(*) = 2 FROM sixtyfour.workers WHERE database = 'postgres' AND last_turn IS NOT NULL AND message IS NULL});
	ask($other, 'old');
	finish('old');
	wait_until($other, q{count(*) = 1 FROM sixtyfour.jobs WHERE body->'lead_info'->>'name' = 'old' AND state = 'succeeded'});
	is(sql($other, q{SELECT extversion FROM pg_extension WHERE extname = 'sixtyfour'}), $old, 'all goes on with the old one');

	write_file($file, update_script(full_script()));
	my $from = -s $other->logfile;
	sql($other, 'ALTER EXTENSION sixtyfour UPDATE');
	# the refused command has ended the worker that waited for the reply
	is_idle($other, 'C', $install, $from, sent => 'uncertain', queued => 1);
	restart_with($other);
	goes_on($other, 'C');
	is(asked_by('C after'), $new, 'with the new library');
	return;
};

# ---- fresh and upgraded ----

# All that the extension consists of in a database, a line each
my $contents = q{
WITH e AS (SELECT * FROM pg_extension WHERE extname = 'sixtyfour'),
m AS (SELECT classid, objid FROM pg_depend, e
	WHERE refclassid = 'pg_extension'::regclass AND refobjid = e.oid AND deptype = 'e'),
r AS (SELECT c.* FROM pg_class c JOIN m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid),
lines(line) AS (
	SELECT concat_ws(' ', 'member', pg_describe_object(classid, objid, 0), obj_description(objid, classid::regclass::name)) FROM m
	UNION ALL SELECT concat_ws(' ', 'relation', r.oid::regclass, relkind, relowner::regrole, relacl, reloptions, relpersistence, relrowsecurity) FROM r
	UNION ALL SELECT concat_ws(' ', 'column', r.oid::regclass, row_number() OVER (PARTITION BY r.oid ORDER BY attnum), attname,
		format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstorage, attcollation::regcollation, attacl,
		pg_get_expr(adbin, adrelid), col_description(r.oid, attnum))
	FROM r JOIN pg_attribute a ON attrelid = r.oid AND attnum > 0 AND NOT attisdropped LEFT JOIN pg_attrdef d ON (adrelid, adnum) = (attrelid, attnum)
	UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(c.oid), convalidated) FROM pg_constraint c JOIN r ON conrelid = r.oid AND contype <> 'n'
	UNION ALL SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid), indisprimary, indisreplident) FROM pg_index JOIN r ON indrelid = r.oid
	UNION ALL SELECT concat_ws(' ', 'view', r.oid::regclass, pg_get_viewdef(r.oid)) FROM r WHERE relkind = 'v'
	UNION ALL SELECT concat_ws(' ', 'sequence', r.oid::regclass, seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle)
	FROM pg_sequence JOIN r ON seqrelid = r.oid
	UNION ALL SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid)) FROM pg_trigger t JOIN r ON tgrelid = r.oid WHERE NOT tgisinternal
	UNION ALL SELECT concat_ws(' ', 'function', pg_get_functiondef(p.oid), proowner::regrole, proacl)
	FROM pg_proc p JOIN m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	UNION ALL SELECT concat_ws(' ', 'schema', nspname, nspowner::regrole, nspacl) FROM pg_namespace n JOIN m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid
	UNION ALL SELECT concat_ws(' ', 'privileges at first', pg_describe_object(p.classoid, p.objoid, p.objsubid), privtype, initprivs)
	FROM pg_init_privs p JOIN m ON (m.classid, m.objid) = (p.classoid, p.objoid)
	UNION ALL SELECT concat_ws(' ', 'dumped', t::regclass, c) FROM e, unnest(extconfig, extcondition) AS u (t, c)
	UNION ALL SELECT concat_ws(' ', 'extension', extversion, extrelocatable, extnamespace::regnamespace) FROM e)
SELECT line FROM (SELECT regexp_replace(line, '\s+', ' ', 'g') FROM lines) AS l (line) ORDER BY line COLLATE "C"};

# That of a new database in which these statements were run
sub contents
{
	my ($name, $statements) = @_;
	sql($node, "CREATE DATABASE $name");
	$node->safe_psql($name, $statements);
	return $node->safe_psql($name, $contents);
}

# The lines of one that the other has not, by their first words
sub only_in
{
	my ($from, $other) = @_;
	my %other = map { $_ => 1 } split /\n/, $other;
	return join ', ', map { /^(\S+ \S+)/ } grep { !$other{$_} } split /\n/, $from;
}

subtest 'fresh and upgraded are the same' => sub {
	my $fresh = contents('fresh', 'CREATE EXTENSION sixtyfour');
	my $before = contents('before', "CREATE EXTENSION sixtyfour VERSION '$old'");
	my @ways = grep { -e "$node->{sixtyfour_files}$scripts/sixtyfour--$_.sql" } split /\n/,
	  sql($node, qq{SELECT source FROM pg_extension_update_paths('sixtyfour') WHERE target = '$new' AND path IS NOT NULL});

	cmp_ok(length $fresh, '>', 50000, 'there is something to compare');
	is(only_in($before, $fresh), "extension $old, view sixtyfour.jobs", 'what the old version has is there');
	is(only_in($fresh, $before),
		"column sixtyfour.job, column sixtyfour.jobs, extension $new, function CREATE, function CREATE, member function, member function, view sixtyfour.jobs",
		'what is new is seen');
	is(scalar(grep { $_ eq $old } @ways), 1, 'the last version can be upgraded');
	foreach my $version (@ways)
	{
		my $upgraded = contents('from_' . $version =~ s/\D/_/gr,
			"CREATE EXTENSION sixtyfour VERSION '$version'; ALTER EXTENSION sixtyfour UPDATE");
		is_deeply([ split /\n/, $upgraded ], [ split /\n/, $fresh ], "from $version: the same as a fresh one");
	}
	return;
};

done_testing();
