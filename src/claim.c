/*-------------------------------------------------------------------------
 *
 * claim.c
 *		Takes jobs out of the queue, from where it left off.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "claim.h"
#include "home.h"
#include "guc.h"
#include "request.h"
#include "sql.h"

#define LOOK_SHARE		10		/* a look takes at most 1/10 of the time ... */
#define LOOK_CHEAP		2000	/* µs ... unless it takes no more than this */
#define LOOK_GAP		INT64CONST(60000000)	/* µs, a look without a wake-up */
#define HELD_RECHECK	INT64CONST(1000000) /* µs, of what a transaction holds */

/* All lanes that may have jobs */
static struct
{
	MemoryContext context;		/* of all that follows */
	List	   *lanes;			/* ClaimLane, in the order of the queue */
	bool		woken;			/* there may be jobs before the places */
	TimestampTz look_at;		/* not before; without a wake-up LOOK_GAP later */
} queue = {NULL, NIL, true, 0};

#define HOME " home_system = $1 AND home_database = $2 AND state = 'queued'"

/*
 * The first job of each lane, found by one descent of the index job_claim for
 * each; the name is compared as the index does.
 */
static SqlStatement select_lanes = {
	"WITH RECURSIVE lane AS ("
	" (SELECT server, payer::oid, priority, run_at, id FROM sixtyfour.job"
	"  WHERE" HOME " ORDER BY server, payer::oid, priority, run_at, id LIMIT 1)"
	" UNION ALL"
	" SELECT n.* FROM lane l CROSS JOIN LATERAL"
	" (SELECT server, payer::oid, priority, run_at, id FROM sixtyfour.job"
	"  WHERE" HOME " AND (server, payer::oid, priority) > (l.server, l.payer, l.priority)"
	"  ORDER BY server, payer::oid, priority, run_at, id LIMIT 1) n)"
	" SELECT * FROM lane ORDER BY priority, run_at, id",
	2, {INT8OID, OIDOID}, NULL
};

static SqlStatement select_jobs = {
	"SELECT id, run_at, operation, body, fingerprint, attempts, cache_ttl,"
	" sqlstate IS NOT DISTINCT FROM '22023'"
	" FROM sixtyfour.job WHERE" HOME
	" AND server = $3 AND payer::oid = $4 AND priority = $5"
	" AND (run_at, id) >= ($6, $7) AND run_at <= statement_timestamp()"
	" AND " S64_HOME_GOES_ON("$1", "$2")
	" ORDER BY run_at, id LIMIT $8",
	8, {INT8OID, OIDOID, NAMEOID, OIDOID, INT4OID, TIMESTAMPTZOID, INT8OID, INT4OID}, NULL
};

/* ---- lanes ---- */

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

void
s64_claim_wake(void)
{
	queue.woken = true;
}

/* Lane of row i of select_lanes */
static ClaimLane *
read_lane(uint64 i)
{
	ClaimLane  *lane = palloc(sizeof(ClaimLane));
	bool		isnull;

	lane->server = *DatumGetName(s64_sql_value(i, 1, &isnull));
	lane->payer = DatumGetObjectId(s64_sql_value(i, 2, &isnull));
	lane->priority = DatumGetInt32(s64_sql_value(i, 3, &isnull));
	lane->from.run_at = DatumGetTimestampTz(s64_sql_value(i, 4, &isnull));
	lane->from.id = s64_sql_int8(i, 5);
	lane->swept = lane->from;
	lane->held_at = 0;
	return lane;
}

