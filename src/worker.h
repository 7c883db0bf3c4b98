/*-------------------------------------------------------------------------
 *
 * worker.h
 *		The background worker: claims jobs, speaks to the service, settles.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_WORKER_H
#define S64_WORKER_H

/* Entry point of background processes "sixtyfour worker"; arg is a database. */
extern PGDLLEXPORT void s64_worker_main(Datum arg);

#endif							/* S64_WORKER_H */
