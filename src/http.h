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

	int			connect_timeout;	/* ms */
	int			timeout;		/* of the whole transfer, ms */
	size_t		max_response;	/* bytes of body */
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
	char	   *body;			/* bytes as received, NUL behind; never NULL */
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

/* A transfer that has ended since the last call, or NULL.  Each comes once. */
extern HttpTransfer *s64_http_next(void);

/* HttpReply.sent, also of a transfer that has not ended */
extern bool s64_http_sent(const HttpTransfer *transfer);

extern const HttpReply *s64_http_reply(const HttpTransfer *transfer);
extern void *s64_http_tag(const HttpTransfer *transfer);

/* Free a transfer; one that has not ended is aborted. */
extern void s64_http_finish(HttpTransfer *transfer);

#endif							/* S64_HTTP_H */
