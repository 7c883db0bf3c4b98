# Faults at every step of a submission and of the way home: processes that are
# killed, run out of memory or exit at named points (src/fault.h), servers that
# stop, and a network and a service that go wrong in the mock's ways.
# Afterwards the mock's ledger is the witness: no question was accepted twice
# unless a person wanted it, every accepted task has its answers or stands in
# sixtyfour.attention, and every answer is in its row or says why not.
#
# SIXTYFOUR_FAULTS is how many faults there are to be (1000), SIXTYFOUR_SEED
# repeats a run's choices.
use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use JSON::PP;
use List::Util qw(max shuffle sum0);
use Test::More;
use Time::HiRes qw(time);

use PostgreSQL::Test::Utils;
use SixtyfourTest;

plan skip_all => 'times mean nothing here' if SixtyfourTest::slow();

my $target = $ENV{SIXTYFOUR_FAULTS} // 1000;
my $seed = $ENV{SIXTYFOUR_SEED} // int(time) % 100000;
srand $seed;
note "SIXTYFOUR_SEED=$seed SIXTYFOUR_FAULTS=$target";

# The points, and what can go wrong there; those of imports have a test of their
# own (072_import.pl).  Between T1's commit and the start
# of its requests nothing is done that could raise an error.
my %points = (
	'enqueue'          => [qw(kill error)],
	't1-inside'        => [qw(kill error)],
	't1-after'         => [qw(kill exit)],
	'send'             => [qw(kill error)],
	'sent'             => [qw(kill error exit)],
	'reply-read'       => [qw(kill error exit)],
	'resend'           => [qw(kill error exit)],
	't2-inside'        => [qw(kill error)],
	't2-after'         => [qw(kill error)],
	'poll'             => [qw(kill error)],
	'poll-read'        => [qw(kill error)],
	't3-inside'        => [qw(kill error exit)],
	't3-after'         => [qw(kill error)],
	't4-before'        => [qw(kill error)],
	't4-inside'        => [qw(kill error exit)],
	't4-before-commit' => [qw(kill error)],
	't4-after'         => [qw(kill error)],
	'take-over'        => [qw(kill error)],
	'taken-over'       => [qw(kill error)],
	'drain'            => [qw(kill error)],
	'named'            => [qw(kill error)],
	'proven'           => [qw(kill error)],
	'cancel'           => [qw(kill error)],
	'resolve'          => [qw(kill error)]);

# ---- the points in the sources ----

my $top = abs_path(dirname(__FILE__) . '/../..');
my %named;
foreach my $source (glob "$top/src/*.c")
{
	my $text = slurp_file($source);
	while ($text =~ /S64_FAULT\((.*)\);/g)
	{
		my $names = $1;
		$named{$1} = 1 while $names =~ /"([a-z0-9-]+)"/g;
	}
}
is_deeply([ grep { !/^import-/ } sort keys %named ], [ sort keys %points ], 'the points are those in the sources');

# ---- the service, and its faults ----

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $true = JSON::PP::true;
my $json = JSON::PP->new->canonical;

# of submissions, by a mark in the name of who is asked about
my %faults = (
	(map { $_ => { fault => $_ } } qw(close_after_body reset_after_body close_reused hang cut
		  cut_headers bad_chunk wrong_content_length not_json empty invalid_utf8 nul bad_surrogate wrong_shape duplicate_reply_headers
		  unasked_gzip connection_close redirect)),
	bill500 => { status => 500, accept => $true },
	bill504 => { status => 504, accept => $true },
	free502 => { status => 502 },
	free503 => { status => 503 },
	odd409  => { status => 409, accept => $true },
	bad422  => { status => 422 },
	no_task => { answer => { status => 'RUNNING' } },
	limit   => { status => 429, headers => { 'Retry-After' => '0' }, chance => 0.6 });

