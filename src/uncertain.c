/*-------------------------------------------------------------------------
 *
 * uncertain.c
 *		What becomes of calls that may have been billed without an answer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "endpoint.h"
#include "home.h"
#include "sql.h"
#include "task.h"
#include "uncertain.h"

#define UNCERTAIN "state IN ('uncertain', 'expired')"
#define CLOCK_SKEW INT64CONST(600000000)	/* µs, between the service and us */
#define MAX_CANDIDATES "3"		/* of a call at a time */

/* Close the items of the calls in "changed", and tell which those are. */
#define CLOSE_ITEMS \
	" , items AS (UPDATE sixtyfour.call_item SET open = false" \
	" FROM changed WHERE call_item.call = changed.id)" \
	" SELECT id FROM changed"

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

/* ---- decisions ---- */

static SqlStatement resubmit_call = {
	"WITH changed AS (UPDATE sixtyfour.call SET state = 'rejected', retry_at = now(), detail = NULL, hint = NULL,"
	" finished_at = clock_timestamp(), sqlstate = '08007', message = 'to be submitted again, as a person said'"
	" WHERE id = $1 AND " UNCERTAIN " RETURNING id)" CLOSE_ITEMS,
	1, {INT8OID}, NULL
};

static SqlStatement abandon_call = {
	"WITH changed AS (UPDATE sixtyfour.call SET state = 'abandoned', detail = NULL, hint = NULL,"
	" finished_at = clock_timestamp(), sqlstate = '08007', message = 'abandoned, as a person said; it may have been billed'"
	" WHERE id = $1 AND " UNCERTAIN " RETURNING id)" CLOSE_ITEMS,
	1, {INT8OID}, NULL
};

bool
s64_uncertain_decide(int64 call, Decision decision)
{
	Datum		value = Int64GetDatum(call);
	bool		changed;

	s64_sql_begin();
	changed = s64_sql_run(decision == DECISION_RESUBMIT ? &resubmit_call
						  : &abandon_call, &value, NULL) > 0;
	s64_sql_end();
	return changed;
}

/*
 * Owners of the call's jobs, those that are cancelled left out unless all are;
 * and its payer
 */
static SqlStatement owners_of_call = {
	"SELECT DISTINCT c.payer::oid, j.owner::oid"
	" FROM sixtyfour.call c LEFT JOIN sixtyfour.job j ON j.call = c.id"
	" AND (j.state <> 'cancelled' OR NOT EXISTS"
	"      (SELECT FROM sixtyfour.job o WHERE o.call = c.id AND o.state <> 'cancelled'))"
	" WHERE c.id = $1",
	1, {INT8OID}, NULL
};

static bool
has_privs_of_all_owners(Oid role, uint64 rows)
{
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		Oid			owner = DatumGetObjectId(s64_sql_value(i, 2, &isnull));

		if (isnull || !has_privs_of_role(role, owner))
			return false;
	}
	return true;
}

bool
s64_uncertain_may_decide(int64 call, Oid role)
{
	Datum		value = Int64GetDatum(call);
	bool		may = superuser_arg(role);
	uint64		rows;

	if (may)
		return true;
	s64_sql_begin();
	rows = s64_sql_run(&owners_of_call, &value, NULL);
	if (rows > 0)
	{
		bool		isnull;

		may = has_privs_of_role(role, DatumGetObjectId(s64_sql_value(0, 1, &isnull))) ||
			has_privs_of_all_owners(role, rows);
	}
	s64_sql_end();
	return may;
}

/* ---- candidates ---- */

/* Is the call open to candidates, has another one the task, are there too many? */
#define LOOK_AT_CALL(condition) \
	"SELECT c.id, EXISTS (SELECT FROM sixtyfour.call o WHERE o.task_id = $2 AND o.id <> c.id)" \
	"  OR EXISTS (SELECT FROM sixtyfour.candidate o WHERE o.task_id = $2 AND o.call <> c.id)," \
	" EXISTS (SELECT FROM sixtyfour.candidate o WHERE o.task_id = $2 AND o.call = c.id)," \
	" (SELECT count(*) FROM sixtyfour.candidate o WHERE o.call = c.id) >= " MAX_CANDIDATES \
	" FROM sixtyfour.call c WHERE " condition

static SqlStatement look_at_call = {
	LOOK_AT_CALL("c.id = $1 AND c." UNCERTAIN), 2, {INT8OID, TEXTOID}, NULL
};

static SqlStatement look_at_uuid = {
	LOOK_AT_CALL("c.uuid = $1 AND c.state IN ('sending', 'uncertain', 'expired')"
				 " AND c.home_system = $3 AND c.home_database = $4"),
	4, {UUIDOID, TEXTOID, INT8OID, OIDOID}, NULL
};

