// One rank of the tests of dist/: started by test_ranks.c under mpirun.
#include <signal.h>
#include <time.h>

#include "base/memory.h"
#include "base/random.h"
#include "dist/buckets.h"
#include "dist/device_comm.h"
#include "tests/dist/rank.h"

enum { SILENT_LIMIT = 2, COLLECTIVE_LIMIT = 120 };  // seconds of one collective

// ------------------------------------------------------------------------------------------- collectives

static void reductions(void) {
    enum { MOST = 70001 };
    static const int64_t counts[] = {0, 1, 3, 1000, MOST};
    static float f32[MOST];
    static double f64[MOST];
    static int64_t sum[MOST], most[MOST], least[MOST];
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        int64_t count = counts[c];
        for (int64_t i = 0; i < MOST; i++) {
            f32[i] = (float)((rank + 1) * (i % 97));
            f64[i] = (double)(rank + 1) * 1e-3 * (double)i;
            sum[i] = ((int64_t)1 << 40) * (rank + 1) + i;
            most[i] = (rank * 7 + i) % 5;
            least[i] = -most[i];
        }
        CHECK_OK(vl_comm_reduce(comm, VL_SUM_F32, f32, count));
        CHECK_OK(vl_comm_reduce(comm, VL_SUM_F64, f64, count));
        CHECK_OK(vl_comm_reduce(comm, VL_SUM_I64, sum, count));
        CHECK_OK(vl_comm_reduce(comm, VL_MAX_I64, most, count));
        CHECK_OK(vl_comm_reduce(comm, VL_MIN_I64, least, count));
        int64_t ranks_sum = size * (size + 1) / 2;
        for (int64_t i = 0; i < count; i++) {
            int64_t largest = 0;
            double f64_sum = 1e-3 * (double)(ranks_sum * i);
            for (int64_t r = 0; r < size; r++) largest = (r * 7 + i) % 5 > largest ? (r * 7 + i) % 5 : largest;
            CHECK(f32[i] == (float)(ranks_sum * (i % 97)), "[%lld] %g", (long long)i, (double)f32[i]);
            CHECK(f64[i] - f64_sum <= 1e-9 && f64_sum - f64[i] <= 1e-9, "[%lld] %g", (long long)i, f64[i]);
            CHECK(sum[i] == ((int64_t)1 << 40) * ranks_sum + size * i, "[%lld] %lld", (long long)i, (long long)sum[i]);
            CHECK(most[i] == largest && least[i] == -largest, "[%lld] %lld", (long long)i, (long long)most[i]);
        }
        for (int64_t i = count; i < MOST; i++) CHECK(f32[i] == (float)((rank + 1) * (i % 97)), "past the end");
    }
}

// The same bits everywhere, whatever the order in which floats are added.
static void same_bits(void) {
    enum { COUNT = 4099 };
    static float values[COUNT], first[COUNT];
    VlRandom random = vl_random(5, (uint64_t)rank);
    for (int i = 0; i < COUNT; i++) values[i] = (float)vl_random_normal(&random);
    CHECK_OK(vl_comm_reduce(comm, VL_SUM_F32, values, COUNT));
    memcpy(first, values, sizeof first);
    CHECK_OK(vl_comm_broadcast(comm, first, sizeof first, size - 1));
    CHECK(memcmp(first, values, sizeof first) == 0, "sums differ between ranks");
}

static void broadcasts_and_gathers(void) {
    static unsigned char bytes[100003];
    for (int64_t root = 0; root < size; root++) {
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = rank == root ? (unsigned char)(i * 7 + (size_t)root) : 0;
        CHECK_OK(vl_comm_broadcast(comm, bytes, sizeof bytes, root));
        for (size_t i = 0; i < sizeof bytes; i++) CHECK(bytes[i] == (unsigned char)(i * 7 + (size_t)root), "%zu", i);
    }
    for (int64_t count = 0; count <= 5; count += 5) {
        int64_t mine[5], all[5 * 16];
        for (int i = 0; i < 5; i++) mine[i] = 100 * rank + i;
        memset(all, 0xff, sizeof all);
        CHECK_OK(vl_comm_gather_i64(comm, mine, count, all));
        for (int64_t r = 0; r < size; r++) {
            for (int64_t i = 0; i < count; i++) CHECK(all[r * count + i] == 100 * r + i, "rank %lld", (long long)r);
        }
        CHECK(all[size * count] == -1, "written past the end");
    }
    CHECK_OK(vl_comm_barrier(comm));
}

