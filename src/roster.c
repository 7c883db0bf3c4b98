/*-------------------------------------------------------------------------
 *
 * roster.c
 *		Who works for which database: the background processes in shared memory.
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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "roster.h"

#define MEMBERS			2		/* of a place */
#define GRACE			5000	/* ms from "leave" to SIGTERM */
#define FIRST_PAUSE		1		/* s before a restart, doubled each time ... */
#define LONGEST_PAUSE	60		/* ... up to this */
#define GOOD_RUN		60		/* s, after which earlier failures are forgotten */

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
	Member		members[MEMBERS];
} Place;

typedef struct Roster
{
	int			nplaces;		/* of places[], those ever used */
	bool		rescan;			/* the launcher must read pg_database */
	Member		launcher;
	Place		places[S64_ROSTER_PLACES];
} Roster;

static Roster *roster = NULL;
static LWLock *roster_lock = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* This process, if it is one of the roster's */
static Member *me = NULL;
static Place *my_place = NULL;	/* NULL for the launcher */

/* What the current transaction does when it ends */
static struct
{
	int			wake_level[PROCESS_WRITER + 1]; /* nesting level, or 0 */
	bool		rescan;
	bool		extension_changed;
	bool		extension_present;
	List	   *barred;			/* databases, in TopMemoryContext */
} at_end;

/* ---- shared memory ---- */

static void
init_member(Member *member)
{
	memset(member, 0, sizeof(Member));
	pg_atomic_init_u32(&member->woken, 0);
	member->procno = -1;
}

static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(Roster)));
	RequestNamedLWLockTranche("sixtyfour roster", 1);
}

