/*-------------------------------------------------------------------------
 *
 * call.c
 *		The SQL-callable synchronous call.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "account.h"
#include "compat.h"
#include "detour.h"
#include "guc.h"
#include "inquiry.h"
#include "operation.h"
#include "request.h"
#include "rowset.h"
#include "session.h"
#include "unasked.h"

S64_FUNCTION(sixtyfour_call);
S64_FUNCTION(sixtyfour_call_rows);
S64_FUNCTION(sixtyfour_call_void);
S64_FUNCTION(sixtyfour_request);

static bool
is_null(Jsonb *json)
{
	JsonbValue	v;

	return JB_ROOT_IS_SCALAR(json) && JsonbExtractScalar(&json->root, &v) && v.type == jbvNull;
}

/*
 * May the worker make this call?  What is free, or changes nothing but the
 * account's own things, needs no ledger.
 */
static bool
is_for_worker(const Operation *operation)
{
	return s64_guc_route != ROUTE_DIRECT && operation->endpoint->price != PRICE_FREE;
}

/* Some things are the account's own, not for all who may spend. */
static void
check_owner(const Account *account)
{
	if (!s64_server_ownercheck(account->serverid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_SERVER, account->server);
}

/* The answer to what is asked; NULL where it has none */
static Jsonb *
ask(FunctionCallInfo fcinfo, const Operation *operation)
{
	const Endpoint *endpoint = operation->endpoint;
	Account    *account = s64_account_get(s64_guc_server, GetUserId());
	Jsonb	   *body = s64_request_normalize(endpoint, s64_operation_body(fcinfo, operation));
	Jsonb	   *answer;

	if (endpoint->owner_only)
		check_owner(account);
	if (is_for_worker(operation))
	{
		if (s64_inquiry_make(account, endpoint, body, NULL, &answer))
			return answer;
		if (s64_guc_route == ROUTE_WORKER)
			s64_unasked_no_worker();
	}
	if (endpoint->price == PRICE_FREE)
		return s64_detour_exchange(account, endpoint, body);
	/* the session makes the request itself */
	s64_unasked_check(account, endpoint, body);
	return s64_session_exchange(account, s64_request_make(account, endpoint, body));
}

/*
 * sixtyfour_<operation>(...) → jsonb, for every operation that is one
 * request.  If its first argument is the subject, NULL asks nothing.
 */
Datum
sixtyfour_call(PG_FUNCTION_ARGS)
{
	const Operation *operation = s64_operation_get(fcinfo);
	Jsonb	   *answer = s64_operation_asks_nothing(fcinfo, operation)
		? NULL : ask(fcinfo, operation);

	/* JSON's null, too, is nothing to SQL */
	if (answer == NULL || is_null(answer))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(answer);
}

/* The same → SETOF jsonb, where the answer is an array */
Datum
sixtyfour_call_rows(PG_FUNCTION_ARGS)
{
	const Operation *operation = s64_operation_get(fcinfo);
	Rowset		rowset = s64_rowset_begin(fcinfo);

	if (!s64_operation_asks_nothing(fcinfo, operation))
		s64_rowset_add_elements(&rowset, ask(fcinfo, operation), operation->endpoint->name);
	return (Datum) 0;
}

/* sixtyfour_delete_...(...) → void */
Datum
sixtyfour_call_void(PG_FUNCTION_ARGS)
{
	const Operation *operation = s64_operation_get(fcinfo);

	if (!s64_operation_asks_nothing(fcinfo, operation))
		(void) ask(fcinfo, operation);
	PG_RETURN_VOID();
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
	char	   *path;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	account = s64_account_get(s64_guc_server, GetUserId());
	path = text_to_cstring(PG_GETARG_TEXT_PP(1));
	request = s64_request_make_raw(account,
								   text_to_cstring(PG_GETARG_TEXT_PP(0)),
								   path,
								   PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2),
								   PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3));
	if (s64_endpoint_is_private(path))
		check_owner(account);
	answer = s64_session_exchange(account, request);
	if (answer == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(answer);
}
