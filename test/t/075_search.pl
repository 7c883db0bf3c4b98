# Searches and runs of workflows: started, followed to their rows with word of
# how far they are, interrupted and asked for again, failed, cancelled, without
# a worker, sent again when their reply is lost.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good,api_other');
my $node = SixtyfourTest::cluster('search', $mock, route => 'auto',
	server => "requests_per_minute '0', timeout '60'");
my $session = SixtyfourTest::Session->new($node);
my $true    = JSON::PP::true;

$mock->settings({ task_seconds => 0.3 });

sub rows_of { return map { JSON::PP::decode_json($_->[0]) } @{ $_[0]{rows} }; }
sub ask { my ($sql, $who) = @_; return ($who // $session)->query("SELECT * FROM $sql"); }
sub value { my ($sql, $who) = @_; return ($who // $session)->value("SELECT $sql"); }
sub failure { my $error = ask(@_)->{error} // {}; return join ' ', map { $_ // '' } @{$error}{qw(sqlstate message)}; }
sub seen { return @{ $mock->ledger(path => $_[0]) }; }
sub finish { return $mock->control('POST', 'tasks/all', { action => 'finish' }); }
sub no_duplicates { return is_deeply($mock->summary->{duplicates}, {}, $_[0] // 'nothing was paid twice'); }

my $start  = '/search/start-deep-search';
my $status = '/search/deep-search-status/*';

my $definition = JSON::PP->new->canonical->encode({
	blocks => [ map { { sequence_number => $_, block_type => $_ == 1 ? 'webhook' : 'enrich',
				block_name => (qw(webhook enrich_company find_email))[ $_ - 1 ], specs => {} } } 1 .. 3 ],
	edges => [] });

sub workflow { return value("sixtyfour_create_workflow('$_[0]', '$definition') ->> 'id'"); }

# ---- a search ----

foreach my $route (qw(auto direct))
{
	subtest "a search, route $route" => sub {
		$mock->reset;
		$mock->settings({ task_seconds => 0.3 });
		$session->value("SET sixtyfour.route = $route");
		my $reply = ask("sixtyfour_search('founders in Oslo ($route)', max_results => 7)");
		is($reply->{error}, undef, 'it succeeds') or diag explain $reply->{error};
		my @rows = rows_of($reply);
		is(scalar @rows, 7, 'and has as many rows as were wanted');
		ok((grep { !ref } values %{ $rows[0] }) == keys %{ $rows[0] }, 'with texts');
		my @sent = seen($start);
		is(scalar @sent, 1, 'it was started once');
		my $search_id = delete $sent[0]{body}{search_id};
		like($search_id, qr/^[0-9a-f]{8}-/, 'with an id of our own');
		is_deeply($sent[0]{body}, { query => "founders in Oslo ($route)", mode => 'people', max_results => 7 }, 'as it was asked');
		ok(seen($status) >= 1, 'and followed at its own path');
		is(scalar seen('/job-status/*'), 0, 'not as other tasks');
		is(scalar seen('/search/download'), 1, 'the address of its file was asked for once');
		$reply = ask("sixtyfour_search('founders in Oslo ($route)', max_results => 7)");
		is(scalar @{ $reply->{rows} }, 7, 'asked again') if $route eq 'auto';
		is(scalar seen($start), 1, 'it is not bought again') if $route eq 'auto';
		no_duplicates() if $route eq 'auto';
		$session->value('RESET sixtyfour.route');
	};
}

subtest 'how far it is' => sub {
	foreach my $route (qw(auto direct))
	{
		$session->value("SET sixtyfour.route = $route");
		$mock->reset;
		$mock->settings({ task_seconds => undef });
		$session->send("SELECT * FROM sixtyfour_search('slow one ($route)')");
		$mock->wait_for(count => 2, path => $status, stage => 'replied');
			like(value('sixtyfour_why(max(id)) FROM sixtyfour.jobs', SixtyfourTest::Session->new($node)),
			qr/The service works on it, as call \d+ \(phase \d+/, 'sixtyfour_why knows')
		  if $route eq 'auto';
		finish();
		my $reply = $session->receive;
		is(scalar @{ $reply->{rows} }, 25, "the rows come ($route)");
		like($reply->{notices}[0]{message}, qr/^search: phase \d+, .*Searching/, 'with a NOTICE before');
		$mock->rule({ match => { path => $status }, times => 1, answer => { status => 'odd', current_phase => 1e200, progress_message => "\x{e9}" x 9999 } });
		$mock->settings({ task_seconds => 0.1 });
		$reply = ask("sixtyfour_search('talkative ($route)')");
		is(scalar @{ $reply->{rows} }, 25, 'of one that says much');
		is(scalar(grep { length($_->{message}) > 208 } @{ $reply->{notices} }), 0, 'a part is told');
	}
	$session->value('RESET sixtyfour.route');
};

subtest 'interrupted' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => undef });
	$session->send("SELECT * FROM sixtyfour_search('interrupted')");
	$mock->wait_for(count => 1, path => $status, stage => 'replied');
	# that it is named is seen by the session within a second
	SixtyfourTest::poll_until(sub { value('count(*) FROM sixtyfour.calls WHERE task_id IS NOT NULL AND state = $$accepted$$', SixtyfourTest::Session->new($node)) > 0 });
	$session->cancel;
	my $error = $session->receive->{error};
	is($error->{sqlstate}, '57014', 'a search can be cancelled');
	like($error->{context}, qr/Sixtyfour job \d+, whose answer is kept/, 'the context says that it goes on');
	finish();
	my $reply = ask("sixtyfour_search('interrupted')");
	is(scalar @{ $reply->{rows} }, 25, 'asked again, its rows are there');
	is(scalar seen($start), 1, 'and nothing was started anew');
	no_duplicates();
};

subtest 'start, status, download' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => undef });
	my $task = value("sixtyfour_start_search('by hand', 'company', 5)");
	like($task, qr/^\S{8,}$/, 'the name of the task');
	is(value("sixtyfour_start_search('by hand', 'company', 5)"), $task, 'which is the same for the same search');
	is(value("sixtyfour_search_status('$task') ->> 'status'"), 'running', 'how it is');
	finish();
	my $handle = value("sixtyfour_search_status('$task') ->> 'resource_handle_id'");
	is(value("count(*) FROM sixtyfour_search_download('$handle')"), 5, 'its rows');
	is(value("count(*) FROM sixtyfour_search_download('$handle')"), 5, 'as often as one likes');
	is(scalar seen($start), 1, 'it was started once');
	is(failure("sixtyfour_search_status('nobody')"), '02000 search_status: the service does not know what was asked for', 'an unknown one');
	is(failure("sixtyfour_search_download('nobody')"), '02000 search_download: the service does not know what was asked for', 'unknown rows');
	is(value("count(*) FROM sixtyfour_search_download(NULL)"), 0, 'nothing of nothing');
	is(value("sixtyfour_search_status(NULL)"), undef, 'likewise');
	is(value("count(*) FROM sixtyfour_search(NULL)"), 0, 'likewise');
	is(failure("sixtyfour_search('x', mode => 'dogs')"), '22023 unknown value of "mode"', 'a mode that there is not');
	is(failure("sixtyfour_search('x', max_results => 0)"), '22023 "max_results" must be a whole number of 1 or more', 'too few results');
};

subtest 'what goes wrong with a search' => sub {
	foreach my $route (qw(auto direct))
	{
		$session->value("SET sixtyfour.route = $route");
		$mock->reset;
		$mock->settings({ task_seconds => 0.1 });
		$mock->rule({ match => { path => $start }, task_result => 'failed', error => 'no such place' });
		is(failure("sixtyfour_search('fails ($route)')"), '38000 the service could not do it: no such place', "it fails ($route)");
		$mock->clear_rules;
		$mock->rule({ match => { path => $start }, result => [] });
		is(scalar @{ ask("sixtyfour_search('nothing ($route)')")->{rows} }, 0, 'it finds nothing');
		$mock->clear_rules;
		$mock->rule({ match => { path => '/files/*' }, fault => 'expired_address', times => 1 });
		is(scalar @{ ask("sixtyfour_search('late ($route)')")->{rows} }, 25, 'the address has expired: another is asked for');
		is(scalar seen('/files/*'), 3, 'once');
		$mock->clear_rules;
		$mock->rule({ match => { path => '/files/*' }, fault => 'expired_address' });
		like(failure("sixtyfour_search('too late ($route)')"), qr/^38000 could not download the results: the addresses .* have expired already/, 'none is good');
		$mock->clear_rules;
		is(scalar @{ ask("sixtyfour_search('too late ($route)')")->{rows} }, 25, 'later it is') if $route eq 'auto';
		$mock->rule({ match => { path => '/files/*' }, fault => 'cut' });
		like(failure("sixtyfour_search('cut ($route)')"), qr/^08006 could not download the results/, 'the file breaks off');
		$mock->clear_rules;
		$mock->rule({ match => { path => $start }, result_csv => "a,b\n1,2\n3\n" });
		my $error = ask("sixtyfour_search('ragged ($route)')")->{error};
		is($error->{sqlstate}, '08P01', 'a row is too short');
		like($error->{message}, qr/line 3/, 'and its line is said');
		$mock->clear_rules;
		$mock->rule({ match => { path => $start }, task_result => 'failed', error => 'why not? ' x 9999 });
		is(length failure("sixtyfour_search('fails at length ($route)')"), 1024 + length('38000 the service could not do it: '), 'an error is cut');
		$mock->clear_rules;
		$mock->rule({ match => { path => $start }, accept => JSON::PP::false, answer => { task_id => 17, status => 'queued' } });
		$mock->rule({ match => { path => $status }, accept => JSON::PP::false, answer => { status => 'Completed', resource_handle_id => 4711 } });
		$mock->rule({ match => { path => '/search/download' }, accept => JSON::PP::false, answer => { url => $mock->url . '/files/x' } });
		$mock->rule({ match => { path => '/files/x' }, accept => JSON::PP::false, body => { text => "a\n1\n" }, content_type => 'text/csv' });
		is_deeply([ rows_of(ask("sixtyfour_search('numbers ($route)')")) ], [ { a => '1' } ], 'names that are numbers');
		is((seen('/search/download'))[-1]{query}{resource_handle_id}, '4711', 'are names');
		is((seen($status))[-1]{path}, '/search/deep-search-status/17', 'too');
		$mock->clear_rules;
		$mock->rule({ match => { path => '/search/download' }, answer => { bucket => 'b' } });
		is(failure("sixtyfour_search('no address ($route)')"), q(08P01 search_download: the service's answer cannot be used), 'no address');
		$mock->clear_rules;
		$mock->rule({ match => { path => $start }, result_csv => qq("na""me","na""me",,,x,x\n"a\n""b""",,1,2,"",3\n) });
		is_deeply([ rows_of(ask("sixtyfour_search('ugly ($route)')")) ],
			[ { 'na"me' => "a\n\"b\"", 'na"me_2' => undef, '' => '1', '_2' => '2', 'x' => '', 'x_2' => '3' } ], 'an ugly file');
		$mock->clear_rules;
	}
	$session->value('RESET sixtyfour.route');
};

subtest 'the key goes to its own origin only' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => 0.1, download_host => 'localhost' });
	is(scalar @{ ask("sixtyfour_search('elsewhere')")->{rows} }, 25, 'rows from another origin');
	my ($file) = seen('/files/*');
	ok(!exists $file->{key_sha256} || !defined $file->{key_sha256}, 'to which no key was sent') or diag explain $file;
	$mock->settings({ download_host => '' });
};

# ---- jobs ----

subtest 'a search as a job' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => 0.2 });
	my $job = value("sixtyfour_search_async('in the background', max_results => 3)");
	my $answer = JSON::PP::decode_json(value("sixtyfour_wait($job, '30 s')"));
	is($answer->{status}, 'completed', 'its answer is how the search ended');
	is(value("count(*) FROM sixtyfour_search_download('$answer->{resource_handle_id}')"), 3, 'by which its rows are found');
	is(value("count(*) FROM sixtyfour_rows($job)"), 3, 'or by the job');
	is(value("operation FROM sixtyfour.jobs WHERE id = $job"), 'search', 'operation');
	$mock->settings({ task_seconds => undef });
	$job = value("sixtyfour_search_async('not finished')");
	is(value("count(*) FROM sixtyfour_rows($job)"), 0, 'none before it is finished');
	$mock->wait_for(count => 2, path => $start, stage => 'replied');
	finish();
	is(value("count(*) FROM sixtyfour_wait($job, '30 s') AS w, sixtyfour_rows($job)"), 25, 'all when it is');
	$mock->settings({ task_seconds => 0.2 });
	$job = value(qq(sixtyfour_run_workflow_async('${\ workflow('job') }', '[{"company_name": "Acme"}]')));
	is(JSON::PP::decode_json(value("sixtyfour_wait($job, '30 s')"))->{overall_status}, 'completed', 'so of a run');
	is(value("count(*) FROM sixtyfour_rows($job)"), 1, 'and its rows');
};

