/*-------------------------------------------------------------------------
 *
 * detour.h
 *		Operations that the service may have at another path.
 *
 * The specification's path is tried first.  Where the service does not know
 * it (404, 405) the other one is; which of them answered is remembered for the
 * rest of the session, per account: so ALTER SERVER with another URL counts.  Only
 * for what is free: it may be asked twice.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_DETOUR_H
#define S64_DETOUR_H

#include "account.h"
#include "endpoint.h"
#include "utils/jsonb.h"

/*
 * s64_session_exchange() with the endpoint's request, there or elsewhere.
 * Raises what that does, and 22023 for arguments that the service would refuse.
 */
extern Jsonb *s64_detour_exchange(const Account *account,
								  const Endpoint *endpoint, Jsonb *arguments);

#endif							/* S64_DETOUR_H */
