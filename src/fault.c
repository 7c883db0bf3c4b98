/*-------------------------------------------------------------------------
 *
 * fault.c
 *		Points at which a test can make a process fail.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"

#include "fault.h"

#ifdef S64_FAULTS

#define FOLDER "sixtyfour_faults"

/*
 * Is it our turn to fail?  Then the file is gone, and action is how.  A lock
 * on the log keeps processes that come at the same time apart.
 */
static bool
take(const char *name, const char *path, char *action)
{
	int			log = open(FOLDER "/log", O_WRONLY | O_APPEND | O_CREAT, 0600);
	FILE	   *file;
	int			left = 0;

	if (log < 0)
		return false;
	flock(log, LOCK_EX);
	file = fopen(path, "r");
	if (file != NULL && fscanf(file, "%15s %d", action, &left) == 2 && --left == 0)
	{
		dprintf(log, "%s %s %d\n", name, action, (int) getpid());
		unlink(path);
	}
	else if (file != NULL && left > 0 && (file = freopen(path, "w", file)) != NULL)
		fprintf(file, "%s %d\n", action, left);
	else
		left = -1;
	if (file != NULL)
		fclose(file);
	close(log);
	return left == 0;
}

static void
pause_here(const char *path)
{
	char	   *mark = psprintf("%s.paused", path);
	FILE	   *file = fopen(mark, "w");

	if (file != NULL)
		fclose(file);
	while (access(mark, F_OK) == 0 && PostmasterIsAlive())
		pg_usleep(5000);
	pfree(mark);
}

void
s64_fault_reach(const char *name)
{
	char		path[MAXPGPATH];
	char		action[16];

	snprintf(path, sizeof(path), FOLDER "/%s", name);
	if (access(path, F_OK) != 0 || !take(name, path, action))
		return;
	if (strcmp(action, "kill") == 0)
		kill(getpid(), SIGKILL);
	else if (strcmp(action, "exit") == 0)
		proc_exit(1);
	else if (strcmp(action, "pause") == 0)
		pause_here(path);
	else
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory at \"%s\"", name)));
}

#endif							/* S64_FAULTS */
