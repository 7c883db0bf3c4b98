/*-------------------------------------------------------------------------
 *
 * http.c
 *		libcurl made to behave in a backend: start, wait, next, finish.
 *
 * libcurl's sockets live in an epoll set of their own, whose descriptor is
 * waited for together with the latch and the postmaster in one
 * WaitEventSet made once per process.  libcurl's next deadline is kept in
 * memory.  So a wait costs two system calls however many transfers there
 * are.
 *
 * Rules that keep libcurl and the backend out of each other's way:
 *
 * - No callback allocates backend memory or raises an error.
 * - libcurl resolves names in threads.  A signal handled by one of those
 *	 would run backend code on the wrong stack, so all signals are blocked
 *	 while libcurl is entered (threads inherit the mask).  CURLOPT_QUICK_EXIT
 *	 lets a cancelled transfer leave its thread behind, to end by itself.
 * - Descriptors are accounted for with fd.c (one per transfer), as fd.c
 *	 asks of everyone who holds any for long.
 * - libcurl is initialised in the process that uses it, never before a fork.
 *
 * On requests that must be sent at most once: libcurl repeats a request, of
 * whatever method, when a reused connection dies before the first byte of a
 * reply (Curl_retry_request() in libcurl's transfer.c).  CURLOPT_PREREQFUNCTION
 * is called each time before a request goes onto a connection, so there the
 * second time is refused if the first may have sent anything that counts: the
 * body, or the request when it has no body.  CURLOPT_SEEKFUNCTION refuses to
 * rewind a body as well.  A connection idle for longer than ONCE_MAX_IDLE is
 * not reused for them, as it would be likely to die.
 *
 * On bodies that are streamed: what comes goes into a buffer of fixed size.  The
 * write callback pauses the transfer when a piece does not fit (libcurl keeps
 * that piece, 16 kB), and s64_http_read() lets it go on once the buffer is empty;
 * in between nothing is read from the socket, and TCP holds the service back.
 *
 * - HTTP/1.1 is spoken.  A paused HTTP/2 stream would hold up, in some versions
 *	 of libcurl, those that share its connection.
 * - CURLOPT_TIMEOUT would count the time in which the transfer is paused, or the
 *	 process busy with what it has read, and CURLOPT_LOW_SPEED_TIME looks at whole
 *	 seconds and takes a long absence of the process for a slow service.  So the
 *	 time is counted here: what s64_http_wait() sleeps counts for each streamed
 *	 transfer that has room, until something comes.
 * - While a transfer goes on after a pause, libcurl may deliver, fail or end it
 *	 outside of s64_http_wait(), and inside before it sleeps; pool.stirred keeps
 *	 it from sleeping then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <curl/curl.h>

#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "compat.h"
#include "http.h"

#if LIBCURL_VERSION_NUM < 0x075700
#error "sixtyfour needs libcurl 7.87 or newer"
#endif

#define MAX_IDLE_CONNECTIONS	8	/* kept while no transfer needs them */
#define MAX_SPARE_HANDLES		16	/* easy handles kept for reuse */
#define ONCE_MAX_IDLE			3L	/* s; servers keep idle ones 5 s and more */
#define EVENTS_PER_WAIT			64
#define FIRST_ANSWER_SIZE		1024
#define STREAM_BUFFER_SIZE		(256 * 1024)
#define STREAM_REFUSAL_SIZE		(64 * 1024) /* of an answer that is no 2xx */
#define USER_AGENT				"sixtyfour/" S64_VERSION " (PostgreSQL " PG_VERSION ")"

StaticAssertDecl(STREAM_BUFFER_SIZE >= CURL_MAX_WRITE_SIZE,
				 "a piece of a body fits into an empty buffer");

typedef enum TransferState
{
	TRANSFER_NEW,				/* not yet libcurl's */
	TRANSFER_RUNNING,			/* in the multi handle */
	TRANSFER_ENDED,				/* in pool.ended or pool.aside, not yet fetched */
	TRANSFER_FETCHED			/* s64_http_next() has returned it */
} TransferState;

struct HttpTransfer
{
	dlist_node	node;			/* in pool.streams while it runs, or one of those */
	TransferState state;
	CURL	   *easy;
	struct curl_slist *headers;
	MemoryContextCallback *callback;

