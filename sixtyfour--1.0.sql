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
'any request to the service: method GET, POST, PATCH, PUT or DELETE, path from "/", query parameters as an object, JSON body; returns the JSON answer, CSV as a JSON string, NULL for none; what is not GET may be billed and is sent only once';

CREATE FUNCTION @extschema@.sixtyfour_endpoints(OUT operation text, OUT method text,
	OUT path text, OUT async_path text, OUT bulk_path text, OUT cents integer)
	RETURNS SETOF record AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 30;
COMMENT ON FUNCTION @extschema@.sixtyfour_endpoints() IS
'the endpoints of the service that are known, with the price of one call in cents (NULL: not known)';

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
'the people in an answer of enrich-company, one object per row, best score (0-10) first';
