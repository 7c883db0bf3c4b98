/*-------------------------------------------------------------------------
 *
 * home.c
 *		Where this database is at home, and what it ran under last.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "encoding.h"
#include "guc.h"
#include "home.h"
#include "sql.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define NAME_MAX_BYTES 256		/* of a host */

/* What a worker runs under */
typedef struct Place
{
	char	   *host;
	char	   *directory;		/* of the data, without symbolic links */
	char	   *boot;			/* names the kernel's run; NULL: not known */
	int64		device;			/* of pg_control, which is written in place */
	int64		inode;
	TimestampTz born;			/* 0: not known */
	int64		timeline;
} Place;

int64
s64_home_system(void)
{
	Oid			schema = get_namespace_oid("sixtyfour", true);

	return (int64) hash_combine64(GetSystemIdentifier(), (uint64) schema);
}

static Datum *
home_values(Datum *values)
{
	values[0] = Int64GetDatum(s64_home_system());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	return values;
}

/* ---- the present place ---- */

static char *
read_host(void)
{
	char		host[NAME_MAX_BYTES];

	if (gethostname(host, sizeof(host)) < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not get the host's name: %m")));
	host[sizeof(host) - 1] = '\0';
	return s64_encoding_display(host, strlen(host), sizeof(host));
}

static char *
read_directory(void)
{
	char		path[PATH_MAX];

	if (realpath(DataDir, path) == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not resolve path \"%s\": %m", DataDir)));
	return s64_encoding_display(path, strlen(path), sizeof(path));
}

/* Linux names each run of the kernel, the same one in all its containers. */
static char *
read_boot(void)
{
	char		line[NAME_MAX_BYTES];
	FILE	   *file = AllocateFile(BOOT_ID, "r");
	char	   *boot = NULL;

	if (file == NULL)
		return NULL;
	if (fgets(line, sizeof(line), file) != NULL)
		boot = s64_encoding_display(line, strcspn(line, "\n"), sizeof(line));
	FreeFile(file);
	return boot;
}

static TimestampTz
read_born(const char *path)
{
#ifdef STATX_BTIME
	struct statx st;

	if (statx(AT_FDCWD, path, 0, STATX_BTIME, &st) == 0 &&
		(st.stx_mask & STATX_BTIME) != 0)
		return time_t_to_timestamptz((pg_time_t) st.stx_btime.tv_sec) +
			st.stx_btime.tv_nsec / 1000;
#endif
	return 0;
}

