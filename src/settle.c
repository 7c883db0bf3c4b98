/*-------------------------------------------------------------------------
 *
 * settle.c
 *		What becomes of a call when a request about it has ended.
 *
 * All that ended since the last turn is recorded in one transaction.  If that
 * fails, each is recorded alone, so that one that cannot be stored does not
 * hold back the others; and the one that cannot be stored for what it
 * contains is recorded as failed, its text kept raw.
 *
 * What follows the commit happens once for each flight, whatever error comes
 * in between: with the commit it moves to another list, and is counted there
 * before anything that can fail.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "board.h"
#include "fault.h"
#include "flight.h"
#include "ledger.h"
#include "meter.h"
#include "price.h"
#include "report.h"
#include "resend.h"
#include "schedule.h"
#include "settle.h"
#include "sql.h"
#include "task.h"
#include "tasks.h"
#include "uncertain.h"

#define MAX_ODDITIES	5		/* polls in a row that make no sense */
#define RECORD_RETRY	INT64CONST(1000000) /* µs */
#define ACCOUNT_PAUSE	INT64CONST(60000000)	/* µs */
#define RAW_MAX			(128 * 1024 * 1024) /* bytes of an answer kept as text */

static dlist_head ended = DLIST_STATIC_INIT(ended);
static dlist_head recorded = DLIST_STATIC_INIT(recorded);	/* and committed */

/* ---- pauses ---- */

static char *
describe(const Outcome *outcome)
{
	Failure		failure = s64_report_read(outcome, "submission");

	return s64_report_join(failure.message, failure.detail);
}

/* The service refuses the account itself: no use to go on asking. */
static void
pause_account(const Account *account, const Outcome *outcome)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		is_new = s64_meter_read(account, now).paused_until < now;

	/* it must not depend on the log */
	s64_meter_pause(account, now + ACCOUNT_PAUSE, s64_report_sqlstate(outcome), now);
	if (is_new)
		ereport(LOG,
				(errmsg("sixtyfour: submissions over server \"%s\" pause for %d s",
						account->server, (int) (ACCOUNT_PAUSE / 1000000)),
				 errdetail("%s", describe(outcome))));
}

/* ---- money ---- */

/*
 * A submission replaces what was set aside by what it cost; what is uncertain
 * stays set aside.  When its task has told the real price, that is corrected,
 * on the day and for the account of the submission.  So the meter always says
 * what would be read from the ledger (spending.c).
 */
static void
settle_money(const Flight *flight)
{
	const Task *task = flight->task;

	/* what was at risk is spent, as the service knows the task */
	if (flight->proven)
		s64_meter_correct(&task->account, task->expected_cents,
						  -task->expected_cents, task->reserved_at);
	if (task == NULL && flight->cents >= 0)
		s64_meter_settle(flight->account, flight->reserved, flight->cents,
						 flight->reserved_at);
	else if (task != NULL && flight->call_expired)
		s64_meter_correct(&task->account, -task->expected_cents,
						  task->expected_cents, task->reserved_at);
	else if (task != NULL && flight->call_ended && flight->cents >= 0)
		s64_meter_correct(&task->account, flight->cents - task->expected_cents,
						  0, task->reserved_at);
}

/* Learn from what the answer to a call says that it cost. */
static void
settle_price(const Flight *flight)
{
	PriceKind	kind = flight->request->kind;
	const Task *task = flight->task;

	if (flight->item_cents < 0)
		return;
	if (task != NULL)
		strlcpy(kind.name, task->price_kind, sizeof(kind.name));
	if (kind.name[0] != '\0')
		s64_price_learn(task ? &task->account : &flight->account->id, &kind,
						flight->item_cents);
}

/* Tell the meter what a reply says about the rate. */
static void
settle_rate(const Flight *flight)
{
	const Outcome *outcome = flight->outcome;
	TimestampTz now = GetCurrentTimestamp();

	if (outcome->kind == OUTCOME_RATE_LIMITED && !flight->request->few_at_once)
		s64_meter_refused(flight->account, outcome->retry_after, now);
	else if (outcome->remaining >= 0)
		s64_meter_remaining(flight->account, outcome->remaining, now);
}

/* ---- submissions ---- */

