# The background processes: who has them, who keeps them away, what ends them,
# and that they always come back.
use strict;
use warnings FATAL => 'all';

use Test::More;
use Time::HiRes qw(usleep);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('processes', $mock, conf => q{
max_worker_processes = 40
max_prepared_transactions = 5
wal_level = replica
max_wal_senders = 5
restart_after_crash = on
allow_in_place_tablespaces = on
log_min_messages = debug1
});

my $enqueue = q{SELECT count(sixtyfour_find_email_async('{"name":"Jane Doe","company":"Acme"}'))};

# Rows of the view, as "kind state" or what is asked for, seen from "postgres"
sub rows
{
	my ($database, $columns) = @_;
	return $node->safe_psql('postgres',
		"SELECT $columns FROM (SELECT * FROM sixtyfour.workers ORDER BY kind) w WHERE database = '$database'");
}

sub pids { return rows($_[0], 'pid'); }

# Wait until worker and writer of a database run, others than those given.
sub comes
{
	my ($database, $what, $not) = @_;
	my $list = join ',', 0, split /\s+/, $not // '';

	ok($node->poll_query_until('postgres', qq{
			SELECT count(*) = 2 FROM sixtyfour.workers w
			WHERE database = '$database' AND last_turn IS NOT NULL
			AND pid NOT IN ($list)
			AND EXISTS (SELECT FROM pg_stat_activity a
				WHERE a.pid = w.pid AND datname = '$database'
				AND backend_type = 'sixtyfour ' || kind)}),
		$what) or die "gave up: " . rows($database, "kind || ' ' || state || coalesce(': ' || message, '')");
	return;
}

# Wait until a database has no process, for the reason that its state says.
sub stays_away
{
	my ($database, $state, $what) = @_;

	ok($node->poll_query_until('postgres', qq{
			SELECT count(pid) = 0 AND bool_and(state = '$state')
			FROM sixtyfour.workers WHERE database = '$database'}),
		$what) or die "gave up: " . rows($database, "kind || ' ' || state || coalesce(': ' || message, '')");
	return;
}

sub is_forgotten
{
	my ($database, $what) = @_;

	ok($node->poll_query_until('postgres', qq{
			SELECT NOT EXISTS (SELECT FROM sixtyfour.workers WHERE database = '$database')
			AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '$database')}),
		$what) or die "gave up: " . rows($database, "kind || ' ' || state || coalesce(': ' || message, '')");
	return;
}

sub set_conf
{
	my ($name, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

sub database_oid
{
	return $node->safe_psql('postgres',
		"SELECT oid FROM pg_database WHERE datname = '$_[0]'");
}

# A job that is not due, so that it does not change while it is looked at
sub later
{
	my ($server, $database) = @_;
	return $server->safe_psql($database,
		q{SELECT sixtyfour_find_email_async('{"name":"Later"}', run_at => now() + interval '1 day')});
}

sub why
{
	my ($server, $job, $database, @options) = @_;
	return $server->safe_psql($database // 'postgres', "SELECT sixtyfour_why($job)", @options);
}

# How often was a worker started for the database with this number?
sub starts
{
	my ($oid) = @_;
	my $log = slurp_file($node->logfile);
	return scalar(() = $log =~ /starting background worker process "sixtyfour worker for database $oid"/g);
}

subtest 'who has them' => sub {
	comes('postgres', 'CREATE EXTENSION brings worker and writer');
	is($node->safe_psql('postgres', q{SELECT count(*), count(pid), string_agg(kind, ',' ORDER BY kind)
			FROM sixtyfour.workers}),
		'3|3|launcher,worker,writer', 'and no other database has any');
	is($node->safe_psql('postgres', q{SELECT string_agg(backend_type, ',' ORDER BY backend_type)
			FROM pg_stat_activity WHERE backend_type LIKE 'sixtyfour%'}),
		'sixtyfour launcher,sixtyfour worker,sixtyfour writer', 'their types in pg_stat_activity');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
			WHERE backend_type LIKE 'sixtyfour%' AND backend_xmin IS NOT NULL AND state <> 'active'}),
		'0', 'none of them holds a snapshot while it waits');

	$node->safe_psql('postgres', 'CREATE DATABASE plain');
	$node->safe_psql('postgres', 'CREATE DATABASE two');
	SixtyfourTest::install($node, 'two', $mock);
	comes('two', 'a second database has its own');
	comes('postgres', 'beside those of the first');

	# a probe leaves no trace but its start in the log
	my $plain = database_oid('plain');
	$node->wait_for_log(qr/"sixtyfour worker for database $plain"/);
	is_forgotten('plain', 'a database without the extension has none');
	is(starts($plain), 1, 'it was probed once');
	return;
};