	const char *body;
	size_t		body_len;
	size_t		body_taken;		/* bytes of it that libcurl has taken */
	bool		once;
	bool		requested;		/* a connection stood, and was to be used */
	bool		stale;			/* the connection was closed by the service */
	bool		headers_ended;	/* of the reply */
	int			status;			/* of the reply, once its headers have ended */

	bool		stream;
	bool		paused;			/* until the reader has emptied the buffer */
	size_t		streamed;		/* bytes of body put into the buffer so far */
	size_t		answer_read;	/* bytes that the reader has had of the buffer */
	int64		waited;			/* µs for more; 0 when some came */
	int64		max_wait;

	char	   *answer;			/* body received so far, or the buffer, or NULL */
	size_t		answer_len;
	size_t		answer_size;	/* bytes allocated */
	size_t		max_answer;
	bool		too_large;
	bool		no_memory;

	int64		started;		/* monotonic µs */
	HttpReply	reply;
	void	   *tag;
	char		error[CURL_ERROR_SIZE];
};

static struct
{
	CURLM	   *multi;			/* NULL until the pool is open */
	int			epoll_fd;
	WaitEventSet *events;
	uint32		wait_event;
	int64		deadline;		/* of libcurl, monotonic µs; -1: none */
	int			running;		/* transfers in the multi handle */
	int			reserved_fds;	/* of AcquireExternalFD() */
	dlist_head	streams;		/* streamed transfers in the multi handle */
	bool		stirred;		/* something came of one, or it ended */
	dlist_head	ended;
	dlist_head	aside;			/* ended while somebody waited for another */
	CURL	   *spare[MAX_SPARE_HANDLES];
	int			nspare;
} pool;

static int64
monotonic_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/*
 * Block every signal but those that a fault raises; returns the mask to go
 * back to.
 */
static sigset_t
block_signals(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
	sigset_t	all;
	sigset_t	before;

	sigfillset(&all);
	for (size_t i = 0; i < lengthof(faults); i++)
		sigdelset(&all, faults[i]);
	sigprocmask(SIG_SETMASK, &all, &before);
	return before;
}

static void
restore_signals(const sigset_t *before)
{
	sigprocmask(SIG_SETMASK, before, NULL);
}

/* ---- libcurl's callbacks: no palloc, no ereport ---- */

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event event = {0};

	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(pool.epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	event.data.fd = fd;
	if (known == NULL)
		curl_multi_assign(pool.multi, fd, &pool);
	if (epoll_ctl(pool.epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd,
				  &event) == 0)
		return 0;
	return epoll_ctl(pool.epoll_fd, known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd,
					 &event);
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	pool.deadline = timeout_ms < 0 ? -1
		: monotonic_us() + (int64) timeout_ms * 1000;
	return 0;
}

/*
 * Has the service closed the connection that is to be used again?  libcurl 8.22
 * and newer does not look at one that was used within the last second.  The end
 * of TLS comes as data; but where other requests may share the connection, data
 * says nothing.
 */
static bool
is_closed(CURL *easy)
{
	struct pollfd ready = {.events = POLLRDHUP};
	curl_socket_t fd;
	long		connects;

	if (curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects) != CURLE_OK ||
		connects > 0 ||
		curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK ||
		fd == CURL_SOCKET_BAD)
		return false;
	if (pool.running == 1)
		ready.events |= POLLIN;
	ready.fd = fd;
	return poll(&ready, 1, 0) > 0;
}

/* Before a request goes onto a connection, for the first time or again */
static int
on_request(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	HttpTransfer *t = arg;

	if (t->once && t->requested && (t->body == NULL || t->body_taken > 0))
		return CURL_PREREQFUNC_ABORT;
	if (t->once && !t->requested && is_closed(t->easy))
	{
		t->stale = true;
		return CURL_PREREQFUNC_ABORT;
	}
	t->requested = true;
	return CURL_PREREQFUNC_OK;
}

static size_t
on_body_wanted(char *buffer, size_t size, size_t nitems, void *arg)
{
	HttpTransfer *t = arg;
	size_t		n = Min(size * nitems, t->body_len - t->body_taken);

	memcpy(buffer, t->body + t->body_taken, n);
	t->body_taken += n;
	return n;
}

