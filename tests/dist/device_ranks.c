// One rank of the tests of the collectives over GPUs: started by test_device.c under mpirun.
#include <signal.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "dist/device_comm.h"
#include "tests/dist/rank.h"

enum { LIMIT = 3, WIDTH = 3 };

static VlContext *context;
static VlDeviceComm *gpus;

// ---- Memory of the device and what the host knows of it ----------------------

typedef struct Rows {
    VlTensor tensor;  // [rows, WIDTH]
    char *host;
} Rows;

static Rows rows_make(int64_t rows, VlDtype dtype) {
    Rows made;
    void *memory;
    int64_t dim[] = {rows, WIDTH};
    CHECK_OK(vl_device_allocate(context, rows * WIDTH * vl_dtype_size(dtype), &memory));
    made.tensor = vl_tensor_make(memory, dtype, 2, dim);
    CHECK_OK(VL_NEW(&made.host, vl_bytes(made.tensor)));
    return made;
}

static void rows_free(Rows *rows) {
    vl_device_free(context, rows->tensor.data);
    vl_free(rows->host);
}

// Any bytes: what is moved must arrive as it is.
static void fill_bytes(Rows *rows, uint64_t seed, int64_t of_rank) {
    VlRandom random = vl_random(seed, (uint64_t)of_rank);
    for (int64_t i = 0, bytes = vl_bytes(rows->tensor); i < bytes; i += 8) {
        uint64_t word = vl_random_u64(&random);
        memcpy(rows->host + i, &word, (size_t)(bytes - i < 8 ? bytes - i : 8));
    }
}

static void fill_numbers(Rows *rows, uint64_t seed) {
    VlRandom random = vl_random(seed, (uint64_t)rank);
    float *values = (float *)rows->host;
    for (int64_t i = 0; i < vl_elements(rows->tensor); i++) values[i] = (float)vl_random_normal(&random);
}

static void send_to_device(const Rows *rows) { CHECK_OK(vl_copy_from_host(context, rows->tensor, rows->host)); }

static void check_device(VlTensor tensor, const void *expected, const char *what) {
    char *got;
    CHECK_OK(VL_NEW(&got, vl_bytes(tensor)));
    CHECK_OK(vl_copy_to_host(context, got, tensor));
    for (int64_t i = 0; i < vl_bytes(tensor); i++) {
        CHECK(got[i] == ((const char *)expected)[i], "%s of %s: byte %lld", what, vl_describe(tensor), (long long)i);
    }
    vl_free(got);
}

static void check_close(VlTensor tensor, const float *expected, const char *what) {
    float *got;
    CHECK_OK(VL_NEW(&got, vl_elements(tensor)));
    CHECK_OK(vl_copy_to_host(context, got, tensor));
    for (int64_t i = 0; i < vl_elements(tensor); i++) {
        float error = got[i] - expected[i];
        CHECK(error <= 2e-6f && error >= -2e-6f, "%s: [%lld] %g, not %g", what, (long long)i, (double)got[i],
              (double)expected[i]);
    }
    vl_free(got);
}

// ---- The collectives ---------------------------------------------------------

// In place, several under way at a time, each after what the device was told to copy before it. MPI adds in the same
// order as long as it is given all of one at once.
static void sums(int64_t rows, int at_once, bool exact) {
    Rows data[7];
    for (int i = 0; i < at_once; i++) {
        data[i] = rows_make(rows, VL_F32);
        fill_numbers(&data[i], 10 + (uint64_t)i);
    }
    for (int i = 0; i < at_once; i++) {
        send_to_device(&data[i]);
        CHECK_OK(vl_device_comm_reduce(gpus, data[i].tensor));
    }
    CHECK_OK(vl_device_comm_wait(gpus));
    for (int i = 0; i < at_once; i++) {
        CHECK_OK(vl_comm_reduce(comm, VL_SUM_F32, data[i].host, vl_elements(data[i].tensor)));
        if (exact) check_device(data[i].tensor, data[i].host, "all-reduce");
        check_close(data[i].tensor, (float *)data[i].host, "all-reduce");
        rows_free(&data[i]);
    }
}

// Into memory of its own, and into its place among what is summed.
static void scattered_sums(int64_t rows) {
    for (int in_place = 0; in_place < 2; in_place++) {
        Rows all = rows_make(rows * size, VL_F32), mine = rows_make(rows, VL_F32);
        VlTensor to = in_place ? vl_rows(all.tensor, rank * rows, rows) : mine.tensor;
        fill_numbers(&all, 20);
        send_to_device(&all);
        CHECK_OK(vl_device_comm_reduce_scatter(gpus, to, all.tensor));
        CHECK_OK(vl_device_comm_wait(gpus));
        CHECK_OK(vl_comm_reduce(comm, VL_SUM_F32, all.host, vl_elements(all.tensor)));
        check_close(to, (float *)all.host + rank * rows * WIDTH, "reduce-scatter");
        rows_free(&all);
        rows_free(&mine);
    }
}

