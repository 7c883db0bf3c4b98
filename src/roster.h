/*-------------------------------------------------------------------------
 *
 * roster.h
 *		Who works for which database: the background processes in shared memory.
 *
 * Each database that has the extension has a worker (which speaks to the
 * service) and a writer (which brings results home).  The launcher starts
 * them; they leave when idle, and a wake-up brings them back.  Everything here
 * works on a small table in shared memory under one LWLock, never held while
 * anything can fail or wait.  No pointers are stored there.
 *
 * All functions do nothing, or say "not there", where the library is not
 * preloaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ROSTER_H
#define S64_ROSTER_H

typedef enum ProcessKind
{
	PROCESS_LAUNCHER,
	PROCESS_WORKER,
	PROCESS_WRITER
} ProcessKind;

#define S64_ROSTER_MESSAGE_LEN 160

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_roster_init(void);

/* Is there shared memory, so that there can be workers? */
extern bool s64_roster_is_there(void);

/* ---- of sessions ---- */

/*
 * Wake the current database's process of this kind when the transaction
 * commits; nothing happens if it, or the subtransaction, aborts.  Costs one
 * flag; the callback is registered once per session.  A transaction that is
 * prepared wakes it at COMMIT PREPARED, in whatever session (utility hook).
 */
extern void s64_roster_wake_at_commit(ProcessKind kind);

/* Wake it now. */
extern void s64_roster_wake(Oid database, ProcessKind kind);

/*
 * Sleep until something changed in the current database's ledgers (see
 * s64_roster_announce), the latch is set, or timeout ms passed.
 * prepare/wait/cancel as with condition variables: prepare, look at the
 * ledger, then wait, in a loop; cancel at the end (an error does so too).
 */
extern void s64_roster_prepare_wait(void);
extern void s64_roster_wait(long timeout);
extern void s64_roster_cancel_wait(void);

/* ---- of worker and writer ---- */

/*
 * Enter the table as the current database's process of this kind; leaves it
 * by itself when the process exits.  False if another one is there already.
 */
extern bool s64_roster_enter(ProcessKind kind);

/* Has somebody asked this process to end (DROP DATABASE and the like)? */
extern bool s64_roster_told_to_leave(void);

/*
 * Was this process woken since the last call?  (The latch is set for other
 * reasons too.)
 */
extern bool s64_roster_was_woken(void);

/* Say what this process does: shown in sixtyfour.workers. */
extern void s64_roster_report(const char *state, int in_flight);

/* Job states changed: wake the sessions that wait in this database. */
extern void s64_roster_announce(void);

/* ---- of the utility hook ---- */

/*
 * End a database's processes and keep them from coming back until
 * s64_roster_allow() or the end of the transaction; returns when they are gone.
 * Interruptible.
 */
extern void s64_roster_stop(Oid database);
extern void s64_roster_allow(Oid database);

#endif							/* S64_ROSTER_H */
