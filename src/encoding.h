/*-------------------------------------------------------------------------
 *
 * encoding.h
 *		Between the service's UTF-8 and the database's encoding.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ENCODING_H
#define S64_ENCODING_H

#include "utils/jsonb.h"

/*
 * A string of the database in UTF-8.  The result is palloc'd, or the argument
 * itself where nothing is to be done.  Raises the conversion's own error
 * (22021, 22P05) if it has no UTF-8 form.
 */
extern char *s64_encoding_to_utf8(const char *text);

/* Can that be done? */
extern bool s64_encoding_has_utf8(const char *text);

/*
 * Foreign bytes as palloc'd text of the database, at most cap bytes of them,
 * for people to read: what the database cannot hold, control characters
 * included, is written as \xNN.  Outside of a transaction that is all that is not
 * ASCII, unless the database is in UTF-8.  Never fails but for memory.
 */
extern char *s64_encoding_display(const char *bytes, size_t len, size_t cap);

/*
 * Read a JSON text in UTF-8, NUL behind it, as jsonb (palloc'd).  If jsonb
 * cannot hold it, returns NULL and sets *why to a whole sentence; an error
 * was then caught, so the caller must end its transaction, or the
 * subtransaction that it began for this, in failure.
 */
extern Jsonb *s64_encoding_read_json(char *text, size_t len, char **why);

#endif							/* S64_ENCODING_H */
