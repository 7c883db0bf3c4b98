/*-------------------------------------------------------------------------
 *
 * update.c
 *		The statements that write answers into a table.
 *
 * Rows are given as arrays of JSON, and turned into columns of the table's
 * own types by jsonb_to_record().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

#include "columns.h"
#include "output.h"
#include "update.h"
#include "values.h"

/* One call of s64_update_rows() */
typedef struct Update
{
	const Enrichment *e;
	Relation	target;
	const Delivery *deliveries;
	int			n;
	UpdateFate *fates;
	Column	   *keys;
	int			nkeys;
	Output	   *output;
} Update;

/* ---- pieces of statements ---- */

static const char *
table_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/* The target, without the tables that inherit from it, as t */
static char *
target_as_t(const Update *u)
{
	return psprintf("%s%s t",
					u->target->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					table_name(u->target));
}

/* Append CROSS JOIN LATERAL jsonb_to_record(source) AS alias (columns). */
static void
append_record(StringInfo buf, const char *source, const char *alias,
			  const Column *columns, size_t size, int n)
{
	appendStringInfo(buf, " CROSS JOIN LATERAL pg_catalog.jsonb_to_record(%s) AS %s (",
					 source, alias);
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoString(buf, ", ");
		s64_column_append_definition(buf, (const Column *) ((const char *) columns + i * size));
	}
	appendStringInfoChar(buf, ')');
}

/* Append t's key = k's key. */
static void
append_match(StringInfo buf, const Update *u)
{
	for (int i = 0; i < u->nkeys; i++)
	{
		if (i > 0)
			appendStringInfoString(buf, " AND ");
		s64_column_append_equal(buf, &u->keys[i], "t", "k", true);
	}
}

/* Append the given arrays as rows u, and their keys as k. */
static void
append_given(StringInfo buf, const Update *u, const char *arrays, const char *names)
{
	appendStringInfo(buf, "unnest(%s) WITH ORDINALITY AS u (%s, place)",
					 arrays, names);
	append_record(buf, "u.key", "k", u->keys, sizeof(Column), u->nkeys);
}

/* ---- running them ---- */

typedef Jsonb *(*Getter) (const Update *u, const Delivery *d);

static Jsonb *
get_key(const Update *u, const Delivery *d)
{
	return d->key;
}

static Jsonb *
get_input(const Update *u, const Delivery *d)
{
	return d->input;
}

static Jsonb *
get_values(const Update *u, const Delivery *d)
{
	return s64_values_read(d->answer, u->output->columns, u->output->ncolumns);
}

static Jsonb *
get_people(const Update *u, const Delivery *d)
{
	return s64_values_read_leads(d->answer, u->output->leads->columns,
								 u->output->leads->ncolumns);
}

/* An array of what get() says about each delivery with that fate */
static Datum
array_of(const Update *u, UpdateFate fate, Getter get)
{
	Datum	   *values = palloc(u->n * sizeof(Datum));
	bool	   *nulls = palloc(u->n * sizeof(bool));
	int			lower = 1;
	int			n = 0;

	for (int i = 0; i < u->n; i++)
	{
		Jsonb	   *json;

		if (u->fates[i] != fate)
			continue;
		json = get(u, &u->deliveries[i]);
		nulls[n] = json == NULL;
		values[n++] = JsonbPGetDatum(json);
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower, JSONBOID,
											  -1, false, TYPALIGN_INT));
}

/* Run a statement on the deliveries with that fate. */
static void
run(const Update *u, const char *query, UpdateFate fate, Getter get)
{
	Oid			types[2] = {JSONBARRAYOID, JSONBARRAYOID};
	Datum		values[2] = {array_of(u, fate, get_key), 0};
	int			nargs = 1;
	int			rc;

	if (get != NULL)
		values[nargs++] = array_of(u, fate, get);
	rc = SPI_execute_with_args(query, nargs, types, values, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(rc));
}

/* The columns of the input, as many as there are now; NULL if one is missing */
static Column *
input_columns(const Update *u, int *n)
{
	JsonbIterator *it = JsonbIteratorInit(&u->e->input->root);
	JsonbValue	v;
	JsonbIteratorToken token;
	Column	   *columns = palloc(JB_ROOT_COUNT(u->e->input) * sizeof(Column));

	*n = 0;
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *name;
		bool		seen = false;

		if (token != WJB_VALUE)
			continue;
		name = pnstrdup(v.val.string.val, v.val.string.len);
		for (int i = 0; i < *n; i++)
			seen |= strcmp(columns[i].name, name) == 0;
		if (seen)
			continue;
		if (!s64_column_find(u->target, u->e->input_numbers, name, &columns[(*n)++]))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of table \"%s\" does not exist", name,
							RelationGetRelationName(u->target))));
	}
	return columns;
}

