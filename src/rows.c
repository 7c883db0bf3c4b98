/*-------------------------------------------------------------------------
 *
 * rows.c
 *		The rows that an enrichment would ask about.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "columns.h"
#include "expression.h"
#include "rows.h"

/* ---- the query ---- */

static char *
missing(const char *name)
{
	return psprintf("column \"%s\" does not exist", name);
}

/*
 * The columns of the input and their facts, as arguments of
 * jsonb_build_object.  NULL if all are there, else the problem.
 */
static char *
read_input(const Enrichment *e, Relation target, Column *columns, int *n,
		   StringInfo facts)
{
	JsonbIterator *it = JsonbIteratorInit(&e->input->root);
	JsonbValue	v;
	JsonbIteratorToken token;

	*n = 0;
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			appendStringInfo(facts, "%s%s, ", *n > 0 ? ", " : "",
							 quote_literal_cstr(pnstrdup(v.val.string.val, v.val.string.len)));
		if (token == WJB_VALUE)
		{
			char	   *name = pnstrdup(v.val.string.val, v.val.string.len);

			if (!s64_column_find(target, e->input_numbers, name, &columns[*n]))
				return missing(name);
			s64_column_append_fact(facts, S64_ROWS_ALIAS, &columns[(*n)++]);
		}
	}
	return NULL;
}

/* Append an expression that is true where no output column is NULL. */
static char *
append_filled(StringInfo buf, const Enrichment *e, Relation target)
{
	JsonbIterator *it = JsonbIteratorInit(&e->output->root);
	JsonbValue	v;
	JsonbIteratorToken token;
	char	   *name = NULL;
	int			n = 0;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		Column		column;

		if (token == WJB_KEY)
			name = pnstrdup(v.val.string.val, v.val.string.len);
		if (token != WJB_VALUE || v.type != jbvString)
			continue;
		if (!s64_column_find(target, e->output_numbers, name, &column))
			return missing(name);
		appendStringInfoString(buf, n++ > 0 ? " AND " : "(");
		s64_column_append(buf, S64_ROWS_ALIAS, &column);
		appendStringInfoString(buf, " IS NOT NULL");
	}
	appendStringInfoString(buf, n > 0 ? ")" : "false");
	return NULL;
}

/*
 * Append the condition.  It was written with the columns' declared names, so it
 * is asked of a row that has those.
 */
static void
append_condition(StringInfo buf, const Enrichment *e, Relation target)
{
	const char *separator = "";

	appendStringInfo(buf, " AND (SELECT %s FROM (SELECT ", e->condition);
	for (int i = 1; i <= RelationGetNumberOfAttributes(target); i++)
	{
		Column		column;

		if (TupleDescAttr(RelationGetDescr(target), i - 1)->attisdropped)
			continue;
		s64_column_from_number(target, e->input_numbers, i, &column);
		appendStringInfoString(buf, separator);
		s64_column_append(buf, S64_ROWS_ALIAS, &column);
		appendStringInfo(buf, " AS %s", quote_identifier(column.name));
		separator = ", ";
	}
	appendStringInfoString(buf, ") AS c)");
}

static void
append_source(StringInfo buf, Relation target, RowSource source,
			  const char *new_table, const char *old_table,
			  const Column *key, int nkey)
{
	if (source == ROWS_OF_TABLE)
		appendStringInfo(buf, " FROM %s%s " S64_ROWS_ALIAS,
						 target->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
													RelationGetRelationName(target)));
	else
		appendStringInfo(buf, " FROM %s " S64_ROWS_ALIAS, quote_identifier(new_table));
	if (source != ROWS_UPDATED)
		return;
	appendStringInfo(buf, " JOIN %s o ON ", quote_identifier(old_table));
	for (int i = 0; i < nkey; i++)
	{
		if (i > 0)
			appendStringInfoString(buf, " AND ");
		s64_column_append_equal(buf, &key[i], "o", S64_ROWS_ALIAS, false);
	}
}

/* Append that one of the columns is not what it was. */
static void
append_changed(StringInfo buf, const Column *columns, int n)
{
	appendStringInfoString(buf, " AND NOT (");
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoString(buf, " AND ");
		s64_column_append_same(buf, &columns[i], "o", S64_ROWS_ALIAS, false);
	}
	appendStringInfoChar(buf, ')');
}

/* Append the part of the body that comes from the row. */
static void
append_subject(StringInfo buf, const Enrichment *e)
{
	const Field *subject = &e->endpoint->fields[0];

	if (subject->type == FIELD_PROFILE)
		appendStringInfoString(buf, "s.subject");	/* it is all there is in the input */
	else
		appendStringInfo(buf, "pg_catalog.jsonb_build_object(%s, s.subject)",
						 quote_literal_cstr(subject->name));
}

/* Append that the row has what the service cannot do without. */
static void
append_needed(StringInfo buf, const Enrichment *e)
{
	const Field *subject = &e->endpoint->fields[0];

	if (subject->type == FIELD_FACTS && subject->choices != NULL)
		appendStringInfo(buf, " AND pg_catalog.jsonb_exists(s.subject, %s)",
						 quote_literal_cstr(subject->choices));
}

