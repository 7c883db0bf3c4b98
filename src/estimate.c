/*-------------------------------------------------------------------------
 *
 * estimate.c
 *		What running an enrichment would ask for, cost and take.
 *
 * The rows are those that sixtyfour_run_enrichment() would queue, found by the
 * same query.  Prices that the service does not state, and run times, are
 * taken from what the ledger has seen.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "account.h"
#include "asked.h"
#include "compat.h"
#include "digest.h"
#include "enrichment.h"
#include "guc.h"
#include "price.h"
#include "rows.h"
#include "sql.h"

#define CHUNK 1000
#define BULK 100				/* leads in a request */
#define REQUESTS_PER_CALL 3.5	/* the submission, and polls until it is done */
#define USABLE_RATE 0.96		/* of the limit: see ratelimit.h */
#define COLUMNS 6

S64_FUNCTION(sixtyfour_estimate);

typedef struct Estimate
{
	int64		rows;
	int64		cached;			/* of them, answered by stored results */
	int64		questions;		/* that are left, each asked once */
} Estimate;

/* Of some questions: how many are stored, and how many different ones are not */
static SqlStatement select_stored = {
	"SELECT coalesce(sum(n) FILTER (WHERE stored), 0)::int8, count(*) FILTER (WHERE NOT stored)"
	" FROM (SELECT count(*) AS n, EXISTS (SELECT FROM sixtyfour.result r"
	"  WHERE r.fingerprint = f AND r.account = $2"
	"  AND r.created_at > now() - make_interval(secs => $3)) AS stored"
	" FROM unnest($1) AS u (f) GROUP BY f) q",
	3, {UUIDARRAYOID, UUIDOID, FLOAT8OID}, NULL
};

/* What such questions cost, for most, and how long the operation's calls ran */
static SqlStatement select_learned = {
	"SELECT (SELECT percentile_cont(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY cents)"
	"  FROM (SELECT cents FROM sixtyfour.result r WHERE operation = $1 AND account = $2 AND cents IS NOT NULL"
	"   AND EXISTS (SELECT FROM sixtyfour.job j WHERE j.call = r.call"
	"    AND (j.body ->> 'tier', j.body ->> 'mode') IS NOT DISTINCT FROM ($3 ->> 'tier', $3 ->> 'mode'))"
	"   ORDER BY id DESC LIMIT 1000) r),"
	" (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - accepted_at)::float8)"
	"  FROM (SELECT accepted_at, finished_at FROM sixtyfour.call WHERE operation = $1 AND state = 'done'"
	"   AND accepted_at IS NOT NULL ORDER BY id DESC LIMIT 1000) c)",
	3, {TEXTOID, UUIDOID, JSONBOID}, NULL
};

static void
count_chunk(Estimate *estimate, const Enrichment *e, const AccountId *account,
			Row *rows, int n)
{
	Datum	   *fingerprints;
	Datum		values[3];

	n = s64_asked_leave_out(e, rows, n);
	fingerprints = palloc(n * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

		*uuid = s64_digest(e->endpoint->name,
						   JsonbToCString(NULL, &rows[i].body->root, VARSIZE(rows[i].body)));
		fingerprints[i] = UUIDPGetDatum(uuid);
	}
	values[0] = PointerGetDatum(construct_array(fingerprints, n, UUIDOID, UUID_LEN, false,
												TYPALIGN_CHAR));
	values[1] = UUIDPGetDatum(account);
	values[2] = Float8GetDatum(s64_guc_cache_ttl);
	s64_sql_begin();
	s64_sql_run(&select_stored, values, NULL);
	estimate->rows += n;
	estimate->cached += s64_sql_int8(0, 1);
	estimate->questions += s64_sql_int8(0, 2);
	s64_sql_end();
}

static Estimate
count_rows(const Enrichment *e, const AccountId *account, const char *filter)
{
	MemoryContext chunk = AllocSetContextCreate(CurrentMemoryContext, "sixtyfour estimate",
												ALLOCSET_DEFAULT_SIZES);
	Row		   *rows = palloc(CHUNK * sizeof(Row));
	Estimate	estimate = {0};
	RowScan		scan;
	MemoryContext old;
	int			n;

	s64_rows_begin(NULL);
	s64_rows_open(&scan, s64_rows_prepare_table(e, filter), e->rest);
	old = MemoryContextSwitchTo(chunk);
	while ((n = s64_rows_fetch(&scan, rows, CHUNK)) > 0)
	{
		count_chunk(&estimate, e, account, rows, n);
		MemoryContextReset(chunk);
	}
	MemoryContextSwitchTo(old);
	s64_rows_end();
	return estimate;
}

