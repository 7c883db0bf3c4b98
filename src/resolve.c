/*-------------------------------------------------------------------------
 *
 * resolve.c
 *		A person decides about a call of which nobody knows whether it was billed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"
#include "errand.h"
#include "fault.h"
#include "ledger.h"
#include "task.h"
#include "uncertain.h"

S64_FUNCTION(sixtyfour_resolve);

static void
check_may_decide(int64 call)
{
	if (!s64_uncertain_may_decide(call, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for call " INT64_FORMAT, call),
				 errhint("Who has the rights of its payer, or of the owners of all its jobs, may decide.")));
}

static void
report_not_uncertain(int64 call)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("call " INT64_FORMAT " is not uncertain", call)));
}

/* Have the service asked about a task before it is the call's. */
static void
name_task(int64 call, const char *task_id)
{
	switch (s64_uncertain_name(call, task_id))
	{
		case NAMING_DONE:
			ereport(NOTICE,
					(errmsg("call " INT64_FORMAT " goes on if the service knows task \"%s\"",
							call, task_id)));
			break;
		case NAMING_TAKEN:
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("task \"%s\" is that of another call", task_id)));
			break;
		case NAMING_NOT_OPEN:
			report_not_uncertain(call);
			break;
		case NAMING_ENOUGH:
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("the service is being asked about other tasks for call " INT64_FORMAT,
							call),
					 errhint("Try again when sixtyfour.attention does not name them any more.")));
			break;
	}
}

static void
decide(int64 call, Decision decision)
{
	if (!s64_uncertain_decide(call, decision))
		report_not_uncertain(call);
	s64_ledger_carry_waiting(call);
}

/* sixtyfour_resolve(call bigint, action text) → void */
Datum
sixtyfour_resolve(PG_FUNCTION_ARGS)
{
	int64		call = PG_GETARG_INT64(0);
	char	   *action = text_to_cstring(PG_GETARG_TEXT_PP(1));

	check_may_decide(call);
	if (!s64_task_is_id(action))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the action must be 'resubmit', 'abandon' or a task id")));
	if (strcmp(action, "resubmit") == 0)
		decide(call, DECISION_RESUBMIT);
	else if (strcmp(action, "abandon") == 0)
		decide(call, DECISION_ABANDON);
	else
		name_task(call, action);
	S64_FAULT("resolve");
	s64_errand_wake(PROCESS_WORKER);
	PG_RETURN_VOID();
}
