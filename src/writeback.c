/*-------------------------------------------------------------------------
 *
 * writeback.c
 *		Answers into the rows that asked.
 *
 * A batch is written with a handful of statements in a subtransaction.  Where
 * that fails each row gets a subtransaction of its own, so that one bad answer
 * holds back no other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "delivery.h"
#include "enrichment.h"
#include "fault.h"
#include "output.h"
#include "update.h"
#include "writeback.h"

#define BATCH 100

/*
 * The triggers of a table may wait for locks, or take their time, at the
 * expense of the other rows that wait for the writer.
 */
#define LOCK_WAIT "1s"
#define STATEMENT_LIMIT 60000	/* ms, for one attempt */

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

TimestampTz
s64_writeback_next_due(void)
{
	return s64_delivery_next_due();
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
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* A statement timeout is armed by postgres.c only, where there is a client. */
static void
disarm(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
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
	enable_timeout_after(STATEMENT_TIMEOUT, STATEMENT_LIMIT);
	s64_update_rows(batch->enrichment, batch->target, &batch->deliveries[first],
					n, &batch->fates[first]);
	disarm();
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(false, nestlevel);
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
		error = CopyErrorData();
		FlushErrorState();
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

/* Write the batch, row by row if need be. */
static void
write_batch(Batch *batch)
{
	ErrorData  *error = attempt(batch, 0, batch->n);

	if (error == NULL)
		return;
	for (int i = 0; i < batch->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
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
		s64_delivery_postpone(jobs, n, reasons[fate].message);
	else
		s64_delivery_unapplied(jobs, n, reasons[fate].sqlstate, reasons[fate].message);
	return n;
}

/* Record all fates; returns how many are final. */
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
		s64_delivery_unapplied(&batch->deliveries[i].job, 1, error->sqlerrcode,
							   error->detail
							   ? psprintf("%s (%s)", error->message, error->detail)
							   : error->message);
		settled++;
	}
	for (UpdateFate fate = 0; fate < (UpdateFate) lengthof(reasons); fate++)
	{
		int			n = settle(batch, fate, jobs);

		if (fate != UPDATE_LOCKED)
			settled += n;
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

	*looked_at = batch.n = s64_delivery_claim(BATCH, &id, &batch.deliveries);
	if (batch.n == 0)
		return 0;
	S64_FAULT("t4-before");
	batch.context = CurrentMemoryContext;
	batch.fates = palloc0(batch.n * sizeof(UpdateFate));
	batch.errors = palloc0(batch.n * sizeof(ErrorData *));
	batch.enrichment = s64_enrichment_find_id(id);
	return deliver(&batch);
}
