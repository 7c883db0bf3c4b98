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

Jsonb *
s64_request_normalize(const Endpoint *endpoint, Jsonb *body)
{
	body = strip_nulls(body);
	s64_check_body(endpoint, body);
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

ApiRequest *
s64_request_make(const Account *account, const Endpoint *endpoint, Jsonb *body,
				 const Parameter *parameters, int nparameters)
{
	ApiRequest *request = palloc0(sizeof(ApiRequest));

	request->what = endpoint->name;
	request->method = endpoint->method;
	request->answer = endpoint->answer;
	request->price = endpoint->price;
	request->paid = request->price != PRICE_FREE;
	request->kind = s64_price_kind(endpoint, body);
	if (body != NULL)
	{
		body = s64_request_normalize(endpoint, body);
		request->price = s64_request_price(endpoint, body);
		request->body = body_text(body);
	}
	request->url = s64_endpoint_url(account->base_url, endpoint->path,
									parameters, nparameters);
	if (s64_endpoint_is_idempotent(endpoint->method, endpoint->path))
		request->idempotency_key = random_uuid();
	return request;
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
	if (s64_request_subject(endpoint, body) == NULL)
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

static bool
has_field(const Endpoint *endpoint, const char *name)
{
	for (const Field *field = endpoint->fields; field->name != NULL; field++)
	{
		if (strcmp(field->name, name) == 0)
			return true;
	}
	return false;
}

/* The body with the account's webhook, where there is one to be told */
static Jsonb *
add_webhook(const Account *account, const Endpoint *endpoint, Jsonb *body,
			const pg_uuid_t *uuid)
{
	JsonbInState state = {0};
	JsonbValue	v;

	if (account->webhook_url == NULL || !has_field(endpoint, "webhook_url") ||
		getKeyJsonValueFromContainer(&body->root, "webhook_url", 11, &v) != NULL)
		return body;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_members_but(&state, body, "webhook_url");
	s64_json_push_key(&state, "webhook_url");
	v.type = jbvString;
	v.val.string.val = webhook_url(account, uuid);
	v.val.string.len = strlen(v.val.string.val);
	pushJsonbValue(&state, WJB_VALUE, &v);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

ApiRequest *
s64_request_make_submission(const Account *account, const Endpoint *endpoint,
							Jsonb **bodies, int n, const pg_uuid_t *uuid)
{
	ApiRequest *request = palloc0(sizeof(ApiRequest));
	const char *path = n > 1 ? endpoint->bulk_path
		: endpoint->async_path ? endpoint->async_path : endpoint->path;
	Jsonb	   *body;

	for (int i = 0; i < n; i++)
		check_subject(endpoint, bodies[i]);
	request->what = endpoint->name;
	request->method = endpoint->method;
	request->answer = path == endpoint->path ? endpoint->answer : ANSWER_OBJECT;
	request->paid = true;
	request->price = s64_request_price(endpoint, bodies[0]);
	if (request->price != PRICE_UNKNOWN)
		request->price *= n;
	request->kind = s64_price_kind(endpoint, bodies[0]);
	body = n > 1 ? make_bulk_body(endpoint, bodies, n) : bodies[0];
	if (path != endpoint->path)
		body = add_webhook(account, endpoint, body, uuid);
	request->body = body_text(body);
	if (s64_endpoint_is_idempotent(endpoint->method, path))
		request->idempotency_key = uuid_text(uuid);
	request->url = psprintf("%s%s", account->base_url, path);
	return request;
}

ApiRequest *
s64_request_make_poll(const Account *account, const char *task_id)
{
	Parameter	parameter = {"task_id", s64_encoding_to_utf8(task_id)};

	return s64_request_make(account, s64_endpoint_find("job_status"), NULL,
							&parameter, 1);
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
