/*-------------------------------------------------------------------------
 *
 * roster.h
 *		Who works for which database: the background processes.
 *
 * Each database that has the extension has a worker (which speaks to the
 * service) and a writer (which brings results home).  The launcher starts
 * them; they leave when idle, and a wake-up brings them back.
 *
 * All functions do nothing, or say "not there", where the library is not
 * preloaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ROSTER_H
#define S64_ROSTER_H

#include "datatype/timestamp.h"

#include "kind.h"

/* Is there shared memory, so that there can be workers? */
extern bool s64_roster_is_there(void);

/* ---- of sessions ---- */

/*
 * Wake a database's process of this kind now (see errand.h for later).  The
 * launcher belongs to no database: InvalidOid.
 */
extern void s64_roster_wake(Oid database, ProcessKind kind);

/*
 * Sleep until something changed in the current database's ledgers (see
 * s64_roster_announce), or timeout ms passed (-1: never).  prepare/wait/cancel
 * as with condition variables: prepare, look at the ledger, then wait, in a
 * loop; cancel at the end (an error does so too).  May return early.
 * Interruptible.
 */
extern void s64_roster_prepare_wait(void);
extern void s64_roster_wait(long timeout);
extern void s64_roster_cancel_wait(void);

/* Job states changed: wake the sessions that wait in this database. */
extern void s64_roster_announce(void);

/* ---- of the processes themselves (see process.h, which calls the first) ---- */

/*
 * Enter the table as the database's process of this kind, before connecting
 * to it; leaves it by itself when the process exits and is no longer counted
 * among the database's.  False if another one is there already, or processes
 * are kept away: exit, with status 0, at once.
 */
extern bool s64_roster_enter(ProcessKind kind, Oid database);

/*
 * This process found that its database has the extension; or that it has not:
 * then it must exit, with status 0, and is not started again before CREATE
 * EXTENSION commits.
 */
extern void s64_roster_found_extension(void);
extern void s64_roster_found_no_extension(void);

/* Has somebody asked this process to end (DROP DATABASE and the like)? */
extern bool s64_roster_told_to_leave(void);

/*
 * Was this process woken since the last call?  (The latch is set for other
 * reasons too.)  Ask before looking for work.  The first turn of a process
 * looks in any case.
 */
extern bool s64_roster_was_woken(void);

/*
 * Leave because there is nothing to do.  False if the process was woken since
 * s64_roster_was_woken(): then go on.  True: exit with status 0; a wake-up
 * from now on starts it again, and so does the time "again" (0: none).
 */
extern bool s64_roster_leave(TimestampTz again);

/*
 * Say what this process does, and that it made a turn; and what is wrong
 * (NULL: nothing).  Shown in sixtyfour.workers; what is wrong not to everybody.
 */
extern void s64_roster_report(const char *state, int in_flight);
extern void s64_roster_say(const char *message);

/* Say what is wrong where it concerns no jobs, so that everybody may know. */
extern void s64_roster_say_to_all(const char *message);

/* ---- for those who want to know ---- */

typedef struct RosterRow
{
	Oid			database;		/* InvalidOid: of the launcher */
	ProcessKind kind;
	int			pid;			/* 0: not running */
	int			in_flight;
	TimestampTz last_turn;		/* 0: none yet */
	char		state[S64_ROSTER_STATE_LEN];
	char		message[S64_ROSTER_MESSAGE_LEN];
	bool		hidden;			/* the message, from the current user */
} RosterRow;

/*
 * All processes, palloc'd.  Messages may come from the jobs of others: who
 * neither is a member of pg_monitor nor owns the database sees only those of
 * s64_roster_say_to_all(), and an empty one in place of others.
 */
extern RosterRow *s64_roster_rows(int *n);

/*
 * That of the current database, or the launcher's.  False if there is no such
 * row.
 */
extern bool s64_roster_find(ProcessKind kind, RosterRow *row);

#endif							/* S64_ROSTER_H */
