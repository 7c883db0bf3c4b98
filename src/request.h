/*-------------------------------------------------------------------------
 *
 * request.h
 *		What to say to the service.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_REQUEST_H
#define S64_REQUEST_H

#include "utils/jsonb.h"

#include "account.h"
#include "endpoint.h"
#include "http.h"
#include "price.h"

/* A request, checked and ready to be sent */
typedef struct ApiRequest
{
	const char *what;			/* its name in messages */
	const char *method;
	char	   *url;			/* whole, ASCII */
	char	   *body;			/* UTF-8, or NULL */
	AnswerShape answer;
	bool		paid;			/* may cost money: send once, count its price */
	int			price;			/* that is stated: cents, or PRICE_UNKNOWN */
	PriceKind	kind;			/* by which its price is learned */
	char	   *idempotency_key;	/* or NULL: to the service each is a new one */
	bool		known_again;	/* sent twice it is accepted and billed once */
	bool		few_at_once;	/* a 429 says that too many of its kind are running */
} ApiRequest;

/*
 * A request body as it is sent: without members that are null, which to the
 * service means the same as not given; with the mode that goes without saying
 * to people, but not to the service.  Raises 22023 if the service would not take
 * it.
 */
extern Jsonb *s64_request_normalize(const Endpoint *endpoint, Jsonb *body);

/* Equal questions, as normalized bodies, have equal fingerprints. */
extern pg_uuid_t s64_request_fingerprint(const Endpoint *endpoint, Jsonb *body);

/* Can this body be sent?  Not if it has characters that UTF-8 has not. */
extern bool s64_request_is_sendable(Jsonb *body);

/*
 * What the request with this (normalized) body is expected to cost: cents, or
 * PRICE_UNKNOWN
 */
extern int	s64_request_price(const Endpoint *endpoint, Jsonb *body);

/*
 * What a question with this (normalized) body is to count against the
 * account's budget before its price is known, in cents: what such questions
 * turned out to cost, or the stated price if that is more; and where nothing is
 * known what the account assumes.
 */
extern int	s64_request_expected_cents(const Account *account,
									   const Endpoint *endpoint, Jsonb *body);

/* The same, by the stated price and the kind */
extern int	s64_request_cents(const Account *account, int price,
							  const PriceKind *kind);

/*
 * A request to an endpoint of the table.  arguments is an object of its fields,
 * those in the path included; members that are null are left out.  Raises 22023
 * if the service would not take it.  The result, like all of this file, is
 * palloc'd.
 */
extern ApiRequest *s64_request_make(const Account *account,
									const Endpoint *endpoint, Jsonb *arguments);

/*
 * The same where the service has it elsewhere; NULL if there is no such place.
 */
extern ApiRequest *s64_request_make_other(const Account *account,
										  const Endpoint *endpoint,
										  Jsonb *arguments);

/*
 * A request that submits n jobs of an endpoint (1 to 100 where it has a bulk
 * path, else 1) with these normalized bodies, all alike but for the subject:
 * to the bulk path, the asynchronous path, or the only path there is.  uuid is
 * the call's; the account's webhook is told it, unless the bodies name another.
 */
extern ApiRequest *s64_request_make_submission(const Account *account,
											   const Endpoint *endpoint,
											   Jsonb **bodies, int n,
											   const pg_uuid_t *uuid);

/* A request that asks how a task is. */
extern ApiRequest *s64_request_make_poll(const Account *account,
										 const Follow *follow,
										 const char *task_id);

/* An object with one text, as arguments for s64_request_make() */
extern Jsonb *s64_request_argument(const char *name, const char *value);

/* The subject of a body, palloc'd; NULL if it has none */
extern Jsonb *s64_request_subject(const Endpoint *endpoint, Jsonb *body);

/*
 * Whom or what a body is about, as an object: its subject, or {name: subject}
 * for the address of a profile; or as the payload of a run, which may be an
 * array of objects; NULL if it is neither
 */
extern Jsonb *s64_request_about(const Endpoint *endpoint, Jsonb *body);

/*
 * The body without its subject: equal texts mean that two jobs can travel in
 * one bulk request.
 */
extern Jsonb *s64_request_manner(const Endpoint *endpoint, Jsonb *body);

/*
 * A request to any path of the service.  query (or NULL) is an object of
 * texts, numbers, booleans and arrays of them; body (or NULL) any JSON.
 * Raises 22023 for what is not a method, path or query.
 */
extern ApiRequest *s64_request_make_raw(const Account *account,
										const char *method, const char *path,
										Jsonb *query, Jsonb *body);

/* The same as a transfer of at most timeout ms with the account's settings */
extern HttpRequest s64_request_transfer(const ApiRequest *request,
										const Account *account, int timeout);

#endif							/* S64_REQUEST_H */
