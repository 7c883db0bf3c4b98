/*-------------------------------------------------------------------------
 *
 * submit.c
 *		Which calls to make next.
 *
 * Jobs are read as far as their account may send requests now, sorted into
 * groups that could travel together (one payer, operation and manner), and
 * each group is cut into calls: of up to 100 where the service takes them in
 * bulk and BULK_MIN wait, else of one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "claim.h"
#include "fault.h"
#include "flight.h"
#include "meter.h"
#include "payer.h"
#include "queue.h"
#include "sql.h"
#include "submit.h"
#include "tasks.h"

#define READ_MAX		500		/* jobs of a lane looked at in one pass */
#define PASS_MAX		2000	/* jobs looked at in one pass */
#define BYTES_MAX		((Size) 64 * 1024 * 1024)	/* of their bodies */
#define CALLS_MAX		200		/* calls opened in one pass */
#define BULK_MIN		10
#define BULK_MAX		100
#define LINGER			INT64CONST(250000)	/* µs that a bulk waits to fill */
#define SUBMIT_TIMEOUT	120000	/* ms: acceptance of a task is quick */
#define FULL_RECHECK	INT64CONST(20000)	/* µs, when there was no room */
#define UNKNOWN_RECHECK	INT64CONST(1000000) /* µs, of what was left for another reason */

/* What was read of a lane */
typedef struct Reading
{
	ClaimLane  *lane;
	Payer	   *payer;
	bool		sweep;			/* only for what needs no call */
	bool		all;
	int			n;
	ClaimJob   *jobs;
} Reading;

/* Jobs that can travel together */
typedef struct Batch
{
	Payer	   *payer;
	const Endpoint *endpoint;
	Jsonb	   *manner;			/* NULL: it travels alone */
	uint64		hash;			/* of the manner */
	ClaimJob  **jobs;
	int			njobs;
	int			had;			/* see lock_jobs() */
	int			next;
	bool		awaited;		/* other jobs wait to join its calls */
} Batch;

/* How many jobs of an account are worth reading: several payers may share it. */
typedef struct Share
{
	AccountId	account;
	int			jobs;
} Share;

/* A call that has leave of its account, until it has a flight */
typedef struct Intent
{
	Payer	   *payer;
	ClaimCall	call;
	int			reserved;		/* cents set aside, 0 once a flight has them ... */
	TimestampTz reserved_at;	/* ... and when */
} Intent;

/* What one pass over the queue gathers, all in the transaction's context */
typedef struct Pass
{
	int64		epoch;
	List	   *payers;
	List	   *shares;
	List	   *readings;
	List	   *groups;
	Intent	   *plans;			/* CALLS_MAX */
	int			nplans;
	List	   *flights;		/* to be started after the commit */
	int			njobs;			/* read */
	Size		bytes;			/* of bodies that may still be read */
	int			nsuspects;		/* jobs in whose request something is being done */
	int64		suspect;		/* the first of them */
	TimestampTz again;
	bool		changed;
	bool		delivering;
} Pass;

/* A request for several jobs could not be made: try them one by one. */
static bool one_by_one = false;

static void
come_again(Pass *pass, TimestampTz when)
{
	pass->again = Min(pass->again, when);
}

static void
suspect(Pass *pass, ClaimJob **jobs, int n)
{
	pass->suspect = jobs[0]->id;
	pass->nsuspects = n;
}

/* ---- reading ---- */

/* How many more jobs of the payer's account may be read? */
static Share *
get_share(Pass *pass, Payer *payer)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;
	Share	   *share;
	int64		wait;

	foreach(lc, pass->shares)
	{
		share = lfirst(lc);
		if (memcmp(&share->account, &payer->account->id, sizeof(AccountId)) == 0)
			return share;
	}
	share = palloc(sizeof(Share));
	share->account = payer->account->id;
	share->jobs = BULK_MAX * s64_meter_available(payer->account, CALLS_MAX, now, &wait);
	if (share->jobs == 0)
		come_again(pass, now + wait);
	pass->shares = lappend(pass->shares, share);
	return share;
}

/* How many jobs of a lane may be read now? */
static int
room_for(Pass *pass, const Reading *reading)
{
	int			room = Min(READ_MAX, PASS_MAX - pass->njobs);

	if (reading->sweep)
		return TIMESTAMP_IS_NOEND(reading->lane->swept.run_at) ? 0 : room;
	return Min(room, get_share(pass, reading->payer)->jobs);
}

