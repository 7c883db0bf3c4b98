/*-------------------------------------------------------------------------
 *
 * flight.c
 *		A background process's requests that are under way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "fault.h"
#include "flight.h"
#include "guc.h"
#include "http.h"
#include "report.h"
#include "sql.h"

static int	under_way = 0;
static int	submissions = 0;
static dlist_head all = DLIST_STATIC_INIT(all);
static dlist_head unsent = DLIST_STATIC_INIT(unsent);	/* failed to start */

Flight *
s64_flight_new(int64 call)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "sixtyfour flight",
												  ALLOCSET_SMALL_SIZES);
	Flight	   *flight = MemoryContextAllocZero(context, sizeof(Flight));

	flight->context = context;
	flight->call = call;
	dlist_push_tail(&all, &flight->all_node);
	return flight;
}

static void
count(const Flight *flight, int change)
{
	under_way += change;
	if (flight->task == NULL)
		submissions += change;
}

/* The outcome of a request that could not even be started */
static void
end_unsent(Flight *flight, const char *message)
{
	Outcome    *outcome = MemoryContextAllocZero(flight->context, sizeof(Outcome));

	outcome->kind = OUTCOME_FAILED;
	outcome->billing = BILLING_NONE;
	outcome->cents = -1;
	outcome->remaining = -1;
	outcome->said = MemoryContextStrdup(flight->context, message);
	flight->outcome = outcome;
	dlist_push_tail(&unsent, &flight->node);
}

void
s64_flight_start(Flight *flight, int timeout)
{
	MemoryContext old = MemoryContextSwitchTo(flight->context);
	HttpRequest request = s64_request_transfer(flight->request, flight->account,
											   timeout);

	request.tag = flight;
	flight->started = GetCurrentTimestamp();
	count(flight, 1);
	if (ProcDiePending)
	{
		/* the end may have cut short a wait for a standby: it is queued again */
		end_unsent(flight, "the worker is told to end");
		MemoryContextSwitchTo(old);
		return;
	}
	PG_TRY();
	{
		S64_FAULT(flight->task == NULL ? "send" : "poll");
		flight->transfer = s64_http_start(&request);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(flight->context);
		error = CopyErrorData();
		FlushErrorState();
		end_unsent(flight, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
}

/*
 * Read a reply.  Its text may be such that the attempt ends in an error that is
 * caught, hence the subtransaction.
 */
static void
read_outcome(Flight *flight)
{
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(flight->context);
	flight->outcome = s64_outcome_read(s64_http_reply(flight->transfer),
									   flight->request->answer,
									   flight->request->paid,
									   flight->account->api_key);
	if (flight->outcome->answer == NULL)
		RollbackAndReleaseCurrentSubTransaction();
	else
		ReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(flight->context);
	CurrentResourceOwner = owner;
}

/*
 * The outcome when the reply could not even be looked at, for want of memory
 * say: nobody knows what it said.  A poll can be made again.  Needs nothing
 * that could fail.
 */
static void
give_up_reading(Flight *flight)
{
	Outcome    *outcome = &flight->unread;
	bool		paid = flight->request->paid;

	outcome->kind = paid ? OUTCOME_UNREADABLE : OUTCOME_FAILED;
	outcome->billing = paid ? BILLING_UNCERTAIN : BILLING_NONE;
	outcome->status = s64_http_reply(flight->transfer)->status;
	outcome->cents = -1;
	outcome->remaining = -1;
	outcome->said = "Reading it failed on this side; the server's log says why.";
	outcome->raw = "(not kept)";
	flight->outcome = outcome;
}

/* Read a reply in a transaction; an error ends only the reading. */
static void
read_reply(Flight *flight)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		s64_sql_start_transaction();
		read_outcome(flight);
		s64_report_log(flight->outcome, flight->request->what);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		if (flight->outcome == NULL)
			give_up_reading(flight);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

Flight *
s64_flight_next(void)
{
	HttpTransfer *transfer;
	Flight	   *flight;

	if (!dlist_is_empty(&unsent))
	{
		flight = dlist_container(Flight, node, dlist_pop_head_node(&unsent));
		count(flight, -1);
		return flight;
	}
	transfer = s64_http_next();
	if (transfer == NULL)
		return NULL;
	flight = s64_http_tag(transfer);
	read_reply(flight);
	s64_http_finish(transfer);
	flight->transfer = NULL;
	count(flight, -1);
	return flight;
}

int
s64_flight_count(void)
{
	return under_way;
}

int
s64_flight_submissions(void)
{
	return submissions;
}

int
s64_flight_submissions_of(const Endpoint *endpoint, const AccountId *account)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &all)
	{
		const Flight *flight = dlist_container(Flight, all_node, iter.cur);

		/* of what is to be sent again the account may not be known yet */
		n += flight->task == NULL && flight->endpoint == endpoint &&
			(flight->account == NULL ||
			 memcmp(&flight->account->id, account, sizeof(AccountId)) == 0);
	}
	return n;
}

int
s64_flight_limit(void)
{
	/* fd.c gives a third to descriptors that are not its own */
	return Max(Min(s64_guc_max_in_flight, max_safe_fds / 3 - 8), 1);
}

void
s64_flight_free(Flight *flight)
{
	dlist_delete(&flight->all_node);
	MemoryContextDelete(flight->context);
}