subtest 'who sees them' => sub {
	$node->safe_psql('postgres', 'CREATE ROLE reader LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_monitor');
	my $all = q{SELECT count(*), count(DISTINCT database), count(message) FROM sixtyfour.workers};

	is($node->safe_psql('two', $all, extra_params => [ '-U', 'reader' ]),
		'2|1|0', 'anybody sees those of his database');
	is($node->safe_psql('two', $all, extra_params => [ '-U', 'watcher' ]),
		'5|2|0', 'pg_monitor sees all');
	return;
};

subtest 'commands on databases' => sub {
	my $before = pids('two');

	$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE two');
	comes('two', 'CREATE DATABASE TEMPLATE stops those of the original', $before);
	comes('copy', 'the copy is found, and has its own');

	$before = pids('copy');
	$node->safe_psql('postgres', 'ALTER DATABASE copy RENAME TO copy2');
	comes('copy2', 'they come back under the new name', $before);

	$before = pids('copy2');
	$node->safe_psql('postgres', q{CREATE TABLESPACE space LOCATION ''});
	$node->safe_psql('postgres', 'ALTER DATABASE copy2 SET TABLESPACE space');
	comes('copy2', 'they come back after a move', $before);

	$before = pids('copy2');
	my $error = SixtyfourTest::sql_error($node, 'ALTER DATABASE copy2 RENAME TO two');
	is($error->{sqlstate}, '42P04', 'a command that fails');
	comes('copy2', 'they come back', $before);

	$before = pids('copy2');
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_safe('BEGIN');
	$session->query_safe('ALTER DATABASE copy2 RENAME TO copy3');
	stays_away('copy2', 'kept away', 'they are kept away');
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE state = 'idle in transaction'});
	comes('copy2', 'they come back when its session is terminated', $before);
	eval { $session->quit };

	$before = pids('copy2');
	foreach my $command ('DROP DATABASE copy2', 'ALTER DATABASE copy2 RENAME TO x',
		'CREATE DATABASE x TEMPLATE copy2', 'ALTER DATABASE copy2 SET TABLESPACE pg_default')
	{
		$error = SixtyfourTest::sql_error($node, $command,
			psql => { extra_params => [ '-U', 'reader', '-v', 'VERBOSITY=verbose' ] });
		is($error->{sqlstate}, '42501', "$command by somebody else");
	}
	$error = SixtyfourTest::sql_error($node, 'BEGIN; DROP DATABASE copy2');
	is($error->{sqlstate}, '25001', 'DROP DATABASE in a transaction block');
	is(pids('copy2'), $before, 'stops nobody');

	$node->safe_psql('postgres', 'DROP DATABASE copy2');
	is_forgotten('copy2', 'DROP DATABASE works while they run');
	$node->safe_psql('postgres', 'DROP TABLESPACE space');
	return;
};

