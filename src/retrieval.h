/*-------------------------------------------------------------------------
 *
 * retrieval.h
 *		The rows that an answer speaks of, brought here by a background process.
 *
 * The service is asked where they are (see link.h), and the file is fetched into
 * a temporary one; again if the address has expired meanwhile, or the service
 * knows nothing of the rows yet.  All that is free.  Nothing here waits:
 *
 *		r = s64_retrieval_new(account, place, name);		in a transaction
 *		...
 *		while (!s64_retrieval_turn(r, &next))				outside of any
 *			s64_http_wait(until next), interrupts, other work
 *		if (s64_retrieval_failure(r) == NULL)
 *			... s64_retrieval_rows(r), s64_retrieval_file(r) ...
 *		s64_retrieval_free(r);
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_RETRIEVAL_H
#define S64_RETRIEVAL_H

#include "utils/timestamp.h"

#include "account.h"
#include "download.h"
#include "endpoint.h"
#include "report.h"

typedef struct Retrieval Retrieval;

/*
 * A retrieval of what name names (see s64_link_name()), in a memory context of
 * its own below TopMemoryContext.  Nothing is sent yet.  Needs a transaction;
 * raises 22023 if the name cannot be asked for.
 */
extern Retrieval *s64_retrieval_new(const Account *account, RowsPlace place,
									const char *name);

/*
 * Do what can be done without waiting.  True once it has ended.  Otherwise the
 * service is waited for, or *next is lowered to when there is more to do.  To be
 * called outside of any transaction; may run one.  Does not raise what is
 * wrong with this retrieval.
 */
extern bool s64_retrieval_turn(Retrieval *retrieval, TimestampTz *next);

/*
 * Of one that has ended: NULL, or why it failed, and whether it is of use to try
 * again, after *pause µs.
 */
extern const Failure *s64_retrieval_failure(const Retrieval *retrieval,
											bool *passing, int64 *pause);

/* The rows as an array; NULL if they are in a file, or there are none. */
extern Jsonb *s64_retrieval_rows(const Retrieval *retrieval);

/* The download that has the file; NULL if there is none. */
extern Download *s64_retrieval_file(const Retrieval *retrieval);

/* Of one that has ended */
extern void s64_retrieval_free(Retrieval *retrieval);

#endif							/* S64_RETRIEVAL_H */
