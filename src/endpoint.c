/*-------------------------------------------------------------------------
 *
 * endpoint.c
 *		The endpoint table: one row per operation of the service.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "endpoint.h"

/* Columns that are left out are 0: no path, ANSWER_OBJECT, PRICE_FREE, no limit. */

#define END {NULL, FIELD_ANY, false, NULL}
#define WEBHOOK {"webhook_url", FIELD_URL, false, NULL}

#define TIERS "micro low medium high xhigh"

/* The same for a person, whether struct is needed or not */
#define PERSON_FIELDS \
	{"research_plan", FIELD_TEXT, false, NULL}, \
	{"tier", FIELD_CHOICE, false, TIERS}, \
	{"max_iterations", FIELD_COUNT, false, NULL}, \
	{"field_confidence", FIELD_BOOLEAN, false, NULL}, \
	{"benchmark", FIELD_BOOLEAN, false, NULL}, \
	WEBHOOK, END

static const Field lead_fields[] = {
	{"lead_info", FIELD_FACTS, true, NULL},
	{"struct", FIELD_STRUCT, true, NULL},
	PERSON_FIELDS
};

static const Field people_fields[] = {
	{"lead_info", FIELD_FACTS, true, NULL},
	{"struct", FIELD_STRUCT, false, NULL},
	PERSON_FIELDS
};

static const Field company_fields[] = {
	{"target_company", FIELD_FACTS, true, NULL},
	{"struct", FIELD_STRUCT, true, NULL},
	{"lead_struct", FIELD_STRUCT, false, NULL},
	{"find_people", FIELD_BOOLEAN, false, NULL},
	{"research_plan", FIELD_TEXT, false, NULL},
	{"people_focus_prompt", FIELD_TEXT, false, NULL},
	{"tier", FIELD_CHOICE, false, TIERS},
	{"max_iterations", FIELD_COUNT, false, NULL},
	{"full_org_chart", FIELD_BOOLEAN, false, NULL},
	{"field_confidence", FIELD_BOOLEAN, false, NULL},
	{"benchmark", FIELD_BOOLEAN, false, NULL},
	WEBHOOK, END
};

static const Field email_fields[] = {
	{"lead", FIELD_FACTS, true, NULL},
	{"mode", FIELD_CHOICE, false, "PROFESSIONAL PERSONAL"},
	{"verify_emails", FIELD_BOOLEAN, false, NULL},
	{"providers", FIELD_TEXTS, false, NULL},
	WEBHOOK, END
};

static const Field phone_fields[] = {
	{"lead", FIELD_FACTS, true, NULL},
	{"providers", FIELD_TEXTS, false, NULL},
	WEBHOOK, END
};

static const Field reverse_email_fields[] = {
	{"lead", FIELD_FACTS, true, "email"},
	{"providers", FIELD_TEXTS, false, NULL},
	WEBHOOK, END
};

static const Field reverse_phone_fields[] = {
	{"lead", FIELD_FACTS, true, "phone"},
	{"providers", FIELD_TEXTS, false, NULL},
	WEBHOOK, END
};

static const Field qa_fields[] = {
	{"data", FIELD_FACTS, true, NULL},
	{"qualification_criteria", FIELD_CRITERIA, true, NULL},
	{"references", FIELD_REFERENCES, false, NULL},
	{"struct", FIELD_STRUCT, false, NULL},
	{"max_tool_calls", FIELD_COUNT, false, NULL},
	WEBHOOK, END
};

static const Field research_fields[] = {
	{"input_data", FIELD_FACTS, true, NULL},
	{"struct", FIELD_STRUCT, false, NULL},
	{"research_plan", FIELD_TEXT, false, NULL},
	{"max_iterations", FIELD_COUNT, false, NULL},
	{"benchmark", FIELD_BOOLEAN, false, NULL},
	WEBHOOK, END
};

static const Field get_linkedin_fields[] = {
	{"linkedin_url", FIELD_PROFILE, true, NULL},
	{"include_fresh", FIELD_BOOLEAN, false, NULL},
	END
};

static const Field enrich_linkedin_fields[] = {
	{"linkedin_url", FIELD_PROFILE, true, NULL},
	{"struct", FIELD_STRUCT, false, NULL},
	{"model_override", FIELD_TEXT, false, NULL},
	END
};

