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

#include "guc.h"

char	   *s64_guc_server = NULL;
int			s64_guc_max_response_size = 16 * 1024;
int			s64_guc_log_min_duration = -1;

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

	MarkGUCPrefixReserved("sixtyfour");
}
