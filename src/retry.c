/*-------------------------------------------------------------------------
 *
 * retry.c
 *		Tries again what failed: reads again the answer that came, or asks again.
 *
 * Where the answer is here, and only its rows are not in the table that was named
 * for them, that is what is tried again.
 *
 * An answer that could not be read was paid for, and is kept as text.  Another
 * version of the library, or another setting, may be able to read it.  If what
 * is kept is no answer at all (a proxy's page, or the beginning of a long one),
 * the service is asked for it again, which is free where it is that of a task.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

#include "arrival.h"
#include "compat.h"
#include "encoding.h"
#include "endpoint.h"
#include "errand.h"
#include "ledger.h"
#include "sql.h"
#include "task.h"
#include "uncertain.h"

S64_FUNCTION(sixtyfour_retry);

/* A job and the answer that is kept for it */
typedef struct Kept
{
	int64		call;
	int			item;
	int			items;
	const Endpoint *endpoint;
	bool		polled;			/* raw is about a task, not its answer */
	int64		result;			/* stored already; 0: none */
	char	   *raw;			/* NULL: none */
	int			cents;			/* of the call; -1: not known */
	bool		unreadable;		/* raw is not even JSON, or not the whole truth */
} Kept;

/* Locks the job, so that it is retried once. */
static SqlStatement select_kept = {
	"SELECT j.owner::oid, coalesce(j.call, 0), coalesce(j.item, 0)::int, coalesce(c.items, 1), j.operation,"
	" c.task_id IS NOT NULL, r.id,"
	" CASE WHEN c.message IS DISTINCT FROM $2 THEN c.raw END, coalesce(c.cents, -1),"
	" CASE j.state WHEN 'failed' THEN j.sqlstate IN ('08P01', '54000') AND c.state IN ('failed', 'done')"
	"  WHEN 'cancelled' THEN c.sqlstate IN ('08P01', '54000') AND c.state = 'failed' END,"
	" j.state IN ('failed', 'cancelled') AND c.state = 'failed' AND c.message = $2"
	" FROM sixtyfour.job j LEFT JOIN sixtyfour.call c ON c.id = j.call"
	" LEFT JOIN sixtyfour.result r ON r.call = j.call AND r.item = j.item"
	" WHERE j.id = $1 FOR NO KEY UPDATE OF j",
	2, {INT8OID, TEXTOID}, NULL
};

static SqlStatement store_result = {
	"INSERT INTO sixtyfour.result (call, item, account, fingerprint, operation, answer, cents)"
	" SELECT i.call, i.item, i.account, i.fingerprint, c.operation, $3, nullif($4, -1)"
	" FROM sixtyfour.call_item i JOIN sixtyfour.call c ON c.id = i.call"
	" WHERE i.call = $1 AND i.item = $2 RETURNING id",
	4, {INT8OID, INT2OID, JSONBOID, INT4OID}, NULL
};

static SqlStatement mend_call = {
	"UPDATE sixtyfour.call SET state = 'done', sqlstate = NULL, message = NULL, detail = NULL, hint = NULL"
	" WHERE id = $1 AND state = 'failed'",
	1, {INT8OID}, NULL
};

static SqlStatement mend_job = {
	"UPDATE sixtyfour.job SET state = 'succeeded', result = $2, finished_at = clock_timestamp(),"
	" sqlstate = NULL, message = NULL, detail = NULL, hint = NULL,"
	" delivery = CASE WHEN coalesce(enrichment, into_table::oid::bigint) IS NULL THEN 'none' ELSE 'pending' END"
	" WHERE id = $1 AND state IN ('failed', 'cancelled')",
	2, {INT8OID, INT8OID}, NULL
};

/*
 * The job's call is open again: here, or by the retry of another of its jobs.  One
 * that was cancelled needs this only until the call holds its question again.
 */
