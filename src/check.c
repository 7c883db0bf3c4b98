/*-------------------------------------------------------------------------
 *
 * check.c
 *		Refuses request bodies that the service would refuse, or misread.
 *
 * A request that is billed and answers another question than the one meant
 * is the worst outcome, so what the service's specification says is checked
 * here, before anything is sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "check.h"
#include "compat.h"

static const char struct_types[] =
"str int float bool list list[str] list[int] list[float] dict";

pg_noreturn static void fault(const char *hint, const char *fmt,...)
			pg_attribute_printf(2, 3);

/* Raise 22023. */
static void
fault(const char *hint, const char *fmt,...)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(&buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_internal("%s", buf.data),
			 hint ? errhint("%s", hint) : 0));
}

static bool
is_object(const JsonbValue *v)
{
	return v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data);
}

static bool
is_array(const JsonbValue *v)
{
	return v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data) &&
		!JsonContainerIsScalar(v->val.binary.data);
}

static bool
is_text(const JsonbValue *v)
{
	return v->type == jbvString && v->val.string.len > 0;
}

/* Null, an empty text or an empty container: it tells the service nothing. */
static bool
is_nothing(const JsonbValue *v)
{
	return v->type == jbvNull ||
		(v->type == jbvString && v->val.string.len == 0) ||
		(v->type == jbvBinary && JsonContainerSize(v->val.binary.data) == 0);
}

/* Is text (of len bytes) one of the words in a list separated by spaces? */
static bool
is_word_of(const char *words, const char *text, size_t len)
{
	for (const char *p = words; *p;)
	{
		size_t		n = strcspn(p, " ");

		if (n == len && memcmp(p, text, len) == 0)
			return true;
		p += n;
		p += *p == ' ';
	}
	return false;
}

static bool
get_member(const JsonbValue *object, const char *name, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(object->val.binary.data, name,
										strlen(name), value) != NULL;
}

/* Call check(name, key, value) for each member of an object. */
static void
each_member(const char *name, const JsonbValue *object,
			void (*check) (const char *, const char *, const JsonbValue *))
{
	JsonbIterator *it = JsonbIteratorInit(object->val.binary.data);
	JsonbValue	v;
	char	   *key = NULL;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE)
			check(name, key, &v);
	}
}

/* Call check(name, i, value) for each element of an array, i from 1. */
static void
each_element(const char *name, const JsonbValue *array,
			 void (*check) (const char *, int, const JsonbValue *))
{
	int			n = JsonContainerSize(array->val.binary.data);

	for (int i = 0; i < n; i++)
		check(name, i + 1, getIthJsonbValueFromContainer(array->val.binary.data, i));
}

/* ---- one function per type of field ---- */

static void
check_object(const char *name, const JsonbValue *v)
{
	if (!is_object(v))
		fault(NULL, "\"%s\" must be a JSON object", name);
	if (JsonContainerSize(v->val.binary.data) == 0)
		fault(NULL, "\"%s\" must not be empty", name);
}

/* An object that says something, and has the member that is needed, if any is */
static void
check_facts(const char *name, const JsonbValue *v, const char *needed)
{
	JsonbIterator *it;
	JsonbValue	member;
	JsonbIteratorToken token;

	check_object(name, v);
	if (needed != NULL && (!get_member(v, needed, &member) || is_nothing(&member)))
		fault(NULL, "\"%s\" needs a member \"%s\"", name, needed);
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &member, true)) != WJB_DONE)
	{
		if (token == WJB_VALUE && !is_nothing(&member))
			return;
	}
	fault("Give at least one thing that is known, such as a name, a company or a website.",
		  "\"%s\" says nothing: all its values are empty", name);
}

static void
check_struct_member(const char *name, const char *key, const JsonbValue *v)
{
	JsonbValue	part;

	if (*key == '\0')
		fault(NULL, "\"%s\" has a field without a name", name);
	if (is_text(v))
		return;
	if (!is_object(v) || !get_member(v, "description", &part) || !is_text(&part))
		fault("A field is a description, or an object with \"description\" and \"type\".",
			  "field \"%s\" of \"%s\" has no description", key, name);
	if (get_member(v, "type", &part) &&
		(part.type != jbvString ||
		 !is_word_of(struct_types, part.val.string.val, part.val.string.len)))
		fault(psprintf("The types are: %s.", struct_types),
			  "field \"%s\" of \"%s\" has an unknown type", key, name);
}

static void
check_struct(const char *name, const JsonbValue *v)
{
	check_object(name, v);
	each_member(name, v, check_struct_member);
}

static void
check_whole(const char *name, const JsonbValue *v, int least)
{
	Datum		number = v->type == jbvNumeric ? NumericGetDatum(v->val.numeric) : 0;

	if (v->type != jbvNumeric ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, number,
										 DirectFunctionCall1(int4_numeric, Int32GetDatum(least)))) ||
		!DatumGetBool(DirectFunctionCall2(numeric_eq, number,
										  DirectFunctionCall1(numeric_floor, number))))
		fault(NULL, "\"%s\" must be a whole number of %d or more", name, least);
}

static void
check_url(const char *name, const JsonbValue *v)
{
	if (v->type != jbvString || v->val.string.len > S64_WEBHOOK_URL_MAX ||
		v->val.string.len <= 8 || strncmp(v->val.string.val, "https://", 8) != 0)
		fault(psprintf("It begins with https:// and has at most %d characters.",
					   S64_WEBHOOK_URL_MAX),
			  "\"%s\" must be an HTTPS URL", name);
}