subtest 'five at a time' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => undef, search_limit => 5 });
	$mock->rule({ match => { path => '/find-email-async' }, task_seconds => 0.1 });
	my @jobs = map { value("sixtyfour_search_async('one of many $_')") } 1 .. 8;
	my $other = value(q(sixtyfour_find_email_async('{"name":"Not Held Up"}')));
	$mock->wait_for(count => 5, path => $start, stage => 'replied');
	value("sixtyfour_wait($other, '30 s')");
	is(scalar seen($start), 5, 'five are started, and others go on');
	finish();
	$mock->wait_for(count => 8, path => $start, stage => 'replied');
	finish();
	value("count(sixtyfour_wait(job, '30 s')) FROM unnest('{" . join(',', @jobs) . "}'::bigint[]) AS job");
	is((grep { ($_->{status} // 0) == 429 } seen($start)), 0, 'the service never had to say no');
	no_duplicates();
};

subtest 'too many, says the service' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => 0.1 });
	$mock->rule({ match => { path => $start }, status => 429, headers => { 'Retry-After' => '1' }, times => 1 });
	foreach my $route (qw(auto direct))
	{
		$session->value("SET sixtyfour.route = $route");
		$mock->rule({ match => { path => $start }, status => 429, headers => { 'Retry-After' => '1' }, times => 1 }) if $route eq 'direct';
		is(scalar @{ ask("sixtyfour_search('somebody else searches, too ($route)')")->{rows} }, 25, "is waited out ($route)");
	}
	$session->value('RESET sixtyfour.route');
	is(value("coalesce(sum(refusals), 0) FROM sixtyfour.accounts"), 0, 'and slows nothing else down');
};