static SqlStatement follow_call = {
	"UPDATE sixtyfour.job SET finished_at = NULL, sqlstate = '08007', message = c.message, detail = NULL, hint = NULL,"
	" state = CASE c.state WHEN 'accepted' THEN 'running' ELSE 'uncertain' END"
	" FROM sixtyfour.call c WHERE job.id = $1 AND c.id = job.call AND c.state IN ('accepted', 'expired')"
	" AND (job.state = 'failed' AND job.sqlstate IN ('08P01', '54000') OR"
	"      job.state = 'cancelled' AND c.finished_at IS NOT NULL)",
	1, {INT8OID}, NULL
};

static SqlStatement queue_job = {
	"UPDATE sixtyfour.job SET state = 'queued', call = NULL, item = NULL, result = NULL,"
	" run_at = now(), finished_at = NULL, sqlstate = NULL, message = NULL, detail = NULL, hint = NULL,"
	" resubmits = 0, shared = false"
	" WHERE id = $1 AND state IN ('failed', 'cancelled')",
	1, {INT8OID}, NULL
};

static int
int_value(int column)
{
	bool		isnull;

	return DatumGetInt32(s64_sql_value(0, column, &isnull));
}

static bool
bool_value(int column)
{
	bool		isnull;
	Datum		value = s64_sql_value(0, column, &isnull);

	return !isnull && DatumGetBool(value);
}

/* Lock the job and find what is kept for it; false if nothing is. */
static bool
find_kept(int64 job, Kept *kept)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[2] = {Int64GetDatum(job), CStringGetTextDatum(S64_LEDGER_POISONED)};
	bool		found;
	bool		isnull;
	Oid			owner = InvalidOid;
	bool		failed = false;

	s64_sql_begin();
	found = s64_sql_run(&select_kept, values, NULL) > 0;
	context = MemoryContextSwitchTo(context);
	if (found)
	{
		owner = DatumGetObjectId(s64_sql_value(0, 1, &isnull));
		kept->call = s64_sql_int8(0, 2);
		kept->item = int_value(3);
		kept->items = int_value(4);
		kept->endpoint = s64_endpoint_find(s64_sql_text(0, 5));
		kept->polled = bool_value(6);
		kept->result = s64_sql_int8(0, 7);
		kept->raw = s64_sql_text(0, 8);
		kept->cents = int_value(9);
		failed = bool_value(10);
		kept->unreadable = bool_value(11);
	}
	MemoryContextSwitchTo(context);
	s64_sql_end();
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job " INT64_FORMAT " does not exist", job)));
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for job " INT64_FORMAT, job)));
	return failed && kept->endpoint != NULL && (kept->result != 0 || kept->raw != NULL);
}

/*
 * The text as JSON; NULL, and why not.  The attempt may end in an error that is
 * caught, hence the subtransaction.
 */
static Jsonb *
read_json(const char *raw, char **why)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *text = s64_encoding_to_utf8(raw);
	Jsonb	   *json;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	json = s64_encoding_read_json(pstrdup(text), strlen(text), why);
	if (json == NULL)
		RollbackAndReleaseCurrentSubTransaction();
	else
		ReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return json;
}

/* The job's part of an answer to a bulk request; NULL if there is none */
static Jsonb *
find_part(const Kept *kept, Jsonb *answer)
{
	Jsonb	  **subjects = palloc0(kept->items * sizeof(Jsonb *));
	Jsonb	  **parts = palloc0(kept->items * sizeof(Jsonb *));

	s64_ledger_subjects(kept->call, subjects, kept->items);
	s64_task_match(kept->endpoint, answer, subjects, kept->items, parts);
	return kept->item < kept->items ? parts[kept->item] : NULL;
}

/* The answer to the job in what is kept; NULL, and why not. */
static Jsonb *
read_answer(Kept *kept, char **why)
{
	Jsonb	   *answer = read_json(kept->raw, why);

	kept->unreadable = answer == NULL;
	if (answer != NULL && kept->polled)
	{
		TaskStatus	task = s64_task_read(s64_endpoint_follow(kept->endpoint), answer);

		*why = "It gives no result.";
		answer = task.state == TASK_COMPLETED ? task.result : NULL;
		if (kept->cents < 0)
			kept->cents = task.cents;
	}
	else if (answer != NULL && kept->endpoint->answer == ANSWER_OBJECT &&
			 !JB_ROOT_IS_OBJECT(answer))
	{
		*why = "It is not a JSON object.";
		return NULL;
	}
	if (answer != NULL && kept->items > 1)
	{
		*why = "It has nothing that can be told to be about this lead.";
		answer = find_part(kept, answer);
	}
	return answer;
}

