/*-------------------------------------------------------------------------
 *
 * inbox.h
 *		Makes jobs of what sessions ask the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_INBOX_H
#define S64_INBOX_H

/*
 * Queue what sessions have asked since the last call, and cancel what was
 * queued for those that have gone and is not sent.  True if there was
 * anything.  To be called outside of any transaction; raises errors of the
 * ledger, after which the same is tried again.
 */
extern bool s64_inbox_empty(void);

/* Jobs have changed: wake the sessions for which there is news. */
extern void s64_inbox_tell(void);

#endif							/* S64_INBOX_H */