/* Look from the start of all lanes. */
static void
look(void)
{
	clock_t		begun = clock();	/* the processor's time, not that of others */
	int64		took;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sixtyfour lanes",
												  ALLOCSET_SMALL_SIZES);
	Datum		values[2] = {home_system(), home_database()};
	List	   *lanes = NIL;
	MemoryContext old;
	uint64		rows;

	s64_sql_begin();
	MemoryContextSetParent(context, CurrentMemoryContext);	/* lest it leak */
	rows = s64_sql_run(&select_lanes, values, NULL);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < rows; i++)
		lanes = lappend(lanes, read_lane(i));
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, TopMemoryContext);
	s64_sql_end();

	if (queue.context != NULL)
		MemoryContextDelete(queue.context);
	queue.context = context;
	queue.lanes = lanes;
	queue.woken = false;
	took = (int64) (clock() - begun) * 1000000 / CLOCKS_PER_SEC;
	queue.look_at = GetCurrentTimestamp() + (took > LOOK_CHEAP ? took * LOOK_SHARE : 0);
}

int
s64_claim_lanes(ClaimLane ***lanes, TimestampTz *again)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;
	int			n = 0;

	if (now >= queue.look_at + (queue.woken ? 0 : LOOK_GAP))
		look();
	else if (queue.woken)
		*again = Min(*again, queue.look_at);

	*lanes = palloc((list_length(queue.lanes) + 1) * sizeof(ClaimLane *));
	foreach(lc, queue.lanes)
	{
		ClaimLane  *lane = lfirst(lc);

		if (lane->held_at != 0 && lane->held_at <= now)
		{
			lane->from = lane->held;
			lane->held_at = 0;
		}
		if (lane->held_at != 0)
			*again = Min(*again, lane->held_at);
		if (lane->from.run_at <= now)
			(*lanes)[n++] = lane;
		else
			*again = Min(*again, lane->from.run_at);
	}
	return n;
}

/* ---- reading ---- */

/* The size that a body has in memory, as far as that is told without reading it */
static Size
body_size(uint64 row)
{
	bool		isnull;

	return toast_raw_datum_size(s64_sql_value(row, 4, &isnull));
}

static void
read_job(ClaimJob *job, ClaimLane *lane, uint64 row)
{
	bool		isnull;

	job->id = s64_sql_int8(row, 1);
	job->lane = lane;
	job->run_at = DatumGetTimestampTz(s64_sql_value(row, 2, &isnull));
	job->endpoint = s64_endpoint_find(s64_sql_text(row, 3));
	job->body = (Jsonb *) PG_DETOAST_DATUM_COPY(s64_sql_value(row, 4, &isnull));
	job->fingerprint = *DatumGetUUIDP(s64_sql_value(row, 5, &isnull));
	job->attempts = DatumGetInt32(s64_sql_value(row, 6, &isnull));
	job->cache_ttl = DatumGetInt32(s64_sql_value(row, 7, &isnull));
	job->alone = DatumGetBool(s64_sql_value(row, 8, &isnull));
	job->disposed = false;
	job->held = false;
}

int
s64_claim_read(ClaimLane *lane, bool sweep, int max, Size *bytes,
			   ClaimJob **jobs, bool *all)
{
	MemoryContext context = CurrentMemoryContext;
	ClaimPlace	place = sweep ? lane->swept : lane->from;
	Datum		values[8];
	uint64		rows;
	int			n = 0;

	values[0] = home_system();
	values[1] = home_database();
	values[2] = NameGetDatum(&lane->server);
	values[3] = ObjectIdGetDatum(lane->payer);
	values[4] = Int32GetDatum(lane->priority);
	values[5] = TimestampTzGetDatum(place.run_at);
	values[6] = Int64GetDatum(place.id);
	values[7] = Int32GetDatum(max);

	s64_sql_begin();
	rows = s64_sql_run(&select_jobs, values, NULL);
	context = MemoryContextSwitchTo(context);
	*jobs = palloc((rows + 1) * sizeof(ClaimJob));
	while (n < (int) rows && (n == 0 || body_size(n) <= *bytes))
	{
		*bytes -= Min(body_size(n), *bytes);
		read_job(&(*jobs)[n], lane, n);
		n++;
	}
	*all = n == (int) rows && n < max;
	MemoryContextSwitchTo(context);
	s64_sql_end();
	return n;
}

