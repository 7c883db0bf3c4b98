# Every error of a synchronous call, provoked by real replies: its SQLSTATE,
# message, DETAIL and HINT; how often the service was asked; and that the
# session goes on.
use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(strftime);
use Test::More;

use SixtyfourTest;

my @keys = map { sprintf 'api_secret_%02d', $_ } 1 .. 40;
my $mock = SixtyfourTest::Mock->start('--keys' => join ',', @keys);
my $node = SixtyfourTest::cluster('errors', $mock,
	server => "requests_per_minute '0'");
my $session = SixtyfourTest::Session->new($node);
my $start   = $session->value('SELECT pg_postmaster_start_time()');

$mock->settings({ quirks => 'none', found => 'all', email_shape => '3' });

my $maybe = 'The request may have been accepted and billed; look at the account before asking again.';
my $lead  = '{"name":"Jane Doe","company":"Acme"}';
my $email = "SELECT sixtyfour_find_email('$lead')";
my $best  = "SELECT sixtyfour_best_email(sixtyfour_find_email('$lead'))";
my $poll  = "SELECT sixtyfour_job_status('no such task')";
my $list  = "SELECT sixtyfour_request('GET', '/workflows')";

# Limits and money are counted per key; a new one starts afresh.
sub new_key
{
	my $key = shift @keys;
	$session->value("ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key '$key')");
	return $key;
}

# Set server options to these, all others to their defaults.
sub options
{
	my %options = (base_url => $mock->url, requests_per_minute => 0, @_);
	$session->value(q(
		DO $$
		DECLARE
			options text;
		BEGIN
			SELECT string_agg(format('DROP %I', option_name), ', ') INTO options
			FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = 'sixtyfour';
			EXECUTE 'ALTER SERVER sixtyfour OPTIONS (' || options || ')';
		END $$;
	));
	$session->value('ALTER SERVER sixtyfour OPTIONS ('
		  . join(', ', map { "ADD $_ '$options{$_}'" } sort keys %options) . ')');
	return;
}

# The parts of an error, without what differs from run to run
sub parts
{
	my ($reply) = @_;
	my $error = $reply->{error} or return "no error but " . JSON::PP->new->encode($reply->{rows});
	my %parts = map { $_ => $error->{$_} } qw(sqlstate message detail hint);
	$parts{detail} =~ s/after \d+ ms/after N ms/;
	$parts{detail} =~ s/port \d+/port N/g;
	return \%parts;
}

# The expected detail is a text or a pattern.
sub is_error
{
	my ($reply, $name, $sqlstate, $message, $detail, $hint) = @_;
	my $parts = parts($reply);
	$detail = $parts->{detail} if ref $detail && ref $parts && $parts->{detail} =~ $detail;
	is_deeply($parts,
		{ sqlstate => $sqlstate, message => $message, detail => $detail, hint => $hint }, $name);
	return;
}

# A request meets a rule and fails.  The service has seen it exactly once and
# accepted it as often as said.
sub fails
{
	my ($name, $rule, $sql, $accepted, @error) = @_;
	$mock->reset;
	$mock->rule($rule) if $rule;
	is_error($session->query($sql), $name, @error);
	my $summary = $mock->summary;
	is("$summary->{requests} $summary->{accepted}", "1 $accepted", 'asked once');
	$mock->clear_rules;
	return;
}

# The service ends the connections that are idle.
sub end_connections
{
	$mock->control('DELETE', 'connections');
	$mock->wait_for(open_connections_at_most => 0);
	return;
}

sub works
{
	my ($name) = @_;
	my $reply = $session->query($best);
	is($reply->{error} ? "$reply->{error}{sqlstate} $reply->{error}{detail}" : $reply->{rows}[0][0],
		'jane.doe@acme.example', $name);
	return;
}

new_key();

# ---- refusals ----

my %refusals = (
	400 => [ '22023', 'the service does not accept the request', 'Correct the request; it was not billed.' ],
	401 => [ '28000', 'the service refuses the API key', 'Correct the API key in the user mapping, with ALTER USER MAPPING.' ],
	402 => [ '42501', 'the balance of the account is too low', 'Top up the account at the service; the request was not billed.' ],
	403 => [ '42501', 'the account may not do this', 'The feature or tier is not enabled for this account at the service.' ],
	404 => [ '02000', 'the service does not know what was asked for', 'Ids of tasks, workflows and runs belong to one account, and tasks expire.' ],
	422 => [ '22023', 'the service does not accept the request', 'Correct the request; it was not billed.' ]);
foreach my $status (sort keys %refusals)
{
	my ($sqlstate, $message, $hint) = @{ $refusals{$status} };
	fails("status $status", { status => $status + 0 }, $email, 0,
		$sqlstate, "find_email: $message", "HTTP status $status: Asked by a rule", $hint);
	fails("status $status of a GET", { status => $status + 0 }, "SELECT sixtyfour_request('GET', '/workflows')", 0,
		$sqlstate, "GET /workflows: $message", "HTTP status $status: Asked by a rule", $hint);
}
works('refusals do not outlast their cause');

# refusals that are not documented may have been billed
foreach my $status (405, 408, 409, 418, 499)
{
	fails("status $status", { status => $status }, $email, 0,
		'38000', 'find_email: the service refuses the request', "HTTP status $status: Asked by a rule", $maybe);
	fails("status $status of a GET", { status => $status }, $poll, 0,
		'38000', 'job_status: the service refuses the request', "HTTP status $status: Asked by a rule", '');
}

# as the service itself says it
fails('an unknown field', undef, qq(SELECT sixtyfour_find_email('$lead', options => '{"nonsense":1}')), 0,
	'22023', 'find_email: the service does not accept the request',
	'HTTP status 422: body.nonsense: Extra inputs are not permitted', 'Correct the request; it was not billed.');
fails('an unknown task', undef, $poll, 0,
	'02000', 'job_status: the service does not know what was asked for', 'HTTP status 404: Job not found', $refusals{404}[2]);
fails('an unknown path', undef, "SELECT sixtyfour_request('POST', '/no/such', body => '{}')", 0,
	'02000', 'POST /no/such: the service does not know what was asked for', 'HTTP status 404: Not Found', $refusals{404}[2]);
fails('an unsuitable method', undef, "SELECT sixtyfour_request('DELETE', '/find-email')", 0,
	'38000', 'DELETE /find-email: the service refuses the request', 'HTTP status 405: Method Not Allowed', $maybe);
