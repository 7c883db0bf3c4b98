/*-------------------------------------------------------------------------
 *
 * ledger.c
 *		Every transition of a call, and what it means for its jobs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "errand.h"
#include "home.h"
#include "ledger.h"
#include "retention.h"
#include "sql.h"

#define STRAGGLERS_GAP INT64CONST(60000000)	/* µs, between two looks for unknown ones */
#define OPEN_CALL "('sending', 'accepted', 'uncertain', 'expired')"
#define OPEN_JOB "('sending', 'running', 'uncertain')"

/* Some jobs may lag behind their call, as they were locked. */
static bool stragglers = true;

/* ---- small helpers ---- */

static Datum
home_system(void)
{
	return Int64GetDatum(s64_home_system());
}

static Datum
home_database(void)
{
	return ObjectIdGetDatum(MyDatabaseId);
}

/* Run a statement on its own between begin and end. */
static Datum
text_or_null(const char *text, char *null)
{
	*null = text == NULL ? 'n' : ' ';
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static Datum
int4_or_null(int value, char *null)
{
	*null = value < 0 ? 'n' : ' ';
	return Int32GetDatum(value);
}

static Datum
sqlstate_text(int sqlstate)
{
	return CStringGetTextDatum(unpack_sql_state(sqlstate));
}

/* ---- taking over ---- */

/* Can the call be sent again, as the service knows its operation's again? */
#define AGAIN \
	"(operation = ANY ($4) AND created_at > clock_timestamp() - make_interval(secs => $5)" \
	" AND " S64_HOME_GOES_ON("$1", "$2") \
	" AND EXISTS (SELECT FROM sixtyfour.job j WHERE j.call = call.id AND j.state = 'sending'))"

#define TAKE_OVER(condition, lost) \
	"UPDATE sixtyfour.call SET epoch = $3," \
	" state = CASE WHEN " lost " THEN 'uncertain' ELSE state END," \
	" sqlstate = CASE WHEN " lost " THEN '08007' ELSE sqlstate END," \
	" message = CASE WHEN " lost " THEN" \
	" 'the worker ended before the service answered' ELSE message END" \
	" WHERE id IN (SELECT id FROM sixtyfour.call WHERE " condition \
	" AND home_system = $1 AND home_database = $2 FOR NO KEY UPDATE SKIP LOCKED)"

static SqlStatement take_over_calls = {
	TAKE_OVER("state IN " OPEN_CALL, "state = 'sending' AND NOT " AGAIN),
	5, {INT8OID, OIDOID, INT8OID, TEXTARRAYOID, FLOAT8OID}, NULL
};

/* Those that somebody had locked then */
static SqlStatement take_over_rest = {
	TAKE_OVER("state = 'sending' AND epoch <> $3 AND " S64_HOME_HAS_EPOCH("$3", "$1", "$2"),
			  "state = 'sending'"),
	3, {INT8OID, OIDOID, INT8OID}, NULL
};

/* The operations whose submissions the service knows again */
static Datum
known_again(void)
{
	ArrayBuildState *names = NULL;
	const Endpoint *endpoint;

	for (int i = 0; (endpoint = s64_endpoint_at(i)) != NULL; i++)
	{
		if (s64_endpoint_is_known_again(endpoint))
			names = accumArrayResult(names, CStringGetTextDatum(endpoint->name), false,
									 TEXTOID, CurrentMemoryContext);
	}
	return makeArrayResult(names, CurrentMemoryContext);
}

int64
s64_ledger_take_over(void)
{
	Datum		values[5];
	int64		epoch = s64_home_take_over();
	bool		delivering;

	s64_sql_begin();
	values[0] = home_system();
	values[1] = home_database();
	values[2] = Int64GetDatum(epoch);
	values[3] = known_again();
	values[4] = Float8GetDatum(S64_RESEND_WINDOW / 1e6);
	s64_sql_run(&take_over_calls, values, NULL);
	s64_sql_end();
	stragglers = true;
	s64_ledger_carry_stragglers(&delivering);
	return epoch;
}

static SqlStatement select_unanswered = {
	"SELECT c.id, c.uuid, c.operation, c.server::text, c.payer, j.body, c.expected_cents, c.created_at,"
	" c.account FROM sixtyfour.call c JOIN LATERAL"
	"  (SELECT body FROM sixtyfour.job WHERE job.call = c.id LIMIT 1) j ON true"
	" WHERE c.state = 'sending' AND c.epoch = $1 AND c.home_system = $2 AND c.home_database = $3",
	3, {INT8OID, INT8OID, OIDOID}, NULL
};

int
s64_ledger_unanswered(int64 epoch, LedgerUnanswered **calls)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[3] = {Int64GetDatum(epoch), home_system(), home_database()};
	uint64		rows;
	bool		isnull;

	s64_sql_begin();
	rows = s64_sql_run(&select_unanswered, values, NULL);
	context = MemoryContextSwitchTo(context);
	*calls = palloc0((rows + 1) * sizeof(LedgerUnanswered));
	for (uint64 i = 0; i < rows; i++)
	{
		LedgerUnanswered *call = &(*calls)[i];

		call->call = s64_sql_int8(i, 1);
		call->uuid = *DatumGetUUIDP(s64_sql_value(i, 2, &isnull));
		call->endpoint = s64_endpoint_find(s64_sql_text(i, 3));
		call->server = s64_sql_text(i, 4);
		call->payer = DatumGetObjectId(s64_sql_value(i, 5, &isnull));
		call->body = (Jsonb *) PG_DETOAST_DATUM_COPY(s64_sql_value(i, 6, &isnull));
		call->expected_cents = DatumGetInt32(s64_sql_value(i, 7, &isnull));
		call->created_at = DatumGetTimestampTz(s64_sql_value(i, 8, &isnull));
		call->account = *DatumGetUUIDP(s64_sql_value(i, 9, &isnull));
	}
	MemoryContextSwitchTo(context);
	s64_sql_end();
	return (int) rows;
}

