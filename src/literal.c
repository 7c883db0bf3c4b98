/*-------------------------------------------------------------------------
 *
 * literal.c
 *		Reads lists and objects that arrive as text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "compat.h"
#include "literal.h"

#define MAX_DEPTH 64

typedef struct Scanner
{
	const char *p;
	const char *end;
	int			depth;
	JsonbInState state;
} Scanner;

static bool read_value(Scanner *s, JsonbIteratorToken token);

static void
skip_space(Scanner *s)
{
	while (s->p < s->end && strchr(" \t\r\n", *s->p) != NULL && *s->p != '\0')
		s->p++;
}

/* Is c next?  Then go past it. */
static bool
accept(Scanner *s, char c)
{
	skip_space(s);
	if (s->p >= s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

/* n hexadecimal digits; -1 if they are not there */
static int
read_hex(Scanner *s, int n)
{
	int			value = 0;

	for (int i = 0; i < n; i++)
	{
		const char *digits = "0123456789abcdef";
		const char *found;

		if (s->p >= s->end || *s->p == '\0' ||
			(found = strchr(digits, pg_tolower((unsigned char) *s->p++))) == NULL)
			return -1;
		value = value * 16 + (int) (found - digits);
	}
	return value;
}

/* The code point of \u and four digits, its second half included; -1 if there is none */
static int
read_unicode(Scanner *s)
{
	int			first = read_hex(s, 4);
	int			second;

	if (first < 0 || !is_utf16_surrogate_first(first))
		return first < 0 || is_utf16_surrogate_second(first) ? -1 : first;
	if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
		return -1;
	s->p += 2;
	second = read_hex(s, 4);
	if (second < 0 || !is_utf16_surrogate_second(second))
		return -1;
	return surrogate_pair_to_codepoint(first, second);
}

/* What stands behind a backslash */
static bool
read_escape(Scanner *s, StringInfo buf)
{
	static const char from[] = "bfnrt\"'\\/";
	static const char to[] = "\b\f\n\r\t\"'\\/";
	char		c;
	const char *found;
	int			code;
	unsigned char utf8[5] = {0};

	if (s->p >= s->end || *s->p == '\0')
		return false;
	c = *s->p++;
	if ((found = strchr(from, c)) != NULL)
	{
		appendStringInfoChar(buf, to[found - from]);
		return true;
	}
	if (c != 'u' && c != 'x')
		return false;
	code = c == 'u' ? read_unicode(s) : read_hex(s, 2);
	/* other encodings than UTF-8 may lack the character */
	if (code <= 0 || (code > 127 && GetDatabaseEncoding() != PG_UTF8))
		return false;
	unicode_to_utf8(code, utf8);
	appendBinaryStringInfo(buf, (char *) utf8, pg_utf_mblen(utf8));
	return true;
}

static bool
push(Scanner *s, JsonbIteratorToken token, JsonbValue *v)
{
	pushJsonbValue(&s->state, token, v);
	return true;
}

/* A text in the quotes that s stands at */
static bool
read_text(Scanner *s, JsonbIteratorToken token)
{
	StringInfoData buf;
	char		quote = *s->p++;
	JsonbValue	v;

	initStringInfo(&buf);
	while (s->p < s->end && *s->p != quote)
	{
		char		c = *s->p++;

		if (c != '\\')
			appendStringInfoChar(&buf, c);
		else if (!read_escape(s, &buf))
			return false;
	}
	if (s->p >= s->end)
		return false;
	s->p++;
	v.type = jbvString;
	v.val.string.val = buf.data;
	v.val.string.len = buf.len;
	return push(s, token, &v);
}

/* A number, or one of the words */
static bool
read_word(Scanner *s, JsonbIteratorToken token)
{
	const char *start = s->p;
	char	   *word;
	JsonbValue	v;

	while (s->p < s->end && (isalnum((unsigned char) *s->p) || strchr("+-._", *s->p)) &&
		   *s->p != '\0')
		s->p++;
	word = pnstrdup(start, s->p - start);
	if (token == WJB_KEY)
		return false;
	if (pg_strcasecmp(word, "true") == 0 || pg_strcasecmp(word, "false") == 0)
	{
		v.type = jbvBool;
		v.val.boolean = pg_tolower((unsigned char) *word) == 't';
	}
	else if (strcmp(word, "null") == 0 || strcmp(word, "None") == 0)
		v.type = jbvNull;
	else if (s64_literal_is_number(word))
	{
		v.type = jbvNumeric;
		v.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(word),
															ObjectIdGetDatum(InvalidOid),
															Int32GetDatum(-1)));
	}
	else
		return false;
	return push(s, token, &v);
}

/* The members of a list or object, up to its end */
static bool
read_members(Scanner *s, bool object)
{
	char		end = object ? '}' : ']';

	if (accept(s, end))
		return true;
	for (;;)
	{
		if (object && (!read_value(s, WJB_KEY) || !accept(s, ':')))
			return false;
		if (!read_value(s, object ? WJB_VALUE : WJB_ELEM))
			return false;
		if (accept(s, end))
			return true;
		if (!accept(s, ','))
			return false;
		if (accept(s, end))		/* Python allows a comma there */
			return true;
	}
}

static bool
read_container(Scanner *s, bool object)
{
	if (++s->depth > MAX_DEPTH)
		return false;
	push(s, object ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY, NULL);
	if (!read_members(s, object))
		return false;
	s->depth--;
	return push(s, object ? WJB_END_OBJECT : WJB_END_ARRAY, NULL);
}

static bool
read_value(Scanner *s, JsonbIteratorToken token)
{
	skip_space(s);
	if (s->p >= s->end)
		return false;
	if (*s->p == '"' || *s->p == '\'')
		return read_text(s, token);
	if (token != WJB_KEY && accept(s, '['))
		return read_container(s, false);
	if (token != WJB_KEY && accept(s, '{'))
		return read_container(s, true);
	return read_word(s, token);
}

bool
s64_literal_is_number(const char *text)
{
	const char *p = text + strspn(text, "+-");
	size_t		digits = strspn(p, "0123456789");

	if (p - text > 1 || digits == 0 || digits > 1000)
		return false;
	p += digits;
	if (*p == '.')
	{
		digits = strspn(++p, "0123456789");
		if (digits == 0 || digits > 1000)
			return false;
		p += digits;
	}
	return *p == '\0';
}

Jsonb *
s64_literal_read(const char *text, size_t len)
{
	Scanner		s = {0};

	s.p = text;
	s.end = text + len;
	skip_space(&s);
	if (s.p >= s.end || (*s.p != '[' && *s.p != '{') || !read_value(&s, WJB_ELEM))
		return NULL;
	skip_space(&s);
	return s.p == s.end ? JsonbValueToJsonb(s.state.result) : NULL;
}
