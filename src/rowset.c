/*-------------------------------------------------------------------------
 *
 * rowset.c
 *		Rows of jsonb that a function returns.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "funcapi.h"

#include "compat.h"
#include "rowset.h"

Rowset
s64_rowset_begin(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Rowset		rowset;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	rowset.store = rsinfo->setResult;
	rowset.desc = rsinfo->setDesc;
	return rowset;
}

void
s64_rowset_add(const Rowset *rowset, Jsonb *row)
{
	Datum		value = JsonbPGetDatum(row);
	bool		isnull = false;

	tuplestore_putvalues(rowset->store, rowset->desc, &value, &isnull);
}

void
s64_rowset_add_elements(const Rowset *rowset, Jsonb *array, const char *what)
{
	int			n;

	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("%s: the service's answer is not a JSON array", what)));
	n = JB_ROOT_COUNT(array);
	for (int i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(&array->root, i);
		Jsonb	   *row = JsonbValueToJsonb(element);

		s64_rowset_add(rowset, row);
		pfree(row);
		pfree(element);
	}
}
