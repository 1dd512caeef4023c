// Memory, streams and launches of the stand-in for CUDA's runtime.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "cuda_runtime.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#define _Noreturn [[noreturn]]
extern "C" {
#include "ops/guard.h"
}
#undef _Noreturn

enum { POISON = 0xff, PROCESSORS = 3, DRIVER = 13000 };
static constexpr size_t WHOLE = (size_t)64 << 30;  // bytes of a device

struct CUstream_st {
    std::deque<std::function<bool()>> operations;  // that have not ended; each is called until it says so
    int64_t queued = 0, done = 0;
};

struct CUevent_st {
    unsigned flags;
    std::shared_ptr<CUstream_st> stream;  // on which it was last recorded
    int64_t position = 0;                 // has happened when as many operations are done
    std::shared_ptr<double> time = std::make_shared<double>(0.0);
};

static struct Runtime {
    std::recursive_mutex mutex;
    cudaError_t last;
    VlGuard *guard;
    std::map<const char *, size_t> device, pinned;  // allocations
    size_t used;
    std::map<cudaStream_t, std::shared_ptr<CUstream_st>> streams;
    std::map<const void *, int64_t> shared_limits;  // of kernels
    int chosen;
} runtime;

using Lock = std::lock_guard<std::recursive_mutex>;

// Device memory can be touched while one lives.
struct Window {
    Window() { vl_guard_open(runtime.guard); }
    ~Window() { vl_guard_close(runtime.guard); }
};

// ---- Errors and devices ----------------------------------------------------

static const struct {
    cudaError_t code;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
};