# ---- replies that are lost ----

subtest 'a reply that is lost' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => 0.1 });
	my $flow = workflow('lost');
	foreach my $fault (qw(close_after_body cut not_json))
	{
		$mock->rule({ match => { path => $start }, fault => $fault, times => 1 });
		is(scalar @{ ask("sixtyfour_search('$fault')")->{rows} }, 25, "$fault: a search is sent again");
		$mock->clear_rules;
		$mock->rule({ match => { path => '/workflows/run' }, fault => $fault, times => 1 });
		is(scalar @{ ask(qq(sixtyfour_run_workflow('$flow', '[{"company_name": "$fault"}]')))->{rows} }, 1, 'and so is a run');
		$mock->clear_rules;
	}
	my @sent = map { $_->{body}{search_id} } seen($start);
	is(scalar @sent, 6, 'each twice');
	is($sent[$_], $sent[ $_ + 1 ], 'under one name') foreach 0, 2, 4;
	is(value("count(*) FROM sixtyfour.calls WHERE state = 'uncertain'"), 0, 'nothing is uncertain');
	no_duplicates();
};

# A refusal of what is sent again says nothing about what was sent before.
subtest 'a reply that is lost, and then a refusal' => sub {
	foreach my $route (qw(auto direct))
	{
		$session->value("SET sixtyfour.route = $route");
		$mock->reset;
		$mock->settings({ task_seconds => 0.1 });
		my $flow = workflow('refused');
		foreach my $status ($route eq 'auto' ? (402, 429) : 429)
		{
			$mock->rule({ match => { path => $_ }, fault => 'close_after_body', times => 1 }) foreach $start, '/workflows/run';
			$mock->rule({ match => { path => $_ }, status => $status, headers => { 'Retry-After' => '1' }, times => 1 }) foreach $start, '/workflows/run';
			is(scalar @{ ask("sixtyfour_search('$status $route')")->{rows} }, 25, "$status: a search is sent once more ($route)");
			is(scalar @{ ask(qq(sixtyfour_run_workflow('$flow', '[{"company_name": "$status $route"}]')))->{rows} }, 1, 'and so is a run');
			$mock->clear_rules;
			my @sent = map { $_->{body}{search_id} } seen($start);
			is_deeply([ @sent[ -3 .. -1 ] ], [ ($sent[-1]) x 3 ], 'under one name');
		}
		$mock->rule({ match => { path => $start }, fault => 'close_after_body', times => 1 });
		$mock->rule({ match => { path => $start }, status => 400, times => 1 });
		my $error = ask("sixtyfour_search('refused after all ($route)')")->{error};
		like("$error->{message} $error->{hint}", qr/may have been accepted|may have been billed/, 'refused for good: it may be billed');
		is($error->{sqlstate}, '08007', 'and is uncertain') if $route eq 'auto';
		$mock->clear_rules;
		value("count(sixtyfour_resolve(id, 'abandon')) FROM sixtyfour.attention WHERE kind = 'call'");
		no_duplicates();
	}
	$session->value('RESET sixtyfour.route');
};

