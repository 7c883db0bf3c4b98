/*-------------------------------------------------------------------------
 *
 * writeback.c
 *		Answers into the rows that asked.
 *
 * A batch is written with a handful of statements in a subtransaction.  Where
 * that fails each row gets a subtransaction of its own, so that one bad answer
 * holds back no other.
 *
 * Users' triggers run in these statements, while our transaction holds its
 * locks, its snapshot, and all other rows up.  So
 *
 * - an attempt is cancelled after sixtyfour.write_timeout, and no row is tried
 *	 any more once two of these are over: what was written is committed, the
 *	 rest comes in later batches, which are small for a while;
 * - a trigger may catch the cancellation and go on.  It is cancelled again each
 *	 second, a few times, then the process ends itself, which nobody catches. On
 *	 its way out it notes in a transaction of its own which jobs these were:
 *	 one is unapplied, of several each is tried alone (see delivery.h).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "enrichment.h"
#include "fault.h"
#include "guc.h"
#include "output.h"
#include "roster.h"
#include "sql.h"
#include "update.h"
#include "writeback.h"

#define BATCH 100

#define LOCK_WAIT "1s"			/* of triggers, say */

/* How often an attempt is cancelled before the process ends, and the pauses */
#define CANCELS 3
#define CANCEL_AGAIN 1000		/* ms */

/* What is to be written, and what became of it */
typedef struct Batch
{
	Enrichment *enrichment;
	Relation	target;
	MemoryContext context;
	int			n;
	Delivery   *deliveries;
	UpdateFate *fates;			/* per delivery */
	ErrorData **errors;			/* of those with UPDATE_FAILED */
} Batch;

/* The attempt that is being made, for those who interrupt it */
static struct
{
	int			n;				/* 0: none */
	int64		jobs[BATCH];
	volatile sig_atomic_t cancels;	/* how often its time was over */
}			current;

static TimeoutId timeout_id;

/* Jobs to take at once: fewer after an attempt that took too long */
static int	batch_size = BATCH;

TimestampTz
s64_writeback_next_due(void)
{
	return s64_delivery_next_due();
}

