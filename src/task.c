/*-------------------------------------------------------------------------
 *
 * task.c
 *		What the service's answer about a task says.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "json.h"
#include "task.h"

#define ID_MAX 1024				/* bytes */
#define WHY_MAX 1024			/* bytes of an error message */
#define PROGRESS_MAX 199		/* bytes */

static const char *const failures[] = {
	"failed", "cancelled", "canceled", "terminated", "timed_out", "error"
};

static char *
text_of(const JsonbValue *v)
{
	return v != NULL && v->type == jbvString
		? pnstrdup(v->val.string.val, v->val.string.len) : NULL;
}

bool
s64_task_is_id(const char *text)
{
	return strlen(text) <= ID_MAX && s64_endpoint_takes(text);
}

char *
s64_task_id(const Follow *follow, Jsonb *answer)
{
	char	   *id = s64_json_name(&answer->root, follow->id);

	return id != NULL && s64_task_is_id(id) ? id : NULL;
}

/* An ISO 8601 time in UTC, to the second; 0 if it is none */
static TimestampTz
read_time(const char *text)
{
	struct pg_tm tm = {0};
	int			end = 0;
	TimestampTz time;

	if (text == NULL ||
		sscanf(text, "%4d-%2d-%2d%*1[T ]%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon,
			   &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) != 6 ||
		end == 0 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31)
		return 0;
	if (text[end] == '.')
		end += 1 + strspn(text + end + 1, "0123456789");
	if (strcmp(text + end, "Z") != 0 && strcmp(text + end, "+00:00") != 0)
		return 0;
	return tm2timestamp(&tm, 0, NULL, &time) == 0 ? time : 0;
}

TaskOrigin
s64_task_origin(const Follow *follow, Jsonb *answer)
{
	static const char *const names[] = {"task_id", "run_id", "id"};
	TaskOrigin	origin = {0};
	JsonbValue	v;

	/* job-status has both an id and a run_id: the latter is no task's */
	for (size_t i = 0; i < lengthof(names) && origin.id == NULL; i++)
	{
		if (i != 1 || follow->whole)
			origin.id = text_of(s64_json_member(&answer->root, names[i], &v));
	}
	origin.status = text_of(s64_json_member(&answer->root, follow->status, &v));
	origin.type = text_of(s64_json_member(&answer->root, "task_type", &v));
	origin.started = read_time(text_of(s64_json_member(&answer->root, "start_time", &v)));
	return origin;
}

/* Cut a text in place; NULL stays NULL. */
static char *
cut(char *text, int max)
{
	if (text != NULL)
		text[pg_mbcliplen(text, strlen(text), max)] = '\0';
	return text;
}

static TaskState
read_state(const char *status)
{
	if (status == NULL)
		return TASK_RUNNING;
	if (pg_strcasecmp(status, "completed") == 0)
		return TASK_COMPLETED;
	for (size_t i = 0; i < lengthof(failures); i++)
	{
		if (pg_strcasecmp(status, failures[i]) == 0)
			return TASK_FAILED;
	}
	return TASK_RUNNING;
}

static int
read_charge(JsonbContainer *answer)
{
	JsonbValue	v;
	double		cents;

	if (s64_json_member(answer, "charge_amount", &v) == NULL || v.type != jbvNumeric)
		return -1;
	cents = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											   NumericGetDatum(v.val.numeric)));
	return cents >= 0 && cents <= PG_INT32_MAX ? (int) (cents + 0.5) : -1;
}

/* Why a task failed, in the service's words; NULL if it does not say */
static char *
read_why(Jsonb *answer)
{
	JsonbValue	v;
	char	   *why = s64_json_text(&answer->root, "error");

	if (why != NULL)
		return why;
	/* that of a run stands with the block that failed */
	if (s64_json_member(&answer->root, "blocks", &v) == NULL || v.type != jbvBinary ||
		!JsonContainerIsArray(v.val.binary.data))
		return NULL;
	for (int i = 0; i < (int) JsonContainerSize(v.val.binary.data) && why == NULL; i++)
	{
		JsonbValue *block = getIthJsonbValueFromContainer(v.val.binary.data, i);

		if (block->type == jbvBinary)
			why = s64_json_text(block->val.binary.data, "error_message");
	}
	return why;
}

TaskStatus
s64_task_read(const Follow *follow, Jsonb *answer)
{
	TaskStatus	task = {0};
	JsonbValue	v;
	char	   *status = text_of(s64_json_member(&answer->root, follow->status, &v));

	task.state = read_state(status);
	task.cents = read_charge(&answer->root);
	if (follow->whole)
		task.result = answer;
	else if (s64_json_member(&answer->root, "result", &v) != NULL && v.type != jbvNull)
		task.result = JsonbValueToJsonb(&v);
	task.error = cut(read_why(answer), WHY_MAX);
	if (task.error == NULL && task.state == TASK_FAILED)
		task.error = psprintf("The task is %s.", status);
	return task;
}

/* ---- progress ---- */

static void
append_number(StringInfo buf, Jsonb *answer, const char *name, const char *format)
{
	JsonbValue	v;

	if (s64_json_member(&answer->root, name, &v) == NULL || v.type != jbvNumeric)
		return;
	if (buf->len > 0)
		appendStringInfoString(buf, ", ");
	appendStringInfo(buf, format,
					 DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(v.val.numeric))));
}

