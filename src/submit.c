/*-------------------------------------------------------------------------
 *
 * submit.c
 *		Which requests to make next: submissions of calls, polls of tasks.
 *
 * Jobs are read in the order of the queue, sorted into groups that could
 * travel together (one account, operation and manner), and each group is cut
 * into calls: of up to 100 where the service takes them in bulk and BULK_MIN
 * wait, else of one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "flight.h"
#include "ledger.h"
#include "meter.h"
#include "schedule.h"
#include "sql.h"
#include "submit.h"
#include "tasks.h"

#define READ_MAX		500		/* jobs looked at in one pass */
#define CALLS_MAX		200		/* calls opened in one pass */
#define BULK_MIN		10
#define BULK_MAX		100
#define LINGER			INT64CONST(250000)	/* µs that a bulk waits to fill */
#define SUBMIT_TIMEOUT	120000	/* ms: acceptance of a task is quick */
#define POLL_TIMEOUT	30000	/* ms */
#define FULL_RECHECK	INT64CONST(20000)	/* µs, when there was no room */
#define RECHECK			INT64CONST(10000000)	/* µs, of what a person must mend */
#define HELD_RECHECK	INT64CONST(1000000) /* µs, of what a transaction holds */

/* An account met in this pass */
typedef struct Payer
{
	char	   *server;
	Oid			payer;
	Account    *account;		/* NULL: not usable now */
	TimestampTz blocked_until;	/* 0: not blocked */
} Payer;

/* Jobs that can travel together */
typedef struct Batch
{
	Payer	   *payer;
	const Endpoint *endpoint;
	char	   *manner;
	const LedgerJob **jobs;
	int			njobs;
	bool		awaited;		/* other jobs wait to join its calls */
} Batch;

/* What one pass over the queue gathers, all in the transaction's context */
typedef struct Pass
{
	int64		epoch;
	List	   *payers;
	List	   *groups;
	List	   *flights;		/* to be started after the commit */
	Task	   *task;			/* taken from the tasks, in no flight yet */
	const Account *saver;		/* has set aside cents that no flight has yet */
	int			saved;			/* so many */
	TimestampTz again;
	bool		changed;
	bool		delivering;
} Pass;

static void
come_again(Pass *pass, TimestampTz when)
{
	pass->again = Min(pass->again, when);
}

/* ---- payers ---- */

/* Fail a job, or leave it in the queue until somebody mends what is wrong. */
static void
note_unusable(Pass *pass, Payer *payer, const ErrorData *error)
{
	payer->blocked_until = GetCurrentTimestamp() + RECHECK;
	come_again(pass, payer->blocked_until);
	ereport(DEBUG1,
			(errmsg_internal("sixtyfour: jobs over server \"%s\" wait: %s",
							 payer->server, error->message)));
}

static Payer *
get_payer(Pass *pass, const char *server, Oid role)
{
	ListCell   *lc;
	Payer	   *payer;
	ErrorData  *error;

	foreach(lc, pass->payers)
	{
		payer = lfirst(lc);
		if (payer->payer == role && strcmp(payer->server, server) == 0)
			return payer;
	}
	payer = palloc0(sizeof(Payer));
	payer->server = pstrdup(server);
	payer->payer = role;
	payer->account = s64_account_try(server, role, &error);
	if (payer->account == NULL)
		note_unusable(pass, payer, error);
	else
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz until = s64_meter_read(payer->account, now).paused_until;

		if (until > now)
		{
			/* or earlier, as a new key ends the pause */
			payer->blocked_until = Min(until, now + RECHECK);
			come_again(pass, payer->blocked_until);
		}
	}
	pass->payers = lappend(pass->payers, payer);
	return payer;
}

