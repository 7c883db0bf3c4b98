/*-------------------------------------------------------------------------
 *
 * claim.h
 *		Takes jobs out of the queue, from where it left off.
 *
 * The queue of a database is seen as lanes: the jobs of one payer and server
 * with one priority, in the order of (run_at, id).  Each lane is read from a
 * place that is kept in memory, so that what was claimed already, and is not
 * vacuumed yet, is not passed again.  What may have come before that place
 * (a transaction that began early and committed late) is found by a look from
 * the start of all lanes, which follows a wake-up, but takes at most a tenth
 * of the time.
 *
 * All functions but s64_claim_wake() and s64_claim_forget_places() need a
 * transaction.  Results are
 * palloc'd in the current context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_CLAIM_H
#define S64_CLAIM_H

#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "account.h"
#include "endpoint.h"

/* A place in a lane */
typedef struct ClaimPlace
{
	TimestampTz run_at;
	int64		id;
} ClaimPlace;

/* Lives until the next call of s64_claim_lanes() */
typedef struct ClaimLane
{
	NameData	server;
	Oid			payer;
	int			priority;		/* smaller goes first */
	ClaimPlace	from;			/* no job before it is queued, as far as known */
	ClaimPlace	swept;			/* none before it can be had without a call;
								 * DT_NOEND: none at all */
	ClaimPlace	held;			/* the first that a transaction held ... */
	TimestampTz held_at;		/* ... to be read again then; 0: none */
} ClaimLane;

/* A job that can be claimed */
typedef struct ClaimJob
{
	int64		id;
	ClaimLane  *lane;
	TimestampTz run_at;
	const Endpoint *endpoint;	/* NULL if the operation is not known */
	Jsonb	   *body;
	pg_uuid_t	fingerprint;
	int			attempts;
	bool		alone;			/* it was refused together with others */
	int			cache_ttl;		/* age of a stored result that will do, s */
	bool		disposed;		/* it is not queued any more: set by all below */
	bool		held;			/* a user's transaction holds it, or too many of its
								 * kind are running: look again later */
} ClaimJob;

/* A call to be opened for jobs that are alike (one payer, account, operation) */
typedef struct ClaimCall
{
	ClaimJob  **jobs;			/* that s64_claim_lock() had */
	int			njobs;			/* at least one */
	AccountId	account;
	int			cents_each;		/* expected */
	int64		call;			/* its id, once open */
	pg_uuid_t	uuid;			/* likewise */
} ClaimCall;

/* There may be new jobs: look from the start. */
extern void s64_claim_wake(void);

/*
 * The lanes in which jobs are due, most urgent first.  Lowers *again to when
 * there may be more.
 */
extern int	s64_claim_lanes(ClaimLane ***lanes, TimestampTz *again);

/*
 * The next jobs of a lane, at most max, from place "swept" if sweep, else
 * "from".  There are fewer, but at least one, if their bodies would take more
 * than *bytes, from which what they take is subtracted.  Returns their number,
 * and whether that is all that is due.  None while the database is paused.
 */
extern int	s64_claim_read(ClaimLane *lane, bool sweep, int max, Size *bytes,
						   ClaimJob **jobs, bool *all);

/*
 * Give those of n jobs an answer without a call for which there is a stored
 * result that is young enough, or a place in a call that asks the same.
 * accounts[i] is that of jobs[i].  Jobs that a user's transaction holds are left
 * alone.  Returns how many were disposed of.
 */
extern int	s64_claim_reuse(ClaimJob **jobs, const AccountId *accounts, int n);

/*
 * Lock jobs for calls; returns how many could be had, which then are the first
 * of the array.
 */
extern int	s64_claim_lock(ClaimJob **jobs, int n);

/*
 * queued -> sending: make calls, which ask different questions.  Raises an
 * error if the epoch is not that of this database's worker any more.
 */
extern void s64_claim_open(ClaimCall *calls, int n, int64 epoch);

/* queued -> failed: it cannot be submitted. */
extern void s64_claim_fail(int64 job, int sqlstate, const char *message);

/*
 * Of a lane these jobs were read, and some disposed of; "all" is what
 * s64_claim_read() said.  Go on there the next time.  If the transaction does not
 * commit after all, s64_claim_forget_places() must follow.
 */
extern void s64_claim_advance(ClaimLane *lane, const ClaimJob *jobs, int n,
							  bool all);

/* The same after a sweep, which passes over what cannot be had without a call */
extern void s64_claim_swept(ClaimLane *lane, const ClaimJob *jobs, int n,
							bool all);

/* Begin from the start. */
extern void s64_claim_forget_places(void);

#endif							/* S64_CLAIM_H */
