// The machinery that executes kernels on the host: correct kernels pass, and each kind of mistake is noticed.
extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
}
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "ptx_host.h"

enum { THREADS = 96, BLOCKS = 5, ROUNDS = 4, LAUNCHES = 24 };

static void require(cudaError_t code) { assert_string_equal(cudaGetErrorName(code), "cudaSuccess"); }

// `count` values in device memory.
template <class T>
struct Device {
    T *data;
    size_t count;
    explicit Device(const std::vector<T> &values) : count(values.size()) {
        require(cudaMalloc(&data, count * sizeof(T)));
        require(cudaMemcpyAsync(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }
    ~Device() { cudaFree(data); }
    std::vector<T> read() const {
        std::vector<T> values(count);
        require(cudaMemcpyAsync(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
        return values;
    }
};

template <class... Parameters, class... Arguments>
static void start(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, Arguments... arguments) {
    cudaLaunchConfig_t configuration = {};
    configuration.gridDim = grid;
    configuration.blockDim = block;
    configuration.dynamicSmemBytes = shared;
    require(cudaLaunchKernelEx(&configuration, kernel, (Parameters)arguments...));
}

// What the program says on stderr when it ends itself in `work`; "" where it goes on.
static std::string last_words(const std::function<void()> &work) {
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) signal(number, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        work();
        _exit(0);
    }
    close(ends[1]);
    std::string words;
    char part[4096];
    for (ssize_t got; (got = read(ends[0], part, sizeof part)) > 0;) words.append(part, (size_t)got);
    close(ends[0]);
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
    return words + (WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "");
}

// Fails unless work() ends the program with `part` in its last words.
static void caught(const char *part, const std::function<void()> &work) {
    std::string words = last_words(work);
    if (words.find(part) == std::string::npos) fail_msg("'%s' was expected, not '%s'", part, words.c_str());
}

static const char *const FAULT = "Segmentation fault";
#ifdef __SANITIZE_ADDRESS__  // found before it is a fault
static const char *const PAST_ARRAY = "index 96 out of bounds", *const PAST_END = "use-after-poison";
#else
static const char *const PAST_ARRAY = FAULT, *const PAST_END = "byte 20 of an allocation of 20 was written";
#endif

// ---- Barriers and shared memory --------------------------------------------

// Turns round the values of each block, ROUNDS times, through shared memory. `first` and `second`: whether the barriers
// are there; `past`: an index that is this much too large.
static __global__ void turn(float *y, const float *x, bool first, bool second, int past) {
    VL_SHARED(float, tile, THREADS);
    int64_t start = (int64_t)blockIdx.x * THREADS;
    float value = x[start + threadIdx.x];
    for (int round = 0; round < ROUNDS; round++) {
        tile[threadIdx.x + past] = value;
        if (first) __syncthreads();
        value = tile[THREADS - 1 - threadIdx.x] + 1;
        if (second) __syncthreads();
    }
    y[start + threadIdx.x] = value;
}

// The same with dynamic shared memory and 2-D blocks.
static __global__ void turn_dynamic(float *y, const float *x, int past) {
    VL_DYNAMIC_SHARED(float, tile);
    int thread = (int)(threadIdx.y * blockDim.x + threadIdx.x), last = (int)(blockDim.x * blockDim.y) - 1;
    int64_t start = (int64_t)blockIdx.x * (last + 1);
    for (int round = 0; round < ROUNDS; round++) {
        tile[thread + past] = round ? y[start + thread] : x[start + thread];
        __syncthreads();
        y[start + thread] = tile[last - thread] + 1;
        __syncthreads();
    }
}

static std::vector<float> numbers(size_t count) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; i++) values[i] = (float)(i * i % 1009);
    return values;
}

static std::vector<float> nan_numbers(size_t count) { return std::vector<float>(count, NAN); }

static int turned_right(bool first, bool second) {
    int right = 0;
    std::vector<float> want = numbers(BLOCKS * THREADS);
    for (float &value : want) value += (float)ROUNDS;  // an even number of turns
    for (int i = 0; i < LAUNCHES; i++) {
        Device<float> x(numbers(BLOCKS * THREADS)), y(nan_numbers(BLOCKS * THREADS));
        start(turn, BLOCKS, THREADS, 0, y.data, x.data, first, second, 0);
        right += y.read() == want;
    }
    return right;
}

static void test_barriers(void **) {
    assert_int_equal(turned_right(true, true), LAUNCHES);
    assert_int_equal(turned_right(false, true), 0);
    assert_int_equal(turned_right(true, false), 0);
    Device<float> x(numbers(2 * THREADS)), y(nan_numbers(2 * THREADS));
    start(turn_dynamic, 2, dim3(8, THREADS / 8), THREADS * sizeof(float), y.data, x.data, 0);
    std::vector<float> want = numbers(2 * THREADS);
    for (float &value : want) value += (float)ROUNDS;
    assert_true(y.read() == want);
}

static __global__ void leaves_early(int *y) {
    if (threadIdx.x == 40) return;
    __syncthreads();
    y[threadIdx.x] = 1;
}

static __global__ void waits_elsewhere(int *y) {
    if (threadIdx.x == 7) {
        __syncthreads();
    } else if (threadIdx.x < 32) {
        __syncwarp();
    }
    y[threadIdx.x] = 1;
}

static __global__ void two_masks(int *y) {
    __syncwarp(threadIdx.x % 32 == 7 ? 0xffu : 0xffffffffu);
    y[threadIdx.x] = 1;
}

static __global__ void two_barriers(int *y) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = 1;
}

