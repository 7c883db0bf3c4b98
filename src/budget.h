/*-------------------------------------------------------------------------
 *
 * budget.h
 *		What may still be spent today.
 *
 * Pure functions of a state and the time.  Money is whole US cents, a day is
 * a UTC day.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_BUDGET_H
#define S64_BUDGET_H

#include "datatype/timestamp.h"

/* One account's spending.  All zero is a fresh account. */
typedef struct BudgetState
{
	int64		day;			/* which day the rest is about */
	int64		spent;			/* cents known or assumed to be billed */
	int64		at_risk;		/* cents of requests whose end is not known */
} BudgetState;

/* The UTC day that a time falls on, counted from PostgreSQL's epoch. */
extern int64 s64_budget_day(TimestampTz now);

/*
 * Set cents aside for a request about to be sent.  Returns false, and changes
 * nothing, if that would exceed limit (-1: no limit).
 */
extern bool s64_budget_reserve(BudgetState *state, int64 cents, int64 limit,
							   int64 day);

/*
 * The request for which "reserved" was set aside on "day" has ended, and cost
 * "cents" (0 when it was not billed).
 */
extern void s64_budget_settle(BudgetState *state, int64 reserved, int64 cents,
							  int64 day);

/*
 * "spent" and "at_risk" more than was counted belong to "day"; either may be
 * negative.  What belongs to a day that is over counts no more.
 */
extern void s64_budget_add(BudgetState *state, int64 spent, int64 at_risk,
						   int64 day);

#endif							/* S64_BUDGET_H */
