/*-------------------------------------------------------------------------
 *
 * writeback.h
 *		Answers into the rows that asked.
 *
 * Statements on the table run as the enrichment's owner, in a restricted
 * context.  The row and its job change in one transaction, so that an answer
 * is written exactly once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_WRITEBACK_H
#define S64_WRITEBACK_H

#include "datatype/timestamp.h"

/*
 * Write the answers of up to a hundred jobs, of one enrichment, that wait for
 * delivery in this database.  Needs a transaction, which the caller commits.
 * Returns how many jobs are settled: applied or unapplied.  *looked_at counts
 * those whose rows were locked too, which stay as they are for a while.
 *
 * What is wrong with a row or table becomes the reason of an unapplied job; an
 * error that is raised is one of the server (out of memory or disk).
 */
extern int	s64_writeback_batch(int *looked_at);

/* When the next job that waits for its row is due; DT_NOEND if none waits. */
extern TimestampTz s64_writeback_next_due(void);

#endif							/* S64_WRITEBACK_H */
