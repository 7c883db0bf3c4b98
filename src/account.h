/*-------------------------------------------------------------------------
 *
 * account.h
 *		Server and user mapping to base URL, key and limits.
 *
 * An account is what a foreign server and a user mapping of the wrapper
 * "sixtyfour" say, the way postgres_fdw does it.  USAGE on the server is the
 * right to spend.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ACCOUNT_H
#define S64_ACCOUNT_H

#include "utils/uuid.h"

/* Tells accounts apart without holding the key: a digest of URL and key */
typedef pg_uuid_t AccountId;

typedef struct Account
{
	Oid			serverid;
	Oid			userid;			/* who pays */
	char	   *server;			/* the server's name */
	char	   *base_url;		/* without a slash at its end */
	char	   *api_key;		/* never to be shown */
	char	   *ca_file;		/* or NULL: the system's certificates */
	char	   *proxy;			/* or NULL: none */
	char	   *webhook_url;	/* or NULL */
	int			timeout;		/* of a synchronous call, ms */
	int			connect_timeout;	/* ms */
	int			requests_per_minute;	/* 0: unlimited */
	int			daily_budget;	/* cents; -1: none */
	int			assumed_price;	/* cents, where no price is known; -1: unset */
	AccountId	id;
} Account;

/*
 * Is there such a server, and may userid spend over it?  Raises the errors of
 * s64_account_get(), apart from those about mapping and key.
 */
extern void s64_account_check_server(const char *name, Oid userid);

/*
 * The account that a server and userid's (or PUBLIC's) user mapping for it
 * name, allocated in the current memory context.  Needs a transaction.
 *
 * Raises 28000 where there is no usable server, mapping or key, or no such
 * role any more, and 42501 where userid lacks USAGE on the server.
 */
extern Account *s64_account_get(const char *server_name, Oid userid);

/*
 * The same, but a failure is a value: NULL, with *error set.  Runs in a
 * subtransaction of its own.  Without spend the account is only to be asked
 * about what was spent: that needs no USAGE.
 */
extern Account *s64_account_try(const char *server_name, Oid userid, bool spend,
								ErrorData **error);

/* A copy in the current memory context that shares nothing. */
extern Account *s64_account_copy(const Account *account);

#endif							/* S64_ACCOUNT_H */
