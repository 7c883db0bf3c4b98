/*-------------------------------------------------------------------------
 *
 * price.c
 *		What requests turned out to cost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "storage/lwlock.h"

#include "price.h"
#include "shmem.h"

#define MAX_PRICES	1024
#define CALLS_NEEDED	3		/* for a price to be believed */

typedef struct Price
{
	pg_uuid_t	account;
	PriceKind	kind;
	int			calls;			/* at most S64_PRICE_WINDOW */
	double		average;		/* cents */
	uint64		learned;		/* when, on the table's clock */
} Price;

typedef struct Prices
{
	int			n;
	uint64		clock;			/* counts what is learned */
	Price		prices[MAX_PRICES];
} Prices;

static Prices *prices = NULL;	/* NULL: not preloaded */
static LWLock *lock;

static const ShmemPart part = {
	"sixtyfour prices", sizeof(Prices), NULL, (void **) &prices, &lock
};

void
s64_price_init(void)
{
	s64_shmem_add(&part);
}

/* Append " name=value" if the body has such a text. */
static void
append_choice(PriceKind *kind, Jsonb *body, const char *name)
{
	size_t		len = strlen(kind->name);
	JsonbValue	v;

	if (!JB_ROOT_IS_OBJECT(body) ||
		getKeyJsonValueFromContainer(&body->root, name, strlen(name), &v) == NULL ||
		v.type != jbvString)
		return;
	snprintf(kind->name + len, sizeof(kind->name) - len, " %s=%.*s", name,
			 v.val.string.len, v.val.string.val);
}

PriceKind
s64_price_kind(const Endpoint *endpoint, Jsonb *body)
{
	PriceKind	kind = {0};

	strlcpy(kind.name, endpoint->name, sizeof(kind.name));
	if (body != NULL)
	{
		append_choice(&kind, body, "tier");
		append_choice(&kind, body, "mode");
	}
	return kind;
}

/* With the lock held; NULL if nothing is known */
static Price *
find_price(const pg_uuid_t *account, const PriceKind *kind)
{
	for (int i = 0; i < prices->n; i++)
	{
		Price	   *price = &prices->prices[i];

		if (memcmp(&price->account, account, sizeof(pg_uuid_t)) == 0 &&
			strcmp(price->kind.name, kind->name) == 0)
			return price;
	}
	return NULL;
}

/* The same, but makes one: in place of what was learned longest ago */
static Price *
get_price(const pg_uuid_t *account, const PriceKind *kind)
{
	Price	   *price = find_price(account, kind);

	if (price == NULL)
	{
		price = &prices->prices[0];
		for (int i = 1; i < prices->n; i++)
		{
			if (prices->prices[i].learned < price->learned)
				price = &prices->prices[i];
		}
		if (prices->n < MAX_PRICES)
			price = &prices->prices[prices->n++];
		memset(price, 0, sizeof(Price));
		price->account = *account;
		price->kind = *kind;
	}
	price->learned = ++prices->clock;
	return price;
}

void
s64_price_learn(const pg_uuid_t *account, const PriceKind *kind, double cents)
{
	Price	   *price;

	if (prices == NULL)
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	price = get_price(account, kind);
	price->calls = Min(price->calls + 1, S64_PRICE_WINDOW);
	price->average += (cents - price->average) / price->calls;
	LWLockRelease(lock);
}

void
s64_price_recall(const pg_uuid_t *account, const PriceKind *kind, int n,
				 double cents)
{
	Price	   *price;

	if (prices == NULL)
		return;
	LWLockAcquire(lock, LW_EXCLUSIVE);
	price = get_price(account, kind);
	if (price->calls < n)
	{
		price->calls = Min(n, S64_PRICE_WINDOW);
		price->average = cents;
	}
	LWLockRelease(lock);
}

int
s64_price_learned(const pg_uuid_t *account, const PriceKind *kind)
{
	const Price *price;
	int			cents = -1;

	if (prices == NULL)
		return -1;
	LWLockAcquire(lock, LW_SHARED);
	price = find_price(account, kind);
	if (price != NULL && price->calls >= CALLS_NEEDED)
		cents = (int) Min(ceil(price->average - 0.001), 1000000);
	LWLockRelease(lock);
	return cents;
}
