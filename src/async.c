/*-------------------------------------------------------------------------
 *
 * async.c
 *		The SQL functions that put a question into the queue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "account.h"
#include "compat.h"
#include "destination.h"
#include "guc.h"
#include "json.h"
#include "operation.h"
#include "queue.h"
#include "request.h"
#include "sql.h"

#define DEFAULT_PRIORITY 100

S64_FUNCTION(sixtyfour_call_async);
S64_FUNCTION(sixtyfour_bulk_async);

/*
 * The kind of the jobs that a call asks for.  The right to spend is checked
 * now, so that what is wrong is said at once; the worker checks it again.
 */
static JobKind
make_kind(FunctionCallInfo fcinfo, const Operation *operation)
{
	JobKind		kind = {0};
	int			priority = s64_operation_argument(operation, "priority");
	int			run_at = s64_operation_argument(operation, "run_at");
	int			into_table = s64_operation_argument(operation, "into_table");

	(void) s64_account_get(s64_guc_server, GetUserId());
	kind.endpoint = operation->endpoint;
	kind.server = s64_guc_server;
	kind.owner = GetUserId();
	kind.payer = GetUserId();
	kind.priority = priority >= 0 && !PG_ARGISNULL(priority)
		? PG_GETARG_INT32(priority) : DEFAULT_PRIORITY;
	kind.run_at = run_at >= 0 && !PG_ARGISNULL(run_at)
		? PG_GETARG_TIMESTAMPTZ(run_at) : GetCurrentStatementStartTimestamp();
	kind.cache_ttl = s64_guc_cache_ttl;
	if (into_table >= 0 && !PG_ARGISNULL(into_table))
	{
		kind.into_table = PG_GETARG_OID(into_table);
		s64_destination_check(kind.into_table, GetUserId());
	}
	return kind;
}

/*
 * sixtyfour_<operation>_async(...) → bigint: the job's id, NULL where the
 * first argument is NULL.
 */
Datum
sixtyfour_call_async(PG_FUNCTION_ARGS)
{
	const Operation *operation = s64_operation_get(fcinfo);
	JobKind		kind;
	JobSpec		spec = {0};
	int64		id;

	if (s64_operation_asks_nothing(fcinfo, operation))
		PG_RETURN_NULL();
	spec.body = s64_request_normalize(operation->endpoint,
									  s64_operation_body(fcinfo, operation));
	kind = make_kind(fcinfo, operation);
	s64_queue_add(&kind, &spec, 1, &id);
	PG_RETURN_INT64(id);
}

/* {subject: lead, and all but "leads" of the arguments} */
static Jsonb *
make_lead_body(const Endpoint *endpoint, const JsonbValue *lead, Jsonb *arguments)
{
	JsonbInState state = {0};
	JsonbIterator *it = JsonbIteratorInit(&arguments->root);
	JsonbValue	key;
	JsonbValue	v;
	JsonbIteratorToken token;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = v;
		else if (token == WJB_VALUE &&
				 !(key.val.string.len == 5 && memcmp(key.val.string.val, "leads", 5) == 0))
		{
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &v);
		}
	}
	s64_json_push_key(&state, endpoint->fields[0].name);
	v = *lead;
	pushJsonbValue(&state, WJB_VALUE, &v);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return s64_request_normalize(endpoint, JsonbValueToJsonb(state.result));
}

/* sixtyfour_<operation>_bulk_async(leads jsonb, ...) → bigint[] */
Datum
sixtyfour_bulk_async(PG_FUNCTION_ARGS)
{
	const Operation *operation = s64_operation_get(fcinfo);
	Jsonb	   *leads;
	Jsonb	   *arguments;
	JobKind		kind;
	JobSpec    *specs;
	int64	   *ids;
	int			n;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	leads = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(leads) || JB_ROOT_IS_SCALAR(leads))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"leads\" must be a JSON array")));
	n = JB_ROOT_COUNT(leads);
	specs = palloc0((n + 1) * sizeof(JobSpec));
	ids = palloc((n + 1) * sizeof(int64));
	arguments = s64_operation_body(fcinfo, operation);
	for (int i = 0; i < n; i++)
		specs[i].body = make_lead_body(operation->endpoint,
									   getIthJsonbValueFromContainer(&leads->root, i),
									   arguments);
	kind = make_kind(fcinfo, operation);
	s64_queue_add(&kind, specs, n, ids);
	PG_RETURN_DATUM(s64_sql_int8_array(ids, n));
}
