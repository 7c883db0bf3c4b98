/*-------------------------------------------------------------------------
 *
 * literal.h
 *		Reads lists and objects that arrive as text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_LITERAL_H
#define S64_LITERAL_H

#include "utils/jsonb.h"

/*
 * Read a list or an object written as JSON, or the way Python prints them
 * (['a', "b's"], {'a': None}); palloc'd.  NULL if the text is neither.
 */
extern Jsonb *s64_literal_read(const char *text, size_t len);

/* Is it a plain decimal number: sign, digits, perhaps a point and digits? */
extern bool s64_literal_is_number(const char *text);

#endif							/* S64_LITERAL_H */
