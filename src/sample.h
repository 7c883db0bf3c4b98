/*-------------------------------------------------------------------------
 *
 * sample.h
 *		Checks the requests that an enrichment would make, by a sample of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_SAMPLE_H
#define S64_SAMPLE_H

#include "utils/jsonb.h"

#include "endpoint.h"

/*
 * Check struct and options (or NULL), which are what all requests have in
 * common; the subject, whose members input names, comes from the rows.  Raises
 * 22023.
 */
extern void s64_sample_check(const Endpoint *endpoint, Jsonb *input,
							 Jsonb *structure, Jsonb *options);

#endif							/* S64_SAMPLE_H */
