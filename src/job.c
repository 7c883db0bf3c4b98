/*-------------------------------------------------------------------------
 *
 * job.c
 *		The SQL functions on jobs that exist.
 *
 * Changes are guarded by the state that they start from, as the worker's are
 * (see ledger.h).  Reading is with the latest snapshot, so that waits end
 * under REPEATABLE READ too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "account.h"
#include "board.h"
#include "compat.h"
#include "errand.h"
#include "home.h"
#include "fault.h"
#include "ledger.h"
#include "meter.h"
#include "report.h"
#include "request.h"
#include "roster.h"
#include "sql.h"

#define WAIT_STEP		1000	/* ms between two looks without news */
#define DELIVERY_GRACE	INT64CONST(10000000)	/* µs that a wait adds for it */
#define PROGRESS_GAP	INT64CONST(10000000)	/* µs between two NOTICEs */

S64_FUNCTION(sixtyfour_wait);
S64_FUNCTION(sixtyfour_wait_all);
S64_FUNCTION(sixtyfour_result);
S64_FUNCTION(sixtyfour_cancel);
S64_FUNCTION(sixtyfour_why);
S64_FUNCTION(sixtyfour_pause);
S64_FUNCTION(sixtyfour_resume);

/* A job as it is now */
typedef struct Job
{
	int64		id;
	char	   *state;
	char	   *delivery;
	int64		call;			/* 0: none */
	char	   *sqlstate;
	char	   *message;
	char	   *detail;
	char	   *hint;
	Oid			owner;
	Oid			payer;
	char	   *server;
	TimestampTz run_at;
	TimestampTz finished_at;
	int			attempts;
	bool		foreign;		/* it, or its call, is of another home */
	bool		uncommitted;	/* of this transaction */
	bool		asking;			/* whether a task is its call's */
	const Endpoint *endpoint;	/* NULL: not known to this library */
	Jsonb	   *body;
	Jsonb	   *answer;			/* NULL: none */
	bool		brought;		/* the job itself is of another home */
	bool		imports;		/* its answer's rows go into a table ... */
	char	   *table;			/* ... with this name */
} Job;

static SqlStatement select_job = {
	"SELECT j.state, j.delivery, j.call, j.sqlstate, j.message, j.owner, j.payer,"
	" j.server::text, j.run_at, j.finished_at, j.attempts,"
	" (j.home_system, j.home_database::bigint) <> ($2, $3) OR EXISTS ("
	"  SELECT FROM sixtyfour.call c WHERE c.id = j.call"
	"  AND (c.home_system, c.home_database::bigint) <> ($2, $3)), j.xmin, r.answer,"
	" j.operation, j.body, j.detail, j.hint,"
	" EXISTS (SELECT FROM sixtyfour.candidate k WHERE k.call = j.call),"
	" j.enrichment IS NULL AND j.into_table IS NOT NULL, j.into_table::text,"
	" (j.home_system, j.home_database::bigint) <> ($2, $3)"
	" FROM sixtyfour.job j LEFT JOIN sixtyfour.result r ON r.id = j.result"
	" WHERE j.id = $1",
	3, {INT8OID, INT8OID, INT8OID}, NULL
};

