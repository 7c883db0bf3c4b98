/*-------------------------------------------------------------------------
 *
 * process.c
 *		What worker and writer have in common: how they begin, go on and end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "process.h"

/*
 * Settings that a database or the server may have for its users, and that
 * would stop us (as in autovacuum.c).
 */
static const char *const overrides[][2] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
};

static void
connect_to(Oid database)
{
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	for (int i = 0; i < (int) lengthof(overrides); i++)
		SetConfigOption(overrides[i][0], overrides[i][1], PGC_SUSET,
						PGC_S_OVERRIDE);
}

/* Is the extension installed here?  Tells the roster. */
static bool
find_extension(void)
{
	bool		found;

	/* before looking: an extension created after that wakes us again */
	(void) s64_roster_was_woken();
	StartTransactionCommand();
	found = OidIsValid(get_extension_oid("sixtyfour", true));
	CommitTransactionCommand();
	if (found)
		s64_roster_found_extension();
	else
		s64_roster_found_no_extension();
	return found;
}

/* Leave the message of the error that is being thrown in the roster. */
static void
say_error(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	s64_roster_say(error->message);
	FreeErrorData(error);
}

void
s64_process_run(ProcessKind kind, Oid database, void (*work) (void))
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!s64_roster_enter(kind, database))
		return;
	PG_TRY();
	{
		connect_to(database);
		if (find_extension())
			work();
	}
	PG_CATCH();
	{
		say_error();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

bool
s64_process_goes_on(void)
{
	if (ProcDiePending || s64_roster_told_to_leave())
		return false;
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	/* DROP DATABASE and others wait for every process (ProcSignalBarrier). */
	CHECK_FOR_INTERRUPTS();
	return true;
}
