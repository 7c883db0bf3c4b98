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
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "process.h"
#include "sql.h"

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
	{"transaction_timeout", "0"},	/* where there is one */
	{"idle_in_transaction_session_timeout", "0"},
	{"jit", "off"},				/* it takes longer than what it would make faster */
};

static void
connect_to(Oid database)
{
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	for (int i = 0; i < (int) lengthof(overrides); i++)
	{
		if (GetConfigOption(overrides[i][0], true, false) != NULL)
			SetConfigOption(overrides[i][0], overrides[i][1], PGC_SUSET,
							PGC_S_OVERRIDE);
	}
}

/* Is the extension installed here?  Tells the roster. */
static bool
find_extension(void)
{
	bool		found;

	/* before looking: an extension created after that wakes us again */
	(void) s64_roster_was_woken();
	s64_sql_start_transaction();
	found = OidIsValid(get_extension_oid("sixtyfour", true));
	CommitTransactionCommand();
	if (found)
		s64_roster_found_extension();
	else
		s64_roster_found_no_extension();
	return found;
}

/* Is version a older than b, number by number?  "1.10" is newer than "1.9". */
static bool
is_older(const char *a, const char *b)
{
	for (;;)
	{
		char	   *end_a;
		char	   *end_b;
		long		number_a = strtol(a, &end_a, 10);
		long		number_b = strtol(b, &end_b, 10);

		if (number_a != number_b)
			return number_a < number_b;
		if (*end_a != '.' || *end_b != '.')
			return *end_b == '.';
		a = end_a + 1;
		b = end_b + 1;
	}
}

/*
 * Do the installed extension and this library belong together?  If not, then
 * also what is to be done about it, in a buffer of that size.
 */
static bool
versions_agree(char *remedy, size_t size)
{
	char	   *version;
	bool		agree;

	s64_sql_start_transaction();
	version = s64_sql_extension_version();
	agree = version == NULL || strcmp(version, S64_VERSION) == 0;
	if (!agree && is_older(S64_VERSION, version))
		snprintf(remedy, size,
				 "the extension has version %s, the library %s: install the library of version %s, and restart the server",
				 version, S64_VERSION, version);
	else if (!agree)
		snprintf(remedy, size,
				 "the extension has version %s, the library %s: use ALTER EXTENSION sixtyfour UPDATE",
				 version, S64_VERSION);
	CommitTransactionCommand();
	return agree;
}

/* Sleep until the latch is set, or timeout ms have passed (0: never). */
static void
sleep_idly(long timeout)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = s64_wait_event_new("SixtyfourIdle");
	pgstat_report_activity(STATE_IDLE, NULL);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
					 (timeout > 0 ? WL_TIMEOUT : 0), timeout, wait_event);
	ResetLatch(MyLatch);
}

/*
 * While the installed extension is not that of this library, what is in the
 * tables may not be what we think: do nothing, and say so.  ALTER EXTENSION
 * ends us; whatever else is done about it is seen with the next wake-up.
 * False if the process is to end.
 */
static bool
wait_for_agreement(void)
{
	TimestampTz since = GetCurrentTimestamp();
	char		remedy[S64_ROSTER_MESSAGE_LEN];
	bool		said = false;

	while (!versions_agree(remedy, sizeof(remedy)))
	{
		int64		left = since + s64_guc_idle_timeout * USECS_PER_SEC -
			GetCurrentTimestamp();

		if (!said)
			ereport(LOG,
					(errmsg("%s does nothing: %s", MyBgworkerEntry->bgw_name, remedy)));
		said = true;
		s64_roster_say_to_all(remedy);
		s64_roster_report("idle", 0);
		if (s64_guc_idle_timeout > 0 && left <= 0 && s64_roster_leave(0))
			return false;
		sleep_idly(s64_guc_idle_timeout > 0 ? (long) Max(left / 1000, 0) + 1 : 0);
		if (!s64_process_goes_on())
			return false;
		(void) s64_roster_was_woken();	/* before looking */
	}
	if (said)
		s64_roster_say(NULL);
	return true;
}

void
s64_process_begin_transaction(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
clean_up(void)
{
	LockReleaseSession(USER_LOCKMETHOD);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

void
s64_process_end_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	clean_up();
}

ErrorData *
s64_process_recover(MemoryContext context)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	clean_up();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	return error;
}

void
s64_process_say_error(void)
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
		if (find_extension() && wait_for_agreement())
			work();
	}
	PG_CATCH();
	{
		s64_process_say_error();
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
