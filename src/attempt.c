/*-------------------------------------------------------------------------
 *
 * attempt.c
 *		A bounded attempt at writing into somebody's table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "delivery.h"
#include "guc.h"
#include "roster.h"
#include "sql.h"

#define LOCK_WAIT "1s"			/* of triggers, say */

/* How often an attempt is cancelled before the process ends, and the pauses */
#define CANCELS 3
#define CANCEL_AGAIN 1000		/* ms */

/* The attempt that is being made, for those who interrupt it */
static struct
{
	int			n;				/* 0: none */
	int64		jobs[S64_ATTEMPT_MAX];
	volatile sig_atomic_t cancels;	/* how often its time was over */
}			current;

static TimeoutId timeout_id;

/* In a signal handler: time is over, for the first time or again. */
static void
time_is_over(void)
{
	if (current.cancels++ < CANCELS)
		QueryCancelPending = true;
	else
		ProcDiePending = true;
	InterruptPending = true;
}

/* A statement timeout is armed by postgres.c only, where there is a client. */
static void
arm(void)
{
	current.cancels = 0;
	enable_timeout_every(timeout_id,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 s64_guc_write_timeout),
						 CANCEL_AGAIN);
}

static void
disarm(void)
{
	disable_timeout(timeout_id, false);
	if (current.cancels > CANCELS)
		CHECK_FOR_INTERRUPTS();	/* it ended too late: does not return */
	QueryCancelPending = false;
}

/* When the process ends: was it because an attempt would not? */
static void
blame(int code, Datum arg)
{
	const char *message = "a trigger of the table did not end when it was cancelled";

	if (current.n == 0 || current.cancels <= CANCELS)
		return;
	ereport(LOG,
			(errmsg("%s", message),
			 errdetail("It was fired by the answer of job " INT64_FORMAT "%s.", current.jobs[0],
					   current.n > 1 ? ", or one of those written together with it" : "")));
	s64_roster_say(message);
	AbortOutOfAnyTransaction();
	s64_sql_start_transaction();
	s64_delivery_blame(current.jobs, current.n, message);
	CommitTransactionCommand();
}

static void
prepare_limits(void)
{
	static bool prepared = false;

	if (prepared)
		return;
	timeout_id = RegisterTimeout(USER_TIMEOUT, time_is_over);
	/* comes before the callback that aborts the transaction and lets go of all */
	before_shmem_exit(blame, (Datum) 0);
	prepared = true;
}

/* Settings for statements on the user's table, until the nest level ends */
static void
set_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"row_security", "on"},
		{"lock_timeout", LOCK_WAIT},
		/* those of sixtyfour.plain_jsonb() that matter to input functions */
		{"IntervalStyle", "postgres"},
		{"lc_monetary", "C"},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
run_body(Oid role, AttemptBody body, void *arg)
{
	Oid			user;
	int			context;
	int			nestlevel = NewGUCNestLevel();

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(role, context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	set_settings();
	arm();
	body(arg);
	disarm();
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(false, nestlevel);
}

/* The error that has just been caught; one that we caused is said to be ours. */
static ErrorData *
caught(void)
{
	ErrorData  *error = CopyErrorData();

	FlushErrorState();
	if (current.cancels > 0 && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		error->message = psprintf("writing it took longer than sixtyfour.write_timeout (%d ms)",
								  s64_guc_write_timeout);
		error->detail = NULL;
	}
	return error;
}

ErrorData *
s64_attempt_run(Oid role, const int64 *jobs, int n, AttemptBody body, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	Assert(n > 0 && n <= S64_ATTEMPT_MAX);
	prepare_limits();
	memcpy(current.jobs, jobs, n * sizeof(int64));
	current.cancels = 0;
	current.n = n;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		run_body(role, body, arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = caught();
		disarm();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	current.n = 0;
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

void
s64_attempt_go_on(void)
{
	disarm();
	arm();
}

Relation
s64_attempt_open(Oid relid, bool *locked)
{
	Relation	rel;

	*locked = !ConditionalLockRelationOid(relid, RowExclusiveLock);
	if (*locked)
		return NULL;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		UnlockRelationOid(relid, RowExclusiveLock);
	return rel;
}

bool
s64_attempt_is_passing(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

bool
s64_attempt_is_trouble(const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return error->sqlerrcode == ERRCODE_DISK_FULL ||
		error->sqlerrcode == ERRCODE_OUT_OF_MEMORY ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR);
}

const char *
s64_attempt_said(const ErrorData *error)
{
	return error->detail ? psprintf("%s (%s)", error->message, error->detail) : error->message;
}
