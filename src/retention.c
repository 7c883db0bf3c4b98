/*-------------------------------------------------------------------------
 *
 * retention.c
 *		What the ledger holds no longer than it should.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "home.h"
#include "retention.h"
#include "sql.h"

#define BATCH "500"				/* rows looked at in one transaction */
#define BATCH_GAP		INT64CONST(200000)	/* µs between two of them */
#define ERROR_GAP		INT64CONST(600000000)	/* µs, after an error */
#define HELD_GAP		INT64CONST(60000000)	/* µs, after a lock that was held */
#define SWEEP_GAP		INT64CONST(10000000)	/* µs, while something is to come */
#define PASSES			20		/* within the shorter retention */
#define SHORTEST_GAP	1		/* s, between two passes */
#define LONGEST_GAP		(6 * 3600)
#define SHORTEST_LIFE	60		/* s: who waits for a job has to see its end */

/*
 * The statements of a pass get a position ($1), and the times before which
 * jobs ($2) and answers ($3) are too old.  They return the position where the
 * next batch begins and whether it may find something.
 *
 * A batch is bounded by what it looks at, not by what it finds: there may be
 * many rows that stay.  Numbers and times rise together but for moments, so a
 * batch without an old row ends the walk.
 */
#define OPEN_CALL "('sending', 'accepted', 'uncertain', 'expired')"
#define OPEN_JOB "('sending', 'running', 'uncertain')"
#define SEEN(table, since, condition) \
	"WITH seen AS MATERIALIZED (SELECT id, " since " AS since FROM sixtyfour." table \
	" WHERE id > $1" condition " ORDER BY id LIMIT " BATCH "),"
#define RETURNING(cutoff) \
	" SELECT max(id), coalesce(min(since) < " cutoff ", false) FROM seen"

/* Of the same row of an enrichment (its index may have the hash) */
#define SAME_ROW(other) \
	other ".enrichment = j.enrichment AND " other ".row_key = j.row_key" \
	" AND jsonb_hash_extended(" other ".row_key, 0) = jsonb_hash_extended(j.row_key, 0)"

/*
 * The job that tells that a row was asked about is the last that was answered.
 * It is of no more use once a later answer is in the row; but must not go while
 * an earlier one waits that it supersedes.
 */
static SqlStatement prune_jobs = {
	SEEN("job", "enqueued_at", "")
	" doomed AS MATERIALIZED (SELECT j.id FROM sixtyfour.job j"
	"  WHERE j.id IN (SELECT id FROM seen) AND j.finished_at < $2"
	"  AND j.state IN ('succeeded', 'failed', 'cancelled') AND j.delivery IN ('none', 'applied')"
	"  AND NOT EXISTS (SELECT FROM sixtyfour.call c WHERE c.id = j.call AND c.state IN " OPEN_CALL ")"
	"  AND (j.state <> 'succeeded' OR j.enrichment IS NULL"
	"   OR NOT EXISTS (SELECT FROM sixtyfour.enrichment e WHERE e.id = j.enrichment)"
	"   OR EXISTS (SELECT FROM sixtyfour.job l WHERE " SAME_ROW("l")
	"    AND l.id > j.id AND l.delivery = 'applied')"
	"   OR j.finished_at < $3 AND NOT EXISTS (SELECT FROM sixtyfour.job o WHERE " SAME_ROW("o")
	"    AND o.id < j.id AND o.delivery IN ('pending', 'unapplied')))"
	"  FOR UPDATE OF j SKIP LOCKED),"
	" gone AS (DELETE FROM sixtyfour.job WHERE id IN (SELECT id FROM doomed))"
	RETURNING("$2"),
	3, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID}, NULL
};

/* An answer is needed by what is on its way home, or will be. */
static SqlStatement prune_results = {
	SEEN("result", "created_at", "")
	" doomed AS MATERIALIZED (SELECT r.id FROM sixtyfour.result r"
	"  WHERE r.id IN (SELECT id FROM seen) AND r.created_at < $3"
	"  AND NOT EXISTS (SELECT FROM sixtyfour.job j WHERE j.result = r.id AND j.delivery = 'unapplied')"
	"  AND NOT EXISTS (SELECT FROM sixtyfour.job j WHERE j.result = r.id AND j.delivery = 'pending')"
	"  AND NOT EXISTS (SELECT FROM sixtyfour.job j WHERE j.call = r.call AND j.item = r.item"
	"   AND j.state IN " OPEN_JOB ")"
	"  FOR UPDATE OF r SKIP LOCKED),"
	" gone AS (DELETE FROM sixtyfour.result WHERE id IN (SELECT id FROM doomed))"
	RETURNING("$3"),
	3, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID}, NULL
};

