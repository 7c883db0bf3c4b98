/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		Starts each database's worker and writer.
 *
 * A static background worker of the server, "sixtyfour launcher".  It reads
 * pg_database, has each database probed once for the extension, and starts
 * what is woken.  It is the only one that starts processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_LAUNCHER_H
#define S64_LAUNCHER_H

/* Register the launcher, when the postmaster loads us.  From _PG_init. */
extern void s64_launcher_init(void);

#endif							/* S64_LAUNCHER_H */