static SqlStatement add_candidate = {
	"INSERT INTO sixtyfour.candidate (call, task_id) VALUES ($1, $2)",
	2, {INT8OID, TEXTOID}, NULL
};

static bool
flag(int column)
{
	bool		isnull;

	return DatumGetBool(s64_sql_value(0, column, &isnull));
}

/* Name a candidate for the call that the statement finds. */
static Naming
name_candidate(SqlStatement *look, Datum *values)
{
	Naming		naming = NAMING_DONE;

	s64_sql_begin();
	if (s64_sql_run(look, values, NULL) == 0)
		naming = NAMING_NOT_OPEN;
	else if (flag(2))
		naming = NAMING_TAKEN;
	else if (flag(3))
		naming = NAMING_DONE;	/* already */
	else if (flag(4))
		naming = NAMING_ENOUGH;
	else
	{
		Datum		row[2] = {Int64GetDatum(s64_sql_int8(0, 1)), values[1]};

		s64_sql_run(&add_candidate, row, NULL);
	}
	s64_sql_end();
	return naming;
}

Naming
s64_uncertain_name(int64 call, const char *task_id)
{
	Datum		values[2] = {Int64GetDatum(call), CStringGetTextDatum(task_id)};

	return name_candidate(&look_at_call, values);
}

Naming
s64_uncertain_announce(const pg_uuid_t *uuid, const char *task_id)
{
	Datum		values[4] = {UUIDPGetDatum(uuid), CStringGetTextDatum(task_id),
	home_system(), home_database()};

	return name_candidate(&look_at_uuid, values);
}

/* Of a call that was closed, only the worker opens the items again (see below). */
static SqlStatement reopen_call = {
	"WITH changed AS (UPDATE sixtyfour.call SET state = 'expired', sqlstate = '08007', detail = NULL, hint = NULL,"
	" message = 'the answer could not be read, and the service is asked for it again'"
	" WHERE id = $1 AND state = 'failed' AND home_system = $2 AND home_database = $3 RETURNING id, task_id)"
	" INSERT INTO sixtyfour.candidate (call, task_id) SELECT id, task_id FROM changed",
	3, {INT8OID, INT8OID, OIDOID}, NULL
};

bool
s64_uncertain_reopen(int64 call)
{
	Datum		values[3] = {Int64GetDatum(call), home_system(), home_database()};

	return s64_sql_execute(&reopen_call, values, NULL) > 0;
}

/*
 * Those of another epoch are asked about anew: its worker is gone.  A call that
 * a session has opened again (it has an end still) holds its questions again,
 * but those that somebody has asked meanwhile.
 */
static SqlStatement fetch_candidates = {
	"WITH fetched AS (UPDATE sixtyfour.candidate k SET epoch = $1 FROM sixtyfour.call c"
	" WHERE c.id = k.call AND k.epoch <> $1 AND c." UNCERTAIN
	" AND c.home_system = $2 AND c.home_database = $3 AND " S64_HOME_HAS_EPOCH("$1", "$2", "$3")
	" RETURNING c.id, c.operation, k.task_id, c.server::text, c.payer, c.items, c.expected_cents, c.created_at, c.account),"
	" reopened AS (UPDATE sixtyfour.call SET finished_at = NULL WHERE id IN"
	"  (SELECT id FROM sixtyfour.call WHERE id IN (SELECT id FROM fetched) AND " UNCERTAIN
	"   AND finished_at IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED) RETURNING id),"
	" items AS (UPDATE sixtyfour.call_item i SET open = true FROM reopened r WHERE i.call = r.id"
	"  AND NOT EXISTS (SELECT FROM sixtyfour.call_item o WHERE o.account = i.account"
	"   AND o.fingerprint = i.fingerprint AND o.open))"
	" SELECT f.*, r.id IS NOT NULL AND row_number() OVER (PARTITION BY f.id) = 1"
	" FROM fetched f LEFT JOIN reopened r ON r.id = f.id",
	3, {INT8OID, INT8OID, OIDOID}, NULL
};

static SqlStatement forget_candidates = {
	"DELETE FROM sixtyfour.candidate k WHERE NOT EXISTS"
	" (SELECT FROM sixtyfour.call c WHERE c.id = k.call"
	"  AND c.state IN ('sending', 'uncertain', 'expired'))",
	0, {0}, NULL
};

