/*-------------------------------------------------------------------------
 *
 * board.h
 *		How far tasks are, as the service last said, in shared memory.
 *
 * For people who wait: not kept over a restart, and what was said longest ago
 * makes room.  Does nothing where the library is not preloaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_BOARD_H
#define S64_BOARD_H

#define S64_BOARD_TEXT 200		/* bytes, the NUL included */

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_board_init(void);

/* The task of this call, of the current database, is so far; cut to fit. */
extern void s64_board_write(int64 call, const char *text);

/* What was said last about that call, palloc'd; NULL if nothing is known */
extern char *s64_board_read(int64 call);

#endif							/* S64_BOARD_H */
