# Money: budgets to the cent, what survives a restart, and prices that nobody
# states.  The mock's ledger is the witness.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use SixtyfourTest;

# a day ends in the middle of nothing here
plan skip_all => 'it is almost midnight UTC' if time % 86400 > 86400 - 300;

my $mock = SixtyfourTest::Mock->start;
my $node = SixtyfourTest::cluster('money', $mock,
	conf   => "restart_after_crash = on\n",
	server => "requests_per_minute '0', timeout '2'");
my %session;

$mock->settings({ quirks => 'none', found => 'all', task_seconds => 0.1 });
$node->safe_psql('postgres', 'CREATE DATABASE other');
SixtyfourTest::install($node, 'other', $mock, server => "requests_per_minute '0'");

# ---- helpers ----

sub session
{
	my ($database) = @_;
	return $session{$database} //= SixtyfourTest::Session->new($node, database => $database);
}

sub value { return session('postgres')->value("SELECT $_[0]"); }
sub run_in { my ($database, $sql) = @_; return session($database)->value($sql); }
sub in_both { my ($sql) = @_; run_in($_, $sql) foreach qw(postgres other); return; }

# Once the server takes sessions
sub reconnect
{
	%session = ();
	SixtyfourTest::poll_until(sub { eval { session($_) foreach qw(postgres other); 1 } })
	  or die 'the server does not come back';
	return;
}

