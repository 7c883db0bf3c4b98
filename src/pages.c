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

static JsonbValue *
member(Jsonb *object, const char *name, JsonbValue *v)
{
	return getKeyJsonValueFromContainer(&object->root, name, strlen(name), v);
}

/* Is this field one of several of which only one may be given? */
static bool
is_subject(const Endpoint *endpoint, const JsonbValue *key)
{
	const char *words = endpoint->one_of;
	const char *word = words;

	while (*word)
	{
		size_t		len = strcspn(word, " ");

		if (len == (size_t) key->val.string.len &&
			memcmp(word, key->val.string.val, len) == 0)
			return true;
		word += len;
		word += *word == ' ';
	}
	return false;
}

/*
 * The body for the page behind a cursor.  Where the cursor is a subject, it
 * stands in the place of the one that was given.
 */
static Jsonb *
make_next(const Paging *paging, const JsonbValue *cursor)
{
	JsonbInState state = {0};
	JsonbIterator *it = JsonbIteratorInit(&paging->body->root);
	JsonbValue	name = {.type = jbvString,.val.string = {.len = 6,.val = "cursor"}};
	JsonbValue	key;
	JsonbValue	v;
	JsonbIteratorToken token;
	bool		alone = is_subject(paging->endpoint, &name);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = v;
		else if (token == WJB_VALUE && !(alone && is_subject(paging->endpoint, &key)) &&
				 !(key.val.string.len == 6 && memcmp(key.val.string.val, "cursor", 6) == 0))
		{
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &v);
		}
	}
	s64_json_push_key(&state, "cursor");
	v = *cursor;
	pushJsonbValue(&state, WJB_VALUE, &v);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* Has this cursor been followed?  If not, it is now. */
static bool
was_followed(Paging *paging, const JsonbValue *cursor)
{
	char	   *text = pnstrdup(cursor->val.string.val, cursor->val.string.len);
	ListCell   *lc;

	foreach(lc, paging->cursors)
	{
		if (strcmp(lfirst(lc), text) == 0)
			return true;
	}
	paging->cursors = lappend(paging->cursors, text);
	return false;
}

/* Add a page's rows. */
static void
add_rows(Paging *paging, Jsonb *page, const Rowset *rowset)
{
	JsonbValue	v;
	int			n;

	if (!JB_ROOT_IS_OBJECT(page) || member(page, "results", &v) == NULL ||
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

/* The body for the page behind this one; NULL if it is the last. */
static Jsonb *
get_next(Paging *paging, Jsonb *page)
{
	JsonbValue	more;
	JsonbValue	cursor;

	if (paging->left == 0 || member(page, "next_cursor", &cursor) == NULL ||
		cursor.type != jbvString || cursor.val.string.len == 0)
		return NULL;
	if (member(page, "has_more", &more) != NULL && more.type == jbvBool && !more.val.boolean)
		return NULL;
	if (was_followed(paging, &cursor))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: the service names the same next page again", paging->endpoint->name),
				 errhint("Less \"max_results\" may do.")));
	if (paging->empty == EMPTY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: %d pages in a row have no rows, and name another",
						paging->endpoint->name, EMPTY_MAX)));
	return make_next(paging, &cursor);
}

/* How many rows are wanted; -1 if that is not said */
static int64
read_wanted(Jsonb *body)
{
	JsonbValue	v;

	if (member(body, "max_results", &v) == NULL)
		return -1;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(v.val.numeric)));
}

/* sixtyfour_filter_search(...), sixtyfour_search_query(...) → SETOF jsonb */
Datum
sixtyfour_pages(PG_FUNCTION_ARGS)
{
	const Operation *operation = s64_operation_get(fcinfo);
	Rowset		rowset = s64_rowset_begin(fcinfo);
	Paging		paging = {0};
	Jsonb	   *body;

	paging.endpoint = operation->endpoint;
	paging.account = s64_account_get(s64_guc_server, GetUserId());
	body = paging.body = s64_request_normalize(paging.endpoint,
											   s64_operation_body(fcinfo, operation));
	paging.left = read_wanted(body);
	while (body != NULL)
	{
		Jsonb	   *page;

		CHECK_FOR_INTERRUPTS();
		page = get_page(&paging, body);
		add_rows(&paging, page, &rowset);
		body = get_next(&paging, page);
	}
	return (Datum) 0;
}
