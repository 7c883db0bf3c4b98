/*-------------------------------------------------------------------------
 *
 * feed.c
 *		Puts the rows of an enrichment into the queue.
 *
 * Everything is done with sets of rows: one query over the transition table,
 * or over the whole one, and per FEED_CHUNK rows one look into the ledger and
 * one insert.  Nothing here waits for the network or for another transaction.
 *
 * What a trigger needs is prepared once per session and trigger, and made
 * again after the table, or the enrichment (whose declaration touches the
 * table), has changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "asked.h"
#include "compat.h"
#include "feed.h"
#include "guc.h"
#include "queue.h"
#include "rows.h"

#define FEED_CHUNK 1000

/* Rows that somebody just wrote go before those of a whole table. */
#define TRIGGER_PRIORITY 100
#define BULK_PRIORITY 200

/* What one trigger does, kept for the session */
typedef struct Feed
{
	Oid			trigger;		/* hash key */
	Oid			relation;
	bool		valid;
	MemoryContext context;		/* of the rest */
	Enrichment *enrichment;
	RowPlan		plan;
} Feed;

static HTAB *feeds = NULL;

S64_FUNCTION(sixtyfour_enrich_trigger);
S64_FUNCTION(sixtyfour_run_enrichment);

/* ---- rows into the queue ---- */

/* Queue these rows; returns how many were not asked about before. */
static int
add_rows(const Enrichment *e, Row *rows, int n, int max, int priority)
{
	JobSpec    *specs;
	JobKind		kind = {0};

	n = s64_asked_leave_out(e, rows, n);
	n = Min(n, max);
	specs = palloc(n * sizeof(JobSpec));
	for (int i = 0; i < n; i++)
	{
		specs[i].body = rows[i].body;
		specs[i].row_key = rows[i].key;
		specs[i].row_input = rows[i].input;
	}
	kind.endpoint = e->endpoint;
	kind.server = e->server;
	kind.owner = GetUserId();
	kind.payer = e->owner_pays ? e->owner : GetUserId();
	kind.priority = priority;
	kind.run_at = GetCurrentTimestamp();
	kind.enrichment = e->id;
	kind.cache_ttl = s64_guc_cache_ttl;
	s64_queue_add(&kind, specs, n, NULL);
	return n;
}

/* Queue what a plan finds, at most max rows, between begin and end. */
static int64
add_all(const Enrichment *e, RowPlan plan, int64 max, int priority)
{
	MemoryContext chunk = AllocSetContextCreate(CurrentMemoryContext, "sixtyfour feed",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Row		   *rows = palloc(FEED_CHUNK * sizeof(Row));
	RowScan		scan;
	int64		added = 0;
	int			n;

	s64_rows_open(&scan, plan, e->rest);
	old = MemoryContextSwitchTo(chunk);
	while (added < max && (n = s64_rows_fetch(&scan, rows, FEED_CHUNK)) > 0)
	{
		added += add_rows(e, rows, n, (int) Min(max - added, FEED_CHUNK), priority);
		MemoryContextReset(chunk);
	}
	MemoryContextSwitchTo(old);
	return added;
}

/* ---- triggers ---- */

static void
forget(Datum arg, Oid relation)
{
	HASH_SEQ_STATUS status;
	Feed	   *feed;

	if (feeds == NULL)
		return;
	hash_seq_init(&status, feeds);
	while ((feed = hash_seq_search(&status)) != NULL)
	{
		if (!OidIsValid(relation) || feed->relation == relation ||
			(feed->enrichment && feed->enrichment->target == relation))
			feed->valid = false;
	}
}

void
s64_feed_init(void)
{
	CacheRegisterRelcacheCallback(forget, (Datum) 0);
}

/* Is the relation the target, or one of its partitions? */
static bool
belongs(Relation rel, Oid target)
{
	return RelationGetRelid(rel) == target ||
		(rel->rd_rel->relispartition &&
		 list_member_oid(get_partition_ancestors(RelationGetRelid(rel)), target));
}

/* A trigger's arguments and kind, as sixtyfour_create_enrichment makes them */
static void
check_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	bool		good = CALLED_AS_TRIGGER(fcinfo) &&
		TRIGGER_FIRED_AFTER(data->tg_event) &&
		TRIGGER_FIRED_FOR_STATEMENT(data->tg_event) &&
		data->tg_trigger->tgnargs == 1 &&
		data->tg_trigger->tgnewtable != NULL &&
		(TRIGGER_FIRED_BY_INSERT(data->tg_event) ||
		 (TRIGGER_FIRED_BY_UPDATE(data->tg_event) && data->tg_trigger->tgoldtable != NULL));

	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("sixtyfour_enrich_trigger() must be called by an AFTER INSERT or AFTER UPDATE trigger"),
				 errhint("Create it with REFERENCING [OLD TABLE AS o] NEW TABLE AS n FOR EACH STATEMENT, and give the name of the enrichment as its argument.")));
}

