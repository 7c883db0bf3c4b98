/*-------------------------------------------------------------------------
 *
 * csv.h
 *		Reads a CSV text as it comes in.
 *
 * PostgreSQL's COPY takes the text apart, so what is a field is what it is
 * there: quotes are doubled inside quotes, an empty field is missing, "" is an
 * empty text.  Other than there, lines may end in \n, \r\n and \r, in one
 * text too, and \. is nothing special.  The first line that is not blank is
 * the header.  Memory is bounded by the longest record, whatever the size.
 *
 *		reader = s64_csv_open(source, arg, PG_UTF8);
 *		while (s64_csv_next(reader, &fields))
 *			... fields[0 .. n - 1], or s64_csv_row(reader) ...
 *		s64_csv_close(reader);
 *
 * Errors in the text are 08P01, and say the line that its record begins at.
 * After an error the reader is not to be used, and goes with its memory
 * context and transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_CSV_H
#define S64_CSV_H

#include "utils/jsonb.h"

typedef struct CsvReader CsvReader;

/*
 * Write at most max (some KB) of the next bytes to buf, and return how many;
 * 0 at the end, after which it is not called again.  May wait, use another
 * reader, and raise errors, which pass through unchanged.
 */
typedef int (*CsvSource) (void *arg, char *buf, int max);

/* The source of a text that is in memory; arg is a CsvBytes, which it consumes. */
typedef struct CsvBytes
{
	const char *data;
	size_t		len;
} CsvBytes;

extern int	s64_csv_from_bytes(void *arg, char *buf, int max);

/*
 * A reader in the current memory context, for use in the current transaction.
 * encoding is that of the bytes, one that a database can have; a byte order
 * mark of UTF-8 is skipped.
 * Nothing is read yet.
 */
extern CsvReader *s64_csv_open(CsvSource source, void *arg, int encoding);

/*
 * The names of the *n columns, in the database's encoding, valid as long as
 * the reader; *n is 0 if the text is empty.  They are as they stand in the
 * header, but no two are the same: the second "a" is called "a_2", or what
 * next has no column of that name.  Raises 08P01, 54000 for more than 65536
 * columns, and what the source raises.
 */
extern char **s64_csv_header(CsvReader *reader, int *n);

/*
 * Read the next record: as many fields as there are columns, in the database's
 * encoding, NULL where one is missing.  False at the end.  They are valid until
 * the next call.  A blank line is no record, unless there is only one column.
 * Raises 08P01, also for a record of more or fewer fields, 54000 for one of
 * more than 1 GB, and what the source raises.
 */
extern bool s64_csv_next(CsvReader *reader, char ***fields);

/*
 * The record that was just read as an object of texts and nulls, valid until
 * the next one is read.  Raises 54000 for one of more than 256 MB.
 */
extern Jsonb *s64_csv_row(CsvReader *reader);

/* The line, from 1, at which that record begins */
extern int64 s64_csv_line(CsvReader *reader);

/* Release the reader. */
extern void s64_csv_close(CsvReader *reader);

#endif							/* S64_CSV_H */
