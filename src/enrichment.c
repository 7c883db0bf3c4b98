/*-------------------------------------------------------------------------
 *
 * enrichment.c
 *		Enrichments as they were declared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "enrichment.h"
#include "sql.h"

#define SELECT_ENRICHMENT \
	"SELECT id, name, target, sixtyfour.enrichment_owner(owner, target), server::text," \
	" operation, input, output," \
	" input_attnums, output_attnums," \
	" coalesce(options, '{}') || CASE WHEN struct IS NULL THEN '{}'" \
	"  ELSE jsonb_build_object('struct', struct) END," \
	" condition, if_unchanged, refresh_after IS NOT NULL," \
	" CASE payer WHEN 'owner' THEN owner END" \
	" FROM sixtyfour.enrichment WHERE "

static SqlStatement select_by_name = {
	SELECT_ENRICHMENT "name = $1", 1, {TEXTOID}, NULL
};

static SqlStatement select_by_id = {
	SELECT_ENRICHMENT "id = $1", 1, {INT4OID}, NULL
};

static SqlStatement insert_enrichment = {
	"INSERT INTO sixtyfour.enrichment (name, target, owner, server, operation,"
	" input, output, input_attnums, output_attnums, struct, options, condition,"
	" on_insert, on_update, if_unchanged, refresh_after, payer)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, jsonb_strip_nulls($11),"
	" $12, $13, $14, $15, $16, $17)"
	" ON CONFLICT (name) DO NOTHING RETURNING id",
	17, {TEXTOID, REGCLASSOID, REGROLEOID, NAMEOID, TEXTOID, JSONBOID, JSONBOID,
		JSONBOID, JSONBOID, JSONBOID, JSONBOID, TEXTOID, BOOLOID, BOOLOID,
	BOOLOID, INTERVALOID, TEXTOID}, NULL
};

static SqlStatement lock_enrichment = {
	"SELECT 1 FROM sixtyfour.enrichment WHERE id = $1 FOR NO KEY UPDATE",
	1, {INT4OID}, NULL
};

static SqlStatement delete_enrichment = {
	"DELETE FROM sixtyfour.enrichment WHERE id = $1", 1, {INT4OID}, NULL
};

static SqlStatement cancel_jobs = {
	"UPDATE sixtyfour.job SET state = 'cancelled', finished_at = clock_timestamp(),"
	" message = 'the enrichment was dropped'"
	" WHERE enrichment = $1 AND state = 'queued'",
	1, {INT4OID}, NULL
};

/*
 * An answer to e changes the columns of its output; f is asked again when
 * columns of its input change.  A way from an enrichment back to itself would
 * ask, and pay, for ever.
 */
static SqlStatement select_circle = {
	"WITH RECURSIVE feeds AS ("
	" SELECT e.id AS source, f.id AS sink FROM sixtyfour.enrichment e"
	" JOIN sixtyfour.enrichment f ON f.target = e.target AND f.id <> e.id"
	" WHERE f.on_update AND EXISTS (SELECT FROM jsonb_each_text(f.input) i"
	"  WHERE e.output ? i.value)),"
	" way AS (SELECT sink FROM feeds WHERE source = $1"
	" UNION SELECT feeds.sink FROM feeds JOIN way ON feeds.source = way.sink)"
	" SELECT e.name FROM feeds JOIN sixtyfour.enrichment e ON e.id = feeds.source"
	" WHERE feeds.sink = $1 AND EXISTS (SELECT FROM way WHERE way.sink = $1)"
	" AND feeds.source IN (SELECT sink FROM way) LIMIT 1",
	1, {INT4OID}, NULL
};

static int	writing = 0;

void
s64_enrichment_set_writing(int id)
{
	writing = id;
}

int
s64_enrichment_writing(void)
{
	return writing;
}

static Jsonb *
read_jsonb(int column)
{
	bool		isnull;

	return (Jsonb *) PG_DETOAST_DATUM_COPY(s64_sql_value(0, column, &isnull));
}

/* The row of a SELECT_ENRICHMENT, copied to the current context */
static Enrichment *
read_enrichment(void)
{
	Enrichment *e = palloc0(sizeof(Enrichment));
	bool		isnull;

	e->id = DatumGetInt32(s64_sql_value(0, 1, &isnull));
	e->name = s64_sql_text(0, 2);
	e->target = DatumGetObjectId(s64_sql_value(0, 3, &isnull));
	e->owner = DatumGetObjectId(s64_sql_value(0, 4, &isnull));
	e->server = s64_sql_text(0, 5);
	e->endpoint = s64_endpoint_find(s64_sql_text(0, 6));
	e->input = read_jsonb(7);
	e->output = read_jsonb(8);
	e->input_numbers = read_jsonb(9);
	e->output_numbers = read_jsonb(10);
	e->rest = read_jsonb(11);
	e->condition = s64_sql_text(0, 12);
	e->if_unchanged = DatumGetBool(s64_sql_value(0, 13, &isnull));
	e->refreshes = DatumGetBool(s64_sql_value(0, 14, &isnull));
	e->payer = DatumGetObjectId(s64_sql_value(0, 15, &isnull));
	if (isnull)
		e->payer = InvalidOid;
	if (e->endpoint == NULL)
		elog(ERROR, "enrichment \"%s\" has an unknown operation", e->name);
	return e;
}

static Enrichment *
find(SqlStatement *statement, Datum value)
{
	MemoryContext context = CurrentMemoryContext;
	Enrichment *e = NULL;

	s64_sql_begin();
	if (s64_sql_run(statement, &value, NULL) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		e = read_enrichment();
		MemoryContextSwitchTo(old);
	}
	s64_sql_end();
	return e;
}

Enrichment *
s64_enrichment_find(const char *name)
{
	return find(&select_by_name, CStringGetTextDatum(name));
}

Enrichment *
s64_enrichment_find_id(int id)
{
	return find(&select_by_id, Int32GetDatum(id));
}

Enrichment *
s64_enrichment_command(const char *name)
{
	Enrichment *e = s64_enrichment_find(name);

	if (e == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("enrichment \"%s\" does not exist", name)));
	if (!has_privs_of_role(GetUserId(), e->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of enrichment \"%s\"", name)));
	return e;
}

int
s64_enrichment_add(Datum *values, const char *nulls)
{
	int			id = 0;
	bool		isnull;

	s64_sql_begin();
	if (s64_sql_run(&insert_enrichment, values, nulls) > 0)
		id = DatumGetInt32(s64_sql_value(0, 1, &isnull));
	s64_sql_end();
	return id;
}

void
s64_enrichment_lock(int id)
{
	Datum		value = Int32GetDatum(id);

	s64_sql_execute(&lock_enrichment, &value, NULL);
}

int64
s64_enrichment_remove(int id)
{
	Datum		value = Int32GetDatum(id);
	int64		cancelled;

	s64_sql_begin();
	s64_sql_run(&delete_enrichment, &value, NULL);
	cancelled = s64_sql_run(&cancel_jobs, &value, NULL);
	s64_sql_end();
	return cancelled;
}

char *
s64_enrichment_circle(int id)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		value = Int32GetDatum(id);
	char	   *name = NULL;

	s64_sql_begin();
	if (s64_sql_run(&select_circle, &value, NULL) > 0)
		name = MemoryContextStrdup(context, s64_sql_text(0, 1));
	s64_sql_end();
	return name;
}
