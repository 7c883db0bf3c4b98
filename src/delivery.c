/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		The way home of an answer, as the ledger has it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "guc.h"
#include "home.h"
#include "sql.h"

/* Of jobs without an enrichment the answer goes another way (import.c). */
#define PENDING \
	" j.delivery = 'pending' AND j.enrichment IS NOT NULL AND j.home_system = $1 AND j.home_database = $2"

#define SUSPECT \
	" j.delivery = 'pending' AND j.sqlstate = '57014' AND j.enrichment = e.id"

/* Whose turn it is after $3, and whether it has suspects */
static SqlStatement select_next = {
	"SELECT e.id, EXISTS (SELECT FROM sixtyfour.job j WHERE" SUSPECT ")"
	" FROM sixtyfour.enrichment e WHERE e.id > $3"
	" AND EXISTS (SELECT FROM sixtyfour.job j WHERE" PENDING
	"  AND j.enrichment = e.id AND j.run_at <= clock_timestamp())"
	" AND NOT EXISTS (SELECT FROM sixtyfour.job j WHERE" SUSPECT
	"  AND j.run_at > clock_timestamp())"
	" ORDER BY e.id LIMIT 1",
	3, {INT8OID, OIDOID, INT4OID}, NULL
};

/* What an enrichment that was dropped has left */
static SqlStatement select_orphan = {
	"SELECT j.enrichment, false FROM sixtyfour.job j WHERE" PENDING
	" AND j.run_at <= clock_timestamp()"
	" AND NOT EXISTS (SELECT FROM sixtyfour.enrichment e WHERE e.id = j.enrichment) LIMIT 1",
	2, {INT8OID, OIDOID}, NULL
};

static SqlStatement select_batch = {
	"SELECT j.id, j.row_key, j.row_input, r.answer, EXISTS (SELECT FROM sixtyfour.job l"
	"  WHERE l.enrichment = j.enrichment AND l.row_key = j.row_key AND l.id > j.id"
	"  AND jsonb_hash_extended(l.row_key, 0) = jsonb_hash_extended(j.row_key, 0)"
	"  AND l.delivery = 'applied')"
	" FROM sixtyfour.job j LEFT JOIN sixtyfour.result r ON r.id = j.result"
	" WHERE" PENDING " AND j.enrichment = $3 AND j.run_at <= clock_timestamp()"
	" ORDER BY j.id LIMIT $4 FOR NO KEY UPDATE OF j SKIP LOCKED",
	4, {INT8OID, OIDOID, INT4OID, INT4OID}, NULL
};

static SqlStatement select_next_due = {
	"SELECT min(greatest(due, held)) FROM (SELECT min(j.run_at) AS due,"
	"  max(j.run_at) FILTER (WHERE j.sqlstate = '57014') AS held"
	" FROM sixtyfour.job j WHERE" PENDING " GROUP BY j.enrichment) e",
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
	"UPDATE sixtyfour.job SET sqlstate = $2, message = $3, run_at = clock_timestamp() +"
	" least(interval '1 min', greatest(interval '200 ms',"
	"  (clock_timestamp() - coalesce(finished_at, clock_timestamp())) / 2))"
	" WHERE id = ANY ($1) AND delivery = 'pending'",
	3, {INT8ARRAYOID, TEXTOID, TEXTOID}, NULL
};

/*
 * The pause is for the other enrichments, as long as this attempt had: the next
 * suspect may end the process again.
 */
static SqlStatement set_blamed = {
	"UPDATE sixtyfour.job SET sqlstate = '57014',"
	" message = CASE WHEN id = ANY ($1) THEN $3 ELSE message END,"
	" delivery = CASE WHEN id = ANY ($1) AND $2 THEN 'unapplied' ELSE 'pending' END,"
	" run_at = clock_timestamp() + make_interval(secs => $4)"
	" WHERE id IN (SELECT j.id FROM sixtyfour.job j WHERE j.delivery = 'pending'"
	"  AND (j.id = ANY ($1) OR j.sqlstate = '57014' AND j.enrichment ="
	"   (SELECT enrichment FROM sixtyfour.job WHERE id = ($1)[1]))"
	"  FOR NO KEY UPDATE SKIP LOCKED)",
	4, {INT8ARRAYOID, BOOLOID, TEXTOID, FLOAT8OID}, NULL
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

/* The next enrichment that has something to deliver; 0 if none has */
static int
next_enrichment(Datum *values, bool *suspect)
{
	static int	last = 0;
	bool		found;
	bool		isnull;

	values[2] = Int32GetDatum(last);
	found = s64_sql_run(&select_next, values, NULL) > 0;
	if (!found && last > 0)
	{
		values[2] = Int32GetDatum(0);
		found = s64_sql_run(&select_next, values, NULL) > 0;
	}
	if (!found && s64_sql_run(&select_orphan, values, NULL) == 0)
		return 0;
	last = DatumGetInt32(s64_sql_value(0, 1, &isnull));
	*suspect = DatumGetBool(s64_sql_value(0, 2, &isnull));
	return last;
}

int
s64_delivery_claim(int max, int *enrichment, Delivery **deliveries)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[4] = {Int64GetDatum(s64_home_system()),
	ObjectIdGetDatum(MyDatabaseId)};
	int			n = 0;
	bool		suspect;

	s64_sql_begin();
	*enrichment = next_enrichment(values, &suspect);
	if (*enrichment != 0)
	{
		MemoryContext old;
		uint64		rows;

		values[2] = Int32GetDatum(*enrichment);
		values[3] = Int32GetDatum(suspect ? 1 : max);
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

void
s64_delivery_applied(const int64 *jobs, int n)
{
	Datum		values[1] = {s64_sql_int8_array(jobs, n)};

	/* they are locked, so this can only be a mistake of ours */
	if (n > 0 && s64_sql_execute(&set_applied, values, NULL) != (uint64) n)
		elog(ERROR, "a job left state pending while its answer was written");
}

void
s64_delivery_unapplied(const int64 *jobs, int n, int sqlstate, const char *message)
{
	Datum		values[3] = {s64_sql_int8_array(jobs, n),
		CStringGetTextDatum(unpack_sql_state(sqlstate)),
	CStringGetTextDatum(message)};

	if (n > 0)
		s64_sql_execute(&set_unapplied, values, NULL);
}

void
s64_delivery_postpone(const int64 *jobs, int n, int sqlstate, const char *message)
{
	Datum		values[3] = {s64_sql_int8_array(jobs, n),
		CStringGetTextDatum(unpack_sql_state(sqlstate)),
	CStringGetTextDatum(message)};

	if (n > 0)
		s64_sql_execute(&set_postponed, values, NULL);
}

void
s64_delivery_blame(const int64 *jobs, int n, const char *message)
{
	Datum		values[4] = {s64_sql_int8_array(jobs, n), BoolGetDatum(n == 1),
		CStringGetTextDatum(message),
	Float8GetDatum(s64_guc_write_timeout / 1000.0)};
	Oid			relid = get_relname_relid("job", get_namespace_oid("sixtyfour", true));

	/* an ending process cannot be interrupted while it waits */
	if (OidIsValid(relid) && ConditionalLockRelationOid(relid, RowExclusiveLock))
		s64_sql_execute(&set_blamed, values, NULL);
}

int64
s64_delivery_again(int enrichment)
{
	Datum		values[1] = {Int32GetDatum(enrichment)};

	return (int64) s64_sql_execute(&set_pending, values, NULL);
}
