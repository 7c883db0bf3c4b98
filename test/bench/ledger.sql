-- The ledger under load: what test/bench/ledger runs.  The statements are those
-- of queue.c, claim.c, ledger.c and delivery.c, for 500 jobs at a time; each
-- transaction is one of theirs.
CREATE SCHEMA bench;

-- The queue is filled as by sixtyfour_run_enrichment(), 1,000 rows at a time.
CREATE PROCEDURE bench.enqueue(n integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 0 .. n / 1000 - 1 LOOP
		INSERT INTO sixtyfour.job (operation, server, owner, payer, priority, run_at, enrichment,
				home_system, home_database, body, fingerprint, row_key, row_input)
			SELECT 'find_email', 'sixtyfour', 10, 10, 200, now(), 1, 1, 1, body, md5(body::text)::uuid,
				jsonb_build_object('id', k), jsonb_build_object('name', body -> 'lead' -> 'name', 'company', body -> 'lead' -> 'company')
			FROM generate_series(i * 1000 + 1, i * 1000 + 1000) k,
				LATERAL (SELECT jsonb_build_object('lead', jsonb_build_object(
					'name', 'Person Number ' || k, 'company', 'Company ' || k / 10)) AS body) b;
		COMMIT;
	END LOOP;
END $$;

-- T1 for the next 500 jobs of the lane: five calls of a hundred
CREATE PROCEDURE bench.send(INOUT place timestamptz, INOUT place_id bigint, INOUT calls bigint[]) LANGUAGE plpgsql AS $$
DECLARE
	jobs bigint[];
BEGIN
	SELECT array_agg(id ORDER BY run_at, id), max(run_at) INTO jobs, place FROM (
		SELECT run_at, id FROM sixtyfour.job
		WHERE home_system = 1 AND home_database = 1 AND state = 'queued' AND server = 'sixtyfour'
			AND payer::oid = 10 AND priority = 200 AND (run_at, id) >= (place, place_id)
		ORDER BY run_at, id LIMIT 500) j;
	IF jobs IS NULL THEN
		calls := NULL;
		RETURN;
	END IF;
	place_id := jobs[cardinality(jobs)] + 1;
	WITH c AS (INSERT INTO sixtyfour.call (operation, items, server, payer, account, expected_cents,
			home_system, home_database, epoch)
		SELECT 'find_email', 100, 'sixtyfour', 10, '00000000-0000-0000-0000-000000000001', 500, 1, 1, 1
		FROM generate_series(1, cardinality(jobs) / 100) RETURNING id)
	SELECT array_agg(id ORDER BY id) INTO calls FROM c;
	WITH u AS (SELECT calls[(k - 1) / 100 + 1] AS call, (k - 1) % 100 AS item, job
			FROM unnest(jobs) WITH ORDINALITY AS u (job, k)),
		subjects AS (INSERT INTO sixtyfour.call_subject
			SELECT u.call, u.item, j.body -> 'lead' FROM u JOIN sixtyfour.job j ON j.id = u.job)
	INSERT INTO sixtyfour.call_item (call, item, account, fingerprint)
		SELECT u.call, u.item, '00000000-0000-0000-0000-000000000001', j.fingerprint FROM u JOIN sixtyfour.job j ON j.id = u.job;
	UPDATE sixtyfour.job SET state = 'sending', call = calls[(k - 1) / 100 + 1], item = (k - 1) % 100
		FROM unnest(jobs) WITH ORDINALITY AS u (id, k) WHERE job.id = u.id;
	COMMIT;
END $$;

-- The jobs of these calls follow them.
CREATE PROCEDURE bench.carry(calls bigint[]) LANGUAGE sql AS $$
	WITH lagging AS (SELECT j.id, r.id AS result,
			CASE c.state WHEN 'accepted' THEN 'running' ELSE 'succeeded' END AS state
		FROM sixtyfour.job j JOIN sixtyfour.call c ON c.id = j.call
			LEFT JOIN sixtyfour.result r ON r.call = j.call AND r.item = j.item
		WHERE j.state IN ('sending', 'running', 'uncertain') AND j.call = ANY (calls)
		FOR NO KEY UPDATE OF j SKIP LOCKED)
	UPDATE sixtyfour.job SET state = l.state, result = l.result,
		finished_at = CASE l.state WHEN 'succeeded' THEN clock_timestamp() END,
		delivery = CASE l.state WHEN 'succeeded' THEN 'pending' ELSE delivery END
	FROM lagging l WHERE job.id = l.id;
$$;

-- T2, T3 and T4 of these calls
CREATE PROCEDURE bench.finish(calls bigint[]) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE sixtyfour.call SET state = 'accepted', task_id = 'task_' || uuid, accepted_at = clock_timestamp()
		WHERE id = ANY (calls);
	CALL bench.carry(calls);
	COMMIT;
	WITH changed AS (UPDATE sixtyfour.call SET state = 'done', cents = 500, finished_at = clock_timestamp()
		WHERE id = ANY (calls) RETURNING id)
	UPDATE sixtyfour.call_item SET open = false FROM changed WHERE call_item.call = changed.id;
	INSERT INTO sixtyfour.result (call, item, account, fingerprint, operation, answer, cents)
		SELECT i.call, i.item, i.account, i.fingerprint, 'find_email', s.subject ||
			jsonb_build_object('email', jsonb_build_array(jsonb_build_array('person.' || i.item || '@company.example', 'OK', 'COMPANY'))), 5
		FROM sixtyfour.call_item i JOIN sixtyfour.call_subject s USING (call, item) WHERE i.call = ANY (calls);
	CALL bench.carry(calls);
	COMMIT;
	UPDATE sixtyfour.job SET delivery = 'applied', sqlstate = NULL, message = NULL WHERE call = ANY (calls);
	COMMIT;
END $$;

-- Where the worker is in the queue, and the calls that are under way
CREATE TABLE bench.worker (place timestamptz, place_id bigint, open bigint[]);

-- Ten turns of the worker: 500 jobs are sent, and the oldest calls finished, if
-- 50 are under way.  Not more, as what autovacuum goes by is counted between statements.
CREATE PROCEDURE bench.work() LANGUAGE plpgsql AS $$
DECLARE
	at bench.worker;
	sent bigint[];
BEGIN
	SELECT * INTO at FROM bench.worker;
	FOR i IN 1 .. 10 LOOP
		CALL bench.send(at.place, at.place_id, sent);
		at.open := at.open || sent;
		IF cardinality(at.open) >= 50 OR sent IS NULL THEN
			CALL bench.finish(at.open[1:5]);
			at.open := at.open[6:];
		END IF;
	END LOOP;
	UPDATE bench.worker SET place = at.place, place_id = at.place_id, open = at.open;
END $$;

-- The median time of a statement, in ms
CREATE FUNCTION bench.time_of(statement text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	times float8[];
	began timestamptz;
BEGIN
	FOR i IN 1 .. 21 LOOP
		began := clock_timestamp();
		EXECUTE statement;
		times := times || 1000 * extract(epoch FROM clock_timestamp() - began)::float8;
	END LOOP;
	RETURN (SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t)::numeric, 2) FROM unnest(times) t);
END $$;

CREATE VIEW bench.sizes AS
	SELECT relname AS table, n_live_tup AS live, n_dead_tup AS dead, n_tup_hot_upd AS hot, n_tup_upd AS updated,
		round(pg_table_size(relid) / 1e6, 1) AS table_mb, round(pg_indexes_size(relid) / 1e6, 1) AS indexes_mb,
		vacuum_count + autovacuum_count AS vacuums
	FROM pg_stat_all_tables WHERE schemaname = 'sixtyfour' AND pg_table_size(relid) > 100000 ORDER BY relname;
CREATE VIEW bench.indexes AS
	SELECT indexrelname AS index, round(pg_relation_size(indexrelid) / 1e6, 1) AS mb, idx_scan AS scans
	FROM pg_stat_all_indexes WHERE schemaname = 'sixtyfour' AND relname IN ('job', 'call_item') ORDER BY indexrelname;
