/*-------------------------------------------------------------------------
 *
 * encoding.c
 *		Between the service's UTF-8 and the database's encoding.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "encoding.h"

#define UTF8_BOM "\xEF\xBB\xBF"

char *
s64_encoding_to_utf8(const char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

bool
s64_encoding_has_utf8(const char *text)
{
	int			len = strlen(text);
	Size		room = (Size) len * MAX_CONVERSION_GROWTH + 1;
	Oid			conversion;

	if (GetDatabaseEncoding() == PG_UTF8)
		return true;
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
		return pg_verify_mbstr(PG_UTF8, text, len, true);
	conversion = FindDefaultConversionProc(GetDatabaseEncoding(), PG_UTF8);
	return OidIsValid(conversion) &&
		pg_do_encoding_conversion_buf(conversion, GetDatabaseEncoding(), PG_UTF8,
									  (unsigned char *) text, len,
									  palloc(room), room, true) == len;
}

static void
append_escaped(StringInfo buf, unsigned char c)
{
	if (c == '\n' || c == '\t' || (c >= ' ' && c <= '~'))
		appendStringInfoChar(buf, c);
	else
		appendStringInfo(buf, "\\x%02x", c);
}

/* Append a valid UTF-8 character, converted if that can be done. */
static void
append_character(StringInfo buf, const char *c, int len, Oid conversion)
{
	unsigned char converted[MAX_CONVERSION_GROWTH * MAX_MULTIBYTE_CHAR_LEN + 1];

	if (GetDatabaseEncoding() == PG_UTF8)
		appendBinaryStringInfo(buf, c, len);
	else if (OidIsValid(conversion) &&
			 pg_do_encoding_conversion_buf(conversion, PG_UTF8,
										   GetDatabaseEncoding(),
										   (unsigned char *) c, len,
										   converted, sizeof(converted),
										   true) == len)
		appendStringInfoString(buf, (char *) converted);
	else
	{
		for (int i = 0; i < len; i++)
			append_escaped(buf, c[i]);
	}
}

char *
s64_encoding_display(const char *bytes, size_t len, size_t cap)
{
	Oid			conversion = InvalidOid;
	const char *end = bytes + Min(len, cap);
	StringInfoData buf;

	/* conversions are found in a catalog */
	if (GetDatabaseEncoding() != PG_UTF8 && IsTransactionState())
		conversion = FindDefaultConversionProc(PG_UTF8, GetDatabaseEncoding());

	initStringInfo(&buf);
	while (bytes < end)
	{
		unsigned char c = *bytes;
		int			n = IS_HIGHBIT_SET(c) ? pg_utf_mblen((unsigned char *) bytes) : 1;

		if (n == 1 || n > end - bytes ||
			!pg_utf8_islegal((unsigned char *) bytes, n))
		{
			append_escaped(&buf, c);
			n = 1;
		}
		else
			append_character(&buf, bytes, n, conversion);
		bytes += n;
	}
	if (len > cap)
		appendStringInfo(&buf, " ... (%zu bytes in all)", len);
	return buf.data;
}

/* What a caught error says, as a sentence */
static char *
describe_error(const ErrorData *edata)
{
	const char *text = edata->detail ? edata->detail : edata->message;
	size_t		len = strlen(text);

	return psprintf("%s%s", text, len > 0 && text[len - 1] == '.' ? "" : ".");
}

Jsonb *
s64_encoding_read_json(char *text, size_t len, char **why)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *volatile start = text;
	Jsonb	   *volatile json = NULL;

	*why = NULL;
	if (memchr(text, '\0', len) != NULL)
	{
		*why = "It contains a NUL byte.";
		return NULL;
	}
	if (strncmp(text, UTF8_BOM, strlen(UTF8_BOM)) == 0)
		start += strlen(UTF8_BOM);

	PG_TRY();
	{
		char	   *converted = pg_any_to_server(start, strlen(start), PG_UTF8);

		json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												  CStringGetDatum(converted)));
	}
	PG_CATCH();
	{
		ErrorData  *edata;
		int			category;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);
		/* the last: there is no conversion for a database in SQL_ASCII */
		if (category != ERRCODE_DATA_EXCEPTION &&
			category != ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
			category != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		FlushErrorState();
		*why = describe_error(edata);
	}
	PG_END_TRY();

	return json;
}
