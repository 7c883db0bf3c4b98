/*-------------------------------------------------------------------------
 *
 * roster.c
 *		Who works for which database: the background processes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "place.h"
#include "roster.h"

#define GOOD_RUN 60				/* s, after which earlier failures are forgotten */

/* This process, if it is one of the roster's */
static Member *me = NULL;
static Place *my_place = NULL;	/* NULL for the launcher */

bool
s64_roster_is_there(void)
{
	return s64_place_table != NULL;
}

void
s64_roster_wake(Oid database, ProcessKind kind)
{
	s64_place_wake(database, kind);
}

void
s64_roster_prepare_wait(void)
{
	Place	   *place = s64_place_current();

	if (place != NULL)
		ConditionVariablePrepareToSleep(&place->changed);
}

void
s64_roster_wait(long timeout)
{
	(void) s64_place_sleep(s64_place_current(), timeout);
}

void
s64_roster_cancel_wait(void)
{
	ConditionVariableCancelSleep();
}

void
s64_roster_announce(void)
{
	Place	   *place = s64_place_current();

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
		s64_member_failed(me, now);
		pg_atomic_write_u32(&me->woken, 1);
	}
}

static void
leave_table(int code, Datum arg)
{
	s64_place_lock();
	if (my_place != NULL)
		judge_end(GetCurrentTimestamp());
	me->phase = PHASE_NONE;
	me->pid = 0;
	me->procno = -1;
	me->leave = false;
	me->in_flight = 0;
	me->state[0] = '\0';
	s64_member_nudge(&s64_place_table->launcher);
	s64_place_unlock();
	if (my_place != NULL)
		ConditionVariableBroadcast(&my_place->changed);
	me = NULL;
	my_place = NULL;
}

bool
s64_roster_enter(ProcessKind kind, Oid database)
{
	Place	   *place = NULL;
	Member	   *member = NULL;

	if (s64_place_table == NULL)
		return false;
	s64_place_lock();
	if (kind == PROCESS_LAUNCHER)
		member = &s64_place_table->launcher;
	else if ((place = s64_place_find(database)) != NULL)
		member = s64_member_of(place, kind);
	if (member == NULL || member->pid != 0)
	{
		s64_place_unlock();
		return false;
	}
	if (place != NULL && (place->bars > 0 || place->forbidden || place->gone))
	{
		member->phase = PHASE_NONE;
		s64_place_unlock();
		return false;
	}
	member->phase = PHASE_HERE;
	member->pid = MyProcPid;
	member->procno = MyProc - ProcGlobal->allProcs;
	member->leave = false;
	member->said_here = false;
	member->came_at = GetCurrentTimestamp();
	member->again = 0;
	me = member;
	my_place = place;
	s64_place_unlock();

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
	s64_place_lock();
	my_place->extension = EXTENSION_PRESENT;
	s64_member_rouse(s64_member_of(my_place, PROCESS_WRITER));
	s64_place_unlock();
}

void
s64_roster_found_no_extension(void)
{
	if (me == NULL)
		return;
	s64_place_lock();
	/* if it was created meanwhile, we were woken, and are started again */
	if (!pg_atomic_read_u32(&me->woken))
	{
		my_place->extension = EXTENSION_ABSENT;
		s64_place_dismiss(my_place);
	}
	me->phase = PHASE_LEAVING;
	s64_place_unlock();
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
	s64_place_lock();
	leave = !pg_atomic_read_u32(&me->woken);
	if (leave)
	{
		me->phase = PHASE_LEAVING;
		me->again = again;
	}
	s64_place_unlock();
	return leave;
}

void
s64_roster_report(const char *state, int in_flight)
{
	TimestampTz now = GetCurrentTimestamp();

	if (me == NULL)
		return;
	s64_place_lock();
	s64_member_report(me, state);
	me->in_flight = in_flight;
	me->last_turn = now;
	/* why its predecessor ended is of no interest any more */
	if (!me->said_here)
		me->message[0] = '\0';
	s64_place_unlock();
}

static void
say(const char *message, bool for_all)
{
	if (me == NULL)
		return;
	s64_place_lock();
	s64_member_say(me, message, for_all);
	me->said_here = true;
	s64_place_unlock();
}

void
s64_roster_say(const char *message)
{
	say(message, false);
}

void
s64_roster_say_to_all(const char *message)
{
	say(message, true);
}

/* ---- for those who want to know ---- */

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

/* May the current user see what comes from the jobs of others? */
static bool
may_see_all(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_MONITOR) ||
		s64_database_ownercheck(MyDatabaseId, GetUserId());
}

static RosterRow
row_of(const Place *place, ProcessKind kind, const Member *member, bool see_all)
{
	TimestampTz now = GetCurrentTimestamp();
	RosterRow	row = {0};

	row.database = place != NULL ? place->database : InvalidOid;
	row.kind = kind;
	row.pid = member->pid;
	row.in_flight = member->in_flight;
	row.last_turn = member->last_turn;
	strlcpy(row.state, state_of(place, member, now), sizeof(row.state));
	row.hidden = !see_all && !member->for_all && member->message[0] != '\0';
	if (!row.hidden)
		strlcpy(row.message, member->message, sizeof(row.message));
	return row;
}

RosterRow *
s64_roster_rows(int *n)
{
	RosterRow  *rows;
	bool		see_all;

	*n = 0;
	if (s64_place_table == NULL)
		return NULL;
	see_all = may_see_all();
	rows = palloc(sizeof(RosterRow) * (1 + S64_ROSTER_PLACES * S64_MEMBERS));
	s64_place_lock_shared();
	rows[(*n)++] = row_of(NULL, PROCESS_LAUNCHER, &s64_place_table->launcher, see_all);
	for (int i = 0; i < s64_place_table->nplaces; i++)
	{
		Place	   *place = &s64_place_table->places[i];

		if (!OidIsValid(place->database))
			continue;
		rows[(*n)++] = row_of(place, PROCESS_WORKER, &place->members[0], see_all);
		/* an unknown database is only probed, by a worker */
		if (place->extension == EXTENSION_PRESENT)
			rows[(*n)++] = row_of(place, PROCESS_WRITER, &place->members[1], see_all);
	}
	s64_place_unlock();
	return rows;
}

bool
s64_roster_find(ProcessKind kind, RosterRow *row)
{
	Place	   *place = NULL;
	Member	   *member = NULL;
	bool		see_all;

	if (s64_place_table == NULL)
		return false;
	see_all = may_see_all();
	s64_place_lock_shared();
	if (kind == PROCESS_LAUNCHER)
		member = &s64_place_table->launcher;
	else if ((place = s64_place_find(MyDatabaseId)) != NULL)
		member = s64_member_of(place, kind);
	if (member != NULL)
		*row = row_of(place, kind, member, see_all);
	s64_place_unlock();
	return member != NULL;
}
