/*-------------------------------------------------------------------------
 *
 * output.c
 *		Where the parts of an answer go: the output of an enrichment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonpath.h"
#include "utils/numeric.h"
#include "utils/regproc.h"
#include "utils/varlena.h"

#include "compat.h"
#include "output.h"

/* What each member of an object is handed to */
typedef struct Reader
{
	Relation	rel;
	Jsonb	   *numbers;
	OutputColumn *columns;
	int			ncolumns;
	char	   *problem;
} Reader;

pg_noreturn static void malformed(const char *what);

static void
malformed(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", what),
			 errhint("An output is {\"column\": \"$.jsonpath\", ...}, and may have \"leads\": {\"table\": \"...\", \"key\": {\"column there\": \"column here\"}, \"columns\": {\"column\": \"$.jsonpath\"}}.")));
}

/* A member of an object as an object; NULL if there is none */
static Jsonb *
member_object(Jsonb *object, const char *name)
{
	JsonbValue	v;

	if (object == NULL ||
		getKeyJsonValueFromContainer(&object->root, name, strlen(name), &v) == NULL ||
		v.type != jbvBinary || !JsonContainerIsObject(v.val.binary.data))
		return NULL;
	return JsonbValueToJsonb(&v);
}

static char *
member_text(Jsonb *object, const char *name)
{
	JsonbValue	v;

	if (getKeyJsonValueFromContainer(&object->root, name, strlen(name), &v) == NULL ||
		v.type != jbvString)
		return NULL;
	return pnstrdup(v.val.string.val, v.val.string.len);
}

/* Find a column; else leave the problem and return false. */
static bool
find_column(Relation rel, Jsonb *numbers, const char *name, Column *column,
			char **problem)
{
	if (s64_column_find(rel, numbers, name, column))
		return true;
	*problem = psprintf("column \"%s\" of table \"%s\" does not exist", name,
						RelationGetRelationName(rel));
	return false;
}

/* Read "column": "jsonpath" for all members but S64_LEADS objects. */
static bool
read_paths(Jsonb *object, Reader *reader)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbValue	v;
	JsonbIteratorToken token;
	char	   *name = NULL;

	reader->columns = palloc((JB_ROOT_COUNT(object) + 1) * sizeof(OutputColumn));
	reader->ncolumns = 0;
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		OutputColumn *column = &reader->columns[reader->ncolumns];

		if (token == WJB_KEY)
			name = pnstrdup(v.val.string.val, v.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (v.type == jbvBinary && strcmp(name, S64_LEADS) == 0)
			continue;
		if (v.type != jbvString)
			malformed(psprintf("the path for output column \"%s\" must be a text", name));
		if (!find_column(reader->rel, reader->numbers, name, &column->column, &reader->problem))
			return false;
		column->path = DirectFunctionCall1(jsonpath_in,
										   CStringGetDatum(pnstrdup(v.val.string.val,
																	v.val.string.len)));
		reader->ncolumns++;
	}
	return true;
}

/* Open the child table, by OID at home, else by name. */
static Relation
open_leads(Jsonb *leads, Jsonb *numbers, char **problem)
{
	char	   *name = member_text(leads, "table");
	JsonbValue	v;
	Oid			relid;
	Relation	rel = NULL;

	if (name == NULL)
		malformed("\"" S64_LEADS "\" names no table");
	if (numbers != NULL &&
		getKeyJsonValueFromContainer(&numbers->root, "", 0, &v) != NULL)
		relid = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(v.val.numeric)));
	else
		relid = RangeVarGetRelid(makeRangeVarFromNameList(stringToQualifiedNameList(name, NULL)),
								 NoLock, true);
	if (OidIsValid(relid))
		rel = try_relation_open(relid, RowExclusiveLock);
	if (rel == NULL)
		*problem = psprintf("table \"%s\" does not exist", name);
	return rel;
}

