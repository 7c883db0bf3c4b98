/*-------------------------------------------------------------------------
 *
 * retrieval.c
 *		The rows that an answer speaks of, brought here by a background process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "flight.h"
#include "link.h"
#include "meter.h"
#include "retrieval.h"

#define ASK_TIMEOUT		30000	/* ms */
#define LONGEST_SILENCE	60000	/* ms in which nothing comes of a file */
#define TRIES			3		/* of an address */
#define PAUSE			INT64CONST(1000000) /* µs, before the second; doubled */
#define LONGEST_HOLD	INT64CONST(2000000) /* µs that the rate limit is waited for */

struct Retrieval
{
	MemoryContext context;		/* the retrieval is in it */
	Account    *account;
	RowsPlace	place;
	ApiRequest *request;		/* that asks for the address */
	TimestampTz not_before;		/* to be asked; only while nothing runs */
	int			tries;			/* that came to nothing */
	Flight	   *flight;			/* the request, while it is under way */
	Download   *download;
	Jsonb	   *rows;
	bool		ended;
	Failure		failure;		/* sqlstate 0: none */
	bool		passing;
	int64		pause;			/* µs */
};

/* What is of use to try again, until a person has mended it if need be */
static const int passing_outcomes =
(1 << OUTCOME_KEY_REFUSED) | (1 << OUTCOME_NO_BALANCE) | (1 << OUTCOME_FORBIDDEN) |
(1 << OUTCOME_RATE_LIMITED) | (1 << OUTCOME_SERVICE_FAILED) | (1 << OUTCOME_NO_CONNECTION) |
(1 << OUTCOME_LOST) | (1 << OUTCOME_TIMED_OUT) | (1 << OUTCOME_FAILED);

Retrieval *
s64_retrieval_new(const Account *account, RowsPlace place, const char *name)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sixtyfour retrieval",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Retrieval  *r = palloc0(sizeof(Retrieval));

	r->context = context;
	r->account = s64_account_copy(account);
	/* others wait behind a file of which nothing comes */
	r->account->timeout = Min(r->account->timeout, LONGEST_SILENCE);
	r->place = place;
	r->request = s64_link_request(r->account, place, name);
	MemoryContextSwitchTo(old);
	/* what may have raised an error is over */
	MemoryContextSetParent(context, TopMemoryContext);
	return r;
}

static void
fail(Retrieval *r, Failure failure, bool passing, int64 pause)
{
	r->ended = true;
	r->failure = failure;
	r->passing = passing;
	r->pause = pause;
}

/* An error that is being handled, outside of any transaction, is why it fails. */
static void
fail_by_error(Retrieval *r)
{
	ErrorData  *error;

	MemoryContextSwitchTo(r->context);
	error = CopyErrorData();
	FlushErrorState();
	fail(r, (Failure) {error->sqlerrcode, error->message, error->detail, NULL}, true, PAUSE);
}

/* Ask again after a pause, or fail if that has been done often enough. */
static void
try_again(Retrieval *r, int64 pause, Failure failure, bool passing)
{
	if (++r->tries >= TRIES)
		fail(r, failure, passing, PAUSE);
	else
		r->not_before = GetCurrentTimestamp() + pause;
}

/* ---- the address ---- */

/* Send the request, with the meter's leave. */
static void
ask(Retrieval *r)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		wait = s64_meter_take(r->account, now);

	if (wait > LONGEST_HOLD)
	{
		fail(r, (Failure) {ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
			"the rate limit of the account holds it back", NULL, NULL}, true, wait);
		return;
	}
	if (wait > 0)
	{
		r->not_before = now + wait;
		return;
	}
	r->flight = s64_flight_new(0);
	r->flight->account = r->account;
	r->flight->request = r->request;
	s64_flight_start(r->flight, ASK_TIMEOUT);
}

static void
start_download(Retrieval *r, const char *url)
{
	PG_TRY();
	{
		r->download = s64_download_start(r->account, url);
	}
	PG_CATCH();
	{
		fail_by_error(r);
	}
	PG_END_TRY();
}

