/*-------------------------------------------------------------------------
 *
 * call.c
 *		The SQL-callable synchronous call.
 *
 * All operations share one C function.  It finds its row of the endpoint
 * table by its own SQL name, and puts its arguments by their names into the
 * path or into the request's body.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/syscache.h"

#include "account.h"
#include "compat.h"
#include "encoding.h"
#include "endpoint.h"
#include "request.h"
#include "session.h"

#define NAME_PREFIX "sixtyfour_"
#define MAX_ARGS	16

/* What a SQL function asks for; made once per query, kept in fn_extra */
typedef struct Operation
{
	const Endpoint *endpoint;
	int			nargs;
	Oid			types[MAX_ARGS];
	char	   *names[MAX_ARGS];
} Operation;

S64_FUNCTION(sixtyfour_call);
S64_FUNCTION(sixtyfour_request);

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
	if (strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) == 0)
		operation->endpoint = s64_endpoint_find(name + strlen(NAME_PREFIX));
	operation->nargs = get_func_arg_info(tuple, &types, &names, &modes);
	if (operation->endpoint == NULL || operation->nargs > MAX_ARGS || names == NULL)
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

static void
push_key(JsonbInState *state, const char *name)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = (char *) name;
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
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

/* The request's body, from the arguments that are not in its path */
static Jsonb *
make_body(FunctionCallInfo fcinfo, const Operation *operation)
{
	JsonbInState state = {0};

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < operation->nargs; i++)
	{
		const char *name = operation->names[i];

		if (PG_ARGISNULL(i) ||
			s64_endpoint_has_parameter(operation->endpoint->path, name))
			continue;
		if (strcmp(name, "options") == 0)
		{
			push_options(&state, fcinfo, operation, PG_GETARG_JSONB_P(i));
			continue;
		}
		push_key(&state, name);
		push_argument(&state, operation->types[i], PG_GETARG_DATUM(i));
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* The arguments that stand in the request's path */
static int
make_parameters(FunctionCallInfo fcinfo, const Operation *operation,
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

static ApiRequest *
make_request(FunctionCallInfo fcinfo, const Account *account,
			 const Operation *operation)
{
	const Endpoint *endpoint = operation->endpoint;
	Parameter	parameters[MAX_ARGS];
	int			nparameters = make_parameters(fcinfo, operation, parameters);
	Jsonb	   *body = NULL;

	if (operation->nargs == 1 && strcmp(operation->names[0], "request") == 0)
		body = PG_GETARG_JSONB_P(0);
	else if (endpoint->fields[0].name != NULL)
		body = make_body(fcinfo, operation);
	return s64_request_make(account, endpoint, body, parameters, nparameters);
}

/*
 * sixtyfour_<operation>(...) → jsonb, for every operation that is one
 * request.  Its first argument is the subject: NULL asks nothing.
 */
Datum
sixtyfour_call(PG_FUNCTION_ARGS)
{
	Operation  *operation = fcinfo->flinfo->fn_extra;
	Account    *account;
	Jsonb	   *answer;

	if (PG_NARGS() > 0 && PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (operation == NULL)
		fcinfo->flinfo->fn_extra = operation = make_operation(fcinfo->flinfo);

	account = s64_account_get(GetUserId());
	answer = s64_session_exchange(account, make_request(fcinfo, account, operation));
	if (answer == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(answer);
}

/*
 * sixtyfour_request(method text, path text, query jsonb, body jsonb) → jsonb:
 * anything else the service has.
 */
Datum
sixtyfour_request(PG_FUNCTION_ARGS)
{
	Account    *account;
	ApiRequest *request;
	Jsonb	   *answer;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	account = s64_account_get(GetUserId());
	request = s64_request_make_raw(account,
								   text_to_cstring(PG_GETARG_TEXT_PP(0)),
								   text_to_cstring(PG_GETARG_TEXT_PP(1)),
								   PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2),
								   PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3));
	answer = s64_session_exchange(account, request);
	if (answer == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(answer);
}
