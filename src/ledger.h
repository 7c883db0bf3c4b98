/*-------------------------------------------------------------------------
 *
 * ledger.h
 *		Every transition of a call, and what it means for its jobs.
 *
 *		job		queued -> sending -> running -> succeeded
 *				         uncertain              failed     cancelled
 *		call	sending -> accepted -> done | failed | expired
 *				sending -> done (endpoints that answer at once)
 *				sending -> rejected | uncertain
 *				uncertain, expired -> accepted | rejected | abandoned (uncertain.h)
 *				failed -> done (retry.c), expired (uncertain.h)
 *
 * A call changes its state in exactly one function per transition, guarded by
 * its old state and the worker's epoch; false means that it was no longer so,
 * and nothing was changed.  Jobs follow their call: s64_ledger_carry() brings
 * them to the state that the call's implies.  It skips jobs that a user's open
 * transaction has locked (a cancel, say) and is run again for them later, so
 * that no user's transaction ever delays the worker.  How jobs get into a call
 * is claim.h's business.
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
#include "price.h"

/* Of a call whose answer was stored as text that is not the whole truth */
#define S64_LEDGER_POISONED "the service's answer cannot be stored"

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
	TimestampTz created_at;
	AccountId	account;
	PriceKind	kind;			/* "" if not known */
} LedgerTask;

/*
 * For how long after it was opened a call may be sent again that the service
 * knows again (resend.h), µs.
 */
#define S64_RESEND_WINDOW INT64CONST(600000000)

/* A call that an earlier worker was sending, and that may be sent again */
typedef struct LedgerUnanswered
{
	int64		call;
	pg_uuid_t	uuid;
	const Endpoint *endpoint;
	char	   *server;
	Oid			payer;
	Jsonb	   *body;			/* of its only job */
	int			expected_cents;
	TimestampTz created_at;
	AccountId	account;
} LedgerUnanswered;

/*
 * Become the worker of this database: take the next epoch, call uncertain what
 * an earlier worker was sending, unless it may be sent again, and take over what
 * is accepted.
 */
extern int64 s64_ledger_take_over(void);

/* What that has left to be sent again; returns their number. */
extern int	s64_ledger_unanswered(int64 epoch, LedgerUnanswered **calls);

/* The accepted calls of this epoch; returns their number. */
extern int	s64_ledger_tasks(int64 epoch, LedgerTask **tasks);

/*
 * Take over what was locked when the worker began, or was brought home by
 * sixtyfour_resume() since; false if no task is to be followed.
 */
extern bool s64_ledger_adopt(int64 epoch, LedgerTask **tasks, int *ntasks);

/* sending -> accepted */
extern bool s64_ledger_accepted(int64 call, int64 epoch, const char *task_id);

/*
 * sending or accepted -> done.  answers[i] is the answer to item i (from 0),
 * NULL where there is none; raw (or NULL) is kept with the call.
 */
extern bool s64_ledger_done(int64 call, int64 epoch, Jsonb **answers, int n,
							int cents, const char *raw);

/*
 * Note what else is known of why a call is about to be rejected, uncertain or
 * failed: DETAIL and HINT, or NULL.
 */
extern void s64_ledger_explain(int64 call, int64 epoch, const char *detail,
							   const char *hint);

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
 * The subjects of the items of a bulk call, by which its answer is matched;
 * NULL for those that were to be forgotten.
 */
extern void s64_ledger_subjects(int64 call, Jsonb **subjects, int n);

/*
 * The call that holds this question: *uncertain if it may have been billed, but
 * its answer is unknown; else one of this home that is under way.  0 if there
 * is none.
 */
extern int64 s64_ledger_open_call(const AccountId *account,
								  const pg_uuid_t *fingerprint, bool *uncertain);

/*
 * The accepted call of this home that has the task, and that uuid unless it is
 * NULL; 0 if there is none.
 */
extern int64 s64_ledger_running_call(const char *task_id, const pg_uuid_t *uuid);

/*
 * sixtyfour_resume(): go on here (see home.h), and make this the home of all
 * jobs and calls that a copy of another database brought along.
 */
extern void s64_ledger_resume(void);

/*
 * Bring the jobs of these calls to the states that the calls imply; sets
 * *delivering if there is now something to bring home.  Jobs that are to be
 * submitted again wake the worker at commit.
 */
extern void s64_ledger_carry(const int64 *calls, int ncalls, bool *delivering);

/* The same in a session, which waits for what others have locked */
extern void s64_ledger_carry_waiting(int64 call);

/*
 * The same for all jobs of this home that were locked when their call was carried; returns
 * their number.  Costs nothing while none is known of, but once a minute.
 */
extern uint64 s64_ledger_carry_stragglers(bool *delivering);

/* Is one known of? */
extern bool s64_ledger_has_stragglers(void);

#endif							/* S64_LEDGER_H */
