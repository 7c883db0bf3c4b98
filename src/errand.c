/*-------------------------------------------------------------------------
 *
 * errand.c
 *		What a transaction does to the background processes when it ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "errand.h"
#include "place.h"

#define GRACE 5000				/* ms from "leave" to SIGTERM */

/* What the current transaction does when it ends */
static struct
{
	int			wake_level[PROCESS_WRITER + 1]; /* nesting level, or 0 */
	bool		rescan;
	bool		extension_changed;
	bool		extension_present;
	List	   *barred;			/* databases, in TopMemoryContext */
} at_end;

/* From now on the database has the extension; its processes start afresh. */
static void
extension_came(Place *place)
{
	place->extension = EXTENSION_PRESENT;
	for (int i = 0; i < S64_MEMBERS; i++)
	{
		place->members[i].failures = 0;
		place->members[i].not_before = 0;
		s64_member_rouse(&place->members[i]);
	}
}

/* Perhaps it has not any more: its processes leave, and one comes to look. */
static void
extension_in_doubt(Place *place)
{
	place->extension = EXTENSION_UNKNOWN;
	s64_place_dismiss(place);
	for (int i = 0; i < S64_MEMBERS; i++)
		s64_member_rouse(&place->members[i]);
}

static void
release_bars(void)
{
	ListCell   *cell;

	foreach(cell, at_end.barred)
	{
		Place	   *place = s64_place_find(lfirst_oid(cell));

		if (place != NULL && place->bars > 0)
			place->bars--;
	}
	list_free(at_end.barred);
	at_end.barred = NIL;
	/* what was kept away may be gone, or have another name */
	s64_place_rescan();
}

static void
commit_changes(void)
{
	Place	   *place;

	if (at_end.extension_changed)
	{
		place = at_end.extension_present ? s64_place_find_or_take(MyDatabaseId)
			: s64_place_find(MyDatabaseId);
		if (place != NULL && at_end.extension_present)
			extension_came(place);
		else if (place != NULL)
			extension_in_doubt(place);
	}
	if (at_end.rescan)
		s64_place_rescan();
}

static void
transaction_ended(bool committed)
{
	if (at_end.extension_changed || at_end.rescan || at_end.barred != NIL)
	{
		s64_place_lock();
		if (committed)
			commit_changes();
		if (at_end.barred != NIL)
			release_bars();
		s64_place_unlock();
	}
	for (int kind = PROCESS_LAUNCHER; kind <= PROCESS_WRITER; kind++)
	{
		if (committed && at_end.wake_level[kind] > 0)
			s64_place_wake(MyDatabaseId, kind);
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
s64_errand_wake(ProcessKind kind)
{
	if (s64_place_table == NULL || at_end.wake_level[kind] > 0)
		return;
	register_callbacks();
	at_end.wake_level[kind] = GetCurrentTransactionNestLevel();
}

/* Is a process of the place running, apart from this one? */
static bool
somebody_is_here(Place *place, bool terminate)
{
	bool		found = false;

	s64_place_lock_shared();
	for (int i = 0; i < S64_MEMBERS; i++)
	{
		int			pid = place->members[i].pid;

		if (pid == 0 || pid == MyProcPid)
			continue;
		found = true;
		if (terminate)
			(void) kill(pid, SIGTERM);
	}
	s64_place_unlock();
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
		terminate = s64_place_sleep(place, GRACE);
	ConditionVariableCancelSleep();
}

void
s64_errand_stop(Oid database)
{
	MemoryContext old;
	Place	   *place;

	if (s64_place_table == NULL || list_member_oid(at_end.barred, database))
		return;
	register_callbacks();
	old = MemoryContextSwitchTo(TopMemoryContext);
	at_end.barred = lappend_oid(at_end.barred, database);
	MemoryContextSwitchTo(old);

	s64_place_lock();
	place = s64_place_find_or_take(database);
	if (place != NULL)
	{
		place->bars++;
		s64_place_dismiss(place);
	}
	else
		at_end.barred = list_delete_oid(at_end.barred, database);
	s64_place_unlock();
	if (place != NULL)
		wait_until_gone(place);
}

void
s64_errand_extension(bool present)
{
	if (s64_place_table == NULL)
		return;
	register_callbacks();
	at_end.extension_changed = true;
	at_end.extension_present = present;
}

void
s64_errand_rescan(void)
{
	if (s64_place_table == NULL)
		return;
	register_callbacks();
	at_end.rescan = true;
}
