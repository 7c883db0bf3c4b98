/*-------------------------------------------------------------------------
 *
 * doorbell.h
 *		Which tasks somebody says to have ended, in shared memory.
 *
 * A ring says nothing but "ask now": it is not kept over a restart, and the
 * oldest are forgotten where there are too many, as every task is polled in any
 * case.  Does nothing where the library is not preloaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_DOORBELL_H
#define S64_DOORBELL_H

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_doorbell_init(void);

/* The task of this call, of the current database, may have ended. */
extern void s64_doorbell_ring(int64 call);

/*
 * The calls of the current database for which it rang, at most max of them,
 * each once; returns their number.
 */
extern int	s64_doorbell_answer(int64 *calls, int max);

#endif							/* S64_DOORBELL_H */
