/*-------------------------------------------------------------------------
 *
 * payer.c
 *		The accounts that one pass of the worker meets, and what is in their way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "meter.h"
#include "payer.h"
#include "roster.h"

#define COUNT_WAIT		INT64CONST(10000000)	/* µs, for other databases' workers */
#define COUNT_RECHECK	INT64CONST(50000)

void
s64_payer_block(Payer *payer, TimestampTz until, bool for_long)
{
	payer->blocked_until = until;
	payer->for_long = for_long;
}

/*
 * After the start of the server each database's worker says what was spent today
 * (spending.c), and accounts may be shared: wait for the others, but not for
 * one that does not come.
 */
static bool
is_all_counted(TimestampTz now)
{
	static bool counted = false;
	RosterRow  *rows;
	int			n;

	if (counted)
		return true;
	counted = now > MyStartTimestamp + COUNT_WAIT;
	if (counted)
		return true;
	rows = s64_roster_rows(&n);
	counted = true;
	for (int i = 0; i < n; i++)
	{
		if (rows[i].kind == PROCESS_WORKER && strcmp(rows[i].state, "not allowed") != 0 &&
			strcmp(rows[i].state, "no extension") != 0 &&
			strcmp(rows[i].state, "kept away") != 0 &&
			!s64_meter_is_seeded(rows[i].database))
			counted = false;
	}
	pfree(rows);
	return counted;
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
	else if (budget >= 0 && !is_all_counted(now))
		s64_payer_block(payer, now + COUNT_RECHECK, false);
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
