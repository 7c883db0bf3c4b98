/*-------------------------------------------------------------------------
 *
 * progress.c
 *		Waits until an enrichment is done; asks for its answers again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "delivery.h"
#include "enrichment.h"
#include "errand.h"
#include "roster.h"
#include "sql.h"

#define NOTICE_EVERY 10000		/* ms */
#define LONGEST_WAIT 1000		/* ms; a process that dies announces nothing */

S64_FUNCTION(sixtyfour_wait_enrichment);
S64_FUNCTION(sixtyfour_reapply);

typedef struct Progress
{
	int64		total;
	int64		unfinished;
	int64		pending;		/* answers on their way to the table */
	int64		held;			/* those of them that wait for a locked row */
} Progress;

static SqlStatement select_progress = {
	"SELECT count(*),"
	" count(*) FILTER (WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'uncertain')),"
	" count(*) FILTER (WHERE delivery = 'pending'),"
	" count(*) FILTER (WHERE delivery = 'pending' AND sqlstate = '55P03')"
	" FROM sixtyfour.job WHERE enrichment = $1",
	1, {INT4OID}, NULL
};

static SqlStatement select_uncertain = {
	"SELECT count(*), min(call) FROM sixtyfour.job WHERE enrichment = $1 AND state = 'uncertain'",
	1, {INT4OID}, NULL
};

/* Jobs that were written since this transaction began, perhaps by it */
static SqlStatement select_recent = {
	"SELECT DISTINCT xmin FROM sixtyfour.job WHERE enrichment = $1"
	" AND state = 'queued' AND enqueued_at >= now()",
	1, {INT4OID}, NULL
};

static Progress
get_progress(int enrichment)
{
	Datum		value = Int32GetDatum(enrichment);
	Progress	p;

	s64_sql_begin();
	s64_sql_run_latest(&select_progress, &value, NULL);
	p.total = s64_sql_int8(0, 1);
	p.unfinished = s64_sql_int8(0, 2);
	p.pending = s64_sql_int8(0, 3);
	p.held = s64_sql_int8(0, 4);
	s64_sql_end();
	return p;
}

/* Nothing is sent before this transaction ends, so it must not wait for it. */
static void
refuse_own_jobs(const Enrichment *e)
{
	Datum		value = Int32GetDatum(e->id);
	uint64		rows;
	bool		own = false;

	s64_sql_begin();
	rows = s64_sql_run(&select_recent, &value, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		TransactionId xmin = DatumGetTransactionId(s64_sql_value(i, 1, &isnull));

		own |= TransactionIdIsCurrentTransactionId(xmin);
	}
	s64_sql_end();
	if (own)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for enrichment \"%s\" in the transaction that queued its rows",
						e->name),
				 errhint("Nothing is sent before COMMIT.")));
}

static void
refuse_uncertain(const Enrichment *e)
{
	Datum		value = Int32GetDatum(e->id);
	int64		count;
	int64		call;

	s64_sql_begin();
	s64_sql_run_latest(&select_uncertain, &value, NULL);
	count = s64_sql_int8(0, 1);
	call = s64_sql_int8(0, 2);
	s64_sql_end();
	if (count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("%lld rows of enrichment \"%s\" may have been asked about and billed, but the answer is unknown",
						(long long) count, e->name),
				 errdetail("Call " INT64_FORMAT " is one that is uncertain.", call),
				 errhint("Look at sixtyfour.attention, and use sixtyfour_resolve().")));
}

/* Is it done?  Says what is worth saying. */
static bool
is_done(const Enrichment *e, TimestampTz *said)
{
	Progress	p = get_progress(e->id);
	TimestampTz now = GetCurrentTimestamp();

	if (p.unfinished == 0 && p.pending == p.held)
	{
		if (p.held > 0)
			ereport(NOTICE,
					(errmsg("%lld answers wait for rows that other transactions have locked",
							(long long) p.held)));
		return true;
	}
	if (!s64_roster_is_there())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no worker that could answer"),
				 errhint("Set shared_preload_libraries = 'sixtyfour' and restart the server.")));
	if (TimestampDifferenceExceeds(*said, now, NOTICE_EVERY))
	{
		ereport(NOTICE,
				(errmsg("enrichment \"%s\": %lld of %lld rows are done", e->name,
						(long long) (p.total - p.unfinished - p.pending), (long long) p.total)));
		*said = now;
	}
	return false;
}

static TimestampTz
deadline_of(Interval *timeout)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(timeout)));
}

/* sixtyfour_wait_enrichment(name text, timeout interval) → void */
Datum
sixtyfour_wait_enrichment(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = DT_NOEND;
	TimestampTz said = GetCurrentTimestamp();
	Enrichment *e;
	long		timeout;

	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();
	if (!PG_ARGISNULL(1))
		deadline = deadline_of(PG_GETARG_INTERVAL_P(1));
	e = s64_enrichment_command(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	refuse_own_jobs(e);
	for (;;)
	{
		s64_roster_prepare_wait();
		if (is_done(e, &said))
			break;
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("enrichment \"%s\" was not done before the timeout", e->name)));
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		s64_roster_wait(Min(timeout, LONGEST_WAIT));
	}
	s64_roster_cancel_wait();
	refuse_uncertain(e);
	PG_RETURN_VOID();
}

/* sixtyfour_reapply(name text) → bigint */
Datum
sixtyfour_reapply(PG_FUNCTION_ARGS)
{
	Enrichment *e = s64_enrichment_command(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	int64		n = s64_delivery_again(e->id);

	if (n > 0)
		s64_errand_wake(PROCESS_WRITER);
	PG_RETURN_INT64(n);
}
