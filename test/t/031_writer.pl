# The writer in trouble: triggers that take long or will not end, policies that
# are in the way, a full disk, a kill.  Every answer is written once or says why
# not, and nothing is asked twice: the mock's ledger is the witness.
#
# The disk is a small one in a mount namespace of its own; where this user may
# not have one, that part is left out.
use strict;
use warnings FATAL => 'all';

use Test::More;

use PostgreSQL::Test::Utils;
use SixtyfourTest;

BEGIN { SixtyfourTest::enter_namespace(); }

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('writer', $mock,
	conf   => "restart_after_crash = on\nautovacuum = off\n",
	server => "requests_per_minute '0'");

$mock->settings({ quirks => 'none', found => 'all' });

sub psql
{
	my ($sql, $role) = @_;
	return $node->safe_psql('postgres', ($role ? "SET ROLE $role;\n" : '') . $sql);
}

# A table of alice's whose email addresses are found
sub create
{
	my ($name, $columns) = @_;
	psql(qq{CREATE TABLE $name (id int PRIMARY KEY, name text, email text, writes int NOT NULL DEFAULT 0$columns);
		SELECT sixtyfour_create_enrichment('$name', '$name', 'find_email', '{"name":"name"}', '{"email":"\$.email[0][0]"}')}, 'alice');
	return;
}

sub wait_until
{
	my ($condition, $what) = @_;
	$node->poll_query_until('postgres', "SELECT $condition")
	  or die "gave up waiting for $what: "
	  . psql(q{SELECT string_agg(concat_ws(' ', row_key, state, delivery, sqlstate, message), E'\n' ORDER BY id) FROM sixtyfour.job});
	return;
}