/* ---- answering without a call ---- */

/*
 * Read first, without locks, as most questions are new: $1 jobs, $2 their
 * fingerprints, $3 accounts, $4 the age that will do in s.
 */
static SqlStatement select_reusable = {
	"SELECT u.id, r.id, c.id, c.item, c.state"
	" FROM unnest($1, $2, $3, $4) AS u (id, fingerprint, account, ttl)"
	" LEFT JOIN LATERAL (SELECT id FROM sixtyfour.result"
	"  WHERE fingerprint = u.fingerprint AND account = u.account"
	"  AND created_at > now() - make_interval(secs => u.ttl)"
	"  ORDER BY created_at DESC LIMIT 1) r ON true"
	" LEFT JOIN LATERAL (SELECT c.id, c.state, i.item FROM sixtyfour.call_item i"
	"  JOIN sixtyfour.call c ON c.id = i.call WHERE i.fingerprint = u.fingerprint"
	"  AND i.account = u.account AND i.open LIMIT 1) c ON r.id IS NULL"
	" WHERE r.id IS NOT NULL OR c.id IS NOT NULL",
	4, {INT8ARRAYOID, UUIDARRAYOID, UUIDARRAYOID, INT4ARRAYOID}, NULL
};

/* $1 jobs, $2 the results that answer them */
static SqlStatement use_results = {
	"UPDATE sixtyfour.job SET state = 'succeeded', result = u.result,"
	" shared = true, finished_at = clock_timestamp(), sqlstate = NULL, message = NULL,"
	" delivery = CASE WHEN coalesce(enrichment, into_table::oid::bigint) IS NULL THEN 'none' ELSE 'pending' END"
	" FROM unnest($1, $2) AS u (id, result)"
	" WHERE job.id = u.id AND job.id IN (SELECT id FROM sixtyfour.job"
	"  WHERE id = ANY ($1) AND state = 'queued' FOR NO KEY UPDATE SKIP LOCKED)"
	" RETURNING job.id",
	2, {INT8ARRAYOID, INT8ARRAYOID}, NULL
};

/* $1 jobs, $2 the calls that ask the same, $3 the places there */
static SqlStatement join_calls = {
	"UPDATE sixtyfour.job SET call = c.id, item = u.item, shared = true,"
	" sqlstate = c.sqlstate,"
	" message = c.message, detail = c.detail, hint = c.hint,"
	" state = CASE c.state WHEN 'sending' THEN 'sending' WHEN 'accepted' THEN 'running'"
	"         ELSE 'uncertain' END"
	" FROM unnest($1, $2, $3) AS u (id, call, item)"
	/* not one that a person is deciding about, nor that has just ended */
	" JOIN (SELECT * FROM sixtyfour.call WHERE id = ANY ($2)"
	"  AND state IN ('sending', 'accepted', 'uncertain', 'expired')"
	"  FOR SHARE SKIP LOCKED) c ON c.id = u.call"
	" WHERE job.id = u.id AND job.id IN (SELECT id FROM sixtyfour.job"
	"  WHERE id = ANY ($1) AND state = 'queued' FOR NO KEY UPDATE SKIP LOCKED)"
	" RETURNING job.id",
	3, {INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID}, NULL
};

/* Those jobs ask again what was to be forgotten: now its answer is wanted. */
static SqlStatement remember_items = {
	"WITH item AS (DELETE FROM sixtyfour.forgotten f"
	"  USING unnest($1, $2) AS u (id, subject) JOIN sixtyfour.job j ON j.id = u.id"
	"  WHERE f.call = j.call AND f.item = j.item RETURNING f.call, f.item, u.subject)"
	" INSERT INTO sixtyfour.call_subject (call, item, subject)"
	" SELECT DISTINCT ON (call, item) * FROM item",
	2, {INT8ARRAYOID, JSONBARRAYOID}, NULL
};

