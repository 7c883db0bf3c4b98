/*-------------------------------------------------------------------------
 *
 * forget.c
 *		Erases what is stored about somebody.
 *
 * All in the caller's transaction.  Nothing that the worker has to change is
 * changed or locked here, so that it is not held up until the caller commits:
 * of a call that is sending or accepted only its subjects are deleted, and what
 * comes for them is turned away by their entries in sixtyfour.forgotten.
 *
 * What remains is what the money needs: calls with their numbers, states and
 * cents, and as long as a call is open the fingerprints of its questions, as
 * they must not be asked again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "endpoint.h"
#include "retention.h"
#include "errand.h"
#include "sql.h"

S64_FUNCTION(sixtyfour_forget);

/* Whose things may be erased: everybody's ($2), or those of $3 */
#define MAY(role) "($2 OR pg_has_role($3, " role "::oid, 'USAGE'))"

static SqlStatement delete_jobs = {
	"WITH gone AS (DELETE FROM sixtyfour.job j USING unnest($4, $5) AS s (operation, subject)"
	"  WHERE j.operation = s.operation"
	"  AND (j.body -> s.subject @> $1 OR j.body -> s.subject @> jsonb_build_array($1)"
	"   OR jsonb_build_object(s.subject, j.body -> s.subject) @> $1) AND " MAY("j.owner")
	"  RETURNING j.call, j.item, j.result)"
	" SELECT count(*), array_agg(call), array_agg(item), array_agg(result) FROM gone",
	5, {JSONBOID, BOOLOID, OIDOID, TEXTARRAYOID, TEXTARRAYOID}, NULL
};

/*
 * The items that those jobs ($4 and $5) and results ($6) are of, and those
 * that are about the subject but whose jobs are gone, unless somebody else's
 * job stands on them.
 */
static SqlStatement select_items = {
	"SELECT array_agg(call), array_agg(item) FROM"
	" (SELECT call, item FROM unnest($4, $5) AS o (call, item) WHERE call IS NOT NULL"
	"  UNION SELECT call, item FROM sixtyfour.result WHERE id = ANY ($6)"
	"  UNION SELECT s.call, s.item FROM sixtyfour.call_subject s"
	"   JOIN sixtyfour.call c ON c.id = s.call"
	"   WHERE (s.subject @> $1 OR s.subject @> jsonb_build_array($1)) AND " MAY("c.payer")
	" ) AS i (call, item)"
	" WHERE $2 OR NOT EXISTS (SELECT FROM sixtyfour.job j WHERE j.call = i.call AND j.item = i.item)"
	"  AND NOT EXISTS (SELECT FROM sixtyfour.result r JOIN sixtyfour.job j ON j.result = r.id"
	"   WHERE r.call = i.call AND r.item = i.item)",
	6, {JSONBOID, BOOLOID, OIDOID, INT8ARRAYOID, INT2ARRAYOID, INT8ARRAYOID}, NULL
};

static SqlStatement turn_away = {
	"INSERT INTO sixtyfour.forgotten (call, item)"
	" SELECT i.call, i.item FROM unnest($1, $2) AS u (call, item)"
	" JOIN sixtyfour.call_item i ON i.call = u.call AND i.item = u.item AND i.open"
	" ON CONFLICT DO NOTHING",
	2, {INT8ARRAYOID, INT2ARRAYOID}, NULL
};

/* The words of a bulk call may have gone to the jobs of others, too. */
static SqlStatement erase_items = {
	"WITH u AS MATERIALIZED (SELECT * FROM unnest($1, $2) AS u (call, item)),"
	" results AS (DELETE FROM sixtyfour.result r USING u"
	"  WHERE r.call = u.call AND r.item = u.item RETURNING 1),"
	" subjects AS (DELETE FROM sixtyfour.call_subject s USING u"
	"  WHERE s.call = u.call AND s.item = u.item),"
	" items AS (DELETE FROM sixtyfour.call_item i USING u"
	"  WHERE i.call = u.call AND i.item = u.item AND NOT i.open),"
	" calls AS (UPDATE sixtyfour.call SET " S64_FORGET_WORDS ", raw = NULL"
	"  WHERE id IN (SELECT call FROM u) AND state NOT IN ('sending', 'accepted')"
	"   AND coalesce(raw, message, detail) IS NOT NULL RETURNING id),"
	" others AS (UPDATE sixtyfour.job SET " S64_FORGET_WORDS
	"  WHERE call IN (SELECT id FROM calls) AND coalesce(message, detail) IS NOT NULL)"
	" SELECT count(*) FROM results",
	2, {INT8ARRAYOID, INT2ARRAYOID}, NULL
};

/* Arrays of the operations and of the fields that hold their subjects */
static void
subject_fields(Datum *operations, Datum *fields)
{
	ArrayBuildState *names = NULL;
	ArrayBuildState *subjects = NULL;
	const Endpoint *endpoint;

	for (int i = 0; (endpoint = s64_endpoint_at(i)) != NULL; i++)
	{
		if (!s64_endpoint_names_somebody(endpoint))
			continue;
		names = accumArrayResult(names, CStringGetTextDatum(endpoint->name), false,
								 TEXTOID, CurrentMemoryContext);
		subjects = accumArrayResult(subjects, CStringGetTextDatum(endpoint->fields[0].name),
									false, TEXTOID, CurrentMemoryContext);
	}
	*operations = makeArrayResult(names, CurrentMemoryContext);
	*fields = makeArrayResult(subjects, CurrentMemoryContext);
}

/* Columns of the last statement's row as values; they last until the end. */
static void
take_columns(int column, int n, Datum *values, char *nulls)
{
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		values[i] = s64_sql_value(0, column + i, &isnull);
		nulls[i] = isnull ? 'n' : ' ';
	}
}

/* Erase the items; returns how many results that were. */
static int64
forget_items(Datum *values, const char *nulls)
{
	if (nulls[0] == 'n')
		return 0;
	if (s64_sql_run(&turn_away, values, NULL) > 0)
		s64_errand_wake(PROCESS_WRITER);
	s64_sql_run(&erase_items, values, NULL);
	return s64_sql_int8(0, 1);
}

/* sixtyfour_forget(subject jsonb) → bigint: jobs and results erased */
Datum
sixtyfour_forget(PG_FUNCTION_ARGS)
{
	Jsonb	   *subject = PG_GETARG_JSONB_P(0);
	Datum		values[6] = {0};
	char		nulls[7] = "      ";
	int64		erased;

	if (!JB_ROOT_IS_OBJECT(subject) || JB_ROOT_COUNT(subject) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the subject to forget must be an object that is not empty"),
				 errhint("Give what tells the person or company from others, such as {\"name\": \"Ada Brandt\"}.")));
	values[0] = JsonbPGetDatum(subject);
	values[1] = BoolGetDatum(s64_database_ownercheck(MyDatabaseId, GetUserId()));
	values[2] = ObjectIdGetDatum(GetUserId());
	subject_fields(&values[3], &values[4]);

	s64_sql_begin();
	s64_sql_run(&delete_jobs, values, NULL);
	erased = s64_sql_int8(0, 1);
	take_columns(2, 3, &values[3], &nulls[3]);
	s64_sql_run(&select_items, values, nulls);
	take_columns(1, 2, values, nulls);
	erased += forget_items(values, nulls);
	s64_sql_end();
	PG_RETURN_INT64(erased);
}
