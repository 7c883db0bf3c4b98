/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The background worker: claims jobs, speaks to the service, settles.
 *
 * One process per database.  A turn records what has ended, opens calls and
 * polls tasks, each in short transactions of its own, and then waits with no
 * transaction open, for sockets, the latch or the next thing that is due.
 *
 * What the worker knows and the ledger does not is only when to poll which
 * task, so a new worker goes on where the last one was.  The exception are
 * requests that are on their way when a worker dies: their calls are
 * uncertain.  Hence no error ends the worker; it backs off and goes on.  And
 * SIGTERM does not end it in the middle of a turn, but lets it wait a moment for
 * replies that are about to come; a lock_timeout bounds what a turn can take.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ask.h"
#include "claim.h"
#include "doorbell.h"
#include "fault.h"
#include "flight.h"
#include "guc.h"
#include "home.h"
#include "http.h"
#include "inbox.h"
#include "ledger.h"
#include "meter.h"
#include "poll.h"
#include "process.h"
#include "resend.h"
#include "roster.h"
#include "schedule.h"
#include "settle.h"
#include "spending.h"
#include "sql.h"
#include "submit.h"
#include "tasks.h"
#include "uncertain.h"
#include "worker.h"

#define ERROR_PAUSE		INT64CONST(1000000) /* µs, after an error */
#define STRAGGLERS_GAP	INT64CONST(5000000) /* µs, between two looks for them */
#define LOOK_GAP		INT64CONST(100000)	/* µs, the same if woken in between */
#define RINGS_MAX		64
#define DRAIN_TIME		INT64CONST(200000)	/* µs, for replies before the end */
#define POLLS_FIRST		0.6
#define OBJECT_SUBID	64		/* of the lock that makes the worker the only one */

static struct
{
	int64		epoch;
	TimestampTz submit_at;		/* look at the queue */
	TimestampTz poll_at;		/* poll the first task */
	TimestampTz resend_at;		/* send again what the service knows again */
	TimestampTz record_at;		/* try again to record what ended */
	TimestampTz looked_at;		/* last time, for what sessions did */
	TimestampTz stragglers_at;	/* look for jobs that lag behind their call */
	TimestampTz idle_since;		/* 0: there is something to do */
	bool		paused;			/* as the roster says */
	bool		changed;
	bool		delivering;
	bool		in_trouble;		/* the roster has a message */
} worker;

/*
 * Make sure to be the only worker of the database, besides what the roster
 * promises: a lock for the session, on nothing else's name.
 */
static void
lock_database(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId,
					   get_extension_oid("sixtyfour", false), OBJECT_SUBID);
	/* as other session locks, it would go with an error, and stay at the end */
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another worker is running in this database")));
}

static void
add_tasks(const LedgerTask *tasks, int n)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < n; i++)
	{
		const LedgerTask *task = &tasks[i];
		Task	   *added;

		added = s64_tasks_add(task->call, task->operation, task->task_id, task->server,
							  task->payer, task->items, task->expected_cents,
							  task->accepted_at, now);
		added->reserved_at = task->created_at;
		added->account = task->account;
		strlcpy(added->price_kind, task->kind.name, sizeof(added->price_kind));
	}
}

/* Say in sixtyfour.workers that nothing is submitted, or no more say so. */
static void
say_pause(void)
{
	char	   *reason = s64_home_paused();

	if (reason != NULL)
		s64_roster_say(psprintf("paused until sixtyfour_resume()%s%s",
								reason[0] ? ": " : "", reason));
	else if (worker.paused)
		s64_roster_say(NULL);
	worker.paused = reason != NULL;
}

static void
take_over(void)
{
	LedgerTask *tasks;
	LedgerUnanswered *unanswered;
	int			n;

	s64_sql_start_transaction();
	lock_database();
	s64_ask_take_over();
	worker.epoch = s64_ledger_take_over();
	n = s64_ledger_tasks(worker.epoch, &tasks);
	add_tasks(tasks, n);
	n = s64_ledger_unanswered(worker.epoch, &unanswered);
	s64_resend_recall(unanswered, n);
	say_pause();
	S64_FAULT("take-over");
	ForceSyncCommit();
	CommitTransactionCommand();
	S64_FAULT("taken-over");
	s64_spending_recall();
	worker.changed = true;
	worker.delivering = true;
	ereport(LOG,
			(errmsg("sixtyfour: worker started with %d tasks to follow",
					s64_tasks_count())));
}

/* Tasks that a webhook says to have ended: a hint, not more */
static void
hear_doorbell(TimestampTz now)
{
	int64		calls[RINGS_MAX];
	int			n;

	do
	{
		n = s64_doorbell_answer(calls, RINGS_MAX);
		for (int i = 0; i < n; i++)
			s64_tasks_hurry(calls[i], now);
	} while (n == RINGS_MAX);
}

