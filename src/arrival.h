/*-------------------------------------------------------------------------
 *
 * arrival.h
 *		Answers whose rows go into a table, as the ledger has them.
 *
 * The way home of such a job (into_table) has the same states as that of an
 * enrichment's (see delivery.h).  What is pending and cannot be had now is tried
 * again at its run_at; sqlstate and message say what was in the way.
 *
 * Functions need a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ARRIVAL_H
#define S64_ARRIVAL_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

typedef struct Arrival
{
	int64		job;
	Oid			owner;			/* who inserts the rows */
	Oid			table;
	Oid			payer;			/* whose account the answer is of */
	char	   *server;
	char	   *operation;
	Jsonb	   *answer;			/* NULL: it is not in the ledger any more */
} Arrival;

/* Those that are under way, which are not to be found again */
typedef struct ArrivalSet
{
	const int64 *jobs;
	const int64 *owners;		/* roles */
	int			n;
} ArrivalSet;

/*
 * The next one that is due in this database, palloc'd, and locked until the
 * transaction ends; NULL if there is none.  Owners take turns; one that has
 * none under way comes first.
 */
extern Arrival *s64_arrival_next(const ArrivalSet *under_way);

/*
 * When the next one is due, those under way aside; DT_NOEND if none is
 * pending.
 */
extern TimestampTz s64_arrival_next_due(const ArrivalSet *under_way);

/*
 * Lock one until the transaction ends.  False if it is not pending here any
 * more, or somebody else has it locked.
 */
extern bool s64_arrival_lock(int64 job);

/* pending -> applied, with what there is to say about it.  It must be locked. */
extern void s64_arrival_applied(int64 job, const char *summary);

/* pending -> unapplied, with the reason */
extern void s64_arrival_unapplied(int64 job, int sqlstate, const char *message);

/*
 * Try again later: after "pause" µs at least, and the later the longer ago the
 * job succeeded.
 */
extern void s64_arrival_postpone(int64 job, int64 pause, int sqlstate,
								 const char *message);

/*
 * unapplied -> pending, and what was postponed is due now; false if the job is
 * not one whose rows are held up.
 */
extern bool s64_arrival_again(int64 job);

#endif							/* S64_ARRIVAL_H */
