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
#define MAX_DATABASES 4096
#define BUCKETS 1024			/* a power of two, at most 64 k */
#define NO_ROOM_RECHECK INT64CONST(1000000)	/* µs */

typedef struct Slot
{
	AccountId	id;
	int			next;			/* of the same bucket: index + 1, or 0 */
	TimestampTz used;			/* last time it was looked at */
	int64		limited_day;	/* last day on which a budget held it */
	RateState	rate;
	BudgetState budget;
	TimestampTz paused_until;
	int			paused_by;		/* SQLSTATE */
} Slot;

typedef struct Table
{
	int			nslots;			/* of slots[], those in use */
	int			buckets[BUCKETS];	/* index + 1 of the first slot, or 0 */
	Slot		slots[MAX_ACCOUNTS];
	int			ndatabases;		/* whose ledgers have been added */
	Oid			databases[MAX_DATABASES];
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

/*
 * May this slot be forgotten?  If a fresh one would say the same, but for what
 * was spent where no budget asks for it.
 */
static bool
is_forgettable(const Slot *slot, TimestampTz now)
{
	const RateState *rate = &slot->rate;
	const BudgetState *budget = &slot->budget;
	int64		today = s64_budget_day(now);

	return rate->next <= now && rate->hold_until <= now &&
		slot->paused_until <= now &&
		(rate->refusals == 0 || rate->braked_at + S64_BRAKE_RELEASE <= now) &&
		(budget->day != today || slot->limited_day != today ||
		 (budget->spent == 0 && budget->at_risk == 0));
}

static void
lock_table(void)
{
	if (table == NULL)
		table = MemoryContextAllocZero(TopMemoryContext, sizeof(Table));
	if (table_lock)
		LWLockAcquire(table_lock, LW_EXCLUSIVE);
}

static void
unlock_table(void)
{
	if (table_lock)
		LWLockRelease(table_lock);
}

/* The head of the account's bucket; an id is a digest, so any bits will do. */
static int *
bucket_of(const AccountId *id)
{
	return &table->buckets[(id->data[0] | id->data[1] << 8) & (BUCKETS - 1)];
}

static Slot *
find_slot(const AccountId *id)
{
	for (int i = *bucket_of(id); i != 0; i = table->slots[i - 1].next)
	{
		if (memcmp(&table->slots[i - 1].id, id, sizeof(AccountId)) == 0)
			return &table->slots[i - 1];
	}
	return NULL;
}

/* Take a slot out of its bucket. */
static void
unlink_slot(Slot *slot)
{
	int		   *link = bucket_of(&slot->id);

	while (&table->slots[*link - 1] != slot)
		link = &table->slots[*link - 1].next;
	*link = slot->next;
}

/* A slot for another account: the one not used for longest, or NULL */
static Slot *
free_slot(TimestampTz now)
{
	Slot	   *oldest = NULL;

	if (table->nslots < MAX_ACCOUNTS)
		return &table->slots[table->nslots++];
	for (int i = 0; i < table->nslots; i++)
	{
		Slot	   *slot = &table->slots[i];

		if ((oldest == NULL || slot->used < oldest->used) &&
			is_forgettable(slot, now))
			oldest = slot;
	}
	if (oldest != NULL)
		unlink_slot(oldest);
	return oldest;
}

/*
 * The account's slot, with the table locked; unlock_table() must follow.  NULL
 * if there is none and none can be made.
 */
static Slot *
lock_slot(const AccountId *id, TimestampTz now)
{
	Slot	   *slot;

	lock_table();
	slot = find_slot(id);
	if (slot == NULL && (slot = free_slot(now)) != NULL)
	{
		int		   *bucket = bucket_of(id);

		memset(slot, 0, sizeof(Slot));
		slot->id = *id;
		slot->next = *bucket;
		*bucket = (int) (slot - table->slots) + 1;
	}
	if (slot != NULL)
		slot->used = Max(slot->used, now);
	return slot;
}

void
s64_meter_enter(const Account *account, TimestampTz now)
{
	bool		entered = lock_slot(&account->id, now) != NULL;

	unlock_table();
	if (entered)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many API keys in use at once"),
			 errdetail("At most %d accounts with a daily budget can be active within one day.",
					   MAX_ACCOUNTS),
			 errhint("Try again later; nothing was sent.")));
}

