/*-------------------------------------------------------------------------
 *
 * arrival.c
 *		Answers whose rows go into a table, as the ledger has them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "arrival.h"
#include "home.h"
#include "sql.h"

#define LONGEST_PAUSE "interval '5 min'"

#define PENDING \
	" j.delivery = 'pending' AND j.enrichment IS NULL AND j.into_table IS NOT NULL" \
	" AND j.home_system = $1 AND j.home_database = $2"

static SqlStatement select_next = {
	"SELECT j.id, j.owner::oid, j.into_table::oid, j.payer::oid, j.server::text, j.operation, r.answer"
	" FROM sixtyfour.job j LEFT JOIN sixtyfour.result r ON r.id = j.result"
	" WHERE" PENDING " AND j.run_at <= clock_timestamp() AND j.id <> ALL ($3)"
	" ORDER BY j.owner::oid::bigint = ANY ($4), j.owner::oid::bigint <= $5, j.owner::oid,"
	" j.run_at, j.id LIMIT 1 FOR NO KEY UPDATE OF j SKIP LOCKED",
	5, {INT8OID, OIDOID, INT8ARRAYOID, INT8ARRAYOID, INT8OID}, NULL
};

static SqlStatement select_next_due = {
	"SELECT min(j.run_at) FROM sixtyfour.job j WHERE" PENDING " AND j.id <> ALL ($3)",
	3, {INT8OID, OIDOID, INT8ARRAYOID}, NULL
};

static SqlStatement select_lock = {
	"SELECT 1 FROM sixtyfour.job j WHERE" PENDING " AND j.id = $3"
	" FOR NO KEY UPDATE SKIP LOCKED",
	3, {INT8OID, OIDOID, INT8OID}, NULL
};

static SqlStatement set_applied = {
	"UPDATE sixtyfour.job SET delivery = 'applied', sqlstate = NULL, message = $2"
	" WHERE id = $1 AND delivery = 'pending'",
	2, {INT8OID, TEXTOID}, NULL
};

static SqlStatement set_unapplied = {
	"UPDATE sixtyfour.job SET delivery = 'unapplied', sqlstate = $2, message = $3"
	" WHERE id = $1 AND delivery = 'pending'",
	3, {INT8OID, TEXTOID, TEXTOID}, NULL
};

static SqlStatement set_postponed = {
	"UPDATE sixtyfour.job SET sqlstate = $2, message = $3, run_at = clock_timestamp() +"
	" least(" LONGEST_PAUSE ", greatest(make_interval(secs => $4),"
	"  (clock_timestamp() - coalesce(finished_at, clock_timestamp())) / 2))"
	" WHERE id = $1 AND delivery = 'pending'",
	4, {INT8OID, TEXTOID, TEXTOID, FLOAT8OID}, NULL
};

static SqlStatement set_pending = {
	"UPDATE sixtyfour.job SET delivery = 'pending', sqlstate = NULL, message = NULL,"
	" run_at = clock_timestamp()"
	" WHERE id = $1 AND enrichment IS NULL AND into_table IS NOT NULL"
	" AND (delivery = 'unapplied' OR delivery = 'pending' AND sqlstate IS NOT NULL)",
	1, {INT8OID}, NULL
};

static void
set_home(Datum *values)
{
	values[0] = Int64GetDatum(s64_home_system());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
}

static Oid
oid_value(int column)
{
	bool		isnull;

	return DatumGetObjectId(s64_sql_value(0, column, &isnull));
}

static void
fill(Arrival *arrival)
{
	bool		isnull;
	Datum		answer = s64_sql_value(0, 7, &isnull);

	arrival->job = s64_sql_int8(0, 1);
	arrival->owner = oid_value(2);
	arrival->table = oid_value(3);
	arrival->payer = oid_value(4);
	arrival->server = s64_sql_text(0, 5);
	arrival->operation = s64_sql_text(0, 6);
	arrival->answer = isnull ? NULL : (Jsonb *) PG_DETOAST_DATUM_COPY(answer);
}

Arrival *
s64_arrival_next(const ArrivalSet *under_way)
{
	static Oid	last_owner = InvalidOid;
	MemoryContext context = CurrentMemoryContext;
	Arrival    *arrival = NULL;
	Datum		values[5];

	set_home(values);
	values[2] = s64_sql_int8_array(under_way->jobs, under_way->n);
	values[3] = s64_sql_int8_array(under_way->owners, under_way->n);
	values[4] = Int64GetDatum((int64) last_owner);
	s64_sql_begin();
	if (s64_sql_run(&select_next, values, NULL) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		arrival = palloc0(sizeof(Arrival));
		fill(arrival);
		last_owner = arrival->owner;
		MemoryContextSwitchTo(old);
	}
	s64_sql_end();
	return arrival;
}

TimestampTz
s64_arrival_next_due(const ArrivalSet *under_way)
{
	Datum		values[3];
	TimestampTz next;
	bool		isnull;

	set_home(values);
	values[2] = s64_sql_int8_array(under_way->jobs, under_way->n);
	s64_sql_begin();
	s64_sql_run(&select_next_due, values, NULL);
	next = DatumGetTimestampTz(s64_sql_value(0, 1, &isnull));
	s64_sql_end();
	return isnull ? DT_NOEND : next;
}

bool
s64_arrival_lock(int64 job)
{
	Datum		values[3];

	set_home(values);
	values[2] = Int64GetDatum(job);
	return s64_sql_execute(&select_lock, values, NULL) > 0;
}

void
s64_arrival_applied(int64 job, const char *summary)
{
	Datum		values[2] = {Int64GetDatum(job), CStringGetTextDatum(summary)};

	/* it is locked, so this can only be a mistake of ours */
	if (s64_sql_execute(&set_applied, values, NULL) != 1)
		elog(ERROR, "a job left state pending while its rows were written");
}

void
s64_arrival_unapplied(int64 job, int sqlstate, const char *message)
{
	Datum		values[3] = {Int64GetDatum(job),
		CStringGetTextDatum(unpack_sql_state(sqlstate)),
	CStringGetTextDatum(message)};

	s64_sql_execute(&set_unapplied, values, NULL);
}

void
s64_arrival_postpone(int64 job, int64 pause, int sqlstate, const char *message)
{
	Datum		values[4] = {Int64GetDatum(job),
		CStringGetTextDatum(unpack_sql_state(sqlstate)),
		CStringGetTextDatum(message),
	Float8GetDatum(pause / 1e6)};

	s64_sql_execute(&set_postponed, values, NULL);
}

bool
s64_arrival_again(int64 job)
{
	Datum		values[1] = {Int64GetDatum(job)};

	return s64_sql_execute(&set_pending, values, NULL) > 0;
}
