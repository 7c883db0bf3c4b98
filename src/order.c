/*-------------------------------------------------------------------------
 *
 * order.c
 *		Which background processes are to be started: what the launcher asks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "order.h"
#include "place.h"

void
s64_order_begin(void)
{
	s64_place_lock();
	for (int i = 0; i < s64_place_table->nplaces; i++)
	{
		for (int j = 0; j < S64_MEMBERS; j++)
		{
			if (s64_place_table->places[i].members[j].phase == PHASE_STARTING)
				s64_place_table->places[i].members[j].phase = PHASE_NONE;
		}
	}
	s64_place_table->rescan = true;
	s64_place_unlock();
}

bool
s64_order_must_rescan(void)
{
	bool		rescan;

	s64_place_lock();
	rescan = s64_place_table->rescan;
	s64_place_table->rescan = false;
	s64_place_unlock();
	return rescan;
}

void
s64_order_rescan(void)
{
	s64_place_lock();
	s64_place_table->rescan = true;
	s64_place_unlock();
}

/*
 * A place may have been taken only to keep processes away, or by a session
 * that came before us: then nobody has probed the database yet.
 */
static void
ensure_probe(Place *place, bool known_without)
{
	Member	   *worker = s64_member_of(place, PROCESS_WORKER);

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
sync_place(Place *place, const OrderDatabase *databases, int n)
{
	const OrderDatabase *found = NULL;

	for (int i = 0; i < n && found == NULL; i++)
	{
		if (databases[i].oid == place->database)
			found = &databases[i];
	}
	place->gone = found == NULL;
	place->forbidden = found != NULL && !found->allowed;
	if (place->gone || place->forbidden)
		s64_place_dismiss(place);
	else
		ensure_probe(place, found->known_without);
}

bool
s64_order_sync(const OrderDatabase *databases, int n)
{
	bool		all = true;

	s64_place_lock();
	for (int i = 0; i < s64_place_table->nplaces; i++)
	{
		if (OidIsValid(s64_place_table->places[i].database))
			sync_place(&s64_place_table->places[i], databases, n);
	}
	for (int i = 0; i < n; i++)
	{
		Place	   *place;

		if (!databases[i].allowed || databases[i].known_without ||
			s64_place_find(databases[i].oid) != NULL)
			continue;
		place = s64_place_take(databases[i].oid);
		if (place == NULL)
		{
			all = false;
			break;
		}
		place->forbidden = false;
		ensure_probe(place, false);
	}
	s64_place_unlock();
	return all;
}

int
s64_order_places(void)
{
	return s64_place_table->nplaces;
}

int
s64_order_probing(void)
{
	int			n = 0;

	s64_place_lock_shared();
	for (int i = 0; i < s64_place_table->nplaces; i++)
	{
		Place	   *place = &s64_place_table->places[i];

		if (OidIsValid(place->database) && place->extension == EXTENSION_UNKNOWN &&
			s64_member_of(place, PROCESS_WORKER)->phase != PHASE_NONE)
			n++;
	}
	s64_place_unlock();
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
s64_order_due(Order *order, bool may_probe, TimestampTz now,
			  TimestampTz *next)
{
	Place	   *place = &s64_place_table->places[order->place];
	Member	   *member = s64_member_of(place, order->kind);
	bool		due;

	s64_place_lock();
	due = may_run(place, order->kind, may_probe) && is_due(member, now, next);
	if (due)
	{
		member->phase = PHASE_STARTING;
		order->database = place->database;
		order->probe = place->extension == EXTENSION_UNKNOWN;
	}
	s64_place_unlock();
	return due;
}

void
s64_order_not_started(int place_no, ProcessKind kind, TimestampTz now,
					  const char *message)
{
	Member	   *member = s64_member_of(&s64_place_table->places[place_no], kind);

	s64_place_lock();
	if (member->phase == PHASE_STARTING)
	{
		member->phase = PHASE_NONE;
		s64_member_failed(member, now);
		s64_member_say(member, message, true);
	}
	s64_place_unlock();
}

Oid
s64_order_tidy(int place_no)
{
	Place	   *place = &s64_place_table->places[place_no];
	Oid			without = InvalidOid;

	s64_place_lock();
	if (OidIsValid(place->database) && place->bars == 0 &&
		place->members[0].phase == PHASE_NONE &&
		place->members[1].phase == PHASE_NONE &&
		(place->gone || place->extension == EXTENSION_ABSENT))
	{
		without = place->gone ? InvalidOid : place->database;
		place->database = InvalidOid;
	}
	s64_place_unlock();
	return without;
}
