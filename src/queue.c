/*-------------------------------------------------------------------------
 *
 * queue.c
 *		Putting jobs into the queue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "errand.h"
#include "fault.h"
#include "guc.h"
#include "home.h"
#include "queue.h"
#include "request.h"
#include "roster.h"
#include "sql.h"

#define BULK_BODY_MAX	((Size) 1024 * 1024)	/* bytes of jsonb */
#define BODY_MAX		((Size) 128 * 1024 * 1024)

static SqlStatement insert_jobs = {
	"INSERT INTO sixtyfour.job (operation, server, owner, payer, priority, run_at,"
	" enrichment, home_system, home_database, cache_ttl, into_table,"
	" body, fingerprint, row_key, row_input)"
	" SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $14, $15, body, fingerprint, row_key, row_input"
	" FROM unnest($10, $11, $12, $13) WITH ORDINALITY"
	" AS u (body, fingerprint, row_key, row_input, place) ORDER BY place"
	" RETURNING id",
	15, {TEXTOID, NAMEOID, REGROLEOID, REGROLEOID, INT4OID, TIMESTAMPTZOID,
		INT4OID, INT8OID, OIDOID, JSONBARRAYOID, UUIDARRAYOID, JSONBARRAYOID,
	JSONBARRAYOID, INT4OID, REGCLASSOID}, NULL
};

/* An array of jsonb from the specs; NULLs where a spec has none */
static Datum
jsonb_array(const JobSpec *specs, int n, size_t offset)
{
	Datum	   *values = palloc(n * sizeof(Datum));
	bool	   *nulls = palloc(n * sizeof(bool));
	int			lower = 1;

	for (int i = 0; i < n; i++)
	{
		Jsonb	   *json = *(Jsonb *const *) ((const char *) &specs[i] + offset);

		nulls[i] = json == NULL;
		values[i] = nulls[i] ? (Datum) 0 : JsonbPGetDatum(json);
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower, JSONBOID,
											  -1, false, TYPALIGN_INT));
}

/* Equal questions have equal fingerprints. */
static Datum
fingerprint_array(const JobKind *kind, const JobSpec *specs, int n)
{
	Datum	   *values = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
	{
		pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

		*uuid = s64_request_fingerprint(kind->endpoint, specs[i].body);
		values[i] = UUIDPGetDatum(uuid);
	}
	return PointerGetDatum(construct_array(values, n, UUIDOID, UUID_LEN, false,
										   TYPALIGN_CHAR));
}

/*
 * What is to travel must fit into a request: of up to 100 in bulk, and below
 * 1 GB when the service's JSON has escaped every character.
 */
static Size
max_size(const Endpoint *endpoint)
{
	return endpoint->bulk_path ? BULK_BODY_MAX : BODY_MAX;
}

bool
s64_queue_fits(const Endpoint *endpoint, const Jsonb *body)
{
	return VARSIZE(body) <= max_size(endpoint);
}

static void
check_size(const JobKind *kind, const JobSpec *spec)
{
	if (!s64_queue_fits(kind->endpoint, spec->body))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the request of a job is too large"),
				 errdetail("It has %u bytes, and may have %zu.",
						   (unsigned) VARSIZE(spec->body), max_size(kind->endpoint))));
}

/* Once per session: who queues without a worker should know. */
static void
warn_without_worker(void)
{
	static bool warned = false;

	if (warned || s64_roster_is_there())
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("jobs are queued, but nobody works on them"),
			 errhint("Add sixtyfour to \"shared_preload_libraries\" and restart the server.")));
}

void
s64_queue_add(const JobKind *kind, const JobSpec *specs, int n, int64 *ids)
{
	MemoryContext context;
	MemoryContext old;
	NameData	server;
	Datum		values[15];
	char		nulls[15];
	uint64		rows;

	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		check_size(kind, &specs[i]);
	warn_without_worker();
	context = AllocSetContextCreate(CurrentMemoryContext, "sixtyfour enqueue",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	namestrcpy(&server, kind->server);
	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(kind->endpoint->name);
	values[1] = NameGetDatum(&server);
	values[2] = ObjectIdGetDatum(kind->owner);
	values[3] = ObjectIdGetDatum(kind->payer);
	values[4] = Int32GetDatum(kind->priority);
	values[5] = TimestampTzGetDatum(kind->run_at);
	values[6] = Int32GetDatum(kind->enrichment);
	nulls[6] = kind->enrichment == 0 ? 'n' : ' ';
	values[7] = Int64GetDatum(s64_home_system());
	values[8] = ObjectIdGetDatum(MyDatabaseId);
	values[9] = jsonb_array(specs, n, offsetof(JobSpec, body));
	values[10] = fingerprint_array(kind, specs, n);
	values[11] = jsonb_array(specs, n, offsetof(JobSpec, row_key));
	values[12] = jsonb_array(specs, n, offsetof(JobSpec, row_input));
	values[13] = Int32GetDatum(kind->cache_ttl);
	values[14] = ObjectIdGetDatum(kind->into_table);
	nulls[14] = OidIsValid(kind->into_table) ? ' ' : 'n';

	s64_sql_begin();
	rows = s64_sql_run(&insert_jobs, values, nulls);
	for (uint64 i = 0; ids != NULL && i < rows; i++)
		ids[i] = s64_sql_int8(i, 1);
	s64_sql_end();
	S64_FAULT("enqueue");
	s64_errand_wake(PROCESS_WORKER);

	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
