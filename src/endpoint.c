/*-------------------------------------------------------------------------
 *
 * endpoint.c
 *		The endpoint table: one row per operation of the service.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "endpoint.h"

#define END {NULL, FIELD_ANY, false, NULL}
#define WEBHOOK {"webhook_url", FIELD_URL, false, NULL}

static const Field lead_fields[] = {
	{"lead_info", FIELD_FACTS, true, NULL},
	{"struct", FIELD_STRUCT, true, NULL},
	{"research_plan", FIELD_TEXT, false, NULL},
	{"tier", FIELD_CHOICE, false, "micro low medium high xhigh"},
	{"max_iterations", FIELD_COUNT, false, NULL},
	{"field_confidence", FIELD_BOOLEAN, false, NULL},
	{"benchmark", FIELD_BOOLEAN, false, NULL},
	WEBHOOK, END
};

static const Field company_fields[] = {
	{"target_company", FIELD_FACTS, true, NULL},
	{"struct", FIELD_STRUCT, true, NULL},
	{"lead_struct", FIELD_STRUCT, false, NULL},
	{"find_people", FIELD_BOOLEAN, false, NULL},
	{"research_plan", FIELD_TEXT, false, NULL},
	{"people_focus_prompt", FIELD_TEXT, false, NULL},
	{"tier", FIELD_CHOICE, false, "micro low medium high xhigh"},
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

static const Field qa_fields[] = {
	{"data", FIELD_FACTS, true, NULL},
	{"qualification_criteria", FIELD_CRITERIA, true, NULL},
	{"references", FIELD_REFERENCES, false, NULL},
	{"struct", FIELD_STRUCT, false, NULL},
	{"max_tool_calls", FIELD_COUNT, false, NULL},
	WEBHOOK, END
};

static const Field dataframe_fields[] = {
	{"csv_data", FIELD_TEXT, true, NULL},
	{"enrichment_type", FIELD_TEXT, true, NULL},
	END
};

static const Field search_fields[] = {
	{"query", FIELD_TEXT, true, NULL},
	{"mode", FIELD_TEXT, false, NULL},
	{"max_results", FIELD_COUNT, false, NULL},
	WEBHOOK, END
};

static const Field workflow_fields[] = {
	{"workflow_name", FIELD_TEXT, true, NULL},
	{"workflow_definition", FIELD_OBJECT, true, NULL},
	END
};

static const Field run_fields[] = {
	{"webhook_payload", FIELD_OBJECTS, true, NULL},
	END
};

static const Field no_fields[] = {END};

/* Prices are those that the service states; see its reference. */
static const Endpoint endpoints[] = {
	{"enrich_lead", "POST", "/enrich-lead", "/enrich-lead-async", NULL,
	ANSWER_OBJECT, PRICE_UNKNOWN, PRICE_UNKNOWN, lead_fields},
	{"enrich_company", "POST", "/enrich-company", "/enrich-company-async", NULL,
	ANSWER_OBJECT, PRICE_UNKNOWN, PRICE_UNKNOWN, company_fields},
	{"find_email", "POST", "/find-email", "/find-email-async", "/find-email-bulk-async",
	ANSWER_OBJECT, 5, 20, email_fields},
	{"find_phone", "POST", "/find-phone", "/find-phone-async", "/find-phone-bulk-async",
	ANSWER_OBJECT, 30, 30, phone_fields},
	{"qa_agent", "POST", "/qa-agent", "/qa-agent-async", NULL,
	ANSWER_OBJECT, PRICE_UNKNOWN, PRICE_UNKNOWN, qa_fields},
	{"enrich_dataframe", "POST", "/enrich-dataframe", NULL, NULL,
	ANSWER_JSON, PRICE_UNKNOWN, PRICE_UNKNOWN, dataframe_fields},
	{"job_status", "GET", "/job-status/{task_id}", NULL, NULL,
	ANSWER_OBJECT, PRICE_FREE, PRICE_FREE, no_fields},

	{"start_search", "POST", "/search/start-deep-search", NULL, NULL,
	ANSWER_OBJECT, PRICE_UNKNOWN, PRICE_UNKNOWN, search_fields},
	{"search_status", "GET", "/search/deep-search-status/{task_id}", NULL, NULL,
	ANSWER_OBJECT, PRICE_FREE, PRICE_FREE, no_fields},
	{"search_download", "GET", "/search/download?resource_handle_id={resource_handle_id}", NULL, NULL,
	ANSWER_OBJECT, PRICE_FREE, PRICE_FREE, no_fields},

	{"workflows", "GET", "/workflows", NULL, NULL,
	ANSWER_ARRAY, PRICE_FREE, PRICE_FREE, no_fields},
	{"workflow", "GET", "/workflows/{id}", NULL, NULL,
	ANSWER_OBJECT, PRICE_FREE, PRICE_FREE, no_fields},
	{"create_workflow", "POST", "/workflows", NULL, NULL,
	ANSWER_OBJECT, PRICE_FREE, PRICE_FREE, workflow_fields},
	{"update_workflow", "PATCH", "/workflows/{id}", NULL, NULL,
	ANSWER_OBJECT, PRICE_FREE, PRICE_FREE, no_fields},
	{"delete_workflow", "DELETE", "/workflows/{id}", NULL, NULL,
	ANSWER_NOTHING, PRICE_FREE, PRICE_FREE, no_fields},
	{"start_workflow", "POST", "/workflows/run?workflow_id={id}", NULL, NULL,
	ANSWER_OBJECT, PRICE_UNKNOWN, PRICE_UNKNOWN, run_fields},
	{"workflow_status", "GET", "/workflows/runs/{run_id}/live_status", NULL, NULL,
	ANSWER_OBJECT, PRICE_FREE, PRICE_FREE, no_fields},
	{"workflow_runs", "GET", "/workflows/runs", NULL, NULL,
	ANSWER_ARRAY, PRICE_FREE, PRICE_FREE, no_fields},
	{"cancel_workflow", "POST", "/workflows/cancel?job_id={run_id}", NULL, NULL,
	ANSWER_OBJECT, PRICE_FREE, PRICE_FREE, no_fields},
	{"workflow_results", "GET", "/workflows/runs/{run_id}/results/download-links", NULL, NULL,
	ANSWER_ARRAY, PRICE_FREE, PRICE_FREE, no_fields},
};

