/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		Starts each database's worker and writer.
 *
 * The postmaster restarts the launcher, the launcher restarts the others, so
 * that it can wait longer after each failure, and knows who may run at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat.h"
#include "guc.h"
#include "launcher.h"
#include "order.h"
#include "roster.h"

#define RESTART_TIME	5		/* s, of the launcher itself */
#define PROBE_SHARE		4		/* at most 1/4 of the slots are used by probes */

/* What differs between worker and writer */
static const struct
{
	const char *type;
	const char *function;
}			programs[] = {
	[PROCESS_WORKER] = {"sixtyfour worker", "s64_worker_main"},
	[PROCESS_WRITER] = {"sixtyfour writer", "s64_writer_main"},
};

extern PGDLLEXPORT void s64_launcher_main(Datum arg);

/*
 * Of the processes that we started, until the postmaster has reaped them: a
 * slot that is not free yet must not look like one too few.
 */
static BackgroundWorkerHandle *handles[S64_ROSTER_PLACES][PROCESS_WRITER + 1];

/* Databases that were probed, and have not the extension (TopMemoryContext) */
static List *without = NIL;

/* What is said in the log once */
static bool said_too_few = false;
static bool said_too_many = false;

/* ---- which databases there are ---- */

static bool
is_listed(List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), "*") == 0 || strcmp(lfirst(cell), name) == 0)
			return true;
	}
	return false;
}

static OrderDatabase
judge_database(Form_pg_database form, List *names)
{
	OrderDatabase database;

	database.oid = form->oid;
	database.allowed = form->datallowconn && !form->datistemplate &&
		!database_is_invalid_form(form) && is_listed(names, NameStr(form->datname));
	database.known_without = list_member_oid(without, form->oid);
	return database;
}

/* All databases, in the current memory context, which a transaction resets */
static OrderDatabase *
read_databases(int *n)
{
	int			room = 64;
	OrderDatabase *databases = palloc(sizeof(OrderDatabase) * room);
	char	   *setting = pstrdup(s64_guc_databases);
	List	   *names = NIL;
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	*n = 0;
	(void) SplitIdentifierString(setting, ',', &names);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (*n == room)
		{
			room *= 2;
			databases = repalloc(databases, sizeof(OrderDatabase) * room);
		}
		databases[(*n)++] = judge_database((Form_pg_database) GETSTRUCT(tuple), names);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return databases;
}

/* Forget the dropped ones, so that a new one with an old number is probed. */
static void
forget_dropped(const OrderDatabase *databases, int n)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	List	   *rest = NIL;

	for (int i = 0; i < n; i++)
	{
		if (databases[i].known_without)
			rest = lappend_oid(rest, databases[i].oid);
	}
	MemoryContextSwitchTo(old);
	list_free(without);
	without = rest;
}

static void
rescan(void)
{
	OrderDatabase *databases;
	int			n;
	bool		all;

	if (!s64_order_must_rescan())
		return;
	StartTransactionCommand();
	databases = read_databases(&n);
	forget_dropped(databases, n);
	all = s64_order_sync(databases, n);
	CommitTransactionCommand();
	if (!all && !said_too_many)
		ereport(LOG,
				(errmsg("sixtyfour can work for %d databases only",
						S64_ROSTER_PLACES),
				 errhint("Name those that need it in \"sixtyfour.databases\".")));
	said_too_many = !all;
}

/* ---- starting ---- */

/* Has the process that was started last been reaped? */
static bool
has_ended(int place, ProcessKind kind)
{
	BackgroundWorkerHandle **handle = &handles[place][kind];
	pid_t		pid;

	if (*handle == NULL)
		return true;
	if (GetBackgroundWorkerPid(*handle, &pid) != BGWH_STOPPED)
		return false;
	pfree(*handle);
	*handle = NULL;
	/* the postmaster could not start it, or it failed before it could enter */
	s64_order_not_started(place, kind, GetCurrentTimestamp(),
						  "the process could not be started; see the server log");
	return true;
}

static void
tidy(int place)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Oid			database = s64_order_tidy(place);

	if (OidIsValid(database))
		without = list_append_unique_oid(without, database);
	MemoryContextSwitchTo(old);
}

