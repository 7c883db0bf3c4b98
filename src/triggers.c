/*-------------------------------------------------------------------------
 *
 * triggers.c
 *		The triggers by which an enrichment sees what is written to its table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "triggers.h"

#define TRIGGER_FUNCTION "sixtyfour_enrich_trigger"

static void
execute(const char *command)
{
	int			rc = SPI_execute(command, false, 0);

	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
}

static const char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/*
 * A name that no trigger of the table has: those of enrichments whose names
 * begin alike may be the same once they are cut.
 */
static char *
choose_name(Oid relid, const char *enrichment, const char *event)
{
	char	   *name = makeObjectName("sixtyfour", enrichment, event);

	for (int i = 2; OidIsValid(get_trigger_oid(relid, name, true)); i++)
		name = makeObjectName("sixtyfour", enrichment, psprintf("%s_%d", event, i));
	return name;
}

static void
create_trigger(Oid schema, Oid relid, const char *enrichment,
			   const char *event, const char *tables)
{
	char	   *name = choose_name(relid, enrichment, event);

	execute(psprintf("CREATE TRIGGER %s AFTER %s ON %s REFERENCING %s"
					 " FOR EACH STATEMENT EXECUTE FUNCTION %s." TRIGGER_FUNCTION "(%s)",
					 quote_identifier(name), event, qualified_name(relid), tables,
					 quote_identifier(get_namespace_name(schema)), quote_literal_cstr(enrichment)));
}

/* The table and its partitions */
static List *
tree_of(Oid target)
{
	if (get_rel_relkind(target) != RELKIND_PARTITIONED_TABLE)
		return list_make1_oid(target);
	return find_all_inheritors(target, AccessShareLock, NULL);
}

void
s64_triggers_create(Oid schema, Relation target, const char *enrichment,
					bool on_insert, bool on_update)
{
	List	   *tables = tree_of(RelationGetRelid(target));
	ListCell   *lc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	foreach(lc, tables)
	{
		Oid			relid = lfirst_oid(lc);

		if (get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE)
			continue;
		if (on_insert)
			create_trigger(schema, relid, enrichment, "insert", "NEW TABLE AS new_rows");
		if (on_update)
			create_trigger(schema, relid, enrichment, "update",
						   "OLD TABLE AS old_rows NEW TABLE AS new_rows");
		/* for triggers made by hand, which may be waiting for this enrichment */
		CacheInvalidateRelcacheByRelid(relid);
	}
	SPI_finish();
}

/* The names of the triggers of a table that are for this enrichment */
static List *
find_triggers(Relation rel, const char *enrichment, Oid function)
{
	List	   *names = NIL;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == function && trigger->tgnargs == 1 &&
			strcmp(trigger->tgargs[0], enrichment) == 0)
			names = lappend(names, pstrdup(trigger->tgname));
	}
	return names;
}

void
s64_triggers_drop(Oid schema, Oid target, const char *enrichment)
{
	List	   *path = list_make2(makeString(get_namespace_name(schema)),
								  makeString(TRIGGER_FUNCTION));
	Oid			function = LookupFuncName(path, 0, NULL, false);
	List	   *tables = get_rel_name(target) ? tree_of(target) : NIL;
	ListCell   *lc;
	ListCell   *name;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	foreach(lc, tables)
	{
		Relation	rel = relation_open(lfirst_oid(lc), AccessShareLock);
		List	   *names = find_triggers(rel, enrichment, function);

		relation_close(rel, NoLock);
		foreach(name, names)
			execute(psprintf("DROP TRIGGER %s ON %s", quote_identifier(lfirst(name)),
							 qualified_name(lfirst_oid(lc))));
	}
	SPI_finish();
}
