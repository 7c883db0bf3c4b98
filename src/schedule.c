/*-------------------------------------------------------------------------
 *
 * schedule.c
 *		When to ask again: pure functions of age and attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "schedule.h"

#define SECOND INT64CONST(1000000)

int64
s64_schedule_poll(const char *operation, int64 age, bool awaited)
{
	/* half a second is what a person calls at once */
	if (awaited)
		return Min(Max(age / 2, SECOND / 2), 15 * SECOND);
	/* a third of the age: few polls for long tasks, little delay for short */
	return Min(Max(age / 3, 2 * SECOND), 15 * SECOND);
}

int64
s64_schedule_retry(int attempts)
{
	return Min(SECOND << Min(attempts, 16), 300 * SECOND);
}

int64
s64_schedule_deadline(const char *operation)
{
	return 4 * 3600 * SECOND;
}