static int64
store_answer(const Kept *kept, Jsonb *answer)
{
	int			n = kept->items;
	Datum		values[4] = {Int64GetDatum(kept->call), Int16GetDatum(kept->item),
	JsonbPGetDatum(answer), 0};
	int64		result;

	values[3] = Int32GetDatum(kept->cents < 0 ? -1 : kept->cents / n +
							  (kept->item < kept->cents % n ? 1 : 0));
	s64_sql_begin();
	if (s64_sql_run(&store_result, values, NULL) == 0)
		elog(ERROR, "call " INT64_FORMAT " has no item %d", kept->call, kept->item);
	result = s64_sql_int8(0, 1);
	s64_sql_end();
	return result;
}

/* Give the job the answer that was paid for; false if it cannot be read. */
static bool
use_kept(int64 job, Kept *kept, char **why)
{
	Datum		values[2] = {Int64GetDatum(job), 0};

	if (kept->result == 0)
	{
		Jsonb	   *answer = read_answer(kept, why);

		if (answer == NULL)
			return false;
		kept->result = store_answer(kept, answer);
	}
	values[1] = Int64GetDatum(kept->result);
	s64_sql_begin();
	s64_sql_run(&mend_job, values, NULL);
	values[0] = Int64GetDatum(kept->call);
	s64_sql_run(&mend_call, values, NULL);
	s64_sql_end();
	s64_errand_wake(PROCESS_WRITER);
	ereport(NOTICE,
			(errmsg("job " INT64_FORMAT " has the answer kept with call " INT64_FORMAT ", and is not asked again",
					job, kept->call)));
	return true;
}

/*
 * Have the service asked again about the task of a call whose answer could not
 * be read; false if that is not what is to be done.
 */
static bool
ask_about_task(int64 job, const Kept *kept, const char *why)
{
	Datum		value = Int64GetDatum(job);

	if (kept->polled && kept->unreadable)
		(void) s64_uncertain_reopen(kept->call);
	if (s64_sql_execute(&follow_call, &value, NULL) == 0)
		return false;
	s64_errand_wake(PROCESS_WORKER);
	ereport(NOTICE,
			(errmsg("the service is asked again for the answer to job " INT64_FORMAT ", which costs nothing", job),
			 why ? errdetail("What is kept with call " INT64_FORMAT " cannot be read: %s", kept->call, why) : 0));
	return true;
}

/* sixtyfour_retry(job bigint) → boolean: was there something to try again? */
Datum
sixtyfour_retry(PG_FUNCTION_ARGS)
{
	Datum		job = PG_GETARG_DATUM(0);
	Kept		kept = {0};
	char	   *why = NULL;
	bool		queued;

	if (find_kept(DatumGetInt64(job), &kept) &&
		use_kept(DatumGetInt64(job), &kept, &why))
		PG_RETURN_BOOL(true);
	if (s64_arrival_again(DatumGetInt64(job)))
	{
		s64_errand_wake(PROCESS_WRITER);
		PG_RETURN_BOOL(true);
	}
	if (ask_about_task(DatumGetInt64(job), &kept, why))
		PG_RETURN_BOOL(true);
	if (why != NULL)
		ereport(NOTICE,
				(errmsg("job " INT64_FORMAT " is asked again, which may cost again", DatumGetInt64(job)),
				 errdetail("The answer kept with call " INT64_FORMAT " still cannot be read: %s",
						   kept.call, why)));
	queued = s64_sql_execute(&queue_job, &job, NULL) > 0;
	if (queued)
		s64_errand_wake(PROCESS_WORKER);
	PG_RETURN_BOOL(queued);
}
