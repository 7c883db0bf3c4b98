# In which order jobs leave the queue, and that none holds back another's.  The
# mock's ledger is the witness.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good,api_second,api_third,api_fourth');
my $node = SixtyfourTest::cluster('claim', $mock,
	server => "requests_per_minute '0', timeout '5'");
my $session = SixtyfourTest::Session->new($node);

$mock->settings({ quirks => 'none', found => 'all' });

sub value { return $session->value("SELECT $_[0]"); }
sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}'); }
sub ask { return value('sixtyfour_enrich_lead_async(' . join(', ', question($_[0]), @_[ 1 .. $#_ ]) . ')'); }
sub answer { return value("sixtyfour_wait($_[0], '60 s')"); }
sub job { return value("$_[1] FROM sixtyfour.jobs WHERE id = $_[0]"); }

sub submitted
{
	return map { $_->{body}{lead_info}{name} }
	  grep { $_->{path} eq '/enrich-lead-async' } @{ $mock->ledger };
}

# ---- a lane behind its limit ----

sub create_server
{
	my ($name, $key, $rate) = @_;
	my $url = $mock->url;
	$session->value("CREATE SERVER $name FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '$url', requests_per_minute '$rate')");
	$session->value("CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key '$key')");
	return;
}

create_server('slow', 'api_second', 30);
$session->value('SET sixtyfour.server = slow');
my $many = SixtyfourTest::slow() ? 200 : 3000;
is(value(qq(count(*) FROM (SELECT sixtyfour_enrich_lead_async(jsonb_build_object('name', 'Slow ' || i), '{"title":"their title"}') FROM generate_series(1, $many) i) s)),
	$many, 'an account with more jobs than it may send');
$mock->wait_for(path => '/enrich-lead-async', count => 1);
$session->value('RESET sixtyfour.server');
like(answer(ask('Quick')), qr/structured_data/, 'does not hold back another');
my $urgent = ask('Urgent', 'priority => 1');
like(answer($urgent), qr/structured_data/, 'again');
cmp_ok(value("count(*) FROM sixtyfour.jobs WHERE server = 'slow' AND state = 'queued'"), '>', $many - 10, 'that goes at its own pace');
is(value("sixtyfour_why(max(id)) FROM sixtyfour.jobs WHERE server = 'slow' AND state = 'queued'"),
	q(It waits for its turn within the account's rate limit.), 'and says so');

# the urgent ones of that account go first
$session->value('SET sixtyfour.server = slow');
my $first = ask('First of slow', 'priority => 1');
$session->value('RESET sixtyfour.server');
my $before = grep { /^Slow / } submitted();
$session->value("SELECT sixtyfour_wait($first)");
my @until;
for (submitted()) { last if $_ eq 'First of slow'; push @until, $_ }
cmp_ok((grep { /^Slow / } @until) - $before, '<=', 3, 'an urgent job of it passes the others');

# what has been asked before needs no leave
$session->value('SET sixtyfour.server = slow');
$session->value(q(ALTER SERVER slow OPTIONS (ADD daily_budget_cents '0')));
my $again = ask('First of slow');
like(answer($again), qr/structured_data/, 'a stored result answers while the budget is used up');
is((grep { $_ eq 'First of slow' } submitted()), 1, 'without a call');
$session->value('RESET sixtyfour.server');
value("bool_and(sixtyfour_cancel(id)) FROM sixtyfour.jobs WHERE state = 'queued'");

# ---- more tasks than can be asked about in time ----

$mock->rule({ match => { path => '/enrich-lead-async', body_contains => '"Endless' }, task_seconds => undef });
create_server('crowded', 'api_third', 600);
$session->value('SET sixtyfour.server = crowded');

# those that are submitted, and those that are asked about, share the rate
sub submit_endless
{
	my ($n) = @_;
	$session->value('SET sixtyfour.server = crowded');
	value(qq(count(*) FROM (SELECT sixtyfour_enrich_lead_async(jsonb_build_object('name', 'Endless ' || random()), '{"title":"their title"}') FROM generate_series(1, $n)) s));
	$session->value('RESET sixtyfour.server');
	return;
}
sub last_request { return $mock->ledger(limit => 1)->[-1]{seq}; }

submit_endless(20);
$node->poll_query_until('postgres', "SELECT count(*) = 20 FROM sixtyfour.jobs WHERE server = 'crowded' AND state = 'running'");
my $seen = last_request();
$mock->wait_for(path => '/job-status/*', after => $seen, count => 80);
my %asked = map { ("/job-status/$_" => 0) } split /,/, value(qq(string_agg(task_id, ',') FROM sixtyfour.calls WHERE server = 'crowded'));
$asked{ $_->{path} }++ foreach grep { exists $asked{ $_->{path} } } @{ $mock->ledger(path => '/job-status/*', after => $seen) };
my ($least, $most) = (sort { $a <=> $b } values %asked)[ 0, -1 ];
is(keys %asked, 20, 'of many tasks');
cmp_ok($least, '>', 0, 'each is asked about');
cmp_ok($most - $least, '<=', 2, 'as often as the others');

submit_endless(200);
$mock->wait_for(path => '/enrich-lead-async', after => $seen, count => 1);
$seen = last_request();
$mock->wait_for(after => $seen, count => 60);
my $submitted = grep { $_->{path} eq '/enrich-lead-async' } @{ $mock->ledger(after => $seen) };
cmp_ok($submitted, '>', 5, "neither do they keep others from being submitted");
cmp_ok($submitted, '<', 55, 'nor the other way round');
value("count(sixtyfour_cancel(id)) FROM sixtyfour.jobs WHERE server = 'crowded'");
$mock->control('POST', 'tasks/all', { action => 'finish' });

# ---- behind rows that are dead but cannot be removed ----

# Each claim begins where the last one ended, and does not go over them again: the
# index counts what is read in it.
my $dead = SixtyfourTest::slow() ? 2000 : 120000;
my $live = 40;
create_server('behind', 'api_fourth', 1200);
my $pinning = SixtyfourTest::Session->new($node);
$pinning->value('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM sixtyfour.jobs');
value('sixtyfour_pause()');
$session->value('SET sixtyfour.server = behind');
my $model = ask('Dead');
$session->value(qq(INSERT INTO sixtyfour.job (priority, run_at, operation, body, fingerprint, server, owner, payer, home_system, home_database)
	SELECT priority, run_at, operation, body, gen_random_uuid(), server, owner, payer, home_system, home_database
	FROM sixtyfour.job, generate_series(1, $dead) WHERE id = $model));
$session->value(q(UPDATE sixtyfour.job SET state = 'cancelled', finished_at = now() WHERE server = 'behind'));
my @behind = map { ask("Behind $_") } 1 .. $live;
$session->value('RESET sixtyfour.server');
my $read = q(idx_tup_read FROM pg_stat_all_indexes WHERE indexrelname = 'job_claim');
my $already = value($read);
value('sixtyfour_resume()');
$node->poll_query_until('postgres', "SELECT count(*) = $live FROM sixtyfour.jobs WHERE state = 'succeeded' AND id IN (" . join(',', @behind) . ')')
  or die 'they are not answered';
my $turns = value(q(count(DISTINCT date_trunc('milliseconds', created_at)) FROM sixtyfour.call WHERE server = 'behind'));
cmp_ok($turns, '>', 6, 'jobs behind many dead rows are claimed in many turns');
cmp_ok(value($read) - $already, '<', 6 * $dead, 'that do not read those again and again');
$pinning->value('COMMIT');

# ---- a job that comes late to its place ----

my $slow_committer = SixtyfourTest::Session->new($node);
$slow_committer->value('BEGIN');
$slow_committer->value('SELECT now()');
like(answer(ask('In between')), qr/structured_data/, 'a job of a later transaction');
my $late = $slow_committer->value('SELECT sixtyfour_enrich_lead_async(' . question('Late') . ', run_at => now())');
$slow_committer->value('COMMIT');
is(value("(SELECT run_at FROM sixtyfour.jobs WHERE id = $late) < (SELECT max(run_at) FROM sixtyfour.jobs WHERE id < $late)"), 't',
	'a job whose place was passed already');
like(answer($late), qr/structured_data/, 'is found');

# one whose time comes
my $due = ask('Due', "run_at => now() + interval '400 ms'");
my $after = ask('After');
like(answer($after), qr/structured_data/, 'a job that is not due holds back no other');
like(answer($due), qr/structured_data/, 'and goes when it is');
is(value("c.created_at >= j.run_at FROM sixtyfour.jobs j JOIN sixtyfour.calls c ON c.id = j.call WHERE j.id = $due"), 't', 'not before');

# what a transaction of a user holds
my $holder = SixtyfourTest::Session->new($node);
value('sixtyfour_pause()');
my $held = ask('Held');
my $free = ask('Free');
$holder->value('BEGIN');
$holder->value("SELECT sixtyfour_cancel($held)");
value('sixtyfour_resume()');
like(answer($free), qr/structured_data/, 'a job that a transaction holds keeps no other');
is(job($held, 'state'), 'queued', 'it waits');
$holder->value('ROLLBACK');
like(answer($held), qr/structured_data/, 'and goes when it is let go');

# held ones cost neither the others' turns nor the account's rate
create_server('paced', 'api_good', 480);
$session->value('SET sixtyfour.server = paced');
value('sixtyfour_pause()');
my @held = map { ask("Held $_") } 1 .. 30;
my @equal = map { ask('Held 1') } 1 .. 2;
$holder->value('BEGIN');
$holder->value("SELECT count(sixtyfour_cancel(id)) FROM unnest('{" . join(',', @held) . "}'::bigint[]) id");
my $behind = ask('Behind the held');
value('sixtyfour_resume()');
like(answer($behind), qr/structured_data/, 'a job behind many that are held has its answer, within the rate');
like(answer($_), qr/structured_data/, 'so does one that asks what a held one asks') foreach @equal;
is(value("count(*) FROM sixtyfour.jobs WHERE id = ANY ('{" . join(',', @held) . "}') AND state = 'queued'"), 30, 'those that are held wait');
$holder->value('COMMIT');
is(value("count(*) FROM sixtyfour.jobs WHERE id = ANY ('{" . join(',', @held) . "}') AND state = 'cancelled'"), 30, 'and can be cancelled');
is((grep { /^Held [2-9]/ } submitted()), 0, 'none was sent');
$session->value('RESET sixtyfour.server');

# one that would join a call while a person decides about it
$mock->rule({ match => { path => '/enrich-lead-async', body_contains => '"Decided"' }, times => 1, fault => 'close_after_body' });
my $decided = ask('Decided');
$node->poll_query_until('postgres', "SELECT state = 'uncertain' FROM sixtyfour.jobs WHERE id = $decided");
my $undecided = job($decided, 'call');
$holder->value('BEGIN');
$holder->value("SELECT sixtyfour_resolve($undecided, 'resubmit')");
my $joiner = ask('Decided');
# the worker has looked at it once it has sent a later one
like(answer(ask('After the joiner')), qr/structured_data/, 'others go on while a person decides');
$holder->value('COMMIT');
like(answer($_), qr/structured_data/, 'then all have their answer') foreach $decided, $joiner;

# ---- a request that cannot be made ----

value('sixtyfour_pause()');
my @leads = map { value(qq(sixtyfour_find_email_async('{"name":"Lead $_"}'))) } 1 .. 12;
my $bad = $leads[6];
my $alone = ask('Bad alone');
# no function lets this into the queue, so it stands for whatever may go wrong there
$session->value(qq(UPDATE sixtyfour.job SET body = '{}' WHERE id IN ($bad, $alone)));
value('sixtyfour_resume()');
like(answer($_), qr/email/, 'a lead that waits beside one whose request cannot be made has its answer')
  foreach grep { $_ != $bad } @leads;
foreach my $job ($bad, $alone)
{
	$node->poll_query_until('postgres', "SELECT state = 'failed' FROM sixtyfour.jobs WHERE id = $job")
	  or die "job $job is " . job($job, 'state');
	my $subject = $job == $bad ? 'lead' : 'lead_info';
	is(job($job, "sqlstate || ' ' || message"), qq(22023 the request has no "$subject"), 'which fails and says why');
}
is(value("count(*) FROM sixtyfour.workers WHERE kind = 'worker' AND pid IS NOT NULL"), 1, 'the worker goes on');

# ---- a task that nobody can ask about ----

$mock->rule({ match => { path => '/enrich-lead-async', body_contains => '"Orphan"' }, task_seconds => 3600 });
create_server('leaving', 'api_good', 0);
$session->value('SET sixtyfour.server = leaving');
my $orphan = ask('Orphan');
$node->poll_query_until('postgres', "SELECT state = 'running' FROM sixtyfour.jobs WHERE id = $orphan");
$session->value('RESET sixtyfour.server');
$session->value('DROP USER MAPPING FOR PUBLIC SERVER leaving');
my $call = job($orphan, 'call');
$session->value("UPDATE sixtyfour.call SET accepted_at = now() - interval '5 h' WHERE id = $call");
# a new worker reads it
value("pg_terminate_backend(pid) FROM sixtyfour.workers WHERE kind = 'worker'");
$node->poll_query_until('postgres', "SELECT state = 'uncertain' FROM sixtyfour.jobs WHERE id = $orphan")
  or die 'it is ' . job($orphan, 'state');
is(value("state || ': ' || message FROM sixtyfour.calls WHERE id = $call"),
	'expired: the service could not be asked for the answer: user mapping not found for "postgres"', 'a task that cannot be asked about expires at its deadline');
is(value("kind || ' ' || id FROM sixtyfour.attention WHERE id = $call"), "call $call", 'and a person must decide');

is(scalar keys %{ $mock->summary->{duplicates} }, 1, 'nothing was bought twice but what a person wanted to be');
done_testing();
