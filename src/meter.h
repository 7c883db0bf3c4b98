/*-------------------------------------------------------------------------
 *
 * meter.h
 *		Each account's requests and cents, counted for the whole server.
 *
 * The counts live in shared memory where the library is preloaded, and in
 * the session where it is not.  They start at zero with the server.  One
 * LWLock protects the table of accounts; it is never held while anything can
 * fail or wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_METER_H
#define S64_METER_H

#include "datatype/timestamp.h"

#include "account.h"

/* What is counted of an account; see ratelimit.h and budget.h. */
typedef struct MeterReading
{
	double		rate;			/* requests a minute in force; 0: unlimited */
	int64		refusals;		/* 429s */
	int64		hold_until;		/* no request before this TimestampTz */
	int64		spent_today;	/* cents */
	int64		at_risk;		/* cents */
	int64		paused_until;	/* no submission before this TimestampTz */
	int			paused_by;		/* SQLSTATE of the refusal that is why */
} MeterReading;

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_meter_init(void);

/*
 * Ask for one request.  Returns 0 if it may be made now, or how many µs to wait
 * before asking again.  Raises 53400 when more accounts than the table holds
 * are busy.
 */
extern int64 s64_meter_take(const Account *account, TimestampTz now);

/*
 * How many requests would be granted now, up to max; if none, how many µs to wait
 * for one.
 */
extern int	s64_meter_available(const Account *account, int max, TimestampTz now,
								int64 *wait);

/* The service said 429, to be tried again after retry_after µs. */
extern void s64_meter_refused(const Account *account, int64 retry_after,
							  TimestampTz now);

/* The service said how many requests remain this minute. */
extern void s64_meter_remaining(const Account *account, int64 remaining,
								TimestampTz now);

/*
 * The service refuses the account itself (its key, its balance): the worker is
 * to submit nothing before "until".  A new key makes a new account, so
 * mending it ends the pause.
 */
extern void s64_meter_pause(const Account *account, TimestampTz until,
							int sqlstate, TimestampTz now);

/* The counts of an account. */
extern MeterReading s64_meter_read(const Account *account, TimestampTz now);

/*
 * Set cents aside for a request.  False, with the reading, if the account's
 * daily budget does not allow it.  What is never settled counts as at risk
 * for the rest of the day.
 */
extern bool s64_meter_reserve(const Account *account, int64 cents,
							  TimestampTz now, MeterReading *reading);

/* A request ended for which "reserved" was set aside at "since". */
extern void s64_meter_settle(const Account *account, int64 reserved,
							 int64 cents, TimestampTz since);

#endif							/* S64_METER_H */
