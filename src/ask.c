/*-------------------------------------------------------------------------
 *
 * ask.c
 *		Questions that sessions put to the worker, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/builtins.h"

#include "ask.h"
#include "shmem.h"

#define SLOTS 1024				/* sessions that wait at the same time */

/* A question in dynamic shared memory; its body follows */
typedef struct Letter
{
	NameData	operation;
	NameData	server;
	Oid			role;
	int			cache_ttl;
} Letter;

typedef struct Slot
{
	AskState	state;
	Oid			database;
	uint64		ticket;
	int			procno;			/* of the session, in ProcGlobal->allProcs */
	dsm_handle	letter;
	AskNews		news;
} Slot;

typedef struct Table
{
	uint64		last_ticket;
	int			nslots;			/* of slots[], those ever used */
	Slot		slots[SLOTS];
} Table;

static Table *table = NULL;
static LWLock *table_lock = NULL;

static const ShmemPart part = {
	"sixtyfour asks", sizeof(Table), NULL, (void **) &table, &table_lock
};

/* This session's question */
static struct
{
	Slot	   *slot;			/* NULL: none */
	dsm_segment *segment;
	SubTransactionId subxact;	/* that put it */
} mine = {NULL, NULL, InvalidSubTransactionId};

void
s64_ask_init(void)
{
	s64_shmem_add(&part);
}

bool
s64_ask_is_there(void)
{
	return table != NULL;
}

/* Set a session's latch.  Should it have ended, another wakes for nothing. */
static void
nudge(const Slot *slot)
{
	SetLatch(&ProcGlobal->allProcs[slot->procno].procLatch);
}

/* ---- of sessions ---- */

static void
end_at_exit(int code, Datum arg)
{
	s64_ask_end(true);
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (mine.slot == NULL)
		return;
	mine.segment = NULL;		/* goes with its resource owner */
	s64_ask_end(true);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	if (mine.slot == NULL || event != SUBXACT_EVENT_ABORT_SUB || mine.subxact != mySubid)
		return;
	mine.segment = NULL;
	s64_ask_end(true);
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	before_shmem_exit(end_at_exit, (Datum) 0);
	registered = true;
}

static dsm_segment *
write_letter(const Ask *ask)
{
	Size		size = MAXALIGN(sizeof(Letter)) + VARSIZE(ask->body);
	dsm_segment *segment = dsm_create(size, 0);
	Letter	   *letter = dsm_segment_address(segment);

	namestrcpy(&letter->operation, ask->operation);
	namestrcpy(&letter->server, ask->server);
	letter->role = ask->role;
	letter->cache_ttl = ask->cache_ttl;
	memcpy((char *) letter + MAXALIGN(sizeof(Letter)), ask->body, VARSIZE(ask->body));
	return segment;
}

/* A free slot, with the lock held; NULL if there is none */
static Slot *
find_free(void)
{
	for (int i = 0; i < table->nslots; i++)
	{
		if (table->slots[i].state == ASK_FREE)
			return &table->slots[i];
	}
	return table->nslots < SLOTS ? &table->slots[table->nslots++] : NULL;
}

void
s64_ask_put(const Ask *ask)
{
	dsm_segment *segment;
	Slot	   *slot;

	s64_ask_end(true);
	register_callbacks();
	segment = write_letter(ask);

	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	slot = find_free();
	if (slot != NULL)
	{
		memset(slot, 0, sizeof(Slot));
		slot->state = ASK_PUT;
		slot->database = MyDatabaseId;
		slot->ticket = ++table->last_ticket;
		slot->procno = MyProc - ProcGlobal->allProcs;
		slot->letter = dsm_segment_handle(segment);
		mine.slot = slot;
		mine.segment = segment;
		mine.subxact = GetCurrentSubTransactionId();
	}
	LWLockRelease(table_lock);
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many sessions wait for the service"),
				 errdetail("At most %d can wait at the same time.", SLOTS),
				 errhint("Ask again later, or ask asynchronously.")));
}

