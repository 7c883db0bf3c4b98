/*-------------------------------------------------------------------------
 *
 * enrichment.h
 *		Enrichments as they were declared.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ENRICHMENT_H
#define S64_ENRICHMENT_H

#include "utils/jsonb.h"

#include "endpoint.h"


typedef struct Enrichment
{
	int			id;
	char	   *name;
	Oid			target;
	Oid			owner;			/* who commands it and writes the answers; if the
								 * owner was dropped, who has the table now */
	char	   *server;
	const Endpoint *endpoint;
	Jsonb	   *input;			/* {"field": "column"} */
	Jsonb	   *output;			/* {"column": "jsonpath"}, perhaps with S64_LEADS */
	Jsonb	   *input_numbers;	/* see columns.h; key and condition included */
	Jsonb	   *output_numbers; /* the same; those of S64_LEADS below that key */
	Jsonb	   *rest;			/* the request's body without the subject */
	char	   *condition;		/* or NULL */
	bool		if_unchanged;
	bool		refreshes;		/* has refresh_after */
	Oid			payer;			/* who declared to; InvalidOid: who writes a row */
} Enrichment;

/* A row that it may ask about */
typedef struct Row
{
	Jsonb	   *body;			/* what would be asked */
	Jsonb	   *key;			/* the primary key, by declared names */
	Jsonb	   *input;			/* the input columns, by declared names */
	bool		filled;			/* no output column is NULL */
} Row;

/*
 * The enrichment of that name or id, in the current memory context; NULL if
 * there is none.  Reads with the transaction's snapshot.
 */
extern Enrichment *s64_enrichment_find(const char *name);
extern Enrichment *s64_enrichment_find_id(int id);

/*
 * The same for somebody who wants to command it: raises 42704 if there is no
 * such enrichment, and 42501 if the current user is not its owner.
 */
extern Enrichment *s64_enrichment_command(const char *name);

/* Add one; returns its id, or 0 if the name is taken.  created in values'
 * order: see the statement in enrichment.c. */
extern int	s64_enrichment_add(Datum *values, const char *nulls);
#define S64_ENRICHMENT_VALUES 17

/* Wait until nobody else commands it, until the end of the transaction. */
extern void s64_enrichment_lock(int id);

/*
 * Forget it, cancel its jobs that are still queued, and return how many they
 * were.
 */
extern int64 s64_enrichment_remove(int id);

/*
 * May the answers of any enrichment with that target change the inputs of this
 * one, and its answers theirs, in a circle?  Names one that does, or NULL.
 */
extern char *s64_enrichment_circle(int id);

/*
 * The enrichment whose answers this process is writing, 0 if none.  What it
 * writes is no question to the same enrichment.
 */
extern void s64_enrichment_set_writing(int id);
extern int	s64_enrichment_writing(void);

#endif							/* S64_ENRICHMENT_H */
