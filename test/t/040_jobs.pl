# Jobs, as their users see them: what is asked, when, and by whom it can be
# seen, waited for and called back.  The mock's ledger is the witness.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good,api_alice,api_other');
my $node = SixtyfourTest::cluster('jobs', $mock,
	conf   => "max_prepared_transactions = 5\n",
	server => "requests_per_minute '0'");
my $session = SixtyfourTest::Session->new($node);
my $other   = SixtyfourTest::Session->new($node);
my $json    = JSON::PP->new->canonical->allow_nonref;

$mock->settings({ quirks => 'none', found => 'all' });

# ---- helpers ----

# The value of an expression, fetched by $session
sub value { return $session->value("SELECT $_[0]"); }

# "sqlstate: message" of an expression that fails; "no error" if it does not
sub error_of
{
	my ($expression, $who) = @_;
	my $error = ($who // $session)->query("SELECT $expression")->{error}
	  or return 'no error';
	return "$error->{sqlstate}: $error->{message}";
}

sub error_parts
{
	my $error = $session->query("SELECT $_[0]")->{error} // {};
	return [ map { $error->{$_} } qw(sqlstate message detail hint) ];
}

# Queue an enrich_lead about somebody; it is never part of a bulk request.
sub ask_about
{
	my ($name, $arguments) = @_;
	$arguments = $arguments ? ", $arguments" : '';
	return qq{sixtyfour_enrich_lead_async('{"name":"$name"}', '{"title":"their title"}'$arguments)};
}

sub ask { return value(ask_about(@_)); }

sub wait_for_all
{
	my $ids = join ',', @_;
	$session->value("SELECT sixtyfour_wait_all('{$ids}', '60 s')");
	return;
}

sub state { return value("state FROM sixtyfour.jobs WHERE id = $_[0]"); }
sub wait_for_state
{
	my ($id, $state) = @_;
	$node->poll_query_until('postgres',
		"SELECT state = '$state' FROM sixtyfour.jobs WHERE id = $id")
	  or die "job $id does not become $state";
	return;
}

sub why { return value("sixtyfour_why($_[0])"); }
sub finish_tasks { return $mock->control('POST', 'tasks/all', { action => 'finish' }); }

# The people in the accepted requests of enrich_lead, in order
sub asked_about
{
	return [ map { $_->{body}{lead_info}{name} }
		  @{ $mock->ledger(path => '/enrich-lead-async', accepted => 1) } ];
}

# ---- what is sent ----

# Each function with all its arguments; $also goes to the asynchronous one only.
sub functions
{
	my ($also) = @_;
	my $struct    = q('{"title":"their title","age":{"description":"years","type":"int"}}');
	my $criterion = q('[{"criteria_name":"fit","description":"fits?","weight":1,"threshold":0.5}]');
	return (
		enrich_lead => qq('{"name":"Ada"}', $struct, 'look at the site', '{"tier":"low"}'$also),
		enrich_lead => q('{"lead_info":{"name":"Request"},"struct":{"title":"t"},"research_plan":null}'),
		enrich_company => qq('{"name":"Acme"}', $struct, '{"name":"their name"}', true, 'plan', 'sales', '{"tier":"low"}'$also),
		enrich_company => q('{"target_company":{"name":"Request"},"struct":{"size":"t"}}'),
		find_email => qq('{"name":"Ada","company":"Acme"}', 'PERSONAL', '{"verify_emails":true}'$also),
		find_phone => qq('{"name":"Ada","company":"Acme"}', '{"providers":["one"]}'$also),
		qa_agent => qq('{"name":"Ada"}', $criterion, '[{"url":"https://acme.test/","description":"site"}]', $struct, '{"max_tool_calls":3}'$also),
		qa_agent => qq('{"data":{"name":"Request"},"qualification_criteria":$criterion}') =~ s/:'(.*)'\}'$/:$1}'/r,
		enrich_dataframe => qq(E'name,company\\nAda,Acme\\n', 'phone'$also));
}

