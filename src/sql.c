/*-------------------------------------------------------------------------
 *
 * sql.c
 *		Runs prepared statements on the ledgers, as the extension's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "sql.h"

static Oid	saved_user;
static int	saved_context;
static int	nestlevel;
static bool snapshot_pushed;	/* background processes have none of their own */

/*
 * The owner of the installed extension; InvalidOid if it is not installed.
 * *version is set too, if it is wanted.
 */
static Oid
read_extension(char **version)
{
	Oid			extension = get_extension_oid("sixtyfour", true);
	Oid			owner = InvalidOid;
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	if (!OidIsValid(extension))
		return InvalidOid;
	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	if (HeapTupleIsValid(tuple) && version != NULL)
		*version = TextDatumGetCString(heap_getattr(tuple, Anum_pg_extension_extversion,
													RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

char *
s64_sql_extension_version(void)
{
	char	   *version = NULL;

	(void) read_extension(&version);
	return version;
}

void
s64_sql_start_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

void
s64_sql_begin(void)
{
	Oid			owner = read_extension(NULL);

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension sixtyfour is not installed in this database")));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	snapshot_pushed = !ActiveSnapshotSet();
	if (snapshot_pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(owner, saved_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
	/* a plan is made anew whenever the search_path is not that of its making */
	nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
s64_sql_end(void)
{
	AtEOXact_GUC(true, nestlevel);
	SetUserIdAndSecContext(saved_user, saved_context);
	if (snapshot_pushed)
		PopActiveSnapshot();
	SPI_finish();
}

Oid
s64_sql_caller(void)
{
	return saved_user;
}

static void
prepare(SqlStatement *statement)
{
	/* custom plans would be made, and cost more than they save, every time */
	statement->plan = SPI_prepare_cursor(statement->text, statement->nargs,
										 statement->types, CURSOR_OPT_GENERIC_PLAN);
	if (statement->plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(statement->plan);
}

static uint64
run(SqlStatement *statement, Datum *values, const char *nulls, Snapshot snapshot)
{
	int			rc;

	if (statement->plan == NULL)
		prepare(statement);
	rc = SPI_execute_snapshot(statement->plan, values, nulls, snapshot,
							  InvalidSnapshot, false, true, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

uint64
s64_sql_run(SqlStatement *statement, Datum *values, const char *nulls)
{
	return run(statement, values, nulls, InvalidSnapshot);
}

uint64
s64_sql_execute(SqlStatement *statement, Datum *values, const char *nulls)
{
	uint64		rows;

	s64_sql_begin();
	rows = s64_sql_run(statement, values, nulls);
	s64_sql_end();
	return rows;
}

uint64
s64_sql_run_latest(SqlStatement *statement, Datum *values, const char *nulls)
{
	static SnapshotData latest = {SNAPSHOT_MVCC};

	/* GetLatestSnapshot() refuses that, as parallel plans have no need for it */
	if (IsInParallelMode())
		return run(statement, values, nulls, GetSnapshotData(&latest));
	CommandCounterIncrement();
	return run(statement, values, nulls, GetLatestSnapshot());
}

Datum
s64_sql_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

char *
s64_sql_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

int64
s64_sql_int8(uint64 row, int column)
{
	bool		isnull;
	Datum		value = s64_sql_value(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

Datum
s64_sql_int8_array(const int64 *values, int n)
{
	Datum	   *datums = palloc((n + 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