AskNews
s64_ask_look(void)
{
	AskNews		news;

	LWLockAcquire(table_lock, LW_SHARED);
	news = mine.slot->news;
	news.state = mine.slot->state;
	LWLockRelease(table_lock);
	return news;
}

/* The worker does not need the letter any more, or never will. */
static void
burn_letter(void)
{
	if (mine.segment != NULL)
		dsm_detach(mine.segment);
	mine.segment = NULL;
}

bool
s64_ask_withdraw(void)
{
	bool		withdrawn;

	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	withdrawn = mine.slot->state == ASK_PUT;
	if (withdrawn)
		mine.slot->state = ASK_FREE;
	LWLockRelease(table_lock);
	if (withdrawn)
	{
		mine.slot = NULL;
		burn_letter();
	}
	return withdrawn;
}

void
s64_ask_end(bool abandon)
{
	Slot	   *slot = mine.slot;

	if (slot == NULL)
		return;
	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	/* what is being queued is for the worker to end */
	if (slot->state == ASK_TAKEN || (slot->state == ASK_QUEUED && abandon))
		slot->state = ASK_ABANDONED;
	else
		slot->state = ASK_FREE;
	LWLockRelease(table_lock);
	mine.slot = NULL;
	burn_letter();
}

/* ---- of the worker ---- */

/* Is there one of this database in this state?  With the lock held. */
static bool
is_one(const Slot *slot, AskState state)
{
	return slot->state == state && slot->database == MyDatabaseId;
}

/* Is it to be taken?  What was taken before, and got no reply, is so again. */
static bool
is_open(const Slot *slot)
{
	return is_one(slot, ASK_PUT) || is_one(slot, ASK_TAKEN);
}

bool
s64_ask_is_due(void)
{
	bool		due = false;

	if (table == NULL)
		return false;
	LWLockAcquire(table_lock, LW_SHARED);
	for (int i = 0; i < table->nslots && !due; i++)
		due = is_open(&table->slots[i]) ||
			(is_one(&table->slots[i], ASK_ABANDONED) && table->slots[i].news.job != 0);
	LWLockRelease(table_lock);
	return due;
}

