/*-------------------------------------------------------------------------
 *
 * csv.c
 *		Reads a CSV text as it comes in.
 *
 * COPY reads from a callback of ours, and gives the fields of each record raw.
 * Between the source and COPY the bytes go through a filter that knows no more
 * of CSV than whether a byte is inside quotes, which is a matter of counting
 * them.  It gives all lines the same end, and keeps COPY from taking a line
 * \. for the end of the text, as it does before PostgreSQL 18.  The encoding is
 * COPY's business: the bytes that matter to the filter are ASCII in every
 * encoding of a server.
 *
 * Lines are counted here, by records: COPY has read ahead when it fails, and
 * would count the lines of a quoted header wrong.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "commands/copy.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "utils/backend_progress.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "csv.h"

#define SOURCE_SIZE 16384		/* bytes that the source is asked for */
#define MAX_COLUMNS 65536		/* far more than a table may have */
#define BOM "\xEF\xBB\xBF"
#define BOM_LEN 3

struct CsvReader
{
	MemoryContext context;		/* of the reader */
	MemoryContext record;		/* of a record */
	Relation	rel;
	CopyFromState copy;

	/* source and filter */
	CsvSource	source;
	void	   *arg;
	ErrorContextCallback *outer;	/* what holds for the source's errors */
	bool		ended;			/* the source */
	int			pos;
	int			len;
	bool		at_start;		/* of a record */
	bool		in_quote;
	bool		after_cr;		/* which ended a line */
	int			guard;			/* quotes put before a backslash */
	bool		skip_bom;

	/* what was read */
	bool		done;			/* all */
	bool		has_header;
	int			ncolumns;
	char	  **names;
	char	  **fields;
	int64		line;			/* of the record ... */
	int64		next_line;		/* ... and of the one after it */

	char		raw[SOURCE_SIZE];
};

/* A name that stands in the header */
typedef struct HeaderName
{
	const char *name;
	int			next;			/* number to try for the next of that name */
} HeaderName;

/* The reader that COPY reads for; its callback has no argument. */
static CsvReader *active = NULL;

int
s64_csv_from_bytes(void *arg, char *buf, int max)
{
	CsvBytes   *bytes = arg;
	int			n = Min(bytes->len, (size_t) max);

	memcpy(buf, bytes->data, n);
	bytes->data += n;
	bytes->len -= n;
	return n;
}

/* Get more bytes of the source behind those that are there; false at its end. */
static bool
read_source(CsvReader *reader)
{
	ErrorContextCallback *ours = error_context_stack;
	int			n;

	if (reader->ended)
		return false;
	error_context_stack = reader->outer;
	CHECK_FOR_INTERRUPTS();
	n = reader->source(reader->arg, reader->raw + reader->len,
					   SOURCE_SIZE - reader->len);
	error_context_stack = ours;
	reader->ended = n == 0;
	reader->len += n;
	return n > 0;
}

/* Have a byte at hand; false at the end of the source. */
static bool
refill(CsvReader *reader)
{
	reader->pos = reader->len = 0;
	if (reader->skip_bom)
	{
		reader->skip_bom = false;
		while (reader->len < BOM_LEN && read_source(reader))
			 /* until there are enough bytes to tell */ ;
		if (reader->len >= BOM_LEN && memcmp(reader->raw, BOM, BOM_LEN) == 0)
			reader->pos = BOM_LEN;
		if (reader->pos < reader->len)
			return true;
		reader->pos = reader->len = 0;
	}
	return read_source(reader);
}

/*
 * Copy what is at hand to out, as far as end.  A backslash at the start of a
 * record gets an empty pair of quotes before it: to COPY the field is the same,
 * and the line is no longer \. alone.
 */
static char *
filter(CsvReader *reader, char *out, char *end)
{
	while (out < end && reader->pos < reader->len)
	{
		char		c = reader->raw[reader->pos];

		if (c == '\\' && reader->at_start && reader->guard < 2)
		{
			*out++ = '"';
			reader->guard++;
			continue;
		}
		reader->pos++;
		if (reader->after_cr)
		{
			reader->after_cr = false;
			if (c == '\n')
				continue;
		}
		if (c == '"')
			reader->in_quote = !reader->in_quote;
		else if (c == '\r' && !reader->in_quote)
		{
			reader->after_cr = true;
			c = '\n';
		}
		reader->at_start = c == '\n' && !reader->in_quote;
		reader->guard = 0;
		*out++ = c;
	}
	return out;
}

