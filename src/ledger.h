/*-------------------------------------------------------------------------
 *
 * ledger.h
 *		Every statement of the worker on job, call and result.
 *
 *		job		queued -> sending -> running -> succeeded
 *				         uncertain              failed     cancelled
 *		call	sending -> accepted -> done | failed | expired
 *				sending -> done (endpoints that answer at once)
 *				sending -> rejected | uncertain
 *				uncertain, expired -> accepted | rejected | abandoned
 *
 * A call changes its state in exactly one function per transition, guarded by
 * its old state and the worker's epoch; false means that it was no longer so,
 * and nothing was changed.  Jobs follow their call: s64_ledger_carry() brings
 * them to the state that the call's implies.  It skips jobs that a user's open
 * transaction has locked (a cancel, say) and is run again for them later, so
 * that no user's transaction ever delays the worker.
 *
 * All functions need a transaction, which the caller commits: durably
 * (ForceSyncCommit) before acting on it.  Results are palloc'd in the current
 * context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_LEDGER_H
#define S64_LEDGER_H

#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "account.h"
#include "endpoint.h"

/* A place in the queue: jobs are claimed in this order. */
typedef struct LedgerPosition
{
	int32		priority;
	TimestampTz run_at;
	int64		id;
} LedgerPosition;

/* A job that can be claimed */
typedef struct LedgerJob
{
	LedgerPosition position;
	const Endpoint *endpoint;	/* NULL if the operation is not known */
	Jsonb	   *body;
	pg_uuid_t	fingerprint;
	char	   *server;
	Oid			payer;
	int			attempts;
	int			cache_ttl;		/* age of a stored result that will do, s */
} LedgerJob;

/* A call that was accepted, and is to be polled */
typedef struct LedgerTask
{
	int64		call;
	const char *operation;
	char	   *task_id;
	char	   *server;
	Oid			payer;
	int			items;
	int			expected_cents;
	TimestampTz accepted_at;
} LedgerTask;

/*
 * Become the worker of this database: take the next epoch, call uncertain what
 * an earlier worker was sending, and take over what is accepted.
 */
extern int64 s64_ledger_take_over(void);

/* The accepted calls of this epoch; returns their number. */
extern int	s64_ledger_tasks(int64 epoch, LedgerTask **tasks);

/* One accepted call of this epoch, as after resolve; false if it is not. */
extern bool s64_ledger_adopt(int64 epoch, LedgerTask **tasks, int *ntasks);

/*
 * The next jobs of this home that are due, in order, after a position (NULL:
 * from the start); at most max.  Left out are those whose "server/payer oid"
 * is in the text array blocked.  None while the database is paused.
 */
extern int	s64_ledger_due(const LedgerPosition *after, int max,
						   ArrayType *blocked, LedgerJob **jobs);

/* When the earliest job that is not due yet becomes so; DT_NOEND if none. */
extern TimestampTz s64_ledger_next_due(void);

typedef enum LedgerReuse
{
	REUSE_NONE,					/* it needs a call of its own */
	REUSE_DONE,
	REUSE_HELD					/* a user's transaction holds the job */
} LedgerReuse;

/*
 * Give a job an answer without a call: a stored result that is young enough,
 * or a place in a call that asks the same.  Locks the job.
 */
extern LedgerReuse s64_ledger_reuse(const LedgerJob *job,
									const AccountId *account);

/*
 * queued -> sending: a call for these jobs, which are alike (one payer,
 * account and operation) and ask different questions.  Jobs that are gone or
 * locked by now are left out, and jobs[]/njobs shortened accordingly; returns
 * the call's id, or 0 if none is left.
 */
extern int64 s64_ledger_open(const LedgerJob **jobs, int *njobs,
							 const AccountId *account, int expected_cents,
							 int64 epoch);

/* sending -> accepted */
extern bool s64_ledger_accepted(int64 call, int64 epoch, const char *task_id);

/*
 * sending or accepted -> done.  answers[i] is the answer to item i (from 0),
 * NULL where there is none; raw (or NULL) is kept with the call.
 */
extern bool s64_ledger_done(int64 call, int64 epoch, Jsonb **answers, int n,
							int cents, const char *raw);

/*
 * sending -> rejected: it was not billed.  Its jobs are queued again for
 * retry_at, or fail if that is DT_NOBEGIN.
 */
extern bool s64_ledger_rejected(int64 call, int64 epoch, int sqlstate,
								const char *message, TimestampTz retry_at);

/* sending -> uncertain, with what came instead of an answer */
extern bool s64_ledger_uncertain(int64 call, int64 epoch, const char *message,
								 const char *raw);

/* sending or accepted -> failed: the service says so, or its answer is no use */
extern bool s64_ledger_failed(int64 call, int64 epoch, int sqlstate,
							  const char *message, int cents, const char *raw);

/* accepted -> expired: nothing came by the deadline */
extern bool s64_ledger_expired(int64 call, int64 epoch, const char *message);

/*
 * The subjects of the items of a bulk call, by which its answer is matched:
 * NULL for those of a call with one item.
 */
extern void s64_ledger_subjects(int64 call, Jsonb **subjects, int n);

/*
 * The call that may have been billed for this question, but whose answer is
 * unknown; 0 if there is none.
 */
extern int64 s64_ledger_uncertain_call(const AccountId *account,
									   const pg_uuid_t *fingerprint);

/* sixtyfour_pause() and sixtyfour_resume(), and what they left */
extern void s64_ledger_pause(void);
extern bool s64_ledger_is_paused(void);

/*
 * Resuming also makes this the home of all jobs and calls that a copy of
 * another database brought along.
 */
extern void s64_ledger_resume(void);

/* Fail a queued job that cannot be submitted. */
extern void s64_ledger_fail_job(int64 job, int sqlstate, const char *message);

/*
 * Bring the jobs of these calls to the states that the calls imply; sets
 * *delivering if there is now something to bring home.
 */
extern void s64_ledger_carry(const int64 *calls, int ncalls, bool *delivering);

/* The same for every call whose jobs lag behind; returns their number. */
extern uint64 s64_ledger_carry_stragglers(bool *delivering);

#endif							/* S64_LEDGER_H */