int64
s64_meter_take(const Account *account, TimestampTz now)
{
	Slot	   *slot = lock_slot(&account->id, now);
	int64		wait = slot == NULL ? NO_ROOM_RECHECK
		: s64_ratelimit_take(&slot->rate, account->requests_per_minute, now);

	unlock_table();
	return wait;
}

int
s64_meter_available(const Account *account, int max, TimestampTz now, int64 *wait)
{
	Slot	   *slot = lock_slot(&account->id, now);
	int			available = 0;

	*wait = NO_ROOM_RECHECK;
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

/* slot is NULL for an account that is not in the table. */
static MeterReading
read_slot(const Slot *slot, const Account *account, TimestampTz now)
{
	static const Slot fresh;
	MeterReading reading;
	bool		today;

	reading.no_room = false;
	if (slot == NULL)
		slot = &fresh;
	today = slot->budget.day == s64_budget_day(now);
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

/* Could the account not be entered now?  Looking does not enter it. */
static bool
is_full(TimestampTz now)
{
	if (table->nslots < MAX_ACCOUNTS)
		return false;
	for (int i = 0; i < table->nslots; i++)
	{
		if (is_forgettable(&table->slots[i], now))
			return false;
	}
	return true;
}

MeterReading
s64_meter_read(const Account *account, TimestampTz now)
{
	Slot	   *slot;
	MeterReading reading;

	lock_table();
	slot = find_slot(&account->id);
	reading = read_slot(slot, account, now);
	reading.no_room = slot == NULL && is_full(now);
	unlock_table();
	return reading;
}

bool
s64_meter_reserve(const Account *account, int64 cents, TimestampTz now,
				  MeterReading *reading)
{
	Slot	   *slot = lock_slot(&account->id, now);
	int64		day = s64_budget_day(now);
	bool		granted = slot != NULL &&
		s64_budget_reserve(&slot->budget, cents, account->daily_budget, day);

	if (slot != NULL && account->daily_budget >= 0)
		slot->limited_day = day;
	*reading = read_slot(slot, account, now);
	reading->no_room = slot == NULL;
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

/* Add to what an account has spent, with the table locked. */
static void
add_to_slot(Slot *slot, int64 spent, int64 at_risk, int64 day)
{
	if (slot == NULL)
		return;
	s64_budget_add(&slot->budget, spent, at_risk, day);
	/* for all we know there is a budget */
	slot->limited_day = Max(slot->limited_day, day);
}

void
s64_meter_correct(const AccountId *account, int64 more_spent,
				  int64 more_at_risk, TimestampTz since)
{
	lock_table();
	add_to_slot(find_slot(account), more_spent, more_at_risk,
				s64_budget_day(since));
	unlock_table();
}

/*
 * With the table locked.  A server that meets more databases than can be
 * remembered adds nothing for the rest.
 */
static bool
is_seeded(Oid database)
{
	for (int i = 0; i < table->ndatabases; i++)
	{
		if (table->databases[i] == database)
			return true;
	}
	return table->ndatabases == MAX_DATABASES;
}

bool
s64_meter_is_seeded(Oid database)
{
	bool		result;

	lock_table();
	result = is_seeded(database);
	unlock_table();
	return result;
}

void
s64_meter_seed(Oid database, const MeterSeed *seeds, int n, TimestampTz now)
{
	bool		is_new;

	lock_table();
	is_new = !is_seeded(database);
	if (is_new)
		table->databases[table->ndatabases++] = database;
	unlock_table();
	for (int i = 0; i < n && is_new; i++)
	{
		Slot	   *slot = lock_slot(&seeds[i].account, now);

		add_to_slot(slot, seeds[i].spent, seeds[i].at_risk, s64_budget_day(now));
		unlock_table();
	}
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
