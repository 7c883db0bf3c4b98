/*-------------------------------------------------------------------------
 *
 * payer.h
 *		The accounts that one pass of the worker meets, and what is in their way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_PAYER_H
#define S64_PAYER_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

#include "account.h"

#define S64_PAYER_RECHECK	INT64CONST(10000000)	/* µs, of what a person must mend */

typedef struct Payer
{
	char	   *server;
	Oid			role;
	Account    *account;		/* NULL: not usable now, see problem */
	char	   *problem;
	TimestampTz blocked_until;	/* 0: not blocked */
	bool		for_long;		/* blocked by more than the pace of requests */
} Payer;

/*
 * The payer of that role over that server, from the list or added to it; all in
 * the current context.  Needs a transaction.  If spend, it must have the right
 * to, and is blocked while its account is paused or its budget is used up.
 */
extern Payer *s64_payer_get(List **payers, const char *server, Oid role,
							bool spend);

/* Block it until then; for long, if not just for its next turn. */
extern void s64_payer_block(Payer *payer, TimestampTz until, bool for_long);

#endif							/* S64_PAYER_H */
