
--
-- Asynchronous: a job.  The functions return its id, and cost one insert;
-- nothing is sent before the transaction commits.  Smaller priorities go first.
--

CREATE FUNCTION sixtyfour_enrich_lead_async(lead_info jsonb, struct jsonb,
	research_plan text DEFAULT NULL, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_enrich_lead_async(jsonb, jsonb, text, jsonb, integer, timestamptz) IS
'sixtyfour_enrich_lead() as a job, through POST /enrich-lead-async; returns the job''s id';

CREATE FUNCTION sixtyfour_enrich_lead_async(request jsonb)
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_enrich_lead_async(jsonb) IS
'sixtyfour_enrich_lead(request) as a job; returns the job''s id';

CREATE FUNCTION sixtyfour_enrich_company_async(target_company jsonb, struct jsonb,
	lead_struct jsonb DEFAULT NULL, find_people boolean DEFAULT NULL,
	research_plan text DEFAULT NULL, people_focus_prompt text DEFAULT NULL,
	options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_enrich_company_async(jsonb, jsonb, jsonb, boolean, text, text, jsonb, integer, timestamptz) IS
'sixtyfour_enrich_company() as a job, through POST /enrich-company-async; returns the job''s id';

CREATE FUNCTION sixtyfour_enrich_company_async(request jsonb)
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_enrich_company_async(jsonb) IS
'sixtyfour_enrich_company(request) as a job; returns the job''s id';

CREATE FUNCTION sixtyfour_find_email_async(lead jsonb, mode text DEFAULT NULL,
	options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_find_email_async(jsonb, text, jsonb, integer, timestamptz) IS
'sixtyfour_find_email() as a job, through POST /find-email-async; returns the job''s id';

CREATE FUNCTION sixtyfour_find_phone_async(lead jsonb, options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_find_phone_async(jsonb, jsonb, integer, timestamptz) IS
'sixtyfour_find_phone() as a job, through POST /find-phone-async; returns the job''s id';

CREATE FUNCTION sixtyfour_qa_agent_async(data jsonb, qualification_criteria jsonb,
	"references" jsonb DEFAULT NULL, struct jsonb DEFAULT NULL,
	options jsonb DEFAULT NULL,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_qa_agent_async(jsonb, jsonb, jsonb, jsonb, jsonb, integer, timestamptz) IS
'sixtyfour_qa_agent() as a job, through POST /qa-agent-async; returns the job''s id';

CREATE FUNCTION sixtyfour_qa_agent_async(request jsonb)
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_qa_agent_async(jsonb) IS
'sixtyfour_qa_agent(request) as a job; returns the job''s id';

CREATE FUNCTION sixtyfour_enrich_dataframe_async(csv_data text, enrichment_type text,
	priority integer DEFAULT 100, run_at timestamptz DEFAULT now())
	RETURNS bigint AS 'MODULE_PATHNAME', 'sixtyfour_call_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_enrich_dataframe_async(text, text, integer, timestamptz) IS
'sixtyfour_enrich_dataframe() as a job; returns the job''s id';

CREATE FUNCTION sixtyfour_find_email_bulk_async(leads jsonb,
	mode text DEFAULT NULL, options jsonb DEFAULT NULL)
	RETURNS bigint[] AS 'MODULE_PATHNAME', 'sixtyfour_bulk_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_find_email_bulk_async(jsonb, text, jsonb) IS
'a job for each lead of a JSON array of any length; returns their ids in order';

CREATE FUNCTION sixtyfour_find_phone_bulk_async(leads jsonb, options jsonb DEFAULT NULL)
	RETURNS bigint[] AS 'MODULE_PATHNAME', 'sixtyfour_bulk_async'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_find_phone_bulk_async(jsonb, jsonb) IS
'a job for each lead of a JSON array of any length; returns their ids in order';

--
-- Jobs and calls that exist
--

CREATE FUNCTION sixtyfour_wait(job bigint, timeout interval DEFAULT NULL)
	RETURNS jsonb AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION sixtyfour_wait(bigint, interval) IS
'wait until a job is finished, and its row written; returns its answer or raises the job''s own error; 08007 if nobody knows whether it was billed, 57014 after the timeout';

CREATE FUNCTION sixtyfour_wait_all(jobs bigint[], timeout interval DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION sixtyfour_wait_all(bigint[], interval) IS
'wait until all jobs are finished, failed or not; tells the progress each 10 s';

CREATE FUNCTION sixtyfour_result(job bigint)
	RETURNS jsonb AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION sixtyfour_result(bigint) IS
'the answer to a job, NULL while there is none; does not wait';

CREATE FUNCTION sixtyfour_cancel(job bigint)
	RETURNS boolean AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_cancel(bigint) IS
'cancel a job that is not finished; what was sent already is billed, and its answer is kept; false if there was nothing to cancel';

CREATE FUNCTION sixtyfour_retry(job bigint)
	RETURNS boolean AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_retry(bigint) IS
'queue a failed or cancelled job again, which may cost again; false if it is neither';

CREATE FUNCTION sixtyfour_resolve(call bigint, action text)
	RETURNS void AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_resolve(bigint, text) IS
'decide about a call of which nobody knows whether it was billed: ''resubmit'' it, ''abandon'' it, or name the task that the service made of it';

CREATE FUNCTION sixtyfour_why(job bigint)
	RETURNS text AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION sixtyfour_why(bigint) IS
'one sentence: what a job is waiting for, or why it failed';

CREATE FUNCTION sixtyfour_pause()
	RETURNS void AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_pause() IS
'submit nothing more from this database; what was submitted is followed to its end';

CREATE FUNCTION sixtyfour_resume()
	RETURNS void AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_resume() IS
'submit again; in a copy of a database, also what the copy brought along';

--
-- Views.  A role sees its own rows, pg_monitor all.
--

CREATE VIEW sixtyfour.jobs WITH (security_barrier) AS
	SELECT id, state, delivery, operation, priority, run_at, body, server,
		   owner, payer, enqueued_at, finished_at, attempts, call, result,
		   enrichment, row_key, sqlstate, message
	FROM sixtyfour.job
	WHERE pg_has_role(owner::oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE');
GRANT SELECT ON sixtyfour.jobs TO PUBLIC;
COMMENT ON VIEW sixtyfour.jobs IS
'jobs: state is queued, sending, running, uncertain, succeeded, failed or cancelled; delivery none, pending, applied or unapplied';

CREATE VIEW sixtyfour.calls WITH (security_barrier) AS
	SELECT id, uuid, state, operation, items, server, payer, task_id,
		   expected_cents, cents, created_at, accepted_at, finished_at,
		   sqlstate, message, raw
	FROM sixtyfour.call c
	WHERE pg_has_role('pg_monitor', 'USAGE') OR EXISTS (
		SELECT FROM sixtyfour.job j
		WHERE j.call = c.id AND pg_has_role(j.owner::oid, 'USAGE'));
GRANT SELECT ON sixtyfour.calls TO PUBLIC;
COMMENT ON VIEW sixtyfour.calls IS
'submissions to the service, of 1 to 100 jobs each: what they were expected to cost and did cost, in cents';

CREATE VIEW sixtyfour.results WITH (security_barrier) AS
	SELECT id, call, item, operation, answer, cents, created_at
	FROM sixtyfour.result r
	WHERE pg_has_role('pg_monitor', 'USAGE') OR EXISTS (
		SELECT FROM sixtyfour.job j
		WHERE j.result = r.id AND pg_has_role(j.owner::oid, 'USAGE'));
GRANT SELECT ON sixtyfour.results TO PUBLIC;
COMMENT ON VIEW sixtyfour.results IS
'paid answers, each with its share of the call''s cents';

CREATE VIEW sixtyfour.attention WITH (security_barrier) AS
	SELECT 'call' AS kind, id, operation, message AS reason,
		   expected_cents AS cents_at_risk, created_at AS since,
		   format('sixtyfour_resolve(%s, ''resubmit'' | ''abandon'' | task id)', id) AS what_to_do
	FROM sixtyfour.calls WHERE state IN ('uncertain', 'expired')
	UNION ALL
	SELECT 'job', id, operation, message, 0, finished_at,
		   format('mend the row, then sixtyfour_reapply(%L)',
				  (SELECT name FROM sixtyfour.enrichment e WHERE e.id = enrichment))
	FROM sixtyfour.jobs WHERE delivery = 'unapplied';
GRANT SELECT ON sixtyfour.attention TO PUBLIC;
COMMENT ON VIEW sixtyfour.attention IS
'what a person must decide: calls that may have been billed without an answer, and answers that could not be written to their rows';
