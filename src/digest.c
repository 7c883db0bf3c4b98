/*-------------------------------------------------------------------------
 *
 * digest.c
 *		A short name for a long text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"

#include "digest.h"

pg_uuid_t
s64_digest(const char *first, const char *second)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_uuid_t	result;
	bool		ok;

	if (ctx == NULL)
		elog(ERROR, "out of memory");
	ok = pg_cryptohash_init(ctx) >= 0 &&
		pg_cryptohash_update(ctx, (const uint8 *) first, strlen(first)) >= 0 &&
		pg_cryptohash_update(ctx, (const uint8 *) "\n", 1) >= 0 &&
		pg_cryptohash_update(ctx, (const uint8 *) second, strlen(second)) >= 0 &&
		pg_cryptohash_final(ctx, digest, sizeof(digest)) >= 0;
	pg_cryptohash_free(ctx);
	if (!ok)
		elog(ERROR, "could not compute SHA-256");
	memcpy(result.data, digest, UUID_LEN);
	return result;
}