/*
 * Where the service honours Idempotency-Key: the same key and the same bytes
 * start, and cost, one thing, however often they are sent.  With a slash at its
 * end, all paths below.
 */
static const char *const idempotent[] = {"/workflows/run", "/bulk-intelligence/"};

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

/* The length of the {parameter} at p, braces included */
static size_t
parameter_length(const char *p)
{
	return strchr(p, '}') - p + 1;
}

static bool
is_parameter(const char *p, const char *name)
{
	size_t		len = strlen(name);

	return strncmp(p + 1, name, len) == 0 && p[len + 1] == '}';
}

bool
s64_endpoint_has_parameter(const char *path, const char *name)
{
	for (const char *p = strchr(path, '{'); p; p = strchr(p + 1, '{'))
	{
		if (is_parameter(p, name))
			return true;
	}
	return false;
}

static const char *
parameter_value(const char *p, const Parameter *parameters, int nparameters)
{
	for (int i = 0; i < nparameters; i++)
	{
		const char *value = parameters[i].value;

		if (!is_parameter(p, parameters[i].name))
			continue;
		/* dots would climb in the path, whatever their encoding */
		if (*value == '\0' || strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid %s: \"%s\"", parameters[i].name, value)));
		return value;
	}
	elog(ERROR, "no value for path parameter %s", p);
}

char *
s64_endpoint_url(const char *base_url, const char *path,
				 const Parameter *parameters, int nparameters)
{
	StringInfoData buf;
	const char *p = path;

	initStringInfo(&buf);
	appendStringInfoString(&buf, base_url);
	while (*p)
	{
		if (*p != '{')
		{
			appendStringInfoChar(&buf, *p++);
			continue;
		}
		s64_endpoint_escape(&buf, parameter_value(p, parameters, nparameters));
		p += parameter_length(p);
	}
	return buf.data;
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
		Datum		values[6];
		bool		nulls[6] = {0};

		values[0] = CStringGetTextDatum(e->name);
		values[1] = CStringGetTextDatum(e->method);
		values[2] = CStringGetTextDatum(e->path);
		nulls[3] = e->async_path == NULL;
		values[3] = nulls[3] ? 0 : CStringGetTextDatum(e->async_path);
		nulls[4] = e->bulk_path == NULL;
		values[4] = nulls[4] ? 0 : CStringGetTextDatum(e->bulk_path);
		nulls[5] = e->price == PRICE_UNKNOWN;
		values[5] = Int32GetDatum(e->price);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
