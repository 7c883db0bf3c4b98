/*-------------------------------------------------------------------------
 *
 * request.c
 *		What to say to the service.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "check.h"
#include "compat.h"
#include "digest.h"
#include "encoding.h"
#include "guc.h"
#include "json.h"
#include "request.h"

#define ASSUMED_PRICE	500		/* cents of a request whose price nobody knows */
#define PATH_MAX_LENGTH	8192

static const char *const methods[] = {"GET", "POST", "PATCH", "PUT", "DELETE"};

/* The object without its null members: to the service both mean "not given" */
static Jsonb *
strip_nulls(Jsonb *object)
{
	JsonbInState state = {0};
	JsonbIterator *it;
	JsonbValue	key;
	JsonbValue	v;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(object))
		return object;
	it = JsonbIteratorInit(&object->root);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = v;
		else if (token == WJB_VALUE && v.type != jbvNull)
		{
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &v);
		}
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* Push the members of an object but one. */
static void
push_members_but(JsonbInState *state, Jsonb *object, const char *but)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbValue	key;
	JsonbValue	v;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = v;
		else if (token == WJB_VALUE &&
				 ((size_t) key.val.string.len != strlen(but) ||
				  memcmp(key.val.string.val, but, strlen(but)) != 0))
		{
			pushJsonbValue(state, WJB_KEY, &key);
			pushJsonbValue(state, WJB_VALUE, &v);
		}
	}
}

/* The object with one text more, unless it has a member of that name */
static Jsonb *
add_text(Jsonb *object, const char *name, const char *text)
{
	JsonbInState state = {0};
	JsonbValue	v;

	if (getKeyJsonValueFromContainer(&object->root, name, strlen(name), &v) != NULL)
		return object;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_members_but(&state, object, name);
	s64_json_push_key(&state, name);
	s64_json_push_text(&state, text);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

Jsonb *
s64_request_normalize(const Endpoint *endpoint, Jsonb *body)
{
	JsonbValue	v;

	body = strip_nulls(body);
	s64_check_body(endpoint, body);
	if (endpoint->people_field != NULL &&
		getKeyJsonValueFromContainer(&body->root, endpoint->people_field,
									 strlen(endpoint->people_field), &v) != NULL)
		body = add_text(body, "mode", "people");
	return body;
}

static bool
has_text(Jsonb *object, const char *key, const char *text)
{
	JsonbValue	v;

	return JB_ROOT_IS_OBJECT(object) &&
		getKeyJsonValueFromContainer(&object->root, key, strlen(key), &v) &&
		v.type == jbvString && (size_t) v.val.string.len == strlen(text) &&
		memcmp(v.val.string.val, text, v.val.string.len) == 0;
}

pg_uuid_t
s64_request_fingerprint(const Endpoint *endpoint, Jsonb *body)
{
	char	   *text = JsonbToCString(NULL, &body->root, VARSIZE(body));
	pg_uuid_t	fingerprint = s64_digest(endpoint->name, text);

	pfree(text);
	return fingerprint;
}

int
s64_request_price(const Endpoint *endpoint, Jsonb *body)
{
	return has_text(body, "mode", "PERSONAL") ? endpoint->personal_price
		: endpoint->price;
}

int
s64_request_cents(const Account *account, int price, const PriceKind *kind)
{
	int			learned = s64_price_learned(&account->id, kind);

	/* an average may be below what is stated, and a budget is a promise */
	if (Max(price, learned) >= 0)
		return Max(price, learned);
	return account->assumed_price >= 0 ? account->assumed_price : ASSUMED_PRICE;
}

int
s64_request_expected_cents(const Account *account, const Endpoint *endpoint,
						   Jsonb *body)
{
	PriceKind	kind = s64_price_kind(endpoint, body);

	return s64_request_cents(account, s64_request_price(endpoint, body), &kind);
}

static char *
body_text(Jsonb *body)
{
	return s64_encoding_to_utf8(JsonbToCString(NULL, &body->root, VARSIZE(body)));
}

bool
s64_request_is_sendable(Jsonb *body)
{
	return GetDatabaseEncoding() == PG_UTF8 ||
		s64_encoding_has_utf8(JsonbToCString(NULL, &body->root, VARSIZE(body)));
}

static char *
uuid_text(const pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

/* A key for a request that is no call of the ledger's */
static char *
random_uuid(void)
{
	return uuid_text(DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0)));
}

/* ---- the path ---- */

