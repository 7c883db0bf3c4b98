/*-------------------------------------------------------------------------
 *
 * board.c
 *		How far tasks are, as the service last said, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lwlock.h"

#include "board.h"
#include "shmem.h"

#define MAX_NOTES 256			/* of all databases */

typedef struct Note
{
	Oid			database;		/* InvalidOid: none */
	int64		call;
	uint64		written;		/* when, on the board's clock */
	char		text[S64_BOARD_TEXT];
} Note;

typedef struct Board
{
	uint64		clock;			/* counts what is written */
	Note		notes[MAX_NOTES];
} Board;

static Board *board = NULL;
static LWLock *board_lock = NULL;

void
s64_board_init(void)
{
	static const ShmemPart part = {
		"sixtyfour board", sizeof(Board), NULL, (void **) &board, &board_lock
	};

	s64_shmem_add(&part);
}

/* With the lock held; NULL if there is none */
static Note *
find_note(int64 call)
{
	for (int i = 0; i < MAX_NOTES; i++)
	{
		if (board->notes[i].database == MyDatabaseId && board->notes[i].call == call)
			return &board->notes[i];
	}
	return NULL;
}

static Note *
oldest_note(void)
{
	Note	   *oldest = &board->notes[0];

	for (int i = 1; i < MAX_NOTES; i++)
	{
		if (board->notes[i].written < oldest->written)
			oldest = &board->notes[i];
	}
	return oldest;
}

void
s64_board_write(int64 call, const char *text)
{
	int			len = pg_mbcliplen(text, strlen(text), S64_BOARD_TEXT - 1);
	Note	   *note;

	if (board == NULL)
		return;
	LWLockAcquire(board_lock, LW_EXCLUSIVE);
	note = find_note(call);
	if (note == NULL)
		note = oldest_note();
	note->database = MyDatabaseId;
	note->call = call;
	note->written = ++board->clock;
	memcpy(note->text, text, len);
	note->text[len] = '\0';
	LWLockRelease(board_lock);
}

char *
s64_board_read(int64 call)
{
	char		text[S64_BOARD_TEXT] = "";
	const Note *note;

	if (board == NULL)
		return NULL;
	LWLockAcquire(board_lock, LW_SHARED);
	note = find_note(call);
	if (note != NULL)
		strlcpy(text, note->text, sizeof(text));
	LWLockRelease(board_lock);
	return text[0] != '\0' ? pstrdup(text) : NULL;
}