/* Names of a company, of which one will do */
#define COMPANY_NAMES \
	{"company_name", FIELD_TEXT, false, NULL}, \
	{"linkedin_public_id", FIELD_TEXT, false, NULL}, \
	{"linkedin_company_url", FIELD_TEXT, false, NULL}, \
	{"company_member_id", FIELD_COUNT, false, NULL}, \
	{"max_iterations", FIELD_COUNT, false, NULL}, \
	{"max_results", FIELD_COUNT, false, NULL}, \
	{"include_resolution_debug", FIELD_BOOLEAN, false, NULL}
#define ONE_COMPANY "company_name linkedin_public_id linkedin_company_url company_member_id"

static const Field org_chart_fields[] = {
	COMPANY_NAMES,
	{"page", FIELD_COUNT, false, NULL},
	{"page_size", FIELD_COUNT, false, NULL},
	{"cursor", FIELD_TEXT, false, NULL},
	END
};

static const Field org_chart_people_fields[] = {
	{"people_focus_prompt", FIELD_TEXT, true, NULL},
	COMPANY_NAMES,
	END
};

static const Field dataframe_fields[] = {
	{"csv_data", FIELD_TEXT, true, NULL},
	{"enrichment_type", FIELD_TEXT, true, NULL},
	END
};

#define SEARCH_MODE {"mode", FIELD_CHOICE, false, "people company"}
#define MAX_RESULTS {"max_results", FIELD_COUNT, false, NULL}

static const Field search_fields[] = {
	{"query", FIELD_TEXT, true, NULL},
	SEARCH_MODE, MAX_RESULTS,
	{"search_id", FIELD_TEXT, false, NULL},
	{"output_mode", FIELD_CHOICE, false, "csv query_only"},
	END
};

static const Field filter_search_fields[] = {
	{"simple_filters", FIELD_OBJECT, false, NULL},
	{"filters", FIELD_OBJECT, false, NULL},
	SEARCH_MODE, MAX_RESULTS,
	{"page_size", FIELD_COUNT, false, NULL},
	{"save_json", FIELD_BOOLEAN, false, NULL},
	{"cursor", FIELD_TEXT, false, NULL},
	END
};

static const Field search_query_fields[] = {
	{"query", FIELD_TEXT, false, NULL},
	{"simple_filters", FIELD_OBJECT, false, NULL},
	{"filters", FIELD_OBJECT, false, NULL},
	{"parsed_query", FIELD_OBJECT, false, NULL},
	{"search_id", FIELD_TEXT, false, NULL},
	{"cursor", FIELD_TEXT, false, NULL},
	SEARCH_MODE, MAX_RESULTS,
	{"page_size", FIELD_COUNT, false, NULL},
	{"exclude_public_ids", FIELD_TEXTS, false, NULL},
	{"location_expansion_enabled", FIELD_BOOLEAN, false, NULL},
	{"location_expansion_radius_miles", FIELD_COUNT, false, NULL},
	END
};

static const Field export_fields[] = {
	{"search_id", FIELD_TEXT, false, NULL},
	{"parsed_query", FIELD_OBJECT, false, NULL},
	SEARCH_MODE, MAX_RESULTS,
	END
};

static const Field filter_fields_fields[] = {
	SEARCH_MODE,
	{"refresh", FIELD_BOOLEAN, false, NULL},
	END
};

static const Field filter_values_fields[] = {
	{"field", FIELD_TEXT, true, NULL},
	SEARCH_MODE,
	{"top_k", FIELD_COUNT, false, NULL},
	{"filters", FIELD_OBJECT, false, NULL},
	{"simple_filters", FIELD_OBJECT, false, NULL},
	END
};

static const Field workflow_fields[] = {
	{"workflow_name", FIELD_TEXT, true, NULL},
	{"workflow_description", FIELD_STRING, false, NULL},
	{"workflow_definition", FIELD_OBJECT, true, NULL},
	{"id", FIELD_TEXT, false, NULL},
	END
};

static const Field workflow_change_fields[] = {
	{"id", FIELD_ANY, true, NULL},
	{"workflow_name", FIELD_TEXT, false, NULL},
	{"workflow_description", FIELD_STRING, false, NULL},
	{"workflow_definition", FIELD_OBJECT, false, NULL},
	END
};

static const Field run_fields[] = {
	{"webhook_payload", FIELD_PAYLOAD, true, NULL},
	{"id", FIELD_ANY, true, NULL},
	{"specs_override", FIELD_OBJECT, false, NULL},
	END
};