subtest 'a worker that is killed while it starts one' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => 0.1 });
	my $flow = workflow('killed');
	$mock->rule({ match => { path => $_ }, hold => $true, times => 1 }) foreach $start, '/workflows/run';
	my @jobs = (value("sixtyfour_search_async('killed')"),
		value(qq(sixtyfour_run_workflow_async('$flow', '[{"company_name": "Killed"}]'))),
		value(q(sixtyfour_find_email_async('{"name": "Killed"}'))));
	$mock->wait_for(held => 2);
	value("sixtyfour_wait($jobs[2], '30 s')");
	$node->stop('immediate');
	$mock->control('POST', 'release');
	$node->start;
	$session = SixtyfourTest::Session->new($node);
	foreach my $job (@jobs[ 0, 1 ])
	{
		ok(value("sixtyfour_wait($job, '30 s')"), 'is followed by the next');
	}
	is(scalar seen($start), 2, 'which sent the search again');
	is(scalar seen('/workflows/run'), 2, 'and the run');
	no_duplicates();
};

# Another account of the service does not know it again, and would pay for it.
subtest 'a key that has changed when the next worker comes' => sub {
	my $set_key = 'ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key';
	$mock->reset;
	$mock->rule({ match => { path => $start }, hold => $true, times => 1 });
	my $job = value("sixtyfour_search_async('another key')");
	$mock->wait_for(held => 1);
	$session->query("$set_key 'api_other')");
	$node->stop('immediate');
	$mock->control('POST', 'release');
	$node->start;
	$session = SixtyfourTest::Session->new($node);
	like(failure("sixtyfour_wait($job, '30 s')"), qr/^08007 call \d+ may have been accepted and billed/, 'it is uncertain');
	is(scalar seen($start), 1, 'and is not sent again with the other key');
	$session->query("$set_key 'api_good')");
	value("sixtyfour_resolve(max(id), 'abandon') FROM sixtyfour.calls");
};

