/*-------------------------------------------------------------------------
 *
 * spending.h
 *		What the ledger knows about money, for the meter and the prices.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_SPENDING_H
#define S64_SPENDING_H

/*
 * Tell the meter what this database has spent today, which it forgets when
 * the server stops, and what the last calls cost.  To be called by a worker
 * that has taken over, before it sends anything, outside of any transaction;
 * runs one.  Does so once since the server started.
 */
extern void s64_spending_recall(void);

#endif							/* S64_SPENDING_H */
