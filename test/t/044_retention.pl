# What the ledger holds no longer than it should: what is pruned and what is
# not, and what remains of somebody who is to be forgotten.  Times are made old
# by a superuser.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('retention', $mock,
	conf   => "sixtyfour.idle_timeout = 0\n",
	server => "requests_per_minute '0', timeout '5'");
my $session = SixtyfourTest::Session->new($node);

$mock->settings({ quirks => 'none', found => 'all', task_seconds => 0.1 });

$session->value('CREATE ROLE alice LOGIN');
$session->value('CREATE ROLE bob LOGIN');
$session->value('GRANT USAGE ON FOREIGN SERVER sixtyfour TO alice, bob');
$session->value('GRANT CREATE ON SCHEMA public TO alice');
my $alice = SixtyfourTest::Session->new($node, user => 'alice');
my $bob   = SixtyfourTest::Session->new($node, user => 'bob');

# ---- helpers ----

sub value { return $session->value("SELECT $_[0]"); }

sub error_of
{
	my ($expression, $who) = @_;
	my $error = ($who // $session)->query("SELECT $expression")->{error}
	  or return 'no error';
	return "$error->{sqlstate}: $error->{message}";
}

sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}'); }
sub ask_sql { return 'sixtyfour_enrich_lead_async(' . question($_[0]) . ')'; }
sub ask { return value(ask_sql(@_)); }

sub leads { return '[' . join(',', map { qq({"name":"$_","company":"Acme"}) } @_) . ']'; }
sub ask_bulk { return value(q{sixtyfour_find_email_bulk_async('} . leads(@_) . q{')::text}) =~ /\d+/g; }

sub wait_until
{
	my ($condition, $what) = @_;
	$node->poll_query_until('postgres', "SELECT $condition")
	  or die $what // "it never comes that $condition";
	return;
}

sub wait_for_state
{
	my ($state, @jobs) = @_;
	wait_until("state = '$state' FROM sixtyfour.jobs WHERE id = $_") foreach @jobs;
	return;
}

sub wait_for_all
{
	my $ids = join ',', @_;
	$session->value("SELECT sixtyfour_wait_all('{$ids}', '60 s')");
	return;
}

# "id state delivery" of the jobs given that are there
sub jobs_left
{
	my (@jobs) = @_;
	return value("string_agg(concat_ws(' ', id, state, nullif(delivery, 'none')), ', ' ORDER BY id)"
		  . ' FROM sixtyfour.jobs WHERE id IN (' . join(',', @jobs) . ')') // '';
}

sub count_of { return value("count(*) FROM sixtyfour.$_[0]"); }

# Everything happened so many days earlier.
sub age
{
	my ($days) = @_;
	my $earlier = "- interval '$days days'";
	$session->value("UPDATE sixtyfour.job SET enqueued_at = enqueued_at $earlier, finished_at = finished_at $earlier");
	$session->value("UPDATE sixtyfour.call SET created_at = created_at $earlier, finished_at = finished_at $earlier");
	$session->value("UPDATE sixtyfour.result SET created_at = created_at $earlier");
	return;
}

# A whole pass: the writer begins one when it is woken, as none has ended.
sub wake { return $alice->value("SELECT sixtyfour_reapply('bell')"); }

sub prune
{
	$session->value('UPDATE sixtyfour.state SET pruned_at = NULL');
	wake();
	wait_until('pruned_at IS NOT NULL FROM sixtyfour.state', 'nothing is pruned');
	return;
}

my @tables = qw(state enrichment job call candidate call_item call_subject forgotten result);

# The tables of the ledger in which a word is to be found, in whatever column
sub mentions
{
	my ($word) = @_;
	return join ' ', grep { value("count(*) FROM sixtyfour.$_ t WHERE t::text LIKE '%$word%'") > 0 } @tables;
}

is(value(q(string_agg(relname, ' ' ORDER BY relname) FROM pg_class
	WHERE relnamespace = 'sixtyfour'::regnamespace AND relkind = 'r')),
	join(' ', sort @tables), 'these are all tables of the ledger');

