/*-------------------------------------------------------------------------
 *
 * json.c
 *		What jsonb values need again and again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "json.h"

static void
push_string(JsonbInState *state, JsonbIteratorToken token, const char *text)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = (char *) text;
	v.val.string.len = strlen(text);
	pushJsonbValue(state, token, &v);
}

void
s64_json_push_key(JsonbInState *state, const char *name)
{
	push_string(state, WJB_KEY, name);
}

void
s64_json_push_text(JsonbInState *state, const char *text)
{
	push_string(state, WJB_VALUE, text);
}

JsonbValue *
s64_json_member(JsonbContainer *object, const char *name, JsonbValue *v)
{
	if (!JsonContainerIsObject(object))
		return NULL;
	return getKeyJsonValueFromContainer(object, name, strlen(name), v);
}

char *
s64_json_text(JsonbContainer *object, const char *name)
{
	JsonbValue	v;

	if (s64_json_member(object, name, &v) == NULL || v.type != jbvString ||
		v.val.string.len == 0)
		return NULL;
	return pnstrdup(v.val.string.val, v.val.string.len);
}

char *
s64_json_name(JsonbContainer *object, const char *name)
{
	JsonbValue	v;

	if (s64_json_member(object, name, &v) != NULL && v.type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(v.val.numeric)));
	return s64_json_text(object, name);
}