static Datum
int4_array(const int *values, int n)
{
	Datum	   *datums = palloc((n + 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		datums[i] = Int32GetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, n, INT4OID, sizeof(int32), true,
										   TYPALIGN_INT));
}

static Datum
uuid_array(const pg_uuid_t **values, int n)
{
	Datum	   *datums = palloc((n + 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		datums[i] = UUIDPGetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, n, UUIDOID, UUID_LEN, false,
										   TYPALIGN_CHAR));
}

/* Whom or what jobs are about; NULL where that cannot be told */
static Datum
subject_array(ClaimJob **jobs, int n)
{
	Datum	   *subjects = palloc0(n * sizeof(Datum));
	bool	   *nulls = palloc(n * sizeof(bool));
	int			lower = 1;

	for (int i = 0; i < n; i++)
	{
		Jsonb	   *subject = s64_request_about(jobs[i]->endpoint, jobs[i]->body);

		nulls[i] = subject == NULL;
		subjects[i] = JsonbPGetDatum(subject);
	}
	return PointerGetDatum(construct_md_array(subjects, nulls, 1, &n, &lower, JSONBOID, -1,
											  false, TYPALIGN_INT));
}

/* The age of a result that will do; it must not be pruned while it is used. */
static int
usable_age(int cache_ttl)
{
	return s64_guc_result_retention < 0 ? cache_ttl
		: Min(cache_ttl, Max(s64_guc_result_retention - 60, 0));
}

static int
compare_ids(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* The ids in the first column of a result, sorted */
static int64 *
read_ids(uint64 rows)
{
	int64	   *ids = palloc((rows + 1) * sizeof(int64));

	for (uint64 i = 0; i < rows; i++)
		ids[i] = s64_sql_int8(i, 1);
	qsort(ids, rows, sizeof(int64), compare_ids);
	return ids;
}

static bool
has_id(const int64 *ids, uint64 n, int64 id)
{
	return bsearch(&id, ids, n, sizeof(int64), compare_ids) != NULL;
}

/* Run a statement that returns the ids of those jobs that it changed. */
static int
dispose(SqlStatement *statement, Datum *values, ClaimJob **jobs, int n)
{
	uint64		rows = s64_sql_run(statement, values, NULL);
	int64	   *ids = read_ids(rows);

	for (int i = 0; i < n; i++)
		jobs[i]->disposed |= has_id(ids, rows, jobs[i]->id);
	return (int) rows;
}

static Datum
id_array(ClaimJob **jobs, int n)
{
	int64	   *ids = palloc(n * sizeof(int64));

	for (int i = 0; i < n; i++)
		ids[i] = jobs[i]->id;
	return s64_sql_int8_array(ids, n);
}

/* Those that could not be had, though they need no call, are not to get one. */
static void
mark_held(ClaimJob **jobs, int n, int64 id)
{
	for (int i = 0; i < n; i++)
	{
		if (jobs[i]->id == id && !jobs[i]->disposed)
			jobs[i]->held = true;
	}
}

/* What select_reusable found, as arrays for the statements that use it */
static int
use_found(uint64 rows, ClaimJob **jobs, int n)
{
	int64	   *answered = palloc((rows + 1) * sizeof(int64));
	int64	   *results = palloc((rows + 1) * sizeof(int64));
	int64	   *joining = palloc((rows + 1) * sizeof(int64));
	int64	   *calls = palloc((rows + 1) * sizeof(int64));
	int		   *items = palloc((rows + 1) * sizeof(int));
	int			nanswered = 0;
	int			njoining = 0;
	int			disposed = 0;
	Datum		values[3];

	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		if (s64_sql_int8(i, 2) != 0)
		{
			answered[nanswered] = s64_sql_int8(i, 1);
			results[nanswered++] = s64_sql_int8(i, 2);
			continue;
		}
		joining[njoining] = s64_sql_int8(i, 1);
		calls[njoining] = s64_sql_int8(i, 3);
		items[njoining++] = DatumGetInt16(s64_sql_value(i, 4, &isnull));
	}
	if (nanswered > 0)
	{
		values[0] = s64_sql_int8_array(answered, nanswered);
		values[1] = s64_sql_int8_array(results, nanswered);
		disposed += dispose(&use_results, values, jobs, n);
	}
	if (njoining > 0)
	{
		values[0] = s64_sql_int8_array(joining, njoining);
		values[1] = s64_sql_int8_array(calls, njoining);
		values[2] = int4_array(items, njoining);
		disposed += dispose(&join_calls, values, jobs, n);
		values[0] = id_array(jobs, n);
		values[1] = subject_array(jobs, n);
		s64_sql_run(&remember_items, values, NULL);
	}
	for (int i = 0; i < nanswered; i++)
		mark_held(jobs, n, answered[i]);
	for (int i = 0; i < njoining; i++)
		mark_held(jobs, n, joining[i]);
	return disposed;
}