/* ---- the statements ---- */

/*
 * Lock the rows that can be had, and see whether their input is still the
 * same.  Those that are not found become UPDATE_GONE for now.
 */
static void
lock_rows(Update *u)
{
	StringInfoData buf;
	int			ninput = 0;
	Column	   *input = u->e->if_unchanged ? input_columns(u, &ninput) : NULL;
	int		   *places = palloc(u->n * sizeof(int));
	int			n = 0;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "SELECT u.place::int4, true");
	for (int i = 0; i < ninput; i++)
	{
		appendStringInfoString(&buf, " AND ");
		s64_column_append_same(&buf, &input[i], "t", "i", true);
	}
	appendStringInfoString(&buf, " FROM ");
	append_given(&buf, u, "$1, $2", "key, input");
	if (ninput > 0)
		append_record(&buf, "u.input", "i", input, sizeof(Column), ninput);
	appendStringInfo(&buf, " JOIN %s ON ", target_as_t(u));
	append_match(&buf, u);
	appendStringInfoString(&buf, " FOR NO KEY UPDATE OF t SKIP LOCKED");
	run(u, buf.data, UPDATE_DONE, get_input);

	for (int i = 0; i < u->n; i++)
	{
		if (u->fates[i] != UPDATE_DONE)
			continue;
		places[n++] = i;
		u->fates[i] = UPDATE_GONE;
	}
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		isnull;
		int			place = DatumGetInt32(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
		bool		same = DatumGetBool(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull));

		u->fates[places[place - 1]] = same ? UPDATE_DONE : UPDATE_CHANGED;
	}
}

static bool
has_fate(const Update *u, UpdateFate fate)
{
	for (int i = 0; i < u->n; i++)
	{
		if (u->fates[i] == fate)
			return true;
	}
	return false;
}

/*
 * Read the rows with fate "from", with that locking clause; those that are found
 * become "found", the others "missed".
 */
static void
look_for(Update *u, UpdateFate from, const char *locking, UpdateFate found,
		 UpdateFate missed)
{
	StringInfoData buf;
	int		   *places = palloc(u->n * sizeof(int));
	int			n = 0;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "SELECT u.place::int4 FROM ");
	append_given(&buf, u, "$1", "key");
	appendStringInfo(&buf, " JOIN %s ON ", target_as_t(u));
	append_match(&buf, u);
	appendStringInfoString(&buf, locking);
	run(u, buf.data, from, NULL);

	for (int i = 0; i < u->n; i++)
	{
		if (u->fates[i] != from)
			continue;
		places[n++] = i;
		u->fates[i] = missed;
	}
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		int			place = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i],
														SPI_tuptable->tupdesc, 1, &isnull));

		u->fates[places[place - 1]] = found;
	}
}

/*
 * Rows that could not be locked and are there nevertheless are locked by others;
 * or, under row-level security, they may be read but not updated, which looks the
 * same as long as locked rows are skipped.  With NOWAIT a locked one is an
 * error, after which the caller tries each row alone.
 */
static void
tell_why_not_locked(Update *u)
{
	bool		policies = check_enable_rls(RelationGetRelid(u->target), InvalidOid,
											true) == RLS_ENABLED;

	look_for(u, UPDATE_GONE, "", UPDATE_LOCKED, policies ? UPDATE_HIDDEN : UPDATE_GONE);
	if (policies && has_fate(u, UPDATE_LOCKED))
		look_for(u, UPDATE_LOCKED, " FOR NO KEY UPDATE OF t NOWAIT", UPDATE_LOCKED,
				 UPDATE_REFUSED);
}

/* Set the columns that the answers say something about. */
static void
update_target(const Update *u)
{
	const Output *output = u->output;
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "UPDATE %s SET ", target_as_t(u));
	for (int i = 0; i < output->ncolumns; i++)
	{
		const Column *column = &output->columns[i].column;
		const char *actual = quote_identifier(column->actual);

		appendStringInfo(&buf, "%s%s = CASE WHEN u.vals ? %s THEN v.%s ELSE t.%s END",
						 i > 0 ? ", " : "", actual, quote_literal_cstr(column->name),
						 quote_identifier(column->name), actual);
	}
	appendStringInfoString(&buf, " FROM ");
	append_given(&buf, u, "$1, $2", "key, vals");
	append_record(&buf, "u.vals", "v", &output->columns[0].column, sizeof(OutputColumn),
				  output->ncolumns);
	appendStringInfoString(&buf, " WHERE u.vals <> '{}' AND ");
	append_match(&buf, u);
	run(u, buf.data, UPDATE_DONE, get_values);
}