// Every rank in turn has the error, and every rank learns of it; then two at once.
static void agreement(void) {
    char text[128];
    CHECK_OK(vl_comm_agree(comm, VL_OK));
    for (int64_t bad = 0; bad < size; bad++) {
        VlStatus mine = rank == bad ? vl_error(VL_FORMAT, "shard %lld is torn", (long long)bad) : VL_OK;
        VlStatus status = vl_comm_agree(comm, mine);
        CHECK(status == VL_FORMAT, "status %d", (int)status);
        if (rank == bad) {
            snprintf(text, sizeof text, "shard %lld is torn", (long long)bad);
        } else {
            snprintf(text, sizeof text, "rank %lld: shard %lld is torn", (long long)bad, (long long)bad);
        }
        CHECK(strcmp(vl_error_text(), text) == 0, "'%s' for '%s'", vl_error_text(), text);
        CHECK_OK(vl_comm_agree(comm, VL_OK));
    }
    VlStatus status = vl_comm_agree(comm, vl_error(VL_IO, "all of us, %lld", (long long)rank));
    snprintf(text, sizeof text, "all of us, %lld", (long long)rank);
    CHECK(status == VL_IO && strcmp(vl_error_text(), text) == 0, "'%s'", vl_error_text());
}

// More reductions at once than the queue holds; results are there after the wait, each its own.
static void many_at_once(void) {
    enum { MANY = 3000 };
    static int64_t values[MANY];
    for (int64_t i = 0; i < MANY; i++) {
        values[i] = (rank + 1) * i;
        CHECK_OK(vl_comm_start_reduce(comm, VL_SUM_I64, &values[i], 1));
    }
    CHECK_OK(vl_comm_wait(comm));
    for (int64_t i = 0; i < MANY; i++) CHECK(values[i] == i * size * (size + 1) / 2, "%lld", (long long)i);
    CHECK_OK(vl_comm_wait(comm));
}

// ----------------------------------------------------------------------------------------------- buckets

typedef struct Flat {
    VlContext *context;
    void *memory;
    VlTensor tensor;
    float *host, *expected;
} Flat;

// This rank's gradients of a round, on the host; on the device there is nothing to be summed yet.
static void draw(Flat *flat, int64_t elements, uint64_t seed) {
    VlRandom random = vl_random(seed, (uint64_t)rank);
    for (int64_t i = 0; i < elements; i++) flat->expected[i] = 1e6f;
    CHECK_OK(vl_copy_from_host(flat->context, flat->tensor, flat->expected));
    for (int64_t i = 0; i < elements; i++) flat->host[i] = (float)vl_random_normal(&random);
    memcpy(flat->expected, flat->host, (size_t)elements * sizeof(float));
}

// Backward: from the back, in ranges of random length, each is computed and then announced; with `gaps` now and then
// one is not announced, with `silent` none is.
static void backward(const Flat *flat, VlBuckets *buckets, int64_t elements, VlRandom *random, bool gaps, bool silent) {
    for (int64_t end = elements, length; end > 0; end -= length) {
        length = 1 + vl_random_below(random, elements / 3 + 1);
        if (length > end) length = end;
        CHECK_OK(
            vl_copy_from_host(flat->context, vl_rows(flat->tensor, end - length, length), flat->host + end - length));
        if (silent || (gaps && vl_random_below(random, 3) == 0)) continue;
        CHECK_OK(vl_buckets_ready(buckets, end - length, length));
    }
}