#define TASK_COLUMNS \
	"id, operation, task_id, server::text, payer, items, expected_cents, accepted_at," \
	" created_at, account, (SELECT body FROM sixtyfour.job WHERE job.call = call.id LIMIT 1)"

static SqlStatement select_tasks = {
	"SELECT " TASK_COLUMNS " FROM sixtyfour.call"
	" WHERE state = 'accepted' AND epoch = $1"
	" AND home_system = $2 AND home_database = $3 ORDER BY id",
	3, {INT8OID, INT8OID, OIDOID}, NULL
};

/* "epoch <> $1" finds calls of a copy that was resumed; not those of a later worker. */
static SqlStatement adopt_tasks = {
	"UPDATE sixtyfour.call SET epoch = $1"
	" WHERE state = 'accepted' AND epoch <> $1"
	" AND home_system = $2 AND home_database = $3"
	" AND " S64_HOME_HAS_EPOCH("$1", "$2", "$3") " RETURNING " TASK_COLUMNS,
	3, {INT8OID, INT8OID, OIDOID}, NULL
};

/* The kind of price that an operation and a job's body in a column make */
static PriceKind
read_kind(const char *operation, uint64 row, int column)
{
	const Endpoint *endpoint = s64_endpoint_find(operation);
	PriceKind	unknown = {0};
	bool		isnull;
	Datum		body = s64_sql_value(row, column, &isnull);

	return isnull || endpoint == NULL ? unknown
		: s64_price_kind(endpoint, DatumGetJsonbP(body));
}

