/*-------------------------------------------------------------------------
 *
 * destination.c
 *		The table that rows of a file go to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonpath.h"
#include "utils/lsyscache.h"

#include "columns.h"
#include "compat.h"
#include "destination.h"
#include "output.h"
#include "values.h"

#define SHOWN_MAX 20			/* columns without a place that are named */

struct Destination
{
	OutputColumn *columns;		/* that have a place */
	int			ncolumns;
	char	  **homeless;		/* names of those that have none */
	int			nhomeless;
	int64		inserted;		/* rows */
	char	   *query;
};

pg_noreturn static void refuse(int sqlstate, const char *message);

static void
refuse(int sqlstate, const char *message)
{
	ereport(ERROR,
			(errcode(sqlstate), errmsg_internal("%s", message)));
}

void
s64_destination_check(Oid relid, Oid role)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	char	   *name;

	if (rel == NULL)
		refuse(ERRCODE_UNDEFINED_TABLE, psprintf("table with OID %u does not exist", relid));
	name = RelationGetRelationName(rel);
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		refuse(ERRCODE_WRONG_OBJECT_TYPE, psprintf("\"%s\" is not a table", name));
	if (IsCatalogRelation(rel) || rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse(ERRCODE_FEATURE_NOT_SUPPORTED,
			   psprintf("rows cannot go to table \"%s\": it is a system catalog or temporary", name));
	if (pg_class_aclcheck(relid, role, ACL_INSERT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, name);
	relation_close(rel, AccessShareLock);
}

/* ---- columns ---- */

/* The jsonpath $."name" */
static Datum
path_of(const char *name)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfoString(&path, "$.");
	escape_json(&path, name);
	return DirectFunctionCall1(jsonpath_in, CStringGetDatum(path.data));
}

static bool
is_assignable(Relation rel, const Column *column)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), column->attnum - 1);

	return att->attgenerated == '\0' && att->attidentity != ATTRIBUTE_IDENTITY_ALWAYS;
}

static char *
make_query(Relation rel, const Destination *d)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "INSERT INTO %s (",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												RelationGetRelationName(rel)));
	for (int i = 0; i < d->ncolumns; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(d->columns[i].column.actual));
	appendStringInfoString(&buf, ") SELECT ");
	for (int i = 0; i < d->ncolumns; i++)
	{
		appendStringInfoString(&buf, i > 0 ? ", " : "");
		s64_column_append(&buf, "v", &d->columns[i].column);
	}
	appendStringInfoString(&buf, " FROM unnest($1) WITH ORDINALITY AS u (vals, place)"
						   " CROSS JOIN LATERAL pg_catalog.jsonb_to_record(u.vals) AS v (");
	for (int i = 0; i < d->ncolumns; i++)
	{
		appendStringInfoString(&buf, i > 0 ? ", " : "");
		s64_column_append_definition(&buf, &d->columns[i].column);
	}
	appendStringInfoString(&buf, ") ORDER BY u.place");
	return buf.data;
}

Destination *
s64_destination_open(Relation rel, char **names, int n, char **problem)
{
	Destination *d = palloc0(sizeof(Destination));

	d->columns = palloc0((n + 1) * sizeof(OutputColumn));
	d->homeless = palloc((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		OutputColumn *column = &d->columns[d->ncolumns];

		if (strlen(names[i]) < NAMEDATALEN &&
			s64_column_find(rel, NULL, names[i], &column->column) &&
			is_assignable(rel, &column->column))
		{
			column->path = path_of(names[i]);
			d->ncolumns++;
		}
		else
			d->homeless[d->nhomeless++] = pstrdup(names[i]);
	}
	if (n > 0 && d->ncolumns == 0)
	{
		*problem = psprintf("no column of table \"%s\" has the name of one of the file: %s",
							RelationGetRelationName(rel), s64_destination_summary(d));
		return NULL;
	}
	d->query = make_query(rel, d);
	return d;
}

/* ---- rows ---- */

void
s64_destination_insert(Destination *d, Jsonb **rows, int n)
{
	Oid			type = JSONBARRAYOID;
	Datum	   *values = palloc(n * sizeof(Datum));
	Datum		array;
	int			rc;

	for (int i = 0; i < n; i++)
		values[i] = JsonbPGetDatum(s64_values_read(rows[i], d->columns, d->ncolumns));
	array = PointerGetDatum(construct_array(values, n, JSONBOID, -1, false, TYPALIGN_INT));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	/* deferred constraints would be checked as somebody else, too late */
	SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
	rc = SPI_execute_with_args(d->query, 1, &type, &array, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(rc));
	d->inserted += SPI_processed;
	SPI_finish();
}

char *
s64_destination_summary(const Destination *d)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, INT64_FORMAT "%s inserted", d->inserted,
					 d->inserted == 1 ? " row was" : " rows were");
	for (int i = 0; i < d->nhomeless && i < SHOWN_MAX; i++)
		appendStringInfo(&buf, "%s\"%s\"", i == 0 ? "; the table has no column " : ", ",
						 d->homeless[i]);
	if (d->nhomeless > SHOWN_MAX)
		appendStringInfo(&buf, " and %d more", d->nhomeless - SHOWN_MAX);
	return buf.data;
}