static Place
read_place(void)
{
	Place		place;
	struct stat st;
	char	   *path = psprintf("%s/%s", DataDir, XLOG_CONTROL_FILE);

	if (stat(path, &st) < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	place.host = read_host();
	place.directory = read_directory();
	place.boot = read_boot();
	place.device = (int64) st.st_dev;
	place.inode = (int64) st.st_ino;
	place.born = read_born(path);
	place.timeline = RecoveryInProgress() ? 0 : (int64) GetWALInsertionTimeLine();
	return place;
}

/* ---- comparing ---- */

/* Copied files have another inode, or one that was free and is born anew. */
static bool
is_other_file(const Place *last, const Place *now)
{
	return last->inode != now->inode ||
		(last->born != 0 && now->born != 0 && last->born != now->born);
}

/*
 * Is a file that looks the same (see above) certainly the same?  While the
 * kernel runs a device keeps its number, and no two files have both numbers.
 * After a boot the numbers of devices mean nothing.
 */
static bool
is_certain(const Place *last, const Place *now)
{
	return last->boot != NULL && now->boot != NULL &&
		strcmp(last->boot, now->boot) == 0 && last->device == now->device;
}

/*
 * What is different, of what may mean that this is a copy; NULL if nothing.
 *
 * Another timeline means that the server was promoted, or recovered from a
 * backup, so the last commits before may be missing: what they sent is not
 * known here.  The place differs then as well, which is no matter of its own.
 *
 * Another host alone is a snapshot of a volume that somebody mounted elsewhere,
 * or a container made anew, whose name is random; so it counts unless the
 * file is certainly the same.  A snapshot that is mounted in the same directory
 * of a host of the same name cannot be told from a restart.
 */
static char *
find_difference(const Place *last, const Place *now)
{
	if (last->timeline != now->timeline)
		return psprintf("the server was promoted or recovered (timeline " INT64_FORMAT " became " INT64_FORMAT ")",
						last->timeline, now->timeline);
	if (is_other_file(last, now))
		return pstrdup("the data directory is a copy, or was restored");
	if (strcmp(last->directory, now->directory) != 0)
		return psprintf("the data directory was \"%s\" and is \"%s\"",
						last->directory, now->directory);
	if (strcmp(last->host, now->host) != 0 && !is_certain(last, now))
		return psprintf("the host was \"%s\" and is \"%s\"", last->host, now->host);
	return NULL;
}

/* ---- table state ---- */

#define HOME " WHERE home_system = $1 AND home_database = $2"

static SqlStatement select_state = {
	"SELECT paused_reason, host, directory, boot, device, inode, born, timeline"
	" FROM sixtyfour.state" HOME " FOR NO KEY UPDATE",
	2, {INT8OID, OIDOID}, NULL
};

static SqlStatement store_place = {
	"INSERT INTO sixtyfour.state AS s (home_system, home_database, epoch,"
	" host, directory, boot, device, inode, born, timeline)"
	" VALUES ($1, $2, $3, $5, $6, $7, $8, $9, $10, $11)"
	" ON CONFLICT (home_system, home_database) DO UPDATE SET epoch = s.epoch + $3,"
	" paused = s.paused AND $4, paused_reason = CASE WHEN $4 THEN s.paused_reason END,"
	" host = $5, directory = $6, boot = $7, device = $8, inode = $9, born = $10, timeline = $11"
	" RETURNING epoch",
	11, {INT8OID, OIDOID, INT8OID, BOOLOID, TEXTOID, TEXTOID, TEXTOID, INT8OID,
	INT8OID, TIMESTAMPTZOID, INT8OID}, NULL
};

static SqlStatement pause_elsewhere = {
	"UPDATE sixtyfour.state SET epoch = epoch + 1, paused = true, paused_reason = $3" HOME
	" RETURNING epoch",
	3, {INT8OID, OIDOID, TEXTOID}, NULL
};

static SqlStatement pause_here = {
	"INSERT INTO sixtyfour.state (home_system, home_database, paused) VALUES ($1, $2, true)"
	" ON CONFLICT (home_system, home_database) DO UPDATE SET paused = true",
	2, {INT8OID, OIDOID}, NULL
};

static SqlStatement select_paused = {
	"SELECT coalesce(paused_reason, '') FROM sixtyfour.state" HOME " AND paused",
	2, {INT8OID, OIDOID}, NULL
};

/* The place of the last worker; false if there was none.  Locks the row. */
static bool
read_last(Place *last, char **reason)
{
	Datum		values[2];
	bool		isnull;

	*reason = NULL;
	if (s64_sql_run(&select_state, home_values(values), NULL) == 0)
		return false;
	*reason = s64_sql_text(0, 1);
	last->host = s64_sql_text(0, 2);
	last->directory = s64_sql_text(0, 3);
	last->boot = s64_sql_text(0, 4);
	last->device = s64_sql_int8(0, 5);
	last->inode = s64_sql_int8(0, 6);
	last->born = DatumGetTimestampTz(s64_sql_value(0, 7, &isnull));
	if (isnull)
		last->born = 0;
	last->timeline = s64_sql_int8(0, 8);
	return last->host != NULL;
}

static int64
remember(const Place *place, int epochs, bool keep_pause)
{
	Datum		values[11];
	char		nulls[12] = "           ";

	home_values(values);
	values[2] = Int64GetDatum(epochs);
	values[3] = BoolGetDatum(keep_pause);
	values[4] = CStringGetTextDatum(place->host);
	values[5] = CStringGetTextDatum(place->directory);
	values[6] = CStringGetTextDatum(place->boot ? place->boot : "");
	values[7] = Int64GetDatum(place->device);
	values[8] = Int64GetDatum(place->inode);
	values[9] = TimestampTzGetDatum(place->born);
	values[10] = Int64GetDatum(place->timeline);
	if (place->boot == NULL)
		nulls[6] = 'n';
	if (place->born == 0)
		nulls[9] = 'n';
	s64_sql_run(&store_place, values, nulls);
	return s64_sql_int8(0, 1);
}

static int64
pause_for(const char *reason)
{
	Datum		values[3];

	home_values(values);
	values[2] = CStringGetTextDatum(reason);
	s64_sql_run(&pause_elsewhere, values, NULL);
	return s64_sql_int8(0, 1);
}

static void
log_pause(const char *reason)
{
	ereport(LOG,
			(errmsg("sixtyfour: submissions from database \"%s\" are paused: %s",
					get_database_name(MyDatabaseId), reason),
			 errhint("See that no other server works on the same queue, and that sixtyfour.calls has all that the service has accepted; then run SELECT sixtyfour_resume() in that database.")));
}

int64
s64_home_take_over(void)
{
	Place		now = read_place();
	Place		last;
	char	   *difference = NULL;
	char	   *reason;
	int64		epoch;

	s64_sql_begin();
	if (read_last(&last, &reason))
		difference = find_difference(&last, &now);
	if (difference != NULL && last.timeline != now.timeline &&
		s64_guc_on_promotion == ON_PROMOTION_CONTINUE)
	{
		ereport(LOG,
				(errmsg("sixtyfour: database \"%s\" goes on, as sixtyfour.on_promotion says: %s",
						get_database_name(MyDatabaseId), difference)));
		difference = NULL;
	}
	if (difference != NULL)
		epoch = pause_for(difference);
	else
		epoch = remember(&now, 1, true);
	if (difference != NULL || reason != NULL)
		log_pause(difference ? difference : reason);
	s64_sql_end();
	return epoch;
}

void
s64_home_pause(void)
{
	Datum		values[2];

	s64_sql_execute(&pause_here, home_values(values), NULL);
}

void
s64_home_resume(void)
{
	Place		now = read_place();

	s64_sql_begin();
	(void) remember(&now, 0, false);
	s64_sql_end();
}

char *
s64_home_paused(void)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[2];
	char	   *reason = NULL;

	s64_sql_begin();
	if (s64_sql_run(&select_paused, home_values(values), NULL) > 0)
		reason = MemoryContextStrdup(context, s64_sql_text(0, 1));
	s64_sql_end();
	return reason;
}
