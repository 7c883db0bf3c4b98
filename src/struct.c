/*-------------------------------------------------------------------------
 *
 * struct.c
 *		What to ask the service for, out of a table's columns.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "columns.h"
#include "compat.h"
#include "json.h"

S64_FUNCTION(sixtyfour_struct);

/* The service's words for our types, without domains; anything else is "str". */
static const struct
{
	Oid			type;
	const char *word;
	const char *list;			/* of an array of them */
}			types[] =
{
	{INT2OID, "int", "list[int]"},
	{INT4OID, "int", "list[int]"},
	{INT8OID, "int", "list[int]"},
	{FLOAT4OID, "float", "list[float]"},
	{FLOAT8OID, "float", "list[float]"},
	{NUMERICOID, "float", "list[float]"},
	{BOOLOID, "bool", "list"},
	{JSONOID, "dict", "list"},
	{JSONBOID, "dict", "list"},
};

static const char *
word_for(Oid type)
{
	Oid			base = getBaseType(type);
	Oid			element = get_base_element_type(base);
	Oid			item = OidIsValid(element) ? getBaseType(element) : base;
	char		category;
	bool		preferred;

	for (size_t i = 0; i < lengthof(types); i++)
	{
		if (types[i].type == item)
			return OidIsValid(element) ? types[i].list : types[i].word;
	}
	get_type_category_preferred(item, &category, &preferred);
	if (OidIsValid(element))
		return category == TYPCATEGORY_STRING ? "list[str]" : "list";
	return category == TYPCATEGORY_COMPOSITE || s64_type_is_hstore(item) ? "dict" : "str";
}

static char *
description_of(Oid relid, Form_pg_attribute att)
{
	char	   *comment = GetComment(relid, RelationRelationId, att->attnum);
	char	   *words;

	if (comment != NULL)
		return comment;
	words = pstrdup(NameStr(att->attname));
	for (char *p = words; *p != '\0'; p++)
	{
		if (*p == '_')
			*p = ' ';
	}
	return words;
}

static void
push_text(JsonbInState *state, const char *name, const char *text)
{
	s64_json_push_key(state, name);
	s64_json_push_text(state, text);
}

static void
push_column(JsonbInState *state, Relation rel, Form_pg_attribute att)
{
	s64_json_push_key(state, pstrdup(NameStr(att->attname)));
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_text(state, "description", description_of(RelationGetRelid(rel), att));
	push_text(state, "type", word_for(att->atttypid));
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* What people fill in: neither key nor made by the system */
static void
push_all(JsonbInState *state, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *key = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->attidentity == '\0' && att->attgenerated == '\0' &&
			!bms_is_member(att->attnum - FirstLowInvalidHeapAttributeNumber, key))
			push_column(state, rel, att);
	}
}

static void
push_named(JsonbInState *state, Relation rel, ArrayType *names)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name;
		AttrNumber	attnum;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column names must not be null")));
		name = TextDatumGetCString(values[i]);
		attnum = get_attnum(RelationGetRelid(rel), name);
		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							name, RelationGetRelationName(rel))));
		push_column(state, rel, TupleDescAttr(RelationGetDescr(rel), attnum - 1));
	}
}

static bool
has_columns(char relkind)
{
	return relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE ||
		relkind == RELKIND_VIEW || relkind == RELKIND_MATVIEW ||
		relkind == RELKIND_FOREIGN_TABLE || relkind == RELKIND_COMPOSITE_TYPE;
}

Datum
sixtyfour_struct(PG_FUNCTION_ARGS)
{
	JsonbInState state = {0};
	Relation	rel;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", PG_GETARG_OID(0))));
	if (!has_columns(rel->rd_rel->relkind))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel))));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (PG_ARGISNULL(1))
		push_all(&state, rel);
	else
		push_named(&state, rel, PG_GETARG_ARRAYTYPE_P(1));
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	relation_close(rel, AccessShareLock);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(state.result));
}