# All jobs of an enrichment have ended, but for those whose rows are locked
sub wait_for_end
{
	my ($name) = @_;
	wait_until("count(*) = 0 FROM sixtyfour.job j JOIN sixtyfour.enrichment e ON e.id = j.enrichment
		WHERE e.name = '$name' AND (state NOT IN ('succeeded', 'failed', 'cancelled')
			OR (delivery = 'pending' AND j.sqlstate IS DISTINCT FROM '55P03'))", "the end of $name");
	return;
}

# What became of the jobs: "id delivery reason"
sub deliveries
{
	my ($name) = @_;
	return psql("SELECT concat_ws(' ', row_key ->> 'id', delivery, j.sqlstate, message)
		FROM sixtyfour.job j JOIN sixtyfour.enrichment e ON e.id = j.enrichment
		WHERE e.name = '$name' ORDER BY j.id");
}

sub writer { return "SELECT pid FROM pg_stat_activity WHERE backend_type = 'sixtyfour writer'"; }

sub set_conf
{
	my ($name, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

# Everything that was sent was sent once, in that many requests
sub asked_once
{
	my ($requests, $what) = @_;
	my $summary = $mock->summary;

	is(scalar @{ $mock->ledger(method => 'POST', accepted => 1) }, $requests, "$what: requests");
	is_deeply([ $summary->{duplicates}, $summary->{duplicate_leads} ], [ {}, {} ], "$what: nothing twice");
	$mock->reset_ledger;
	return;
}

# A trigger that counts what is written, and waits for the advisory lock 64
# where the name says so: "deaf" ones catch the cancellation and go on.
psql(q{
	CREATE ROLE alice;
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO alice;
	GRANT CREATE, USAGE ON SCHEMA public TO alice;
	CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
	BEGIN
		NEW.writes := OLD.writes + 1;
		LOOP
			BEGIN
				IF OLD.name ~ '^(slow|deaf)' THEN
					PERFORM pg_catalog.pg_advisory_xact_lock_shared(64);
				END IF;
				RETURN NEW;
			EXCEPTION WHEN query_canceled THEN
				IF OLD.name !~ '^deaf' THEN
					RAISE;
				END IF;
			END;
		END LOOP;
	END$$;
});

sub count_writes
{
	my ($name) = @_;
	psql("CREATE TRIGGER count_writes BEFORE UPDATE ON $name FOR EACH ROW EXECUTE FUNCTION count_writes()", 'alice');
	return;
}

my $gate = SixtyfourTest::Session->new($node);

# ---- a kill in the middle of a batch ----

create('killed', '');
count_writes('killed');
$gate->value('SELECT pg_advisory_lock(64)');
psql(q{INSERT INTO killed SELECT i, CASE i WHEN 15 THEN 'slow' ELSE 'K' || i END FROM generate_series(1, 20) i}, 'alice');
wait_until(q{count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'sixtyfour writer' AND wait_event = 'advisory'}, 'the trigger');
is(psql(q{SELECT state, query, query_start >= xact_start FROM pg_stat_activity WHERE backend_type = 'sixtyfour writer'}),
	'active|sixtyfour: writing answers into rows|t', 'what the writer does is in pg_stat_activity');
is(psql('SELECT count(email) FROM killed'), '0', 'a batch is under way');
my $pid = psql(writer());
kill 'KILL', $pid;
$gate->receive->{closed} or die 'the server goes on';
SixtyfourTest::poll_until(sub { $gate = eval { SixtyfourTest::Session->new($node) } })
  or die 'the server does not come back';
wait_until(q{count(*) = 20 FROM killed WHERE email IS NOT NULL}, 'the answers');
wait_for_end('killed');
is(psql('SELECT writes, count(*) FROM killed GROUP BY writes'), '1|20', 'a killed writer: each answer is written once');
is(psql("SELECT delivery, count(*) FROM sixtyfour.job GROUP BY delivery"), 'applied|20', 'a killed writer: as the ledger says');
asked_once(1, 'a killed writer');

# ---- policies ----

create('guarded', '');
psql(q{
	ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
	ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
	CREATE POLICY ins ON guarded FOR INSERT WITH CHECK (true);
	CREATE POLICY sel ON guarded FOR SELECT USING (name <> 'hidden');
	CREATE POLICY upd ON guarded FOR UPDATE USING (name <> 'frozen') WITH CHECK (name <> 'checked');
}, 'alice');
$mock->settings({ task_seconds => undef });
psql(q{INSERT INTO guarded VALUES (1, 'free'), (2, 'hidden'), (3, 'checked'), (4, 'frozen'), (5, 'locked'), (6, 'free too')}, 'alice');
$mock->wait_for(count => 6, stage => 'replied', path => '/find-email*');
$gate->value('BEGIN; SELECT 1 FROM guarded WHERE id = 5 FOR UPDATE');
$mock->control('POST', 'tasks/all', { action => 'finish' });
wait_for_end('guarded');
is(deliveries('guarded'), join("\n",
		'1 applied',
		'2 unapplied 02000 the row is not there any more, or row-level security hides it from the owner of the enrichment',
		'3 unapplied 42501 new row violates row-level security policy for table "guarded"',
		'4 unapplied 42501 row-level security does not let the owner of the enrichment update the row',
		'5 pending 55P03 another transaction has locked the row; it is tried again',
		'6 applied'),
	'what policies forbid is unapplied, and tells itself from what is locked');
is(psql('SELECT string_agg(id::text, \' \' ORDER BY id) FROM guarded WHERE email IS NOT NULL'), '1 6', 'nothing else is written');
my ($waits, undef, $told) = $node->psql('postgres', q{SELECT sixtyfour_wait(id) -> 'email' IS NOT NULL FROM sixtyfour.job WHERE row_key = '{"id": 5}'});
like($told, qr/NOTICE:  job \d+ has its answer, but it is not in the row yet: it is written later\nDETAIL:  another transaction has locked the row/,
	'a wait for it ends, and says so');
$gate->value('COMMIT');
psql('ALTER POLICY sel ON guarded USING (true); ALTER POLICY upd ON guarded USING (true) WITH CHECK (true)', 'alice');
is(psql(q{SELECT sixtyfour_reapply('guarded')}, 'alice'), '3', 'policies are mended');
wait_until(q{count(*) = 6 FROM guarded WHERE email IS NOT NULL}, 'the guarded rows');
wait_for_end('guarded');
is(psql(q{SELECT DISTINCT delivery FROM sixtyfour.job}), 'applied', 'and everything is written');
asked_once(6, 'policies');
$mock->settings({ task_seconds => 0.2 });

# ---- the same row in every session ----

psql(q{
	CREATE TABLE kinds (f float8, d interval, i int PRIMARY KEY, b bytea, r real, m money, t time with time zone,
		moments timestamptz[], days daterange, span tstzrange, class regclass, note text, email text);
	ALTER TABLE kinds DROP CONSTRAINT kinds_pkey;
	ALTER TABLE kinds ADD PRIMARY KEY (f, d, i, b, span);
	SELECT sixtyfour_create_enrichment('kinds', 'kinds', 'enrich_lead',
		'{"r":"r", "m":"m", "t":"t", "moments":"moments", "days":"days", "class":"class", "note":"note", "f":"f", "d":"d", "b":"b", "span":"span"}',
		'{"email":"$.structured_data.email"}', '{"email":"email"}', on_insert => false);
	INSERT INTO kinds VALUES (0.1::float8 + 0.2::float8, '-1 year 2 days -03:04:05', 1, '\x00ff5c', 1.1, 12.5, '12:00+02',
		'{2024-01-02 03:04:05+00}', '[2024-01-02,2024-02-03)', '[2024-01-02 03:04:05+00,)', 'kinds', 'n');
}, 'alice');
my $odd = q{SET bytea_output = escape; SET extra_float_digits = -3; SET "IntervalStyle" = sql_standard; SET "DateStyle" = 'German, DMY';
	SET "TimeZone" = 'Asia/Tokyo'; SET quote_all_identifiers = on; SET search_path = public, pg_catalog; SET ROLE alice;};
psql('SELECT sixtyfour_pause()');
is(psql(q{SELECT sixtyfour_run_enrichment('kinds')}, 'alice'), '1', 'a row is queued');
my $written = q{SELECT row_key, row_input, body FROM sixtyfour.job WHERE state = 'queued'};
my $plain = psql($written);
is($plain, '{"b": "\\\\x00ff5c", "d": "-1 years +2 days -03:04:05", "f": 0.30000000000000004, "i": 1, "span": "[\"2024-01-02 03:04:05+00\",)"}|'
	  . '{"b": "\\\\x00ff5c", "d": "-1 years +2 days -03:04:05", "f": 0.30000000000000004, "m": "$12.50", "r": 1.1, "t": "12:00:00+02", "days": "[2024-01-02,2024-02-03)", "note": "n", "span": "[\"2024-01-02 03:04:05+00\",)", "class": "public.kinds", "moments": ["2024-01-02T03:04:05+00:00"]}|'
	  . '{"struct": {"email": "email"}, "lead_info": {"b": "\\\\x00ff5c", "d": "-1 years +2 days -03:04:05", "f": 0.30000000000000004, "m": "$12.50", "r": 1.1, "t": "12:00:00+02", "days": "[2024-01-02,2024-02-03)", "note": "n", "span": "[\"2024-01-02 03:04:05+00\",)", "class": "public.kinds", "moments": ["2024-01-02T03:04:05+00:00"]}}',
	'what is written about it');
is(psql("$odd SELECT sixtyfour_run_enrichment('kinds')"), '0', 'it was asked about, whatever the settings');
psql(q{DELETE FROM sixtyfour.job WHERE state = 'queued'});
is(psql("$odd SELECT sixtyfour_run_enrichment('kinds')"), '1', 'it is queued with other settings');
is(psql($written), $plain, 'and written down in the same way');
psql('SELECT sixtyfour_resume()');
wait_for_end('kinds');
is(psql(q{SELECT delivery, sqlstate, message FROM sixtyfour.job ORDER BY id DESC LIMIT 1}), 'applied||', 'and found again, unchanged');
asked_once(1, 'settings');

# ---- a key that is too long for an index ----

psql(q{CREATE TABLE wide (id text PRIMARY KEY, name text, email text);
	ALTER TABLE wide ALTER id SET STORAGE external;
	SELECT sixtyfour_create_enrichment('wide', 'wide', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
	INSERT INTO wide SELECT left(string_agg(encode(sha256(i::text::bytea), 'base64'), ''), 2688), 'Wide' FROM generate_series(1, 70) i}, 'alice');
is(psql(q{SELECT sixtyfour_run_enrichment('wide')}, 'alice'), '0', 'a row with a wide key is queued');
wait_for_end('wide');
is(psql('SELECT count(email) FROM wide'), '1', 'and written');
asked_once(1, 'a wide key');

# ---- slow triggers ----

create('calm', '');
create('slow', '');
count_writes('slow');
set_conf('sixtyfour.write_timeout', '500ms');
$gate->value('SELECT pg_advisory_lock(64)');
psql(q{INSERT INTO slow SELECT i, CASE i WHEN 1 THEN 'S' ELSE 'slow' || i END FROM generate_series(1, 12) i}, 'alice');
my $left;
SixtyfourTest::poll_until(sub {
		my $seen = psql(q{SELECT count(email), (SELECT count(*) FROM sixtyfour.job WHERE delivery = 'pending') FROM slow});
		$left = $1 if $seen =~ /^1\|(\d+)/;
		return defined $left;
	}) or die 'the first row is not written';
cmp_ok($left, '>=', 5, 'slow rows hold back a batch for a bounded time');
psql(q{INSERT INTO calm VALUES (1, 'Calm')}, 'alice');
wait_until('email IS NOT NULL FROM calm', 'the other table');
wait_for_end('slow');
is(deliveries('slow'), join("\n", '1 applied',
		map { "$_ unapplied 57014 writing it took longer than sixtyfour.write_timeout (500 ms)" } 2 .. 12),
	'what takes too long is unapplied');
$gate->value('SELECT pg_advisory_unlock(64)');
psql(q{SELECT sixtyfour_reapply('slow')}, 'alice');
wait_until(q{count(*) = 12 FROM slow WHERE writes = 1 AND email IS NOT NULL}, 'the slow rows');
pass('and written when it is faster');
asked_once(2, 'slow triggers');

# ---- triggers that will not be cancelled ----

create('deaf', '');
count_writes('deaf');
$gate->value('SELECT pg_advisory_lock(64)');
my $log = -s $node->logfile;
psql(q{INSERT INTO deaf SELECT i, CASE i WHEN 2 THEN 'deaf' ELSE 'D' || i END FROM generate_series(1, 12) i}, 'alice');
wait_until(q{count(*) = 12 FROM sixtyfour.job WHERE delivery = 'pending' AND sqlstate = '57014'}, 'suspects');
pass('the writer ended, and knows whom to suspect');
psql(q{INSERT INTO calm VALUES (2, 'Calm too')}, 'alice');
wait_until('count(*) = 2 FROM calm WHERE email IS NOT NULL', 'the other table');
wait_for_end('deaf');
is(deliveries('deaf'), join("\n", '1 applied', '2 unapplied 57014 a trigger of the table did not end when it was cancelled',
		map { "$_ applied" } 3 .. 12), 'the one that will not end is found, the others are written');
is(psql('SELECT string_agg(writes::text, \' \' ORDER BY id) FROM deaf'), '1 0' . ' 1' x 10, 'once');
my $said = slurp_file($node->logfile, $log);
like($said, qr/LOG:  a trigger of the table did not end when it was cancelled\n.*DETAIL:  It was fired by the answer of job \d+, or one of those written together with it\./,
	'the log tells of several');
like($said, qr/DETAIL:  It was fired by the answer of job \d+\.\n/, 'and of the one');
$gate->value('SELECT pg_advisory_unlock(64)');
psql(q{SELECT sixtyfour_reapply('deaf')}, 'alice');
wait_until(q{count(*) = 12 FROM deaf WHERE writes = 1 AND email IS NOT NULL}, 'the deaf row');
pass('and written when it ends');
asked_once(2, 'deaf triggers');
set_conf('sixtyfour.write_timeout', '20s');

# ---- leaving ----

{
	local $PostgreSQL::Test::Utils::timeout_default = 45;
	set_conf('sixtyfour.idle_timeout', '2s');
	psql(q{INSERT INTO calm VALUES (3, 'Calm three')}, 'alice');
	wait_until('count(*) = 3 FROM calm WHERE email IS NOT NULL', 'the other table');
	$node->poll_query_until('postgres', q{SELECT pid IS NULL AND state = 'asleep' FROM sixtyfour.workers WHERE kind = 'writer'})
	  or die 'the writer does not leave';
	pass('an idle writer leaves when it is time, not when it wakes up');
	set_conf('sixtyfour.idle_timeout', '5min');
}
$mock->reset_ledger;

# ---- a full disk ----

SKIP:
{
	my $disk = PostgreSQL::Test::Utils::tempdir();
	skip 'no mounts in a namespace', 1
	  unless SixtyfourTest::in_namespace() && mount_disk($disk);
	full_disk($disk);
}

done_testing();

# The server must see the mount: a node that is started in the namespace does.
sub mount_disk { return system_log('mount', '-t', 'tmpfs', '-o', 'size=48m,mode=0700', 'tmpfs', $_[0]) == 0; }

sub fill
{
	my ($disk) = @_;
	open(my $file, '>', "$disk/filler") or die "open: $!";
	my $size = 65536;
	while ($size >= 4096)
	{
		$size /= 2 unless syswrite $file, 'x' x $size;
	}
	close $file;
	return;
}

sub full_disk
{
	my ($disk) = @_;
	mkdir "$disk/space" or die "mkdir: $!";
	psql("CREATE TABLESPACE small LOCATION '$disk/space'");
	psql('GRANT CREATE ON TABLESPACE small TO PUBLIC');

	# the user's table cannot grow
	psql(q{SET default_tablespace = small; SET client_min_messages = error;
		CREATE TABLE crowded (id int PRIMARY KEY, name text, email text, writes int NOT NULL DEFAULT 0, padding text);
		ALTER TABLE crowded ALTER padding SET STORAGE plain;
		SELECT sixtyfour_create_enrichment('crowded', 'crowded', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}')}, 'alice');
	count_writes('crowded');
	$mock->settings({ task_seconds => undef });
	psql(q{INSERT INTO crowded SELECT i, 'C' || i, NULL, 0, repeat('x', 1500) FROM generate_series(1, 60) i}, 'alice');
	$mock->wait_for(count => 1, stage => 'replied', path => '/find-email*');
	fill($disk);
	$mock->control('POST', 'tasks/all', { action => 'finish' });
	wait_until(q{count(*) > 0 FROM sixtyfour.job WHERE delivery = 'pending' AND sqlstate = '53100'}, 'a full disk');
	like(psql(q{SELECT DISTINCT message FROM sixtyfour.job WHERE sqlstate = '53100'}),
		qr/^could not extend file ".*": No space left on device$/, 'a full disk: the reason is told');
	is(psql(q{SELECT count(*) FROM sixtyfour.job WHERE delivery = 'unapplied'}), '0', 'a full disk: no answer is given up');
	unlink "$disk/filler" or die "unlink: $!";
	wait_until('count(*) = 60 FROM crowded WHERE email IS NOT NULL', 'space for the table');
	wait_for_end('crowded');
	is(psql('SELECT writes, count(*) FROM crowded GROUP BY writes'), '1|60', 'a full disk: all is written once there is space');
	asked_once(1, 'a full disk');
	psql('DROP TABLE crowded');

	full_ledger($disk);
	return;
}

# The whole database is on the small disk, WAL is not.
sub full_ledger
{
	my ($disk) = @_;
	my $log;
	my $sql = sub { return $node->safe_psql('small', $_[0]); };
	my $full = sub { SixtyfourTest::poll_until(sub { slurp_file($node->logfile, $log) =~ /could not extend file/ }) or die 'the disk is not full'; };

	psql('CREATE DATABASE small TABLESPACE small');
	SixtyfourTest::install($node, 'small', $mock, server => "requests_per_minute '0'");
	$sql->(q{CREATE TABLE people (id int PRIMARY KEY, name text, email text, writes int NOT NULL DEFAULT 0);
		CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.writes := OLD.writes + 1; RETURN NEW; END';
		CREATE TRIGGER count_writes BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION count_writes();
		SELECT sixtyfour_create_enrichment('people', 'people', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
		SELECT sixtyfour_pause();
		INSERT INTO people SELECT i, 'P' || i FROM generate_series(1, 300) i});

	# no space to note what is sent: nothing is
	fill($disk);
	$log = -s $node->logfile;
	my $error = SixtyfourTest::sql_error($node, q{INSERT INTO people SELECT i, 'never' || i FROM generate_series(1000, 3000) i}, database => 'small');
	is($error->{sqlstate}, '53100', 'a full ledger: an INSERT fails, and its jobs with it');
	$log = -s $node->logfile;
	$sql->('SELECT sixtyfour_resume()');
	$full->();
	is(scalar @{ $mock->ledger(method => 'POST') }, 0, 'a full ledger: nothing is sent that could not be noted');
	unlink "$disk/filler" or die "unlink: $!";
	$mock->wait_for(count => 3, stage => 'replied', path => '/find-email*');

	# no space for the answers: the calls stay accepted
	$node->poll_query_until('small', q{SELECT count(*) = 3 FROM sixtyfour.call WHERE state = 'accepted'}) or die;
	fill($disk);
	$log = -s $node->logfile;
	$mock->control('POST', 'tasks/all', { action => 'finish' });
	$full->();
	is($sql->(q{SELECT state, sum(items) FROM sixtyfour.call GROUP BY state}), 'accepted|300', 'a full ledger: calls stay accepted');
	is($sql->(q{SELECT state, count(*) FROM sixtyfour.job GROUP BY state}), 'running|300', 'a full ledger: and jobs running');
	unlink "$disk/filler" or die "unlink: $!";
	$node->poll_query_until('small', q{SELECT count(*) = 300 FROM sixtyfour.job WHERE delivery = 'applied'})
	  or die 'gave up: ' . $sql->('SELECT state, delivery, sqlstate, message, count(*) FROM sixtyfour.job GROUP BY 1, 2, 3, 4');
	is($sql->('SELECT writes, count(*), count(DISTINCT email) FROM people GROUP BY writes'), '1|300|300', 'a full ledger: all is written once there is space');
	asked_once(3, 'a full ledger');
	return;
}
