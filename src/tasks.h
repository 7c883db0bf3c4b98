/*-------------------------------------------------------------------------
 *
 * tasks.h
 *		The accepted tasks, in the order in which they are to be polled.
 *
 * Memory of the worker only: after a restart it is made anew from the ledger,
 * and polls are never persisted.  There is no limit to their number.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_TASKS_H
#define S64_TASKS_H

#include "lib/pairingheap.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

typedef struct TaskLane TaskLane;

typedef struct Task
{
	pairingheap_node node;
	TaskLane   *lane;			/* of its server and payer */
	int64		call;
	char	   *operation;
	char	   *task_id;
	const char *server;
	Oid			payer;
	int			items;			/* of the call */
	int			expected_cents;
	TimestampTz reserved_at;	/* when those were set aside ... */
	pg_uuid_t	account;		/* ... of which account */
	char		price_kind[96]; /* see price.h; "" if not known */
	TimestampTz accepted_at;
	TimestampTz due;			/* when to poll next */
	int			oddities;		/* polls in a row whose answer made no sense */
	bool		awaited;		/* a session sits and waits for it */
	bool		unproven;		/* only said to be the call's (see uncertain.h) */
	bool		taken;			/* out of the order, being polled */
	bool		rung;			/* while it was taken, somebody said that it ended */
	TimestampTz taken_at;		/* last */
} Task;

/* Add a task; strings are copied. */
extern Task *s64_tasks_add(int64 call, const char *operation,
						   const char *task_id, const char *server, Oid payer,
						   int items, int expected_cents,
						   TimestampTz accepted_at, TimestampTz due);

/* When the next task is to be polled; DT_NOEND if there is none. */
extern TimestampTz s64_tasks_due(void);

/* Take that one out, to poll it. */
extern Task *s64_tasks_take(void);

/* Put a task back, to be polled at due. */
extern void s64_tasks_put_back(Task *task, TimestampTz due);

/*
 * Poll none of that task's payer and server before "until": they go on then in
 * the order in which they were due.
 */
extern void s64_tasks_block(const Task *task, TimestampTz until);

/*
 * Poll the task of a call now, as it is said to have ended; but not more than
 * once a second, whatever is said.
 */
extern void s64_tasks_hurry(int64 call, TimestampTz now);

/* A task that was taken has ended. */
extern void s64_tasks_free(Task *task);

/* How many of an operation there are for an account. */
extern int	s64_tasks_count_of(const char *operation, const pg_uuid_t *account);

/* How many there are, those that were taken included. */
extern int	s64_tasks_count(void);

#endif							/* S64_TASKS_H */
