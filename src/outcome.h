/*-------------------------------------------------------------------------
 *
 * outcome.h
 *		What a reply of the service means.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_OUTCOME_H
#define S64_OUTCOME_H

#include "utils/jsonb.h"

#include "endpoint.h"
#include "http.h"

typedef enum OutcomeKind
{
	OUTCOME_ANSWER,				/* 2xx, and understood */
	OUTCOME_BAD_REQUEST,		/* 400, 422 */
	OUTCOME_KEY_REFUSED,		/* 401 */
	OUTCOME_NO_BALANCE,			/* 402 */
	OUTCOME_FORBIDDEN,			/* 403 */
	OUTCOME_NOT_FOUND,			/* 404 */
	OUTCOME_RATE_LIMITED,		/* 429 */
	OUTCOME_REFUSED,			/* another 4xx */
	OUTCOME_REDIRECTED,			/* 3xx */
	OUTCOME_SERVICE_FAILED,		/* 5xx */
	OUTCOME_UNREADABLE,			/* 2xx, but not JSON, or not as specified */
	OUTCOME_TOO_LARGE,
	OUTCOME_NO_CONNECTION,		/* DNS, connect, TLS */
	OUTCOME_LOST,				/* connection broke */
	OUTCOME_TIMED_OUT,			/* our own timeout */
	OUTCOME_FAILED				/* a failure on this side */
} OutcomeKind;

/* What is known about the money */
typedef enum Billing
{
	BILLING_NONE,				/* proven: not sent, or refused unbilled */
	BILLING_DONE,				/* an answer came: it is billed */
	BILLING_UNCERTAIN			/* may have been accepted and billed */
} Billing;

typedef struct Outcome
{
	OutcomeKind kind;
	Billing		billing;
	int			status;			/* HTTP status, 0 if none came */
	Jsonb	   *answer;			/* of OUTCOME_ANSWER; NULL when it had no body */
	int64		cents;			/* that the answer says it cost; -1 if silent */
	char	   *said;			/* the service's or libcurl's words, or NULL */
	char	   *raw;			/* all that came of an unreadable body, as
								 * text for people; or NULL */
	int64		retry_after;	/* µs, of OUTCOME_RATE_LIMITED */
	int64		remaining;		/* requests left this minute; -1 if silent */
	int64		elapsed;		/* µs */
} Outcome;

/*
 * Read a reply to a request whose answer has that shape, and which may be
 * billed if it is paid.  The reply's body is changed in place: api_key is
 * blotted out of it first, so that neither answer nor message can show it.
 * The result is palloc'd and does not point into the reply.
 *
 * After OUTCOME_UNREADABLE the caller must end its (sub)transaction in
 * failure; see s64_encoding_read_json().
 */
extern Outcome *s64_outcome_read(const HttpReply *reply, AnswerShape shape,
								 bool paid, const char *api_key);

/*
 * Overwrite every occurrence of a secret in a text.  In one that was cut, what
 * could be the beginning of it is overwritten, too.  Secrets shorter than 8 bytes
 * are none.
 */
extern void s64_outcome_blot_out(char *text, size_t len, const char *secret,
								 bool cut);

#endif							/* S64_OUTCOME_H */