subtest 'templates' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE pattern TEMPLATE two');
	comes('pattern', 'a database');
	$node->safe_psql('postgres', 'ALTER DATABASE pattern IS_TEMPLATE true');
	stays_away('pattern', 'not allowed', 'becomes a template and loses its processes');
	$node->safe_psql('postgres', 'CREATE DATABASE made TEMPLATE pattern');
	comes('made', 'what is made from it has its own');
	$node->safe_psql('postgres', 'ALTER DATABASE pattern IS_TEMPLATE false');
	comes('pattern', 'it gets them back');
	$node->safe_psql('postgres', 'ALTER DATABASE pattern ALLOW_CONNECTIONS false');
	stays_away('pattern', 'not allowed', 'where nobody may connect, we do not');
	$node->safe_psql('postgres', 'DROP DATABASE pattern');
	$node->safe_psql('postgres', 'DROP DATABASE made');

	# the default template, once it is none
	$node->safe_psql('postgres', 'ALTER DATABASE template1 IS_TEMPLATE false');
	SixtyfourTest::install($node, 'template1', $mock);
	comes('template1', 'template1 has processes if it is no template');
	my $before = pids('template1');
	$node->safe_psql('postgres', 'CREATE DATABASE made');
	comes('template1', 'CREATE DATABASE stops them all the same', $before);
	$node->safe_psql('postgres', 'DROP DATABASE made');
	$node->safe_psql('template1', 'DROP EXTENSION sixtyfour CASCADE');
	$node->safe_psql('postgres', 'ALTER DATABASE template1 IS_TEMPLATE true');
	is_forgotten('template1', 'nothing is left of that');
	return;
};

subtest 'the extension comes and goes' => sub {
	my $before = pids('two');

	$node->safe_psql('two', q{
		BEGIN; DROP EXTENSION sixtyfour CASCADE; ROLLBACK;});
	comes('two', 'DROP EXTENSION is rolled back: they come back', $before);

	$before = pids('two');
	$node->safe_psql('two', 'ALTER EXTENSION sixtyfour UPDATE');
	comes('two', 'ALTER EXTENSION UPDATE gives new ones', $before);

	$node->safe_psql('two', 'DROP EXTENSION sixtyfour CASCADE');
	is_forgotten('two', 'DROP EXTENSION ends them');
	SixtyfourTest::install($node, 'two', $mock);
	comes('two', 'CREATE EXTENSION brings new ones');

	$before = pids('two');
	$node->safe_psql('two', q{BEGIN; DROP EXTENSION sixtyfour CASCADE;
			CREATE EXTENSION sixtyfour; COMMIT});
	comes('two', 'both in one transaction', $before);

	$node->safe_psql('two', q{DROP EXTENSION sixtyfour; CREATE SCHEMA s;
			CREATE EXTENSION sixtyfour SCHEMA s});
	comes('two', 'in a schema');
	$node->safe_psql('two', 'DROP SCHEMA s CASCADE');
	is_forgotten('two', 'which is dropped with it');

	$node->safe_psql('two', q{BEGIN; CREATE EXTENSION sixtyfour; ROLLBACK;
			BEGIN; SAVEPOINT s; CREATE EXTENSION sixtyfour; ROLLBACK TO s; COMMIT});
	is(rows('two', 'count(*)'), 0, 'CREATE EXTENSION that is rolled back brings none');
	$node->safe_psql('two', q{BEGIN; CREATE EXTENSION sixtyfour; PREPARE TRANSACTION 'create'});
	is(rows('two', 'count(*)'), 0, 'nor one that is prepared');
	$node->safe_psql('two', q{COMMIT PREPARED 'create'});
	comes('two', 'it does when it is committed');
	$node->safe_psql('two', q{BEGIN; DROP EXTENSION sixtyfour; PREPARE TRANSACTION 'drop'});
	$node->safe_psql('two', q{COMMIT PREPARED 'drop'});
	is_forgotten('two', 'a prepared DROP EXTENSION ends them');

	my $plain = database_oid('plain');
	$node->safe_psql('postgres', 'CREATE DATABASE plain2 TEMPLATE plain');
	is_forgotten($_, "nothing is left of a copy of a database without it: $_") foreach 'plain', 'plain2';
	is(starts($plain), 1, 'all the while a database without it was left alone');
	SixtyfourTest::install($node, 'plain', $mock);
	comes('plain', 'until CREATE EXTENSION there');
	is(starts($plain), 2, 'started directly');
	SixtyfourTest::install($node, 'two', $mock);
	comes('two', 'and the other one is back');
	return;
};

