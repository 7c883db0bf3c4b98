/*-------------------------------------------------------------------------
 *
 * meter.c
 *		Each account's requests and cents, counted for the whole server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "budget.h"
#include "compat.h"
#include "meter.h"
#include "ratelimit.h"
#include "shmem.h"

#define MAX_ACCOUNTS 1024
#define FULL_WAIT INT64CONST(1000000)	/* µs, for a place in the table */

typedef struct Slot
{
	AccountId	id;
	TimestampTz used;			/* last time it was looked at */
	RateState	rate;
	BudgetState budget;
	TimestampTz paused_until;
	int			paused_by;		/* SQLSTATE */
} Slot;

typedef struct Table
{
	int			nslots;			/* of slots[], those in use */
	Slot		slots[MAX_ACCOUNTS];
} Table;

S64_FUNCTION(sixtyfour_warn_preload);

static Table *table = NULL;
static LWLock *table_lock = NULL;	/* NULL while the table is the session's */

void
s64_meter_init(void)
{
	static const ShmemPart part = {
		"sixtyfour meter", sizeof(Table), NULL, (void **) &table, &table_lock
	};

	s64_shmem_add(&part);
}

/* Would a fresh slot say the same?  Then this one may be forgotten. */
static bool
is_forgettable(const Slot *slot, TimestampTz now)
{
	const RateState *rate = &slot->rate;
	const BudgetState *budget = &slot->budget;

	return rate->next <= now && rate->hold_until <= now &&
		(rate->refusals == 0 || rate->braked_at + S64_BRAKE_RELEASE <= now) &&
		(budget->day != s64_budget_day(now) ||
		 (budget->spent == 0 && budget->at_risk == 0));
}

/*
 * The account's slot, with the table locked; unlock_table() must follow.  NULL
 * if there is none and none can be made.
 */
static Slot *
lock_slot(const AccountId *id, TimestampTz now)
{
	Slot	   *oldest = NULL;

	if (table == NULL)
		table = MemoryContextAllocZero(TopMemoryContext, sizeof(Table));
	if (table_lock)
		LWLockAcquire(table_lock, LW_EXCLUSIVE);

	for (int i = 0; i < table->nslots; i++)
	{
		Slot	   *slot = &table->slots[i];

		if (memcmp(&slot->id, id, sizeof(AccountId)) == 0)
		{
			slot->used = Max(slot->used, now);
			return slot;
		}
		if (is_forgettable(slot, now) &&
			(oldest == NULL || slot->used < oldest->used))
			oldest = slot;
	}

	if (table->nslots < MAX_ACCOUNTS)
		oldest = &table->slots[table->nslots++];
	else if (oldest == NULL)
		return NULL;
	memset(oldest, 0, sizeof(Slot));
	oldest->id = *id;
	oldest->used = now;
	return oldest;
}

static void
unlock_table(void)
{
	if (table_lock)
		LWLockRelease(table_lock);
}

static Slot *
lock_slot_or_fail(const AccountId *id, TimestampTz now)
{
	Slot	   *slot = lock_slot(id, now);

	if (slot != NULL)
		return slot;
	unlock_table();
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many API keys in use at once"),
			 errdetail("At most %d accounts can be active within one day.",
					   MAX_ACCOUNTS)));
}

int64
s64_meter_take(const Account *account, TimestampTz now)
{
	Slot	   *slot = lock_slot_or_fail(&account->id, now);
	int64		wait = s64_ratelimit_take(&slot->rate,
										  account->requests_per_minute, now);

	unlock_table();
	return wait;
}

int
s64_meter_available(const Account *account, int max, TimestampTz now, int64 *wait)
{
	Slot	   *slot = lock_slot(&account->id, now);
	int			available = 0;

	*wait = FULL_WAIT;
	if (slot != NULL)
		available = s64_ratelimit_available(&slot->rate, account->requests_per_minute,
											max, now, wait);
	unlock_table();
	return available;
}

void
s64_meter_refused(const Account *account, int64 retry_after, TimestampTz now)
{
	Slot	   *slot = lock_slot(&account->id, now);

	if (slot != NULL)
		s64_ratelimit_refused(&slot->rate, retry_after, now);
	unlock_table();
}

void
s64_meter_remaining(const Account *account, int64 remaining, TimestampTz now)
{
	Slot	   *slot = lock_slot(&account->id, now);

	if (slot != NULL)
		s64_ratelimit_remaining(&slot->rate, remaining,
								account->requests_per_minute, now);
	unlock_table();
}

static MeterReading
read_slot(const Slot *slot, const Account *account, TimestampTz now)
{
	bool		today = slot->budget.day == s64_budget_day(now);
	MeterReading reading;

	reading.rate = s64_ratelimit_rate(&slot->rate, account->requests_per_minute,
									  now);
	reading.refusals = slot->rate.refusals;
	reading.hold_until = slot->rate.hold_until;
	reading.spent_today = today ? slot->budget.spent : 0;
	reading.at_risk = today ? slot->budget.at_risk : 0;
	reading.paused_until = slot->paused_until;
	reading.paused_by = slot->paused_by;
	return reading;
}

void
s64_meter_pause(const Account *account, TimestampTz until, int sqlstate,
				TimestampTz now)
{
	Slot	   *slot = lock_slot(&account->id, now);

	if (slot != NULL)
	{
		slot->paused_until = until;
		slot->paused_by = sqlstate;
	}
	unlock_table();
}

MeterReading
s64_meter_read(const Account *account, TimestampTz now)
{
	Slot	   *slot = lock_slot_or_fail(&account->id, now);
	MeterReading reading = read_slot(slot, account, now);

	unlock_table();
	return reading;
}

bool
s64_meter_reserve(const Account *account, int64 cents, TimestampTz now,
				  MeterReading *reading)
{
	Slot	   *slot = lock_slot_or_fail(&account->id, now);
	bool		granted = s64_budget_reserve(&slot->budget, cents,
											 account->daily_budget,
											 s64_budget_day(now));

	*reading = read_slot(slot, account, now);
	unlock_table();
	return granted;
}

void
s64_meter_settle(const Account *account, int64 reserved, int64 cents,
				 TimestampTz since)
{
	Slot	   *slot = lock_slot(&account->id, since);

	if (slot != NULL)
		s64_budget_settle(&slot->budget, reserved, cents,
						  s64_budget_day(since));
	unlock_table();
}

/*
 * sixtyfour_warn_preload(): run once by the install script, to say what is
 * missing without shared memory, and how to get it.
 */
Datum
sixtyfour_warn_preload(PG_FUNCTION_ARGS)
{
	const char *others = shared_preload_libraries_string;

	if (table_lock == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sixtyfour is not in \"shared_preload_libraries\""),
				 errdetail("Each session counts requests and cents for itself alone."),
				 errhint("Put this line into postgresql.conf and restart the server: shared_preload_libraries = '%s%ssixtyfour'",
						 others ? others : "", others && *others ? ", " : "")));
	PG_RETURN_VOID();
}
