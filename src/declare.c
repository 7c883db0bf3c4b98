/*-------------------------------------------------------------------------
 *
 * declare.c
 *		Declares and drops enrichments.
 *
 * Whoever owns the table may declare one, so the triggers are made with his
 * rights.  What is checked here need not be checked for each row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "account.h"
#include "columns.h"
#include "compat.h"
#include "enrichment.h"
#include "expression.h"
#include "guc.h"
#include "output.h"
#include "sample.h"
#include "triggers.h"

/* jsonb_build_object(), which makes the subject, takes 100 arguments. */
#define MAX_INPUT 50

/* The arguments of sixtyfour_create_enrichment */
enum
{
	ARG_NAME, ARG_TARGET, ARG_OPERATION, ARG_INPUT, ARG_OUTPUT, ARG_STRUCT,
	ARG_OPTIONS, ARG_ON_INSERT, ARG_ON_UPDATE, ARG_CONDITION,
	ARG_IF_UNCHANGED, ARG_REFRESH_AFTER, ARG_PAYER
};

typedef struct Declaration
{
	FunctionCallInfo fcinfo;
	char	   *name;
	Relation	target;
	const Endpoint *endpoint;
	Column	   *inputs;
	int			ninputs;
	Column	   *keys;
	int			nkeys;
	Output	   *output;
	Jsonb	   *output_json;	/* with the child table's name qualified */
	char	   *condition;
	Bitmapset  *condition_columns;
	char	   *payer;
} Declaration;

S64_FUNCTION(sixtyfour_create_enrichment);
S64_FUNCTION(sixtyfour_drop_enrichment);

pg_noreturn static void refuse(int sqlstate, const char *message, const char *hint);

static void
refuse(int sqlstate, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg_internal("%s", message),
			 hint ? errhint("%s", hint) : 0));
}

static bool
given(const Declaration *d, int arg)
{
	FunctionCallInfo fcinfo = d->fcinfo;

	return !PG_ARGISNULL(arg);
}

static char *
get_text(const Declaration *d, int arg)
{
	FunctionCallInfo fcinfo = d->fcinfo;

	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

static Jsonb *
get_jsonb(const Declaration *d, int arg)
{
	FunctionCallInfo fcinfo = d->fcinfo;

	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_JSONB_P(arg);
}

/* ---- checks ---- */

static void
check_given(const Declaration *d)
{
	static const char *const names[] = {"name", "target", "operation", "input", "output"};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		if (!given(d, i))
			refuse(ERRCODE_NULL_VALUE_NOT_ALLOWED,
				   psprintf("%s must not be null", names[i]), NULL);
	}
	for (int i = ARG_ON_INSERT; i <= ARG_PAYER; i++)
	{
		if (!given(d, i) && i != ARG_CONDITION && i != ARG_REFRESH_AFTER)
			refuse(ERRCODE_NULL_VALUE_NOT_ALLOWED,
				   "on_insert, on_update, if_unchanged and payer must not be null", NULL);
	}
}

