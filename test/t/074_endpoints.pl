# The table of endpoints, the install script, and the service's OpenAPI document
# where it is at hand (SIXTYFOUR_OPENAPI): they agree.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use JSON::PP;
use Test::More;

use SixtyfourOperations;
use SixtyfourTest;

my $json = JSON::PP->new->canonical->utf8->allow_nonref;
my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('endpoints', $mock,
	route => 'auto', server => "requests_per_minute '0', assumed_cents '1'");
my $session = SixtyfourTest::Session->new($node);

# ---- the table and the install script ----

# What does not fit, a line each
my $faults = <<'SQL';
WITH f AS (
	SELECT oid, oid::regprocedure::text AS name, prosrc, pronargs, pronargdefaults, proargnames, proargtypes,
		provolatile, proparallel, procost, pg_get_function_result(oid) AS result, obj_description(oid) AS comment,
		CASE WHEN proname ~ '_bulk_async$' THEN 'bulk' WHEN proname ~ '_async$' THEN 'async' ELSE 'sync' END AS kind,
		coalesce(proargnames = '{request}', false) AS whole,
		CASE proname WHEN 'sixtyfour_start_search' THEN 'search' WHEN 'sixtyfour_start_workflow' THEN 'run_workflow'
			ELSE regexp_replace(proname, '^sixtyfour_|(_bulk)?_async$', '', 'g') END AS operation
	FROM pg_proc
	WHERE prolang = (SELECT oid FROM pg_language WHERE lanname = 'c') AND (prosrc ~ '^sixtyfour_(call|call_.*)$'
		OR prosrc IN ('sixtyfour_follow', 'sixtyfour_start', 'sixtyfour_pages', 'sixtyfour_bulk_async',
			'sixtyfour_search_download', 'sixtyfour_workflow_results'))),
e AS (
	SELECT *, cents IS DISTINCT FROM 0 AS paid FROM sixtyfour_endpoints()),
field AS (
	SELECT operation, split_part(u, ' ', 1) AS name, split_part(u, ' ', 2) AS type, u LIKE '% NOT NULL' AS required, place
	FROM e, unnest(fields) WITH ORDINALITY AS u (u, place)),
arg AS (
	SELECT f.oid, u.name, u.type::regtype::text AS type, place, place > pronargs - pronargdefaults AS has_default,
		u.name IN ('options', 'changes') AS bag, u.name IN ('priority', 'run_at', 'into_table') AS control
	FROM f, unnest(proargnames, proargtypes) WITH ORDINALITY AS u (name, type, place)),
-- what is asked, as a text by which twins are compared
asked AS (
	SELECT f.*, (SELECT coalesce(string_agg(format('%s %s%s', a.name, a.type, CASE WHEN has_default THEN ' DEFAULT' END), ', ' ORDER BY place), '')
			FROM arg a WHERE a.oid = f.oid AND NOT control AND a.name <> 'leads') AS asks,
		(SELECT string_agg(format('%s %s%s', a.name, a.type, CASE WHEN has_default THEN ' DEFAULT' END), ', ' ORDER BY place)
			FROM arg a WHERE a.oid = f.oid AND NOT control AND place > 1) AS asks_besides
	FROM f)
