/*-------------------------------------------------------------------------
 *
 * shmem.h
 *		What the extension keeps in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_SHMEM_H
#define S64_SHMEM_H

#include "storage/lwlock.h"

/* A structure in shared memory, with a lock of its own */
typedef struct ShmemPart
{
	const char *name;			/* of the memory, and of the lock's tranche */
	Size		size;
	void		(*init) (void *memory); /* zeroed before; with a lock held */
	void	  **memory;			/* where to put its address ... */
	LWLock	  **lock;			/* ... and the lock's, in each process */
} ShmemPart;

/*
 * Have this structure in shared memory, once there is some.  To be called while
 * the postmaster loads the library; at any other time nothing happens, and
 * *memory and *lock stay NULL.  The part must live on.
 */
extern void s64_shmem_add(const ShmemPart *part);

#endif							/* S64_SHMEM_H */
