/*-------------------------------------------------------------------------
 *
 * doorbell.c
 *		Which tasks somebody says to have ended, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"

#include "doorbell.h"
#include "shmem.h"

#define MAX_RINGS 512			/* of all databases, that nobody has heard yet */

typedef struct Ring
{
	Oid			database;		/* InvalidOid: heard, or none */
	int64		call;
} Ring;

typedef struct Doorbell
{
	int			next;			/* of rings[], to be overwritten */
	int			waiting;		/* rings that may not have been heard */
	Ring		rings[MAX_RINGS];
} Doorbell;

static Doorbell *bell = NULL;
static LWLock *bell_lock = NULL;

void
s64_doorbell_init(void)
{
	static const ShmemPart part = {
		"sixtyfour doorbell", sizeof(Doorbell), NULL, (void **) &bell, &bell_lock
	};

	s64_shmem_add(&part);
}

/* Is this ring waiting already?  With the lock held. */
static bool
is_waiting(int64 call)
{
	for (int i = 0; i < MAX_RINGS; i++)
	{
		if (bell->rings[i].database == MyDatabaseId && bell->rings[i].call == call)
			return true;
	}
	return false;
}

void
s64_doorbell_ring(int64 call)
{
	if (bell == NULL)
		return;
	LWLockAcquire(bell_lock, LW_EXCLUSIVE);
	if (!is_waiting(call))
	{
		Ring	   *ring = &bell->rings[bell->next];

		bell->next = (bell->next + 1) % MAX_RINGS;
		if (!OidIsValid(ring->database))
			bell->waiting++;
		ring->database = MyDatabaseId;
		ring->call = call;
	}
	LWLockRelease(bell_lock);
}

int
s64_doorbell_answer(int64 *calls, int max)
{
	int			n = 0;

	if (bell == NULL)
		return 0;
	LWLockAcquire(bell_lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_RINGS && bell->waiting > 0 && n < max; i++)
	{
		Ring	   *ring = &bell->rings[i];

		if (ring->database != MyDatabaseId)
			continue;
		calls[n++] = ring->call;
		ring->database = InvalidOid;
		bell->waiting--;
	}
	LWLockRelease(bell_lock);
	return n;
}
