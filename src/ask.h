/*-------------------------------------------------------------------------
 *
 * ask.h
 *		Questions that sessions put to the worker, in shared memory.
 *
 * What a session asks synchronously becomes a job of the worker's own
 * transaction, so that the answer outlives whatever becomes of the session's.
 * An ask goes
 *
 *		put (session) -> taken (worker) -> queued, with a job (worker) -> free
 *		                                -> refused, with a reason (worker) -> free
 *
 * and the session waits for news of the job, which it reads in the ledger.  A
 * session that does not wait any more frees its ask, wherever it is; one whose
 * job is queued is then abandoned first, so that the worker can cancel what
 * was not sent.
 *
 * One LWLock protects the table; it is never held while anything can fail or
 * wait.  The questions themselves are in dynamic shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ASK_H
#define S64_ASK_H

#include "utils/jsonb.h"

#define S64_ASK_MESSAGE_LEN 512

/* What is asked, and for whom */
typedef struct Ask
{
	const char *operation;
	const char *server;
	Oid			role;			/* whose wish, and who pays */
	int			cache_ttl;		/* age of a stored result that will do, s */
	Jsonb	   *body;			/* checked, normalized */
} Ask;

#define S64_ASK_TAKE_MAX 200

/* A question as the worker takes it */
typedef struct TakenAsk
{
	int			slot;
	uint64		ticket;			/* tells it from later ones in the same slot */
	Ask			ask;			/* its names are those below, its body palloc'd */
	NameData	operation;
	NameData	server;
} TakenAsk;

typedef enum AskState
{
	ASK_FREE,
	ASK_PUT,
	ASK_TAKEN,
	ASK_QUEUED,
	ASK_REFUSED,
	ASK_ABANDONED				/* by its session; the job is still to be looked at */
} AskState;

typedef struct AskNews
{
	AskState	state;
	int64		job;			/* once queued */
	int			sqlstate;		/* of a refused one ... */
	char		message[S64_ASK_MESSAGE_LEN];	/* ... and why */
} AskNews;

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_ask_init(void);

/* Is there shared memory? */
extern bool s64_ask_is_there(void);

/* ---- of sessions ---- */

/*
 * Put a question to the current database's worker, and wake it.  One at a time
 * in each session: an earlier one that was not freed is given up.  It is given
 * up as well when the current resource owner ends in an error, and when the
 * process ends.  Raises 53400 if too many sessions wait.
 */
extern void s64_ask_put(const Ask *ask);

/* How this session's question stands */
extern AskNews s64_ask_look(void);

/* Take the question back, unless the worker has taken it; true if it had not. */
extern bool s64_ask_withdraw(void);

/* Do not wait any more.  If abandon, a job that is still queued is cancelled. */
extern void s64_ask_end(bool abandon);

/* ---- of the worker ---- */

/* Has anybody put one in this database, or abandoned a job? */
extern bool s64_ask_is_due(void);

/*
 * What was put, at most max (up to S64_ASK_TAKE_MAX), and what was taken before
 * and got no reply.  Raises nothing.
 */
extern int	s64_ask_take(int max, TakenAsk *asks);

/* After the commit: the job that was made of one; or why there is none. */
extern void s64_ask_queued(const TakenAsk *ask, int64 job);
extern void s64_ask_refuse(const TakenAsk *ask, int sqlstate, const char *message);

/* The jobs that sessions wait for, or have abandoned: palloc'd */
extern int	s64_ask_waiting(int64 **jobs);
extern int	s64_ask_abandoned(int64 **jobs);

/* There is news of these jobs: wake who waits for them. */
extern void s64_ask_tell(const int64 *jobs, int n);

/* A new worker: what was given up while its predecessor queued it is free. */
extern void s64_ask_take_over(void);

#endif							/* S64_ASK_H */
