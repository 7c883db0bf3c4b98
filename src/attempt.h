/*-------------------------------------------------------------------------
 *
 * attempt.h
 *		A bounded attempt at writing into somebody's table.
 *
 * What runs there is not ours: triggers, constraints, input functions, all
 * while our transaction holds its locks and its snapshot, and other answers
 * wait.  So an attempt
 *
 * - runs as the role whose table or wish it is, in a restricted context, with
 *	 settings that do not depend on anybody's;
 * - is a subtransaction: an error undoes it, and is a value;
 * - is cancelled after sixtyfour.write_timeout.  A trigger may catch that and go
 *	 on.  It is cancelled again each second, a few times, then the process ends
 *	 itself, which nobody catches.  On its way out it notes in a transaction of
 *	 its own which jobs these were (see delivery.h).
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ATTEMPT_H
#define S64_ATTEMPT_H

#include "utils/rel.h"

#define S64_ATTEMPT_MAX 100		/* jobs */

typedef void (*AttemptBody) (void *arg);

/*
 * Call body(arg) as that role, for the answers of these n jobs.  Returns NULL, or
 * the error after which nothing of it is left, in the current context, which is
 * that of body, too.  Needs a transaction.  The role must exist.
 */
extern ErrorData *s64_attempt_run(Oid role, const int64 *jobs, int n,
								  AttemptBody body, void *arg);

/* In body: a part is done, and the next has all the time again. */
extern void s64_attempt_go_on(void);

/*
 * The table, locked for writing; NULL if it is gone or, with *locked, if somebody
 * holds it (VACUUM FULL, ALTER TABLE), which is not waited for: there may be
 * others' answers at hand.
 */
extern Relation s64_attempt_open(Oid relid, bool *locked);

/* Is another transaction in the way, for a while? */
extern bool s64_attempt_is_passing(const ErrorData *error);

/* Is it the server that is in trouble, and not the row? */
extern bool s64_attempt_is_trouble(const ErrorData *error);

/* What an error was about, in one line */
extern const char *s64_attempt_said(const ErrorData *error);

#endif							/* S64_ATTEMPT_H */