static const Field runs_fields[] = {
	{"status", FIELD_TEXT, false, NULL},
	END
};

static const Field usage_fields[] = {
	{"time_window", FIELD_COUNT, false, NULL},
	END
};

static const Field roll_fields[] = {
	{"expire_overlap_hours", FIELD_HOURS, false, NULL},
	END
};

static const Field task_fields[] = {{"task_id", FIELD_ANY, true, NULL}, END};
static const Field handle_fields[] = {{"resource_handle_id", FIELD_ANY, true, NULL}, END};
static const Field id_fields[] = {{"id", FIELD_ANY, true, NULL}, END};
static const Field run_id_fields[] = {{"run_id", FIELD_ANY, true, NULL}, END};
static const Field no_fields[] = {END};

static const Follow job_status = {"job_status", "/job-status/{task_id}", "task_id", "status", false};
static const Follow search_status = {
	"search_status", "/search/deep-search-status/{task_id}", "task_id", "status", true
};
static const Follow run_status = {
	"workflow_status", "/workflows/runs/{task_id}/live_status", "job_id", "overall_status", true
};

#define COSTS(cents) .price = (cents), .personal_price = (cents)
#define ENRICHES COSTS(PRICE_UNKNOWN), .follow = &job_status

/* Prices are those that the service states; see its reference. */
static const Endpoint endpoints[] = {
	{"enrich_lead", "POST", "/enrich-lead", "/enrich-lead-async", ENRICHES,
	.fields = lead_fields},
	{"enrich_company", "POST", "/enrich-company", "/enrich-company-async", ENRICHES,
	.fields = company_fields},
	{"find_email", "POST", "/find-email", "/find-email-async", "/find-email-bulk-async",
	.price = 5, .personal_price = 20, .follow = &job_status, .fields = email_fields},
	{"find_phone", "POST", "/find-phone", "/find-phone-async", "/find-phone-bulk-async",
	COSTS(30), .follow = &job_status, .fields = phone_fields},
	{"qa_agent", "POST", "/qa-agent", "/qa-agent-async", ENRICHES,
	.fields = qa_fields},
	{"people_intelligence", "POST", "/people-intelligence", "/people-intelligence-async", ENRICHES,
	.fields = people_fields},
	{"company_intelligence", "POST", "/company-intelligence", "/company-intelligence-async", ENRICHES,
	.fields = company_fields},
	{"reverse_email", "POST", "/reverse-email", "/reverse-email-async", "/reverse-email-bulk-async",
	COSTS(PRICE_UNKNOWN), .follow = &job_status, .fields = reverse_email_fields, .echoed = "email"},
	{"reverse_phone", "POST", "/reverse-phone", "/reverse-phone-async", "/reverse-phone-bulk-async",
	COSTS(PRICE_UNKNOWN), .follow = &job_status, .fields = reverse_phone_fields, .echoed = "phone"},
	{"research_agent", "POST", "/research-agent", "/research-agent-async", ENRICHES,
	.fields = research_fields},
	{"get_linkedin", "POST", "/get-linkedin",
	COSTS(PRICE_UNKNOWN), .fields = get_linkedin_fields},
	{"enrich_linkedin", "POST", "/enrich-linkedin",
	COSTS(PRICE_UNKNOWN), .fields = enrich_linkedin_fields},
	{"org_chart", "POST", "/org-chart/full",
	COSTS(PRICE_UNKNOWN), .fields = org_chart_fields, .one_of = ONE_COMPANY},
	{"org_chart_people", "POST", "/org-chart/find-people",
	COSTS(PRICE_UNKNOWN), .fields = org_chart_people_fields, .one_of = ONE_COMPANY},
	{"enrich_dataframe", "POST", "/enrich-dataframe",
	.answer = ANSWER_JSON, COSTS(PRICE_UNKNOWN), .fields = dataframe_fields},
	{"job_status", "GET", "/job-status/{task_id}", .fields = task_fields},

	{"search", "POST", "/search/start-deep-search",
	COSTS(PRICE_UNKNOWN), .follow = &search_status, .rows = ROWS_SEARCH, .own_id = "search_id",
	.at_once = 5, .fields = search_fields},
	{"search_status", "GET", "/search/deep-search-status/{task_id}", .fields = task_fields},
	{"search_download", "GET", "/search/download?resource_handle_id={resource_handle_id}",
	.fields = handle_fields},
	{"filter_search", "POST", "/search/start-filter-search",
	COSTS(PRICE_UNKNOWN), .fields = filter_search_fields, .one_of = "simple_filters filters cursor",
	.exclusive = true},
	{"search_query", "POST", "/search/query",
	COSTS(PRICE_UNKNOWN), .fields = search_query_fields,
	.one_of = "query simple_filters filters parsed_query search_id cursor", .exclusive = true,
	.people_field = "query"},
	{"export_search", "POST", "/search/export",
	COSTS(PRICE_UNKNOWN), .follow = &search_status, .rows = ROWS_SEARCH, .fields = export_fields,
	.one_of = "search_id parsed_query", .exclusive = true},
	{"filter_fields", "GET", "/search/filter-capabilities?mode={mode}&refresh={refresh}",
	.fields = filter_fields_fields},
	{"filter_values", "POST", "/search/filter-field-values", .fields = filter_values_fields},

	{"workflows", "GET", "/workflows", .answer = ANSWER_ARRAY, .fields = no_fields},
	{"workflow", "GET", "/workflows/{id}", .fields = id_fields},
	{"create_workflow", "POST", "/workflows", .fields = workflow_fields,
	.other_method = "POST", .other_path = "/workflows/create_workflow",
	.other_needs = "workflow_description"},
	{"update_workflow", "PATCH", "/workflows/{id}", .fields = workflow_change_fields,
	.other_method = "POST", .other_path = "/workflows/update_workflow?workflow_id={id}"},
	{"delete_workflow", "DELETE", "/workflows/{id}", .answer = ANSWER_NOTHING, .fields = id_fields,
	.other_method = "POST", .other_path = "/workflows/delete_workflow?workflow_id={id}"},
	{"run_workflow", "POST", "/workflows/run?workflow_id={id}",
	COSTS(PRICE_UNKNOWN), .follow = &run_status, .rows = ROWS_WORKFLOW, .fields = run_fields},
	{"workflow_status", "GET", "/workflows/runs/{run_id}/live_status", .fields = run_id_fields},
	{"workflow_runs", "GET", "/workflows/runs?status={status}", .answer = ANSWER_ARRAY, .fields = runs_fields},
	{"cancel_workflow", "POST", "/workflows/cancel?job_id={run_id}", .fields = run_id_fields},
	{"workflow_results", "GET", "/workflows/runs/{run_id}/results/download-links",
	.answer = ANSWER_ARRAY, .fields = run_id_fields},
	{"workflow_blocks", "GET", "/workflows/blocks", .answer = ANSWER_ARRAY, .fields = no_fields},

	{"usage", "GET", "/api/usage?time_window={time_window}", .answer = ANSWER_JSON, .fields = usage_fields},
	{"webhook_secret", "GET", "/webhooks/signing-secret",
	.answer = ANSWER_JSON, .fields = no_fields, .owner_only = true},
	{"create_webhook_secret", "POST", "/webhooks/signing-secret",
	.fields = no_fields, .owner_only = true},
	{"roll_webhook_secret", "POST", "/webhooks/signing-secret/roll",
	.fields = roll_fields, .owner_only = true},
	{"delete_webhook_secret", "DELETE", "/webhooks/signing-secret",
	.answer = ANSWER_NOTHING, .fields = no_fields, .owner_only = true},
};

