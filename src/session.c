/*-------------------------------------------------------------------------
 *
 * session.c
 *		One exchange with the service, made and awaited by this session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "http.h"
#include "meter.h"
#include "outcome.h"
#include "report.h"
#include "session.h"

#define MAX_TRIES		3		/* of a request answered with 429, or idempotent */
#define REPEAT_PAUSE	INT64CONST(1000000) /* µs, of an idempotent one */

/* An exchange in progress */
typedef struct Exchange
{
	const Account *account;
	const ApiRequest *request;
	TimestampTz started;
	TimestampTz deadline;
	HttpTransfer *transfer;		/* while one is under way */
	int64		reserved;		/* cents set aside for it ... */
	TimestampTz reserved_at;	/* ... and when */
	Outcome    *doubtful;		/* of an earlier try, which may have been accepted */
} Exchange;

/*
 * What an error during a transfer (a cancel above all) must say, as nobody
 * will see the answer.
 */
static void
add_context(void *arg)
{
	Exchange   *exchange = arg;

	if (exchange->transfer == NULL && exchange->doubtful == NULL)
		return;
	if (exchange->request->paid &&
		(exchange->doubtful != NULL || s64_http_sent(exchange->transfer)))
		errcontext("Sixtyfour request %s, which may have been accepted and billed",
				   exchange->request->what);
	else
		errcontext("Sixtyfour request %s", exchange->request->what);
}

/* Sleep for some µs, or fail if that is beyond the deadline. */
static void
wait_for_slot(Exchange *exchange, int64 wait)
{
	if (GetCurrentTimestamp() + wait <= exchange->deadline)
		s64_session_sleep((long) (wait + 999) / 1000);
	else if (exchange->doubtful != NULL)
		s64_report_outcome(exchange->doubtful, exchange->request->what);
	else
		s64_report_no_slot(exchange->request->what, exchange->account, wait);
}

/* Get the account's leave to make one request now. */
static void
take_slot(Exchange *exchange)
{
	int64		wait;

	s64_meter_enter(exchange->account, GetCurrentTimestamp());
	while ((wait = s64_meter_take(exchange->account, GetCurrentTimestamp())) > 0)
		wait_for_slot(exchange, wait);
}

/* The cents that a paid request is expected to cost */
static int64
expected_price(const Exchange *exchange)
{
	return s64_request_cents(exchange->account, exchange->request->price,
							 &exchange->request->kind);
}

static void
reserve_money(Exchange *exchange)
{
	int64		cents = expected_price(exchange);
	MeterReading reading;

	if (!s64_meter_reserve(exchange->account, cents, exchange->reserved_at, &reading))
		s64_report_no_budget(exchange->request->what, exchange->account, cents,
							 reading.spent_today + reading.at_risk);
	exchange->reserved = cents;
}

static void
settle_money(Exchange *exchange, const Outcome *outcome)
{
	int64		cents = 0;

	/* what is uncertain stays set aside, as at risk */
	if (outcome->billing == BILLING_UNCERTAIN)
		return;
	if (outcome->billing == BILLING_DONE)
		cents = outcome->cents >= 0 ? outcome->cents : exchange->reserved;
	s64_meter_settle(exchange->account, exchange->reserved, cents,
					 exchange->reserved_at);
}

/*
 * A transfer ends in an error, or the process ends.  Money was not spent if the
 * request had not gone out.
 *
 * The transfer is aborted here and now.  Its memory context can outlive the
 * error, as a cursor's does when a subtransaction is rolled back, and then the
 * next wait of this process would send what was reported as not sent.
 */
static void
give_up(int code, Datum arg)
{
	Exchange   *exchange = (Exchange *) DatumGetPointer(arg);
	HttpTransfer *transfer = exchange->transfer;
	bool		sent = exchange->doubtful != NULL ||
		(transfer != NULL && s64_http_sent(transfer));

	exchange->transfer = NULL;
	if (transfer != NULL)
		s64_http_finish(transfer);
	if (!sent)
		s64_meter_settle(exchange->account, exchange->reserved, 0,
						 exchange->reserved_at);
}