/* A table of the caller's that can be enriched, locked against changes */
static void
open_target(Declaration *d)
{
	FunctionCallInfo fcinfo = d->fcinfo;
	Oid			relid = PG_GETARG_OID(ARG_TARGET);
	Relation	rel = try_relation_open(relid, AccessShareLock);
	char	   *name;

	if (rel == NULL)
		refuse(ERRCODE_UNDEFINED_TABLE,
			   psprintf("table with OID %u does not exist", relid), NULL);
	name = RelationGetRelationName(rel);
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		refuse(ERRCODE_WRONG_OBJECT_TYPE, psprintf("\"%s\" is not a table", name), NULL);
	if (!has_privs_of_role(GetUserId(), rel->rd_rel->relowner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, name);
	if (IsCatalogRelation(rel) || rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse(ERRCODE_FEATURE_NOT_SUPPORTED,
			   psprintf("table \"%s\" cannot be enriched", name),
			   "System catalogs and temporary tables cannot.");
	d->target = rel;
	d->keys = s64_columns_of_key(rel, NULL, &d->nkeys);
	if (d->keys == NULL)
		refuse(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   psprintf("table \"%s\" has no primary key", name),
			   "An answer finds its row by the primary key.");
}

static void
read_operation(Declaration *d)
{
	char	   *operation = get_text(d, ARG_OPERATION);

	d->endpoint = s64_endpoint_find(operation);
	if (d->endpoint == NULL || !s64_endpoint_enriches(d->endpoint))
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("operation \"%s\" cannot enrich rows", operation),
			   psprintf("Use %s.", s64_endpoint_list(s64_endpoint_enriches)));
}

/* What the operation needs to know must be there, in a type that it takes. */
static void
check_input(const Declaration *d, Jsonb *input)
{
	const Field *subject = &d->endpoint->fields[0];
	const char *needed = subject->type == FIELD_PROFILE ? subject->name : subject->choices;
	JsonbValue	v;

	if (needed == NULL)
		return;
	if (getKeyJsonValueFromContainer(&input->root, needed, strlen(needed), &v) == NULL)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("operation %s needs \"%s\" in \"input\"", d->endpoint->name, needed),
			   psprintf("Give {\"%s\": \"column\"%s}.", needed,
						subject->type == FIELD_PROFILE ? "" : ", ..."));
	if (subject->type != FIELD_PROFILE)
		return;
	if (JB_ROOT_COUNT(input) > 1)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("operation %s takes nothing but \"%s\" in \"input\"",
						d->endpoint->name, needed), NULL);
	if (d->inputs[0].category != TYPCATEGORY_STRING)
		refuse(ERRCODE_DATATYPE_MISMATCH,
			   psprintf("column \"%s\" of table \"%s\" is no text", d->inputs[0].name,
						RelationGetRelationName(d->target)), NULL);
}

static void
read_input(Declaration *d)
{
	Jsonb	   *input = get_jsonb(d, ARG_INPUT);
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(input) || JB_ROOT_COUNT(input) == 0)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   "\"input\" must be a JSON object that names at least one column",
			   "Give {\"field that the service knows\": \"column\", ...}.");
	if (JB_ROOT_COUNT(input) > MAX_INPUT)
		refuse(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
			   psprintf("\"input\" must not have more than %d fields", MAX_INPUT), NULL);
	d->inputs = palloc(JB_ROOT_COUNT(input) * sizeof(Column));
	it = JsonbIteratorInit(&input->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *name;

		if (token != WJB_VALUE)
			continue;
		if (v.type != jbvString)
			refuse(ERRCODE_INVALID_PARAMETER_VALUE,
				   "the values of \"input\" must be names of columns", NULL);
		name = pnstrdup(v.val.string.val, v.val.string.len);
		if (!s64_column_find(d->target, NULL, name, &d->inputs[d->ninputs++]))
			refuse(ERRCODE_UNDEFINED_COLUMN,
				   psprintf("column \"%s\" of table \"%s\" does not exist", name,
							RelationGetRelationName(d->target)), NULL);
	}
	check_input(d, input);
}

static bool
is_among(const Column *columns, int n, AttrNumber attnum)
{
	for (int i = 0; i < n; i++)
	{
		if (columns[i].attnum == attnum)
			return true;
	}
	return false;
}

/* Can an UPDATE, or an INSERT, set this column? */
static void
check_assignable(Relation rel, const Column *column)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), column->attnum - 1);

	if (att->attgenerated != '\0' || att->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
		refuse(ERRCODE_GENERATED_ALWAYS,
			   psprintf("column \"%s\" of table \"%s\" is generated: nothing can be written to it",
						column->actual, RelationGetRelationName(rel)), NULL);
}

static void
check_output_column(const Declaration *d, const Column *column)
{
	check_assignable(d->target, column);
	if (is_among(d->keys, d->nkeys, column->attnum))
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("output column \"%s\" belongs to the primary key", column->name), NULL);
	if (is_among(d->inputs, d->ninputs, column->attnum))
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("column \"%s\" is both input and output", column->name),
			   "The answer would be another question.");
}