subtest 'sixtyfour.databases' => sub {
	my $before = pids('postgres');

	set_conf('sixtyfour.databases', 'postgres, "Some Other"');
	stays_away('two', 'not allowed', 'a database that is not named has none');
	$node->safe_psql('two', $enqueue);
	is(rows('two', 'string_agg(state, $$,$$)'), 'not allowed,not allowed',
		'whatever is enqueued there');
	is(why($node, later($node, 'two'), 'two'),
		'Nobody works on it: "sixtyfour.databases" does not name this database, or it is a template.',
		'why a job waits');
	is(pids('postgres'), $before, 'one that is named keeps its own');
	set_conf('sixtyfour.databases', '*');
	comes('two', 'they come back');

	my $error = SixtyfourTest::sql_error($node,
		q{ALTER SYSTEM SET sixtyfour.databases = 'a b'});
	is($error->{sqlstate}, '22023', 'a list that is none');
	is($error->{message}, 'invalid value for parameter "sixtyfour.databases": "a b"', 'is refused');
	is($error->{detail}, 'List syntax is invalid.', 'with the reason');
	return;
};

subtest 'leaving and waking' => sub {
	my $state = q{SELECT state FROM sixtyfour.workers
		WHERE database = current_database() AND kind = 'worker'};
	my $sleeps = sub {
		ok($node->poll_query_until('postgres', $state, 'asleep'), $_[0])
		  or die 'gave up: ' . rows('postgres', "kind || ' ' || state");
	};
	my $wakes = sub {
		my ($sql, $what) = @_;
		isnt($node->safe_psql('postgres', "$sql;\n$state") =~ s/.*\n//sr, 'asleep', $what);
	};
	my $leaves_asleep = sub {
		my ($sql, $what) = @_;
		is($node->safe_psql('postgres', "$sql;\n$state") =~ s/.*\n//sr, 'asleep', $what);
	};

	set_conf('sixtyfour.idle_timeout', '1s');
	stays_away('postgres', 'asleep', 'idle processes leave');
	$leaves_asleep->("BEGIN; $enqueue; ROLLBACK", 'ROLLBACK wakes nobody');
	$leaves_asleep->("BEGIN; SAVEPOINT s; $enqueue; ROLLBACK TO s; COMMIT",
		'nor does a subtransaction that is rolled back');
	$leaves_asleep->("BEGIN; SAVEPOINT s; SAVEPOINT t; $enqueue; RELEASE t; ROLLBACK TO s; COMMIT",
		'nor one whose parent is');
	$leaves_asleep->("BEGIN; $enqueue; PREPARE TRANSACTION 'wake'",
		'nor a transaction that is prepared');
	$wakes->("COMMIT PREPARED 'wake'", 'COMMIT PREPARED does');
	$sleeps->('it goes to sleep again');
	$wakes->($enqueue, 'so does COMMIT');
	$sleeps->('and again');
	$wakes->("BEGIN; SAVEPOINT s; $enqueue; RELEASE s; SAVEPOINT s; $enqueue; ROLLBACK TO s; COMMIT",
		'a released subtransaction counts, whatever is rolled back after it');
	$sleeps->('and again');
	$wakes->("BEGIN; $enqueue; SAVEPOINT s; $enqueue; ROLLBACK TO s; COMMIT",
		'and what was before a subtransaction that is rolled back');
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM sixtyfour.workers
			WHERE database = 'postgres' AND kind = 'worker' AND pid IS NOT NULL}),
		'the worker comes');
	$sleeps->('and goes');

	# commits that fall into the moment of leaving, over and over
	my $lost = $node->psql('postgres', join '', map { "$enqueue;\n" } 1 .. 50);
	is($lost, 0, 'many commits');
	$sleeps->('end with all asleep');
	set_conf('sixtyfour.idle_timeout', '5min');
	$node->safe_psql('postgres', $enqueue);
	$node->safe_psql('two', $enqueue);
	return;
};

