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
 * - where a trigger will not be cancelled and the process ends itself (see
 *	 attempt.h), one job is unapplied, of several each is tried alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "delivery.h"
#include "enrichment.h"
#include "fault.h"
#include "guc.h"
#include "output.h"
#include "update.h"
#include "writeback.h"

#define BATCH S64_ATTEMPT_MAX

/* What is to be written, and what became of it */
typedef struct Batch
{
	Enrichment *enrichment;
	Relation	target;
	int			n;
	Delivery   *deliveries;
	UpdateFate *fates;			/* per delivery */
	ErrorData **errors;			/* of those with UPDATE_FAILED */
} Batch;

/* Jobs to take at once: fewer after an attempt that took too long */
static int	batch_size = BATCH;

TimestampTz
s64_writeback_next_due(void)
{
	return s64_delivery_next_due();
}

/* ---- an attempt ---- */

/* A part of a batch */
typedef struct Part
{
	Batch	   *batch;
	int			first;
	int			n;
} Part;

static void
write_part(void *arg)
{
	Part	   *part = arg;
	Batch	   *batch = part->batch;

	s64_update_rows(batch->enrichment, batch->target, &batch->deliveries[part->first],
					part->n, &batch->fates[part->first]);
}

/* Write some rows; NULL, or the error after which none of them is written. */
static ErrorData *
attempt(Batch *batch, int first, int n)
{
	Part		part = {batch, first, n};
	int64		jobs[BATCH];
	ErrorData  *error;

	for (int i = 0; i < n; i++)
		jobs[i] = batch->deliveries[first + i].job;
	s64_enrichment_set_writing(batch->enrichment->id);
	error = s64_attempt_run(batch->enrichment->owner, jobs, n, write_part, &part);
	s64_enrichment_set_writing(0);
	return error;
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
		batch->fates[i] = s64_attempt_is_passing(error) || s64_attempt_is_trouble(error)
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
		s64_delivery_unapplied(&batch->deliveries[i].job, 1, error->sqlerrcode, s64_attempt_said(error));
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

		if (batch->fates[i] == UPDATE_LOCKED && error != NULL && s64_attempt_is_trouble(error))
			s64_delivery_postpone(&batch->deliveries[i].job, 1, error->sqlerrcode, s64_attempt_said(error));
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

static int
deliver(Batch *batch)
{
	Enrichment *e = batch->enrichment;
	bool		locked;
	int			settled;

	if (e == NULL)
		return give_up(batch, ERRCODE_UNDEFINED_OBJECT, "the enrichment was dropped");
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(e->owner)))
		return give_up(batch, ERRCODE_UNDEFINED_OBJECT,
					   "the role that owns the enrichment does not exist any more");
	batch->target = s64_attempt_open(e->target, &locked);
	if (batch->target == NULL && !locked)
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

	*looked_at = batch.n = s64_delivery_claim(batch_size, &id, &batch.deliveries);
	if (batch.n == 0)
		return 0;
	S64_FAULT("t4-before");
	batch.fates = palloc0(batch.n * sizeof(UpdateFate));
	batch.errors = palloc0(batch.n * sizeof(ErrorData *));
	batch.enrichment = s64_enrichment_find_id(id);
	return deliver(&batch);
}
