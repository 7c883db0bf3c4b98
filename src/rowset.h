/*-------------------------------------------------------------------------
 *
 * rowset.h
 *		Rows of jsonb that a function returns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ROWSET_H
#define S64_ROWSET_H

#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"

typedef struct Rowset
{
	Tuplestorestate *store;
	TupleDesc	desc;
} Rowset;

/*
 * The rows that the function being called, which RETURNS SETOF jsonb, returns:
 * none yet.  They go to disk beyond work_mem.  Raises 0A000 where a set cannot
 * be returned.
 */
extern Rowset s64_rowset_begin(FunctionCallInfo fcinfo);

/* Add a row. */
extern void s64_rowset_add(const Rowset *rowset, Jsonb *row);

/*
 * Add the elements of an array; raises 08P01, saying what it is, if it is none.
 */
extern void s64_rowset_add_elements(const Rowset *rowset, Jsonb *array,
									const char *what);

#endif							/* S64_ROWSET_H */