static void gathers(int64_t rows, VlDtype dtype) {
    for (int in_place = 0; in_place < 2; in_place++) {
        Rows all = rows_make(rows * size, dtype), mine = rows_make(rows, dtype);
        int64_t bytes = vl_bytes(mine.tensor);
        VlTensor from = in_place ? vl_rows(all.tensor, rank * rows, rows) : mine.tensor;
        fill_bytes(&mine, 30, rank);
        CHECK_OK(vl_copy_from_host(context, from, mine.host));
        CHECK_OK(vl_device_comm_all_gather(gpus, all.tensor, from));
        CHECK_OK(vl_device_comm_wait(gpus));
        for (int64_t r = 0; r < size; r++) {
            fill_bytes(&mine, 30, r);
            memcpy(all.host + r * bytes, mine.host, (size_t)bytes);
        }
        check_device(all.tensor, all.host, "all-gather");
        rows_free(&all);
        rows_free(&mine);
    }
}

// Row `row` of what `from` sends to `to`.
static void fill_row(char *row, int64_t bytes, int64_t from, int64_t to, int64_t number) {
    VlRandom random = vl_random(40, (uint64_t)(from * 100 + to) * 100000 + (uint64_t)number);
    for (int64_t i = 0; i < bytes; i++) row[i] = (char)vl_random_below(&random, 256);
}

// rows(from, to): some pairs have none, and in some rounds a rank has none at all.
static int64_t rows_between(int64_t from, int64_t to, int64_t most, int round) {
    if (round == 1 && (from == size - 1 || to == size - 1)) return 0;
    return (from * 5 + to * 3 + round) % 4 * most / 3;
}

static void exchanges(int64_t most, VlDtype dtype) {
    for (int round = 0; round < 3; round++) {
        int64_t send[16], receive[16], leaving = 0, coming = 0, bytes = WIDTH * vl_dtype_size(dtype);
        for (int64_t r = 0; r < size; r++) {
            leaving += send[r] = rows_between(rank, r, most, round);
            coming += receive[r] = rows_between(r, rank, most, round);
        }
        Rows sent = rows_make(leaving, dtype), received = rows_make(coming, dtype);
        char *row = sent.host;
        for (int64_t r = 0; r < size; r++) {
            for (int64_t i = 0; i < send[r]; i++, row += bytes) fill_row(row, bytes, rank, r, i);
        }
        send_to_device(&sent);
        CHECK_OK(vl_device_comm_all_to_all(gpus, received.tensor, receive, sent.tensor, send));
        CHECK_OK(vl_device_comm_wait(gpus));
        row = received.host;
        for (int64_t r = 0; r < size; r++) {
            for (int64_t i = 0; i < receive[r]; i++, row += bytes) fill_row(row, bytes, r, rank, i);
        }
        check_device(received.tensor, received.host, "all-to-all");
        check_device(sent.tensor, sent.host, "what was sent");
        rows_free(&sent);
        rows_free(&received);
    }
}

// Of each kind one, none waited for on its own.
static void one_after_the_other(void) {
    enum { ROWS = 50 };
    Rows sum = rows_make(ROWS, VL_F32), all = rows_make(ROWS * size, VL_F32), mine = rows_make(ROWS, VL_F32);
    fill_numbers(&sum, 50);
    send_to_device(&sum);
    CHECK_OK(vl_device_comm_reduce(gpus, sum.tensor));
    CHECK_OK(vl_device_comm_all_gather(gpus, all.tensor, sum.tensor));
    CHECK_OK(vl_device_comm_reduce_scatter(gpus, mine.tensor, all.tensor));
    CHECK_OK(vl_device_comm_wait(gpus));
    CHECK_OK(vl_device_comm_wait(gpus));
    CHECK_OK(vl_comm_reduce(comm, VL_SUM_F32, sum.host, ROWS * WIDTH));
    for (int64_t r = 0; r < size; r++)
        memcpy(all.host + r * vl_bytes(sum.tensor), sum.host, (size_t)vl_bytes(sum.tensor));
    check_device(all.tensor, all.host, "all-gather of a sum");
    for (int64_t i = 0; i < ROWS * WIDTH; i++) ((float *)mine.host)[i] = ((float *)sum.host)[i] * (float)size;
    check_close(mine.tensor, (float *)mine.host, "sum of sums");
    rows_free(&sum);
    rows_free(&all);
    rows_free(&mine);
}

static void refusals(void) {
    Rows a = rows_make(4, VL_F32), b = rows_make(4 * size + 1, VL_F32), c = rows_make(4, VL_BF16);
    int64_t counts[16] = {-1}, whole[16] = {4};
    CHECK(vl_device_comm_reduce(gpus, c.tensor) == VL_INVALID, "bf16 is summed");
    CHECK(vl_device_comm_all_gather(gpus, b.tensor, a.tensor) == VL_INVALID, "too many rows");
    CHECK(vl_device_comm_reduce_scatter(gpus, a.tensor, b.tensor) == VL_INVALID, "too many rows");
    CHECK(vl_device_comm_all_to_all(gpus, a.tensor, counts, a.tensor, counts) == VL_INVALID, "-1 rows");
    CHECK(vl_device_comm_all_to_all(gpus, b.tensor, whole, a.tensor, whole) == VL_INVALID, "more rows than counted");
    rows_free(&a);
    rows_free(&b);
    rows_free(&c);
}

