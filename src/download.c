/*-------------------------------------------------------------------------
 *
 * download.c
 *		Fetches the file behind a signed address.
 *
 * The temporary file is one of fd.c's that outlives transactions; fd.c deletes it
 * when it is closed, at the latest with the process.  buffile.c is not used on top
 * of it: BufFileClose() writes what is buffered, so it may raise an error, which
 * must not happen where a memory context is reset.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "compat.h"
#include "download.h"
#include "encoding.h"
#include "http.h"
#include "outcome.h"

#define URL_MAX			16384	/* bytes of an address */
#define CHUNK_SIZE		(64 * 1024)
#define SAID_MAX		1024	/* bytes of an error message shown */
#define WHAT			"could not download the results"

struct Download
{
	MemoryContext context;		/* the download is in it */
	char	   *url;			/* a secret, as it is signed */
	char	   *api_key;
	HttpTransfer *transfer;		/* NULL once nothing more is wanted of it */
	DownloadState state;
	Failure		failure;		/* of DOWNLOAD_FAILED */
	bool		opened;			/* the head has come, and is good */

	File		file;			/* 0: none */
	off_t		written;		/* bytes */
	off_t		read;			/* bytes by s64_download_spooled() */
	char	   *chunk;			/* on its way into the file */
};

/* ---- beginnings ---- */

/*
 * The memory context is reset or deleted.  Does not raise: fd.c only logs what
 * goes wrong.
 */
static void
close_file(void *arg)
{
	Download   *d = arg;

	if (d->file > 0)
		FileClose(d->file);
	d->file = 0;
}

static Download *
make_download(const Account *account, const char *url)
{
	Download   *d = palloc0(sizeof(Download));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

	d->context = CurrentMemoryContext;
	d->state = DOWNLOAD_RUNNING;
	d->url = pstrdup(url);
	/* http.c tells schemes apart by small letters */
	for (char *p = d->url; isalpha((unsigned char) *p); p++)
		*p = pg_tolower((unsigned char) *p);
	d->api_key = pstrdup(account->api_key);
	callback->func = close_file;
	callback->arg = d;
	MemoryContextRegisterResetCallback(d->context, callback);
	return d;
}

/* What is wrong with an address, as a sentence; NULL if it is good */
static const char *
find_fault(const char *url, const Account *account)
{
	if (strlen(url) > URL_MAX)
		return "The address that the service gave is too long.";
	if (!s64_http_is_url(url))
		return "The address that the service gave is no http or https URL, or has a user or password.";
	if (strncmp(url, "http://", 7) == 0 && strncmp(account->base_url, "https://", 8) == 0)
		return "The address that the service gave is http, where the service itself is https.";
	return NULL;
}

static HttpRequest
make_request(const Download *d, const Account *account)
{
	HttpRequest request = {0};

	request.method = "GET";
	request.url = d->url;
	request.stream = true;
	if (s64_http_same_origin(d->url, account->base_url))
		request.api_key = account->api_key;
	request.connect_timeout = account->connect_timeout;
	request.timeout = account->timeout;

	/* not sixtyfour.max_response_size, which is about what memory must hold */
	request.max_response = SIZE_MAX;
	request.ca_file = account->ca_file;
	request.proxy = account->proxy;
	return request;
}

/* ---- ends ---- */

static void
drop_transfer(Download *d)
{
	if (d->transfer != NULL)
		s64_http_finish(d->transfer);
	d->transfer = NULL;
}

static void
fail(Download *d, int sqlstate, const char *message, const char *detail)
{
	drop_transfer(d);
	d->state = DOWNLOAD_FAILED;
	d->failure = (Failure) {sqlstate, message, detail, NULL};
}

/*
 * An error is being raised here.  The transfer is aborted now, as the memory
 * context may outlive the error (a cursor's does), and nobody would read on.
 */
static void
give_up(Download *d)
{
	fail(d, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
		 WHAT ": the download was given up after an error", NULL);
}

/* Decode %XX in place. */
static void
percent_decode(char *text)
{
	char	   *to = text;
	unsigned int byte;

	for (const char *from = text; *from; from++)
	{
		if (from[0] == '%' && isxdigit((unsigned char) from[1]) &&
			isxdigit((unsigned char) from[2]) && sscanf(from + 1, "%2x", &byte) == 1)
		{
			*to++ = (char) byte;
			from += 2;
		}
		else
			*to++ = *from;
	}
	*to = '\0';
}

/*
 * Foreign words for people, without the key and what is signed: an error of a
 * storage may repeat the query of the address, or its values.  Changes the words.
 */
