/*-------------------------------------------------------------------------
 *
 * meter.h
 *		Each account's requests and cents, counted for the whole server.
 *
 * The counts live in shared memory where the library is preloaded, and in
 * the session where it is not.  They start at zero with the server; what a
 * database's ledger knows about today is then added by its first worker.  One
 * LWLock protects the table of accounts; it is never held while anything can
 * fail or wait.
 *
 * The table has room for so many accounts at once.  One that is not in use
 * makes room for another, unless something about it must be remembered.  Where
 * there is no room, nothing may be sent over a further account: no function
 * but s64_meter_enter() raises an error for that, so that one account more
 * does not stop the worker's others.
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
	bool		no_room;		/* not in the table, which is full */
} MeterReading;

/* What a ledger says about an account's money of one day */
typedef struct MeterSeed
{
	AccountId	account;
	int64		spent;			/* cents */
	int64		at_risk;		/* cents */
} MeterSeed;

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_meter_init(void);

/* Make room for an account, or raise 53400.  For sessions, before they ask. */
extern void s64_meter_enter(const Account *account, TimestampTz now);

/*
 * Ask for one request.  Returns 0 if it may be made now, or how many µs to wait
 * before asking again.
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
 * daily budget does not allow it, or there is no room for the account.  What
 * is never settled counts as at risk for the rest of the day.
 */
extern bool s64_meter_reserve(const Account *account, int64 cents,
							  TimestampTz now, MeterReading *reading);

/* A request ended for which "reserved" was set aside at "since". */
extern void s64_meter_settle(const Account *account, int64 reserved,
							 int64 cents, TimestampTz since);

/*
 * It turned out that a request for which cents were set aside at "since" costs
 * more, or less, than was counted.
 */
extern void s64_meter_correct(const AccountId *account, int64 more_spent,
							  int64 more_at_risk, TimestampTz since);

/*
 * Add what a database's ledger says about the day of "now".  Only the first
 * time since the server started, before the database's worker sends anything:
 * from then on what it spends is counted as it is spent.
 */
extern void s64_meter_seed(Oid database, const MeterSeed *seeds, int n,
						   TimestampTz now);

/* Has that been done? */
extern bool s64_meter_is_seeded(Oid database);

#endif							/* S64_METER_H */
