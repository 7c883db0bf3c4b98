/*-------------------------------------------------------------------------
 *
 * inquiry.h
 *		A question put to the worker, and awaited by this session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_INQUIRY_H
#define S64_INQUIRY_H

#include "account.h"
#include "endpoint.h"
#include "utils/jsonb.h"

/* For who wants to know, while he waits, how far the task is */
typedef struct InquiryWatch
{
	/*
	 * Called about each second once the task of a call is named.  True if that
	 * is all that was wanted.
	 */
	bool		(*look) (int64 call, const char *task_id, void *arg);
	void	   *arg;
} InquiryWatch;

/*
 * The answer to a question with this normalized body: one that is stored and
 * younger than sixtyfour.cache_ttl, or what the worker of this database is
 * told, in transactions of its own.  So it is kept and paid for once, whatever
 * becomes of this transaction; asking again joins it, or gets what is stored.
 *
 * Sets *answer (palloc'd; NULL if the watch, which may be NULL, wanted no more)
 * and returns true; or returns false if nobody works for
 * this database, and nothing was asked.  Raises every failure: see report.h;
 * 55000 if this transaction has queued the same question, or the queue is
 * paused; 08006 after the account's timeout, while the question goes on.
 */
extern bool s64_inquiry_make(const Account *account, const Endpoint *endpoint,
							 Jsonb *body, const InquiryWatch *watch,
							 Jsonb **answer);

#endif							/* S64_INQUIRY_H */
