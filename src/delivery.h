/*-------------------------------------------------------------------------
 *
 * delivery.h
 *		The way home of an answer, as the ledger has it.
 *
 *		none -> pending -> applied | unapplied		unapplied -> pending
 *
 * The ledger sets pending when the job of an enrichment succeeds.  What is
 * pending but cannot be had now, because its row is locked or the disk full,
 * stays pending: its run_at is when it is tried next, and sqlstate says why.
 *
 * A suspect is pending with sqlstate 57014: a process ended itself because a
 * statement that wrote this answer, among others, would not be cancelled.  It
 * is tried alone, and its enrichment waits with it, so that no other does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_DELIVERY_H
#define S64_DELIVERY_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

typedef struct Delivery
{
	int64		job;
	Jsonb	   *key;			/* of the row; NULL if there is none */
	Jsonb	   *input;			/* as it was when asked, or NULL */
	Jsonb	   *answer;			/* NULL: it is not in the ledger any more */
	bool		superseded;		/* a later answer was written to the row */
} Delivery;

/*
 * Lock up to max deliveries that are due in this database, of one enrichment
 * and about different rows, oldest first; palloc'd.  They are ours until the
 * transaction ends.  Enrichments take turns.
 */
extern int	s64_delivery_claim(int max, int *enrichment, Delivery **deliveries);

/* When the next one is due; DT_NOEND if none is pending. */
extern TimestampTz s64_delivery_next_due(void);

/* pending -> applied */
extern void s64_delivery_applied(const int64 *jobs, int n);

/* pending -> unapplied, with the reason */
extern void s64_delivery_unapplied(const int64 *jobs, int n, int sqlstate,
								   const char *message);

/* Try again later, the later the longer ago the job succeeded. */
extern void s64_delivery_postpone(const int64 *jobs, int n, int sqlstate,
								  const char *message);

/*
 * Writing these did not end when it was cancelled.  One alone becomes
 * unapplied, with this message; several become suspects.  Those that are locked
 * are left as they are.  For a process that is ending: waits for no lock.
 */
extern void s64_delivery_blame(const int64 *jobs, int n, const char *message);

/* unapplied -> pending, for an enrichment; returns how many. */
extern int64 s64_delivery_again(int enrichment);

#endif							/* S64_DELIVERY_H */