/* Copy the rows of a result with TASK_COLUMNS into the caller's context. */
static LedgerTask *
read_tasks(uint64 rows, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	LedgerTask *tasks = palloc0((rows + 1) * sizeof(LedgerTask));

	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		tasks[i].call = s64_sql_int8(i, 1);
		tasks[i].operation = s64_sql_text(i, 2);
		tasks[i].task_id = s64_sql_text(i, 3);
		tasks[i].server = s64_sql_text(i, 4);
		tasks[i].payer = DatumGetObjectId(s64_sql_value(i, 5, &isnull));
		tasks[i].items = DatumGetInt32(s64_sql_value(i, 6, &isnull));
		tasks[i].expected_cents = DatumGetInt32(s64_sql_value(i, 7, &isnull));
		tasks[i].accepted_at = DatumGetTimestampTz(s64_sql_value(i, 8, &isnull));
		if (isnull)
			tasks[i].accepted_at = GetCurrentTimestamp();
		tasks[i].created_at = DatumGetTimestampTz(s64_sql_value(i, 9, &isnull));
		tasks[i].account = *DatumGetUUIDP(s64_sql_value(i, 10, &isnull));
		tasks[i].kind = read_kind(tasks[i].operation, i, 11);
	}
	MemoryContextSwitchTo(old);
	return tasks;
}

int
s64_ledger_tasks(int64 epoch, LedgerTask **tasks)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[3] = {Int64GetDatum(epoch), home_system(), home_database()};
	uint64		rows;

	s64_sql_begin();
	rows = s64_sql_run(&select_tasks, values, NULL);
	*tasks = read_tasks(rows, context);
	s64_sql_end();
	return (int) rows;
}

bool
s64_ledger_adopt(int64 epoch, LedgerTask **tasks, int *ntasks)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[3] = {Int64GetDatum(epoch), home_system(), home_database()};
	Datum		rest[3] = {home_system(), home_database(), Int64GetDatum(epoch)};
	uint64		rows;

	s64_sql_begin();
	stragglers |= s64_sql_run(&take_over_rest, rest, NULL) > 0;
	rows = s64_sql_run(&adopt_tasks, values, NULL);
	*tasks = read_tasks(rows, context);
	s64_sql_end();
	*ntasks = (int) rows;
	return rows > 0;
}

/* ---- transitions of a call ---- */

#define GUARD " WHERE id = $1 AND epoch = $2 AND state "
#define CLOSE_ITEMS \
	" , items AS (UPDATE sixtyfour.call_item SET open = false" \
	" FROM changed WHERE call_item.call = changed.id)"
#define CHANGED " SELECT id FROM changed"

/* What the service said, unless somebody it is about was to be forgotten */
#define SAID(value) \
	"(SELECT " value " WHERE NOT EXISTS (SELECT FROM sixtyfour.forgotten WHERE call = $1))"
#define MESSAGE(value) "coalesce(" SAID(value) ", " S64_FORGOTTEN_MESSAGE ")"

static SqlStatement set_accepted = {
	"UPDATE sixtyfour.call SET state = 'accepted', task_id = $3, accepted_at = clock_timestamp()"
	GUARD "= 'sending'",
	3, {INT8OID, INT8OID, TEXTOID}, NULL
};

static SqlStatement set_done = {
	"WITH changed AS (UPDATE sixtyfour.call SET state = 'done', cents = $3, raw = " SAID("$4") ","
	" finished_at = clock_timestamp(), sqlstate = NULL, message = NULL"
	GUARD "IN ('sending', 'accepted') RETURNING id)" CLOSE_ITEMS CHANGED,
	4, {INT8OID, INT8OID, INT4OID, TEXTOID}, NULL
};

static SqlStatement insert_result = {
	"INSERT INTO sixtyfour.result (call, item, account, fingerprint, operation, answer, cents)"
	" SELECT i.call, i.item, i.account, i.fingerprint, c.operation, $3, $4"
	" FROM sixtyfour.call_item i JOIN sixtyfour.call c ON c.id = i.call"
	" WHERE i.call = $1 AND i.item = $2 AND NOT EXISTS (SELECT FROM sixtyfour.forgotten f"
	"  WHERE f.call = i.call AND f.item = i.item)",
	4, {INT8OID, INT2OID, JSONBOID, INT4OID}, NULL
};

static SqlStatement set_rejected = {
	"WITH changed AS (UPDATE sixtyfour.call SET state = 'rejected', sqlstate = $3, message = " MESSAGE("$4") ","
	" retry_at = $5, finished_at = clock_timestamp()"
	GUARD "= 'sending' RETURNING id)" CLOSE_ITEMS CHANGED,
	5, {INT8OID, INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}, NULL
};

