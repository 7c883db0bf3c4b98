/*-------------------------------------------------------------------------
 *
 * rows.h
 *		The rows that an enrichment would ask about.
 *
 *		s64_rows_begin(trigger or NULL);
 *		plan = s64_rows_prepare(s64_rows_query(...));
 *		s64_rows_open(&scan, plan, enrichment->rest);
 *		while ((n = s64_rows_fetch(&scan, rows, max)) > 0) ...
 *		s64_rows_end();
 *
 * Everything runs as the current user, who needs the right to read the table;
 * never as the extension's owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ROWS_H
#define S64_ROWS_H

#include "commands/trigger.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

#include "enrichment.h"

typedef enum RowSource
{
	ROWS_INSERTED,				/* of a transition table */
	ROWS_UPDATED,				/* of two, where an input changed */
	ROWS_OF_TABLE
} RowSource;

/* A prepared query; NULL if there is none */
typedef struct _SPI_plan *RowPlan;

typedef struct RowScan
{
	struct PortalData *portal;
	struct SPITupleTable *fetched;
} RowScan;

/*
 * The query for the rows that have usable input, meet the condition and, unless
 * they come from an UPDATE or the enrichment refreshes, have an output column
 * to fill.  new_table and old_table name the transition tables; filter (or
 * NULL) comes from s64_expression_read(), with alias S64_ROWS_ALIAS.
 *
 * NULL if that cannot be asked of the table as it is now; then *problem says
 * why, with the name of the column in it or without.
 */
#define S64_ROWS_ALIAS "r"
extern char *s64_rows_query(const Enrichment *e, Relation target,
							RowSource source, const char *new_table,
							const char *old_table, const char *filter,
							char **problem);

extern void s64_rows_begin(TriggerData *trigger);

/* Prepare a query; the plan lives until the end, or s64_rows_discard(). */
extern RowPlan s64_rows_prepare(const char *query, bool keep);
extern void s64_rows_discard(RowPlan plan);

/* Is nothing that the plan was made with changed since?  Else opening it may fail. */
extern bool s64_rows_is_current(RowPlan plan);

/*
 * The same for all rows of the target that pass a filter, in an SQL text of the
 * current user's (NULL: none).  Raises why that is impossible.
 */
extern RowPlan s64_rows_prepare_table(const Enrichment *e, const char *filter);

extern void s64_rows_open(RowScan *scan, RowPlan plan, Jsonb *rest);

/* The next rows, at most max, valid until the next fetch; 0 at the end */
extern int	s64_rows_fetch(RowScan *scan, Row *rows, int max);

extern void s64_rows_end(void);

#endif							/* S64_ROWS_H */