static void sum_in_buckets(int64_t elements, int64_t bucket, uint64_t seed) {
    Flat flat = {0};
    VlBuckets *buckets;
    CHECK_OK(vl_context_create(&flat.context, rank_device(), 1));
    CHECK_OK(vl_device_allocate(flat.context, elements * 4, &flat.memory));
    CHECK_OK(VL_NEW(&flat.host, elements));
    CHECK_OK(VL_NEW(&flat.expected, elements));
    flat.tensor = vl_tensor(flat.memory, VL_F32, elements);
    CHECK_OK(vl_buckets_create(&buckets, flat.context, comm, flat.tensor, bucket));
    VlRandom random = vl_random(seed, 1000 + (uint64_t)rank);  // every rank announces in a way of its own
    for (int round = 0; round < 4; round++) {
        draw(&flat, elements, seed + (uint64_t)round);
        CHECK_OK(vl_comm_reduce(comm, VL_SUM_F32, flat.expected, elements));
        backward(&flat, buckets, elements, &random, round == 3, round == 2 && rank == size - 1);
        CHECK_OK(vl_buckets_finish(buckets));
        CHECK_OK(vl_copy_to_host(flat.context, flat.host, flat.tensor));
        for (int64_t i = 0; i < elements; i++) {
            CHECK(memcmp(&flat.host[i], &flat.expected[i], 4) == 0,
                  "%lld elements, bucket %lld, round %d: [%lld] %g, not %g", (long long)elements, (long long)bucket,
                  round, (long long)i, (double)flat.host[i], (double)flat.expected[i]);
        }
    }
    vl_buckets_free(buckets);
    vl_device_free(flat.context, flat.memory);
    vl_context_free(flat.context);
    vl_free(flat.host);
    vl_free(flat.expected);
}

static void buckets_of_any_size(void) {
    static const int64_t elements[] = {1, 2, 63, 64, 65, 1000, 4096, 10007}, buckets[] = {1, 7, 64, 1000, 0};
    bool gpu = rank_device() == VL_DEVICE_CUDA;
    for (size_t e = 0; e < sizeof elements / sizeof *elements; e++) {
        for (size_t b = 0; b < sizeof buckets / sizeof *buckets; b++) {
            if (buckets[b] == 1 && elements[e] > 100) continue;  // as many requests as elements
            if (gpu && buckets[b] && elements[e] / buckets[b] > 100) continue;
            sum_in_buckets(elements[e], buckets[b], 10 * e + b);
        }
    }
}

// ------------------------------------------------------------------------------------------------ faults

// The last rank does not take part: the others get an error within the limit, and nothing is carried out after it.
static void silent_rank(void) {
    if (rank == size - 1) {
        for (;;) pause();
    }
    int64_t value = 1;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    VlStatus status = vl_comm_reduce(comm, VL_SUM_I64, &value, 1);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    CHECK(status == VL_COMMUNICATION, "status %d", (int)status);
    CHECK(strstr(vl_error_text(), "waited 2 s in collective 0 (all-reduce of 1)"), "'%s'", vl_error_text());
    CHECK(seconds >= SILENT_LIMIT - 0.1 && seconds < SILENT_LIMIT + 60, "%g s", seconds);
    CHECK(vl_comm_barrier(comm) == VL_COMMUNICATION, "a broken communicator goes on");
    printf("the limit held\n");
    fflush(stdout);
    sleep(1);  // all of them say so before the first one ends the job
    vl_comm_abort(comm, 7);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "all";
    bool silent = strcmp(mode, "silent") == 0;
    CHECK_OK(vl_comm_open(&comm, silent ? SILENT_LIMIT : COLLECTIVE_LIMIT));
    rank = vl_comm_rank(comm);
    size = vl_comm_size(comm);
    if (argc > 2) CHECK(size == strtoll(argv[2], NULL, 10), "%lld ranks", (long long)size);
    if (rank_device() == VL_DEVICE_CUDA) CHECK_OK(vl_device_comm_choose_gpu(comm));
    if (silent) silent_rank();
    if (strcmp(mode, "abort") == 0) {
        if (rank == size - 1) vl_comm_abort(comm, 5);
        for (;;) pause();
    }
    if (strcmp(mode, "die") == 0) {
        if (rank == size - 1) raise(SIGKILL);
        CHECK_OK(vl_comm_barrier(comm));
    }
    reductions();
    same_bits();
    broadcasts_and_gathers();
    agreement();
    many_at_once();
    buckets_of_any_size();
    vl_comm_close(comm);
    printf("rank done\n");
    return 0;
}