static void
read_candidate(Candidate *candidate, uint64 row)
{
	bool		isnull;

	candidate->call = s64_sql_int8(row, 1);
	candidate->operation = s64_sql_text(row, 2);
	candidate->task_id = s64_sql_text(row, 3);
	candidate->server = s64_sql_text(row, 4);
	candidate->payer = DatumGetObjectId(s64_sql_value(row, 5, &isnull));
	candidate->items = DatumGetInt32(s64_sql_value(row, 6, &isnull));
	candidate->expected_cents = DatumGetInt32(s64_sql_value(row, 7, &isnull));
	candidate->created_at = DatumGetTimestampTz(s64_sql_value(row, 8, &isnull));
	candidate->account = *DatumGetUUIDP(s64_sql_value(row, 9, &isnull));
	candidate->reopened = DatumGetBool(s64_sql_value(row, 10, &isnull));
}

int
s64_uncertain_candidates(int64 epoch, Candidate **candidates)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[3] = {Int64GetDatum(epoch), home_system(), home_database()};
	uint64		rows;

	s64_sql_begin();
	s64_sql_run(&forget_candidates, NULL, NULL);
	rows = s64_sql_run(&fetch_candidates, values, NULL);
	context = MemoryContextSwitchTo(context);
	*candidates = palloc0((rows + 1) * sizeof(Candidate));
	for (uint64 i = 0; i < rows; i++)
		read_candidate(&(*candidates)[i], i);
	MemoryContextSwitchTo(context);
	s64_sql_end();
	return (int) rows;
}

/* ---- proof ---- */

/* The operation that a task's type names; NULL if it is none that we know */
static const Endpoint *
operation_of(const char *type)
{
	char	   *name = pstrdup(type);
	char	   *suffix;

	for (char *p = name; *p; p++)
		*p = *p == '-' ? '_' : pg_tolower((unsigned char) *p);
	if ((suffix = strstr(name, "_async")) != NULL)
		*suffix = '\0';
	if ((suffix = strstr(name, "_bulk")) != NULL)
		*suffix = '\0';
	return s64_endpoint_find(name);
}

/*
 * What the service says of a task varies, so only what contradicts counts; but
 * it must say how the task is.
 */
char *
s64_uncertain_doubt(Jsonb *answer, const char *task_id,
					const char *operation, TimestampTz created_at)
{
	const Endpoint *endpoint = s64_endpoint_find(operation);
	TaskOrigin	origin = s64_task_origin(s64_endpoint_follow(endpoint), answer);

	if (origin.status == NULL ||
		(origin.id != NULL && strcmp(origin.id, task_id) != 0))
		return psprintf("the service's answer about task \"%s\" is not about a task of that name",
						task_id);
	endpoint = origin.type ? operation_of(origin.type) : NULL;
	if (endpoint != NULL && strcmp(endpoint->name, operation) != 0)
		return psprintf("task \"%s\" is not of this call, but of operation %s",
						task_id, endpoint->name);
	if (origin.started != 0 && origin.started < created_at - CLOCK_SKEW)
		return psprintf("task \"%s\" is not of this call, but began before it, at %s",
						task_id, timestamptz_to_str(origin.started));
	return NULL;
}

#define OTHER_HAS_TASK \
	"EXISTS (SELECT FROM sixtyfour.call o WHERE o.task_id = $2 AND o.id <> $1)"

/* The row of a call that nobody holds */
#define FREE_CALL \
	" WHERE id = (SELECT id FROM sixtyfour.call WHERE id = $1 AND " UNCERTAIN \
	" FOR NO KEY UPDATE SKIP LOCKED)"

static SqlStatement prove = {
	"UPDATE sixtyfour.call SET state = 'accepted', task_id = $2, epoch = $3,"
	" accepted_at = clock_timestamp(), finished_at = NULL, sqlstate = NULL, message = NULL,"
	" detail = NULL, hint = NULL"
	FREE_CALL " AND NOT " OTHER_HAS_TASK
	" AND EXISTS (SELECT FROM sixtyfour.candidate k WHERE k.call = $1 AND k.task_id = $2 AND k.epoch = $3)"
	" AND " S64_HOME_HAS_EPOCH("$3", "$4", "$5"),
	5, {INT8OID, TEXTOID, INT8OID, INT8OID, OIDOID}, NULL
};

static SqlStatement look_again = {
	"SELECT " OTHER_HAS_TASK
	" FROM sixtyfour.call c, sixtyfour.candidate k WHERE c.id = $1 AND c." UNCERTAIN
	" AND k.call = $1 AND k.task_id = $2 AND k.epoch = $3",
	3, {INT8OID, TEXTOID, INT8OID}, NULL
};