/* The text of an answer that could not be used, for the ledger */
static const char *
raw_text(const Outcome *outcome)
{
	if (outcome->raw != NULL)
		return outcome->raw;
	if (outcome->answer != NULL)
		return JsonbToCString(NULL, &outcome->answer->root, VARSIZE(outcome->answer));
	return outcome->said;
}

/* The message of what went wrong; the rest is noted with the call. */
static const char *
explain(const Flight *flight, int64 epoch)
{
	Failure		failure = s64_report_read(flight->outcome, flight->request->what);

	s64_ledger_explain(flight->call, epoch, failure.detail, failure.hint);
	return failure.message;
}

static void
record_rejection(Flight *flight, int64 epoch)
{
	const Outcome *outcome = flight->outcome;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz retry_at = now + s64_schedule_retry(flight->attempts);

	flight->cents = 0;
	switch (outcome->kind)
	{
		case OUTCOME_BAD_REQUEST:
			/* it may be for one of them: each is tried alone (claim.h) */
			retry_at = flight->items > 1 ? now : DT_NOBEGIN;
			break;
		case OUTCOME_FORBIDDEN:
		case OUTCOME_NOT_FOUND:
			retry_at = DT_NOBEGIN;	/* it would be refused again */
			break;
		case OUTCOME_RATE_LIMITED:
			retry_at = now + outcome->retry_after;
			break;
		case OUTCOME_KEY_REFUSED:
		case OUTCOME_NO_BALANCE:
			retry_at = now;		/* when the account's pause is over */
			break;
		default:
			break;
	}
	s64_ledger_rejected(flight->call, epoch, s64_report_sqlstate(outcome),
						explain(flight, epoch), retry_at);
}

/* The answer to a submission that is answered at once */
static void
record_direct_answer(Flight *flight, int64 epoch)
{
	const Outcome *outcome = flight->outcome;
	Jsonb	   *answer = outcome->answer;

	flight->item_cents = outcome->cents;
	flight->cents = outcome->cents >= 0 ? outcome->cents : flight->reserved;
	if (answer == NULL)
		s64_ledger_failed(flight->call, epoch, ERRCODE_PROTOCOL_VIOLATION,
						  "the service's answer is empty", (int) outcome->cents, "");
	else
		s64_ledger_done(flight->call, epoch, &answer, 1, (int) outcome->cents, NULL);
}

static void
record_acceptance(Flight *flight, int64 epoch)
{
	char	   *task_id = s64_task_id(s64_endpoint_follow(flight->endpoint), flight->outcome->answer);

	if (task_id == NULL)
		s64_ledger_uncertain(flight->call, epoch,
							 "the service accepted the request without naming a task",
							 raw_text(flight->outcome));
	else
	{
		/* the price that was set aside is what is known for now */
		flight->cents = flight->reserved;
		s64_ledger_accepted(flight->call, epoch, task_id);
	}
}

static void
record_submission(Flight *flight, int64 epoch)
{
	const Outcome *outcome = flight->outcome;

	if (outcome->kind == OUTCOME_ANSWER && flight->direct)
		record_direct_answer(flight, epoch);
	else if (outcome->kind == OUTCOME_ANSWER)
		record_acceptance(flight, epoch);
	else if (outcome->billing == BILLING_NONE)
		record_rejection(flight, epoch);
	else if (outcome->billing == BILLING_DONE && flight->direct)
	{
		flight->cents = outcome->cents >= 0 ? outcome->cents : flight->reserved;
		s64_ledger_failed(flight->call, epoch, s64_report_sqlstate(outcome),
						  explain(flight, epoch),
						  (int) outcome->cents, raw_text(outcome));
	}
	else
		s64_ledger_uncertain(flight->call, epoch,
							 explain(flight, epoch),
							 raw_text(outcome));
}

/* ---- polls ---- */

/* The answers to a call's items in a finished task's result */
static Jsonb **
split_result(const Flight *flight, Jsonb *result)
{
	Jsonb	  **answers = palloc0(flight->items * sizeof(Jsonb *));
	Jsonb	  **subjects;

	if (flight->items == 1)
	{
		answers[0] = result;
		return answers;
	}
	subjects = palloc(flight->items * sizeof(Jsonb *));
	s64_ledger_subjects(flight->call, subjects, flight->items);
	s64_task_match(flight->endpoint, result, subjects, flight->items, answers);
	return answers;
}

static bool
is_complete(Jsonb **answers, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (answers[i] == NULL)
			return false;
	}
	return true;
}