subtest 'what nobody wants any more is not sent again' => sub {
	$mock->reset;
	$mock->rule({ match => { path => $start }, fault => 'close_after_body' });
	my $job = value("sixtyfour_search_async('unwanted')");
	$mock->wait_for(count => 1, path => $start, stage => 'received_body');
	value("sixtyfour_cancel($job)");
	SixtyfourTest::poll_until(sub { (value("state FROM sixtyfour.calls ORDER BY id DESC LIMIT 1") // '') eq 'uncertain' });
	is(value("state FROM sixtyfour.calls ORDER BY id DESC LIMIT 1"), 'uncertain', 'it is uncertain');
	value("sixtyfour_resolve(max(id), 'abandon') FROM sixtyfour.calls");
};

# ---- workflows ----

subtest 'workflows' => sub {
	foreach my $routes (qw(both rest live))
	{
		$mock->control('POST', 'reset');
		$mock->settings({ workflow_routes => $routes });
		my $who  = SixtyfourTest::Session->new($node);
		my $flow = JSON::PP::decode_json(value("sixtyfour_create_workflow('W', '$definition')", $who));
		ok($flow->{id}, "created ($routes)");
		is(value("w ->> 'name' FROM sixtyfour_workflows() AS w", $who), 'W', 'listed');
		is(value("jsonb_array_length(sixtyfour_workflow('$flow->{id}') -> 'workflow_definition' -> 'blocks')", $who), 3, 'got');
		is(value(qq(sixtyfour_update_workflow('$flow->{id}', '{"workflow_name": "V"}') ->> 'name'), $who), 'V', 'changed');
		is(failure(qq(sixtyfour_update_workflow('nobody', '{"workflow_name": "V"}')), $who), '02000 update_workflow: the service does not know what was asked for', 'one that there is not');
		value("sixtyfour_delete_workflow('$flow->{id}')", $who);
		is(value("count(*) FROM sixtyfour_workflows()", $who), 0, 'deleted');
		is(failure("sixtyfour_workflow('$flow->{id}')", $who), '02000 workflow: the service does not know what was asked for', 'gone');
		my @refused = grep { ($_->{status} // 0) == 404 || ($_->{status} // 0) == 405 } grep { $_->{method} ne 'GET' } @{ $mock->ledger };
		is(scalar @refused, $routes eq 'live' ? 2 : 1, 'the other paths are tried once');
		my $next = SixtyfourTest::Session->new($node);
		$mock->reset_ledger;
		value("sixtyfour_delete_workflow(sixtyfour_create_workflow('X', '$definition') ->> 'id')", $next);
		is_deeply([ map { $_->{status} } @{ $mock->ledger } ], $routes eq 'live' ? [ 200, 200 ] : [ 200, 204 ], 'and not again by another session');
		next unless $routes eq 'live';
		my $set_key = 'ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key';
		$mock->settings({ workflow_routes => 'rest' });
		$who->query("$set_key 'api_other')");
		ok(value("sixtyfour_create_workflow('W', '$definition')", $who), 'and again for another account');
		$who->query("$set_key 'api_good')");
	}
	$mock->settings({ workflow_routes => 'both' });
};

foreach my $route (qw(auto direct))
{
	subtest "a run, route $route" => sub {
		$mock->reset;
		$mock->settings({ task_seconds => 0.3 });
		$session->value("SET sixtyfour.route = $route");
		my $flow = workflow('run');
		my @rows = rows_of(ask(qq(sixtyfour_run_workflow('$flow', '[{"company_name": "Acme ($route)"}, {"company_name": "Globex ($route)"}]'))));
		is(scalar @rows, 2, 'its rows');
		like($rows[0]{company_name}, qr/^Acme/, 'are about what was given');
		my ($run) = seen('/workflows/run');
		is($run->{query}{workflow_id}, $flow, 'the workflow is in the query');
		is_deeply([ keys %{ $run->{body} } ], ['webhook_payload'], 'and not in the body');
		like($run->{headers}{'idempotency-key'}, qr/^[0-9a-f]{8}-/, 'with a key');
		$mock->settings({ inline_results => $true });
		is(scalar @{ ask(qq(sixtyfour_run_workflow('$flow', '{"company_name": "One ($route)"}')))->{rows} }, 1, 'rows that come at once; one object');
		$mock->settings({ inline_results => JSON::PP::false });
		$mock->rule({ match => { path => '/workflows/run' }, task_result => 'failed', error => 'block 2 broke' });
		like(failure(qq(sixtyfour_run_workflow('$flow', '[{"company_name": "Fails ($route)"}]'))), qr/^38000 the service could not do it: /, 'a run that fails');
		$mock->clear_rules;
		$mock->settings({ last_result => 'none' });
		is(failure(qq(sixtyfour_run_workflow('$flow', '[{"company_name": "None ($route)"}]'))), q(08P01 workflow_results: the service's answer cannot be used), 'no address of rows');
		$mock->settings({ last_result => 'file' });
		$session->value('RESET sixtyfour.route');
	};
}

subtest 'a run by hand' => sub {
	$mock->control('POST', 'reset');
	$mock->settings({ task_seconds => undef });
	my $flow = workflow('hand');
	my $run  = value(qq(sixtyfour_start_workflow('$flow', '[{"company_name": "Acme"}]')));
	is(value("sixtyfour_workflow_status('$run') ->> 'overall_status'"), 'running', 'runs');
	is(value("r ->> 'job_id' FROM sixtyfour_workflow_runs('active') AS r"), $run, 'is listed');
	is(value("count(*) FROM sixtyfour_workflow_runs('completed')"), 0, 'by its status');
	is(value("count(*) FROM sixtyfour_workflow_runs()"), 1, 'or any');
	is(value("count(*) FROM sixtyfour_workflow_results('$run')"), 0, 'has no rows yet');
	is(value("sixtyfour_cancel_workflow('$run') ->> 'status'"), 'canceled', 'is cancelled');
	my $job = value("max(id) FROM sixtyfour.jobs");
	like(failure("sixtyfour_wait($job, '30 s')"), qr/^38000 the service could not do it: /, 'and so its job failed');
	my $again = value(qq(sixtyfour_start_workflow('$flow', '[{"company_name": "Acme"}]')));
	isnt($again, $run, 'the same can be run again');
	finish();
	is(value("count(*) FROM sixtyfour_run_workflow('$flow', '[{\"company_name\": \"Acme\"}]')"), 1, 'and is joined');
	is(scalar seen('/workflows/run'), 2, 'not run a third time');
	is(failure("sixtyfour_run_workflow('$flow', NULL)"), '22023 "webhook_payload" is required', 'no payload');
	is(failure(qq(sixtyfour_run_workflow('$flow', '[]'))), '22023 "webhook_payload" must not be empty', 'an empty payload');
	is(failure(qq(sixtyfour_run_workflow('nobody', '[{"a": 1}]'))), '02000 run_workflow: the service does not know what was asked for', 'a workflow that there is not');
};

subtest 'somebody is forgotten' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => 0.1 });
	my $flow = workflow('forget');
	ask(qq(sixtyfour_run_workflow('$flow', '[{"company_name": "Acme"}, {"company_name": "Forgotten", "name": "Jo"}]')));
	ask(qq(sixtyfour_run_workflow('$flow', '{"company_name": "Forgotten"}')));
	is(value(q(sixtyfour_forget('{"company_name": "Forgotten"}'))), 4, 'with the runs: two jobs and two answers');
	is(value(q(count(*) FROM sixtyfour.job WHERE body::text LIKE '%Forgotten%')), 0, 'which are gone');
	is(value(q(count(*) FROM sixtyfour.call_subject WHERE subject::text LIKE '%Forgotten%')), 0, 'wholly');
};

# ---- without a worker, and as a candidate ----

subtest 'a task that somebody names' => sub {
	$mock->reset;
	$mock->settings({ task_seconds => 0.1 });
	my $task = value("sixtyfour_start_search('the real one')");
	value("sixtyfour_wait(max(id), '30 s') FROM sixtyfour.jobs");
	$mock->rule({ match => { path => $start }, status => 418 });
	my $job = value("sixtyfour_search_async('refused oddly')");
	SixtyfourTest::poll_until(sub { value("state FROM sixtyfour.jobs WHERE id = $job") eq 'uncertain' });
	my $call = value("call FROM sixtyfour.jobs WHERE id = $job");
	is(failure("sixtyfour_resolve($call, '$task')"), qq(42710 task "$task" is that of another call), 'another call has it');
	$mock->clear_rules;
	value("sixtyfour_resolve($call, 'abandon')");
};

my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/PANIC|TRAP|server process .* was terminated/, 'no crash');

done_testing();
