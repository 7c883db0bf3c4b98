/*-------------------------------------------------------------------------
 *
 * resend.c
 *		Submissions that are sent again, as the service knows them again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "fault.h"
#include "home.h"
#include "meter.h"
#include "payer.h"
#include "resend.h"
#include "schedule.h"
#include "sql.h"

#define SUBMIT_TIMEOUT	120000	/* ms: acceptance of a task is quick */
#define PAUSED_RECHECK	INT64CONST(1000000) /* µs */
#define ERROR_RECHECK	INT64CONST(10000000)	/* µs */

/* A flight that waits */
typedef struct Resend
{
	dlist_node	node;
	Flight	   *flight;			/* this is in its context */
	char	   *server;
	Oid			payer;
	AccountId	account;		/* that it was sent for, and no other */
	Jsonb	   *body;			/* of one whose request is not made yet ... */
	pg_uuid_t	uuid;			/* ... and its call's name */
	TimestampTz due;
} Resend;

/* What becomes of one that is due */
typedef enum Verdict
{
	VERDICT_SEND,
	VERDICT_WAIT,
	VERDICT_GIVE_UP
} Verdict;

static dlist_head waiting = DLIST_STATIC_INIT(waiting);
static dlist_head given_up = DLIST_STATIC_INIT(given_up);	/* to be settled */
static int	nwaiting = 0;

static void
push_waiting(Resend *resend)
{
	dlist_push_tail(&waiting, &resend->node);
	nwaiting++;
}

static void
drop_waiting(Resend *resend)
{
	dlist_delete(&resend->node);
	nwaiting--;
}

int
s64_resend_count(void)
{
	return nwaiting;
}

/* ---- flights that have ended ---- */

/*
 * A refusal, or the proof that nothing was sent, is about one request.  Of the
 * same one sent before it says nothing: that may have been accepted all the same.
 */
static void
doubt_refusal(Flight *flight)
{
	if (flight->task == NULL && flight->resends > 0 &&
		flight->outcome->billing == BILLING_NONE)
		flight->outcome->billing = BILLING_UNCERTAIN;
}

/* Has the service a chance to tell that it had accepted this one already? */
static bool
is_to_be_sent_again(const Flight *flight)
{
	if (flight->task != NULL || !flight->request->known_again ||
		flight->outcome->billing == BILLING_NONE ||
		flight->opened_at + S64_RESEND_WINDOW <= GetCurrentTimestamp())
		return false;
	switch (flight->outcome->kind)
	{
		case OUTCOME_LOST:
		case OUTCOME_TIMED_OUT:
		case OUTCOME_SERVICE_FAILED:
		case OUTCOME_UNREADABLE:
		case OUTCOME_RATE_LIMITED:
		case OUTCOME_KEY_REFUSED:
		case OUTCOME_NO_BALANCE:
		case OUTCOME_NO_CONNECTION:
		case OUTCOME_FAILED:
			return true;
		default:
			return false;
	}
}

/*
 * Let it wait to be sent again.  Does not raise, for nobody else has the flight
 * now; false if there is no memory.
 */
static bool
put_off(Flight *flight)
{
	const Outcome *outcome = flight->outcome;
	TimestampTz now = GetCurrentTimestamp();
	int64		pause = s64_schedule_retry(flight->resends++);
	Resend	   *resend = MemoryContextAllocExtended(flight->context, sizeof(Resend),
													MCXT_ALLOC_ZERO | MCXT_ALLOC_NO_OOM);

	if (resend == NULL)
		return false;
	if (outcome->kind == OUTCOME_RATE_LIMITED && !flight->request->few_at_once)
		s64_meter_refused(flight->account, outcome->retry_after, now);
	resend->flight = flight;
	resend->server = flight->account->server;
	resend->payer = flight->account->userid;
	resend->account = flight->account->id;
	resend->due = now + Max(pause, outcome->retry_after);
	push_waiting(resend);
	return true;
}

Flight *
s64_resend_next(void)
{
	Flight	   *flight;

	if (!dlist_is_empty(&given_up))
		return dlist_container(Flight, node, dlist_pop_head_node(&given_up));
	while ((flight = s64_flight_next()) != NULL)
	{
		doubt_refusal(flight);
		if (!is_to_be_sent_again(flight) || !put_off(flight))
			return flight;
	}
	return NULL;
}

void
s64_resend_recall(const LedgerUnanswered *calls, int n)
{
	for (int i = 0; i < n; i++)
	{
		const LedgerUnanswered *call = &calls[i];
		Flight	   *flight = s64_flight_new(call->call);
		MemoryContext old = MemoryContextSwitchTo(flight->context);
		Resend	   *resend = palloc0(sizeof(Resend));

		flight->endpoint = call->endpoint;
		flight->items = 1;
		flight->resends = 1;
		flight->reserved = call->expected_cents;
		flight->reserved_at = flight->opened_at = call->created_at;
		resend->flight = flight;
		resend->server = pstrdup(call->server);
		resend->payer = call->payer;
		resend->account = call->account;
		resend->uuid = call->uuid;
		resend->body = palloc(VARSIZE(call->body));
		memcpy(resend->body, call->body, VARSIZE(call->body));
		resend->due = GetCurrentTimestamp();
		MemoryContextSwitchTo(old);
		push_waiting(resend);
	}
}

