/*-------------------------------------------------------------------------
 *
 * fault.h
 *		Points at which a test can make a process fail.
 *
 * Nothing of this is in a library that is built to be used.  Compiled with
 * -DS64_FAULTS, a process that comes to S64_FAULT("name") looks for the file
 * sixtyfour_faults/name in the data directory.  It holds "ACTION N": the Nth
 * process to come there from now on takes the file away, notes "name ACTION
 * PID" in sixtyfour_faults/log, and
 *
 *	kill	kills itself, as the kernel would when memory is short
 *	error	raises 53200, as any palloc may
 *	exit	ends with status 1
 *	pause	makes the file name.paused, and waits until somebody removes it
 *
 * No transaction is needed.  As ERROR may be raised, a point stands where one
 * can be raised anyway.
 *
 *-------------------------------------------------------------------------
 */
#ifndef S64_FAULT_H
#define S64_FAULT_H

#ifdef S64_FAULTS
#define S64_FAULT(name) s64_fault_reach(name)
extern void s64_fault_reach(const char *name);
#else
#define S64_FAULT(name) ((void) 0)
#endif

#endif							/* S64_FAULT_H */
