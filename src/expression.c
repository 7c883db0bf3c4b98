/*-------------------------------------------------------------------------
 *
 * expression.c
 *		Boolean SQL expressions that people give as text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_clause.h"
#include "parser/parse_collate.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/guc.h"
#include "utils/ruleutils.h"

#include "expression.h"

/*
 * The expression's raw parse tree.  The text stands in parentheses, and the
 * result must be a bare SELECT of one thing, so that a text such as
 * "true) FROM other_table WHERE (true" is refused.
 */
static Node *
parse(const char *source, const char *what)
{
	List	   *list = raw_parser(source, RAW_PARSE_DEFAULT);
	SelectStmt *select = NULL;

	if (list_length(list) == 1 && IsA(linitial_node(RawStmt, list)->stmt, SelectStmt))
		select = (SelectStmt *) linitial_node(RawStmt, list)->stmt;
	if (select == NULL || select->op != SETOP_NONE || select->valuesLists != NIL ||
		list_length(select->targetList) != 1 || select->distinctClause != NIL ||
		select->intoClause != NULL || select->fromClause != NIL ||
		select->whereClause != NULL || select->groupClause != NIL ||
		select->havingClause != NULL || select->windowClause != NIL ||
		select->sortClause != NIL || select->limitOffset != NULL ||
		select->limitCount != NULL || select->lockingClause != NIL ||
		select->withClause != NULL ||
		linitial_node(ResTarget, select->targetList)->name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the %s must be one boolean expression", what)));
	return linitial_node(ResTarget, select->targetList)->val;
}

/* Add the columns that a condition uses; refuse what a renamed or restored
 * table could not give it. */
static void
collect(Node *expr, const char *what, Bitmapset **used)
{
	Bitmapset  *attrs = NULL;
	int			i = -1;

	pull_varattnos(expr, 1, &attrs);
	while ((i = bms_next_member(attrs, i)) >= 0)
	{
		int			attnum = i + FirstLowInvalidHeapAttributeNumber;

		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the %s cannot use system columns or the whole row", what)));
		*used = bms_add_member(*used, attnum);
	}
}

char *
s64_expression_read(Relation rel, const char *alias, const char *text,
					const char *what, Bitmapset **used)
{
	/* a comment at the end of the text must not hide the parenthesis */
	char	   *source = psprintf("SELECT (%s\n)", text);
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *nsitem;
	Node	   *expr;
	char	   *result;
	int			nestlevel;

	pstate->p_sourcetext = source;
	nsitem = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
										   used ? NULL : makeAlias(alias, NIL),
										   false, true);
	addNSItemToQuery(pstate, nsitem, false, true, true);
	expr = transformWhereClause(pstate, parse(source, what),
								used ? EXPR_KIND_TRIGGER_WHEN : EXPR_KIND_WHERE,
								what);
	assign_expr_collations(pstate, expr);
	if (used)
		collect(expr, what, used);

	nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	result = deparse_expression(expr,
								deparse_context_for(used ? RelationGetRelationName(rel) : alias,
													RelationGetRelid(rel)),
								used == NULL, false);
	AtEOXact_GUC(true, nestlevel);
	free_parsestate(pstate);
	return result;
}
