/*-------------------------------------------------------------------------
 *
 * report.c
 *		Turns an outcome into the error that the user reads, or the log.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "report.h"

#define RAW_SHOWN		8192	/* bytes of an unreadable answer in a DETAIL */

#define MAYBE_BILLED \
	"The request may have been accepted and billed; look at the account before asking again."

#define BILLED_UNREAD \
	"The request was probably billed; the text of the answer is in the DETAIL."

/* %s of a message is the name of the request. */
static const struct
{
	OutcomeKind kind;
	int			sqlstate;
	const char *message;
	const char *hint;			/* or NULL */
	const char *uncertain_hint; /* if it may be billed; NULL: MAYBE_BILLED */
}			reports[] =
{
	{OUTCOME_BAD_REQUEST, ERRCODE_INVALID_PARAMETER_VALUE,
		"%s: the service does not accept the request",
	"Correct the request; it was not billed.", NULL},
	{OUTCOME_KEY_REFUSED, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
		"%s: the service refuses the API key",
	"Correct the API key in the user mapping, with ALTER USER MAPPING.", NULL},
	{OUTCOME_NO_BALANCE, ERRCODE_INSUFFICIENT_PRIVILEGE,
		"%s: the balance of the account is too low",
	"Top up the account at the service; the request was not billed.", NULL},
	{OUTCOME_FORBIDDEN, ERRCODE_INSUFFICIENT_PRIVILEGE,
		"%s: the account may not do this",
	"The feature or tier is not enabled for this account at the service.", NULL},
	{OUTCOME_NOT_FOUND, ERRCODE_NO_DATA,
		"%s: the service does not know what was asked for",
	"Ids of tasks, workflows and runs belong to one account, and tasks expire.", NULL},
	{OUTCOME_RATE_LIMITED, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
		"%s: the service's rate limit is reached",
	"Try again later; the request was not billed.", NULL},
	{OUTCOME_REFUSED, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"%s: the service refuses the request", NULL, NULL},
	{OUTCOME_REDIRECTED, ERRCODE_PROTOCOL_VIOLATION,
		"%s: the service answered with a redirect, which is not followed",
	"Check option \"base_url\" of the server.", NULL},
	{OUTCOME_SERVICE_FAILED, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
		"%s: the service failed",
	"Try again later.", NULL},
	{OUTCOME_UNREADABLE, ERRCODE_PROTOCOL_VIOLATION,
		"%s: the service's answer cannot be read",
	NULL, NULL},
	{OUTCOME_TOO_LARGE, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		"%s: the service's answer is too large",
	"Raise \"sixtyfour.max_response_size\".",
	"The request was probably billed; raise \"sixtyfour.max_response_size\" before asking again."},
	{OUTCOME_NO_CONNECTION, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"%s: could not connect to the service",
	"Nothing was sent. Check the network and option \"base_url\" of the server.", NULL},
	{OUTCOME_LOST, ERRCODE_CONNECTION_FAILURE,
		"%s: connection to the service was lost",
	"Try again later.", NULL},
	{OUTCOME_TIMED_OUT, ERRCODE_CONNECTION_FAILURE,
		"%s: the service did not answer in time",
	"Try again later, or raise option \"timeout\" of the server.", NULL},
	{OUTCOME_FAILED, ERRCODE_SYSTEM_ERROR,
	"%s: could not make the request", NULL, NULL},
};

/* The beginning of an unreadable answer */
static char *
begin_of(const char *raw)
{
	size_t		len = strlen(raw);
	size_t		shown = len > RAW_SHOWN ? (size_t) pg_mbcliplen(raw, len, RAW_SHOWN) : len;

	return len == shown ? pstrdup(raw)
		: psprintf("%.*s ... (%zu bytes in all)", (int) shown, raw, len);
}

/* "The service said: … (HTTP 500)." or the like; NULL if nothing is known */
static char *
describe(const Outcome *outcome)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (outcome->kind == OUTCOME_UNREADABLE)
		appendStringInfo(&buf, "%s The answer (HTTP %d) was%s%s",
						 outcome->said, outcome->status,
						 *outcome->raw ? ": " : " empty.", begin_of(outcome->raw));
	else if (outcome->kind == OUTCOME_TOO_LARGE)
		appendStringInfo(&buf, "It began with: %s", begin_of(outcome->raw));
	else if (outcome->status != 0 && outcome->said != NULL)
		appendStringInfo(&buf, "HTTP status %d: %s", outcome->status, outcome->said);
	else if (outcome->status != 0)
		appendStringInfo(&buf, "HTTP status %d.", outcome->status);
	else if (outcome->said != NULL)
		appendStringInfo(&buf, "%s.", outcome->said);
	return buf.len > 0 ? buf.data : NULL;
}

