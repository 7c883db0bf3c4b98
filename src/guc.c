/*-------------------------------------------------------------------------
 *
 * guc.c
 *		The extension's settings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"
#include "utils/varlena.h"

#include "guc.h"

char	   *s64_guc_server = NULL;
int			s64_guc_max_response_size = 16 * 1024;
int			s64_guc_log_min_duration = -1;
int			s64_guc_max_in_flight = 1000;
int			s64_guc_cache_ttl = 86400;
int			s64_guc_retention = 7 * 86400;
int			s64_guc_result_retention = 400 * 86400;
char	   *s64_guc_databases = NULL;
int			s64_guc_idle_timeout = 300;
int			s64_guc_write_timeout = 20000;
int			s64_guc_on_promotion = ON_PROMOTION_PAUSE;

int			s64_guc_route = ROUTE_AUTO;

int			s64_guc_on_uncertain = ON_UNCERTAIN_HOLD;
int			s64_guc_resubmit_after = 300;

static const struct config_enum_entry on_uncertain_options[] = {
	{"hold", ON_UNCERTAIN_HOLD, false},
	{"resubmit", ON_UNCERTAIN_RESUBMIT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry routes[] = {
	{"auto", ROUTE_AUTO, false},
	{"direct", ROUTE_DIRECT, false},
	{"worker", ROUTE_WORKER, false},
	{NULL, 0, false}
};

static const struct config_enum_entry promotions[] = {
	{"pause", ON_PROMOTION_PAUSE, false},
	{"continue", ON_PROMOTION_CONTINUE, false},
	{NULL, 0, false}
};

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;
	bool		valid = SplitIdentifierString(copy, ',', &names);

	if (!valid)
		GUC_check_errdetail("List syntax is invalid.");
	list_free(names);
	pfree(copy);
	return valid;
}

/* Of the background processes */
static void
define_process_settings(void)
{
	DefineCustomIntVariable("sixtyfour.max_in_flight",
							"Sets how many requests a worker makes at the same time.",
							"Tasks that the service works on are not limited by it.",
							&s64_guc_max_in_flight,
							1000, 1, 100000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	DefineCustomStringVariable("sixtyfour.databases",
							   "Sets the databases whose jobs are worked on.",
							   "A list of names, or * for every database that has the extension.",
							   &s64_guc_databases,
							   "*",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_databases, NULL, NULL);

	DefineCustomIntVariable("sixtyfour.idle_timeout",
							"Sets the time after which a background process that has nothing to do ends.",
							"It is started again when there is work. Zero keeps it.",
							&s64_guc_idle_timeout,
							300, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("sixtyfour.write_timeout",
							"Sets the time that triggers and constraints may take when an answer is written into its row.",
							"It is that of one statement, of one row or of many.",
							&s64_guc_write_timeout,
							20000, 100, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

static void
define_route(void)
{
	DefineCustomEnumVariable("sixtyfour.route",
							 "Sets who makes synchronous calls.",
							 "\"auto\" is the worker, and the session where there is none; the others are for tests and diagnosis.",
							 &s64_guc_route,
							 ROUTE_AUTO, routes,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
}

static void
define_on_promotion(void)
{
	DefineCustomEnumVariable("sixtyfour.on_promotion",
							 "Sets what the worker does after a promotion or a recovery from a backup.",
							 "\"pause\" submits nothing before sixtyfour_resume(). \"continue\" is for synchronous standbys, which miss no commit.",
							 &s64_guc_on_promotion,
							 ON_PROMOTION_PAUSE, promotions,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
}

static void
define_retention(void)
{
	DefineCustomIntVariable("sixtyfour.retention",
							"Sets how long jobs are kept after they have finished.",
							"-1 keeps them for ever.",
							&s64_guc_retention,
							7 * 86400, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("sixtyfour.result_retention",
							"Sets how long answers, and the calls that brought them, are kept.",
							"-1 keeps them for ever.",
							&s64_guc_result_retention,
							400 * 86400, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
}

/* As they may make others pay twice, these are not for everybody. */
static void
define_uncertain(void)
{
	DefineCustomEnumVariable("sixtyfour.on_uncertain",
							 "Sets what becomes of calls that may have been billed without an answer.",
							 "hold leaves them to a person; resubmit submits them again, once, which may pay twice.",
							 &s64_guc_on_uncertain,
							 ON_UNCERTAIN_HOLD, on_uncertain_options,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("sixtyfour.resubmit_after",
							"Sets the time after which sixtyfour.on_uncertain = resubmit submits again.",
							"Counted from the submission; a webhook may still come meanwhile.",
							&s64_guc_resubmit_after,
							300, 1, INT_MAX / 1000,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
}

void
s64_guc_init(void)
{
	DefineCustomStringVariable("sixtyfour.server",
							   "Sets the foreign server whose account is used.",
							   NULL,
							   &s64_guc_server,
							   "sixtyfour",
							   PGC_USERSET, 0,
							   NULL, NULL, NULL);

	/* jsonb, like every datum, must stay well below 1 GB. */
	DefineCustomIntVariable("sixtyfour.max_response_size",
							"Sets the largest answer that is accepted from the service.",
							NULL,
							&s64_guc_max_response_size,
							16 * 1024, 1, 512 * 1024,
							PGC_USERSET, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("sixtyfour.log_min_duration",
							"Sets the minimum time above which requests to the service are logged.",
							"Zero logs all requests. -1 turns this feature off.",
							&s64_guc_log_min_duration,
							-1, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("sixtyfour.cache_ttl",
							"Sets the age up to which a stored result answers the same question.",
							"Zero asks the service every time.",
							&s64_guc_cache_ttl,
							86400, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_S,
							NULL, NULL, NULL);

	define_route();
	define_process_settings();
	define_on_promotion();
	define_retention();
	define_uncertain();
	MarkGUCPrefixReserved("sixtyfour");
}
