/*-------------------------------------------------------------------------
 *
 * kind.h
 *		Which background processes there are, and how many there may be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_KIND_H
#define S64_KIND_H

typedef enum ProcessKind
{
	PROCESS_LAUNCHER,
	PROCESS_WORKER,
	PROCESS_WRITER
} ProcessKind;

#define S64_ROSTER_PLACES 1024	/* databases with the extension */
#define S64_ROSTER_STATE_LEN 32
#define S64_ROSTER_MESSAGE_LEN 160

#endif							/* S64_KIND_H */
