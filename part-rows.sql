--
-- Tables: enrichments
--

CREATE FUNCTION sixtyfour_enrich_trigger() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION sixtyfour_enrich_trigger() IS
'queues the new rows of a statement for the enrichment named by its argument; AFTER INSERT REFERENCING NEW TABLE, or AFTER UPDATE REFERENCING OLD TABLE and NEW TABLE, FOR EACH STATEMENT; for partitions attached after the enrichment was created';

CREATE FUNCTION sixtyfour_create_enrichment(name text, target regclass,
	operation text, input jsonb, output jsonb, struct jsonb DEFAULT NULL,
	options jsonb DEFAULT NULL, on_insert boolean DEFAULT true,
	on_update boolean DEFAULT false, condition text DEFAULT NULL,
	if_unchanged boolean DEFAULT true, refresh_after interval DEFAULT NULL,
	payer text DEFAULT 'inserter')
	RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_create_enrichment(text, regclass, text, jsonb, jsonb, jsonb, jsonb, boolean, boolean, text, boolean, interval, text) IS
'declares how rows of a table are enriched: input {"field": "column"} is asked of operation find_email, find_phone, enrich_lead, enrich_company or qa_agent, and output {"column": "$.jsonpath"} takes its answer home; struct and options are the rest of the request; condition is like a trigger''s WHEN; payer is inserter or owner; rows written directly to partitions attached later are found by sixtyfour_run_enrichment()';

CREATE FUNCTION sixtyfour_run_enrichment(name text, filter text DEFAULT NULL,
	max_rows bigint DEFAULT NULL)
	RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_run_enrichment(text, text, bigint) IS
'queues the rows of the table that are not enriched yet, those that pass filter (a boolean expression over the row) and at most max_rows, and returns how many; call it again for what is missing';

CREATE FUNCTION sixtyfour_estimate(name text, filter text DEFAULT NULL,
	OUT rows bigint, OUT cached bigint, OUT requests bigint,
	OUT cents_low bigint, OUT cents_high bigint, OUT duration interval)
	RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION sixtyfour_estimate(text, text) IS
'what sixtyfour_run_enrichment() would queue: rows, how many of them stored results answer, requests that would be billed, their price in US cents (NULL: not known) and how long it would take';

CREATE FUNCTION sixtyfour_wait_enrichment(name text, timeout interval DEFAULT NULL)
	RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_wait_enrichment(text, interval) IS
'waits until all jobs of an enrichment are finished and their answers are in the table; says how far it is every 10 seconds; 57014 after timeout';

CREATE FUNCTION sixtyfour_drop_enrichment(name text)
	RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_drop_enrichment(text) IS
'forgets an enrichment: drops its triggers and cancels its jobs that are not sent yet; what the table and the ledger hold is kept';

CREATE FUNCTION sixtyfour_reapply(name text)
	RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sixtyfour_reapply(text) IS
'tries again to write the answers of an enrichment that could not be written (delivery unapplied), without asking again; returns how many';

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
		   CASE WHEN j.queued + j.running > 0 AND j.recent > 0
				THEN now() + (now() - j.since) * (j.queued + j.running) / j.recent
		   END AS eta
	FROM sixtyfour.enrichment e
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
		WHERE id IN (SELECT result FROM sixtyfour.job WHERE enrichment = e.id)) c ON true
	WHERE pg_has_role(e.owner, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE');
GRANT SELECT ON sixtyfour.enrichments TO PUBLIC;
COMMENT ON VIEW sixtyfour.enrichments IS
'enrichments and how far they are, in jobs: queued, running, uncertain, succeeded, failed and cancelled add up to total; pending and unapplied are succeeded ones whose answer is not in the table yet, or could not be written; eta from the pace of the last five minutes';
