/*-------------------------------------------------------------------------
 *
 * output.h
 *		Where the parts of an answer go: the output of an enrichment.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_OUTPUT_H
#define S64_OUTPUT_H

#include "columns.h"

/* The key in an output that declares a child table for the people found */
#define S64_LEADS "leads"

typedef struct OutputColumn
{
	Column		column;
	Datum		path;			/* jsonpath into the answer, or a person of it */
} OutputColumn;

/* The child table: one row per person */
typedef struct OutputLeads
{
	Relation	rel;			/* opened, RowExclusiveLock */
	int			nkeys;
	Column	   *keys;			/* columns that refer ... */
	Column	   *from;			/* ... to these of the target */
	int			ncolumns;
	OutputColumn *columns;
} OutputLeads;

typedef struct Output
{
	int			ncolumns;
	OutputColumn *columns;
	OutputLeads *leads;			/* or NULL */
} Output;

/*
 * Read an output, palloc'd, with the columns as they are now.  NULL if a table
 * or column is not there, or could not be; then *problem says so.  The child
 * table is taken by its OID in numbers where these were read from the target,
 * otherwise by its name.  Raises 42601 for what is no jsonpath, and 22023
 * for what is no output at all.
 */
extern Output *s64_output_read(Jsonb *output, Jsonb *numbers, Relation target,
							   char **problem);

/* Close the child table, keeping the lock. */
extern void s64_output_close(Output *output);

/* The numbers of its columns, as s64_output_read() takes them */
extern Jsonb *s64_output_numbers(const Output *output, Relation target);

#endif							/* S64_OUTPUT_H */