static void
startup_shmem(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	roster = ShmemInitStruct("sixtyfour roster", sizeof(Roster), &found);
	roster_lock = &(GetNamedLWLockTranche("sixtyfour roster"))[0].lock;
	if (!found)
	{
		memset(roster, 0, sizeof(Roster));
		roster->rescan = true;
		init_member(&roster->launcher);
		for (int i = 0; i < S64_ROSTER_PLACES; i++)
			ConditionVariableInit(&roster->places[i].changed);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
s64_roster_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

bool
s64_roster_is_there(void)
{
	return roster != NULL;
}

/* ---- places; all with the lock held ---- */

static Place *
find_place(Oid database)
{
	for (int i = 0; i < roster->nplaces; i++)
	{
		if (roster->places[i].database == database)
			return &roster->places[i];
	}
	return NULL;
}

/* A free place for the database; NULL if the table is full */
static Place *
take_place(Oid database)
{
	Place	   *place = find_place(InvalidOid);

	if (place == NULL && roster->nplaces == S64_ROSTER_PLACES)
		return NULL;
	if (place == NULL)
		place = &roster->places[roster->nplaces++];
	place->database = database;
	place->extension = EXTENSION_UNKNOWN;
	place->forbidden = true;
	place->gone = false;
	place->bars = 0;
	for (int i = 0; i < MEMBERS; i++)
		init_member(&place->members[i]);
	return place;
}

/* The launcher judges whether a place taken here may have processes. */
static Place *
find_or_take_place(Oid database)
{
	Place	   *place = find_place(database);

	if (place == NULL)
	{
		place = take_place(database);
		roster->rescan = true;
	}
	return place;
}

static Member *
member_of(Place *place, ProcessKind kind)
{
	Assert(kind != PROCESS_LAUNCHER);
	return &place->members[kind - PROCESS_WORKER];
}

/*
 * Set the latch of whoever is there.  Should the PGPROC belong to another
 * process by now, that one is woken for nothing, which every latch allows.
 */
static void
nudge(const Member *member)
{
	if (member->procno >= 0)
		SetLatch(&ProcGlobal->allProcs[member->procno].procLatch);
}

/* There may be work for this member. */
static void
rouse(Member *member)
{
	pg_atomic_write_u32(&member->woken, 1);
	nudge(member->phase == PHASE_HERE ? member : &roster->launcher);
}

static void
tell_to_leave(Place *place)
{
	for (int i = 0; i < MEMBERS; i++)
	{
		if (place->members[i].pid == 0)
			continue;
		place->members[i].leave = true;
		nudge(&place->members[i]);
	}
}

/* From now on the database has the extension; its processes start afresh. */
static void
extension_came(Place *place)
{
	place->extension = EXTENSION_PRESENT;
	for (int i = 0; i < MEMBERS; i++)
	{
		place->members[i].failures = 0;
		place->members[i].not_before = 0;
		rouse(&place->members[i]);
	}
}

/* Perhaps it has not any more: its processes leave, and one comes to look. */
static void
extension_in_doubt(Place *place)
{
	place->extension = EXTENSION_UNKNOWN;
	tell_to_leave(place);
	for (int i = 0; i < MEMBERS; i++)
		rouse(&place->members[i]);
}

/* ASCII only: readers may be in a database with another encoding. */
static void
copy_ascii(char *target, const char *source, size_t size)
{
	size_t		i;

	for (i = 0; i < size - 1 && source[i] != '\0'; i++)
		target[i] = source[i] == '\n' ? ' ' :
			source[i] >= ' ' && source[i] < 127 ? source[i] : '?';
	target[i] = '\0';
}

/* Not to be started again before a pause that grows with each failure */
static void
note_failure(Member *member, TimestampTz now)
{
	int			pause = FIRST_PAUSE << Min(member->failures, 6);

	member->failures++;
	member->not_before = now + Min(pause, LONGEST_PAUSE) * USECS_PER_SEC;
}

/* ---- of sessions ---- */

static void
lock_roster(void)
{
	LWLockAcquire(roster_lock, LW_EXCLUSIVE);
}

static void
unlock_roster(void)
{
	LWLockRelease(roster_lock);
}

/* The current database's place; NULL if there is none and none can be had */
static Place *
current_place(void)
{
	static Place *place = NULL;

	if (roster == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	if (place != NULL && place->database == MyDatabaseId)
		return place;
	lock_roster();
	place = find_or_take_place(MyDatabaseId);
	unlock_roster();
	return place;
}

void
s64_roster_wake(Oid database, ProcessKind kind)
{
	Place	   *place;

	if (roster == NULL)
		return;
	if (database == MyDatabaseId && kind != PROCESS_LAUNCHER)
	{
		/*
		 * Woken already, and it has not looked yet: when it does, it sees what
		 * was committed before this barrier.
		 */
		place = current_place();
		pg_memory_barrier();
		if (place == NULL || pg_atomic_read_u32(&member_of(place, kind)->woken))
			return;
	}
	lock_roster();
	if (kind == PROCESS_LAUNCHER)
		rouse(&roster->launcher);
	else if ((place = find_or_take_place(database)) != NULL)
		rouse(member_of(place, kind));
	unlock_roster();
}

static void
release_bars(void)
{
	ListCell   *cell;

	foreach(cell, at_end.barred)
	{
		Place	   *place = find_place(lfirst_oid(cell));

		if (place != NULL && place->bars > 0)
			place->bars--;
	}
	list_free(at_end.barred);
	at_end.barred = NIL;
	/* what was kept away may be gone, or have another name */
	roster->rescan = true;
	nudge(&roster->launcher);
}

static void
commit_changes(void)
{
	Place	   *place;

	if (at_end.extension_changed)
	{
		place = at_end.extension_present ? find_or_take_place(MyDatabaseId)
			: find_place(MyDatabaseId);
		if (place != NULL && at_end.extension_present)
			extension_came(place);
		else if (place != NULL)
			extension_in_doubt(place);
	}
	if (at_end.rescan)
	{
		roster->rescan = true;
		nudge(&roster->launcher);
	}
}

static void
transaction_ended(bool committed)
{
	if (at_end.extension_changed || at_end.rescan || at_end.barred != NIL)
	{
		lock_roster();
		if (committed)
			commit_changes();
		if (at_end.barred != NIL)
			release_bars();
		unlock_roster();
	}
	for (int kind = PROCESS_LAUNCHER; kind <= PROCESS_WRITER; kind++)
	{
		if (committed && at_end.wake_level[kind] > 0)
			s64_roster_wake(MyDatabaseId, kind);
	}
	memset(&at_end, 0, sizeof(at_end));
}

/*
 * A backend that is terminated aborts its transaction on the way out, so
 * this is called in any case (ShutdownPostgres in postinit.c).
 */
static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		transaction_ended(true);
	else if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		transaction_ended(false);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine,
				 SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	for (int kind = PROCESS_LAUNCHER; kind <= PROCESS_WRITER; kind++)
	{
		if (at_end.wake_level[kind] < level)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			at_end.wake_level[kind] = 0;
		else if (event == SUBXACT_EVENT_COMMIT_SUB)
			at_end.wake_level[kind] = level - 1;
	}
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	registered = true;
}

void
s64_roster_wake_at_commit(ProcessKind kind)
{
	if (roster == NULL || at_end.wake_level[kind] > 0)
		return;
	register_callbacks();
	at_end.wake_level[kind] = GetCurrentTransactionNestLevel();
}

void
s64_roster_prepare_wait(void)
{
	Place	   *place = current_place();

	if (place != NULL)
		ConditionVariablePrepareToSleep(&place->changed);
}

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = s64_wait_event_new("SixtyfourRoster");
	return event;
}

void
s64_roster_wait(long timeout)
{
	Place	   *place = current_place();

	if (place != NULL)
	{
		(void) ConditionVariableTimedSleep(&place->changed, timeout, wait_event());
		return;
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
					 (timeout >= 0 ? WL_TIMEOUT : 0), timeout, wait_event());
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

void
s64_roster_cancel_wait(void)
{
	ConditionVariableCancelSleep();
}

void
s64_roster_announce(void)
{
	Place	   *place = current_place();

	/* costs a spinlock if nobody waits */
	if (place != NULL)
		ConditionVariableBroadcast(&place->changed);
}

/* ---- of the processes themselves ---- */

/* What the end of this member means, judged by how it came about */
static void
judge_end(TimestampTz now)
{
	if (me->phase == PHASE_LEAVING)
		me->failures = 0;
	else if (me->leave)
		pg_atomic_write_u32(&me->woken, 1);
	else
	{
		if (now - me->came_at >= GOOD_RUN * USECS_PER_SEC)
			me->failures = 0;
		note_failure(me, now);
		pg_atomic_write_u32(&me->woken, 1);
	}
}

static void
leave_table(int code, Datum arg)
{
	lock_roster();
	if (my_place != NULL)
		judge_end(GetCurrentTimestamp());
	me->phase = PHASE_NONE;
	me->pid = 0;
	me->procno = -1;
	me->leave = false;
	me->in_flight = 0;
	me->state[0] = '\0';
	nudge(&roster->launcher);
	unlock_roster();
	if (my_place != NULL)
		ConditionVariableBroadcast(&my_place->changed);
	me = NULL;
	my_place = NULL;
}

/* A new launcher has not started what its predecessor was starting. */
static void
forget_starting(void)
{
	for (int i = 0; i < roster->nplaces; i++)
	{
		for (int j = 0; j < MEMBERS; j++)
		{
			if (roster->places[i].members[j].phase == PHASE_STARTING)
				roster->places[i].members[j].phase = PHASE_NONE;
		}
	}
	roster->rescan = true;
}

bool
s64_roster_enter(ProcessKind kind, Oid database)
{
	Place	   *place = NULL;
	Member	   *member = NULL;

	if (roster == NULL)
		return false;
	lock_roster();
	if (kind == PROCESS_LAUNCHER)
		member = &roster->launcher;
	else if ((place = find_place(database)) != NULL)
		member = member_of(place, kind);
	if (member == NULL || member->pid != 0)
	{
		unlock_roster();
		return false;
	}
	if (place != NULL && (place->bars > 0 || place->forbidden || place->gone))
	{
		member->phase = PHASE_NONE;
		unlock_roster();
		return false;
	}
	if (kind == PROCESS_LAUNCHER)
		forget_starting();
	member->phase = PHASE_HERE;
	member->pid = MyProcPid;
	member->procno = MyProc - ProcGlobal->allProcs;
	member->leave = false;
	member->said_here = false;
	member->came_at = GetCurrentTimestamp();
	member->again = 0;
	me = member;
	my_place = place;
	unlock_roster();

	/*
	 * Registered before InitPostgres() registers RemoveProcFromArray(), and so
	 * called after it: DROP DATABASE does not count us any more by then.
	 */
	on_shmem_exit(leave_table, (Datum) 0);
	return true;
}

void
s64_roster_found_extension(void)
{
	if (my_place == NULL || my_place->extension == EXTENSION_PRESENT)
		return;
	lock_roster();
	my_place->extension = EXTENSION_PRESENT;
	rouse(member_of(my_place, PROCESS_WRITER));
	unlock_roster();
}

void
s64_roster_found_no_extension(void)
{
	if (me == NULL)
		return;
	lock_roster();
	/* if it was created meanwhile, we were woken, and are started again */
	if (!pg_atomic_read_u32(&me->woken))
	{
		my_place->extension = EXTENSION_ABSENT;
		tell_to_leave(my_place);
	}
	me->phase = PHASE_LEAVING;
	unlock_roster();
}

bool
s64_roster_told_to_leave(void)
{
	return me != NULL && me->leave;
}

bool
s64_roster_was_woken(void)
{
	/* an exchange is a full barrier, before what is looked at next */
	return me != NULL && pg_atomic_exchange_u32(&me->woken, 0) != 0;
}

bool
s64_roster_leave(TimestampTz again)
{
	bool		leave;

	if (me == NULL)
		return false;
	lock_roster();
	leave = !pg_atomic_read_u32(&me->woken);
	if (leave)
	{
		me->phase = PHASE_LEAVING;
		me->again = again;
	}
	unlock_roster();
	return leave;
}

void
s64_roster_report(const char *state, int in_flight)
{
	TimestampTz now = GetCurrentTimestamp();

	if (me == NULL)
		return;
	lock_roster();
	copy_ascii(me->state, state, sizeof(me->state));
	me->in_flight = in_flight;
	me->last_turn = now;
	/* why its predecessor ended is of no interest any more */
	if (!me->said_here)
		me->message[0] = '\0';
	unlock_roster();
}

void
s64_roster_say(const char *message)
{
	if (me == NULL)
		return;
	lock_roster();
	copy_ascii(me->message, message ? message : "", sizeof(me->message));
	me->said_here = true;
	unlock_roster();
}

/* ---- of the utility hook ---- */

/* Is a process of the place running, apart from this one? */
static bool
somebody_is_here(Place *place, bool terminate)
{
	bool		found = false;

	LWLockAcquire(roster_lock, LW_SHARED);
	for (int i = 0; i < MEMBERS; i++)
	{
		int			pid = place->members[i].pid;

		if (pid == 0 || pid == MyProcPid)
			continue;
		found = true;
		if (terminate)
			(void) kill(pid, SIGTERM);
	}
	unlock_roster();
	return found;
}

/*
 * It is asked to leave first, as it may be about to learn whether a call was
 * accepted, and is terminated if it takes too long: it may be waiting for a
 * lock that we hold.
 */
static void
wait_until_gone(Place *place)
{
	bool		terminate = false;

	ConditionVariablePrepareToSleep(&place->changed);
	while (somebody_is_here(place, terminate))
		terminate = ConditionVariableTimedSleep(&place->changed, GRACE, wait_event());
	ConditionVariableCancelSleep();
}

void
s64_roster_stop(Oid database)
{
	MemoryContext old;
	Place	   *place;

	if (roster == NULL || list_member_oid(at_end.barred, database))
		return;
	register_callbacks();
	old = MemoryContextSwitchTo(TopMemoryContext);
	at_end.barred = lappend_oid(at_end.barred, database);
	MemoryContextSwitchTo(old);

	lock_roster();
	place = find_or_take_place(database);
	if (place != NULL)
	{
		place->bars++;
		tell_to_leave(place);
	}
	else
		at_end.barred = list_delete_oid(at_end.barred, database);
	unlock_roster();
	if (place != NULL)
		wait_until_gone(place);
}

void
s64_roster_allow(Oid database)
{
	Place	   *place;

	if (roster == NULL || !list_member_oid(at_end.barred, database))
		return;
	at_end.barred = list_delete_oid(at_end.barred, database);
	lock_roster();
	place = find_place(database);
	if (place != NULL && place->bars > 0)
		place->bars--;
	roster->rescan = true;
	nudge(&roster->launcher);
	unlock_roster();
}

void
s64_roster_extension_at_commit(bool present)
{
	if (roster == NULL)
		return;
	register_callbacks();
	at_end.extension_changed = true;
	at_end.extension_present = present;
}

void
s64_roster_rescan_at_commit(void)
{
	if (roster == NULL)
		return;
	register_callbacks();
	at_end.rescan = true;
}

/* ---- of the launcher ---- */

bool
s64_roster_must_rescan(void)
{
	bool		rescan;

	lock_roster();
	rescan = roster->rescan;
	roster->rescan = false;
	unlock_roster();
	return rescan;
}

void
s64_roster_rescan(void)
{
	lock_roster();
	roster->rescan = true;
	unlock_roster();
}

/*
 * A place may have been taken only to keep processes away, or by a session
 * that came before us: then nobody has probed the database yet.
 */
static void
ensure_probe(Place *place, bool known_without)
{
	Member	   *worker = member_of(place, PROCESS_WORKER);

	if (place->extension != EXTENSION_UNKNOWN || place->bars > 0 ||
		worker->phase != PHASE_NONE || pg_atomic_read_u32(&worker->woken))
		return;
	if (known_without)
		place->extension = EXTENSION_ABSENT;
	else
		pg_atomic_write_u32(&worker->woken, 1);
}

/* What the list says about a place that is in use */
static void
sync_place(Place *place, const RosterDatabase *databases, int n)
{
	const RosterDatabase *found = NULL;

	for (int i = 0; i < n && found == NULL; i++)
	{
		if (databases[i].oid == place->database)
			found = &databases[i];
	}
	place->gone = found == NULL;
	place->forbidden = found != NULL && !found->allowed;
	if (place->gone || place->forbidden)
		tell_to_leave(place);
	else
		ensure_probe(place, found->known_without);
}

bool
s64_roster_sync(const RosterDatabase *databases, int n)
{
	bool		all = true;

	lock_roster();
	for (int i = 0; i < roster->nplaces; i++)
	{
		if (OidIsValid(roster->places[i].database))
			sync_place(&roster->places[i], databases, n);
	}
	for (int i = 0; i < n; i++)
	{
		Place	   *place;

		if (!databases[i].allowed || databases[i].known_without ||
			find_place(databases[i].oid) != NULL)
			continue;
		place = take_place(databases[i].oid);
		if (place == NULL)
		{
			all = false;
			break;
		}
		place->forbidden = false;
		ensure_probe(place, false);
	}
	unlock_roster();
	return all;
}

int
s64_roster_places(void)
{
	return roster->nplaces;
}

int
s64_roster_probing(void)
{
	int			n = 0;

	LWLockAcquire(roster_lock, LW_SHARED);
	for (int i = 0; i < roster->nplaces; i++)
	{
		Place	   *place = &roster->places[i];

		if (OidIsValid(place->database) && place->extension == EXTENSION_UNKNOWN &&
			member_of(place, PROCESS_WORKER)->phase != PHASE_NONE)
			n++;
	}
	unlock_roster();
	return n;
}

/* May this member run at all?  An unknown database is probed by a worker. */
static bool
may_run(const Place *place, ProcessKind kind, bool may_probe)
{
	if (!OidIsValid(place->database) || place->gone || place->forbidden ||
		place->bars > 0 || place->extension == EXTENSION_ABSENT)
		return false;
	return place->extension == EXTENSION_PRESENT ||
		(kind == PROCESS_WORKER && may_probe);
}

static bool
is_due(Member *member, TimestampTz now, TimestampTz *next)
{
	if (member->phase != PHASE_NONE)
		return false;
	if (member->again != 0 && member->again <= now)
	{
		member->again = 0;
		pg_atomic_write_u32(&member->woken, 1);
	}
	if (!pg_atomic_read_u32(&member->woken))
	{
		if (member->again != 0)
			*next = Min(*next, member->again);
		return false;
	}
	if (member->not_before > now)
	{
		*next = Min(*next, member->not_before);
		return false;
	}
	return true;
}

bool
s64_roster_due(RosterOrder *order, bool may_probe, TimestampTz now,
			   TimestampTz *next)
{
	Place	   *place = &roster->places[order->place];
	Member	   *member = member_of(place, order->kind);
	bool		due;

	lock_roster();
	due = may_run(place, order->kind, may_probe) && is_due(member, now, next);
	if (due)
	{
		member->phase = PHASE_STARTING;
		order->database = place->database;
		order->probe = place->extension == EXTENSION_UNKNOWN;
	}
	unlock_roster();
	return due;
}

void
s64_roster_not_started(int place_no, ProcessKind kind, TimestampTz now,
					   const char *message)
{
	Member	   *member = member_of(&roster->places[place_no], kind);

	lock_roster();
	if (member->phase == PHASE_STARTING)
	{
		member->phase = PHASE_NONE;
		note_failure(member, now);
		copy_ascii(member->message, message, sizeof(member->message));
	}
	unlock_roster();
}

Oid
s64_roster_tidy(int place_no)
{
	Place	   *place = &roster->places[place_no];
	Oid			without = InvalidOid;

	lock_roster();
	if (OidIsValid(place->database) && place->bars == 0 &&
		place->members[0].phase == PHASE_NONE &&
		place->members[1].phase == PHASE_NONE &&
		(place->gone || place->extension == EXTENSION_ABSENT))
	{
		without = place->gone ? InvalidOid : place->database;
		place->database = InvalidOid;
	}
	unlock_roster();
	return without;
}

/* ---- for sixtyfour.workers ---- */

static const char *
state_of(const Place *place, const Member *member, TimestampTz now)
{
	if (member->pid != 0 && (member->leave || member->phase == PHASE_LEAVING))
		return "leaving";
	if (member->pid != 0)
		return member->state[0] ? member->state : "starting";
	if (place == NULL)
		return "not running";
	if (place->gone || place->bars > 0)
		return "kept away";
	if (place->forbidden)
		return "not allowed";
	if (place->extension == EXTENSION_ABSENT)
		return "no extension";
	if (!pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &member->woken)))
		return "asleep";
	return member->not_before > now ? "waiting to start" : "starting";
}