static void
read_lane(Pass *pass, ClaimLane *lane)
{
	Payer	   *payer = s64_payer_get(&pass->payers, NameStr(lane->server), lane->payer, true);
	Reading    *reading;
	int			room;

	if (payer->blocked_until != 0)
		come_again(pass, payer->blocked_until);
	if (payer->account == NULL)
		return;
	reading = palloc0(sizeof(Reading));
	reading->lane = lane;
	reading->payer = payer;
	reading->sweep = payer->blocked_until != 0;
	room = room_for(pass, reading);
	if (room == 0 || pass->bytes == 0)
	{
		if (pass->njobs >= PASS_MAX || pass->bytes == 0)
			come_again(pass, GetCurrentTimestamp());
		return;
	}
	reading->n = s64_claim_read(lane, reading->sweep, room, &pass->bytes,
								&reading->jobs, &reading->all);
	pass->njobs += reading->n;
	if (!reading->sweep)
		get_share(pass, payer)->jobs -= reading->n;
	pass->readings = lappend(pass->readings, reading);
}

static void
read_lanes(Pass *pass)
{
	ClaimLane **lanes;
	int			n = s64_claim_lanes(&lanes, &pass->again);

	for (int i = 0; i < n; i++)
		read_lane(pass, lanes[i]);
}

/* ---- what needs no call ---- */

static void
fail_job(Pass *pass, ClaimJob *job, int sqlstate, const char *message)
{
	s64_claim_fail(job->id, sqlstate, message);
	job->disposed = true;
	pass->changed = true;
}

static void
fail_unsendable(Pass *pass, Reading *reading)
{
	for (int i = 0; i < reading->n; i++)
	{
		ClaimJob   *job = &reading->jobs[i];

		suspect(pass, &job, 1);
		if (job->endpoint == NULL)
			fail_job(pass, job, ERRCODE_FEATURE_NOT_SUPPORTED,
					 "this version of the library does not know the operation");
		else if (!s64_request_is_sendable(job->body))
			fail_job(pass, job, ERRCODE_UNTRANSLATABLE_CHARACTER,
					 "the request has characters that cannot be sent in UTF-8");
		pass->nsuspects = 0;
	}
}

static void
reuse_answers(Pass *pass)
{
	ClaimJob  **jobs = palloc((pass->njobs + 1) * sizeof(ClaimJob *));
	AccountId  *accounts = palloc((pass->njobs + 1) * sizeof(AccountId));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, pass->readings)
	{
		Reading    *reading = lfirst(lc);

		fail_unsendable(pass, reading);
		for (int i = 0; i < reading->n; i++)
		{
			if (reading->jobs[i].disposed)
				continue;
			accounts[n] = reading->payer->account->id;
			jobs[n++] = &reading->jobs[i];
		}
	}
	if (s64_claim_reuse(jobs, accounts, n) > 0)
		pass->changed = pass->delivering = true;
}

/* ---- groups ---- */