$session->value("ALTER USER MAPPING FOR PUBLIC SERVER sixtyfour OPTIONS (SET api_key 'api_secret_wrong')");
fails('a wrong key', undef, $email, 0,
	'28000', 'find_email: the service refuses the API key', 'HTTP status 401: Invalid API key', $refusals{401}[2]);
new_key();

# bodies of errors, documented and not
my @bodies = (
	[ { error => 'Bad Request', message => 'No luck today' }, 'No luck today' ],
	[ { detail => 'No luck today' }, 'No luck today' ],
	[ { detail => [ { loc => [ 'body', 'lead', 'name' ], msg => 'Field required', type => 'missing' } ] },
		'body.lead.name: Field required' ],
	[ { detail => [
				{ loc => [ 'body', 'leads', 0, 'x', 12 ], msg => 'First', type => 'a' },
				{ loc => ['query'], type => 'b' }, { msg => 'Third' }, { loc => [], msg => 'Fourth' } ] },
		'body.leads[0].x[12]: First; query: invalid; Third; : Fourth' ],
	[ { message => 'Only this' }, 'Only this' ],
	[ { error   => 'Only this' }, 'Only this' ],
	[ { detail  => [] }, '{"detail":[]}' ],
	[ { detail  => [ 'a', 'b' ] }, '{"detail":["a","b"]}' ],
	[ { error => { code => 7 } }, '{"error":{"code":7}}' ],
	[ [1], '[1]' ],
	[ { text => "<h1>Bad\tgateway</h1>\r\n\x01\x{e9}" }, "<h1>Bad\tgateway</h1>\\x0d\n\\x01\xc3\xa9" ],
	[ { text => 'x' x 5000 }, ('x' x 1024) . ' ... (5000 bytes in all)' ],
	[ { message => "\x{e9}" x 1000 }, "\xc3\xa9" x 512 ]);
foreach my $case (@bodies)
{
	my ($body, $detail) = @$case;
	fails('an error that says ' . substr($detail, 0, 40) =~ s/\n.*//sr, { status => 400, body => $body }, $email, 0,
		'22023', 'find_email: the service does not accept the request',
		"HTTP status 400: $detail", 'Correct the request; it was not billed.');
}
fails('an error that says nothing', { status => 400, body => { text => '' } }, $email, 0,
	'22023', 'find_email: the service does not accept the request', 'HTTP status 400.', 'Correct the request; it was not billed.');

# ---- failures of the service ----

foreach my $status (500, 502, 503, 504, 599)
{
	fails("status $status", { status => $status, accept => JSON::PP::true }, $email, 1,
		'38000', 'find_email: the service failed', "HTTP status $status: Asked by a rule", $maybe);
	fails("status $status of a GET", { status => $status }, $poll, 0,
		'38000', 'job_status: the service failed', "HTTP status $status: Asked by a rule", 'Try again later.');
}
fails('500 of a POST by sixtyfour_request', { status => 500, accept => JSON::PP::true },
	"SELECT sixtyfour_request('POST', '/find-email', body => '{\"lead\":$lead}')", 1,
	'38000', 'POST /find-email: the service failed', 'HTTP status 500: Asked by a rule', $maybe);
fails('500 with a web page', { status => 502, body => { text => "<html>\n" } }, $email, 0,
	'38000', 'find_email: the service failed', "HTTP status 502: <html>\n", $maybe);

# ---- redirects ----

foreach my $status (301, 302, 303, 307, 308)
{
	my $rule = { match => { path => '/find-email' }, fault => 'redirect', status => $status, location => $mock->url . '/find-phone' };
	fails("redirect $status", $rule, $email, 0,
		'08P01', 'find_email: the service answered with a redirect, which is not followed', "HTTP status $status.", $maybe);
}
fails('redirect of a GET', { fault => 'redirect', location => $mock->url . '/workflows' }, $poll, 0,
	'08P01', 'job_status: the service answered with a redirect, which is not followed', 'HTTP status 302.',
	'Check option "base_url" of the server.');

# ---- connections that end too early ----

my $error;
my $lost = 'connection to the service was lost';
my @ends = (
	[ 'close_after_body', 1, 'Empty reply from server.' ],
	[ 'reset_after_body', 1, 'Recv failure: Connection reset by peer.' ],
	[ 'cut',              1, qr/^HTTP status 200: .*51 bytes/ ],
	[ 'bad_chunk',        1, qr/^HTTP status 200: .*chunk/ ],
	# the unread body makes it a reset, if that is the first to arrive
	[ 'close_before_body', 0, qr/^(Empty reply from server|Recv failure: Connection reset by peer|Send failure: [ \w]+)\.$/ ]);
foreach my $end (@ends)
{
	my ($fault, $accepted, $detail) = @$end;
	end_connections();
	fails("$fault", { fault => $fault }, $email, $accepted, '08006', "find_email: $lost", $detail, $maybe);
}
fails('close_after_body of a GET', { fault => 'close_after_body' }, $list, 1,
	'08006', "GET /workflows: $lost", 'Empty reply from server.', 'Try again later.');

# within the headers: no answer, even for requests that need none
foreach my $case ([ $email, 'find_email' ], [ "SELECT sixtyfour_request('POST', '/find-email', body => '{\"lead\":$lead}')", 'POST /find-email' ])
{
	$mock->reset;
	$mock->rule({ fault => 'cut_headers', times => 1 });
	my $error = parts($session->query($case->[0]));
	is(ref $error ? "$error->{sqlstate} $error->{message} $error->{hint}" : $error,
		"08006 $case->[1]: $lost $maybe", "cut_headers of $case->[1]");
	is($mock->summary->{accepted} . $mock->summary->{requests}, '11', 'asked once');
}

