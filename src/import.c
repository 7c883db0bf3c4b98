/*-------------------------------------------------------------------------
 *
 * import.c
 *		Rows of searches and workflows into the tables that were named for them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "arrival.h"
#include "attempt.h"
#include "csv.h"
#include "destination.h"
#include "fault.h"
#include "http.h"
#include "import.h"
#include "link.h"
#include "process.h"
#include "retrieval.h"

#define MAX_IMPORTS	2			/* at a time */
#define BATCH_ROWS	500			/* inserted by one statement, at most ... */
#define BATCH_SIZE	(4 * 1024 * 1024)	/* ... or about so many bytes */
#define PAUSE		INT64CONST(1000000) /* µs, after what could not be done */
#define ERROR_PAUSE	INT64CONST(10000000)	/* µs, if it could not be noted either */

typedef struct Import
{
	Retrieval  *retrieval;		/* NULL: this place is free */
	bool		fetched;		/* or could not be */
	int64		job;
	Oid			owner;
	Oid			table;
} Import;

/* Rows on their way into a table */
typedef struct Unload
{
	Oid			owner;
	Oid			table;
	Jsonb	   *inline_rows;	/* or NULL */
	Download   *file;			/* or NULL */
	Relation	rel;
	Destination *destination;	/* NULL before the first row */
	MemoryContext batch;
	Jsonb	   *rows[BATCH_ROWS];
	int			n;
	Size		size;
	int64		first_line;		/* of the file: where the batch begins */
	int64		last_line;
	bool		inserting;
} Unload;

static Import imports[MAX_IMPORTS];

/* None is begun before this. */
static TimestampTz not_before = 0;

static Import *
free_place(void)
{
	for (int i = 0; i < MAX_IMPORTS; i++)
	{
		if (imports[i].retrieval == NULL)
			return &imports[i];
	}
	return NULL;
}

int
s64_import_under_way(void)
{
	int			n = 0;

	for (int i = 0; i < MAX_IMPORTS; i++)
	{
		if (imports[i].retrieval != NULL)
			n++;
	}
	return n;
}

static ArrivalSet
under_way(void)
{
	static int64 jobs[MAX_IMPORTS];
	static int64 owners[MAX_IMPORTS];
	ArrivalSet	set = {jobs, owners, 0};

	for (int i = 0; i < MAX_IMPORTS; i++)
	{
		if (imports[i].retrieval == NULL)
			continue;
		jobs[set.n] = imports[i].job;
		owners[set.n++] = imports[i].owner;
	}
	return set;
}

TimestampTz
s64_import_next_due(void)
{
	ArrivalSet	set = under_way();

	if (free_place() == NULL)
		return DT_NOEND;
	return Max(not_before, s64_arrival_next_due(&set));
}

/* ---- settling ---- */

/* Is it to be tried again by itself? */
static bool
is_passing(const ErrorData *error)
{
	return s64_attempt_is_passing(error) || s64_attempt_is_trouble(error) ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES ||
		error->sqlerrcode == ERRCODE_DATA_CORRUPTED;
}

/* Note why the rows of a job, which is locked, are not in the table. */
static void
note(int64 job, bool passing, int64 pause, int sqlstate, const char *message)
{
	if (passing)
		s64_arrival_postpone(job, pause, sqlstate, message);
	else
		s64_arrival_unapplied(job, sqlstate, message);
}

/* The same in a transaction of its own */
static void
settle(int64 job, bool passing, int64 pause, int sqlstate, const char *message)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		s64_process_begin_transaction("sixtyfour: noting what became of rows");
		MemoryContextSwitchTo(context);
		if (s64_arrival_lock(job))
			note(job, passing, pause, sqlstate, message);
		else
			not_before = GetCurrentTimestamp() + PAUSE;
		s64_process_end_transaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = s64_process_recover(context);

		not_before = GetCurrentTimestamp() + ERROR_PAUSE;
		ereport(LOG,
				(errmsg("the rows of job " INT64_FORMAT " cannot be imported: %s", job, message),
				 errdetail("That could not be noted: %s", error->message)));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	s64_roster_announce();
}

/* An error ended the transaction that was about this job (0: none). */
static void
settle_error(int64 job, const ErrorData *error)
{
	if (job != 0)
	{
		settle(job, is_passing(error), PAUSE, error->sqlerrcode, s64_attempt_said(error));
		return;
	}
	not_before = GetCurrentTimestamp() + ERROR_PAUSE;
	ereport(LOG,
			(errmsg("could not look for rows to import: %s", error->message)));
}

/* ---- what must be so before anything is asked, and before it is written ---- */

/* Raises what stands in the way of inserting rows, as far as it is known. */
static Relation
open_table(Oid table, Oid owner)
{
	bool		locked;
	Relation	rel = s64_attempt_open(table, &locked);

	if (locked)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("another transaction has locked the table; it is tried again")));
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table does not exist any more")));
	s64_destination_check(table, owner);
	return rel;
}

