/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Differences between PostgreSQL 15 and 19, and nothing else.
 *
 * The only file that may look at PG_VERSION_NUM.  Every other file is
 * written against the newest spelling, which is provided here for the older
 * versions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_COMPAT_H
#define S64_COMPAT_H

#include "postgres.h"

#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_server.h"
#include "fmgr.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/jsonb.h"
#include "utils/regproc.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

#if PG_VERSION_NUM < 150000
#error "sixtyfour needs PostgreSQL 15 or newer"
#endif

/*
 * An SQL-callable function.  Before 16 PG_FUNCTION_INFO_V1 does not export the
 * function itself, which is needed where symbols are hidden by default.
 */
#define S64_FUNCTION(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

/* 18 replaced pg_attribute_noreturn(), which stood behind a declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* 19 marks a fall through by an attribute, and its CFLAGS ignore comments. */
#if PG_VERSION_NUM < 190000
#define pg_fallthrough __attribute__((fallthrough))
#endif

/*
 * A jsonb value under construction.  Before 19 pushJsonbValue() took the stack
 * and returned the result, which is complete after the last push.  The macro
 * does not expand again inside itself.
 */
#if PG_VERSION_NUM < 190000
typedef struct JsonbInState
{
	JsonbValue *result;
	JsonbParseState *parseState;
} JsonbInState;

#define pushJsonbValue(state, seq, value) \
	((void) ((state)->result = pushJsonbValue(&(state)->parseState, seq, value)))
#endif

/* 16 merged the pg_*_aclcheck() and ownercheck() families (catalog/aclchk.c). */
#if PG_VERSION_NUM < 160000
#define s64_database_ownercheck(database, roleid) \
	pg_database_ownercheck(database, roleid)
#define s64_extension_ownercheck(extension, roleid) \
	pg_extension_ownercheck(extension, roleid)
#define s64_server_aclcheck(serverid, roleid, mode) \
	pg_foreign_server_aclcheck(serverid, roleid, mode)
#define s64_server_ownercheck(serverid, roleid) \
	pg_foreign_server_ownercheck(serverid, roleid)
#else
#define s64_database_ownercheck(database, roleid) \
	object_ownercheck(DatabaseRelationId, database, roleid)
#define s64_extension_ownercheck(extension, roleid) \
	object_ownercheck(ExtensionRelationId, extension, roleid)
#define s64_server_aclcheck(serverid, roleid, mode) \
	object_aclcheck(ForeignServerRelationId, serverid, roleid, mode)
#define s64_server_ownercheck(serverid, roleid) \
	object_ownercheck(ForeignServerRelationId, serverid, roleid)
#endif

/* 16 lets some functions report soft errors, to escontext if it is given. */
#if PG_VERSION_NUM < 160000
#define stringToQualifiedNameList(string, escontext) \
	stringToQualifiedNameList(string)
#endif

/*
 * A WaitEventSet that lives as long as the process.  17 ties sets to a
 * resource owner instead of a memory context, none meaning for ever.
 */
#if PG_VERSION_NUM < 170000
#define s64_create_wait_event_set(nevents) \
	CreateWaitEventSet(TopMemoryContext, nevents)
#else
#define s64_create_wait_event_set(nevents) \
	CreateWaitEventSet(NULL, nevents)
#endif

/* 17 lets extensions name their wait events. */
#if PG_VERSION_NUM < 170000
#define s64_wait_event_new(name) PG_WAIT_EXTENSION
#else
#define s64_wait_event_new(name) WaitEventExtensionNew(name)
#endif

#endif							/* S64_COMPAT_H */