/* Tasks that are said to be those of uncertain calls: ask about them. */
static void
fetch_candidates(TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	Candidate  *candidates;
	int			n;

	s64_sql_start_transaction();
	MemoryContextSwitchTo(context);
	n = s64_uncertain_candidates(worker.epoch, &candidates);
	if (n > 0)
		S64_FAULT("named");
	CommitTransactionCommand();
	for (int i = 0; i < n; i++)
	{
		const Candidate *c = &candidates[i];
		Task	   *task = s64_tasks_add(c->call, c->operation, c->task_id,
										 c->server, c->payer, c->items,
										 c->expected_cents, c->created_at, now);

		task->unproven = true;
		task->reserved_at = c->created_at;
		task->account = c->account;
		/* what was spent is at risk again, as the ledger says */
		if (c->reopened)
			s64_meter_correct(&c->account, -c->expected_cents,
							  c->expected_cents, c->created_at);
	}
}

/* What is uncertain for too long, if it is to be submitted again */
static void
resubmit_uncertain(TimestampTz now)
{
	int64		window = s64_guc_resubmit_after * INT64CONST(1000000);
	TimestampTz oldest;
	int64	   *calls;
	bool		delivering;
	int			n;

	if (s64_guc_on_uncertain != ON_UNCERTAIN_RESUBMIT)
		return;
	s64_sql_start_transaction();
	n = s64_uncertain_resubmit(worker.epoch, now - window, &calls, &oldest);
	if (n > 0)
	{
		s64_ledger_carry(calls, n, &delivering);
		worker.submit_at = now;
		worker.changed = true;
	}
	/* or the worker would leave, and not come back for it */
	else if (oldest != DT_NOEND)
		worker.submit_at = Min(worker.submit_at, Max(oldest + window, now + STRAGGLERS_GAP));
	CommitTransactionCommand();
}

/* Tasks of calls that another epoch has */
static void
adopt_tasks(void)
{
	MemoryContext context = CurrentMemoryContext;
	LedgerTask *tasks;
	int			n;

	s64_sql_start_transaction();
	MemoryContextSwitchTo(context);
	(void) s64_ledger_adopt(worker.epoch, &tasks, &n);
	say_pause();
	CommitTransactionCommand();
	add_tasks(tasks, n);
	if (n > 0)
		worker.poll_at = GetCurrentTimestamp();
	/* what was at risk is spent, as the service knows the task */
	for (int i = 0; i < n; i++)
		s64_meter_correct(&tasks[i].account, tasks[i].expected_cents,
						  -tasks[i].expected_cents, tasks[i].created_at);
}

static void
carry_stragglers(void)
{
	bool		delivering;

	s64_sql_start_transaction();
	if (s64_ledger_carry_stragglers(&delivering) > 0)
		worker.changed = true;
	worker.delivering |= delivering;
	CommitTransactionCommand();
}

static void
look_around(TimestampTz now)
{
	if (s64_roster_was_woken())
	{
		s64_claim_wake();
		worker.submit_at = now;
		worker.stragglers_at = Min(worker.stragglers_at, worker.looked_at + LOOK_GAP);
		hear_doorbell(now);
	}
	if (worker.stragglers_at > now)
		return;
	adopt_tasks();
	fetch_candidates(now);
	resubmit_uncertain(now);
	carry_stragglers();
	worker.looked_at = now;
	worker.stragglers_at = now + STRAGGLERS_GAP;
}

/*
 * Submissions and polls compete for the account's rate and for transfers.
 * Polls go first in three turns of five, so each gets its share, and either
 * gets all where the other needs none.  It is by lot, as turns may keep time with
 * the rate, so that a fixed order gave all to one.
 */
static void
send_requests(TimestampTz now)
{
	bool		polls_first = pg_prng_double(&pg_global_prng_state) < POLLS_FIRST;

	if (polls_first)
		worker.poll_at = s64_poll_due(worker.epoch, &worker.changed);
	if (worker.submit_at <= now)
		worker.submit_at = s64_submit_due(worker.epoch, &worker.changed,
										  &worker.delivering);
	if (!polls_first)
		worker.poll_at = s64_poll_due(worker.epoch, &worker.changed);
	worker.resend_at = s64_resend_due();
}

/*
 * After an error in a turn: it is logged and shown, and the turn's transaction
 * undone.  If the extension was dropped that is what it was about; then true.
 */
static bool
recover(void)
{
	bool		dropped;

	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortCurrentTransaction();
	s64_process_say_error();
	FlushErrorState();
	RESUME_INTERRUPTS();

	worker.submit_at = GetCurrentTimestamp() + ERROR_PAUSE;
	worker.stragglers_at = worker.resend_at = worker.submit_at;
	s64_sql_start_transaction();
	dropped = !OidIsValid(get_extension_oid("sixtyfour", true));
	CommitTransactionCommand();
	if (dropped)
		s64_roster_found_no_extension();
	return dropped;
}

/* Requests and tasks that somebody works on */
static int
under_way(void)
{
	return s64_tasks_count() + s64_flight_count() + s64_resend_count();
}

static void
begin_turn(void)
{
	char		activity[80];

	if (under_way() == 0)
		strlcpy(activity, "sixtyfour: looking for work", sizeof(activity));
	else
		snprintf(activity, sizeof(activity),
				 "sixtyfour: following %d requests and %d tasks",
				 s64_flight_count(), s64_tasks_count());
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity);
}

