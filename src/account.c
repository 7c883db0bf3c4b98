/*-------------------------------------------------------------------------
 *
 * account.c
 *		Server and user mapping to base URL, key and limits.
 *
 * Options marked superuser_only either choose where the key and the data are
 * sent, or make the server process read a file.  As with postgres_fdw's
 * password_required, a validator sees all options that an object is to have
 * and not what changed: so only a superuser can alter an object and keep such
 * an option, but its owner can drop it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "account.h"
#include "compat.h"
#include "digest.h"
#include "endpoint.h"

#define DEFAULT_BASE_URL	"https://api.sixtyfour.ai"
#define API_KEY_MAX			512 /* bytes */

typedef enum OptionKind
{
	OPTION_BASE_URL,
	OPTION_WEBHOOK_URL,
	OPTION_PROXY,
	OPTION_FILE,
	OPTION_KEY,
	OPTION_DURATION,			/* given in s or with a unit, kept in ms */
	OPTION_INTEGER
} OptionKind;

typedef struct Option
{
	const char *name;
	Oid			context;		/* catalog of the object that has it */
	OptionKind	kind;
	bool		superuser_only;
	int			min;			/* of a number, in the unit it is kept in */
	int			max;
	size_t		offset;			/* into Account */
} Option;

#define SERVER	ForeignServerRelationId
#define MAPPING UserMappingRelationId

static const Option options[] = {
	{"base_url", SERVER, OPTION_BASE_URL, true, 0, 0, offsetof(Account, base_url)},
	{"requests_per_minute", SERVER, OPTION_INTEGER, false, 0, 1000000, offsetof(Account, requests_per_minute)},
	{"timeout", SERVER, OPTION_DURATION, false, 1, 86400000, offsetof(Account, timeout)},
	{"connect_timeout", SERVER, OPTION_DURATION, false, 1, 600000, offsetof(Account, connect_timeout)},
	{"webhook_url", SERVER, OPTION_WEBHOOK_URL, true, 0, 0, offsetof(Account, webhook_url)},
	{"ca_file", SERVER, OPTION_FILE, true, 0, 0, offsetof(Account, ca_file)},
	{"proxy", SERVER, OPTION_PROXY, true, 0, 0, offsetof(Account, proxy)},
	{"daily_budget_cents", SERVER, OPTION_INTEGER, false, 0, INT_MAX, offsetof(Account, daily_budget)},
	{"assumed_cents", SERVER, OPTION_INTEGER, false, 0, 1000000, offsetof(Account, assumed_price)},
	{"api_key", MAPPING, OPTION_KEY, false, 0, 0, offsetof(Account, api_key)},
	{"api_key_file", MAPPING, OPTION_FILE, true, 0, 0, 0},
};

static Oid	our_wrapper = InvalidOid;	/* foreign-data wrapper sixtyfour, once seen */

S64_FUNCTION(sixtyfour_fdw_validator);

static const Option *
find_option(const char *name, Oid context)
{
	for (size_t i = 0; i < lengthof(options); i++)
	{
		if (options[i].context == context &&
			strcmp(options[i].name, name) == 0)
			return &options[i];
	}
	return NULL;
}

/* The options that an object of this catalog can have, for a HINT */
static char *
option_names(Oid context)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (size_t i = 0; i < lengthof(options); i++)
	{
		if (options[i].context == context)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
							 options[i].name);
	}
	return buf.data;
}

/* Visible ASCII only, so that it can stand in a URL or a header line */
static bool
is_visible_ascii(const char *text)
{
	for (const char *p = text; *p; p++)
	{
		if (*p <= ' ' || *p > '~')
			return false;
	}
	return true;
}

/* What follows the scheme: [:port][/path] behind a host */
static bool
is_authority(const char *host)
{
	const char *end = *host == '[' ? strchr(host, ']') : host + strcspn(host, ":/");
	char	   *rest;
	long		port;

	if (end == NULL)
		return false;
	end += *end == ']';
	if (*end != ':')
		return *end == '\0' || *end == '/';
	if (!isdigit((unsigned char) end[1]))
		return false;
	port = strtol(end + 1, &rest, 10);
	return port >= 1 && port <= 65535 && (*rest == '\0' || *rest == '/');
}

