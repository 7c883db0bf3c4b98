/*-------------------------------------------------------------------------
 *
 * unasked.c
 *		What a session must know before it asks by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ledger.h"
#include "report.h"
#include "request.h"
#include "unasked.h"

void
s64_unasked_check(const Account *account, const Endpoint *endpoint, Jsonb *body)
{
	pg_uuid_t	fingerprint = s64_request_fingerprint(endpoint, body);
	bool		uncertain;
	int64		call = s64_ledger_open_call(&account->id, &fingerprint, &uncertain);

	if (call == 0)
		return;
	if (uncertain)
		s64_report_uncertain(call, NULL);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("call " INT64_FORMAT " asks the same, and has no answer yet", call),
			 errhint("Ask again when it has one; sixtyfour.workers shows who waits for it.")));
}

void
s64_unasked_no_worker(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("there is no worker to ask"),
			 errhint("See sixtyfour.workers, or reset \"sixtyfour.route\".")));
}
