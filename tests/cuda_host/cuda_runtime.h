// The part of CUDA C++ and of its runtime that the CUDA sources use, for a C++ compiler of the host: kernels are
// executed by execute.h, device memory is memory of the host that only kernels and copies may touch (runtime.cc).
// Stands in front of CUDA's own header in the include path.
#ifndef VL_TESTS_CUDA_HOST_CUDA_RUNTIME_H
#define VL_TESTS_CUDA_HOST_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <type_traits>

#include "execute.h"

// ---- Language --------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

#define VL_VECTOR(type, name, alignment)                                    \
    struct alignas(alignment / 2) name##2 {                                 \
        type x, y;                                                          \
    };                                                                      \
    struct alignas(alignment) name##4 {                                     \
        type x, y, z, w;                                                    \
    };                                                                      \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VL_VECTOR(float, float, 16)
VL_VECTOR(int, int, 16)
VL_VECTOR(unsigned, uint, 16)
VL_VECTOR(unsigned short, ushort, 8)
#undef VL_VECTOR

// ---- Threads of a block and of a warp --------------------------------------

#define VL_WHERE ExecuteWhere where = ExecuteWhere::current()

static inline void __syncthreads(VL_WHERE) { execute_barrier("__syncthreads", false, where); }
static inline int __syncthreads_count(int predicate, VL_WHERE) {
    return execute_barrier("__syncthreads_count", predicate != 0, where);
}
static inline int __syncthreads_or(int predicate, VL_WHERE) {
    return execute_barrier("__syncthreads_or", predicate != 0, where) > 0;
}
static inline int __syncthreads_and(int predicate, VL_WHERE) {
    return execute_barrier("__syncthreads_and", predicate == 0, where) == 0;
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, VL_WHERE) {
    execute_warp(
        "__syncwarp", mask, [](void *const *, uint32_t) {}, NULL, where);
}

// What a lane gives to a shuffle: its value and the lane whose value it takes.
template <class T>
struct HostShuffle {
    T value, taken;
    int source;
};

template <class T>
static T host_shuffle(const char *name, unsigned mask, T value, int source, const ExecuteWhere &where) {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "a shuffle takes 4 or 8 bytes");
    HostShuffle<T> shuffle = {value, value, source};
    execute_warp(
        name, mask,
        [](void *const arguments[], uint32_t lanes) {
            for (int lane = 0; lane < EXECUTE_LANES; lane++) {
                HostShuffle<T> *own = (HostShuffle<T> *)arguments[lane];
                if (!own) continue;
                if (!(lanes >> own->source & 1)) {
                    execute_fail("a shuffle with mask %08x takes the value of lane %d", lanes, own->source);
                }
                own->taken = ((HostShuffle<T> *)arguments[own->source])->value;
            }
        },
        &shuffle, where);
    return shuffle.taken;
}

// The lanes of the caller's group of `width` lanes begin here.
static inline int host_group(int width) { return execute_lane() & ~(width - 1); }

template <class T>
static T __shfl_sync(unsigned mask, T value, int lane, int width = 32, VL_WHERE) {
    return host_shuffle("__shfl_sync", mask, value, host_group(width) + (lane & (width - 1)), where);
}
template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, VL_WHERE) {
    int source = execute_lane() - (int)delta;
    return host_shuffle("__shfl_up_sync", mask, value, source < host_group(width) ? execute_lane() : source, where);
}
template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, VL_WHERE) {
    int source = execute_lane() + (int)delta;
    return host_shuffle("__shfl_down_sync", mask, value, source < host_group(width) + width ? source : execute_lane(),
                        where);
}
template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, VL_WHERE) {
    int source = execute_lane() ^ lanes;
    return host_shuffle("__shfl_xor_sync", mask, value, source < host_group(width) + width ? source : execute_lane(),
                        where);
}

static inline unsigned host_ballot(const char *name, unsigned mask, int predicate, const ExecuteWhere &where) {
    unsigned vote = predicate != 0;
    execute_warp(
        name, mask,
        [](void *const arguments[], uint32_t) {
            unsigned votes = 0;
            for (int lane = 0; lane < EXECUTE_LANES; lane++) {
                if (arguments[lane]) votes |= *(unsigned *)arguments[lane] << lane;
            }
            for (int lane = 0; lane < EXECUTE_LANES; lane++) {
                if (arguments[lane]) *(unsigned *)arguments[lane] = votes;
            }
        },
        &vote, where);
    return vote;
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, VL_WHERE) {
    return host_ballot("__ballot_sync", mask, predicate, where);
}
static inline int __any_sync(unsigned mask, int predicate, VL_WHERE) {
    return host_ballot("__any_sync", mask, predicate, where) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, VL_WHERE) {
    return host_ballot("__all_sync", mask, predicate, where) == mask;
}
#undef VL_WHERE

static inline void __threadfence() {}
static inline void __threadfence_block() {}

// Atomics on integers; on floats their order would make results differ from run to run.
template <class T, class Change>
static T host_atomic(T *at, Change change) {
    static_assert(std::is_integral_v<T> && sizeof(T) >= 4, "atomics of 4 or 8 bytes, on integers only");
    T before = *at;
    *at = change(before);
    return before;
}
template <class T>
static T atomicAdd(T *at, std::type_identity_t<T> value) {
    return host_atomic(at, [&](T before) { return (T)(before + value); });
}
template <class T>
static T atomicMax(T *at, std::type_identity_t<T> value) {
    return host_atomic(at, [&](T before) { return before > value ? before : value; });
}
template <class T>
static T atomicMin(T *at, std::type_identity_t<T> value) {
    return host_atomic(at, [&](T before) { return before < value ? before : value; });
}
template <class T>
static T atomicExch(T *at, std::type_identity_t<T> value) {
    return host_atomic(at, [&](T) { return value; });
}
template <class T>
static T atomicOr(T *at, std::type_identity_t<T> value) {
    return host_atomic(at, [&](T before) { return (T)(before | value); });
}
template <class T>
static T atomicCAS(T *at, std::type_identity_t<T> want, std::type_identity_t<T> value) {
    return host_atomic(at, [&](T before) { return before == want ? value : before; });
}

