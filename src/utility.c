/*-------------------------------------------------------------------------
 *
 * utility.c
 *		Notices the commands that concern the background processes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

#include "compat.h"
#include "errand.h"
#include "utility.h"

static ProcessUtility_hook_type prev_utility_hook = NULL;
static object_access_hook_type prev_access_hook = NULL;

/* An extension, whichever, came, went or was changed in this transaction. */
static bool extensions_changed = false;

static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		if (strcmp(lfirst_node(DefElem, cell)->defname, name) == 0)
			return lfirst_node(DefElem, cell);
	}
	return NULL;
}

/*
 * Stop a database's processes for a command that only its owner may give; to
 * anybody else the command will be refused.  (Others may copy a template,
 * which has no processes.)
 */
static void
stop_database(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (OidIsValid(database) && s64_database_ownercheck(database, GetUserId()))
		s64_errand_stop(database);
}

/*
 * Stop this database's processes, so that they do not hold the locks that the
 * command needs, in an order that could end in a deadlock.
 */
static void
stop_for_extension(const char *name)
{
	Oid			extension;

	if (strcmp(name, "sixtyfour") != 0)
		return;
	extension = get_extension_oid(name, true);
	if (OidIsValid(extension) && s64_extension_ownercheck(extension, GetUserId()))
		s64_errand_stop(MyDatabaseId);
}

/* The default template may have been made a database like any other. */
static bool
is_template(const char *name)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID,
										ObjectIdGetDatum(get_database_oid(name, true)));
	bool		result = HeapTupleIsValid(tuple) &&
		((Form_pg_database) GETSTRUCT(tuple))->datistemplate;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

static void
before_create_database(CreatedbStmt *stmt)
{
	DefElem    *template = find_option(stmt->options, "template");

	if (template != NULL && template->arg != NULL)
		stop_database(defGetString(template));
	else if (!is_template("template1"))
		stop_database("template1");
}

static void
before_drop(DropStmt *stmt)
{
	ListCell   *cell;

	if (stmt->removeType != OBJECT_EXTENSION)
		return;
	foreach(cell, stmt->objects)
		stop_for_extension(strVal(lfirst(cell)));
}

/* Not for commands that fail in a transaction block, if we are in one */
static void
before_command(Node *stmt, bool in_block)
{
	switch (nodeTag(stmt))
	{
		case T_CreatedbStmt:
			if (!in_block)
				before_create_database((CreatedbStmt *) stmt);
			break;
		case T_DropdbStmt:
			if (!in_block)
				stop_database(((DropdbStmt *) stmt)->dbname);
			break;
		case T_AlterDatabaseStmt:
			if (!in_block &&
				find_option(((AlterDatabaseStmt *) stmt)->options, "tablespace"))
				stop_database(((AlterDatabaseStmt *) stmt)->dbname);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				stop_database(((RenameStmt *) stmt)->subname);
			break;
		case T_DropStmt:
			before_drop((DropStmt *) stmt);
			break;
		case T_AlterExtensionStmt:
			stop_for_extension(((AlterExtensionStmt *) stmt)->extname);
			break;
		default:
			break;
	}
}

static void
tell_presence(void)
{
	s64_errand_extension(OidIsValid(get_extension_oid("sixtyfour", true)));
}

/* Does it change which accounts can be used, so that jobs may go on? */
static bool
concerns_accounts(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateForeignServerStmt:
		case T_AlterForeignServerStmt:
		case T_CreateUserMappingStmt:
		case T_AlterUserMappingStmt:
		case T_GrantRoleStmt:
			return true;
		case T_GrantStmt:
			return ((GrantStmt *) stmt)->objtype == OBJECT_FOREIGN_SERVER;
		default:
			return false;
	}
}

/* What is to follow a command */
typedef struct Consequences
{
	bool		wake;			/* the worker, where there is one */
	bool		rescan;			/* pg_database has changed */
	bool		presence;		/* extensions may have come or gone */
} Consequences;

static Consequences
find_consequences(Node *stmt)
{
	Consequences c = {0};

	c.wake = concerns_accounts(stmt);
	c.rescan = IsA(stmt, CreatedbStmt) || IsA(stmt, DropdbStmt) ||
		IsA(stmt, AlterDatabaseStmt);
	/* what it prepared is not known: jobs, or the extension itself */
	c.presence = IsA(stmt, TransactionStmt) &&
		((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED;
	return c;
}

static void
after_command(Consequences c)
{
	if (c.wake && OidIsValid(get_extension_oid("sixtyfour", true)))
		s64_errand_wake(PROCESS_WORKER);
	if (c.rescan)
		s64_errand_rescan();
	if (c.presence)
		tell_presence();
}

/*
 * The statement is not looked at any more once it was executed: with the end of
 * a transaction its memory may have gone.
 */
static void
utility_hook(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			 ProcessUtilityContext context, ParamListInfo params,
			 QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	bool		top_level = context == PROCESS_UTILITY_TOPLEVEL;
	Consequences consequences = find_consequences(pstmt->utilityStmt);

	before_command(pstmt->utilityStmt, IsInTransactionBlock(top_level));
	if (prev_utility_hook)
		prev_utility_hook(pstmt, query, read_only_tree, context, params, env,
						  dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								env, dest, qc);
	after_command(consequences);
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (!extensions_changed)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
		tell_presence();
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
			 event == XACT_EVENT_PREPARE)
		extensions_changed = false;
}

/*
 * However it comes about (CREATE EXTENSION ... CASCADE of another one, DROP
 * OWNED, DROP SCHEMA ... CASCADE), a change of an extension passes here.  The
 * name is not looked at: that of a new one is not visible yet.
 */
static void
access_hook(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	static bool registered = false;
	const char *name;

	if (prev_access_hook)
		prev_access_hook(access, class, object, sub, arg);
	if (class != ExtensionRelationId ||
		(access != OAT_POST_CREATE && access != OAT_POST_ALTER && access != OAT_DROP))
		return;
	if (!registered)
		RegisterXactCallback(xact_callback, NULL);
	registered = true;
	extensions_changed = true;

	/* in time for those drops that the utility hook does not see coming */
	name = access == OAT_DROP ? get_extension_name(object) : NULL;
	if (name != NULL && strcmp(name, "sixtyfour") == 0)
		s64_errand_stop(MyDatabaseId);
}

void
s64_utility_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	prev_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = utility_hook;
	prev_access_hook = object_access_hook;
	object_access_hook = access_hook;
}