sub wait_until
{
	my ($expression, $expected) = @_;
	my $got;
	SixtyfourTest::poll_until(sub { ($got = value($expression) // '') eq $expected })
	  or die "$expression does not become $expected, but is $got";
	return;
}

sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}', options => '{"tier":"$_[1]"}'); }
sub ask { my ($name, $tier) = @_; return value('sixtyfour_enrich_lead_async(' . question($name, $tier // 'medium') . ')'); }
sub call { return value("$_[1] FROM sixtyfour.calls WHERE id = (SELECT call FROM sixtyfour.jobs WHERE id = $_[0])"); }
sub answer { return value("sixtyfour_wait($_[0], '60 s')"); }
sub why { return value("sixtyfour_why($_[0])"); }

sub wait_for_state
{
	my ($state, @jobs) = @_;
	wait_until("state FROM sixtyfour.jobs WHERE id = $_", $state) foreach @jobs;
	return;
}

# Cents spent and at risk today, of the account that is used
my $spent = q(spent_today_cents || ' ' || at_risk_cents FROM sixtyfour.accounts WHERE server = 'sixtyfour');
sub budget { in_both("ALTER SERVER sixtyfour OPTIONS ($_[0])"); return; }
sub key { in_both("ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key '$_[0]')"); return; }

sub restart { $node->restart; reconnect(); return; }

sub end_worker
{
	my $pid = value(q(pid FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker' AND datname = 'postgres'));
	value("pg_terminate_backend($pid)");
	wait_until(qq(count(*) FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker' AND datname = 'postgres' AND pid <> $pid), 1);
	return;
}

# ---- a budget, to the cent ----

# two databases that spend the same key's money
budget(q(ADD daily_budget_cents '185'));
my $many = q(SELECT sixtyfour_find_email_bulk_async((SELECT jsonb_agg(jsonb_build_object('name', '%s ' || n)) FROM generate_series(1, %d) n)));
in_both('SELECT sixtyfour_pause()');
run_in('postgres', sprintf $many, 'Here', 120);
run_in('other', sprintf $many, 'There', 80);
in_both('SELECT sixtyfour_resume()');
my $succeeded = "count(*) FROM sixtyfour.jobs WHERE state = 'succeeded'";
sub done { return value($succeeded) + run_in('other', "SELECT $succeeded"); }
sub leads { my $n = 0; $n += @{ $_->{body}{leads} // [1] } foreach @{ $mock->ledger(method => 'POST', accepted => 1) }; return $n; }
SixtyfourTest::poll_until(sub { done() == 37 }) or die 'not as many as the budget allows: ' . done();
my $reached = 'The daily budget of server "sixtyfour" is reached: of %d cents, %d are spent or at risk today (UTC).';
my $reasons = "string_agg(DISTINCT sixtyfour_why(id), '') FROM sixtyfour.jobs WHERE state = 'queued'";
is(value($reasons), sprintf($reached, 185, 185), 'the other jobs say why they wait');
is(run_in('other', "SELECT $reasons"), sprintf($reached, 185, 185), 'in each database');
is(value($spent), '185 0', 'the budget is used up');
is(value(q(paused_by FROM sixtyfour.accounts WHERE server = 'sixtyfour')), 'daily_budget_cents is reached', 'as the account says');
is_deeply([ leads(), $mock->summary->{billed_cents} ], [ 37, 185 ], 'exactly 37 of 200 jobs were sent');
like(session('postgres')->query(q(SELECT sixtyfour_find_email('{"name":"One more"}')))->{error}{sqlstate}, qr/^53400$/, 'nor may a session spend more');

# four cents more are not enough for another one, five are
budget(q(SET daily_budget_cents '189'));
is(value($reasons), sprintf($reached, 189, 185), 'a budget of 4 cents more');
budget(q(SET daily_budget_cents '190'));
SixtyfourTest::poll_until(sub { done() == 38 }) or die 'five cents more do not do it';
is_deeply([ leads(), $mock->summary->{billed_cents} ], [ 38, 190 ], 'one of 5 cents more buys one more answer');

# the server's end is not a new day
restart();
wait_until($spent, '190 0');
pass('after a restart the day\'s spending is known, of both databases');
is(value($reasons), sprintf($reached, 190, 190), 'and the jobs wait');
is(leads(), 38, 'nothing more was sent');
end_worker();
is(value($spent), '190 0', 'another worker counts nothing again');
budget('DROP daily_budget_cents');
SixtyfourTest::poll_until(sub { done() == 200 }) or die 'without a budget they do not go on';
is_deeply([ leads(), $mock->summary->{duplicate_leads} ], [ 200, {} ], 'without a budget all are sent, once');
is(value($spent), '1000 0', 'and counted');

# ---- spent and at risk, across restarts of all kinds ----

key('api_risk');
budget(q(ADD assumed_cents '500'));
$mock->rule({ match => { path => '/*-async', body_contains => 'Lost' }, fault => 'close_after_body' });
$mock->rule({ match => { path => '/*-async', body_contains => 'Long' }, task_seconds => undef });
$mock->rule({ match => { path => '/*-async', body_contains => 'Refused' }, status => 422 });
my @long = map { ask("Long $_") } 1 .. 3;
my $lost = ask('Lost');
my $refused = ask('Refused');
wait_for_state('running', @long);
wait_for_state('uncertain', $lost);
wait_for_state('failed', $refused);
is(value($spent), '1500 500', 'accepted tasks are spent, with what is assumed; what is uncertain is at risk');
restart();
wait_until($spent, '1500 500');
pass('a restart knows both');
end_worker();
wait_for_state('running', @long);
is(value($spent), '1500 500', 'another worker does not count them twice');
my $victim = value(q(pid FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker' AND datname = 'postgres'));
kill 'KILL', $victim;
SixtyfourTest::poll_until(sub { !eval { value('1') } });
reconnect();
wait_until($spent, '1500 500');
pass('nor is anything forgotten in a crash');

# a price that is learned later, by a task of before the restart
$mock->control('POST', 'tasks/' . call($long[0], 'task_id'), { action => 'finish' });
answer($long[0]);
is(call($long[0], 'cents'), 480, 'the real price of a task');
is(value($spent), '1480 500', 'replaces what was assumed');
restart();
wait_until($spent, '1480 500');
pass('and the ledger agrees');

# what a person finds out about an uncertain call
my ($task) = map { $_->{task_id} } grep { $_->{body}{lead_info}{name} eq 'Lost' } @{ $mock->ledger(path => '/enrich-lead-async') };
value("sixtyfour_resolve(" . call($lost, 'id') . ", '$task')");
answer($lost);
is(value($spent), '1960 0', 'a task that was named is no risk any more');
restart();
wait_until($spent, '1960 0');
pass('which a restart knows, too');

# a key that is changed while tasks are under way: its money is the old one's
key('api_changed');
$mock->control('POST', 'tasks/' . call($long[1], 'task_id'), { action => 'finish' });
answer($long[1]);
is(value($spent), '0 0', 'a new key has nothing to do with the old one\'s tasks');
key('api_risk');
is(value($spent), '1940 0', 'which are corrected where they were counted');

# a task that the service forgets: at risk again
$mock->control('POST', 'tasks/' . call($long[2], 'task_id'), { action => 'forget' });
wait_for_state('uncertain', $long[2]);
is(value($spent), '1440 500', 'a task that is no longer known is at risk');
restart();
wait_until($spent, '1440 500');
pass('before and after a restart');
value("sixtyfour_resolve(" . call($long[2], 'id') . ", 'abandon')");
restart();
wait_until($spent, '1440 500');
pass('and when it is given up');
$mock->clear_rules;

# what belongs to another day
my $day = q(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC');
run_in('postgres', "UPDATE sixtyfour.call SET created_at = $day - interval '1 us' WHERE state = 'done'");
run_in('postgres', "UPDATE sixtyfour.call SET created_at = $day WHERE state = 'abandoned'");
restart();
wait_until($spent, '0 500');
pass('yesterday\'s spending is not today\'s');

# ---- prices that nobody states ----

key('api_learn');
sub expected { return call($_[0], 'expected_cents'); }
my @low = map { ask("Low $_", 'low') } 1 .. 3;
answer($_) foreach @low;
is(join(' ', map { expected($_) } @low), '500 500 500', 'before a price is known it is assumed');
my $fourth = ask('Low 4', 'low');
answer($fourth);
is(expected($fourth), 100, 'three calls tell the price');
my $other = ask('High', 'high');
answer($other);
is(expected($other), 500, 'of a tier');
my $error;
budget(q(ADD daily_budget_cents '1301'));
$error = session('postgres')->query('SELECT sixtyfour_enrich_lead(' . question('Too much', 'low') . ')')->{error};
is($error->{detail}, 'Of 1301 cents, 1300 are spent or at risk today (UTC), and this request would cost 100.', 'sessions know it, too');
budget('DROP daily_budget_cents');
session('postgres')->value(q(
	CREATE TABLE person (id int PRIMARY KEY, name text, title text);
	INSERT INTO person SELECT n, 'Person ' || n FROM generate_series(1, 10) n;
	SELECT sixtyfour_create_enrichment('low', 'person', 'enrich_lead', '{"name":"name"}', '{"title":"$.structured_data.title"}',
		struct => '{"title":"their title"}', options => '{"tier":"low"}', on_insert => false);
	SELECT sixtyfour_create_enrichment('micro', 'person', 'enrich_lead', '{"name":"name"}', '{"title":"$.structured_data.title"}',
		struct => '{"title":"their title"}', options => '{"tier":"micro"}', on_insert => false)));
is(value(q(cents_low || ' ' || cents_high FROM sixtyfour_estimate('low'))), '1000 1000', 'and so do estimates');
is(value(q(cents_low || ' ' || cents_high FROM sixtyfour_estimate('micro'))), '5000 5000', 'of each tier for itself');
restart();
my $fifth = ask('Low 5', 'low');
answer($fifth);
is(expected($fifth), 100, 'a restart does not forget it');
key('api_learn_not');
my $sixth = ask('Low 6', 'low');
answer($sixth);
is(expected($sixth), 500, 'it is the account\'s own');

# prices change, and are followed
key('api_learn');
$mock->rule({ match => { path => '/*-async' }, charge => 130 });
answer($_) foreach map { ask("Dearer $_", 'low') } 1 .. 5;
my $dearer = ask('Dearer 6', 'low');
answer($dearer);
is(expected($dearer), 115, 'it is the average of the last ones');
$mock->clear_rules;

# a stated price is the least that a call counts, however much was free
key('api_free');
answer($_) foreach map { value(qq(sixtyfour_find_email_async('{"name":"Free $_","email":"free$_\@acme.example"}'))) } 1 .. 4;
my $stated = value(q(sixtyfour_find_email_async('{"name":"Not free"}')));
answer($stated);
is(expected($stated), 5, 'what is stated counts in full');
is(value($spent), '5 0', 'until the real price is known');
is_deeply($mock->summary->{duplicates}, {}, 'nothing was paid for twice');

# ---- more accounts than can be counted ----

key('api_good');
budget(q(ADD daily_budget_cents '100000'));
answer(ask('Before'));
my $direct = session('other');
# those of the ledger, beside the one that is used here
$direct->value(q(INSERT INTO sixtyfour.call (state, operation, items, server, payer, account, home_system, home_database, epoch, expected_cents)
	SELECT 'done', 'find_email', 1, 'sixtyfour', current_user::regrole, gen_random_uuid(), c.home_system, c.home_database, 0, 5
	FROM generate_series(1, 1023), (SELECT * FROM sixtyfour.call LIMIT 1) c));
restart();
answer(ask('Again'));
$direct = session('other');
$direct->value(q(ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key 'api_excess')));
wait_until(q(count(*) FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker'), 2);
SixtyfourTest::poll_until(sub { $error = $direct->query(q(SELECT sixtyfour_find_email('{"name":"Somebody"}')))->{error} })
  or die 'the table does not become full';
is_deeply([ @{$error}{qw(sqlstate message detail hint)} ],
	[ '53400', 'too many API keys in use at once', 'At most 1024 accounts with a daily budget can be active within one day.',
		'Try again later; nothing was sent.' ], 'the table of accounts is full');
is($direct->value(q(SELECT paused_by FROM sixtyfour.accounts)), 'too many API keys in use at once', 'the view says so');
my $excess = $direct->value(q(SELECT sixtyfour_find_email_async('{"name":"One too many"}')));
SixtyfourTest::poll_until(sub { $direct->value("SELECT sixtyfour_why($excess)") =~ /^Too many/ });
is($direct->value("SELECT sixtyfour_why($excess)"),
	'Too many API keys are in use at once on this database server; it waits until one of them is not.', 'a job over yet another waits');
$direct->value("CREATE SERVER known FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '${\$mock->url}', requests_per_minute '0')");
$direct->value(q(CREATE USER MAPPING FOR PUBLIC SERVER known OPTIONS (api_key 'api_good'); SET sixtyfour.server = known));
my $known = $direct->value(q(SELECT sixtyfour_find_email_async('{"name":"Known"}')));
like($direct->value("SELECT sixtyfour_wait($known, '60 s')"), qr/email/, 'while those over known accounts go on, in the same database');
is($direct->value("SELECT state FROM sixtyfour.jobs WHERE id = $excess"), 'queued', 'and it still waits');
my @said = PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /ERROR:  too many API keys/g;
is(scalar @said, 1, 'the worker did not fail for it');
$direct->value('DELETE FROM sixtyfour.call WHERE epoch = 0');
restart();
like(run_in('other', "SELECT sixtyfour_wait($excess, '60 s')"), qr/email/, 'when there is room it goes on');

done_testing();
