/*-------------------------------------------------------------------------
 *
 * outcome.c
 *		What a reply of the service means.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "compat.h"
#include "encoding.h"
#include "json.h"
#include "outcome.h"

#define RAW_MAX			(128 * 1024 * 1024) /* bytes of an unreadable answer kept */
#define SAID_MAX		1024	/* bytes of an error message shown */
#define KEY_MIN			8		/* bytes of a key that is blotted out */
#define DEFAULT_RETRY	60		/* s; the service's advice after a 429 */
#define RETRY_MAX		86400	/* s */

/*
 * The meaning of a status, first match wins; and whether a request that may
 * be billed has been.  Only what the service documents as a refusal counts as
 * unbilled.
 */
static const struct
{
	int			from;
	int			to;
	OutcomeKind kind;
	Billing		billing;
}			statuses[] =
{
	{200, 299, OUTCOME_ANSWER, BILLING_DONE},
	{300, 399, OUTCOME_REDIRECTED, BILLING_UNCERTAIN},
	{400, 400, OUTCOME_BAD_REQUEST, BILLING_NONE},
	{401, 401, OUTCOME_KEY_REFUSED, BILLING_NONE},
	{402, 402, OUTCOME_NO_BALANCE, BILLING_NONE},
	{403, 403, OUTCOME_FORBIDDEN, BILLING_NONE},
	{404, 404, OUTCOME_NOT_FOUND, BILLING_NONE},
	{422, 422, OUTCOME_BAD_REQUEST, BILLING_NONE},
	{429, 429, OUTCOME_RATE_LIMITED, BILLING_NONE},
	{400, 499, OUTCOME_REFUSED, BILLING_UNCERTAIN},
	{500, 599, OUTCOME_SERVICE_FAILED, BILLING_UNCERTAIN},
};

void
s64_outcome_blot_out(char *text, size_t len, const char *key, bool cut)
{
	size_t		key_len = strlen(key);
	char	   *p = text;

	/* a shorter one is no secret, and would be found where it is not meant */
	if (key_len < KEY_MIN)
		return;

	while ((p = memmem(p, text + len - p, key, key_len)) != NULL)
	{
		memset(p, '*', key_len);
		p += key_len;
	}

	/*
	 * Whatever stands there: to look would tell those who choose where to cut
	 * how the key begins.
	 */
	if (cut)
	{
		size_t		n = Min(key_len - 1, len);

		memset(text + len - n, '*', n);
	}
}

/* Append "body.lead.name: field required" for one error of a 422. */
static void
append_validation_error(StringInfo buf, JsonbContainer *error)
{
	JsonbValue	loc;
	char	   *msg = s64_json_text(error, "msg");

	if (buf->len > 0)
		appendStringInfoString(buf, "; ");
	if (s64_json_member(error, "loc", &loc) != NULL &&
		loc.type == jbvBinary && JsonContainerIsArray(loc.val.binary.data))
	{
		int			n = JsonContainerSize(loc.val.binary.data);

		for (int i = 0; i < n; i++)
		{
			JsonbValue *part = getIthJsonbValueFromContainer(loc.val.binary.data, i);

			if (part->type == jbvString)
				appendStringInfo(buf, "%s%.*s", i > 0 ? "." : "",
								 part->val.string.len, part->val.string.val);
			else if (part->type == jbvNumeric)
				appendStringInfo(buf, "[%s]",
								 DatumGetCString(DirectFunctionCall1(numeric_out,
																	 NumericGetDatum(part->val.numeric))));
		}
		appendStringInfoString(buf, ": ");
	}
	appendStringInfoString(buf, msg ? msg : "invalid");
}

/* The fields named by {"detail":[{"loc":[…],"msg":"…"}, …]} */
static char *
read_validation_errors(JsonbContainer *errors)
{
	int			n = JsonContainerSize(errors);
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < n; i++)
	{
		JsonbValue *error = getIthJsonbValueFromContainer(errors, i);

		if (error->type == jbvBinary)
			append_validation_error(&buf, error->val.binary.data);
	}
	return buf.len > 0 ? buf.data : NULL;
}

/*
 * The message in an error's body, which comes in three shapes:
 * {"error","message"}, {"detail":"text"} and {"detail":[{loc,msg,type}]}.
 */
static char *
read_message(Jsonb *body)
{
	JsonbValue	detail;
	char	   *text;

	if (!JB_ROOT_IS_OBJECT(body))
		return NULL;
	if (s64_json_member(&body->root, "detail", &detail) != NULL && detail.type == jbvBinary &&
		JsonContainerIsArray(detail.val.binary.data))
		return read_validation_errors(detail.val.binary.data);
	if ((text = s64_json_text(&body->root, "detail")) != NULL ||
		(text = s64_json_text(&body->root, "message")) != NULL)
		return text;
	return s64_json_text(&body->root, "error");
}

/* What an error's body says: its message, or else its text */
static char *
read_error(const HttpReply *reply)
{
	char	   *why;
	Jsonb	   *body;
	char	   *message = NULL;

	if (reply->body_len == 0)
		return NULL;
	if (reply->body[0] == '{')
	{
		body = s64_encoding_read_json(reply->body, reply->body_len, &why);
		if (body != NULL)
			message = read_message(body);
	}
	if (message == NULL)
		return s64_encoding_display(reply->body, reply->body_len, SAID_MAX);
	if (strlen(message) > SAID_MAX)
		message[pg_mbcliplen(message, strlen(message), SAID_MAX)] = '\0';
	return message;
}