/* Read "column there": "column here". */
static bool
read_keys(Jsonb *object, OutputLeads *leads, Jsonb *numbers, Relation target,
		  Jsonb *target_numbers, char **problem)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbValue	v;
	JsonbIteratorToken token;
	char	   *name = NULL;

	leads->keys = palloc((JB_ROOT_COUNT(object) + 1) * sizeof(Column));
	leads->from = palloc((JB_ROOT_COUNT(object) + 1) * sizeof(Column));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(v.val.string.val, v.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (v.type != jbvString)
			malformed("\"key\" of \"" S64_LEADS "\" must map columns to columns");
		if (!find_column(leads->rel, numbers, name, &leads->keys[leads->nkeys], problem) ||
			!find_column(target, target_numbers,
						 pnstrdup(v.val.string.val, v.val.string.len),
						 &leads->from[leads->nkeys], problem))
			return false;
		leads->nkeys++;
	}
	return true;
}

static OutputLeads *
read_leads(Jsonb *object, Jsonb *target_numbers, Relation target, char **problem)
{
	OutputLeads *leads = palloc0(sizeof(OutputLeads));
	Jsonb	   *key = member_object(object, "key");
	Jsonb	   *columns = member_object(object, "columns");
	Reader		reader = {0};

	if (key == NULL || columns == NULL || JB_ROOT_COUNT(key) == 0 || JB_ROOT_COUNT(columns) == 0)
		malformed("\"" S64_LEADS "\" needs \"table\", \"key\" and \"columns\"");
	if (target_numbers != NULL && s64_columns_at_home(target, target_numbers))
		reader.numbers = member_object(target_numbers, S64_LEADS);
	leads->rel = reader.rel = open_leads(object, reader.numbers, problem);
	if (leads->rel == NULL)
		return NULL;
	if (read_keys(key, leads, reader.numbers, target, target_numbers, problem) &&
		read_paths(columns, &reader))
	{
		leads->columns = reader.columns;
		leads->ncolumns = reader.ncolumns;
		return leads;
	}
	if (reader.problem)
		*problem = reader.problem;
	relation_close(leads->rel, NoLock);
	return NULL;
}

Output *
s64_output_read(Jsonb *object, Jsonb *numbers, Relation target, char **problem)
{
	Output	   *output = palloc0(sizeof(Output));
	Reader		reader = {0};
	Jsonb	   *leads;

	*problem = NULL;
	if (!JB_ROOT_IS_OBJECT(object) || JB_ROOT_COUNT(object) == 0)
		malformed("\"output\" must be a JSON object that names at least one column");
	reader.rel = target;
	reader.numbers = numbers;
	if (!read_paths(object, &reader))
	{
		*problem = reader.problem;
		return NULL;
	}
	output->columns = reader.columns;
	output->ncolumns = reader.ncolumns;
	leads = member_object(object, S64_LEADS);
	if (leads != NULL)
		output->leads = read_leads(leads, numbers, target, problem);
	return *problem == NULL ? output : NULL;
}

void
s64_output_close(Output *output)
{
	if (output->leads != NULL)
		relation_close(output->leads->rel, NoLock);
}

static Jsonb *
finish(JsonbInState *state, JsonbIteratorToken end)
{
	pushJsonbValue(state, end, NULL);
	return JsonbValueToJsonb(state->result);
}

static Column *
columns_of(const OutputColumn *from, int n, Column *to)
{
	for (int i = 0; i < n; i++)
		to[i] = from[i].column;
	return to;
}

Jsonb *
s64_output_numbers(const Output *output, Relation target)
{
	const OutputLeads *leads = output->leads;
	JsonbInState state = {0};
	Column	   *columns = palloc((output->ncolumns +
								  (leads ? leads->nkeys + leads->ncolumns : 0) + 1) *
								 sizeof(Column));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	s64_columns_push_numbers(&state, target,
							 columns_of(output->columns, output->ncolumns, columns),
							 output->ncolumns);
	if (leads != NULL)
	{
		JsonbValue	key;

		key.type = jbvString;
		key.val.string.val = S64_LEADS;
		key.val.string.len = strlen(S64_LEADS);
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		memcpy(columns_of(leads->columns, leads->ncolumns, columns) + leads->ncolumns,
			   leads->keys, leads->nkeys * sizeof(Column));
		s64_columns_push_numbers(&state, leads->rel, columns,
								 leads->ncolumns + leads->nkeys);
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return finish(&state, WJB_END_OBJECT);
}
