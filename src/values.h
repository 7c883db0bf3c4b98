/*-------------------------------------------------------------------------
 *
 * values.h
 *		What an answer says for the columns of an output.
 *
 * Values are JSON that jsonb_to_record() turns into the column's type.  The
 * service is liberal: numbers, lists and objects may arrive as text, and '' is
 * "not found".  So:
 *
 * - a path that finds nothing says nothing: the column stays as it is;
 * - JSON null is NULL, and so is '' for a column that is not text;
 * - several things found are a list for an array or JSON column, otherwise
 *	 the first of them counts;
 * - a number for an integer column is rounded, as a cast would do;
 * - one thing for an array column is a list of one;
 * - an object for an hstore column is its keys and values, as text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_VALUES_H
#define S64_VALUES_H

#include "output.h"

/*
 * Make of a value what a column of that type needs, by the rules above; it may
 * go on pointing into what it came from.
 */
extern void s64_values_normalise(JsonbValue *v, Oid type);

/* {"declared name": value} of what is found; palloc'd */
extern Jsonb *s64_values_read(Jsonb *answer, const OutputColumn *columns, int n);

/* The same for each person in an answer of enrich_company: an array */
extern Jsonb *s64_values_read_leads(Jsonb *answer, const OutputColumn *columns,
									int n);

#endif							/* S64_VALUES_H */
