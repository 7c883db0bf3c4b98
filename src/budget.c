/*-------------------------------------------------------------------------
 *
 * budget.c
 *		What may still be spent today.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "budget.h"

int64
s64_budget_day(TimestampTz now)
{
	/* TimestampTz is UTC; round towards minus infinity */
	return now >= 0 ? now / USECS_PER_DAY : -((-now - 1) / USECS_PER_DAY) - 1;
}

static void
begin_day(BudgetState *state, int64 day)
{
	if (day <= state->day)
		return;
	state->day = day;
	state->spent = 0;
	state->at_risk = 0;
}

/*
 * Never below zero, which would let more be spent than the limit: what was
 * set aside may have been forgotten meanwhile.
 */
static void
change(BudgetState *state, int64 spent, int64 at_risk)
{
	state->spent = Max(state->spent + spent, 0);
	state->at_risk = Max(state->at_risk + at_risk, 0);
}

bool
s64_budget_reserve(BudgetState *state, int64 cents, int64 limit, int64 day)
{
	begin_day(state, day);
	if (limit >= 0 && state->spent + state->at_risk + cents > limit)
		return false;
	state->at_risk += cents;
	return true;
}

void
s64_budget_settle(BudgetState *state, int64 reserved, int64 cents, int64 day)
{
	/* A request that began yesterday was yesterday's money. */
	if (day != state->day)
		return;
	change(state, cents, -reserved);
}

void
s64_budget_add(BudgetState *state, int64 spent, int64 at_risk, int64 day)
{
	begin_day(state, day);
	if (day != state->day)
		return;
	change(state, spent, at_risk);
}