/* COPY's callback: at least minread bytes, fewer only at the end */
static int
give_bytes(void *outbuf, int minread, int maxread)
{
	CsvReader  *reader = active;
	char	   *out = outbuf;
	char	   *end = out + maxread;

	while (out < end)
	{
		if (reader->pos == reader->len &&
			(out - (char *) outbuf >= minread || !refill(reader)))
			break;
		out = filter(reader, out, end);
	}
	return out - (char *) outbuf;
}

/* What is wrong with the text is a fault of the service, wherever it is noticed. */
static void
say_line(void *arg)
{
	CsvReader  *reader = arg;
	int			code = geterrcode();

	if (code == ERRCODE_BAD_COPY_FILE_FORMAT ||
		code == ERRCODE_CHARACTER_NOT_IN_REPERTOIRE ||
		code == ERRCODE_UNTRANSLATABLE_CHARACTER)
		errcode(ERRCODE_PROTOCOL_VIOLATION);
	errcontext("CSV line %lld", (long long) reader->line);
}

CsvReader *
s64_csv_open(CsvSource source, void *arg, int encoding)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sixtyfour CSV",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CsvReader  *reader = palloc0(sizeof(CsvReader));
	List	   *options;

	reader->context = context;
	reader->record = AllocSetContextCreate(context, "sixtyfour CSV record",
										   ALLOCSET_DEFAULT_SIZES);
	reader->source = source;
	reader->arg = arg;
	reader->at_start = true;
	reader->skip_bom = encoding == PG_UTF8;
	reader->next_line = 1;

	/*
	 * COPY wants a relation with at least one column, and makes nothing of it
	 * when fields are read raw.  pg_class is always there, in every backend's
	 * cache, and whoever plans a query locks it as we do.  That COPY runs
	 * on it is not to be seen in pg_stat_progress_copy.
	 */
	reader->rel = table_open(RelationRelationId, AccessShareLock);
	options = list_make2(makeDefElem("format", (Node *) makeString("csv"), -1),
						 makeDefElem("encoding",
									 (Node *) makeString(pstrdup(pg_encoding_to_char(encoding))),
									 -1));
	reader->copy = BeginCopyFrom(NULL, reader->rel, NULL, NULL, false,
								 give_bytes, NIL, options);
	pgstat_progress_end_command();
	MemoryContextSwitchTo(old);
	return reader;
}

/* The lines that a record goes on for after its first: line ends in its fields */
static int64
count_lines(char **fields, int n)
{
	int64		lines = 0;

	for (int i = 0; i < n; i++)
	{
		const char *p = fields[i];

		while (p != NULL && (p = strpbrk(p, "\r\n")) != NULL)
		{
			p += p[0] == '\r' && p[1] == '\n' ? 2 : 1;
			lines++;
		}
	}
	return lines;
}

/* The next line as COPY gives it; false at the end */
static bool
read_line(CsvReader *reader, int *n)
{
	ErrorContextCallback callback;
	CsvReader  *others = active;
	bool		found;

	if (reader->done)
		return false;
	callback.callback = say_line;
	callback.arg = reader;
	callback.previous = reader->outer = error_context_stack;
	error_context_stack = &callback;
	active = reader;
	reader->line = reader->next_line;
	found = NextCopyFromRawFields(reader->copy, &reader->fields, n);
	active = others;
	error_context_stack = callback.previous;
	reader->done = !found;
	if (found)
		reader->next_line = reader->line + 1 + count_lines(reader->fields, *n);
	return found;
}

/* A field is NULL only if nothing stands there, not even quotes. */
static bool
is_blank(CsvReader *reader, int n)
{
	return n == 1 && reader->fields[0] == NULL;
}

