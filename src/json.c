/*-------------------------------------------------------------------------
 *
 * json.c
 *		What the making of jsonb values needs again and again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

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
