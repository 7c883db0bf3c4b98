/*-------------------------------------------------------------------------
 *
 * link.h
 *		Where the file is that has an answer's rows.
 *
 * A search names a resource, a run of a workflow itself; asked about it, the
 * service gives a signed address, or the rows themselves where they are few.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_LINK_H
#define S64_LINK_H

#include "utils/jsonb.h"

#include "account.h"
#include "endpoint.h"
#include "request.h"

/* What the service says about it; nothing at all if there are no rows */
typedef struct Link
{
	char	   *url;			/* of a CSV file, or NULL */
	Jsonb	   *rows;			/* an array, or NULL */
} Link;

/*
 * What names the rows that an answer speaks of: its resource_handle_id or
 * run_id, palloc'd; NULL if it has none.
 */
extern char *s64_link_name(RowsPlace place, Jsonb *answer);

/* The request that asks where they are; palloc'd */
extern ApiRequest *s64_link_request(const Account *account, RowsPlace place,
									const char *name);

/*
 * Read the answer to it: of a run the file of its last block.  palloc'd.
 * Returns false, with *why, if it makes no sense.
 */
extern bool s64_link_read(RowsPlace place, Jsonb *answer, Link *link,
						  const char **why);

#endif							/* S64_LINK_H */
