# Copies of a database, and servers that were promoted or restored: none buys
# what was bought already, and none goes on before a person says so.  The mock
# is one for all of them, and its ledger the witness.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SixtyfourTest;

my $mock   = SixtyfourTest::Mock->start('--keys' => 'api_good');
my %common = (
	conf => q{
max_worker_processes = 20
wal_level = logical
max_wal_senders = 5
max_replication_slots = 5
autovacuum = off
},
	server => "requests_per_minute '0'");
my $origin = SixtyfourTest::cluster('origin', $mock, %common);
my $other  = SixtyfourTest::cluster('other',  $mock, %common);

# tasks run until finish()
$mock->settings({ quirks => 'none', found => 'all', task_seconds => undef });

my $why_foreign = 'It was queued in a database that this one is a copy of, and waits for sixtyfour_resume().';
my $why_not_followed = 'It was sent from a database that this one is a copy of, and is not followed before sixtyfour_resume().';
my $hint = 'See that no other server works on the same queue, and that sixtyfour.calls has all that the service has accepted; then run SELECT sixtyfour_resume() in that database.';

# ---- helpers: a place is a node, or [node, database] ----

sub sql
{
	my ($place, $sql) = @_;
	my ($node, $database) = ref $place eq 'ARRAY' ? @$place : ($place, 'postgres');
	return $node->safe_psql($database, $sql);
}

sub wait_until
{
	my ($place, $condition) = @_;
	my ($node, $database) = ref $place eq 'ARRAY' ? @$place : ($place, 'postgres');
	$node->poll_query_until($database, "SELECT $condition")
	  or die "gave up on: $condition; jobs: "
	  . sql($place, q{SELECT string_agg(format('%s %s %s', body, state, message), '; ') FROM sixtyfour.jobs})
	  . '; workers: ' . sql($place, q{SELECT string_agg(w::text, '; ') FROM sixtyfour.workers w});
	return;
}

sub question { return qq('{"name":"$_[0]"}', '{"title":"their title"}'); }
sub ask { return sql($_[0], 'SELECT sixtyfour_enrich_lead_async(' . question($_[1]) . ')'); }

# The job about somebody that was asked last
sub job
{
	my ($place, $name, $what) = @_;
	return sql($place, "SELECT $what FROM sixtyfour.jobs WHERE coalesce(body->'lead_info', body->'lead')->>'name' = '$name' ORDER BY id DESC LIMIT 1");
}

sub why { return job(@_, 'sixtyfour_why(id)'); }

sub states
{
	my ($place, $tag) = @_;
	return sql($place, qq{SELECT string_agg(substr(name, length('$tag') + 2) || ' ' || state, ', ' ORDER BY name)
		FROM (SELECT body->'lead_info'->>'name' AS name, state FROM sixtyfour.jobs) j WHERE name LIKE '$tag %'});
}

sub wait_for_states
{
	my ($place, $tag, $expected, $what) = @_;
	SixtyfourTest::poll_until(sub { states($place, $tag) eq $expected });
	return is(states($place, $tag), $expected, $what);
}

