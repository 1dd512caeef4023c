// Fibers: stacks of their own, between which one thread of the system switches. AddressSanitizer is told where it is.
#ifndef VL_TESTS_CUDA_HOST_FIBER_H
#define VL_TESTS_CUDA_HOST_FIBER_H

#include <stddef.h>

struct Fiber {
    void (*entry)();
    void *context;      // where it goes on
    const void *stack;  // lowest address; NULL for the stack of a system's thread
    size_t size;
    void *sanitizer;  // AddressSanitizer's own
};

// A fiber that will call entry(), which never returns. It lives as long as the program.
Fiber *fiber_create(void (*entry)());

// Leaves `from`, which runs, and goes on in `to`; returns when somebody switches back.
void fiber_switch(Fiber *from, Fiber *to);

#endif
