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

#include "datatype/timestamp.h"

typedef enum ProcessKind
{
	PROCESS_LAUNCHER,
	PROCESS_WORKER,
	PROCESS_WRITER
} ProcessKind;

#define S64_ROSTER_PLACES 1024	/* databases with the extension */
#define S64_ROSTER_STATE_LEN 32
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
 * prepared wakes both at COMMIT PREPARED, in whatever session (utility hook).
 */
extern void s64_roster_wake_at_commit(ProcessKind kind);

/* Wake it now.  The launcher belongs to no database: InvalidOid. */
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
 * (NULL: nothing).  Shown in sixtyfour.workers.
 */
extern void s64_roster_report(const char *state, int in_flight);
extern void s64_roster_say(const char *message);

/* ---- of the utility hook ---- */

/*
 * End a database's processes and keep them from coming back until
 * s64_roster_allow() or the end of the transaction; returns when they are gone.
 * Interruptible.
 */
extern void s64_roster_stop(Oid database);
extern void s64_roster_allow(Oid database);

/*
 * When this transaction commits, the current database has the extension; or
 * has not, as far as the transaction can see: then it is probed again.
 */
extern void s64_roster_extension_at_commit(bool present);

/* When this transaction commits, the launcher reads pg_database again. */
extern void s64_roster_rescan_at_commit(void);

/* ---- of the launcher ---- */

/* A database, as far as the launcher knows */
typedef struct RosterDatabase
{
	Oid			oid;
	bool		allowed;		/* to have processes */
	bool		known_without;	/* the extension: not to be probed again */
} RosterDatabase;

/* Must pg_database be read (again)? */
extern bool s64_roster_must_rescan(void);

/* Read pg_database again when it is next asked. */
extern void s64_roster_rescan(void);

/*
 * These are all databases.  New ones get a place, and are probed; processes
 * of those that are gone, or not allowed any more, are told to leave.  Returns
 * false if the table is full.
 */
extern bool s64_roster_sync(const RosterDatabase *databases, int n);

/* Places are numbered from 0, and this is the end. */
extern int	s64_roster_places(void);

/* How many databases are being probed for the extension? */
extern int	s64_roster_probing(void);

/* A process that may be started: place and kind are asked, the rest is told */
typedef struct RosterOrder
{
	int			place;
	ProcessKind kind;
	Oid			database;
	bool		probe;			/* it is not known to have the extension */
} RosterOrder;

/*
 * Is this process to be started now?  If so, it counts as being started.  If
 * not, *next is lowered to when it may be.
 */
extern bool s64_roster_due(RosterOrder *order, bool may_probe, TimestampTz now,
						   TimestampTz *next);

/* If it has not come yet, it will not: try again later, and say why. */
extern void s64_roster_not_started(int place, ProcessKind kind,
								   TimestampTz now, const char *message);

/*
 * Give up the place of a database that is gone or has not the extension, once
 * no process is there.  Returns the database if it just has not the extension,
 * else InvalidOid.
 */
extern Oid	s64_roster_tidy(int place);

/* ---- for sixtyfour.workers ---- */

typedef struct RosterRow
{
	Oid			database;		/* InvalidOid: of the launcher */
	ProcessKind kind;
	int			pid;			/* 0: not running */
	int			in_flight;
	TimestampTz last_turn;		/* 0: none yet */
	char		state[S64_ROSTER_STATE_LEN];
	char		message[S64_ROSTER_MESSAGE_LEN];
} RosterRow;

/* All processes, palloc'd */
extern RosterRow *s64_roster_rows(int *n);

#endif							/* S64_ROSTER_H */
