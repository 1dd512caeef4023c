// Host memory for everything that is no tensor: checked sizes, and failure on demand for the tests.
#ifndef VL_BASE_MEMORY_H
#define VL_BASE_MEMORY_H

#include <stdint.h>

#include "base/status.h"

// Zeroed memory for count * size bytes in *out (a pointer to a pointer); the owner frees it with vl_free.
// count 0 gives a valid pointer. Errors: VL_INVALID (negative count, overflow), VL_OUT_OF_MEMORY.
VlStatus vl_allocate(void *out, int64_t count, int64_t size);

// Grows *array (elements of `size` bytes, *capacity of them allocated) so that it holds at least `needed`.
VlStatus vl_reserve(void *array, int64_t *capacity, int64_t needed, int64_t size);

// A copy of a string, or of its first `length` bytes with a final zero.
VlStatus vl_duplicate_string(char **out, const char *text);
VlStatus vl_duplicate_bytes(char **out, const char *text, int64_t length);

void vl_free(void *memory);

// The next `countdown` guarded calls (allocations, opens, reads, writes) succeed, the one after them fails, once.
// A negative countdown switches it off. For fault-injection tests; also set by VL2_FAULT=N at start-up.
void vl_fault_arm(int64_t countdown);
// True if this call is the one to fail. Called at every guarded place.
bool vl_fault_hit(void);

#define VL_NEW(pointer, count) vl_allocate((pointer), (count), (int64_t)sizeof **(pointer))

// *out = a * b or a + b; false on overflow or a negative operand.
bool vl_multiply(int64_t a, int64_t b, int64_t *out);
bool vl_add(int64_t a, int64_t b, int64_t *out);

#endif