static void
check_text_element(const char *name, int i, const JsonbValue *v)
{
	if (!is_text(v))
		fault(NULL, "element %d of \"%s\" must be a text", i, name);
}

static void
check_object_element(const char *name, int i, const JsonbValue *v)
{
	if (!is_object(v))
		fault(NULL, "element %d of \"%s\" must be a JSON object", i, name);
}

static void
check_criterion(const char *name, int i, const JsonbValue *v)
{
	static const char *const texts[] = {"criteria_name", "description"};
	JsonbValue	part;

	check_object_element(name, i, v);
	for (size_t t = 0; t < lengthof(texts); t++)
	{
		if (!get_member(v, texts[t], &part) || !is_text(&part))
			fault(NULL, "element %d of \"%s\" needs a text \"%s\"", i, name, texts[t]);
	}
	if (!get_member(v, "weight", &part) || part.type != jbvNumeric)
		fault(NULL, "element %d of \"%s\" needs a number \"weight\"", i, name);
	if (get_member(v, "threshold", &part) &&
		part.type != jbvNumeric && part.type != jbvNull)
		fault(NULL, "\"threshold\" in element %d of \"%s\" must be a number", i, name);
}

static void
check_reference(const char *name, int i, const JsonbValue *v)
{
	JsonbValue	part;

	check_object_element(name, i, v);
	if (!get_member(v, "url", &part) || !is_text(&part))
		fault(NULL, "element %d of \"%s\" needs a text \"url\"", i, name);
	if (get_member(v, "description", &part) && part.type != jbvString)
		fault(NULL, "\"description\" in element %d of \"%s\" must be a text", i, name);
}

static void
check_array(const char *name, const JsonbValue *v, bool may_be_empty,
			void (*check) (const char *, int, const JsonbValue *))
{
	if (!is_array(v))
		fault(NULL, "\"%s\" must be a JSON array", name);
	if (!may_be_empty && JsonContainerSize(v->val.binary.data) == 0)
		fault(NULL, "\"%s\" must not be empty", name);
	each_element(name, v, check);
}

static void
check_choice(const Field *field, const JsonbValue *v)
{
	if (v->type != jbvString ||
		!is_word_of(field->choices, v->val.string.val, v->val.string.len))
		fault(psprintf("It is one of: %s.", field->choices),
			  "unknown value of \"%s\"", field->name);
}

static void
check_field(const Field *field, const JsonbValue *v)
{
	const char *name = field->name;

	switch (field->type)
	{
		case FIELD_ANY:
			break;
		case FIELD_FACTS:
			check_facts(name, v, field->choices);
			break;
		case FIELD_STRUCT:
			check_struct(name, v);
			break;
		case FIELD_PROFILE:
		case FIELD_TEXT:
			if (!is_text(v))
				fault(NULL, "\"%s\" must be a text that is not empty", name);
			break;
		case FIELD_BOOLEAN:
			if (v->type != jbvBool)
				fault(NULL, "\"%s\" must be true or false", name);
			break;
		case FIELD_STRING:
			if (v->type != jbvString)
				fault(NULL, "\"%s\" must be a text", name);
			break;
		case FIELD_COUNT:
			check_whole(name, v, 1);
			break;
		case FIELD_HOURS:
			check_whole(name, v, 0);
			break;
		case FIELD_CHOICE:
			check_choice(field, v);
			break;
		case FIELD_URL:
			check_url(name, v);
			break;
		case FIELD_OBJECT:
			check_object(name, v);
			break;
		case FIELD_TEXTS:
			check_array(name, v, false, check_text_element);
			break;
		case FIELD_OBJECTS:
			check_array(name, v, false, check_object_element);
			break;
		case FIELD_PAYLOAD:
			if (!is_object(v))
				check_array(name, v, false, check_object_element);
			break;
		case FIELD_CRITERIA:
			check_array(name, v, false, check_criterion);
			break;
		case FIELD_REFERENCES:
			check_array(name, v, true, check_reference);
			break;
	}
}

/* Of some fields one must be given, and perhaps not two. */
static void
check_one_of(const Endpoint *endpoint, Jsonb *body)
{
	const char *words = endpoint->one_of;
	int			given = 0;

	for (const Field *field = endpoint->fields; field->name; field++)
	{
		JsonbValue	value;

		given += is_word_of(words, field->name, strlen(field->name)) &&
			getKeyJsonValueFromContainer(&body->root, field->name,
										 strlen(field->name), &value) != NULL;
	}
	if (given == 0 || (given > 1 && endpoint->exclusive))
		fault(psprintf("They are: %s.", words),
			  given == 0 ? "%s needs to know what to look for" : "%s takes one of its subjects at a time",
			  endpoint->name);
}

void
s64_check_body(const Endpoint *endpoint, Jsonb *body)
{
	if (!JB_ROOT_IS_OBJECT(body))
		fault(NULL, "the request must be a JSON object");

	for (const Field *field = endpoint->fields; field->name; field++)
	{
		JsonbValue	value;

		if (getKeyJsonValueFromContainer(&body->root, field->name,
										 strlen(field->name), &value) != NULL)
			check_field(field, &value);
		else if (field->required)
			fault(NULL, "\"%s\" is required", field->name);
	}
	if (endpoint->one_of != NULL)
		check_one_of(endpoint, body);
}
