/*-------------------------------------------------------------------------
 *
 * operation.h
 *		What an SQL function asks the service for.
 *
 * All operations share C functions.  Which operation is meant is told by the
 * SQL function's own name: sixtyfour_, the endpoint's name, and _async or
 * _bulk_async if it puts the question into the queue; start_ stands for what
 * is followed to its end otherwise.  Arguments have the names of the fields.
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
 * What is asked, unchecked: an object of the arguments that are given, with the
 * members of argument "options" or "changes"; or argument "request" as it is.
 * Raises 22023 for options that are no object or repeat an argument.
 */
extern Jsonb *s64_operation_body(FunctionCallInfo fcinfo,
								 const Operation *operation);

/*
 * Is the first argument NULL, though the operation cannot do without?  Then
 * nothing is asked, and the answer is NULL.
 */
extern bool s64_operation_asks_nothing(FunctionCallInfo fcinfo,
									   const Operation *operation);

/* The number of the argument of that name, or -1 */
extern int	s64_operation_argument(const Operation *operation, const char *name);

#endif							/* S64_OPERATION_H */