static uint32
hash_name(const void *key, Size size)
{
	const char *name = *(const char *const *) key;

	return hash_bytes((const unsigned char *) name, strlen(name));
}

static int
compare_names(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Each name but the first of the same gets a number. */
static void
number_names(CsvReader *reader)
{
	HASHCTL		ctl = {0};
	HTAB	   *names;
	bool	   *again = palloc0(reader->ncolumns * sizeof(bool));
	HeaderName *entry;

	ctl.keysize = sizeof(const char *);
	ctl.entrysize = sizeof(HeaderName);
	ctl.hash = hash_name;
	ctl.match = compare_names;
	ctl.hcxt = CurrentMemoryContext;
	names = hash_create("sixtyfour CSV header", reader->ncolumns, &ctl,
						HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	for (int i = 0; i < reader->ncolumns; i++)
	{
		entry = hash_search(names, &reader->names[i], HASH_ENTER, &again[i]);
		if (!again[i])
			entry->next = 2;
	}
	for (int i = 0; i < reader->ncolumns; i++)
	{
		char	   *name;
		bool		taken = true;

		if (!again[i])
			continue;
		entry = hash_search(names, &reader->names[i], HASH_FIND, NULL);
		while (taken)
		{
			HeaderName *numbered;

			name = psprintf("%s_%d", reader->names[i], entry->next++);
			numbered = hash_search(names, &name, HASH_ENTER, &taken);
			if (!taken)
				numbered->next = 2;
		}
		reader->names[i] = name;
	}
	hash_destroy(names);
	pfree(again);
}

char **
s64_csv_header(CsvReader *reader, int *n)
{
	if (!reader->has_header)
	{
		MemoryContext old;
		bool		found;

		while ((found = read_line(reader, n)) && is_blank(reader, *n))
			CHECK_FOR_INTERRUPTS();
		if (found && *n > MAX_COLUMNS)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("CSV text has %d columns, more than %d", *n, MAX_COLUMNS)));
		old = MemoryContextSwitchTo(reader->context);
		reader->ncolumns = found ? *n : 0;
		reader->names = palloc(Max(reader->ncolumns, 1) * sizeof(char *));
		for (int i = 0; i < reader->ncolumns; i++)
			reader->names[i] = pstrdup(reader->fields[i] ? reader->fields[i] : "");
		if (found)
			number_names(reader);
		reader->has_header = true;
		MemoryContextSwitchTo(old);
	}
	*n = reader->ncolumns;
	return reader->names;
}

bool
s64_csv_next(CsvReader *reader, char ***fields)
{
	int			n;

	s64_csv_header(reader, &n);
	if (reader->ncolumns == 0)
		return false;
	MemoryContextReset(reader->record);
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (!read_line(reader, &n))
			return false;
	} while (is_blank(reader, n) && reader->ncolumns > 1);
	if (n != reader->ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg_plural("line %lld of the CSV text has %d field instead of %d",
							   "line %lld of the CSV text has %d fields instead of %d",
							   n, (long long) reader->line, n, reader->ncolumns)));
	*fields = reader->fields;
	return true;
}

Jsonb *
s64_csv_row(CsvReader *reader)
{
	MemoryContext old = MemoryContextSwitchTo(reader->record);
	JsonbInState state = {0};
	JsonbValue	v;
	Jsonb	   *row;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < reader->ncolumns; i++)
	{
		v.type = jbvString;
		v.val.string.val = reader->names[i];
		v.val.string.len = strlen(reader->names[i]);
		pushJsonbValue(&state, WJB_KEY, &v);
		v.val.string.val = reader->fields[i];
		if (reader->fields[i] == NULL)
			v.type = jbvNull;
		else
			v.val.string.len = strlen(reader->fields[i]);
		pushJsonbValue(&state, WJB_VALUE, &v);
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	row = JsonbValueToJsonb(state.result);
	MemoryContextSwitchTo(old);
	return row;
}

int64
s64_csv_line(CsvReader *reader)
{
	return reader->line;
}

void
s64_csv_close(CsvReader *reader)
{
	EndCopyFrom(reader->copy);
	table_close(reader->rel, AccessShareLock);
	MemoryContextDelete(reader->context);
}