/*
 * Where the service honours Idempotency-Key: the same key and the same bytes
 * start, and cost, one thing, however often they are sent.  With a slash at its
 * end, all paths below.
 */
static const char *const idempotent[] = {"/workflows/run", "/bulk-intelligence/"};

/* Paths that are the account owner's, with all below them; see owner_only. */
static const char *const private_paths[] = {"/webhooks", "/oauth", "/me", "/chat"};

/* What a field's value is in SQL, for people; see FieldType */
static const char *const sql_types[] = {
	[FIELD_ANY] = "text",
	[FIELD_FACTS] = "jsonb",
	[FIELD_PROFILE] = "text",
	[FIELD_STRUCT] = "jsonb",
	[FIELD_TEXT] = "text",
	[FIELD_STRING] = "text",
	[FIELD_BOOLEAN] = "boolean",
	[FIELD_COUNT] = "integer",
	[FIELD_HOURS] = "integer",
	[FIELD_CHOICE] = "text",
	[FIELD_URL] = "text",
	[FIELD_TEXTS] = "jsonb",
	[FIELD_OBJECT] = "jsonb",
	[FIELD_OBJECTS] = "jsonb",
	[FIELD_PAYLOAD] = "jsonb",
	[FIELD_CRITERIA] = "jsonb",
	[FIELD_REFERENCES] = "jsonb",
};

