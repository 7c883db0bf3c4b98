/*-------------------------------------------------------------------------
 *
 * sample.c
 *		Checks the requests that an enrichment would make, by a sample of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "check.h"
#include "compat.h"
#include "sample.h"

pg_noreturn static void refuse(char *message);

static void
refuse(char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_internal("%s", message)));
}

static bool
has_member(Jsonb *object, const char *name)
{
	JsonbValue	v;

	return object != NULL && JB_ROOT_IS_OBJECT(object) &&
		getKeyJsonValueFromContainer(&object->root, name, strlen(name), &v) != NULL;
}

static Jsonb *
concat(Jsonb *a, Jsonb *b)
{
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(a),
											  JsonbPGetDatum(b)));
}

static Jsonb *
finish(JsonbInState *state, JsonbIteratorToken end)
{
	pushJsonbValue(state, end, NULL);
	return JsonbValueToJsonb(state->result);
}

/* An object with one member */
static Jsonb *
object_of(const char *name, Jsonb *value)
{
	JsonbInState state = {0};
	JsonbValue	v;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	v.type = jbvString;
	v.val.string.val = (char *) name;
	v.val.string.len = strlen(name);
	pushJsonbValue(&state, WJB_KEY, &v);
	if (JB_ROOT_IS_SCALAR(value))
		JsonbExtractScalar(&value->root, &v);
	else
	{
		v.type = jbvBinary;
		v.val.binary.data = &value->root;
		v.val.binary.len = VARSIZE(value) - VARHDRSZ;
	}
	pushJsonbValue(&state, WJB_VALUE, &v);
	return finish(&state, WJB_END_OBJECT);
}

/*
 * A body with nothing but a subject: the input, whose values are names of
 * columns, does for one.
 */
static Jsonb *
make_subject(const Endpoint *endpoint, Jsonb *input)
{
	return endpoint->fields[0].type == FIELD_PROFILE ? input
		: object_of(endpoint->fields[0].name, input);
}

void
s64_sample_check(const Endpoint *endpoint, Jsonb *input, Jsonb *structure,
				 Jsonb *options)
{
	const char *subject = endpoint->fields[0].name;
	Jsonb	   *body;

	if (options != NULL && !JB_ROOT_IS_OBJECT(options))
		refuse("\"options\" must be a JSON object");
	if (has_member(options, subject))
		refuse(psprintf("\"%s\" comes from the row and cannot be given in \"options\"", subject));
	if (structure != NULL && !s64_endpoint_has_field(endpoint, "struct"))
		refuse(psprintf("operation %s takes no \"struct\"", endpoint->name));
	if (structure != NULL && has_member(options, "struct"))
		refuse("\"struct\" is given both as an argument and in \"options\"");

	body = make_subject(endpoint, input);
	if (structure != NULL)
		body = concat(body, object_of("struct", structure));
	if (options != NULL)
		body = concat(body, DatumGetJsonbP(DirectFunctionCall1(jsonb_strip_nulls,
															   JsonbPGetDatum(options))));
	s64_check_body(endpoint, body);
}
