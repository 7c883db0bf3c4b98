/*-------------------------------------------------------------------------
 *
 * guc.h
 *		The extension's settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_GUC_H
#define S64_GUC_H

/* sixtyfour.server: name of the foreign server that stands for the account */
extern char *s64_guc_server;

/* sixtyfour.max_response_size: largest reply body accepted, in kB */
extern int	s64_guc_max_response_size;

/* sixtyfour.log_min_duration: log exchanges this slow, in ms; -1 is never */
extern int	s64_guc_log_min_duration;

/* sixtyfour.max_in_flight: requests of a worker at the same time */
extern int	s64_guc_max_in_flight;

/* sixtyfour.cache_ttl: age up to which a stored result answers, in s */
extern int	s64_guc_cache_ttl;

/*
 * sixtyfour.retention, sixtyfour.result_retention: how long finished jobs, and
 * answers with the calls that brought them, are kept, in s; -1 is for ever
 */
extern int	s64_guc_retention;
extern int	s64_guc_result_retention;

/* sixtyfour.databases: names, or "*", whose jobs are worked on */
extern char *s64_guc_databases;

/* sixtyfour.route: who makes a session's synchronous calls */
typedef enum Route
{
	ROUTE_AUTO,					/* the worker, where there is one */
	ROUTE_DIRECT,				/* the session */
	ROUTE_WORKER
} Route;

extern int	s64_guc_route;

/* sixtyfour.idle_timeout: an idle background process ends after this, in s */
extern int	s64_guc_idle_timeout;

/* sixtyfour.write_timeout: an attempt at writing rows may take this, in ms */
extern int	s64_guc_write_timeout;
/* sixtyfour.on_promotion: on another timeline than before */
typedef enum OnPromotion
{
	ON_PROMOTION_PAUSE,
	ON_PROMOTION_CONTINUE
} OnPromotion;

extern int	s64_guc_on_promotion;

/* sixtyfour.on_uncertain: what the worker does with uncertain calls */
typedef enum OnUncertain
{
	ON_UNCERTAIN_HOLD,
	ON_UNCERTAIN_RESUBMIT
} OnUncertain;

extern int	s64_guc_on_uncertain;

/* sixtyfour.resubmit_after: and when, in s after the submission */
extern int	s64_guc_resubmit_after;

/* Define the settings and reserve their prefix.  Called by _PG_init. */
extern void s64_guc_init(void);

#endif							/* S64_GUC_H */
