/*-------------------------------------------------------------------------
 *
 * schedule.h
 *		When to ask again: pure functions of age and attempt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_SCHEDULE_H
#define S64_SCHEDULE_H

/*
 * How long to wait before the next poll of a task that was accepted "age" µs
 * ago: µs, growing with the age from 2 s, or half a second if somebody sits and
 * waits for it, to 15 s.
 */
extern int64 s64_schedule_poll(const char *operation, int64 age, bool awaited);

/*
 * How long to wait before submitting again after the given number of
 * attempts that came to nothing: µs, from 1 s doubling to 5 minutes.
 */
extern int64 s64_schedule_retry(int attempts);

/* How long after its acceptance a task is given up: µs. */
extern int64 s64_schedule_deadline(const char *operation);

#endif							/* S64_SCHEDULE_H */