SELECT string_agg(fault, E'\n' ORDER BY fault COLLATE "C") FROM (
	SELECT format('%s: no row', f.name) AS fault FROM f WHERE NOT EXISTS (SELECT FROM e WHERE e.operation = f.operation)
	UNION ALL
	SELECT format('%s: no function', e.operation) FROM e
	WHERE NOT EXISTS (SELECT FROM f WHERE f.operation = e.operation AND kind = 'sync' AND NOT whole)
	UNION ALL
	SELECT format('%s: no function for its %s path', e.operation, path.kind)
	FROM e, (VALUES ('async'), ('bulk')) AS path (kind)
	WHERE (path.kind = 'async' AND paid OR path.kind = 'bulk' AND bulk_path IS NOT NULL)
		AND NOT EXISTS (SELECT FROM f WHERE f.operation = e.operation AND f.kind = path.kind AND NOT whole)
	UNION ALL
	SELECT format('%s: superfluous', f.name) FROM f JOIN e USING (operation)
	WHERE kind = 'async' AND NOT paid OR kind = 'bulk' AND bulk_path IS NULL
	UNION ALL
	SELECT format('%s: argument %s is no field', f.name, a.name)
	FROM f JOIN e USING (operation) JOIN arg a USING (oid) LEFT JOIN field ON field.operation = f.operation AND field.name = a.name
	WHERE field.name IS NULL AND NOT bag AND NOT (control AND kind = 'async') AND NOT (a.name = 'leads' AND kind = 'bulk') AND NOT whole
	UNION ALL
	SELECT format('%s: argument %s is %s instead of %s', f.name, a.name, a.type, field.type)
	FROM f JOIN arg a USING (oid) JOIN field ON field.operation = f.operation AND field.name = a.name
	WHERE a.type <> field.type
	UNION ALL
	SELECT format('%s: argument %s is %s instead of jsonb', f.name, a.name, a.type)
	FROM f JOIN arg a USING (oid) WHERE (bag OR whole OR a.name = 'leads') AND a.type <> 'jsonb'
	UNION ALL
	SELECT format('%s: argument %s %s', f.name, a.name, CASE WHEN has_default THEN 'is required' ELSE 'may be left out' END)
	FROM f JOIN arg a USING (oid) JOIN field ON field.operation = f.operation AND field.name = a.name
	WHERE has_default = required
	UNION ALL
	SELECT format('%s: no argument for %s', f.name, field.name)
	FROM f JOIN field USING (operation)
	WHERE required AND NOT whole AND NOT (kind = 'bulk' AND place = 1)
		AND NOT EXISTS (SELECT FROM arg a WHERE a.oid = f.oid AND a.name = field.name)
	UNION ALL
	SELECT format('%s: the subject is not the first argument', f.name)
	FROM f JOIN e USING (operation) JOIN field USING (operation) JOIN arg a USING (oid)
	WHERE field.place = 1 AND required AND a.name = field.name AND EXISTS (
		SELECT FROM arg b WHERE b.oid = f.oid AND b.place < a.place AND strpos(e.path, '{' || b.name || '}') = 0)
	UNION ALL
	SELECT format('%s: is not as it should be: %s %s %s', f.name, provolatile, proparallel, procost) FROM f
	WHERE provolatile <> 'v' OR proparallel <> CASE kind WHEN 'sync' THEN 'r' ELSE 'u' END OR kind = 'sync' AND procost < 1000
	UNION ALL
	SELECT format('%s: %s returns %s', f.name, prosrc, result) FROM f
	WHERE CASE kind WHEN 'async' THEN prosrc <> 'sixtyfour_call_async' OR result <> 'bigint'
		WHEN 'bulk' THEN prosrc <> 'sixtyfour_bulk_async' OR result <> 'bigint[]'
		ELSE result <> CASE prosrc WHEN 'sixtyfour_call' THEN 'jsonb' WHEN 'sixtyfour_call_void' THEN 'void'
			WHEN 'sixtyfour_start' THEN 'text' ELSE 'SETOF jsonb' END END
	UNION ALL
	SELECT format('%s: no priority and run_at', f.name) FROM f
	WHERE kind = 'async' AND NOT whole AND (SELECT string_agg(a.name || ' ' || a.type, ', ' ORDER BY place)
		FROM arg a WHERE a.oid = f.oid AND place > pronargs - 2 AND has_default)
		IS DISTINCT FROM 'priority integer, run_at timestamp with time zone'
	UNION ALL
	SELECT format('%s: asks %s, its twin %s', f.name, f.asks, twin.asks)
	FROM asked f JOIN asked twin USING (operation)
	WHERE f.kind = 'async' AND twin.kind = 'sync' AND f.whole = twin.whole AND f.asks <> twin.asks
	UNION ALL
	SELECT format('%s: asks %s, its twin %s', f.name, f.asks, twin.asks_besides)
	FROM asked f JOIN asked twin USING (operation)
	WHERE f.kind = 'bulk' AND twin.kind = 'sync' AND NOT twin.whole AND f.asks <> twin.asks_besides
	UNION ALL
	SELECT format('%s: no twin', f.name) FROM f
	WHERE whole AND NOT EXISTS (SELECT FROM f twin WHERE twin.operation = f.operation AND twin.whole AND twin.kind <> f.kind)
	UNION ALL
	SELECT format('%s: no comment that begins with its endpoint', f.name) FROM f JOIN e USING (operation)
	WHERE coalesce(comment, '') = '' OR kind = 'sync' AND NOT starts_with(comment, method || ' ' || split_part(path, '?', 1))
) AS x
SQL

