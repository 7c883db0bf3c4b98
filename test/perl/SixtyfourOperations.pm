# SixtyfourOperations.pm: a call of each SQL function that asks the service, with
# all its arguments, and the request that it is to make.
#
#	foreach my $call (SixtyfourOperations::calls())
#	{
#		my $function = SixtyfourOperations::function($call, '_async', \%known);
#		...
#	}
#
# name: of the function, without sixtyfour_; arguments: in SQL; method, path,
# query, body: of the request, a body being JSON text; async: the path that the
# worker uses where it is another; adds: members of the body that the extension
# makes up; free: costs nothing; subject: the SQL of the first argument as NULL,
# for which nothing is asked; keep: what later calls need, as name => SQL over
# the answer x.  Their arguments, paths, queries and bodies say @name@.
package SixtyfourOperations;

use strict;
use warnings FATAL => 'all';

my $lead      = '{"name":"Jane Doe","company":"Acme"}';
my $company   = '{"company_name":"Acme","website":"https://acme.test"}';
my $struct    = '{"title":"Current job title","years":{"description":"Years there","type":"int"}}';
my $hook      = '"webhook_url":"https://me.test/hook"';
my $research  = qq("tier":"low","max_iterations":3,"field_confidence":true,"benchmark":false,$hook);
my $criteria  = '[{"criteria_name":"Senior","description":"Ten years or more","weight":10,"threshold":0.5}]';
my $sources   = '[{"url":"https://acme.test/","description":"Its site"}]';
my $profile   = 'https://www.linkedin.com/in/jane-doe';
my $names     = '"company_name":"Acme","linkedin_public_id":"acme","linkedin_company_url":"https://www.linkedin.com/company/acme"';
my $chart     = '"company_member_id":64,"max_iterations":4,"include_resolution_debug":true';
my $simple    = '{"location":{"$eq":"Berlin"}}';
my $filters   = '{"term":{"location":"Berlin"}}';
my $parsed    = '{"keywords":["engineer"]}';
my $widening  = '"location_expansion_enabled":true,"location_expansion_radius_miles":25';
my $graph     = '{"blocks":[{"sequence_number":1,"block_type":"source","block_name":"webhook","specs":{}}],"edges":[]}';

# "name => 'value'" of the arguments that look like company_name in a body
my $names_sql = join ', ', map { s/^"(\w+)":"(.*)"$/$1 => '$2'/r } split /,/, $names;

