/*-------------------------------------------------------------------------
 *
 * ratelimit.c
 *		When the next request may be made: GCRA with a brake.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ratelimit.h"

#define MINUTE			INT64CONST(60000000)
#define STEADY_SHARE	0.96	/* of the limit, the rest is for bursts */
#define BURST_DIVISOR	50		/* burst = limit / 50: 2 % of it */
#define BRAKE_MAX		(15.0 / 16.0)
#define NONE_LEFT_PAUSE INT64CONST(5000000)

/* The share of the rate that the brake takes away now */
static double
current_brake(const RateState *state, int64 now)
{
	double		age = (double) (now - state->braked_at) / S64_BRAKE_RELEASE;

	if (age >= 1.0)
		return 0.0;
	return age <= 0.0 ? state->brake : state->brake * (1.0 - age);
}

/* Time between two requests at the steady rate, before braking */
static double
steady_interval(int per_minute)
{
	return MINUTE / (per_minute * STEADY_SHARE);
}

/* How far "next" may be ahead of now when a request is granted */
static int64
burst_allowance(int per_minute)
{
	int			burst = Max(per_minute / BURST_DIVISOR, 1);

	return (int64) ((burst - 1) * steady_interval(per_minute));
}

int64
s64_ratelimit_take(RateState *state, int per_minute, int64 now)
{
	int64		earliest = state->hold_until;
	double		interval;

	if (per_minute <= 0)
		return Max(earliest - now, 0);

	interval = steady_interval(per_minute) / (1.0 - current_brake(state, now));
	earliest = Max(earliest, state->next - burst_allowance(per_minute));
	if (earliest > now)
		return earliest - now;

	state->next = Max(state->next, now) + (int64) interval;
	return 0;
}

int
s64_ratelimit_available(const RateState *state, int per_minute, int max,
						int64 now, int64 *wait)
{
	double		interval;
	int64		ahead;

	*wait = Max(state->hold_until - now, 0);
	if (*wait > 0 || per_minute <= 0)
		return *wait > 0 ? 0 : max;
	/* how far the first one may still be ahead, and so how many follow it */
	ahead = burst_allowance(per_minute) - Max(state->next - now, 0);
	*wait = Max(-ahead, 0);
	if (*wait > 0)
		return 0;
	interval = steady_interval(per_minute) / (1.0 - current_brake(state, now));
	return (int) Min(1 + ahead / (int64) interval, max);
}

void
s64_ratelimit_refused(RateState *state, int64 retry_after, int64 now)
{
	double		brake = current_brake(state, now);

	state->brake = Min(1.0 - (1.0 - brake) / 2.0, BRAKE_MAX);
	state->braked_at = now;
	state->hold_until = Max(state->hold_until, now + retry_after);
	state->refusals++;
}

void
s64_ratelimit_remaining(RateState *state, int64 remaining, int per_minute,
						int64 now)
{
	if (remaining <= 0)
		state->hold_until = Max(state->hold_until, now + NONE_LEFT_PAUSE);
	else if (per_minute > 0 && remaining < Max(per_minute / BURST_DIVISOR, 1))
		state->next = Max(state->next, now + burst_allowance(per_minute));
}

double
s64_ratelimit_rate(const RateState *state, int per_minute, int64 now)
{
	return per_minute * STEADY_SHARE * (1.0 - current_brake(state, now));
}