# A reused connection that ends after it has taken the request: libcurl would
# ask again by itself, and the service would bill twice.
my $flow = '{"workflow_name":"W","workflow_definition":{"blocks":[],"edges":[]}}';
my $flow_id = $session->value("SELECT sixtyfour_request('POST', '/workflows', body => '$flow')->>'id'");
foreach my $once ([ $email, 'find_email' ],
	[ "SELECT sixtyfour_request('POST', '/workflows', body => '$flow')", 'POST /workflows' ],
	[ "SELECT sixtyfour_request('PATCH', '/workflows/$flow_id', body => '{}')", "PATCH /workflows/$flow_id" ],
	[ "SELECT sixtyfour_request('POST', '/workflows/delete_workflow', '{\"workflow_id\":\"$flow_id\"}')", 'POST /workflows/delete_workflow' ])
{
	my ($sql, $what) = @$once;
	works('a connection to reuse');
	$mock->reset;
	$mock->rule({ fault => 'close_reused' });
	my $error = parts($session->query($sql));
	is("$error->{sqlstate} $error->{message} $error->{hint}", "08006 $what: $lost $maybe", "close_reused of $what");
	unlike($error->{detail}, qr/callback|rewind/, 'in words for the user');
	is($mock->summary->{accepted} . $mock->summary->{requests}, '11', 'asked once');
	cmp_ok($mock->ledger->[0]{nth_on_connection}, '>', 1, 'on a reused connection');
	$mock->reset;
}
works('a connection to reuse');
$mock->reset;
$mock->rule({ fault => 'close_reused' });
is($session->value("$list IS NOT NULL"), 't', 'a GET is simply asked again');
is($mock->summary->{requests}, 2, 'on a new connection');

# a connection that ended while idle is no reason to fail
$mock->reset;
works('a connection to lose');
$mock->reset;
end_connections();
works('a connection that ended while idle is replaced');
is($mock->summary->{requests}, 1, 'and asked once');

# ---- time ----

options(timeout => '300ms');
foreach my $fault ('hang', 'hang_before_body', 'drip')
{
	$mock->reset;
	$mock->rule({ fault => $fault, interval => 0.1 });
	$error = parts($session->query($email));
	like(delete $error->{detail}, qr/^(HTTP status 200: )?Operation timed out after \d+ milliseconds with \d+ (out of \d+ )?bytes received\.?$/,
		"$fault: how long it took");
	is_deeply($error, { sqlstate => '08006', message => 'find_email: the service did not answer in time', hint => $maybe }, "$fault: timed out");
	is($mock->summary->{requests}, 1, 'asked once');
}
$mock->reset;
$mock->rule({ fault => 'hang' });
$error = parts($session->query($list));
is("$error->{sqlstate} $error->{message} $error->{hint}",
	'08006 GET /workflows: the service did not answer in time Try again later, or raise option "timeout" of the server.', 'a GET that timed out');
options();
$mock->reset;
works('and a longer timeout works');

# ---- answers that cannot be read ----

