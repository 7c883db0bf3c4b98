/*-------------------------------------------------------------------------
 *
 * feed.h
 *		Puts the rows of an enrichment into the queue.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_FEED_H
#define S64_FEED_H

/* Watch for changes of tables.  From _PG_init. */
extern void s64_feed_init(void);

#endif							/* S64_FEED_H */