# Billed requests about somebody
sub requests
{
	my ($name) = @_;
	return grep { (($_->{body}{lead_info} // $_->{body}{lead} // {})->{name} // '') eq $name }
	  grep { ref $_->{body} } @{ $mock->ledger(accepted => 1) };
}

sub sent
{
	my ($name) = @_;
	return scalar requests($name);
}

# Wait until somebody is asked about, and end the task of it.
sub finish
{
	foreach my $name (@_)
	{
		SixtyfourTest::poll_until(sub { sent($name) }) or die "nobody asks about $name";
		$mock->control('POST', "tasks/$_->{task_id}", { action => 'finish' }) foreach requests($name);
	}
	return;
}

sub answer { return sql($_[0], "SELECT sixtyfour_wait($_[1], '90 s')"); }

sub set_conf
{
	my ($node, $name, $value) = @_;
	sql($node, "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

# No worker on any database, or on these
sub shut
{
	my ($node) = @_;
	set_conf($node, 'sixtyfour.databases', '');
	wait_until($node, "count(pid) = 0 FROM sixtyfour.workers WHERE kind <> 'launcher'");
	return;
}
sub open_again { set_conf($_[0], 'sixtyfour.databases', $_[1] // '*'); return; }

# What a copy can find: a task that runs, a request whose reply is not noted, a
# job that is due, and answered ones.  No worker is there afterwards.
sub load_cargo
{
	my ($place, $tag, @answered) = @_;
	my $node = ref $place eq 'ARRAY' ? $place->[0] : $place;

	$mock->rule({ match => { body_contains => "$tag sent" }, hold => JSON::PP::true });
	my @jobs = map { ask($place, "$tag $_") } @answered;
	ask($place, "$tag $_") foreach qw(running sent);
	finish(map { "$tag $_" } @answered);
	answer($place, $_) foreach @jobs;
	wait_until($place, "count(*) = 1 FROM sixtyfour.jobs WHERE state = 'running' AND body->'lead_info'->>'name' = '$tag running'");
	SixtyfourTest::poll_until(sub { sent("$tag sent") });
	shut($node);
	ask($place, "$tag queued");
	$mock->clear_rules;
	is(states($place, $tag), join(', ', (map { "$_ succeeded" } @answered), 'queued queued, running running, sent sending'),
		'what is copied');
	return;
}

# Wait until the worker of a place has looked at the queue: the first turn that
# ends may have begun before, and the second not have looked.
sub let_look
{
	my ($place) = @_;
	my $later = question('later') . q{, run_at => now() + interval '1 day'};
	foreach (1 .. 3)
	{
		my $now = sql($place, "SELECT clock_timestamp(); SELECT sixtyfour_enrich_lead_async($later)") =~ s/\n.*//r;
		wait_until($place, "last_turn > '$now' FROM sixtyfour.workers WHERE kind = 'worker' AND database = current_database()");
	}
	return;
}

sub message { return sql($_[0], q{SELECT message FROM sixtyfour.workers WHERE kind = 'worker' AND database = current_database()}); }

# The place says, in all places where it should, why it is paused.
sub is_paused
{
	my ($place, $name, $reason) = @_;
	my $node = ref $place eq 'ARRAY' ? $place->[0] : $place;

	wait_until($place, q{message LIKE 'paused%' FROM sixtyfour.workers WHERE kind = 'worker' AND database = current_database()});
	my $why = why($place, $name);
	like($why, qr/^The queue of this database is paused until sixtyfour_resume\(\): $reason\.$/, 'sixtyfour_why() says why');
	# in the view there is room for 159 bytes
	is(message($place), substr($why =~ s/^The queue of this database is (.*)\.$/$1/r, 0, 159), 'sixtyfour.workers too');
	like(slurp_file($node->logfile), qr/LOG:  sixtyfour: submissions from database "[a-z]+" are paused: $reason\n.*HINT:  \Q$hint\E\n/, 'and the log');
	return;
}

# A new node with the files of another, which is down
sub copy_files
{
	my ($from, $name) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);

	rmdir $copy->data_dir;
	system_or_bail('cp', '-a', $from->data_dir, $copy->data_dir);
	$copy->append_conf('postgresql.conf', 'port = ' . $copy->port . "\n");
	return $copy;
}

my $copied = qr/the data directory is a copy, or was restored/;
my $timeline = qr/the server was promoted or recovered \(timeline 1 became 2\)/;

# ---- other databases ----

subtest 'CREATE DATABASE TEMPLATE' => sub {
	my $copy = [ $origin, 'copy' ];

	load_cargo($origin, 'T', 'done');
	sql($origin, 'CREATE DATABASE copy TEMPLATE postgres');
	open_again($origin, 'copy');
	my $new = ask($copy, 'T new');
	finish('T new');
	like(answer($copy, $new), qr/structured_data/, 'a new job of the copy is worked on');
	my $cached = ask($copy, 'T done');
	is(answer($copy, $cached), sql($copy, "SELECT sixtyfour_result($cached)"), 'what was answered is answered again');
	is(states($copy, 'T'), 'done succeeded, done succeeded, new succeeded, queued queued, running running, sent sending', 'those that it brought along are not touched');
	# as on a subscriber, whose tables are copied one after the other
	sql($copy, q{UPDATE sixtyfour.call SET state = 'uncertain' WHERE state = 'sending'});
	let_look($copy);
	is(job($copy, 'T sent', 'state'), 'sending', 'not even if their call is ahead of them');
	sql($copy, q{UPDATE sixtyfour.call SET state = 'sending' WHERE state = 'uncertain'});
	is(why($copy, 'T queued'), $why_foreign, 'why one waits');
	is(why($copy, 'T running'), $why_not_followed, 'why nobody asks for the answer');
	my $joined = ask($copy, 'T running');
	wait_until($copy, "state = 'running' FROM sixtyfour.jobs WHERE id = $joined");
	is(sql($copy, "SELECT sixtyfour_why($joined)"), $why_not_followed, 'and one that asks the same');
	is(sent('T queued'), 0, 'nothing was sent');

	open_again($origin);
	finish(qw(T\ running T\ queued)) if 0;
	finish('T running', 'T queued');
	wait_for_states($origin, 'T', 'done succeeded, queued succeeded, running succeeded, sent uncertain', 'the original goes on');
	is(job($origin, 'T sent', 'message'), 'the worker ended before the service answered', 'what it was sending is uncertain');

	sql($copy, q{SELECT sixtyfour_cancel(id) FROM sixtyfour.jobs WHERE state = 'queued' AND run_at < now()});
	sql($copy, 'SELECT sixtyfour_resume()');
	wait_for_states($copy, 'T', 'done succeeded, done succeeded, new succeeded, queued cancelled, running succeeded, running succeeded, sent uncertain',
		'resumed, the copy follows what it brought along');
	is(job($copy, 'T sent', 'message'), 'it was being sent when this copy of the database was made', 'and knows what it cannot know');
	is(sent("T $_"), 1, "$_: paid once") foreach qw(done running sent queued new);
	sql($origin, 'DROP DATABASE copy');
	return;
};

subtest 'logical subscriber' => sub {
	is(sql($origin, q{SELECT string_agg(oid::regclass::text, ',') FROM pg_class c
			WHERE relnamespace = 'sixtyfour'::regnamespace AND relkind = 'r' AND relreplident <> 'f'
			AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)}),
		'', 'all tables can be published');
	load_cargo($origin, 'L');
	sql($origin, 'CREATE PUBLICATION everything FOR ALL TABLES');
	sql($other, "CREATE SUBSCRIPTION everything CONNECTION \$\$" . $origin->connstr('postgres') . "\$\$ PUBLICATION everything");
	$other->wait_for_subscription_sync($origin, 'everything');
	is(states($other, 'L'), 'queued queued, running running, sent sending', 'the rows arrive');
	is(sql($other, 'SELECT count(*) FROM sixtyfour.state'), 2, 'also that of the original\'s worker');
	sql($other, q{SELECT setval('sixtyfour.job_id_seq', 1000000)});
	let_look($other);
	is(states($other, 'L'), 'queued queued, running running, sent sending', 'and are not touched');
	is(why($other, 'L queued'), $why_foreign, 'why');

	open_again($origin);
	finish('L running', 'L queued');
	wait_for_states($origin, 'L', 'queued succeeded, running succeeded, sent uncertain', 'the original goes on');
	$origin->wait_for_catchup('everything');
	is(states($other, 'L'), 'queued succeeded, running succeeded, sent uncertain', 'the subscriber sees it');
	like(job($other, 'L queued', 'sixtyfour_result(id)'), qr/structured_data/, 'with the answers');
	let_look($other);
	is(sent("L $_"), 1, "$_: paid once") foreach qw(running sent queued);
	sql($other, 'DROP SUBSCRIPTION everything');
	sql($origin, 'DROP PUBLICATION everything');
	return;
};

# Of one database to another, while a worker is there
sub dump_and_restore
{
	my ($from, $to, @options) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/dump.sql";

	$from->[0]->command_ok([ 'pg_dump', @options, '-f', $file, $from->[0]->connstr($from->[1]) ], 'pg_dump');
	return sub {
		$to->[0]->command_ok([ 'psql', '-qXv', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $file, $to->[0]->connstr($to->[1]) ],
			'restore');
		return;
	};
}

subtest 'pg_dump and restore' => sub {
	my $restored = [ $other, 'restored' ];

	sql($origin, q{CREATE TABLE people (id int PRIMARY KEY, obsolete text, name text, email text);
		ALTER TABLE people DROP COLUMN obsolete;
		SELECT sixtyfour_create_enrichment('mail', 'people', 'find_email', '{"name":"name"}', '{"email":"$.email[0][0]"}');
		INSERT INTO people VALUES (1, 'D first')});
	finish('D first');
	wait_until($origin, 'email IS NOT NULL FROM people');
	load_cargo($origin, 'D', 'done');
	sql($origin, q{INSERT INTO people VALUES (2, 'D second')});
	my $ids = q{SELECT max(j.id), (SELECT max(id) FROM sixtyfour.call), (SELECT max(id) FROM sixtyfour.result) FROM sixtyfour.job j};
	my @max = split /\|/, sql($origin, $ids);

	my $restore = dump_and_restore([ $origin, 'postgres' ], $restored);
	sql($other, 'CREATE DATABASE restored TEMPLATE template0');
	$restore->();
	is(sql($restored, $ids), join('|', @max), 'the ledger is there');
	is(states($restored, 'D'), 'done succeeded, queued queued, running running, sent sending', 'as it was');
	sql($restored, q{INSERT INTO people VALUES (3, 'D third')});
	finish('D third');
	wait_until($restored, 'email IS NOT NULL FROM people WHERE id = 3');
	pass('enrichments work, though their columns have other numbers');
	cmp_ok((split /\|/, sql($restored, $ids))[$_], '>', $max[$_], 'ids go on') foreach 0 .. 2;
	my $cached = ask($restored, 'D done');
	is(answer($restored, $cached), job($origin, 'D done', 'sixtyfour_result(id)'), 'stored results answer');
	is(why($restored, $_), $why_foreign, "$_ waits") foreach 'D queued', 'D second';
	is(sent($_), 0, "$_: not sent") foreach 'D queued', 'D second';

	# now the original is given up
	sql($origin, q{SELECT sixtyfour_cancel(id) FROM sixtyfour.jobs WHERE state = 'queued'});
	sql($restored, 'SELECT sixtyfour_resume()');
	finish('D running', 'D queued', 'D second');
	wait_for_states($restored, 'D', 'done succeeded, done succeeded, queued succeeded, running succeeded, sent uncertain', 'resumed, it goes on');
	wait_until($restored, 'count(email) = 3 FROM people');
	open_again($origin);
	wait_for_states($origin, 'D', 'done succeeded, queued cancelled, running succeeded, sent uncertain', 'the original follows what it sent as well');
	is(sent("D $_"), 1, "$_: paid once") foreach qw(first second third done running sent queued);
	sql($other, 'DROP DATABASE restored');
	return;
};

subtest 'an old dump over its own database' => sub {
	my $again = [ $origin, 'again' ];

	sql($origin, 'CREATE DATABASE again');
	SixtyfourTest::install($origin, 'again', $mock, %common);
	load_cargo($again, 'A');
	my $restore = dump_and_restore($again, $again, '--clean', '--if-exists');
	open_again($origin);
	finish('A running', 'A queued');
	wait_for_states($again, 'A', 'queued succeeded, running succeeded, sent uncertain', 'time goes by');
	$restore->();
	let_look($again);
	is(states($again, 'A'), 'queued queued, running running, sent sending', 'then it is as it was');
	is(why($again, 'A queued'), $why_foreign, 'why nothing is sent');
	is(sent("A $_"), 1, "$_: paid once") foreach qw(running sent queued);
	sql($origin, 'DROP DATABASE again');
	return;
};

# ---- the same database on other files ----

subtest 'files that are copied' => sub {
	load_cargo($origin, 'F');
	$origin->stop;
	my $copy = copy_files($origin, 'copy');
	$origin->start;
	finish('F running');
	open_again($origin);
	finish('F queued');
	wait_for_states($origin, 'F', 'queued succeeded, running succeeded, sent uncertain', 'the original goes on after its restart');

	$copy->start;
	ask($copy, 'F new');
	open_again($copy);
	is_paused($copy, 'F new', $copied);
	wait_for_states($copy, 'F', 'new queued, queued queued, running succeeded, sent uncertain', 'the copy polls, and does no more');
	is(job($copy, 'F sent', 'message'), 'the worker ended before the service answered', 'what was being sent is uncertain');
	let_look($copy);
	is(sent('F new'), 0, 'nothing is sent');
	$copy->restart;
	is_paused($copy, 'F new', $copied);
	sql($copy, 'SELECT sixtyfour_pause()');
	is_paused($copy, 'F new', $copied);
	sql($copy, q{SELECT sixtyfour_cancel(id) FROM sixtyfour.jobs WHERE body->'lead_info'->>'name' = 'F queued'});
	sql($copy, 'SELECT sixtyfour_resume()');
	finish('F new');
	wait_for_states($copy, 'F', 'new succeeded, queued cancelled, running succeeded, sent uncertain', 'until a person resumes it');
	is(message($copy), '', 'of which sixtyfour.workers then says nothing');
	is(sent("F $_"), 1, "$_: paid once") foreach qw(running sent queued new);

	# what is no copy
	$copy->stop;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	$copy->append_conf('postgresql.conf', "port = $port\n");
	$copy->{_port} = $port;
	$copy->start;
	my $restarted = ask($copy, 'F restarted');
	finish('F restarted');
	like(answer($copy, $restarted), qr/structured_data/, 'on another port it goes on');
	$copy->stop('immediate');
	$copy->start;
	my $crashed = ask($copy, 'F crashed');
	finish('F crashed');
	like(answer($copy, $crashed), qr/structured_data/, 'after a crash too');

	# restored in its place, and moved
	$copy->stop;
	my $control = $copy->data_dir . '/global/pg_control';
	system_or_bail('cp', '-a', $control, "$control-backup");
	unlink $control or die "unlink: $!";
	# often gets the number of the file that was there before
	system_or_bail('cp', '-a', "$control-backup", $control);
	$copy->start;
	ask($copy, 'F restored');
	is_paused($copy, 'F restored', $copied);
	sql($copy, 'SELECT sixtyfour_resume()');
	finish('F restored');
	$copy->stop;
	my $from = $copy->basedir;
	rename $copy->data_dir, "$from/moved" or die "rename: $!";
	symlink "$from/moved", $copy->data_dir or die "symlink: $!";
	$copy->start;
	ask($copy, 'F moved');
	is_paused($copy, 'F moved', qr{the data directory was "\Q@{[ $copy->data_dir ]}\E" and is "\Q$from\E/moved"});
	is(sent('F moved'), 0, 'nothing is sent');
	$copy->stop;
	return;
};

subtest 'what counts' => sub {
	my $set = sub {
		my $epoch = sql($origin, "UPDATE sixtyfour.state SET $_[0] RETURNING epoch");
		# gives the database a new worker
		sql($origin, 'ALTER EXTENSION sixtyfour UPDATE');
		wait_until($origin, "epoch = $epoch + 1 FROM sixtyfour.state");
		return sql($origin, q{SELECT coalesce(paused_reason, 'runs') FROM sixtyfour.state WHERE host IS NOT NULL});
	};
	my $host = sql($origin, 'SELECT host FROM sixtyfour.state');

	is($set->($_), 'runs', $_) foreach (
		'epoch = epoch + 7',
		"host = 'elsewhere'",
		"boot = 'earlier'",
		"boot = 'earlier', device = device + 1",
		'device = device + 1',
		'boot = NULL, born = NULL');
	my $elsewhere = qq(the host was "elsewhere" and is "$host");
	my %paused = (
		"host = 'elsewhere', boot = 'earlier'"      => $elsewhere,
		"host = 'elsewhere', boot = NULL"           => $elsewhere,
		"host = 'elsewhere', device = device + 1"   => $elsewhere,
		"born = born + interval '1 s'"              => 'the data directory is a copy, or was restored',
		'inode = inode + 1'                         => 'the data directory is a copy, or was restored',
		"directory = '/elsewhere'"                  => 'the data directory was "/elsewhere" and is "' . $origin->data_dir . '"',
		'timeline = 7, inode = 1'                   => 'the server was promoted or recovered (timeline 7 became 1)');
	delete $paused{"born = born + interval '1 s'"}
	  if sql($origin, 'SELECT born IS NULL FROM sixtyfour.state') eq 't';
	foreach my $what (sort keys %paused)
	{
		is($set->($what), $paused{$what}, $what);
		is($set->('epoch = epoch'), $paused{$what}, 'and so with the next worker');
		sql($origin, 'SELECT sixtyfour_resume()');
	}
	sql($origin, 'SELECT sixtyfour_pause()');
	is($set->('epoch = epoch'), 'runs', 'a person\'s pause has no reason');
	is(sql($origin, 'SELECT paused FROM sixtyfour.state'), 't', 'and stays');
	is(message($origin), 'paused until sixtyfour_resume()', 'sixtyfour.workers says so');
	ask($origin, 'C new');
	is(why($origin, 'C new'), 'The queue of this database is paused until sixtyfour_resume().', 'and sixtyfour_why()');
	sql($origin, q{SELECT sixtyfour_cancel(id) FROM sixtyfour.jobs WHERE state = 'queued'});
	sql($origin, 'SELECT sixtyfour_resume()');
	is($set->('timeline = NULL, host = NULL'), 'runs', 'where no worker ran before, the first one does');
	return;
};

# ---- standbys and recovery ----

my $standby = PostgreSQL::Test::Cluster->new('standby');
my $pitr    = PostgreSQL::Test::Cluster->new('pitr');
my $heir    = PostgreSQL::Test::Cluster->new('heir');

subtest 'standby' => sub {
	$origin->backup('base');
	$standby->init_from_backup($origin, 'base', has_streaming => 1);
	$standby->start;
	load_cargo($origin, 'S');
	$origin->wait_for_catchup('standby');
	is(sql($standby, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'sixtyfour%'}), 0, 'nobody works on it');
	is(states($standby, 'S'), 'queued queued, running running, sent sending', 'it sees the jobs');
	is(job($standby, 'T done', 'sixtyfour_result(id) IS NOT NULL'), 't', 'and the answers');
	$mock->settings({ task_seconds => 0 });
	like(sql($standby, q{SELECT sixtyfour_find_email('{"name":"S direct"}')}), qr/email/, 'synchronous functions work');
	$mock->settings({ task_seconds => undef });
	my %refused = (
		'sixtyfour_enrich_lead_async(' . question('S refused') . ')' => 'INSERT',
		'sixtyfour_cancel(' . job($origin, 'S queued', 'id') . ')' => 'UPDATE',
		'sixtyfour_pause()'  => 'INSERT',
		'sixtyfour_resume()' => 'INSERT');
	foreach my $function (sort keys %refused)
	{
		my $error = SixtyfourTest::sql_error($standby, "SELECT $function");
		is("$error->{sqlstate} $error->{message}", "25006 cannot execute $refused{$function} in a read-only transaction", $function);
	}
	return;
};

subtest 'point-in-time recovery' => sub {
	sql($origin, q{SELECT pg_create_restore_point('before'); SELECT pg_switch_wal()});
	$pitr->init_from_backup($origin, 'base');
	my $wal = $origin->data_dir . '/pg_wal';
	$pitr->append_conf('postgresql.conf', qq{
restore_command = 'cp "$wal/%f" "%p"'
recovery_target_name = 'before'
recovery_target_action = 'promote'
});
	$pitr->set_recovery_mode;
	# the standby does not see what comes now
	$standby->stop;
	open_again($origin);
	finish('S running', 'S queued');
	wait_for_states($origin, 'S', 'queued succeeded, running succeeded, sent uncertain', 'the original goes on');

	$pitr->start;
	wait_until($pitr, 'NOT pg_is_in_recovery()');
	open_again($pitr);
	is_paused($pitr, 'S queued', $timeline);
	wait_for_states($pitr, 'S', 'queued queued, running succeeded, sent uncertain', 'tasks are followed');
	let_look($pitr);
	is(sent("S $_"), 1, "$_: paid once") foreach qw(running sent queued);
	$pitr->stop;
	return;
};

subtest 'promoted, with commits missing' => sub {
	$origin->stop('immediate');
	$standby->start;
	$standby->promote;
	open_again($standby);
	is_paused($standby, 'S queued', $timeline);
	wait_for_states($standby, 'S', 'queued queued, running succeeded, sent uncertain', 'tasks are followed');
	let_look($standby);
	is(sent("S $_"), 1, "$_: paid once") foreach qw(running sent queued);
	# a person looks at the service, and finds it
	sql($standby, q{SELECT sixtyfour_cancel(id) FROM sixtyfour.jobs WHERE state = 'queued'});
	ask($standby, 'S new');
	sql($standby, 'SELECT sixtyfour_resume()');
	finish('S new');
	wait_for_states($standby, 'S', 'new succeeded, queued cancelled, running succeeded, sent uncertain', 'resumed, it goes on');
	return;
};

subtest 'promoted, synchronous' => sub {
	$standby->backup('base');
	$heir->init_from_backup($standby, 'base', has_streaming => 1);
	$heir->append_conf('postgresql.conf', "sixtyfour.on_promotion = continue\n");
	$heir->start;
	set_conf($standby, 'synchronous_standby_names', 'heir');
	wait_until($standby, q{sync_state = 'sync' FROM pg_stat_replication});
	load_cargo($standby, 'H');
	$standby->stop('immediate');
	$heir->promote;
	finish('H running');
	open_again($heir);
	set_conf($heir, 'synchronous_standby_names', '');
	finish('H queued');
	wait_for_states($heir, 'H', 'queued succeeded, running succeeded, sent uncertain', 'it goes on by itself');
	like(slurp_file($heir->logfile), qr/LOG:  sixtyfour: database "postgres" goes on, as sixtyfour\.on_promotion says: the server was promoted or recovered \(timeline 2 became 3\)\n/,
		'and says so');
	is(sent("H $_"), 1, "$_: paid once") foreach qw(running sent queued);
	my $error = SixtyfourTest::sql_error($heir, q{SET sixtyfour.on_promotion = 'pause'});
	is($error->{sqlstate}, '55P02', 'a user cannot say so');
	return;
};

# ---- pg_upgrade ----

subtest 'pg_upgrade' => sub {
	my $new = PostgreSQL::Test::Cluster->new('new');

	# which pg_upgrade does to see whether the library is there
	plan skip_all => 'needs an installed library'
	  if $heir->psql('postgres', q{LOAD '$libdir/sixtyfour'}, stderr => \my $said) != 0;
	load_cargo($heir, 'U');
	$heir->stop;
	$new->init;
	$new->append_conf('postgresql.conf', $common{conf});
	my $bin = $new->config_data('--bindir');
	my $dir = PostgreSQL::Test::Utils::tempdir();
	chdir $dir or die;
	$new->command_ok([ 'pg_upgrade', '-N', '-b', $bin, '-B', $bin, '-d', $heir->data_dir, '-D', $new->data_dir,
			'-p', $heir->port, '-P', $new->port, '-s', $new->host ], 'pg_upgrade');
	$new->start;
	is(states($new, 'U'), 'queued queued, running running, sent sending', 'the ledger is there');
	let_look($new);
	is(why($new, 'U queued'), $why_foreign, 'why nothing is sent');
	is(sent('U queued'), 0, 'nothing is');
	sql($new, 'SELECT sixtyfour_resume()');
	finish('U running', 'U queued');
	wait_for_states($new, 'U', 'queued succeeded, running succeeded, sent uncertain', 'resumed, it goes on');
	is(sent("U $_"), 1, "$_: paid once") foreach qw(running sent queued);
	return;
};

# ---- in the end ----

is_deeply($mock->summary->{duplicates}, {}, 'nothing was paid twice');
is_deeply($mock->summary->{duplicate_leads}, {}, 'in no form');
unlike(slurp_file($_->logfile), qr/PANIC|TRAP|server process .* was terminated by signal/, 'no crash of ' . $_->name)
  foreach $origin, $other, $standby, $pitr, $heir;

done_testing();
