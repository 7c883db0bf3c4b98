# The newer operations: what each sends, by the session, by the worker and as a
# job, and what becomes of the answer; pages; what is for owners only.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use SixtyfourOperations;
use SixtyfourTest;

my $json = JSON::PP->new->canonical->utf8->allow_nonref;
my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good,api_poor');
my $node = SixtyfourTest::cluster('operations', $mock,
	route => 'auto', server => "requests_per_minute '0'");
my $session = SixtyfourTest::Session->new($node);

my %fresh = (quirks => 'none', found => 'all', task_seconds => 0, search_rows => 12);
$mock->settings(\%fresh);

# The rows of statements, each as a line of fields; or the error
sub rows
{
	my ($sql, $in) = @_;
	my $reply = ($in // $session)->query($sql);
	return "$reply->{error}{sqlstate}: $reply->{error}{message}" if $reply->{error};
	return join "\n", map { join '|', map { $_ // 'NULL' } @$_ } @{ $reply->{rows} };
}

# What was sent but to follow tasks and to fetch files
sub sent
{
	return grep { $_->{path} !~ m{^/(job-status|search/status|search/deep-search-status|search/download|files)(/|$)} }
	  @{ $mock->ledger };
}

# ---- each of them, in each way ----

my %newer = map { $_ => 1 } qw(people_intelligence company_intelligence reverse_email reverse_phone research_agent
  get_linkedin enrich_linkedin org_chart org_chart_people filter_search search_query export_search filter_fields
  filter_values workflow_blocks usage webhook_secret create_webhook_secret roll_webhook_secret delete_webhook_secret);
my @calls = grep { $newer{ $_->{name} } } SixtyfourOperations::calls();
my %known = (search_id => rows(
	q(SELECT sixtyfour_request('POST', '/search/query', body => '{"query":"engineers","mode":"people"}')->>'search_id')));

# A request as it is to be, and as it was
sub wanted
{
	my ($call, $path) = @_;
	my $body = SixtyfourOperations::fill($call->{body}, \%known);
	return { method => $call->{method}, path => $path, query => $call->{query} // {},
		body => defined $body ? $json->decode($body) : undef };
}
sub shown
{
	my (@entries) = @_;
	return [ map { my $entry = $_; +{ map { $_ => $entry->{$_} } qw(method path query body) } } @entries ];
}

# The answer that the mock is to give to the n-th of them
sub answer
{
	my ($call, $n) = @_;
	return { results => [ { n => $n } ], has_more => JSON::PP::false } if $call->{pages};
	return [ { n => $n } ] if $call->{rows};
	return { n => $n, structured_data => { title => 'CEO' } };
}

# The same as the function returns it
sub returned
{
	my ($call, $n) = @_;
	return '' if $call->{nothing};
	return join ',', map { $json->encode($_) } $call->{pages} || $call->{rows} ? { n => $n } : answer($call, $n);
}

sub prepare_answer
{
	my ($call, $path, $n) = @_;
	my $answer = answer($call, $n);
	return if $call->{nothing} || $call->{name} eq 'export_search';
	$mock->rule({ match => { path => $path }, $path =~ /-async$/ ? (result => $answer) : (answer => $answer) });
	return;
}

sub ask
{
	my ($call) = @_;
	my $reply = $session->query('SELECT x FROM ' . SixtyfourOperations::function($call, '', \%known) . ' x');
	return "$reply->{error}{sqlstate}: $reply->{error}{message}: $reply->{error}{detail}" if $reply->{error};
	return scalar(@{ $reply->{rows} }) . ' rows' if $call->{name} eq 'export_search';
	return join ',', map { length($_->[0] // '') ? $json->encode($json->decode($_->[0])) : '' } @{ $reply->{rows} };
}

foreach my $route ('direct', 'auto')
{
	rows("SET sixtyfour.route = $route");
	foreach my $n (0 .. $#calls)
	{
		my $call = $calls[$n];
		my $path = $route eq 'auto' ? $call->{async} // $call->{path} : $call->{path};
		my $answer = $call->{name} eq 'export_search' ? ($call->{body} =~ /max_results/ ? '5 rows' : '12 rows') : returned($call, $n);

		$mock->reset;
		prepare_answer($call, $path, $n);
		is(ask($call), $answer, "$call->{name}, $route: the answer");
		is_deeply(shown(sent()), [ wanted($call, $path) ], "$call->{name}, $route: the request");
		next if $route eq 'direct';
		is(ask($call), $answer, "$call->{name}: asked again");
		is(scalar(sent()), $call->{free} ? 2 : 1, $call->{free} ? 'what is free is asked again' : 'what is paid for is kept');
	}
}
is(rows('SELECT string_agg(operation, \',\') FROM sixtyfour.jobs WHERE operation = ANY (\'{'
		. join(',', map { $_->{name} } grep { $_->{free} } @calls) . '}\')'), 'NULL', 'what is free does not go through the queue');

# as jobs, all at once
$mock->reset;
rows('SET sixtyfour.cache_ttl = 0; RESET sixtyfour.route');
my %jobs;
foreach my $n (grep { !$calls[$_]{free} } 0 .. $#calls)
{
	my $call = $calls[$n];
	my $tell = $call->{body} =~ /"(filters|simple_filters|parsed_query|search_id|query)"/ ? qq("$1") : '';

	$mock->rule({ match => { path => $call->{async} // $call->{path}, body_contains => $tell },
			$call->{async} ? (result => answer($call, $n)) : (answer => answer($call, $n)) })
	  unless $call->{name} eq 'export_search';
	$jobs{$n} = rows('SELECT ' . SixtyfourOperations::function($call, '_async', \%known));
	like($jobs{$n}, qr/^\d+$/, "$call->{name}_async returns a job");
}
rows("SELECT sixtyfour_wait_all('{" . join(',', values %jobs) . "}', '100 s')");
my @sent = sent();
is(scalar(@sent), scalar(keys %jobs), 'each job makes a request');
foreach my $n (sort { $a <=> $b } keys %jobs)
{
	my $call   = $calls[$n];
	my $wanted = wanted($call, $call->{async} // $call->{path});
	is(scalar(grep { $json->encode($_) eq $json->encode($wanted) } @{ shown(@sent) }), 1, "$call->{name}_async: the request");
	my $result = rows("SELECT sixtyfour_result($jobs{$n})");
	if ($call->{name} eq 'export_search')
	{
		like($result, qr/"resource_handle_id": "rh-/, 'export_search_async: the answer names the file');
		next;
	}
	is($json->encode($json->decode($result)), $json->encode(answer($call, $n)), "$call->{name}_async: the answer");
}
rows('RESET sixtyfour.cache_ttl');

# priority, time, and none for NULL
is(rows(q(SELECT sixtyfour_get_linkedin_async('https://www.linkedin.com/in/later', priority => 7, run_at => now() + interval '1 day') > 0)), 't', 'a job for later');
is(rows(q(SELECT priority, run_at > now() + interval '23 hours', state FROM sixtyfour.jobs WHERE body->>'linkedin_url' ~ 'later')), '7|t|queued', 'waits');

$mock->reset;
foreach my $call (grep { $_->{subject} } @calls)
{
	my $expected = $call->{rows} || $call->{pages} ? '' : 'NULL';
	is(rows("SELECT x FROM sixtyfour_$call->{name}($call->{subject}) x"), $expected, "$call->{name}: NULL for the subject");
	is(rows("SELECT sixtyfour_$call->{name}_async($call->{subject})"), 'NULL', 'and no job') unless $call->{free};
}
is(rows("SELECT sixtyfour_reverse_${_}_bulk_async(NULL)"), 'NULL', "reverse_$_: NULL for the leads") foreach qw(email phone);
is(rows("SELECT sixtyfour_reverse_${_}_bulk_async('[]')"), '{}', "reverse_$_: no leads") foreach qw(email phone);

# ---- arguments ----

my @refused = (
	[ q(people_intelligence('{}')), '"lead_info" must not be empty' ],
	[ q(people_intelligence('[]')), '"lead_info" must be a JSON object' ],
	[ q(people_intelligence('null')), '"lead_info" is required' ],
	[ q(people_intelligence('{"name":""}')), '"lead_info" says nothing: all its values are empty' ],
	[ q(people_intelligence('{"name":"J"}', '{"a":1}')), 'field "a" of "struct" has no description' ],
	[ q(people_intelligence('{"name":"J"}', options => '{"tier":"best"}')), 'unknown value of "tier"' ],
	[ q(people_intelligence('{"name":"J"}', options => '{"max_iterations":0}')), '"max_iterations" must be a whole number of 1 or more' ],
	[ q(people_intelligence('{"name":"J"}', research_plan => '')), '"research_plan" must be a text that is not empty' ],
	[ q(people_intelligence('{"name":"J"}', research_plan => 'a', options => '{"research_plan":"b"}')),
		'"research_plan" is given both as an argument and in "options"' ],
	[ q(people_intelligence('{"name":"J"}', options => '[]')), '"options" must be a JSON object' ],
	[ q(company_intelligence('{"name":"A"}', NULL)), '"struct" is required' ],
	[ q(company_intelligence('{"name":"A"}', '{"a":"b"}', lead_struct => '{"a":{"type":"str"}}')), 'field "a" of "lead_struct" has no description' ],
	[ q(reverse_email('{"name":"J"}')), '"lead" needs a member "email"' ],
	[ q(reverse_email('{"name":"J","email":""}')), '"lead" needs a member "email"' ],
	[ q(reverse_email('{"email":"a@x.test"}', '{"providers":"a"}')), '"providers" must be a JSON array' ],
	[ q(reverse_phone('{"email":"a@x.test"}')), '"lead" needs a member "phone"' ],
	[ q(reverse_phone('{"phone":null}')), '"lead" needs a member "phone"' ],
	[ q(reverse_email_bulk_async('[{"email":"a@x.test"},{"name":"J"}]')), '"lead" needs a member "email"' ],
	[ q(reverse_phone_bulk_async('{}')), '"leads" must be a JSON array' ],
	[ q(reverse_phone_bulk_async('["+1"]')), '"lead" must be a JSON object' ],
	[ q(research_agent('"text"')), '"input_data" must be a JSON object' ],
	[ q(research_agent('{"a":"b"}', max_iterations => 0)), '"max_iterations" must be a whole number of 1 or more' ],
	[ q(research_agent('{"a":"b"}', options => '{"benchmark":"yes"}')), '"benchmark" must be true or false' ],
	[ q(research_agent('{"a":"b"}', options => '{"webhook_url":"http://x.test/"}')), '"webhook_url" must be an HTTPS URL' ],
	[ q(get_linkedin('')), '"linkedin_url" must be a text that is not empty' ],
	[ q(get_linkedin('u', options => '{"include_fresh":1}')), '"include_fresh" must be true or false' ],
	[ q(enrich_linkedin('u', '[]')), '"struct" must be a JSON object' ],
	[ q(enrich_linkedin('u', model_override => '')), '"model_override" must be a text that is not empty' ],
	[ q(org_chart()), 'org_chart needs to know what to look for' ],
	[ q(org_chart(NULL)), 'org_chart needs to know what to look for' ],
	[ q(org_chart('Acme', max_results => 0)), '"max_results" must be a whole number of 1 or more' ],
	[ q(org_chart('Acme', options => '{"page_size":1.5}')), '"page_size" must be a whole number of 1 or more' ],
	[ q(org_chart(options => '{"company_member_id":"x"}')), '"company_member_id" must be a whole number of 1 or more' ],
	[ q(org_chart_people('engineers')), 'org_chart_people needs to know what to look for' ],
	[ q(org_chart_people('', 'Acme')), '"people_focus_prompt" must be a text that is not empty' ],
	[ q(filter_search()), 'filter_search needs to know what to look for' ],
	[ q(filter_search('{"a":1}', '{"b":1}')), 'filter_search takes one of its subjects at a time' ],
	[ q(filter_search('{}')), '"simple_filters" must not be empty' ],
	[ q(filter_search('{"a":1}', mode => 'firms')), 'unknown value of "mode"' ],
	[ q(filter_search('{"a":1}', max_results => -1)), '"max_results" must be a whole number of 1 or more' ],
	[ q(search_query()), 'search_query needs to know what to look for' ],
	[ q(search_query('a', search_id => 'b')), 'search_query takes one of its subjects at a time' ],
	[ q(search_query('a', options => '{"cursor":"b"}')), 'search_query takes one of its subjects at a time' ],
	[ q(search_query('a', options => '{"exclude_public_ids":[1]}')), 'element 1 of "exclude_public_ids" must be a text' ],
	[ q(search_query('a', options => '{"page_size":0}')), '"page_size" must be a whole number of 1 or more' ],
	[ q(export_search()), 'export_search needs to know what to look for' ],
	[ q(export_search('a', '{"b":1}')), 'export_search takes one of its subjects at a time' ],
	[ q(filter_fields('firms')), 'unknown value of "mode"' ],
	[ q(filter_values('')), '"field" must be a text that is not empty' ],
	[ q(filter_values('a', top_k => 0)), '"top_k" must be a whole number of 1 or more' ],
	[ q(usage(0)), '"time_window" must be a whole number of 1 or more' ],
	[ q(roll_webhook_secret(-1)), '"expire_overlap_hours" must be a whole number of 0 or more' ]);
foreach my $case (@refused)
{
	is(rows("SELECT * FROM sixtyfour_$case->[0]"), "22023: $case->[1]", "sixtyfour_$case->[0]");
}
is($session->query('SELECT sixtyfour_org_chart()')->{error}{hint},
	'They are: company_name linkedin_public_id linkedin_company_url company_member_id.', 'what is missing is named');
is(scalar(@{ $mock->ledger }), 0, 'nothing was sent');

# what is not known is sent as it is
foreach my $call (grep { defined $_->{body} && $_->{arguments} =~ /options =>/ } @calls)
{
	my $arguments = $call->{arguments} =~ s/options => '.*'/options => '{"brand_new":{"a":[1,null]},"nothing":null}'/sr;
	$mock->reset;
	rows('SET sixtyfour.route = direct');
	rows("SELECT x FROM sixtyfour_$call->{name}(" . SixtyfourOperations::fill($arguments, \%known) . ') x');
	is($json->encode([ map { [ $_->{body}{brand_new}, exists $_->{body}{nothing} ? 1 : 0 ] } sent() ]), '[[{"a":[1,null]},0]]',
		"$call->{name}: options that are not known are sent, but for nulls");
}
rows('RESET sixtyfour.route');
$mock->reset;

# ---- money ----

rows("CREATE SERVER poor FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '" . $mock->url . "', requests_per_minute '0',
		daily_budget_cents '100', assumed_cents '40');
	CREATE USER MAPPING FOR PUBLIC SERVER poor OPTIONS (api_key 'api_poor');
	SET sixtyfour.server = poor");
my $spent = q(SELECT spent_today_cents, at_risk_cents FROM sixtyfour.accounts WHERE server = 'poor');
foreach my $route ('direct', 'auto')
{
	rows("SET sixtyfour.route = $route");
	is(rows("SELECT x->>'company' FROM sixtyfour_org_chart('Acme $route') x"), qq({"company_name": "Acme $route"}), "$route: a price that is not known");
	is(rows($spent), $route eq 'direct' ? '40|0' : '80|0', 'counts as what is assumed');
}
foreach my $route ('direct', 'auto')
{
	rows("SET sixtyfour.route = $route");
	like(rows(q(SELECT sixtyfour_org_chart('Umbrella'))), qr/^53400: /, "$route: what is more than the budget is refused");
	is(rows(q(SELECT jsonb_typeof(sixtyfour_usage()), jsonb_typeof(sixtyfour_filter_fields()))), 'object|object', 'what is free is not');
}
is(rows($spent), '80|0', 'nor is it counted');
is($mock->summary->{by_path}{'POST /org-chart/full'}, 2, 'two were sent');
rows('RESET sixtyfour.server; RESET sixtyfour.route');

# ---- for the owner of the server ----

$mock->reset;
is(rows('SELECT sixtyfour_webhook_secret() IS NULL'), 't', 'JSON null is NULL');
like(rows("SELECT x->>'plaintext' FROM sixtyfour_create_webhook_secret() x"), qr/^sk_whsec_[0-9a-f]{64}$/, 'a secret');
is(rows("SELECT x->>'status', x ? 'plaintext' FROM sixtyfour_webhook_secret() x"), 'active|f', 'is known, but not told again');
like(rows("SELECT x->>'plaintext' FROM sixtyfour_roll_webhook_secret(2) x"), qr/^sk_whsec_/, 'another one');
is(rows('SELECT sixtyfour_delete_webhook_secret()'), '', 'none');
is(rows('SELECT sixtyfour_webhook_secret() IS NULL'), 't', 'is NULL again');
is(rows('SELECT sixtyfour_roll_webhook_secret()'), '02000: roll_webhook_secret: the service does not know what was asked for', 'and cannot be rolled');
is(rows('SELECT count(*) FROM sixtyfour.results WHERE answer::text ~ \'whsec\''), '0', 'no secret is kept');

rows('CREATE ROLE alice; CREATE ROLE bob; GRANT USAGE ON FOREIGN SERVER sixtyfour TO alice, bob; GRANT alice TO bob');
$mock->reset;
my @private = map { "sixtyfour_$_()" } qw(webhook_secret create_webhook_secret roll_webhook_secret delete_webhook_secret);
push @private, map { "sixtyfour_request('GET', '$_')" } qw(/webhooks/signing-secret /webhooks /Webhooks/x /WEBHOOKS/signing-secret
  //webhooks/signing-secret /%77ebhooks/signing-secret /%57EBHOOKS/x /%2577ebhooks/x /%2Fwebhooks/x /webhooks;a=b/x /webhooks%2Fsigning-secret
  /webhooks%3Fx /oauth/clients /oauth%2Fclients /me /me/slack-links ///me///slack-links /x/..%2fwebhooks /x%2F..%2Fme /%6d%65/x);
push @private, "sixtyfour_request('POST', '/oauth/token', body => '{}')";
rows('SET ROLE alice');
is(rows("SELECT $_"), '42501: must be owner of foreign server sixtyfour', "$_ is not for all") foreach @private;
is(scalar(@{ $mock->ledger }), 0, 'and nothing was sent');
is(rows("SELECT sixtyfour_request('GET', '/%' || repeat('25', 12000) || '77ebhooks')"), '22023: path is too long', 'what was encoded very often is not decoded');
is(rows("SELECT sixtyfour_request('GET', '/%' || repeat('25', 4000) || '77ebhooks')"), '42501: must be owner of foreign server sixtyfour', 'but what was often');
is(rows("SELECT sixtyfour_job_status('../webhooks/signing-secret')"), '22023: invalid task_id: "../webhooks/signing-secret"', 'nor does an id climb to it');
foreach my $path ('/webhook', '/webhooksx', '/x/webhooks', '/mean', '/oauth2/x', '/api/me', '/%78/webhooks')
{
	is(rows("SELECT sixtyfour_request('GET', '$path')"), "02000: GET $path: the service does not know what was asked for", "$path is no such path");
}
is(rows("SELECT sixtyfour_request('GET', '/api/usage') IS NOT NULL"), 't', 'nor are others');
rows('RESET ROLE; ALTER SERVER sixtyfour OWNER TO alice');
foreach my $role (qw(alice bob))
{
	rows("SET ROLE $role");
	is(rows('SELECT sixtyfour_webhook_secret() IS NULL'), 't', "$role owns the server, and may");
	is(rows("SELECT sixtyfour_request('GET', '/webhooks/signing-secret')"), 'null', 'also so');
	rows('RESET ROLE');
}

# ---- pages ----

# The numbers of the rows that a query finds, in the mock's order
sub pages
{
	my ($arguments, $in) = @_;
	return rows("SELECT count(*), count(DISTINCT x), jsonb_typeof(jsonb_agg(x)->0) FROM sixtyfour_search_query($arguments) x", $in);
}
sub bodies { return map { $_->{body} } sent(); }

my %page = (mode => 'people', page_size => 5);
foreach my $route ('direct', 'auto')
{
	rows("SET sixtyfour.route = $route");
	$mock->reset;
	my $arguments = qq('$route', options => '{"page_size":5,"exclude_public_ids":["x"],"location_expansion_enabled":false}');
	is(pages($arguments), '12|12|object', "$route: all pages");
	my ($first, @others) = bodies();
	is_deeply($first, { %page, query => $route, exclude_public_ids => ['x'], location_expansion_enabled => JSON::PP::false }, 'the first by its query');
	is(scalar(@others), 2, 'two more');
	is_deeply($_, { %page, cursor => $_->{cursor} }, 'by a cursor alone') foreach @others;
	isnt($others[0]{cursor}, $others[1]{cursor}, 'each by its own');

	$mock->reset;
	is(pages(qq('$route', max_results => 7, options => '{"page_size":5}')), '7|7|object', "$route: as many as are wanted");
	is(scalar(bodies()), 2, 'and no page more');
	$mock->rule({ match => { path => '/search/query' }, answer => { results => [ map { { n => $_ } } 1 .. 9 ], next_cursor => 'c', has_more => JSON::PP::true } });
	is(pages(qq('$route', max_results => 4)), '4|4|object', "$route: even where the service sends more");
	is(scalar(bodies()), 3, 'or has more');

	$mock->reset;
	$mock->rule({ match => { path => '/search/query' }, times => 1, answer => { results => [ { n => 1 } ], next_cursor => 7 } });
	$mock->rule({ match => { path => '/search/query' }, times => 1, accept => JSON::PP::false, body => { results => [ { n => 2 } ], next_cursor => undef } });
	is(pages(qq('$route: a number')), '2|2|object', "$route: a cursor that is a number");
	is((bodies())[1]{cursor}, '7', 'is one');
	is(pages(qq('$route: many', options => '{"max_results":1e30}')), '12|12|object', 'more than there can be are all');

	# trouble: rule, rows or error, requests
	foreach my $case (
		[ 'an empty page in the middle', { skip => 1, times => 1, page_trouble => 'empty' }, '12|12|object', 4 ],
		[ 'only empty pages', { page_trouble => 'empty' }, '08P01: search_query: 10 pages in a row have no rows, and name another', 10 ],
		[ 'a cursor that comes again', { page_trouble => 'same_cursor' }, '08P01: search_query: the service names the same next page again', 2 ],
		[ 'no cursor, though there is more', { page_trouble => 'no_cursor' }, '5|5|object', 1 ],
		[ 'a cursor that has expired', { page_trouble => 'expired_cursor' }, '22023: search_query: the service does not accept the request', 2 ],
		[ 'an answer without rows', { answer => { results => {} } }, q(08P01: search_query: the service's answer has no array "results"), 1 ],
		[ 'no rows, and no more', { answer => { results => [], next_cursor => undef } }, '0|0|NULL', 1 ])
	{
		my ($what, $rule, $expected, $requests) = @$case;
		$mock->reset;
		$mock->rule({ match => { path => '/search/query' }, %$rule });
		is(pages(qq('$route $what', options => '{"page_size":5}')), $expected, "$route: $what");
		is(scalar(bodies()), $requests, 'so many requests');
	}
}
rows('RESET sixtyfour.route');

$mock->reset;
$mock->rule({ match => { path => '/search/query' }, page_trouble => 'no_cursor' });
is(join(' ', map { $_->{message} } @{ $session->query(q(SELECT sixtyfour_search_query('short')))->{notices} }),
	'search_query: the service has more rows, but names no next page', 'what is missing is said');
$mock->reset;
$mock->rule({ match => { path => '/search/query' }, skip => 1, page_trouble => 'expired_cursor' });
my $error = $session->query(q(SELECT sixtyfour_search_query('old', options => '{"page_size":5}')))->{error};
like($error->{context}, qr/^Sixtyfour search_query, page 3$/m, 'which page failed is said');
is($error->{detail}, 'HTTP status 400: The cursor has expired', 'and why');
like($error->{hint}, qr/^The cursor may have expired\. .*"sixtyfour\.cache_ttl" = 0 /, 'and what helps');
$mock->reset;
is(pages(q('old', options => '{"page_size":5}')), '22023: search_query: the service does not accept the request', 'until then it fails again');
is(scalar(bodies()), 1, 'for one request');
rows('SET sixtyfour.cache_ttl = 0');
is(pages(q('old', options => '{"page_size":5}')), '12|12|object', 'then all is asked anew');
rows('RESET sixtyfour.cache_ttl');

# interrupted: what was paid for is there when the same is asked again
$mock->reset;
$mock->rule({ match => { path => '/search/query' }, skip => 1, times => 1, hold => JSON::PP::true });
$session->send(q(SELECT count(*) FROM sixtyfour_search_query('interrupted', options => '{"page_size":5}')));
$mock->wait_for(held => 1);
$session->cancel;
is($session->receive->{error}{sqlstate}, '57014', 'interrupted at the second page');
$mock->control('POST', 'release');
is(pages(q('interrupted', options => '{"page_size":5}')), '12|12|object', 'asked again');
is(scalar(bodies()), 3, 'each page is asked for once');
is_deeply($mock->summary->{duplicates}, {}, 'and paid for once');
is($mock->summary->{billed_cents}, 12, 'at a cent a row');
is(pages(q('interrupted', options => '{"page_size":5}')), '12|12|object', 'and again');
is($mock->summary->{billed_cents}, 12, 'for nothing');

# page by page, by hand
my $page = rows(q(SELECT sixtyfour_wait(sixtyfour_search_query_async('by hand', options => '{"page_size":5}'))));
like($page, qr/^55000: |cannot/, 'a job cannot be waited for where it is queued');
my $job = rows(q(SELECT sixtyfour_search_query_async('by hand', options => '{"page_size":5}')));
my $cursor = rows("SELECT sixtyfour_wait($job)->>'next_cursor'");
is(rows(qq(SELECT count(*) FROM sixtyfour_search_query(options => '{"cursor":"$cursor","page_size":5}'))), '7', 'the rest by its cursor');
is(rows(q(SELECT count(*), bool_and(x ? 'company') FROM sixtyfour_filter_search('{"location":"Berlin"}', options => '{"page_size":4}') x)),
	'12|t', 'filter_search has pages as well');
is(rows(q(SELECT count(*) FROM sixtyfour_filter_search('{"location":"Berlin"}', max_results => 5, options => '{"page_size":4}'))), '5', 'of as many rows as are wanted');

# ---- bulk: the item of a lead is that with its address or number ----

my %bulks;

# Have leads looked up in one request, which providers tell from others; the
# service's own items are shuffled.
sub bulk
{
	my ($kind, $tag, $leads, $result) = @_;
	my $list = $json->encode($leads);

	$mock->rule({ match => { path => "/reverse-$kind-bulk-async", body_contains => qq("$tag") }, result => $result }) if $result;
	$bulks{"$kind $tag"} = { leads => $leads,
		ids => rows(qq(SELECT sixtyfour_reverse_${kind}_bulk_async('$list', '{"providers":["$tag"]}'))) };
	return;
}

# What was found, or the state of the job, in the order of the leads
sub is_found
{
	my ($kind, $tag, $expected, $what) = @_;
	my ($ids, $leads) = @{ $bulks{"$kind $tag"} }{qw(ids leads)};

	rows("SELECT sixtyfour_wait_all('$ids', '100 s')");
	is_deeply([ grep { $_->{providers}[0] eq $tag } map { $_->{body} } grep { $_->{path} eq "/reverse-$kind-bulk-async" } sent() ],
		[ { leads => $leads, providers => [$tag] } ], "$kind, $tag: one request, of all leads");
	is(rows("SELECT string_agg(coalesce(a->>'name', state), ' ' ORDER BY place) FROM unnest('$ids'::bigint[]) WITH ORDINALITY u (id, place)
		JOIN sixtyfour.jobs USING (id), LATERAL sixtyfour_result(id) a"), $expected, "$kind, $tag: $what");
	return;
}

$mock->reset;
$mock->settings({ bulk_shuffle => JSON::PP::true });
my %leads = map { my $kind = $_; $kind => [ map { { $kind => $kind eq 'email' ? "a$_\@x.test" : "+1 555 10$_", name => "Maybe $_" } } 1 .. 12 ] } qw(email phone);
foreach my $kind (sort keys %leads)
{
	my $leads = $leads{$kind};
	my @items = map { { %{ $leads->[$_] }, name => "P$_", company => 'Acme' } } 0 .. 11;
	my @twice = map { { %$_ } } @$leads;
	my @some  = map { { %$_ } } reverse @items;

	$twice[8]{$kind} = $twice[2]{$kind};
	$some[0]{$kind} = 'other';
	bulk($kind, 'own', $leads);
	bulk($kind, 'contradicting', $leads, [ reverse @items ]);
	bulk($kind, 'nested', $leads, { results => [ @items[ 6 .. 11, 0 .. 5 ] ] });
	bulk($kind, 'twice', \@twice, [ map { { %{ $items[$_] }, $kind => uc $items[$_]{$kind} } } 11, 10, 9, 2, 7, 6, 5, 4, 3, 2, 1, 0 ]);
	bulk($kind, 'strange', $leads, \@some);
}
foreach my $kind (sort keys %leads)
{
	my @names = map { "P$_" } 0 .. 11;

	is_found($kind, 'own', join(' ', map { $_->{name} } @{ $leads{$kind} }), 'matched, though shuffled');
	is_found($kind, 'contradicting', "@names", 'also where names contradict');
	is_found($kind, 'nested', "@names", 'in another shape');
	is_found($kind, 'twice', "@names[ 0 .. 7 ] P2 @names[ 9 .. 11 ]", 'where two ask the same, and the answer is in other letters');
	is_found($kind, 'strange', "@names[ 0 .. 10 ] failed", "an item about somebody else is nobody's");
}
$mock->settings({ bulk_shuffle => JSON::PP::false });

# ---- enrichments ----

rows(q(CREATE TABLE contacts (company bigint, name text, score text, PRIMARY KEY (company, name))));

# input, what else, the subject as it is sent, path
my $struct = q('{"title":"Current job title"}');
my %enrichments = (
	people_intelligence  => [ '{"name":"name","company":"company"}', "struct => $struct", '/people-intelligence-async', { lead_info => { name => 'N', company => 'C' } } ],
	company_intelligence => [ '{"company_name":"company"}', qq(struct => $struct, options => '{"find_people":true}'), '/company-intelligence-async',
		{ target_company => { company_name => 'C' } } ],
	reverse_email  => [ '{"email":"email","name":"name"}', '', '/reverse-email-async', { lead => { email => 'E', name => 'N' } } ],
	reverse_phone  => [ '{"phone":"phone"}', '', '/reverse-phone-async', { lead => { phone => 'P' } } ],
	research_agent => [ '{"who":"name"}', "options => '{\"max_iterations\":2}'", '/research-agent-async', { input_data => { who => 'N' } } ],
	get_linkedin   => [ '{"linkedin_url":"url"}', "options => '{\"include_fresh\":true}'", '/get-linkedin', { linkedin_url => 'U' } ],
	enrich_linkedin => [ '{"linkedin_url":"url"}', "struct => $struct", '/enrich-linkedin', { linkedin_url => 'U' } ]);
$mock->reset;
foreach my $operation (sort keys %enrichments)
{
	my ($input, $more, $path) = @{ $enrichments{$operation} };
	my $output = $operation eq 'company_intelligence'
	  ? '{"found":"$.n","leads":{"table":"contacts","key":{"company":"id"},"columns":{"name":"$.name","score":"$.score"}}}' : '{"found":"$.n"}';
	my $answer = { n => $operation, structured_data => { leads => [ { name => 'A', score => 1 }, { name => 'B', score => 2 } ] } };

	$mock->rule({ match => { path => $path }, $path =~ /-async/ ? (result => $answer) : (answer => $answer) });
	rows("CREATE TABLE t_$operation (id bigint PRIMARY KEY, name text, company text, email text, phone text, url varchar, number int, found text);
		INSERT INTO t_$operation VALUES (1, 'N1', 'C1', 'E1', 'P1', 'U1'), (2, '', '', ' ', '', ''), (3, NULL, NULL, NULL, NULL, NULL)");
	is(rows("SELECT sixtyfour_create_enrichment('$operation', 't_$operation', '$operation', '$input', '$output'" . ($more && ", $more") . ')'), '',
		"$operation can enrich rows");
	rows("INSERT INTO t_$operation VALUES (4, 'N4', 'C4', 'E4', 'P4', 'U4'), (5, NULL, NULL, NULL, NULL, '')");
	is(rows("SELECT sixtyfour_run_enrichment('$operation')"), '1', 'in bulk, those that say something and are not asked about');
}
foreach my $operation (sort keys %enrichments)
{
	my ($input, $more, $path, $subject) = @{ $enrichments{$operation} };

	rows("SELECT sixtyfour_wait_enrichment('$operation', '100 s')");
	is(rows("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t_$operation WHERE found = '$operation'"), '1 4', "$operation: the answers are there");
	my %bodies = map { $json->encode($_->{body}) => 1 } grep { $_->{path} eq $path } sent();
	foreach my $row (1, 4)
	{
		my $body = $json->decode($json->encode($subject) =~ s/"([NCEPU])"/"$1$row"/gr);
		$body->{struct} = { title => 'Current job title' } if $more =~ /struct/;
		$body->{$1} = $json->decode($2) if $more =~ /"(\w+)":(\w+)\}/;
		ok($bodies{ $json->encode($body) }, "the request of row $row") or diag explain \%bodies;
	}
	is(scalar(keys %bodies), 2, 'and no other');
}
is(rows("SELECT * FROM contacts ORDER BY 1, 2"), "1|A|1\n1|B|2\n4|A|1\n4|B|2", 'company_intelligence finds people');

# in one request, and not those that lack the address
$mock->reset;
rows(q(INSERT INTO t_reverse_email SELECT 100 + i, 'Bulk ' || i, NULL, CASE WHEN i <> 3 THEN 'bulk' || i || '@x.test' END FROM generate_series(1, 15) i));
rows(q(SELECT sixtyfour_wait_enrichment('reverse_email', '100 s')));
is($mock->summary->{by_path}{'POST /reverse-email-bulk-async'}, 1, 'many rows are one request');
is(scalar(@{ (sent())[0]{body}{leads} }), 14, 'of those with an address');
is(rows(q(SELECT count(*) FROM sixtyfour.jobs WHERE enrichment IS NOT NULL AND operation = 'reverse_email' AND body->'lead'->>'name' = 'Bulk 3')), '0', 'there is no job for another');

my $operations = 'Use enrich_lead, enrich_company, find_email, find_phone, qa_agent, people_intelligence, company_intelligence, '
  . 'reverse_email, reverse_phone, research_agent, get_linkedin or enrich_linkedin.';
foreach my $case (
	[ q('search', '{"query":"name"}', '{"found":"$"}'), '22023: operation "search" cannot enrich rows', $operations ],
	[ q('org_chart', '{"company_name":"name"}', '{"found":"$"}'), '22023: operation "org_chart" cannot enrich rows', $operations ],
	[ q('reverse_email', '{"name":"name"}', '{"found":"$"}'), '22023: operation reverse_email needs "email" in "input"', 'Give {"email": "column", ...}.' ],
	[ q('reverse_phone', '{"email":"email"}', '{"found":"$"}'), '22023: operation reverse_phone needs "phone" in "input"', 'Give {"phone": "column", ...}.' ],
	[ q('get_linkedin', '{"url":"url"}', '{"found":"$"}'), '22023: operation get_linkedin needs "linkedin_url" in "input"', 'Give {"linkedin_url": "column"}.' ],
	[ q('enrich_linkedin', '{"linkedin_url":"url","name":"name"}', '{"found":"$"}'), '22023: operation enrich_linkedin takes nothing but "linkedin_url" in "input"', '' ],
	[ q('get_linkedin', '{"linkedin_url":"number"}', '{"found":"$"}'), '42804: column "number" of table "t_get_linkedin" is no text', '' ],
	[ q('get_linkedin', '{"linkedin_url":"url"}', '{"found":"$"}', options => '{"linkedin_url":"x"}'),
		'22023: "linkedin_url" comes from the row and cannot be given in "options"', '' ],
	[ qq('get_linkedin', '{"linkedin_url":"url"}', '{"found":"\$"}', struct => $struct), '22023: operation get_linkedin takes no "struct"', '' ],
	[ q('company_intelligence', '{"name":"name"}', '{"found":"$"}'), '22023: "struct" is required', '' ],
	[ q('people_intelligence', '{"name":"name"}', '{"found":"$"}', options => '{"tier":"best"}'), '22023: unknown value of "tier"', 'It is one of: micro low medium high xhigh.' ],
	[ q('people_intelligence', '{"name":"name"}', '{"leads":{"table":"contacts","key":{"company":"id"},"columns":{"name":"$.name"}}}'),
		'22023: operation people_intelligence finds no "leads"', 'Use enrich_company or company_intelligence.' ])
{
	my $failed = $session->query("SELECT sixtyfour_create_enrichment('e', 't_get_linkedin', $case->[0])")->{error};
	is("$failed->{sqlstate}: $failed->{message}", $case->[1], "an enrichment of $case->[0]");
	is($failed->{hint}, $case->[2], 'the hint');
}

# who was asked about by the address of a profile can be forgotten
is(rows(q(SELECT sixtyfour_forget('{"linkedin_url":"U1"}'))), '4', 'two jobs and two answers are erased');
is(rows(q(SELECT (SELECT count(*) FROM sixtyfour.jobs WHERE body->>'linkedin_url' = 'U1'),
	(SELECT count(*) FROM sixtyfour.call_subject WHERE subject = '{"linkedin_url":"U1"}'))), '0|0', 'nothing is left');
is(rows(q(SELECT count(*) FROM sixtyfour.jobs WHERE body->>'linkedin_url' = 'U4')), '2', 'of that one');

# ---- where rows are: each documented way ----

my $csv = { text => qq(name,note\nJane,"a, b"\nJohn,\n) };
my $found = qq({"name": "Jane", "note": "a, b"}\n{"name": "John", "note": null});

# What is read of an answer about a file, which is at $file
my $file = $mock->url . '/files/x';
sub read_file
{
	my ($what, $function, $path, $answer, $expected) = @_;
	$mock->reset;
	$mock->rule({ match => { path => $path }, accept => JSON::PP::false, body => $answer });
	$mock->rule({ match => { path => '/files/x' }, accept => JSON::PP::false, body => $csv, content_type => 'text/csv' });
	is(rows("SELECT * FROM $function"), $expected, $what);
	return;
}
sub file { return { filename => 'result.csv', row_count => 2, block_number => 3, download_url => $file,
		download_expires_in_seconds => 900, results => undef, @_ }; }

my @search = (q(sixtyfour_search_download('rh')), '/search/download');
read_file('a search', @search, { url => $file, bucket => 'b', path => 'p' }, $found);
read_file('one whose handle looks like a path', q(sixtyfour_search_download('a/../b')), '/search/download', { url => $file }, $found);
read_file('a search without a file', @search, { url => undef }, q(08P01: search_download: the service's answer cannot be used));

my @run = (q(sixtyfour_workflow_results('r')), '/workflows/runs/r/results/download-links');
my @inline = ({ name => 'A' }, { name => 'B' });
my $inline = qq({"name": "A"}\n{"name": "B"});
read_file('a run: the file of the last block', @run, [ file(), file(block_number => 1, download_url => "$file/other") ], $found);
read_file('rows in the answer itself', @run, [ file(download_url => undef, results => \@inline) ], $inline);
read_file('both', @run, [ file(results => \@inline) ], $inline);
read_file('rows that are not all', @run, [ file(row_count => 2, results => [ $inline[0] ]) ], $found);
read_file('no rows', @run, [ file(row_count => 0, download_url => undef) ], '');
read_file('no rows in the answer itself', @run, [ file(row_count => 0, results => []) ], '');
read_file('no files', @run, [], '');
read_file('files that are none', @run, [ 'file', [] ], q(08P01: workflow_results: the service's answer cannot be used));
read_file('neither rows nor an address', @run, [ file(download_url => undef) ], q(08P01: workflow_results: the service's answer cannot be used));

done_testing();
