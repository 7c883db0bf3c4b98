/*-------------------------------------------------------------------------
 *
 * submit.h
 *		Which calls to make next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_SUBMIT_H
#define S64_SUBMIT_H

#include "utils/timestamp.h"

/*
 * Open calls for jobs that are due, as far as the accounts' limits and
 * budgets and the room for transfers allow, commit that durably, and send
 * them.  Jobs whose question is answered or under way already are settled
 * without a call.
 *
 * Returns when to come again: now if there is more to do, later if a limit is
 * in the way or nothing is due, DT_NOEND if nothing is queued.  *changed and
 * *delivering are set as by s64_settle_ended().  To be called outside of any
 * transaction; raises errors of the ledger.  A job whose request cannot be made
 * fails, and raises nothing.
 */
extern TimestampTz s64_submit_due(int64 epoch, bool *changed, bool *delivering);

#endif							/* S64_SUBMIT_H */
