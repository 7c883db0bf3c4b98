/*-------------------------------------------------------------------------
 *
 * price.h
 *		What requests turned out to cost.
 *
 * Each account's average price of a question, by its kind: an operation, and
 * the tier and mode that the question asks for.  It is kept in shared memory,
 * where the library is preloaded, and nowhere else: the workers learn it from
 * what the service says about finished calls, and after a restart from their
 * ledgers.  One LWLock protects it, as in meter.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_PRICE_H
#define S64_PRICE_H

#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "endpoint.h"

#define S64_PRICE_WINDOW	50	/* of about so many calls is the average */

/* The kind of a question: "enrich_lead tier=high" */
typedef struct PriceKind
{
	char		name[96];
} PriceKind;

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_price_init(void);

/* The kind of a question with this (normalized) body, or with none (NULL) */
extern PriceKind s64_price_kind(const Endpoint *endpoint, Jsonb *body);

/* A call of that kind cost so many cents per item. */
extern void s64_price_learn(const pg_uuid_t *account, const PriceKind *kind,
							double cents);

/*
 * The ledger knows n calls of that kind, of the given average: taken over
 * unless more than that is known already.
 */
extern void s64_price_recall(const pg_uuid_t *account, const PriceKind *kind,
							 int n, double cents);

/* The learned price in whole cents, rounded up; -1 while it is not known */
extern int	s64_price_learned(const pg_uuid_t *account, const PriceKind *kind);

#endif							/* S64_PRICE_H */