static int
on_rewind(void *arg, curl_off_t offset, int origin)
{
	HttpTransfer *t = arg;

	if (t->once && t->body_taken > 0)
		return CURL_SEEKFUNC_FAIL;
	if (origin != SEEK_SET || offset < 0 || (size_t) offset > t->body_len)
		return CURL_SEEKFUNC_FAIL;
	t->body_taken = offset;
	return CURL_SEEKFUNC_OK;
}

/*
 * A line of the reply's head.  libcurl takes a connection that is closed within
 * the head for the end of an empty reply, so look for the blank line.
 */
static size_t
on_header(char *line, size_t size, size_t nmemb, void *arg)
{
	HttpTransfer *t = arg;

	long		status = 0;

	t->waited = 0;
	/* trailers behind the body come here, too: only a status line begins a head */
	if (size * nmemb >= 5 && memcmp(line, "HTTP/", 5) == 0)
		t->headers_ended = false;
	else if (line[0] == '\r' || line[0] == '\n')
	{
		t->headers_ended = true;
		curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
		/* not that of "100 Continue", or of a tunnel through a proxy */
		t->status = status >= 200 ? (int) status : 0;
		pool.stirred = true;
	}
	return size * nmemb;
}

/* Make room for n more bytes and a NUL. */
static bool
enlarge_answer(HttpTransfer *t, size_t n)
{
	size_t		need = t->answer_len + n + 1;
	char	   *grown;

	if (need <= t->answer_size)
		return true;
	need = Max(need, Max(t->answer_size * 2, FIRST_ANSWER_SIZE));
	grown = realloc(t->answer, need);
	if (grown == NULL)
		return false;
	t->answer = grown;
	t->answer_size = need;
	return true;
}