/* A scalar member as a text in UTF-8; NULL if there is none */
static char *
find_parameter(const char *name, void *arg)
{
	const Jsonb *arguments = arg;
	JsonbValue	v;

	if (getKeyJsonValueFromContainer((JsonbContainer *) &arguments->root, name,
									 strlen(name), &v) == NULL)
		return NULL;
	switch (v.type)
	{
		case jbvString:
			return s64_encoding_to_utf8(pnstrdup(v.val.string.val, v.val.string.len));
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(v.val.numeric)));
		case jbvBool:
			return pstrdup(v.val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

/* What of the arguments is not in the path */
static Jsonb *
make_body(const char *path, Jsonb *arguments)
{
	JsonbInState state = {0};
	JsonbIterator *it;
	JsonbValue	key;
	JsonbValue	v;
	JsonbIteratorToken token;

	if (strchr(path, '{') == NULL)
		return arguments;
	it = JsonbIteratorInit(&arguments->root);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = v;
		else if (token == WJB_VALUE &&
				 !s64_endpoint_has_parameter(path, pnstrdup(key.val.string.val,
															key.val.string.len)))
		{
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &v);
		}
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* Put the arguments where they belong: into the URL and the body. */
static void
place_arguments(ApiRequest *request, const Account *account,
				const Endpoint *endpoint, const char *path, Jsonb *arguments)
{
	request->url = s64_endpoint_url(account->base_url, path, find_parameter, arguments);
	if (s64_endpoint_has_body(endpoint, path))
		request->body = body_text(make_body(path, arguments));
}

static ApiRequest *
make_at(const Account *account, const Endpoint *endpoint, Jsonb *arguments,
		const char *method, const char *path)
{
	ApiRequest *request = palloc0(sizeof(ApiRequest));

	request->what = endpoint->name;
	request->method = method;
	request->answer = endpoint->answer;
	request->price = s64_request_price(endpoint, arguments);
	request->paid = request->price != PRICE_FREE;
	request->kind = s64_price_kind(endpoint, arguments);
	request->few_at_once = endpoint->at_once > 0;
	if (s64_endpoint_is_idempotent(method, path))
		request->idempotency_key = random_uuid();
	if (endpoint->own_id != NULL)
		arguments = add_text(arguments, endpoint->own_id, random_uuid());
	request->known_again = request->idempotency_key != NULL || endpoint->own_id != NULL;
	place_arguments(request, account, endpoint, path, arguments);
	return request;
}

ApiRequest *
s64_request_make(const Account *account, const Endpoint *endpoint, Jsonb *arguments)
{
	return make_at(account, endpoint, s64_request_normalize(endpoint, arguments),
				   endpoint->method, endpoint->path);
}

ApiRequest *
s64_request_make_other(const Account *account, const Endpoint *endpoint,
					   Jsonb *arguments)
{
	if (endpoint->other_path == NULL)
		return NULL;
	arguments = s64_request_normalize(endpoint, arguments);
	if (endpoint->other_needs != NULL)
		arguments = add_text(arguments, endpoint->other_needs, "");
	return make_at(account, endpoint, arguments, endpoint->other_method,
				   endpoint->other_path);
}

Jsonb *
s64_request_argument(const char *name, const char *value)
{
	JsonbInState state = {0};

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	s64_json_push_key(&state, name);
	s64_json_push_text(&state, value);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* ---- submissions ---- */

Jsonb *
s64_request_subject(const Endpoint *endpoint, Jsonb *body)
{
	const char *name = endpoint->fields[0].name;
	JsonbValue	v;

	if (name == NULL || !JB_ROOT_IS_OBJECT(body) ||
		getKeyJsonValueFromContainer(&body->root, name, strlen(name), &v) == NULL)
		return NULL;
	return JsonbValueToJsonb(&v);
}

Jsonb *
s64_request_about(const Endpoint *endpoint, Jsonb *body)
{
	const Field *field = &endpoint->fields[0];
	Jsonb	   *subject = s64_request_subject(endpoint, body);
	JsonbValue	v;

	if (subject == NULL || JB_ROOT_IS_OBJECT(subject) || field->type == FIELD_PAYLOAD)
		return subject;
	if (field->type != FIELD_PROFILE || !JB_ROOT_IS_SCALAR(subject) ||
		!JsonbExtractScalar(&subject->root, &v) || v.type != jbvString)
		return NULL;
	return s64_request_argument(field->name, pnstrdup(v.val.string.val, v.val.string.len));
}

Jsonb *
s64_request_manner(const Endpoint *endpoint, Jsonb *body)
{
	JsonbInState state = {0};

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_members_but(&state, body, endpoint->fields[0].name);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* {"leads": [subject, ...]} and what the bodies have in common */
static Jsonb *
make_bulk_body(const Endpoint *endpoint, Jsonb **bodies, int n)
{
	JsonbInState state = {0};

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_members_but(&state, bodies[0], endpoint->fields[0].name);
	s64_json_push_key(&state, "leads");
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
	{
		Jsonb	   *subject = s64_request_subject(endpoint, bodies[i]);
		JsonbValue	v;

		v.type = jbvBinary;
		v.val.binary.data = &subject->root;
		v.val.binary.len = VARSIZE(subject) - VARHDRSZ;
		pushJsonbValue(&state, WJB_ELEM, &v);
	}
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* The bodies come from a table, in which a superuser can write. */
static void
check_subject(const Endpoint *endpoint, Jsonb *body)
{
	if (endpoint->fields[0].required && s64_request_subject(endpoint, body) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the request has no \"%s\"", endpoint->fields[0].name)));
}

/*
 * The account's webhook with the call's uuid in its query; as it is, where the
 * service would not take so long a one.
 */
static char *
webhook_url(const Account *account, const pg_uuid_t *uuid)
{
	const char *url = account->webhook_url;
	int			len = strcspn(url, "#");
	char	   *whole = psprintf("%.*s%ccall=%s%s", len, url,
								 memchr(url, '?', len) ? '&' : '?',
								 uuid_text(uuid), url + len);

	return strlen(whole) <= S64_WEBHOOK_URL_MAX ? whole : pstrdup(url);
}

ApiRequest *
s64_request_make_submission(const Account *account, const Endpoint *endpoint,
							Jsonb **bodies, int n, const pg_uuid_t *uuid)
{
	ApiRequest *request = palloc0(sizeof(ApiRequest));
	const char *path = n > 1 ? endpoint->bulk_path : s64_endpoint_submit_path(endpoint);
	Jsonb	   *body;

	for (int i = 0; i < n; i++)
		check_subject(endpoint, bodies[i]);
	request->what = endpoint->name;
	request->method = endpoint->method;
	request->answer = endpoint->follow ? ANSWER_OBJECT : endpoint->answer;
	request->paid = true;
	request->price = s64_request_price(endpoint, bodies[0]);
	if (request->price != PRICE_UNKNOWN)
		request->price *= n;
	request->kind = s64_price_kind(endpoint, bodies[0]);
	request->few_at_once = endpoint->at_once > 0;
	body = n > 1 ? make_bulk_body(endpoint, bodies, n) : bodies[0];
	if (account->webhook_url != NULL && endpoint->follow != NULL &&
		s64_endpoint_has_field(endpoint, "webhook_url"))
		body = add_text(body, "webhook_url", webhook_url(account, uuid));
	if (endpoint->own_id != NULL)
		body = add_text(body, endpoint->own_id, uuid_text(uuid));
	if (s64_endpoint_is_idempotent(endpoint->method, path))
		request->idempotency_key = uuid_text(uuid);
	request->known_again = s64_endpoint_is_known_again(endpoint);
	place_arguments(request, account, endpoint, path, body);
	return request;
}

ApiRequest *
s64_request_make_poll(const Account *account, const Follow *follow,
					  const char *task_id)
{
	ApiRequest *request = palloc0(sizeof(ApiRequest));

	request->what = follow->name;
	request->method = "GET";
	request->url = s64_endpoint_url(account->base_url, follow->path, find_parameter,
									s64_request_argument("task_id", task_id));
	return request;
}

/* ---- requests to any path ---- */

static const char *
check_method(const char *method)
{
	for (size_t i = 0; i < lengthof(methods); i++)
	{
		if (strcmp(methods[i], method) == 0)
			return methods[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown method \"%s\"", method),
			 errhint("The methods are GET, POST, PATCH, PUT and DELETE.")));
}

/* The number of dots that a segment of a path consists of; 0 if of others */
static int
count_dots(const char *segment)
{
	int			dots = 0;

	while (*segment != '/' && *segment != '\0')
	{
		bool		encoded = pg_strncasecmp(segment, "%2e", 3) == 0;

		if (*segment != '.' && !encoded)
			return 0;
		segment += encoded ? 3 : 1;
		dots++;
	}
	return dots;
}

/* Is there a segment "." or ".." in the path, however it is written? */
static bool
has_dot_segment(const char *path)
{
	for (const char *p = path; p != NULL; p = strchr(p, '/'))
	{
		int			dots;

		p += *p == '/';
		dots = count_dots(p);
		if (dots == 1 || dots == 2)
			return true;
	}
	return false;
}

static void
check_path(const char *path)
{
	if (strlen(path) > PATH_MAX_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("path is too long"),
				 errdetail("A path has at most %d bytes.", PATH_MAX_LENGTH)));
	for (const char *p = path; *p; p++)
	{
		if (*p <= ' ' || *p > '~' || strchr("?#\\\"<>^`{|}", *p) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid path \"%s\"", path),
					 errhint("Percent-encode special characters; parameters go into the argument \"query\".")));
	}
	if (*path != '/' || has_dot_segment(path))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid path \"%s\"", path),
				 errhint("A path begins with \"/\" and has no segment \".\" or \"..\".")));
}

