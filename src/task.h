/*-------------------------------------------------------------------------
 *
 * task.h
 *		What the service's answer about a task says.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_TASK_H
#define S64_TASK_H

#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "endpoint.h"

typedef enum TaskState
{
	TASK_RUNNING,
	TASK_COMPLETED,
	TASK_FAILED
} TaskState;

typedef struct TaskStatus
{
	TaskState	state;
	Jsonb	   *result;			/* of a completed one; NULL if it has none */
	char	   *error;			/* of a failed one, or NULL */
	int			cents;			/* charged; -1 if it does not say */
} TaskStatus;

/*
 * The id of the task that an answer to a submission names, palloc'd; NULL if
 * it names none.
 */
extern char *s64_task_id(const Follow *follow, Jsonb *answer);

/* What the service says of a task's identity: NULL or 0 where it does not */
typedef struct TaskOrigin
{
	char	   *id;
	char	   *status;
	char	   *type;			/* such as find_email */
	TimestampTz started;
} TaskOrigin;

/* Read that from an answer about the task. */
extern TaskOrigin s64_task_origin(const Follow *follow, Jsonb *answer);

/* Can this be the id of a task? */
extern bool s64_task_is_id(const char *text);

/*
 * Read an answer about a task.  A status that is not known means that the task
 * still runs.
 */
extern TaskStatus s64_task_read(const Follow *follow, Jsonb *answer);

/*
 * How far the task is, in a few words (less than 200 bytes), palloc'd; NULL where
 * the answer does not say.
 */
extern char *s64_task_progress(Jsonb *answer);

/*
 * Match the result of a bulk task to its n leads: items[i] becomes the item
 * for leads[i], palloc'd, or NULL if there is none that can be told, or
 * leads[i] is NULL (it was forgotten).  Items
 * are matched by the fields of the lead that they echo (endpoint->echoed);
 * position only settles what fits equally well.
 */
extern void s64_task_match(const Endpoint *endpoint, Jsonb *result,
						   Jsonb **leads, int n, Jsonb **items);

#endif							/* S64_TASK_H */
