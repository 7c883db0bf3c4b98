/*-------------------------------------------------------------------------
 *
 * operation.h
 *		What an SQL function asks the service for.
 *
 * All operations share C functions.  Which operation is meant is told by the
 * SQL function's own name: sixtyfour_, the endpoint's name, and _async or
 * _bulk_async if it puts the question into the queue.  Arguments go by their
 * names into the path or into the request's body.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_OPERATION_H
#define S64_OPERATION_H

#include "fmgr.h"
#include "utils/jsonb.h"

#include "endpoint.h"

#define S64_OPERATION_MAX_ARGS 16

typedef struct Operation
{
	const Endpoint *endpoint;
	int			nargs;
	Oid			types[S64_OPERATION_MAX_ARGS];
	char	   *names[S64_OPERATION_MAX_ARGS];
} Operation;

/*
 * The operation of the SQL function being called; looked up once per query,
 * kept in fn_extra.
 */
extern const Operation *s64_operation_get(FunctionCallInfo fcinfo);

/*
 * The request's body, unchecked: an object of the arguments that are given and
 * not in the path, with the members of argument "options"; or argument
 * "request" as it is.  NULL if the endpoint takes none.  Raises 22023 for
 * options that are no object or repeat an argument.
 */
extern Jsonb *s64_operation_body(FunctionCallInfo fcinfo,
								 const Operation *operation);

/*
 * The arguments that stand in the path, up to S64_OPERATION_MAX_ARGS of them;
 * returns their number.
 */
extern int	s64_operation_parameters(FunctionCallInfo fcinfo,
									 const Operation *operation,
									 Parameter *parameters);

/* The number of the argument of that name, or -1 */
extern int	s64_operation_argument(const Operation *operation, const char *name);

#endif							/* S64_OPERATION_H */