/*
 * scheme://host[:port][/path].  No user part, query or fragment, so that a path
 * can be appended and the host is what it seems to be.
 */
static bool
is_base_url(const char *url)
{
	const char *host;

	if (!is_visible_ascii(url) || strpbrk(url, "@?#\\\"<>^`{|}") != NULL)
		return false;
	if (strncmp(url, "https://", 8) == 0)
		host = url + 8;
	else if (strncmp(url, "http://", 7) == 0)
		host = url + 7;
	else
		return false;
	return (isalnum((unsigned char) *host) || *host == '[') && is_authority(host);
}

static bool
is_webhook_url(const char *url)
{
	return is_visible_ascii(url) && strncmp(url, "https://", 8) == 0 &&
		isalnum((unsigned char) url[8]) && strlen(url) <= S64_WEBHOOK_URL_MAX;
}

/*
 * A key goes into a header line, and is looked for in the text of answers to
 * be blotted out there: so nothing that JSON must write differently.
 */
static bool
is_api_key(const char *key)
{
	return *key != '\0' && strlen(key) <= API_KEY_MAX &&
		is_visible_ascii(key) && strpbrk(key, "\"\\") == NULL;
}

/* Read a number as the option's kind has it; false if it is not one. */
static bool
parse_number(const Option *option, const char *value, int *result)
{
	int			flags = option->kind == OPTION_DURATION ? GUC_UNIT_S : 0;
	double		scale = option->kind == OPTION_DURATION ? 1000 : 1;
	double		number;

	if (!parse_real(value, &number, flags, NULL))
		return false;
	number = rint(number * scale);
	if (!(number >= option->min && number <= option->max))
		return false;
	*result = (int) number;
	return option->kind == OPTION_DURATION || rint(number) == strtod(value, NULL);
}

/* What a valid value looks like, for a HINT */
static char *
describe_values(const Option *option)
{
	switch (option->kind)
	{
		case OPTION_BASE_URL:
			return "A base URL is https://host[:port][/path] without user, query or fragment.";
		case OPTION_WEBHOOK_URL:
			return "A webhook URL begins with https:// and has at most 2083 characters.";
		case OPTION_PROXY:
			return "A proxy is [scheme://]host[:port].";
		case OPTION_FILE:
			return "A file is named by its absolute path.";
		case OPTION_KEY:
			return "An API key is 1 to 512 visible ASCII characters without quotes and backslashes.";
		case OPTION_DURATION:
			return psprintf("A duration is between %g and %g seconds; units such as ms, s and min are understood.",
							option->min / 1000.0, option->max / 1000.0);
		case OPTION_INTEGER:
			return psprintf("A whole number between %d and %d is needed.",
							option->min, option->max);
	}
	return NULL;				/* keep compiler quiet */
}

static bool
is_valid_value(const Option *option, const char *value)
{
	int			number;

	switch (option->kind)
	{
		case OPTION_BASE_URL:
			return is_base_url(value);
		case OPTION_WEBHOOK_URL:
			return is_webhook_url(value);
		case OPTION_PROXY:
			return *value != '\0' && is_visible_ascii(value);
		case OPTION_FILE:
			return is_absolute_path(value);
		case OPTION_KEY:
			return is_api_key(value);
		case OPTION_DURATION:
		case OPTION_INTEGER:
			return parse_number(option, value, &number);
	}
	return false;				/* keep compiler quiet */
}

/*
 * Check one option as it is set.  The value of a key must not be shown.
 */