/*
 * Nothing that is wrong with an enrichment makes an INSERT fail: what it does
 * not queue can be queued later.
 */
static void
warn(TriggerData *data, const char *problem)
{
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("enrichment \"%s\" did not see the new rows of table \"%s\": %s",
					data->tg_trigger->tgargs[0],
					RelationGetRelationName(data->tg_relation), problem),
			 errhint("Mend or drop the enrichment, then call sixtyfour_run_enrichment().")));
}

/* Make the plan of a feed; NULL where that worked, else the problem. */
static char *
prepare_feed(Feed *feed, TriggerData *data)
{
	const Trigger *trigger = data->tg_trigger;
	RowSource	source = TRIGGER_FIRED_BY_INSERT(data->tg_event) ? ROWS_INSERTED : ROWS_UPDATED;
	Enrichment *e = s64_enrichment_find(trigger->tgargs[0]);
	Relation	target;
	char	   *query;
	char	   *problem;

	if (e == NULL)
		return "it does not exist";
	if (!belongs(data->tg_relation, e->target))
		return "it is about another table";
	feed->enrichment = e;
	target = table_open(e->target, AccessShareLock);
	query = s64_rows_query(e, target, source, trigger->tgnewtable,
						   trigger->tgoldtable, NULL, &problem);
	table_close(target, NoLock);
	if (query == NULL)
		return problem;
	feed->plan = s64_rows_prepare(query, true);
	return NULL;
}

/* The feed's entry in the session's table */
static Feed *
enter_feed(Oid trigger)
{
	Feed	   *feed;
	bool		found;

	if (feeds == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Feed)};

		feeds = hash_create("sixtyfour feeds", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	feed = hash_search(feeds, &trigger, HASH_ENTER, &found);
	if (!found)
		memset((char *) feed + sizeof(Oid), 0, sizeof(Feed) - sizeof(Oid));
	return feed;
}

/*
 * Empty a feed.  The same trigger may be at work further up the stack, so what
 * it uses lasts as long as the transaction.
 */
static void
empty_feed(Feed *feed)
{
	if (feed->context != NULL)
		MemoryContextSetParent(feed->context, TopTransactionContext);
	feed->context = AllocSetContextCreate(TopMemoryContext, "sixtyfour feed",
										  ALLOCSET_SMALL_SIZES);
	s64_rows_discard(feed->plan);
	feed->plan = NULL;
	feed->enrichment = NULL;
}

/*
 * The feed of a trigger, or NULL after a warning.  One that was not made to
 * the end, or invalidated meanwhile, is made anew the next time.
 */
static Feed *
find_feed(TriggerData *data)
{
	Feed	   *feed = enter_feed(data->tg_trigger->tgoid);
	MemoryContext old;
	char	   *problem;

	if (feed->valid && feed->plan != NULL)
		return feed;
	empty_feed(feed);
	feed->relation = RelationGetRelid(data->tg_relation);
	feed->valid = true;
	old = MemoryContextSwitchTo(feed->context);
	problem = prepare_feed(feed, data);
	MemoryContextSwitchTo(old);
	if (problem == NULL)
		return feed;
	warn(data, problem);
	return NULL;
}

/*
 * sixtyfour_enrich_trigger('enrichment'): AFTER INSERT or UPDATE, per
 * statement, with transition tables.  Whoever fires it is the payer, unless
 * the enrichment's owner is; whether he may spend is found out by the worker.
 */
Datum
sixtyfour_enrich_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Feed	   *feed;

	check_trigger(fcinfo);
	s64_rows_begin(data);
	feed = find_feed(data);
	/* what an enrichment writes is no question to the same enrichment */
	if (feed != NULL && s64_enrichment_writing() != feed->enrichment->id)
		add_all(feed->enrichment, feed->plan, PG_INT64_MAX, TRIGGER_PRIORITY);
	s64_rows_end();
	return PointerGetDatum(NULL);
}

/* ---- the whole table ---- */

/*
 * sixtyfour_run_enrichment(name text, filter text, max_rows bigint) → bigint
 */
Datum
sixtyfour_run_enrichment(PG_FUNCTION_ARGS)
{
	char	   *filter = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	int64		max = PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT64(2);
	Enrichment *e;
	RowPlan		plan;
	int64		added;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (max < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must not be negative")));
	e = s64_enrichment_command(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	s64_enrichment_lock(e->id);
	s64_rows_begin(NULL);
	plan = s64_rows_prepare_table(e, filter);
	added = add_all(e, plan, max, BULK_PRIORITY);
	s64_rows_end();
	PG_RETURN_INT64(added);
}
