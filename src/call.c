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
#include "guc.h"
#include "inquiry.h"
#include "ledger.h"
#include "operation.h"
#include "report.h"
#include "request.h"
#include "session.h"

S64_FUNCTION(sixtyfour_call);
S64_FUNCTION(sixtyfour_request);

/* An open call holds its question: nobody asks it again by accident. */
static void
check_not_asked(const Account *account, const Endpoint *endpoint, Jsonb *body)
{
	pg_uuid_t	fingerprint = s64_request_fingerprint(endpoint, body);
	bool		uncertain;
	int64		call = s64_ledger_open_call(&account->id, &fingerprint, &uncertain);

	if (call == 0)
		return;
	if (uncertain)
		s64_report_uncertain(call, NULL);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("call " INT64_FORMAT " asks the same, and has no answer yet", call),
			 errhint("Ask again when it has one; sixtyfour.workers shows who waits for it.")));
}

/*
 * May the worker make this call?  What is free, or changes nothing but the
 * account's own things, needs no ledger.
 */
static bool
is_for_worker(const Operation *operation, const Jsonb *body)
{
	return s64_guc_route != ROUTE_DIRECT && body != NULL &&
		operation->endpoint->price != PRICE_FREE &&
		strchr(operation->endpoint->path, '{') == NULL;
}

/* The session makes the request itself. */
static Jsonb *
call_directly(FunctionCallInfo fcinfo, const Operation *operation,
			  const Account *account, Jsonb *body)
{
	Parameter	parameters[S64_OPERATION_MAX_ARGS];
	int			n = s64_operation_parameters(fcinfo, operation, parameters);

	if (body != NULL)
		check_not_asked(account, operation->endpoint, body);
	return s64_session_exchange(account, s64_request_make(account, operation->endpoint,
														  body, parameters, n));
}

/*
 * sixtyfour_<operation>(...) → jsonb, for every operation that is one
 * request.  Its first argument is the subject: NULL asks nothing.
 */
Datum
sixtyfour_call(PG_FUNCTION_ARGS)
{
	const Operation *operation;
	Account    *account;
	Jsonb	   *body;
	Jsonb	   *answer;

	if (PG_NARGS() > 0 && PG_ARGISNULL(0))
		PG_RETURN_NULL();
	operation = s64_operation_get(fcinfo);
	account = s64_account_get(s64_guc_server, GetUserId());
	body = s64_operation_body(fcinfo, operation);
	if (body != NULL)
		body = s64_request_normalize(operation->endpoint, body);
	if (is_for_worker(operation, body))
	{
		if (s64_inquiry_make(account, operation->endpoint, body, &answer))
			PG_RETURN_JSONB_P(answer);
		if (s64_guc_route == ROUTE_WORKER)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("there is no worker to ask"),
					 errhint("See sixtyfour.workers, or reset \"sixtyfour.route\".")));
	}
	answer = call_directly(fcinfo, operation, account, body);
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
	account = s64_account_get(s64_guc_server, GetUserId());
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