/*
 * Calls bring up to 100 items each, which are counted.  They go when nothing
 * refers to them any more.
 */
#define PRUNE_CALLS(condition, cutoff) \
	"WITH seen AS MATERIALIZED (SELECT id, since FROM" \
	"  (SELECT id, created_at AS since, sum(items) OVER (ORDER BY id) - items AS before FROM" \
	"   (SELECT id, created_at, items FROM sixtyfour.call WHERE id > $1" condition \
	"    ORDER BY id LIMIT " BATCH ") c) c WHERE before < " BATCH ")," \
	" doomed AS MATERIALIZED (SELECT c.id FROM sixtyfour.call c" \
	"  WHERE c.id IN (SELECT id FROM seen) AND c.finished_at < " cutoff \
	"  AND c.state NOT IN " OPEN_CALL \
	"  AND NOT EXISTS (SELECT FROM sixtyfour.result r WHERE r.call = c.id)" \
	"  AND NOT EXISTS (SELECT FROM sixtyfour.job j WHERE j.call = c.id)" \
	"  FOR UPDATE OF c SKIP LOCKED)," \
	" items AS (DELETE FROM sixtyfour.call_item WHERE call IN (SELECT id FROM doomed))," \
	" subjects AS (DELETE FROM sixtyfour.call_subject WHERE call IN (SELECT id FROM doomed))," \
	" gone AS (DELETE FROM sixtyfour.call WHERE id IN (SELECT id FROM doomed))" \
	RETURNING(cutoff)

static SqlStatement prune_rejected = {
	PRUNE_CALLS(" AND state = 'rejected'", "$2"),
	3, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID}, NULL
};

static SqlStatement prune_calls = {
	PRUNE_CALLS("", "$3"),
	3, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID}, NULL
};

static SqlStatement *const steps[] = {
	&prune_jobs, &prune_results, &prune_rejected, &prune_calls
};

/*
 * An answer may be stored at the same moment as somebody forgets whom it is
 * about.  Once the call is closed nothing more comes.
 */
static SqlStatement sweep = {
	"WITH swept AS MATERIALIZED (SELECT f.call, f.item FROM sixtyfour.forgotten f"
	"  WHERE NOT EXISTS (SELECT FROM sixtyfour.call c WHERE c.id = f.call AND c.state IN " OPEN_CALL ")"
	"  LIMIT " BATCH " FOR UPDATE OF f SKIP LOCKED),"
	" results AS (DELETE FROM sixtyfour.result r USING swept s"
	"  WHERE r.call = s.call AND r.item = s.item"
	"  AND NOT EXISTS (SELECT FROM sixtyfour.job j WHERE j.fingerprint = r.fingerprint AND j.result = r.id)),"
	" items AS (DELETE FROM sixtyfour.call_item i USING swept s"
	"  WHERE i.call = s.call AND i.item = s.item),"
	" calls AS (UPDATE sixtyfour.call SET " S64_FORGET_WORDS ", raw = NULL"
	"  WHERE id IN (SELECT call FROM swept) AND coalesce(raw, message, detail) IS NOT NULL)"
	" DELETE FROM sixtyfour.forgotten f USING swept s WHERE f.call = s.call AND f.item = s.item",
	0, {0}, NULL
};

/* Calls that will end by themselves, or have */
static SqlStatement select_to_sweep = {
	"SELECT 1 FROM sixtyfour.forgotten f WHERE NOT EXISTS (SELECT FROM sixtyfour.call c"
	"  WHERE c.id = f.call AND c.state IN ('uncertain', 'expired')) LIMIT 1",
	0, {0}, NULL
};

#define HOME " AND home_system = $1 AND home_database = $2"

static SqlStatement select_pruned_at = {
	"SELECT pruned_at FROM sixtyfour.state WHERE pruned_at IS NOT NULL" HOME,
	2, {INT8OID, OIDOID}, NULL
};

static SqlStatement set_pruned_at = {
	"UPDATE sixtyfour.state SET pruned_at = clock_timestamp()"
	" WHERE EXISTS (SELECT FROM sixtyfour.state WHERE true" HOME " FOR NO KEY UPDATE SKIP LOCKED)" HOME,
	2, {INT8OID, OIDOID}, NULL
};