static RosterRow
row_of(const Place *place, ProcessKind kind, const Member *member, TimestampTz now)
{
	RosterRow	row = {0};

	row.database = place != NULL ? place->database : InvalidOid;
	row.kind = kind;
	row.pid = member->pid;
	row.in_flight = member->in_flight;
	row.last_turn = member->last_turn;
	strlcpy(row.state, state_of(place, member, now), sizeof(row.state));
	strlcpy(row.message, member->message, sizeof(row.message));
	return row;
}

RosterRow *
s64_roster_rows(int *n)
{
	TimestampTz now = GetCurrentTimestamp();
	RosterRow  *rows;

	*n = 0;
	if (roster == NULL)
		return NULL;
	rows = palloc(sizeof(RosterRow) * (1 + S64_ROSTER_PLACES * MEMBERS));
	LWLockAcquire(roster_lock, LW_SHARED);
	rows[(*n)++] = row_of(NULL, PROCESS_LAUNCHER, &roster->launcher, now);
	for (int i = 0; i < roster->nplaces; i++)
	{
		Place	   *place = &roster->places[i];

		if (!OidIsValid(place->database))
			continue;
		rows[(*n)++] = row_of(place, PROCESS_WORKER, &place->members[0], now);
		/* an unknown database is only probed, by a worker */
		if (place->extension == EXTENSION_PRESENT)
			rows[(*n)++] = row_of(place, PROCESS_WRITER, &place->members[1], now);
	}
	unlock_roster();
	return rows;
}