static char *
display(const Download *d, char *words, size_t len, bool cut)
{
	char	   *query = strchr(d->url, '?');

	s64_outcome_blot_out(words, len, d->api_key, cut);
	if (query != NULL)
	{
		query = pstrdup(query + 1);
		s64_outcome_blot_out(words, len, query, cut);
	}
	for (char *rest = query, *parameter; (parameter = strsep(&rest, "&#")) != NULL;)
	{
		char	   *value = strchr(parameter, '=');

		value = value ? value + 1 : parameter;
		s64_outcome_blot_out(words, len, value, cut);
		percent_decode(value);
		s64_outcome_blot_out(words, len, value, cut);
	}
	return s64_encoding_display(words, len, SAID_MAX);
}

static OutcomeKind
kind_of_end(const HttpReply *reply)
{
	/* an error is one, though its text be cut */
	if (reply->status >= 500)
		return OUTCOME_SERVICE_FAILED;
	if (reply->status >= 400)
		return OUTCOME_REFUSED;
	if (reply->status >= 300)
		return OUTCOME_REDIRECTED;
	switch (reply->end)
	{
		case HTTP_ANSWERED:
			return reply->status >= 200 ? OUTCOME_ANSWER : OUTCOME_LOST;
		case HTTP_NO_CONNECTION:
			return OUTCOME_NO_CONNECTION;
		case HTTP_LOST:
			return OUTCOME_LOST;
		case HTTP_TIMED_OUT:
			return OUTCOME_TIMED_OUT;
		default:
			return OUTCOME_FAILED;
	}
}

/* What became of the transfer, in the download's memory */
static Outcome
read_outcome(const Download *d)
{
	const HttpReply *reply = s64_http_reply(d->transfer);
	Outcome		outcome = {0};

	outcome.kind = kind_of_end(reply);
	outcome.billing = BILLING_NONE;
	outcome.status = reply->status;
	outcome.elapsed = reply->elapsed;
	if (reply->status >= 300 && reply->body_len > 0)
		outcome.said = display(d, reply->body, reply->body_len,
							   reply->end != HTTP_ANSWERED);
	else if (reply->status < 300 && reply->end != HTTP_ANSWERED)
	{
		/* what broke off is told, not the status that it began with */
		outcome.said = display(d, pstrdup(reply->error), strlen(reply->error), false);
		outcome.status = 0;
	}
	return outcome;
}

/* The transfer has ended, and all that came of a file has been read. */
static void
conclude(Download *d)
{
	MemoryContext caller = MemoryContextSwitchTo(d->context);
	Outcome		outcome = read_outcome(d);

	s64_report_log(&outcome, "download");
	drop_transfer(d);
	if (outcome.kind == OUTCOME_ANSWER)
		d->state = DOWNLOAD_DONE;
	else
	{
		d->state = DOWNLOAD_FAILED;
		d->failure = s64_report_read(&outcome, WHAT);
		/* the file may be somebody else's, who knows nothing of our options */
		if (outcome.status >= 300)
			d->failure.sqlstate = ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
		if (outcome.kind == OUTCOME_REDIRECTED)
			d->failure.hint = NULL;
		else if (outcome.kind == OUTCOME_NO_CONNECTION)
			d->failure.hint = "Check the network, and options \"ca_file\" and \"proxy\" of the server.";
	}
	MemoryContextSwitchTo(caller);
}

/* ---- what both ways of reading have in common ---- */

/* What is wrong with the head of a 2xx, as a sentence; NULL if it is good */
static const char *
find_fault_in_head(const HttpTransfer *transfer)
{
	const char *encoding;

	if (s64_http_status(transfer) == 206)
		return "It is a part of the file, which was not asked for.";
	encoding = s64_http_header(transfer, "Content-Encoding");
	if (encoding != NULL && pg_strcasecmp(encoding, "identity") != 0)
		return "It is compressed, which was not asked for.";

	/* such an answer ends where the connection does, for whatever reason */
	if (s64_http_header(transfer, "Content-Length") == NULL &&
		s64_http_header(transfer, "Transfer-Encoding") == NULL)
		return "It does not say how long it is, so that a part could pass for the whole.";
	return NULL;
}

static bool
is_expired(int status)
{
	return status == 400 || status == 403 || status == 404 || status == 410;
}

