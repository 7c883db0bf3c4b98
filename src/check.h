/*-------------------------------------------------------------------------
 *
 * check.h
 *		Refuses request bodies that the service would refuse, or misread.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_CHECK_H
#define S64_CHECK_H

#include "utils/jsonb.h"

#include "endpoint.h"

/*
 * Check a request body against the endpoint's fields.  Fields that the
 * endpoint does not name pass.  Raises 22023 for the first fault found,
 * naming the field.
 */
extern void s64_check_body(const Endpoint *endpoint, Jsonb *body);

#endif							/* S64_CHECK_H */
