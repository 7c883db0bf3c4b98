/*-------------------------------------------------------------------------
 *
 * asked.h
 *		Which rows an enrichment has asked about already.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ASKED_H
#define S64_ASKED_H

#include "enrichment.h"

/*
 * Move the rows that are to be asked about to the front; returns their number.
 * Left out are those whose latest job, failed and cancelled ones aside, asked
 * the same, unless its answer is older than refresh_after; and those whose output
 * is filled, unless an answer about them is.
 *
 * Reads the ledger with the latest snapshot, whatever the isolation level.
 */
extern int	s64_asked_leave_out(const Enrichment *e, Row *rows, int n);

#endif							/* S64_ASKED_H */
