# Every synchronous function: what it sends, to the byte where that matters, and
# what becomes of the answer.
use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use JSON::PP;
use Test::More;

use SixtyfourTest;

my $json = JSON::PP->new->canonical->utf8->allow_nonref;
my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('functions', $mock,
	server => "requests_per_minute '0'");
my $session = SixtyfourTest::Session->new($node);

$mock->settings({ quirks => 'none', found => 'all', email_shape => '3',
		phone_shape => 'text', task_seconds => 3600 });

# One spelling for all equal JSON texts
sub canonical { my ($text) = @_; return $json->encode($json->decode($text)); }

# The rows of a statement that works, each as a line of fields
sub rows
{
	my ($sql, $in) = @_;
	my $reply = ($in // $session)->query($sql);
	return "$reply->{error}{sqlstate}: $reply->{error}{message}: $reply->{error}{detail}"
	  if $reply->{error};
	return join "\n",
	  map { join '|', map { $_ // 'NULL' } @$_ } @{ $reply->{rows} };
}

# A statement makes one request, and this is it.
sub one_request
{
	my ($name, $sql, $method, $path, $body) = @_;
	my %expected = (
		failed   => undef,
		requests => 1,
		accepted => 1,
		method   => $method,
		path     => $path,
		body     => defined $body ? canonical($body) : 'null',
		type     => defined $body ? 'application/json' : undef,
		expect   => undef);

	$mock->reset_ledger;
	my $reply   = $session->query($sql);
	my $entries = $mock->ledger;
	my $first   = $entries->[0] // { headers => {} };
	is_deeply({
			failed   => $reply->{error} && "$reply->{error}{sqlstate} $reply->{error}{message} $reply->{error}{detail}",
			requests => scalar @$entries,
			accepted => $mock->summary->{accepted},
			method   => $first->{method},
			path     => $first->{path},
			body     => $json->encode($first->{body}),
			type     => $first->{headers}{'content-type'},
			expect   => $first->{headers}{expect} },
		\%expected, "request of $name");
	return $reply->{rows}[0][0];
}

# ---- what is sent ----

my $lead   = '{"name":"Jane Doe","company":"Acme"}';
my $struct = '{"title":"Current job title","years":{"description":"Years of experience","type":"int"}}';
my $all    = '{"a":{"description":"A","type":"str"},"b":{"description":"B","type":"int"},'
  . '"c":{"description":"C","type":"float"},"d":{"description":"D","type":"bool"},'
  . '"e":{"description":"E","type":"list"},"f":{"description":"F","type":"list[str]"},'
  . '"g":{"description":"G","type":"list[int]"},"h":{"description":"H","type":"list[float]"},'
  . '"i":{"description":"I","type":"dict"},"j":{"description":"J"},"k":"K"}';
my $company  = '{"company_name":"Acme","website":"https://acme.test"}';
my $criteria = '[{"criteria_name":"Senior","description":"Ten years or more","weight":10},'
  . '{"criteria_name":"Local","description":"Lives nearby","weight":2.5,"threshold":0.5}]';
my $references = '[{"url":"https://acme.test/","description":"Its site"},{"url":"https://b.test/"}]';

my @requests = (
	# enrich_lead
	[ 'enrich_lead', "SELECT sixtyfour_enrich_lead('$lead', '$struct')",
		'/enrich-lead', qq({"lead_info":$lead,"struct":$struct}) ],
	[ 'enrich_lead with a struct of every type', "SELECT sixtyfour_enrich_lead('$lead', '$all')",
		'/enrich-lead', qq({"lead_info":$lead,"struct":$all}) ],
	[ 'enrich_lead with a plan', "SELECT sixtyfour_enrich_lead('$lead', '$struct', 'Look at \"news\"')",
		'/enrich-lead', qq({"lead_info":$lead,"struct":$struct,"research_plan":"Look at \\"news\\""}) ],
	[ 'enrich_lead by names, with options',
		qq(SELECT sixtyfour_enrich_lead(options => '{"tier":"low","field_confidence":true,"max_iterations":3,"benchmark":false}',
			research_plan => 'News first', struct => '$struct', lead_info => '$lead')),
		'/enrich-lead', qq({"lead_info":$lead,"struct":$struct,"research_plan":"News first",
			"tier":"low","field_confidence":true,"max_iterations":3,"benchmark":false}) ],
	[ 'enrich_lead with the plan in options',
		qq(SELECT sixtyfour_enrich_lead('$lead', '$struct', NULL, '{"research_plan":"In options"}')),
		'/enrich-lead', qq({"lead_info":$lead,"struct":$struct,"research_plan":"In options"}) ],
	[ 'enrich_lead with a webhook',
		qq(SELECT sixtyfour_enrich_lead('$lead', '$struct', options => '{"webhook_url":"https://me.test/hook"}')),
		'/enrich-lead', qq({"lead_info":$lead,"struct":$struct,"webhook_url":"https://me.test/hook"}) ],
	[ 'enrich_lead, whole body',
		qq(SELECT sixtyfour_enrich_lead('{"lead_info":$lead,"struct":$struct,"tier":"micro"}')),
		'/enrich-lead', qq({"lead_info":$lead,"struct":$struct,"tier":"micro"}) ],
	[ 'enrich_lead, whole body by name, without its nulls',
		qq(SELECT sixtyfour_enrich_lead(request => '{"lead_info":$lead,"struct":$struct,"research_plan":null,"tier":null}')),
		'/enrich-lead', qq({"lead_info":$lead,"struct":$struct}) ],

	# enrich_company
	[ 'enrich_company', "SELECT sixtyfour_enrich_company('$company', '$struct')",
		'/enrich-company', qq({"target_company":$company,"struct":$struct}) ],
	[ 'enrich_company by position',
		"SELECT sixtyfour_enrich_company('$company', '$struct', '$all', true, 'Plan', 'Engineers')",
		'/enrich-company', qq({"target_company":$company,"struct":$struct,"lead_struct":$all,
			"find_people":true,"research_plan":"Plan","people_focus_prompt":"Engineers"}) ],
	[ 'enrich_company by names, with options',
		qq(SELECT sixtyfour_enrich_company(target_company => '$company', struct => '$struct',
			find_people => false, lead_struct => '{"name":"Full name"}', research_plan => 'Plan',
			people_focus_prompt => 'Buyers', options => '{"full_org_chart":true,"tier":"xhigh"}')),
		'/enrich-company', qq({"target_company":$company,"struct":$struct,"find_people":false,
			"lead_struct":{"name":"Full name"},"research_plan":"Plan","people_focus_prompt":"Buyers",
			"full_org_chart":true,"tier":"xhigh"}) ],
	[ 'enrich_company with NULLs and JSON nulls, which are left out',
		qq(SELECT sixtyfour_enrich_company('$company', '$struct', 'null', NULL, NULL, NULL, '{"tier":null}')),
		'/enrich-company', qq({"target_company":$company,"struct":$struct}) ],
	[ 'enrich_company, whole body',
		qq(SELECT sixtyfour_enrich_company('{"struct":$struct,"target_company":$company,"find_people":true}')),
		'/enrich-company', qq({"target_company":$company,"struct":$struct,"find_people":true}) ],
	[ 'enrich_company, whole body by name',
		qq(SELECT sixtyfour_enrich_company(request => '{"struct":$struct,"target_company":$company}')),
		'/enrich-company', qq({"target_company":$company,"struct":$struct}) ],

	# find_email
	[ 'find_email', "SELECT sixtyfour_find_email('$lead')", '/find-email', qq({"lead":$lead}) ],
	[ 'find_email, professional', "SELECT sixtyfour_find_email('$lead', 'PROFESSIONAL')",
		'/find-email', qq({"lead":$lead,"mode":"PROFESSIONAL"}) ],
	[ 'find_email, personal, by names', "SELECT sixtyfour_find_email(mode => 'PERSONAL', lead => '$lead')",
		'/find-email', qq({"lead":$lead,"mode":"PERSONAL"}) ],
	[ 'find_email with options',
		qq(SELECT sixtyfour_find_email('$lead', NULL, '{"mode":"PERSONAL","verify_emails":true,"providers":["a","b"]}')),
		'/find-email', qq({"lead":$lead,"mode":"PERSONAL","verify_emails":true,"providers":["a","b"]}) ],
	[ 'find_email with empty options', "SELECT sixtyfour_find_email('$lead', options => '{}')",
		'/find-email', qq({"lead":$lead}) ],

	# find_phone
	[ 'find_phone', "SELECT sixtyfour_find_phone('$lead')", '/find-phone', qq({"lead":$lead}) ],
	[ 'find_phone by names, with options',
		qq(SELECT sixtyfour_find_phone(lead => '$lead', options => '{"providers":["a"]}')),
		'/find-phone', qq({"lead":$lead,"providers":["a"]}) ],

	# qa_agent
	[ 'qa_agent', "SELECT sixtyfour_qa_agent('$lead', '$criteria')",
		'/qa-agent', qq({"data":$lead,"qualification_criteria":$criteria}) ],
	[ 'qa_agent by position', "SELECT sixtyfour_qa_agent('$lead', '$criteria', '$references', '$struct')",
		'/qa-agent', qq({"data":$lead,"qualification_criteria":$criteria,"references":$references,"struct":$struct}) ],
	[ 'qa_agent by names, with options',
		qq(SELECT sixtyfour_qa_agent(data => '$lead', qualification_criteria => '$criteria',
			"references" => '$references', struct => '$struct', options => '{"max_tool_calls":4}')),
		'/qa-agent', qq({"data":$lead,"qualification_criteria":$criteria,"references":$references,
			"struct":$struct,"max_tool_calls":4}) ],
	[ 'qa_agent, whole body',
		qq(SELECT sixtyfour_qa_agent('{"data":$lead,"qualification_criteria":$criteria}')),
		'/qa-agent', qq({"data":$lead,"qualification_criteria":$criteria}) ],
	[ 'qa_agent, whole body by name',
		qq(SELECT sixtyfour_qa_agent(request => '{"data":$lead,"qualification_criteria":$criteria,"references":[]}')),
		'/qa-agent', qq({"data":$lead,"qualification_criteria":$criteria,"references":[]}) ],

	# enrich_dataframe
	[ 'enrich_dataframe', q(SELECT sixtyfour_enrich_dataframe(E'name,company\nJohn,Acme', 'phone')),
		'/enrich-dataframe', q({"csv_data":"name,company\nJohn,Acme","enrichment_type":"phone"}) ],
	[ 'enrich_dataframe by names',
		q(SELECT sixtyfour_enrich_dataframe(enrichment_type => 'email', csv_data => E'name\r\n"Doe, ""J"""\t\\\\\n')),
		'/enrich-dataframe', q({"csv_data":"name\r\n\"Doe, \"\"J\"\"\"\t\\\\\n","enrichment_type":"email"}) ],

	# values
	[ 'values of every kind, nulls within the subject kept',
		q(SELECT sixtyfour_find_email('{"name":"x","n":-12.5,"t":true,"f":false,"z":null,"l":[1,[2,{}],"3",null],"o":{"k":{"q":null}},"":"empty key"}')),
		'/find-email', q({"lead":{"name":"x","n":-12.5,"t":true,"f":false,"z":null,"l":[1,[2,{}],"3",null],"o":{"k":{"q":null}},"":"empty key"}}) ],
	[ 'odd texts',
		q(SELECT sixtyfour_find_email(E'{"name":"quote \\\\" backslash \\\\\\\\ slash / tab \\\\t \\\\u0001 \\\\u007f","k\\\\"\\\\\\\\":"\\\\u00e9 \\\\ud83d\\\\ude00 \\\\u2028"}')),
		'/find-email', q({"lead":{"name":"quote \" backslash \\\\ slash / tab \t \u0001 \u007f","k\"\\\\":"\u00e9 \ud83d\ude00 \u2028"}}) ],
	[ 'Unicode',
		q(SELECT sixtyfour_enrich_lead('{"name":"Zoë Ærø","企業":"株式会社 😀"}', '{"肩書":"役職"}', 'größer')),
		'/enrich-lead', q({"lead_info":{"name":"Zoë Ærø","企業":"株式会社 😀"},"struct":{"肩書":"役職"},"research_plan":"größer"}) ],
	[ 'text that looks like other types',
		q(SELECT sixtyfour_find_email('{"name":"null","a":"1","b":"true"}')),
		'/find-email', q({"lead":{"name":"null","a":"1","b":"true"}}) ],
);
foreach my $request (@requests)
{
	my ($name, $sql, $path, $body) = @$request;
	one_request($name, $sql, 'POST', $path, $body);
}

# a body beyond 1 MB, before which libcurl by itself asks for leave
$mock->reset_ledger;
is(rows(q{SELECT jsonb_typeof(sixtyfour_enrich_dataframe('name,notes' || repeat(E'\nJane Doe,' || repeat('ü', 500), 1100), 'phone'))}),
	'object', 'a large body');
my $large = $mock->ledger->[0];
is(length $large->{body}{csv_data}, 10 + 1100 * 510, 'arrives whole');
ok(!exists $large->{headers}{expect}, 'without asking for leave');
ok(!exists $large->{headers}{'transfer-encoding'}, 'and in one piece');

$mock->reset_ledger;
rows("SELECT sixtyfour_find_email('$lead')");
my $headers = $mock->ledger->[0]{headers};
is($mock->ledger->[0]{key_sha256}, sha256_hex('api_good'), 'the key is sent');
is($headers->{accept}, 'application/json', 'JSON is asked for');
is($headers->{'content-length'}, length qq({"lead": {"name": "Jane Doe", "company": "Acme"}}), 'the length is given');
like($headers->{'user-agent'}, qr{^sixtyfour/1\.0 \(PostgreSQL 1\d}, 'who asks is said');

# ---- NULL subjects ----

my $nothing = q(
	sixtyfour_enrich_lead(NULL::jsonb, '{"a":"A"}'), sixtyfour_enrich_lead(NULL),
	sixtyfour_enrich_lead(lead_info => NULL, struct => NULL, research_plan => 'x'),
	sixtyfour_enrich_company(NULL::jsonb, '{"a":"A"}'), sixtyfour_enrich_company(NULL),
	sixtyfour_find_email(NULL), sixtyfour_find_email(NULL, 'PERSONAL', '{}'),
	sixtyfour_find_phone(NULL), sixtyfour_find_phone(NULL, '{}'),
	sixtyfour_qa_agent(NULL, '[]'), sixtyfour_qa_agent(NULL),
	sixtyfour_enrich_dataframe(NULL, 'phone'), sixtyfour_job_status(NULL),
	sixtyfour_request(NULL, '/workflows'), sixtyfour_request('GET', NULL));
my $wanted = join '|', ('NULL') x 15;
$mock->reset_ledger;
is(rows("SELECT $nothing"), $wanted, 'NULL for the subject gives NULL');
is(rows("SET sixtyfour.server = 'no such'; SELECT $nothing"), $wanted, 'even without an account');
is($mock->summary->{requests}, 0, 'and without a request');
rows('RESET sixtyfour.server');

# ---- job_status ----

foreach my $style ('production', 'documented')
{
	$mock->settings({ status_style => $style });
	my ($first, $second) = map {
		my $answer = $json->decode(rows(qq(SELECT sixtyfour_request('POST', '/find-email-async', body => '{"lead":{"name":"$_"}}'))));
		$answer->{task_id};
	} ('Jane Doe', 'John Doe');

	is(one_request("job_status of a task under way, $style",
			"SELECT sixtyfour_job_status('$first')->>'status'", 'GET', "/job-status/$first"),
		$style eq 'production' ? 'RUNNING' : 'pending', 'is the service\'s own answer');
	$mock->control('POST', "tasks/$first",  { action => 'finish' });
	$mock->control('POST', "tasks/$second", { action => 'fail', error => 'Out of luck' });
	is(one_request("job_status of a finished task, $style",
			"SELECT sixtyfour_job_status(task_id => '$first')->'result'->'email'", 'GET', "/job-status/$first"),
		'[["jane.doe@janedoe.example", "OK", "COMPANY"]]', 'has its result');
	is(rows("SELECT j->>'status', j->>'error' FROM sixtyfour_job_status('$second') j"),
		'failed|Out of luck', "a failed task is an answer, not an error, $style");
}

# ids are opaque: each is one segment of the path, whatever it contains
$mock->settings({ task_ids => 'odd' });
my $odd = $json->decode(rows(qq(SELECT sixtyfour_request('POST', '/find-phone-async', body => '{"lead":{"name":"Jane"}}'))))->{task_id};
like($odd, qr/[ %\/?]/, 'an odd id');
my $quoted = $json->encode($odd);
is(rows(qq(SELECT sixtyfour_job_status('$quoted'::jsonb #>> '{}')->>'task_id' = '$quoted'::jsonb #>> '{}')),
	't', 'finds its task');
$mock->settings({ task_ids => 'uuid' });

my $raw = SixtyfourTest::Raw->start("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
rows("CREATE SERVER raw FOREIGN DATA WRAPPER sixtyfour OPTIONS (base_url '" . $raw->url . "/base/', requests_per_minute '0');
	CREATE USER MAPPING FOR PUBLIC SERVER raw OPTIONS (api_key 'api_good')");

# The first line of the request that a statement makes on server raw
sub request_line
{
	my ($sql) = @_;
	my $failed = rows("SET sixtyfour.server = raw; $sql");
	rows('RESET sixtyfour.server');
	return $raw->received =~ /^(.*?)\r\n/ ? $1 : "nothing: $failed";
}

my %ids = (
	'a-b_c.d~1'   => 'a-b_c.d~1',
	'a b'         => 'a%20b',
	'a/b'         => 'a%2Fb',
	'...'         => '...',
	'50%'         => '50%25',
	'%2e%2e'      => '%252e%252e',
	'a?b#c'       => 'a%3Fb%23c',
	'a+b&c=d;e'   => 'a%2Bb%26c%3Dd%3Be',
	'{task_id}'   => '%7Btask_id%7D',
	"\t\\\"<>"    => '%09%5C%22%3C%3E',
	'ü'           => '%C3%BC',
	'日本 😀'       => '%E6%97%A5%E6%9C%AC%20%F0%9F%98%80',
	'x@y:z,!$()*' => 'x%40y%3Az%2C%21%24%28%29%2A');
foreach my $id (sort keys %ids)
{
	is(request_line("SELECT sixtyfour_job_status('$id')"),
		"GET /base/job-status/$ids{$id} HTTP/1.1", 'id ' . $json->encode($id) . ' in a path');
}
foreach my $id ('', '.', '..', '../webhooks', 'a/..', '/./', 'a\\..\\b')
{
	is(rows("SELECT sixtyfour_job_status('$id')"),
		qq(22023: invalid task_id: "$id": ), "id \"$id\" is refused");
}

# ---- sixtyfour_request ----

my $flow = '{"workflow_name":"W","workflow_definition":{"blocks":[{"sequence_number":1,"block_type":"source","block_name":"webhook","specs":{}}],"edges":[]}}';
is(one_request('GET', q(SELECT sixtyfour_request('GET', '/workflows')), 'GET', '/workflows'), '[]', 'has an array');
one_request('POST', "SELECT sixtyfour_request('POST', '/workflows', NULL, '$flow')", 'POST', '/workflows', $flow);
my $flow_id = rows(q(SELECT sixtyfour_request('GET', '/workflows')->0->>'id'));
is(one_request('PATCH', qq(SELECT sixtyfour_request(method => 'PATCH', path => '/workflows/$flow_id', body => '{"workflow_name":"New"}')->>'name'),
		'PATCH', "/workflows/$flow_id", '{"workflow_name":"New"}'), 'New', 'has the changed object');
is(one_request('DELETE', "SELECT sixtyfour_request('DELETE', '/workflows/$flow_id') IS NULL",
		'DELETE', "/workflows/$flow_id"), 't', 'answered with 204 is NULL');
is(rows(q(SELECT sixtyfour_request('GET', '/workflows'))), '[]', 'and was done');

my @lines = (
	[ q('GET', '/x'), 'GET /base/x' ],
	[ q('GET', '/x', '{}'), 'GET /base/x' ],
	[ q('GET', '/x', '{"a":null}'), 'GET /base/x' ],
	[ q('GET', '/x', '{"s":"a b","n":1.50,"m":-2,"t":true,"u":false,"z":null,"e":""}'),
		'GET /base/x?e=&m=-2&n=1.50&s=a%20b&t=true&u=false' ],
	[ q('GET', '/x', '{"list":["a",1,true,null,"ü"],"none":[]}'),
		'GET /base/x?list=a&list=1&list=true&list=%C3%BC' ],
	[ q('GET', '/x', '{"ä&=":"日本 & = + / ? % #"}'),
		'GET /base/x?%C3%A4%26%3D=%E6%97%A5%E6%9C%AC%20%26%20%3D%20%2B%20%2F%20%3F%20%25%20%23' ],
	[ q('GET', '/x%20y/%C3%BC/a:b@c,d;e=f'), 'GET /base/x%20y/%C3%BC/a:b@c,d;e=f' ],
	[ q('GET', '/a/...//b'), 'GET /base/a/...//b' ],
	[ q('POST', '/x'), 'POST /base/x' ],
	[ q('POST', '/x', '{"q":1}', '[1,"two",null]'), 'POST /base/x?q=1' ],
	[ q('PUT', '/x', NULL, '"text"'), 'PUT /base/x' ],
	[ q('PATCH', '/x', NULL, '{"a":null}'), 'PATCH /base/x' ],
	[ q('DELETE', '/x', '{"force":true}'), 'DELETE /base/x?force=true' ]);
foreach my $line (@lines)
{
	is(request_line("SELECT sixtyfour_request($line->[0])"), "$line->[1] HTTP/1.1", "request of $line->[0]");
}

# whole requests
rows('SET sixtyfour.server = raw');
my $agent = qr{User-Agent: sixtyfour/1\.0 \(PostgreSQL [^\r\n]*\)};
my $host  = 'Host: 127.0.0.1:' . $raw->port;
my %wholes = (
	q('GET', '/x') => qr{^GET /base/x HTTP/1\.1\r\n$host\r\n$agent\r\nAccept: application/json\r\nx-api-key: api_good\r\n\r\n\z},
	q('POST', '/x', body => '{"a":null,"b":[1,{}]}') =>
	  qr{^POST /base/x HTTP/1\.1\r\n$host\r\n$agent\r\nAccept: application/json\r\nContent-Type: application/json\r\nx-api-key: api_good\r\nContent-Length: 25\r\n\r\n\{"a": null, "b": \[1, \{\}\]\}\z},
	q('POST', '/x') =>
	  qr{^POST /base/x HTTP/1\.1\r\n$host\r\n$agent\r\nAccept: application/json\r\nx-api-key: api_good\r\nContent-Length: 0\r\n\r\n\z},
	q('DELETE', '/x') => qr{^DELETE /base/x HTTP/1\.1\r\n$host\r\n$agent\r\nAccept: application/json\r\nx-api-key: api_good\r\n\r\n\z},
);
foreach my $arguments (sort keys %wholes)
{
	is(rows("SELECT sixtyfour_request($arguments)"), '{}', "$arguments is answered");
	like($raw->received, $wholes{$arguments}, 'to the byte');
}
rows('RESET sixtyfour.server');

# whatever JSON there is, and CSV as a JSON string
my @bodies = (
	[ '[1, 2]', '[1, 2]' ], [ 'true', 'true' ], [ '"a\u00e9"', '"aé"' ], [ ' 1.50 ', '1.50' ],
	[ 'null', 'null' ], [ "\xEF\xBB\xBF{}", '{}' ], [ '', 'NULL' ],
	[ qq(a,b\n1,"x ""y"", \\ \t\xC3\xBC"\r\n), q("a,b\n1,\"x \"\"y\"\", \\\\ \tü\"\r\n"), 'text/csv; charset=utf-8' ],
	[ '1', '"1"', 'Text/CSV' ], [ '', 'NULL', 'text/csv' ]);
foreach my $case (@bodies)
{
	my ($body, $answer, $type) = @$case;
	$mock->rule({ times => 1, accept => JSON::PP::false, body => { text => $json->decode($json->encode($body =~ /[\x80-\xff]/ ? decode_utf8($body) : $body)) },
			content_type => $type // 'application/json' });
	is(rows(q(SELECT sixtyfour_request('GET', '/report'))), $answer, 'answer ' . $json->encode($body) . ' as ' . ($type // 'JSON'));
}

sub decode_utf8 { my ($text) = @_; utf8::decode($text); return $text; }

# ---- answers ----

# The answer comes unchanged, and a query reads it.
sub answers
{
	my ($function, $path, $answer, $query, $expected) = @_;
	$mock->reset;
	$mock->rule({ match => { path => $path }, times => 1, answer => $json->decode($answer) });
	is(rows("WITH r AS MATERIALIZED (SELECT $function AS a) SELECT a = '$answer', $query FROM r"),
		"t|$expected", "answer $answer");
	is($mock->summary->{accepted}, 1, 'asked once');
	return;
}

my $emails = q((SELECT jsonb_agg(jsonb_build_array(address, status, kind)) FROM sixtyfour_emails(a)), sixtyfour_best_email(a));
my @emails = (
	[ '{"name":"J","email":[["a@x.test","OK","COMPANY"]],"cost_cents":5}', '[["a@x.test", "OK", "COMPANY"]]|a@x.test' ],
	[ '{"email":[["a@x.test","UNKNOWN"]]}', '[["a@x.test", "UNKNOWN", null]]|a@x.test' ],
	[ '{"email":[["a@x.test","UNKNOWN","COMPANY"],["b@x.test","OK","COMPANY"],["c@x.test","OK","PERSONAL"]]}',
		'[["a@x.test", "UNKNOWN", "COMPANY"], ["b@x.test", "OK", "COMPANY"], ["c@x.test", "OK", "PERSONAL"]]|b@x.test' ],
	[ '{"email":[["a@x.test","OK","COMPANY"]],"personal_email":[["p@y.test","OK","PERSONAL"]]}',
		'[["a@x.test", "OK", "COMPANY"], ["p@y.test", "OK", "PERSONAL"]]|a@x.test' ],
	[ '{"email":[],"personal_email":"p@y.test"}', '[["p@y.test", null, "PERSONAL"]]|p@y.test' ],
	[ '{"email":[["a@x.test","INVALID","COMPANY"]],"personal_email":[["p@y.test","UNKNOWN"]]}',
		'[["a@x.test", "INVALID", "COMPANY"], ["p@y.test", "UNKNOWN", "PERSONAL"]]|p@y.test' ],
	[ '{"email":[["","NOT_FOUND","COMPANY"]]}', 'NULL|NULL' ],
	[ '{"email":[]}', 'NULL|NULL' ], [ '{"email":""}', 'NULL|NULL' ], [ '{"email":null}', 'NULL|NULL' ],
	[ '{"name":"J"}', 'NULL|NULL' ]);
answers("sixtyfour_find_email('$lead', 'PERSONAL')", '/find-email', $_->[0], $emails, $_->[1]) foreach @emails;

my $phones = q((SELECT jsonb_agg(jsonb_build_array(number, region)) FROM sixtyfour_phones(a)), sixtyfour_best_phone(a));
my @phones = (
	[ '{"name":"J","phone":"+1 555-123-4567","cost_cents":30}', '[["+1 555-123-4567", null]]|+1 555-123-4567' ],
	[ '{"phone":[{"number":"+1 555","region":"US"},{"number":"+44 20","region":"GB"}]}',
		'[["+1 555", "US"], ["+44 20", "GB"]]|+1 555' ],
	[ '{"phone":[{"number":"","region":"US"},{"number":"+44 20"}]}', '[["+44 20", null]]|+44 20' ],
	[ '{"phone":""}', 'NULL|NULL' ], [ '{"phone":[]}', 'NULL|NULL' ], [ '{"phone":null}', 'NULL|NULL' ],
	[ '{"name":"J"}', 'NULL|NULL' ]);
answers("sixtyfour_find_phone('$lead')", '/find-phone', $_->[0], $phones, $_->[1]) foreach @phones;

my $leads = q((SELECT string_agg(l->>'name', ' ') FROM sixtyfour_leads(a) l), (SELECT count(*) FROM sixtyfour_leads(a)));
my @leads = (
	[ '{"structured_data":{"n":3,"leads":[{"name":"A","score":2},{"name":"B","score":"9.5"},{"name":"C","score":10},{"name":"D"},{"name":"E","score":"high"},{"name":"F","score":"9.5"}]},"notes":"","findings":[],"references":{},"confidence_score":9.5}',
		'C B F A D E|6' ],
	[ '{"structured_data":{"leads":[]}}', 'NULL|0' ], [ '{"structured_data":{}}', 'NULL|0' ],
	[ '{"structured_data":{"leads":""}}', 'NULL|0' ], [ '{"notes":""}', 'NULL|0' ]);
answers("sixtyfour_enrich_company('$company', '$struct', find_people => true)", '/enrich-company', $_->[0], $leads, $_->[1]) foreach @leads;

# answers that are only handed on
my $researched = '{"notes":"n","structured_data":{"name":"Jane","years":8,"boss":true,"firms":"[\"A\", \"B\"]","empty":"","d":"{\"a\": 1}"},"findings":[],"references":{"https://a.test/":"Site"},"confidence_score":9.5,"field_confidence":{"name":10}}';
answers("sixtyfour_enrich_lead('$lead', '$struct')", '/enrich-lead', $researched, q(a->'structured_data'->>'firms'), '["A", "B"]');
answers("sixtyfour_qa_agent('$lead', '$criteria')", '/qa-agent', '{"structured_data":{"final_verdict":"NO","suitability_score":"3"},"notes":"n"}',
	q(a->'structured_data'->>'final_verdict'), 'NO');
answers("sixtyfour_enrich_dataframe('name', 'phone')", '/enrich-dataframe', '{"csv_data":"name,phone\r\n"}', q(a->>'csv_data'), "name,phone\r\n");
$mock->reset;
$mock->rule({ match => { path => '/enrich-dataframe' }, answer => { text => "name,phone\n\"Doe, J\",+1\n" }, content_type => 'text/csv' });
is(rows(q(SELECT sixtyfour_enrich_dataframe('name', 'phone') #>> '{}')), qq(name,phone\n"Doe, J",+1\n), 'CSV is an answer of enrich_dataframe');
$mock->reset;

# curious but whole replies are understood
foreach my $fault (qw(duplicate_keys duplicate_reply_headers huge_headers connection_close drip))
{
	$mock->rule({ times => 1, fault => $fault, interval => 0.0002 });
	is(rows("SELECT sixtyfour_best_email(sixtyfour_find_email('$lead'))"), 'jane.doe@acme.example', "a reply with fault $fault");
}
$mock->reset;

# ---- in queries ----

rows(q(
	CREATE TABLE people (id int PRIMARY KEY, name text, company text, email text, phone text);
	INSERT INTO people SELECT n, 'Person ' || n, 'Firm ' || n FROM generate_series(1, 12) n;
	INSERT INTO people VALUES (13, 'Nobody Atall', 'Firm 13');
));
is(rows(q(SELECT count(email), count(*) FROM (SELECT sixtyfour_best_email(sixtyfour_find_email(jsonb_build_object('name', name, 'company', company))) AS email FROM people) x)),
	'12|13', 'a SELECT over rows');
my $entries = $mock->ledger;
is(join(' ', map { $_->{body}{lead}{name} } @$entries), join(' ', (map { "Person $_" } 1 .. 12), 'Nobody Atall'),
	'asks once per row, in order');
is(scalar(keys %{ { map { $_->{connection} => 1 } @$entries } }), 1, 'on one connection');

$mock->reset;
is(rows(q(SELECT p.id, e.address, e.status, e.kind FROM people p,
		LATERAL sixtyfour_find_email(jsonb_build_object('name', p.name, 'company', p.company)) a,
		LATERAL sixtyfour_emails(a) e WHERE p.id IN (1, 2, 13) ORDER BY p.id)),
	"1|person.1\@firm1.example|OK|COMPANY\n2|person.2\@firm2.example|OK|COMPANY", 'LATERAL');
is($mock->summary->{accepted}, 3, 'asks once per row');

$mock->reset;
is(rows(q(WITH r AS MATERIALIZED (SELECT id, sixtyfour_find_email(jsonb_build_object('name', name, 'company', company)) AS a FROM people WHERE id < 4)
		UPDATE people p SET email = sixtyfour_best_email(a) FROM r WHERE r.id = p.id RETURNING p.id, p.email)),
	join("\n", map { "$_|person.$_\@firm$_.example" } 1 .. 3), 'UPDATE from a CTE');
is(rows(q(UPDATE people SET phone = sixtyfour_best_phone(sixtyfour_find_phone(to_jsonb(people))) WHERE id = 4 RETURNING phone ~ '^\+1 555-')),
	't', 'UPDATE');
is(rows(q(SELECT count(*) FROM people WHERE id < 3 AND sixtyfour_best_email(sixtyfour_find_email(jsonb_build_object('name', name))) IS NOT NULL)),
	'2', 'WHERE');
is($mock->summary->{accepted}, 6, 'each asks once per row');

$mock->reset;
is(rows(q(PREPARE ask(text) AS SELECT sixtyfour_best_email(sixtyfour_find_email(jsonb_build_object('name', $1)));
		EXECUTE ask('A B'); EXECUTE ask('C D'))),
	"a.b\@ab.example\nc.d\@cd.example", 'a prepared statement');
is(rows(q(CREATE FUNCTION ask(n int) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE found text := '';
		BEGIN
			FOR i IN 1..n LOOP
				found := found || ' ' || sixtyfour_best_email(sixtyfour_find_email(lead => jsonb_build_object('name', 'P ' || i)));
			END LOOP;
			RETURN found;
		END $$;
		SELECT ask(3))),
	' p.1@p1.example p.2@p2.example p.3@p3.example', 'a loop in PL/pgSQL');
is($mock->summary->{accepted}, 5, 'each asks once per call');
is(rows(q(BEGIN READ ONLY; SELECT sixtyfour_best_email(sixtyfour_find_email('{"name":"Q R"}')); COMMIT)), 'q.r@qr.example', 'a read-only transaction');

# the planner may not drop what is asked
$mock->reset;
is(rows(q(SELECT count(*) FROM (SELECT sixtyfour_find_email(jsonb_build_object('name', 'S ' || n)) AS a FROM generate_series(1, 3) n) x)),
	'3', 'an answer that is not looked at');
is($mock->summary->{accepted}, 3, 'is asked for all the same');

# ---- in the catalog ----

is(rows(q(SELECT p.oid::regprocedure, provolatile, proparallel, procost >= 1000, proisstrict, prorettype::regtype
		FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
		WHERE prosrc IN ('sixtyfour_call', 'sixtyfour_request') AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sixtyfour')
		ORDER BY p.oid::regprocedure::text COLLATE "C")),
	join("\n", map { "sixtyfour_$_|v|r|t|f|jsonb" }
		'cancel_workflow(text)',
		'company_intelligence(jsonb,jsonb,jsonb,boolean,text,text,jsonb)',
		'create_webhook_secret()',
		'create_workflow(text,jsonb,jsonb)',
		'enrich_company(jsonb)',
		'enrich_company(jsonb,jsonb,jsonb,boolean,text,text,jsonb)',
		'enrich_dataframe(text,text)',
		'enrich_lead(jsonb)',
		'enrich_lead(jsonb,jsonb,text,jsonb)',
		'enrich_linkedin(text,jsonb,text,jsonb)',
		'filter_fields(text,boolean)',
		'filter_values(text,text,integer,jsonb)',
		'find_email(jsonb,text,jsonb)',
		'find_phone(jsonb,jsonb)',
		'get_linkedin(text,boolean,jsonb)',
		'job_status(text)',
		'org_chart(text,text,text,integer,jsonb)',
		'org_chart_people(text,text,text,text,integer,jsonb)',
		'people_intelligence(jsonb,jsonb,text,jsonb)',
		'qa_agent(jsonb)',
		'qa_agent(jsonb,jsonb,jsonb,jsonb,jsonb)',
		'request(text,text,jsonb,jsonb)',
		'research_agent(jsonb,jsonb,text,integer,jsonb)',
		'reverse_email(jsonb,jsonb)',
		'reverse_phone(jsonb,jsonb)',
		'roll_webhook_secret(integer)',
		'search_status(text)',
		'update_workflow(text,jsonb)',
		'usage(integer)',
		'webhook_secret()',
		'workflow(text)',
		'workflow_status(text)'),
	'functions that ask are volatile, parallel restricted and costly');
is(rows(q(SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
		WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sixtyfour') AND deptype = 'e'
		AND coalesce(obj_description(objid, classid::regclass::name), '') = '')),
	'', 'every object has a comment');
is(rows(q(SELECT count(*) FROM pg_proc WHERE proname LIKE 'sixtyfour%' AND pronamespace <> 'public'::regnamespace)), '0', 'functions are in the current schema');
is(rows(q(SELECT extrelocatable FROM pg_extension WHERE extname = 'sixtyfour')), 'f', 'the extension is not relocatable');

# ---- other encodings ----

my %charsets = (LATIN1 => 'latin1', EUC_JP => 'euc_jp', SQL_ASCII => 'sql_ascii');
my %in;
foreach my $charset (sort keys %charsets)
{
	rows("CREATE DATABASE $charsets{$charset} TEMPLATE template0 ENCODING '$charset' LC_COLLATE 'C' LC_CTYPE 'C'");
	SixtyfourTest::install($node, $charsets{$charset}, $mock, server => "requests_per_minute '0'");
	$in{$charset} = SixtyfourTest::Session->new($node, database => $charsets{$charset});
}

# A name goes out as UTF-8 and comes back in as many bytes as it has in the
# database's encoding.
sub there_and_back
{
	my ($charset, $name, $bytes) = @_;
	my $in = $in{$charset};
	$mock->reset;
	rows("SET client_encoding = 'UTF8'", $in) unless $charset eq 'SQL_ASCII';
	is(rows(qq(SELECT a->>'name', octet_length(a->>'name') FROM sixtyfour_find_email('{"name":"$name"}') a), $in),
		"$name|$bytes", "$charset: the answer is converted");
	is($json->encode($mock->ledger->[0]{body}), qq({"lead":{"name":"$name"}}), "$charset: the request is UTF-8");
	return;
}
there_and_back('LATIN1', 'Zoë Müller ÆØß', 14);
there_and_back('EUC_JP', '日本太郎', 8);
there_and_back('SQL_ASCII', 'Zoë 日本', 11);
is(rows(q(SELECT sixtyfour_enrich_lead('{"name":"Zoë"}', '{"größe":"Größe"}', 'größer')->'structured_data' ? 'größe'), $in{LATIN1}),
	't', 'LATIN1: keys, too');
is($json->encode($mock->ledger->[1]{body}), '{"lead_info":{"name":"Zoë"},"research_plan":"größer","struct":{"größe":"Größe"}}',
	'LATIN1: and text arguments');
rows("SET client_encoding = 'UTF8'", $in{$_}) foreach qw(LATIN1 EUC_JP);
foreach my $charset (qw(LATIN1 SQL_ASCII))
{
	my $in = $in{$charset};
	my $url = $raw->url;
	rows("ALTER SERVER sixtyfour OPTIONS (SET base_url '$url')", $in);
	rows(q(SELECT sixtyfour_job_status('é'), sixtyfour_request('GET', '/x', '{"ä":["ö",1]}')), $in);
	like($raw->received, qr{^GET /job-status/%C3%A9 .*^GET /x\?%C3%A4=%C3%B6&%C3%A4=1 }ms, "$charset: paths and queries are UTF-8");
	rows("ALTER SERVER sixtyfour OPTIONS (SET base_url '" . $mock->url . "')", $in);
}

# Answers that the encoding cannot hold: raw, and as \u escapes
my @foreign = (
	[ 'LATIN1', '{"name":"日本"}',
		'character with byte sequence 0xe6 0x97 0xa5 in encoding "UTF8" has no equivalent in encoding "LATIN1". The answer (HTTP 200) was: {"name":"\xe6\x97\xa5\xe6\x9c\xac"}' ],
	[ 'LATIN1', '{"name":"caf\u00e9 \u65e5"}',
		'character with byte sequence 0xe6 0x97 0xa5 in encoding "UTF8" has no equivalent in encoding "LATIN1". The answer (HTTP 200) was: {"name":"caf\u00e9 \u65e5"}' ],
	[ 'EUC_JP', '{"name":"日本 😀 é"}',
		'character with byte sequence 0xf0 0x9f 0x98 0x80 in encoding "UTF8" has no equivalent in encoding "EUC_JP". The answer (HTTP 200) was: {"name":"日本 \xf0\x9f\x98\x80 é"}' ],
	[ 'SQL_ASCII', '{"name":"caf\u00e9"}',
		'conversion between UTF8 and SQL_ASCII is not supported. The answer (HTTP 200) was: {"name":"caf\u00e9"}' ]);
foreach my $case (@foreign)
{
	my ($charset, $body, $detail) = @$case;
	$mock->rule({ times => 1, answer => { text => decode_utf8($body) } });
	is(rows("SELECT sixtyfour_find_email('$lead')", $in{$charset}),
		"08P01: find_email: the service's answer cannot be read: $detail", "$charset: answer $body is not lost");
	is(rows("SELECT sixtyfour_best_email(sixtyfour_find_email('$lead'))", $in{$charset}), 'jane.doe@acme.example', 'and the session goes on');
}
$mock->rule({ times => 1, status => 422, body => { detail => decode_utf8('Ungültig: 日本') } });
is(rows("SELECT sixtyfour_find_email('$lead')", $in{LATIN1}),
	'22023: find_email: the service does not accept the request: HTTP status 422: {"detail":"Ungültig: \xe6\x97\xa5\xe6\x9c\xac"}',
	'LATIN1: an error message as far as it can be written');

# what is not UTF-8 cannot be asked
$mock->reset;
like(rows(q(SELECT sixtyfour_find_email(jsonb_build_object('name', convert_from('\x5aeb', 'SQL_ASCII')))), $in{SQL_ASCII}),
	qr/^22021: invalid byte sequence for encoding "UTF8": 0xeb/, 'SQL_ASCII: bytes that are not UTF-8 are refused');
is($mock->summary->{requests}, 0, 'before anything is sent');

done_testing();