static SqlStatement set_uncertain = {
	"UPDATE sixtyfour.call SET state = 'uncertain', sqlstate = '08007',"
	" message = " MESSAGE("$3") ", raw = " SAID("$4")
	GUARD "= 'sending'",
	4, {INT8OID, INT8OID, TEXTOID, TEXTOID}, NULL
};

static SqlStatement set_failed = {
	"WITH changed AS (UPDATE sixtyfour.call SET state = 'failed', sqlstate = $3,"
	" message = " MESSAGE("$4") ", cents = $5, raw = " SAID("$6") ", finished_at = clock_timestamp()"
	GUARD "IN ('sending', 'accepted') RETURNING id)" CLOSE_ITEMS CHANGED,
	6, {INT8OID, INT8OID, TEXTOID, TEXTOID, INT4OID, TEXTOID}, NULL
};

static SqlStatement set_expired = {
	"UPDATE sixtyfour.call SET state = 'expired', sqlstate = '08007', message = $3"
	GUARD "= 'accepted'",
	3, {INT8OID, INT8OID, TEXTOID}, NULL
};

static SqlStatement set_explanation = {
	"UPDATE sixtyfour.call SET detail = " SAID("$3") ", hint = $4"
	GUARD "IN ('sending', 'accepted')",
	4, {INT8OID, INT8OID, TEXTOID, TEXTOID}, NULL
};

void
s64_ledger_explain(int64 call, int64 epoch, const char *detail, const char *hint)
{
	Datum		values[4] = {Int64GetDatum(call), Int64GetDatum(epoch)};
	char		nulls[5] = "    ";

	values[2] = text_or_null(detail, &nulls[2]);
	values[3] = text_or_null(hint, &nulls[3]);
	s64_sql_execute(&set_explanation, values, nulls);
}

bool
s64_ledger_accepted(int64 call, int64 epoch, const char *task_id)
{
	Datum		values[3] = {Int64GetDatum(call), Int64GetDatum(epoch),
	CStringGetTextDatum(task_id)};

	return s64_sql_execute(&set_accepted, values, NULL) > 0;
}

/* The share of item i in the cents of n items, so that the shares add up */
static int
share(int cents, int i, int n)
{
	return cents < 0 ? -1 : cents / n + (i < cents % n ? 1 : 0);
}

bool
s64_ledger_done(int64 call, int64 epoch, Jsonb **answers, int n, int cents,
				const char *raw)
{
	Datum		values[4] = {Int64GetDatum(call), Int64GetDatum(epoch), 0, 0};
	char		nulls[5] = "    ";

	values[2] = int4_or_null(cents, &nulls[2]);
	values[3] = text_or_null(raw, &nulls[3]);
	s64_sql_begin();
	if (s64_sql_run(&set_done, values, nulls) == 0)
	{
		s64_sql_end();
		return false;
	}
	for (int i = 0; i < n; i++)
	{
		if (answers[i] == NULL)
			continue;
		values[1] = Int16GetDatum(i);
		values[2] = JsonbPGetDatum(answers[i]);
		nulls[2] = ' ';
		values[3] = int4_or_null(share(cents, i, n), &nulls[3]);
		s64_sql_run(&insert_result, values, nulls);
	}
	s64_sql_end();
	return true;
}

bool
s64_ledger_rejected(int64 call, int64 epoch, int sqlstate, const char *message,
					TimestampTz retry_at)
{
	Datum		values[5] = {Int64GetDatum(call), Int64GetDatum(epoch),
		sqlstate_text(sqlstate), CStringGetTextDatum(message),
	TimestampTzGetDatum(retry_at)};
	char		nulls[6] = "     ";

	if (TIMESTAMP_IS_NOBEGIN(retry_at))
		nulls[4] = 'n';
	return s64_sql_execute(&set_rejected, values, nulls) > 0;
}

