/* sixtyfour--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION sixtyfour" to load this file. \quit

-- Names in the bodies of functions and views are looked up now: let nobody's
-- objects stand in for the system's.
SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE FUNCTION @extschema@.sixtyfour_warn_preload() RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
SELECT @extschema@.sixtyfour_warn_preload();
DROP FUNCTION @extschema@.sixtyfour_warn_preload();

--
-- Account
--

CREATE FUNCTION @extschema@.sixtyfour_fdw_validator(options text[], catalog oid) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_fdw_validator(text[], oid) IS
'checks the options of servers and user mappings of foreign-data wrapper sixtyfour';

CREATE FOREIGN DATA WRAPPER sixtyfour VALIDATOR @extschema@.sixtyfour_fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER sixtyfour IS
'accounts at the Sixtyfour service: a server holds limits, a user mapping the API key, USAGE is the right to spend';

--
-- Synchronous calls.  Argument names are those of the service; NULL for the
-- first argument returns NULL without a call.
--

CREATE FUNCTION @extschema@.sixtyfour_enrich_lead(lead_info jsonb, struct jsonb,
	research_plan text DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_lead(jsonb, jsonb, text, jsonb) IS
'POST /enrich-lead: research a person for the fields of struct; returns {structured_data, notes, references, confidence_score (0-10)}; takes minutes, costs up to several dollars';

CREATE FUNCTION @extschema@.sixtyfour_enrich_lead(request jsonb)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_lead(jsonb) IS
'POST /enrich-lead with the whole request body: {lead_info, struct, ...}';

CREATE FUNCTION @extschema@.sixtyfour_enrich_company(target_company jsonb, struct jsonb,
	lead_struct jsonb DEFAULT NULL, find_people boolean DEFAULT NULL,
	research_plan text DEFAULT NULL, people_focus_prompt text DEFAULT NULL,
	options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_company(jsonb, jsonb, jsonb, boolean, text, text, jsonb) IS
'POST /enrich-company: research a company for the fields of struct, and its people; returns {structured_data (with leads), notes, references, confidence_score (0-10)}; takes minutes, costs up to several dollars';

CREATE FUNCTION @extschema@.sixtyfour_enrich_company(request jsonb)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_company(jsonb) IS
'POST /enrich-company with the whole request body: {target_company, struct, ...}';

CREATE FUNCTION @extschema@.sixtyfour_find_email(lead jsonb, mode text DEFAULT NULL,
	options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_find_email(jsonb, text, jsonb) IS
'POST /find-email: a person''s email addresses; mode is PROFESSIONAL (5 cents) or PERSONAL (20 cents); read the answer with sixtyfour_emails() or sixtyfour_best_email(); takes seconds';

CREATE FUNCTION @extschema@.sixtyfour_find_phone(lead jsonb, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_find_phone(jsonb, jsonb) IS
'POST /find-phone: a person''s phone numbers (30 cents); read the answer with sixtyfour_phones() or sixtyfour_best_phone(); takes seconds';

CREATE FUNCTION @extschema@.sixtyfour_qa_agent(data jsonb, qualification_criteria jsonb,
	"references" jsonb DEFAULT NULL, struct jsonb DEFAULT NULL,
	options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_qa_agent(jsonb, jsonb, jsonb, jsonb, jsonb) IS
'POST /qa-agent: judge data by criteria [{criteria_name, description, weight, threshold}]; returns {structured_data, notes}; takes minutes';

CREATE FUNCTION @extschema@.sixtyfour_qa_agent(request jsonb)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_qa_agent(jsonb) IS
'POST /qa-agent with the whole request body: {data, qualification_criteria, ...}';

CREATE FUNCTION @extschema@.sixtyfour_enrich_dataframe(csv_data text, enrichment_type text)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_dataframe(text, text) IS
'POST /enrich-dataframe: enrich the rows of a CSV text, such as with enrichment_type phone; returns the service''s answer, CSV as a JSON string';

CREATE FUNCTION @extschema@.sixtyfour_job_status(task_id text)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_job_status(text) IS
'GET /job-status/{task_id}: the service''s own answer about a task: {status, result, ...}; free; 02000 if the task is unknown or expired';

CREATE FUNCTION @extschema@.sixtyfour_request(method text, path text,
	query jsonb DEFAULT NULL, body jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_request(text, text, jsonb, jsonb) IS
'any request to the service: method GET, POST, PATCH, PUT or DELETE, path from "/", query parameters as an object, JSON body; returns the JSON answer, CSV as a JSON string, NULL for none; what is not GET may be billed and is sent only once, unless the service knows it again (/workflows/run, /bulk-intelligence); paths below /webhooks, /oauth, /me and /chat are for the owner of the server';

CREATE FUNCTION @extschema@.sixtyfour_endpoints(OUT operation text, OUT method text,
	OUT path text, OUT async_path text, OUT bulk_path text, OUT cents integer,
	OUT fields text[])
	RETURNS SETOF record AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 40;
COMMENT ON FUNCTION @extschema@.sixtyfour_endpoints() IS
'the endpoints of the service that are known, with the price of one call in cents (NULL: not known), and the fields of the path and of the body, the subject first';

--
-- Reading answers
--

CREATE FUNCTION @extschema@.sixtyfour_emails(answer jsonb)
	RETURNS TABLE (address text, status text, kind text)
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 3
BEGIN ATOMIC
	-- tuples [address, status, kind] of 1 to 3 elements, as a list or alone;
	-- texts and objects are understood too
	SELECT e.address, e.status, coalesce(e.kind, source.kind)
	FROM (VALUES (1, answer -> 'email', NULL),
				 (2, answer -> 'personal_email', 'PERSONAL'))
		 AS source (place, value, kind),
		 LATERAL jsonb_array_elements(
			CASE
			WHEN jsonb_typeof(value) IN ('string', 'object')
				THEN jsonb_build_array(value)
			WHEN jsonb_typeof(value) = 'array'
				AND jsonb_typeof(value -> 0) = 'string'
				AND jsonb_typeof(value -> 1) = 'string'
				AND position('@' IN value ->> 1) = 0
				THEN jsonb_build_array(value)
			WHEN jsonb_typeof(value) = 'array' THEN value
			ELSE '[]'
			END) WITH ORDINALITY AS item (value, place),
		 LATERAL (SELECT
			btrim(CASE jsonb_typeof(item.value)
				  WHEN 'array' THEN
					CASE jsonb_typeof(item.value -> 0) WHEN 'string' THEN item.value ->> 0 END
				  WHEN 'object' THEN coalesce(item.value ->> 'address', item.value ->> 'email')
				  WHEN 'string' THEN item.value #>> '{}'
				  END),
			upper(CASE jsonb_typeof(item.value)
				  WHEN 'array' THEN item.value ->> 1
				  WHEN 'object' THEN item.value ->> 'status'
				  END),
			upper(CASE jsonb_typeof(item.value)
				  WHEN 'array' THEN item.value ->> 2
				  WHEN 'object' THEN coalesce(item.value ->> 'kind', item.value ->> 'type')
				  END)) AS e (address, status, kind)
	WHERE e.address <> ''
	ORDER BY source.place, item.place;
END;
COMMENT ON FUNCTION @extschema@.sixtyfour_emails(jsonb) IS
'the email addresses in an answer of find-email, in the service''s order; status is OK, UNKNOWN, ..., kind COMPANY or PERSONAL; no rows if none was found';

CREATE FUNCTION @extschema@.sixtyfour_best_email(answer jsonb) RETURNS text
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT address
	FROM @extschema@.sixtyfour_emails(answer) WITH ORDINALITY AS e (address, status, kind, place)
	WHERE status IS NULL OR status NOT IN ('INVALID', 'NOT_FOUND')
	ORDER BY CASE status WHEN 'OK' THEN 1 WHEN 'CATCH_ALL' THEN 2
			 WHEN 'RISKY' THEN 4 ELSE 3 END, place
	LIMIT 1;
END;
COMMENT ON FUNCTION @extschema@.sixtyfour_best_email(jsonb) IS
'the most reliable email address in an answer of find-email, NULL if there is none: OK before CATCH_ALL before UNKNOWN before RISKY, then the service''s order';

CREATE FUNCTION @extschema@.sixtyfour_phones(answer jsonb)
	RETURNS TABLE (number text, region text)
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 2
BEGIN ATOMIC
	-- one text, or a list of {number, region}; '' is none
	SELECT p.number, p.region
	FROM jsonb_array_elements(
			CASE jsonb_typeof(answer -> 'phone')
			WHEN 'array' THEN answer -> 'phone'
			ELSE jsonb_build_array(answer -> 'phone')
			END) WITH ORDINALITY AS item (value, place),
		 LATERAL (SELECT
			btrim(CASE jsonb_typeof(item.value)
				  WHEN 'object' THEN item.value ->> 'number'
				  WHEN 'string' THEN item.value #>> '{}'
				  END),
			CASE jsonb_typeof(item.value)
			WHEN 'object' THEN item.value ->> 'region'
			END) AS p (number, region)
	WHERE p.number <> ''
	ORDER BY item.place;
END;
COMMENT ON FUNCTION @extschema@.sixtyfour_phones(jsonb) IS
'the phone numbers in an answer of find-phone, in the service''s order; region is a country code or NULL; no rows if none was found';

CREATE FUNCTION @extschema@.sixtyfour_best_phone(answer jsonb) RETURNS text
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT number
	FROM @extschema@.sixtyfour_phones(answer) WITH ORDINALITY AS p (number, region, place)
	ORDER BY place
	LIMIT 1;
END;
COMMENT ON FUNCTION @extschema@.sixtyfour_best_phone(jsonb) IS
'the first phone number in an answer of find-phone, NULL if there is none';

CREATE FUNCTION @extschema@.sixtyfour_leads(answer jsonb) RETURNS SETOF jsonb
	LANGUAGE SQL IMMUTABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
	-- a score is a number, or the same as text
	SELECT lead
	FROM jsonb_array_elements(
			CASE jsonb_typeof(answer -> 'structured_data' -> 'leads')
			WHEN 'array' THEN answer -> 'structured_data' -> 'leads'
			ELSE '[]'
			END) WITH ORDINALITY AS l (lead, place)
	WHERE jsonb_typeof(lead) = 'object'
	ORDER BY CASE
			 WHEN jsonb_typeof(lead -> 'score') IN ('number', 'string')
			 AND btrim(lead ->> 'score') ~ '^[0-9]{1,9}(\.[0-9]{1,9})?$'
			 THEN btrim(lead ->> 'score')::numeric
			 END DESC NULLS LAST, place;
END;
COMMENT ON FUNCTION @extschema@.sixtyfour_leads(jsonb) IS
'the people in an answer of enrich-company or company-intelligence, one object per row, best score (0-10) first';

--
-- CSV texts, and rows of a table's type
--

CREATE FUNCTION @extschema@.sixtyfour_csv(query text) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_csv(text) IS
'the rows of a SELECT as a CSV text with a header, such as enrich_dataframe takes; NULL is an empty field, an empty text ""';

CREATE FUNCTION @extschema@.sixtyfour_csv_rows(csv text) RETURNS SETOF jsonb
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE COST 1000 ROWS 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_csv_rows(text) IS
'the records of a CSV text as objects of texts, by the names in its header; an empty field is null, "" an empty text; the second column "a" is called "a_2"';

CREATE FUNCTION @extschema@.sixtyfour_csv_rows(csv bytea) RETURNS SETOF jsonb
	AS 'MODULE_PATHNAME', 'sixtyfour_csv_rows_of_bytes'
	LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE COST 1000 ROWS 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_csv_rows(bytea) IS
'sixtyfour_csv_rows() of a CSV text''s bytes in UTF-8, such as pg_read_binary_file() returns';

CREATE FUNCTION @extschema@.sixtyfour_dataframe_rows(answer jsonb) RETURNS SETOF jsonb
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE COST 1000 ROWS 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_dataframe_rows(jsonb) IS
'the rows in an answer of enrich_dataframe: of its CSV text as sixtyfour_csv_rows() reads it, or of its list of objects';

CREATE FUNCTION @extschema@.sixtyfour_struct(target regclass, columns text[] DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE COST 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_struct(regclass, text[]) IS
'a struct for enrich_lead and others that asks for these columns of a table, described by their comments; without names for all that are neither key nor generated';

CREATE FUNCTION @extschema@.sixtyfour_populate(base anyelement, answer jsonb) RETURNS anyelement
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE COST 10;
COMMENT ON FUNCTION @extschema@.sixtyfour_populate(anyelement, jsonb) IS
'the row base with what an answer found: jsonb_populate_record() for its structured_data, or all of it, with numbers and lists that came as text, and empty texts for what was not found';

--
-- The ledgers: what was asked for, what was sent, what came back.
--
-- Only the library writes them, as the extension's owner.  Everybody reads
-- through the views below.  Words: a job is one wish, a call one billable
-- submission that carries 1 to 100 items, each the wish of one or more jobs;
-- a result is a paid answer.
--

CREATE SCHEMA sixtyfour;
GRANT USAGE ON SCHEMA sixtyfour TO PUBLIC;
COMMENT ON SCHEMA sixtyfour IS 'ledgers and views of extension sixtyfour';

-- A row for each home, made when it is first needed.  Not in dumps: it is of no
-- use to another database, whose own worker may be there before the dump's data.
CREATE TABLE sixtyfour.state (
	home_system bigint,					-- as in job
	home_database oid,
	epoch bigint NOT NULL DEFAULT 0,	-- of the last worker that started
	paused boolean NOT NULL DEFAULT false,
	paused_reason text,					-- NULL: sixtyfour_pause()
	host text,							-- what the worker runs under (home.c):
	directory text,						-- the rest is NULL before the first one
	boot text,
	device bigint,
	inode bigint,
	born timestamptz,
	timeline bigint,
	pruned_at timestamptz,				-- the last time when all was looked at
	PRIMARY KEY (home_system, home_database)
);

CREATE TABLE sixtyfour.enrichment (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name text NOT NULL UNIQUE,
	target regclass NOT NULL,
	owner regrole NOT NULL,				-- who writes the answers
	server name NOT NULL,
	operation text NOT NULL,
	input jsonb NOT NULL,				-- as declared
	output jsonb NOT NULL,				-- as declared
	input_attnums jsonb NOT NULL,		-- {"column": attnum}
	output_attnums jsonb NOT NULL,
	struct jsonb,
	options jsonb,
	condition text,
	on_insert boolean NOT NULL,
	on_update boolean NOT NULL,
	if_unchanged boolean NOT NULL,
	refresh_after interval,
	payer text NOT NULL CHECK (payer IN ('inserter', 'owner')),
	created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sixtyfour.job (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	state text NOT NULL DEFAULT 'queued' CHECK (state IN
		('queued', 'sending', 'running', 'uncertain', 'succeeded', 'failed', 'cancelled')),
	delivery text NOT NULL DEFAULT 'none' CHECK (delivery IN
		('none', 'pending', 'applied', 'unapplied')),
	priority integer NOT NULL,
	run_at timestamptz NOT NULL,
	operation text NOT NULL,
	body jsonb NOT NULL,				-- checked, without null members
	fingerprint uuid NOT NULL,			-- of operation and body
	server name NOT NULL,
	owner regrole NOT NULL,				-- whose wish
	payer regrole NOT NULL,				-- whose USAGE and key
	home_system bigint NOT NULL,		-- digest of system identifier and schema (home.c)
	home_database oid NOT NULL,
	enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	cache_ttl integer NOT NULL DEFAULT 86400,	-- age of a stored result that will do, s
	attempts integer NOT NULL DEFAULT 0,	-- submissions that came to nothing
	resubmits integer NOT NULL DEFAULT 0,	-- of them, those that may have been billed
	shared boolean NOT NULL DEFAULT false,	-- another's call or a stored result answers it
	call bigint,						-- that carries it
	item smallint,						-- its place there
	result bigint,
	sqlstate text,						-- of a failed one, or of the last attempt
	message text,
	detail text,
	hint text,
	finished_at timestamptz,
	enrichment integer,					-- that it belongs to
	row_key jsonb,						-- {"key column": value} of its row
	row_input jsonb,					-- {"input column": value} as they were
	into_table regclass					-- where the rows go that its answer speaks of
)
-- Each job is updated some four times, in each of which a state changes that
-- stands in indexes: room on the page lets old versions go with the next one.
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX job_claim ON sixtyfour.job
	(home_system, home_database, server, payer, priority, run_at, id) WHERE state = 'queued';
CREATE INDEX job_open ON sixtyfour.job (call) WHERE state IN ('sending', 'running', 'uncertain');
CREATE INDEX job_call ON sixtyfour.job (call) WHERE call IS NOT NULL;
CREATE INDEX job_delivery ON sixtyfour.job (enrichment, id) WHERE delivery = 'pending';
CREATE INDEX job_suspect ON sixtyfour.job (enrichment)
	WHERE delivery = 'pending' AND sqlstate = '57014';
CREATE INDEX job_unapplied ON sixtyfour.job (result) WHERE delivery = 'unapplied';
CREATE INDEX job_fingerprint ON sixtyfour.job (fingerprint) WHERE state = 'queued';
-- A hash, as a key may be too long for an index, and takes long to compare.
CREATE INDEX job_row ON sixtyfour.job (enrichment, jsonb_hash_extended(row_key, 0), id)
	WHERE enrichment IS NOT NULL;

CREATE TABLE sixtyfour.call (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	uuid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
	state text NOT NULL DEFAULT 'sending' CHECK (state IN
		('sending', 'accepted', 'uncertain', 'done', 'failed', 'expired', 'rejected', 'abandoned')),
	operation text NOT NULL,
	items integer NOT NULL,
	server name NOT NULL,
	payer regrole NOT NULL,
	account uuid NOT NULL,				-- hash of base URL and key
	home_system bigint NOT NULL,
	home_database oid NOT NULL,
	epoch bigint NOT NULL,				-- of the worker that has it
	task_id text,
	expected_cents integer NOT NULL,
	cents integer,						-- that the service says it cost
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	accepted_at timestamptz,
	retry_at timestamptz,				-- of a rejected one whose jobs were queued again
	finished_at timestamptz,
	sqlstate text,
	message text,
	detail text,
	hint text,
	raw text							-- an answer that could not be read
);
CREATE INDEX call_open ON sixtyfour.call (id)
	WHERE state IN ('sending', 'accepted', 'uncertain', 'expired');
CREATE INDEX call_rejected ON sixtyfour.call (id) WHERE state = 'rejected';
CREATE INDEX call_task ON sixtyfour.call USING hash (task_id) WHERE task_id IS NOT NULL;

-- Tasks that a person or a webhook says to be those of calls.  Sessions add to
-- it and only the worker changes it, so that nobody holds a call's row; nor does
-- anybody wait for who names the same one, as the key is a mere number.
CREATE TABLE sixtyfour.candidate (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	call bigint NOT NULL,
	task_id text NOT NULL,
	epoch bigint NOT NULL DEFAULT 0		-- of the worker that asks about it
);
-- A publication FOR ALL TABLES refuses changes of a table without a key.
ALTER TABLE sixtyfour.candidate REPLICA IDENTITY FULL;

-- Same question, one call: only the worker writes here, so that nobody's
-- transaction waits for another's because of this index.
CREATE TABLE sixtyfour.call_item (
	call bigint NOT NULL,
	item smallint NOT NULL,
	account uuid NOT NULL,
	fingerprint uuid NOT NULL,
	open boolean NOT NULL DEFAULT true,	-- the call is sending, accepted, uncertain or expired
	PRIMARY KEY (call, item)
);
CREATE UNIQUE INDEX call_item_open ON sixtyfour.call_item (account, fingerprint) WHERE open;

-- Whom the items are about: to match a bulk answer by, and to find what is to
-- be forgotten when its jobs are gone.  Apart from call_item, so that
-- sixtyfour_forget() never keeps the worker from closing a call.
CREATE TABLE sixtyfour.call_subject (
	call bigint NOT NULL,
	item smallint NOT NULL,
	subject jsonb,						-- an object, or an array of them; NULL: neither
	PRIMARY KEY (call, item)
);

-- Items of open calls whose answer, when it comes, is not to be kept.
CREATE TABLE sixtyfour.forgotten (
	call bigint NOT NULL,
	item smallint NOT NULL,
	PRIMARY KEY (call, item)
);

CREATE TABLE sixtyfour.result (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	call bigint NOT NULL,
	item smallint NOT NULL,
	account uuid NOT NULL,
	fingerprint uuid NOT NULL,
	operation text NOT NULL,
	answer jsonb NOT NULL,
	cents integer,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	UNIQUE (call, item)
);
CREATE INDEX result_question ON sixtyfour.result (fingerprint, account, created_at);

COMMENT ON TABLE sixtyfour.state IS
'what the worker keeps about this database, and where it ran last';
COMMENT ON TABLE sixtyfour.enrichment IS
'declared enrichments';
COMMENT ON TABLE sixtyfour.job IS
'ledger: one row per wish; read it through the view sixtyfour.jobs';
COMMENT ON TABLE sixtyfour.call IS
'ledger: one row per billable submission; read it through the view sixtyfour.calls';
COMMENT ON TABLE sixtyfour.call_item IS
'ledger: the questions of each call';
COMMENT ON TABLE sixtyfour.call_subject IS
'ledger: the people and companies that each call is about';
COMMENT ON TABLE sixtyfour.forgotten IS
'ledger: the questions of open calls whose answers are not to be kept';
COMMENT ON TABLE sixtyfour.candidate IS
'ledger: tasks that are said to be those of uncertain calls, and that the service is asked about';
COMMENT ON TABLE sixtyfour.result IS
'ledger: paid answers; read it through the view sixtyfour.results';
COMMENT ON SEQUENCE sixtyfour.enrichment_id_seq IS
'numbers the rows of sixtyfour.enrichment';
COMMENT ON SEQUENCE sixtyfour.job_id_seq IS
'numbers the rows of sixtyfour.job';
COMMENT ON SEQUENCE sixtyfour.call_id_seq IS
'numbers the rows of sixtyfour.call';
COMMENT ON SEQUENCE sixtyfour.candidate_id_seq IS
'numbers the rows of sixtyfour.candidate';
COMMENT ON SEQUENCE sixtyfour.result_id_seq IS
'numbers the rows of sixtyfour.result';

SELECT pg_catalog.pg_extension_config_dump('sixtyfour.enrichment', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.enrichment_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.job', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.call', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.call_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.call_item', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.candidate', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.candidate_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.call_subject', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.forgotten', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.result', '');
SELECT pg_catalog.pg_extension_config_dump('sixtyfour.result_id_seq', '');

--
-- Asynchronous: a job.  The functions return its id, and cost one insert;
-- nothing is sent before the transaction commits.  Smaller priorities go first.
--

CREATE FUNCTION @extschema@.sixtyfour_enrich_lead_async(lead_info jsonb, struct jsonb,
	research_plan text DEFAULT NULL, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_lead_async(jsonb, jsonb, text, jsonb, integer, timestamptz) IS
'sixtyfour_enrich_lead() as a job, through POST /enrich-lead-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_enrich_lead_async(request jsonb)
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_lead_async(jsonb) IS
'sixtyfour_enrich_lead(request) as a job; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_enrich_company_async(target_company jsonb, struct jsonb,
	lead_struct jsonb DEFAULT NULL, find_people boolean DEFAULT NULL,
	research_plan text DEFAULT NULL, people_focus_prompt text DEFAULT NULL,
	options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_company_async(jsonb, jsonb, jsonb, boolean, text, text, jsonb, integer, timestamptz) IS
'sixtyfour_enrich_company() as a job, through POST /enrich-company-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_enrich_company_async(request jsonb)
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_company_async(jsonb) IS
'sixtyfour_enrich_company(request) as a job; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_find_email_async(lead jsonb, mode text DEFAULT NULL,
	options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_find_email_async(jsonb, text, jsonb, integer, timestamptz) IS
'sixtyfour_find_email() as a job, through POST /find-email-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_find_phone_async(lead jsonb, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_find_phone_async(jsonb, jsonb, integer, timestamptz) IS
'sixtyfour_find_phone() as a job, through POST /find-phone-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_qa_agent_async(data jsonb, qualification_criteria jsonb,
	"references" jsonb DEFAULT NULL, struct jsonb DEFAULT NULL,
	options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_qa_agent_async(jsonb, jsonb, jsonb, jsonb, jsonb, integer, timestamptz) IS
'sixtyfour_qa_agent() as a job, through POST /qa-agent-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_qa_agent_async(request jsonb)
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_qa_agent_async(jsonb) IS
'sixtyfour_qa_agent(request) as a job; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_enrich_dataframe_async(csv_data text, enrichment_type text,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_dataframe_async(text, text, integer, timestamptz) IS
'sixtyfour_enrich_dataframe() as a job; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_find_email_bulk_async(leads jsonb,
	mode text DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS bigint[] AS 'MODULE_PATHNAME', 'sixtyfour_bulk_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_find_email_bulk_async(jsonb, text, jsonb) IS
'a job for each lead of a JSON array of any length; returns their ids in order';

CREATE FUNCTION @extschema@.sixtyfour_find_phone_bulk_async(leads jsonb, options jsonb DEFAULT NULL)
	RETURNS bigint[] AS 'MODULE_PATHNAME', 'sixtyfour_bulk_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_find_phone_bulk_async(jsonb, jsonb) IS
'a job for each lead of a JSON array of any length; returns their ids in order';

--
-- Newer operations
--

CREATE FUNCTION @extschema@.sixtyfour_people_intelligence(lead_info jsonb,
	struct jsonb DEFAULT NULL, research_plan text DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_people_intelligence(jsonb, jsonb, text, jsonb) IS
'POST /people-intelligence: find a person and what is known about them, or the fields of struct; returns the service''s answer; takes minutes';

CREATE FUNCTION @extschema@.sixtyfour_people_intelligence_async(lead_info jsonb,
	struct jsonb DEFAULT NULL, research_plan text DEFAULT NULL, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_people_intelligence_async(jsonb, jsonb, text, jsonb, integer, timestamptz) IS
'sixtyfour_people_intelligence() as a job, through POST /people-intelligence-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_company_intelligence(target_company jsonb, struct jsonb,
	lead_struct jsonb DEFAULT NULL, find_people boolean DEFAULT NULL, research_plan text DEFAULT NULL,
	people_focus_prompt text DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_company_intelligence(jsonb, jsonb, jsonb, boolean, text, text, jsonb) IS
'POST /company-intelligence: research a company for the fields of struct, and its people; returns the service''s answer';

CREATE FUNCTION @extschema@.sixtyfour_company_intelligence_async(target_company jsonb, struct jsonb,
	lead_struct jsonb DEFAULT NULL, find_people boolean DEFAULT NULL, research_plan text DEFAULT NULL,
	people_focus_prompt text DEFAULT NULL, options jsonb DEFAULT NULL, priority integer DEFAULT 100,
	run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_company_intelligence_async(jsonb, jsonb, jsonb, boolean, text, text, jsonb, integer, timestamptz) IS
'sixtyfour_company_intelligence() as a job, through POST /company-intelligence-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_reverse_email(lead jsonb, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_reverse_email(jsonb, jsonb) IS
'POST /reverse-email: whose email address is it? lead needs a member email; returns the service''s answer; takes seconds';

CREATE FUNCTION @extschema@.sixtyfour_reverse_email_async(lead jsonb, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_reverse_email_async(jsonb, jsonb, integer, timestamptz) IS
'sixtyfour_reverse_email() as a job, through POST /reverse-email-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_reverse_email_bulk_async(leads jsonb,
	options jsonb DEFAULT NULL)
	RETURNS bigint[] AS 'MODULE_PATHNAME', 'sixtyfour_bulk_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_reverse_email_bulk_async(jsonb, jsonb) IS
'a job for each lead of a JSON array of any length; returns their ids in order';

CREATE FUNCTION @extschema@.sixtyfour_reverse_phone(lead jsonb, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_reverse_phone(jsonb, jsonb) IS
'POST /reverse-phone: whose phone number is it? lead needs a member phone; returns the service''s answer; takes seconds';

CREATE FUNCTION @extschema@.sixtyfour_reverse_phone_async(lead jsonb, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_reverse_phone_async(jsonb, jsonb, integer, timestamptz) IS
'sixtyfour_reverse_phone() as a job, through POST /reverse-phone-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_reverse_phone_bulk_async(leads jsonb,
	options jsonb DEFAULT NULL)
	RETURNS bigint[] AS 'MODULE_PATHNAME', 'sixtyfour_bulk_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_reverse_phone_bulk_async(jsonb, jsonb) IS
'a job for each lead of a JSON array of any length; returns their ids in order';

CREATE FUNCTION @extschema@.sixtyfour_research_agent(input_data jsonb, struct jsonb DEFAULT NULL,
	research_plan text DEFAULT NULL, max_iterations integer DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_research_agent(jsonb, jsonb, text, integer, jsonb) IS
'POST /research-agent: research whatever input_data tells, for the fields of struct; returns the service''s answer';

CREATE FUNCTION @extschema@.sixtyfour_research_agent_async(input_data jsonb,
	struct jsonb DEFAULT NULL, research_plan text DEFAULT NULL, max_iterations integer DEFAULT NULL,
	options jsonb DEFAULT NULL, priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_research_agent_async(jsonb, jsonb, text, integer, jsonb, integer, timestamptz) IS
'sixtyfour_research_agent() as a job, through POST /research-agent-async; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_get_linkedin(linkedin_url text,
	include_fresh boolean DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_get_linkedin(text, boolean, jsonb) IS
'POST /get-linkedin: the LinkedIn profile at this URL; include_fresh asks for the latest; returns the service''s answer';

CREATE FUNCTION @extschema@.sixtyfour_get_linkedin_async(linkedin_url text,
	include_fresh boolean DEFAULT NULL, options jsonb DEFAULT NULL, priority integer DEFAULT 100,
	run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_get_linkedin_async(text, boolean, jsonb, integer, timestamptz) IS
'sixtyfour_get_linkedin() as a job, through POST /get-linkedin; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_enrich_linkedin(linkedin_url text, struct jsonb DEFAULT NULL,
	model_override text DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_linkedin(text, jsonb, text, jsonb) IS
'POST /enrich-linkedin: the fields of struct from the LinkedIn profile of a person or company; returns the service''s answer';

CREATE FUNCTION @extschema@.sixtyfour_enrich_linkedin_async(linkedin_url text,
	struct jsonb DEFAULT NULL, model_override text DEFAULT NULL, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_linkedin_async(text, jsonb, text, jsonb, integer, timestamptz) IS
'sixtyfour_enrich_linkedin() as a job, through POST /enrich-linkedin; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_org_chart(company_name text DEFAULT NULL,
	linkedin_public_id text DEFAULT NULL, linkedin_company_url text DEFAULT NULL,
	max_results integer DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_org_chart(text, text, text, integer, jsonb) IS
'POST /org-chart/full: who works at a company, and for whom; one of its names must be given; returns one page; options may hold page_size and the cursor of another';

CREATE FUNCTION @extschema@.sixtyfour_org_chart_async(company_name text DEFAULT NULL,
	linkedin_public_id text DEFAULT NULL, linkedin_company_url text DEFAULT NULL,
	max_results integer DEFAULT NULL, options jsonb DEFAULT NULL, priority integer DEFAULT 100,
	run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_org_chart_async(text, text, text, integer, jsonb, integer, timestamptz) IS
'sixtyfour_org_chart() as a job, through POST /org-chart/full; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_org_chart_people(people_focus_prompt text,
	company_name text DEFAULT NULL, linkedin_public_id text DEFAULT NULL,
	linkedin_company_url text DEFAULT NULL, max_results integer DEFAULT NULL,
	options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_org_chart_people(text, text, text, text, integer, jsonb) IS
'POST /org-chart/find-people: those people of a company whom people_focus_prompt describes; one of the company''s names must be given';

CREATE FUNCTION @extschema@.sixtyfour_org_chart_people_async(people_focus_prompt text,
	company_name text DEFAULT NULL, linkedin_public_id text DEFAULT NULL,
	linkedin_company_url text DEFAULT NULL, max_results integer DEFAULT NULL,
	options jsonb DEFAULT NULL, priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_org_chart_people_async(text, text, text, text, integer, jsonb, integer, timestamptz) IS
'sixtyfour_org_chart_people() as a job, through POST /org-chart/find-people; returns the job''s id';

--
-- Searches.  Rows are objects with the columns of the service's CSV file: texts,
-- or null where one is missing.
--

CREATE FUNCTION @extschema@.sixtyfour_search(query text, mode text DEFAULT 'people',
	max_results integer DEFAULT 1000, options jsonb DEFAULT NULL)
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_follow'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_search(text, text, integer, jsonb) IS
'POST /search/start-deep-search: search for what the query says, in mode people or company, wait until it is found, and return it, one object per row; tells how far it is; takes up to minutes; if it is interrupted the search goes on, and asking the same again joins it';

CREATE FUNCTION @extschema@.sixtyfour_search_async(query text, mode text DEFAULT 'people',
	max_results integer DEFAULT 1000, into_table regclass DEFAULT NULL, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_search_async(text, text, integer, regclass, jsonb, integer, timestamptz) IS
'sixtyfour_search() as a job; its answer is the finished search''s status with its resource_handle_id; with into_table its rows go there, by names of columns; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_start_search(query text, mode text DEFAULT 'people',
	max_results integer DEFAULT 1000, options jsonb DEFAULT NULL)
	RETURNS text AS 'MODULE_PATHNAME', 'sixtyfour_start'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_start_search(text, text, integer, jsonb) IS
'POST /search/start-deep-search: start a search, and return the task id that the service gives it';

CREATE FUNCTION @extschema@.sixtyfour_search_status(task_id text)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_search_status(text) IS
'GET /search/deep-search-status/{task_id}: how far a search is: {status, current_phase, total_results, resource_handle_id, ...}; free';

CREATE FUNCTION @extschema@.sixtyfour_search_download(resource_handle_id text)
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_search_download'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_search_download(text) IS
'GET /search/download: the rows that a finished search has found, one object each, as often as you like; free';

CREATE FUNCTION @extschema@.sixtyfour_filter_search(simple_filters jsonb DEFAULT NULL,
	filters jsonb DEFAULT NULL, mode text DEFAULT 'company', max_results integer DEFAULT 1000,
	options jsonb DEFAULT NULL)
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_pages'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_filter_search(jsonb, jsonb, text, integer, jsonb) IS
'POST /search/start-filter-search: what passes simple_filters (operators as MongoDB''s) or filters (OpenSearch''s), one object per row, page by page; options may hold page_size (1-100)';

CREATE FUNCTION @extschema@.sixtyfour_filter_search_async(simple_filters jsonb DEFAULT NULL,
	filters jsonb DEFAULT NULL, mode text DEFAULT 'company', max_results integer DEFAULT 1000,
	options jsonb DEFAULT NULL, priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_filter_search_async(jsonb, jsonb, text, integer, jsonb, integer, timestamptz) IS
'one page of sixtyfour_filter_search() as a job: its answer is {results, next_cursor, ...}; options may hold page_size and cursor; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_search_query(query text DEFAULT NULL,
	simple_filters jsonb DEFAULT NULL, filters jsonb DEFAULT NULL, parsed_query jsonb DEFAULT NULL,
	search_id text DEFAULT NULL, mode text DEFAULT NULL, max_results integer DEFAULT NULL,
	options jsonb DEFAULT NULL)
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_pages'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_search_query(text, jsonb, jsonb, jsonb, text, text, integer, jsonb) IS
'POST /search/query: what a query in plain words finds at once, or filters, or an earlier search (parsed_query, search_id): one of these, one object per row, page by page; options may hold page_size (1-100)';

CREATE FUNCTION @extschema@.sixtyfour_search_query_async(query text DEFAULT NULL,
	simple_filters jsonb DEFAULT NULL, filters jsonb DEFAULT NULL, parsed_query jsonb DEFAULT NULL,
	search_id text DEFAULT NULL, mode text DEFAULT NULL, max_results integer DEFAULT NULL,
	options jsonb DEFAULT NULL, priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_search_query_async(text, jsonb, jsonb, jsonb, text, text, integer, jsonb, integer, timestamptz) IS
'one page of sixtyfour_search_query() as a job: its answer is {results, next_cursor, ...}; options may hold page_size, and cursor instead of a query; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_export_search(search_id text DEFAULT NULL,
	parsed_query jsonb DEFAULT NULL, mode text DEFAULT NULL, max_results integer DEFAULT NULL,
	options jsonb DEFAULT NULL)
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_follow'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_export_search(text, jsonb, text, integer, jsonb) IS
'POST /search/export: all rows of an earlier search (its search_id or parsed_query), one object each';

CREATE FUNCTION @extschema@.sixtyfour_export_search_async(search_id text DEFAULT NULL,
	parsed_query jsonb DEFAULT NULL, mode text DEFAULT NULL, max_results integer DEFAULT NULL,
	into_table regclass DEFAULT NULL, options jsonb DEFAULT NULL, priority integer DEFAULT 100,
	run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_export_search_async(text, jsonb, text, integer, regclass, jsonb, integer, timestamptz) IS
'sixtyfour_export_search() as a job; with into_table its rows go there, by names of columns; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_filter_fields(mode text DEFAULT NULL,
	refresh boolean DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_filter_fields(text, boolean) IS
'GET /search/filter-capabilities: the fields and operators that filters may use; free';

CREATE FUNCTION @extschema@.sixtyfour_filter_values(field text, mode text DEFAULT NULL,
	top_k integer DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_filter_values(text, text, integer, jsonb) IS
'POST /search/filter-field-values: the commonest values of a field that filters may use; free';

--
-- Workflows.  Their definition is of blocks and edges; see the service's
-- documentation.
--

CREATE FUNCTION @extschema@.sixtyfour_workflows()
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call_rows'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_workflows() IS
'GET /workflows: the account''s workflows, one object each; free';

CREATE FUNCTION @extschema@.sixtyfour_workflow(id text)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_workflow(text) IS
'GET /workflows/{id}: a workflow with its definition; free';

CREATE FUNCTION @extschema@.sixtyfour_create_workflow(workflow_name text, workflow_definition jsonb,
	options jsonb DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_create_workflow(text, jsonb, jsonb) IS
'POST /workflows: create a workflow; options may hold workflow_description and an id; returns it; free';

CREATE FUNCTION @extschema@.sixtyfour_update_workflow(id text, changes jsonb)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_update_workflow(text, jsonb) IS
'PATCH /workflows/{id}: change workflow_name, workflow_description or workflow_definition; returns the workflow; free';

CREATE FUNCTION @extschema@.sixtyfour_delete_workflow(id text)
	RETURNS void AS 'MODULE_PATHNAME', 'sixtyfour_call_void'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_delete_workflow(text) IS
'DELETE /workflows/{id}: delete a workflow; free';

CREATE FUNCTION @extschema@.sixtyfour_workflow_blocks()
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call_rows'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_workflow_blocks() IS
'GET /workflows/blocks: the blocks that workflows are made of, with the schema of their specs; free';

CREATE FUNCTION @extschema@.sixtyfour_run_workflow(id text, webhook_payload jsonb,
	options jsonb DEFAULT NULL)
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_follow'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_run_workflow(text, jsonb, jsonb) IS
'POST /workflows/run: run a workflow on an array of objects (or one), wait until it is done, and return the rows of its last block, one object each; tells how far it is; if it is interrupted the run goes on, and asking the same again joins it';

CREATE FUNCTION @extschema@.sixtyfour_run_workflow_async(id text, webhook_payload jsonb,
	into_table regclass DEFAULT NULL, options jsonb DEFAULT NULL, priority integer DEFAULT 100,
	run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_run_workflow_async(text, jsonb, regclass, jsonb, integer, timestamptz) IS
'sixtyfour_run_workflow() as a job; its answer is the finished run''s status with its run_id; with into_table its rows go there, by names of columns; returns the job''s id';

CREATE FUNCTION @extschema@.sixtyfour_start_workflow(id text, webhook_payload jsonb,
	options jsonb DEFAULT NULL)
	RETURNS text AS 'MODULE_PATHNAME', 'sixtyfour_start'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_start_workflow(text, jsonb, jsonb) IS
'POST /workflows/run: start a run of a workflow, and return its run id';

CREATE FUNCTION @extschema@.sixtyfour_workflow_status(run_id text)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_workflow_status(text) IS
'GET /workflows/runs/{run_id}/live_status: how far a run is, block by block: {overall_status, overall_progress_percentage, blocks, ...}; free';

CREATE FUNCTION @extschema@.sixtyfour_workflow_runs(status text DEFAULT NULL)
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call_rows'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_workflow_runs(text) IS
'GET /workflows/runs: runs of workflows, latest first, one object each; of one status, such as active, if it is given; free';

CREATE FUNCTION @extschema@.sixtyfour_cancel_workflow(run_id text)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_cancel_workflow(text) IS
'POST /workflows/cancel: cancel a run; free';

CREATE FUNCTION @extschema@.sixtyfour_workflow_results(run_id text)
	RETURNS SETOF jsonb AS 'MODULE_PATHNAME', 'sixtyfour_workflow_results'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100;
COMMENT ON FUNCTION @extschema@.sixtyfour_workflow_results(text) IS
'GET /workflows/runs/{run_id}/results/download-links: the rows of a finished run''s last block, one object each, as often as you like; free';

--
-- The account
--

CREATE FUNCTION @extschema@.sixtyfour_usage(time_window integer DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_usage(integer) IS
'GET /api/usage: what the key was used for in the last time_window seconds (3600); free';

CREATE FUNCTION @extschema@.sixtyfour_webhook_secret()
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_webhook_secret() IS
'GET /webhooks/signing-secret: what is known of the secret that signs webhooks, not the secret itself; NULL if there is none; for the owner of the server; free';

CREATE FUNCTION @extschema@.sixtyfour_create_webhook_secret()
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_create_webhook_secret() IS
'POST /webhooks/signing-secret: make a new secret that signs webhooks, which ends an earlier one at once; returns {plaintext, meta}, and the plaintext never again; for the owner of the server; free';

CREATE FUNCTION @extschema@.sixtyfour_roll_webhook_secret(expire_overlap_hours integer DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME', 'sixtyfour_call'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_roll_webhook_secret(integer) IS
'POST /webhooks/signing-secret/roll: make a new secret; both sign for so many hours (24; 0 to 72); returns {plaintext, meta}, and the plaintext never again; for the owner of the server; free';

CREATE FUNCTION @extschema@.sixtyfour_delete_webhook_secret()
	RETURNS void AS 'MODULE_PATHNAME', 'sixtyfour_call_void'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_delete_webhook_secret() IS
'DELETE /webhooks/signing-secret: sign webhooks no more; for the owner of the server; free';

--
-- Jobs and calls that exist
--

CREATE FUNCTION @extschema@.sixtyfour_wait(job bigint, timeout interval DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_wait(bigint, interval) IS
'wait until a job is finished, and its row written; returns its answer or raises the job''s own error; 08007 if nobody knows whether it was billed, 57014 after the timeout';

CREATE FUNCTION @extschema@.sixtyfour_wait_all(jobs bigint[], timeout interval DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_wait_all(bigint[], interval) IS
'wait until all jobs are finished, failed or not; tells the progress each 10 s';

CREATE FUNCTION @extschema@.sixtyfour_result(job bigint)
	RETURNS jsonb AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.sixtyfour_result(bigint) IS
'the answer to a job, NULL while there is none; does not wait';

CREATE FUNCTION @extschema@.sixtyfour_rows(job bigint)
	RETURNS SETOF jsonb
	LANGUAGE SQL VOLATILE STRICT PARALLEL RESTRICTED COST 1000 ROWS 100
BEGIN ATOMIC
	SELECT r.r
	FROM (SELECT @extschema@.sixtyfour_result(job) AS answer) AS j,
		 LATERAL (
			SELECT @extschema@.sixtyfour_search_download(answer ->> 'resource_handle_id')
			WHERE answer ? 'resource_handle_id'
			UNION ALL
			SELECT @extschema@.sixtyfour_workflow_results(answer ->> 'run_id')
			WHERE answer ? 'run_id') AS r (r);
END;
COMMENT ON FUNCTION @extschema@.sixtyfour_rows(bigint) IS
'the rows that a job has found, of a search or a run of a workflow, one object each, as often as you like; over the account of sixtyfour.server; none while it is not finished; free';

CREATE FUNCTION @extschema@.sixtyfour_cancel(job bigint)
	RETURNS boolean AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_cancel(bigint) IS
'cancel a job that is not finished; what was sent already is billed, and its answer is kept; false if there was nothing to cancel';

CREATE FUNCTION @extschema@.sixtyfour_retry(job bigint)
	RETURNS boolean AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_retry(bigint) IS
'queue a failed or cancelled job again, which may cost again; where an answer that could not be read is kept and can be read now, that is taken instead, else the service is asked again for the answer to that task; a NOTICE says which; of a job that succeeded, but whose rows could not be inserted into its table (delivery unapplied), or are held up, fetch and insert the rows again, which costs nothing; false if the job is none of these';

CREATE FUNCTION @extschema@.sixtyfour_resolve(call bigint, action text)
	RETURNS void AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_resolve(bigint, text) IS
'decide about a call of which nobody knows whether it was billed: ''resubmit'' it, ''abandon'' it, or name the task that the service made of it, which becomes the call''s once the service answers for it; for superusers and those with the rights of the call''s payer, or of the owners of all its jobs that are not cancelled';

CREATE FUNCTION @extschema@.sixtyfour_webhook(jsonb)
	RETURNS boolean AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION @extschema@.sixtyfour_webhook(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.sixtyfour_webhook(jsonb) IS
'doorbell for the service''s webhooks: makes the worker ask about the task that the payload {task_id} names, and believes nothing else; false if no call waits for it; grant EXECUTE to whoever passes webhooks on';

CREATE FUNCTION @extschema@.sixtyfour_webhook(call uuid, payload jsonb)
	RETURNS boolean AS 'MODULE_PATHNAME', 'sixtyfour_webhook_call'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION @extschema@.sixtyfour_webhook(uuid, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.sixtyfour_webhook(uuid, jsonb) IS
'the same for the call whose uuid the webhook''s URL has (?call=...); if nobody knows what became of that call, the service is asked whether it knows the task, which then becomes the call''s';

CREATE FUNCTION @extschema@.sixtyfour_verify_webhook(body text, signature text,
	secret text, now timestamptz DEFAULT now())
	RETURNS boolean AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_verify_webhook(text, text, text, timestamptz) IS
'is signature, the header Sixtyfour-Signature (t=...,v1=...), that of the body as it was received, by this secret (sk_whsec_...) and within 300 s of now? false if anything is NULL';

CREATE FUNCTION @extschema@.sixtyfour_forget(subject jsonb)
	RETURNS bigint AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000;
COMMENT ON FUNCTION @extschema@.sixtyfour_forget(jsonb) IS
'erase the jobs, and the answers to them, whose subject (lead, lead_info, target_company, data, input_data; or {linkedin_url}) contains this object, such as {"name": "Ada Brandt"}: one''s own, all for the owner of the database; calls are kept as a record of money; returns how many jobs and answers were erased';

CREATE FUNCTION @extschema@.sixtyfour_why(job bigint)
	RETURNS text AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.sixtyfour_why(bigint) IS
'one sentence: what a job is waiting for, or why it failed';

CREATE FUNCTION @extschema@.sixtyfour_pause()
	RETURNS void AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_pause() IS
'submit nothing more from this database; what was submitted is followed to its end';

CREATE FUNCTION @extschema@.sixtyfour_resume()
	RETURNS void AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_resume() IS
'submit again, here and now: after sixtyfour_pause(), after a promotion or a restore, or in a copy of a database, also what the copy brought along; see first that nothing else works on the same queue';

--
-- Views.  A role sees its own rows, pg_monitor all.
--

CREATE VIEW sixtyfour.jobs WITH (security_barrier) AS
	SELECT id, state, delivery, operation, priority, run_at, body, server,
		   owner, payer, enqueued_at, finished_at, attempts, call, result, shared,
		   enrichment, row_key, sqlstate, message, detail, hint, into_table
	FROM sixtyfour.job
	WHERE pg_has_role(owner::oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE');
GRANT SELECT ON sixtyfour.jobs TO PUBLIC;
COMMENT ON VIEW sixtyfour.jobs IS
'jobs: state is queued, sending, running, uncertain, succeeded, failed or cancelled; delivery none, pending, applied or unapplied; message why, or what was inserted into into_table; shared: answered by a stored result or a call that was under way for another job, and so for nothing';

CREATE VIEW sixtyfour.calls WITH (security_barrier) AS
	SELECT id, uuid, state, operation, items, server, payer, task_id,
		   expected_cents, cents, created_at, accepted_at, finished_at,
		   sqlstate, message, detail, hint,
		   -- it may hold the answers to others' jobs too
		   CASE WHEN pg_has_role('pg_monitor', 'USAGE') OR (
				SELECT bool_and(pg_has_role(j.owner::oid, 'USAGE'))
				FROM sixtyfour.job j WHERE j.call = c.id)
				THEN raw END AS raw
	FROM sixtyfour.call c
	WHERE pg_has_role('pg_monitor', 'USAGE') OR pg_has_role(c.payer::oid, 'USAGE')
		  OR c.id IN (
		SELECT j.call FROM sixtyfour.job j WHERE pg_has_role(j.owner::oid, 'USAGE'));
GRANT SELECT ON sixtyfour.calls TO PUBLIC;
COMMENT ON VIEW sixtyfour.calls IS
'submissions to the service, of 1 to 100 jobs each: what they were expected to cost and did cost, in cents; a role sees those it pays for and those that carry its jobs';
COMMENT ON COLUMN sixtyfour.calls.raw IS
'an answer that could not be read or divided; NULL for those who have not the rights of the owners of all jobs of the call';

CREATE VIEW sixtyfour.results WITH (security_barrier) AS
	SELECT id, call, item, operation, answer, cents, created_at
	FROM sixtyfour.result r
	WHERE pg_has_role('pg_monitor', 'USAGE') OR r.id IN (
		SELECT j.result FROM sixtyfour.job j WHERE pg_has_role(j.owner::oid, 'USAGE'));
GRANT SELECT ON sixtyfour.results TO PUBLIC;
COMMENT ON VIEW sixtyfour.results IS
'paid answers, each with its share of the call''s cents';

-- Who commands an enrichment, and writes its answers: its owner; and once that
-- role was dropped, who has its table now.
CREATE FUNCTION sixtyfour.enrichment_owner(owner regrole, target regclass) RETURNS regrole
	LANGUAGE SQL STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
	SELECT coalesce((SELECT r.oid FROM pg_roles r WHERE r.oid = owner::oid),
					(SELECT c.relowner FROM pg_class c WHERE c.oid = target::oid),
					owner::oid)::regrole;
END;
COMMENT ON FUNCTION sixtyfour.enrichment_owner(regrole, regclass) IS
'the owner of an enrichment; of one whose owner was dropped, the owner of its table';

CREATE VIEW sixtyfour.attention WITH (security_barrier) AS
	SELECT 'call' AS kind, c.id, c.operation,
		   concat_ws('; ', c.message, (
				SELECT 'the service is being asked about task ' || string_agg(quote_literal(k.task_id), ', ')
				FROM sixtyfour.candidate k WHERE k.call = c.id)) AS reason,
		   c.expected_cents AS cents_at_risk, c.created_at AS since,
		   -- the rule of sixtyfour_resolve()
		   CASE WHEN pg_has_role(c.payer::oid, 'USAGE') OR NOT EXISTS (
				SELECT FROM sixtyfour.job j
				WHERE j.call = c.id AND j.state <> 'cancelled'
					  AND NOT pg_has_role(j.owner::oid, 'USAGE'))
				THEN '' ELSE format('as %s, or a superuser: ', c.payer) END ||
		   format('sixtyfour_resolve(%s, ''resubmit'' | ''abandon'' | task id)', c.id) AS what_to_do
	FROM sixtyfour.calls c WHERE c.state IN ('uncertain', 'expired')
	UNION ALL
	SELECT 'job', j.id, j.operation, j.message, 0, j.finished_at,
		   CASE WHEN j.enrichment IS NULL AND pg_has_role(j.owner::oid, 'USAGE')
				THEN format('mend it, then sixtyfour_retry(%s)', j.id)
				WHEN j.enrichment IS NULL
				THEN format('mend it, then as %s: sixtyfour_retry(%s)', j.owner, j.id)
				WHEN e.id IS NULL THEN 'nothing: the enrichment is gone; sixtyfour.results has the answer'
				WHEN pg_has_role(e.owner::oid, 'USAGE')
				THEN format('mend the row, then sixtyfour_reapply(%L)', e.name)
				ELSE format('mend the row, then as %s: sixtyfour_reapply(%L)', e.owner, e.name)
		   END
	FROM sixtyfour.jobs j LEFT JOIN (
		SELECT id, name, sixtyfour.enrichment_owner(owner, target) AS owner
		FROM sixtyfour.enrichment) e ON e.id = j.enrichment
	WHERE j.delivery = 'unapplied';
GRANT SELECT ON sixtyfour.attention TO PUBLIC;
COMMENT ON VIEW sixtyfour.attention IS
'what a person must decide: calls that may have been billed without an answer, and answers that could not be written to their rows or tables';

CREATE FUNCTION sixtyfour.account_reading(server name, payer oid,
	OUT requests_per_minute integer, OUT rate double precision,
	OUT refusals bigint, OUT hold_until timestamptz,
	OUT spent_today_cents bigint, OUT at_risk_cents bigint,
	OUT daily_budget_cents integer, OUT paused_until timestamptz,
	OUT paused_by text)
	RETURNS record AS 'MODULE_PATHNAME', 'sixtyfour_account_reading'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION sixtyfour.account_reading(name, oid) IS
'what the view sixtyfour.accounts shows of one account';

CREATE VIEW sixtyfour.accounts WITH (security_barrier) AS
	SELECT s.srvname AS server, a.payer::regrole AS payer, r.*
	FROM pg_foreign_server s
		 JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
		 JOIN pg_user_mapping m ON m.umserver = s.oid,
		 LATERAL (SELECT CASE m.umuser WHEN 0 THEN (SELECT oid FROM pg_roles WHERE rolname = current_user)
						 ELSE m.umuser END) AS a (payer),
		 LATERAL sixtyfour.account_reading(s.srvname, a.payer) AS r
	WHERE w.fdwname = 'sixtyfour'
		  AND (pg_has_role(a.payer, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'));
GRANT SELECT ON sixtyfour.accounts TO PUBLIC;
COMMENT ON VIEW sixtyfour.accounts IS
'accounts: requests a minute allowed and in force, 429s, cents spent and at risk today (UTC), and what stands in the way of spending more';
COMMENT ON COLUMN sixtyfour.accounts.rate IS 'requests a minute in force after 429s; NULL: unlimited';
COMMENT ON COLUMN sixtyfour.accounts.refusals IS '429s since the server started';
--
-- Tables: enrichments
--

CREATE FUNCTION @extschema@.sixtyfour_enrich_trigger() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.sixtyfour_enrich_trigger() IS
'queues the new rows of a statement for the enrichment named by its argument; AFTER INSERT REFERENCING NEW TABLE, or AFTER UPDATE REFERENCING OLD TABLE and NEW TABLE, FOR EACH STATEMENT; for partitions attached after the enrichment was created';

CREATE FUNCTION @extschema@.sixtyfour_create_enrichment(name text, target regclass,
	operation text, input jsonb, output jsonb, struct jsonb DEFAULT NULL,
	options jsonb DEFAULT NULL, on_insert boolean DEFAULT true,
	on_update boolean DEFAULT false, condition text DEFAULT NULL,
	if_unchanged boolean DEFAULT true, refresh_after interval DEFAULT NULL,
	payer text DEFAULT 'inserter')
	RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_create_enrichment(text, regclass, text, jsonb, jsonb, jsonb, jsonb, boolean, boolean, text, boolean, interval, text) IS
'declares how rows of a table are enriched: input {"field": "column"} is asked of an operation such as find_email or enrich_company, and output {"column": "$.jsonpath"} takes its answer home; struct and options are the rest of the request; condition is like a trigger''s WHEN; payer is inserter or owner; rows written directly to partitions attached later are found by sixtyfour_run_enrichment()';

CREATE FUNCTION @extschema@.sixtyfour_run_enrichment(name text, filter text DEFAULT NULL,
	max_rows bigint DEFAULT NULL)
	RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_run_enrichment(text, text, bigint) IS
'queues the rows of the table that are not enriched yet, those that pass filter (a boolean expression over the row) and at most max_rows, and returns how many; call it again for what is missing';

CREATE FUNCTION @extschema@.sixtyfour_estimate(name text, filter text DEFAULT NULL,
	OUT rows bigint, OUT cached bigint, OUT requests bigint,
	OUT cents_low bigint, OUT cents_high bigint, OUT duration interval)
	RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION @extschema@.sixtyfour_estimate(text, text) IS
'what sixtyfour_run_enrichment() would queue: rows, how many of them stored results answer, requests that would be billed, their price in US cents (NULL: not known) and how long it would take';

CREATE FUNCTION @extschema@.sixtyfour_wait_enrichment(name text, timeout interval DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_wait_enrichment(text, interval) IS
'waits until all jobs of an enrichment are finished and their answers are in the table; says how far it is every 10 seconds; 57014 after timeout';

CREATE FUNCTION @extschema@.sixtyfour_drop_enrichment(name text)
	RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_drop_enrichment(text) IS
'forgets an enrichment: drops its triggers and cancels its jobs that are not sent yet; what the table and the ledger hold is kept';

CREATE FUNCTION @extschema@.sixtyfour_reapply(name text)
	RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sixtyfour_reapply(text) IS
'tries again to write the answers of an enrichment that could not be written (delivery unapplied), without asking again; returns how many';

-- Rows are known by the JSON of their keys, and compared by that of their
-- inputs, whoever writes it under whatever settings.
CREATE FUNCTION sixtyfour.plain_jsonb(value anyelement) RETURNS jsonb
	LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'to_jsonb'
	SET search_path = pg_catalog, pg_temp
	SET "DateStyle" = 'ISO, YMD' SET "TimeZone" = 'UTC' SET "IntervalStyle" = 'postgres'
	SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C'
	SET quote_all_identifiers = off;
COMMENT ON FUNCTION sixtyfour.plain_jsonb(anyelement) IS
'to_jsonb() that does not depend on the session''s settings';

-- Who sees an enrichment: its owner, and pg_monitor.
CREATE VIEW sixtyfour.enrichments WITH (security_barrier) AS
	SELECT e.name, e.target, e.operation, e.owner,
		   coalesce(j.total, 0) AS total,
		   coalesce(j.queued, 0) AS queued,
		   coalesce(j.running, 0) AS running,
		   coalesce(j.uncertain, 0) AS uncertain,
		   coalesce(j.succeeded, 0) AS succeeded,
		   coalesce(j.failed, 0) AS failed,
		   coalesce(j.cancelled, 0) AS cancelled,
		   coalesce(j.pending, 0) AS pending,
		   coalesce(j.unapplied, 0) AS unapplied,
		   coalesce(c.cents, 0) AS cents,
		   coalesce(s.cents, 0) AS saved_cents,
		   CASE WHEN j.queued + j.running > 0 AND j.recent > 0
				THEN now() + (now() - j.since) * (j.queued + j.running) / j.recent
		   END AS eta
	FROM (SELECT id, name, target, operation, sixtyfour.enrichment_owner(owner, target) AS owner
		  FROM sixtyfour.enrichment) e
	LEFT JOIN LATERAL (
		SELECT count(*) AS total,
			   count(*) FILTER (WHERE state = 'queued') AS queued,
			   count(*) FILTER (WHERE state IN ('sending', 'running')) AS running,
			   count(*) FILTER (WHERE state = 'uncertain') AS uncertain,
			   count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
			   count(*) FILTER (WHERE state = 'failed') AS failed,
			   count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
			   count(*) FILTER (WHERE delivery = 'pending') AS pending,
			   count(*) FILTER (WHERE delivery = 'unapplied') AS unapplied,
			   -- the pace of the last five minutes
			   count(*) FILTER (WHERE finished_at > now() - interval '5 min') AS recent,
			   greatest(now() - interval '5 min',
						min(enqueued_at) FILTER (WHERE finished_at > now() - interval '5 min')) AS since
		FROM sixtyfour.job WHERE enrichment = e.id) j ON true
	LEFT JOIN LATERAL (
		SELECT sum(cents) AS cents FROM sixtyfour.result
		WHERE id IN (SELECT result FROM sixtyfour.job WHERE enrichment = e.id AND NOT shared)) c ON true
	LEFT JOIN LATERAL (
		SELECT sum(r.cents) AS cents
		FROM sixtyfour.job sj JOIN sixtyfour.result r ON r.id = sj.result
		WHERE sj.enrichment = e.id AND sj.shared) s ON true
	WHERE pg_has_role(e.owner, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE');
GRANT SELECT ON sixtyfour.enrichments TO PUBLIC;
COMMENT ON VIEW sixtyfour.enrichments IS
'enrichments and how far they are, in jobs: queued, running, uncertain, succeeded, failed and cancelled add up to total; pending and unapplied are succeeded ones whose answer is not in the table yet, or could not be written; cents is what its own calls cost, saved_cents what those that were shared would have cost again; eta from the pace of the last five minutes';

--
-- The background processes
--

CREATE FUNCTION sixtyfour.worker_rows(OUT database name, OUT pid integer,
	OUT kind text, OUT state text, OUT last_turn timestamptz,
	OUT in_flight integer, OUT message text)
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'sixtyfour_workers'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION sixtyfour.worker_rows() IS
'what the view sixtyfour.workers shows';

CREATE VIEW sixtyfour.workers AS
	SELECT database, pid, kind, state, last_turn, in_flight, message
	FROM sixtyfour.worker_rows();
GRANT SELECT ON sixtyfour.workers TO PUBLIC;
COMMENT ON VIEW sixtyfour.workers IS
'the background processes: the launcher, and the worker and the writer of each database that has the extension; no rows if the library is not preloaded; members of pg_monitor see all databases, others their own, and messages only if they own it';
COMMENT ON COLUMN sixtyfour.workers.pid IS 'NULL: not running';
COMMENT ON COLUMN sixtyfour.workers.state IS
'what the process is doing; or, while it is not running: asleep (nothing to do), starting, waiting to start (see message), kept away (by a command such as DROP DATABASE or ALTER EXTENSION), not allowed (by sixtyfour.databases, or a template)';
COMMENT ON COLUMN sixtyfour.workers.last_turn IS 'when it last looked for something to do';
COMMENT ON COLUMN sixtyfour.workers.in_flight IS 'requests and tasks under way';
COMMENT ON COLUMN sixtyfour.workers.message IS 'what is wrong, or why it last ended';