subtest 'ends and restarts' => sub {
	$node->restart;
	comes($_, "after a restart: $_") foreach 'postgres', 'two', 'plain';

	my $worker = "SELECT pid FROM sixtyfour.workers WHERE database = 'postgres' AND kind = 'worker'";
	my $before = pids('postgres');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(($worker), 180000)");
	ok($node->poll_query_until('postgres',
			"SELECT pid IS NOT NULL AND pid NOT IN (@{[join ',', split ' ', $before]}) FROM ($worker) w"),
		'a worker that was terminated comes back');

	$node->safe_psql('two', 'ALTER DATABASE two SET default_transaction_read_only = on');
	$node->safe_psql('two', 'ALTER DATABASE two SET transaction_timeout = 1')
	  if $node->pg_version >= 17;
	$before = pids('two');
	$node->safe_psql('two', q{SELECT pg_terminate_backend(pid) FROM sixtyfour.workers
			WHERE database = 'two'});
	comes('two', 'settings that a database has for its users do not stop them', $before);

	# the launcher
	$before = pids('postgres');
	my $launcher = q{SELECT pid FROM sixtyfour.workers WHERE kind = 'launcher'};
	my $old = $node->safe_psql('postgres', $launcher);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($old, 180000)");
	$node->safe_psql('postgres', 'CREATE DATABASE orphan TEMPLATE two');
	ok($node->poll_query_until('postgres', "SELECT pid <> $old FROM ($launcher) l"),
		'a launcher that was terminated comes back');
	is(pids('postgres'), $before, 'the others do not mind');
	comes('orphan', 'and does what was to be done meanwhile');
	comes('two', 'all of it');

	# a crash
	$before = $node->safe_psql('postgres', "$worker");
	kill 9, $before;
	$node->poll_query_until('postgres', 'SELECT true');
	comes($_, "after kill -9 of a worker: $_", $before) foreach 'postgres', 'two', 'plain';
	isnt($node->safe_psql('postgres', $worker), $before, 'the server has restarted all');

	$node->stop('immediate');
	$node->start;
	comes($_, "after an immediate shutdown: $_") foreach 'postgres', 'two', 'plain';
	return;
};

subtest 'too few slots' => sub {
	my $small = SixtyfourTest::cluster('small', $mock, conf => "max_worker_processes = 3\n");
	my $writer = q{SELECT state || ': ' || message FROM sixtyfour.workers WHERE kind = 'writer'};

	ok($small->poll_query_until('postgres', "SELECT pid > 0 FROM sixtyfour.workers WHERE kind = 'worker'"),
		'the worker found a slot');
	ok($small->poll_query_until('postgres', $writer,
			'waiting to start: no background worker slot is free: set max_worker_processes to at least 4'),
		'the writer did not, and says so');
	$small->safe_psql('postgres', 'CREATE DATABASE third');
	SixtyfourTest::install($small, 'third', $mock);
	ok($small->poll_query_until('third', q{SELECT state = 'waiting to start' FROM sixtyfour.workers
			WHERE database = 'third' AND kind = 'worker'}), 'a worker did not either');
	like(why($small, later($small, 'third'), 'third'),
		qr/^The worker of this database cannot work: no background worker slot is free: set max_worker_processes to at least \d\.$/,
		'why a job waits');
	$small->safe_psql('postgres', 'DROP DATABASE third');
	my $log = slurp_file($small->logfile);
	is(scalar(() = $log =~ /LOG:  sixtyfour could not start 1 process: no background worker slot is free/g),
		1, 'once in the log');
	like($log, qr/HINT:  Set "max_worker_processes" to at least 4 and restart the server\./, 'with a hint');
	$small->append_conf('postgresql.conf', "max_worker_processes = 4\n");
	$small->restart;
	ok($small->poll_query_until('postgres',
			"SELECT count(*) = 3 AND count(message) = 0 FROM sixtyfour.workers WHERE last_turn IS NOT NULL"),
		'that many are enough');
	$small->stop;
	return;
};

