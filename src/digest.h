/*-------------------------------------------------------------------------
 *
 * digest.h
 *		A short name for a long text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_DIGEST_H
#define S64_DIGEST_H

#include "utils/uuid.h"

/*
 * The first 16 bytes of the SHA-256 of the two texts with a newline between
 * them, as a uuid.  Equal digests are taken for equal texts.
 */
extern pg_uuid_t s64_digest(const char *first, const char *second);

#endif							/* S64_DIGEST_H */
