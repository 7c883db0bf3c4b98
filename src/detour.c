/*-------------------------------------------------------------------------
 *
 * detour.c
 *		Operations that the service may have at another path.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"

#include "detour.h"
#include "report.h"
#include "request.h"
#include "session.h"

typedef enum Place
{
	PLACE_UNKNOWN,
	PLACE_SPECIFIED,
	PLACE_OTHER
} Place;

/* Where the service of an account has them */
typedef struct Known
{
	AccountId	account;
	Place		place;
} Known;

static HTAB *known_places = NULL;

static Known *
get_known(const AccountId *account)
{
	Known	   *known;
	bool		found;

	if (known_places == NULL)
	{
		HASHCTL		info = {0};

		info.keysize = sizeof(AccountId);
		info.entrysize = sizeof(Known);
		known_places = hash_create("sixtyfour paths", 8, &info, HASH_ELEM | HASH_BLOBS);
	}
	known = hash_search(known_places, account, HASH_ENTER, &found);
	if (!found)
		known->place = PLACE_UNKNOWN;
	return known;
}

/* Is it the path that the service does not know, or a thing that it names? */
static bool
is_unknown(const Outcome *outcome)
{
	return outcome->status == 404 || outcome->status == 405;
}

static Jsonb *
finish(const Outcome *outcome, const ApiRequest *request)
{
	if (outcome->kind != OUTCOME_ANSWER)
		s64_report_outcome(outcome, request->what);
	return outcome->answer;
}

Jsonb *
s64_detour_exchange(const Account *account, const Endpoint *endpoint, Jsonb *arguments)
{
	ApiRequest *specified = s64_request_make(account, endpoint, arguments);
	ApiRequest *other = s64_request_make_other(account, endpoint, arguments);
	Known	   *known;
	Outcome    *first;
	Outcome    *second;

	if (other == NULL)
		return s64_session_exchange(account, specified);
	known = get_known(&account->id);
	if (known->place != PLACE_UNKNOWN)
		return s64_session_exchange(account, known->place == PLACE_OTHER ? other : specified);

	first = s64_session_try(account, specified);
	if (!is_unknown(first))
	{
		if (first->kind == OUTCOME_ANSWER)
			known->place = PLACE_SPECIFIED;
		return finish(first, specified);
	}
	second = s64_session_try(account, other);
	if (second->kind == OUTCOME_ANSWER)
		known->place = PLACE_OTHER;
	/* neither: a thing that the first does not know, if it knows the method */
	if (is_unknown(second) && first->status == 404)
		return finish(first, specified);
	return finish(second, other);
}