my $billed = 'The request was probably billed; the text of the answer is in the DETAIL.';
my $unreadable = 'the service\'s answer cannot be read';
my $rest = '"name":"Jane Doe","company":"Acme","email":[["jane.doe@acme.example","OK","COMPANY"]],"cost_cents":5}';
my @unreadable = (
	[ { fault => 'not_json' }, qr/^Token "<" is invalid\. The answer \(HTTP 200\) was: <!doctype html><title>Bad gateway<\/title><h1>Bad gateway<\/h1>\n$/ ],
	[ { fault => 'invalid_utf8' },
		qr/^invalid byte sequence for encoding "UTF8": 0xe9 0x20 0xff\. The answer \(HTTP 200\) was: \Q{"notes":"caf\xe9 \xff\xfe",$rest\E$/ ],
	[ { fault => 'nul' }, qr/^\\u0000 cannot be converted to text\. The answer \(HTTP 200\) was: \{"notes":"before\\u0000after",\Q$rest\E$/ ],
	[ { fault => 'bad_surrogate' }, qr/^Unicode low surrogate must follow a high surrogate\. The answer \(HTTP 200\) was: \{"notes":"\\ud83d alone",\Q$rest\E$/ ],
	[ { fault => 'deep_nesting' }, qr/^stack depth limit exceeded\. The answer \(HTTP 200\) was: \{"notes":\[{8183} \.\.\. \(200\d\d\d bytes in all\)$/ ],
	[ { fault => 'huge_number' }, qr/^value overflows numeric format\. The answer \(HTTP 200\) was: \{"number":9{8182} \.\.\. \(200\d\d\d bytes in all\)$/ ],
	[ { fault => 'empty' }, qr/^A JSON value was expected\. The answer \(HTTP 200\) was empty\.$/ ],
	[ { fault => 'wrong_shape' }, qr/^It is not a JSON object\. The answer \(HTTP 200\) was: \[1,2,3\]$/ ],
	[ { fault => 'wrong_shape', shape => 'scalar' }, qr/^It is not a JSON object\. The answer \(HTTP 200\) was: 42$/ ],
	[ { fault => 'wrong_shape', shape => 'null' }, qr/^It is not a JSON object\. The answer \(HTTP 200\) was: null$/ ],
	[ { fault => 'wrong_shape', shape => 'text' }, qr/^It is not a JSON object\. The answer \(HTTP 200\) was: "done"$/ ],
	[ { fault => 'wrong_content_length' }, qr/^Token ""jane" is invalid\. The answer \(HTTP 200\) was: \{"name":"Jane Doe"[^\}]*$/ ],
	[ { fault => 'unasked_gzip' }, qr/ The answer \(HTTP 200\) was: \\x1f\\x8b\\x08/ ],
	[ { answer => { text => "a\0b" } }, qr/^It contains a NUL byte\. The answer \(HTTP 200\) was: a\\x00b$/ ],
	[ { answer => { text => 'OK' }, content_type => 'text/csv' }, qr/^Token "OK" is invalid\. The answer \(HTTP 200\) was: OK$/ ],
	[ { status => 202, answer => { text => 'Later' } }, qr/^Token "Later" is invalid\. The answer \(HTTP 202\) was: Later$/ ]);
foreach my $case (@unreadable)
{
	my ($rule, $detail) = @$case;
	my $name = join ' ', map { "$_ $rule->{$_}" } sort grep { !ref $rule->{$_} } keys %$rule;
	$mock->reset;
	$mock->rule($rule);
	$error = parts($session->query($email));
	like(delete $error->{detail}, $detail, "$name: the text is kept");
	is_deeply($error, { sqlstate => '08P01', message => "find_email: $unreadable", hint => $billed }, "$name: cannot be read");
	is($mock->summary->{accepted} . $mock->summary->{requests}, '11', 'asked once');
}
$mock->reset;
works('and readable answers are read');

# the text is cut to a length for people
$mock->reset;
$mock->rule({ answer => { text => 'y' x 100_000 } });
is(parts($session->query($email))->{detail} =~ s/.*was: //r, ('y' x 8192) . ' ... (100000 bytes in all)', 'a long text is cut');

# ---- too large ----

my $large = 'the service\'s answer is too large';
$session->value("SET sixtyfour.max_response_size = '64kB'");
fails('too large', { fault => 'huge', size_bytes => 1_000_000 }, $email, 1,
	'54000', "find_email: $large", 'It began with: {"notes":"' . ('x' x 8182) . ' ... (65536 bytes in all)',
	'The request was probably billed; raise "sixtyfour.max_response_size" before asking again.');
fails('a GET that is too large', { fault => 'huge', size_bytes => 100_000 }, "SELECT sixtyfour_request('GET', '/workflows')", 1,
	'54000', "GET /workflows: $large", 'It began with: {"notes":"' . ('x' x 8182) . ' ... (65536 bytes in all)',
	'Raise "sixtyfour.max_response_size".');
$mock->reset;
$mock->rule({ fault => 'huge', size_bytes => 65536, times => 1 });
is($session->value(q(SELECT length(sixtyfour_request('GET', '/workflows')->>'notes'))), 65536 - 12, 'exactly as large as allowed');
$mock->rule({ fault => 'huge', size_bytes => 65537, times => 1 });
is(parts($session->query(q(SELECT sixtyfour_request('GET', '/workflows'))))->{sqlstate}, '54000', 'a byte more');
$session->value('RESET sixtyfour.max_response_size');
$mock->reset;
works('and answers of usual size are read');

# ---- the key ----

my $key   = new_key();
my $stars = '*' x length $key;
fails('an error that repeats the key', { fault => 'echo_key' }, $email, 0,
	'42501', 'find_email: the account may not do this',
	"HTTP status 403: The key $stars may not do this (x-api-key: $stars)", $refusals{403}[2]);
fails('a failure that repeats the key', { fault => 'echo_key', status => 500 }, $email, 0,
	'38000', 'find_email: the service failed', "HTTP status 500: The key $stars may not do this (x-api-key: $stars)", $maybe);
fails('nonsense that repeats the key', { answer => { text => "x-api-key: $key" } }, $email, 1,
	'08P01', "find_email: $unreadable", "Token \"x\" is invalid. The answer (HTTP 200) was: x-api-key: $stars", $billed);
$mock->reset;
$mock->rule({ answer => { name => $key, list => ["<$key$key>"], $key => 1 } });
is($session->value("$email->'list'->>0"), "<$stars$stars>", 'an answer that repeats the key');
is($session->value($email), qq({"list": ["<$stars$stars>"], "name": "$stars", "$stars": 1}), 'in a name, too');
$mock->reset;
$mock->rule({ answer => { text => $key }, content_type => 'text/csv' });
is($session->value("SELECT sixtyfour_enrich_dataframe('a', 'phone')"), qq("$stars"), 'and CSV that does');

# an answer that is cut off within the key
$session->value("SET sixtyfour.max_response_size = '1kB'");
foreach my $seen (8, length($key) - 1)
{
	$mock->reset;
	$mock->rule({ answer => { text => ('.' x (1024 - $seen)) . "$key and more" } });
	like(parts($session->query($email))->{detail}, qr/^It began with: [.*]+ \.\.\. \(1024 bytes in all\)$|^It began with: [.*]+$/,
		"no part of the key in an answer cut after its byte $seen");
}
$session->value('RESET sixtyfour.max_response_size');
$mock->reset;

# ---- 429 ----

options(timeout => '30s');

# Statuses of the requests since the last reset, and the seconds between them
sub asked
{
	my $entries = $mock->ledger;
	my @gaps = map { $entries->[$_]{time} - $entries->[ $_ - 1 ]{time} } 1 .. $#$entries;
	return (join(' ', map { $_->{status} // 'none' } @$entries), @gaps);
}

my $limited = 'find_email: the service\'s rate limit is reached';
my $later   = 'Try again later; the request was not billed.';

foreach my $case (
	[ 'seconds',          { 'Retry-After' => '1' } ],
	[ 'a date gone by',   { 'Retry-After' => 'Fri, 31 Dec 1999 23:59:59 GMT' } ],
	[ 'seconds on a web page', { 'Retry-After' => '1' }, { text => '<html>' } ])
{
	my ($name, $headers, $body) = @$case;
	new_key();
	$mock->reset;
	$mock->rule({ status => 429, times => 1, headers => $headers, $body ? (body => $body) : () });
	works("429, Retry-After is $name: answered after all");
	my ($statuses, $gap) = asked();
	is($statuses, '429 200', 'at the second try');
	cmp_ok($gap // 0, '>=', 0.99, 'which waited');
	is($mock->summary->{accepted}, 1, 'accepted once');
}

new_key();
$mock->reset;
$mock->rule({ status => 429, headers => { 'Retry-After' => '1' } });
is_error($session->query($email), '429 for ever', '53400', $limited, 'HTTP status 429: Asked by a rule', $later);
my ($statuses, @gaps) = asked();
is($statuses, '429 429 429', 'three tries');
is(scalar(grep { $_ >= 0.99 } @gaps), 2, 'with waits between them');

foreach my $case (
	[ 'beyond the timeout', { 'Retry-After' => '600' }, '(600\.0|5\d\d\.\d)' ],
	[ 'a date beyond it',   { 'Retry-After' => strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + 3600)) }, '3(600|5\d\d)\.\d' ],
	[ 'missing',            {}, '(60\.0|[345]\d\.\d)' ],
	[ 'absurd',             { 'Retry-After' => '99999999999' }, '86(400\.0|3\d\d\.\d)' ])
{
	my ($name, $headers, $seconds) = @$case;
	new_key();
	fails("429, Retry-After is $name", { status => 429, headers => $headers }, $email, 0,
		'53400', $limited, 'HTTP status 429: Asked by a rule', $later);
	$mock->reset;
	$error = parts($session->query($email));
	like(delete $error->{detail}, qr/^The next request may be made in $seconds s, which is after the timeout\.$/, 'how long to wait is said');
	is_deeply($error, { sqlstate => '53400', message => 'find_email: the rate limit of server "sixtyfour" is reached',
			hint => 'Try again later; nothing was sent.' }, 'and obeyed by the next request');
	is($mock->summary->{requests}, 0, 'nothing was sent');
}
new_key();
works('another key is not concerned');

# the service's own limiter
options(timeout => '1s');
new_key();
$mock->settings({ rate_limit => 2, retry_after => 100, rate_window => 3600 });
$mock->reset;
works('the first of two');
works('the second of two');
like(parts($session->query($email))->{detail}, qr/^The next request may be made in [1-5]\.\d s/, 'none remains, so none is asked');
is($mock->summary->{requests}, 2, 'nothing was sent');
$mock->settings({ rate_limit => 0, retry_after => undef, rate_window => 60 });
options();

# ---- our own limit ----

options(requests_per_minute => 60);
new_key();
$mock->reset;
works('one a second: the first');
works('one a second: the second');
my (undef, $gap) = asked();
cmp_ok($gap, '>=', 0.8, 'waits for its turn');
options(requests_per_minute => 6, timeout => '500ms');
new_key();
works('one in ten seconds');
$mock->reset;
$error = parts($session->query($email));
like(delete $error->{detail}, qr/^The next request may be made in (10|\d)\.\d s, which is after the timeout\.$/, 'the turn comes too late');
is_deeply($error, { sqlstate => '53400', message => 'find_email: the rate limit of server "sixtyfour" is reached',
		hint => 'Try again later; nothing was sent.' }, 'the limit is reached');
is($mock->summary->{requests}, 0, 'nothing was sent');

# ---- the budget ----

sub no_budget
{
	my ($sql, $what, $of, $spent, $cost) = @_;
	$mock->reset_ledger;
	is_error($session->query($sql), "$spent of $of cents are gone", '53400', "$what: the daily budget of server \"sixtyfour\" is reached",
		"Of $of cents, $spent are spent or at risk today (UTC), and this request would cost $cost.",
		'Raise option "daily_budget_cents" of the server, or wait for the next day; nothing was sent.');
	is($mock->summary->{requests}, 0, 'nothing was sent');
	return;
}

$mock->reset;
new_key();
options(daily_budget_cents => 24);
works('5 of 24 cents');
$session->value("SELECT sixtyfour_find_email('$lead', 'PROFESSIONAL')");
no_budget("SELECT sixtyfour_find_email('$lead', 'PERSONAL')",        'find_email', 24, 10, 20);
no_budget(qq(SELECT sixtyfour_find_email('$lead', options => '{"mode":"PERSONAL"}')), 'find_email', 24, 10, 20);
no_budget("SELECT sixtyfour_find_phone('$lead')",                    'find_phone', 24, 10, 30);
no_budget("SELECT sixtyfour_enrich_lead('$lead', '{\"a\":\"A\"}')",  'enrich_lead', 24, 10, 500);
no_budget("SELECT sixtyfour_request('POST', '/x')",                  'POST /x', 24, 10, 500);
$session->value(q(SELECT sixtyfour_find_email('{"name":"Jane","email":"jane@acme.test"}')));
$session->value(q(SELECT sixtyfour_find_email('{"name":"Jane","email":"jane@acme.test"}')));
is($session->value("SELECT jsonb_typeof(sixtyfour_request('GET', '/workflows'))"), 'array', 'what is free needs no budget');
$mock->rule({ status => 422, times => 2 });
$session->query($email) foreach 1 .. 2;
works('what was not billed is not counted: 15 of 24');
$mock->rule({ answer => { cost_cents => 7 }, times => 1 });
$session->value($email);
no_budget($email, 'find_email', 24, 22, 5);
options(daily_budget_cents => 27);
works('a raised budget: 27 of 27');
no_budget($email, 'find_email', 27, 27, 5);
options();
works('no budget, no limit');
options(daily_budget_cents => 0);
no_budget($email, 'find_email', 0, 32, 5);
new_key();
no_budget($email, 'find_email', 0, 0, 5);

# what cannot be read is billed
new_key();
options(daily_budget_cents => 9);
$mock->rule({ fault => 'not_json', times => 1 });
$session->query($email);
no_budget($email, 'find_email', 9, 5, 5);

# what may have been billed is at risk
new_key();
options(daily_budget_cents => 9);
$mock->rule({ status => 500, times => 1 });
$session->query($email);
no_budget($email, 'find_email', 9, 5, 5);
new_key();
my $unused = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "listen: $!";
my $refused = 'http://127.0.0.1:' . $unused->sockport;
$unused->close;
options(daily_budget_cents => 9, base_url => $refused);
is($session->query($email)->{error}{sqlstate}, '08001', 'what was not sent') foreach 1 .. 2;

# so it is with what was cancelled
new_key();
options(daily_budget_cents => 9);
$mock->reset;
$mock->rule({ fault => 'hang', times => 1 });
$session->send($email);
$mock->wait_for(count => 1, stage => 'received_body');
$session->cancel;
is_error($session->receive, 'cancelled after it was sent', '57014', 'canceling statement due to user request', '', '');
no_budget($email, 'find_email', 9, 5, 5);
new_key();
my $silent = IO::Socket::INET->new(Listen => 16, LocalAddr => '127.0.0.1') or die "listen: $!";
options(daily_budget_cents => 9, base_url => 'https://127.0.0.1:' . $silent->sockport);
foreach (1 .. 2)
{
	$session->send($email);
	my ($ready) = IO::Select->new($silent, $session->{socket})->can_read;
	my $stalled = $ready == $silent && $silent->accept;
	$session->cancel if $stalled;
	is_error($session->receive, 'cancelled before it was sent', '57014', 'canceling statement due to user request', '', '');
}

# prices that are not known
new_key();
options(daily_budget_cents => 100, assumed_cents => 40);
my $research = "SELECT sixtyfour_enrich_lead('$lead', '{\"a\":\"A\"}')";
$session->value($research);
$session->value("SELECT sixtyfour_qa_agent('$lead', '[{\"criteria_name\":\"a\",\"description\":\"b\",\"weight\":1}]')");
no_budget($research, 'enrich_lead', 100, 80, 40);
works('a known price is not assumed');
new_key();
options(daily_budget_cents => 499);
no_budget($research, 'enrich_lead', 499, 0, 500);
options(daily_budget_cents => 10, assumed_cents => 0);
$mock->rule({ match => { path => '/enrich-lead' }, answer => { charge_amount => 10 }, times => 1 });
$session->value($research);
no_budget($email, 'find_email', 10, 10, 5);

# ---- no connection ----

new_key();
my $none  = 'could not connect to the service';
my $check = 'Nothing was sent. Check the network and option "base_url" of the server.';
options(base_url => $refused);
is_error($session->query($email), 'connection refused', '08001', "find_email: $none",
	qr/^Failed to connect to 127\.0\.0\.1 port N after N ms: Could(n't| not) connect to server\.$/, $check);
is_error($session->query($poll), 'connection refused to a GET', '08001', "job_status: $none",
	qr/^Failed to connect to 127\.0\.0\.1 port N after N ms: Could(n't| not) connect to server\.$/, $check);
options(base_url => 'http://nowhere.invalid', connect_timeout => '5s');
is_error($session->query($email), 'unknown name', '08001', "find_email: $none", qr/^(Could not resolve host: nowhere\.invalid|Resolving timed out after \d+ milliseconds)\.$/, $check);
options(proxy => $refused);
is_error($session->query($email), 'no proxy', '08001', "find_email: $none",
	qr/^Failed to connect to 127\.0\.0\.1 port N after N ms: Could(n't| not) connect to server\.$/, $check);
options(base_url => 'https://nowhere.invalid', proxy => $mock->url);
like(parts($session->query($email))->{sqlstate}, qr/^08001$/, 'a proxy that refuses');
options(base_url => 'http://service.invalid', proxy => $mock->url);
$mock->reset;
works('a proxy that serves');

# TLS
my $tls = PostgreSQL::Test::Utils::tempdir();
SixtyfourTest::Tls::make($tls);
my %secure = map {
	$_ => SixtyfourTest::Mock->start('--tls-cert' => "$tls/$_.pem", '--tls-key' => "$tls/$_.key")
} qw(server other);
options(base_url => $secure{server}->url, ca_file => "$tls/ca.pem");
works('TLS with a known authority');
my @tls = (
	[ 'an unknown authority', { base_url => $secure{server}->url }, qr/^SSL certificate problem: .*certificate/ ],
	[ 'another host\'s certificate', { base_url => $secure{other}->url, ca_file => "$tls/ca.pem" },
		qr/^SSL: no alternative certificate subject name matches target .*'127\.0\.0\.1'\.$/ ],
	[ 'a host by another name', { base_url => $secure{server}->url =~ s/127\.0\.0\.1/localhost/r, ca_file => "$tls/ca.pem" },
		qr/^SSL: no alternative certificate subject name matches target .*'localhost'\.$/ ],
	[ 'a port without TLS', { base_url => $mock->url =~ s/^http/https/r }, qr/wrong version number/ ],
	[ 'no file of authorities', { base_url => $secure{server}->url, ca_file => "$tls/missing.pem" },
		qr/^error setting certificate (file|verify locations)/ ],
	[ 'a broken file of authorities', { base_url => $secure{server}->url, ca_file => "$tls/ca.key" },
		qr/^error (setting|adding) certificate/ ]);
foreach my $case (@tls)
{
	my ($name, $options, $detail) = @$case;
	options(%$options);
	$mock->reset;
	is_error($session->query($email), $name, '08001', "find_email: $none", $detail, $check);
	is($mock->summary->{requests}, 0, 'nothing arrived');
}
options(base_url => $secure{server}->url, ca_file => "$tls/ca.pem");
is($session->value("SELECT sixtyfour_request('GET', '/_mock/summary')->'requests'"), 1, 'only the good one arrived');

# a server that takes the connection and says nothing
options(base_url => 'https://127.0.0.1:' . $silent->sockport, connect_timeout => '200ms');
$error = parts($session->query($email));
like(delete $error->{detail}, qr/^(SSL )?[Cc]onnection timed? ?out/, 'a handshake that never ends: reason');
is_deeply($error, { sqlstate => '08001', message => "find_email: $none", hint => $check }, 'a handshake that never ends');

# ---- what is not HTTP ----

foreach my $case (
	[ 'garbage',            "220 mail.example ESMTP ready\r\n" ],
	[ 'binary garbage',     "\x15\x03\x01\x00\x02\x02\x46" ],
	[ 'no status',          "HTTP/1.1 OK\r\n\r\n" ])
{
	my ($name, $bytes) = @$case;
	my $raw = SixtyfourTest::Raw->start($bytes);
	options(base_url => $raw->url);
	$error = parts($session->query($email));
	like(delete $error->{detail}, qr/^.+\.$/, "$name: reason");
	is_deeply($error, { sqlstate => '08006', message => "find_email: $lost", hint => $maybe }, $name);
	is(scalar(() = $raw->received =~ /^POST/mg), 1, 'asked once');
}
my $raw = SixtyfourTest::Raw->start("HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\n{}");
options(base_url => $raw->url);
is_error($session->query($email), 'an unknown status', '08P01', "find_email: $unreadable",
	'Its HTTP status is unknown. The answer (HTTP 999) was: {}', $maybe);
options(base_url => 'http://127.0.0.1:' . $secure{server}->port);
$error = parts($session->query($email));
is("$error->{sqlstate} $error->{hint}", "08006 $maybe", 'plain HTTP to a port with TLS');
options();
new_key();
works('and all is well again');

# ---- in transactions ----

$mock->reset;
$mock->rule({ status => 500, times => 1 });
$session->value('BEGIN');
$session->value('SAVEPOINT s');
is($session->query($email)->{error}{sqlstate}, '38000', 'an error in a subtransaction');
is($session->query('SELECT 1')->{error}{sqlstate}, '25P02', 'aborts it');
$session->value('ROLLBACK TO s');
works('after which the transaction goes on');
$session->value('COMMIT');
$mock->rule({ fault => 'nul', times => 1 });
is($session->value(qq(
	CREATE FUNCTION careful() RETURNS text LANGUAGE plpgsql AS \$\$
	BEGIN
		PERFORM sixtyfour_find_email('$lead');
	EXCEPTION WHEN protocol_violation THEN
		RETURN sqlstate || ' ' || sixtyfour_best_email(sixtyfour_find_email('$lead'));
	END \$\$;
	SELECT careful())), '08P01 jane.doe\@acme.example' =~ s/\\//r, 'an error that is caught');

# ---- bad input: a clear error, and nothing is sent ----

my $types = 'The types are: str int float bool list list[str] list[int] list[float] dict.';
my $field = 'A field is a description, or an object with "description" and "type".';
my $fact  = 'Give at least one thing that is known, such as a name, a company or a website.';
my $url   = 'It begins with https:// and has at most 2083 characters.';
my $tiers = 'It is one of: micro low medium high xhigh.';
my $path  = 'A path begins with "/" and has no segment "." or "..".';
my $signs = 'Percent-encode special characters; parameters go into the argument "query".';
my $modes = 'The methods are GET, POST, PATCH, PUT and DELETE.';
my $good  = qq('$lead', '{"a":"A"}');
my $judge = qq('$lead', '[{"criteria_name":"a","description":"b","weight":1}]');
my @input = (
	# subjects
	[ q(find_email('{}')), '"lead" must not be empty' ],
	[ q(find_email('{"name":"","company":null,"tags":[],"more":{}}')), '"lead" says nothing: all its values are empty', $fact ],
	[ q(find_email('[]')), '"lead" must be a JSON object' ],
	[ q(find_email('"Jane"')), '"lead" must be a JSON object' ],
	[ q(find_email('7')), '"lead" must be a JSON object' ],
	[ q(find_email('true')), '"lead" must be a JSON object' ],
	[ q(find_email('null')), '"lead" is required' ],
	[ q(find_phone('{}')), '"lead" must not be empty' ],
	[ q(find_phone('[{"name":"Jane"}]')), '"lead" must be a JSON object' ],
	[ q(enrich_lead('{"name":""}', '{"a":"A"}')), '"lead_info" says nothing: all its values are empty', $fact ],
	[ q(enrich_lead('[]', '{"a":"A"}')), '"lead_info" must be a JSON object' ],
	[ q(enrich_company('{}', '{"a":"A"}')), '"target_company" must not be empty' ],
	[ q(enrich_company('"Acme"', '{"a":"A"}')), '"target_company" must be a JSON object' ],
	[ q(qa_agent('{"name":null}', '[]')), '"data" says nothing: all its values are empty', $fact ],
	[ q(enrich_dataframe('', 'phone')), '"csv_data" must be a text that is not empty' ],
	[ q(enrich_dataframe('a', '')), '"enrichment_type" must be a text that is not empty' ],
	[ q(enrich_dataframe('a', NULL)), '"enrichment_type" is required' ],
	# whole bodies
	[ q(enrich_lead('[]')), 'the request must be a JSON object' ],
	[ q(enrich_lead('"x"')), 'the request must be a JSON object' ],
	[ q(enrich_lead('null')), 'the request must be a JSON object' ],
	[ q(enrich_lead('{}')), '"lead_info" is required' ],
	[ q(enrich_lead('{"lead_info":null,"struct":{"a":"A"}}')), '"lead_info" is required' ],
	[ qq(enrich_lead('{"lead_info":$lead}')), '"struct" is required' ],
	[ qq(enrich_company('{"target_company":$lead}')), '"struct" is required' ],
	[ q(enrich_company('{"struct":{"a":"A"}}')), '"target_company" is required' ],
	[ qq(qa_agent('{"data":$lead}')), '"qualification_criteria" is required' ],
	[ qq(enrich_lead('{"lead_info":$lead,"struct":{"a":"A"},"tier":"gold"}')), 'unknown value of "tier"', $tiers ],
	# struct
	[ qq(enrich_lead('$lead', NULL)), '"struct" is required' ],
	[ qq(enrich_lead('$lead', 'null')), '"struct" is required' ],
	[ qq(enrich_lead('$lead', '{}')), '"struct" must not be empty' ],
	[ qq(enrich_lead('$lead', '["a"]')), '"struct" must be a JSON object' ],
	[ qq(enrich_lead('$lead', '{"a":""}')), 'field "a" of "struct" has no description', $field ],
	[ qq(enrich_lead('$lead', '{"b":"B","a":1}')), 'field "a" of "struct" has no description', $field ],
	[ qq(enrich_lead('$lead', '{"a":null}')), 'field "a" of "struct" has no description', $field ],
	[ qq(enrich_lead('$lead', '{"a":["A"]}')), 'field "a" of "struct" has no description', $field ],
	[ qq(enrich_lead('$lead', '{"a":{}}')), 'field "a" of "struct" has no description', $field ],
	[ qq(enrich_lead('$lead', '{"a":{"type":"str"}}')), 'field "a" of "struct" has no description', $field ],
	[ qq(enrich_lead('$lead', '{"a":{"description":7,"type":"str"}}')), 'field "a" of "struct" has no description', $field ],
	[ qq(enrich_lead('$lead', '{"":"A"}')), '"struct" has a field without a name' ],
	(map { [ qq(enrich_lead('$lead', '{"a":{"description":"A","type":$_}}')), 'field "a" of "struct" has an unknown type', $types ] }
		  '"text"', '"STR"', '"list[bool]"', '"list[dict]"', '"str int"', '"list["', '""', '1', 'null', '["str"]'),
	[ qq(enrich_company('$lead', '{"a":"A"}', '{"b":{"description":"B","type":"date"}}')), 'field "b" of "lead_struct" has an unknown type', $types ],
	[ qq(enrich_company('$lead', '{"a":"A"}', '{}')), '"lead_struct" must not be empty' ],
	[ qq(qa_agent($judge, struct => '{"a":{"description":"A","type":"x"}}')), 'field "a" of "struct" has an unknown type', $types ],
	# texts, booleans, choices, counts
	[ qq(enrich_lead($good, '')), '"research_plan" must be a text that is not empty' ],
	[ qq(enrich_lead($good, options => '{"research_plan":5}')), '"research_plan" must be a text that is not empty' ],
	[ qq(enrich_company($good, people_focus_prompt => '')), '"people_focus_prompt" must be a text that is not empty' ],
	[ qq(enrich_company($good, options => '{"find_people":"yes"}')), '"find_people" must be true or false' ],
	[ qq(enrich_company($good, options => '{"full_org_chart":1}')), '"full_org_chart" must be true or false' ],
	[ qq(enrich_lead($good, options => '{"field_confidence":"true"}')), '"field_confidence" must be true or false' ],
	[ qq(enrich_lead($good, options => '{"tier":"LOW"}')), 'unknown value of "tier"', $tiers ],
	[ qq(enrich_lead($good, options => '{"tier":2}')), 'unknown value of "tier"', $tiers ],
	(map { [ qq(find_email('$lead', $_)), 'unknown value of "mode"', 'It is one of: PROFESSIONAL PERSONAL.' ] }
		  "'personal'", "''", "'PERSONAL '", "'BOTH'", "'PROFESSIONAL PERSONAL'"),
	[ qq(find_email('$lead', NULL, '{"mode":1}')), 'unknown value of "mode"', 'It is one of: PROFESSIONAL PERSONAL.' ],
	(map { [ qq(enrich_lead($good, options => '{"max_iterations":$_}')), '"max_iterations" must be a whole number of 1 or more' ] }
		  '0', '-1', '1.5', '"3"', 'true', '[1]'),
	[ qq(find_phone('$lead', '{"providers":"a"}')), '"providers" must be a JSON array' ],
	[ qq(find_phone('$lead', '{"providers":[]}')), '"providers" must not be empty' ],
	[ qq(find_phone('$lead', '{"providers":["a",1]}')), 'element 2 of "providers" must be a text' ],
	# webhooks
	(map { [ qq(find_email('$lead', options => jsonb_build_object('webhook_url', $_))), '"webhook_url" must be an HTTPS URL', $url ] }
		  "'http://me.test/'", "'https://'", "'me.test'", "''", '7', "'https://me.test/' || repeat('x', 2068)"),
	# options
	(map { [ qq(find_email('$lead', options => '$_')), '"options" must be a JSON object' ] } '[]', '"x"', '1', 'null', '[{"mode":"PERSONAL"}]'),
	[ qq(find_email('$lead', 'PERSONAL', '{"mode":"PERSONAL"}')), '"mode" is given both as an argument and in "options"' ],
	[ qq(find_email('$lead', options => '{"lead":$lead}')), '"lead" is given both as an argument and in "options"' ],
	[ qq(enrich_lead($good, options => '{"struct":{}}')), '"struct" is given both as an argument and in "options"' ],
	[ qq(enrich_company($good, find_people => false, options => '{"tier":"low","find_people":true}')), '"find_people" is given both as an argument and in "options"' ],
	# qa_agent
	(map { [ qq(qa_agent('$lead', '$_->[0]')), $_->[1] ] }
		  [ '{}', '"qualification_criteria" must be a JSON array' ],
		  [ '[]', '"qualification_criteria" must not be empty' ],
		  [ '["x"]', 'element 1 of "qualification_criteria" must be a JSON object' ],
		  [ '[{"criteria_name":"a","description":"b","weight":1},{"description":"b","weight":1}]', 'element 2 of "qualification_criteria" needs a text "criteria_name"' ],
		  [ '[{"criteria_name":"a","weight":1}]', 'element 1 of "qualification_criteria" needs a text "description"' ],
		  [ '[{"criteria_name":"a","description":"b"}]', 'element 1 of "qualification_criteria" needs a number "weight"' ],
		  [ '[{"criteria_name":"a","description":"b","weight":"1"}]', 'element 1 of "qualification_criteria" needs a number "weight"' ],
		  [ '[{"criteria_name":"a","description":"b","weight":1,"threshold":"x"}]', '"threshold" in element 1 of "qualification_criteria" must be a number' ]),
	(map { [ qq(qa_agent($judge, '$_->[0]')), $_->[1] ] }
		  [ '{}', '"references" must be a JSON array' ],
		  [ '"https://a.test"', '"references" must be a JSON array' ],
		  [ '[1]', 'element 1 of "references" must be a JSON object' ],
		  [ '[{"url":"https://a.test"},{"description":"x"}]', 'element 2 of "references" needs a text "url"' ],
		  [ '[{"url":"https://a.test","description":1}]', '"description" in element 1 of "references" must be a text' ]),
	# sixtyfour_request
	(map { [ "request('$_', '/x')", "unknown method \"$_\"", $modes ] } 'get', 'HEAD', '', 'GET '),
	(map { [ "request('GET', '$_')", "invalid path \"$_\"", $path ] } '', 'x', 'https:', '/..', '/a/../b', '/.', '/a/./b', '/a/..', '..'),
	(map { [ "request('GET', '$_')", "invalid path \"$_\"", $signs ] } '/a?b=1', '/a#b', '/a b', '/ü', '/a\b', "/a\r\nX-Evil: 1", '/{id}'),
	(map { [ "request('GET', '/x', '$_')", '"query" must be a JSON object' ] } '[]', '"a=1"', '1', 'null'),
	[ q(request('GET', '/x', '{"a":{"b":1}}')), 'query parameter "a" must be a text, a number, a boolean or an array of them' ],
	[ q(request('GET', '/x', '{"a":[1,[2]]}')), 'query parameter "a" must be a text, a number, a boolean or an array of them' ],
	[ q(request('GET', '/x', NULL, '{}')), 'a GET request has no body' ]);
$mock->reset;
foreach my $case (@input)
{
	my ($call, $message, $hint) = @$case;
	is_error($session->query("SELECT sixtyfour_$call"), "bad input: $call" =~ s/[^ -~]/?/gr, '22023', $message, '', $hint // '');
}
is_error($session->query(q(SELECT sixtyfour_find_email('{"name":"a\u0000b"}'))), 'bad input: \u0000', '22P05', 'unsupported Unicode escape sequence',
	'\u0000 cannot be converted to text.', '');
is($mock->summary->{requests}, 0, 'nothing was sent');
is($session->value(qq(SELECT sixtyfour_best_email(sixtyfour_find_email('$lead', options => jsonb_build_object('webhook_url', 'https://me.test/' || repeat('x', 2067)))))),
	'jane.doe@acme.example', 'the longest webhook_url passes');

# ---- looking back ----

# a request can be logged, at every level of detail, without the key
$session->value('SET sixtyfour.log_min_duration = 0');
$session->value('SET log_min_messages = debug5');
works('a logged request');
$session->value('RESET log_min_messages');
$session->value('RESET sixtyfour.log_min_duration');
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
ok($log =~ /LOG:  sixtyfour: find_email answered with HTTP status 200 after \d+\.\d\d\d ms/, 'log_min_duration logs requests');
is(join("\n", grep { /api_secret/ } split /\n/, $log), '', 'the key is not in the log');
is(join("\n", grep { /terminated by signal|PANIC|FATAL|WARNING/ } split /\n/, $log), '', 'nothing crashed or leaked');
is($session->value('SELECT pg_postmaster_start_time()'), $start, 'the server never restarted');

# proxies of the environment are none of the server's business
$session->close;
{
	local @ENV{qw(http_proxy HTTP_PROXY https_proxy all_proxy ALL_PROXY)} = ($refused) x 5;
	$node->restart;
}
$session = SixtyfourTest::Session->new($node);
works('proxies of the environment are ignored');

done_testing();
