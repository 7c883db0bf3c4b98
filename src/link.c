/*-------------------------------------------------------------------------
 *
 * link.c
 *		Where the file is that has an answer's rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "json.h"
#include "link.h"

/* What varies with the place */
static const struct
{
	const char *operation;		/* that asks for the address */
	const char *argument;		/* its argument, by the name in the answer */
}			places[] =
{
	[ROWS_SEARCH] = {"search_download", "resource_handle_id"},
	[ROWS_WORKFLOW] = {"workflow_results", "run_id"},
};

static double
number_member(JsonbContainer *object, const char *name, double otherwise)
{
	JsonbValue	v;

	if (s64_json_member(object, name, &v) == NULL || v.type != jbvNumeric)
		return otherwise;
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											  NumericGetDatum(v.val.numeric)));
}

char *
s64_link_name(RowsPlace place, Jsonb *answer)
{
	return s64_json_name(&answer->root, places[place].argument);
}

ApiRequest *
s64_link_request(const Account *account, RowsPlace place, const char *name)
{
	return s64_request_make(account, s64_endpoint_find(places[place].operation),
							s64_request_argument(places[place].argument, name));
}

/* The file of the block that comes last; NULL if there is none */
static JsonbContainer *
last_file(Jsonb *files)
{
	JsonbContainer *last = NULL;
	double		last_number = -1;

	if (!JB_ROOT_IS_ARRAY(files) || JB_ROOT_IS_SCALAR(files))
		return NULL;
	for (int i = 0; i < (int) JB_ROOT_COUNT(files); i++)
	{
		JsonbValue *file = getIthJsonbValueFromContainer(&files->root, i);
		double		number;

		if (file->type != jbvBinary || !JsonContainerIsObject(file->val.binary.data))
			continue;
		number = number_member(file->val.binary.data, "block_number", 0);
		if (number >= last_number)
		{
			last = file->val.binary.data;
			last_number = number;
		}
	}
	return last;
}

/*
 * The rows in a file's entry, or its address; false if neither is there.  Of rows
 * that are not all the file is fetched.
 */
static bool
read_file(JsonbContainer *file, Link *link)
{
	double		count = number_member(file, "row_count", -1);
	JsonbValue	v;

	link->url = s64_json_text(file, "download_url");
	if (s64_json_member(file, "results", &v) != NULL && v.type == jbvBinary &&
		JsonContainerIsArray(v.val.binary.data) &&
		(link->url == NULL || JsonContainerSize(v.val.binary.data) >= count))
	{
		link->rows = JsonbValueToJsonb(&v);
		link->url = NULL;
	}
	return link->rows != NULL || link->url != NULL || count == 0;
}

bool
s64_link_read(RowsPlace place, Jsonb *answer, Link *link, const char **why)
{
	JsonbContainer *file;

	link->url = NULL;
	link->rows = NULL;
	if (place == ROWS_SEARCH)
	{
		link->url = s64_json_text(&answer->root, "url");
		*why = "It has no address of the file.";
		return link->url != NULL;
	}
	file = last_file(answer);
	*why = "It has neither the rows of the last block nor an address of their file.";
	return file == NULL ? JB_ROOT_COUNT(answer) == 0 : read_file(file, link);
}
