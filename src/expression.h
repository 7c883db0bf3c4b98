/*-------------------------------------------------------------------------
 *
 * expression.h
 *		Boolean SQL expressions that people give as text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_EXPRESSION_H
#define S64_EXPRESSION_H

#include "nodes/bitmapset.h"
#include "utils/rel.h"

/*
 * Read an expression over the columns of a table, with the names that the
 * caller's search_path gives, and return it as SQL in which all names are
 * qualified, so that it means the same under any search_path; palloc'd.
 *
 * As a condition it obeys the rules of a trigger's WHEN, and may not use
 * system columns or the whole row; columns stand without a qualifier, and
 * their attribute numbers are added to *used.  As a filter (used is NULL) it
 * may be what a WHERE may be; columns are qualified by alias.
 *
 * Raises what the parser raises; what names the expression in messages.
 */
extern char *s64_expression_read(Relation rel, const char *alias,
								 const char *text, const char *what,
								 Bitmapset **used);

#endif							/* S64_EXPRESSION_H */