# of searches, which the service knows again when they are sent again, by chance
my @search_faults = (
	(map { [ 0.1, { fault => $_ } ] } qw(close_after_body cut not_json)),
	[ 0.05, { fault => 'hang' } ], [ 0.1, { status => 500, accept => $true } ], [ 0.05, { status => 503 } ]);

# before the body is read, by chance
my @early_faults = qw(close_before_body hang_before_body);

# of polls, by chance: seldom those that are taken at their word in the end
my @poll_faults = (
	(map { [ 0.04, { fault => $_ } ] } qw(close_after_body reset_after_body cut bad_chunk close_before_body)),
	(map { [ 0.01, { fault => $_ } ] } qw(not_json empty wrong_shape nul)),
	[ 0.04, { status => 500 } ], [ 0.04, { status => 503 } ], [ 0.01, { status => 404 } ],
	[ 0.01, { status => 429, headers => { 'Retry-After' => '0' } } ]);

sub set_rules
{
	my $n = 0;
	foreach my $fault (@early_faults)
	{
		$mock->rule({ match => { path => '/*-async', probability => 0.02, seed => $seed + ++$n }, fault => $fault });
	}
	foreach my $name (sort keys %faults)
	{
		my %rule = %{ $faults{$name} };
		my $chance = delete $rule{chance};
		$mock->rule({ match => { method => 'POST', body_contains => "~$name~",
					defined $chance ? (probability => $chance, seed => $seed) : () }, %rule });
	}
	foreach my $fault (@search_faults)
	{
		$mock->rule({ match => { path => '/search/start-deep-search', probability => $fault->[0], seed => $seed + ++$n },
				%{ $fault->[1] } });
	}
	foreach my $path (qw(/job-status/* /search/deep-search-status/*))
	{
		foreach my $fault (@poll_faults)
		{
			$mock->rule({ match => { path => $path, probability => $fault->[0], seed => $seed + ++$n },
					%{ $fault->[1] } });
		}
	}
	return;
}

# how often each fault was, by its name
sub network_faults
{
	my %count;
	foreach my $rule (@{ $mock->control('GET', 'rules') })
	{
		my $given = $rule->{rule} // $rule;
		my $what = ($given->{match}{path} // '') =~ /status/ ? 'poll' : 'submission';
		$count{ "$what " . ($given->{fault} // $given->{status} // 'no_task') } += $rule->{applied};
	}
	return \%count;
}

# ---- the server ----

my $node = SixtyfourTest::cluster('chaos', $mock, start => 0, route => 'worker',
	conf => SixtyfourTest::fault_settings() . "restart_after_crash = on\n");
$node->start;
SixtyfourTest::install($node, 'postgres', $mock, server => "requests_per_minute '0', timeout '2'");
my $folder = SixtyfourTest::fault_folder($node);

my $session = SixtyfourTest::Session->new($node);
my (%resubmitted, %abandoned, %stopped);
my $names = 0;

$mock->settings({ latency => 10, task_seconds => 0.3, quirks => 'none', found => 'all', keep_tasks => 1000000, keep_entries => 10000000 });
set_rules();
$session->value(q{
	CREATE TABLE people (id bigint PRIMARY KEY, name text, email text, writes int DEFAULT 0);
	CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN NEW.writes := OLD.writes + 1; RETURN NEW; END$$;
	CREATE TRIGGER t BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION count_writes();
	SELECT sixtyfour_create_enrichment('mail', 'people', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
});

# Run something that a fault may end; returns its rows.  Nothing if it failed,
# and then there may be a new session.
sub try_rows
{
	my ($sql) = @_;
	my $reply = eval { $session->query($sql) };

	return $reply->{rows} if $reply && !$reply->{closed} && !$reply->{error};
	reconnect();
	return;
}

# The same for a value; '' for NULL
sub attempt
{
	my $rows = try_rows($_[0]) or return;
	return @$rows ? $rows->[0][0] // '' : '';
}

sub reconnect
{
	return if eval { $session->value('SELECT 1') };
	SixtyfourTest::poll_until(sub { $session = eval { SixtyfourTest::Session->new($node) } })
	  or die 'the server does not come back';
	return;
}

# For certain
sub rows
{
	my ($sql) = @_;
	foreach (1 .. 20)
	{
		my $rows = try_rows($sql);
		return $rows if $rows;
	}
	die "$sql: " . join " ", explain $session->query($sql);
}

sub value { return rows("SELECT $_[0]")->[0][0]; }

# Look often, but not for long
sub wait_a_while
{
	my ($condition) = @_;
	my $until = time + 3;
	SixtyfourTest::poll_until(sub { $condition->() || time > $until });
	return;
}

# ---- what is asked ----

sub pick { return $_[ rand @_ ]; }

# A name that nobody had before, at times with a fault's mark
sub name
{
	my ($chance) = @_;
	my @marks = sort keys %faults;
	$names++;
	return rand() < $chance ? "N$names ~" . pick(@marks) . '~' : "N$names";
}

my @plain;	# names without a mark, which may be asked about again

sub ask_lead
{
	my ($name) = @_;
	push @plain, $name unless $name =~ /~/;
	return attempt(qq{SELECT sixtyfour_enrich_lead_async('{"name":"$name"}', '{"title":"title"}')});
}

sub ask_bulk
{
	my $leads = $json->encode([ map { { name => name(0.02) } } 1 .. 12 ]);
	return attempt("SELECT sixtyfour_find_email_bulk_async('$leads')");
}

sub add_rows
{
	my ($n) = @_;
	my $values = join ', ', map { my $name = name(0.1); "($names, '$name')" } 1 .. $n;
	attempt("INSERT INTO people VALUES $values");
	attempt("DELETE FROM people WHERE id = $names") if rand() < 0.2;
	return;
}

# A synchronous call, which may be given up before there is an answer
sub ask_at_once
{
	my $name = name(0.3);
	my $patience = int rand 2000;

	attempt("SET statement_timeout = @{[ 1 + $patience ]}");
	attempt(qq{SELECT sixtyfour_find_phone('{"name":"$name"}')});
	attempt('RESET statement_timeout');
	return;
}

sub search { return attempt("SELECT sixtyfour_search_async('N@{[ ++$names ]}')"); }

# enough for every step to be taken
sub ask
{
	my ($leads) = @_;
	ask_lead(name(0.6)) foreach 1 .. $leads;
	ask_lead(pick(@plain)) if @plain;
	ask_bulk() if rand() < 0.4;
	add_rows(3);
	attempt(qq{SELECT sixtyfour_enrich_dataframe_async(E'name,company\\n${\name(0.3)},Acme\\n', 'phone')}) if rand() < 0.5;
	ask_at_once() if rand() < 0.3;
	search() if rand() < 0.5;
	attempt(q{SELECT sixtyfour_cancel(max(id)) FROM sixtyfour.job WHERE enrichment IS NULL AND state IN ('queued', 'sending', 'running')}) if rand() < 0.2;
	return;
}

# ---- people who decide ----

# "operation name" of accepted questions => [their tasks' ids]
sub accepted
{
	my %tasks;
	foreach my $entry (@{ $mock->ledger(method => 'POST', accepted => 1) })
	{
		my $operation = $entry->{path} =~ m{^/search/} ? 'search' : $entry->{path} =~ s{^/|-bulk|-async}{}gr =~ tr/-/_/r;
		my $body = $entry->{body};
		my @who = $body->{csv_data} ? $body->{csv_data} =~ /\n([^,]+),/ : $body->{query} ? $body->{query}
		  : map { $_->{name} } @{ $body->{leads} // [ $body->{lead} // $body->{lead_info} ] };
		foreach my $question (map { "$operation $_" } @who)
		{
			# what the service knew again is the same task
			push @{ $tasks{$question} }, $entry->{task_id}
			  unless defined $entry->{task_id} && grep { defined && $_ eq $entry->{task_id} } @{ $tasks{$question} // [] };
		}
	}
	return \%tasks;
}

my $asked_about = q{coalesce(j.body #>> '{lead,name}', j.body #>> '{lead_info,name}', substring(j.body ->> 'csv_data' FROM '\n([^,]+),'), j.body ->> 'query')};

sub uncertain_calls
{
	my ($limit) = @_;
	return @{ rows("SELECT c.id, c.operation, array_to_json(array_agg(DISTINCT $asked_about))
		FROM sixtyfour.call c JOIN sixtyfour.call_item i ON i.call = c.id JOIN sixtyfour.job j USING (fingerprint)
		WHERE c.state IN ('uncertain', 'expired') GROUP BY c.id ORDER BY c.id LIMIT $limit") };
}

# The last task that was made of all of these questions: parts of them may have
# been asked about before, with others
sub common_task
{
	my ($first, @others) = @_;
	foreach my $task (grep { defined } reverse @$first)
	{
		return $task unless grep { !grep { defined && $_ eq $task } @$_ } @others;
	}
	return;
}

# What a person does who sees the service's tasks: names them, and submits
# again what has none.  Some do not look, and some give up.
sub resolve
{
	my ($limit, $careless) = @_;
	my @calls = uncertain_calls($limit) or return;
	my $accepted = accepted();
	foreach my $call (@calls)
	{
		my ($id, $operation, $who) = @$call;
		my @questions = map { "$operation $_" } @{ $json->decode($who) };
		my $task = common_task(map { $accepted->{$_} // [] } @questions);
		my $action = rand() < $careless ? pick(qw(resubmit abandon)) : $task // 'resubmit';

		# whatever becomes of the attempt, it may have been heard
		$resubmitted{$_}++ foreach $action eq 'resubmit' ? @questions : ();
		$abandoned{$_}++ foreach $action eq 'abandon' ? @questions : ();
		attempt("SELECT sixtyfour_resolve($id, '$action')");
	}
	return;
}

sub wait_for_uncertain
{
	ask_lead("N@{[ ++$names ]} ~close_after_body~");
	wait_a_while(sub { value(q(count(*) FROM sixtyfour.call WHERE state = 'uncertain')) > 0 });
	return;
}

sub terminate_worker
{
	attempt(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker'));
	return;
}

# How a process is brought to those points where it does not come by itself
my %bring = (
	'resend'     => sub { search() foreach 1 .. 4; },
	'cancel'     => sub { attempt('SELECT sixtyfour_cancel(' . (ask_lead(name(0)) || 0) . ')'); },
	'resolve'    => sub { wait_for_uncertain(); resolve(2, 0); },
	'named'      => sub { wait_for_uncertain(); resolve(100, 0); },
	'proven'     => sub { wait_for_uncertain(); resolve(100, 0); },
	'take-over'  => \&terminate_worker,
	'taken-over' => \&terminate_worker,
	'drain'      => sub {
		ask_lead("N@{[ ++$names ]} ~hang~");
		wait_a_while(sub { $mock->summary->{in_flight} > 0 });
		terminate_worker();
	});

# ---- faults of processes ----

sub hits { return scalar(my @lines = split /\n/, slurp_file("$folder/log")); }

sub arm
{
	my ($point, $action, $nth) = @_;
	open(my $file, '>', "$folder/.new") or die;
	print $file "$action $nth\n";
	close $file;
	rename "$folder/.new", "$folder/$point" or die;
	return;
}

my $most = 0;	# workers at the same time

sub count_workers
{
	$most = max($most, attempt(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sixtyfour worker')) || 0);
	return;
}

# Make a process fail at a point; false if none comes there.
sub strike
{
	my ($point, $action) = @_;
	my $before = hits();

	arm($point, $action, $bring{$point} ? 1 : 1 + int rand 3);
	foreach (1 .. 10)
	{
		ask(6);
		$bring{$point}->() if $bring{$point};
		wait_a_while(sub { hits() > $before });
		count_workers();
		last if hits() > $before;
	}
	unlink "$folder/$point";
	reconnect() if $action eq 'kill';
	count_workers();
	return hits() > $before;
}

sub stop_server
{
	my ($how) = @_;
	ask(6);
	select undef, undef, undef, rand 0.3;
	$session->close;
	$node->stop($how);
	$node->start;
	reconnect();
	$stopped{$how}++;
	return;
}

# refused connections
my $closed = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')->sockport;
$session->value("CREATE SERVER away FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url 'http://127.0.0.1:$closed', requests_per_minute '0')");
$session->value("CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (api_key 'api_good')");
$session->value('SET sixtyfour.server = away');
ask_lead(name(0)) foreach 1 .. 20;
@plain = ();
$session->value('RESET sixtyfour.server');
my $refused = q(count(*) FROM sixtyfour.call WHERE state = 'rejected' AND sqlstate = '08001');
SixtyfourTest::poll_until(sub { value($refused) >= 40 }) or die 'nothing was refused';
$refused = value($refused);
$session->value("ALTER SERVER away OPTIONS (SET base_url '${\$mock->url}')");

sub all_faults { return $refused + hits() + sum0(values %stopped) + sum0(values %{ network_faults() }); }

my $start = time;
my @missed;
my $rounds = 0;
do
{
	my @strikes = shuffle map { my $point = $_; map { [ $point, $_ ] } @{ $points{$point} } } sort keys %points;
	foreach my $strike (@strikes)
	{
		push @missed, "@$strike" unless strike(@$strike);
		stop_server(pick(qw(immediate immediate fast))) if ++$rounds % 10 == 0;
		resolve(5, 0.3) if $rounds % 5 == 0;
	}
	# the rest of a tenth of the whole is of the network
	my $network = all_faults() + int($target / 3);
	while (all_faults() < $target && all_faults() < $network)
	{
		ask(60);
		resolve(20, 0.1);
	}
} while (all_faults() < $target);
note sprintf 'faults made in %.0f s', time - $start;
is_deeply(\@missed, [], 'every point was hit by all that can go wrong there');

# ---- what it led to ----

my %hits;
$hits{ join ' ', (split)[ 0, 1 ] }++ foreach split /\n/, slurp_file("$folder/log");
note "hit: $_ $hits{$_} times" foreach sort keys %hits;
note "server stopped: $_ $stopped{$_} times" foreach sort keys %stopped;
my $network = network_faults();
note "network: $_ $network->{$_} times" foreach sort keys %$network;
note "network: refused connection $refused times";
my $faults = all_faults();
cmp_ok($faults, '>=', $target, "$faults faults");
$mock->clear_rules;

sub wait_for_end
{
	my $open = q(count(*) FROM sixtyfour.job WHERE state IN ('queued', 'sending', 'running') OR delivery = 'pending');
	my $carried = q(count(*) FROM sixtyfour.call WHERE state IN ('sending', 'accepted'));
	SixtyfourTest::poll_until(sub { value($open) == 0 && value($carried) == 0 });
	is(value($open) . ' ' . value($carried), '0 0', 'no job and no call is stuck')
	  or diag value(q(string_agg(concat_ws(' ', id, state, delivery, sqlstate, message, run_at), E'\n') FROM sixtyfour.job WHERE state IN ('queued', 'sending', 'running') OR delivery = 'pending'));
	return;
}

# A named task is the call's once the service has been asked about it.
sub decide_all
{
	resolve(1000000, 0);
	SixtyfourTest::poll_until(sub { value('count(*) FROM sixtyfour.candidate') == 0 });
	wait_for_end();
	return;
}

# Is the promise kept?
sub check
{
	my ($when) = @_;
	my $accepted = accepted();
	my %twice = map { $_ => scalar @{ $accepted->{$_} } }
	  grep { @{ $accepted->{$_} } > 1 + ($resubmitted{$_} // 0) + ($abandoned{$_} // 0) } keys %$accepted;
	is_deeply(\%twice, {}, "$when: no question was accepted more often than a person wanted");

	my %known = map { $_->[0] => 1 } @{ rows("SELECT j.operation || ' ' || $asked_about FROM sixtyfour.job j
		WHERE EXISTS (SELECT FROM sixtyfour.result r WHERE r.fingerprint = j.fingerprint)
		OR EXISTS (SELECT FROM sixtyfour.call_item i JOIN sixtyfour.attention a ON a.kind = 'call' AND a.id = i.call
			WHERE i.open AND i.fingerprint = j.fingerprint)
		OR EXISTS (SELECT FROM sixtyfour.call_item i JOIN sixtyfour.call c ON c.id = i.call
			WHERE c.state = 'failed' AND c.raw IS NOT NULL AND i.fingerprint = j.fingerprint)") };
	# what was to be submitted again is not, if all who asked have cancelled
	my %cancelled = map { $_->[0] => $resubmitted{ $_->[0] } } @{ rows("SELECT j.operation || ' ' || $asked_about FROM sixtyfour.job j
		GROUP BY 1 HAVING bool_and(state = 'cancelled')") };
	is_deeply([ grep { !$known{$_} && !$abandoned{$_} && !$cancelled{$_} } sort keys %$accepted ], [],
		"$when: every accepted question has its answer, or stands in attention");
	note "$when: " . scalar(keys %$accepted) . ' questions were accepted, calls: '
	  . value("string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM sixtyfour.call GROUP BY 1) s");

	is(value(q(count(*) FROM sixtyfour.job WHERE state = 'succeeded' AND enrichment IS NOT NULL AND NOT
		(delivery = 'applied' OR delivery = 'unapplied' AND message IS NOT NULL))), 0,
		"$when: every answer for a row is there, or says why not");
	is(value(q(count(*) FROM sixtyfour.job WHERE delivery = 'unapplied' AND id NOT IN (SELECT id FROM sixtyfour.attention WHERE kind = 'job'))),
		0, "$when: which attention shows");
	is(value(q(count(*) FROM people p CROSS JOIN LATERAL (SELECT max(sixtyfour_best_email(r.answer)) AS email, count(*) AS writes
		FROM sixtyfour.job j JOIN sixtyfour.result r ON r.id = j.result WHERE delivery = 'applied' AND (row_key ->> 'id')::bigint = p.id) a
		WHERE p.email IS DISTINCT FROM a.email OR p.writes <> a.writes)), 0,
		"$when: rows have just what was written to them, once");
	is(value(q(count(*) FROM sixtyfour.job j JOIN sixtyfour.call c ON c.id = j.call WHERE (j.state = 'uncertain') <> (c.state IN ('uncertain', 'expired')) AND j.state <> 'cancelled')), 0,
		"$when: jobs are where their calls are");
	is(value(q(count(*) FROM sixtyfour.call_item i JOIN sixtyfour.call c ON c.id = i.call WHERE i.open <> (c.state IN ('uncertain', 'expired')))), 0,
		"$when: a question is held by a call that is open, and only then");
	return;
}

wait_for_end();
check('after the faults');
decide_all();
check('after decisions');
is(value(q(count(*) FROM sixtyfour.call WHERE state IN ('uncertain', 'expired'))), 0, 'nothing is uncertain any more');
is(value(q(string_agg(DISTINCT concat_ws(' ', j.state, c.state, coalesce(c.sqlstate, j.sqlstate)), ', ') FROM sixtyfour.job j LEFT JOIN sixtyfour.call c ON c.id = j.call
	WHERE j.state NOT IN ('succeeded', 'cancelled') AND NOT (c.state = 'failed' AND c.raw IS NOT NULL OR c.state = 'abandoned' OR c.state = 'rejected' AND c.sqlstate = '22023'))),
	undef, 'what failed was refused, abandoned, or cannot be read and is kept')
  or diag explain rows(q(SELECT to_jsonb(j), to_jsonb(c) FROM sixtyfour.job j JOIN sixtyfour.call c ON c.id = j.call WHERE j.state = 'failed' AND c.state = 'done' LIMIT 3));

# ---- a worker that does not know that another one has taken over ----

$mock->settings({ task_seconds => undef });
my $running = ask_lead("N@{[ ++$names ]}");
$node->poll_query_until('postgres', "SELECT state = 'running' FROM sixtyfour.job WHERE id = $running") or die;
$session->value(q{
	CREATE TABLE stolen (call bigint);
	CREATE FUNCTION note_theft() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN INSERT INTO public.stolen VALUES (NEW.id); RETURN NEW; END$$;
	CREATE TRIGGER theft BEFORE UPDATE ON sixtyfour.call FOR EACH ROW WHEN (NEW.epoch < OLD.epoch) EXECUTE FUNCTION note_theft();
});
my $before = hits();
arm('reply-read', 'pause', 1);
my $stale = ask_lead("N@{[ ++$names ]}");
my $question = "enrich_lead N$names";
SixtyfourTest::poll_until(sub { -e "$folder/reply-read.paused" }) or die 'the worker does not pause';
is(hits() - $before, 1, 'a worker sleeps over a reply');
$session->value(q(UPDATE sixtyfour.state SET epoch = epoch + 1));
$session->value(q(UPDATE sixtyfour.call SET epoch = s.epoch, state = 'uncertain', sqlstate = '08007' FROM sixtyfour.state s WHERE state = 'sending'));
$session->value(q(UPDATE sixtyfour.call SET epoch = s.epoch FROM sixtyfour.state s WHERE state = 'accepted'));
$mock->settings({ task_seconds => 0.3 });
my $log = -s $node->logfile;
# so long after its last look around it looks again when it is woken
$node->poll_query_until('postgres', q(SELECT max(created_at) + interval '200 ms' < clock_timestamp() FROM sixtyfour.call)) or die;
my $next = ask_lead("N@{[ ++$names ]}");
unlink "$folder/reply-read.paused";
$node->poll_query_until('postgres', "SELECT state = 'succeeded' FROM sixtyfour.job WHERE id = $next") or die;
like(slurp_file($node->logfile, $log), qr/FATAL:  another worker has taken over this database/, 'and is told when it wakes that another one has taken over');
is(value('count(*) FROM stolen'), 0, 'it took no task from the other one');
is(value("concat_ws(' ', j.state, c.state, c.task_id) FROM sixtyfour.job j JOIN sixtyfour.call c ON c.id = j.call WHERE j.id = $stale"),
	'uncertain uncertain', 'what it knew came too late');
$mock->control('POST', 'tasks/all', { action => 'finish' });
decide_all();
is(value("state FROM sixtyfour.job WHERE id = $stale"), 'succeeded', 'until a person names the task');
is(value("state FROM sixtyfour.job WHERE id = $running"), 'succeeded', 'the running task came home');
is(scalar @{ accepted()->{$question} }, 1, 'nothing was paid for twice');

# ---- a job that is cancelled between its call and its request ----

arm('t1-after', 'pause', 1);
my $cancelled = ask_lead("N@{[ ++$names ]}");
SixtyfourTest::poll_until(sub { -e "$folder/t1-after.paused" }) or die 'the worker does not pause';
is(value("sixtyfour_cancel($cancelled)"), 't', 'a job is cancelled when its call is already open');
unlink "$folder/t1-after.paused";
my $again = ask_lead("N$names");
wait_for_end();
is(value("string_agg(state, ' ' ORDER BY id) FROM sixtyfour.job WHERE id IN ($cancelled, $again)"), 'cancelled succeeded', 'another one has its answer');
is(scalar @{ accepted()->{"enrich_lead N$names"} }, 1, 'which was paid for once');

my $said = slurp_file($node->logfile);
is($most, 1, 'there were never two workers');
unlike($said, qr/another worker is running/, 'nor was one started beside another');
unlike($said, qr/PANIC|TRAP|terminated by signal (?!9:)/, 'nothing but the kills has crashed');

done_testing();
