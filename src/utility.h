/*-------------------------------------------------------------------------
 *
 * utility.h
 *		Notices the commands that concern the background processes.
 *
 * PostgreSQL refuses to drop, rename, move or copy a database that others are
 * connected to, and ends only autovacuum by itself: our processes are stopped
 * first, and come back when the transaction ends.  The launcher is told about
 * databases and extensions that come and go.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_UTILITY_H
#define S64_UTILITY_H

/* Set the hooks, when the postmaster loads us.  From _PG_init. */
extern void s64_utility_init(void);

#endif							/* S64_UTILITY_H */
