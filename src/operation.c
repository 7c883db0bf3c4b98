/*-------------------------------------------------------------------------
 *
 * operation.c
 *		What an SQL function asks the service for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/syscache.h"

#include "compat.h"
#include "json.h"
#include "operation.h"

#define NAME_PREFIX "sixtyfour_"

/* What may stand behind the operation's name in that of the function */
static const char *const suffixes[] = {"_bulk_async", "_async"};

/* Functions that are not called by the name of what they ask for */
static const struct
{
	const char *function;
	const char *endpoint;
}			aliases[] =
{
	{"start_search", "search"},
	{"start_workflow", "run_workflow"},
};

/* Arguments that say how to ask, not what */
static const char *const control_arguments[] = {"priority", "run_at", "into_table"};

/* Arguments whose members count as arguments */
static const char *const bags[] = {"options", "changes"};

/* The endpoint that a function's name stands for; NULL if none */
static const Endpoint *
find_endpoint(const char *function)
{
	char	   *name;

	if (strncmp(function, NAME_PREFIX, strlen(NAME_PREFIX)) != 0)
		return NULL;
	name = pstrdup(function + strlen(NAME_PREFIX));
	for (size_t i = 0; i < lengthof(suffixes); i++)
	{
		size_t		len = strlen(name);
		size_t		suffix = strlen(suffixes[i]);

		if (len > suffix && strcmp(name + len - suffix, suffixes[i]) == 0)
			name[len - suffix] = '\0';
	}
	for (size_t i = 0; i < lengthof(aliases); i++)
	{
		if (strcmp(name, aliases[i].function) == 0)
			return s64_endpoint_find(aliases[i].endpoint);
	}
	return s64_endpoint_find(name);
}

static bool
is_among(const char *name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

/* Find the endpoint and the arguments of the SQL function being called. */
static Operation *
make_operation(FmgrInfo *flinfo)
{
	Operation  *operation = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(Operation));
	MemoryContext old = MemoryContextSwitchTo(flinfo->fn_mcxt);
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(flinfo->fn_oid));
	const char *name;
	Oid		   *types;
	char	  **names = NULL;
	char	   *modes;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", flinfo->fn_oid);
	name = NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname);
	operation->endpoint = find_endpoint(name);
	operation->nargs = get_func_arg_info(tuple, &types, &names, &modes);
	if (operation->endpoint == NULL || operation->nargs > S64_OPERATION_MAX_ARGS ||
		(names == NULL && operation->nargs > 0))
		elog(ERROR, "function %s is no operation of the service", name);
	for (int i = 0; i < operation->nargs; i++)
	{
		operation->types[i] = types[i];
		operation->names[i] = names[i];
	}
	ReleaseSysCache(tuple);
	MemoryContextSwitchTo(old);
	return operation;
}

/* Push an argument that is not null as the value of the key pushed before. */
static void
push_argument(JsonbInState *state, Oid type, Datum arg)
{
	JsonbValue	v;
	Jsonb	   *json;
	text	   *string;

	switch (type)
	{
		case TEXTOID:
			string = DatumGetTextPP(arg);
			v.type = jbvString;
			v.val.string.val = VARDATA_ANY(string);
			v.val.string.len = VARSIZE_ANY_EXHDR(string);
			break;
		case BOOLOID:
			v.type = jbvBool;
			v.val.boolean = DatumGetBool(arg);
			break;
		case INT4OID:
			v.type = jbvNumeric;
			v.val.numeric = DatumGetNumeric(DirectFunctionCall1(int4_numeric, arg));
			break;
		case INT8OID:
			v.type = jbvNumeric;
			v.val.numeric = DatumGetNumeric(DirectFunctionCall1(int8_numeric, arg));
			break;
		case JSONBOID:
			json = DatumGetJsonbP(arg);
			if (JB_ROOT_IS_SCALAR(json))
			{
				JsonbExtractScalar(&json->root, &v);
				break;
			}
			v.type = jbvBinary;
			v.val.binary.data = &json->root;
			v.val.binary.len = VARSIZE(json) - VARHDRSZ;
			break;
		default:
			elog(ERROR, "unsupported argument type %u", type);
	}
	pushJsonbValue(state, WJB_VALUE, &v);
}

/* Does the call give an argument of that name? */
static bool
is_given(FunctionCallInfo fcinfo, const Operation *operation,
		 const char *name, int len)
{
	for (int i = 0; i < operation->nargs; i++)
	{
		if (!PG_ARGISNULL(i) && (int) strlen(operation->names[i]) == len &&
			memcmp(operation->names[i], name, len) == 0)
			return true;
	}
	return false;
}

/* Push the members of such an argument, none of which may be given twice. */
static void
push_members(JsonbInState *state, FunctionCallInfo fcinfo,
			 const Operation *operation, const char *name, Jsonb *options)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" must be a JSON object", name)));
	it = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY &&
			is_given(fcinfo, operation, v.val.string.val, v.val.string.len))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%.*s\" is given both as an argument and in \"%s\"",
							v.val.string.len, v.val.string.val, name)));
		if (token == WJB_KEY || token == WJB_VALUE)
			pushJsonbValue(state, token, &v);
	}
}

Jsonb *
s64_operation_body(FunctionCallInfo fcinfo, const Operation *operation)
{
	JsonbInState state = {0};

	if (operation->nargs == 1 && strcmp(operation->names[0], "request") == 0)
		return PG_GETARG_JSONB_P(0);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < operation->nargs; i++)
	{
		const char *name = operation->names[i];

		if (PG_ARGISNULL(i) ||
			is_among(name, control_arguments, lengthof(control_arguments)))
			continue;
		if (is_among(name, bags, lengthof(bags)))
		{
			push_members(&state, fcinfo, operation, name, PG_GETARG_JSONB_P(i));
			continue;
		}
		s64_json_push_key(&state, name);
		push_argument(&state, operation->types[i], PG_GETARG_DATUM(i));
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

bool
s64_operation_asks_nothing(FunctionCallInfo fcinfo, const Operation *operation)
{
	if (operation->nargs == 0 || !PG_ARGISNULL(0))
		return false;
	/* a whole request, an array of leads, or a field */
	for (const Field *field = operation->endpoint->fields; field->name; field++)
	{
		if (strcmp(field->name, operation->names[0]) == 0)
			return field->required;
	}
	return true;
}

const Operation *
s64_operation_get(FunctionCallInfo fcinfo)
{
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = make_operation(fcinfo->flinfo);
	return fcinfo->flinfo->fn_extra;
}

int
s64_operation_argument(const Operation *operation, const char *name)
{
	for (int i = 0; i < operation->nargs; i++)
	{
		if (strcmp(operation->names[i], name) == 0)
			return i;
	}
	return -1;
}