bool
s64_ledger_uncertain(int64 call, int64 epoch, const char *message, const char *raw)
{
	Datum		values[4] = {Int64GetDatum(call), Int64GetDatum(epoch),
	CStringGetTextDatum(message), 0};
	char		nulls[5] = "    ";

	values[3] = text_or_null(raw, &nulls[3]);
	return s64_sql_execute(&set_uncertain, values, nulls) > 0;
}

bool
s64_ledger_failed(int64 call, int64 epoch, int sqlstate, const char *message,
				  int cents, const char *raw)
{
	Datum		values[6] = {Int64GetDatum(call), Int64GetDatum(epoch),
	sqlstate_text(sqlstate), CStringGetTextDatum(message), 0, 0};
	char		nulls[7] = "      ";

	values[4] = int4_or_null(cents, &nulls[4]);
	values[5] = text_or_null(raw, &nulls[5]);
	return s64_sql_execute(&set_failed, values, nulls) > 0;
}

bool
s64_ledger_expired(int64 call, int64 epoch, const char *message)
{
	Datum		values[3] = {Int64GetDatum(call), Int64GetDatum(epoch),
	CStringGetTextDatum(message)};

	return s64_sql_execute(&set_expired, values, NULL) > 0;
}

static SqlStatement select_subjects = {
	"SELECT item, subject FROM sixtyfour.call_subject WHERE call = $1 AND subject IS NOT NULL",
	1, {INT8OID}, NULL
};

void
s64_ledger_subjects(int64 call, Jsonb **subjects, int n)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[1] = {Int64GetDatum(call)};
	uint64		rows;

	memset(subjects, 0, n * sizeof(Jsonb *));
	s64_sql_begin();
	rows = s64_sql_run(&select_subjects, values, NULL);
	context = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		int			item = DatumGetInt16(s64_sql_value(i, 1, &isnull));

		if (item >= 0 && item < n)
			subjects[item] = (Jsonb *) PG_DETOAST_DATUM_COPY(s64_sql_value(i, 2, &isnull));
	}
	MemoryContextSwitchTo(context);
	s64_sql_end();
}

/* ---- jobs follow ---- */

/*
 * The one statement that moves jobs along.  Which state a call's state
 * implies is said here and nowhere else.  Returns how many jobs lagged, how many
 * of them were moved, and whether there is one to be brought home or to be
 * submitted again.
 */