/* Equal bytes are equal manners; should others be equal too, they part. */
static bool
is_same(const Jsonb *a, const Jsonb *b)
{
	return a == NULL || b == NULL ? a == b
		: VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

static Batch *
get_group(Pass *pass, Payer *payer, const ClaimJob *job)
{
	Jsonb	   *manner = NULL;
	uint64		hash = 0;
	Batch	   *group;
	ListCell   *lc;

	if (job->endpoint->bulk_path != NULL && !job->alone)
	{
		manner = s64_request_manner(job->endpoint, job->body);
		hash = hash_bytes_extended((const unsigned char *) manner, VARSIZE(manner), 0);
	}
	foreach(lc, pass->groups)
	{
		group = lfirst(lc);
		if (group->payer == payer && group->endpoint == job->endpoint &&
			group->hash == hash && is_same(group->manner, manner))
			return group;
	}
	group = palloc0(sizeof(Batch));
	group->payer = payer;
	group->endpoint = job->endpoint;
	group->manner = manner;
	group->hash = hash;
	group->jobs = palloc(PASS_MAX * sizeof(ClaimJob *));
	pass->groups = lappend(pass->groups, group);
	return group;
}

/* Does a group ask the same question of the same account? */
static bool
asks_the_same(const Batch *group, const Payer *payer, const ClaimJob *job)
{
	if (memcmp(&group->payer->account->id, &payer->account->id, sizeof(AccountId)) != 0)
		return false;
	for (int i = 0; i < group->njobs; i++)
	{
		if (memcmp(&group->jobs[i]->fingerprint, &job->fingerprint,
				   sizeof(pg_uuid_t)) == 0)
			return true;
	}
	return false;
}

/* Is the same question in a group already?  The job then waits for that call. */
static bool
is_asked(Pass *pass, const Payer *payer, const ClaimJob *job)
{
	ListCell   *lc;

	foreach(lc, pass->groups)
	{
		Batch	   *group = lfirst(lc);

		if (asks_the_same(group, payer, job))
		{
			group->awaited = true;
			return true;
		}
	}
	return false;
}

static void
make_groups(Pass *pass)
{
	ListCell   *lc;

	foreach(lc, pass->readings)
	{
		Reading    *reading = lfirst(lc);

		for (int i = 0; i < reading->n && !reading->sweep; i++)
		{
			ClaimJob   *job = &reading->jobs[i];
			Batch	   *group;

			if (job->disposed || job->held || is_asked(pass, reading->payer, job))
				continue;
			suspect(pass, &job, 1);
			group = get_group(pass, reading->payer, job);
			group->jobs[group->njobs++] = job;
			pass->nsuspects = 0;
		}
	}
}

/* ---- calls ---- */

/*
 * Intent a call for the first n jobs given, if its account may make one more
 * request that costs so much now; else block the account.
 */
static bool
plan_call(Pass *pass, Payer *payer, ClaimJob **jobs, int n)
{
	TimestampTz now = GetCurrentTimestamp();
	Intent	   *plan = &pass->plans[pass->nplans];
	MeterReading reading;
	int64		wait;

	suspect(pass, jobs, n);
	plan->call.cents_each = s64_request_expected_cents(payer->account, jobs[0]->endpoint,
													   jobs[0]->body);
	pass->nsuspects = 0;
	wait = s64_meter_take(payer->account, now);
	if (wait > 0)
		s64_payer_block(payer, now + wait, false);
	else if (!s64_meter_reserve(payer->account, n * plan->call.cents_each, now, &reading))
		s64_payer_block(payer, now + S64_PAYER_RECHECK, true);
	else
	{
		plan->reserved = n * plan->call.cents_each;
		plan->reserved_at = now;
		plan->payer = payer;
		plan->call.jobs = jobs;
		plan->call.njobs = n;
		plan->call.account = payer->account->id;
		pass->nplans++;
		return true;
	}
	come_again(pass, payer->blocked_until);
	return false;
}

/* So many of n jobs may be asked within today's budget; at least one. */
static int
affordable(Pass *pass, const Payer *payer, ClaimJob **jobs, int n)
{
	const Account *account = payer->account;
	MeterReading reading = s64_meter_read(account, GetCurrentTimestamp());
	int64		left = account->daily_budget - reading.spent_today - reading.at_risk;
	int			price;

	if (account->daily_budget < 0)
		return n;
	suspect(pass, jobs, n);
	price = s64_request_expected_cents(account, jobs[0]->endpoint, jobs[0]->body);
	pass->nsuspects = 0;
	return price == 0 ? n : (int) Max(Min(n, left / price), 1);
}

/* Does a bulk of n jobs that is not full wait for more? */
static bool
lingers(Pass *pass, const ClaimJob *first, int n)
{
	TimestampTz until = first->run_at + LINGER;

	if (n >= BULK_MAX || until <= GetCurrentTimestamp())
		return false;
	come_again(pass, until);
	return true;
}

/* How many calls may the account make now?  If none, it is blocked. */
static int
available(Pass *pass, Payer *payer, int room)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		wait;
	int			n = s64_meter_available(payer->account, room, now, &wait);

	if (n == 0)
	{
		s64_payer_block(payer, now + wait, false);
		come_again(pass, payer->blocked_until);
	}
	return n;
}

/*
 * How many more calls of the group's operation may be made, where only so many
 * of an account's may run at a time?
 */
static int
vacancies(Pass *pass, const Batch *group)
{
	const Endpoint *endpoint = group->endpoint;
	const AccountId *account = &group->payer->account->id;
	int			taken;

	if (endpoint->at_once == 0)
		return PASS_MAX;
	taken = s64_tasks_count_of(endpoint->name, account) +
		s64_flight_submissions_of(endpoint, account);
	for (int i = 0; i < pass->nplans; i++)
		taken += pass->plans[i].call.jobs[0]->endpoint == endpoint &&
			memcmp(&pass->plans[i].call.account, account, sizeof(AccountId)) == 0;
	return Max(endpoint->at_once - taken, 0);
}

