/*-------------------------------------------------------------------------
 *
 * process.h
 *		What worker and writer have in common: how they begin, go on and end.
 *
 *		void
 *		s64_worker_main(Datum database)
 *		{
 *			s64_process_run(PROCESS_WORKER, DatumGetObjectId(database), work);
 *		}
 *
 *		work():	while (s64_process_goes_on())
 *				{
 *					woken = s64_roster_was_woken();		before looking
 *					... a turn, s64_roster_report(), wait for the latch ...
 *					if (idle for s64_guc_idle_timeout && s64_roster_leave(0))
 *						return;
 *				}
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_PROCESS_H
#define S64_PROCESS_H

#include "roster.h"

/*
 * Enter the roster, connect to the database and run work() there, unless the
 * process is not wanted or the extension is not installed.  Where its version
 * is not that of this library, work() waits until it is.  Returning ends the
 * process with status 0.  An error ends it with status 1, and its message
 * is shown in sixtyfour.workers.  Another one is started after a pause, unless
 * s64_roster_leave() or s64_roster_found_no_extension() was called before, and
 * without a pause if it was told to leave, once that is over.
 */
extern void s64_process_run(ProcessKind kind, Oid database, void (*work) (void));

/*
 * Between two turns, and whenever the latch was set: serves interrupts, reads
 * the configuration again if asked to.  False if the process is to end, which
 * it should do by returning from work().  SIGTERM during a statement ends it
 * there (die(), CHECK_FOR_INTERRUPTS()).
 */
extern bool s64_process_goes_on(void);

/*
 * A transaction with a snapshot, shown in pg_stat_activity.  Its end releases the
 * session's advisory locks: users' triggers may have taken some.
 */
extern void s64_process_begin_transaction(const char *activity);
extern void s64_process_end_transaction(void);

/*
 * The error that is being handled is not to end the process: abort the
 * transaction, if there is one, and return the error, palloc'd in that context,
 * which becomes the current one.
 */
extern ErrorData *s64_process_recover(MemoryContext context);

/*
 * Leave the message of the error that is being handled in the roster.  Leaves
 * TopMemoryContext as the current context.
 */
extern void s64_process_say_error(void);

#endif							/* S64_PROCESS_H */
