/*-------------------------------------------------------------------------
 *
 * probe.c
 *		SQL functions by which a test uses what has none of its own.
 *
 * Nothing of this is in a library that is built to be used.  Compiled with
 * -DS64_FAULTS, the test itself creates the functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/cryptohash.h"
#include "common/md5.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "csv.h"
#include "download.h"
#include "fault.h"
#include "guc.h"
#include "http.h"

#ifdef S64_FAULTS

#define LOCK	64				/* an advisory lock at which the test holds us */

S64_FUNCTION(sixtyfour_test_same_origin);
S64_FUNCTION(sixtyfour_test_is_url);
S64_FUNCTION(sixtyfour_test_download);
S64_FUNCTION(sixtyfour_test_two_downloads);
S64_FUNCTION(sixtyfour_test_background);
extern PGDLLEXPORT void s64_probe_main(Datum arg);

/* sixtyfour_test_same_origin(text, text) returns boolean */
Datum
sixtyfour_test_same_origin(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(s64_http_same_origin(text_to_cstring(PG_GETARG_TEXT_PP(0)),
										text_to_cstring(PG_GETARG_TEXT_PP(1))));
}

/* sixtyfour_test_is_url(text) returns boolean */
Datum
sixtyfour_test_is_url(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(s64_http_is_url(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

static void
wait_for_test(void)
{
	DirectFunctionCall1(pg_advisory_lock_int8, Int64GetDatum(LOCK));
	DirectFunctionCall1(pg_advisory_unlock_int8, Int64GetDatum(LOCK));
}

/* "bytes digest" of all that a source gives; waits for the test after a piece. */
static char *
digest_source(CsvSource source, void *arg, int piece, bool hold)
{
	pg_cryptohash_ctx *md5 = pg_cryptohash_create(PG_MD5);
	char	   *buf = palloc(piece);
	uint8		digest[MD5_DIGEST_LENGTH];
	int64		total = 0;
	int			n;
	StringInfoData text;

	pg_cryptohash_init(md5);
	while ((n = source(arg, buf, piece)) > 0)
	{
		pg_cryptohash_update(md5, (uint8 *) buf, n);
		if (total == 0 && hold)
			wait_for_test();
		total += n;
	}
	pg_cryptohash_final(md5, digest, sizeof(digest));
	pg_cryptohash_free(md5);

	initStringInfo(&text);
	appendStringInfo(&text, INT64_FORMAT " ", total);
	for (int i = 0; i < MD5_DIGEST_LENGTH; i++)
		appendStringInfo(&text, "%02x", digest[i]);
	pfree(buf);
	return text.data;
}

static DownloadState
poll_to_end(Download *download, Failure *failure)
{
	DownloadState state;

	while ((state = s64_download_poll(download, failure)) == DOWNLOAD_RUNNING)
	{
		CHECK_FOR_INTERRUPTS();
		s64_http_wait(-1);
	}
	return state;
}

/*
 * sixtyfour_test_download(url text, piece integer, spool boolean, hold boolean)
 * returns text: "expired", or what digest_source() says
 */
Datum
sixtyfour_test_download(PG_FUNCTION_ARGS)
{
	Account    *account = s64_account_get(s64_guc_server, GetUserId());
	Download   *download = s64_download_start(account,
											  text_to_cstring(PG_GETARG_TEXT_PP(0)));
	int			piece = PG_GETARG_INT32(1);
	bool		spool = PG_GETARG_BOOL(2);
	bool		hold = PG_GETARG_BOOL(3);
	char	   *result = "expired";
	Failure		failure = {0};

	if (spool)
	{
		DownloadState state = poll_to_end(download, &failure);

		if (state == DOWNLOAD_FAILED)
			s64_report_failure(&failure);
		if (state == DOWNLOAD_DONE)
			result = digest_source(s64_download_spooled, download, piece, hold);
	}
	else if (s64_download_open(download))
		result = digest_source(s64_download_read, download, piece, hold);
	s64_download_finish(download);
	PG_RETURN_TEXT_P(cstring_to_text(result));
}

/*
 * sixtyfour_test_two_downloads(text, text) returns text: the first is opened,
 * then the second read, then the first
 */
Datum
sixtyfour_test_two_downloads(PG_FUNCTION_ARGS)
{
	Account    *account = s64_account_get(s64_guc_server, GetUserId());
	Download   *first = s64_download_start(account,
										   text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Download   *second;
	char	   *digest;

	s64_download_open(first);
	second = s64_download_start(account, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	digest = digest_source(s64_download_read, second, 1000, false);
	digest = psprintf("%s, %s", digest,
					  digest_source(s64_download_read, first, 1000, false));
	s64_download_finish(first);
	s64_download_finish(second);
	PG_RETURN_TEXT_P(cstring_to_text(digest));
}

/* sixtyfour_test_background(): start a process that reads probe.url */
Datum
sixtyfour_test_background(PG_FUNCTION_ARGS)
{
	BackgroundWorker worker = {0};

	strlcpy(worker.bgw_name, "sixtyfour probe", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "sixtyfour probe", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "sixtyfour", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "s64_probe_main", sizeof(worker.bgw_function_name));
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	PG_RETURN_BOOL(RegisterDynamicBackgroundWorker(&worker, NULL));
}

/* Twice "bytes digest" of a temporary file, in two transactions */
static void
read_twice(Download *download)
{
	for (int i = 1; i <= 2; i++)
	{
		StartTransactionCommand();
		if (i == 1)
			wait_for_test();
		ereport(LOG, (errmsg("probe %d: %s", i,
							 digest_source(s64_download_spooled, download, 10000, false))));
		CommitTransactionCommand();
		s64_download_rewind(download);
	}
}

/* A download as a background process makes it: outside of any transaction */
void
s64_probe_main(Datum arg)
{
	Account    *account;
	Download   *download;
	DownloadState state;
	Failure		failure = {0};

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);

	StartTransactionCommand();
	account = s64_account_get(s64_guc_server, GetUserId());
	MemoryContextSwitchTo(TopMemoryContext);
	account = s64_account_copy(account);
	CommitTransactionCommand();

	MemoryContextSwitchTo(TopMemoryContext);
	download = s64_download_start(account, GetConfigOption("probe.url", false, false));
	state = poll_to_end(download, &failure);
	if (IsTransactionState())
		ereport(PANIC, (errmsg("a transaction was begun")));
	if (state == DOWNLOAD_DONE)
		read_twice(download);
	else if (state == DOWNLOAD_EXPIRED)
		ereport(LOG, (errmsg("probe: expired")));
	else
		ereport(LOG, (errmsg("probe: %s", failure.message),
					  errdetail_internal("%s", failure.detail ? failure.detail : "")));
	s64_download_finish(download);
}

#endif							/* S64_FAULTS */
