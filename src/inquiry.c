/*-------------------------------------------------------------------------
 *
 * inquiry.c
 *		A question put to the worker, and awaited by this session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "ask.h"
#include "compat.h"
#include "guc.h"
#include "home.h"
#include "inquiry.h"
#include "ledger.h"
#include "meter.h"
#include "report.h"
#include "request.h"
#include "roster.h"
#include "sql.h"

#define LOOK_GAP		1000	/* ms between two looks without news */
#define PATIENCE		INT64CONST(5000000)	/* µs, for a worker that must start */

/* An inquiry in progress */
typedef struct Inquiry
{
	const Account *account;
	const Endpoint *endpoint;
	int			cents;			/* expected */
	TimestampTz deadline;
	int64		job;			/* 0: not queued yet */
	bool		ended;			/* and what became of it is known */
	const InquiryWatch *watch;	/* or NULL */
} Inquiry;

/* ---- before asking ---- */

static SqlStatement select_stored = {
	"SELECT answer FROM sixtyfour.result WHERE fingerprint = $1 AND account = $2"
	" AND created_at > clock_timestamp() - make_interval(secs => $3)"
	" ORDER BY created_at DESC LIMIT 1",
	3, {UUIDOID, UUIDOID, FLOAT8OID}, NULL
};

static SqlStatement select_own = {
	"SELECT xmin, id FROM sixtyfour.job WHERE fingerprint = $1 AND state = 'queued'",
	1, {UUIDOID}, NULL
};

/* A stored answer that is young enough; NULL if there is none */
static Jsonb *
find_stored(const Account *account, const pg_uuid_t *fingerprint)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[3] = {UUIDPGetDatum(fingerprint), UUIDPGetDatum(&account->id),
	Float8GetDatum(s64_guc_cache_ttl)};
	Jsonb	   *answer = NULL;

	if (s64_guc_cache_ttl == 0)
		return NULL;
	s64_sql_begin();
	if (s64_sql_run_latest(&select_stored, values, NULL) > 0)
	{
		bool		isnull;
		MemoryContext old = MemoryContextSwitchTo(context);

		answer = (Jsonb *) PG_DETOAST_DATUM_COPY(s64_sql_value(0, 1, &isnull));
		MemoryContextSwitchTo(old);
	}
	s64_sql_end();
	return answer;
}

/* What this transaction has queued is sent when it commits, not before. */
static void
check_not_queued_here(const pg_uuid_t *fingerprint)
{
	Datum		value = UUIDPGetDatum(fingerprint);
	int64		own = 0;
	uint64		rows;

	s64_sql_begin();
	rows = s64_sql_run_latest(&select_own, &value, NULL);
	for (uint64 i = 0; i < rows && own == 0; i++)
	{
		bool		isnull;
		TransactionId xmin = DatumGetTransactionId(s64_sql_value(i, 1, &isnull));

		if (TransactionIdIsCurrentTransactionId(xmin))
			own = s64_sql_int8(i, 2);
	}
	s64_sql_end();
	if (own != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " was queued by this transaction", own),
				 errdetail("It asks the same, and is sent when the transaction commits."),
				 errhint("Commit first.")));
}

/* What would keep the job from being sent is said at once. */
static void
check_account(const Inquiry *inquiry)
{
	const Account *account = inquiry->account;
	TimestampTz now = GetCurrentTimestamp();
	MeterReading reading = s64_meter_read(account, now);

	if (reading.paused_until > now)
		s64_report_paused(inquiry->endpoint->name, reading.paused_by, reading.paused_until);
	if (account->daily_budget >= 0 &&
		reading.spent_today + reading.at_risk + inquiry->cents > account->daily_budget)
		s64_report_no_budget(inquiry->endpoint->name, account, inquiry->cents,
							 reading.spent_today + reading.at_risk);
	if (reading.hold_until > inquiry->deadline)
		s64_report_no_slot(inquiry->endpoint->name, account, reading.hold_until - now);
}

static void
check_not_paused(void)
{
	char	   *reason = s64_home_paused();

	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the queue of this database is paused"),
				 *reason ? errdetail_internal("%s", reason) : 0,
				 errhint("Use sixtyfour_resume().")));
}

/* ---- getting it into the queue ---- */

