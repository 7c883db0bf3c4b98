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
 * ago: µs, growing from 2 to 15 s with the age.
 */
extern int64 s64_schedule_poll(const char *operation, int64 age);

/*
 * How long to wait before submitting again after the given number of
 * attempts that came to nothing: µs, from 1 s doubling to 5 minutes.
 */
extern int64 s64_schedule_retry(int attempts);

/* How long after its acceptance a task is given up: µs. */
extern int64 s64_schedule_deadline(const char *operation);

#endif							/* S64_SCHEDULE_H */