/* The stated price of one question; PRICE_UNKNOWN if none is stated */
static int
stated_price(const Enrichment *e)
{
	JsonbValue	v;

	if (getKeyJsonValueFromContainer(&e->rest->root, "mode", 4, &v) != NULL &&
		v.type == jbvString && v.val.string.len == 8 &&
		memcmp(v.val.string.val, "PERSONAL", 8) == 0)
		return e->endpoint->personal_price;
	return e->endpoint->price;
}

/* What the ledger knows: prices[2] (NaN: nothing), and seconds of a call */
static void
learn(const Enrichment *e, const AccountId *account, double *prices, double *seconds)
{
	Datum		values[3] = {CStringGetTextDatum(e->endpoint->name),
	UUIDPGetDatum(account), JsonbPGetDatum(e->rest)};
	Datum		value;
	bool		isnull;

	prices[0] = prices[1] = NAN;
	s64_sql_begin();
	s64_sql_run(&select_learned, values, NULL);
	value = s64_sql_value(0, 1, &isnull);
	if (!isnull)
	{
		Datum	   *elements;
		int			n;

		deconstruct_array(DatumGetArrayTypeP(value), FLOAT8OID, sizeof(float8),
						  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, NULL, &n);
		for (int i = 0; i < n && i < 2; i++)
			prices[i] = DatumGetFloat8(elements[i]);
	}
	value = s64_sql_value(0, 2, &isnull);
	/* what the service's users see: seconds to find, minutes to research */
	*seconds = !isnull ? DatumGetFloat8(value) : e->endpoint->bulk_path ? 5 : 225;
	s64_sql_end();
}

static void
fill_money_and_time(const Enrichment *e, const Account *account,
					const Estimate *estimate, Datum *values, bool *nulls)
{
	int64		requests = e->endpoint->bulk_path
		? (estimate->questions + BULK - 1) / BULK : estimate->questions;
	int			price = stated_price(e);
	double		prices[2];
	double		seconds;
	Interval   *duration = palloc0(sizeof(Interval));
	PriceKind	kind = s64_price_kind(e->endpoint, e->rest);
	int			learned = s64_price_learned(&account->id, &kind);

	learn(e, &account->id, prices, &seconds);
	if (price == PRICE_UNKNOWN && isnan(prices[0]))
		price = learned >= 0 ? learned : account->assumed_price;
	if (price >= 0)
	{
		prices[0] = price;
		prices[1] = Max(price, learned);
	}
	values[2] = Int64GetDatum(requests);
	for (int i = 0; i < 2; i++)
	{
		nulls[3 + i] = isnan(prices[i]) && estimate->questions > 0;
		if (!nulls[3 + i])
			values[3 + i] = Int64GetDatum(estimate->questions == 0 ? 0
										  : (int64) rint(prices[i] * estimate->questions));
	}
	if (requests > 0)
	{
		if (account->requests_per_minute > 0)
			seconds += requests * REQUESTS_PER_CALL * 60 /
				(account->requests_per_minute * USABLE_RATE);
		duration->time = (TimeOffset) (seconds * USECS_PER_SEC);
	}
	values[5] = IntervalPGetDatum(duration);
}

/* sixtyfour_estimate(name text, filter text) → one row */
Datum
sixtyfour_estimate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *filter = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	Datum		values[COLUMNS] = {0};
	bool		nulls[COLUMNS] = {0};
	Enrichment *e;
	Account    *account;
	Estimate	estimate;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	e = s64_enrichment_command(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	account = s64_account_get(e->server, OidIsValid(e->payer) ? e->payer : GetUserId());
	estimate = count_rows(e, &account->id, filter);
	values[0] = Int64GetDatum(estimate.rows);
	values[1] = Int64GetDatum(estimate.cached);
	fill_money_and_time(e, account, &estimate, values, nulls);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