/*
 * Mark what is to be started now, and collect it.  *next becomes the time at
 * which more may be due.
 */
static int
collect_due(Order *orders, TimestampTz now, TimestampTz *next)
{
	int			probes = Max(max_worker_processes / PROBE_SHARE, 1) -
		s64_order_probing();
	int			n = 0;

	for (int place = 0; place < s64_order_places(); place++)
	{
		bool		ended = true;

		for (ProcessKind kind = PROCESS_WORKER; kind <= PROCESS_WRITER; kind++)
		{
			orders[n].place = place;
			orders[n].kind = kind;
			if (!has_ended(place, kind))
				ended = false;
			else if (s64_order_due(&orders[n], probes > 0, now, next))
				probes -= orders[n++].probe;
		}
		if (ended)
			tidy(place);
	}
	return n;
}

static bool
start(const Order *order)
{
	BackgroundWorker worker = {0};
	MemoryContext old;
	bool		started;

	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "%s for database %u",
			 programs[order->kind].type, order->database);
	strlcpy(worker.bgw_type, programs[order->kind].type, sizeof(worker.bgw_type));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "sixtyfour", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, programs[order->kind].function,
			sizeof(worker.bgw_function_name));
	worker.bgw_main_arg = ObjectIdGetDatum(order->database);
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker,
											  &handles[order->place][order->kind]);
	MemoryContextSwitchTo(old);
	return started;
}

static void
report_too_few(const Order *orders, int n, TimestampTz now)
{
	int			enough = max_worker_processes + n;
	char		message[S64_ROSTER_MESSAGE_LEN];

	snprintf(message, sizeof(message),
			 "no background worker slot is free: set max_worker_processes to at least %d",
			 enough);
	for (int i = 0; i < n; i++)
		s64_order_not_started(orders[i].place, orders[i].kind, now, message);
	if (!said_too_few)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg_plural("sixtyfour could not start %d process: no background worker slot is free",
							   "sixtyfour could not start %d processes: no background worker slot is free",
							   n, n),
				 errhint("Set \"max_worker_processes\" to at least %d and restart the server.",
						 enough)));
	said_too_few = true;
}

/* Start what is due; returns when more may be due. */
static TimestampTz
start_due(Order *orders)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = DT_NOEND;
	int			n = collect_due(orders, now, &next);
	int			started = 0;

	while (started < n && start(&orders[started]))
		started++;
	if (started == n)
		return next;
	report_too_few(orders + started, n - started, now);
	/* they are due again after their pauses: find out when */
	SetLatch(MyLatch);
	return next;
}

/* ---- the process ---- */

static void
wait_until(TimestampTz next)
{
	static uint32 event = 0;
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	long		timeout = -1;

	if (event == 0)
		event = s64_wait_event_new("SixtyfourLauncher");
	if (next != DT_NOEND)
	{
		events |= WL_TIMEOUT;
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);
	}
	(void) WaitLatch(MyLatch, events, timeout, event);
	ResetLatch(MyLatch);
}

static void
reload(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	s64_order_rescan();
}

void
s64_launcher_main(Datum arg)
{
	Order *orders;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	orders = MemoryContextAlloc(TopMemoryContext,
								sizeof(Order) * (S64_ROSTER_PLACES * 2 + 1));
	if (s64_roster_enter(PROCESS_LAUNCHER, InvalidOid))
	{
		s64_order_begin();
		while (!ProcDiePending)
		{
			/* DROP DATABASE and others wait for every process (ProcSignalBarrier) */
			CHECK_FOR_INTERRUPTS();
			reload();
			rescan();
			s64_roster_report("running", 0);
			wait_until(start_due(orders));
		}
	}
	/* not 0, with which it would never be started again (bgworker.c) */
	proc_exit(1);
}

void
s64_launcher_init(void)
{
	BackgroundWorker worker = {0};

	/* pg_upgrade's servers must do nothing but what it says. */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	strlcpy(worker.bgw_name, "sixtyfour launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "sixtyfour launcher", sizeof(worker.bgw_type));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_TIME;
	strlcpy(worker.bgw_library_name, "sixtyfour", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "s64_launcher_main",
			sizeof(worker.bgw_function_name));
	RegisterBackgroundWorker(&worker);
}
