/*-------------------------------------------------------------------------
 *
 * queue.h
 *		Putting jobs into the queue.
 *
 * The statements run as the extension's owner, in the caller's transaction:
 * a ROLLBACK takes the jobs back, and nothing is sent before COMMIT.  The
 * worker is woken once, at commit.  Where there can be none, the session is
 * warned, once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_QUEUE_H
#define S64_QUEUE_H

#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "endpoint.h"

/* Of jobs for which somebody sits and waits: before all others */
#define S64_ASKED_PRIORITY 0

/* What the jobs of one call of s64_queue_add() have in common */
typedef struct JobKind
{
	const Endpoint *endpoint;
	const char *server;			/* name of the foreign server */
	Oid			owner;			/* whose wish */
	Oid			payer;			/* whose USAGE and key */
	int			priority;		/* smaller goes first */
	TimestampTz run_at;			/* not before */
	int			enrichment;		/* id, or 0 */
	int			cache_ttl;		/* age of a stored result that will do, s */
	Oid			into_table;		/* where the answer's rows go, or InvalidOid */
} JobKind;

/* One job */
typedef struct JobSpec
{
	Jsonb	   *body;			/* the request's body: checked, no null members */
	Jsonb	   *row_key;		/* of an enrichment, else NULL */
	Jsonb	   *row_input;		/* of an enrichment, else NULL */
} JobSpec;

/* Is a body small enough to be queued? */
extern bool s64_queue_fits(const Endpoint *endpoint, const Jsonb *body);

/*
 * Add n jobs in one statement.  Writes their ids, in order, to ids (n of
 * them) unless it is NULL.  Raises 54000 if a body does not fit.
 */
extern void s64_queue_add(const JobKind *kind, const JobSpec *specs, int n,
						  int64 *ids);

#endif							/* S64_QUEUE_H */
