/*-------------------------------------------------------------------------
 *
 * order.h
 *		Which background processes are to be started: what the launcher asks.
 *
 * To be used where the library is preloaded only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ORDER_H
#define S64_ORDER_H

#include "datatype/timestamp.h"

#include "kind.h"

/* A database, as far as the launcher knows */
typedef struct OrderDatabase
{
	Oid			oid;
	bool		allowed;		/* to have processes */
	bool		known_without;	/* the extension: not to be probed again */
} OrderDatabase;

/*
 * There is a new launcher: what its predecessor was starting, it has not
 * started, and it must read pg_database.
 */
extern void s64_order_begin(void);

/* Must pg_database be read (again)? */
extern bool s64_order_must_rescan(void);

/* Read pg_database again when it is next asked. */
extern void s64_order_rescan(void);

/*
 * These are all databases.  New ones get a place, and are probed; processes
 * of those that are gone, or not allowed any more, are told to leave.  Returns
 * false if the table is full.
 */
extern bool s64_order_sync(const OrderDatabase *databases, int n);

/* Places are numbered from 0, and this is the end. */
extern int	s64_order_places(void);

/* How many databases are being probed for the extension? */
extern int	s64_order_probing(void);

/* A process that may be started: place and kind are asked, the rest is told */
typedef struct Order
{
	int			place;
	ProcessKind kind;
	Oid			database;
	bool		probe;			/* it is not known to have the extension */
} Order;

/*
 * Is this process to be started now?  If so, it counts as being started.  If
 * not, *next is lowered to when it may be.
 */
extern bool s64_order_due(Order *order, bool may_probe, TimestampTz now,
						  TimestampTz *next);

/* If it has not come yet, it will not: try again later, and say why. */
extern void s64_order_not_started(int place, ProcessKind kind,
								   TimestampTz now, const char *message);

/*
 * Give up the place of a database that is gone or has not the extension, once
 * no process is there.  Returns the database if it just has not the extension,
 * else InvalidOid.
 */
extern Oid	s64_order_tidy(int place);

#endif							/* S64_ORDER_H */
