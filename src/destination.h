/*-------------------------------------------------------------------------
 *
 * destination.h
 *		The table that rows of a file go to.
 *
 * Columns are matched by name, exactly.  Values are what the column's type
 * makes of the text, '' being NULL for all but texts (see values.h).
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_DESTINATION_H
#define S64_DESTINATION_H

#include "utils/jsonb.h"
#include "utils/rel.h"

typedef struct Destination Destination;

/*
 * Is it a table that the role may insert rows into?  Raises 42P01, 42809,
 * 0A000 or 42501 if not.
 */
extern void s64_destination_check(Oid relid, Oid role);

/*
 * Match the n columns of a file with those of a table, which is locked and stays
 * open.  NULL if none has a place, *problem being a sentence about it; palloc'd,
 * and nothing of it points to the names.
 */
extern Destination *s64_destination_open(Relation rel, char **names, int n,
										 char **problem);

/*
 * Insert n rows, objects of the file's columns, as the current user.  Raises
 * what that raises.
 */
extern void s64_destination_insert(Destination *destination, Jsonb **rows, int n);

/*
 * What was inserted, and which columns had no place, as a sentence; palloc'd
 */
extern char *s64_destination_summary(const Destination *destination);

#endif							/* S64_DESTINATION_H */
