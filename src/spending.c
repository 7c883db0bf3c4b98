/*-------------------------------------------------------------------------
 *
 * spending.c
 *		What the ledger knows about money, for the meter and the prices.
 *
 * A call counts for the day on which it was made, with what it cost or, until
 * that is known, with what was expected.  As in the meter, cents are spent
 * when the service has accepted the call, and at risk while, or where, nobody
 * knows whether it has.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "budget.h"
#include "endpoint.h"
#include "home.h"
#include "meter.h"
#include "price.h"
#include "spending.h"
#include "sql.h"

/* A call resubmitted by a person is rejected, but may have been billed. */
static SqlStatement select_spent = {
	"SELECT account,"
	" coalesce(sum(coalesce(cents, expected_cents)) FILTER (WHERE state IN ('accepted', 'done', 'failed')), 0)::int8,"
	" coalesce(sum(expected_cents) FILTER (WHERE state IN ('sending', 'uncertain', 'expired', 'abandoned')"
	"  OR state = 'rejected' AND sqlstate = '08007'), 0)::int8"
	" FROM sixtyfour.call WHERE created_at >= $1 AND home_system = $2 AND home_database = $3"
	" GROUP BY account",
	3, {TIMESTAMPTZOID, INT8OID, OIDOID}, NULL
};

/* The newest of the last calls of each account, operation, tier and mode */
static SqlStatement select_prices = {
	"SELECT account, operation, (array_agg(body))[1], count(*), avg(price)::float8"
	" FROM (SELECT c.account, c.operation, c.cents::float8 / c.items AS price, j.body,"
	"  row_number() OVER (PARTITION BY c.account, c.operation, j.body ->> 'tier', j.body ->> 'mode'"
	"   ORDER BY c.id DESC) AS place"
	"  FROM (SELECT * FROM sixtyfour.call ORDER BY id DESC LIMIT $1) c"
	"  CROSS JOIN LATERAL (SELECT jsonb_build_object('tier', body -> 'tier', 'mode', body -> 'mode') AS body"
	"   FROM sixtyfour.job WHERE job.call = c.id LIMIT 1) j"
	"  WHERE c.state = 'done' AND c.cents IS NOT NULL) p"
	" WHERE place <= $2 GROUP BY account, operation, body ->> 'tier', body ->> 'mode'",
	2, {INT4OID, INT4OID}, NULL
};

#define CALLS_LOOKED_AT 5000

/* What this database has spent today; returns the number of accounts. */
static int
read_spent(TimestampTz now, MeterSeed **seeds)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[3];
	int			n;

	values[0] = TimestampTzGetDatum(s64_budget_day(now) * USECS_PER_DAY);
	values[1] = Int64GetDatum(s64_home_system());
	values[2] = ObjectIdGetDatum(MyDatabaseId);
	s64_sql_begin();
	n = (int) s64_sql_run(&select_spent, values, NULL);
	*seeds = MemoryContextAlloc(context, (n + 1) * sizeof(MeterSeed));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		(*seeds)[i].account = *DatumGetUUIDP(s64_sql_value(i, 1, &isnull));
		(*seeds)[i].spent = s64_sql_int8(i, 2);
		(*seeds)[i].at_risk = s64_sql_int8(i, 3);
	}
	s64_sql_end();
	return n;
}

/* What the last calls cost.  Needs no commit: prices are only known better. */
static void
recall_prices(void)
{
	Datum		values[2] = {Int32GetDatum(CALLS_LOOKED_AT), Int32GetDatum(S64_PRICE_WINDOW)};
	uint64		rows;

	s64_sql_begin();
	rows = s64_sql_run(&select_prices, values, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		const Endpoint *endpoint = s64_endpoint_find(s64_sql_text(i, 2));
		bool		isnull;
		pg_uuid_t  *account = DatumGetUUIDP(s64_sql_value(i, 1, &isnull));
		PriceKind	kind;

		if (endpoint == NULL)
			continue;
		kind = s64_price_kind(endpoint, DatumGetJsonbP(s64_sql_value(i, 3, &isnull)));
		s64_price_recall(account, &kind, (int) s64_sql_int8(i, 4),
						 DatumGetFloat8(s64_sql_value(i, 5, &isnull)));
	}
	s64_sql_end();
}

void
s64_spending_recall(void)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	MeterSeed  *seeds;
	int			n;

	if (s64_meter_is_seeded(MyDatabaseId))
		return;
	s64_sql_start_transaction();
	MemoryContextSwitchTo(context);
	n = read_spent(now, &seeds);
	recall_prices();
	CommitTransactionCommand();
	s64_meter_seed(MyDatabaseId, seeds, n, now);
}
