/*-------------------------------------------------------------------------
 *
 * retention.h
 *		What the ledger holds no longer than it should.
 *
 * Jobs go sixtyfour.retention after they have finished, rejected calls too.
 * Answers, and the calls that cost money, go after sixtyfour.result_retention;
 * until then stays the last answered job of each row of an enrichment, which
 * tells that the row was asked about.  Never pruned is what is not finished,
 * uncertain, pending or unapplied, nor the answer that it needs.
 *
 * All is looked at in passes, each a walk along the primary keys from the
 * oldest row to the first that is young enough.  A pass is made of batches, each
 * in a transaction of its own.  Rows that somebody holds are skipped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_RETENTION_H
#define S64_RETENTION_H

#include "datatype/timestamp.h"

/* What stands for the service's words about somebody forgotten, in SQL */
#define S64_FORGOTTEN_MESSAGE \
	"'the words of the service are not kept, as somebody it was asked about was to be forgotten'"

/* The same put in their place in job or call */
#define S64_FORGET_WORDS \
	"message = CASE WHEN message IS NOT NULL THEN " S64_FORGOTTEN_MESSAGE " END, detail = NULL"

/*
 * Prune a batch if it is time to; drops also what came for somebody who was
 * forgotten meanwhile, if the process was woken.  To be called by the writer,
 * outside of a transaction.  Returns when to call again.  What goes wrong is
 * logged, and tried again later.
 */
extern TimestampTz s64_retention_turn(bool woken);

#endif							/* S64_RETENTION_H */