/* NULL if that is not possible */
static dsm_segment *
open_letter(dsm_handle handle)
{
	MemoryContext context = CurrentMemoryContext;
	dsm_segment *volatile segment = NULL;

	PG_TRY();
	{
		segment = dsm_attach(handle);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		/* what is known of it stands in the way of the next attempt */
		segment = dsm_find_mapping(handle);
		if (segment != NULL)
			dsm_detach(segment);
		segment = NULL;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	return segment;
}

/*
 * Read a letter.  False if its session has taken it with it, or there is no
 * memory.  Raises nothing, as the segment belongs to nobody who would let it
 * go.
 */
static bool
read_letter(dsm_handle handle, TakenAsk *taken)
{
	dsm_segment *segment = open_letter(handle);
	Letter	   *letter;
	Jsonb	   *body;

	if (segment == NULL)
		return false;
	letter = dsm_segment_address(segment);
	body = (Jsonb *) ((char *) letter + MAXALIGN(sizeof(Letter)));
	taken->operation = letter->operation;
	taken->server = letter->server;
	taken->ask.operation = NameStr(taken->operation);
	taken->ask.server = NameStr(taken->server);
	taken->ask.role = letter->role;
	taken->ask.cache_ttl = letter->cache_ttl;
	taken->ask.body = palloc_extended(VARSIZE(body), MCXT_ALLOC_NO_OOM);
	if (taken->ask.body != NULL)
		memcpy(taken->ask.body, body, VARSIZE(body));
	dsm_detach(segment);
	return taken->ask.body != NULL;
}

int
s64_ask_take(int max, TakenAsk *asks)
{
	dsm_handle	letters[S64_ASK_TAKE_MAX];
	int			n = 0;
	int			kept = 0;

	max = Min(max, S64_ASK_TAKE_MAX);
	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	for (int i = 0; i < table->nslots && n < max; i++)
	{
		Slot	   *slot = &table->slots[i];

		if (!is_open(slot))
			continue;
		slot->state = ASK_TAKEN;
		asks[n].slot = i;
		asks[n].ticket = slot->ticket;
		letters[n++] = slot->letter;
	}
	LWLockRelease(table_lock);

	for (int i = 0; i < n; i++)
	{
		TakenAsk   *ask = &asks[kept];

		ask->slot = asks[i].slot;
		ask->ticket = asks[i].ticket;
		if (read_letter(letters[i], ask))
			kept++;
		else
			s64_ask_refuse(ask, ERRCODE_OUT_OF_MEMORY, "the worker could not read the question");
	}
	return kept;
}

/* Leave word about a taken question, if its session still wants it. */
static void
reply(const TakenAsk *ask, AskState state, int64 job, int sqlstate, const char *message)
{
	Slot	   *slot = &table->slots[ask->slot];

	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	if (slot->ticket == ask->ticket)
	{
		slot->news.job = job;
		slot->news.sqlstate = sqlstate;
		strlcpy(slot->news.message, message, sizeof(slot->news.message));
		if (slot->state == ASK_TAKEN)
		{
			slot->state = state;
			nudge(slot);
		}
		else if (job == 0)
			slot->state = ASK_FREE;
	}
	LWLockRelease(table_lock);
}

void
s64_ask_queued(const TakenAsk *ask, int64 job)
{
	reply(ask, ASK_QUEUED, job, 0, "");
}

void
s64_ask_refuse(const TakenAsk *ask, int sqlstate, const char *message)
{
	reply(ask, ASK_REFUSED, 0, sqlstate, message);
}

int
s64_ask_waiting(int64 **jobs)
{
	int			n = 0;

	*jobs = NULL;
	if (table == NULL || table->nslots == 0)
		return 0;
	*jobs = palloc(SLOTS * sizeof(int64));
	LWLockAcquire(table_lock, LW_SHARED);
	for (int i = 0; i < table->nslots; i++)
	{
		if (is_one(&table->slots[i], ASK_QUEUED))
			(*jobs)[n++] = table->slots[i].news.job;
	}
	LWLockRelease(table_lock);
	return n;
}

int
s64_ask_abandoned(int64 **jobs)
{
	int			n = 0;

	*jobs = palloc(SLOTS * sizeof(int64));
	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	for (int i = 0; i < table->nslots; i++)
	{
		Slot	   *slot = &table->slots[i];

		/* without a job it is being queued just now */
		if (!is_one(slot, ASK_ABANDONED) || slot->news.job == 0)
			continue;
		(*jobs)[n++] = slot->news.job;
		slot->state = ASK_FREE;
	}
	LWLockRelease(table_lock);
	return n;
}

static bool
is_among(int64 job, const int64 *jobs, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (jobs[i] == job)
			return true;
	}
	return false;
}

void
s64_ask_tell(const int64 *jobs, int n)
{
	LWLockAcquire(table_lock, LW_SHARED);
	for (int i = 0; i < table->nslots; i++)
	{
		if (is_one(&table->slots[i], ASK_QUEUED) &&
			is_among(table->slots[i].news.job, jobs, n))
			nudge(&table->slots[i]);
	}
	LWLockRelease(table_lock);
}

void
s64_ask_take_over(void)
{
	if (table == NULL)
		return;
	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	for (int i = 0; i < table->nslots; i++)
	{
		if (is_one(&table->slots[i], ASK_ABANDONED) && table->slots[i].news.job == 0)
			table->slots[i].state = ASK_FREE;
	}
	LWLockRelease(table_lock);
}