/* Append name=value for a scalar; null is left out. */
static void
append_scalar(StringInfo buf, const char *name, const JsonbValue *v)
{
	char	   *value;

	switch (v->type)
	{
		case jbvNull:
			return;
		case jbvString:
			value = pnstrdup(v->val.string.val, v->val.string.len);
			break;
		case jbvNumeric:
			value = DatumGetCString(DirectFunctionCall1(numeric_out,
														NumericGetDatum(v->val.numeric)));
			break;
		case jbvBool:
			value = v->val.boolean ? "true" : "false";
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("query parameter \"%s\" must be a text, a number, a boolean or an array of them",
							name)));
	}
	appendStringInfoChar(buf, strchr(buf->data, '?') ? '&' : '?');
	s64_endpoint_escape(buf, s64_encoding_to_utf8(name));
	appendStringInfoChar(buf, '=');
	s64_endpoint_escape(buf, s64_encoding_to_utf8(value));
}

static void
append_parameter(StringInfo buf, const char *name, const JsonbValue *v)
{
	if (v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data))
	{
		int			n = JsonContainerSize(v->val.binary.data);

		for (int i = 0; i < n; i++)
			append_scalar(buf, name,
						  getIthJsonbValueFromContainer(v->val.binary.data, i));
	}
	else
		append_scalar(buf, name, v);
}