static __global__ void two_collectives(int *y) {
    int lane = (int)threadIdx.x % 32;
    y[threadIdx.x] = lane < 16 ? __shfl_sync(0xffffffffu, lane, 0) : __shfl_xor_sync(0xffffffffu, lane, 1);
}

static __global__ void stranger(int *y) {
    y[threadIdx.x] = threadIdx.x % 32 < 16 ? __any_sync(0xffffu, 1) : __any_sync(0xffffu, 0);
}

static void test_stuck(void **) {
    auto run = [](void (*kernel)(int *)) {
        return [=] {
            Device<int> y(std::vector<int>(THREADS, 0));
            start(kernel, 1, THREADS, 0, y.data);
        };
    };
    caught("waits at __syncthreads (", run(leaves_early));
    caught("which thread (40,0,0) does not reach: it has ended", run(leaves_early));
    caught("waits at __syncwarp with mask ffffffff (", run(waits_elsewhere));
    caught("__syncwarp with mask ", run(two_masks));
    caught("comes to __syncthreads (", run(two_barriers));
    caught("comes to __shfl_", run(two_collectives));
    caught("does not hold its own lane", run(stranger));
}

// ---- Accesses --------------------------------------------------------------

static __global__ void copy(float *y, const float *x, int64_t count, int64_t past) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = x[i + past];
}

static void test_accesses(void **) {
    enum { COUNT = 1024 };  // ends at the end of a page, exactly
    Device<float> x(numbers(COUNT)), y(nan_numbers(COUNT));
    start(copy, COUNT / 64, 64, 0, y.data, x.data, COUNT, 0);
    assert_true(y.read() == numbers(COUNT));
    caught(FAULT, [&] { start(copy, COUNT / 64, 64, 0, y.data, x.data, COUNT, 1); });
    caught("thread (63,0,0) of (64,1,1)", [&] { start(copy, COUNT / 64, 64, 0, y.data, x.data, COUNT, 1); });
    caught(FAULT, [&] { start(copy, COUNT / 64 + 1, 64, 0, y.data, x.data, COUNT + 1, -1); });
    caught(PAST_ARRAY, [&] { start(turn, 1, THREADS, 0, y.data, x.data, true, true, 1); });
    caught(FAULT, [&] { start(turn_dynamic, 1, 32, 32 * sizeof(float), y.data, x.data, 1); });
    caught(FAULT, [&] { *(volatile float *)y.data = 1; });
    caught(FAULT, [&] { (void)*(volatile float *)x.data; });
}