subtest 'what they say' => sub {
	my $activity = q{SELECT state || ': ' || query FROM pg_stat_activity
		WHERE backend_type = 'sixtyfour worker' AND datname = 'postgres'};
	my $message = q{SELECT coalesce(message, 'nothing') FROM sixtyfour.workers
		WHERE database = 'postgres' AND kind = 'worker'};
	my $session = SixtyfourTest::Session->new($node);
	my $job = later($node, 'postgres');

	ok($node->poll_query_until('postgres', "SELECT ($activity) LIKE 'idle: %'"), 'a worker that waits is idle');

	# a lock that it needs, and waits for up to lock_timeout
	$session->value('BEGIN; LOCK TABLE sixtyfour.call IN EXCLUSIVE MODE');
	$node->safe_psql('postgres', $enqueue);
	ok($node->poll_query_until('postgres', $activity, 'active: sixtyfour: looking for work'),
		'one that does something is active');
	ok($node->poll_query_until('postgres', $message, 'canceling statement due to lock timeout'),
		'an error in a turn is shown');
	is($session->value("SELECT sixtyfour_why($job)"),
		'The worker of this database cannot work: canceling statement due to lock timeout.', 'why a job waits');
	is($node->safe_psql('postgres', "SET ROLE reader; $message"), 'nothing', 'not to everybody');
	is($node->safe_psql('postgres', qq{GRANT USAGE ON FOREIGN SERVER sixtyfour TO reader;
			SET ROLE reader; SELECT sixtyfour_why(sixtyfour_find_email_async('{"name":"Hers"}')); } ) =~ s/.*\n//sr,
		'It is sent when this transaction commits.', 'nor in other ways');
	is(why($node, $node->safe_psql('postgres', q{SELECT max(id) FROM sixtyfour.jobs WHERE owner = 'reader'::regrole}),
			'postgres', extra_params => [ '-U', 'reader' ]),
		'The worker of this database has failed, and tries again; its owner sees why in sixtyfour.workers.',
		'why the job of somebody else waits');
	$session->value('ROLLBACK');
	ok($node->poll_query_until('postgres', $message, 'nothing'), 'until a turn goes well');
	like($session->value("SELECT sixtyfour_why($job)"), qr/^It is not due before/, 'then nothing is in the way');
	$session->close;
	return;
};

subtest 'requests and tasks under way' => sub {
	my $in_flight = q{SELECT state || ' ' || in_flight FROM sixtyfour.workers
		WHERE database = 'postgres' AND kind = 'worker'};

	ok($node->poll_query_until('postgres', $in_flight, 'idle 0'), 'none');
	$mock->settings({ task_seconds => undef });
	$mock->rule({ match => { body_contains => 'Held' }, hold => JSON::PP::true });
	$node->safe_psql('postgres', qq{SELECT sixtyfour_enrich_lead_async(jsonb_build_object('name', n), '{"a":"b"}')
			FROM unnest('{Task,Held}'::text[]) n});
	$mock->wait_for(held => 1);
	ok($node->poll_query_until('postgres', q{SELECT array_agg(state ORDER BY state) = '{running,sending}'
			FROM sixtyfour.jobs WHERE body #>> '{lead_info,name}' IN ('Task', 'Held')}), 'a task, and a request');
	ok($node->poll_query_until('postgres', $in_flight, 'working 2'), 'are counted both');
	$mock->clear_rules;
	$mock->control('POST', 'release');
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM sixtyfour.jobs WHERE state = 'running'}), 'both are tasks');
	$mock->control('POST', 'tasks/all', { action => 'finish' });
	ok($node->poll_query_until('postgres', $in_flight, 'idle 0'), 'none is left');
	$mock->settings({ task_seconds => 0 });
	return;
};