/* Go where the answer leads. */
static void
follow(Retrieval *r, Jsonb *answer)
{
	const char *why = "It is empty.";
	Link		link = {0};

	if (answer == NULL || !s64_link_read(r->place, answer, &link, &why))
		try_again(r, PAUSE << r->tries,
				  (Failure) {ERRCODE_PROTOCOL_VIOLATION,
				  psprintf("%s: the service's answer cannot be used", r->request->what),
				  why, NULL}, false);
	else if (link.url != NULL)
		start_download(r, link.url);
	else
	{
		r->rows = link.rows;
		r->ended = true;
	}
}

/* The request has ended. */
static void
read_address(Retrieval *r)
{
	TimestampTz now = GetCurrentTimestamp();
	const Outcome *outcome = r->flight->outcome;
	bool		passing = (passing_outcomes & (1 << outcome->kind)) != 0;

	if (outcome->kind == OUTCOME_RATE_LIMITED)
		s64_meter_refused(r->account, outcome->retry_after, now);
	else if (outcome->remaining >= 0)
		s64_meter_remaining(r->account, outcome->remaining, now);

	if (outcome->kind == OUTCOME_ANSWER)
		follow(r, outcome->answer);
	else if (passing)
		fail(r, s64_report_read(outcome, r->request->what), true,
			 outcome->kind == OUTCOME_RATE_LIMITED ? Max(outcome->retry_after, PAUSE) : PAUSE);
	else
		try_again(r, PAUSE << r->tries, s64_report_read(outcome, r->request->what), false);
}

/* What is kept of its outcome is a copy. */
static void
end_flight(Retrieval *r)
{
	Flight	   *flight = r->flight;

	read_address(r);
	r->flight = NULL;
	s64_flight_free(flight);
}

/* ---- the file ---- */

static void
drop_download(Retrieval *r)
{
	if (r->download != NULL)
		s64_download_finish(r->download);
	r->download = NULL;
}

static DownloadState
poll_download(Retrieval *r, Failure *failure)
{
	volatile DownloadState state = DOWNLOAD_FAILED;

	PG_TRY();
	{
		state = s64_download_poll(r->download, failure);
	}
	PG_CATCH();
	{
		fail_by_error(r);
	}
	PG_END_TRY();
	return state;
}

static void
watch_download(Retrieval *r)
{
	Failure		failure = {0};

	switch (poll_download(r, &failure))
	{
		case DOWNLOAD_RUNNING:
			return;
		case DOWNLOAD_DONE:
			r->ended = true;
			return;
		case DOWNLOAD_EXPIRED:
			drop_download(r);
			try_again(r, 0,
					  (Failure) {ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
					  "could not download the results: the addresses that the service gives have expired already",
					  NULL, NULL}, true);
			return;
		case DOWNLOAD_FAILED:
			break;
	}
	/* the failure lives in the download */
	if (!r->ended)
		fail(r, (Failure) {failure.sqlstate, pstrdup(failure.message),
			 failure.detail ? pstrdup(failure.detail) : NULL, NULL},
			 failure.sqlstate != ERRCODE_PROTOCOL_VIOLATION, PAUSE);
	drop_download(r);
}

/* ---- the whole ---- */

bool
s64_retrieval_turn(Retrieval *r, TimestampTz *next)
{
	MemoryContext old = MemoryContextSwitchTo(r->context);

	/* each has its outcome then; whose it is does not matter here */
	while (s64_flight_next() != NULL)
		 /* until all are read */ ;
	if (!r->ended && r->flight != NULL && r->flight->outcome != NULL)
		end_flight(r);
	if (!r->ended && r->flight == NULL && r->download == NULL &&
		r->not_before <= GetCurrentTimestamp())
		ask(r);
	if (!r->ended && r->download != NULL)
		watch_download(r);
	if (!r->ended && r->flight == NULL && r->download == NULL)
		*next = Min(*next, r->not_before);
	MemoryContextSwitchTo(old);
	return r->ended;
}

const Failure *
s64_retrieval_failure(const Retrieval *r, bool *passing, int64 *pause)
{
	Assert(r->ended);
	*passing = r->passing;
	*pause = r->pause;
	return r->failure.sqlstate != 0 ? &r->failure : NULL;
}

Jsonb *
s64_retrieval_rows(const Retrieval *r)
{
	return r->rows;
}

Download *
s64_retrieval_file(const Retrieval *r)
{
	return r->download;
}

void
s64_retrieval_free(Retrieval *r)
{
	Assert(r->flight == NULL);
	MemoryContextDelete(r->context);
}