// Writes between the end of an allocation and the end of its page are found when it is freed, or at once.
static void test_slack(void **) {
    caught(PAST_END, [] {
        Device<float> y(numbers(5)), x(numbers(6));
        start(copy, 1, 6, 0, y.data, x.data, 6, 0);
    });
}

static __global__ void overflow(int *y) {
    volatile char large[1 << 20];
    for (int i = (1 << 20) - 1; i >= 0; i -= 64) large[i] = 1;
    *y = large[5];
}

static void test_copies(void **) {
    float host[8] = {};
    Device<float> x(numbers(8)), y(numbers(8));
    require(cudaMemcpyAsync(y.data + 4, x.data, 4 * sizeof(float), cudaMemcpyDefault));
    std::vector<float> want = numbers(8);
    for (size_t i = 0; i < 4; i++) want[4 + i] = want[i];
    assert_true(y.read() == want);
    assert_int_equal(cudaMemcpyAsync(host, x.data, sizeof host, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(host, x.data, sizeof host, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(y.data, x.data, sizeof host, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(host, x.data + 1, sizeof host, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemsetAsync(x.data + 1, 0, sizeof host), cudaErrorInvalidValue);
    assert_int_equal(cudaMemsetAsync(host, 0, sizeof host), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    Device<int> z({0});
    caught(FAULT, [&] { start(overflow, 1, 1, 0, z.data); });
}

// ---- Launches --------------------------------------------------------------

static __global__ void fill_shared(int *y, int bytes) {
    VL_DYNAMIC_SHARED(char, tile);
    if (threadIdx.x == 0) *y = tile[bytes - 1];  // what nobody wrote: -1
}

static __global__ void much_static(int *y) {
    VL_SHARED(char, tile, 40 << 10);
    *y = tile[0];
}

static cudaError_t try_launch(dim3 grid, dim3 block, size_t shared) {
    static Device<int> y({0});
    cudaLaunchConfig_t configuration = {};
    configuration.gridDim = grid;
    configuration.blockDim = block;
    configuration.dynamicSmemBytes = shared;
    return cudaLaunchKernelEx(&configuration, fill_shared, y.data, (int)shared);
}

static void test_launches(void **) {
    require(try_launch(dim3(2, 3, 2), 1024, 48 << 10));
    assert_int_equal(try_launch(1, 1025, 16), cudaErrorInvalidConfiguration);
    assert_int_equal(try_launch(1, dim3(1, 1, 65), 16), cudaErrorInvalidConfiguration);
    assert_int_equal(try_launch(0, 32, 16), cudaErrorInvalidConfiguration);
    assert_int_equal(try_launch(dim3(1, 65536), 32, 16), cudaErrorInvalidConfiguration);
    assert_int_equal(try_launch(1, 32, (48 << 10) + 1), cudaErrorInvalidValue);
    const void *kernel = (const void *)fill_shared;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    assert_int_equal(cudaFuncSetAttribute(kernel, attribute, (163 << 10) + 1), cudaErrorInvalidValue);
    require(cudaFuncSetAttribute(kernel, attribute, 163 << 10));
    require(try_launch(1, 32, 163 << 10));
    assert_int_equal(try_launch(1, 32, (163 << 10) + 1), cudaErrorInvalidValue);
    Device<int> y({0});
    start(fill_shared, 1, 32, 100, y.data, 100);
    assert_int_equal(y.read()[0], -1);
    caught("too many", [&] { start(much_static, 1, 1, 9 << 10, y.data); });
}

// ---- Collectives -----------------------------------------------------------

static __global__ void collect(int *y) {
    int thread = (int)threadIdx.x, lane = thread % 32;
    int *own = y + thread * 12;
    *own++ = __shfl_sync(0xffffffffu, thread, 5);
    *own++ = __shfl_sync(0xffffffffu, thread, 9, 8);
    *own++ = __shfl_up_sync(0xffffffffu, thread, 3);
    *own++ = __shfl_down_sync(0xffffffffu, thread, 3, 16);
    *own++ = __shfl_xor_sync(0xffffffffu, thread, 6);
    *own++ = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
    unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
    *own++ = __any_sync(half, lane == 20);
    *own++ = __all_sync(half, lane >= 16);
    *own++ = __syncthreads_count(thread % 5 == 0);
    *own++ = __syncthreads_or(thread == 70);
    *own++ = __syncthreads_and(thread != 70);
    *own++ = (int)__shfl_sync(0xffffffffu, (double)thread, lane % 2);
}

static void test_collectives(void **) {
    for (int launch = 0; launch < LAUNCHES; launch++) {
        Device<int> y(std::vector<int>(THREADS * 12, -1));
        start(collect, 1, THREADS, 0, y.data);
        std::vector<int> got = y.read();
        for (int thread = 0; thread < THREADS; thread++) {
            int lane = thread % 32, warp = thread - lane;
            const int want[12] = {
                warp + 5,
                warp + lane / 8 * 8 + 1,
                lane < 3 ? thread : thread - 3,
                lane % 16 < 13 ? thread + 3 : thread,
                thread ^ 6,
                0x49249249,
                lane >= 16,
                lane >= 16,
                (THREADS + 4) / 5,
                1,
                0,
                warp + lane % 2,
            };
            for (int i = 0; i < 12; i++) assert_int_equal(got[(size_t)(thread * 12 + i)], want[i]);
        }
    }
}

static __global__ void add_up(int *sum, unsigned long long *sum64, int *most) {
    atomicAdd(sum, (int)threadIdx.x);
    atomicAdd(sum64, 1ull << 33);
    atomicMax(most, (int)(threadIdx.x * 7 % 31));
}

static void test_atomics(void **) {
    Device<int> sum({0}), most({-1});
    Device<unsigned long long> sum64({0});
    start(add_up, 3, 32, 0, sum.data, sum64.data, most.data);
    assert_int_equal(sum.read()[0], 3 * 31 * 16);
    assert_true(sum64.read()[0] == 96ull << 33);
    assert_int_equal(most.read()[0], 30);
}

// ---- Tensor cores ----------------------------------------------------------

enum { M = 16, N = 8, K = 16 };
enum class Slip { NONE, A, B, C, ROW, WAIT };

// c[M,N] = a[M,K] b[K,N] by one warp. `slip`: the mistake in it.
static __global__ void multiply(float *c, const uint16_t *a, const uint16_t *b, Slip slip) {
    VL_SHARED(uint4, tile_a, M * K / 8);
    VL_SHARED(uint4, tile_b, K * N / 8);
    int lane = (int)threadIdx.x;
    uint16_t *rows_a = (uint16_t *)tile_a, *rows_b = (uint16_t *)tile_b;
    ptx_copy_async<16>(rows_a + lane * 8, a + lane * 8, true);
    if (lane < K) ptx_copy_async<16>(rows_b + lane * 8, b + lane * 8, true);
    ptx_copy_commit();
    if (slip == Slip::WAIT) {
        ptx_copy_wait<1>();
    } else {
        ptx_copy_wait<0>();
    }
    __syncwarp();
    uint32_t part_a[4], part_b[4];
    int row = lane % 16, half = lane / 16;
    if (slip == Slip::ROW) row = 15 - row;
    ptx_ldmatrix_x4(part_a, rows_a + row * K + half * 8);
    ptx_ldmatrix_x4_transposed(part_b, rows_b + lane % 16 * N);
    if (slip == Slip::A) std::swap(part_a[1], part_a[2]);
    if (slip == Slip::B) std::swap(part_b[0], part_b[1]);
    float sums[4] = {};
    ptx_mma_bf16(sums, part_a, part_b[0], part_b[1]);
    if (slip == Slip::C) std::swap(sums[1], sums[2]);
    for (int e = 0; e < 4; e++) c[(lane / 4 + e / 2 * 8) * N + lane % 4 * 2 + e % 2] = sums[e];
}

static std::vector<float> multiplied(Slip slip) {
    std::vector<uint16_t> a(M * K), b(K * N);
    for (size_t i = 0; i < a.size(); i++) a[i] = ptx_bf16_from_f32((float)(i * 37 % 101) - 50);
    for (size_t i = 0; i < b.size(); i++) b[i] = ptx_bf16_from_f32((float)(i * 53 % 97) - 48);
    if (slip == Slip::NONE) {  // by hand, from the definition
        std::vector<float> c(M * N);
        for (size_t i = 0; i < c.size(); i++) {
            for (size_t k = 0; k < K; k++) {
                c[i] += __uint_as_float(a[i / N * K + k] << 16) * __uint_as_float(b[k * N + i % N] << 16);
            }
        }
        Device<float> got(nan_numbers(M * N));
        Device<uint16_t> on_a(a), on_b(b);
        start(multiply, 1, 32, 0, got.data, on_a.data, on_b.data, slip);
        assert_true(got.read() == c);  // small integers: exact
        return c;
    }
    Device<float> got(nan_numbers(M * N));
    Device<uint16_t> on_a(a), on_b(b);
    start(multiply, 1, 32, 0, got.data, on_a.data, on_b.data, slip);
    return got.read();
}

static void test_mma(void **) {
    std::vector<float> right = multiplied(Slip::NONE);
    for (Slip slip : {Slip::A, Slip::B, Slip::C, Slip::ROW, Slip::WAIT}) {
        std::vector<float> wrong = multiplied(slip);
        int different = 0;
        for (size_t i = 0; i < M * N; i++) different += wrong[i] != right[i];
        assert_true(different >= M * N / 4);
    }
}

// ---- Streams ---------------------------------------------------------------

static void test_streams(void **) {
    setenv("VL_TEST_STREAMS", "lazy", 1);
    cudaStream_t first, second;
    cudaEvent_t event;
    float *pinned;
    require(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    require(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    require(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    require(cudaMallocHost(&pinned, 4 * sizeof(float)));
    {
        Device<float> x({1, 2, 3, 4}), y({0, 0, 0, 0});
        for (int i = 0; i < 4; i++) pinned[i] = 0;
        require(cudaMemcpyAsync(y.data, x.data, 4 * sizeof(float), cudaMemcpyDeviceToDevice, first));
        require(cudaEventRecord(event, first));
        require(cudaStreamWaitEvent(second, event));
        require(cudaMemcpyAsync(pinned, y.data, 4 * sizeof(float), cudaMemcpyDeviceToHost, second));
        assert_true(pinned[3] == 0);  // nobody has waited
        assert_int_equal(cudaStreamQuery(second), cudaErrorNotReady);
        require(cudaStreamSynchronize(second));
        assert_true(pinned[3] == 4);
        require(cudaEventQuery(event));
    }
    require(cudaFreeHost(pinned));
    require(cudaEventDestroy(event));
    require(cudaStreamDestroy(first));
    require(cudaStreamDestroy(second));
    assert_int_equal(cudaStreamSynchronize(first), cudaErrorInvalidResourceHandle);
    unsetenv("VL_TEST_STREAMS");
}

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_barriers),    cmocka_unit_test(test_stuck),   cmocka_unit_test(test_accesses),
        cmocka_unit_test(test_slack),       cmocka_unit_test(test_copies),  cmocka_unit_test(test_launches),
        cmocka_unit_test(test_collectives), cmocka_unit_test(test_atomics), cmocka_unit_test(test_mma),
        cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
