/*-------------------------------------------------------------------------
 *
 * sql.h
 *		Runs prepared statements on the ledgers, as the extension's owner.
 *
 *		s64_sql_begin();
 *		n = s64_sql_run(&statement, values, nulls);
 *		... SPI_tuptable, in the SPI memory context ...
 *		s64_sql_end();
 *
 * Between begin and end the current user is the extension's owner, and
 * search_path is pg_catalog, pg_temp, so that no object of a user can stand in
 * for one of the system's; an error gives both back with the transaction.
 * Statements are prepared once per process, and survive DROP and CREATE
 * EXTENSION.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_SQL_H
#define S64_SQL_H

#include "executor/spi.h"

#define S64_SQL_MAX_ARGS 20

/* A statement, kept in a static variable of the module that runs it */
typedef struct SqlStatement
{
	const char *text;
	int			nargs;
	Oid			types[S64_SQL_MAX_ARGS];
	SPIPlanPtr	plan;			/* once prepared */
} SqlStatement;

/*
 * Begin a transaction in a background process: StartTransactionCommand() with
 * a clock, as now() would otherwise stand still (only tcop/postgres.c winds it).
 */
extern void s64_sql_start_transaction(void);

/*
 * The version of the installed extension, palloc'd; NULL if it is not
 * installed.  Needs a transaction.
 */
extern char *s64_sql_extension_version(void);

/*
 * Connect to SPI as the owner of the extension.  Raises 55000 if the
 * extension is not installed in this database.
 */
extern void s64_sql_begin(void);
extern void s64_sql_end(void);

/* Between begin and end: who called, before */
extern Oid	s64_sql_caller(void);

/*
 * Run a statement with parameters ($1 …); nulls is as for SPI: 'n' for each
 * NULL, or NULL if there is none.  Returns the number of rows.  Raises what
 * the statement raises.
 */
extern uint64 s64_sql_run(SqlStatement *statement, Datum *values,
						  const char *nulls);

/* The same with begin and end, for what returns no rows or only their number */
extern uint64 s64_sql_execute(SqlStatement *statement, Datum *values,
							  const char *nulls);

/*
 * s64_sql_run() with the latest snapshot, whatever the transaction's isolation
 * level; the statement must be a SELECT.
 */
extern uint64 s64_sql_run_latest(SqlStatement *statement, Datum *values,
								 const char *nulls);

/* Column (from 1) of a row (from 0) of the result */
extern Datum s64_sql_value(uint64 row, int column, bool *isnull);

/* A text column, palloc'd in the current context; NULL for null */
extern char *s64_sql_text(uint64 row, int column);

/* An integer column of type bigint; 0 for null */
extern int64 s64_sql_int8(uint64 row, int column);

/* A bigint[] of n values, palloc'd */
extern Datum s64_sql_int8_array(const int64 *values, int n);

#endif							/* S64_SQL_H */