/* A piece of a streamed body: all of it goes into the buffer, or it waits. */
static size_t
buffer_answer(HttpTransfer *t, const char *data, size_t n)
{
	pool.stirred = true;
	if (n > t->max_answer - t->streamed)
	{
		t->too_large = true;
		return 0;
	}
	if (t->answer == NULL && (t->answer = malloc(STREAM_BUFFER_SIZE)) == NULL)
	{
		t->no_memory = true;
		return 0;
	}
	if (n > STREAM_BUFFER_SIZE - t->answer_len)
	{
		t->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	memcpy(t->answer + t->answer_len, data, n);
	t->answer_len += n;
	t->streamed += n;
	t->waited = 0;
	return n;
}

static size_t
on_answer(char *data, size_t size, size_t nmemb, void *arg)
{
	HttpTransfer *t = arg;
	size_t		n;

	if (t->stream && t->status / 100 == 2)
		return buffer_answer(t, data, size * nmemb);
	t->waited = 0;
	n = Min(size * nmemb, t->max_answer - t->answer_len);
	if (t->stream)
		n = Min(n, STREAM_REFUSAL_SIZE - t->answer_len);

	/* of an answer that is too large, what fits is kept for the message */
	if (n < size * nmemb)
		t->too_large = true;
	if (!enlarge_answer(t, n))
	{
		t->no_memory = true;
		return 0;
	}
	memcpy(t->answer + t->answer_len, data, n);
	t->answer_len += n;
	t->answer[t->answer_len] = '\0';
	return n;
}

/* ---- the pool ---- */

/*
 * Open the pool, step by step so that a step that fails can be tried again by
 * the next transfer.
 */
static void
open_pool(void)
{
	if (pool.multi != NULL)
		return;

	if (pool.epoll_fd == 0)
	{
		int			fd;

		if (!AcquireExternalFD())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("too many descriptors are open to contact the service")));
		fd = epoll_create1(EPOLL_CLOEXEC);
		if (fd < 0)
		{
			ReleaseExternalFD();
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not create epoll descriptor: %m")));
		}
		pool.epoll_fd = fd;
	}
	if (pool.events == NULL)
	{
		WaitEventSet *events = s64_create_wait_event_set(3);

		AddWaitEventToSet(events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		if (IsUnderPostmaster)
			AddWaitEventToSet(events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		AddWaitEventToSet(events, WL_SOCKET_READABLE, pool.epoll_fd, NULL, NULL);
		pool.events = events;
		pool.wait_event = s64_wait_event_new("SixtyfourService");
		dlist_init(&pool.streams);
		dlist_init(&pool.ended);
		dlist_init(&pool.aside);
		pool.deadline = -1;
	}

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not initialize libcurl")));
	pool.multi = curl_multi_init();
	if (pool.multi == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	curl_multi_setopt(pool.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(pool.multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(pool.multi, CURLMOPT_MAXCONNECTS, (long) MAX_IDLE_CONNECTIONS);
	curl_multi_setopt(pool.multi, CURLMOPT_PIPELINING, (long) CURLPIPE_MULTIPLEX);
}

/* Account for the descriptors of running transfers and idle connections. */
static void
reserve_fd(void)
{
	if (pool.reserved_fds > pool.running)
		return;
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many requests to the service at the same time"),
				 errdetail("%d requests are in flight, each with a file descriptor.",
						   pool.running),
				 errhint("Raise \"max_files_per_process\" and the kernel's limit on open files.")));
	pool.reserved_fds++;
}

static void
release_fds(void)
{
	while (pool.reserved_fds > Max(pool.running, MAX_IDLE_CONNECTIONS))
	{
		ReleaseExternalFD();
		pool.reserved_fds--;
	}
}

static CURL *
get_handle(void)
{
	if (pool.nspare > 0)
		return pool.spare[--pool.nspare];
	return curl_easy_init();
}

static void
put_handle(CURL *easy)
{
	if (pool.nspare == MAX_SPARE_HANDLES)
	{
		curl_easy_cleanup(easy);
		return;
	}
	curl_easy_reset(easy);
	pool.spare[pool.nspare++] = easy;
}

/* ---- transfers ---- */

static bool
add_header(HttpTransfer *t, const char *line)
{
	struct curl_slist *longer = curl_slist_append(t->headers, line);

	if (longer == NULL)
		return false;
	t->headers = longer;
	return true;
}

static bool
set_headers(HttpTransfer *t, const HttpRequest *request)
{
	char		line[1024];
	bool		ok;

	/* never wait for "100 Continue" */
	ok = add_header(t, request->stream ? "Accept: */*" : "Accept: application/json") &&
		add_header(t, "Expect:");
	if (ok)
		ok = add_header(t, request->json_body ? "Content-Type: application/json"
						: "Content-Type:");
	if (ok && request->api_key != NULL)
	{
		int			len = snprintf(line, sizeof(line), "x-api-key: %s",
								   request->api_key);

		ok = len < (int) sizeof(line) && add_header(t, line);
		explicit_bzero(line, sizeof(line));
	}
	if (ok && request->idempotency_key != NULL)
	{
		snprintf(line, sizeof(line), "Idempotency-Key: %s", request->idempotency_key);
		ok = add_header(t, line);
	}
	return ok && curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK;
}

static bool
set_method(HttpTransfer *t, const HttpRequest *request)
{
	CURL	   *easy = t->easy;
	CURLcode	rc = CURLE_OK;

	if (request->body != NULL)
	{
		rc |= curl_easy_setopt(easy, CURLOPT_POST, 1L);
		rc |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
							   (curl_off_t) request->body_len);
		rc |= curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_body_wanted);
		rc |= curl_easy_setopt(easy, CURLOPT_READDATA, t);
		rc |= curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_rewind);
		rc |= curl_easy_setopt(easy, CURLOPT_SEEKDATA, t);
	}
	else if (strcmp(request->method, "POST") == 0)
	{
		rc |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, 0L);
		rc |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
	}
	rc |= curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	if (request->once)
		rc |= curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, ONCE_MAX_IDLE);
	rc |= curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
	rc |= curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);
	return rc == CURLE_OK;
}

/*
 * Whom to trust: ca_file alone, or the system's authorities.  Where libcurl
 * knows a directory of those, the bundle beside it is left out: to parse it
 * takes 50 ms of each connection, while the directory is read as needed.
 */
static CURLcode
set_authorities(CURL *easy, const char *ca_file)
{
	if (ca_file != NULL)
		return curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file) |
			curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	if (curl_version_info(CURLVERSION_NOW)->capath != NULL)
		return curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
	return CURLE_OK;
}