/* What is left of a group waits for a vacancy, and holds up nothing behind it. */
static void
pass_over(Batch *group, int done)
{
	for (int i = done; i < group->had; i++)
		group->jobs[i]->held = true;
	for (int i = group->next; i < group->njobs; i++)
		group->jobs[i]->held = true;
}

/*
 * Lock jobs of a group until so many are had, or none is left.  Those are the
 * first had ones of its array; next is the first that was not tried.
 */
static void
lock_jobs(Batch *group, int wanted)
{
	while (group->had < wanted && group->next < group->njobs)
	{
		int			n = Min(wanted - group->had, group->njobs - group->next);
		int			kept = s64_claim_lock(&group->jobs[group->next], n);

		memmove(&group->jobs[group->had], &group->jobs[group->next],
				kept * sizeof(ClaimJob *));
		group->had += kept;
		group->next += n;
	}
}

/* Cut a group into calls, of jobs that no transaction holds. */
static void
plan_calls(Pass *pass, Batch *group, int room)
{
	int			done = 0;

	while (group->payer->blocked_until == 0)
	{
		int			left = group->had - done + group->njobs - group->next;
		int			calls = Min(room - pass->nplans, left);
		int			n = 1;

		if (left == 0)
			return;
		if (vacancies(pass, group) == 0)
		{
			pass_over(group, done);
			return;
		}
		if (calls == 0)
		{
			come_again(pass, GetCurrentTimestamp());
			return;
		}
		calls = available(pass, group->payer, calls);
		if (calls == 0)
			return;
		if (group->manner != NULL && left >= BULK_MIN && !one_by_one)
		{
			n = Min(left, BULK_MAX);
			if (lingers(pass, group->jobs[done < group->had ? done : group->next], n))
				return;
		}
		lock_jobs(group, done + Max(n, calls));
		n = Min(n, group->had - done);
		if (n == 0)
			return;
		if (n > 1)
			n = affordable(pass, group->payer, &group->jobs[done], n);
		if (!plan_call(pass, group->payer, &group->jobs[done], n))
			return;
		done += n;
	}
}

/* What was set aside for a plan, or a part of it, is free again. */
static void
give_back(Intent *plan, int cents)
{
	s64_meter_settle(plan->payer->account, cents, 0, plan->reserved_at);
	plan->reserved -= cents;
}

/* A flight of this pass, known to it before anything can fail */
static Flight *
add_flight(Pass *pass, int64 call)
{
	Flight	   *flight;

	pass->flights = lappend(pass->flights, NULL);
	flight = s64_flight_new(call);
	llast(pass->flights) = flight;
	return flight;
}

/* A flight for a call that is being opened; what it needs is copied. */
static void
add_submission(Pass *pass, Intent *plan)
{
	const ClaimCall *call = &plan->call;
	ClaimJob   *first = call->jobs[0];
	Flight	   *flight = add_flight(pass, call->call);
	MemoryContext old = MemoryContextSwitchTo(flight->context);
	Jsonb	  **bodies = palloc(call->njobs * sizeof(Jsonb *));

	for (int i = 0; i < call->njobs; i++)
		bodies[i] = call->jobs[i]->body;
	suspect(pass, call->jobs, call->njobs);
	flight->account = s64_account_copy(plan->payer->account);
	flight->endpoint = first->endpoint;
	flight->request = s64_request_make_submission(flight->account, first->endpoint,
												  bodies, call->njobs,
												  &call->uuid);
	pass->nsuspects = 0;
	flight->items = call->njobs;
	flight->attempts = first->attempts;
	flight->opened_at = plan->reserved_at;
	flight->awaited = first->lane->priority <= S64_ASKED_PRIORITY;
	flight->direct = first->endpoint->follow == NULL;
	flight->reserved = plan->reserved;
	flight->reserved_at = plan->reserved_at;
	plan->reserved = 0;
	MemoryContextSwitchTo(old);
	S64_FAULT("t1-inside");
}

static void
open_calls(Pass *pass)
{
	ClaimCall  *calls = palloc((pass->nplans + 1) * sizeof(ClaimCall));

	for (int i = 0; i < pass->nplans; i++)
		calls[i] = pass->plans[i].call;
	s64_claim_open(calls, pass->nplans, pass->epoch);
	for (int i = 0; i < pass->nplans; i++)
	{
		Intent	   *plan = &pass->plans[i];

		plan->call = calls[i];
		add_submission(pass, plan);
	}
}

/* ---- the pass ---- */