char *
s64_rows_query(const Enrichment *e, Relation target, RowSource source,
			   const char *new_table, const char *old_table,
			   const char *filter, char **problem)
{
	StringInfoData buf;
	StringInfoData facts;
	StringInfoData filled;
	Column	   *input = palloc((JsonContainerSize(&e->input->root) + 1) * sizeof(Column));
	int			ninput;
	int			nkey;
	Column	   *key = s64_columns_of_key(target, e->input_numbers, &nkey);

	initStringInfo(&buf);
	initStringInfo(&facts);
	initStringInfo(&filled);
	*problem = key == NULL ? pstrdup("the table has no primary key") : NULL;
	if (*problem == NULL)
		*problem = read_input(e, target, input, &ninput, &facts);
	if (*problem == NULL)
		*problem = append_filled(&filled, e, target);
	if (*problem != NULL)
		return NULL;

	appendStringInfoString(&buf, "SELECT ");
	append_subject(&buf, e);
	appendStringInfoString(&buf, " || $1, ");
	s64_columns_append_json(&buf, S64_ROWS_ALIAS, key, nkey);
	appendStringInfoString(&buf, ", ");
	s64_columns_append_json(&buf, S64_ROWS_ALIAS, input, ninput);
	appendStringInfo(&buf, ", %s", source == ROWS_UPDATED ? "false" : filled.data);
	append_source(&buf, target, source, new_table, old_table, key, nkey);
	/* OFFSET 0: it is computed once, though used twice */
	appendStringInfo(&buf, " CROSS JOIN LATERAL (SELECT pg_catalog.jsonb_strip_nulls("
					 "pg_catalog.jsonb_build_object(%s)) AS subject OFFSET 0) s"
					 " WHERE s.subject <> '{}'", facts.data);
	append_needed(&buf, e);
	if (source == ROWS_UPDATED)
		append_changed(&buf, input, ninput);
	else if (!e->refreshes)
		appendStringInfo(&buf, " AND NOT %s", filled.data);
	if (e->condition)
		append_condition(&buf, e, target);
	if (filter)
		appendStringInfo(&buf, " AND (%s)", filter);
	return buf.data;
}

/* ---- running it ---- */

void
s64_rows_begin(TriggerData *trigger)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (trigger != NULL && SPI_register_trigger_data(trigger) < 0)
		elog(ERROR, "SPI_register_trigger_data failed");
}

void
s64_rows_end(void)
{
	SPI_finish();
}

/*
 * Names in the query are qualified where they can be; operators cannot, nor
 * those of the condition.  A plan is made again whenever the search_path
 * is not the one it was made with, so it is pinned for both.
 */
static int
pin_search_path(void)
{
	int			nestlevel = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return nestlevel;
}

RowPlan
s64_rows_prepare(const char *query, bool keep)
{
	Oid			types[1] = {JSONBOID};
	int			nestlevel = pin_search_path();
	SPIPlanPtr	plan = SPI_prepare_cursor(query, 1, types, CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	if (keep)
		SPI_keepplan(plan);
	AtEOXact_GUC(true, nestlevel);
	return plan;
}

RowPlan
s64_rows_prepare_table(const Enrichment *e, const char *filter)
{
	Relation	target = try_relation_open(e->target, AccessShareLock);
	char	   *query;
	char	   *problem;

	if (target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of enrichment \"%s\" does not exist any more", e->name)));
	if (filter != NULL)
		filter = s64_expression_read(target, S64_ROWS_ALIAS, filter, "filter", NULL);
	query = s64_rows_query(e, target, ROWS_OF_TABLE, NULL, NULL, filter, &problem);
	relation_close(target, NoLock);
	if (query == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot run enrichment \"%s\": %s", e->name, problem)));
	return s64_rows_prepare(query, false);
}

void
s64_rows_discard(RowPlan plan)
{
	if (plan != NULL)
		SPI_freeplan(plan);
}

bool
s64_rows_is_current(RowPlan plan)
{
	return SPI_plan_is_valid(plan);
}

void
s64_rows_open(RowScan *scan, RowPlan plan, Jsonb *rest)
{
	Datum		values[1] = {JsonbPGetDatum(rest)};
	int			nestlevel = pin_search_path();

	scan->portal = SPI_cursor_open(NULL, plan, values, NULL, false);
	scan->fetched = NULL;
	AtEOXact_GUC(true, nestlevel);
}

int
s64_rows_fetch(RowScan *scan, Row *rows, int max)
{
	int			n;

	if (scan->fetched != NULL)
		SPI_freetuptable(scan->fetched);
	SPI_cursor_fetch(scan->portal, true, max);
	scan->fetched = SPI_tuptable;
	n = (int) SPI_processed;
	for (int i = 0; i < n; i++)
	{
		HeapTuple	tuple = scan->fetched->vals[i];
		TupleDesc	desc = scan->fetched->tupdesc;
		bool		isnull;

		rows[i].body = DatumGetJsonbP(SPI_getbinval(tuple, desc, 1, &isnull));
		rows[i].key = DatumGetJsonbP(SPI_getbinval(tuple, desc, 2, &isnull));
		rows[i].input = DatumGetJsonbP(SPI_getbinval(tuple, desc, 3, &isnull));
		rows[i].filled = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull));
	}
	return n;
}