S64_FUNCTION(sixtyfour_endpoints);

const Endpoint *
s64_endpoint_find(const char *name)
{
	for (size_t i = 0; i < lengthof(endpoints); i++)
	{
		if (strcmp(endpoints[i].name, name) == 0)
			return &endpoints[i];
	}
	return NULL;
}

const Endpoint *
s64_endpoint_at(int i)
{
	return i < (int) lengthof(endpoints) ? &endpoints[i] : NULL;
}

void
s64_endpoint_escape(StringInfo buf, const char *text)
{
	for (const unsigned char *p = (const unsigned char *) text; *p; p++)
	{
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			(*p >= '0' && *p <= '9') || strchr("-._~", *p) != NULL)
			appendStringInfoChar(buf, *p);
		else
			appendStringInfo(buf, "%%%02X", *p);
	}
}

bool
s64_endpoint_is_idempotent(const char *method, const char *path)
{
	size_t		len = strcspn(path, "?");

	for (size_t i = 0; i < lengthof(idempotent); i++)
	{
		size_t		listed = strlen(idempotent[i]);
		bool		all_below = idempotent[i][listed - 1] == '/';

		if (strncmp(path, idempotent[i], listed) == 0 && (all_below || len == listed))
			return strcmp(method, "POST") == 0;
	}
	return false;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = pg_ascii_tolower((unsigned char) c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * Decode a path in place, in lower case and with single slashes; true if there may
 * be more to decode.  %00 would end the text, and is left as it is.
 */
static bool
simplify_path(char *path)
{
	char	   *to = path;
	bool		decoded = false;

	for (const char *from = path; *from; from++)
	{
		char		c = *from;

		if (c == '%' && hex_digit(from[1]) >= 0 && hex_digit(from[2]) >= 0 &&
			strncmp(from, "%00", 3) != 0)
		{
			c = (char) (hex_digit(from[1]) << 4 | hex_digit(from[2]));
			from += 2;
			decoded = true;
		}
		if (c != '/' || to == path || to[-1] != '/')
			*to++ = pg_ascii_tolower((unsigned char) c);
	}
	*to = '\0';
	return decoded;
}

bool
s64_endpoint_is_private(const char *path)
{
	char	   *plain = pstrdup(path);

	/* what was encoded twice is decoded twice */
	while (simplify_path(plain))
		CHECK_FOR_INTERRUPTS();
	for (size_t i = 0; i < lengthof(private_paths); i++)
	{
		size_t		len = strlen(private_paths[i]);

		if (strncmp(plain, private_paths[i], len) == 0 && strchr("/;?#%", plain[len]) != NULL)
			return true;
	}
	/* one that climbs may lead anywhere */
	return strstr(plain, "/../") != NULL || strstr(plain, "/./") != NULL;
}

bool
s64_endpoint_enriches(const Endpoint *endpoint)
{
	return endpoint->fields[0].type == FIELD_FACTS || endpoint->fields[0].type == FIELD_PROFILE;
}

bool
s64_endpoint_names_somebody(const Endpoint *endpoint)
{
	return s64_endpoint_enriches(endpoint) || endpoint->fields[0].type == FIELD_PAYLOAD;
}

bool
s64_endpoint_finds_people(const Endpoint *endpoint)
{
	return s64_endpoint_has_field(endpoint, "find_people");
}

char *
s64_endpoint_list(bool (*fits) (const Endpoint *endpoint))
{
	StringInfoData buf;
	const char *last = NULL;

	initStringInfo(&buf);
	for (size_t i = 0; i < lengthof(endpoints); i++)
	{
		if (!fits(&endpoints[i]))
			continue;
		if (last != NULL)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "", last);
		last = endpoints[i].name;
	}
	if (last != NULL)
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? " or " : "", last);
	return buf.data;
}

bool
s64_endpoint_is_known_again(const Endpoint *endpoint)
{
	return endpoint->own_id != NULL ||
		s64_endpoint_is_idempotent(endpoint->method, s64_endpoint_submit_path(endpoint));
}

/* The {parameter} at p without its braces, palloc'd; *end is behind it. */
static char *
read_parameter(const char *p, const char **end)
{
	size_t		len = strcspn(p, "}");

	*end = p + len + 1;
	return pnstrdup(p + 1, len - 1);
}