static void
check_role(Oid role)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role that owns the job does not exist any more")));
}

/* ---- beginning ---- */

/* The retrieval of an arrival's rows; NULL if it is settled already. */
static Retrieval *
begin(const Arrival *arrival)
{
	const Endpoint *endpoint = s64_endpoint_find(arrival->operation);
	Account    *account;
	ErrorData  *error;
	char	   *name;

	check_role(arrival->owner);
	relation_close(open_table(arrival->table, arrival->owner), NoLock);
	if (arrival->answer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA),
				 errmsg("the result is not in the ledger any more")));
	if (endpoint == NULL || endpoint->rows == ROWS_NOWHERE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("operation \"%s\" has no rows to import in this version of the extension",
						arrival->operation)));
	name = s64_link_name(endpoint->rows, arrival->answer);
	if (name == NULL)
	{
		s64_arrival_applied(arrival->job, "0 rows were inserted");
		return NULL;
	}
	account = s64_account_try(arrival->server, arrival->payer, false, &error);
	if (account != NULL)
		return s64_retrieval_new(account, endpoint->rows, name);
	s64_arrival_postpone(arrival->job, PAUSE, error->sqlerrcode, s64_attempt_said(error));
	return NULL;
}

/* Begin the next import; false if none is due. */
static bool
begin_next(Import *import)
{
	MemoryContext context = CurrentMemoryContext;
	ArrivalSet	set = under_way();
	Arrival    *volatile arrival = NULL;
	Retrieval  *volatile retrieval = NULL;

	PG_TRY();
	{
		s64_process_begin_transaction("sixtyfour: looking for rows to import");
		MemoryContextSwitchTo(context);
		arrival = s64_arrival_next(&set);
		if (arrival != NULL)
			retrieval = begin(arrival);
		S64_FAULT("import-begin");
		s64_process_end_transaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = s64_process_recover(context);

		if (retrieval != NULL)
			s64_retrieval_free(retrieval);
		retrieval = NULL;
		settle_error(arrival ? arrival->job : 0, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (arrival == NULL)
		return false;
	import->retrieval = retrieval;
	import->fetched = false;
	import->job = arrival->job;
	import->owner = arrival->owner;
	import->table = arrival->table;
	if (retrieval == NULL)
		s64_roster_announce();
	return true;
}

/* ---- writing ---- */

/* Insert the batch, and begin another one. */
static void
flush(Unload *u)
{
	if (u->n == 0)
		return;
	u->inserting = true;
	MemoryContextSwitchTo(u->batch);
	s64_destination_insert(u->destination, u->rows, u->n);
	MemoryContextSwitchTo(MemoryContextGetParent(u->batch));
	MemoryContextReset(u->batch);
	u->inserting = false;
	u->n = 0;
	u->size = 0;
	S64_FAULT("import-inside");
	s64_attempt_go_on();
	CHECK_FOR_INTERRUPTS();
}

static void
add_row(Unload *u, const Jsonb *row, int64 line)
{
	Jsonb	   *copy = MemoryContextAlloc(u->batch, VARSIZE(row));

	memcpy(copy, row, VARSIZE(row));
	if (u->n == 0)
		u->first_line = line;
	u->last_line = line;
	u->rows[u->n++] = copy;
	u->size += VARSIZE(row);
	if (u->n == BATCH_ROWS || u->size >= BATCH_SIZE)
		flush(u);
}

static void
open_destination(Unload *u, char **names, int n)
{
	char	   *problem;

	u->destination = s64_destination_open(u->rel, names, n, &problem);
	if (u->destination == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg_internal("%s", problem)));
}

static void
write_file(Unload *u)
{
	CsvReader  *reader;
	char	  **names;
	char	  **fields;
	int			n;

	s64_download_rewind(u->file);
	reader = s64_csv_open(s64_download_spooled, u->file, PG_UTF8);
	names = s64_csv_header(reader, &n);
	while (s64_csv_next(reader, &fields))
	{
		if (u->destination == NULL)
			open_destination(u, names, n);
		add_row(u, s64_csv_row(reader), s64_csv_line(reader));
	}
	flush(u);
	s64_csv_close(reader);
}

/* Add the names of an object's members that are not there yet. */
static void
add_names(Jsonb *row, char **names, int *n)
{
	JsonbIterator *it = JsonbIteratorInit(&row->root);
	JsonbValue	v;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		int			i = 0;

		if (token != WJB_KEY)
			continue;
		while (i < *n && (strncmp(names[i], v.val.string.val, v.val.string.len) != 0 ||
						  names[i][v.val.string.len] != '\0'))
			i++;
		if (i == *n && *n < MaxHeapAttributeNumber)
			names[(*n)++] = pnstrdup(v.val.string.val, v.val.string.len);
	}
}