/* Is there a worker, or will there be one when it is woken? */
static bool
is_somebody_there(void)
{
	RosterRow	row;

	if (!s64_ask_is_there() || RecoveryInProgress())
		return false;
	s64_roster_wake(MyDatabaseId, PROCESS_WORKER);
	return !s64_roster_find(PROCESS_WORKER, &row) || strcmp(row.state, "not allowed") != 0;
}

/* Is the worker there, and in no trouble?  Then it will take the question. */
static bool
is_worker_at_work(void)
{
	RosterRow	row;

	return s64_roster_find(PROCESS_WORKER, &row) && row.pid != 0 &&
		row.message[0] == '\0' && !row.hidden;
}

static void
sleep_for_news(void)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = s64_wait_event_new("SixtyfourAnswer");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_GAP,
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Wait until the question is a job; 0 if nobody takes it. */
static int64
get_queued(Inquiry *inquiry)
{
	TimestampTz since = GetCurrentTimestamp();

	for (;;)
	{
		AskNews		news = s64_ask_look();

		if (news.state == ASK_QUEUED)
			return news.job;
		if (news.state == ASK_REFUSED)
			ereport(ERROR,
					(errcode(news.sqlstate),
					 errmsg_internal("%s", news.message)));
		if (GetCurrentTimestamp() >= inquiry->deadline)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("%s: the worker did not take the question in time",
							inquiry->endpoint->name),
					 errhint("See sixtyfour.workers.")));
		if (GetCurrentTimestamp() > since + PATIENCE && !is_worker_at_work() &&
			s64_ask_withdraw())
			return 0;
		sleep_for_news();
	}
}

/* ---- waiting for the answer ---- */

static SqlStatement select_job = {
	"SELECT j.state, j.call, j.sqlstate, j.message, j.detail, j.hint, r.answer, j.run_at,"
	" c.task_id FROM sixtyfour.job j LEFT JOIN sixtyfour.result r ON r.id = j.result"
	" LEFT JOIN sixtyfour.call c ON c.id = j.call WHERE j.id = $1",
	1, {INT8OID}, NULL
};

/* The job as it is now */
typedef struct JobNews
{
	char	   *state;
	int64		call;
	Failure		failure;		/* sqlstate 0: none */
	Jsonb	   *answer;
	TimestampTz run_at;
	char	   *task_id;		/* of its call, or NULL */
} JobNews;

static int
read_sqlstate(const char *s)
{
	return strlen(s) == 5 ? MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4])
		: ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
}

static JobNews
read_job(int64 job)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		value = Int64GetDatum(job);
	JobNews		news = {0};
	bool		isnull;
	Datum		answer;
	char	   *sqlstate;

	s64_sql_begin();
	if (s64_sql_run_latest(&select_job, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job " INT64_FORMAT " does not exist any more", job)));
	context = MemoryContextSwitchTo(context);
	news.state = s64_sql_text(0, 1);
	news.call = s64_sql_int8(0, 2);
	sqlstate = s64_sql_text(0, 3);
	if (sqlstate != NULL)
		news.failure.sqlstate = read_sqlstate(sqlstate);
	news.failure.message = s64_sql_text(0, 4);
	news.failure.detail = s64_sql_text(0, 5);
	news.failure.hint = s64_sql_text(0, 6);
	answer = s64_sql_value(0, 7, &isnull);
	news.answer = isnull ? NULL : (Jsonb *) PG_DETOAST_DATUM_COPY(answer);
	news.run_at = DatumGetTimestampTz(s64_sql_value(0, 8, &isnull));
	news.task_id = s64_sql_text(0, 9);
	MemoryContextSwitchTo(context);
	s64_sql_end();
	return news;
}

/*
 * A job that is queued again after a refusal is tried again, but who waits for
 * it wants to know: except where it is only to wait for its turn.
 */
static void
check_queued(const Inquiry *inquiry, const JobNews *news)
{
	if (news->failure.sqlstate == 0)
		return;
	/* refused together with others, and now tried alone */
	if (news->failure.sqlstate == ERRCODE_INVALID_PARAMETER_VALUE)
		return;
	if (news->failure.sqlstate == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED &&
		news->run_at <= inquiry->deadline)
		return;
	s64_report_failure(&news->failure);
}

static void
report_timeout(const Inquiry *inquiry, const JobNews *news)
{
	if (strcmp(news->state, "queued") == 0)
		s64_report_no_slot(inquiry->endpoint->name, inquiry->account, 0);
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("%s: the service did not answer in time", inquiry->endpoint->name),
			 errdetail("Job " INT64_FORMAT " goes on.", inquiry->job),
			 errhint("Ask again, or use sixtyfour_wait(" INT64_FORMAT "), to get its answer.",
					 inquiry->job)));
}