static void
check_option(const DefElem *def, Oid context)
{
	const Option *option = find_option(def->defname, context);
	const char *value;

	if (option == NULL)
	{
		char	   *names = option_names(context);

		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"", def->defname),
				 *names != '\0'
				 ? errhint("Valid options in this context are: %s", names)
				 : errhint("There are no valid options in this context.")));
	}

	value = defGetString((DefElem *) def);
	if (!is_valid_value(option, value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 option->kind == OPTION_KEY
				 ? errmsg("invalid value for option \"%s\"", option->name)
				 : errmsg("invalid value for option \"%s\": \"%s\"",
						  option->name, value),
				 errhint("%s", describe_values(option))));

	if (superuser())
		return;
	if (option->superuser_only)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errhint("Only a superuser may create or alter an object with this option.")));
	if (option->offset == offsetof(Account, requests_per_minute) &&
		strtod(value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\" to unlimited",
						option->name),
				 errhint("Only a superuser may lift the limit on requests.")));
}

/* sixtyfour_fdw_validator(options text[], catalog oid): VALIDATOR of the FDW */
Datum
sixtyfour_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *defs = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			context = PG_GETARG_OID(1);
	int			keys = 0;
	ListCell   *lc;

	foreach(lc, defs)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		check_option(def, context);
		if (context == MAPPING)
			keys++;
	}
	if (keys > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options \"api_key\" and \"api_key_file\" exclude each other")));

	PG_RETURN_VOID();
}

pg_noreturn static void key_file_error(const char *path, const char *reason);

static void
key_file_error(const char *path, const char *reason)
{
	/* the path is the superuser's business: the log has it */
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("could not read the API key from the file named by the user mapping"),
			 errdetail("%s", reason),
			 errdetail_log("File \"%s\": %s", path, reason)));
}

/* The key in a file: its first line */
static char *
read_key_file(const char *path)
{
	char		line[API_KEY_MAX + 2];
	FILE	   *file = AllocateFile(path, "r");
	size_t		len;

	if (file == NULL)
		key_file_error(path, psprintf("%s.", strerror(errno)));
	if (fgets(line, sizeof(line), file) == NULL)
		line[0] = '\0';
	FreeFile(file);

	len = strlen(line);
	while (len > 0 && isspace((unsigned char) line[len - 1]))
		line[--len] = '\0';
	if (!is_api_key(line))
	{
		explicit_bzero(line, sizeof(line));
		key_file_error(path, "Its first line is not an API key.");
	}
	return pstrdup(line);
}

/* Put an option's value where it belongs in the account. */
static void
apply_option(Account *account, const DefElem *def, Oid context)
{
	const Option *option = find_option(def->defname, context);
	char	   *value = defGetString((DefElem *) def);
	char	   *place = (char *) account;

	if (option == NULL)
		return;					/* of a later version, before a downgrade */
	if (strcmp(option->name, "api_key_file") == 0)
		account->api_key = read_key_file(value);
	else if (option->kind == OPTION_DURATION || option->kind == OPTION_INTEGER)
	{
		if (!parse_number(option, value, (int *) (place + option->offset)))
			elog(ERROR, "invalid stored value of option \"%s\"", option->name);
	}
	else
		*(char **) (place + option->offset) = value;
}

static void
apply_options(Account *account, List *defs, Oid context)
{
	ListCell   *lc;

	foreach(lc, defs)
		apply_option(account, lfirst_node(DefElem, lc), context);
}

/*
 * The options of userid's mapping, or else PUBLIC's; false if there is
 * neither.  foreign.c's GetUserMapping() would raise an error of another
 * class.
 */
static bool
get_mapping_options(Oid userid, Oid serverid, List **defs)
{
	HeapTuple	tuple;
	Datum		datum;
	bool		isnull;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
								ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		return false;

	datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
							Anum_pg_user_mapping_umoptions, &isnull);
	*defs = isnull ? NIL : untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return true;
}

/* pg_foreign_data_wrapper has changed. */
static void
forget_wrapper(Datum arg, int cacheid, uint32 hashvalue)
{
	our_wrapper = InvalidOid;
}

/*
 * Does the foreign-data wrapper belong to the extension?  That takes index
 * scans of two catalogs, so the answer is kept.
 */
