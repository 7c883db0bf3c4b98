/*-------------------------------------------------------------------------
 *
 * columns.c
 *		The columns that an enrichment names.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "columns.h"

/* The number kept under a name; 0 if there is none */
static int64
kept_number(Jsonb *numbers, const char *name)
{
	JsonbValue	v;

	if (numbers == NULL ||
		getKeyJsonValueFromContainer(&numbers->root, name, strlen(name), &v) == NULL ||
		v.type != jbvNumeric)
		return 0;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(v.val.numeric)));
}

bool
s64_columns_at_home(Relation rel, Jsonb *numbers)
{
	return kept_number(numbers, "") == (int64) RelationGetRelid(rel);
}

static void
fill(Column *column, Relation rel, AttrNumber attnum, const char *name)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	bool		preferred;

	column->actual = pstrdup(NameStr(att->attname));
	column->name = name ? pstrdup(name) : column->actual;
	column->attnum = attnum;
	column->type = att->atttypid;
	column->typmod = att->atttypmod;
	column->base_typmod = att->atttypmod;
	column->base = getBaseTypeAndTypmod(att->atttypid, &column->base_typmod);
	get_type_category_preferred(column->base, &column->category, &preferred);
}

static bool
is_column(Relation rel, int64 attnum)
{
	return attnum > 0 && attnum <= RelationGetNumberOfAttributes(rel) &&
		!TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attisdropped;
}

bool
s64_type_is_hstore(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	bool		found;

	if (!HeapTupleIsValid(tuple))
		return false;
	found = strcmp(NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname), "hstore") == 0;
	ReleaseSysCache(tuple);
	return found;
}

bool
s64_column_find(Relation rel, Jsonb *numbers, const char *name, Column *column)
{
	int64		attnum = 0;

	if (s64_columns_at_home(rel, numbers))
		attnum = kept_number(numbers, name);
	if (!is_column(rel, attnum))
		attnum = get_attnum(RelationGetRelid(rel), name);
	if (!is_column(rel, attnum))
		return false;
	fill(column, rel, attnum, name);
	return true;
}

void
s64_column_from_number(Relation rel, Jsonb *numbers, AttrNumber attnum,
					   Column *column)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;

	fill(column, rel, attnum, NULL);
	if (!s64_columns_at_home(rel, numbers))
		return;
	it = JsonbIteratorInit(&numbers->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *name;

		if (token != WJB_KEY || v.val.string.len == 0)
			continue;
		name = pnstrdup(v.val.string.val, v.val.string.len);
		if (kept_number(numbers, name) == attnum)
			column->name = name;
	}
}

Column *
s64_columns_of_key(Relation rel, Jsonb *numbers, int *n)
{
	Bitmapset  *key = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	Column	   *columns;
	int			i = -1;

	*n = 0;
	if (bms_is_empty(key))
		return NULL;
	columns = palloc(bms_num_members(key) * sizeof(Column));
	while ((i = bms_next_member(key, i)) >= 0)
		s64_column_from_number(rel, numbers, i + FirstLowInvalidHeapAttributeNumber,
							   &columns[(*n)++]);
	return columns;
}

static void
push_number(JsonbInState *state, const char *name, int64 number)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = (char *) name;
	v.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &v);
	v.type = jbvNumeric;
	v.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &v);
}

void
s64_columns_push_numbers(JsonbInState *state, Relation rel,
						 const Column *columns, int n)
{
	push_number(state, "", RelationGetRelid(rel));
	for (int i = 0; i < n; i++)
		push_number(state, columns[i].name, columns[i].attnum);
}

void
s64_column_append(StringInfo buf, const char *alias, const Column *column)
{
	appendStringInfo(buf, "%s.%s", alias, quote_identifier(column->actual));
}

void
s64_column_append_definition(StringInfo buf, const Column *column)
{
	appendStringInfo(buf, "%s %s", quote_identifier(column->name),
					 format_type_extended(column->base, column->base_typmod,
										  FORMAT_TYPE_TYPEMOD_GIVEN |
										  FORMAT_TYPE_FORCE_QUALIFY));
}

/*
 * The type's own equality, found by its OID: the operator's name may mean
 * something else in the search_path.  Types without one, such as json, are
 * compared as text.
 */
