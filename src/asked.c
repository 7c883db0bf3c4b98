/*-------------------------------------------------------------------------
 *
 * asked.c
 *		Which rows an enrichment has asked about already.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"

#include "asked.h"
#include "sql.h"

/*
 * For each row that has a job: its place, and whether to ask again.  The
 * latest job decides: an input that was changed and changed back is asked
 * again, since the row holds the answer to what it was in between.
 */
static SqlStatement select_asked = {
	"SELECT u.place::int4,"
	" CASE WHEN j.state <> 'succeeded' OR e.refresh_after IS NULL"
	"  OR j.finished_at > now() - e.refresh_after"
	"  THEN j.body <> u.body AND NOT u.filled ELSE true END"
	" FROM unnest($2, $3, $4) WITH ORDINALITY AS u (key, body, filled, place)"
	" JOIN sixtyfour.enrichment e ON e.id = $1"
	" CROSS JOIN LATERAL (SELECT state, body, finished_at FROM sixtyfour.job"
	"  WHERE enrichment = $1"
	"  AND jsonb_hash_extended(row_key, 0) = jsonb_hash_extended(u.key, 0) AND row_key = u.key"
	"  AND state NOT IN ('failed', 'cancelled') ORDER BY id DESC LIMIT 1) j",
	4, {INT4OID, JSONBARRAYOID, JSONBARRAYOID, BOOLARRAYOID}, NULL
};

typedef enum Verdict
{
	NOT_ASKED,
	ASKED,
	ASK_AGAIN
} Verdict;

static void
read_verdicts(Verdict *verdicts, uint64 found)
{
	for (uint64 i = 0; i < found; i++)
	{
		bool		isnull;
		int			place = DatumGetInt32(s64_sql_value(i, 1, &isnull));

		verdicts[place - 1] = DatumGetBool(s64_sql_value(i, 2, &isnull)) ? ASK_AGAIN : ASKED;
	}
}

int
s64_asked_leave_out(const Enrichment *e, Row *rows, int n)
{
	Datum	   *keys = palloc(n * sizeof(Datum));
	Datum	   *bodies = palloc(n * sizeof(Datum));
	Datum	   *filled = palloc(n * sizeof(Datum));
	Verdict    *verdicts = palloc0(n * sizeof(Verdict));
	Datum		values[4];
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		keys[i] = JsonbPGetDatum(rows[i].key);
		bodies[i] = JsonbPGetDatum(rows[i].body);
		filled[i] = BoolGetDatum(rows[i].filled);
	}
	values[0] = Int32GetDatum(e->id);
	values[1] = PointerGetDatum(construct_array(keys, n, JSONBOID, -1, false, TYPALIGN_INT));
	values[2] = PointerGetDatum(construct_array(bodies, n, JSONBOID, -1, false, TYPALIGN_INT));
	values[3] = PointerGetDatum(construct_array(filled, n, BOOLOID, 1, true, TYPALIGN_CHAR));

	s64_sql_begin();
	read_verdicts(verdicts, s64_sql_run_latest(&select_asked, values, NULL));
	s64_sql_end();

	for (int i = 0; i < n; i++)
	{
		if (verdicts[i] == ASK_AGAIN || (verdicts[i] == NOT_ASKED && !rows[i].filled))
			rows[kept++] = rows[i];
	}
	return kept;
}
