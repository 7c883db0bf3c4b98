/*-------------------------------------------------------------------------
 *
 * dataframe.c
 *		Queries to CSV texts, and CSV texts to rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

#include "compat.h"
#include "csv.h"

S64_FUNCTION(sixtyfour_csv);
S64_FUNCTION(sixtyfour_csv_rows);
S64_FUNCTION(sixtyfour_csv_rows_of_bytes);
S64_FUNCTION(sixtyfour_dataframe_rows);

/* What makes a CSV text of the rows that a query sends to it, one by one */
typedef struct CsvWriter
{
	DestReceiver pub;
	StringInfoData text;		/* room for a varlena header, then the text */
	MemoryContext row;			/* of a row */
	int			ncolumns;
	FmgrInfo   *output;			/* of each column's type */
} CsvWriter;

/* The service answers enrich-dataframe in one of these, the first that is there. */
static const char *const members[] = {"csv_data", "csv", "data", "result", "rows", "results"};

/* Append n bytes, quotes doubled. */
static void
append_bytes(StringInfo text, const char *bytes, size_t n)
{
	const char *end = bytes + n;
	const char *quote;

	while ((quote = memchr(bytes, '"', end - bytes)) != NULL)
	{
		appendBinaryStringInfo(text, bytes, quote + 1 - bytes);
		appendStringInfoChar(text, '"');
		bytes = quote + 1;
	}
	appendBinaryStringInfo(text, bytes, end - bytes);
}

/* Append a field and what ends it; NULL is nothing at all. */
static void
append_field(StringInfo text, const char *field, char end)
{
	size_t		len = field ? strlen(field) : 0;
	size_t		needed = len + 1;
	bool		quoted = field && (len == 0 || strpbrk(field, ",\"\r\n") != NULL);

	if (quoted)
	{
		needed += 2;
		for (const char *p = field; (p = strchr(p, '"')) != NULL; p++)
			needed++;
	}
	if (needed >= MaxAllocSize - text->len)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("CSV text of the query would be larger than 1 GB"),
				 errhint("Make several of fewer rows.")));
	if (quoted)
	{
		appendStringInfoChar(text, '"');
		append_bytes(text, field, len);
		appendStringInfoChar(text, '"');
	}
	else if (field)
		appendBinaryStringInfo(text, field, len);
	appendStringInfoChar(text, end);
}

static char
end_of_field(const CsvWriter *writer, int i)
{
	return i == writer->ncolumns - 1 ? '\n' : ',';
}

/* The query begins: the header */
static void
begin_rows(DestReceiver *self, int operation, TupleDesc desc)
{
	CsvWriter  *writer = (CsvWriter *) self;

	if (desc->natts == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("query for a CSV text has no columns")));
	writer->ncolumns = desc->natts;
	writer->output = palloc(desc->natts * sizeof(FmgrInfo));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Oid			function;
		bool		varlena;

		getTypeOutputInfo(att->atttypid, &function, &varlena);
		fmgr_info(function, &writer->output[i]);
		append_field(&writer->text, NameStr(att->attname), end_of_field(writer, i));
	}
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	CsvWriter  *writer = (CsvWriter *) self;
	MemoryContext old = MemoryContextSwitchTo(writer->row);

	slot_getallattrs(slot);
	for (int i = 0; i < writer->ncolumns; i++)
		append_field(&writer->text,
					 slot->tts_isnull[i] ? NULL :
					 OutputFunctionCall(&writer->output[i], slot->tts_values[i]),
					 end_of_field(writer, i));
	MemoryContextSwitchTo(old);
	MemoryContextReset(writer->row);
	return true;
}

static void
end_rows(DestReceiver *self)
{
}

/* Does a query lock rows, anywhere? */
static bool
locks_rows(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return ((Query *) node)->rowMarks != NIL ||
			query_tree_walker((Query *) node, locks_rows, context, 0);
	return expression_tree_walker(node, locks_rows, context);
}

/* The plan of one SELECT that writes nothing */
static SPIPlanPtr
prepare_query(const char *text)
{
	SPIPlanPtr	plan = SPI_prepare(text, 0, NULL);
	List	   *sources;
	CachedPlanSource *source;
	Query	   *query;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	sources = SPI_plan_get_plan_sources(plan);
	if (list_length(sources) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("query for a CSV text must be one statement")));
	source = linitial(sources);
	query = source->query_list == NIL ? NULL : linitial_node(Query, source->query_list);
	if (query == NULL || query->commandType != CMD_SELECT ||
		query->hasModifyingCTE || locks_rows((Node *) query, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("query for a CSV text must be a SELECT that changes and locks nothing")));
	return plan;
}

/*
 * The rows go from the executor into the text, so none but the current one is
 * kept.  The query sees what the calling one sees.
 */