static bool
set_connection(HttpTransfer *t, const HttpRequest *request)
{
	CURL	   *easy = t->easy;
	CURLcode	rc = CURLE_OK;
	bool		plain = strncmp(request->url, "http://", 7) == 0;

	rc |= curl_easy_setopt(easy, CURLOPT_URL, request->url);
	rc |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, plain ? "http" : "https");
	rc |= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	rc |= curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	rc |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	rc |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	rc |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
						   (long) (request->stream ? CURL_HTTP_VERSION_1_1
								   : CURL_HTTP_VERSION_2TLS));
	/* whatever comes behind a file is not to be taken for an answer */
	rc |= curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, request->stream ? 1L : 0L);
	/* in the clear there is no HTTP/2, but each would wait for the first reply */
	rc |= curl_easy_setopt(easy, CURLOPT_PIPEWAIT, plain ? 0L : 1L);
	rc |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	rc |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	rc |= set_authorities(easy, request->ca_file);
	rc |= curl_easy_setopt(easy, CURLOPT_PROXY, request->proxy ? request->proxy : "");
	rc |= curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	rc |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) request->connect_timeout);
	rc |= curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
						   request->stream ? 0L : (long) request->timeout);
	/* answers take minutes: keep middleboxes from forgetting the connection */
	rc |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	rc |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
	rc |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 15L);
	rc |= curl_easy_setopt(easy, CURLOPT_USERAGENT, USER_AGENT);
	return rc == CURLE_OK;
}

static bool
set_answer(HttpTransfer *t, const HttpRequest *request)
{
	CURL	   *easy = t->easy;
	CURLcode	rc = CURLE_OK;

	t->max_answer = request->max_response;
	rc |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer);
	rc |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	rc |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	rc |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
	rc |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
	rc |= curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
	return rc == CURLE_OK;
}

/* Take a transfer out of libcurl's hands. */
static void
remove_from_multi(HttpTransfer *t)
{
	curl_multi_remove_handle(pool.multi, t->easy);
	if (t->stream)
		dlist_delete(&t->node);
	pool.running--;
}

/* Free a transfer and what it holds; safe at any stage of its making. */
static void
free_transfer(HttpTransfer *t)
{
	sigset_t	before = block_signals();

	if (t->state == TRANSFER_RUNNING)
		remove_from_multi(t);
	else if (t->state == TRANSFER_ENDED)
		dlist_delete(&t->node);
	if (t->easy != NULL)
		put_handle(t->easy);
	restore_signals(&before);

	release_fds();
	curl_slist_free_all(t->headers);
	free(t->answer);
	free(t);
}

/* The memory context of a transfer is reset or deleted. */
static void
on_context_reset(void *arg)
{
	if (arg != NULL)
		free_transfer(arg);
}

/*
 * An empty transfer that hangs on the current memory context.  From here on it
 * is freed with the context, whatever goes wrong.
 */
static HttpTransfer *
make_transfer(const HttpRequest *request)
{
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	HttpTransfer *t = calloc(1, sizeof(HttpTransfer));

	if (t == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	callback->func = on_context_reset;
	callback->arg = t;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);

	t->callback = callback;
	t->body = request->body;
	t->body_len = request->body_len;
	t->once = request->once;
	t->stream = request->stream;
	t->max_wait = request->timeout * INT64CONST(1000);
	t->tag = request->tag;
	return t;
}

HttpTransfer *
s64_http_start(const HttpRequest *request)
{
	HttpTransfer *t;
	sigset_t	before;
	CURLMcode	rc;

	open_pool();
	t = make_transfer(request);
	reserve_fd();
	t->easy = get_handle();
	if (t->easy == NULL ||
		!set_connection(t, request) || !set_method(t, request) ||
		!set_headers(t, request) || !set_answer(t, request))
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not prepare a request to the service")));

	before = block_signals();
	rc = curl_multi_add_handle(pool.multi, t->easy);
	restore_signals(&before);
	if (rc != CURLM_OK)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not start a request to the service: %s",
						curl_multi_strerror(rc))));
	t->state = TRANSFER_RUNNING;
	t->started = monotonic_us();
	if (t->stream)
		dlist_push_tail(&pool.streams, &t->node);
	pool.running++;
	return t;
}

/* ---- the end of a transfer ---- */

