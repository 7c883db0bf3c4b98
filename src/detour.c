/*-------------------------------------------------------------------------
 *
 * detour.c
 *		Operations that the service may have at another path.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "detour.h"
#include "report.h"
#include "request.h"
#include "session.h"
#include "shmem.h"

#define MAX_KNOWN 256			/* accounts of all databases; the oldest makes room */

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

typedef struct Places
{
	int			next;			/* of known[], to be overwritten */
	Known		known[MAX_KNOWN];
} Places;

static Places own;				/* where the library is not preloaded */
static Places *shared = NULL;
static LWLock *shared_lock = NULL;

void
s64_detour_init(void)
{
	static const ShmemPart part = {
		"sixtyfour paths", sizeof(Places), NULL, (void **) &shared, &shared_lock
	};

	s64_shmem_add(&part);
}

/* With the lock held, if there is one; NULL if nothing is known */
static Known *
find_known(Places *places, const AccountId *account)
{
	for (int i = 0; i < MAX_KNOWN; i++)
	{
		if (places->known[i].place != PLACE_UNKNOWN &&
			memcmp(&places->known[i].account, account, sizeof(AccountId)) == 0)
			return &places->known[i];
	}
	return NULL;
}

static Place
recall(const AccountId *account)
{
	const Known *known;
	Place		place;

	if (shared != NULL)
		LWLockAcquire(shared_lock, LW_SHARED);
	known = find_known(shared ? shared : &own, account);
	place = known ? known->place : PLACE_UNKNOWN;
	if (shared != NULL)
		LWLockRelease(shared_lock);
	return place;
}

static void
remember(const AccountId *account, Place place)
{
	Places	   *places = shared ? shared : &own;
	Known	   *known;

	if (shared != NULL)
		LWLockAcquire(shared_lock, LW_EXCLUSIVE);
	known = find_known(places, account);
	if (known == NULL)
	{
		known = &places->known[places->next];
		places->next = (places->next + 1) % MAX_KNOWN;
	}
	known->account = *account;
	known->place = place;
	if (shared != NULL)
		LWLockRelease(shared_lock);
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
	Place		place;
	ApiRequest *request;
	Outcome    *first;
	Outcome    *second;

	if (other == NULL)
		return s64_session_exchange(account, specified);
	place = recall(&account->id);
	request = place == PLACE_OTHER ? other : specified;
	first = s64_session_try(account, request);
	/* where the path is known, 404 is about a thing; but a service may move */
	if (!is_unknown(first) || (place != PLACE_UNKNOWN && first->status == 404))
	{
		if (first->kind == OUTCOME_ANSWER && place == PLACE_UNKNOWN)
			remember(&account->id, PLACE_SPECIFIED);
		return finish(first, request);
	}

	second = s64_session_try(account, request == other ? specified : other);
	if (second->kind == OUTCOME_ANSWER)
		remember(&account->id, request == other ? PLACE_SPECIFIED : PLACE_OTHER);
	/* neither: a thing that the first does not know, if it knows the method */
	if (is_unknown(second) && first->status == 404)
		return finish(first, request);
	return finish(second, request == other ? specified : other);
}