sub faults { return $session->value($faults) // ''; }

is(faults(), '', 'table and install script agree');

# A change that is undone again; what is found
sub found
{
	my ($sql) = @_;
	$session->value("BEGIN; $sql");
	my $found = faults();
	$session->value('ROLLBACK');
	return $found;
}

my $library = $session->value("SELECT DISTINCT probin FROM pg_proc WHERE proname = 'sixtyfour_usage'");
my $c = "'$library', 'sixtyfour_call' LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000";
my %changes = (
	'ALTER FUNCTION sixtyfour_usage(integer) COST 1'         => 'sixtyfour_usage(integer): is not as it should be: v r 1',
	'ALTER FUNCTION sixtyfour_usage(integer) PARALLEL SAFE'  => 'sixtyfour_usage(integer): is not as it should be: v s 1000',
	'ALTER FUNCTION sixtyfour_usage(integer) STABLE'         => 'sixtyfour_usage(integer): is not as it should be: s r 1000',
	'ALTER FUNCTION sixtyfour_usage(integer) RENAME TO sixtyfour_use' => "sixtyfour_use(integer): no row\nusage: no function",
	'COMMENT ON FUNCTION sixtyfour_usage(integer) IS NULL'   => 'sixtyfour_usage(integer): no comment that begins with its endpoint',
	'ALTER FUNCTION sixtyfour_get_linkedin_async(text, boolean, jsonb, integer, timestamptz) RENAME TO sixtyfour_get_async'
	  => "get_linkedin: no function for its async path\nsixtyfour_get_async(text,boolean,jsonb,integer,timestamp with time zone): no row",
	"CREATE FUNCTION sixtyfour_usage(text, b text) RETURNS text AS $c" =>
	  "sixtyfour_usage(text,text): argument  is no field\nsixtyfour_usage(text,text): argument b is no field\n"
	  . "sixtyfour_usage(text,text): no comment that begins with its endpoint\nsixtyfour_usage(text,text): sixtyfour_call returns text",
	"CREATE FUNCTION sixtyfour_job_status(task_id integer DEFAULT 1) RETURNS jsonb AS $c; COMMENT ON FUNCTION sixtyfour_job_status(integer) IS 'GET /job-status/{task_id}'" =>
	  "sixtyfour_job_status(integer): argument task_id is integer instead of text\nsixtyfour_job_status(integer): argument task_id is required",
	"CREATE FUNCTION sixtyfour_filter_values(mode text, field text) RETURNS jsonb AS $c; COMMENT ON FUNCTION sixtyfour_filter_values(text, text) IS 'POST /search/filter-field-values'" =>
	  "sixtyfour_filter_values(text,text): argument mode may be left out\nsixtyfour_filter_values(text,text): the subject is not the first argument",
);
is(found($_), $changes{$_}, "what is found after $_") foreach sort keys %changes;

# ---- every function with every argument, against the OpenAPI document ----

my $document = $ENV{SIXTYFOUR_OPENAPI} // '';
my %known;

$mock->settings({ quirks => 'none', found => 'all', task_seconds => 0, search_rows => 12, search_limit => 100 });
$known{task} = $session->value(q(SELECT sixtyfour_request('POST', '/find-email-async', body => '{"lead":{"name":"Jane Doe"}}')->>'task_id'));

# Make a call; undef, or why it failed
sub make
{
	my ($call) = @_;
	return make_while_it_runs($call) if $call->{name} eq 'cancel_workflow' && !$known{running};
	my $reply = $session->query('SELECT x FROM ' . SixtyfourOperations::function($call, '', \%known) . ' x');
	return "$reply->{error}{sqlstate}: $reply->{error}{message}: $reply->{error}{detail}" if $reply->{error};
	my $value = $reply->{rows}[0][0];
	foreach my $name (keys %{ $call->{keep} // {} })
	{
		my $x = $call->{started} ? "'$value'::text" : "'" . ($value =~ s/'/''/gr) . "'::jsonb";
		$known{$name} = $session->value("SELECT $call->{keep}{$name} FROM (SELECT $x AS x) v");
	}
	return;
}

my @calls = SixtyfourOperations::calls();

# The same for what needs a run that has not ended
sub make_while_it_runs
{
	my ($call) = @_;
	my ($start) = grep { $_->{name} eq 'start_workflow' } @calls;
	$known{running} = 1;
	$mock->settings({ task_seconds => undef });
	my $failed = make($start) // make($call);
	$mock->settings({ task_seconds => 0 });
	delete $known{running};
	return $failed;
}

my @done;
foreach my $route ('direct', 'auto')
{
	$session->value("SET sixtyfour.route = $route; SET sixtyfour.cache_ttl = 0");
	is(make($_), undef, "$_->{name}, $route: $_->{path}") foreach @calls;
	push @done, map { $_->{name} } @calls;
}
is(make($_), undef, 'a workflow again') foreach grep { $_->{name} eq 'create_workflow' } @calls;
my @jobs = map { $session->value('SELECT ' . SixtyfourOperations::function($_, '_async', \%known)) }
  grep { !$_->{free} && !$_->{started} } @calls;
push @jobs, map { $session->value("SELECT unnest(sixtyfour_${_}_bulk_async(jsonb_agg(jsonb_build_object('name', 'L ' || i, 'email', i || '\@x.test', 'phone', '+' || i)),"
	  . " options => '{\"providers\":[\"a\"]}')) FROM generate_series(1, 12) i") } qw(find_phone reverse_email reverse_phone);
push @jobs, $session->value("SELECT unnest(sixtyfour_find_email_bulk_async(jsonb_agg(jsonb_build_object('name', 'L ' || i)),"
	  . " mode => 'PERSONAL', options => '{\"verify_emails\":true}')) FROM generate_series(1, 12) i");
$session->value("SELECT sixtyfour_wait_all('{" . join(',', @jobs) . "}', '100 s')");

is($session->value("SELECT string_agg(DISTINCT operation || ': ' || message, ' ') FROM sixtyfour.jobs
	WHERE state <> 'succeeded' AND id = ANY ('{" . join(',', @jobs) . "}')"), undef, 'all jobs succeed');

is($session->value("SELECT string_agg(DISTINCT operation, ',') FROM sixtyfour_endpoints()
	WHERE operation <> ALL ('{" . join(',', map { s/^start_//r } @done) . "}') AND operation <> 'run_workflow'"), undef, 'every operation was asked for');
my $paths = $mock->summary->{by_path};
my $asked = join ',', map { qq("$_") } keys %$paths;
is($session->value("SELECT string_agg(v, ' ') FROM sixtyfour_endpoints(),
	LATERAL (VALUES (method || ' ' || async_path), (method || ' ' || bulk_path)) x (v) WHERE v <> ALL ('{$asked}')"), undef, 'and so was every path of the worker');

# the paths that the service may have instead
$mock->settings({ workflow_routes => 'live' });
$session = SixtyfourTest::Session->new($node);
is(make($_), undef, "$_->{name} where the service has other paths")
  foreach grep { $_->{name} =~ /^(create|update|delete)_workflow$/ } @calls;

# Compare with the document; what openapi.py says
sub compare
{
	my ($given) = @_;
	my ($said, $failed) = ('', '');
	IPC::Run::run([ $ENV{PYTHON} // '/usr/bin/python3', 'test/mock/openapi.py', $document ],
		'<', \$json->encode($given), '>', \$said, '2>', \$failed);
	return $failed . $said =~ s/^note:.*\n//mgr;
}

SKIP:
{
	skip 'no OpenAPI document (SIXTYFOUR_OPENAPI)', 3 unless -r $document;
	my @sent = @{ $mock->ledger };
	cmp_ok(scalar @sent, '>', 2 * @calls, 'many requests');
	my $table = $json->decode($session->value('SELECT json_agg(e) FROM sixtyfour_endpoints() e'));
	is(compare({ requests => \@sent, endpoints => $table }), "0 faults\n", 'no request and no endpoint is unknown to the OpenAPI document');
	my ($wrong) = grep { $_->{path} eq '/search/query' } @sent;
	$wrong->{body}{wrong} = 1;
	is(compare({ requests => [$wrong] }), "fault: POST /search/query (request $wrong->{seq}): body: wrong is not known\n1 faults\n",
		'and one that is would be found');
}

done_testing();