#define CARRY(condition, locking) \
	"WITH lagging AS (SELECT * FROM (" \
	" SELECT j.id, j.state AS old_state, c.retry_at, c.sqlstate, c.message," \
	"  c.detail, c.hint, r.id AS result," \
	"  CASE c.state WHEN 'sending' THEN 'sending' WHEN 'accepted' THEN 'running'" \
	"   WHEN 'uncertain' THEN 'uncertain' WHEN 'expired' THEN 'uncertain'" \
	"   WHEN 'done' THEN CASE WHEN r.id IS NULL THEN 'failed' ELSE 'succeeded' END" \
	"   WHEN 'rejected' THEN CASE WHEN c.retry_at IS NULL THEN 'failed' ELSE 'queued' END" \
	"   ELSE 'failed' END AS state" \
	" FROM sixtyfour.job j JOIN sixtyfour.call c ON c.id = j.call" \
	" LEFT JOIN sixtyfour.result r ON r.call = j.call AND r.item = j.item" \
	" WHERE j.state IN " OPEN_JOB condition ") l WHERE l.state <> l.old_state)," \
	" had AS (SELECT l.* FROM lagging l JOIN sixtyfour.job j ON j.id = l.id" \
	"  WHERE j.state = l.old_state FOR NO KEY UPDATE OF j " locking ")," \
	" moved AS (UPDATE sixtyfour.job SET state = l.state," \
	" result = l.result," \
	" call = CASE l.state WHEN 'queued' THEN NULL ELSE job.call END," \
	" item = CASE l.state WHEN 'queued' THEN NULL ELSE job.item END," \
	" attempts = job.attempts + (l.state = 'queued')::int," \
	" resubmits = job.resubmits + (l.state = 'queued' AND l.sqlstate = '08007')::int," \
	" shared = job.shared AND l.state <> 'queued'," \
	" run_at = CASE l.state WHEN 'queued' THEN l.retry_at ELSE job.run_at END," \
	" sqlstate = CASE WHEN l.state IN ('queued', 'uncertain') THEN l.sqlstate" \
	"  WHEN l.state = 'failed' THEN coalesce(l.sqlstate, '08P01') END," \
	" message = CASE WHEN l.state IN ('queued', 'uncertain') THEN l.message" \
	"  WHEN l.state = 'failed' THEN coalesce(l.message," \
	"   'the answer to the bulk request has nothing that can be told to be about this lead') END," \
	" detail = CASE WHEN l.state IN ('queued', 'uncertain', 'failed') THEN l.detail END," \
	" hint = CASE WHEN l.state IN ('queued', 'uncertain', 'failed') THEN l.hint END," \
	" finished_at = CASE WHEN l.state IN ('succeeded', 'failed') THEN clock_timestamp() END," \
	" delivery = CASE WHEN l.state = 'succeeded' AND (job.enrichment IS NOT NULL OR job.into_table IS NOT NULL)" \
	"  THEN 'pending' ELSE job.delivery END" \
	" FROM had l WHERE job.id = l.id" \
	" RETURNING job.delivery = 'pending' AS delivers, job.state = 'queued' AS queued)" \
	" SELECT (SELECT count(*) FROM lagging), count(*)," \
	" coalesce(bool_or(delivers), false), coalesce(bool_or(queued), false) FROM moved"

static SqlStatement carry = {
	CARRY(" AND j.call = ANY ($1)", "SKIP LOCKED"), 1, {INT8ARRAYOID}, NULL
};

static SqlStatement carry_waiting = {
	CARRY(" AND j.call = ANY ($1)", ""), 1, {INT8ARRAYOID}, NULL
};

#define AT_HOME " AND j.home_system = $1 AND j.home_database = $2"

static SqlStatement carry_all_waiting = {
	CARRY(AT_HOME, ""), 2, {INT8OID, OIDOID}, NULL
};

static SqlStatement carry_stragglers = {
	CARRY(AT_HOME, "SKIP LOCKED"), 2, {INT8OID, OIDOID}, NULL
};

static uint64
run_carry(SqlStatement *statement, Datum *values, bool *delivering)
{
	int64		moved;
	bool		queued;
	bool		isnull;

	s64_sql_begin();
	s64_sql_run(statement, values, NULL);
	moved = s64_sql_int8(0, 2);
	stragglers |= s64_sql_int8(0, 1) > moved;
	*delivering = DatumGetBool(s64_sql_value(0, 3, &isnull));
	queued = DatumGetBool(s64_sql_value(0, 4, &isnull));
	s64_sql_end();
	if (queued)
		s64_errand_wake(PROCESS_WORKER);
	return moved;
}

bool
s64_ledger_has_stragglers(void)
{
	return stragglers;
}

void
s64_ledger_carry(const int64 *calls, int ncalls, bool *delivering)
{
	Datum		values[1] = {s64_sql_int8_array(calls, ncalls)};

	run_carry(&carry, values, delivering);
}

void
s64_ledger_carry_waiting(int64 call)
{
	Datum		values[1] = {s64_sql_int8_array(&call, 1)};
	bool		delivering;

	run_carry(&carry_waiting, values, &delivering);
	if (delivering)
		s64_errand_wake(PROCESS_WRITER);
}

uint64
s64_ledger_carry_stragglers(bool *delivering)
{
	Datum		home[2] = {home_system(), home_database()};

	static TimestampTz looked_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	*delivering = false;
	if (!stragglers && now < looked_at + STRAGGLERS_GAP)
		return 0;
	stragglers = false;
	looked_at = now;
	return run_carry(&carry_stragglers, home, delivering);
}

/* ---- resuming ---- */

