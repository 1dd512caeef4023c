#include "fiber.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

enum { STACK = 256 << 10, GUARD = 64 << 10 };  // multiples of any page size

static Fiber *leaving, *arriving;  // of the last switch

// The first code after a switch, on the stack of `fiber`.
static void arrive(Fiber *fiber) {
#ifdef __SANITIZE_ADDRESS__
    const void *stack;
    size_t size;
    __sanitizer_finish_switch_fiber(fiber->sanitizer, &stack, &size);
    if (!leaving->stack) {
        leaving->stack = stack;
        leaving->size = size;
    }
#else
    (void)fiber;
#endif
}

static void start() {
    arrive(arriving);
    arriving->entry();
    abort();
}

#ifdef __x86_64__

// Leaves the registers that a call preserves on one stack, and takes them from the other.
extern "C" void vl_fiber_exchange(void **from, void *to);
asm(R"(
    .text
    .globl vl_fiber_exchange
    .type vl_fiber_exchange, @function
vl_fiber_exchange:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size vl_fiber_exchange, .-vl_fiber_exchange
)");

static void exchange(Fiber *from, Fiber *to) { vl_fiber_exchange(&from->context, to->context); }

static void prepare(Fiber *fiber) {
    enum { SAVED = 6, LINE = 64, LINES = 40 };
    // Stacks start at different lines of their pages: the same frame of all threads would share one set of the cache.
    static int64_t created;
    void **top = (void **)((char *)fiber->stack + STACK - created++ % LINES * LINE);
    top[-2] = (void *)start;  // `ret` leaves the stack as a call would: 8 bytes off a multiple of 16
    fiber->context = top - 2 - SAVED;
}

#else

static void exchange(Fiber *from, Fiber *to) {
    ucontext_t here;
    from->context = &here;
    swapcontext(&here, (ucontext_t *)to->context);
}

static void prepare(Fiber *fiber) {
    ucontext_t *context = new ucontext_t();
    getcontext(context);
    context->uc_stack.ss_sp = (void *)fiber->stack;
    context->uc_stack.ss_size = STACK;
    makecontext(context, start, 0);
    fiber->context = context;
}

#endif

Fiber *fiber_create(void (*entry)()) {
    char *memory =
        (char *)mmap(NULL, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD, PROT_NONE)) {
        fprintf(stderr, "cuda_host: no memory for the stack of a thread\n");
        abort();
    }
    Fiber *fiber = new Fiber();
    fiber->entry = entry;
    fiber->stack = memory + GUARD;
    fiber->size = STACK;
    prepare(fiber);
    return fiber;
}

void fiber_switch(Fiber *from, Fiber *to) {
    leaving = from;
    arriving = to;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from->sanitizer, to->stack, to->size);
#endif
    exchange(from, to);
    arrive(from);
}