const char *cudaGetErrorName(cudaError_t code) {
    for (const auto &error : errors) {
        if (error.code == code) return error.name;
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t code) {
    for (const auto &error : errors) {
        if (error.code == code) return error.text;
    }
    return "unrecognized error code";
}

static cudaError_t failed(cudaError_t code) { return runtime.last = code; }

cudaError_t cudaPeekAtLastError() { return runtime.last; }

cudaError_t cudaGetLastError() {
    cudaError_t last = runtime.last;
    runtime.last = cudaSuccess;
    return last;
}

static int device_count() {
    const char *text = getenv("VL_TEST_GPUS");
    return text ? atoi(text) : 1;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = device_count();
    return *count > 0 ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    runtime.chosen = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    *device = runtime.chosen;
    return device_count() > 0 ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    const char *shared = getenv("VL_TEST_SHARED");
    *properties = {.name = "host execution",
                   .totalGlobalMem = WHOLE,
                   .sharedMemPerBlock = EXECUTE_PLAIN_SHARED,
                   .sharedMemPerBlockOptin = shared ? (size_t)atol(shared) : (size_t)EXECUTE_SHARED,
                   .sharedMemPerMultiprocessor = EXECUTE_SHARED + 1024,
                   .major = 8,
                   .minor = 0,
                   .multiProcessorCount = PROCESSORS,
                   .warpSize = EXECUTE_LANES,
                   .maxThreadsPerBlock = EXECUTE_THREADS,
                   .maxThreadsPerMultiProcessor = 2 * EXECUTE_THREADS,
                   .l2CacheSize = 50 << 20,
                   .regsPerBlock = 65536,
                   .regsPerMultiprocessor = 65536};
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *address, int length, int device) {
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    snprintf(address, (size_t)length, "0000:%02x:00.0", device + 1);
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) { return *version = DRIVER, cudaSuccess; }

cudaError_t cudaRuntimeGetVersion(int *version) { return *version = DRIVER, cudaSuccess; }

// ---- Streams ---------------------------------------------------------------

static bool lazy() {
    const char *text = getenv("VL_TEST_STREAMS");
    return text && strcmp(text, "lazy") == 0;
}

// Runs the stream until as many operations are done. Without patience only up to the first that waits for another
// process: whether that is far enough.
static bool run(CUstream_st *stream, int64_t position, bool patient = true) {
    while (stream->done < position) {
        if (stream->operations.front()()) {
            stream->operations.pop_front();
            stream->done++;
        } else if (patient) {
            usleep(20);
        } else {
            return false;
        }
    }
    return true;
}

static void run_all() {
    for (auto &[handle, stream] : runtime.streams) run(stream.get(), stream->queued);
}

// The stream behind a handle. NULL is a stream that waits for all others.
static std::shared_ptr<CUstream_st> find_stream(cudaStream_t handle) {
    static auto whole = std::make_shared<CUstream_st>();
    if (!handle) return run_all(), whole;
    auto found = runtime.streams.find(handle);
    return found == runtime.streams.end() ? nullptr : found->second;
}

static cudaError_t queue(cudaStream_t handle, std::function<bool()> operation) {
    auto stream = find_stream(handle);
    if (!stream) return failed(cudaErrorInvalidResourceHandle);
    stream->operations.push_back(std::move(operation));
    stream->queued++;
    if (!handle || !lazy()) run(stream.get(), stream->queued, !handle);
    return cudaSuccess;
}

// One that ends when it is called.
static cudaError_t queue_call(cudaStream_t handle, std::function<void()> operation) {
    return queue(handle, [operation = std::move(operation)] { return operation(), true; });
}

cudaError_t host_queue(cudaStream_t stream, std::function<void()> operation) {
    Lock lock(runtime.mutex);
    return queue_call(stream, [operation = std::move(operation)] {
        Window window;
        operation();
    });
}

cudaError_t host_queue_until(cudaStream_t stream, std::function<bool()> operation) {
    Lock lock(runtime.mutex);
    return queue(stream, [operation = std::move(operation)] {
        Window window;
        return operation();
    });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    Lock lock(runtime.mutex);
    auto made = std::make_shared<CUstream_st>();
    runtime.streams[made.get()] = made;
    *stream = made.get();
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    Lock lock(runtime.mutex);
    auto stream = find_stream(handle);
    if (!stream) return failed(cudaErrorInvalidResourceHandle);
    run(stream.get(), stream->queued);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    Lock lock(runtime.mutex);
    cudaError_t code = cudaStreamSynchronize(handle);
    runtime.streams.erase(handle);
    return code;
}

// Asking lets one operation run, as time passes for who asks again and again.
static cudaError_t ask(CUstream_st *stream, int64_t position) {
    if (stream->done >= position) return cudaSuccess;
    run(stream, stream->done + 1, false);
    return cudaErrorNotReady;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    Lock lock(runtime.mutex);
    auto stream = find_stream(handle);
    return stream ? ask(stream.get(), stream->queued) : failed(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaDeviceSynchronize() {
    Lock lock(runtime.mutex);
    run_all();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    *event = new CUevent_st{.flags = flags, .stream = nullptr};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    Lock lock(runtime.mutex);
    event->stream = find_stream(handle);
    if (!event->stream) return failed(cudaErrorInvalidResourceHandle);
    event->position = event->stream->queued + 1;
    return queue_call(handle, [time = event->time] {
        timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        *time = (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    Lock lock(runtime.mutex);
    if (!event->stream) return cudaSuccess;
    return queue(stream,
                 [from = event->stream, position = event->position] { return run(from.get(), position, false); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    Lock lock(runtime.mutex);
    if (event->stream) run(event->stream.get(), event->position);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    Lock lock(runtime.mutex);
    return event->stream ? ask(event->stream.get(), event->position) : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    Lock lock(runtime.mutex);
    for (cudaEvent_t event : {begin, end}) {
        if (!event->stream || (event->flags & cudaEventDisableTiming)) return failed(cudaErrorInvalidResourceHandle);
        if (event->stream->done < event->position) return failed(cudaErrorNotReady);
    }
    *milliseconds = (float)(*end->time - *begin->time);
    return cudaSuccess;
}

// ---- Memory ----------------------------------------------------------------

// Up to where the guard rounds an allocation: what lies between is filled, and looked at when it is freed.
static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    enum { FILLED = 1 << 20 };  // what is new holds NaN; a larger allocation would be slow to fill
    Lock lock(runtime.mutex);
    *memory = NULL;
    if (bytes == 0) return cudaSuccess;
    if (!runtime.guard && vl_guard_create(&runtime.guard) != VL_OK) return failed(cudaErrorMemoryAllocation);
    if (bytes > WHOLE - runtime.used || vl_guard_map(runtime.guard, (int64_t)bytes, memory) != VL_OK) {
        return failed(cudaErrorMemoryAllocation);
    }
    Window window;
    char *begin = (char *)*memory;
    runtime.device[begin] = bytes;
    runtime.used += bytes;
    if (bytes <= FILLED) memset(begin, POISON, bytes);
    memset(begin + bytes, POISON, rounded(bytes) - bytes);
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(begin + bytes, rounded(bytes) - bytes);
#endif
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
    Lock lock(runtime.mutex);
    if (!memory) return cudaSuccess;
    run_all();
    auto found = runtime.device.find((const char *)memory);
    if (found == runtime.device.end()) return failed(cudaErrorInvalidValue);
    size_t bytes = found->second;
    {
        Window window;
        const unsigned char *begin = (const unsigned char *)memory;
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(begin + bytes, rounded(bytes) - bytes);
#endif
        for (size_t i = bytes; i < rounded(bytes); i++) {
            if (begin[i] != POISON) execute_fail("cuda_host: byte %zu of an allocation of %zu was written", i, bytes);
        }
    }
    runtime.used -= bytes;
    runtime.device.erase(found);
    vl_guard_unmap(runtime.guard, memory);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes) {
    Lock lock(runtime.mutex);
    *memory = aligned_alloc(64, rounded(bytes ? bytes : 1));
    if (!*memory) return failed(cudaErrorMemoryAllocation);
    runtime.pinned[(const char *)*memory] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory) {
    Lock lock(runtime.mutex);
    run_all();
    if (memory && !runtime.pinned.erase((const char *)memory)) return failed(cudaErrorInvalidValue);
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *whole) {
    *whole = WHOLE;
    *left = WHOLE - runtime.used;
    return cudaSuccess;
}

// Whether all of the bytes lie in one of the allocations, or any of them.
enum class Part { ALL, ANY };
static bool lies_in(const std::map<const char *, size_t> &allocations, const void *memory, size_t bytes, Part part) {
    const char *begin = (const char *)memory, *end = begin + bytes;
    auto next = allocations.upper_bound(begin);
    if (part == Part::ANY && next != allocations.end() && next->first < end) return true;
    if (next == allocations.begin()) return false;
    auto [start, size] = *--next;
    return part == Part::ALL ? end <= start + size : begin < start + size;
}

bool host_is_device(const void *memory, size_t bytes) {
    Lock lock(runtime.mutex);
    return lies_in(runtime.device, memory, bytes, Part::ALL);
}

static bool side_fits(const void *memory, size_t bytes, bool device) {
    return device ? lies_in(runtime.device, memory, bytes, Part::ALL)
                  : memory && !lies_in(runtime.device, memory, bytes, Part::ANY);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    Lock lock(runtime.mutex);
    if (bytes == 0) return cudaSuccess;
    bool known = kind != cudaMemcpyDefault;
    bool to_device = known ? kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice
                           : lies_in(runtime.device, to, bytes, Part::ANY);
    bool from_device = known ? kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice
                             : lies_in(runtime.device, from, bytes, Part::ANY);
    if (!side_fits(to, bytes, to_device) || !side_fits(from, bytes, from_device)) return failed(cudaErrorInvalidValue);
    cudaError_t code = queue_call(stream, [=] {
        Window window;
        memmove(to, from, bytes);
    });
    // Memory of the host that is not pinned has been read, or written, when CUDA returns.
    bool pinned = (to_device || lies_in(runtime.pinned, to, bytes, Part::ALL)) &&
                  (from_device || lies_in(runtime.pinned, from, bytes, Part::ALL));
    return code != cudaSuccess || pinned ? code : cudaStreamSynchronize(stream);
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
    Lock lock(runtime.mutex);
    if (bytes == 0) return cudaSuccess;
    if (!side_fits(memory, bytes, true)) return failed(cudaErrorInvalidValue);
    return queue_call(stream, [=] {
        Window window;
        uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)memory, end = begin + bytes;
        uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
        if (value || last < first + 64 * page) {
            memset(memory, value, bytes);
            return;
        }
        memset(memory, 0, first - begin);  // whole pages are given back: they come back as zeros when they are touched
        madvise((void *)first, last - first, MADV_DONTNEED);
        memset((void *)last, 0, end - last);
    });
}

// ---- Kernels ---------------------------------------------------------------

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    Lock lock(runtime.mutex);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > EXECUTE_SHARED) return failed(cudaErrorInvalidValue);
    runtime.shared_limits[kernel] = value;
    return cudaSuccess;
}

cudaError_t host_launch(const cudaLaunchConfig_t *configuration, const void *kernel,
                        void (*thread)(const void *arguments), std::function<const void *()> arguments) {
    enum { MOST_X = INT32_MAX, MOST_YZ = 65535, MOST_BLOCK_Z = 64 };
    Lock lock(runtime.mutex);
    dim3 grid = configuration->gridDim, block = configuration->blockDim;
    auto limit = runtime.shared_limits.find(kernel);
    int64_t shared = (int64_t)configuration->dynamicSmemBytes, shared_limit = EXECUTE_PLAIN_SHARED;
    if (limit != runtime.shared_limits.end() && limit->second > shared_limit) shared_limit = limit->second;
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (block.x > EXECUTE_THREADS || block.y > EXECUTE_THREADS || block.z > MOST_BLOCK_Z || threads > EXECUTE_THREADS ||
        threads == 0 || grid.x == 0 || grid.x > MOST_X || grid.y == 0 || grid.y > MOST_YZ || grid.z == 0 ||
        grid.z > MOST_YZ) {
        return failed(cudaErrorInvalidConfiguration);
    }
    if (shared > shared_limit) return failed(cudaErrorInvalidValue);
    return queue_call(configuration->stream, [=] {
        Window window;
        execute_grid(grid, block, shared, shared_limit, thread, arguments());
    });
}
