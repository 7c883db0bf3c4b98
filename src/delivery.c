/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		The way home of an answer, as the ledger has it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "home.h"
#include "sql.h"

#define PENDING \
	" j.delivery = 'pending' AND j.home_system = $1 AND j.home_database = $2"

static SqlStatement select_next = {
	"SELECT j.enrichment FROM sixtyfour.job j WHERE" PENDING
	" AND j.run_at <= clock_timestamp() ORDER BY j.id LIMIT 1",
	2, {INT8OID, OIDOID}, NULL
};

static SqlStatement select_batch = {
	"SELECT j.id, j.row_key, j.row_input, r.answer, EXISTS (SELECT FROM sixtyfour.job l"
	"  WHERE l.enrichment = j.enrichment AND l.row_key = j.row_key AND l.id > j.id"
	"  AND l.delivery = 'applied')"
	" FROM sixtyfour.job j LEFT JOIN sixtyfour.result r ON r.id = j.result"
	" WHERE" PENDING " AND j.enrichment = $3 AND j.run_at <= clock_timestamp()"
	" ORDER BY j.id LIMIT $4 FOR NO KEY UPDATE OF j SKIP LOCKED",
	4, {INT8OID, OIDOID, INT4OID, INT4OID}, NULL
};

static SqlStatement select_next_due = {
	"SELECT min(j.run_at) FROM sixtyfour.job j WHERE" PENDING,
	2, {INT8OID, OIDOID}, NULL
};

static SqlStatement set_applied = {
	"UPDATE sixtyfour.job SET delivery = 'applied', sqlstate = NULL, message = NULL"
	" WHERE id = ANY ($1) AND delivery = 'pending'",
	1, {INT8ARRAYOID}, NULL
};

static SqlStatement set_unapplied = {
	"UPDATE sixtyfour.job SET delivery = 'unapplied', sqlstate = $2, message = $3"
	" WHERE id = ANY ($1) AND delivery = 'pending'",
	3, {INT8ARRAYOID, TEXTOID, TEXTOID}, NULL
};

static SqlStatement set_postponed = {
	"UPDATE sixtyfour.job SET sqlstate = '55P03', message = $2, run_at = clock_timestamp() +"
	" least(interval '1 min', greatest(interval '200 ms',"
	"  (clock_timestamp() - coalesce(finished_at, clock_timestamp())) / 2))"
	" WHERE id = ANY ($1) AND delivery = 'pending'",
	2, {INT8ARRAYOID, TEXTOID}, NULL
};

static SqlStatement set_pending = {
	"UPDATE sixtyfour.job SET delivery = 'pending', sqlstate = NULL, message = NULL,"
	" run_at = clock_timestamp()"
	" WHERE enrichment = $1 AND delivery = 'unapplied'",
	1, {INT4OID}, NULL
};

static Jsonb *
read_jsonb(uint64 row, int column)
{
	bool		isnull;
	Datum		value = s64_sql_value(row, column, &isnull);

	return isnull ? NULL : (Jsonb *) PG_DETOAST_DATUM_COPY(value);
}

/* Is one of the deliveries about the same row? */
static bool
has_row(const Delivery *deliveries, int n, Jsonb *key)
{
	for (int i = 0; key != NULL && i < n; i++)
	{
		if (deliveries[i].key != NULL &&
			compareJsonbContainers(&deliveries[i].key->root, &key->root) == 0)
			return true;
	}
	return false;
}

/* Copy the result to the current context; a row's second job comes later. */
static int
read_batch(uint64 rows, Delivery *deliveries)
{
	int			n = 0;

	for (uint64 i = 0; i < rows; i++)
	{
		Delivery   *d = &deliveries[n];
		bool		isnull;

		d->job = s64_sql_int8(i, 1);
		d->key = read_jsonb(i, 2);
		if (has_row(deliveries, n, d->key))
			continue;
		d->input = read_jsonb(i, 3);
		d->answer = read_jsonb(i, 4);
		d->superseded = DatumGetBool(s64_sql_value(i, 5, &isnull));
		n++;
	}
	return n;
}

int
s64_delivery_claim(int max, int *enrichment, Delivery **deliveries)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[4] = {Int64GetDatum(s64_home_system()),
	ObjectIdGetDatum(MyDatabaseId), 0, Int32GetDatum(max)};
	int			n = 0;
	bool		isnull;

	s64_sql_begin();
	if (s64_sql_run(&select_next, values, NULL) > 0)
	{
		MemoryContext old;
		uint64		rows;

		values[2] = s64_sql_value(0, 1, &isnull);
		*enrichment = DatumGetInt32(values[2]);
		rows = s64_sql_run(&select_batch, values, NULL);
		old = MemoryContextSwitchTo(context);
		*deliveries = palloc0((rows + 1) * sizeof(Delivery));
		n = read_batch(rows, *deliveries);
		MemoryContextSwitchTo(old);
	}
	s64_sql_end();
	return n;
}

TimestampTz
s64_delivery_next_due(void)
{
	Datum		values[2] = {Int64GetDatum(s64_home_system()),
	ObjectIdGetDatum(MyDatabaseId)};
	TimestampTz next;
	bool		isnull;

	s64_sql_begin();
	s64_sql_run(&select_next_due, values, NULL);
	next = DatumGetTimestampTz(s64_sql_value(0, 1, &isnull));
	s64_sql_end();
	return isnull ? DT_NOEND : next;
}

static uint64
run(SqlStatement *statement, Datum *values)
{
	uint64		rows;

	s64_sql_begin();
	rows = s64_sql_run(statement, values, NULL);
	s64_sql_end();
	return rows;
}

void
s64_delivery_applied(const int64 *jobs, int n)
{
	Datum		values[1] = {s64_sql_int8_array(jobs, n)};

	/* they are locked, so this can only be a mistake of ours */
	if (n > 0 && run(&set_applied, values) != (uint64) n)
		elog(ERROR, "a job left state pending while its answer was written");
}

void
s64_delivery_unapplied(const int64 *jobs, int n, int sqlstate, const char *message)
{
	Datum		values[3] = {s64_sql_int8_array(jobs, n),
		CStringGetTextDatum(unpack_sql_state(sqlstate)),
	CStringGetTextDatum(message)};

	if (n > 0)
		run(&set_unapplied, values);
}

void
s64_delivery_postpone(const int64 *jobs, int n, const char *message)
{
	Datum		values[2] = {s64_sql_int8_array(jobs, n), CStringGetTextDatum(message)};

	if (n > 0)
		run(&set_postponed, values);
}

int64
s64_delivery_again(int enrichment)
{
	Datum		values[1] = {Int32GetDatum(enrichment)};

	return (int64) run(&set_pending, values);
}