int
s64_claim_reuse(ClaimJob **jobs, const AccountId *accounts, int n)
{
	const pg_uuid_t **fingerprints = palloc((n + 1) * sizeof(pg_uuid_t *));
	const pg_uuid_t **owners = palloc((n + 1) * sizeof(pg_uuid_t *));
	int		   *ttls = palloc((n + 1) * sizeof(int));
	int			disposed = 0;
	Datum		values[4];
	uint64		rows;

	if (n == 0)
		return 0;
	for (int i = 0; i < n; i++)
	{
		fingerprints[i] = &jobs[i]->fingerprint;
		owners[i] = &accounts[i];
		ttls[i] = usable_age(jobs[i]->cache_ttl);
	}
	values[0] = id_array(jobs, n);
	values[1] = uuid_array(fingerprints, n);
	values[2] = uuid_array(owners, n);
	values[3] = int4_array(ttls, n);
	s64_sql_begin();
	rows = s64_sql_run(&select_reusable, values, NULL);
	if (rows > 0)
		disposed = use_found(rows, jobs, n);
	s64_sql_end();
	return disposed;
}

/* ---- opening calls ---- */

static SqlStatement lock_jobs = {
	"SELECT id FROM sixtyfour.job WHERE id = ANY ($1) AND state = 'queued'"
	" FOR NO KEY UPDATE SKIP LOCKED",
	1, {INT8ARRAYOID}, NULL
};

static SqlStatement insert_calls = {
	"INSERT INTO sixtyfour.call (operation, items, server, payer, account,"
	" expected_cents, home_system, home_database, epoch)"
	" SELECT u.operation, u.items, u.server, u.payer, u.account, u.cents, $7, $8, $9"
	" FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY"
	" AS u (operation, items, server, payer, account, cents, place)"
	" WHERE " S64_HOME_HAS_EPOCH("$9", "$7", "$8") " ORDER BY u.place RETURNING id, uuid",
	9, {TEXTARRAYOID, INT4ARRAYOID, NAMEARRAYOID, OIDARRAYOID, UUIDARRAYOID,
	INT4ARRAYOID, INT8OID, OIDOID, INT8OID}, NULL
};

/* $1 calls, $2 places there, $3 jobs, $4 whom they are about */
static SqlStatement insert_items = {
	"WITH subjects AS (INSERT INTO sixtyfour.call_subject (call, item, subject)"
	"  SELECT call, item, subject FROM unnest($1, $2, $4) AS u (call, item, subject))"
	" INSERT INTO sixtyfour.call_item (call, item, account, fingerprint)"
	" SELECT u.call, u.item, c.account, j.fingerprint"
	" FROM unnest($1, $2, $3) AS u (call, item, job)"
	" JOIN sixtyfour.call c ON c.id = u.call JOIN sixtyfour.job j ON j.id = u.job",
	4, {INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, JSONBARRAYOID}, NULL
};