/* ---- those that are due ---- */

static SqlStatement look_at_jobs = {
	"SELECT " S64_HOME_GOES_ON("$2", "$3")
	" FROM sixtyfour.job WHERE call = $1 AND state = 'sending' LIMIT 1",
	3, {INT8OID, INT8OID, OIDOID}, NULL
};

/* Does anybody still want the answer, and may anything be sent here and now? */
static Verdict
look_at_call(int64 call)
{
	Datum		values[3] = {Int64GetDatum(call), Int64GetDatum(s64_home_system()),
	ObjectIdGetDatum(MyDatabaseId)};
	Verdict		verdict = VERDICT_GIVE_UP;
	bool		isnull;

	s64_sql_begin();
	if (s64_sql_run(&look_at_jobs, values, NULL) > 0)
		verdict = DatumGetBool(s64_sql_value(0, 1, &isnull)) ? VERDICT_SEND : VERDICT_WAIT;
	s64_sql_end();
	return verdict;
}

/* Make the request of a call that an earlier worker had begun to send. */
static void
make_request(Resend *resend, const Account *account)
{
	Flight	   *flight = resend->flight;
	MemoryContext old = MemoryContextSwitchTo(flight->context);

	flight->account = s64_account_copy(account);
	flight->request = s64_request_make_submission(flight->account, flight->endpoint,
												  &resend->body, 1, &resend->uuid);
	MemoryContextSwitchTo(old);
}

static Verdict
judge(Resend *resend, List **payers)
{
	Flight	   *flight = resend->flight;
	TimestampTz now = GetCurrentTimestamp();
	Verdict		verdict;
	Payer	   *payer;
	int64		wait;

	if (flight->opened_at + S64_RESEND_WINDOW <= now)
		return VERDICT_GIVE_UP;
	/* should this raise an error, others come first */
	resend->due = now + ERROR_RECHECK;
	verdict = look_at_call(flight->call);
	if (verdict == VERDICT_WAIT)
		resend->due = now + PAUSED_RECHECK;
	if (verdict != VERDICT_SEND)
		return verdict;
	payer = s64_payer_get(payers, resend->server, resend->payer, true);
	if (payer->account == NULL)
	{
		resend->due = payer->blocked_until;
		return VERDICT_WAIT;
	}
	if (memcmp(&resend->account, &payer->account->id, sizeof(AccountId)) != 0)
		return VERDICT_GIVE_UP;
	if (flight->request == NULL)
		make_request(resend, payer->account);
	wait = s64_meter_take(payer->account, now);
	resend->due = now + wait;
	return wait > 0 ? VERDICT_WAIT : VERDICT_SEND;
}

/* It is uncertain: let that be recorded, with what is known. */
static void
give_up(Resend *resend)
{
	Flight	   *flight = resend->flight;
	MemoryContext old = MemoryContextSwitchTo(flight->context);

	if (flight->request == NULL)
	{
		flight->request = palloc0(sizeof(ApiRequest));
		flight->request->what = flight->endpoint->name;
	}
	if (flight->outcome == NULL)
	{
		flight->outcome = palloc0(sizeof(Outcome));
		flight->outcome->kind = OUTCOME_LOST;
		flight->outcome->billing = BILLING_UNCERTAIN;
		flight->outcome->cents = flight->outcome->remaining = -1;
		flight->outcome->said = pstrdup("the worker ended before the service answered");
	}
	MemoryContextSwitchTo(old);
	drop_waiting(resend);
	dlist_push_tail(&given_up, &flight->node);
}

/* Find out what becomes of those that are due, in one transaction. */
static List *
judge_due(TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *sendable = NIL;
	List	   *hopeless = NIL;
	List	   *payers = NIL;
	dlist_iter	iter;
	ListCell   *lc;

	s64_sql_start_transaction();
	dlist_foreach(iter, &waiting)
	{
		Resend	   *resend = dlist_container(Resend, node, iter.cur);
		Verdict		verdict = resend->due <= now ? judge(resend, &payers) : VERDICT_WAIT;
		MemoryContext old = MemoryContextSwitchTo(context);

		if (verdict == VERDICT_SEND)
			sendable = lappend(sendable, resend);
		else if (verdict == VERDICT_GIVE_UP)
			hopeless = lappend(hopeless, resend);
		MemoryContextSwitchTo(old);
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	foreach(lc, hopeless)
		give_up(lfirst(lc));
	return sendable;
}

/* When the next one is due; DT_NOEND if none waits */
static TimestampTz
next_due(void)
{
	TimestampTz next = dlist_is_empty(&given_up) ? DT_NOEND : 0;
	dlist_iter	iter;

	dlist_foreach(iter, &waiting)
		next = Min(next, dlist_container(Resend, node, iter.cur)->due);
	return next;
}

TimestampTz
s64_resend_due(void)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *sendable;
	ListCell   *lc;

	if (next_due() > now || nwaiting == 0)
		return next_due();
	sendable = judge_due(now);
	foreach(lc, sendable)
	{
		Resend	   *resend = lfirst(lc);
		Flight	   *flight = resend->flight;

		S64_FAULT("resend");
		drop_waiting(resend);
		flight->outcome = NULL;
		s64_flight_start(flight, Min(flight->account->timeout, SUBMIT_TIMEOUT));
	}
	list_free(sendable);
	return next_due();
}
