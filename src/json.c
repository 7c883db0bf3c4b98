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

void
s64_json_push_key(JsonbInState *state, const char *name)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = (char *) name;
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
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