bool
s64_endpoint_has_parameter(const char *path, const char *name)
{
	size_t		len = strlen(name);

	for (const char *p = strchr(path, '{'); p; p = strchr(p + 1, '{'))
	{
		if (strncmp(p + 1, name, len) == 0 && p[len + 1] == '}')
			return true;
	}
	return false;
}

bool
s64_endpoint_has_body(const Endpoint *endpoint, const char *path)
{
	for (const Field *field = endpoint->fields; field->name; field++)
	{
		if (!s64_endpoint_has_parameter(path, field->name))
			return true;
	}
	return false;
}

bool
s64_endpoint_has_field(const Endpoint *endpoint, const char *name)
{
	for (const Field *field = endpoint->fields; field->name; field++)
	{
		if (strcmp(field->name, name) == 0)
			return true;
	}
	return false;
}

const Follow *
s64_endpoint_follow(const Endpoint *endpoint)
{
	return endpoint != NULL && endpoint->follow != NULL ? endpoint->follow : &job_status;
}

const char *
s64_endpoint_submit_path(const Endpoint *endpoint)
{
	return endpoint->async_path ? endpoint->async_path : endpoint->path;
}

bool
s64_endpoint_takes(const char *value)
{
	for (const char *p = value; *p;)
	{
		size_t		len = strcspn(p, "/\\");

		if ((len == 1 || len == 2) && strncmp(p, "..", len) == 0)
			return false;
		p += len;
		p += *p != '\0';
	}
	return *value != '\0';
}

static void
check_value(const char *name, const char *value, bool in_path)
{
	if (value == NULL || *value == '\0' || (in_path && !s64_endpoint_takes(value)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s: \"%s\"", name, value ? value : "")));
}

/* Take "?name=" or "&name=" back from the end of a URL. */
static void
drop_name(StringInfo url)
{
	while (url->data[url->len - 1] != '?' && url->data[url->len - 1] != '&')
		url->len--;
	url->data[--url->len] = '\0';
}

char *
s64_endpoint_url(const char *base_url, const char *path,
				 char *(*find) (const char *name, void *arg), void *arg)
{
	StringInfoData buf;
	const char *query = strchr(path, '?');
	const char *p = path;

	initStringInfo(&buf);
	appendStringInfoString(&buf, base_url);
	while (*p)
	{
		bool		in_path = query == NULL || p < query;
		char	   *name;
		char	   *value;

		if (*p != '{')
		{
			/* the first of what is left of the query stands behind '?' */
			appendStringInfoChar(&buf, *p == '&' && query != NULL &&
								 strchr(buf.data + strlen(base_url), '?') == NULL ? '?' : *p);
			p++;
			continue;
		}
		name = read_parameter(p, &p);
		value = find(name, arg);
		if (value == NULL && !in_path)
		{
			drop_name(&buf);
			continue;
		}
		check_value(name, value, in_path);
		s64_endpoint_escape(&buf, value);
	}
	return buf.data;
}

/* Array of "name type", and " NOT NULL" where a field is required */
static Datum
describe_fields(const Endpoint *endpoint)
{
	ArrayBuildState *fields = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	for (const Field *field = endpoint->fields; field->name; field++)
		accumArrayResult(fields,
						 CStringGetTextDatum(psprintf("%s %s%s", field->name, sql_types[field->type],
													  field->required ? " NOT NULL" : "")),
						 false, TEXTOID, CurrentMemoryContext);
	return makeArrayResult(fields, CurrentMemoryContext);
}

/* sixtyfour_endpoints(): the table, for people */
Datum
sixtyfour_endpoints(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (size_t i = 0; i < lengthof(endpoints); i++)
	{
		const Endpoint *e = &endpoints[i];
		Datum		values[7];
		bool		nulls[7] = {0};

		values[0] = CStringGetTextDatum(e->name);
		values[1] = CStringGetTextDatum(e->method);
		values[2] = CStringGetTextDatum(e->path);
		nulls[3] = e->async_path == NULL;
		values[3] = nulls[3] ? 0 : CStringGetTextDatum(e->async_path);
		nulls[4] = e->bulk_path == NULL;
		values[4] = nulls[4] ? 0 : CStringGetTextDatum(e->bulk_path);
		nulls[5] = e->price == PRICE_UNKNOWN;
		values[5] = Int32GetDatum(e->price);
		values[6] = describe_fields(e);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