static void
append_query(StringInfo buf, Jsonb *query)
{
	JsonbIterator *it;
	JsonbValue	v;
	char	   *name = NULL;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(query))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"query\" must be a JSON object")));
	it = JsonbIteratorInit(&query->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE)
			append_parameter(buf, name, &v);
	}
}

ApiRequest *
s64_request_make_raw(const Account *account, const char *method,
					 const char *path, Jsonb *query, Jsonb *body)
{
	ApiRequest *request = palloc0(sizeof(ApiRequest));
	bool		reading;
	StringInfoData url;

	request->method = check_method(method);
	check_path(path);
	reading = strcmp(method, "GET") == 0;
	if (reading && body != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a GET request has no body")));

	initStringInfo(&url);
	appendStringInfo(&url, "%s%s", account->base_url, path);
	if (query != NULL)
		append_query(&url, query);

	request->what = psprintf("%s %s", method, path);
	request->url = url.data;
	request->body = body ? body_text(body) : NULL;
	request->answer = ANSWER_JSON;
	request->paid = !reading;
	request->price = reading ? PRICE_FREE : PRICE_UNKNOWN;
	if (s64_endpoint_is_idempotent(method, path))
		request->idempotency_key = random_uuid();
	request->known_again = request->idempotency_key != NULL;
	return request;
}

HttpRequest
s64_request_transfer(const ApiRequest *request, const Account *account,
					 int timeout)
{
	HttpRequest transfer = {0};

	transfer.method = request->method;
	transfer.url = request->url;
	transfer.body = request->body;
	transfer.body_len = request->body ? strlen(request->body) : 0;
	transfer.json_body = request->body != NULL;
	transfer.api_key = account->api_key;
	transfer.idempotency_key = request->idempotency_key;
	transfer.once = strcmp(request->method, "GET") != 0;
	transfer.connect_timeout = account->connect_timeout;
	transfer.timeout = timeout;
	transfer.max_response = (size_t) s64_guc_max_response_size * 1024;
	transfer.ca_file = account->ca_file;
	transfer.proxy = account->proxy;
	return transfer;
}