static HttpEnd
classify_end(const HttpTransfer *t, CURLcode rc)
{
	switch (rc)
	{
		case CURLE_OK:
			return t->headers_ended ? HTTP_ANSWERED : HTTP_LOST;
		case CURLE_COULDNT_RESOLVE_PROXY:
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_CONNECT:
		case CURLE_PROXY:
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
			/* also when a connection broke, and no new one could be made */
			return s64_http_sent(t) ? HTTP_LOST : HTTP_NO_CONNECTION;
		case CURLE_OPERATION_TIMEDOUT:
			return t->requested ? HTTP_TIMED_OUT : HTTP_NO_CONNECTION;
		case CURLE_WRITE_ERROR:
			return t->too_large ? HTTP_TOO_LARGE : HTTP_FAILED;
		case CURLE_UNSUPPORTED_PROTOCOL:	/* also HTTP/0.9, or garbage */
			return t->requested ? HTTP_LOST : HTTP_FAILED;
		case CURLE_OUT_OF_MEMORY:
		case CURLE_FAILED_INIT:
		case CURLE_URL_MALFORMAT:
		case CURLE_NOT_BUILT_IN:
		case CURLE_BAD_FUNCTION_ARGUMENT:
			return HTTP_FAILED;
		default:
			return t->requested ? HTTP_LOST : HTTP_NO_CONNECTION;
	}
}

/* What a failed transfer is called, in words of those who made the request */
static const char *
describe_end(const HttpTransfer *t, CURLcode rc)
{
	if (t->no_memory)
		return "out of memory";
	switch (rc)
	{
		case CURLE_OK:
			return "The connection was closed within the head of the reply";
		case CURLE_SEND_FAIL_REWIND:
		case CURLE_ABORTED_BY_CALLBACK:
			/* our callbacks refused to send the request a second time */
			return "The connection was closed before a reply came";
		default:
			return t->error[0] != '\0' ? t->error : curl_easy_strerror(rc);
	}
}

/* A header that holds a number; -1 if there is none */
static int64
number_header(CURL *easy, const char *name)
{
	struct curl_header *header;
	char	   *end;
	long long	number;

	if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
		return -1;
	number = strtoll(header->value, &end, 10);
	return end == header->value || number < 0 ? -1 : number;
}

/* Retry-After, which is a number of seconds, or a date that libcurl reads */
static int64
retry_after_header(CURL *easy)
{
	struct curl_header *header;
	curl_off_t	seconds = number_header(easy, "Retry-After");

	if (seconds >= 0 ||
		curl_easy_header(easy, "Retry-After", 0, CURLH_HEADER, -1, &header) != CURLHE_OK ||
		strpbrk(header->value, "0123456789") == NULL)
		return seconds;
	curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
	return Max(seconds, 0);
}

static void
fill_reply(HttpTransfer *t, CURLcode rc)
{
	static char empty[1];
	HttpReply  *reply = &t->reply;
	bool		collected = t->answer != NULL && t->streamed == 0;
	long		status = 0;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &reply->content_type);
	reply->end = classify_end(t, rc);
	reply->error = describe_end(t, rc);
	reply->sent = s64_http_sent(t);
	reply->status = t->headers_ended ? (int) status : 0;
	reply->body = collected ? t->answer : empty;
	reply->body_len = collected ? t->answer_len : 0;
	reply->retry_after = retry_after_header(t->easy);
	reply->remaining = number_header(t->easy, "X-RateLimit-Remaining");
	reply->elapsed = monotonic_us() - t->started;
}

/* Start anew, on a new connection, what found its connection closed. */
static bool
start_again(HttpTransfer *t)
{
	if (!t->stale)
		return false;
	t->stale = false;
	t->error[0] = '\0';
	curl_multi_remove_handle(pool.multi, t->easy);
	return curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L) == CURLE_OK &&
		curl_multi_add_handle(pool.multi, t->easy) == CURLM_OK;
}

/*
 * A transfer has ended, or is ended.  Its fetcher finds it in pool.ended; a
 * streamed one is looked at by its reader, whoever waits just now.
 */
static void
end_transfer(HttpTransfer *t, CURLcode rc)
{
	fill_reply(t, rc);
	remove_from_multi(t);
	if (t->stream)
	{
		t->paused = false;
		t->state = TRANSFER_FETCHED;
		pool.stirred = true;
		return;
	}
	t->state = TRANSFER_ENDED;
	dlist_push_tail(&pool.ended, &t->node);
}

/* Take transfers that have ended out of libcurl. */
static void
collect_ended(void)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(pool.multi, &left)) != NULL)
	{
		HttpTransfer *t = NULL;
		CURLcode	rc = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t);
		if (start_again(t))
			continue;
		end_transfer(t, rc);
	}
}

