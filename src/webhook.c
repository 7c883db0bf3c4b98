/*-------------------------------------------------------------------------
 *
 * webhook.c
 *		What the service's webhooks are good for: a doorbell, and a signature.
 *
 * Nothing that a webhook says is believed.  It tells which task to ask about
 * next; or, for a call of which nobody knows whether it was accepted, which
 * task to ask about at all.  The answer comes from the service.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "doorbell.h"
#include "encoding.h"
#include "errand.h"
#include "ledger.h"
#include "roster.h"
#include "task.h"
#include "uncertain.h"

#define TOLERANCE	INT64CONST(300) /* s between signature and now */
#define CODE_LEN	(2 * PG_SHA256_DIGEST_LENGTH)	/* hexadecimal */

S64_FUNCTION(sixtyfour_webhook);
S64_FUNCTION(sixtyfour_webhook_call);
S64_FUNCTION(sixtyfour_verify_webhook);

/* ---- the doorbell ---- */

/* Poll the call's task next. */
static void
ring(int64 call)
{
	s64_doorbell_ring(call);
	s64_roster_wake(MyDatabaseId, PROCESS_WORKER);
}

/* sixtyfour_webhook(jsonb) → boolean: is it about a task that runs? */
Datum
sixtyfour_webhook(PG_FUNCTION_ARGS)
{
	char	   *task_id = s64_task_id(s64_endpoint_follow(NULL), PG_GETARG_JSONB_P(0));
	int64		call = task_id ? s64_ledger_running_call(task_id, NULL) : 0;

	if (call != 0)
		ring(call);
	PG_RETURN_BOOL(call != 0);
}

/*
 * sixtyfour_webhook(call uuid, payload jsonb) → boolean: is the call waiting
 * for that task, or for any?
 */
Datum
sixtyfour_webhook_call(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *uuid = PG_GETARG_UUID_P(0);
	char	   *task_id = s64_task_id(s64_endpoint_follow(NULL), PG_GETARG_JSONB_P(1));
	int64		call;

	if (task_id == NULL)
		PG_RETURN_BOOL(false);
	call = s64_ledger_running_call(task_id, uuid);
	if (call != 0)
		ring(call);
	else if (s64_uncertain_announce(uuid, task_id) == NAMING_DONE)
		s64_errand_wake(PROCESS_WORKER);
	else
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(true);
}

/* ---- the signature ---- */

/* The hexadecimal HMAC-SHA256 of "time.body"; false if it cannot be made */
static bool
make_code(const char *secret, const char *time, int time_len, const char *body,
		  char *code)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_hmac_ctx *hmac = pg_hmac_create(PG_SHA256);
	bool		made = hmac != NULL &&
		pg_hmac_init(hmac, (const uint8 *) secret, strlen(secret)) >= 0 &&
		pg_hmac_update(hmac, (const uint8 *) time, time_len) >= 0 &&
		pg_hmac_update(hmac, (const uint8 *) ".", 1) >= 0 &&
		pg_hmac_update(hmac, (const uint8 *) body, strlen(body)) >= 0 &&
		pg_hmac_final(hmac, digest, sizeof(digest)) >= 0;

	pg_hmac_free(hmac);
	if (made)
		hex_encode((const char *) digest, sizeof(digest), code);
	return made;
}

/* In a time that does not tell where they differ */
static bool
is_same_code(const char *code, const char *given)
{
	int			difference = 0;

	for (int i = 0; i < CODE_LEN; i++)
		difference |= code[i] ^ given[i];
	return difference == 0;
}

/* Is it a number of seconds, close to now?  Then its length, else 0. */
static int
check_time(const char *time, TimestampTz now)
{
	int			len = strspn(time, "0123456789");
	int64		seconds = now / USECS_PER_SEC +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	int64		apart;

	/* so long a number is no time, and might not fit */
	if (len == 0 || len > 15 || (time[len] != ',' && time[len] != '\0'))
		return 0;
	apart = strtoll(time, NULL, 10) - seconds;
	return apart >= -TOLERANCE && apart <= TOLERANCE ? len : 0;
}

/* "t=<unix seconds>,v1=<code>[,v1=<code>]": one code that fits is enough. */
static bool
verify(const char *body, const char *signature, const char *secret, TimestampTz now)
{
	char		code[CODE_LEN];
	int			time_len;
	bool		good = false;

	if (*secret == '\0' || strncmp(signature, "t=", 2) != 0)
		return false;
	time_len = check_time(signature + 2, now);
	if (time_len == 0 || !make_code(secret, signature + 2, time_len, body, code))
		return false;
	for (const char *p = strchr(signature, ','); p != NULL; p = strchr(p + 1, ','))
	{
		const char *given = p + 4;

		if (strncmp(p, ",v1=", 4) == 0 && strcspn(given, ",") == CODE_LEN)
			good |= is_same_code(code, given);
	}
	return good;
}

/*
 * sixtyfour_verify_webhook(body text, signature text, secret text,
 * now timestamptz) → boolean.  Never NULL: to "IF NOT" that would be consent.
 */
Datum
sixtyfour_verify_webhook(PG_FUNCTION_ARGS)
{
	for (int i = 0; i < 4; i++)
	{
		if (PG_ARGISNULL(i))
			PG_RETURN_BOOL(false);
	}
	PG_RETURN_BOOL(verify(s64_encoding_to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(0))),
						  text_to_cstring(PG_GETARG_TEXT_PP(1)),
						  text_to_cstring(PG_GETARG_TEXT_PP(2)),
						  PG_GETARG_TIMESTAMPTZ(3)));
}
