/*-------------------------------------------------------------------------
 *
 * http.h
 *		libcurl made to behave in a backend: start, wait, next, finish.
 *
 * A process has one pool of connections, opened at its first transfer.  Any
 * number of transfers run at the same time; nothing ever blocks but
 * s64_http_wait(), and that one wakes for the process latch.
 *
 *		t = s64_http_start(&request);
 *		while (s64_http_next() == NULL)
 *		{
 *			s64_http_wait(-1);
 *			CHECK_FOR_INTERRUPTS();
 *		}
 *		... use s64_http_reply(t) ...
 *		s64_http_finish(t);
 *
 * A body that may be larger than memory is streamed: the request says so, and
 * the answer is read while it comes, through a buffer of bounded size.
 *
 *		t = s64_http_start(&request);
 *		for (;;)
 *		{
 *			while ((n = s64_http_read(t, buf, sizeof(buf))) > 0)
 *				... use n bytes ...
 *			if (s64_http_ended(t))
 *				break;
 *			s64_http_wait(-1);
 *			CHECK_FOR_INTERRUPTS();
 *		}
 *		... see in s64_http_reply(t) whether that was all of it ...
 *		s64_http_finish(t);
 *
 * When the buffer is full the transfer pauses, and the service cannot send more,
 * until the reader has emptied it.
 *
 * A transfer belongs to the memory context that is current when it is
 * started.  If the context goes away first, as it does when an error is
 * thrown, the transfer is aborted with it and its connection closed; the
 * pool's other connections stay.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_HTTP_H
#define S64_HTTP_H

typedef struct HttpTransfer HttpTransfer;

typedef struct HttpRequest
{
	const char *method;			/* GET, POST, PATCH, PUT or DELETE */
	const char *url;			/* http:// or https://, ASCII */
	const char *body;			/* or NULL; must live as long as the context */
	size_t		body_len;
	bool		json_body;		/* says application/json */
	const char *api_key;		/* or NULL: do not send one */
	const char *idempotency_key;	/* or NULL, likewise */

	/*
	 * Send at most once: libcurl would otherwise repeat by itself a request
	 * whose reused connection dies before the first byte of an answer.
	 */
	bool		once;

	/*
	 * Hand the body of a 2xx out by s64_http_read() instead of collecting it.
	 * Takes an answer of any type.  Others are collected as ever, though no
	 * more of them than a message can show.
	 */
	bool		stream;

	int			connect_timeout;	/* ms */

	/*
	 * Of the whole transfer, ms.  Of a streamed one: the longest wait for more,
	 * in which only the time counts that was spent in s64_http_wait() with room
	 * in the buffer.  How slowly the reader reads does not matter.
	 */
	int			timeout;
	size_t		max_response;	/* bytes of body, streamed ones included */
	const char *ca_file;		/* or NULL: the system's */
	const char *proxy;			/* or NULL: none, whatever the environment says */
	void	   *tag;			/* the caller's */
} HttpRequest;

/* How a transfer ended */
typedef enum HttpEnd
{
	HTTP_ANSWERED,				/* a whole reply, of any status */
	HTTP_NO_CONNECTION,			/* DNS, connect, proxy or TLS failed */
	HTTP_LOST,					/* the connection broke, or spoke nonsense */
	HTTP_TIMED_OUT,				/* no whole reply within timeout */
	HTTP_TOO_LARGE,				/* the body exceeds max_response */
	HTTP_FAILED					/* a local failure, such as no memory */
} HttpEnd;

/* What came back.  Pointers are good until the transfer is finished. */
typedef struct HttpReply
{
	HttpEnd		end;
	const char *error;			/* libcurl's words, when not HTTP_ANSWERED */

	/*
	 * Could the service have seen the whole request?  False is proof that it
	 * did not: no connection stood, or the body was not handed out.
	 */
	bool		sent;

	int			status;			/* HTTP status; 0 if none came */

	/* bytes as received, NUL behind; never NULL; empty if it was streamed */
	char	   *body;
	size_t		body_len;
	const char *content_type;	/* or NULL */
	int64		retry_after;	/* s; -1 if the service did not say */
	int64		remaining;		/* X-RateLimit-Remaining; -1 likewise */
	int64		elapsed;		/* µs */
} HttpReply;

/*
 * Start a transfer.  Strings of the request are copied, the body is not.
 * Raises 53000 when the process may not open more descriptors, XX000 or
 * 53200 when libcurl refuses.
 */
extern HttpTransfer *s64_http_start(const HttpRequest *request);

/*
 * Sleep until a transfer makes progress, the latch is set (which is then
 * reset) or timeout ms have passed (-1: no timeout).  The caller then checks
 * for interrupts.  Exits the process if the postmaster dies.
 */
extern void s64_http_wait(long timeout);

/*
 * A transfer that has ended since the last call, or NULL.  Each comes once,
 * those that are streamed never: their reader asks s64_http_ended().
 */
extern HttpTransfer *s64_http_next(void);

/* Has this one ended?  Then s64_http_next() does not return it. */
extern bool s64_http_take(HttpTransfer *transfer);

/*
 * What has ended keeps s64_http_wait() from sleeping no longer, and is left to
 * s64_http_next().  For who waits for something else: perhaps in a trigger, which is
 * fired while the process has transfers of its own.
 */
extern void s64_http_set_aside(void);

/*
 * Move up to max bytes of the body of a streamed transfer to buf, in order, and
 * return how many.  0: there is nothing now; what was not read before
 * s64_http_ended() said so will not come.  To be called until it returns 0
 * before waiting.
 */
extern size_t s64_http_read(HttpTransfer *transfer, char *buf, size_t max);

/* Has it ended?  What is buffered of a streamed one can still be read. */
extern bool s64_http_ended(const HttpTransfer *transfer);

/* The status of the answer once the whole head has come, before that 0 */
extern int	s64_http_status(const HttpTransfer *transfer);

/*
 * A header of the answer, or NULL.  Good until this is called again for the
 * transfer, or it is finished.
 */
extern const char *s64_http_header(const HttpTransfer *transfer, const char *name);

/* HttpReply.sent, also of a transfer that has not ended */
extern bool s64_http_sent(const HttpTransfer *transfer);

extern const HttpReply *s64_http_reply(const HttpTransfer *transfer);
extern void *s64_http_tag(const HttpTransfer *transfer);

/* Free a transfer; one that has not ended is aborted. */
extern void s64_http_finish(HttpTransfer *transfer);

/*
 * Can a request be made to this URL?  It is http:// or https:// with a host, in
 * visible ASCII without backslashes, and has neither user nor password.
 */
extern bool s64_http_is_url(const char *url);

/*
 * Have two URLs the same scheme, host and port, so that what may be told to the
 * one may be told to the other?  Read as the transfer would read them: case does
 * not matter, a port that is left out is the scheme's.  Hosts that are only
 * the same to people (a dot behind the name) are not.  False if either is none
 * by s64_http_is_url(), or memory is short.
 */
extern bool s64_http_same_origin(const char *a, const char *b);

#endif							/* S64_HTTP_H */
