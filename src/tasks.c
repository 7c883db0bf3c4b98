/*-------------------------------------------------------------------------
 *
 * tasks.c
 *		The accepted tasks, in the order in which they are to be polled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "tasks.h"

#define HURRY_GAP INT64CONST(1000000)	/* µs */

/* The tasks of one payer over one server, which the same rate limit holds */
struct TaskLane
{
	pairingheap_node node;		/* in lanes, if tasks is not empty */
	char	   *server;
	Oid			payer;
	pairingheap *tasks;			/* that are not taken, the one due first on top */
	TimestampTz blocked_until;	/* none is polled before */
};

static MemoryContext tasks_context = NULL;
static List *all_lanes = NIL;
static pairingheap *lanes = NULL;	/* the one to be polled first on top */
static int	ntasks = 0;

/* The task of a call, for those that hurry it */
typedef struct CallTask
{
	int64		call;
	Task	   *task;
} CallTask;

static HTAB *by_call = NULL;

/* A pairing heap gives its largest first: that is the earliest. */
static int
compare_times(TimestampTz a, TimestampTz b)
{
	return a < b ? 1 : a > b ? -1 : 0;
}

static int
compare_tasks(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	return compare_times(pairingheap_const_container(Task, node, a)->due,
						 pairingheap_const_container(Task, node, b)->due);
}

static Task *
first_task(const TaskLane *lane)
{
	return pairingheap_container(Task, node, pairingheap_first(lane->tasks));
}

/* When a lane that has tasks is to be polled */
static TimestampTz
lane_due(const TaskLane *lane)
{
	return Max(first_task(lane)->due, lane->blocked_until);
}

/* Of lanes that were blocked together, the one that waits for longest is first. */
static int
compare_lanes(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const TaskLane *x = pairingheap_const_container(TaskLane, node, a);
	const TaskLane *y = pairingheap_const_container(TaskLane, node, b);
	int			result = compare_times(lane_due(x), lane_due(y));

	return result != 0 ? result
		: compare_times(first_task(x)->due, first_task(y)->due);
}

static void
make_heap(void)
{
	MemoryContext old;
	HASHCTL		info = {0};

	if (by_call != NULL)
		return;
	if (tasks_context == NULL)
		tasks_context = AllocSetContextCreate(TopMemoryContext, "sixtyfour tasks",
											  ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(tasks_context);
	lanes = pairingheap_allocate(compare_lanes, NULL);
	MemoryContextSwitchTo(old);
	info.keysize = sizeof(int64);
	info.entrysize = sizeof(CallTask);
	info.hcxt = tasks_context;
	by_call = hash_create("sixtyfour tasks", 1024, &info,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static TaskLane *
get_lane(const char *server, Oid payer)
{
	TaskLane   *lane;
	ListCell   *lc;
	MemoryContext old;

	foreach(lc, all_lanes)
	{
		lane = lfirst(lc);
		if (lane->payer == payer && strcmp(lane->server, server) == 0)
			return lane;
	}
	old = MemoryContextSwitchTo(tasks_context);
	lane = palloc0(sizeof(TaskLane));
	lane->server = pstrdup(server);
	lane->payer = payer;
	lane->tasks = pairingheap_allocate(compare_tasks, NULL);
	all_lanes = lappend(all_lanes, lane);
	MemoryContextSwitchTo(old);
	return lane;
}

/* A lane whose tasks or block change has to leave the order, and come back. */
static void
remove_lane(TaskLane *lane)
{
	if (!pairingheap_is_empty(lane->tasks))
		pairingheap_remove(lanes, &lane->node);
}

static void
put_lane(TaskLane *lane)
{
	if (!pairingheap_is_empty(lane->tasks))
		pairingheap_add(lanes, &lane->node);
}

static void
put_task(Task *task)
{
	remove_lane(task->lane);
	pairingheap_add(task->lane->tasks, &task->node);
	put_lane(task->lane);
}

Task *
s64_tasks_add(int64 call, const char *operation, const char *task_id,
			  const char *server, Oid payer, int items, int expected_cents,
			  TimestampTz accepted_at, TimestampTz due)
{
	Task	   *task;
	bool		found;

	make_heap();
	task = MemoryContextAllocZero(tasks_context, sizeof(Task));
	task->lane = get_lane(server, payer);
	task->call = call;
	task->operation = MemoryContextStrdup(tasks_context, operation);
	task->task_id = MemoryContextStrdup(tasks_context, task_id);
	task->server = task->lane->server;
	task->payer = payer;
	task->items = items;
	task->expected_cents = expected_cents;
	task->accepted_at = accepted_at;
	task->due = due;
	((CallTask *) hash_search(by_call, &call, HASH_ENTER, &found))->task = task;
	put_task(task);
	ntasks++;
	return task;
}

TimestampTz
s64_tasks_due(void)
{
	if (lanes == NULL || pairingheap_is_empty(lanes))
		return DT_NOEND;
	return lane_due(pairingheap_container(TaskLane, node, pairingheap_first(lanes)));
}

Task *
s64_tasks_take(void)
{
	TaskLane   *lane = pairingheap_container(TaskLane, node, pairingheap_remove_first(lanes));
	Task	   *task = pairingheap_container(Task, node, pairingheap_remove_first(lane->tasks));

	put_lane(lane);
	task->taken = true;
	task->taken_at = GetCurrentTimestamp();
	return task;
}

void
s64_tasks_put_back(Task *task, TimestampTz due)
{
	if (task->rung)
		due = Min(due, task->taken_at + HURRY_GAP);
	task->due = due;
	task->taken = task->rung = false;
	put_task(task);
}

void
s64_tasks_block(const Task *task, TimestampTz until)
{
	TaskLane   *lane = task->lane;

	remove_lane(lane);
	lane->blocked_until = until;
	put_lane(lane);
}

void
s64_tasks_hurry(int64 call, TimestampTz now)
{
	CallTask   *entry = by_call ? hash_search(by_call, &call, HASH_FIND, NULL) : NULL;
	Task	   *task = entry ? entry->task : NULL;
	TimestampTz due;

	if (task == NULL)
		return;
	due = Max(now, task->taken_at + HURRY_GAP);
	if (task->taken)
		task->rung = true;
	else if (due < task->due)
	{
		remove_lane(task->lane);
		pairingheap_remove(task->lane->tasks, &task->node);
		put_lane(task->lane);
		task->due = due;
		put_task(task);
	}
}

void
s64_tasks_free(Task *task)
{
	CallTask   *entry = hash_search(by_call, &task->call, HASH_FIND, NULL);

	if (entry != NULL && entry->task == task)
		hash_search(by_call, &task->call, HASH_REMOVE, NULL);
	pfree(task->operation);
	pfree(task->task_id);
	pfree(task);
	ntasks--;
}

int
s64_tasks_count_of(const char *operation, const pg_uuid_t *account)
{
	HASH_SEQ_STATUS status;
	CallTask   *entry;
	int			n = 0;

	if (by_call == NULL)
		return 0;
	hash_seq_init(&status, by_call);
	while ((entry = hash_seq_search(&status)) != NULL)
		n += strcmp(entry->task->operation, operation) == 0 &&
			memcmp(&entry->task->account, account, sizeof(pg_uuid_t)) == 0;
	return n;
}

int
s64_tasks_count(void)
{
	return ntasks;
}