# a row that is gone when its answer comes: trying again to write it wakes the
# writer, for as often as it is wanted
$alice->value('CREATE TABLE bell (id int PRIMARY KEY, name text, email text)');
$alice->value(q(SELECT sixtyfour_create_enrichment('bell', 'bell', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}')));
$alice->value("BEGIN; INSERT INTO bell VALUES (1, 'Bell'); DELETE FROM bell; COMMIT");
my $home = "count(*) = 0 FROM sixtyfour.jobs WHERE enrichment IS NOT NULL AND (state <> 'succeeded' OR delivery NOT IN ('applied', 'unapplied'))";
wait_until($home);
my $bell = value("id FROM sixtyfour.jobs");

# ---- settings ----

is(value("string_agg(concat_ws(' ', name, current_setting(name), context), ', ' ORDER BY name)
	FROM pg_settings WHERE name LIKE 'sixtyfour.%retention'"),
	'sixtyfour.result_retention 400d superuser, sixtyfour.retention 7d superuser', 'defaults');
is($alice->query("SET sixtyfour.retention = '1 d'")->{error}{sqlstate}, '42501', 'not everybody sets them');
is($session->query('SET sixtyfour.retention = -2')->{error}{sqlstate}, '22023', 'less than -1 is nothing');

# ---- what is pruned after a week ----

my $done = ask('Done');
$mock->rule({ match => { body_contains => '"Refused"' }, status => 422 });
$mock->rule({ match => { body_contains => '"Uncertain"' }, fault => 'close_after_body' });
$mock->rule({ match => { body_contains => '"Running"' }, task_seconds => undef });
my ($refused, $uncertain, $running, $detached) = map { ask($_) } qw(Refused Uncertain Running Running);
my $absent = SixtyfourTest::Mock->start;
my $port   = $absent->port;
$absent->stop;
$session->value("CREATE SERVER absent FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url 'http://127.0.0.1:$port', requests_per_minute '0')");
$session->value("CREATE USER MAPPING FOR PUBLIC SERVER absent OPTIONS (api_key 'api_good')");
$session->value('SET sixtyfour.server = absent');
my $unsent = ask('Unsent');
$session->value('RESET sixtyfour.server');
wait_for_all($done, $refused);
wait_for_state('uncertain', $uncertain);
wait_for_state('running', $running, $detached);
wait_until("attempts > 0 AND state = 'queued' FROM sixtyfour.jobs WHERE id = $unsent");
$session->value("UPDATE sixtyfour.job SET run_at = now() + interval '1 d' WHERE id = $unsent");
value("sixtyfour_cancel($detached)");
my $cancelled = value('sixtyfour_enrich_lead_async(' . question('Cancelled') . ", run_at => now() + interval '1 h')");
value("sixtyfour_cancel($cancelled)");
my @plain = ($done, $refused, $uncertain, $running, $detached, $unsent, $cancelled);

# an enrichment: rows found and not found, one asked twice, one that cannot be written
$alice->value('CREATE TABLE people (id int PRIMARY KEY, name text, company text, email text CONSTRAINT not_5 CHECK (id <> 5 OR email IS NULL))');
$alice->value(q(SELECT sixtyfour_create_enrichment('mail', 'people', 'find_email', '{"name":"name","company":"company"}',
	'{"email":"$.email[0][0]"}', on_update => true)));
$alice->value(q(INSERT INTO people VALUES (1, 'Found', 'Acme'), (2, 'Nobody Found', 'Acme'), (3, 'Asked Twice', 'Acme'), (4, 'Not Written', 'Acme'), (5, 'Not Yet', 'Acme')));
wait_until($home);
$alice->value("ALTER TABLE people ADD CONSTRAINT not_4 CHECK (id <> 4 OR email IS NULL) NOT VALID");
$alice->value('ALTER TABLE people DROP CONSTRAINT not_5');
$alice->value("UPDATE people SET name = 'Written Now' WHERE id = 5");
$alice->value("UPDATE people SET name = 'Asked Again', email = NULL WHERE id = 3");
$alice->value("UPDATE people SET name = 'Not Written Again', email = NULL WHERE id = 4");
wait_until($home);
sub row_jobs
{
	return value("string_agg(concat_ws(' ', row_key ->> 'id', body -> 'lead' ->> 'name', delivery), ', ' ORDER BY row_key, id)
		FROM sixtyfour.jobs WHERE enrichment IS NOT NULL AND id <> $bell") // '';
}
is(row_jobs(), '1 Found applied, 2 Nobody Found applied, 3 Asked Twice applied, 3 Asked Again applied, '
	  . '4 Not Written applied, 4 Not Written Again unapplied, 5 Not Yet unapplied, 5 Written Now applied', 'rows and their jobs');

my $plain_before = jobs_left(@plain);
my $results      = count_of('result');
prune();
is(jobs_left(@plain), $plain_before, 'young ones are not pruned');
like(value("string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM sixtyfour.call GROUP BY 1) c"),
	qr/^accepted 1, done 10, rejected \d+, uncertain 1$/, 'nor are calls');

age(8);
my $open = SixtyfourTest::Session->new($node);
$open->value('BEGIN');
$open->value("SELECT FROM sixtyfour.job WHERE id = $done FOR UPDATE");
prune();
is(jobs_left(@plain), join(', ', "$done succeeded", "$uncertain uncertain", "$running running", "$detached cancelled", "$unsent queued"),
	'after a week finished jobs are gone, but not one that is held, nor one whose call is open');
$open->value('COMMIT');
prune();
is(jobs_left($done), '', 'which goes later');
is(row_jobs(), '1 Found applied, 2 Nobody Found applied, 3 Asked Again applied, 4 Not Written applied, 4 Not Written Again unapplied, 5 Not Yet unapplied, 5 Written Now applied',
	'of a row stays the last that was answered');
is(value("string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM sixtyfour.call GROUP BY 1) c"),
	'accepted 1, done 10, uncertain 1', 'of calls only the rejected go: the others are the record of money');
is(value('count(*) FROM sixtyfour.call_item i WHERE NOT EXISTS (SELECT FROM sixtyfour.call c WHERE c.id = i.call)'), 0, 'with their items');
is(count_of('call_subject'), 12, 'and subjects');
is(count_of('result'), $results, 'all answers stay');
is($alice->value("SELECT sixtyfour_run_enrichment('mail')"), 0, 'no row is asked about again');
$mock->rule({ match => { body_contains => '"Done"' }, status => 500 });
$session->value("SET sixtyfour.cache_ttl = '30 d'");
like(value('sixtyfour_wait(' . ask('Done') . ", '30 s')"), qr/structured_data/, 'stored answers answer, though their jobs are gone');

# ---- and after more than a year ----

age(401);
prune();
is(row_jobs(), '4 Not Written Again unapplied, 5 Not Yet unapplied, 5 Written Now applied',
	'the rows\' jobs are gone, but not what is unapplied, nor what supersedes that');
is(jobs_left(@plain), join(', ', "$uncertain uncertain", "$running running", "$detached cancelled", "$unsent queued"), 'what is not finished stays');
is(value("string_agg(j.body -> 'lead' ->> 'name', ', ' ORDER BY j.id) FROM sixtyfour.result r JOIN sixtyfour.job j ON j.result = r.id"),
	'Bell, Not Yet, Not Written Again', 'answers are gone but those that are needed');
is(count_of('result'), 3, 'really');
is(value("string_agg(state, ', ' ORDER BY state) FROM sixtyfour.call"), 'accepted, done, done, done, done, uncertain', 'calls go with their answers');
is(value('count(*) FROM sixtyfour.call_item') . value('count(*) FROM sixtyfour.call_subject'), '66', 'and items with calls');
is(error_of('sixtyfour_enrich_lead(' . question('Uncertain') . ')'),
	'08007: call ' . value("call FROM sixtyfour.jobs WHERE id = $uncertain") . ' may have been accepted and billed, but its answer is unknown',
	'what is uncertain holds its question still');
$alice->value('ALTER TABLE people DROP CONSTRAINT not_4');
is($alice->value("SELECT sixtyfour_reapply('mail')"), 2, 'what is unapplied can be applied still');
wait_until($home);
isnt($alice->value('SELECT email FROM people WHERE id = 4'), undef, 'and is');
is($alice->value("SELECT sixtyfour_run_enrichment('mail')"), 1, 'only now the row without an answer is asked about again');
wait_until($home);
$mock->control('POST', 'tasks/all', { action => 'finish' });
wait_for_state('succeeded', $running);
prune();
is(jobs_left($detached), '', 'one that was cancelled goes once its call has ended');

# ---- in small batches ----

$node->safe_psql('postgres', q{
	CREATE TABLE deleted (xid xid8, of text, n bigint);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
		'BEGIN INSERT INTO public.deleted SELECT pg_current_xact_id(), TG_TABLE_NAME, count(*) FROM o; RETURN NULL; END';
	CREATE TRIGGER note AFTER DELETE ON sixtyfour.job REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION note();
	CREATE TRIGGER note AFTER DELETE ON sixtyfour.result REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION note();
	CREATE TRIGGER note AFTER DELETE ON sixtyfour.call_item REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION note();
	INSERT INTO sixtyfour.job (state, priority, run_at, operation, body, fingerprint, server, owner, payer,
			home_system, home_database, enqueued_at, finished_at)
		SELECT 'succeeded', 100, t, 'find_email', '{"lead":{"name":"Many"}}', gen_random_uuid(), 'sixtyfour', 10, 10, 1, 1, t, t
		FROM generate_series(1, 3000) i, LATERAL (SELECT now() - interval '500 d' + i * interval '1 s' AS t) t;
	INSERT INTO sixtyfour.call (state, operation, items, server, payer, account, home_system, home_database, epoch,
			expected_cents, created_at, finished_at)
		SELECT 'done', 'find_email', 100, 'sixtyfour', 10, gen_random_uuid(), 1, 1, 0, 1, t, t
		FROM (SELECT now() - interval '500 d' AS t) t, generate_series(1, 20);
	INSERT INTO sixtyfour.call_item SELECT c.id, i, c.account, gen_random_uuid(), false
		FROM sixtyfour.call c, generate_series(0, 99) i WHERE c.home_system = 1;
	INSERT INTO sixtyfour.result (call, item, account, fingerprint, operation, answer, created_at)
		SELECT call, item, account, fingerprint, 'find_email', '{}', now() - interval '500 d' FROM sixtyfour.call_item WHERE NOT open
		AND NOT EXISTS (SELECT FROM sixtyfour.result r WHERE (r.call, r.item) = (call_item.call, call_item.item));
	-- these numbers go before those of what was asked meanwhile
	UPDATE sixtyfour.call SET created_at = now() - interval '500 d';
	UPDATE sixtyfour.result SET created_at = now() - interval '500 d' WHERE answer <> '{}';
	UPDATE sixtyfour.job SET enqueued_at = now() - interval '500 d';
});
prune();
is(value("string_agg(of || ' ' || n, ', ' ORDER BY of) FROM (SELECT of, sum(n) AS n FROM deleted WHERE n > 0 GROUP BY of HAVING sum(n) >= 2000) d"),
	'call_item ' . value("sum(n) FROM deleted WHERE of = 'call_item'") . ', job ' . value("sum(n) FROM deleted WHERE of = 'job'")
	  . ', result ' . value("sum(n) FROM deleted WHERE of = 'result'"), 'thousands are pruned');
is(value("count(*) FROM sixtyfour.job WHERE body -> 'lead' ->> 'name' = 'Many'"), 0, 'all of them');
cmp_ok(value('max(n) FROM (SELECT sum(n) AS n FROM deleted GROUP BY xid) d'), '<=', 600, 'some 500 in each transaction');
$node->safe_psql('postgres', 'DROP TRIGGER note ON sixtyfour.job; DROP TRIGGER note ON sixtyfour.result; DROP TRIGGER note ON sixtyfour.call_item');

# ---- for ever, and trouble ----

my $forever = ask('For ever');
wait_for_all($forever);
$node->append_conf('postgresql.conf', "sixtyfour.retention = -1\nsixtyfour.result_retention = -1\n");
$node->reload;
prune();				# by its end the writer has read the file
age(1000);
prune();
is(jobs_left($forever), "$forever succeeded", '-1: jobs are kept for ever');
like(value("sixtyfour_result($forever)"), qr/structured_data/, '-1: and answers');
$node->append_conf('postgresql.conf', "sixtyfour.retention = '2 min'\nsixtyfour.result_retention = '1 min'\n");
$node->reload;
my $log = -s $node->logfile;
$node->safe_psql('postgres', q{
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not this one''; END';
	CREATE TRIGGER fail BEFORE DELETE ON sixtyfour.job FOR EACH ROW EXECUTE FUNCTION fail();
});
wake();
ok($node->wait_for_log(qr/ERROR:  not this one/, $log), 'what goes wrong is logged');
is(jobs_left($forever), "$forever succeeded", 'and nothing is pruned');
$alice->value("INSERT INTO people VALUES (15, 'Meanwhile', 'Acme')");
wait_until('email IS NOT NULL FROM people WHERE id = 15');
pass('the writer goes on');
$node->safe_psql('postgres', 'DROP TRIGGER fail ON sixtyfour.job');
$session->value("SELECT pg_terminate_backend(pid, 60000) FROM sixtyfour.workers WHERE kind = 'writer'");
prune();
is(jobs_left($forever), '', 'mended: pruned');
is(value("count(*) FROM sixtyfour.result r WHERE created_at < now() - interval '1 d'
	AND NOT EXISTS (SELECT FROM sixtyfour.job j WHERE j.result = r.id AND j.delivery = 'unapplied')"), 0, 'with its answer');
my $pruned = value('pruned_at FROM sixtyfour.state');
wait_until("pruned_at > '$pruned' FROM sixtyfour.state");
pass('with a short retention the next pass comes soon, by itself');
$node->append_conf('postgresql.conf', "sixtyfour.retention = '7 d'\nsixtyfour.result_retention = '400 d'\n");
$node->reload;

# ---- forgetting: who and what ----

$mock->reset;
is(error_of("sixtyfour_forget('$_')"), '22023: the subject to forget must be an object that is not empty', "forget $_")
  foreach '{}', '[]', '"Ada"', '[{"name":"Ada"}]';
is(value('sixtyfour_forget(NULL)'), undef, 'forget NULL');
is(value(q(sixtyfour_forget('{"name":"Stranger"}'))), 0, 'nothing is known about a stranger');

my $hers = $alice->value('SELECT ' . ask_sql('Shared Person'));
my $his  = $bob->value('SELECT ' . ask_sql('Shared Person'));
my $his2 = $bob->value(q(SELECT sixtyfour_find_email_async('{"name":"Shared Person","company":"Acme"}')));
my $hers2 = $alice->value(q(SELECT sixtyfour_find_email_async('{"name":"Her Person","company":"Acme"}')));
wait_for_all($hers, $his, $his2, $hers2);
is($alice->value(q(SELECT sixtyfour_forget('{"name":"Shared Person"}'))), 1, 'a role forgets its own jobs');
is(jobs_left($hers, $his, $his2, $hers2), "$his succeeded, $his2 succeeded, $hers2 succeeded", 'and nobody else\'s');
like($bob->value("SELECT sixtyfour_result($his)"), qr/structured_data/, 'nor what they stand on');
is($bob->value(q(SELECT sixtyfour_forget('{"name":"Her Person"}'))), 0, 'others have nothing to forget');
is($bob->value(q(SELECT sixtyfour_forget('{"name":"Shared Person","company":"Acme"}'))), 2, 'all that is given must fit');
is($bob->value(q(SELECT sixtyfour_forget('{"name":"Shared Person"}'))), 2, 'the last one takes the answer along');
is(mentions('Shared Person'), '', 'nothing is left');
is($alice->value(q(SELECT sixtyfour_forget('{"name":"her person"}'))), 0, 'it is exact');

# answers whose jobs are gone
age(8);
prune();
is(jobs_left($hers2), '', 'her job is pruned');
is(mentions('Her Person'), 'call_subject result', 'its answer is not');
is($bob->value(q(SELECT sixtyfour_forget('{"name":"Her Person"}'))), 0, 'who did not pay cannot forget it');
is($alice->value(q(SELECT sixtyfour_forget('{"name":"Her Person"}'))), 1, 'who paid can');
is(mentions('Her Person'), '', 'nothing is left of it');

# rows, bulks, raw texts and messages; the owner of the database forgets for all
$alice->value("INSERT INTO people VALUES (16, 'Jane Gone', 'Acme Rows')");
my @bulk = ask_bulk('Jane Gone', map { "Mate $_" } 1 .. 14);
$mock->rule({ match => { body_contains => '"Jane Gone Failed"' }, task_result => 'failed', error => 'nobody knows Jane Gone Failed' });
my $failed = $bob->value('SELECT ' . ask_sql('Jane Gone Failed'));
my $late   = value('sixtyfour_enrich_lead_async(' . question('Jane Gone') . ", run_at => now() + interval '1 h')");
wait_for_all(@bulk, $failed);
wait_until($home);
my $bulk_call = value("call FROM sixtyfour.jobs WHERE id = $bulk[3]");
$session->value("UPDATE sixtyfour.call SET raw = 'Jane Gone and Mate 1', message = 'Jane Gone', detail = 'Jane Gone?' WHERE id = $bulk_call");
$session->value("UPDATE sixtyfour.job SET message = 'Jane Gone is no lead', detail = 'Jane Gone?' WHERE id = $bulk[3]");
is(mentions('Jane Gone'), 'job call call_subject result', 'Jane is everywhere');
$session->value('BEGIN');
is(value(q(sixtyfour_forget('{"name":"Jane Gone"}'))), 5, 'three jobs and two answers');
is(value(q(sixtyfour_forget('{"name":"Jane Gone Failed"}'))), 1, 'a job without an answer');
is(mentions('Jane Gone'), '', 'nothing is left');
$session->value('ROLLBACK');
is(mentions('Jane Gone'), 'job call call_subject result', 'but by ROLLBACK');
my $spent = value("sum(cents) FROM sixtyfour.call");
value(q(sixtyfour_forget('{"name":"Jane Gone"}')));
value(q(sixtyfour_forget('{"name":"Jane Gone Failed"}')));
is(mentions('Jane Gone'), '', 'forgotten');
is(value("sum(cents) FROM sixtyfour.call"), $spent, 'what was spent is not');
is(value("concat_ws(' ', state, items, raw) FROM sixtyfour.call WHERE id = $bulk_call"), 'done 15', 'the call stays, without its text');
is(value("message FROM sixtyfour.jobs WHERE id = $bulk[3]"),
	'the words of the service are not kept, as somebody it was asked about was to be forgotten', 'nor do the others have its words');
is(value("count(*) FROM sixtyfour.jobs WHERE id IN (" . join(',', @bulk) . ") AND result IN (SELECT id FROM sixtyfour.results)"), 14, 'they have their answers');
is(error_of("sixtyfour_result($failed)"), "42704: job $failed does not exist", 'the job is unknown');
is(value(q(sixtyfour_forget('{"name":"Jane Gone"}'))), 0, 'there is nothing to forget twice');

# ---- forgetting what is under way ----

$mock->reset;
$mock->settings({ task_seconds => undef });
sub finish_tasks { return $mock->control('POST', 'tasks/all', { action => 'finish' }); }
my $single = ask('Jane Single');
my @way = ask_bulk('Jane Bulk', map { "Fellow $_" } 1 .. 14);
my $again = ask('Jane Again');
my $held = value(q{sixtyfour_find_email_async('{"name":"Jane Held","company":"Acme"}', 'PERSONAL')});
$mock->rule({ match => { body_contains => '"Jane Uncertain"' }, fault => 'close_after_body' });
my $unknown = ask('Jane Uncertain');
wait_for_state('running', $single, @way, $again, $held);
wait_for_state('uncertain', $unknown);
my %call = map { $_->[0] => value("call FROM sixtyfour.jobs WHERE id = $_->[1]") }
  [ single => $single ], [ bulk => $way[0] ], [ again => $again ], [ held => $held ], [ uncertain => $unknown ];
sub call_state { return value("concat_ws(' ', state, cents, raw) FROM sixtyfour.call WHERE id = $call{$_[0]}"); }

is(value(qq(sixtyfour_forget('{"name":"Jane $_"}'))), 1, "forget Jane $_") foreach qw(Single Bulk Again Uncertain);
is(mentions("Jane $_"), '', "nothing is left of Jane $_") foreach qw(Single Bulk Again Uncertain);
is(value("string_agg(state || ' ' || (expected_cents > 0), ', ' ORDER BY state) FROM sixtyfour.call WHERE id IN (" . join(',', values %call) . ')'),
	'accepted true, accepted true, accepted true, accepted true, uncertain true', 'the money is');
is(value("count(*) FROM sixtyfour.attention WHERE kind = 'call' AND id = $call{uncertain}"), 1, 'what is uncertain has to be resolved');
is(error_of('sixtyfour_enrich_lead(' . question('Jane Uncertain') . ')'),
	"08007: call $call{uncertain} may have been accepted and billed, but its answer is unknown", 'and holds its question');

# asked again, the answer is wanted again; and a transaction that is open holds up nobody
my $wanted = ask('Jane Again');
wait_for_state('running', $wanted);
$open->value('BEGIN');
is($open->value(q(SELECT sixtyfour_forget('{"name":"Jane Held"}'))), 1, 'somebody forgets, and takes his time');
finish_tasks();
wait_for_all($wanted, @way[ 1 .. 14 ]);
wait_until("count(*) = 0 FROM sixtyfour.call WHERE id IN ($call{single}, $call{bulk}, $call{again}, $call{held}) AND state <> 'done'");
is(value("call FROM sixtyfour.jobs WHERE id = $wanted"), $call{again}, 'the one that asked again has joined the call');
like(value("sixtyfour_result($wanted)"), qr/structured_data/, 'and has its answer');
is(mentions('Jane Single') . mentions('Jane Bulk'), '', 'answers to forgotten questions are not stored');
is(value("count(*) FROM sixtyfour.result WHERE call = $call{bulk}"), 14, 'others have theirs');
is(call_state('bulk'), 'done 75', 'the call says what it cost, and nothing else');
is(call_state('single'), 'done ' . $mock->ledger(path => '/enrich-lead-async', accepted => 1)->[0]{billed}, 'so does a single one');
is(mentions('Jane Held'), 'job call_subject result', 'while it is not committed, the answer is stored');
$open->value('COMMIT');
wait_until(q(count(*) = 0 FROM sixtyfour.result t WHERE t::text LIKE '%Jane Held%'));
is(mentions('Jane Held'), '', 'committed: nothing is left of that either');
wait_until("count(*) = 0 FROM sixtyfour.forgotten WHERE call <> $call{uncertain}");
is(value("string_agg(concat_ws(' ', item, open), ', ') FROM sixtyfour.call_item WHERE call IN ($call{single}, $call{held}, $call{uncertain})"),
	'0 t', 'nor of what was asked, but for what may still be billed');
value("sixtyfour_resolve($call{uncertain}, 'abandon')");
value(qq(sixtyfour_forget('{"name":"Jane Again"}')));
is(mentions('Jane'), '', 'nobody is left');

# nothing else is unsettled
is(value("count(*) FROM sixtyfour.jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"), 2, 'what was queued or uncertain before is');
$session->close;
$_->close foreach $alice, $bob, $open;
$node->stop;
done_testing();
