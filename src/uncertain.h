/*-------------------------------------------------------------------------
 *
 * uncertain.h
 *		What becomes of calls that may have been billed without an answer.
 *
 *		uncertain, expired -> accepted		its task was found (worker)
 *		uncertain, expired -> rejected		to be submitted again
 *		uncertain, expired -> abandoned		a person gave it up
 *		failed -> expired					what its task said could not be read
 *
 * A task that is said to be a call's, by a person or a webhook, is a candidate.
 * It is kept in a table of its own, to which sessions only add: so no session
 * holds a row of a call that the worker wants.  The worker asks the service
 * about it, with the key of the call's account, and makes it the call's only
 * if the service answers.
 *
 * As in ledger.h, every change is guarded by the state it starts from, needs
 * a transaction, and jobs follow with s64_ledger_carry().
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_UNCERTAIN_H
#define S64_UNCERTAIN_H

#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* ---- of sessions ---- */

typedef enum Decision
{
	DECISION_RESUBMIT,
	DECISION_ABANDON
} Decision;

/* False: the call is neither uncertain nor expired. */
extern bool s64_uncertain_decide(int64 call, Decision decision);

typedef enum Naming
{
	NAMING_DONE,				/* a candidate, perhaps already before */
	NAMING_TAKEN,				/* another call has the task */
	NAMING_NOT_OPEN,			/* the call waits for no task */
	NAMING_ENOUGH				/* it has as many candidates as it may */
} Naming;

/* Name a candidate for a call that is uncertain or expired. */
extern Naming s64_uncertain_name(int64 call, const char *task_id);

/*
 * The same for the call of that uuid, of this home, by a webhook: which may
 * come while the call is still being sent.
 */
extern Naming s64_uncertain_announce(const pg_uuid_t *uuid, const char *task_id);

/*
 * The answer to a failed call's task could not be read: expired, with that task
 * as candidate.  False: it is not a failed call of this home.
 */
extern bool s64_uncertain_reopen(int64 call);

/* May the role decide about the call?  See the comment on sixtyfour_resolve(). */
extern bool s64_uncertain_may_decide(int64 call, Oid role);

/* ---- of the worker ---- */

/* A candidate that nobody asks about yet */
typedef struct Candidate
{
	int64		call;
	char	   *operation;
	char	   *task_id;
	char	   *server;
	Oid			payer;
	int			items;
	int			expected_cents;
	TimestampTz created_at;		/* of the call */
	pg_uuid_t	account;
	bool		reopened;		/* its call was failed until now */
} Candidate;

/*
 * Candidates that this epoch has not fetched; each comes once.  Forgets those
 * of calls that need none any more.
 */
extern int	s64_uncertain_candidates(int64 epoch, Candidate **candidates);

/*
 * Why the service's answer about a candidate does not show that it is the task
 * of a call for that operation, made at that time: palloc'd; NULL if it does.
 */
extern char *s64_uncertain_doubt(Jsonb *answer, const char *task_id,
								 const char *operation, TimestampTz created_at);

typedef enum Proof
{
	PROOF_DONE,					/* the call is accepted now */
	PROOF_TAKEN,				/* another call has the task */
	PROOF_HELD,					/* a user's transaction holds the call: later */
	PROOF_GONE					/* the call was decided about meanwhile */
} Proof;

/* The service knows the candidate: make it the call's task. */
extern Proof s64_uncertain_prove(int64 call, int64 epoch, const char *task_id);

/* It is not the call's, for that reason. */
extern void s64_uncertain_refute(int64 call, const char *task_id,
								 const char *reason);

/*
 * sixtyfour.on_uncertain = resubmit: submit again what is uncertain since
 * before that time, once for each question.  Returns the number of calls, and
 * their ids in *calls, palloc'd; and since when the next one is (DT_NOEND: none).
 */
extern int	s64_uncertain_resubmit(int64 epoch, TimestampTz before, int64 **calls,
								   TimestampTz *oldest);

#endif							/* S64_UNCERTAIN_H */
