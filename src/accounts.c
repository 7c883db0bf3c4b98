/*-------------------------------------------------------------------------
 *
 * accounts.c
 *		What the view sixtyfour.accounts shows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "account.h"
#include "compat.h"
#include "meter.h"

#define COLUMNS 9

S64_FUNCTION(sixtyfour_account_reading);

/* A time that has not passed, or NULL */
static Datum
future(int64 when, TimestampTz now, bool *isnull)
{
	*isnull = when <= now;
	return TimestampTzGetDatum(when);
}

/* What stands in the way of spending, or NULL */
static char *
obstacle(const Account *account, const MeterReading *reading, TimestampTz now)
{
	if (reading->no_room)
		return "too many API keys in use at once";
	if (reading->paused_until > now)
		return psprintf("the service refuses the account (%s)",
						unpack_sql_state(reading->paused_by));
	if (account->daily_budget >= 0 &&
		reading->spent_today + reading->at_risk >= account->daily_budget)
		return "daily_budget_cents is reached";
	if (reading->hold_until > now)
		return "the service's rate limit (429)";
	return NULL;
}

/*
 * sixtyfour.account_reading(server name, payer oid) → one row about the
 * account, for the payer itself and for pg_monitor
 */
Datum
sixtyfour_account_reading(PG_FUNCTION_ARGS)
{
	Oid			payer = PG_GETARG_OID(1);
	TimestampTz now = GetCurrentTimestamp();
	TupleDesc	desc;
	Account    *account;
	ErrorData  *error;
	MeterReading reading;
	char	   *paused_by;
	Datum		values[COLUMNS] = {0};
	bool		nulls[COLUMNS] = {0};

	if (!has_privs_of_role(GetUserId(), payer) &&
		!has_privs_of_role(GetUserId(), ROLE_PG_MONITOR))
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	account = s64_account_try(NameStr(*PG_GETARG_NAME(0)), payer, true, &error);
	if (account == NULL)
	{
		memset(nulls, true, sizeof(nulls));
		nulls[8] = false;
		values[8] = CStringGetTextDatum(error->message);
		PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
	}

	reading = s64_meter_read(account, now);
	paused_by = obstacle(account, &reading, now);
	values[0] = Int32GetDatum(account->requests_per_minute);
	values[1] = Float8GetDatum(reading.rate);
	nulls[1] = account->requests_per_minute == 0;
	values[2] = Int64GetDatum(reading.refusals);
	values[3] = future(reading.hold_until, now, &nulls[3]);
	values[4] = Int64GetDatum(reading.spent_today);
	values[5] = Int64GetDatum(reading.at_risk);
	values[6] = Int32GetDatum(account->daily_budget);
	nulls[6] = account->daily_budget < 0;
	values[7] = future(reading.paused_until, now, &nulls[7]);
	nulls[8] = paused_by == NULL;
	values[8] = nulls[8] ? (Datum) 0 : CStringGetTextDatum(paused_by);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
