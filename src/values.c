/*-------------------------------------------------------------------------
 *
 * values.c
 *		What an answer says for the columns of an output.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

#include "literal.h"
#include "values.h"

/* All that the path finds, as an array; errors of a strict path find nothing. */
static Jsonb *
find_all(Jsonb *answer, Datum path)
{
	Datum		vars = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));

	return DatumGetJsonbP(DirectFunctionCall4(jsonb_path_query_array,
											  JsonbPGetDatum(answer), path, vars,
											  BoolGetDatum(true)));
}

static bool
is_array(const JsonbValue *v)
{
	return v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data);
}

static bool
is_blank(const JsonbValue *v)
{
	return v->type == jbvString &&
		strspn(pnstrdup(v->val.string.val, v->val.string.len), " \t\r\n") == (size_t) v->val.string.len;
}

static void
set_binary(JsonbValue *v, Jsonb *json)
{
	v->type = jbvBinary;
	v->val.binary.data = &json->root;
	v->val.binary.len = VARSIZE(json) - VARHDRSZ;
}

static void
set_numeric(JsonbValue *v, const char *text)
{
	v->type = jbvNumeric;
	v->val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(text),
														 ObjectIdGetDatum(InvalidOid),
														 Int32GetDatum(-1)));
}

/* Text that is a list or an object becomes one. */
static void
read_literal(JsonbValue *v)
{
	Jsonb	   *json;

	if (v->type == jbvString &&
		(json = s64_literal_read(v->val.string.val, v->val.string.len)) != NULL)
		set_binary(v, json);
}

/* "8.0" and 8.0 are numbers for an integer column too. */
static void
normalise_integer(JsonbValue *v)
{
	if (v->type == jbvString)
	{
		char	   *text = pnstrdup(v->val.string.val, v->val.string.len);

		if (s64_literal_is_number(text))
			set_numeric(v, text);
	}
	if (v->type == jbvNumeric)
		v->val.numeric = DatumGetNumeric(DirectFunctionCall2(numeric_round,
															 NumericGetDatum(v->val.numeric),
															 Int32GetDatum(0)));
}

static Jsonb *
finish(JsonbInState *state, JsonbIteratorToken end)
{
	pushJsonbValue(state, end, NULL);
	return JsonbValueToJsonb(state->result);
}

/* Each element as the array's elements need it */
static void
normalise_array(JsonbValue *v, Oid element)
{
	JsonbInState state = {0};
	JsonbIterator *it;
	JsonbValue	item;
	JsonbIteratorToken token;

	read_literal(v);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	if (!is_array(v))
	{
		s64_values_normalise(v, element);
		pushJsonbValue(&state, WJB_ELEM, v);
	}
	else
	{
		it = JsonbIteratorInit(v->val.binary.data);
		while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
		{
			if (token != WJB_ELEM)
				continue;
			/* an element that is a list is another dimension */
			if (!is_array(&item))
				s64_values_normalise(&item, element);
			pushJsonbValue(&state, WJB_ELEM, &item);
		}
	}
	set_binary(v, finish(&state, WJB_END_ARRAY));
}

/* Append a text as hstore reads it. */
static void
append_quoted(StringInfo buf, const char *text, int len)
{
	appendStringInfoChar(buf, '"');
	for (int i = 0; i < len; i++)
	{
		if (text[i] == '"' || text[i] == '\\')
			appendStringInfoChar(buf, '\\');
		appendStringInfoChar(buf, text[i]);
	}
	appendStringInfoChar(buf, '"');
}

/* An object becomes what hstore reads; in it, all but null is text. */
static void
write_hstore(JsonbValue *v)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	item;
	StringInfoData buf;

	read_literal(v);
	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return;
	initStringInfo(&buf);
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
	{
		char	   *text;

		if (token == WJB_KEY)
		{
			append_quoted(&buf, item.val.string.val, item.val.string.len);
			appendStringInfoString(&buf, "=>");
		}
		if (token != WJB_VALUE)
			continue;
		if (item.type == jbvString)
			append_quoted(&buf, item.val.string.val, item.val.string.len);
		else if (item.type == jbvNull)
			appendStringInfoString(&buf, "NULL");
		else
		{
			text = JsonbToCString(NULL, &JsonbValueToJsonb(&item)->root, -1);
			append_quoted(&buf, text, strlen(text));
		}
		appendStringInfoChar(&buf, ',');
	}
	if (buf.len > 0)
		buf.len--;				/* no comma at the end */
	v->type = jbvString;
	v->val.string.val = buf.data;
	v->val.string.len = buf.len;
}

void
s64_values_normalise(JsonbValue *v, Oid type)
{
	Oid			base = getBaseType(type);
	Oid			element = get_base_element_type(base);
	char		category;
	bool		preferred;

	get_type_category_preferred(base, &category, &preferred);
	if (category == TYPCATEGORY_STRING || v->type == jbvNull)
		return;
	if (is_blank(v))
		v->type = jbvNull;
	else if (base == JSONBOID || base == JSONOID)
		read_literal(v);
	else if (OidIsValid(element))
		normalise_array(v, element);
	else if (base == INT2OID || base == INT4OID || base == INT8OID)
		normalise_integer(v);
	else if (category == TYPCATEGORY_COMPOSITE)
		read_literal(v);
	else if (category == TYPCATEGORY_USER && s64_type_is_hstore(base))
		write_hstore(v);
}

/* What the path finds, for a column of that type; false for nothing */
static bool
find_value(Jsonb *answer, Datum path, Oid type, JsonbValue *v)
{
	Jsonb	   *found = find_all(answer, path);
	Oid			base = getBaseType(type);

	if (JB_ROOT_COUNT(found) == 0)
		return false;
	if (JB_ROOT_COUNT(found) > 1 &&
		(base == JSONBOID || base == JSONOID || OidIsValid(get_base_element_type(base))))
		set_binary(v, found);
	else
		*v = *getIthJsonbValueFromContainer(&found->root, 0);
	s64_values_normalise(v, type);
	return true;
}

static void
push_values(JsonbInState *state, Jsonb *answer, const OutputColumn *columns,
			int n)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	key;
		JsonbValue	v;

		if (!find_value(answer, columns[i].path, columns[i].column.type, &v))
			continue;
		key.type = jbvString;
		key.val.string.val = columns[i].column.name;
		key.val.string.len = strlen(columns[i].column.name);
		pushJsonbValue(state, WJB_KEY, &key);
		pushJsonbValue(state, WJB_VALUE, &v);
	}
}

Jsonb *
s64_values_read(Jsonb *answer, const OutputColumn *columns, int n)
{
	JsonbInState state = {0};

	push_values(&state, answer, columns, n);
	return finish(&state, WJB_END_OBJECT);
}

Jsonb *
s64_values_read_leads(Jsonb *answer, const OutputColumn *columns, int n)
{
	JsonbInState state = {0};
	Datum		path = DirectFunctionCall1(jsonpath_in,
										   CStringGetDatum("$.structured_data.leads[*]"));
	Jsonb	   *people = find_all(answer, path);

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < (int) JB_ROOT_COUNT(people); i++)
	{
		JsonbValue *person = getIthJsonbValueFromContainer(&people->root, i);

		if (person->type != jbvBinary || !JsonContainerIsObject(person->val.binary.data))
			continue;
		push_values(&state, JsonbValueToJsonb(person), columns, n);
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return finish(&state, WJB_END_ARRAY);
}