/* The row of reports[] for a kind; the last one for a kind that has none */
static size_t
find_report(OutcomeKind kind)
{
	size_t		i = 0;

	while (i < lengthof(reports) - 1 && reports[i].kind != kind)
		i++;
	return i;
}

int
s64_report_sqlstate(const Outcome *outcome)
{
	return reports[find_report(outcome->kind)].sqlstate;
}

Failure
s64_report_read(const Outcome *outcome, const char *what)
{
	size_t		i = find_report(outcome->kind);
	Failure		failure;

	failure.sqlstate = reports[i].sqlstate;
	failure.message = psprintf(reports[i].message, what);
	failure.detail = describe(outcome);
	failure.hint = reports[i].hint;
	if (outcome->billing == BILLING_DONE)
		failure.hint = BILLED_UNREAD;
	else if (outcome->billing == BILLING_UNCERTAIN)
		failure.hint = reports[i].uncertain_hint ? reports[i].uncertain_hint : MAYBE_BILLED;
	return failure;
}

void
s64_report_failure(const Failure *failure)
{
	ereport(ERROR,
			(errcode(failure->sqlstate),
			 errmsg_internal("%s", failure->message ? failure->message : "the request failed"),
			 failure->detail ? errdetail_internal("%s", failure->detail) : 0,
			 failure->hint ? errhint("%s", failure->hint) : 0));
}

void
s64_report_outcome(const Outcome *outcome, const char *what)
{
	Failure		failure = s64_report_read(outcome, what);

	s64_report_failure(&failure);
}

void
s64_report_no_slot(const char *what, const Account *account,
				   int64 wait)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("%s: the rate limit of server \"%s\" is reached",
					what, account->server),
			 errdetail("The next request may be made in %.1f s, which is after the timeout.",
					   wait / 1e6),
			 errhint("Try again later; nothing was sent.")));
}

void
s64_report_no_budget(const char *what, const Account *account,
					 int64 cents, int64 spent)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("%s: the daily budget of server \"%s\" is reached",
					what, account->server),
			 errdetail("Of %d cents, " INT64_FORMAT " are spent or at risk today (UTC), and this request would cost " INT64_FORMAT ".",
					   account->daily_budget, spent, cents),
			 errhint("Raise option \"daily_budget_cents\" of the server, or wait for the next day; nothing was sent.")));
}

void
s64_report_paused(const char *what, int sqlstate, TimestampTz until)
{
	size_t		i = 0;

	while (i < lengthof(reports) - 1 && reports[i].sqlstate != sqlstate)
		i++;
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg(reports[i].message, what),
			 errdetail("The service said so a moment ago, and is asked again at %s, or with another key.",
					   timestamptz_to_str(until)),
			 reports[i].hint ? errhint("%s", reports[i].hint) : 0));
}

void
s64_report_uncertain(int64 call, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("call " INT64_FORMAT " may have been accepted and billed, but its answer is unknown",
					call),
			 detail ? errdetail_internal("%s", detail) : 0,
			 errhint("Look at the account at the service, then use sixtyfour_resolve(" INT64_FORMAT ", 'resubmit' | 'abandon' | task id).",
					 call)));
}

void
s64_report_log(const Outcome *outcome, const char *what)
{
	if (s64_guc_log_min_duration < 0 ||
		outcome->elapsed < (int64) s64_guc_log_min_duration * 1000)
		return;
	if (outcome->status != 0)
		ereport(LOG,
				(errmsg("sixtyfour: %s answered with HTTP status %d after %.3f ms",
						what, outcome->status, outcome->elapsed / 1000.0),
				 errhidecontext(true)));
	else
		ereport(LOG,
				(errmsg("sixtyfour: %s not answered after %.3f ms: %s",
						what, outcome->elapsed / 1000.0,
						outcome->said ? outcome->said : "no reply"),
				 errhidecontext(true)));
}

char *
s64_report_join(const char *message, const char *detail)
{
	if (message == NULL)
		return pstrdup("nothing more is known");
	return detail ? psprintf("%s (%s)", message, detail) : pstrdup(message);
}
