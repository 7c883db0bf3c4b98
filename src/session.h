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

#endif							/* S64_SESSION_H */
