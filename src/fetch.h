/*-------------------------------------------------------------------------
 *
 * fetch.h
 *		The rows that a finished search or run of a workflow has found.
 *
 * They are in a CSV file behind a signed address, which expires; so the address
 * is asked for when the file is wanted, and again if it has expired.  All this
 * is free, and can be done again as long as the service keeps the file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_FETCH_H
#define S64_FETCH_H

#include "account.h"
#include "endpoint.h"
#include "rowset.h"

/*
 * Add the rows that an answer (a finished search's or run's status) speaks of;
 * none if it speaks of none.  Waits; can be cancelled.  Values are texts, a
 * missing one is null.  Raises what session.h and download.h do, and 08P01 for
 * what is not CSV.
 */
extern void s64_fetch_answer(const Account *account, RowsPlace place,
							 Jsonb *answer, const Rowset *rowset);

/* The same by what names them: a resource_handle_id, or a run_id */
extern void s64_fetch_rows(const Account *account, RowsPlace place,
						   const char *name, const Rowset *rowset);

#endif							/* S64_FETCH_H */
