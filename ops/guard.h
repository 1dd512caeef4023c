// Memory of the CPU backend: page-aligned mappings, and the guard that keeps hands off them outside of operations.
//
// A guard (VL2_GUARD=1) knows all mappings of a context. While no window is open they are PROT_NONE, and each ends at a
// page that is never accessible, so that a stray access or an overrun is a fault at the place where it happens.
#ifndef VL_OPS_GUARD_H
#define VL_OPS_GUARD_H

#include <stdint.h>

#include "base/status.h"

typedef struct VlGuard VlGuard;

VlStatus vl_guard_create(VlGuard **guard);
void vl_guard_free(VlGuard *guard);  // all mappings must be gone

// Windows are counted: the first opens all mappings, the last closes them. Any thread may open and close. guard NULL:
// nothing.
void vl_guard_open(VlGuard *guard);
void vl_guard_close(VlGuard *guard);

// Zeroed memory aligned to 64 bytes, in huge pages where it is large and the system grants them; pages are taken when
// first written. guard NULL: a plain mapping. bytes 0 gives a valid pointer. Errors: VL_OUT_OF_MEMORY.
VlStatus vl_guard_map(VlGuard *guard, int64_t bytes, void **memory);
void vl_guard_unmap(VlGuard *guard, void *memory);

#endif