subtest 'sixtyfour.log_min_duration' => sub {
	my $from = -s $node->logfile;

	set_conf('sixtyfour.log_min_duration', '0');
	$node->safe_psql('postgres', q{SELECT sixtyfour_wait(sixtyfour_find_email_async('{"name":"Logged"}')) WHERE false;
			SELECT sixtyfour_find_email_async('{"name":"Logged"}')});
	ok($node->wait_for_log(qr/LOG:  sixtyfour: find_email answered with HTTP status 200 after \d+\.\d\d\d ms/, $from),
		'the requests of a worker are logged, too');
	set_conf('sixtyfour.log_min_duration', '-1');
	return;
};

subtest 'library and extension of different versions' => sub {
	my %remedy = (
		'0.9' => 'the extension has version 0.9, the library 1.0: use ALTER EXTENSION sixtyfour UPDATE',
		'1.0.1' => 'the extension has version 1.0.1, the library 1.0: install the library of version 1.0.1, and restart the server');
	my $set = sub { return "UPDATE pg_extension SET extversion = '$_[0]' WHERE extname = 'sixtyfour'"; };
	my $says = q{SELECT string_agg(concat_ws('|', kind, state, message), ' ' ORDER BY kind) FROM sixtyfour.workers
		WHERE database = 'plain'};
	my $restart = q{SELECT pg_terminate_backend(pid) FROM sixtyfour.workers WHERE database = 'plain'};

	foreach my $version (sort keys %remedy)
	{
		my $said = $remedy{$version};
		my $from = -s $node->logfile;

		my $before = pids('plain');
		$node->safe_psql('plain', $set->($version) . "; $restart");
		comes('plain', 'they start', $before);
		ok($node->poll_query_until('plain', $says, "worker|idle|$said writer|idle|$said"), 'but do nothing, and say why')
		  or die $node->safe_psql('plain', $says);
		my $job = $node->safe_psql('plain', q{SELECT sixtyfour_find_email_async('{"name":"Waits"}')});
		is(why($node, $job, 'plain'), "The worker of this database cannot work: $said.", 'so does sixtyfour_why()');
		my $oid = database_oid('plain');
		ok($node->wait_for_log(qr/LOG:  sixtyfour $_ for database $oid does nothing: \Q$said/, $from), "the log has it: $_")
		  foreach 'worker', 'writer';
		is($node->safe_psql('plain', q{SELECT sixtyfour_find_email('{"name":"Asks herself"}') IS NOT NULL}), 't',
			'what a session asks is answered');

		set_conf('sixtyfour.idle_timeout', '1s');
		ok($node->poll_query_until('plain', $says, "worker|asleep|$said writer|asleep|$said"), 'they leave when idle')
		  or die $node->safe_psql('plain', $says);
		set_conf('sixtyfour.idle_timeout', '5min');
		$node->safe_psql('plain', $enqueue);
		ok($node->poll_query_until('plain', q{SELECT state || message FROM sixtyfour.workers
				WHERE database = 'plain' AND kind = 'worker'}, "idle$said"), 'a wake-up does not change that');
		is($node->safe_psql('plain', "SELECT state FROM sixtyfour.jobs WHERE id = $job"), 'queued', 'and nothing is sent');

		$node->safe_psql('plain', $set->('1.0') . "; $enqueue");
		ok($node->poll_query_until('plain', "SELECT state = 'succeeded' FROM sixtyfour.jobs WHERE id = $job"),
			'the worker goes on when it is mended');
		is($node->safe_psql('plain', "SELECT count(message) FROM sixtyfour.workers WHERE database = 'plain' AND kind = 'worker'"),
			0, 'and has no more to say');
	}

	# ALTER EXTENSION ends them; that it leads to this version is another matter
	$node->safe_psql('plain', $set->('0.9') . "; $restart");
	ok($node->poll_query_until('plain', $says, "worker|idle|$remedy{'0.9'} writer|idle|$remedy{'0.9'}"), 'once more');
	my $before = pids('plain');
	$node->safe_psql('plain', "ALTER EXTENSION sixtyfour UPDATE TO '0.9'");
	comes('plain', 'ALTER EXTENSION gives new ones', $before);
	$before = pids('plain');
	$node->safe_psql('plain', $set->('1.0') . '; ALTER EXTENSION sixtyfour UPDATE');
	comes('plain', 'which work after it', $before);
	ok($node->poll_query_until('plain', $says, 'worker|idle writer|idle'), 'and say nothing');
	return;
};