/* Insert the rows that the answer itself has; those are in memory. */
static void
write_inline(Unload *u)
{
	int			count = JB_ROOT_COUNT(u->inline_rows);
	Jsonb	  **rows = palloc((count + 1) * sizeof(Jsonb *));
	char	  **names = palloc(MaxHeapAttributeNumber * sizeof(char *));
	int			nnames = 0;

	for (int i = 0; i < count; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(&u->inline_rows->root, i);

		CHECK_FOR_INTERRUPTS();
		rows[i] = JsonbValueToJsonb(element);
		if (!JB_ROOT_IS_OBJECT(rows[i]))
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("row %d of the service's answer is not a JSON object", i + 1)));
		add_names(rows[i], names, &nnames);
	}
	if (count > 0)
		open_destination(u, names, nnames);
	for (int i = 0; i < count; i++)
		add_row(u, rows[i], i + 1);
	flush(u);
}

/* Body of the attempt, as the job's owner */
static void
write_rows(void *arg)
{
	Unload	   *u = arg;

	u->rel = open_table(u->table, u->owner);
	if (u->inline_rows != NULL)
		write_inline(u);
	else if (u->file != NULL)
		write_file(u);
	relation_close(u->rel, NoLock);
}

/* What an error was about, and where in the file */
static const char *
said(const Unload *u, const ErrorData *error)
{
	const char *message = s64_attempt_said(error);

	if (u->inserting)
		return psprintf("%s; it is among %s " INT64_FORMAT " to " INT64_FORMAT, message,
						u->file ? "the records of lines" : "rows",
						u->first_line, u->last_line);
	if (error->sqlerrcode == ERRCODE_PROTOCOL_VIOLATION && error->context != NULL)
		return s64_report_join(message, error->context);
	return message;
}

/* Insert the rows of a job, which is locked, and settle it. */
static void
unload(const Import *import)
{
	Unload	   *u = palloc0(sizeof(Unload));
	ErrorData  *error;

	u->owner = import->owner;
	u->table = import->table;
	u->inline_rows = s64_retrieval_rows(import->retrieval);
	u->file = s64_retrieval_file(import->retrieval);
	u->batch = AllocSetContextCreate(CurrentMemoryContext, "sixtyfour rows to insert",
									 ALLOCSET_DEFAULT_SIZES);
	check_role(import->owner);
	error = s64_attempt_run(import->owner, &import->job, 1, write_rows, u);
	if (error != NULL)
		note(import->job, is_passing(error), PAUSE, error->sqlerrcode, said(u, error));
	else
		s64_arrival_applied(import->job, u->destination
							? s64_destination_summary(u->destination)
							: "0 rows were inserted");
}

/* The same in a transaction, if the job can be had */
static void
write_import(const Import *import)
{
	MemoryContext context = CurrentMemoryContext;

	s64_roster_report("importing rows", s64_import_under_way());
	PG_TRY();
	{
		s64_process_begin_transaction("sixtyfour: importing rows");
		MemoryContextSwitchTo(context);
		if (s64_arrival_lock(import->job))
			unload(import);
		else
			not_before = GetCurrentTimestamp() + PAUSE;
		S64_FAULT("import-before-commit");
		s64_process_end_transaction();
		S64_FAULT("import-after");
	}
	PG_CATCH();
	{
		settle_error(import->job, s64_process_recover(context));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	s64_roster_announce();
}

/* ---- the whole ---- */

static void
finish(Import *import)
{
	const Failure *failure;
	bool		passing;
	int64		pause;

	failure = s64_retrieval_failure(import->retrieval, &passing, &pause);
	if (failure == NULL)
		write_import(import);
	else
		settle(import->job, passing, pause, failure->sqlstate,
			   s64_report_join(failure->message, failure->detail));
	s64_retrieval_free(import->retrieval);
	import->retrieval = NULL;
}

/* Go on fetching; true if one has ended.  Lowers *next to when there is more. */
static bool
fetch(TimestampTz *next)
{
	bool		ended = false;

	for (int i = 0; i < MAX_IMPORTS; i++)
	{
		if (imports[i].retrieval == NULL)
			continue;
		imports[i].fetched = s64_retrieval_turn(imports[i].retrieval, next);
		ended |= imports[i].fetched;
	}
	return ended;
}

bool
s64_import_turn(void)
{
	TimestampTz next = DT_NOEND;
	Import	   *place = free_place();
	bool		busy = false;

	if (place != NULL && not_before <= GetCurrentTimestamp())
		busy = begin_next(place);
	(void) fetch(&next);
	for (int i = 0; i < MAX_IMPORTS; i++)
	{
		if (imports[i].retrieval == NULL || !imports[i].fetched)
			continue;
		finish(&imports[i]);
		busy = true;
	}
	return busy;
}

bool
s64_import_wait(TimestampTz until)
{
	TimestampTz now = GetCurrentTimestamp();

	if (fetch(&until))
		return true;
	s64_http_wait(until > now ? TimestampDifferenceMilliseconds(now, until) : 0);
	return fetch(&until);
}