sub bodies
{
	my ($suffix) = @_;
	return [ sort map { ($_->{path} =~ s/\Q$suffix\E$//r) . ' ' . $json->encode($_->{body}) }
		  grep { $_->{method} eq 'POST' } @{ $mock->ledger(accepted => 1) } ];
}

my @sync = functions('');
while (my ($name, $arguments) = splice @sync, 0, 2)
{
	value("sixtyfour_$name($arguments)");
}
my $expected = bodies('');
is(scalar @$expected, 9, 'nine ways of asking');
$mock->reset;

my @async = functions(q(, 50, now()));
my @jobs;
while (my ($name, $arguments) = splice @async, 0, 2)
{
	push @jobs, value("sixtyfour_${name}_async($arguments)");
}
is("@jobs", join(' ', map { $jobs[0] + $_ } 0 .. 8), 'ids count up');
wait_for_all(@jobs);
is_deeply(bodies('-async'), $expected, 'asynchronous requests have the bodies of the synchronous ones');
is(value("string_agg(DISTINCT state, ' ') FROM sixtyfour.jobs"), 'succeeded', 'all of them were answered');
is_deeply([ sort map { $_->{path} } grep { $_->{method} eq 'POST' } @{ $mock->ledger } ],
	[ qw(/enrich-company-async /enrich-company-async /enrich-dataframe /enrich-lead-async /enrich-lead-async
		  /find-email-async /find-phone-async /qa-agent-async /qa-agent-async) ],
	'they went to the asynchronous paths, where there is one');
is(value("sixtyfour_wait($jobs[6]) -> 'structured_data' ->> 'title'"),
	value("answer -> 'structured_data' ->> 'title' FROM sixtyfour.results WHERE id = (SELECT result FROM sixtyfour.jobs WHERE id = $jobs[6])"),
	'the answer is the stored result');
like(value("sixtyfour_wait($jobs[8]) #>> '{csv_data}'"), qr/^name,company,phone\r\nAda,Acme,/,
	'an endpoint that answers at once gives its answer too');
is(value("priority FROM sixtyfour.jobs WHERE id = $jobs[0]"), 50, 'priority as given');
is(value("sixtyfour_find_email_async(NULL)"), undef, 'NULL asks nothing');
is(value("sixtyfour_find_email_bulk_async(NULL)"), undef, 'nor does a NULL bulk');
is(value("sixtyfour_find_email_bulk_async('[]')"), '{}', 'nor an empty one');
is(error_of(q(sixtyfour_find_email_async('{"name":"Ada"}', 'SECRET'))),
	error_of(q(sixtyfour_find_email('{"name":"Ada"}', 'SECRET'))),
	'bad arguments are refused with the same words');
is(error_of(q(sixtyfour_find_email_bulk_async('{"name":"Ada"}'))),
	'22023: "leads" must be a JSON array', 'a bulk takes an array');
is(error_of(q(sixtyfour_find_email_bulk_async('[{"name":"Ada"}, 7]'))),
	error_of(q(sixtyfour_find_email('7'))), 'of leads');
is(value('count(*) FROM sixtyfour.jobs'), 9, 'and nothing of that was queued');

# ---- order ----

value('sixtyfour_pause()');
my %order = map { $_ => ask("Priority $_", "priority => $_") } 300, 50, 100;
my $later = ask('Later', q(priority => 1, run_at => now() + interval '1 h'));
my $soon  = ask('Soon', q(priority => 1, run_at => now() + interval '1 s'));
is(why($order{50}), 'The queue of this database is paused until sixtyfour_resume().', 'why while paused');
value('sixtyfour_resume()');
wait_for_all(values %order, $soon);
is( value("string_agg(j.priority::text, ' ' ORDER BY c.id) FROM sixtyfour.jobs j JOIN sixtyfour.calls c ON c.id = j.call WHERE j.id IN ("
		  . join(',', values %order) . ')'),
	'50 100 300', 'smaller priorities go first');
is(value("c.created_at >= j.run_at FROM sixtyfour.jobs j JOIN sixtyfour.calls c ON c.id = j.call WHERE j.id = $soon"),
	't', 'a job is sent when it is due');
is(state($later), 'queued', 'and not before');
like(why($later), qr/^It is not due before \d{4}-.*\.$/, 'why of a job that is not due');
ok(!grep({ $_ eq 'Later' } @{ asked_about() }), 'the service has not seen it');
is(value("sixtyfour_cancel($later)"), 't', 'it can be cancelled');

# ---- bulk ----

# Eight bulks at once, told apart by an option; the rules make each odd.
sub leads
{
	my ($tag, $n) = @_;
	return $json->encode([ map { { name => "Lead $_ $tag", company => 'Acme' } } 1 .. $n ]);
}

sub bulk
{
	my ($tag, $n) = @_;
	my $ids = value(qq{sixtyfour_find_email_bulk_async('${\leads($tag, $n)}', options => '{"providers":["bulk $tag"]}')});
	return $ids =~ /\d+/g;
}

$mock->reset;
my %knobs = (
	array      => { bulk_shape => 'array' },
	results    => { bulk_shape => 'results', bulk_shuffle => JSON::PP::true },
	leads      => { bulk_shape => 'leads' },
	data       => { bulk_shape => 'data' },
	shuffled   => { bulk_shuffle => JSON::PP::true },
	unechoed   => { bulk_echo => JSON::PP::false },
	missing    => { bulk_missing => 2, bulk_shuffle => JSON::PP::true },
	unmatched  => { bulk_unmatched => 3 },
	senseless  => { result => { nothing => 'here' } },
	few        => {});
$mock->rule({ match => { body_contains => qq("bulk $_") }, %{ $knobs{$_} } }) foreach sort keys %knobs;
my %bulk = map { $_ => [ bulk($_, $_ eq 'few' ? 9 : 12) ] } sort keys %knobs;
my @many = value(qq{sixtyfour_find_phone_bulk_async('${\leads('many', 250)}')}) =~ /\d+/g;
is("@many", join(' ', map { $many[0] + $_ } 0 .. 249), '250 ids, in order');
is(value("string_agg(body #>> '{lead,name}', ',' ORDER BY id) FROM sixtyfour.jobs WHERE id = ANY ('{@{[join ',', @many]}}')"),
	join(',', map { "Lead $_ many" } 1 .. 250), 'each is of the lead at its place');
wait_for_all(@many, map { @$_ } values %bulk);

is_deeply([ sort { $a <=> $b } map { scalar @{ $_->{body}{leads} } } @{ $mock->ledger(path => '/find-phone-bulk-async') } ],
	[ 50, 100, 100 ], 'they travel in three requests');
is($mock->summary->{by_path}{'POST /find-email-bulk-async'}, 9, 'a bulk of twelve in one');
is($mock->summary->{by_path}{'POST /find-email-async'}, 9, 'fewer than ten each alone');
is_deeply($mock->summary->{duplicate_leads}, {}, 'nobody was asked about twice');

# "n,n,…" of the places whose answer is about the lead that was asked for
sub answered
{
	return value("coalesce(string_agg(place::text, ',' ORDER BY place), '') FROM unnest('{"
		  . join(',', @_) . "}'::bigint[]) WITH ORDINALITY u (id, place) JOIN sixtyfour.jobs USING (id)"
		  . " WHERE state = 'succeeded' AND body #>> '{lead,name}' = sixtyfour_result(id) ->> 'name'"
		  . " AND sixtyfour_best_email(sixtyfour_result(id)) LIKE 'lead.%\@acme.example'");
}

my $all = join ',', 1 .. 12;
is(answered(@{ $bulk{$_} }), $all, "answers in shape $_ find their leads")
  foreach qw(array results leads data shuffled);
is(answered(@many), '', 'phone answers have no address');
is(value("count(*) FROM sixtyfour.jobs WHERE id BETWEEN $many[0] AND $many[249] AND body #>> '{lead,name}' = sixtyfour_result(id) ->> 'name'"),
	250, 'but each is about its lead');
is(answered(@{ $bulk{few} }), '1,2,3,4,5,6,7,8,9', 'those that went alone are answered as well');

my $unclear = 'the answer to the bulk request has nothing that can be told to be about this lead';
is(answered(@{ $bulk{missing} }), join(',', 1 .. 10), 'items that are missing are not guessed');
is(error_of("sixtyfour_wait($bulk{missing}[11])"), "08P01: $unclear", 'their jobs fail and say so');
is(answered(@{ $bulk{unmatched} }), join(',', 4 .. 12), 'items about others are not taken');
is(error_of("sixtyfour_wait($bulk{unmatched}[0])"), "08P01: $unclear", 'their jobs fail too');
is(error_of("sixtyfour_wait($bulk{senseless}[$_])"), "08P01: $unclear", 'and so do all if there are no items')
  foreach 0, 11;
is(error_of("sixtyfour_wait($bulk{unechoed}[$_])"), "08P01: $unclear", 'nor does the place alone tell who is meant')
  foreach 0, 11;
is(value("raw::jsonb #>> '{result,nothing}' FROM sixtyfour.calls WHERE id = (SELECT call FROM sixtyfour.jobs WHERE id = $bulk{senseless}[0])"),
	'here', 'the answer is kept as it came');
is(value("count(*) FROM sixtyfour.calls WHERE raw IS NOT NULL"), 4, 'in those four cases');
is(value("sum(cents) FROM sixtyfour.calls WHERE operation = 'find_phone' AND items > 1"), 7500, 'what the calls cost is known');
is(value("sum(cents) FROM sixtyfour.results WHERE operation = 'find_phone' AND call IN (SELECT id FROM sixtyfour.calls WHERE items > 1)"),
	7500, 'and shared among the answers');

# one lead that the service refuses does not take the others of its request along
$mock->reset;
$mock->rule({ match => { path => '/find-email*', body_contains => '"Lead 5 refused"' }, status => 422 });
my @refused = bulk('refused', 12);
wait_for_all(@refused);
is(value("string_agg(state, ' ' ORDER BY id) FROM sixtyfour.jobs WHERE id = ANY ('{@{[join ',', @refused]}}')"),
	join(' ', map { $_ == 5 ? 'failed' : 'succeeded' } 1 .. 12), 'one of twelve is refused');
is(value("sqlstate FROM sixtyfour.jobs WHERE id = $refused[4]"), '22023', 'and says so');
is($mock->summary->{by_path}{'POST /find-email-bulk-async'} . ' ' . $mock->summary->{by_path}{'POST /find-email-async'}, '1 12', 'each was tried alone, once');
is_deeply($mock->summary->{duplicate_leads}, {}, 'nobody was asked about twice');

# ---- every state ----

my $timeout = [ '57014', 'canceling wait due to its timeout', '',
	'The jobs go on; wait again, or fetch the answers with sixtyfour_result().' ];

sub is_unfinished
{
	my ($id, $state, $why) = @_;
	is(state($id), $state, "$state: the state");
	is_deeply(error_parts("sixtyfour_wait($id, '50 ms')"), $timeout, "$state: a wait ends with its timeout");
	is_deeply(error_parts("sixtyfour_wait_all('{$id}', '50 ms')"), $timeout, "$state: and so does one for all");
	is(value("sixtyfour_result($id)"), undef, "$state: no result");
	like(why($id), $why, "$state: why");
	is(value("sixtyfour_retry($id)"), 'f', "$state: nothing to retry");
	return;
}

sub is_cancelled
{
	my ($id, $what) = @_;
	is(value("sixtyfour_cancel($id)"), 't', "$what can be cancelled");
	is(value("sixtyfour_cancel($id)"), 'f', 'once');
	is(state($id), 'cancelled', 'and is cancelled');
	is(error_of("sixtyfour_wait($id)"), "57014: job $id was cancelled", 'which a wait says');
	is(value("sixtyfour_wait_all('{$id}')"), '', 'one for all just returns');
	is(value("sixtyfour_result($id)"), undef, 'there is no result');
	is(why($id), 'It was cancelled.', 'why');
	return;
}

$mock->reset;
value('sixtyfour_pause()');
my $job = ask('Waiting');
is_unfinished($job, 'queued', qr/^The queue of this database is paused until sixtyfour_resume\(\)\.$/);
is_cancelled($job, 'a queued job');
value('sixtyfour_resume()');

$mock->rule({ match => { body_contains => 'Sending' }, hold => JSON::PP::true });
$job = ask('Sending');
$mock->wait_for(held => 1);
is_unfinished($job, 'sending', qr/^Its request is on the way to the service\.$/);
is_cancelled($job, 'one that is being sent');
$mock->control('POST', 'release');

$mock->settings({ task_seconds => undef });
my $running = ask('Running');
wait_for_state($running, 'running');
my $call = value("call FROM sixtyfour.jobs WHERE id = $running");
is_unfinished($running, 'running', qr/^The service works on it, as call $call\.$/);
is_cancelled($running, 'one that runs');
is(value("sixtyfour_retry($running)"), 't', 'a cancelled one can be asked again');
wait_for_state($running, 'running');
is(value("call FROM sixtyfour.jobs WHERE id = $running"), $call, 'it joins the call that runs');
is_cancelled($running, 'that');
my $failing = ask('Failing');
wait_for_state($failing, 'running');
my $task = value("task_id FROM sixtyfour.calls WHERE id = (SELECT call FROM sixtyfour.jobs WHERE id = $failing)");
$mock->control('POST', "tasks/$task", { action => 'fail', error => 'nobody knows them' });
finish_tasks();
$mock->settings({ task_seconds => 0.2 });
is_deeply(error_parts("sixtyfour_wait($failing)"),
	[ '38000', 'the service could not do it: nobody knows them', "Job $failing failed.", '' ],
	'failed: a wait raises the error');
is(value("sixtyfour_wait_all('{$failing}')"), '', 'failed: one for all returns');
is(value("sixtyfour_result($failing)"), undef, 'failed: no result');
is(why($failing), 'It failed: the service could not do it: nobody knows them.', 'failed: why');
is(value("sixtyfour_cancel($failing)"), 'f', 'failed: nothing to cancel');
is(value("state || ' ' || cents FROM sixtyfour.calls WHERE id = (SELECT call FROM sixtyfour.jobs WHERE id = $failing)"),
	'failed 0', 'failed: the call says what the service charged');
is(value("sixtyfour_retry($failing)"), 't', 'failed: it can be asked again');
is(value("sixtyfour_wait($failing) -> 'structured_data' ? 'title'"), 't', 'and has its answer then');
is(state($failing), 'succeeded', 'succeeded: the state');
is(why($failing), 'It succeeded.', 'succeeded: why');
is(value("sixtyfour_result($failing) = sixtyfour_wait($failing)"), 't', 'succeeded: result and wait give the same');
is(value("sixtyfour_cancel($failing)::text || sixtyfour_retry($failing)"), 'falsefalse', 'succeeded: nothing to cancel or retry');

# what was paid for is kept, though the jobs that asked are gone
$node->poll_query_until('postgres', "SELECT state = 'done' FROM sixtyfour.calls WHERE id = $call");
is(value("count(*) FROM sixtyfour.results WHERE call = $call"), 1, 'the answer to a cancelled job is stored');
my $seen = $mock->summary->{accepted};
is(value("sixtyfour_wait($_) -> 'structured_data' ? 'title'"), 't', 'and answers the same question')
  foreach ask('Running'), ask('Sending');
is($mock->summary->{accepted}, $seen, 'without a request');
is_deeply(asked_about(), [ qw(Sending Running Failing Failing) ], 'a job cancelled in time was never sent');

foreach my $function (qw(wait result cancel retry why))
{
	is(error_of("sixtyfour_$function(123456789)"), '42704: job 123456789 does not exist', "$function of an unknown job");
	is(value("sixtyfour_$function(NULL)"), undef, "$function of NULL");
}
is(error_of("sixtyfour_wait_all('{$failing,123456789}')"), '42704: job 123456789 does not exist', 'wait for all of unknown ones');
is(value("sixtyfour_wait_all('{$failing,NULL}')"), '', 'NULLs are not waited for');
is(value("sixtyfour_wait_all('{}')"), '', 'nor is nobody');

# ---- transactions ----

$mock->reset;
$session->value('BEGIN');
my $gone = ask('Rolled back');
$session->value('ROLLBACK');
is(error_of("sixtyfour_wait($gone)"), "42704: job $gone does not exist", 'ROLLBACK takes a job back');

$session->value('BEGIN');
my $mine = ask('Mine');
is_deeply(error_parts("sixtyfour_wait($mine)"),
	[ '55000', "job $mine was queued by this transaction",
		'It is sent when the transaction commits, so waiting for it would never end.', 'Commit first.' ],
	'a job of the same transaction cannot be waited for');
$session->value('ROLLBACK');

$session->value('BEGIN');
my $kept = ask('Kept');
$session->value('SAVEPOINT s');
$gone = ask('Rolled back to a savepoint');
$session->value('ROLLBACK TO s');
my $released = ask('Released');
$session->value('RELEASE s');
is(why($released), 'It is sent when this transaction commits.', 'why of a job of this transaction');
$session->value('SAVEPOINT w');
is(error_of("sixtyfour_wait($released)"), "55000: job $released was queued by this transaction", 'nor one of a savepoint');
$session->value('ROLLBACK TO w');
is(error_of("sixtyfour_wait_all('{$kept}')"), "55000: job $kept was queued by this transaction", 'nor by a wait for all');
$session->value('ROLLBACK TO w');
is($mock->summary->{requests}, 0, 'nothing is sent before the commit');
$session->value('COMMIT');

$session->value('BEGIN');
my $prepared = ask('Prepared');
$session->value("PREPARE TRANSACTION 'one'");
$session->value('BEGIN');
ask('Prepared and rolled back');
$session->value("PREPARE TRANSACTION 'two'");
$session->value("ROLLBACK PREPARED 'two'");
wait_for_all($kept, $released);
is_deeply([ sort @{ asked_about() } ], [ qw(Kept Released) ], 'what was committed is sent, and nothing else');
$other->value("COMMIT PREPARED 'one'");
like(value("sixtyfour_wait($prepared)"), qr/structured_data/, 'what was prepared is sent when that is committed');
is_deeply([ sort @{ asked_about() } ], [ qw(Kept Prepared Released) ], 'and only then');

# one who only looks at a job in vain must not leave it behind
$session->value('SELECT sixtyfour_pause()');
my $held = ask('Held');
$session->value('BEGIN');
is(value("sixtyfour_cancel($held)"), 't', 'a job is cancelled in a transaction');
$other->value('SELECT sixtyfour_resume()');
my $free = $other->value("SELECT ${\ask_about('Not held')}");
wait_for_state($free, 'running');
$session->value('ROLLBACK');
like(value("sixtyfour_wait($held, '30 s')"), qr/structured_data/, 'which is rolled back: it is sent');


# waits see the end, also with an older snapshot
my %older = map { $_ => SixtyfourTest::Session->new($node) }
  'REPEATABLE READ', 'SERIALIZABLE', 'REPEATABLE READ READ ONLY';
foreach my $level (sort keys %older)
{
	$older{$level}->value("BEGIN ISOLATION LEVEL $level");
	$older{$level}->value('SELECT count(*) FROM sixtyfour.jobs');
}
$job = ask('Later than a snapshot');
foreach my $level (sort keys %older)
{
	my $old = $older{$level};
	like($old->value("SELECT sixtyfour_wait($job, '30 s')"), qr/structured_data/, "$level: a wait sees the end");
	is($old->value("SELECT sixtyfour_wait_all('{$job}')"), '', "$level: one for all as well");
	like($old->value("SELECT sixtyfour_result($job)"), qr/structured_data/, "$level: and so does the result");
	is($old->value("SELECT count(*) FROM sixtyfour.jobs WHERE id = $job"), 0, "$level: which the views do not");
	$old->close;
}

# ---- who may what ----

$session->value(q(
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN;
	CREATE ROLE boss LOGIN IN ROLE alice;
	CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
	CREATE ROLE poor LOGIN;
	GRANT USAGE ON FOREIGN SERVER sixtyfour TO alice, bob;
));
$session->value('CREATE DATABASE hers OWNER alice');
my %who = map { $_ => SixtyfourTest::Session->new($node, user => $_) } qw(alice bob boss watcher poor);

sub as { my ($who, $expression) = @_; return $who{$who}->value("SELECT $expression"); }
sub seen_by { return as($_[0], "string_agg($_[1]::text, ',' ORDER BY $_[1]) FROM sixtyfour.$_[2]"); }

# two roles with one key, asking at the same moment: one call
$mock->reset;
value('sixtyfour_pause()');
my %shared = map { $_ => as($_, ask_about('Shared')) } qw(alice bob);
my $twice  = ask('Shared');
value('sixtyfour_resume()');
my $hers = as('alice', ask_about('Hers'));
wait_for_all($twice, $hers, values %shared);
is(as('alice', "sixtyfour_wait($shared{alice})"), as('bob', "sixtyfour_wait($shared{bob})"), 'two roles with one key share an answer');
is(value("count(DISTINCT call) || ' ' || count(DISTINCT result) FROM sixtyfour.jobs WHERE id IN ($twice, $shared{alice}, $shared{bob})"),
	'1 1', 'of one call');
is_deeply([ sort @{ asked_about() } ], [ qw(Hers Shared) ], 'the service was asked once');

is(seen_by('alice', 'id', 'jobs'), "$shared{alice},$hers", 'a role sees its jobs');
is(seen_by('bob', 'id', 'jobs'), $shared{bob}, 'each its own');
is(seen_by('boss', 'id', 'jobs'), "$shared{alice},$hers", 'and those of roles it is a member of');
is(seen_by('poor', 'id', 'jobs'), undef, 'or none');
is(as('alice', 'count(*) FROM sixtyfour.calls'), 2, 'the calls of its jobs');
is(as('bob', 'count(*) FROM sixtyfour.calls'), 1, 'each its own');
is(as('bob', 'count(*) FROM sixtyfour.results'), 1, 'and the results');
is(as('poor', 'count(*) FROM sixtyfour.results'), 0, 'or none');
foreach my $view (qw(jobs calls results attention))
{
	is(as('watcher', "count(*) FROM sixtyfour.$view"), value("count(*) FROM sixtyfour.$view"), "pg_monitor sees all $view");
}
foreach my $function (qw(wait result cancel retry why))
{
	is(error_of("sixtyfour_$function($hers)", $who{$_}), "42501: permission denied for job $hers", "$function of another role's job, by $_")
	  foreach qw(bob watcher);
}
is(error_of("sixtyfour_wait_all('{$shared{bob},$hers}')", $who{bob}), "42501: permission denied for job $hers", 'wait for all of them');
is(as('boss', "sixtyfour_why($hers)"), 'It succeeded.', 'a member may');
foreach my $table (qw(state job call call_item result enrichment))
{
	is(error_of("1 FROM sixtyfour.$table", $who{$_}), "42501: permission denied for table $table", "$_ cannot read table $table")
	  foreach qw(alice watcher);
}
is($who{alice}->query('UPDATE sixtyfour.jobs SET priority = 1')->{error}{sqlstate}, '42501', 'a view is not written to');
is(error_of(ask_about('Poor'), $who{poor}), '42501: permission denied for foreign server sixtyfour', 'without USAGE nothing is queued');
foreach my $function (qw(pause resume))
{
	is(error_of("sixtyfour_$function()", $who{alice}), '42501: must be owner of the database to pause or resume its queue', "$function by another role");
}

# ---- the same question ----

# of another key it is another question
$session->value("CREATE USER MAPPING FOR alice SERVER sixtyfour OPTIONS (api_key 'api_alice')");
$mock->reset;
$mock->settings({ task_seconds => undef });
my @same = (ask('Same'));
wait_for_state($same[0], 'running');
push @same, ask('Same'), as('bob', ask_about('Same'));
my $separate = as('alice', ask_about('Same'));
wait_for_state($_, 'running') foreach @same, $separate;
is(value("count(DISTINCT call) FROM sixtyfour.jobs WHERE id IN (" . join(',', @same) . ')'), 1, 'asked while it runs: the call is joined');
isnt(value("call FROM sixtyfour.jobs WHERE id = $separate"), value("call FROM sixtyfour.jobs WHERE id = $same[0]"), 'but not with another key');
finish_tasks();
$mock->settings({ task_seconds => 0.2 });
wait_for_all(@same, $separate);
is(value("sixtyfour_result($same[0]) = sixtyfour_result($same[1])"), 't', 'both have the answer');
is_deeply([ map { $_->{key_sha256} } @{ $mock->ledger(path => '/enrich-lead-async', accepted => 1) } ],
	[ map { value("encode(sha256('$_'), 'hex')") } qw(api_good api_alice) ], 'each key has paid for its own');
is($mock->summary->{accepted}, 2 + @{ $mock->ledger(path => '/job-status/*') }, 'and nothing else was accepted');

$seen = @{ asked_about() };
my @again = (ask('Same'), as('bob', ask_about('Same')), as('alice', ask_about('Same')));
wait_for_all(@again);
is(value("string_agg(coalesce(call::text, 'none'), ' ') FROM sixtyfour.jobs WHERE id IN (" . join(',', @again) . ')'),
	'none none none', 'asked after it has ended: the stored results answer');
is(value("count(DISTINCT result) FROM sixtyfour.jobs WHERE id IN (" . join(',', @again[0, 1]) . ')'), 1, 'one for the first key');
is(value("count(DISTINCT result) FROM sixtyfour.jobs WHERE id IN (" . join(',', @again) . ')'), 2, 'another for the second');
is(scalar @{ asked_about() }, $seen, 'nothing is asked');
$session->value(q(SET sixtyfour.cache_ttl = '2 s'; UPDATE sixtyfour.result SET created_at = created_at - interval '1 min'));
push @again, ask('Same');
$session->value('SET sixtyfour.cache_ttl = 0');
push @again, ask('Shared');
$session->value('RESET sixtyfour.cache_ttl');
wait_for_all(@again);
is(scalar @{ asked_about() }, $seen + 2, 'a result that is too old, or is not to be used, is asked for again');

# ---- waiting for others ----

$mock->reset;

# two databases at once, the other one of an owner who is no superuser
SixtyfourTest::install($node, 'hers', $mock, server => "requests_per_minute '0'");
my $her = SixtyfourTest::Session->new($node, database => 'hers', user => 'alice');
my $super = SixtyfourTest::Session->new($node, database => 'hers');
$super->value('GRANT USAGE ON FOREIGN SERVER sixtyfour TO alice');
$her->value('SELECT sixtyfour_pause()');
my $there = $her->value('SELECT ' . ask_about('There'));
is($her->value("SELECT sixtyfour_why($there)"), 'The queue of this database is paused until sixtyfour_resume().', 'the owner of a database can pause its queue');

# one slow answer does not hold back ten fast ones
$mock->rule({ match => { body_contains => 'Slow' }, task_seconds => undef });
$mock->rule({ match => { body_contains => 'Sluggish' }, hold => JSON::PP::true });
my @slow = (ask('Slow'), ask('Sluggish'));
my @fast = map { ask("Fast $_") } 1 .. 10;
wait_for_all(@fast);
wait_for_state($slow[0], 'running');
is(state($slow[1]), 'sending', 'ten fast answers overtake a slow task and a slow reply');

# while tasks run, the worker holds nothing back
my $worker = "FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker' AND datname = 'postgres'";
$session->value('CREATE TABLE dead AS SELECT generate_series(1, 100) AS n');
$session->value('DELETE FROM dead');
ok($node->poll_query_until('postgres', "SELECT backend_xmin IS NULL AND xact_start IS NULL AND wait_event_type = 'Extension' $worker"),
	'a worker that waits for the service has no transaction');
my $notices = $session->query('VACUUM (VERBOSE) dead')->{notices};
ok(grep({ $_->{message} =~ /100 removed/ } @$notices), 'dead rows can be removed') or diag explain $notices;

is($her->value("SELECT state FROM sixtyfour.jobs WHERE id = $there"), 'queued', 'which pauses no other one');
$her->value('SELECT sixtyfour_resume()');
like($her->value("SELECT sixtyfour_wait($there, '30 s')"), qr/structured_data/, 'the owner can resume it');
is(value("string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker'"),
	'hers postgres', 'each has its worker');
$mock->control('POST', 'release');
finish_tasks();
wait_for_all(@slow);
is_deeply($mock->summary->{duplicates}, {}, 'nothing was asked twice');

# ---- a wait that looks often, or at much ----

# Bytes that a session has allocated while it waits
sub memory_of
{
	my ($waiter) = @_;
	my $from = -s $node->logfile;

	$node->poll_query_until('postgres', "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = ${\$waiter->pid}");
	value("pg_log_backend_memory_contexts(${\$waiter->pid})");
	$node->wait_for_log(qr/Grand total: \d+ bytes/, $from);
	return slurp_file($node->logfile, $from) =~ /Grand total: (\d+) bytes/ ? $1 : die;
}

sub ask_long
{
	my ($n, $size) = @_;
	return value(qq{string_agg(sixtyfour_enrich_lead_async(jsonb_build_object('name', 'Long ' || n, 'cv', repeat('x', $size)), '{"title":"their title"}',
		run_at => now() + interval '1 h')::text, ',') FROM generate_series(1, $n) n});
}

my $waiter = SixtyfourTest::Session->new($node);
my $long   = ask_long(60, 1_000_000);
$waiter->send("SELECT sixtyfour_wait_all('{$long}')");
cmp_ok(memory_of($waiter), '<', 20_000_000, 'a wait for many does not keep what it has looked at');
$session->value("SELECT sixtyfour_cancel(id) FROM unnest('{$long}'::bigint[]) id");
ok(!$waiter->receive->{error}, 'it ends with them');

$long = ask_long(1, 4_000_000);
$waiter->send("SELECT sixtyfour_wait($long)");
foreach my $n (1 .. 15)
{
	memory_of($waiter);
	wait_for_all(value("sixtyfour_enrich_dataframe_async(E'name\\nAwake $n\\n', 'phone')"));
}
cmp_ok(memory_of($waiter), '<', 20_000_000, 'nor does one for one job, however often it is woken');
value("sixtyfour_cancel($long)");
is($waiter->receive->{error}{message}, "job $long was cancelled", 'it ends with it');
$waiter->close;

# ---- many ----

my $many = SixtyfourTest::slow() ? 500 : 20000;
is( value(qq{count(DISTINCT id) || ' ' || max(id) - min(id) FROM (SELECT sixtyfour_find_email_async(jsonb_build_object('name', 'Many ' || n), run_at => now() + interval '1 h') AS id FROM generate_series(1, $many) n) s}),
	"$many " . ($many - 1), 'many jobs in one statement');
value('sixtyfour_pause()');
my @bulk = value(qq{sixtyfour_find_email_bulk_async((SELECT jsonb_agg(jsonb_build_object('name', 'More ' || n)) FROM generate_series(1, $many) n))}) =~ /\d+/g;
is(scalar @bulk, $many, 'or in one array');
$session->close;
$node->stop;

# ---- not preloaded ----

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->start;
$session = SixtyfourTest::Session->new($node);
my $reply = $session->query('SELECT ' . ask_about('Nobody works'));
is_deeply([ map { "$_->{severity}: $_->{sqlstate}: $_->{message}: $_->{hint}" } @{ $reply->{notices} } ],
	[ 'WARNING: 55000: jobs are queued, but nobody works on them: Add sixtyfour to "shared_preload_libraries" and restart the server.' ],
	'without a worker a job is queued with a warning');
$job = $reply->{rows}[0][0];
is_deeply($session->query('SELECT ' . ask_about('Nobody works'))->{notices}, [], 'once per session');
is(why($job), 'Nobody works on it: sixtyfour is not in shared_preload_libraries.', 'why');
is_deeply(error_parts("sixtyfour_wait($job)"),
	[ '55000', "nobody works on job $job", '', 'Add sixtyfour to "shared_preload_libraries" and restart the server.' ],
	'it cannot be waited for');
is(error_of("sixtyfour_wait_all('{$job}')"), "55000: nobody works on job $job", 'in no way');
like(value("sixtyfour_wait($fast[0])"), qr/structured_data/, 'what is finished can');
is(value("sixtyfour_result($job)"), undef, 'no result');
is(value("sixtyfour_cancel($job)"), 't', 'it can be cancelled');

done_testing();