static SqlStatement adopt_jobs = {
	"UPDATE sixtyfour.job SET home_system = $1, home_database = $2"
	" WHERE (home_system, home_database) <> ($1, $2)"
	" AND (state IN ('queued', 'sending', 'running', 'uncertain')"
	"      OR delivery IN ('pending', 'unapplied'))",
	2, {INT8OID, OIDOID}, NULL
};

/* Their worker may have gone on: what it was sending may have been billed. */
static SqlStatement adopt_calls = {
	"UPDATE sixtyfour.call SET home_system = $1, home_database = $2, epoch = 0,"
	" state = CASE state WHEN 'sending' THEN 'uncertain' ELSE state END,"
	" sqlstate = CASE state WHEN 'sending' THEN '08007' ELSE sqlstate END,"
	" message = CASE state WHEN 'sending' THEN"
	" 'it was being sent when this copy of the database was made' ELSE message END"
	" WHERE (home_system, home_database) <> ($1, $2) AND state IN " OPEN_CALL,
	2, {INT8OID, OIDOID}, NULL
};

void
s64_ledger_resume(void)
{
	Datum		home[2] = {home_system(), home_database()};
	bool		delivering;

	s64_home_resume();
	s64_sql_execute(&adopt_jobs, home, NULL);
	s64_sql_execute(&adopt_calls, home, NULL);
	run_carry(&carry_all_waiting, home, &delivering);
}

static SqlStatement select_open = {
	"SELECT c.id, c.state IN ('uncertain', 'expired')"
	" FROM sixtyfour.call_item i JOIN sixtyfour.call c ON c.id = i.call"
	" WHERE i.account = $1 AND i.fingerprint = $2 AND i.open"
	" AND (c.state IN ('uncertain', 'expired')"
	"      OR c.state IN ('sending', 'accepted') AND c.home_system = $3 AND c.home_database = $4)",
	4, {UUIDOID, UUIDOID, INT8OID, OIDOID}, NULL
};

/* Has no call ever been made here?  Tells so at the price of a file's size. */
static bool
is_unused(void)
{
	Oid			schema = get_namespace_oid("sixtyfour", true);
	Oid			items = OidIsValid(schema) ? get_relname_relid("call_item", schema)
		: InvalidOid;
	Relation	rel = OidIsValid(items) ? try_relation_open(items, AccessShareLock)
		: NULL;
	bool		unused = true;

	if (rel != NULL)
	{
		unused = RelationGetNumberOfBlocks(rel) == 0;
		relation_close(rel, AccessShareLock);
	}
	return unused;
}

int64
s64_ledger_open_call(const AccountId *account, const pg_uuid_t *fingerprint,
					 bool *uncertain)
{
	Datum		values[4] = {UUIDPGetDatum(account), UUIDPGetDatum(fingerprint)};
	int64		call = 0;
	bool		isnull;

	if (is_unused())
		return 0;
	values[2] = home_system();
	values[3] = home_database();
	s64_sql_begin();
	if (s64_sql_run_latest(&select_open, values, NULL) > 0)
	{
		call = s64_sql_int8(0, 1);
		*uncertain = DatumGetBool(s64_sql_value(0, 2, &isnull));
	}
	s64_sql_end();
	return call;
}

static SqlStatement select_running = {
	"SELECT id FROM sixtyfour.call WHERE task_id = $1 AND state = 'accepted'"
	" AND ($2 IS NULL OR uuid = $2) AND home_system = $3 AND home_database = $4",
	4, {TEXTOID, UUIDOID, INT8OID, OIDOID}, NULL
};

int64
s64_ledger_running_call(const char *task_id, const pg_uuid_t *uuid)
{
	Datum		values[4] = {CStringGetTextDatum(task_id), UUIDPGetDatum(uuid),
	home_system(), home_database()};
	int64		call = 0;

	s64_sql_begin();
	if (s64_sql_run(&select_running, values, uuid ? NULL : " n  ") > 0)
		call = s64_sql_int8(0, 1);
	s64_sql_end();
	return call;
}
