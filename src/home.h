/*-------------------------------------------------------------------------
 *
 * home.h
 *		Where this database is at home, and what it ran under last.
 *
 * A copy must not buy what the original buys.  Copies are of two kinds:
 *
 * - Another database (CREATE DATABASE TEMPLATE, pg_dump and restore, a logical
 *   subscriber, pg_upgrade).  Jobs and calls carry the home in which they were
 *   made, columns home_system and home_database, and belong to the processes
 *   of that home only, until sixtyfour_resume() adopts them.
 *
 * - The same database on copied or restored files, which has the same home.
 *   So table sixtyfour.state has the place where the worker ran last; if the
 *   next one finds itself elsewhere, or on another timeline, the database is
 *   paused: nothing is submitted, but tasks are polled, which is free and
 *   harms nobody.  sixtyfour_resume() makes the present place the right one.
 *
 * state has a row for each home, made when it is first needed, of which copies
 * leave all but their own alone.
 *
 * All functions need a transaction, but for s64_home_system().  Text is
 * palloc'd in the current context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_HOME_H
#define S64_HOME_H

/*
 * Value of home_system for this database: the system identifier, told apart
 * by the OID of schema sixtyfour.  An old dump may be restored over the
 * database that it is of, whose OID is still the same.  home_database is
 * MyDatabaseId.
 */
extern int64 s64_home_system(void);

/*
 * Of a worker that begins: compare the place with that of the last worker, and
 * pause the database, or remember the place.  Logs what is out of the ordinary.
 * Returns the next epoch.
 */
extern int64 s64_home_take_over(void);

/* Is this the epoch of the last worker that began in this home? */
#define S64_HOME_HAS_EPOCH(epoch, home_system, home_database) \
	"EXISTS (SELECT FROM sixtyfour.state s WHERE s.epoch = " epoch \
	" AND s.home_system = " home_system " AND s.home_database = " home_database ")"

/* Is this home not paused? */
#define S64_HOME_GOES_ON(home_system, home_database) \
	"NOT EXISTS (SELECT FROM sixtyfour.state s WHERE s.paused" \
	" AND s.home_system = " home_system " AND s.home_database = " home_database ")"

/* sixtyfour_pause(), and sixtyfour_resume(), as far as it is about state */
extern void s64_home_pause(void);
extern void s64_home_resume(void);

/*
 * NULL: not paused; "": by sixtyfour_pause(); else the reason, a clause with
 * neither capital nor period.
 */
extern char *s64_home_paused(void);

#endif							/* S64_HOME_H */