static void
run_transfer(Exchange *exchange, const HttpRequest *request)
{
	PG_ENSURE_ERROR_CLEANUP(give_up, PointerGetDatum(exchange));
	{
		exchange->transfer = s64_http_start(request);
		for (;;)
		{
			/* an answer that has come is not given up for a cancel */
			if (s64_http_take(exchange->transfer))
				break;
			CHECK_FOR_INTERRUPTS();
			s64_http_set_aside();
			s64_http_wait(-1);
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(give_up, PointerGetDatum(exchange));
}

/* Send the request once and wait for its end. */
static Outcome *
try_once(Exchange *exchange)
{
	const Account *account = exchange->account;
	int64		left = (exchange->deadline - GetCurrentTimestamp()) / 1000;
	HttpRequest transfer_request = s64_request_transfer(exchange->request, account,
														(int) Max(left, 1));
	HttpTransfer *transfer;
	Outcome    *outcome;

	run_transfer(exchange, &transfer_request);
	transfer = exchange->transfer;
	exchange->transfer = NULL;
	outcome = s64_outcome_read(s64_http_reply(transfer), exchange->request->answer,
							   exchange->request->paid, account->api_key);
	s64_http_finish(transfer);
	s64_report_log(outcome, exchange->request->what);
	return outcome;
}

/* Try once with the meter's leave, and tell the meter what came of it. */
static Outcome *
metered_try(Exchange *exchange)
{
	const Account *account = exchange->account;
	bool		paid = exchange->request->paid;
	TimestampTz now;
	Outcome    *outcome;

	take_slot(exchange);
	/* what was set aside for an earlier try that may be accepted is for this one */
	if (exchange->doubtful == NULL)
	{
		exchange->reserved_at = GetCurrentTimestamp();
		exchange->reserved = 0;
		if (paid)
			reserve_money(exchange);
	}
	outcome = try_once(exchange);
	/* that it was refused now, or not sent, proves nothing of an earlier try */
	if (exchange->doubtful != NULL && outcome->kind != OUTCOME_ANSWER)
		outcome->billing = BILLING_UNCERTAIN;
	if (paid)
		settle_money(exchange, outcome);

	now = GetCurrentTimestamp();
	if (outcome->kind == OUTCOME_RATE_LIMITED && !exchange->request->few_at_once)
		s64_meter_refused(account, outcome->retry_after, now);
	else if (outcome->remaining >= 0)
		s64_meter_remaining(account, outcome->remaining, now);
	return outcome;
}

/*
 * May the request have been accepted, and can it be repeated all the same, as
 * its key tells the service that it is the same one?
 */
static bool
can_repeat(Exchange *exchange, Outcome *outcome)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!exchange->request->known_again ||
		(outcome->kind != OUTCOME_LOST && outcome->kind != OUTCOME_SERVICE_FAILED) ||
		now + REPEAT_PAUSE > exchange->deadline)
		return false;
	exchange->doubtful = outcome;
	wait_for_slot(exchange, REPEAT_PAUSE);
	return true;
}

static Outcome *
exchange_until_settled(Exchange *exchange)
{
	for (int try = 1;; try++)
	{
		Outcome    *outcome = metered_try(exchange);

		if (try < MAX_TRIES && can_repeat(exchange, outcome))
			continue;
		if (outcome->kind != OUTCOME_RATE_LIMITED || try == MAX_TRIES ||
			GetCurrentTimestamp() + outcome->retry_after > exchange->deadline)
			return outcome;
		ereport(DEBUG1,
				(errmsg_internal("sixtyfour: %s was answered with 429, trying again in %.1f s",
								 exchange->request->what,
								 outcome->retry_after / 1e6)));
		/* the meter makes us wait for the rest */
		if (exchange->request->few_at_once)
			wait_for_slot(exchange, outcome->retry_after);
	}
}

Outcome *
s64_session_try(const Account *account, const ApiRequest *request)
{
	ErrorContextCallback callback;
	Exchange	exchange = {0};
	Outcome    *outcome;

	exchange.account = account;
	exchange.request = request;
	exchange.started = GetCurrentTimestamp();
	exchange.deadline = exchange.started + account->timeout * INT64CONST(1000);
	callback.callback = add_context;
	callback.arg = &exchange;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	outcome = exchange_until_settled(&exchange);
	error_context_stack = callback.previous;
	return outcome;
}

Jsonb *
s64_session_exchange(const Account *account, const ApiRequest *request)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "sixtyfour exchange",
												  ALLOCSET_SMALL_SIZES);
	Outcome    *outcome;
	Jsonb	   *answer = NULL;

	MemoryContextSwitchTo(context);
	outcome = s64_session_try(account, request);
	if (outcome->kind != OUTCOME_ANSWER)
		s64_report_outcome(outcome, request->what);

	MemoryContextSwitchTo(caller);
	if (outcome->answer != NULL)
	{
		answer = palloc(VARSIZE(outcome->answer));
		memcpy(answer, outcome->answer, VARSIZE(outcome->answer));
	}
	MemoryContextDelete(context);
	return answer;
}

void
s64_session_sleep(long ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	int64		left;

	do
	{
		CHECK_FOR_INTERRUPTS();
		s64_http_set_aside();
		left = until - GetCurrentTimestamp();
		if (left > 0)
			s64_http_wait((long) (left + 999) / 1000);
	} while (left > 0);
	CHECK_FOR_INTERRUPTS();
}