static SqlStatement send_jobs = {
	"UPDATE sixtyfour.job SET state = 'sending', call = u.call, item = u.item"
	" FROM unnest($1, $2, $3) AS u (call, item, job)"
	" WHERE job.id = u.job AND job.state = 'queued' RETURNING job.id",
	3, {INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID}, NULL
};

static int
count_jobs(const ClaimCall *calls, int n)
{
	int			jobs = 0;

	for (int i = 0; i < n; i++)
		jobs += calls[i].njobs;
	return jobs;
}

int
s64_claim_lock(ClaimJob **jobs, int n)
{
	Datum		value = id_array(jobs, n);
	int64	   *had;
	uint64		rows;
	int			kept = 0;

	s64_sql_begin();
	rows = s64_sql_run(&lock_jobs, &value, NULL);
	had = read_ids(rows);
	for (int i = 0; i < n; i++)
	{
		if (has_id(had, rows, jobs[i]->id))
			jobs[kept++] = jobs[i];
		else
			jobs[i]->held = true;
	}
	s64_sql_end();
	return kept;
}

/* Insert the calls, and note their ids. */
static void
make_calls(ClaimCall *calls, int n, int64 epoch)
{
	Datum	   *operations = palloc(n * sizeof(Datum));
	Datum	   *servers = palloc(n * sizeof(Datum));
	Datum	   *payers = palloc(n * sizeof(Datum));
	const pg_uuid_t **accounts = palloc(n * sizeof(pg_uuid_t *));
	int		   *items = palloc(n * sizeof(int));
	int		   *cents = palloc(n * sizeof(int));
	int			made = 0;
	Datum		values[9];
	uint64		rows;

	for (int i = 0; i < n; i++)
	{
		const ClaimLane *lane = calls[i].jobs[0]->lane;

		operations[made] = CStringGetTextDatum(calls[i].jobs[0]->endpoint->name);
		servers[made] = NameGetDatum(&lane->server);
		payers[made] = ObjectIdGetDatum(lane->payer);
		accounts[made] = &calls[i].account;
		items[made] = calls[i].njobs;
		cents[made++] = calls[i].njobs * calls[i].cents_each;
	}
	values[0] = PointerGetDatum(construct_array(operations, made, TEXTOID, -1, false,
												TYPALIGN_INT));
	values[1] = int4_array(items, made);
	values[2] = PointerGetDatum(construct_array(servers, made, NAMEOID, NAMEDATALEN, false,
												TYPALIGN_CHAR));
	values[3] = PointerGetDatum(construct_array(payers, made, OIDOID, sizeof(Oid), true,
												TYPALIGN_INT));
	values[4] = uuid_array(accounts, made);
	values[5] = int4_array(cents, made);
	values[6] = home_system();
	values[7] = home_database();
	values[8] = Int64GetDatum(epoch);
	rows = s64_sql_run(&insert_calls, values, NULL);
	if (rows != (uint64) made)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("another worker has taken over this database")));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		calls[i].call = s64_sql_int8(i, 1);
		calls[i].uuid = *DatumGetUUIDP(s64_sql_value(i, 2, &isnull));
	}
}

/* Insert the items of all calls, and move their jobs. */
static void
fill_calls(ClaimCall *calls, int n)
{
	int			total = count_jobs(calls, n);
	int64	   *ids = palloc(total * sizeof(int64));
	int		   *items = palloc(total * sizeof(int));
	ClaimJob  **all = palloc(total * sizeof(ClaimJob *));
	int			k = 0;
	Datum		values[4];

	for (int i = 0; i < n; i++)
	{
		for (int j = 0; j < calls[i].njobs; j++, k++)
		{
			ids[k] = calls[i].call;
			items[k] = j;
			all[k] = calls[i].jobs[j];
			all[k]->disposed = true;
		}
	}
	values[0] = s64_sql_int8_array(ids, total);
	values[1] = int4_array(items, total);
	values[2] = id_array(all, total);
	values[3] = subject_array(all, total);
	if (s64_sql_run(&insert_items, values, NULL) != (uint64) total ||
		s64_sql_run(&send_jobs, values, NULL) != (uint64) total)
		elog(ERROR, "a locked job has left state queued");
}

