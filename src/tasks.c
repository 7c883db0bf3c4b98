/*-------------------------------------------------------------------------
 *
 * tasks.c
 *		The accepted tasks, in the order in which they are to be polled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "tasks.h"

static pairingheap *heap = NULL;
static MemoryContext tasks_context = NULL;
static int	ntasks = 0;

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

	if (heap != NULL)
		return;
	tasks_context = AllocSetContextCreate(TopMemoryContext, "sixtyfour tasks",
										  ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(tasks_context);
	heap = pairingheap_allocate(compare_due, NULL);
	MemoryContextSwitchTo(old);
}

Task *
s64_tasks_add(int64 call, const char *operation, const char *task_id,
			  const char *server, Oid payer, int items, int expected_cents,
			  TimestampTz accepted_at, TimestampTz due)
{
	Task	   *task;

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
	return pairingheap_container(Task, node, pairingheap_remove_first(heap));
}

void
s64_tasks_put_back(Task *task, TimestampTz due)
{
	task->due = due;
	pairingheap_add(heap, &task->node);
}

void
s64_tasks_free(Task *task)
{
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