static void everything(void) {
    static const int64_t rows[] = {1, 2, 63, 1000};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sums(rows[i], 7, true);
        scattered_sums(rows[i]);
        gathers(rows[i], i % 2 ? VL_F32 : VL_BF16);
        exchanges(3 * rows[i], i % 2 ? VL_BF16 : VL_F32);
    }
    sums(0, 1, true);
    one_after_the_other();
    refusals();
}

// More than one piece of the staged way.
static void large(void) {
    sums(1500000, 3, false);
    gathers(1500000, VL_F32);
}

// ---- Faults ------------------------------------------------------------------

// A collective that must fail on this rank, within the time limit; nothing works after it.
static void expect_failure(const char *text) {
    Rows data = rows_make(100, VL_F32);
    double begin = vl_seconds();
    VlStatus status = vl_device_comm_reduce(gpus, data.tensor);
    if (status == VL_OK) status = vl_device_comm_wait(gpus);
    CHECK(status == VL_COMMUNICATION && strstr(vl_error_text(), text), "status %d: '%s' lacks '%s'", (int)status,
          vl_error_text(), text);
    CHECK(vl_seconds() - begin < LIMIT + 8, "it took %g s", vl_seconds() - begin);
    CHECK(vl_device_comm_reduce(gpus, data.tensor) == VL_COMMUNICATION, "it goes on after an error");
    CHECK(vl_device_comm_wait(gpus) == VL_COMMUNICATION, "it goes on after an error");
    vl_device_comm_close(gpus);
    printf("noticed: %s\n", vl_error_text());
    fflush(stdout);
    sleep(2);  // all of them say so before the first one ends the job
    vl_comm_abort(comm, 7);
}

static void fault(const char *mode, const char *text) {
    bool odd = rank == size - 1;
    Rows data = rows_make(99, VL_F32), all = rows_make(99 * size, VL_F32);
    int64_t send[16] = {0}, receive[16] = {0};
    if (strcmp(mode, "silent") == 0 && odd) {
        for (;;) pause();
    }
    if (strcmp(mode, "die") == 0 && odd) raise(SIGKILL);
    VlStatus status = VL_OK;
    if (strcmp(mode, "count") == 0 && odd) status = vl_device_comm_reduce(gpus, data.tensor);
    if (strcmp(mode, "kind") == 0 && odd) status = vl_device_comm_all_gather(gpus, all.tensor, data.tensor);
    if (strcmp(mode, "send") == 0 && odd) send[0] = 99;
    if (strcmp(mode, "receive") == 0 && odd) receive[0] = 99;
    if (strcmp(mode, "send") == 0 || strcmp(mode, "receive") == 0) {
        VlTensor none = vl_rows(data.tensor, 0, 0);
        status = vl_device_comm_all_to_all(gpus, receive[0] ? data.tensor : none, receive, send[0] ? data.tensor : none,
                                           send);
    }
    CHECK(status == VL_OK || status == VL_COMMUNICATION, "status %d", (int)status);  // found at once, or later
    expect_failure(text);
}

// Joining fails on all ranks, with a text.
static void fail_to_join(const char *text) {
    VlStatus status = vl_device_comm_open(&gpus, context, comm);
    CHECK(status == VL_COMMUNICATION && strstr(vl_error_text(), text) && !gpus, "status %d: '%s'", (int)status,
          vl_error_text());
    printf("noticed: %s\n", vl_error_text());
}

// MODE RANKS WAY [TEXT]: WAY is how vl_device_comm_describe begins, TEXT is in the error that a fault makes.
int main(int argc, char **argv) {
    if (argc < 4) return 2;
    const char *mode = argv[1], *text = argc > 4 ? argv[4] : "";
    bool faulty = strcmp(mode, "all") != 0 && strcmp(mode, "large") != 0;
    CHECK_OK(vl_comm_open(&comm, 120));
    rank = vl_comm_rank(comm);
    size = vl_comm_size(comm);
    CHECK(size == strtoll(argv[2], NULL, 10), "%lld ranks", (long long)size);
    CHECK_OK(vl_device_comm_choose_gpu(comm));
    CHECK_OK(vl_context_create(&context, VL_DEVICE_CUDA, 1));
    if (strcmp(mode, "join") == 0) {
        fail_to_join(text);
    } else {
        CHECK_OK(vl_device_comm_open(&gpus, context, comm));
        CHECK(strncmp(vl_device_comm_describe(gpus), argv[3], strlen(argv[3])) == 0, "'%s', not '%s'",
              vl_device_comm_describe(gpus), argv[3]);
        CHECK_OK(vl_comm_barrier(comm));
        if (faulty) vl_comm_set_timeout(comm, LIMIT);
        if (faulty) fault(mode, text);
        if (strcmp(mode, "large") == 0) large();
        everything();
        vl_device_comm_close(gpus);
    }
    vl_context_free(context);
    vl_comm_close(comm);
    printf("rank done\n");
    return 0;
}