/* Say where to go on in each lane, and when. */
static void
advance(Pass *pass)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	foreach(lc, pass->readings)
	{
		Reading    *reading = lfirst(lc);
		int			past = 0;

		for (int i = 0; i < reading->n; i++)
			past += reading->jobs[i].disposed || reading->jobs[i].held;
		if (reading->sweep)
			s64_claim_swept(reading->lane, reading->jobs, reading->n, reading->all);
		else
			s64_claim_advance(reading->lane, reading->jobs, reading->n, reading->all);
		if (!reading->all && (past > 0 || reading->sweep))
			come_again(pass, now);
		else if (past < reading->n && !reading->sweep)
			come_again(pass, now + UNKNOWN_RECHECK);
		else if (!reading->sweep)
			come_again(pass, reading->lane->from.run_at);
		if (reading->lane->held_at != 0)
			come_again(pass, reading->lane->held_at);
	}
}

static void
gather(Pass *pass)
{
	int			room = Min(s64_flight_limit() - s64_flight_count(), CALLS_MAX);
	ListCell   *lc;

	if (room <= 0)
	{
		come_again(pass, GetCurrentTimestamp() + FULL_RECHECK);
		return;
	}
	pass->plans = palloc0(CALLS_MAX * sizeof(Intent));
	read_lanes(pass);
	if (pass->njobs == 0)
	{
		advance(pass);
		return;
	}
	reuse_answers(pass);
	make_groups(pass);
	foreach(lc, pass->groups)
		plan_calls(pass, lfirst(lc), room);
	open_calls(pass);
	foreach(lc, pass->groups)
	{
		/* what is asked now can be joined */
		if (((Batch *) lfirst(lc))->awaited && pass->flights != NIL)
			come_again(pass, GetCurrentTimestamp());
	}
	advance(pass);
}

/* Nothing of a pass that failed is sent, and nothing spent. */
static void
drop(Pass *pass)
{
	ListCell   *lc;

	for (int i = 0; i < pass->nplans; i++)
		give_back(&pass->plans[i], pass->plans[i].reserved);
	foreach(lc, pass->flights)
	{
		Flight	   *flight = lfirst(lc);

		if (flight == NULL)
			continue;
		if (flight->reserved > 0)
			s64_meter_settle(flight->account, flight->reserved, 0, flight->reserved_at);
		s64_flight_free(flight);
	}
	s64_claim_forget_places();
}

/*
 * If the error came about in the request of certain jobs it must not hold
 * back the others: a job alone fails, several are tried one by one.  Otherwise
 * the error is the ledger's, and raised again.
 */
static ErrorData *
catch_error(const Pass *pass, MemoryContext context)
{
	ErrorData  *error;

	if (pass->nsuspects == 0)
		PG_RE_THROW();
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	return error;
}

static void
blame_suspects(const Pass *pass, const ErrorData *error)
{
	one_by_one = pass->nsuspects > 1;
	if (one_by_one)
		return;
	s64_sql_start_transaction();
	s64_claim_fail(pass->suspect, error->sqlerrcode, error->message);
	CommitTransactionCommand();
}

static void
start_flights(const Pass *pass)
{
	ListCell   *lc;

	foreach(lc, pass->flights)
	{
		Flight	   *flight = lfirst(lc);

		s64_flight_start(flight, flight->direct ? flight->account->timeout
						 : Min(flight->account->timeout, SUBMIT_TIMEOUT));
	}
}

TimestampTz
s64_submit_due(int64 epoch, bool *changed, bool *delivering)
{
	/* if an error goes up it is freed with what it is a part of */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sixtyfour submissions",
												  ALLOCSET_DEFAULT_SIZES);
	Pass	   *pass = MemoryContextAllocZero(context, sizeof(Pass));
	ErrorData  *volatile error = NULL;
	TimestampTz again;

	pass->epoch = epoch;
	pass->again = DT_NOEND;
	pass->bytes = BYTES_MAX;
	PG_TRY();
	{
		s64_sql_start_transaction();
		MemoryContextSwitchTo(context);
		gather(pass);
		if (pass->flights != NIL)
			ForceSyncCommit();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		drop(pass);
		error = catch_error(pass, context);
	}
	PG_END_TRY();

	*changed |= pass->changed || pass->flights != NIL || error != NULL;
	*delivering |= pass->delivering;
	if (error != NULL)
	{
		blame_suspects(pass, error);
		again = GetCurrentTimestamp();
	}
	else
	{
		S64_FAULT("t1-after");
		start_flights(pass);
		one_by_one = one_by_one && pass->flights == NIL;
		again = pass->again;
	}
	MemoryContextDelete(context);
	return again;
}