Proof
s64_uncertain_prove(int64 call, int64 epoch, const char *task_id)
{
	Datum		values[5] = {Int64GetDatum(call), CStringGetTextDatum(task_id),
	Int64GetDatum(epoch), home_system(), home_database()};
	Proof		proof = PROOF_GONE;

	s64_sql_begin();
	if (s64_sql_run(&prove, values, NULL) > 0)
		proof = PROOF_DONE;
	else if (s64_sql_run(&look_again, values, NULL) > 0)
		proof = flag(1) ? PROOF_TAKEN : PROOF_HELD;
	s64_sql_end();
	return proof;
}

static SqlStatement drop_candidate = {
	"DELETE FROM sixtyfour.candidate WHERE call = $1 AND task_id = $2",
	2, {INT8OID, TEXTOID}, NULL
};

static SqlStatement tell_call = {
	"UPDATE sixtyfour.call SET message = $2, detail = NULL, hint = NULL" FREE_CALL,
	2, {INT8OID, TEXTOID}, NULL
};

static SqlStatement tell_jobs = {
	"UPDATE sixtyfour.job SET message = $2, detail = NULL, hint = NULL WHERE id IN"
	" (SELECT id FROM sixtyfour.job WHERE call = $1 AND state = 'uncertain'"
	"  FOR NO KEY UPDATE SKIP LOCKED)",
	2, {INT8OID, TEXTOID}, NULL
};

void
s64_uncertain_refute(int64 call, const char *task_id, const char *reason)
{
	Datum		values[2] = {Int64GetDatum(call), CStringGetTextDatum(task_id)};

	s64_sql_begin();
	s64_sql_run(&drop_candidate, values, NULL);
	values[1] = CStringGetTextDatum(reason);
	if (s64_sql_run(&tell_call, values, NULL) > 0)
		s64_sql_run(&tell_jobs, values, NULL);
	s64_sql_end();
}

/* ---- sixtyfour.on_uncertain ---- */

/*
 * An expired call was accepted, so to ask again is to pay again: it is left to
 * a person.  So is one that somebody says to know the task of, and one that
 * nobody wants the answer of any more.
 */
#define RESUBMITTABLE \
	"sixtyfour.call c WHERE c.state = 'uncertain'" \
	" AND c.home_system = $1 AND c.home_database = $2" \
	" AND " S64_HOME_HAS_EPOCH("$3", "$1", "$2") " AND " S64_HOME_GOES_ON("$1", "$2") \
	" AND NOT EXISTS (SELECT FROM sixtyfour.candidate k WHERE k.call = c.id)" \
	" AND EXISTS (SELECT FROM sixtyfour.job j WHERE j.call = c.id AND j.state = 'uncertain')" \
	" AND NOT EXISTS (SELECT FROM sixtyfour.job j WHERE j.call = c.id AND j.resubmits > 0)"

static SqlStatement resubmit_all = {
	"WITH changed AS (UPDATE sixtyfour.call SET state = 'rejected', retry_at = now(), detail = NULL, hint = NULL,"
	" finished_at = clock_timestamp(), sqlstate = '08007',"
	" message = 'to be submitted again, as sixtyfour.on_uncertain says'"
	" WHERE id IN (SELECT c.id FROM " RESUBMITTABLE " AND c.created_at <= $4"
	"  ORDER BY c.id LIMIT 100 FOR NO KEY UPDATE SKIP LOCKED)"
	" RETURNING id)" CLOSE_ITEMS,
	4, {INT8OID, OIDOID, INT8OID, TIMESTAMPTZOID}, NULL
};

static SqlStatement oldest_resubmittable = {
	"SELECT min(c.created_at) FROM " RESUBMITTABLE,
	3, {INT8OID, OIDOID, INT8OID}, NULL
};

int
s64_uncertain_resubmit(int64 epoch, TimestampTz before, int64 **calls,
					   TimestampTz *oldest)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[4] = {home_system(), home_database(), Int64GetDatum(epoch),
	TimestampTzGetDatum(before)};
	uint64		rows;
	bool		isnull;

	s64_sql_begin();
	rows = s64_sql_run(&resubmit_all, values, NULL);
	*calls = MemoryContextAlloc(context, (rows + 1) * sizeof(int64));
	for (uint64 i = 0; i < rows; i++)
		(*calls)[i] = s64_sql_int8(i, 1);
	s64_sql_run(&oldest_resubmittable, values, NULL);
	*oldest = DatumGetTimestampTz(s64_sql_value(0, 1, &isnull));
	if (isnull)
		*oldest = DT_NOEND;
	s64_sql_end();
	return (int) rows;
}
