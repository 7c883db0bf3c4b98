/*-------------------------------------------------------------------------
 *
 * report.h
 *		Turns an outcome into the error that the user reads, or the log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_REPORT_H
#define S64_REPORT_H

#include "datatype/timestamp.h"

#include "account.h"
#include "compat.h"
#include "outcome.h"

/* An error as a value, palloc'd */
typedef struct Failure
{
	int			sqlstate;		/* 0: none */
	const char *message;
	const char *detail;			/* or NULL */
	const char *hint;			/* or NULL */
} Failure;

/*
 * In all of these "what" names the request in the message.
 *
 * Raise the error of an outcome other than OUTCOME_ANSWER.  This is the one
 * place where outcomes become SQLSTATEs.
 */
pg_noreturn extern void s64_report_outcome(const Outcome *outcome,
							   const char *what);

/* The same as a value, and its SQLSTATE alone */
extern Failure s64_report_read(const Outcome *outcome, const char *what);
extern int	s64_report_sqlstate(const Outcome *outcome);

/* Raise a failure. */
pg_noreturn extern void s64_report_failure(const Failure *failure);

/*
 * Raise 08007: a call may have been accepted and billed, but its answer is
 * unknown.  detail may be NULL.
 */
pg_noreturn extern void s64_report_uncertain(int64 call, const char *detail);

/* A message with its detail (or NULL) in brackets, as part of a sentence; palloc'd */
extern char *s64_report_join(const char *message, const char *detail);

/* Raise 53400: the service's limit would make us wait beyond the timeout. */
pg_noreturn extern void s64_report_no_slot(const char *what,
							   const Account *account,
							   int64 wait);

/* Raise 53400: the account's daily budget does not allow the request. */
pg_noreturn extern void s64_report_no_budget(const char *what,
								 const Account *account, int64 cents,
								 int64 spent);

/* Raise what the service said when it was last asked: the account pauses. */
pg_noreturn extern void s64_report_paused(const char *what, int sqlstate,
							  TimestampTz until);

/* Log a request that took as long as sixtyfour.log_min_duration says. */
extern void s64_report_log(const Outcome *outcome, const char *what);

#endif							/* S64_REPORT_H */
