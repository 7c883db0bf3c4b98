/*-------------------------------------------------------------------------
 *
 * unasked.h
 *		What a session must know before it asks by itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_UNASKED_H
#define S64_UNASKED_H

#include "account.h"
#include "compat.h"
#include "endpoint.h"

/*
 * An open call holds its question, a normalized body: nobody asks it again by
 * accident.  Raises 08007 if that call is uncertain, 55006 if it is under way.
 */
extern void s64_unasked_check(const Account *account, const Endpoint *endpoint,
							  Jsonb *body);

/* Raise 55000: a worker is wanted, and there is none. */
pg_noreturn extern void s64_unasked_no_worker(void);

#endif							/* S64_UNASKED_H */