static struct
{
	TimestampTz pruned_at;		/* the last pass ended; 0: not known */
	int			step;			/* of the pass that is on; the end if none is */
	int64		position;		/* in this step */
	TimestampTz sweep_at;		/* look for what came for the forgotten */
	TimestampTz not_before;		/* neither this nor a batch */
} pass = {.step = lengthof(steps)};

static bool
is_on(void)
{
	return pass.step < (int) lengthof(steps);
}

/* When the next pass begins; follows the settings. */
static TimestampTz
next_pass(void)
{
	int			shorter = s64_guc_retention;
	int			gap;

	if (shorter < 0 || (s64_guc_result_retention >= 0 && s64_guc_result_retention < shorter))
		shorter = s64_guc_result_retention;
	gap = shorter < 0 ? LONGEST_GAP
		: Max(SHORTEST_GAP, Min(shorter / PASSES, LONGEST_GAP));
	return pass.pruned_at + gap * USECS_PER_SEC;
}

static Datum
cutoff(int retention)
{
	if (retention < 0)
		return TimestampTzGetDatum(DT_NOBEGIN);
	return TimestampTzGetDatum(GetCurrentTimestamp() -
							   Max(retention, SHORTEST_LIFE) * USECS_PER_SEC);
}

static Datum *
home_values(Datum *values)
{
	values[0] = Int64GetDatum(s64_home_system());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	return values;
}

static void
prune_batch(void)
{
	Datum		values[3] = {Int64GetDatum(pass.position), cutoff(s64_guc_retention),
	cutoff(s64_guc_result_retention)};
	bool		isnull;

	s64_sql_run(steps[pass.step], values, NULL);
	if (DatumGetBool(s64_sql_value(0, 2, &isnull)))
	{
		pass.position = s64_sql_int8(0, 1);
		return;
	}
	pass.position = 0;
	pass.step++;
	if (!is_on())
	{
		pass.pruned_at = GetCurrentTimestamp();
		s64_sql_run(&set_pruned_at, home_values(values), NULL);
	}
}

/* The ledger knows when the last pass ended, as processes come and go. */
static void
begin_pass(void)
{
	Datum		values[2];
	bool		isnull;

	pass.pruned_at = 0;
	if (s64_sql_run(&select_pruned_at, home_values(values), NULL) > 0)
		pass.pruned_at = DatumGetTimestampTz(s64_sql_value(0, 1, &isnull));
	if (next_pass() > GetCurrentTimestamp())
		return;
	pass.step = 0;
	pass.position = 0;
}

static void
do_turn(void)
{
	s64_sql_begin();
	s64_sql_run(&sweep, NULL, NULL);
	pass.sweep_at = s64_sql_run(&select_to_sweep, NULL, NULL) > 0
		? GetCurrentTimestamp() + SWEEP_GAP : DT_NOEND;
	if (!is_on())
		begin_pass();
	if (is_on())
	{
		prune_batch();
		pass.not_before = GetCurrentTimestamp() + BATCH_GAP;
	}
	s64_sql_end();
}

/*
 * Settings for this transaction: nothing is lost if a crash undoes it, the
 * answers that the writer has for the rows must not wait for anybody, and
 * no guess of the planner shall read a table of millions for a few rows.
 */
static void
set_settings(void)
{
	static const char *const settings[][2] = {
		{"synchronous_commit", "off"},
		{"lock_timeout", "1s"},
		{"enable_seqscan", "off"},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* What stood in the way is tried again; where a lock did, nobody need know. */
static void
recover(void)
{
	bool		held = geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE;

	HOLD_INTERRUPTS();
	if (!held)
		EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	pass.not_before = GetCurrentTimestamp() + (held ? HELD_GAP : ERROR_GAP);
}

static TimestampTz
next_turn(void)
{
	return Max(pass.not_before, is_on() ? 0 : Min(pass.sweep_at, next_pass()));
}

TimestampTz
s64_retention_turn(bool woken)
{
	MemoryContext context = CurrentMemoryContext;

	if (woken)
		pass.sweep_at = 0;
	if (next_turn() > GetCurrentTimestamp())
		return next_turn();
	pgstat_report_activity(STATE_RUNNING, "sixtyfour: pruning the ledger");
	PG_TRY();
	{
		s64_sql_start_transaction();
		set_settings();
		do_turn();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		recover();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	pgstat_report_stat(true);
	return next_turn();
}
