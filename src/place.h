/*-------------------------------------------------------------------------
 *
 * place.h
 *		The table of databases and their processes in shared memory.
 *
 * For roster.c, errand.c and order.c only: what the processes, the sessions and
 * the launcher do with it.
 *
 * A place is a database's line in the table, a member one of its two
 * processes.  A member's phase goes
 *
 *		none -> starting (launcher) -> here (itself) [-> leaving] -> none
 *
 * "woken" says that there may be work which the member has not looked for
 * yet.  It is set under the lock, cleared by the member before it looks, and
 * a member decides to leave under the lock, only while it is not set.  So a
 * wake-up is seen by the member, or, after it, by the launcher.  Whoever ends
 * unexpectedly leaves the flag set.
 *
 * A place is taken by anybody, and given up only by the launcher.
 *
 * There is one LWLock, never held while anything can fail or wait.  No pointers
 * are stored in the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_PLACE_H
#define S64_PLACE_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"

#include "kind.h"

#define S64_MEMBERS 2			/* of a place */

typedef enum Phase
{
	PHASE_NONE,
	PHASE_STARTING,
	PHASE_HERE,
	PHASE_LEAVING
} Phase;

typedef enum Presence
{
	EXTENSION_UNKNOWN,
	EXTENSION_PRESENT,
	EXTENSION_ABSENT
} Presence;

typedef struct Member
{
	pg_atomic_uint32 woken;
	Phase		phase;
	int			pid;			/* while here or leaving, else 0 */
	int			procno;			/* in ProcGlobal->allProcs, likewise, else -1 */
	bool		leave;			/* told to leave */
	bool		said_here;		/* message is of the process that is here */
	bool		for_all;		/* message has nothing that is anybody's */
	int			failures;		/* in a row */
	int			in_flight;
	TimestampTz came_at;
	TimestampTz not_before;		/* of the next start */
	TimestampTz again;			/* wakes itself then; 0: never */
	TimestampTz last_turn;
	char		state[S64_ROSTER_STATE_LEN];
	char		message[S64_ROSTER_MESSAGE_LEN];
} Member;

typedef struct Place
{
	Oid			database;		/* InvalidOid: free */
	Presence	extension;
	bool		forbidden;		/* to have processes */
	bool		gone;			/* dropped */
	int			bars;			/* sessions that keep processes away */
	ConditionVariable changed;	/* ledgers, or members */
	Member		members[S64_MEMBERS];
} Place;

typedef struct PlaceTable
{
	int			nplaces;		/* of places[], those ever used */
	bool		rescan;			/* the launcher must read pg_database */
	Member		launcher;
	Place		places[S64_ROSTER_PLACES];
} PlaceTable;

/* NULL where the library is not preloaded */
extern PlaceTable *s64_place_table;

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_place_init(void);

extern void s64_place_lock(void);
extern void s64_place_lock_shared(void);
extern void s64_place_unlock(void);

/* ---- without the lock ---- */

/*
 * The current database's place; NULL if there is none and none can be had, or
 * no table.
 */
extern Place *s64_place_current(void);

/* See s64_roster_wake(). */
extern void s64_place_wake(Oid database, ProcessKind kind);

/*
 * Sleep until the place changes, or timeout ms passed (-1: never): then true.
 * As ConditionVariableTimedSleep().
 */
extern bool s64_place_sleep(Place *place, long timeout);

/* ---- with the lock ---- */

/* A database's place, or a free one (InvalidOid); NULL if there is none */
extern Place *s64_place_find(Oid database);

/* A free place for the database; NULL if the table is full */
extern Place *s64_place_take(Oid database);

/*
 * Either of these.  The launcher is made to judge whether a place taken here
 * may have processes.
 */
extern Place *s64_place_find_or_take(Oid database);

/* Tell those who are there to leave. */
extern void s64_place_dismiss(Place *place);

/* Have the launcher read pg_database again, now. */
extern void s64_place_rescan(void);

extern Member *s64_member_of(Place *place, ProcessKind kind);

/* Set the latch of whoever is there. */
extern void s64_member_nudge(const Member *member);

/* There may be work for this member: wake it, or have it started. */
extern void s64_member_rouse(Member *member);

/* What is wrong with it; NULL: nothing.  Kept in ASCII. */
extern void s64_member_say(Member *member, const char *message, bool for_all);

/* What it does */
extern void s64_member_report(Member *member, const char *state);

/* Not to be started again before a pause that grows with each failure */
extern void s64_member_failed(Member *member, TimestampTz now);

#endif							/* S64_PLACE_H */