/* Say how the turn went: what recover() said stays until one goes well. */
static void
report_turn(bool failed)
{
	if (!failed && worker.in_trouble)
		s64_roster_say(NULL);
	worker.in_trouble = failed;
	s64_roster_report(under_way() > 0 ? "working" : "idle", under_way());
	pgstat_report_stat(true);
}

/* Tell those who wait for what this turn did. */
static void
announce(void)
{
	if (worker.changed)
		s64_roster_announce();
	if (worker.delivering)
		s64_roster_wake(MyDatabaseId, PROCESS_WRITER);
	worker.changed = worker.delivering = false;
}

/* One turn; false if there is no extension any more. */
static bool
turn(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool failed = false;
	volatile bool goes_on = true;

	begin_turn();
	worker.record_at = DT_NOEND;
	s64_settle_ended(worker.epoch, &worker.record_at, &worker.changed,
					 &worker.delivering);
	PG_TRY();
	{
		TimestampTz now = GetCurrentTimestamp();

		look_around(now);
		if (s64_inbox_empty())
		{
			s64_claim_wake();
			worker.submit_at = now;
		}
		send_requests(now);
		if (worker.changed)
			s64_inbox_tell();
	}
	PG_CATCH();
	{
		failed = true;
		goes_on = !recover();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	announce();
	if (goes_on)
		report_turn(failed);
	return goes_on;
}

/* When the worker leaves, if nothing happens */
static TimestampTz
idle_until(void)
{
	if (s64_guc_idle_timeout == 0 || worker.idle_since == 0)
		return DT_NOEND;
	return worker.idle_since + s64_guc_idle_timeout * USECS_PER_SEC;
}

/* ms until the next thing is due */
static long
time_to_wait(void)
{
	TimestampTz next = Min(worker.submit_at, worker.poll_at);
	TimestampTz now = GetCurrentTimestamp();

	next = Min(next, worker.resend_at);
	next = Min(next, worker.record_at);
	next = Min(next, worker.stragglers_at);
	next = Min(next, idle_until());
	if (next <= now)
		return 0;
	return (long) Min((next - now + 999) / 1000, 60000);
}

/* Has there been nothing to do for so long that the worker should leave? */
static bool
idles(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (under_way() > 0 || s64_ledger_has_stragglers() || worker.submit_at <= now ||
		worker.record_at != DT_NOEND)
		worker.idle_since = 0;
	else if (worker.idle_since == 0)
		worker.idle_since = now;
	return idle_until() <= now;
}

/*
 * SIGTERM.  The turn goes on to its end, but if it waits for a synchronous
 * standby, or comes to do so, that wait ends: SyncRepWaitForLSN() looks at
 * ProcDiePending.  What is committed is durable here.  As InterruptPending is
 * not set nothing else looks at it, but our loop.
 */
static void
request_shutdown(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ProcDiePending = true;
	ShutdownRequestPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * Wait for replies, a wake-up or the next thing that is due.  Somebody may try
 * to cancel us (pg_cancel_backend); that is no reason to end.  False if there is
 * no extension any more.
 */
static bool
rest(void)
{
	volatile bool goes_on = true;

	pgstat_report_activity(STATE_IDLE, NULL);
	PG_TRY();
	{
		s64_http_wait(time_to_wait());
		if (s64_flight_submissions() > 0)
			S64_FAULT("sent");
		CHECK_FOR_INTERRUPTS();
	}
	PG_CATCH();
	{
		goes_on = !recover();
	}
	PG_END_TRY();
	return goes_on;
}

/* Before the end: give the replies to what was sent a moment to come. */
static void
drain(void)
{
	TimestampTz until = GetCurrentTimestamp() + DRAIN_TIME;

	/* durable here is enough, as standbys may be away for longer than we stay */
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);
	ProcDiePending = false;
	for (;;)
	{
		int64		left = until - GetCurrentTimestamp();

		s64_settle_ended(worker.epoch, &worker.record_at, &worker.changed,
						 &worker.delivering);
		if (left <= 0 || s64_flight_submissions() == 0)
			break;
		S64_FAULT("drain");
		s64_http_wait((long) (left + 999) / 1000);
	}
	announce();
}

static void
work(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "sixtyfour worker turn",
												  ALLOCSET_DEFAULT_SIZES);

	pqsignal(SIGTERM, request_shutdown);
	SetConfigOption("lock_timeout", "2s", PGC_SUSET, PGC_S_OVERRIDE);
	worker.submit_at = worker.stragglers_at = 0;
	worker.poll_at = worker.resend_at = worker.record_at = DT_NOEND;
	take_over();
	while (s64_process_goes_on() && !ShutdownRequestPending)
	{
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		if (!turn())
			return;
		if (idles() &&
			s64_roster_leave(worker.submit_at == DT_NOEND ? 0 : worker.submit_at))
			return;
		if (!rest())
			return;
	}
	drain();
}

void
s64_worker_main(Datum arg)
{
	s64_process_run(PROCESS_WORKER, DatumGetObjectId(arg), work);
}