static TimestampTz
timestamp_value(int column)
{
	bool		isnull;
	Datum		value = s64_sql_value(0, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

static void
fill_job(Job *job)
{
	bool		isnull;
	Datum		value;

	job->state = s64_sql_text(0, 1);
	job->delivery = s64_sql_text(0, 2);
	job->call = s64_sql_int8(0, 3);
	job->sqlstate = s64_sql_text(0, 4);
	job->message = s64_sql_text(0, 5);
	job->owner = DatumGetObjectId(s64_sql_value(0, 6, &isnull));
	job->payer = DatumGetObjectId(s64_sql_value(0, 7, &isnull));
	job->server = s64_sql_text(0, 8);
	job->run_at = timestamp_value(9);
	job->finished_at = timestamp_value(10);
	job->attempts = DatumGetInt32(s64_sql_value(0, 11, &isnull));
	job->foreign = DatumGetBool(s64_sql_value(0, 12, &isnull));
	job->uncommitted = TransactionIdIsCurrentTransactionId(DatumGetTransactionId(s64_sql_value(0, 13, &isnull)));
	value = s64_sql_value(0, 14, &isnull);
	job->answer = isnull ? NULL : (Jsonb *) PG_DETOAST_DATUM_COPY(value);
	job->endpoint = s64_endpoint_find(s64_sql_text(0, 15));
	job->body = (Jsonb *) PG_DETOAST_DATUM_COPY(s64_sql_value(0, 16, &isnull));
	job->detail = s64_sql_text(0, 17);
	job->hint = s64_sql_text(0, 18);
	job->asking = DatumGetBool(s64_sql_value(0, 19, &isnull));
	job->imports = DatumGetBool(s64_sql_value(0, 20, &isnull));
	job->table = s64_sql_text(0, 21);
	job->brought = DatumGetBool(s64_sql_value(0, 22, &isnull));
}

static void
check_owner(int64 id, Oid owner)
{
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for job " INT64_FORMAT, id)));
}

/* The job of that id, which the current user may see */
static Job
get_job(int64 id)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[3] = {Int64GetDatum(id),
		Int64GetDatum(s64_home_system()),
	Int64GetDatum((int64) MyDatabaseId)};
	Job			job = {0};
	bool		found;

	s64_sql_begin();
	found = s64_sql_run_latest(&select_job, values, NULL) > 0;
	context = MemoryContextSwitchTo(context);
	if (found)
		fill_job(&job);
	MemoryContextSwitchTo(context);
	s64_sql_end();
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job " INT64_FORMAT " does not exist", id)));
	job.id = id;
	check_owner(id, job.owner);
	return job;
}

static bool
is_state(const Job *job, const char *state)
{
	return strcmp(job->state, state) == 0;
}

/* ---- waiting ---- */

static void
check_can_wait(const Job *job)
{
	if (job->uncommitted && is_state(job, "queued"))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " was queued by this transaction", job->id),
				 errdetail("It is sent when the transaction commits, so waiting for it would never end."),
				 errhint("Commit first.")));
	if (!s64_roster_is_there())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nobody works on job " INT64_FORMAT, job->id),
				 errhint("Add sixtyfour to \"shared_preload_libraries\" and restart the server.")));
}

static bool
is_delivery(const Job *job, const char *delivery)
{
	return strcmp(job->delivery, delivery) == 0;
}

/*
 * The answer of a job is here.  Is it home, too, or held up?  Then a wait for it
 * ends, and says so.  A file may take its time: that alone is no reason.
 */
static bool
is_delivered(const Job *job)
{
	bool		late = GetCurrentTimestamp() - job->finished_at >= DELIVERY_GRACE;

	if (job->imports && is_delivery(job, "unapplied"))
		ereport(NOTICE,
				(errmsg("job " INT64_FORMAT " has its answer, but its rows could not be inserted",
						job->id),
				 errdetail_internal("%s", s64_report_join(job->message, job->detail))));
	if (!is_delivery(job, "pending"))
		return true;
	if (!late || (job->imports && job->sqlstate == NULL && !job->brought))
		return false;
	if (!job->imports)
		ereport(NOTICE,
				(errmsg("job " INT64_FORMAT " has its answer, but it is not in the row yet: it is written later",
						job->id),
				 job->message ? errdetail_internal("%s", job->message) : 0));
	else if (job->brought)
		ereport(NOTICE,
				(errmsg("job " INT64_FORMAT " has its answer, but its rows wait for sixtyfour_resume()",
						job->id)));
	else
		ereport(NOTICE,
				(errmsg("job " INT64_FORMAT " has its answer, but its rows are held up, and are inserted later",
						job->id),
				 errdetail_internal("%s", s64_report_join(job->message, job->detail))));
	return true;
}

/* Is the job finished?  Raises the error of one that failed, if asked to. */
static bool
is_finished(const Job *job, bool raise)
{
	if (is_state(job, "uncertain") && job->asking)
		return false;
	if (is_state(job, "uncertain"))
		s64_report_uncertain(job->call, s64_report_join(job->message, job->detail));
	if (is_state(job, "succeeded"))
		return is_delivered(job);
	if (raise && is_state(job, "failed"))
		ereport(ERROR,
				(errcode(job->sqlstate
						 ? MAKE_SQLSTATE(job->sqlstate[0], job->sqlstate[1], job->sqlstate[2],
										 job->sqlstate[3], job->sqlstate[4])
						 : ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg_internal("%s", job->message ? job->message : "the job failed"),
				 job->detail ? errdetail_internal("%s", job->detail)
				 : errdetail("Job " INT64_FORMAT " failed.", job->id),
				 job->hint ? errhint("%s", job->hint) : 0));
	if (raise && is_state(job, "cancelled"))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("job " INT64_FORMAT " was cancelled", job->id)));
	return is_state(job, "failed") || is_state(job, "cancelled");
}

