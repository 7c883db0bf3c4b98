/*-------------------------------------------------------------------------
 *
 * detour.h
 *		Operations that the service may have at another path.
 *
 * The specification's path is tried first.  Where the service does not know
 * it (404, 405) the other one is.  Which of them answered is remembered in shared
 * memory, per account: so ALTER SERVER with another URL counts.  Where the library
 * is not preloaded each session remembers for itself.  Only for what is free: it
 * may be asked twice.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_DETOUR_H
#define S64_DETOUR_H

#include "account.h"
#include "endpoint.h"
#include "utils/jsonb.h"

/* Ask for shared memory, when the postmaster loads us.  From _PG_init. */
extern void s64_detour_init(void);

/*
 * s64_session_exchange() with the endpoint's request, there or elsewhere.
 * Raises what that does, and 22023 for arguments that the service would refuse.
 */
extern Jsonb *s64_detour_exchange(const Account *account,
								  const Endpoint *endpoint, Jsonb *arguments);

#endif							/* S64_DETOUR_H */
