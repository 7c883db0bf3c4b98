/*-------------------------------------------------------------------------
 *
 * flight.h
 *		A background process's requests that are under way.
 *
 * A flight is a submission of a call or a poll of a task, or of the writer a
 * question where rows are (call 0), with all that is needed to make sense of its
 * end, in a memory context of its own below TopMemoryContext.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_FLIGHT_H
#define S64_FLIGHT_H

#include "lib/ilist.h"
#include "utils/timestamp.h"

#include "account.h"
#include "outcome.h"
#include "request.h"

typedef struct Flight
{
	dlist_node	node;			/* the owner's, once it has ended */
	dlist_node	all_node;		/* in the list of all */
	MemoryContext context;
	int64		call;
	const Endpoint *endpoint;	/* of the call; NULL: that of another version */
	struct Task *task;			/* of a poll, else NULL */
	int			items;			/* of the call */
	int			attempts;		/* of a submission's jobs so far */
	TimestampTz opened_at;		/* when the call of a submission was opened */
	int			resends;		/* how often it was to be sent again (resend.h) */
	bool		awaited;		/* a session sits and waits for its answer */
	bool		direct;			/* the answer to the submission is the result */
	Account    *account;		/* in context, or it outlives it */
	ApiRequest *request;		/* likewise */
	int			reserved;		/* cents set aside for a submission ... */
	TimestampTz reserved_at;	/* ... and when */
	TimestampTz started;
	HttpTransfer *transfer;
	Outcome    *outcome;		/* how it ended, in context */
	bool		poisoned;		/* its outcome cannot be stored as it is */
	bool		proven;			/* recorded: the task is the call's indeed */
	bool		call_ended;		/* recorded: a poll's call needs no more polls */
	bool		call_expired;	/* recorded: and may have been billed */
	int64		cents;			/* recorded: what it cost; -1 if uncertain */
	double		item_cents;		/* recorded: what each item cost; -1 if not known */
	bool		counted;		/* the meter has been told */
	Outcome		unread;			/* the outcome where reading it failed */
} Flight;

/* A flight to be filled and started, or freed. */
extern Flight *s64_flight_new(int64 call);

/*
 * Send its request.  Never raises an error: what fails here ends the flight,
 * with nothing sent.  To be called outside of any transaction.
 */
extern void s64_flight_start(Flight *flight, int timeout);

/*
 * A flight that has ended, with its outcome, or NULL.  To be called outside
 * of any transaction; runs one.
 */
extern Flight *s64_flight_next(void);

/* How many submissions are under way. */
extern int	s64_flight_submissions(void);

/*
 * How many submissions of an endpoint there are for an account, those that have
 * ended but are not freed included.
 */
extern int	s64_flight_submissions_of(const Endpoint *endpoint,
									  const AccountId *account);

/* How many are under way in all, and how many there may be. */
extern int	s64_flight_count(void);
extern int	s64_flight_limit(void);

extern void s64_flight_free(Flight *flight);

#endif							/* S64_FLIGHT_H */