/* End streamed transfers that have been waited for long enough. */
static void
end_stalled(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pool.streams)
	{
		HttpTransfer *t = dlist_container(HttpTransfer, node, iter.cur);

		if (t->waited < t->max_wait)
			continue;
		snprintf(t->error, sizeof(t->error), "Nothing came for " INT64_FORMAT " ms",
				 t->waited / 1000);
		end_transfer(t, CURLE_OPERATION_TIMEDOUT);
	}
}

/* ---- waiting ---- */

/* Let libcurl work on the sockets that are ready. */
static void
work_on_sockets(void)
{
	struct epoll_event events[EVENTS_PER_WAIT];
	int			n = epoll_wait(pool.epoll_fd, events, EVENTS_PER_WAIT, 0);
	int			running;

	for (int i = 0; i < n; i++)
	{
		int			what = 0;

		/* reading tells more about an error than saying that there is one */
		if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			what |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			what |= CURL_CSELECT_OUT;
		curl_multi_socket_action(pool.multi, events[i].data.fd, what, &running);
	}
}

static void
work_on_timer(void)
{
	int			running;

	if (pool.deadline < 0 || pool.deadline > monotonic_us())
		return;
	pool.deadline = -1;
	curl_multi_socket_action(pool.multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

static void
work(bool sockets)
{
	sigset_t	before = block_signals();

	if (sockets)
		work_on_sockets();
	work_on_timer();
	collect_ended();
	end_stalled();
	restore_signals(&before);
}

/*
 * The caller's timeout, libcurl's or that of a streamed transfer, whichever is
 * earliest, in whole ms
 */
static long
effective_timeout(long timeout, int64 now)
{
	int64		left = timeout < 0 ? PG_INT64_MAX : timeout * INT64CONST(1000);
	dlist_iter	iter;

	if (pool.deadline >= 0)
		left = Min(left, pool.deadline - now);
	dlist_foreach(iter, &pool.streams)
	{
		HttpTransfer *t = dlist_container(HttpTransfer, node, iter.cur);

		if (!t->paused)
			left = Min(left, t->max_wait - t->waited);
	}
	return left == PG_INT64_MAX ? -1 : (long) ((Max(left, 0) + 999) / 1000);
}

/* Count what was slept for the streamed transfers that had room. */
static void
count_wait(int64 slept)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pool.streams)
	{
		HttpTransfer *t = dlist_container(HttpTransfer, node, iter.cur);

		if (!t->paused)
			t->waited += slept;
	}
}

void
s64_http_wait(long timeout)
{
	WaitEvent	events[3];
	bool		sockets = false;
	int64		began;
	int			n;

	open_pool();
	pool.stirred = false;
	work(false);
	if (!dlist_is_empty(&pool.ended) || pool.stirred)
		return;

	began = monotonic_us();
	n = WaitEventSetWait(pool.events, effective_timeout(timeout, began), events,
						 lengthof(events), pool.wait_event);
	count_wait(monotonic_us() - began);
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if (events[i].events & WL_SOCKET_READABLE)
			sockets = true;
	}
	work(sockets);
}

HttpTransfer *
s64_http_next(void)
{
	dlist_head *list = dlist_is_empty(&pool.aside) ? &pool.ended : &pool.aside;
	HttpTransfer *t;

	if (pool.multi == NULL || dlist_is_empty(list))
		return NULL;
	t = dlist_container(HttpTransfer, node, dlist_pop_head_node(list));
	t->state = TRANSFER_FETCHED;
	return t;
}

bool
s64_http_take(HttpTransfer *t)
{
	if (t->state != TRANSFER_ENDED)
		return false;
	dlist_delete(&t->node);
	t->state = TRANSFER_FETCHED;
	return true;
}

void
s64_http_set_aside(void)
{
	while (pool.multi != NULL && !dlist_is_empty(&pool.ended))
		dlist_push_tail(&pool.aside, dlist_pop_head_node(&pool.ended));
}

/* ---- streamed bodies ---- */

/* The buffer is empty: let a transfer that paused go on. */
static void
resume(HttpTransfer *t)
{
	sigset_t	before = block_signals();
	CURLcode	rc;

	/* what libcurl has kept comes at once, and may pause it again */
	t->paused = false;
	rc = curl_easy_pause(t->easy, CURLPAUSE_CONT);

	/* then libcurl has lost a piece, but would go on with the next */
	if (rc != CURLE_OK)
		end_transfer(t, rc);
	restore_signals(&before);
}

