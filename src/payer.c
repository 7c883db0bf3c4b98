/*-------------------------------------------------------------------------
 *
 * payer.c
 *		The accounts that one pass of the worker meets, and what is in their way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "meter.h"
#include "payer.h"

void
s64_payer_block(Payer *payer, TimestampTz until, bool for_long)
{
	payer->blocked_until = until;
	payer->for_long = for_long;
}

/* What stands in the way of spending? */
static void
judge(Payer *payer, TimestampTz now)
{
	MeterReading reading = s64_meter_read(payer->account, now);
	int			budget = payer->account->daily_budget;

	if (reading.paused_until > now)
		/* or earlier, as a new key ends the pause */
		s64_payer_block(payer, Min(reading.paused_until, now + S64_PAYER_RECHECK), true);
	else if (budget >= 0 && reading.spent_today + reading.at_risk >= budget)
		s64_payer_block(payer, now + S64_PAYER_RECHECK, true);
	else if (reading.hold_until > now)
		s64_payer_block(payer, Min(reading.hold_until, now + S64_PAYER_RECHECK), true);
}

Payer *
s64_payer_get(List **payers, const char *server, Oid role, bool spend)
{
	TimestampTz now = GetCurrentTimestamp();
	Payer	   *payer;
	ErrorData  *error;
	ListCell   *lc;

	foreach(lc, *payers)
	{
		payer = lfirst(lc);
		if (payer->role == role && strcmp(payer->server, server) == 0)
			return payer;
	}
	payer = palloc0(sizeof(Payer));
	payer->server = pstrdup(server);
	payer->role = role;
	payer->account = s64_account_try(server, role, spend, &error);
	if (payer->account == NULL)
	{
		payer->problem = error->message;
		s64_payer_block(payer, now + S64_PAYER_RECHECK, true);
		ereport(DEBUG1,
				(errmsg_internal("sixtyfour: requests over server \"%s\" wait: %s",
								 server, error->message)));
	}
	else if (spend)
		judge(payer, now);
	*payers = lappend(*payers, payer);
	return payer;
}