/* The owner writes there: he, not the caller, needs the rights. */
static void
check_leads(const Declaration *d)
{
	const OutputLeads *leads = d->output->leads;
	Oid			relid = RelationGetRelid(leads->rel);
	Oid			owner = d->target->rd_rel->relowner;

	if (!s64_endpoint_finds_people(d->endpoint))
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("operation %s finds no \"" S64_LEADS "\"", d->endpoint->name),
			   psprintf("Use %s.", s64_endpoint_list(s64_endpoint_finds_people)));
	if (leads->rel->rd_rel->relkind != RELKIND_RELATION &&
		leads->rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		refuse(ERRCODE_WRONG_OBJECT_TYPE,
			   psprintf("\"%s\" is not a table", RelationGetRelationName(leads->rel)), NULL);
	if (pg_class_aclcheck(relid, owner, ACL_INSERT) != ACLCHECK_OK ||
		pg_class_aclcheck(relid, owner, ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(leads->rel));
	for (int i = 0; i < leads->ncolumns; i++)
		check_assignable(leads->rel, &leads->columns[i].column);
	for (int i = 0; i < leads->nkeys; i++)
		check_assignable(leads->rel, &leads->keys[i]);
}

/* The child table's name must mean the same under any search_path. */
static void
qualify_leads(Declaration *d)
{
	Relation	rel = d->output->leads->rel;
	Datum		path[2] = {CStringGetTextDatum(S64_LEADS), CStringGetTextDatum("table")};
	char	   *name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												  RelationGetRelationName(rel));
	ArrayType  *place = construct_array(path, 2, TEXTOID, -1, false, TYPALIGN_INT);
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = name;
	v.val.string.len = strlen(name);
	d->output_json = DatumGetJsonbP(DirectFunctionCall4(jsonb_set,
														JsonbPGetDatum(d->output_json),
														PointerGetDatum(place),
														JsonbPGetDatum(JsonbValueToJsonb(&v)),
														BoolGetDatum(false)));
}

static void
read_output(Declaration *d)
{
	char	   *problem;

	d->output_json = get_jsonb(d, ARG_OUTPUT);
	d->output = s64_output_read(d->output_json, NULL, d->target, &problem);
	if (d->output == NULL)
		refuse(ERRCODE_UNDEFINED_COLUMN, problem, NULL);
	for (int i = 0; i < d->output->ncolumns; i++)
		check_output_column(d, &d->output->columns[i].column);
	if (d->output->leads != NULL)
	{
		check_leads(d);
		qualify_leads(d);
	}
}

/* ---- the rest ---- */

/* The server must be there, and the caller, and an owner who pays, may use it. */
static void
check_server(const Declaration *d)
{
	s64_account_check_server(s64_guc_server, GetUserId());
	if (strcmp(d->payer, "owner") == 0)
		s64_account_check_server(s64_guc_server, d->target->rd_rel->relowner);
}

static void
read_rest(Declaration *d)
{
	FunctionCallInfo fcinfo = d->fcinfo;

	if (given(d, ARG_CONDITION))
		d->condition = s64_expression_read(d->target, NULL, get_text(d, ARG_CONDITION),
										   "condition", &d->condition_columns);
	if (given(d, ARG_REFRESH_AFTER))
	{
		Interval	zero = {0};

		if (DatumGetBool(DirectFunctionCall2(interval_le, PG_GETARG_DATUM(ARG_REFRESH_AFTER),
											 IntervalPGetDatum(&zero))))
			refuse(ERRCODE_INVALID_PARAMETER_VALUE, "refresh_after must be positive", NULL);
	}
	d->payer = get_text(d, ARG_PAYER);
	if (strcmp(d->payer, "owner") != 0 && strcmp(d->payer, "inserter") != 0)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("invalid payer: \"%s\"", d->payer), "Use inserter or owner.");
	d->name = get_text(d, ARG_NAME);
	if (*d->name == '\0')
		refuse(ERRCODE_INVALID_NAME, "the name of an enrichment must not be empty", NULL);
}

/* ---- writing it down ---- */

