/*-------------------------------------------------------------------------
 *
 * json.h
 *		What the making of jsonb values needs again and again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_JSON_H
#define S64_JSON_H

#include "compat.h"

/* Push the key of an object's next member; name must outlive the state. */
extern void s64_json_push_key(JsonbInState *state, const char *name);

#endif							/* S64_JSON_H */
