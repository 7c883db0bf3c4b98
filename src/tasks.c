/*-------------------------------------------------------------------------
 *
 * tasks.c
 *		The accepted tasks, in the order in which they are to be polled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "tasks.h"

#define HURRY_GAP INT64CONST(1000000)	/* µs */

static pairingheap *heap = NULL;
static MemoryContext tasks_context = NULL;
static int	ntasks = 0;

/* The task of a call, for those that hurry it */
typedef struct CallTask
{
	int64		call;
	Task	   *task;
} CallTask;

static HTAB *by_call = NULL;

/* The heap gives its largest first: that is the earliest. */
static int
compare_due(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(Task, node, a)->due;
	TimestampTz y = pairingheap_const_container(Task, node, b)->due;

	return x < y ? 1 : x > y ? -1 : 0;
}

static void
make_heap(void)
{
	MemoryContext old;
	HASHCTL		info = {0};

	if (heap != NULL)
		return;
	tasks_context = AllocSetContextCreate(TopMemoryContext, "sixtyfour tasks",
										  ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(tasks_context);
	heap = pairingheap_allocate(compare_due, NULL);
	MemoryContextSwitchTo(old);
	info.keysize = sizeof(int64);
	info.entrysize = sizeof(CallTask);
	info.hcxt = tasks_context;
	by_call = hash_create("sixtyfour tasks", 1024, &info,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
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
	task->call = call;
	task->operation = MemoryContextStrdup(tasks_context, operation);
	task->task_id = MemoryContextStrdup(tasks_context, task_id);
	task->server = MemoryContextStrdup(tasks_context, server);
	task->payer = payer;
	task->items = items;
	task->expected_cents = expected_cents;
	task->accepted_at = accepted_at;
	task->due = due;
	pairingheap_add(heap, &task->node);
	((CallTask *) hash_search(by_call, &call, HASH_ENTER, &found))->task = task;
	ntasks++;
	return task;
}

Task *
s64_tasks_first(void)
{
	if (heap == NULL || pairingheap_is_empty(heap))
		return NULL;
	return pairingheap_container(Task, node, pairingheap_first(heap));
}

Task *
s64_tasks_take(void)
{
	Task	   *task = pairingheap_container(Task, node, pairingheap_remove_first(heap));

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
	pairingheap_add(heap, &task->node);
}

void
s64_tasks_hurry(int64 call, TimestampTz now)
{
	CallTask   *entry = heap ? hash_search(by_call, &call, HASH_FIND, NULL) : NULL;
	Task	   *task = entry ? entry->task : NULL;
	TimestampTz due;

	if (task == NULL)
		return;
	due = Max(now, task->taken_at + HURRY_GAP);
	if (task->taken)
		task->rung = true;
	else if (due < task->due)
	{
		pairingheap_remove(heap, &task->node);
		task->due = due;
		pairingheap_add(heap, &task->node);
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
	pfree(task->server);
	pfree(task);
	ntasks--;
}

int
s64_tasks_count(void)
{
	return ntasks;
}
