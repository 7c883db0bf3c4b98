/*-------------------------------------------------------------------------
 *
 * import.h
 *		Rows of searches and workflows into the tables that were named for them.
 *
 * A few imports are under way at a time.  Each fetches its rows first, outside of
 * any transaction, while the writer does other work; then they go into the table
 * and the job is settled in one transaction, so that rows come once or not at
 * all.  What is wrong with one becomes the reason of its job, and is never raised.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_IMPORT_H
#define S64_IMPORT_H

#include "datatype/timestamp.h"

/*
 * Begin an import that is due, if there is room, and insert what has been
 * fetched.  True if something was to be done.  Runs transactions.
 */
extern bool s64_import_turn(void);

/* How many are being fetched */
extern int	s64_import_under_way(void);

/*
 * Wait until then, or until something happens; go on fetching.  True if there is
 * something for s64_import_turn() to do.  The caller checks for interrupts.
 */
extern bool s64_import_wait(TimestampTz until);

/*
 * When the next one can begin; DT_NOEND if none waits, or there is no room.
 * Needs a transaction.
 */
extern TimestampTz s64_import_next_due(void);

#endif							/* S64_IMPORT_H */
