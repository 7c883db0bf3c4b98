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
#include "utils/jsonb.h"
#include "utils/syscache.h"

#include "compat.h"
#include "encoding.h"
#include "json.h"
#include "operation.h"

#define NAME_PREFIX "sixtyfour_"

/* What may stand behind the operation's name in that of the function */
static const char *const suffixes[] = {"_bulk_async", "_async"};

/* Arguments that say how to ask, not what */
static const char *const control_arguments[] = {"priority", "run_at"};

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
	return s64_endpoint_find(name);
}

static bool
is_control_argument(const char *name)
{
	for (size_t i = 0; i < lengthof(control_arguments); i++)
	{
		if (strcmp(name, control_arguments[i]) == 0)
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
	if (operation->endpoint == NULL || operation->nargs > S64_OPERATION_MAX_ARGS || names == NULL)
		elog(ERROR, "function %s is no operation of the service", name);
	memcpy(operation->types, types, operation->nargs * sizeof(Oid));
	memcpy(operation->names, names, operation->nargs * sizeof(char *));
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

/* Push the members of argument options, none of which may be given twice. */
static void
push_options(JsonbInState *state, FunctionCallInfo fcinfo,
			 const Operation *operation, Jsonb *options)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"options\" must be a JSON object")));
	it = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY &&
			is_given(fcinfo, operation, v.val.string.val, v.val.string.len))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%.*s\" is given both as an argument and in \"options\"",
							v.val.string.len, v.val.string.val)));
		if (token == WJB_KEY || token == WJB_VALUE)
			pushJsonbValue(state, token, &v);
	}
}

Jsonb *
s64_operation_body(FunctionCallInfo fcinfo, const Operation *operation)
{
	JsonbInState state = {0};

	if (operation->endpoint->fields[0].name == NULL)
		return NULL;
	if (operation->nargs == 1 && strcmp(operation->names[0], "request") == 0)
		return PG_GETARG_JSONB_P(0);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < operation->nargs; i++)
	{
		const char *name = operation->names[i];

		if (PG_ARGISNULL(i) || is_control_argument(name) ||
			s64_endpoint_has_parameter(operation->endpoint->path, name))
			continue;
		if (strcmp(name, "options") == 0)
		{
			push_options(&state, fcinfo, operation, PG_GETARG_JSONB_P(i));
			continue;
		}
		s64_json_push_key(&state, name);
		push_argument(&state, operation->types[i], PG_GETARG_DATUM(i));
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

int
s64_operation_parameters(FunctionCallInfo fcinfo, const Operation *operation,
						 Parameter *parameters)
{
	int			n = 0;

	for (int i = 0; i < operation->nargs; i++)
	{
		if (!s64_endpoint_has_parameter(operation->endpoint->path, operation->names[i]))
			continue;
		parameters[n].name = operation->names[i];
		parameters[n].value = s64_encoding_to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(i)));
		n++;
	}
	return n;
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
