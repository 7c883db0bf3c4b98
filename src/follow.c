/*-------------------------------------------------------------------------
 *
 * follow.c
 *		The SQL functions that start searches and runs, and wait for their rows.
 *
 * Where there is a worker it submits and follows the task, as it does with any
 * job, and the session waits.  Where there is none the session does both.
 * Either way what the service has found stays there, under a name that can be
 * asked for again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "account.h"
#include "board.h"
#include "compat.h"
#include "fetch.h"
#include "guc.h"
#include "inquiry.h"
#include "operation.h"
#include "report.h"
#include "rowset.h"
#include "schedule.h"
#include "session.h"
#include "task.h"
#include "unasked.h"

S64_FUNCTION(sixtyfour_follow);
S64_FUNCTION(sixtyfour_start);
S64_FUNCTION(sixtyfour_search_download);
S64_FUNCTION(sixtyfour_workflow_results);

/* What is started, and what is known of it */
typedef struct Following
{
	const Account *account;
	const Endpoint *endpoint;
	Jsonb	   *body;
	char	   *task_id;		/* once it is named */
	bool		only_start;
	char	   *said;			/* the last NOTICE */
} Following;

/* What an error while following must say: under which name it is known. */
static void
add_context(void *arg)
{
	const Following *following = arg;

	if (following->task_id != NULL)
		errcontext("Sixtyfour %s, which the service knows as \"%s\"",
				   following->endpoint->name, following->task_id);
}

/* Tell how far it is, if that is news. */
static void
tell(Following *following, char *progress)
{
	if (progress == NULL ||
		(following->said != NULL && strcmp(progress, following->said) == 0))
		return;
	following->said = progress;
	ereport(NOTICE,
			(errmsg("%s: %s", following->endpoint->name, progress)));
}

/* ---- with a worker ---- */

static bool
look(int64 call, const char *task_id, void *arg)
{
	Following  *following = arg;

	if (following->task_id == NULL)
		following->task_id = pstrdup(task_id);
	if (following->only_start)
		return true;
	tell(following, s64_board_read(call));
	return false;
}

/* ---- without ---- */

/* Have the task made, by this session. */
static void
start(Following *following)
{
	const Endpoint *endpoint = following->endpoint;
	ApiRequest *request = s64_request_make(following->account, endpoint, following->body);
	Jsonb	   *answer;

	s64_unasked_check(following->account, endpoint, following->body);
	answer = s64_session_exchange(following->account, request);
	following->task_id = s64_task_id(endpoint->follow, answer);
	if (following->task_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: the service accepted the request without naming a task",
						endpoint->name),
				 errdetail("The answer is %s.",
						   JsonbToCString(NULL, &answer->root, VARSIZE(answer))),
				 errhint("It may have been accepted and billed.")));
}

pg_noreturn static void report_late(const Following *following);

static void
report_late(const Following *following)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("%s: the service was not done in time", following->endpoint->name),
			 errhint("It goes on; the option \"timeout\" of the server says how long is waited.")));
}

/* Ask for the task until it has ended; its result. */
static Jsonb *
await(Following *following)
{
	const Follow *follow = following->endpoint->follow;
	TimestampTz begin = GetCurrentTimestamp();
	TimestampTz deadline = begin + following->account->timeout * INT64CONST(1000);

	for (;;)
	{
		int64		age = GetCurrentTimestamp() - begin;
		Jsonb	   *answer;
		TaskStatus	task;

		if (begin + age >= deadline)
			report_late(following);
		s64_session_sleep(s64_schedule_poll(following->endpoint->name, age, true) / 1000);
		answer = s64_session_exchange(following->account,
									  s64_request_make_poll(following->account, follow,
															following->task_id));
		task = s64_task_read(follow, answer);
		if (task.state == TASK_FAILED)
			ereport(ERROR,
					(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
					 errmsg("the service could not do it: %s", task.error)));
		if (task.state == TASK_COMPLETED)
			return task.result;
		tell(following, s64_task_progress(answer));
	}
}

/* ---- either ---- */

/* Start it, and follow it unless only_start; the result if it has ended. */
static Jsonb *
run(Following *following)
{
	InquiryWatch watch = {look, following};
	Jsonb	   *answer = NULL;

	if (s64_guc_route != ROUTE_DIRECT &&
		s64_inquiry_make(following->account, following->endpoint, following->body,
						 &watch, &answer))
	{
		/* what was asked before has ended already */
		if (answer != NULL && following->task_id == NULL)
			following->task_id = s64_task_origin(following->endpoint->follow, answer).id;
		return answer;
	}
	if (s64_guc_route == ROUTE_WORKER)
		s64_unasked_no_worker();
	start(following);
	return following->only_start ? NULL : await(following);
}

/* What the call asks for; false if that is nothing */
static bool
begin(FunctionCallInfo fcinfo, Following *following)
{
	const Operation *operation = s64_operation_get(fcinfo);

	memset(following, 0, sizeof(Following));
	if (s64_operation_asks_nothing(fcinfo, operation))
		return false;
	following->endpoint = operation->endpoint;
	following->account = s64_account_get(s64_guc_server, GetUserId());
	following->body = s64_request_normalize(operation->endpoint,
											s64_operation_body(fcinfo, operation));
	return true;
}

/* sixtyfour_search(...), sixtyfour_run_workflow(...) → SETOF jsonb */
Datum
sixtyfour_follow(PG_FUNCTION_ARGS)
{
	Rowset		rowset = s64_rowset_begin(fcinfo);
	ErrorContextCallback callback;
	Following	following;
	Jsonb	   *answer;

	if (!begin(fcinfo, &following))
		return (Datum) 0;
	callback.callback = add_context;
	callback.arg = &following;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	answer = run(&following);
	s64_fetch_answer(following.account, following.endpoint->rows, answer, &rowset);
	error_context_stack = callback.previous;
	return (Datum) 0;
}

/* sixtyfour_start_search(...), sixtyfour_start_workflow(...) → text */
Datum
sixtyfour_start(PG_FUNCTION_ARGS)
{
	Following	following;

	if (!begin(fcinfo, &following))
		PG_RETURN_NULL();
	following.only_start = true;
	(void) run(&following);
	if (following.task_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: the service's answer does not name the task",
						following.endpoint->name)));
	PG_RETURN_TEXT_P(cstring_to_text(following.task_id));
}

static Datum
fetch(FunctionCallInfo fcinfo, RowsPlace place)
{
	Rowset		rowset = s64_rowset_begin(fcinfo);

	if (!PG_ARGISNULL(0))
		s64_fetch_rows(s64_account_get(s64_guc_server, GetUserId()), place,
					   text_to_cstring(PG_GETARG_TEXT_PP(0)), &rowset);
	return (Datum) 0;
}

/* sixtyfour_search_download(resource_handle_id text) → SETOF jsonb */
Datum
sixtyfour_search_download(PG_FUNCTION_ARGS)
{
	return fetch(fcinfo, ROWS_SEARCH);
}

/* sixtyfour_workflow_results(run_id text) → SETOF jsonb */
Datum
sixtyfour_workflow_results(PG_FUNCTION_ARGS)
{
	return fetch(fcinfo, ROWS_WORKFLOW);
}