// ---- Numbers ---------------------------------------------------------------

template <class To, class From>
static To host_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline float __uint_as_float(unsigned bits) { return host_bits<float>(bits); }
static inline unsigned __float_as_uint(float value) { return host_bits<unsigned>(value); }
static inline float __int_as_float(int bits) { return host_bits<float>(bits); }
static inline int __float_as_int(float value) { return host_bits<int>(value); }
static inline double __longlong_as_double(long long bits) { return host_bits<double>(bits); }
static inline long long __double_as_longlong(double value) { return host_bits<long long>(value); }

static inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
static inline double rsqrt(double value) { return 1.0 / sqrt(value); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float value) { return sqrtf(value); }
static inline float __frcp_rn(float value) { return 1.0f / value; }
static inline int __float2int_rn(float value) { return (int)nearbyintf(value); }
static inline int __float2int_rz(float value) { return (int)value; }
static inline int __float2int_rd(float value) { return (int)floorf(value); }
static inline int __float2int_ru(float value) { return (int)ceilf(value); }
static inline int __popc(unsigned value) { return __builtin_popcount(value); }
static inline int __clz(int value) { return value ? __builtin_clz((unsigned)value) : 32; }
static inline int __ffs(int value) { return __builtin_ffs(value); }

template <class T>
static T __ldg(const T *from) {
    return *from;
}

template <class A, class B>
static constexpr std::common_type_t<A, B> min(A a, B b) {
    static_assert(std::is_integral_v<A> && std::is_integral_v<B>);
    return (std::common_type_t<A, B>)a < (std::common_type_t<A, B>)b ? a : b;
}
template <class A, class B>
static constexpr std::common_type_t<A, B> max(A a, B b) {
    static_assert(std::is_integral_v<A> && std::is_integral_v<B>);
    return (std::common_type_t<A, B>)a > (std::common_type_t<A, B>)b ? a : b;
}
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// ---- Errors and devices ----------------------------------------------------

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
} cudaError_t;

const char *cudaGetErrorName(cudaError_t code);
const char *cudaGetErrorString(cudaError_t code);
cudaError_t cudaGetLastError();  // and forgets it
cudaError_t cudaPeekAtLastError();

typedef struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock, maxThreadsPerMultiProcessor, l2CacheSize;
    int regsPerBlock, regsPerMultiprocessor;
} cudaDeviceProp;

// As many devices as VL_TEST_GPUS says; without it one.
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
// A block has as many bytes of shared memory as VL_TEST_SHARED says; without it those of execute.h.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDeviceGetPCIBusId(char *address, int length, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);

// ---- Memory ----------------------------------------------------------------

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;

// Device memory is a fault for the host outside of kernels and copies, and ends at a page that always is.
cudaError_t cudaMalloc(void **memory, size_t bytes);
template <class T>
static cudaError_t cudaMalloc(T **memory, size_t bytes) {
    return cudaMalloc((void **)memory, bytes);
}
cudaError_t cudaFree(void *memory);
cudaError_t cudaMallocHost(void **memory, size_t bytes);
template <class T>
static cudaError_t cudaMallocHost(T **memory, size_t bytes) {
    return cudaMallocHost((void **)memory, bytes);
}
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemGetInfo(size_t *left, size_t *whole);
// A side of the kind "device" lies within one cudaMalloc, one of the kind "host" in none.
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream = NULL);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream = NULL);

// ---- Streams and events ----------------------------------------------------

enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };

// A stream is a queue. Normally an operation runs when it is queued. With VL_TEST_STREAMS=lazy it runs only when
// something waits for it: what is used before it was waited for is not there yet.
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = NULL);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end);

// For the stand-ins of other libraries: queues an operation, which may touch device memory while it runs.
cudaError_t host_queue(cudaStream_t stream, std::function<void()> operation);
// One that waits for other processes: it is called until it returns true, and must not block.
cudaError_t host_queue_until(cudaStream_t stream, std::function<bool()> operation);
// Whether the bytes lie within one allocation of device memory.
bool host_is_device(const void *memory, size_t bytes);

// ---- Kernels ---------------------------------------------------------------

enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value);

typedef struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    struct cudaLaunchAttribute *attrs;
    unsigned numAttrs;
} cudaLaunchConfig_t;

cudaError_t host_launch(const cudaLaunchConfig_t *configuration, const void *kernel,
                        void (*thread)(const void *arguments), std::function<const void *()> arguments);

template <class... Parameters, class... Arguments>
static cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *configuration, void (*kernel)(Parameters...),
                                      Arguments &&...arguments) {
    static_assert((0 + ... + sizeof(std::decay_t<Parameters>)) <= 4096, "CUDA 12 passes 4096 bytes of parameters");
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<std::decay_t<Parameters>...> arguments;
    };
    return host_launch(
        configuration, (const void *)kernel,
        [](const void *call) { std::apply(((const Call *)call)->kernel, ((const Call *)call)->arguments); },
        [call = Call{kernel, {arguments...}}] { return (const void *)&call; });
}

#endif
