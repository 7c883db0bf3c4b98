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

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fault.h"
#include "guc.h"
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

/* Begin a transaction, and show it in pg_stat_activity. */
static void
begin_transaction(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	/* users' triggers may have taken some, and we have none ourselves */
	LockReleaseSession(USER_LOCKMETHOD);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* Write one batch; returns the number of jobs looked at. */
static int
write_batch(void)
{
	int			looked_at;
	int			settled;

	s64_roster_report("writing", 0);
	begin_transaction("sixtyfour: writing answers into rows");
	settled = s64_writeback_batch(&looked_at);
	S64_FAULT("t4-before-commit");
	end_transaction();
	S64_FAULT("t4-after");
	if (settled > 0)
		s64_roster_announce();
	return looked_at;
}

static TimestampTz
next_due(void)
{
	TimestampTz next;

	begin_transaction("sixtyfour: looking for answers that wait");
	next = s64_writeback_next_due();
	end_transaction();
	return next;
}

/* Has there been nothing to do for sixtyfour.idle_timeout? */
static bool
is_idle(TimestampTz since)
{
	return s64_guc_idle_timeout > 0 &&
		TimestampDifferenceExceeds(since, GetCurrentTimestamp(), s64_guc_idle_timeout * 1000);
}

/* Sleep until the next job is due, or it is time to prune, or to leave. */
static void
sleep_until(TimestampTz next, TimestampTz prune, TimestampTz active)
{
	static uint32 wait_event = 0;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz leave = TimestampTzPlusMilliseconds(active, s64_guc_idle_timeout * INT64CONST(1000));
	long		timeout = LONGEST_SLEEP;

	if (wait_event == 0)
		wait_event = s64_wait_event_new("SixtyfourWriterMain");
	if (!TIMESTAMP_IS_NOEND(Min(next, prune)))
		timeout = Min(timeout, TimestampDifferenceMilliseconds(now, Min(next, prune)));
	/* one that is to leave and does not was woken: its latch is set */
	if (s64_guc_idle_timeout > 0 && leave > now)
		timeout = Min(timeout, TimestampDifferenceMilliseconds(now, leave));
	timeout = Max(timeout, SHORTEST_SLEEP);
	s64_roster_report(TIMESTAMP_IS_NOEND(next) ? "idle" : "waiting for locked rows", 0);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
work(void)
{
	MemoryContext turn = AllocSetContextCreate(TopMemoryContext, "sixtyfour turn",
											   ALLOCSET_DEFAULT_SIZES);
	TimestampTz active = GetCurrentTimestamp();

	while (s64_process_goes_on())
	{
		TimestampTz next;
		TimestampTz prune;

		prune = s64_retention_turn(s64_roster_was_woken());
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		if (write_batch() > 0)
		{
			active = GetCurrentTimestamp();
			continue;
		}
		next = next_due();
		if (prune < GetCurrentTimestamp() + USECS_PER_SEC)
			active = GetCurrentTimestamp();
		if (is_idle(active) && s64_roster_leave(Min(next, prune)))
			return;
		sleep_until(next, prune, active);
	}
}

void
s64_writer_main(Datum database)
{
	s64_process_run(PROCESS_WRITER, DatumGetObjectId(database), work);
}
