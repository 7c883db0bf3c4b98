/*-------------------------------------------------------------------------
 *
 * ratelimit.h
 *		When the next request may be made: GCRA with a brake.
 *
 * Pure functions of a state and the time.  Where the state lives and who may
 * touch it is the caller's business (see meter.h).  All times and durations
 * are microseconds; "now" is any clock that only goes forward by intent.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_RATELIMIT_H
#define S64_RATELIMIT_H

/*
 * One account's state.  All zero is a fresh account.
 *
 * Granted requests move "next", the time at which the account would be idle
 * again, one interval ahead.  A request is granted as long as "next" is less
 * than a burst ahead of now.  The brake is the part of the permitted rate
 * that was taken away because the service said 429; it is released over
 * S64_BRAKE_RELEASE.
 */
typedef struct RateState
{
	int64		next;			/* theoretical arrival time of the next one */
	int64		hold_until;		/* no request before this time */
	int64		braked_at;		/* when brake was set */
	double		brake;			/* 0 .. 1: share of the rate taken away then */
	int64		refusals;		/* 429s seen */
} RateState;

/* How long the brake takes to come off completely */
#define S64_BRAKE_RELEASE	INT64CONST(600000000)

/*
 * Ask for one request at per_minute requests a minute (0: no limit of our
 * own, but what the service asked for is still obeyed).  Returns 0 and
 * accounts for the request, or returns how long to wait before asking again.
 *
 * In no 60 s are more than 98 % of per_minute granted (for 500: an interval of
 * 125 ms and a burst of 10, so 490), or one, where that would be none.
 */
extern int64 s64_ratelimit_take(RateState *state, int per_minute, int64 now);

/* How many would be granted now, up to max; if none, how long to wait for one */
extern int	s64_ratelimit_available(const RateState *state, int per_minute,
									int max, int64 now, int64 *wait);

/* The service said 429: halve the rate, and send nothing for retry_after. */
extern void s64_ratelimit_refused(RateState *state, int64 retry_after,
								  int64 now);

/*
 * The service said how many requests remain (X-RateLimit-Remaining).  Few of
 * them mean that someone else spends the same budget: forgo the burst, and
 * pause when there are none.
 */
extern void s64_ratelimit_remaining(RateState *state, int64 remaining,
									int per_minute, int64 now);

/* The rate in force, in requests a minute; 0 when unlimited. */
extern double s64_ratelimit_rate(const RateState *state, int per_minute,
								 int64 now);

#endif							/* S64_RATELIMIT_H */