void
s64_column_append_equal(StringInfo buf, const Column *column, const char *left,
						const char *right, bool declared)
{
	TypeCacheEntry *type = lookup_type_cache(column->type, TYPECACHE_EQ_OPR);
	char	   *l = psprintf("%s.%s", left, quote_identifier(column->actual));
	char	   *r = psprintf("%s.%s", right,
							 quote_identifier(declared ? column->name : column->actual));

	if (OidIsValid(type->eq_opr))
		generate_operator_clause(buf, l, column->type, type->eq_opr, r, column->type);
	else if (column->base == JSONOID)
		appendStringInfo(buf, "%s::jsonb = %s::jsonb", l, r);
	else
		appendStringInfo(buf, "%s::text = %s::text", l, r);
}

void
s64_column_append_same(StringInfo buf, const Column *column, const char *left,
					   const char *right, bool declared)
{
	appendStringInfoString(buf, "(coalesce(");
	s64_column_append_equal(buf, column, left, right, declared);
	appendStringInfo(buf, ", false) OR (%s.%s IS NULL AND %s.%s IS NULL))",
					 left, quote_identifier(column->actual), right,
					 quote_identifier(declared ? column->name : column->actual));
}

/*
 * Does what to_jsonb() makes of it depend on settings?  Not so for the types
 * that nearly all columns have: for the others it costs more.
 */
static bool
depends_on_settings(Oid type)
{
	Oid			base = getBaseType(type);
	Oid			element = get_element_type(base);
	char		category;
	bool		preferred;

	if (OidIsValid(element))
		return element == TIMESTAMPTZOID || depends_on_settings(element);
	switch (base)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case UUIDOID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:	/* see append_value() */
		case JSONOID:
		case JSONBOID:
			return false;
	}
	get_type_category_preferred(base, &category, &preferred);
	return category != TYPCATEGORY_STRING && category != TYPCATEGORY_ENUM;
}

/*
 * to_jsonb() writes a timestamptz in the session's time zone, in which the
 * same moment would be another key tomorrow.
 */
static void
append_value(StringInfo buf, const char *alias, const Column *column)
{
	char	   *c = psprintf("%s.%s", alias, quote_identifier(column->actual));

	if (column->base == TIMESTAMPTZOID)
		appendStringInfo(buf,
						 "CASE WHEN pg_catalog.isfinite(%s) THEN "
						 "pg_catalog.to_jsonb((pg_catalog.to_jsonb(%s AT TIME ZONE 'UTC') #>> '{}') || 'Z') "
						 "ELSE pg_catalog.to_jsonb(%s) END", c, c, c);
	else if (depends_on_settings(column->base))
		appendStringInfo(buf, "sixtyfour.plain_jsonb(%s)", c);
	else
		appendStringInfo(buf, "pg_catalog.to_jsonb(%s)", c);
}

void
s64_columns_append_json(StringInfo buf, const char *alias,
						const Column *columns, int n)
{
	appendStringInfoString(buf, "pg_catalog.jsonb_build_object(");
	for (int i = 0; i < n; i++)
	{
		appendStringInfo(buf, "%s%s, ", i > 0 ? ", " : "",
						 quote_literal_cstr(columns[i].name));
		append_value(buf, alias, &columns[i]);
	}
	appendStringInfoChar(buf, ')');
}

void
s64_column_append_fact(StringInfo buf, const char *alias, const Column *column)
{
	char	   *c = psprintf("%s.%s", alias, quote_identifier(column->actual));

	if (column->category == TYPCATEGORY_STRING)
		appendStringInfo(buf, "CASE WHEN pg_catalog.btrim(%s::text) <> '' THEN ", c);
	else if (column->base == JSONBOID || column->base == JSONOID)
		appendStringInfo(buf, "CASE WHEN %s::jsonb NOT IN ('null', '\"\"', '{}', '[]') THEN ", c);
	else if (column->category == TYPCATEGORY_ARRAY)
		appendStringInfo(buf, "CASE WHEN pg_catalog.cardinality(%s) > 0 THEN ", c);
	else
		appendStringInfoString(buf, "CASE WHEN true THEN ");
	append_value(buf, alias, column);
	appendStringInfoString(buf, " END");
}
