/*-------------------------------------------------------------------------
 *
 * shmem.c
 *		What the extension keeps in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "shmem.h"

#define MAX_PARTS 8

static const ShmemPart *parts[MAX_PARTS];
static int	nparts = 0;

static shmem_request_hook_type prev_request_hook = NULL;
static shmem_startup_hook_type prev_startup_hook = NULL;

static void
request(void)
{
	if (prev_request_hook)
		prev_request_hook();
	for (int i = 0; i < nparts; i++)
	{
		RequestAddinShmemSpace(MAXALIGN(parts[i]->size));
		RequestNamedLWLockTranche(parts[i]->name, 1);
	}
}

static void
start_up_part(const ShmemPart *part)
{
	bool		found;
	void	   *memory = ShmemInitStruct(part->name, part->size, &found);

	if (!found)
	{
		memset(memory, 0, part->size);
		if (part->init)
			part->init(memory);
	}
	*part->memory = memory;
	*part->lock = &(GetNamedLWLockTranche(part->name))[0].lock;
}

static void
start_up(void)
{
	if (prev_startup_hook)
		prev_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < nparts; i++)
		start_up_part(parts[i]);
	LWLockRelease(AddinShmemInitLock);
}

void
s64_shmem_add(const ShmemPart *part)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	if (nparts == MAX_PARTS)
		elog(ERROR, "too many parts of shared memory");
	if (nparts == 0)
	{
		prev_request_hook = shmem_request_hook;
		shmem_request_hook = request;
		prev_startup_hook = shmem_startup_hook;
		shmem_startup_hook = start_up;
	}
	parts[nparts++] = part;
}