/* "server/oid" of the payers that are blocked, for the ledger to leave out */
static ArrayType *
blocked_payers(const Pass *pass)
{
	Datum	   *datums = palloc((list_length(pass->payers) + 1) * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, pass->payers)
	{
		Payer	   *payer = lfirst(lc);

		if (payer->blocked_until != 0)
			datums[n++] = CStringGetTextDatum(psprintf("%s/%u", payer->server,
													   payer->payer));
	}
	return construct_array(datums, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* ---- groups ---- */

static Batch *
get_group(Pass *pass, Payer *payer, const LedgerJob *job)
{
	char	   *manner = "";
	Batch	   *group;
	ListCell   *lc;

	if (job->endpoint->bulk_path != NULL)
	{
		Jsonb	   *rest = s64_request_manner(job->endpoint, job->body);

		manner = JsonbToCString(NULL, &rest->root, VARSIZE(rest));
	}
	foreach(lc, pass->groups)
	{
		group = lfirst(lc);
		if (group->payer == payer && group->endpoint == job->endpoint &&
			strcmp(group->manner, manner) == 0)
			return group;
	}
	group = palloc0(sizeof(Batch));
	group->payer = payer;
	group->endpoint = job->endpoint;
	group->manner = manner;
	group->jobs = palloc(READ_MAX * sizeof(LedgerJob *));
	pass->groups = lappend(pass->groups, group);
	return group;
}

/* Does a group ask the same question of the same account? */
static bool
asks_the_same(const Batch *group, const Payer *payer, const LedgerJob *job)
{
	if (memcmp(&group->payer->account->id, &payer->account->id, sizeof(AccountId)) != 0)
		return false;
	for (int i = 0; i < group->njobs; i++)
	{
		if (memcmp(&group->jobs[i]->fingerprint, &job->fingerprint,
				   sizeof(pg_uuid_t)) == 0)
			return true;
	}
	return false;
}

/* Is the same question in a group already?  The job then waits for that call. */
static bool
is_asked(Pass *pass, const Payer *payer, const LedgerJob *job)
{
	ListCell   *lc;

	foreach(lc, pass->groups)
	{
		Batch	   *group = lfirst(lc);

		if (asks_the_same(group, payer, job))
		{
			group->awaited = true;
			return true;
		}
	}
	return false;
}

static void
fail_unsendable(Pass *pass, const LedgerJob *job)
{
	if (job->endpoint == NULL)
		s64_ledger_fail_job(job->position.id, ERRCODE_FEATURE_NOT_SUPPORTED,
							"this version of the library does not know the operation");
	else
		s64_ledger_fail_job(job->position.id, ERRCODE_UNTRANSLATABLE_CHARACTER,
							"the request has characters that cannot be sent in UTF-8");
	pass->changed = true;
}

/* Sort one job that is due: settled, failed, or into a group. */
static void
sort_job(Pass *pass, const LedgerJob *job)
{
	Payer	   *payer;
	Batch	   *group;

	if (job->endpoint == NULL || !s64_request_is_sendable(job->body))
	{
		fail_unsendable(pass, job);
		return;
	}
	payer = get_payer(pass, job->server, job->payer);
	if (payer->account == NULL)
		return;
	switch (s64_ledger_reuse(job, &payer->account->id))
	{
		case REUSE_DONE:
			pass->changed = true;
			pass->delivering = true;
			return;
		case REUSE_HELD:
			come_again(pass, GetCurrentTimestamp() + HELD_RECHECK);
			return;
		case REUSE_NONE:
			break;
	}
	if (payer->blocked_until != 0 || is_asked(pass, payer, job))
		return;
	group = get_group(pass, payer, job);
	group->jobs[group->njobs++] = job;
}

/*
 * Read what is due, more of it while only blocked payers' jobs are found.
 * Returns true if there may be more.
 */
static bool
read_queue(Pass *pass)
{
	LedgerPosition after;
	LedgerJob  *jobs;
	bool		first = true;
	int			n;

	do
	{
		n = s64_ledger_due(first ? NULL : &after, READ_MAX, blocked_payers(pass), &jobs);
		for (int i = 0; i < n; i++)
			sort_job(pass, &jobs[i]);
		if (n > 0)
			after = jobs[n - 1].position;
		first = false;
	} while (n == READ_MAX && pass->groups == NIL);
	return n == READ_MAX;
}

/* ---- calls ---- */

/* Leave of the account for one more request that costs cents, or block it. */
static bool
get_leave(Pass *pass, Payer *payer, int cents)
{
	TimestampTz now = GetCurrentTimestamp();
	MeterReading reading;
	int64		wait = s64_meter_take(payer->account, now);

	if (wait > 0)
		payer->blocked_until = now + wait;
	else if (!s64_meter_reserve(payer->account, cents, now, &reading))
		payer->blocked_until = now + RECHECK;
	else
	{
		pass->saver = payer->account;
		pass->saved = cents;
		return true;
	}
	come_again(pass, payer->blocked_until);
	return false;
}

/* What was set aside for a call that there is not is free again. */
static void
give_back(Pass *pass)
{
	if (pass->saver != NULL)
		s64_meter_settle(pass->saver, pass->saved, 0, GetCurrentTimestamp());
	pass->saver = NULL;
}

/* A flight of this pass, known to it before anything can fail */
static Flight *
add_flight(Pass *pass, int64 call)
{
	Flight	   *flight;

	pass->flights = lappend(pass->flights, NULL);
	flight = s64_flight_new(call);
	llast(pass->flights) = flight;
	return flight;
}

/* A flight for a call that is being opened; what it needs is copied. */
static void
add_submission(Pass *pass, int64 call, const Payer *payer,
			   const LedgerJob **jobs, int n, int reserved)
{
	Flight	   *flight = add_flight(pass, call);
	MemoryContext old = MemoryContextSwitchTo(flight->context);
	Jsonb	  **bodies = palloc(n * sizeof(Jsonb *));

	for (int i = 0; i < n; i++)
		bodies[i] = jobs[i]->body;
	flight->account = s64_account_copy(payer->account);
	flight->request = s64_request_make_submission(flight->account, jobs[0]->endpoint,
												  bodies, n);
	flight->items = n;
	flight->attempts = jobs[0]->attempts;
	flight->direct = jobs[0]->endpoint->async_path == NULL;
	flight->reserved = reserved;
	MemoryContextSwitchTo(old);
}

/* Open a call for the first n jobs given; false if its account is blocked. */
static bool
open_call(Pass *pass, Payer *payer, const LedgerJob **jobs, int n)
{
	int			cents = n * s64_request_expected_cents(payer->account, jobs[0]->endpoint,
													   jobs[0]->body);
	int64		call;

	if (!get_leave(pass, payer, cents))
		return false;
	call = s64_ledger_open(jobs, &n, &payer->account->id, cents, pass->epoch);
	if (call == 0)
		give_back(pass);
	else
		add_submission(pass, call, payer, jobs, n, cents);
	pass->saver = NULL;
	return true;
}

/* Does a bulk that is not full wait for more? */
static bool
lingers(Pass *pass, const Batch *group, int n)
{
	TimestampTz until = group->jobs[0]->position.run_at + LINGER;

	if (n >= BULK_MAX || until <= GetCurrentTimestamp())
		return false;
	come_again(pass, until);
	return true;
}

static void
open_calls(Pass *pass, Batch *group, int room)
{
	int			done = 0;

	while (done < group->njobs && group->payer->blocked_until == 0)
	{
		int			n = 1;

		if (list_length(pass->flights) >= room)
		{
			come_again(pass, GetCurrentTimestamp());
			return;
		}
		if (group->endpoint->bulk_path != NULL && group->njobs - done >= BULK_MIN)
		{
			n = Min(group->njobs - done, BULK_MAX);
			if (lingers(pass, group, n))
				return;
		}
		if (!open_call(pass, group->payer, &group->jobs[done], n))
			return;
		done += n;
		if (group->awaited)
			come_again(pass, GetCurrentTimestamp());
	}
}

/* Nothing of a pass that failed is sent, and nothing spent. */
static void
drop_flights(Pass *pass)
{
	ListCell   *lc;

	give_back(pass);
	foreach(lc, pass->flights)
	{
		Flight	   *flight = lfirst(lc);

		if (flight == NULL)
			continue;
		if (flight->account != NULL)
			s64_meter_settle(flight->account, flight->reserved, 0,
							 GetCurrentTimestamp());
		s64_flight_free(flight);
	}
}

static void
gather(Pass *pass)
{
	int			room = Min(s64_flight_limit() - s64_flight_count(), CALLS_MAX);
	ListCell   *lc;
	bool		more;

	if (room <= 0)
	{
		come_again(pass, GetCurrentTimestamp() + FULL_RECHECK);
		return;
	}
	more = read_queue(pass);
	foreach(lc, pass->groups)
		open_calls(pass, lfirst(lc), room);
	/* if nothing could be done, what stood in the way has said when */
	if (more && (pass->flights != NIL || pass->changed))
		come_again(pass, GetCurrentTimestamp());
	come_again(pass, s64_ledger_next_due());
}

TimestampTz
s64_submit_due(int64 epoch, bool *changed, bool *delivering)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "sixtyfour submissions",
												  ALLOCSET_DEFAULT_SIZES);
	Pass	   *pass = MemoryContextAllocZero(context, sizeof(Pass));
	TimestampTz again;
	ListCell   *lc;

	pass->epoch = epoch;
	pass->again = DT_NOEND;
	PG_TRY();
	{
		s64_sql_start_transaction();
		MemoryContextSwitchTo(context);
		gather(pass);
		if (pass->flights != NIL)
			ForceSyncCommit();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		drop_flights(pass);
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();

	foreach(lc, pass->flights)
	{
		Flight	   *flight = lfirst(lc);

		s64_flight_start(flight, flight->direct ? flight->account->timeout
						 : Min(flight->account->timeout, SUBMIT_TIMEOUT));
	}
	*changed |= pass->changed || pass->flights != NIL;
	*delivering |= pass->delivering;
	again = pass->again;
	MemoryContextDelete(context);
	return again;
}

/* ---- polls ---- */

/* Prepare a poll, or put it off if its account cannot be used now. */
static void
prepare_poll(Pass *pass)
{
	Task	   *task = pass->task = s64_tasks_take();
	Payer	   *payer = get_payer(pass, task->server, task->payer);
	TimestampTz now = GetCurrentTimestamp();
	int64		wait = 0;
	Flight	   *flight;
	MemoryContext old;

	if (payer->blocked_until == 0)
		wait = s64_meter_take(payer->account, now);
	if (wait > 0)
		payer->blocked_until = now + wait;
	if (payer->blocked_until != 0)
	{
		s64_tasks_put_back(task, payer->blocked_until);
		pass->task = NULL;
		return;
	}
	flight = add_flight(pass, task->call);
	old = MemoryContextSwitchTo(flight->context);
	flight->items = task->items;
	flight->account = s64_account_copy(payer->account);
	flight->request = s64_request_make_poll(flight->account, task->task_id);
	MemoryContextSwitchTo(old);
	flight->task = task;
	pass->task = NULL;
}

/* Nothing of this pass is polled: the tasks go back. */
static void
put_off_polls(Pass *pass)
{
	TimestampTz later = GetCurrentTimestamp() + RECHECK;
	ListCell   *lc;

	if (pass->task != NULL)
		s64_tasks_put_back(pass->task, later);
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

static void
prepare_polls(Pass *pass, TimestampTz now)
{
	int			room = s64_flight_limit() - s64_flight_count();

	while (list_length(pass->flights) < room)
	{
		Task	   *task = s64_tasks_first();

		if (task == NULL || task->due > now)
			return;
		prepare_poll(pass);
	}
	come_again(pass, now + FULL_RECHECK);
}

TimestampTz
s64_submit_polls(void)
{
	MemoryContext context;
	Pass	   *pass;
	Task	   *task = s64_tasks_first();
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz again;
	ListCell   *lc;

	if (task == NULL)
		return DT_NOEND;
	if (task->due > now)
		return task->due;

	context = AllocSetContextCreate(TopMemoryContext, "sixtyfour polls",
									ALLOCSET_DEFAULT_SIZES);
	pass = MemoryContextAllocZero(context, sizeof(Pass));
	pass->again = DT_NOEND;
	PG_TRY();
	{
		s64_sql_start_transaction();
		MemoryContextSwitchTo(context);
		prepare_polls(pass, now);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		put_off_polls(pass);
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();

	foreach(lc, pass->flights)
		s64_flight_start(lfirst(lc), POLL_TIMEOUT);
	again = pass->again;
	MemoryContextDelete(context);
	task = s64_tasks_first();
	return task == NULL ? again : Max(task->due, again == DT_NOEND ? 0 : again);
}
