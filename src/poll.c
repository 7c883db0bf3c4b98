/*-------------------------------------------------------------------------
 *
 * poll.c
 *		Asks the service about the tasks that are due.
 *
 * What was accepted is paid for, so asking about it takes neither USAGE nor
 * an account that may spend: only a key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "flight.h"
#include "ledger.h"
#include "meter.h"
#include "payer.h"
#include "poll.h"
#include "schedule.h"
#include "sql.h"
#include "tasks.h"

#define POLL_TIMEOUT	30000	/* ms */
#define ERROR_PAUSE		INT64CONST(1000000) /* µs */
#define FULL_RECHECK	INT64CONST(20000)	/* µs, when there was no room */

/* What one pass gathers, all in the transaction's context */
typedef struct Pass
{
	int64		epoch;
	List	   *payers;
	List	   *flights;		/* to be started after the commit */
	List	   *expired;		/* tasks that are not followed any more */
	Task	   *task;			/* taken from the tasks, in no flight yet */
	bool		full;
} Pass;

/* Its account cannot be used: try later, or let it expire. */
static void
put_off(Pass *pass, Task *task, const Payer *payer, TimestampTz now)
{
	bool		delivering;

	if (!task->unproven &&
		task->accepted_at + s64_schedule_deadline(task->operation) <= now)
	{
		pass->expired = lappend(pass->expired, task);
		pass->task = NULL;
		s64_ledger_expired(task->call, pass->epoch,
						   psprintf("the service could not be asked for the answer: %s",
									payer->problem));
		s64_ledger_carry(&task->call, 1, &delivering);
		return;
	}
	s64_tasks_put_back(task, payer->blocked_until);
	pass->task = NULL;
}

/* Prepare a poll, or put it off. */
static void
prepare(Pass *pass, TimestampTz now)
{
	Task	   *task = pass->task = s64_tasks_take();
	Payer	   *payer = s64_payer_get(&pass->payers, task->server, task->payer, false);
	Flight	   *flight;
	MemoryContext old;
	int64		wait;

	if (payer->account == NULL)
	{
		put_off(pass, task, payer, now);
		return;
	}
	wait = s64_meter_take(payer->account, now);
	if (wait > 0)
	{
		s64_tasks_put_back(task, task->due);
		pass->task = NULL;
		s64_tasks_block(task, now + wait);
		return;
	}
	pass->flights = lappend(pass->flights, NULL);
	flight = s64_flight_new(task->call);
	llast(pass->flights) = flight;
	old = MemoryContextSwitchTo(flight->context);
	flight->items = task->items;
	flight->account = s64_account_copy(payer->account);
	flight->endpoint = s64_endpoint_find(task->operation);
	flight->request = s64_request_make_poll(flight->account,
											s64_endpoint_follow(flight->endpoint),
											task->task_id);
	MemoryContextSwitchTo(old);
	flight->task = task;
	pass->task = NULL;
}

static void
gather(Pass *pass, TimestampTz now)
{
	int			room = s64_flight_limit() - s64_flight_count();

	while (list_length(pass->flights) < room)
	{
		if (s64_tasks_due() > now)
			return;
		prepare(pass, now);
	}
	pass->full = true;
}

/* Nothing of this pass is polled: the tasks go back. */
static void
drop(Pass *pass)
{
	TimestampTz later = GetCurrentTimestamp() + ERROR_PAUSE;
	ListCell   *lc;

	if (pass->task != NULL)
		s64_tasks_put_back(pass->task, later);
	foreach(lc, pass->expired)
		s64_tasks_put_back(lfirst(lc), later);
	foreach(lc, pass->flights)
	{
		Flight	   *flight = lfirst(lc);

		if (flight == NULL)
			continue;
		if (flight->task != NULL)
			s64_tasks_put_back(flight->task, later);
		s64_flight_free(flight);
	}
}

/* Poll what is due now; returns whether there was room for all. */
static bool
poll(int64 epoch, TimestampTz now, bool *changed)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "sixtyfour polls",
												  ALLOCSET_DEFAULT_SIZES);
	Pass	   *pass = MemoryContextAllocZero(context, sizeof(Pass));
	ListCell   *lc;
	bool		full;

	pass->epoch = epoch;
	PG_TRY();
	{
		s64_sql_start_transaction();
		MemoryContextSwitchTo(context);
		gather(pass, now);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		drop(pass);
		PG_RE_THROW();
	}
	PG_END_TRY();

	foreach(lc, pass->flights)
		s64_flight_start(lfirst(lc), POLL_TIMEOUT);
	foreach(lc, pass->expired)
	{
		Task	   *task = lfirst(lc);

		s64_meter_correct(&task->account, -task->expected_cents,
						  task->expected_cents, task->reserved_at);
		s64_tasks_free(task);
	}
	*changed |= pass->expired != NIL;
	full = pass->full;
	MemoryContextDelete(context);
	return !full;
}

TimestampTz
s64_poll_due(int64 epoch, bool *changed)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz earliest = 0;

	if (s64_tasks_due() <= now && !poll(epoch, now, changed))
		earliest = now + FULL_RECHECK;
	return Max(s64_tasks_due(), earliest);
}