/* ms of the next sleep; raises 57014 once the deadline has passed */
static long
next_step(TimestampTz deadline)
{
	int64		left;

	if (deadline == DT_NOEND)
		return WAIT_STEP;
	left = (deadline - GetCurrentTimestamp()) / 1000;
	if (left <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling wait due to its timeout"),
				 errhint("The jobs go on; wait again, or fetch the answers with sixtyfour_result().")));
	return (long) Min(left, WAIT_STEP);
}

static TimestampTz
get_deadline(FunctionCallInfo fcinfo, int arg)
{
	Datum		deadline;

	if (PG_ARGISNULL(arg))
		return DT_NOEND;
	deadline = DirectFunctionCall2(timestamptz_pl_interval,
								   TimestampTzGetDatum(GetCurrentTimestamp()),
								   PG_GETARG_DATUM(arg));
	return DatumGetTimestampTz(deadline);
}

/* A context for what each look at a job takes; a wait may look often. */
static MemoryContext
wait_context(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "sixtyfour wait",
								 ALLOCSET_DEFAULT_SIZES);
}

/* sixtyfour_wait(job bigint, timeout interval) → jsonb: its answer */
Datum
sixtyfour_wait(PG_FUNCTION_ARGS)
{
	TimestampTz deadline;
	int64		id;
	Job			job;
	MemoryContext old;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	id = PG_GETARG_INT64(0);
	deadline = get_deadline(fcinfo, 1);
	old = MemoryContextSwitchTo(wait_context());
	s64_roster_prepare_wait();
	for (;;)
	{
		job = get_job(id);
		if (is_finished(&job, true))
			break;
		check_can_wait(&job);
		MemoryContextReset(CurrentMemoryContext);
		s64_roster_wait(next_step(deadline));
	}
	s64_roster_cancel_wait();
	MemoryContextSwitchTo(old);
	if (job.answer == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(job.answer);
}

/*
 * Drop the jobs that are finished, and return how many are left.  There may be
 * many, so unless all is true only the first that is left is looked at anew.  Resets
 * the current memory context, in which ids must not be.
 */
static int
drop_finished(Datum *ids, int n, bool all)
{
	int			left = 0;

	for (int i = 0; i < n; i++)
	{
		if (all || left == 0)
		{
			Job			job;

			MemoryContextReset(CurrentMemoryContext);
			job = get_job(DatumGetInt64(ids[i]));
			if (is_finished(&job, false))
				continue;
			check_can_wait(&job);
		}
		ids[left++] = ids[i];
	}
	return left;
}

static void
wait_for_jobs(Datum *ids, int n, TimestampTz deadline)
{
	TimestampTz progress = GetCurrentTimestamp() + PROGRESS_GAP;
	int			left = drop_finished(ids, n, true);

	while (left > 0)
	{
		s64_roster_wait(next_step(deadline));
		if (GetCurrentTimestamp() < progress)
			left = drop_finished(ids, left, false);
		else
		{
			left = drop_finished(ids, left, true);
			ereport(NOTICE, (errmsg("%d of %d jobs are finished", n - left, n)));
			progress += PROGRESS_GAP;
		}
	}
}

/* sixtyfour_wait_all(jobs bigint[], timeout interval) → void */
Datum
sixtyfour_wait_all(PG_FUNCTION_ARGS)
{
	MemoryContext old;
	Datum	   *ids;
	bool	   *nulls;
	int			given;
	int			n = 0;

	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, &nulls, &given);
	for (int i = 0; i < given; i++)
	{
		if (!nulls[i])
			ids[n++] = ids[i];
	}
	old = MemoryContextSwitchTo(wait_context());
	s64_roster_prepare_wait();
	wait_for_jobs(ids, n, get_deadline(fcinfo, 1));
	s64_roster_cancel_wait();
	MemoryContextSwitchTo(old);
	PG_RETURN_VOID();
}