void
s64_claim_open(ClaimCall *calls, int n, int64 epoch)
{
	if (n == 0)
		return;
	s64_sql_begin();
	make_calls(calls, n, epoch);
	fill_calls(calls, n);
	s64_sql_end();
}

static SqlStatement fail_job = {
	"UPDATE sixtyfour.job SET state = 'failed', sqlstate = $2, message = $3,"
	" finished_at = clock_timestamp()"
	" WHERE id = (SELECT id FROM sixtyfour.job WHERE id = $1 AND state = 'queued'"
	"             FOR NO KEY UPDATE SKIP LOCKED)",
	3, {INT8OID, TEXTOID, TEXTOID}, NULL
};

void
s64_claim_fail(int64 job, int sqlstate, const char *message)
{
	Datum		values[3] = {Int64GetDatum(job),
		CStringGetTextDatum(unpack_sql_state(sqlstate)),
	CStringGetTextDatum(message)};

	s64_sql_execute(&fail_job, values, NULL);
}

/* ---- going on ---- */

static SqlStatement select_next = {
	"SELECT run_at, id FROM sixtyfour.job WHERE" HOME
	" AND server = $3 AND payer::oid = $4 AND priority = $5 AND (run_at, id) >= ($6, $7)"
	" AND " S64_HOME_GOES_ON("$1", "$2")
	" ORDER BY run_at, id LIMIT 1",
	7, {INT8OID, OIDOID, NAMEOID, OIDOID, INT4OID, TIMESTAMPTZOID, INT8OID}, NULL
};

/*
 * The place of the first job that is queued from a place on, due or not.  None
 * while the database is paused: resuming it wakes us.
 */
static ClaimPlace
next_place(const ClaimLane *lane, ClaimPlace place)
{
	ClaimPlace	next = {DT_NOEND, 0};
	bool		isnull;
	Datum		values[7];

	values[0] = home_system();
	values[1] = home_database();
	values[2] = NameGetDatum(&lane->server);
	values[3] = ObjectIdGetDatum(lane->payer);
	values[4] = Int32GetDatum(lane->priority);
	values[5] = TimestampTzGetDatum(place.run_at);
	values[6] = Int64GetDatum(place.id);
	s64_sql_begin();
	if (s64_sql_run(&select_next, values, NULL) > 0)
	{
		next.run_at = DatumGetTimestampTz(s64_sql_value(0, 1, &isnull));
		next.id = s64_sql_int8(0, 2);
	}
	s64_sql_end();
	return next;
}

/* The place behind a job */
static ClaimPlace
behind(const ClaimJob *job)
{
	ClaimPlace	place = {job->run_at, job->id + 1};

	return place;
}

void
s64_claim_swept(ClaimLane *lane, const ClaimJob *jobs, int n, bool all)
{
	if (n > 0)
		lane->swept = behind(&jobs[n - 1]);
	if (all)
		lane->swept.run_at = DT_NOEND;
}

void
s64_claim_advance(ClaimLane *lane, const ClaimJob *jobs, int n, bool all)
{
	for (int i = 0; i < n; i++)
	{
		if (jobs[i].disposed)
			continue;
		if (!jobs[i].held)
		{
			lane->from.run_at = jobs[i].run_at;
			lane->from.id = jobs[i].id;
			return;
		}
		/* others are not to wait behind it: go on, and come back */
		if (lane->held_at != 0)
			continue;
		lane->held.run_at = jobs[i].run_at;
		lane->held.id = jobs[i].id;
		lane->held_at = GetCurrentTimestamp() + HELD_RECHECK;
	}
	if (n > 0)
		lane->from = behind(&jobs[n - 1]);
	if (all)
		lane->from = next_place(lane, lane->from);
}

void
s64_claim_forget_places(void)
{
	queue.woken = true;
	queue.look_at = 0;
}