static void
record_finished_task(Flight *flight, int64 epoch, const TaskStatus *task)
{
	const char *raw = raw_text(flight->outcome);
	Jsonb	  **answers;

	flight->cents = task->cents;
	if (task->state == TASK_FAILED)
		s64_ledger_failed(flight->call, epoch, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
						  psprintf("the service could not do it: %s", task->error),
						  task->cents, raw);
	else if (task->result == NULL)
		s64_ledger_failed(flight->call, epoch, ERRCODE_PROTOCOL_VIOLATION,
						  "the service says that the task is completed, but gives no result",
						  task->cents, raw);
	else
	{
		if (task->cents >= 0)
			flight->item_cents = (double) task->cents / Max(flight->items, 1);
		answers = split_result(flight, task->result);
		s64_ledger_done(flight->call, epoch, answers, flight->items, task->cents,
						is_complete(answers, flight->items) ? NULL : raw);
	}
}

/*
 * A poll that says nothing about its task counts as odd.  After a number of
 * them in a row it is taken at its word.  Returns true if the call has ended.
 */
static bool
record_odd_poll(Flight *flight, int64 epoch)
{
	const Outcome *outcome = flight->outcome;

	if (flight->task->oddities + 1 < MAX_ODDITIES)
		return false;
	flight->call_expired = outcome->kind == OUTCOME_NOT_FOUND;
	if (flight->call_expired)
		s64_ledger_expired(flight->call, epoch,
						   "the service no longer knows the task");
	else
		s64_ledger_failed(flight->call, epoch, s64_report_sqlstate(outcome),
						  explain(flight, epoch),
						  -1, raw_text(outcome));
	return true;
}

/* Returns true if the call has ended, false if its task is to be polled on. */
static bool
record_poll(Flight *flight, int64 epoch)
{
	const Outcome *outcome = flight->outcome;
	Task	   *task = flight->task;
	TaskStatus	status;

	switch (outcome->kind)
	{
		case OUTCOME_ANSWER:
			status = s64_task_read(s64_endpoint_follow(flight->endpoint), outcome->answer);
			if (status.state != TASK_RUNNING)
			{
				record_finished_task(flight, epoch, &status);
				return true;
			}
			break;
		case OUTCOME_NOT_FOUND:
		case OUTCOME_UNREADABLE:
		case OUTCOME_TOO_LARGE:
			return record_odd_poll(flight, epoch);
		default:
			break;
	}
	if (task->accepted_at + s64_schedule_deadline(task->operation) > GetCurrentTimestamp())
		return false;
	flight->call_expired = true;
	s64_ledger_expired(flight->call, epoch, "the task did not end in time");
	return true;
}

/* ---- candidates ---- */

static bool
is_odd(const Outcome *outcome)
{
	return outcome->kind == OUTCOME_NOT_FOUND ||
		outcome->kind == OUTCOME_UNREADABLE || outcome->kind == OUTCOME_TOO_LARGE;
}

/* What speaks against a candidate; NULL if nothing (more) does */
static char *
doubt(const Flight *flight)
{
	const Outcome *outcome = flight->outcome;
	const Task *task = flight->task;
	Failure		failure;

	if (outcome->kind == OUTCOME_ANSWER)
		return s64_uncertain_doubt(outcome->answer, task->task_id, task->operation,
								   task->accepted_at);
	if (outcome->kind == OUTCOME_NOT_FOUND)
		return psprintf("the service does not know task \"%s\"", task->task_id);
	if (!is_odd(outcome) || task->oddities + 1 < MAX_ODDITIES)
		return NULL;
	failure = s64_report_read(outcome, flight->request->what);
	return s64_report_join(failure.message, failure.detail);
}

/*
 * Is the task the call's?  If so, the answer means what it means for any task.
 * If not, flight->call_ended says whether to ask again.
 */
static bool
record_candidate(Flight *flight, int64 epoch)
{
	const Task *task = flight->task;
	char	   *reason = doubt(flight);

	flight->call_ended = reason != NULL;
	if (reason == NULL && flight->outcome->kind == OUTCOME_ANSWER)
	{
		Proof		proof = s64_uncertain_prove(task->call, epoch, task->task_id);

		flight->proven = proof == PROOF_DONE;
		flight->call_ended = proof == PROOF_TAKEN || proof == PROOF_GONE;
		if (proof == PROOF_TAKEN)
			reason = psprintf("task \"%s\" is that of another call", task->task_id);
		S64_FAULT("proven");
	}
	if (reason != NULL)
		s64_uncertain_refute(task->call, task->task_id, reason);
	return flight->proven;
}

