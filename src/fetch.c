/*-------------------------------------------------------------------------
 *
 * fetch.c
 *		The rows that a finished search or run of a workflow has found.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "csv.h"
#include "download.h"
#include "fetch.h"
#include "link.h"
#include "session.h"

#define TRIES 3					/* addresses asked for, while each has expired */

/* Ask where the rows are. */
static Link
get_link(const Account *account, RowsPlace place, const char *name)
{
	ApiRequest *request = s64_link_request(account, place, name);
	Jsonb	   *answer = s64_session_exchange(account, request);
	Link		link;
	const char *why;

	if (!s64_link_read(place, answer, &link, &why))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: the service's answer cannot be used", request->what),
				 errdetail_internal("%s", why)));
	return link;
}

/* Add the rows of the file that is being downloaded. */
static void
add_records(Download *download, const Rowset *rowset)
{
	CsvReader  *reader = s64_csv_open(s64_download_read, download, PG_UTF8);
	char	  **fields;

	while (s64_csv_next(reader, &fields))
		s64_rowset_add(rowset, s64_csv_row(reader));
	s64_csv_close(reader);
}

/* Add the rows behind an address; false if it has expired, and none was. */
static bool
add_file(const Account *account, const char *url, const Rowset *rowset)
{
	Download   *download = s64_download_start(account, url);
	bool		open = s64_download_open(download);

	if (open)
		add_records(download, rowset);
	s64_download_finish(download);
	return open;
}

/* Add what a link leads to; false if it has expired. */
static bool
add_link(const Account *account, const Link *link, const char *what,
		 const Rowset *rowset)
{
	if (link->rows != NULL)
		s64_rowset_add_elements(rowset, link->rows, what);
	return link->url == NULL || add_file(account, link->url, rowset);
}

static void
report_expired(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("could not download the results: the addresses that the service gives have expired already"),
			 errdetail("%d of them were tried for \"%s\".", TRIES, name),
			 errhint("Nothing is lost: try again later.")));
}

void
s64_fetch_rows(const Account *account, RowsPlace place, const char *name,
			   const Rowset *rowset)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "sixtyfour rows",
												  ALLOCSET_DEFAULT_SIZES);
	bool		added = false;

	MemoryContextSwitchTo(context);
	for (int try = 0; try < TRIES && !added; try++)
	{
		Link		link = get_link(account, place, name);

		added = add_link(account, &link, "workflow_results", rowset);
	}
	if (!added)
		report_expired(name);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

void
s64_fetch_answer(const Account *account, RowsPlace place, Jsonb *answer,
				 const Rowset *rowset)
{
	char	   *name = s64_link_name(place, answer);

	if (name != NULL)
		s64_fetch_rows(account, place, name, rowset);
}