Datum
sixtyfour_csv(PG_FUNCTION_ARGS)
{
	char	   *query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	CsvWriter	writer = {0};
	SPIExecuteOptions options = {0};
	int			result;

	writer.pub.rStartup = begin_rows;
	writer.pub.receiveSlot = receive_row;
	writer.pub.rShutdown = end_rows;
	writer.pub.rDestroy = end_rows;
	writer.pub.mydest = DestTuplestore; /* to SPI none would be no SELECT */
	writer.row = AllocSetContextCreate(CurrentMemoryContext, "sixtyfour CSV row",
									   ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&writer.text);
	appendStringInfoSpaces(&writer.text, VARHDRSZ);

	SPI_connect();
	options.read_only = true;
	options.must_return_tuples = true;
	options.dest = &writer.pub;
	result = SPI_execute_plan_extended(prepare_query(query), &options);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_plan_extended failed: %s",
			 SPI_result_code_string(result));
	SPI_finish();

	SET_VARSIZE(writer.text.data, writer.text.len);
	PG_RETURN_TEXT_P(writer.text.data);
}

static void
put_row(ReturnSetInfo *rsinfo, Jsonb *row)
{
	Datum		value = JsonbPGetDatum(row);
	bool		isnull = false;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
}

/* Return the rows of a CSV text. */
static void
put_csv(ReturnSetInfo *rsinfo, const char *data, size_t len, int encoding)
{
	CsvBytes	bytes = {data, len};
	CsvReader  *reader = s64_csv_open(s64_csv_from_bytes, &bytes, encoding);
	char	  **fields;

	while (s64_csv_next(reader, &fields))
		put_row(rsinfo, s64_csv_row(reader));
	s64_csv_close(reader);
}

Datum
sixtyfour_csv_rows(PG_FUNCTION_ARGS)
{
	text	   *csv = PG_GETARG_TEXT_PP(0);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	put_csv((ReturnSetInfo *) fcinfo->resultinfo, VARDATA_ANY(csv),
			VARSIZE_ANY_EXHDR(csv), GetDatabaseEncoding());
	return (Datum) 0;
}

/* The same of bytes, such as a file's, which are UTF-8 */
Datum
sixtyfour_csv_rows_of_bytes(PG_FUNCTION_ARGS)
{
	bytea	   *csv = PG_GETARG_BYTEA_PP(0);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	put_csv((ReturnSetInfo *) fcinfo->resultinfo, VARDATA_ANY(csv),
			VARSIZE_ANY_EXHDR(csv), PG_UTF8);
	return (Datum) 0;
}

/* Return a list of objects; false if it is something else. */
static bool
put_list(ReturnSetInfo *rsinfo, JsonbContainer *list)
{
	JsonbIterator *it = JsonbIteratorInit(list);
	JsonbValue	v;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		Jsonb	   *row;

		if (token != WJB_ELEM)
			continue;
		if (v.type != jbvBinary || !JsonContainerIsObject(v.val.binary.data))
			return false;
		row = JsonbValueToJsonb(&v);
		put_row(rsinfo, row);
		pfree(row);
	}
	return true;
}

/* Return the rows that a value is, as CSV or as a list; false if it is neither. */
static bool
put_value(ReturnSetInfo *rsinfo, const JsonbValue *v)
{
	if (v->type == jbvString)
	{
		put_csv(rsinfo, v->val.string.val, v->val.string.len, GetDatabaseEncoding());
		return true;
	}
	return v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data) &&
		!JsonContainerIsScalar(v->val.binary.data) &&
		put_list(rsinfo, v->val.binary.data);
}

/* Of an answer, whatever of the known forms it has; false if it has none */
static bool
put_answer(ReturnSetInfo *rsinfo, Jsonb *answer)
{
	JsonbValue	v;

	if (JB_ROOT_IS_SCALAR(answer))
		return JsonbExtractScalar(&answer->root, &v) && put_value(rsinfo, &v);
	if (JB_ROOT_IS_ARRAY(answer))
		return put_list(rsinfo, &answer->root);
	for (size_t i = 0; i < lengthof(members); i++)
	{
		if (getKeyJsonValueFromContainer(&answer->root, members[i],
										 strlen(members[i]), &v) != NULL &&
			v.type != jbvNull)
			return put_value(rsinfo, &v);
	}
	return false;
}

Datum
sixtyfour_dataframe_rows(PG_FUNCTION_ARGS)
{
	Jsonb	   *answer = PG_GETARG_JSONB_P(0);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (!put_answer((ReturnSetInfo *) fcinfo->resultinfo, answer))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("answer has no rows that can be read"),
				 errdetail("It is neither a CSV text nor a list of objects, and has neither as \"csv_data\", \"csv\", \"data\", \"result\", \"rows\" or \"results\".")));
	return (Datum) 0;
}