/* sixtyfour_result(job bigint) → jsonb: its answer, NULL while it has none */
Datum
sixtyfour_result(PG_FUNCTION_ARGS)
{
	Job			job = get_job(PG_GETARG_INT64(0));

	if (job.answer == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(job.answer);
}

/* ---- changing ---- */

static SqlStatement cancel_job = {
	"UPDATE sixtyfour.job SET state = 'cancelled', finished_at = clock_timestamp(),"
	" message = NULL, sqlstate = NULL"
	" WHERE id = $1 AND state IN ('queued', 'sending', 'running', 'uncertain')",
	1, {INT8OID}, NULL
};

/* sixtyfour_cancel(job bigint) → boolean: was there something to cancel? */
Datum
sixtyfour_cancel(PG_FUNCTION_ARGS)
{
	Datum		id = PG_GETARG_DATUM(0);
	bool		changed;

	(void) get_job(DatumGetInt64(id));	/* checks the owner */
	changed = s64_sql_execute(&cancel_job, &id, NULL) > 0;
	S64_FAULT("cancel");
	if (changed)
		s64_errand_wake(PROCESS_WORKER);
	PG_RETURN_BOOL(changed);
}

/* ---- why ---- */

/* What keeps a job that is due from being sent over its account?  NULL: nothing */
static char *
why_account(const Job *job, const Account *account)
{
	TimestampTz now = GetCurrentTimestamp();
	MeterReading reading = s64_meter_read(account, now);
	int			cents = job->endpoint == NULL ? 0
		: s64_request_expected_cents(account, job->endpoint, job->body);

	if (reading.no_room)
		return "Too many API keys are in use at once on this database server; it waits until one of them is not.";
	if (reading.paused_until > now)
		return psprintf("Its account is tried again at %s, or with another key: %s.",
						timestamptz_to_str(reading.paused_until),
						reading.paused_by == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION
						? "the service refuses the API key"
						: "the balance of the account is too low");
	if (account->daily_budget >= 0 &&
		reading.spent_today + reading.at_risk + cents > account->daily_budget)
		return psprintf("The daily budget of server \"%s\" is reached: of %d cents, " INT64_FORMAT " are spent or at risk today (UTC).",
						account->server, account->daily_budget,
						reading.spent_today + reading.at_risk);
	if (reading.hold_until > now)
		return psprintf("The service's rate limit holds it back until %s.",
						timestamptz_to_str(reading.hold_until));
	return NULL;
}

/* What keeps this database's worker from working?  NULL if nothing does. */
static char *
why_no_worker(void)
{
	RosterRow	row;

	if (RecoveryInProgress())
		return "Nobody works on it: this server is a standby.";
	if (s64_roster_find(PROCESS_LAUNCHER, &row) && row.pid == 0)
		return "Nobody works on it: the launcher is not running; see the server log.";
	if (!s64_roster_find(PROCESS_WORKER, &row))
		return NULL;
	if (strcmp(row.state, "not allowed") == 0)
		return "Nobody works on it: \"sixtyfour.databases\" does not name this database, or it is a template.";
	if (strcmp(row.state, "kept away") == 0)
		return "Nobody works on it until a command that keeps the worker away, such as ALTER EXTENSION, has ended.";
	return NULL;
}

/* What trouble is the worker in, which may or may not be about this job? */
static char *
why_trouble(void)
{
	RosterRow	row;

	if (!s64_roster_find(PROCESS_WORKER, &row))
		return NULL;
	if (row.hidden)
		return "The worker of this database has failed, and tries again; its owner sees why in sixtyfour.workers.";
	if (row.message[0] != '\0')
		return psprintf("The worker of this database cannot work: %s.", row.message);
	return NULL;
}

/*
 * That, as the end of a sentence about what a process is to do next; "" if it is
 * in no trouble that the user may know of.  A pause is none for what was sent.
 */
static char *
but_trouble(ProcessKind kind)
{
	RosterRow	row;

	if (!s64_roster_find(kind, &row) || row.message[0] == '\0')
		return "";
	if (kind == PROCESS_WORKER && s64_home_paused() != NULL)
		return "";
	return psprintf(", but the %s of this database cannot work: %s",
					kind == PROCESS_WORKER ? "worker" : "writer", row.message);
}

static char *
why_queued(const Job *job)
{
	Account    *account;
	ErrorData  *error;
	char	   *no_worker;
	char	   *reason;
	bool		due;

	if (job->foreign)
		return "It was queued in a database that this one is a copy of, and waits for sixtyfour_resume().";
	if (!s64_roster_is_there())
		return "Nobody works on it: sixtyfour is not in shared_preload_libraries.";
	if ((reason = s64_home_paused()) != NULL)
		return psprintf("The queue of this database is paused until sixtyfour_resume()%s%s.",
						reason[0] ? ": " : "", reason);
	if (job->uncommitted)
		return "It is sent when this transaction commits.";
	no_worker = why_no_worker();
	if (no_worker != NULL)
		return no_worker;
	account = s64_account_try(job->server, job->payer, true, &error);
	if (account == NULL && GetUserNameFromId(job->payer, true) == NULL)
		return "It is never sent, as the role that was to pay for it was dropped.";
	if (account == NULL)
		return psprintf("It waits until its account can be used: %s.", error->message);
	if (job->run_at > GetCurrentTimestamp() && job->message != NULL)
		return psprintf("It is tried again at %s: %s.",
						timestamptz_to_str(job->run_at), s64_report_join(job->message, job->detail));
	due = job->run_at <= GetCurrentTimestamp();
	reason = due ? why_account(job, account) : NULL;
	if (reason == NULL)
		reason = why_trouble();
	if (reason == NULL && !due)
		reason = psprintf("It is not due before %s.", timestamptz_to_str(job->run_at));
	return reason ? reason : "It waits for its turn within the account's rate limit.";
}

static char *
why_running(const Job *job)
{
	ErrorData  *error;
	char	   *progress = s64_board_read(job->call);

	if (s64_account_try(job->server, job->payer, false, &error) != NULL)
		return psprintf("The service works on it, as call " INT64_FORMAT "%s%s.", job->call,
						progress ? psprintf(" (%s)", progress) : "", but_trouble(PROCESS_WORKER));
	return psprintf("The service works on it, as call " INT64_FORMAT ", but its account cannot be used to ask for the answer: %s.",
					job->call, error->message);
}

/* Of a job that succeeded, whose rows go into a table */
static char *
why_imported(const Job *job)
{
	char	   *said = job->message ? s64_report_join(job->message, job->detail) : NULL;

	if (is_delivery(job, "applied"))
		return psprintf("It succeeded: %s.", said ? said : "its rows were inserted");
	if (is_delivery(job, "unapplied"))
		return psprintf("It succeeded, but its rows could not be inserted into %s: %s; mend it, then use sixtyfour_retry(" INT64_FORMAT ").",
						job->table, said, job->id);
	if (job->brought)
		return "It succeeded in a database that this one is a copy of; its rows wait for sixtyfour_resume().";
	if (job->sqlstate != NULL)
		return psprintf("It succeeded; its rows are tried again at %s: %s%s.",
						timestamptz_to_str(job->run_at), said, but_trouble(PROCESS_WRITER));
	return psprintf("It succeeded; its rows are on their way into %s%s.", job->table,
					but_trouble(PROCESS_WRITER));
}

/* Of a job that succeeded */
static char *
why_succeeded(const Job *job)
{
	if (job->imports && !is_delivery(job, "none"))
		return why_imported(job);
	if (is_delivery(job, "pending"))
		return psprintf("It succeeded; its answer waits to be written to the row%s.",
						but_trouble(PROCESS_WRITER));
	if (is_delivery(job, "unapplied"))
		return psprintf("It succeeded, but its answer could not be written to the row: %s.",
						s64_report_join(job->message, job->detail));
	return "It succeeded.";
}

/* sixtyfour_why(job bigint) → text: one sentence */
Datum
sixtyfour_why(PG_FUNCTION_ARGS)
{
	Job			job = get_job(PG_GETARG_INT64(0));
	char	   *why;

	if (is_state(&job, "queued"))
		why = why_queued(&job);
	else if (job.foreign && (is_state(&job, "sending") || is_state(&job, "running")))
		why = "It was sent from a database that this one is a copy of, and is not followed before sixtyfour_resume().";
	else if (is_state(&job, "sending"))
		why = psprintf("Its request is on the way to the service%s.", but_trouble(PROCESS_WORKER));
	else if (is_state(&job, "running"))
		why = why_running(&job);
	else if (is_state(&job, "uncertain") && job.asking)
		why = psprintf("Call " INT64_FORMAT " may have been accepted and billed; the service is being asked about a task that is said to be its.",
					   job.call);
	else if (is_state(&job, "uncertain"))
		why = psprintf("Call " INT64_FORMAT " may have been accepted and billed, but its answer is unknown (%s); use sixtyfour_resolve(" INT64_FORMAT ", ...).",
					   job.call, s64_report_join(job.message, job.detail), job.call);
	else if (is_state(&job, "failed"))
		why = psprintf("It failed: %s.", s64_report_join(job.message, job.detail));
	else if (is_state(&job, "cancelled"))
		why = "It was cancelled.";
	else
		why = why_succeeded(&job);
	PG_RETURN_TEXT_P(cstring_to_text(why));
}

/* ---- pausing ---- */

static void
check_database_owner(void)
{
	if (!s64_database_ownercheck(MyDatabaseId, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the database to pause or resume its queue")));
}

/* sixtyfour_pause() → void: submit nothing until sixtyfour_resume() */
Datum
sixtyfour_pause(PG_FUNCTION_ARGS)
{
	check_database_owner();
	s64_home_pause();
	PG_RETURN_VOID();
}

/* sixtyfour_resume() → void: go on, also with what a copy brought along */
Datum
sixtyfour_resume(PG_FUNCTION_ARGS)
{
	check_database_owner();
	s64_ledger_resume();
	s64_errand_wake(PROCESS_WORKER);
	s64_errand_wake(PROCESS_WRITER);
	PG_RETURN_VOID();
}
