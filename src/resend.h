/*-------------------------------------------------------------------------
 *
 * resend.h
 *		Submissions that are sent again, as the service knows them again.
 *
 * Where a request carries a key of its own (ApiRequest.known_again) the service
 * starts, and bills, one thing however often it comes.  So if the reply is lost,
 * or the worker dies before it has come, the same bytes are sent again, and the
 * call stays "sending" meanwhile.  That goes on for ten minutes after the call
 * was opened, as nobody knows for how long the service remembers; then it is
 * uncertain as any other.  So it is if nobody wants its answer any more, or the
 * key is another, or what is sent again is refused for good: for the refusal says
 * nothing about what was sent before.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_RESEND_H
#define S64_RESEND_H

#include "flight.h"
#include "ledger.h"

/* s64_flight_next(), but for flights that are to be sent again */
extern Flight *s64_resend_next(void);

/*
 * Take up what an earlier worker was sending and s64_ledger_take_over() has left
 * to be sent again.
 */
extern void s64_resend_recall(const LedgerUnanswered *calls, int n);

/*
 * Send again what is due; returns when to come again.  Outside of any
 * transaction; runs one.
 */
extern TimestampTz s64_resend_due(void);

/* How many wait to be sent again. */
extern int	s64_resend_count(void);

#endif							/* S64_RESEND_H */
