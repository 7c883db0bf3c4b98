/*-------------------------------------------------------------------------
 *
 * place.c
 *		The table of databases and their processes in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "place.h"
#include "shmem.h"

#define FIRST_PAUSE		1		/* s before a restart, doubled each time ... */
#define LONGEST_PAUSE	60		/* ... up to this */

PlaceTable *s64_place_table = NULL;
static LWLock *table_lock = NULL;

/* ---- the table ---- */

static void
init_member(Member *member)
{
	memset(member, 0, sizeof(Member));
	pg_atomic_init_u32(&member->woken, 0);
	member->procno = -1;
}

static void
init_table(void *memory)
{
	PlaceTable *table = memory;

	table->rescan = true;
	init_member(&table->launcher);
	for (int i = 0; i < S64_ROSTER_PLACES; i++)
		ConditionVariableInit(&table->places[i].changed);
}

void
s64_place_init(void)
{
	static const ShmemPart part = {
		"sixtyfour roster", sizeof(PlaceTable), init_table,
		(void **) &s64_place_table, &table_lock
	};

	s64_shmem_add(&part);
}

void
s64_place_lock(void)
{
	LWLockAcquire(table_lock, LW_EXCLUSIVE);
}

void
s64_place_lock_shared(void)
{
	LWLockAcquire(table_lock, LW_SHARED);
}

void
s64_place_unlock(void)
{
	LWLockRelease(table_lock);
}

/* ---- places ---- */

Place *
s64_place_find(Oid database)
{
	for (int i = 0; i < s64_place_table->nplaces; i++)
	{
		if (s64_place_table->places[i].database == database)
			return &s64_place_table->places[i];
	}
	return NULL;
}

Place *
s64_place_take(Oid database)
{
	Place	   *place = s64_place_find(InvalidOid);

	if (place == NULL && s64_place_table->nplaces == S64_ROSTER_PLACES)
		return NULL;
	if (place == NULL)
		place = &s64_place_table->places[s64_place_table->nplaces++];
	place->database = database;
	place->extension = EXTENSION_UNKNOWN;
	place->forbidden = true;
	place->gone = false;
	place->bars = 0;
	for (int i = 0; i < S64_MEMBERS; i++)
		init_member(&place->members[i]);
	return place;
}

Place *
s64_place_find_or_take(Oid database)
{
	Place	   *place = s64_place_find(database);

	if (place == NULL)
	{
		place = s64_place_take(database);
		s64_place_table->rescan = true;
	}
	return place;
}

Place *
s64_place_current(void)
{
	static Place *place = NULL;

	if (s64_place_table == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	if (place != NULL && place->database == MyDatabaseId)
		return place;
	s64_place_lock();
	place = s64_place_find_or_take(MyDatabaseId);
	s64_place_unlock();
	return place;
}

void
s64_place_dismiss(Place *place)
{
	for (int i = 0; i < S64_MEMBERS; i++)
	{
		if (place->members[i].pid == 0)
			continue;
		place->members[i].leave = true;
		s64_member_nudge(&place->members[i]);
	}
}

void
s64_place_rescan(void)
{
	s64_place_table->rescan = true;
	s64_member_nudge(&s64_place_table->launcher);
}

void
s64_place_wake(Oid database, ProcessKind kind)
{
	Place	   *place;

	if (s64_place_table == NULL)
		return;
	if (database == MyDatabaseId && kind != PROCESS_LAUNCHER)
	{
		/*
		 * Woken already, and it has not looked yet: when it does, it sees what
		 * was committed before this barrier.
		 */
		place = s64_place_current();
		pg_memory_barrier();
		if (place == NULL || pg_atomic_read_u32(&s64_member_of(place, kind)->woken))
			return;
	}
	s64_place_lock();
	if (kind == PROCESS_LAUNCHER)
		s64_member_rouse(&s64_place_table->launcher);
	else if ((place = s64_place_find_or_take(database)) != NULL)
		s64_member_rouse(s64_member_of(place, kind));
	s64_place_unlock();
}

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = s64_wait_event_new("SixtyfourRoster");
	return event;
}

bool
s64_place_sleep(Place *place, long timeout)
{
	int			rc;

	if (place != NULL)
		return ConditionVariableTimedSleep(&place->changed, timeout, wait_event());
	rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
				   (timeout >= 0 ? WL_TIMEOUT : 0), timeout, wait_event());
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return (rc & WL_TIMEOUT) != 0;
}

/* ---- members ---- */

Member *
s64_member_of(Place *place, ProcessKind kind)
{
	Assert(kind != PROCESS_LAUNCHER);
	return &place->members[kind - PROCESS_WORKER];
}

/*
 * Should the PGPROC belong to another process by now, that one is woken for
 * nothing, which every latch allows.
 */
void
s64_member_nudge(const Member *member)
{
	if (member->procno >= 0)
		SetLatch(&ProcGlobal->allProcs[member->procno].procLatch);
}

void
s64_member_rouse(Member *member)
{
	pg_atomic_write_u32(&member->woken, 1);
	s64_member_nudge(member->phase == PHASE_HERE ? member : &s64_place_table->launcher);
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

void
s64_member_say(Member *member, const char *message, bool for_all)
{
	copy_ascii(member->message, message ? message : "", sizeof(member->message));
	member->for_all = for_all;
}

void
s64_member_report(Member *member, const char *state)
{
	copy_ascii(member->state, state, sizeof(member->state));
}

void
s64_member_failed(Member *member, TimestampTz now)
{
	int			pause = FIRST_PAUSE << Min(member->failures, 6);

	member->failures++;
	member->not_before = now + Min(pause, LONGEST_PAUSE) * USECS_PER_SEC;
}
