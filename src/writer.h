/*-------------------------------------------------------------------------
 *
 * writer.h
 *		The background process that brings answers home to the rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_WRITER_H
#define S64_WRITER_H

/* Main function of a background worker; its argument is the database's OID. */
extern PGDLLEXPORT void s64_writer_main(Datum database);

#endif							/* S64_WRITER_H */
