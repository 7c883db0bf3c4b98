/*-------------------------------------------------------------------------
 *
 * inbox.c
 *		Makes jobs of what sessions ask the worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "ask.h"
#include "inbox.h"
#include "queue.h"
#include "sql.h"

static SqlStatement cancel_jobs = {
	"UPDATE sixtyfour.job SET state = 'cancelled', finished_at = clock_timestamp(),"
	" message = 'the session that asked did not wait for it'"
	" WHERE id IN (SELECT id FROM sixtyfour.job WHERE id = ANY ($1) AND state = 'queued'"
	"              FOR NO KEY UPDATE SKIP LOCKED)",
	1, {INT8ARRAYOID}, NULL
};

/* Which of these jobs have something to say to who waits for them? */
static SqlStatement select_news = {
	"SELECT id FROM sixtyfour.job WHERE id = ANY ($1)"
	" AND state NOT IN ('sending', 'running') AND (state <> 'queued' OR sqlstate IS NOT NULL)",
	1, {INT8ARRAYOID}, NULL
};

static int64
queue(const Ask *ask)
{
	JobKind		kind = {0};
	JobSpec		spec = {0};
	int64		id;

	kind.endpoint = s64_endpoint_find(ask->operation);
	kind.server = ask->server;
	kind.owner = ask->role;
	kind.payer = ask->role;
	kind.priority = S64_ASKED_PRIORITY;
	kind.run_at = GetCurrentTimestamp();
	kind.cache_ttl = ask->cache_ttl;
	spec.body = ask->body;
	s64_queue_add(&kind, &spec, 1, &id);
	return id;
}

/* Queue n of them in one transaction. */
static void
queue_together(const TakenAsk *asks, int n, int64 *jobs)
{
	s64_sql_start_transaction();
	for (int i = 0; i < n; i++)
		jobs[i] = queue(&asks[i].ask);
	CommitTransactionCommand();
	for (int i = 0; i < n; i++)
		s64_ask_queued(&asks[i], jobs[i]);
}

/* Queue one alone, or tell its session why not. */
static void
queue_alone(const TakenAsk *ask, MemoryContext context)
{
	int64		job;

	PG_TRY();
	{
		queue_together(ask, 1, &job);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		s64_ask_refuse(ask, error->sqlerrcode, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

static void
queue_all(const TakenAsk *asks, int n)
{
	MemoryContext context = CurrentMemoryContext;
	int64	   *jobs = palloc((n + 1) * sizeof(int64));
	volatile bool together = true;

	PG_TRY();
	{
		queue_together(asks, n, jobs);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		together = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	for (int i = 0; !together && i < n; i++)
		queue_alone(&asks[i], context);
}

static void
cancel_abandoned(void)
{
	int64	   *jobs;
	int			n = s64_ask_abandoned(&jobs);
	Datum		value;

	if (n == 0)
		return;
	s64_sql_start_transaction();
	value = s64_sql_int8_array(jobs, n);
	s64_sql_execute(&cancel_jobs, &value, NULL);
	CommitTransactionCommand();
}

bool
s64_inbox_empty(void)
{
	MemoryContext context = CurrentMemoryContext;
	TakenAsk   *asks;
	int			n;

	if (!s64_ask_is_due())
		return false;
	cancel_abandoned();
	MemoryContextSwitchTo(context);
	asks = palloc(S64_ASK_TAKE_MAX * sizeof(TakenAsk));
	n = s64_ask_take(S64_ASK_TAKE_MAX, asks);
	if (n > 0)
	{
		queue_all(asks, n);
		cancel_abandoned();
	}
	return true;
}

void
s64_inbox_tell(void)
{
	MemoryContext context = CurrentMemoryContext;
	int64	   *jobs;
	int64	   *news;
	int			n = s64_ask_waiting(&jobs);
	uint64		rows;
	Datum		value;

	if (n == 0)
		return;
	s64_sql_start_transaction();
	value = s64_sql_int8_array(jobs, n);
	s64_sql_begin();
	rows = s64_sql_run(&select_news, &value, NULL);
	news = MemoryContextAlloc(context, (rows + 1) * sizeof(int64));
	for (uint64 i = 0; i < rows; i++)
		news[i] = s64_sql_int8(i, 1);
	s64_sql_end();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	s64_ask_tell(news, (int) rows);
}
