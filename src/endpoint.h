/*-------------------------------------------------------------------------
 *
 * endpoint.h
 *		The endpoint table: one row per operation of the service.
 *
 * What differs between operations is said here and nowhere else.  A new
 * operation is a row, and a function in the install script named sixtyfour_
 * and the row's name, whose arguments have the names of the row's fields.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ENDPOINT_H
#define S64_ENDPOINT_H

#include "lib/stringinfo.h"

#define S64_WEBHOOK_URL_MAX 2083	/* bytes; the service takes no more */

/* What the value of a field of a request body must be */
typedef enum FieldType
{
	FIELD_ANY,
	FIELD_FACTS,				/* object that says something: the subject */
	FIELD_STRUCT,				/* object of field descriptions */
	FIELD_TEXT,					/* text, not empty */
	FIELD_BOOLEAN,
	FIELD_COUNT,				/* whole number, 1 or more */
	FIELD_CHOICE,				/* one of Field.choices */
	FIELD_URL,					/* https://, for webhooks */
	FIELD_TEXTS,				/* array of texts */
	FIELD_OBJECT,
	FIELD_OBJECTS,				/* array of objects, not empty */
	FIELD_CRITERIA,				/* qualification criteria */
	FIELD_REFERENCES			/* array of {url, description} */
} FieldType;

typedef struct Field
{
	const char *name;
	FieldType	type;
	bool		required;
	const char *choices;		/* of FIELD_CHOICE, separated by spaces */
} Field;

/* What a successful answer looks like */
typedef enum AnswerShape
{
	ANSWER_OBJECT,
	ANSWER_ARRAY,
	ANSWER_JSON,				/* any JSON; CSV text becomes a JSON string */
	ANSWER_NOTHING				/* no content, or anything: not looked at */
} AnswerShape;

#define PRICE_FREE		0
#define PRICE_UNKNOWN	(-1)

typedef struct Endpoint
{
	const char *name;			/* the operation, as in SQL */
	const char *method;
	const char *path;			/* with {parameter}s, perhaps in a query */
	const char *async_path;		/* or NULL: there is none */
	const char *bulk_path;		/* asynchronous, for up to 100 leads; or NULL */
	AnswerShape answer;
	int			price;			/* cents, PRICE_FREE or PRICE_UNKNOWN */
	int			personal_price; /* the same in mode PERSONAL */
	const Field *fields;		/* the first is the subject; ends with a NULL name */
} Endpoint;

/* A {parameter} of a path and its value, in UTF-8 */
typedef struct Parameter
{
	const char *name;
	const char *value;
} Parameter;

/* The endpoint of that name, or NULL. */
extern const Endpoint *s64_endpoint_find(const char *name);

/* The i-th endpoint of the table, from 0; NULL behind the last. */
extern const Endpoint *s64_endpoint_at(int i);

/*
 * base_url and path with the parameters put in, percent-encoded; palloc'd.
 * Raises 22023 for a value that cannot stand in a path ('', '.', '..').
 */
extern char *s64_endpoint_url(const char *base_url, const char *path,
							  const Parameter *parameters, int nparameters);

/* Does the service honour Idempotency-Key with this method and path? */
extern bool s64_endpoint_is_idempotent(const char *method, const char *path);

/* Is name one of path's {parameter}s? */
extern bool s64_endpoint_has_parameter(const char *path, const char *name);

/* Append text to buf percent-encoded (RFC 3986: all but unreserved). */
extern void s64_endpoint_escape(StringInfo buf, const char *text);

#endif							/* S64_ENDPOINT_H */
