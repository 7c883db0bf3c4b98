/*-------------------------------------------------------------------------
 *
 * errand.h
 *		What a transaction does to the background processes when it ends.
 *
 * All functions do nothing where the library is not preloaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_ERRAND_H
#define S64_ERRAND_H

#include "kind.h"

/*
 * Wake the current database's process of this kind when the transaction
 * commits; nothing happens if it, or the subtransaction, aborts.  Costs one
 * flag; the callback is registered once per session.  A transaction that is
 * prepared wakes both at COMMIT PREPARED, in whatever session (utility.c).
 */
extern void s64_errand_wake(ProcessKind kind);

/* ---- of the utility hook ---- */

/*
 * End a database's processes and keep them from coming back until the end of
 * the transaction; returns when they are gone.  Interruptible.
 */
extern void s64_errand_stop(Oid database);

/*
 * When this transaction commits, the current database has the extension; or
 * has not, as far as the transaction can see: then it is probed again.
 */
extern void s64_errand_extension(bool present);

/* When this transaction commits, the launcher reads pg_database again. */
extern void s64_errand_rescan(void);

#endif							/* S64_ERRAND_H */