/* The whole cents that an answer says it cost; -1 if it does not */
static int64
read_cents(Jsonb *answer)
{
	static const char *const names[] = {"cost_cents", "charge_amount"};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		JsonbValue	v;
		double		cents;

		if (s64_json_member(&answer->root, names[i], &v) == NULL || v.type != jbvNumeric)
			continue;
		cents = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
												   NumericGetDatum(v.val.numeric)));
		if (cents >= 0 && cents <= PG_INT32_MAX)
			return (int64) (cents + 0.999);
	}
	return -1;
}

static bool
has_shape(Jsonb *answer, AnswerShape shape)
{
	switch (shape)
	{
		case ANSWER_OBJECT:
			return JB_ROOT_IS_OBJECT(answer);
		case ANSWER_ARRAY:
			return JB_ROOT_IS_ARRAY(answer) && !JB_ROOT_IS_SCALAR(answer);
		case ANSWER_JSON:
		case ANSWER_NOTHING:
			return true;
	}
	return false;				/* keep compiler quiet */
}

static void
make_unreadable(Outcome *outcome, const HttpReply *reply, char *why)
{
	outcome->kind = OUTCOME_UNREADABLE;
	outcome->said = why;
	outcome->raw = s64_encoding_display(reply->body, reply->body_len, RAW_MAX);
}

/* A text that is not JSON, as a JSON string */
static Jsonb *
read_csv(const HttpReply *reply, char **why)
{
	StringInfoData json;

	if (memchr(reply->body, '\0', reply->body_len) != NULL)
	{
		*why = "It contains a NUL byte.";
		return NULL;
	}
	initStringInfo(&json);
	escape_json(&json, reply->body +
				(strncmp(reply->body, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0));
	return s64_encoding_read_json(json.data, json.len, why);
}

static void
read_answer(Outcome *outcome, const HttpReply *reply, AnswerShape shape)
{
	char	   *why;

	if (shape == ANSWER_NOTHING)
		return;
	if (reply->body_len == 0)
	{
		if (shape != ANSWER_JSON)
			make_unreadable(outcome, reply, "A JSON value was expected.");
		return;
	}
	if (shape == ANSWER_JSON && reply->content_type != NULL &&
		pg_strncasecmp(reply->content_type, "text/csv", 8) == 0)
		outcome->answer = read_csv(reply, &why);
	else
		outcome->answer = s64_encoding_read_json(reply->body, reply->body_len, &why);

	if (outcome->answer == NULL)
		make_unreadable(outcome, reply, why);
	else if (!has_shape(outcome->answer, shape))
		make_unreadable(outcome, reply,
						shape == ANSWER_ARRAY ? "It is not a JSON array."
						: "It is not a JSON object.");
	else
		outcome->cents = read_cents(outcome->answer);
}

static void
read_status(Outcome *outcome, const HttpReply *reply, AnswerShape shape)
{
	int64		seconds;

	outcome->kind = OUTCOME_UNREADABLE;
	for (size_t i = 0; i < lengthof(statuses); i++)
	{
		if (reply->status < statuses[i].from || reply->status > statuses[i].to)
			continue;
		outcome->kind = statuses[i].kind;
		outcome->billing = statuses[i].billing;
		break;
	}

	switch (outcome->kind)
	{
		case OUTCOME_ANSWER:
			read_answer(outcome, reply, shape);
			break;
		case OUTCOME_UNREADABLE:
			make_unreadable(outcome, reply, "Its HTTP status is unknown.");
			break;
		case OUTCOME_RATE_LIMITED:
			seconds = reply->retry_after < 0 ? DEFAULT_RETRY : reply->retry_after;
			outcome->retry_after = Max(Min(seconds, RETRY_MAX), 1) * INT64CONST(1000000);
			pg_fallthrough;
		default:
			outcome->said = read_error(reply);
	}
}

static void
read_failure(Outcome *outcome, const HttpReply *reply)
{
	switch (reply->end)
	{
		case HTTP_NO_CONNECTION:
			outcome->kind = OUTCOME_NO_CONNECTION;
			break;
		case HTTP_LOST:
			outcome->kind = OUTCOME_LOST;
			break;
		case HTTP_TIMED_OUT:
			outcome->kind = OUTCOME_TIMED_OUT;
			break;
		case HTTP_TOO_LARGE:
			outcome->kind = OUTCOME_TOO_LARGE;
			outcome->raw = s64_encoding_display(reply->body, reply->body_len, RAW_MAX);
			break;
		default:
			outcome->kind = OUTCOME_FAILED;
	}
	outcome->said = s64_encoding_display(reply->error, strlen(reply->error), SAID_MAX);
}

Outcome *
s64_outcome_read(const HttpReply *reply, AnswerShape shape, bool paid,
				 const char *api_key)
{
	Outcome    *outcome = palloc0(sizeof(Outcome));

	s64_outcome_blot_out(reply->body, reply->body_len, api_key,
						 reply->end != HTTP_ANSWERED);
	outcome->status = reply->status;
	outcome->billing = reply->sent ? BILLING_UNCERTAIN : BILLING_NONE;
	outcome->cents = -1;
	outcome->remaining = reply->remaining;
	outcome->elapsed = reply->elapsed;

	/* a refusal is one, however long its text */
	if (reply->end == HTTP_ANSWERED ||
		(reply->end == HTTP_TOO_LARGE && reply->status >= 300))
		read_status(outcome, reply, shape);
	else
		read_failure(outcome, reply);
	if (!paid)
		outcome->billing = BILLING_NONE;
	return outcome;
}
