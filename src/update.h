/*-------------------------------------------------------------------------
 *
 * update.h
 *		The statements that write answers into a table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_UPDATE_H
#define S64_UPDATE_H

#include "utils/rel.h"

#include "delivery.h"
#include "enrichment.h"

/* What became of a row */
typedef enum UpdateFate
{
	UPDATE_DONE,
	UPDATE_LOCKED,				/* by another transaction: try again */
	UPDATE_GONE,
	UPDATE_CHANGED,				/* its input is not what was asked about */
	UPDATE_SUPERSEDED,			/* a later answer was written before */
	UPDATE_NO_ANSWER,
	UPDATE_HIDDEN,				/* gone, or a policy hides it from the owner */
	UPDATE_REFUSED,				/* a policy lets the owner read it only */
	UPDATE_FAILED,				/* for the caller, after an error ... */
	UPDATE_NOT_TRIED			/* ... or for want of time */
} UpdateFate;

/*
 * Write answers into rows, as the current user; fates[i] is that of
 * deliveries[i], which are about different rows.  Rows that are locked are
 * skipped, not waited for.  Raises what the statements raise; then nothing is
 * to be taken as written.  The caller has locked the table and holds a
 * subtransaction.
 */
extern void s64_update_rows(const Enrichment *e, Relation target,
							const Delivery *deliveries, int n,
							UpdateFate *fates);

#endif							/* S64_UPDATE_H */