size_t
s64_http_read(HttpTransfer *t, char *buf, size_t max)
{
	size_t		n;

	if (!t->stream || t->streamed == 0)
		return 0;
	n = Min(max, t->answer_len - t->answer_read);
	memcpy(buf, t->answer + t->answer_read, n);
	t->answer_read += n;
	if (t->answer_read == t->answer_len)
	{
		t->answer_len = t->answer_read = 0;
		if (t->paused)
			resume(t);
	}
	return n;
}

bool
s64_http_ended(const HttpTransfer *transfer)
{
	return transfer->state == TRANSFER_ENDED || transfer->state == TRANSFER_FETCHED;
}

int
s64_http_status(const HttpTransfer *transfer)
{
	return transfer->status;
}

const char *
s64_http_header(const HttpTransfer *transfer, const char *name)
{
	struct curl_header *header;

	if (curl_easy_header(transfer->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
		return NULL;
	return header->value;
}

/* ---- URLs ---- */

/*
 * What curl_url() makes of a URL, to be freed by curl_url_cleanup(); NULL if it
 * is not to be used.  Nothing is left to taste: what others might read
 * differently is refused.
 */
static CURLU *
parse_url(const char *url)
{
	const char *host;
	CURLU	   *parsed;

	if (pg_strncasecmp(url, "https://", 8) == 0)
		host = url + 8;
	else if (pg_strncasecmp(url, "http://", 7) == 0)
		host = url + 7;
	else
		return NULL;
	for (const char *p = url; *p; p++)
	{
		if (*p <= ' ' || *p > '~' || *p == '\\')
			return NULL;
	}
	if (*host == '/' || memchr(host, '@', strcspn(host, "/?#")) != NULL)
		return NULL;

	parsed = curl_url();
	if (parsed != NULL &&
		curl_url_set(parsed, CURLUPART_URL, url,
					 CURLU_DISALLOW_USER | CURLU_PATH_AS_IS) != CURLUE_OK)
	{
		curl_url_cleanup(parsed);
		return NULL;
	}
	return parsed;
}

bool
s64_http_is_url(const char *url)
{
	CURLU	   *parsed = parse_url(url);

	curl_url_cleanup(parsed);
	return parsed != NULL;
}

/* Is a part the same in both, or missing in both? */
static bool
same_part(CURLU *a, CURLU *b, CURLUPart part, CURLUcode missing)
{
	char	   *in_a = NULL;
	char	   *in_b = NULL;
	CURLUcode	rc_a = curl_url_get(a, part, &in_a, CURLU_DEFAULT_PORT);
	CURLUcode	rc_b = curl_url_get(b, part, &in_b, CURLU_DEFAULT_PORT);
	bool		same;

	if (rc_a == CURLUE_OK && rc_b == CURLUE_OK)
		same = pg_strcasecmp(in_a, in_b) == 0;
	else
		same = missing != CURLUE_OK && rc_a == missing && rc_b == missing;
	curl_free(in_a);
	curl_free(in_b);
	return same;
}

bool
s64_http_same_origin(const char *a, const char *b)
{
	CURLU	   *url_a = parse_url(a);
	CURLU	   *url_b = parse_url(b);
	bool		same;

	same = url_a != NULL && url_b != NULL &&
		same_part(url_a, url_b, CURLUPART_SCHEME, CURLUE_OK) &&
		same_part(url_a, url_b, CURLUPART_HOST, CURLUE_OK) &&
		same_part(url_a, url_b, CURLUPART_ZONEID, CURLUE_NO_ZONEID) &&
		same_part(url_a, url_b, CURLUPART_PORT, CURLUE_OK);
	curl_url_cleanup(url_a);
	curl_url_cleanup(url_b);
	return same;
}

/* ---- what a transfer is ---- */

bool
s64_http_sent(const HttpTransfer *transfer)
{
	return transfer->requested &&
		(transfer->body == NULL || transfer->body_taken > 0);
}

const HttpReply *
s64_http_reply(const HttpTransfer *transfer)
{
	return &transfer->reply;
}

void *
s64_http_tag(const HttpTransfer *transfer)
{
	return transfer->tag;
}

void
s64_http_finish(HttpTransfer *transfer)
{
	transfer->callback->arg = NULL;
	free_transfer(transfer);
}