/* Append the names of the child table's columns that are written, each after a prefix. */
static void
append_leads_columns(StringInfo buf, const OutputLeads *leads, const char *prefix)
{
	for (int i = 0; i < leads->nkeys; i++)
		appendStringInfo(buf, "%s%s%s", i > 0 ? ", " : "", prefix,
						 quote_identifier(leads->keys[i].actual));
	for (int i = 0; i < leads->ncolumns; i++)
		appendStringInfo(buf, ", %s%s", prefix,
						 quote_identifier(leads->columns[i].column.actual));
}

/* Append a row of the child table, from t and v, as s. */
static void
append_lead(StringInfo buf, const OutputLeads *leads)
{
	appendStringInfoString(buf, " CROSS JOIN LATERAL (SELECT ");
	for (int i = 0; i < leads->nkeys; i++)
		appendStringInfo(buf, "%st.%s::%s AS %s", i > 0 ? ", " : "",
						 quote_identifier(leads->from[i].actual),
						 format_type_extended(leads->keys[i].type, -1, FORMAT_TYPE_FORCE_QUALIFY),
						 quote_identifier(leads->keys[i].actual));
	for (int i = 0; i < leads->ncolumns; i++)
		appendStringInfo(buf, ", v.%s AS %s", quote_identifier(leads->columns[i].column.name),
						 quote_identifier(leads->columns[i].column.actual));
	appendStringInfoString(buf, ") AS s");
}

/*
 * Add the people who are not in the child table yet: nobody there has the same
 * key and the same columns, nor does a unique constraint object.
 */
static void
insert_leads(const Update *u)
{
	const OutputLeads *leads = u->output->leads;
	const char *table = table_name(leads->rel);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "INSERT INTO %s (", table);
	append_leads_columns(&buf, leads, "");
	appendStringInfoString(&buf, ") SELECT ");
	append_leads_columns(&buf, leads, "s.");
	appendStringInfoString(&buf, " FROM ");
	append_given(&buf, u, "$1, $2", "key, people");
	appendStringInfo(&buf, " JOIN %s ON ", target_as_t(u));
	append_match(&buf, u);
	appendStringInfoString(&buf, " CROSS JOIN LATERAL pg_catalog.jsonb_array_elements(u.people)"
						   " WITH ORDINALITY AS p (person, nr)");
	append_record(&buf, "p.person", "v", &leads->columns[0].column, sizeof(OutputColumn),
				  leads->ncolumns);
	append_lead(&buf, leads);
	appendStringInfo(&buf, " WHERE p.person <> '{}' AND NOT EXISTS (SELECT FROM %s x WHERE ",
					 table);
	for (int i = 0; i < leads->nkeys + leads->ncolumns; i++)
	{
		if (i > 0)
			appendStringInfoString(&buf, " AND ");
		s64_column_append_same(&buf, i < leads->nkeys ? &leads->keys[i]
							   : &leads->columns[i - leads->nkeys].column, "x", "s", false);
	}
	appendStringInfoString(&buf, ") ORDER BY u.place, p.nr ON CONFLICT DO NOTHING");
	run(u, buf.data, UPDATE_DONE, get_people);
}

/* Deliveries that nothing needs to be written for */
static void
sort_out(Update *u)
{
	for (int i = 0; i < u->n; i++)
	{
		const Delivery *d = &u->deliveries[i];

		u->fates[i] = d->key == NULL ? UPDATE_GONE :
			d->answer == NULL ? UPDATE_NO_ANSWER :
			d->superseded ? UPDATE_SUPERSEDED : UPDATE_DONE;
	}
}

static void
read_columns(Update *u)
{
	char	   *problem;

	u->keys = s64_columns_of_key(u->target, u->e->input_numbers, &u->nkeys);
	if (u->keys == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key any more",
						RelationGetRelationName(u->target))));
	u->output = s64_output_read(u->e->output, u->e->output_numbers, u->target, &problem);
	if (u->output == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg_internal("%s", problem)));
}

void
s64_update_rows(const Enrichment *e, Relation target,
				const Delivery *deliveries, int n, UpdateFate *fates)
{
	Update		u = {e, target, deliveries, n, fates, NULL, 0, NULL};

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	/* deferred constraints would be checked as somebody else, too late */
	SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
	read_columns(&u);
	sort_out(&u);
	if (has_fate(&u, UPDATE_DONE))
		lock_rows(&u);
	if (has_fate(&u, UPDATE_GONE))
		tell_why_not_locked(&u);
	if (has_fate(&u, UPDATE_DONE) && u.output->ncolumns > 0)
		update_target(&u);
	if (has_fate(&u, UPDATE_DONE) && u.output->leads != NULL)
		insert_leads(&u);
	s64_output_close(u.output);
	SPI_finish();
}
