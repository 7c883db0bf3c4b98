/*-------------------------------------------------------------------------
 *
 * columns.h
 *		The columns that an enrichment names.
 *
 * An enrichment keeps its columns by name, as declared, and by attribute
 * number.  In the table that the numbers were read from the number wins, so
 * that a column may be renamed; after a restore, which makes a new table and
 * compacts dropped columns, the name wins.  Numbers are kept as a JSON object
 * {"column": number}, with the table's OID under the empty name.
 *
 * What is written down about a row (job.row_key, job.row_input) uses the
 * declared names.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_COLUMNS_H
#define S64_COLUMNS_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

#include "compat.h"

typedef struct Column
{
	char	   *name;			/* as declared */
	char	   *actual;			/* as it is called now */
	AttrNumber	attnum;
	Oid			type;
	int32		typmod;
	Oid			base;			/* type, with domains looked through */
	int32		base_typmod;
	char		category;		/* of base: TYPCATEGORY_... */
} Column;

/* Is the type hstore, which has no OID of its own before it is installed? */
extern bool s64_type_is_hstore(Oid type);

/*
 * Find a column by its declared name.  False if it is not there (any more).
 * The result is palloc'd.
 */
extern bool s64_column_find(Relation rel, Jsonb *numbers, const char *name,
							Column *column);

/* The same for the column with that attribute number. */
extern void s64_column_from_number(Relation rel, Jsonb *numbers,
								   AttrNumber attnum, Column *column);

/*
 * The columns of the primary key, palloc'd; NULL if the table has none.
 */
extern Column *s64_columns_of_key(Relation rel, Jsonb *numbers, int *n);

/* Push "column": number, for all columns, and "": OID. */
extern void s64_columns_push_numbers(JsonbInState *state, Relation rel,
									 const Column *columns, int n);

/* Was this object of numbers read from that table? */
extern bool s64_columns_at_home(Relation rel, Jsonb *numbers);

/* Append alias."column". */
extern void s64_column_append(StringInfo buf, const char *alias,
							  const Column *column);

/*
 * Append '"declared name" type', for a column definition list.  The type is the
 * base type: a domain may not allow that the column is not there.
 */
extern void s64_column_append_definition(StringInfo buf, const Column *column);

/* Append left."column" = right."column", which may be NULL. */
extern void s64_column_append_equal(StringInfo buf, const Column *column,
									const char *left, const char *right,
									bool declared);

/*
 * Append a boolean expression that is true where both are the same, NULL
 * being the same as NULL, and otherwise false.  right is an alias of columns
 * called as declared, if declared, else as they are called now.
 */
extern void s64_column_append_same(StringInfo buf, const Column *column,
								   const char *left, const char *right,
								   bool declared);

/*
 * Append jsonb_build_object('declared name', value, ...).  Values do not
 * depend on the session's settings.
 */
extern void s64_columns_append_json(StringInfo buf, const char *alias,
									const Column *columns, int n);

/* Append the column's value as jsonb; NULL if it says nothing. */
extern void s64_column_append_fact(StringInfo buf, const char *alias,
								   const Column *column);

#endif							/* S64_COLUMNS_H */
