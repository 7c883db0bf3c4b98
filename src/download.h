/*-------------------------------------------------------------------------
 *
 * download.h
 *		Fetches the file behind a signed address.
 *
 * The service leaves large results behind an address that needs no key, and
 * that expires.  A session reads the file while it comes:
 *
 *		d = s64_download_start(account, url);
 *		if (!s64_download_open(d))
 *			... s64_download_finish(d), get a new address, start again ...
 *		while ((n = s64_download_read(d, buf, sizeof(buf))) > 0)
 *			... use n bytes ...
 *		s64_download_finish(d);
 *
 * A background process, which may not have a transaction open meanwhile, puts it
 * into a temporary file first:
 *
 *		d = s64_download_start(account, url);
 *		while ((state = s64_download_poll(d, &failure)) == DOWNLOAD_RUNNING)
 *			... s64_http_wait(), interrupts, other work ...
 *		if (state == DOWNLOAD_DONE)
 *			... s64_download_spooled() in a transaction ...
 *		s64_download_finish(d);
 *
 * One download is used in one of the two ways.  It belongs to the memory context
 * that is current when it is started, and ends with it: neither connection nor
 * file outlives it.
 *
 * What comes is the file or an error, never a part that passes for the whole: an
 * answer must say by its length or in chunks where it ends.  How large it may be
 * is not limited here: in a session it is never held as a whole, and the temporary
 * file counts for temp_file_limit.
 *
 * The key is sent only to the service's own origin.  Neither the key nor the
 * address, of which anybody could make use, is in any message.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_DOWNLOAD_H
#define S64_DOWNLOAD_H

#include "account.h"
#include "report.h"

typedef struct Download Download;

typedef enum DownloadState
{
	DOWNLOAD_RUNNING,
	DOWNLOAD_DONE,				/* all of it is in the temporary file */
	DOWNLOAD_EXPIRED,			/* the address is no longer good (400, 403, 404, 410) */
	DOWNLOAD_FAILED
} DownloadState;

/*
 * Begin to fetch the file at url with the account's ca_file, proxy and
 * connect_timeout.  Where nothing comes for as long as the account's timeout, it
 * fails.  A url that is not to be used (a service that speaks TLS must not send
 * us elsewhere without) is a failure that is told later, like others.  Does not
 * wait, needs no transaction, keeps no pointer into the arguments.
 *
 * Raises only what s64_http_start() raises.
 */
extern Download *s64_download_start(const Account *account, const char *url);

/*
 * Wait until the answer begins.  False if the address has expired: then nothing
 * was read.  Raises every failure, with "could not download the results" in the
 * message: 08001 no connection, 08006 the connection was lost, or nothing came in
 * time, 38000 the answer is an error, 08P01 it is none that can be used, or the
 * address is not, 58000 a local failure; and what CHECK_FOR_INTERRUPTS() raises.
 */
extern bool s64_download_open(Download *download);

/*
 * Read up to max bytes (at least 1) of the file, waiting if there are none.
 * Returns how many; 0 only when all have been read.  Raises what
 * s64_download_open() raises, and 38000 if the address has expired.  download
 * is a Download: so this is a CsvSource.
 */
extern int	s64_download_read(void *download, char *buf, int max);

/*
 * Move what has come into the temporary file, without waiting, and say how the
 * download is.  If it has failed, *failure says how; it lives as long as the
 * download.  To be called after each s64_http_wait() until it is no longer
 * DOWNLOAD_RUNNING.
 *
 * Raises local failures, after which the download has failed: the file cannot be
 * written, or exceeds temp_file_limit (53400).
 */
extern DownloadState s64_download_poll(Download *download, Failure *failure);

/*
 * Read up to max bytes of the temporary file of a download that is DOWNLOAD_DONE.
 * Returns how many; 0 only when all have been read.  A CsvSource, too.  Raises
 * what reading a file raises.
 */
extern int	s64_download_spooled(void *download, char *buf, int max);

/* Let s64_download_spooled() begin anew. */
extern void s64_download_rewind(Download *download);

/* Free a download; one that is running is aborted. */
extern void s64_download_finish(Download *download);

#endif							/* S64_DOWNLOAD_H */
