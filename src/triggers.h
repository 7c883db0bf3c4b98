/*-------------------------------------------------------------------------
 *
 * triggers.h
 *		The triggers by which an enrichment sees what is written to its table.
 *
 * A statement fires only the triggers of the table that it names, so each
 * partition has its own besides those of the partitioned table.  Partitions
 * that are attached later have none, nor can foreign ones have any: rows that
 * are written to them directly are found by sixtyfour_run_enrichment().
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_TRIGGERS_H
#define S64_TRIGGERS_H

#include "utils/rel.h"

/* Create them, as the current user; the function is in that schema. */
extern void s64_triggers_create(Oid schema, Relation target, const char *enrichment,
								bool on_insert, bool on_update);

/*
 * Drop those of the table and its partitions, also the ones that were made by
 * hand, as the current user.  The table may be gone.
 */
extern void s64_triggers_drop(Oid schema, Oid target, const char *enrichment);

#endif							/* S64_TRIGGERS_H */