/* ---- recording ---- */

/*
 * What was paid for but cannot be stored: say so, with a text that can.
 * Characters that are not ASCII may be the trouble, so they are written as \xNN.
 */
static void
record_poisoned(Flight *flight, int64 epoch)
{
	const char *text = raw_text(flight->outcome);
	bool		unbilled = flight->outcome->billing == BILLING_NONE;
	StringInfoData raw;

	initStringInfo(&raw);
	for (const char *p = text ? text : ""; *p && raw.len < RAW_MAX; p++)
	{
		if ((*p >= ' ' && *p <= '~') || *p == '\n' || *p == '\t')
			appendStringInfoChar(&raw, *p);
		else
			appendStringInfo(&raw, "\\x%02x", (unsigned char) *p);
	}
	/* a task may have been made of a submission, whose end nobody would follow */
	if (flight->task == NULL && !unbilled && !flight->direct)
	{
		s64_ledger_uncertain(flight->call, epoch, S64_LEDGER_POISONED, raw.data);
		return;
	}
	if (flight->task == NULL)
		flight->cents = unbilled ? 0 : flight->reserved;
	s64_ledger_failed(flight->call, epoch, ERRCODE_PROTOCOL_VIOLATION,
					  S64_LEDGER_POISONED,
					  flight->task == NULL && unbilled ? 0 : -1, raw.data);
}

/*
 * Write to the ledger.  Nothing else may change here but the flight's notes
 * for after_record(), as it may be done again.
 */
static void
record(Flight *flight, int64 epoch)
{
	flight->cents = -1;
	flight->item_cents = -1;
	flight->proven = false;
	flight->call_expired = false;
	if (flight->task != NULL && flight->task->unproven &&
		!record_candidate(flight, epoch))
		return;
	flight->call_ended = true;
	if (flight->poisoned)
		record_poisoned(flight, epoch);
	else if (flight->task != NULL)
		flight->call_ended = record_poll(flight, epoch);
	else
		record_submission(flight, epoch);
	S64_FAULT(flight->task == NULL ? "t2-inside" : "t3-inside");
}

/* Follow the task that an accepted submission has made, if it has. */
static void
follow_task(const Flight *flight, TimestampTz now)
{
	char	   *task_id = s64_task_id(s64_endpoint_follow(flight->endpoint), flight->outcome->answer);
	Task	   *task;

	if (task_id == NULL)
		return;
	task = s64_tasks_add(flight->call, flight->endpoint->name, task_id,
						 flight->account->server, flight->account->userid,
						 flight->items, flight->reserved, now,
						 now + s64_schedule_poll(flight->endpoint->name, 0, flight->awaited));
	task->awaited = flight->awaited;
	task->reserved_at = flight->reserved_at;
	task->account = flight->account->id;
	strlcpy(task->price_kind, flight->request->kind.name, sizeof(task->price_kind));
}

/* Tell the meter; once, and nothing here can fail. */
static void
count_flight(Flight *flight)
{
	if (flight->counted)
		return;
	flight->counted = true;
	settle_money(flight);
	settle_rate(flight);
	settle_price(flight);
}

/* For those who wait for a task that takes long and says how far it is */
static void
say_progress(const Flight *flight)
{
	char	   *progress = flight->outcome->kind == OUTCOME_ANSWER &&
		s64_endpoint_follow(flight->endpoint)->whole
		? s64_task_progress(flight->outcome->answer) : NULL;

	if (progress != NULL)
		s64_board_write(flight->call, progress);
}

/*
 * What can be done once the record is durable.  May raise an error, and is
 * then done again: so whatever can fail comes before what must happen once.
 */