/* The numbers of the inputs, the key, and what else the condition uses */
static Jsonb *
input_numbers(const Declaration *d)
{
	JsonbInState state = {0};
	int			n = d->ninputs;
	int			attnum = -1;
	Column	   *columns = palloc((d->ninputs + d->nkeys + bms_num_members(d->condition_columns)) *
								 sizeof(Column));

	memcpy(columns, d->inputs, n * sizeof(Column));
	for (int i = 0; i < d->nkeys; i++)
	{
		if (!is_among(columns, n, d->keys[i].attnum))
			columns[n++] = d->keys[i];
	}
	while ((attnum = bms_next_member(d->condition_columns, attnum)) >= 0)
	{
		if (!is_among(columns, n, attnum))
			s64_column_from_number(d->target, NULL, attnum, &columns[n++]);
	}
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	s64_columns_push_numbers(&state, d->target, columns, n);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

static int
add(const Declaration *d)
{
	FunctionCallInfo fcinfo = d->fcinfo;
	Datum		values[S64_ENRICHMENT_VALUES];
	char		nulls[S64_ENRICHMENT_VALUES];
	NameData	server;

	namestrcpy(&server, s64_guc_server);
	memset(nulls, ' ', sizeof(nulls));
	values[0] = PG_GETARG_DATUM(ARG_NAME);
	values[1] = ObjectIdGetDatum(RelationGetRelid(d->target));
	values[2] = ObjectIdGetDatum(d->target->rd_rel->relowner);
	values[3] = NameGetDatum(&server);
	values[4] = PG_GETARG_DATUM(ARG_OPERATION);
	values[5] = PG_GETARG_DATUM(ARG_INPUT);
	values[6] = JsonbPGetDatum(d->output_json);
	values[7] = JsonbPGetDatum(input_numbers(d));
	values[8] = JsonbPGetDatum(s64_output_numbers(d->output, d->target));
	values[9] = PG_GETARG_DATUM(ARG_STRUCT);
	nulls[9] = given(d, ARG_STRUCT) ? ' ' : 'n';
	values[10] = PG_GETARG_DATUM(ARG_OPTIONS);
	nulls[10] = given(d, ARG_OPTIONS) ? ' ' : 'n';
	values[11] = d->condition ? CStringGetTextDatum(d->condition) : (Datum) 0;
	nulls[11] = d->condition ? ' ' : 'n';
	values[12] = PG_GETARG_DATUM(ARG_ON_INSERT);
	values[13] = PG_GETARG_DATUM(ARG_ON_UPDATE);
	values[14] = PG_GETARG_DATUM(ARG_IF_UNCHANGED);
	values[15] = PG_GETARG_DATUM(ARG_REFRESH_AFTER);
	nulls[15] = given(d, ARG_REFRESH_AFTER) ? ' ' : 'n';
	values[16] = PG_GETARG_DATUM(ARG_PAYER);
	return s64_enrichment_add(values, nulls);
}

/* sixtyfour_create_enrichment(...): see the install script */
Datum
sixtyfour_create_enrichment(PG_FUNCTION_ARGS)
{
	Declaration d = {0};
	char	   *circle;
	int			id;

	d.fcinfo = fcinfo;
	check_given(&d);
	open_target(&d);
	read_operation(&d);
	read_rest(&d);
	check_server(&d);
	read_input(&d);
	read_output(&d);
	s64_sample_check(d.endpoint, get_jsonb(&d, ARG_INPUT), get_jsonb(&d, ARG_STRUCT),
					 get_jsonb(&d, ARG_OPTIONS));

	id = add(&d);
	if (id == 0)
		refuse(ERRCODE_DUPLICATE_OBJECT,
			   psprintf("enrichment \"%s\" already exists", d.name), NULL);
	circle = s64_enrichment_circle(id);
	if (circle != NULL)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   psprintf("enrichments \"%s\" and \"%s\" would set off each other for ever",
						d.name, circle),
			   "One writes columns that the other reads; do not let both follow updates.");
	s64_triggers_create(get_func_namespace(fcinfo->flinfo->fn_oid), d.target, d.name,
						PG_GETARG_BOOL(ARG_ON_INSERT), PG_GETARG_BOOL(ARG_ON_UPDATE));
	s64_output_close(d.output);
	relation_close(d.target, NoLock);
	PG_RETURN_VOID();
}

/* sixtyfour_drop_enrichment(name text) → void */
Datum
sixtyfour_drop_enrichment(PG_FUNCTION_ARGS)
{
	Enrichment *e = s64_enrichment_command(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	s64_enrichment_lock(e->id);
	s64_triggers_drop(get_func_namespace(fcinfo->flinfo->fn_oid), e->target, e->name);
	s64_enrichment_remove(e->id);
	PG_RETURN_VOID();
}
