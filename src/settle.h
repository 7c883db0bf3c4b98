/*-------------------------------------------------------------------------
 *
 * settle.h
 *		What becomes of a call when a request about it has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_SETTLE_H
#define S64_SETTLE_H

#include "utils/timestamp.h"

/*
 * Fetch the flights that have ended, record what they mean in the ledger,
 * durably, and let tasks be polled on.  What cannot be recorded now (a full
 * disk, say) is kept and tried again by a later call; *retry_at is then set
 * to when.  *changed is set if job states changed, *delivering if results
 * wait to be brought home.
 *
 * To be called outside of any transaction; runs its own.  Raises no error.
 */
extern void s64_settle_ended(int64 epoch, TimestampTz *retry_at,
							 bool *changed, bool *delivering);

#endif							/* S64_SETTLE_H */