subtest 'standby and promotion' => sub {
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	my $job = later($node, 'postgres');

	$node->backup('base');
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->start;
	is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'sixtyfour%'}),
		0, 'a standby has no processes');
	is($standby->safe_psql('postgres', q{SELECT kind, state, pid FROM sixtyfour.workers}),
		'launcher|not running|', 'the view says so');
	is(why($standby, $job), 'Nobody works on it: this server is a standby.', 'why a job waits');
	$standby->promote;
	ok($standby->poll_query_until('postgres', q{SELECT count(pid) = 2 FROM sixtyfour.workers
			WHERE database = 'postgres' AND last_turn IS NOT NULL}),
		'they come when it is promoted');
	$standby->stop;
	return;
};

subtest 'the end of the postmaster' => sub {
	$node->restart;
	comes($_, "all are there: $_") foreach 'postgres', 'two', 'plain';

	my @pids = split /\s+/, $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'sixtyfour%'});
	my $patience = 1800;

	cmp_ok(scalar @pids, '>=', 7, 'there are processes');
	$node->kill9;
	usleep(100_000) while grep({ kill 0, $_ } @pids) && $patience-- > 0;
	is(scalar(grep { kill 0, $_ } @pids), 0, 'all leave when the postmaster is gone');
	return;
};

subtest 'without the library preloaded' => sub {
	my $bare = SixtyfourTest::cluster('bare', $mock, preload => 0);

	is($bare->safe_psql('postgres', 'SELECT count(*) FROM sixtyfour.workers'), 0, 'there is nobody');
	my $session = SixtyfourTest::Session->new($bare);
	$session->value(q{CREATE TABLE people (id int PRIMARY KEY, name text, email text)});
	$session->value(q{SELECT sixtyfour_create_enrichment('emails', 'people', 'find_email',
			'{"name":"name"}', '{"email":"$.email[0][0]"}')});
	my $warned = sub { return map { "$_->{severity} $_->{sqlstate}: $_->{message}" } @{ $session->query($_[0])->{notices} }; };
	my $warning = 'WARNING 55000: jobs are queued, but nobody works on them';
	my $insert  = q{INSERT INTO people SELECT count(*), 'Jane ' || count(*) FROM people};
	is_deeply([ $warned->($insert) ], [$warning], 'a trigger that queues warns');
	is_deeply([ $warned->($insert), $warned->($enqueue) ], [], 'once per session, in whatever way it queues');
	$session->close;
	$session = SixtyfourTest::Session->new($bare);
	$session->value(q{ALTER TABLE people DISABLE TRIGGER USER});
	is_deeply([ $warned->($insert) ], [], 'what queues nothing does not');
	is_deeply([ $warned->(q{SELECT sixtyfour_run_enrichment('emails')}) ], [$warning], 'sixtyfour_run_enrichment() does');
	is_deeply([ $warned->($enqueue) ], [], 'once');
	$session->close;
	$bare->safe_psql('postgres', q{CREATE DATABASE x; });
	$bare->safe_psql('postgres', q{DROP DATABASE x});
	$bare->safe_psql('postgres', q{DROP EXTENSION sixtyfour CASCADE});
	$bare->stop;
	return;
};

done_testing();