/* See whether the head has come. */
static void
look_at_head(Download *d)
{
	int			status;
	const char *fault;

	if (d->opened || d->state != DOWNLOAD_RUNNING)
		return;
	status = s64_http_status(d->transfer);
	if (is_expired(status))
	{
		drop_transfer(d);
		d->state = DOWNLOAD_EXPIRED;
	}
	else if (status / 100 == 2)
	{
		fault = find_fault_in_head(d->transfer);
		if (fault != NULL)
			fail(d, ERRCODE_PROTOCOL_VIOLATION,
				 WHAT ": the service's answer cannot be read", fault);
		d->opened = fault == NULL;
	}
	else if (s64_http_ended(d->transfer))
		conclude(d);
}

/* The next bytes of the file; 0 if there are none now, or never more. */
static size_t
read_buffered(Download *d, char *buf, size_t max)
{
	size_t		n;

	if (!d->opened || d->state != DOWNLOAD_RUNNING)
		return 0;
	n = s64_http_read(d->transfer, buf, max);
	if (n == 0 && s64_http_ended(d->transfer))
		conclude(d);
	return n;
}

Download *
s64_download_start(const Account *account, const char *url)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sixtyfour download",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Download   *d = make_download(account, url);
	const char *fault = find_fault(d->url, account);
	HttpRequest request;

	if (fault != NULL)
		fail(d, ERRCODE_PROTOCOL_VIOLATION,
			 WHAT ": the service gave an address that is not to be used", fault);
	else
	{
		request = make_request(d, account);
		d->transfer = s64_http_start(&request);
	}
	MemoryContextSwitchTo(caller);
	return d;
}

void
s64_download_finish(Download *d)
{
	/* the transfer and the file go by their callbacks */
	MemoryContextDelete(d->context);
}

/* ---- in a session ---- */

static void
wait_for_more(Download *d)
{
	PG_TRY();
	{
		CHECK_FOR_INTERRUPTS();
		s64_http_set_aside();
		s64_http_wait(-1);
	}
	PG_CATCH();
	{
		give_up(d);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

bool
s64_download_open(Download *d)
{
	for (;;)
	{
		look_at_head(d);
		if (d->state == DOWNLOAD_EXPIRED)
			return false;
		if (d->state == DOWNLOAD_FAILED)
			s64_report_failure(&d->failure);
		if (d->opened)
			return true;
		wait_for_more(d);
	}
}

int
s64_download_read(void *download, char *buf, int max)
{
	Download   *d = download;

	if (!s64_download_open(d))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg(WHAT ": their address has expired")));
	for (;;)
	{
		int			n = (int) read_buffered(d, buf, max);

		if (n > 0 || d->state == DOWNLOAD_DONE)
			return n;
		if (d->state == DOWNLOAD_FAILED)
			s64_report_failure(&d->failure);
		wait_for_more(d);
	}
}

/* ---- in a background process ---- */

/* Append n bytes of the chunk to the temporary file, which is made if need be. */
static void
write_chunk(Download *d, size_t n)
{
	size_t		done = 0;

	if (d->file <= 0)
		d->file = OpenTemporaryFile(true);
	while (done < n)
	{
		int			written = FileWrite(d->file, d->chunk + done, (int) (n - done),
										d->written, WAIT_EVENT_BUFFILE_WRITE);

		if (written <= 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write to file \"%s\": %m",
							FilePathName(d->file))));
		done += written;
		d->written += written;
	}
}

/*
 * Move to the temporary file what is buffered.  That is a bounded amount: what
 * libcurl delivers in between is no more than it has kept.
 */
static void
spool(Download *d)
{
	size_t		n;

	if (d->chunk == NULL)
		d->chunk = MemoryContextAlloc(d->context, CHUNK_SIZE);
	PG_TRY();
	{
		while ((n = read_buffered(d, d->chunk, CHUNK_SIZE)) > 0)
			write_chunk(d, n);
	}
	PG_CATCH();
	{
		give_up(d);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

DownloadState
s64_download_poll(Download *d, Failure *failure)
{
	look_at_head(d);
	if (d->opened && d->state == DOWNLOAD_RUNNING)
		spool(d);
	if (d->state == DOWNLOAD_FAILED)
		*failure = d->failure;
	return d->state;
}

int
s64_download_spooled(void *download, char *buf, int max)
{
	Download   *d = download;
	off_t		left = d->written - d->read;
	int			n;

	Assert(d->state == DOWNLOAD_DONE);
	if (left == 0)
		return 0;
	n = FileRead(d->file, buf, (int) Min((off_t) max, left),
				 d->read, WAIT_EVENT_BUFFILE_READ);
	if (n < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", FilePathName(d->file))));
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not read file \"%s\": it is too short",
						FilePathName(d->file))));
	d->read += n;
	return n;
}

void
s64_download_rewind(Download *d)
{
	d->read = 0;
}