static bool
is_our_wrapper(Oid fdwid)
{
	static bool registered = false;

	if (!registered)
		CacheRegisterSyscacheCallback(FOREIGNDATAWRAPPEROID, forget_wrapper, (Datum) 0);
	registered = true;
	if (fdwid != our_wrapper)
	{
		Oid			extension = get_extension_oid("sixtyfour", true);

		if (OidIsValid(extension) &&
			getExtensionOfObject(ForeignDataWrapperRelationId, fdwid) == extension)
			our_wrapper = fdwid;
	}
	return fdwid == our_wrapper;
}

/* The server of that name; usable by userid, if it is to be spent over */
static ForeignServer *
get_server(const char *name, Oid userid, bool spend)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	AclResult	aclresult;

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("server \"%s\" does not exist", name),
				 errhint("Use CREATE SERVER %s FOREIGN DATA WRAPPER sixtyfour, or set \"sixtyfour.server\" to the server to use.",
						 quote_identifier(name))));
	if (!is_our_wrapper(server->fdwid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("server \"%s\" does not use foreign-data wrapper sixtyfour",
						server->servername)));

	aclresult = spend ? s64_server_aclcheck(server->serverid, userid, ACL_USAGE)
		: ACLCHECK_OK;
	if (aclresult != ACLCHECK_OK)
		aclcheck_error(aclresult, OBJECT_FOREIGN_SERVER, server->servername);
	return server;
}

void
s64_account_check_server(const char *name, Oid userid)
{
	(void) get_server(name, userid, true);
}

static Account *
read_account(const char *server_name, Oid userid, bool spend)
{
	ForeignServer *server;
	Account    *account = palloc0(sizeof(Account));
	List	   *defs;
	size_t		len;

	/* it could still use what everybody may use */
	if (spend && !SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(userid)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role with OID %u does not exist", userid)));
	server = get_server(server_name, userid, spend);
	account->serverid = server->serverid;
	account->userid = userid;
	account->server = server->servername;
	account->base_url = DEFAULT_BASE_URL;
	account->timeout = 900 * 1000;
	account->connect_timeout = 10 * 1000;
	account->requests_per_minute = 500;
	account->daily_budget = -1;
	account->assumed_price = -1;
	apply_options(account, server->options, SERVER);

	if (!get_mapping_options(userid, server->serverid, &defs))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("user mapping not found for \"%s\"",
						GetUserNameFromId(userid, false)),
				 errhint("Use CREATE USER MAPPING FOR %s SERVER %s OPTIONS (api_key '...').",
						 quote_identifier(GetUserNameFromId(userid, false)),
						 quote_identifier(server->servername))));
	apply_options(account, defs, MAPPING);
	if (account->api_key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("user mapping of server \"%s\" has no API key",
						server->servername),
				 errhint("Use ALTER USER MAPPING ... OPTIONS (ADD api_key '...').")));

	account->base_url = pstrdup(account->base_url);
	for (len = strlen(account->base_url); account->base_url[len - 1] == '/'; len--)
		account->base_url[len - 1] = '\0';
	account->id = s64_digest(account->base_url, account->api_key);
	return account;
}

Account *
s64_account_get(const char *server_name, Oid userid)
{
	return read_account(server_name, userid, true);
}

Account *
s64_account_try(const char *server_name, Oid userid, bool spend, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Account    *volatile account = NULL;

	*error = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		account = read_account(server_name, userid, spend);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		account = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return account;
}

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

Account *
s64_account_copy(const Account *account)
{
	Account    *copy = palloc(sizeof(Account));

	*copy = *account;
	copy->server = copy_text(account->server);
	copy->base_url = copy_text(account->base_url);
	copy->api_key = copy_text(account->api_key);
	copy->ca_file = copy_text(account->ca_file);
	copy->proxy = copy_text(account->proxy);
	copy->webhook_url = copy_text(account->webhook_url);
	return copy;
}