static void
append_text(StringInfo buf, Jsonb *answer, const char *name)
{
	char	   *text = s64_json_text(&answer->root, name);

	if (text != NULL)
		appendStringInfo(buf, "%s%s", buf->len > 0 ? ", " : "", text);
}

char *
s64_task_progress(Jsonb *answer)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_number(&buf, answer, "current_phase", "phase %s");
	append_number(&buf, answer, "overall_progress_percentage", "%s %%");
	append_text(&buf, answer, "current_block");
	append_number(&buf, answer, "total_results", "%s results so far");
	append_text(&buf, answer, "progress_message");
	return buf.len > 0 ? cut(buf.data, PROGRESS_MAX) : NULL;
}

/* ---- bulk results ---- */

/* The array in a bulk result, bare or as a member; NULL if there is none */
static JsonbContainer *
find_items(Jsonb *result)
{
	static const char *const names[] = {"results", "leads", "data"};
	JsonbValue	v;

	if (JB_ROOT_IS_ARRAY(result) && !JB_ROOT_IS_SCALAR(result))
		return &result->root;
	for (size_t i = 0; i < lengthof(names); i++)
	{
		if (s64_json_member(&result->root, names[i], &v) != NULL && v.type == jbvBinary &&
			JsonContainerIsArray(v.val.binary.data))
			return v.val.binary.data;
	}
	return NULL;
}

static bool
equal_scalars(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq,
													NumericGetDatum(a->val.numeric),
													NumericGetDatum(b->val.numeric)));
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		default:
			return true;
	}
}

/*
 * Is what an answer repeats of a lead the same?  An address that was looked up
 * may come back in lower case.
 */
static bool
is_repeated(const Endpoint *endpoint, const JsonbValue *v, const JsonbValue *echoed)
{
	if (endpoint->echoed != NULL && v->type == jbvString && echoed->type == jbvString)
		return v->val.string.len == echoed->val.string.len &&
			pg_strncasecmp(v->val.string.val, echoed->val.string.val, v->val.string.len) == 0;
	return equal_scalars(v, echoed);
}

/* Is what an answer says under this name the lead's own? */
static bool
is_echoed(const Endpoint *endpoint, const char *name)
{
	if (endpoint->echoed != NULL)
		return strcmp(name, endpoint->echoed) == 0;
	return strcmp(name, "email") != 0 && strcmp(name, "phone") != 0;
}

/*
 * How many of the lead's plain fields an item echoes; -1 if one of them
 * contradicts.  What the service was asked to find is no echo.
 */
static int
count_echoes(const Endpoint *endpoint, JsonbContainer *item, Jsonb *lead)
{
	JsonbIterator *it = JsonbIteratorInit(&lead->root);
	JsonbValue	v;
	JsonbValue	echoed;
	char	   *key = NULL;
	int			echoes = 0;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE && v.type != jbvBinary &&
				 is_echoed(endpoint, key) && s64_json_member(item, key, &echoed) != NULL)
		{
			if (!is_repeated(endpoint, &v, &echoed))
				return -1;
			echoes++;
		}
	}
	return echoes;
}

/* How many fields of a lead can be echoed? */
static int
count_plain_fields(const Endpoint *endpoint, Jsonb *lead)
{
	return count_echoes(endpoint, &lead->root, lead);
}

/*
 * The lead that an item is about: the one that it echoes most of; or the one at
 * the item's own place, if the lengths agree and it echoes as much, or all of
 * that one.  If nobody can tell: -1.  An item that echoes nothing is nobody's.
 * Where it echoes what was looked up, several leads may have asked that: any of
 * them will do.
 */
static int
find_lead(const Endpoint *endpoint, JsonbContainer *item, int place,
		  bool same_length, Jsonb **leads, int n, Jsonb *const *taken)
{
	int			best = -1;
	int			best_echoes = 0;
	bool		tie = false;
	int			here = same_length && leads[place]
		? count_echoes(endpoint, item, leads[place]) : -1;

	for (int i = 0; i < n; i++)
	{
		int			echoes = taken[i] || !leads[i] ? -1
			: count_echoes(endpoint, item, leads[i]);

		if (echoes > best_echoes)
		{
			best = i;
			best_echoes = echoes;
			tie = false;
		}
		else if (echoes == best_echoes && echoes > 0)
			tie = true;
	}
	if (same_length && taken[place] == NULL && here > 0 &&
		(here == best_echoes || here == count_plain_fields(endpoint, leads[place])))
		return place;
	return tie && endpoint->echoed == NULL ? -1 : best;
}

void
s64_task_match(const Endpoint *endpoint, Jsonb *result, Jsonb **leads, int n,
			   Jsonb **items)
{
	JsonbContainer *array = result ? find_items(result) : NULL;
	int			length = array ? JsonContainerSize(array) : 0;

	memset(items, 0, n * sizeof(Jsonb *));
	for (int i = 0; i < length; i++)
	{
		JsonbValue *item = getIthJsonbValueFromContainer(array, i);
		int			lead;

		if (item->type != jbvBinary || !JsonContainerIsObject(item->val.binary.data))
			continue;
		lead = find_lead(endpoint, item->val.binary.data, i, length == n, leads, n, items);
		if (lead >= 0)
			items[lead] = JsonbValueToJsonb(item);
	}
}