/* ---- time limits ---- */

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
arm(const Batch *batch, int first, int n)
{
	for (int i = 0; i < n; i++)
		current.jobs[i] = batch->deliveries[first + i].job;
	current.n = n;
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
	current.n = 0;
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

/* ---- an attempt ---- */

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
write_rows(Batch *batch, int first, int n)
{
	Oid			user;
	int			context;
	int			nestlevel = NewGUCNestLevel();

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(batch->enrichment->owner,
						   context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	set_settings();
	arm(batch, first, n);
	s64_update_rows(batch->enrichment, batch->target, &batch->deliveries[first],
					n, &batch->fates[first]);
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

/* Write some rows; NULL, or the error after which none of them is written. */
static ErrorData *
attempt(Batch *batch, int first, int n)
{
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(batch->context);
	s64_enrichment_set_writing(batch->enrichment->id);
	PG_TRY();
	{
		write_rows(batch, first, n);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(batch->context);
		error = caught();
		disarm();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	s64_enrichment_set_writing(0);
	MemoryContextSwitchTo(batch->context);
	CurrentResourceOwner = owner;
	return error;
}

/* Is it the server that is in trouble, and not the row? */
static bool
is_trouble(const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return error->sqlerrcode == ERRCODE_DISK_FULL ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR);
}

static bool
is_passing(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

/* The next batch is as large as the time allows, as far as this one shows. */
static void
learn_size(const ErrorData *error)
{
	if (error == NULL)
		batch_size = Min(batch_size * 2, BATCH);
	else if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		batch_size = 1;
}

/* Write the batch, row by row if need be. */
static void
write_batch(Batch *batch)
{
	TimestampTz begin = GetCurrentTimestamp();
	ErrorData  *error = attempt(batch, 0, batch->n);

	learn_size(error);
	if (error == NULL)
		return;
	for (int i = 0; i < batch->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		batch->fates[i] = UPDATE_NOT_TRIED;
		if (batch->n > 1 && TimestampDifferenceExceeds(begin, GetCurrentTimestamp(),
													   2 * s64_guc_write_timeout))
			continue;
		if (batch->n > 1)
			error = attempt(batch, i, 1);
		if (error == NULL)
			continue;
		/* a row's own trigger can raise anything: no reason to end the writer */
		batch->fates[i] = is_passing(error) || is_trouble(error)
			? UPDATE_LOCKED : UPDATE_FAILED;
		batch->errors[i] = error;
	}
}

/* ---- settling ---- */

/* What is said about a job whose row has met a fate, and under which code */
static const struct
{
	int			sqlstate;
	const char *message;
}			reasons[] = {
	[UPDATE_DONE] = {0, NULL},
	[UPDATE_LOCKED] = {ERRCODE_LOCK_NOT_AVAILABLE,
	"another transaction has locked the row; it is tried again"},
	[UPDATE_GONE] = {ERRCODE_NO_DATA, "the row is not there any more"},
	[UPDATE_CHANGED] = {ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
	"the row's input has changed since it was asked about"},
	[UPDATE_SUPERSEDED] = {ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
	"a later answer has been written to the row"},
	[UPDATE_NO_ANSWER] = {ERRCODE_NO_DATA, "the result is not in the ledger any more"},
	[UPDATE_HIDDEN] = {ERRCODE_NO_DATA,
	"the row is not there any more, or row-level security hides it from the owner of the enrichment"},
	[UPDATE_REFUSED] = {ERRCODE_INSUFFICIENT_PRIVILEGE,
	"row-level security does not let the owner of the enrichment update the row"},
};

static int
settle(const Batch *batch, UpdateFate fate, int64 *jobs)
{
	int			n = 0;

	for (int i = 0; i < batch->n; i++)
	{
		if (batch->fates[i] == fate)
			jobs[n++] = batch->deliveries[i].job;
	}
	if (fate == UPDATE_DONE)
		s64_delivery_applied(jobs, n);
	else if (fate == UPDATE_LOCKED)
		s64_delivery_postpone(jobs, n, reasons[fate].sqlstate, reasons[fate].message);
	else
		s64_delivery_unapplied(jobs, n, reasons[fate].sqlstate, reasons[fate].message);
	return n;
}

/* What an error was about, in one line */
static const char *
said(const ErrorData *error)
{
	return error->detail ? psprintf("%s (%s)", error->message, error->detail) : error->message;
}

/*
 * Record all fates; returns how many are final.  That of a row which was not
 * tried is open: the job stays as it is.
 */
static int
settle_all(const Batch *batch)
{
	int64	   *jobs = palloc(batch->n * sizeof(int64));
	int			settled = 0;

	for (int i = 0; i < batch->n; i++)
	{
		const ErrorData *error = batch->errors[i];

		if (batch->fates[i] != UPDATE_FAILED)
			continue;
		s64_delivery_unapplied(&batch->deliveries[i].job, 1, error->sqlerrcode, said(error));
		settled++;
	}
	for (UpdateFate fate = 0; fate < (UpdateFate) lengthof(reasons); fate++)
	{
		int			n = settle(batch, fate, jobs);

		if (fate != UPDATE_LOCKED)
			settled += n;
	}
	/* some are not locked: say what holds them up instead */
	for (int i = 0; i < batch->n; i++)
	{
		const ErrorData *error = batch->errors[i];

		if (batch->fates[i] == UPDATE_LOCKED && error != NULL && is_trouble(error))
			s64_delivery_postpone(&batch->deliveries[i].job, 1, error->sqlerrcode, said(error));
	}
	return settled;
}

static int
give_up(const Batch *batch, int sqlstate, const char *message)
{
	for (int i = 0; i < batch->n; i++)
		s64_delivery_unapplied(&batch->deliveries[i].job, 1, sqlstate, message);
	return batch->n;
}

/*
 * The target, locked; NULL with *fate UPDATE_GONE or UPDATE_LOCKED.  A table
 * that somebody holds for long (VACUUM FULL, ALTER TABLE) is not waited for:
 * other tables' answers may be at hand.
 */
static Relation
open_target(Oid relid, UpdateFate *fate)
{
	Relation	rel;

	*fate = UPDATE_LOCKED;
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return NULL;
	*fate = UPDATE_GONE;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		UnlockRelationOid(relid, RowExclusiveLock);
	return rel;
}

static int
deliver(Batch *batch)
{
	Enrichment *e = batch->enrichment;
	UpdateFate	fate;
	int			settled;

	if (e == NULL)
		return give_up(batch, ERRCODE_UNDEFINED_OBJECT, "the enrichment was dropped");
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(e->owner)))
		return give_up(batch, ERRCODE_UNDEFINED_OBJECT,
					   "the role that owns the enrichment does not exist any more");
	batch->target = open_target(e->target, &fate);
	if (batch->target == NULL && fate == UPDATE_GONE)
		return give_up(batch, ERRCODE_UNDEFINED_TABLE, "the table does not exist any more");
	if (batch->target == NULL)
	{
		for (int i = 0; i < batch->n; i++)
			batch->fates[i] = UPDATE_LOCKED;
		return settle_all(batch);
	}
	write_batch(batch);
	S64_FAULT("t4-inside");
	settled = settle_all(batch);
	relation_close(batch->target, NoLock);
	return settled;
}

int
s64_writeback_batch(int *looked_at)
{
	Batch		batch = {0};
	int			id;

	prepare_limits();
	*looked_at = batch.n = s64_delivery_claim(batch_size, &id, &batch.deliveries);
	if (batch.n == 0)
		return 0;
	S64_FAULT("t4-before");
	batch.context = CurrentMemoryContext;
	batch.fates = palloc0(batch.n * sizeof(UpdateFate));
	batch.errors = palloc0(batch.n * sizeof(ErrorData *));
	batch.enrichment = s64_enrichment_find_id(id);
	return deliver(&batch);
}
