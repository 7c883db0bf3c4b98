/*-------------------------------------------------------------------------
 *
 * writer.c
 *		The background process that brings answers home to the rows.
 *
 * It is not the worker, so that users' triggers and locks never delay calls.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fault.h"
#include "guc.h"
#include "import.h"
#include "process.h"
#include "retention.h"
#include "roster.h"
#include "writeback.h"
#include "writer.h"

/* Look again after this long though nobody woke us: a wake-up may be lost
 * with the process that owed it. */
#define LONGEST_SLEEP 60000		/* ms */

/* A job that is due but cannot be had is somebody's for a moment. */
#define SHORTEST_SLEEP 200

/* Was this process woken, and has not looked for work since? */
static bool woken = false;

/* Write one batch; returns the number of jobs looked at. */
static int
write_batch(void)
{
	int			looked_at;
	int			settled;

	s64_roster_report("writing", 0);
	s64_process_begin_transaction("sixtyfour: writing answers into rows");
	settled = s64_writeback_batch(&looked_at);
	S64_FAULT("t4-before-commit");
	s64_process_end_transaction();
	S64_FAULT("t4-after");
	if (settled > 0)
		s64_roster_announce();
	return looked_at;
}

/* When the next answers are due, and the next rows to import */
static void
find_due(TimestampTz *answers, TimestampTz *rows)
{
	s64_process_begin_transaction("sixtyfour: looking for answers that wait");
	*answers = s64_writeback_next_due();
	*rows = s64_import_next_due();
	s64_process_end_transaction();
}

/* Has there been nothing to do for sixtyfour.idle_timeout? */
static bool
is_idle(TimestampTz since)
{
	return s64_guc_idle_timeout > 0 &&
		TimestampDifferenceExceeds(since, GetCurrentTimestamp(), s64_guc_idle_timeout * 1000);
}

/*
 * Wait while rows are fetched, until there is something else to do.  What comes of
 * them is taken as it comes, without a look at the ledger each time.
 */
static void
wait_with_imports(TimestampTz until)
{
	bool		ended = false;

	s64_roster_report("fetching rows", s64_import_under_way());
	do
	{
		ended = s64_import_wait(until);
		woken |= s64_roster_was_woken();
	} while (s64_process_goes_on() && !ended && !woken && GetCurrentTimestamp() < until);
}

/* Sleep for at most so many ms. */
static void
wait_for_latch(long timeout)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = s64_wait_event_new("SixtyfourWriterMain");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Sleep until the next job is due, or it is time to prune, or to leave. */
static void
sleep_until(TimestampTz answers, TimestampTz rows, TimestampTz prune, TimestampTz active)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = Min(Min(answers, rows), prune);
	TimestampTz leave = TimestampTzPlusMilliseconds(active, s64_guc_idle_timeout * INT64CONST(1000));
	long		timeout = LONGEST_SLEEP;

	if (!TIMESTAMP_IS_NOEND(next))
		timeout = Min(timeout, TimestampDifferenceMilliseconds(now, next));
	/* one that is to leave and does not was woken: its latch is set */
	if (s64_guc_idle_timeout > 0 && leave > now)
		timeout = Min(timeout, TimestampDifferenceMilliseconds(now, leave));
	timeout = Max(timeout, SHORTEST_SLEEP);
	if (s64_import_under_way() > 0)
	{
		wait_with_imports(TimestampTzPlusMilliseconds(now, timeout));
		return;
	}
	s64_roster_report(!TIMESTAMP_IS_NOEND(answers) ? "waiting for locked rows"
					  : !TIMESTAMP_IS_NOEND(rows) ? "waiting to import rows" : "idle", 0);
	wait_for_latch(timeout);
}

static void
work(void)
{
	MemoryContext turn = AllocSetContextCreate(TopMemoryContext, "sixtyfour turn",
											   ALLOCSET_DEFAULT_SIZES);
	TimestampTz active = GetCurrentTimestamp();

	while (s64_process_goes_on())
	{
		TimestampTz answers;
		TimestampTz rows;
		TimestampTz prune;
		bool		busy;

		woken |= s64_roster_was_woken();
		prune = s64_retention_turn(woken);
		woken = false;
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		busy = write_batch() > 0;
		MemoryContextSwitchTo(turn);
		busy |= s64_import_turn();
		if (busy || s64_import_under_way() > 0)
			active = GetCurrentTimestamp();
		if (busy)
			continue;
		find_due(&answers, &rows);
		if (prune < GetCurrentTimestamp() + USECS_PER_SEC)
			active = GetCurrentTimestamp();
		if (is_idle(active) && s64_roster_leave(Min(Min(answers, rows), prune)))
			return;
		sleep_until(answers, rows, prune, active);
	}
}

void
s64_writer_main(Datum database)
{
	s64_process_run(PROCESS_WRITER, DatumGetObjectId(database), work);
}