/* Return if the job is under way, raise how it ended unless it succeeded. */
static void
check_news(Inquiry *inquiry, const JobNews *news)
{
	inquiry->ended = strcmp(news->state, "sending") != 0 &&
		strcmp(news->state, "running") != 0 &&
		(strcmp(news->state, "queued") != 0 || news->failure.sqlstate != 0);
	if (strcmp(news->state, "succeeded") == 0 && news->answer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA),
				 errmsg("the answer to job " INT64_FORMAT " was to be forgotten", inquiry->job)));
	if (strcmp(news->state, "failed") == 0)
		s64_report_failure(&news->failure);
	if (strcmp(news->state, "uncertain") == 0)
		s64_report_uncertain(news->call, s64_report_join(news->failure.message,
														 news->failure.detail));
	if (strcmp(news->state, "cancelled") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("job " INT64_FORMAT " was cancelled", inquiry->job)));
	if (strcmp(news->state, "queued") == 0)
		check_queued(inquiry, news);
}

/* Does who asked know enough, as the task is named and runs? */
static bool
is_enough(const Inquiry *inquiry, const JobNews *news)
{
	return inquiry->watch != NULL && news->task_id != NULL &&
		strcmp(news->state, "running") == 0 &&
		inquiry->watch->look(news->call, news->task_id, inquiry->watch->arg);
}

/* The answer, once there is one; NULL if the watch did not want it */
static Jsonb *
get_answer(Inquiry *inquiry)
{
	const char *last = "";

	for (;;)
	{
		JobNews		news = read_job(inquiry->job);

		check_news(inquiry, &news);
		if (strcmp(news.state, "succeeded") == 0)
			return news.answer;
		if (is_enough(inquiry, &news))
			return NULL;
		/* not at once: what is set aside may be for this very job */
		if (strcmp(news.state, "queued") == 0 && strcmp(last, "queued") == 0)
			check_account(inquiry);
		last = news.state;
		if (GetCurrentTimestamp() >= inquiry->deadline)
			report_timeout(inquiry, &news);
		sleep_for_news();
	}
}

/* What an error while waiting (a cancel above all) must say */
static void
add_context(void *arg)
{
	const Inquiry *inquiry = arg;

	if (inquiry->job != 0 && inquiry->ended)
		errcontext("Sixtyfour job " INT64_FORMAT, inquiry->job);
	else if (inquiry->job != 0)
		errcontext("Sixtyfour job " INT64_FORMAT ", whose answer is kept once it is sent",
				   inquiry->job);
}

bool
s64_inquiry_make(const Account *account, const Endpoint *endpoint, Jsonb *body,
				 const InquiryWatch *watch, Jsonb **answer)
{
	pg_uuid_t	fingerprint = s64_request_fingerprint(endpoint, body);
	Inquiry		inquiry = {0};
	Ask			ask = {endpoint->name, account->server, account->userid,
	s64_guc_cache_ttl, body};
	ErrorContextCallback callback;

	*answer = find_stored(account, &fingerprint);
	if (*answer != NULL)
		return true;
	check_not_queued_here(&fingerprint);
	if (!is_somebody_there())
		return false;
	inquiry.account = account;
	inquiry.endpoint = endpoint;
	inquiry.watch = watch;
	inquiry.cents = s64_request_expected_cents(account, endpoint, body);
	inquiry.deadline = GetCurrentTimestamp() + account->timeout * INT64CONST(1000);
	check_not_paused();
	check_account(&inquiry);

	s64_ask_put(&ask);
	s64_roster_wake(MyDatabaseId, PROCESS_WORKER);
	inquiry.job = get_queued(&inquiry);
	if (inquiry.job == 0)
		return false;
	callback.callback = add_context;
	callback.arg = &inquiry;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	*answer = get_answer(&inquiry);
	error_context_stack = callback.previous;
	s64_ask_end(false);
	return true;
}
