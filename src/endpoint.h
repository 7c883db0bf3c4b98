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
	FIELD_ANY,					/* also what stands in the path, which is checked there */
	FIELD_FACTS,				/* object that says something: the subject */
	FIELD_PROFILE,				/* text, the address of a profile: the subject */
	FIELD_STRUCT,				/* object of field descriptions */
	FIELD_TEXT,					/* text, not empty */
	FIELD_STRING,				/* text */
	FIELD_BOOLEAN,
	FIELD_COUNT,				/* whole number, 1 or more */
	FIELD_HOURS,				/* whole number, 0 or more */
	FIELD_CHOICE,				/* one of Field.choices */
	FIELD_URL,					/* https://, for webhooks */
	FIELD_TEXTS,				/* array of texts */
	FIELD_OBJECT,
	FIELD_OBJECTS,				/* array of objects, not empty */
	FIELD_PAYLOAD,				/* array of objects, or an object */
	FIELD_CRITERIA,				/* qualification criteria */
	FIELD_REFERENCES			/* array of {url, description} */
} FieldType;

typedef struct Field
{
	const char *name;
	FieldType	type;
	bool		required;
	const char *choices;		/* of FIELD_CHOICE, separated by spaces; of FIELD_FACTS
								 * the member that it needs, or NULL */
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

/* How a task, which the service makes of an accepted request, is followed */
typedef struct Follow
{
	const char *name;			/* of the operation that asks */
	const char *path;			/* to GET, with {task_id} */
	const char *id;				/* member of the acceptance that names the task */
	const char *status;			/* member of the answer that says how it is */
	bool		whole;			/* the result is that answer, not its member "result" */
} Follow;

/* Where the rows are that an answer speaks of */
typedef enum RowsPlace
{
	ROWS_NOWHERE,				/* it speaks of none */
	ROWS_SEARCH,				/* behind its resource_handle_id */
	ROWS_WORKFLOW				/* in the files of its run_id */
} RowsPlace;

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
	const Follow *follow;		/* what is submitted becomes a task; or NULL */
	RowsPlace	rows;
	const char *own_id;			/* field by whose value the service knows again
								 * what it has accepted already; or NULL */
	int			at_once;		/* tasks of an account at a time; 0: no limit */
	const char *one_of;			/* fields of which one at least must be given */
	bool		exclusive;		/* and not two */
	const char *echoed;			/* fields of a lead that a bulk answer repeats;
								 * NULL: all but email and phone */
	const char *people_field;	/* with it, a request that names no mode is about
								 * people; or NULL */
	bool		owner_only;		/* for the owner of the server alone */
	const char *other_method;	/* where the service has it elsewhere: to be used */
	const char *other_path;		/* when it does not know the path; or NULL */
	const char *other_needs;	/* text that the body has there at least as ''; or NULL */
} Endpoint;

/* The endpoint of that name, or NULL. */
extern const Endpoint *s64_endpoint_find(const char *name);

/* The i-th endpoint of the table, from 0; NULL behind the last. */
extern const Endpoint *s64_endpoint_at(int i);

/*
 * base_url and path with the parameters put in, percent-encoded; palloc'd.
 * find(name, arg) gives a parameter's value in UTF-8, or NULL: then "name=" is
 * left out of the path's query.  Raises 22023 for a value that is missing or empty,
 * or is to stand in front of the query and is not taken by s64_endpoint_takes().
 */
extern char *s64_endpoint_url(const char *base_url, const char *path,
							  char *(*find) (const char *name, void *arg),
							  void *arg);

/*
 * Can the value be put into a path?  Not an empty one, nor one with a segment "."
 * or "..": it would climb, whatever its encoding.
 */
extern bool s64_endpoint_takes(const char *value);

/*
 * Does a request to the endpoint have a body?  That is, has it a field that
 * is not in the path?
 */
extern bool s64_endpoint_has_body(const Endpoint *endpoint, const char *path);

/*
 * How the endpoint's tasks are followed: as most are, where it has none of its
 * own or is NULL (that of another version).
 */
extern const Follow *s64_endpoint_follow(const Endpoint *endpoint);

/* Where a job of the endpoint is submitted, if it travels alone */
extern const char *s64_endpoint_submit_path(const Endpoint *endpoint);

/* Has the endpoint's body a field of that name? */
extern bool s64_endpoint_has_field(const Endpoint *endpoint, const char *name);

/* Does the service honour Idempotency-Key with this method and path? */
extern bool s64_endpoint_is_idempotent(const char *method, const char *path);

/*
 * Is this a path to the account's own things, which are not for all who may
 * spend?  Whatever its spelling: a server may take paths for equal that are not.
 * The time that it takes grows with the square of the path's length.
 */
extern bool s64_endpoint_is_private(const char *path);

/* Can the endpoint be asked about the rows of a table? */
extern bool s64_endpoint_enriches(const Endpoint *endpoint);

/* Does its subject say whom or what it is about, one or several? */
extern bool s64_endpoint_names_somebody(const Endpoint *endpoint);

/* Does it find people at the company that it is asked about? */
extern bool s64_endpoint_finds_people(const Endpoint *endpoint);

/*
 * "a, b or c": the names of the endpoints of which fits() is true; palloc'd.
 */
extern char *s64_endpoint_list(bool (*fits) (const Endpoint *endpoint));

/* Is a submission of the endpoint's, sent twice, accepted and billed once? */
extern bool s64_endpoint_is_known_again(const Endpoint *endpoint);

/* Is name one of path's {parameter}s? */
extern bool s64_endpoint_has_parameter(const char *path, const char *name);

/* Append text to buf percent-encoded (RFC 3986: all but unreserved). */
extern void s64_endpoint_escape(StringInfo buf, const char *text);

#endif							/* S64_ENDPOINT_H */