my @calls = (
	# people and companies
	{   name => 'enrich_lead', path => '/enrich-lead', async => '/enrich-lead-async', subject => 'NULL::jsonb, NULL',
		arguments => "lead_info => '$lead', struct => '$struct', research_plan => 'Plan', options => '{$research}'",
		body      => qq({"lead_info":$lead,"struct":$struct,"research_plan":"Plan",$research}) },
	{   name => 'enrich_lead', path => '/enrich-lead', async => '/enrich-lead-async', whole => 1,
		arguments => qq(request => '{"lead_info":$lead,"struct":$struct}'),
		body      => qq({"lead_info":$lead,"struct":$struct}) },
	{   name => 'enrich_company', path => '/enrich-company', async => '/enrich-company-async', subject => 'NULL::jsonb, NULL',
		arguments => "target_company => '$company', struct => '$struct', lead_struct => '$struct', find_people => true,
			research_plan => 'Plan', people_focus_prompt => 'Engineers', options => '{\"full_org_chart\":false,$research}'",
		body      => qq({"target_company":$company,"struct":$struct,"lead_struct":$struct,"find_people":true,"research_plan":"Plan",
			"people_focus_prompt":"Engineers","full_org_chart":false,$research}) },
	{   name => 'enrich_company', path => '/enrich-company', async => '/enrich-company-async', whole => 1,
		arguments => qq(request => '{"target_company":$company,"struct":$struct}'),
		body      => qq({"target_company":$company,"struct":$struct}) },
	{   name => 'find_email', path => '/find-email', async => '/find-email-async', subject => 'NULL',
		arguments => qq(lead => '$lead', mode => 'PERSONAL', options => '{"verify_emails":true,"providers":["a","b"],$hook}'),
		body      => qq({"lead":$lead,"mode":"PERSONAL","verify_emails":true,"providers":["a","b"],$hook}) },
	{   name => 'find_phone', path => '/find-phone', async => '/find-phone-async', subject => 'NULL',
		arguments => qq(lead => '$lead', options => '{"providers":["a"],$hook}'),
		body      => qq({"lead":$lead,"providers":["a"],$hook}) },
	{   name => 'qa_agent', path => '/qa-agent', async => '/qa-agent-async', subject => 'NULL, NULL',
		arguments => qq(data => '$lead', qualification_criteria => '$criteria', "references" => '$sources', struct => '$struct',
			options => '{"max_tool_calls":4,$hook}'),
		body => qq({"data":$lead,"qualification_criteria":$criteria,"references":$sources,"struct":$struct,"max_tool_calls":4,$hook}) },
	{   name => 'qa_agent', path => '/qa-agent', async => '/qa-agent-async', whole => 1,
		arguments => qq(request => '{"data":$lead,"qualification_criteria":$criteria}'),
		body      => qq({"data":$lead,"qualification_criteria":$criteria}) },
	{   name => 'enrich_dataframe', path => '/enrich-dataframe', subject => "NULL, 'phone'",
		arguments => "csv_data => E'name,company\\nJohn,Acme', enrichment_type => 'phone'",
		body      => '{"csv_data":"name,company\nJohn,Acme","enrichment_type":"phone"}' },
	{   name => 'people_intelligence', path => '/people-intelligence', async => '/people-intelligence-async', subject => 'NULL',
		arguments => "lead_info => '$lead', struct => '$struct', research_plan => 'Plan', options => '{$research}'",
		body      => qq({"lead_info":$lead,"struct":$struct,"research_plan":"Plan",$research}) },
	{   name => 'company_intelligence', path => '/company-intelligence', async => '/company-intelligence-async', subject => 'NULL, NULL',
		arguments => "target_company => '$company', struct => '$struct', lead_struct => '$struct', find_people => true,
			research_plan => 'Plan', people_focus_prompt => 'Engineers', options => '{\"full_org_chart\":true,$research}'",
		body      => qq({"target_company":$company,"struct":$struct,"lead_struct":$struct,"find_people":true,"research_plan":"Plan",
			"people_focus_prompt":"Engineers","full_org_chart":true,$research}) },
	{   name => 'reverse_email', path => '/reverse-email', async => '/reverse-email-async', subject => 'NULL',
		arguments => qq(lead => '{"email":"jane\@acme.test","name":"Jane"}', options => '{"providers":["a"],$hook}'),
		body      => qq({"lead":{"email":"jane\@acme.test","name":"Jane"},"providers":["a"],$hook}) },
	{   name => 'reverse_phone', path => '/reverse-phone', async => '/reverse-phone-async', subject => 'NULL',
		arguments => qq(lead => '{"phone":"+1 555-123-4567"}', options => '{"providers":["a"],$hook}'),
		body      => qq({"lead":{"phone":"+1 555-123-4567"},"providers":["a"],$hook}) },
	{   name => 'research_agent', path => '/research-agent', async => '/research-agent-async', subject => 'NULL',
		arguments => qq(input_data => '{"question":"Who?"}', struct => '$struct', research_plan => 'Plan', max_iterations => 5,
			options => '{"benchmark":true,$hook}'),
		body => qq({"input_data":{"question":"Who?"},"struct":$struct,"research_plan":"Plan","max_iterations":5,"benchmark":true,$hook}) },
	{   name => 'get_linkedin', path => '/get-linkedin', subject => 'NULL',
		arguments => qq(linkedin_url => '$profile', include_fresh => true, options => '{}'),
		body      => qq({"linkedin_url":"$profile","include_fresh":true}) },
	{   name => 'enrich_linkedin', path => '/enrich-linkedin', subject => 'NULL',
		arguments => qq(linkedin_url => '$profile', struct => '$struct', model_override => 'small', options => '{}'),
		body      => qq({"linkedin_url":"$profile","struct":$struct,"model_override":"small"}) },
	{   name => 'org_chart', path => '/org-chart/full',
		arguments => qq($names_sql, max_results => 12, options => '{"page":1,"page_size":5,$chart}'),
		body      => qq({$names,"max_results":12,"page":1,"page_size":5,$chart}) },
	{   name => 'org_chart_people', path => '/org-chart/find-people', subject => "NULL, 'Acme'",
		arguments => qq(people_focus_prompt => 'engineers', $names_sql, max_results => 12, options => '{$chart}'),
		body      => qq({"people_focus_prompt":"engineers",$names,"max_results":12,$chart}) },

	# searches
	{   name => 'start_search', path => '/search/start-deep-search', adds => ['search_id'], started => 1, subject => 'NULL',
		arguments => qq(query => 'engineers in Berlin', mode => 'people', max_results => 20, options => '{"output_mode":"csv"}'),
		body      => '{"query":"engineers in Berlin","mode":"people","max_results":20,"output_mode":"csv"}',
		keep      => { search => 'x' } },
	{   name => 'search', path => '/search/start-deep-search', rows => 1, subject => 'NULL',
		arguments => qq(query => 'engineers in Bern', mode => 'company', max_results => 20, options => '{"search_id":"mine","output_mode":"csv"}'),
		body      => '{"query":"engineers in Bern","mode":"company","max_results":20,"search_id":"mine","output_mode":"csv"}' },
	{   name => 'search_status', method => 'GET', path => '/search/deep-search-status/@search@', free => 1, subject => 'NULL',
		arguments => "task_id => '\@search\@'",
		keep      => { handle => "x->>'resource_handle_id'", search_id => "x->>'search_id'" } },
	{   name => 'search_download', method => 'GET', path => '/search/download', query => { resource_handle_id => '@handle@' }, free => 1,
		rows => 1, subject => 'NULL', arguments => "resource_handle_id => '\@handle\@'" },
	{   name => 'filter_search', path => '/search/start-filter-search', pages => 1,
		arguments => qq(simple_filters => '$simple', mode => 'company', max_results => 5, options => '{"page_size":5,"save_json":true}'),
		body      => qq({"simple_filters":$simple,"mode":"company","max_results":5,"page_size":5,"save_json":true}) },
	{   name => 'filter_search', path => '/search/start-filter-search', pages => 1,
		arguments => qq(filters => '$filters', mode => 'people', max_results => 5),
		body      => qq({"filters":$filters,"mode":"people","max_results":5}) },
	{   name => 'search_query', path => '/search/query', pages => 1,
		arguments => qq(query => 'engineers', mode => 'people', max_results => 5,
			options => '{"page_size":5,"exclude_public_ids":["jane-doe"],$widening}'),
		body => qq({"query":"engineers","mode":"people","max_results":5,"page_size":5,"exclude_public_ids":["jane-doe"],$widening}) },
	{   name => 'search_query', path => '/search/query', pages => 1,
		arguments => qq(simple_filters => '$simple', mode => 'company', max_results => 5),
		body      => qq({"simple_filters":$simple,"mode":"company","max_results":5}) },
	{   name => 'search_query', path => '/search/query', pages => 1,
		arguments => qq(filters => '$filters', max_results => 5), body => qq({"filters":$filters,"max_results":5}) },
	{   name => 'search_query', path => '/search/query', pages => 1,
		arguments => qq(parsed_query => '$parsed', max_results => 5), body => qq({"parsed_query":$parsed,"max_results":5}) },
	{   name => 'search_query', path => '/search/query', pages => 1,
		arguments => qq(search_id => '\@search_id\@', max_results => 5), body => '{"search_id":"@search_id@","max_results":5}' },
	{   name => 'export_search', path => '/search/export', rows => 1,
		arguments => qq(search_id => '\@search_id\@', mode => 'people', max_results => 5, options => '{}'),
		body      => '{"search_id":"@search_id@","mode":"people","max_results":5}' },
	{   name => 'export_search', path => '/search/export', rows => 1,
		arguments => qq(parsed_query => '$parsed'), body => qq({"parsed_query":$parsed}) },
	{   name => 'filter_fields', method => 'GET', path => '/search/filter-capabilities', free => 1,
		query => { mode => 'people', refresh => 'true' }, arguments => "mode => 'people', refresh => true" },
	{   name => 'filter_fields', method => 'GET', path => '/search/filter-capabilities', free => 1, arguments => '' },
	{   name => 'filter_values', path => '/search/filter-field-values', free => 1, subject => 'NULL',
		arguments => qq(field => 'location', mode => 'people', top_k => 3, options => '{"simple_filters":$simple}'),
		body      => qq({"field":"location","mode":"people","top_k":3,"simple_filters":$simple}) },

	# workflows
	{   name => 'create_workflow', path => '/workflows', free => 1, subject => 'NULL, NULL',
		arguments => qq(workflow_name => 'Flow', workflow_definition => '$graph', options => '{"workflow_description":"","id":"flow-1"}'),
		body      => qq({"workflow_name":"Flow","workflow_definition":$graph,"workflow_description":"","id":"flow-1"}),
		keep      => { flow => "coalesce(x->>'id', x->>'workflow_id')" } },
	{   name => 'workflow', method => 'GET', path => '/workflows/@flow@', free => 1, subject => 'NULL', arguments => "id => '\@flow\@'" },
	{   name => 'workflows', method => 'GET', path => '/workflows', free => 1, rows => 1, arguments => '' },
	{   name => 'update_workflow', method => 'PATCH', path => '/workflows/@flow@', free => 1, subject => 'NULL, NULL',
		arguments => qq(id => '\@flow\@', changes => '{"workflow_name":"New","workflow_description":"d","workflow_definition":$graph}'),
		body      => qq({"workflow_name":"New","workflow_description":"d","workflow_definition":$graph}) },
	{   name => 'start_workflow', path => '/workflows/run', query => { workflow_id => '@flow@' }, started => 1, subject => 'NULL, NULL',
		arguments => qq(id => '\@flow\@', webhook_payload => '[{"name":"A"}]', options => '{"specs_override":{"b":{}}}'),
		body      => '{"webhook_payload":[{"name":"A"}],"specs_override":{"b":{}}}', keep => { run => 'x' } },
	{   name => 'run_workflow', path => '/workflows/run', query => { workflow_id => '@flow@' }, rows => 1, subject => 'NULL, NULL',
		arguments => qq(id => '\@flow\@', webhook_payload => '{"name":"B"}', options => '{}'), body => '{"webhook_payload":{"name":"B"}}' },
	{   name => 'workflow_status', method => 'GET', path => '/workflows/runs/@run@/live_status', free => 1, subject => 'NULL',
		arguments => "run_id => '\@run\@'" },
	{   name => 'workflow_results', method => 'GET', path => '/workflows/runs/@run@/results/download-links', free => 1, rows => 1,
		subject => 'NULL', arguments => "run_id => '\@run\@'" },
	{   name => 'workflow_runs', method => 'GET', path => '/workflows/runs', query => { status => 'completed' }, free => 1, rows => 1,
		arguments => "status => 'completed'" },
	{   name => 'workflow_runs', method => 'GET', path => '/workflows/runs', free => 1, rows => 1, arguments => '' },
	{   name => 'cancel_workflow', path => '/workflows/cancel', query => { job_id => '@run@' }, free => 1, subject => 'NULL',
		arguments => "run_id => '\@run\@'" },
	{   name => 'delete_workflow', method => 'DELETE', path => '/workflows/@flow@', free => 1, nothing => 1, subject => 'NULL',
		arguments => "id => '\@flow\@'" },
	{   name => 'workflow_blocks', method => 'GET', path => '/workflows/blocks', free => 1, rows => 1, arguments => '' },

	# the account
	{   name => 'job_status', method => 'GET', path => '/job-status/@task@', free => 1, subject => 'NULL', arguments => "task_id => '\@task\@'" },
	{   name => 'usage', method => 'GET', path => '/api/usage', query => { time_window => '60' }, free => 1, arguments => 'time_window => 60' },
	{   name => 'usage', method => 'GET', path => '/api/usage', free => 1, arguments => '' },
	{   name => 'create_webhook_secret', path => '/webhooks/signing-secret', free => 1, arguments => '' },
	{   name => 'webhook_secret', method => 'GET', path => '/webhooks/signing-secret', free => 1, arguments => '' },
	{   name => 'roll_webhook_secret', path => '/webhooks/signing-secret/roll', free => 1, arguments => 'expire_overlap_hours => 0',
		body => '{"expire_overlap_hours":0}' },
	{   name => 'roll_webhook_secret', path => '/webhooks/signing-secret/roll', free => 1, arguments => '', body => '{}' },
	{   name => 'delete_webhook_secret', method => 'DELETE', path => '/webhooks/signing-secret', free => 1, nothing => 1, arguments => '' },
);
$_->{method} //= 'POST' foreach @calls;

# In an order in which what is kept is there when it is needed, but for @task@
sub calls { return @calls; }

# Put what is known into a text.
sub fill
{
	my ($text, $known) = @_;
	return $text unless defined $text;
	return $text =~ s/\@(\w+)\@/$known->{$1} \/\/ "nothing known of $1"/ger;
}

# The SQL of a call, of the function with that suffix
sub function
{
	my ($call, $suffix, $known) = @_;
	return "sixtyfour_$call->{name}$suffix(" . fill($call->{arguments}, $known) . ')';
}

1;
