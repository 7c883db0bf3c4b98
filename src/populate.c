/*-------------------------------------------------------------------------
 *
 * populate.c
 *		Answers as rows of a table's type.
 *
 * What the service sent is first made what the columns need, as it is for the
 * columns of an enrichment; then jsonb_populate_record() does the rest.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "literal.h"
#include "values.h"

S64_FUNCTION(sixtyfour_populate);

/* An object, also one that is written as text; NULL if it is something else */
static Jsonb *
read_object(JsonbValue *v)
{
	Jsonb	   *json = NULL;

	if (v->type == jbvBinary)
		json = JsonbValueToJsonb(v);
	else if (v->type == jbvString)
		json = s64_literal_read(v->val.string.val, v->val.string.len);
	return json != NULL && JB_ROOT_IS_OBJECT(json) ? json : NULL;
}

static bool
is_nothing(const JsonbValue *v)
{
	return v->type == jbvNull || (v->type == jbvString && v->val.string.len == 0);
}

/* The values in an answer; NULL if it says that there are none. */
static Jsonb *
find_values(Jsonb *answer)
{
	static const char name[] = "structured_data";
	JsonbValue	v;
	Jsonb	   *values = NULL;

	if (JB_ROOT_IS_OBJECT(answer))
	{
		if (getKeyJsonValueFromContainer(&answer->root, name, strlen(name), &v) == NULL)
			return answer;
		if (is_nothing(&v))
			return NULL;
		values = read_object(&v);
	}
	if (values == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("answer has no values that can be read"),
				 errdetail("It is not an object, or its \"structured_data\" is none.")));
	return values;
}

/* The columns of the base: of its own type, if that is just "record" */
static TupleDesc
columns_of(FunctionCallInfo fcinfo)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	int32		typmod = -1;
	TupleDesc	desc;

	if (type == RECORDOID && !PG_ARGISNULL(0))
	{
		HeapTupleHeader base = PG_GETARG_HEAPTUPLEHEADER(0);

		type = HeapTupleHeaderGetTypeId(base);
		typmod = HeapTupleHeaderGetTypMod(base);
	}
	desc = lookup_rowtype_tupdesc_noerror(getBaseType(type), typmod, true);
	if (desc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("first argument must be a row of a known type"),
				 errhint("For a row of table \"leads\" give NULL::leads.")));
	return desc;
}

/* The values that there are columns for, as these need them */
static Jsonb *
normalise_values(Jsonb *values, TupleDesc desc)
{
	JsonbInState state = {0};

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		JsonbValue	key;
		JsonbValue	v;

		key.type = jbvString;
		key.val.string.val = NameStr(att->attname);
		key.val.string.len = strlen(NameStr(att->attname));
		if (att->attisdropped ||
			getKeyJsonValueFromContainer(&values->root, key.val.string.val,
										 key.val.string.len, &v) == NULL)
			continue;
		s64_values_normalise(&v, att->atttypid);
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, &v);
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* jsonb_populate_record() finds the type in the expression that we are in. */
static FmgrInfo *
populate_record(FunctionCallInfo fcinfo)
{
	FmgrInfo   *function = fcinfo->flinfo->fn_extra;

	if (function == NULL)
	{
		function = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(FmgrInfo));
		fmgr_info_cxt(F_JSONB_POPULATE_RECORD, function, fcinfo->flinfo->fn_mcxt);
		fmgr_info_set_expr(fcinfo->flinfo->fn_expr, function);
		fcinfo->flinfo->fn_extra = function;
	}
	return function;
}

Datum
sixtyfour_populate(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(call, 2);
	Jsonb	   *values = PG_ARGISNULL(1) ? NULL : find_values(PG_GETARG_JSONB_P(1));
	TupleDesc	desc = columns_of(fcinfo);
	Datum		result;

	if (values != NULL)
		values = normalise_values(values, desc);
	ReleaseTupleDesc(desc);

	InitFunctionCallInfoData(*call, populate_record(fcinfo), 2, PG_GET_COLLATION(),
							 NULL, NULL);
	call->args[0] = fcinfo->args[0];
	call->args[1].value = PointerGetDatum(values);
	call->args[1].isnull = values == NULL;
	result = FunctionCallInvoke(call);
	fcinfo->isnull = call->isnull;
	return result;
}
