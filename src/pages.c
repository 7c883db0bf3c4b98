/*-------------------------------------------------------------------------
 *
 * pages.c
 *		The SQL functions whose answers come in pages.
 *
 * Each page is a request of its own, which may cost; so each goes through the
 * ledger as any other does, and who asks again gets the pages that were paid for
 * from there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "account.h"
#include "compat.h"
#include "guc.h"
#include "inquiry.h"
#include "json.h"
#include "operation.h"
#include "rowset.h"
#include "session.h"
#include "unasked.h"

#define EMPTY_MAX 10			/* pages without a row, in a row */

S64_FUNCTION(sixtyfour_pages);

/* What is asked, page by page */
typedef struct Paging
{
	const Account *account;
	const Endpoint *endpoint;
	Jsonb	   *body;			/* of the first page */
	List	   *cursors;		/* that were followed */
	int			page;			/* that is asked for, from 1 */
	int			empty;			/* pages, the last ones */
	int64		left;			/* rows that are still wanted; -1: all */
} Paging;

static Jsonb *
get_page(const Paging *paging, Jsonb *body)
{
	Jsonb	   *answer;

	if (s64_guc_route != ROUTE_DIRECT &&
		s64_inquiry_make(paging->account, paging->endpoint, body, NULL, &answer))
		return answer;
	if (s64_guc_route == ROUTE_WORKER)
		s64_unasked_no_worker();
	s64_unasked_check(paging->account, paging->endpoint, body);
	return s64_session_exchange(paging->account,
								s64_request_make(paging->account, paging->endpoint, body));
}

/* What an error must say of a page: which one, and that its cursor may be old. */
static void
add_context(void *arg)
{
	const Paging *paging = arg;

	errcontext("Sixtyfour %s, page %d", paging->endpoint->name, paging->page);
	if (paging->page > 1 && geterrcode() == ERRCODE_INVALID_PARAMETER_VALUE)
		errhint("The cursor may have expired. Pages before it were answered from the ledger if they were asked for earlier; with \"sixtyfour.cache_ttl\" = 0 all are asked for anew, which may cost again.");
}

/* Does the next page depend on it?  The cursor stands for all the rest. */
static bool
is_kept(const JsonbValue *key)
{
	static const char *const kept[] = {"mode", "page_size", "max_results"};

	for (size_t i = 0; i < lengthof(kept); i++)
	{
		if ((size_t) key->val.string.len == strlen(kept[i]) &&
			memcmp(key->val.string.val, kept[i], key->val.string.len) == 0)
			return true;
	}
	return false;
}

/* The body for the page behind a cursor, which goes without what was asked */
static Jsonb *
make_next(const Paging *paging, char *cursor)
{
	JsonbInState state = {0};
	JsonbIterator *it = JsonbIteratorInit(&paging->body->root);
	JsonbValue	key;
	JsonbValue	v;
	JsonbIteratorToken token;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = v;
		else if (token == WJB_VALUE && is_kept(&key))
		{
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &v);
		}
	}
	s64_json_push_key(&state, "cursor");
	s64_json_push_text(&state, cursor);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* Has this cursor been followed?  If not, it is now. */
static bool
was_followed(Paging *paging, char *cursor)
{
	ListCell   *lc;

	foreach(lc, paging->cursors)
	{
		if (strcmp(lfirst(lc), cursor) == 0)
			return true;
	}
	paging->cursors = lappend(paging->cursors, cursor);
	return false;
}

/* Add a page's rows. */
static void
add_rows(Paging *paging, Jsonb *page, const Rowset *rowset)
{
	JsonbValue	v;
	int			n;

	if (s64_json_member(&page->root, "results", &v) == NULL ||
		v.type != jbvBinary || !JsonContainerIsArray(v.val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: the service's answer has no array \"results\"",
						paging->endpoint->name)));
	n = JsonContainerSize(v.val.binary.data);
	paging->empty = n == 0 ? paging->empty + 1 : 0;
	for (int i = 0; i < n && paging->left != 0; i++)
	{
		s64_rowset_add(rowset,
					   JsonbValueToJsonb(getIthJsonbValueFromContainer(v.val.binary.data, i)));
		if (paging->left > 0)
			paging->left--;
	}
}

/* What a page says: 1 that there is more, 0 that there is not, -1 nothing */
static int
read_more(Jsonb *page)
{
	JsonbValue	v;

	return s64_json_member(&page->root, "has_more", &v) != NULL && v.type == jbvBool ? v.val.boolean : -1;
}

/* The body for the page behind this one; NULL if it is the last. */
static Jsonb *
get_next(Paging *paging, Jsonb *page)
{
	int			more = read_more(page);
	char	   *cursor = s64_json_name(&page->root, "next_cursor");

	if (paging->left == 0 || more == 0)
		return NULL;
	if (cursor == NULL)
	{
		if (more > 0)
			ereport(WARNING,
					(errmsg("%s: the service has more rows, but names no next page",
							paging->endpoint->name)));
		return NULL;
	}
	if (was_followed(paging, cursor))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: the service names the same next page again", paging->endpoint->name),
				 errhint("Less \"max_results\" may do.")));
	if (paging->empty == EMPTY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: %d pages in a row have no rows, and name another",
						paging->endpoint->name, EMPTY_MAX)));
	return make_next(paging, cursor);
}

/* How many rows are wanted; -1 if that is not said, or more than there can be */
static int64
read_wanted(Jsonb *body)
{
	JsonbValue	v;
	double		wanted;

	if (s64_json_member(&body->root, "max_results", &v) == NULL)
		return -1;
	wanted = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
												NumericGetDatum(v.val.numeric)));
	return wanted < 1e15 ? (int64) wanted : -1;
}

/* Add the rows of one page; the body for the next one, or NULL. */
static Jsonb *
turn_page(Paging *paging, Jsonb *body, const Rowset *rowset)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "sixtyfour page",
												  ALLOCSET_DEFAULT_SIZES);
	Jsonb	   *page;

	MemoryContextSwitchTo(context);
	paging->page++;
	page = get_page(paging, body);
	add_rows(paging, page, rowset);
	MemoryContextSwitchTo(caller);
	/* what it leaves behind is needed for the next */
	body = get_next(paging, page);
	MemoryContextDelete(context);
	return body;
}

/* sixtyfour_filter_search(...), sixtyfour_search_query(...) → SETOF jsonb */
Datum
sixtyfour_pages(PG_FUNCTION_ARGS)
{
	const Operation *operation = s64_operation_get(fcinfo);
	Rowset		rowset = s64_rowset_begin(fcinfo);
	Paging		paging = {0};
	ErrorContextCallback callback = {error_context_stack, add_context, &paging};
	Jsonb	   *body;

	paging.endpoint = operation->endpoint;
	paging.account = s64_account_get(s64_guc_server, GetUserId());
	body = paging.body = s64_request_normalize(paging.endpoint,
											   s64_operation_body(fcinfo, operation));
	paging.left = read_wanted(body);
	error_context_stack = &callback;
	while (body != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		body = turn_page(&paging, body, &rowset);
	}
	error_context_stack = callback.previous;
	return (Datum) 0;
}
