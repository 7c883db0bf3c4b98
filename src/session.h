/*-------------------------------------------------------------------------
 *
 * session.h
 *		One exchange with the service, made and awaited by this session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_SESSION_H
#define S64_SESSION_H

#include "account.h"
#include "outcome.h"
#include "request.h"

/*
 * Make a request and wait for its answer, obeying the account's rate limit and
 * budget.  Returns the answer (palloc'd; NULL where it has no body), raises
 * every failure.  A 429 is waited out and tried again, within the account's
 * timeout.
 *
 * The wait can be cancelled at any time.  The transaction stays open while
 * it lasts.
 */
extern Jsonb *s64_session_exchange(const Account *account,
								   const ApiRequest *request);

/*
 * The same, but what came of it is a value, palloc'd, and no failure of the
 * service's or the network's is raised; see s64_outcome_read() about
 * OUTCOME_UNREADABLE.
 */
extern Outcome *s64_session_try(const Account *account,
								const ApiRequest *request);

/* Sleep for so many ms.  Raises the error of a cancel. */
extern void s64_session_sleep(long ms);

#endif							/* S64_SESSION_H */
