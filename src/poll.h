/*-------------------------------------------------------------------------
 *
 * poll.h
 *		Asks the service about the tasks that are due.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_POLL_H
#define S64_POLL_H

#include "utils/timestamp.h"

/*
 * Poll the tasks that are due.  Returns when to come again; DT_NOEND if there
 * is no task waiting to be polled.  A task that cannot be asked about, as its
 * account cannot be used, expires at its deadline; then *changed is set.  To
 * be called outside of any transaction; raises errors of the ledger.
 */
extern TimestampTz s64_poll_due(int64 epoch, bool *changed);

#endif							/* S64_POLL_H */
