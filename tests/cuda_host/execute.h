// Executes the grid of a CUDA kernel on the host, to test kernels where no GPU is.
//
// Blocks run one after the other. The threads of a block are fibers, which switch only where they wait for each other:
// at barriers and warp collectives. A thread that never waits is a plain call.
//
// What is found, each with one line on stderr (block, thread, source line) and abort():
//   - a barrier or a collective that some of its threads do not reach, because they ended or wait elsewhere;
//   - lanes that meet with different masks, or at different instructions;
//   - an access outside of an allocation, of shared memory, or of a stack, as a fault.
// A missing barrier shows as a wrong result: threads run in another order in each block (forward, backward, shuffled;
// a warp as far as it gets, or all warps in step), the same orders in every run of the program, and shared memory
// starts as NaN (all bits set) in each block.
#ifndef VL_TESTS_CUDA_HOST_EXECUTE_H
#define VL_TESTS_CUDA_HOST_EXECUTE_H

#include <stdint.h>

#include <source_location>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the thread that runs; meaningless outside of kernels.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// Those of compute capability 8.0, the least that kernels are written for.
enum { EXECUTE_THREADS = 1024, EXECUTE_LANES = 32, EXECUTE_PLAIN_SHARED = 48 << 10, EXECUTE_SHARED = 163 << 10 };

// Where in the source a thread waits.
using ExecuteWhere = std::source_location;

// Calls thread(arguments) for each thread of the grid. `shared`: bytes of dynamic shared memory; with the static they
// may be `shared_limit` at most. The caller has checked the sizes against the limits of CUDA.
void execute_grid(dim3 grid, dim3 block, int64_t shared, int64_t shared_limit, void (*thread)(const void *arguments),
                  const void *arguments);

// Whether a kernel runs.
bool execute_running();

// Ends the process with a message, in front of it the block and the thread that run.
[[noreturn]] void execute_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// ---- For kernels -----------------------------------------------------------

// All threads of the block wait for each other. The number of them that gave true.
int execute_barrier(const char *name, bool predicate, ExecuteWhere where);

// A warp collective: the lanes in `mask` wait for each other; the last one calls compute with what each handed in
// (NULL for lanes that are not in the mask), which reads and writes there for all.
using ExecuteCompute = void(void *const arguments[EXECUTE_LANES], uint32_t mask);
void execute_warp(const char *name, uint32_t mask, ExecuteCompute *compute, void *arguments, ExecuteWhere where);

// The lane of the thread that runs.
int execute_lane();

// Memory of one VL_SHARED, which ends at a page that is not accessible.
struct ExecuteShared {
    uint64_t block;  // that it was filled for
    char *memory;
    int64_t bytes;
};
inline uint64_t execute_block;  // counts blocks
void *execute_shared_fill(ExecuteShared *shared, int64_t bytes);
static inline void *execute_shared(ExecuteShared *shared, int64_t bytes) {
    return shared->block == execute_block ? shared->memory : execute_shared_fill(shared, bytes);
}
void *execute_dynamic_shared();
// Fails unless the bytes lie in shared memory of the block, at a multiple of `alignment`.
void execute_check_shared(const char *name, const void *memory, int64_t bytes, int64_t alignment);

#define VL_SHARED(type, name, count)    \
    static ExecuteShared name##_shared; \
    type(&name)[count] = *(type(*)[count])execute_shared(&name##_shared, (int64_t)sizeof(type) * (count))
#define VL_DYNAMIC_SHARED(type, name) type *name = (type *)execute_dynamic_shared()

// Copies to shared memory in groups, as cp.async makes them: what is copied arrives when the thread waits for it, until
// then `to` holds NaN. from NULL: zeros. execute_copy_wait waits for all groups but the last `groups`.
void execute_copy(void *to, const void *from, int64_t bytes);
void execute_copy_commit();
void execute_copy_wait(int groups);

#endif
