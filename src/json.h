/*-------------------------------------------------------------------------
 *
 * json.h
 *		What jsonb values need again and again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_JSON_H
#define S64_JSON_H

#include "compat.h"

/* Push the key of an object's next member; name must outlive the state. */
extern void s64_json_push_key(JsonbInState *state, const char *name);

/* Push a string as the last key's value; text must outlive the state. */
extern void s64_json_push_text(JsonbInState *state, const char *text);

/*
 * A member's value, which is *v; NULL if there is none, or the container is no
 * object.
 */
extern JsonbValue *s64_json_member(JsonbContainer *object, const char *name,
								   JsonbValue *v);

/* A member that is a text, and not empty, palloc'd; else NULL */
extern char *s64_json_text(JsonbContainer *object, const char *name);

/* The same of one that names something, which may be a number, too */
extern char *s64_json_name(JsonbContainer *object, const char *name);

#endif							/* S64_JSON_H */
