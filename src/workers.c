/*-------------------------------------------------------------------------
 *
 * workers.c
 *		What stands behind the view sixtyfour.workers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "roster.h"

#define COLUMNS 7

S64_FUNCTION(sixtyfour_workers);

static const char *const kinds[] = {
	[PROCESS_LAUNCHER] = "launcher",
	[PROCESS_WORKER] = "worker",
	[PROCESS_WRITER] = "writer",
};

/* Add a row to the result, unless its database is gone. */
static void
put_row(ReturnSetInfo *result, const RosterRow *row)
{
	char	   *name = OidIsValid(row->database) ? get_database_name(row->database) : NULL;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {false};
	NameData	database;

	if (OidIsValid(row->database) && name == NULL)
		return;
	nulls[0] = name == NULL;
	namestrcpy(&database, name ? name : "");
	values[0] = NameGetDatum(&database);
	nulls[1] = row->pid == 0;
	values[1] = Int32GetDatum(row->pid);
	values[2] = CStringGetTextDatum(kinds[row->kind]);
	values[3] = CStringGetTextDatum(row->state);
	nulls[4] = row->last_turn == 0;
	values[4] = TimestampTzGetDatum(row->last_turn);
	values[5] = Int32GetDatum(row->in_flight);
	nulls[6] = row->message[0] == '\0';
	values[6] = CStringGetTextDatum(row->message);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * sixtyfour_workers(): the background processes.  Who is not a member of
 * pg_monitor sees those of the current database.
 */
Datum
sixtyfour_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		monitor = has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
	RosterRow  *rows;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	rows = s64_roster_rows(&n);
	for (int i = 0; i < n; i++)
	{
		if (monitor || rows[i].database == MyDatabaseId)
			put_row(result, &rows[i]);
	}
	return (Datum) 0;
}