static void
after_record(Flight *flight)
{
	Task	   *task = flight->task;
	const Outcome *outcome = flight->outcome;
	TimestampTz now = GetCurrentTimestamp();

	S64_FAULT(task == NULL ? "t2-after" : "t3-after");
	count_flight(flight);
	if (flight->proven)
	{
		task->unproven = false;
		task->accepted_at = now;
	}
	if (outcome->kind == OUTCOME_KEY_REFUSED || outcome->kind == OUTCOME_NO_BALANCE)
		pause_account(flight->account, outcome);
	if (task == NULL && outcome->kind == OUTCOME_ANSWER && !flight->direct &&
		!flight->poisoned)
		follow_task(flight, now);
	else if (task != NULL && flight->call_ended)
		s64_tasks_free(task);
	else if (task != NULL)
	{
		say_progress(flight);
		task->oddities = is_odd(outcome) ? task->oddities + 1 : 0;
		s64_tasks_put_back(task, now + Max(s64_schedule_poll(task->operation, now - task->accepted_at,
															task->awaited),
										   outcome->retry_after));
	}
}

/* Bring to an end what was recorded; false if something is left. */
static bool
finish_recorded(void)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		while (!dlist_is_empty(&recorded))
		{
			Flight	   *flight = dlist_head_element(Flight, node, &recorded);

			MemoryContextSwitchTo(flight->context);
			after_record(flight);
			MemoryContextSwitchTo(context);
			dlist_delete(&flight->node);
			s64_flight_free(flight);
		}
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	return dlist_is_empty(&recorded);
}

/* Record n flights of a list in one transaction, from its head on. */
static void
record_in_transaction(int64 epoch, int n, bool *changed, bool *delivering)
{
	int64	   *calls;
	int			ncalls = 0;
	int			i = 0;
	dlist_mutable_iter iter;

	s64_sql_start_transaction();
	calls = palloc(n * sizeof(int64));
	dlist_foreach_modify(iter, &ended)
	{
		Flight	   *flight = dlist_container(Flight, node, iter.cur);

		if (i++ == n)
			break;
		record(flight, epoch);
		if (flight->call_ended || flight->proven)
			calls[ncalls++] = flight->call;
	}
	if (ncalls > 0)
		s64_ledger_carry(calls, ncalls, delivering);
	ForceSyncCommit();
	CommitTransactionCommand();
	*changed |= ncalls > 0;
	while (n-- > 0)
		dlist_push_tail(&recorded, dlist_pop_head_node(&ended));
}

/* Does this error come from what was to be stored, and not from where? */
static bool
is_data_error(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
			return true;
		default:
			return false;
	}
}

/*
 * Try to record the first n flights.  Returns 0, or the SQLSTATE of the error
 * that prevented it, which is then in the log.
 */
static int
try_record(int64 epoch, int n, bool *changed, bool *delivering)
{
	volatile int sqlstate = 0;
	MemoryContext context = CurrentMemoryContext;
	bool		delivers = false;

	PG_TRY();
	{
		record_in_transaction(epoch, n, changed, &delivers);
		*delivering |= delivers;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		sqlstate = geterrcode();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return sqlstate;
}

/* Move the first flight to the end, to be tried again after the others. */
static void
rotate(void)
{
	dlist_push_tail(&ended, dlist_pop_head_node(&ended));
}

/* Record each of n flights alone; false if some are left. */
static bool
record_alone(int64 epoch, int n, bool *changed, bool *delivering)
{
	bool		all = true;

	while (n-- > 0)
	{
		int			sqlstate = try_record(epoch, 1, changed, delivering);

		if (sqlstate == 0)
			continue;
		if (is_data_error(sqlstate))
			dlist_head_element(Flight, node, &ended)->poisoned = true;
		rotate();
		all = false;
	}
	return all;
}

void
s64_settle_ended(int64 epoch, TimestampTz *retry_at, bool *changed,
				 bool *delivering)
{
	static TimestampTz not_before = 0;	/* of what could not be recorded */
	Flight	   *flight;
	bool		news = false;
	int			n = 0;
	dlist_iter	iter;

	while ((flight = s64_resend_next()) != NULL)
	{
		dlist_push_tail(&ended, &flight->node);
		S64_FAULT(flight->task == NULL ? "reply-read" : "poll-read");
		news = true;
	}
	dlist_foreach(iter, &ended)
		n++;
	if (n > 0 && !news && GetCurrentTimestamp() < not_before)
		*retry_at = not_before;
	else if (n > 0 && try_record(epoch, n, changed, delivering) != 0 &&
		!record_alone(epoch, n, changed, delivering))
		*retry_at = not_before = GetCurrentTimestamp() + RECORD_RETRY;
	if (!finish_recorded())
		*retry_at = GetCurrentTimestamp() + RECORD_RETRY;
}
