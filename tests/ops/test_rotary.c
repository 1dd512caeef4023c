// rotary_table and rotary against their formulas in f64.
#include <math.h>

#include "tests/ops/output.h"

typedef struct Problem {
    int64_t tokens, heads, size;
    double *x, *table, *dy;
    double *y, *dx;  // by reference()
} Problem;

// Rotation by the angles of the table, forward (direction 1) or back (-1).
static void rotate(const Problem *p, const double *from, double *to, double direction, VlDtype type) {
    int64_t half = p->size / 2;
    for (int64_t t = 0; t < p->tokens; t++) {
        const double *cosine = p->table + t * p->size, *sine = cosine + half;
        for (int64_t head = 0; head < p->heads; head++) {
            const double *x = from + (t * p->heads + head) * p->size;
            double *y = to + (t * p->heads + head) * p->size;
            for (int64_t i = 0; i < half; i++) {
                double c = check_rounded(cosine[i], type), s = direction * check_rounded(sine[i], type);
                y[i] = check_rounded(check_rounded(x[i] * c, type) - check_rounded(x[i + half] * s, type), type);
                y[i + half] = check_rounded(check_rounded(x[i + half] * c, type) + check_rounded(x[i] * s, type), type);
            }
        }
    }
}

static void reference(Problem *p, VlDtype type) {
    rotate(p, p->x, p->y, 1, type);
    rotate(p, p->dy, p->dx, -1, type);
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->y, p->dy, p->tokens * p->heads * p->size);
}

// Any numbers will do for cos and sin: the operation is linear in them.
static Problem problem_make(Check *check, int64_t tokens, int64_t heads, int64_t size, VlDtype dtype) {
    int64_t count = tokens * heads * size;
    return (Problem){.tokens = tokens,
                     .heads = heads,
                     .size = size,
                     .x = check_random(check, count, 1.0, dtype),
                     .table = check_random(check, tokens * size, 1.0, dtype == VL_F64 ? VL_F64 : VL_F32),
                     .dy = check_random(check, count, 1.0, dtype),
                     .y = check_zeros(check, count),
                     .dx = check_zeros(check, count)};
}

enum { Y, DX, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, int64_t tokens, int64_t heads, int64_t size, VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 7, threads);
    Problem p = run->problem = problem_make(check, tokens, heads, size, dtype);
    VlTensor x = check_upload(check, p.x, dtype, tokens, heads * size);
    VlTensor dy = check_upload(check, p.dy, dtype, tokens, heads * size);
    VlTensor table = check_upload(check, p.table, VL_F32, tokens, size);
    for (int i = 0; i < OUTPUTS; i++) {
        run->out[i] = output_make(check, vl_tensor(NULL, dtype, tokens, heads * size), VL_WRITE);
    }
    check_ok(check, vl_rotary_forward(check->context, run->out[Y].tensor, x, table, heads));
    check_ok(check, vl_rotary_backward(check->context, run->out[DX].tensor, dy, table, heads));
    check_ok(check, vl_rotary_backward(check->context, VL_EMPTY, dy, table, heads));
    // In place: the same.
    check_ok(check, vl_rotary_forward(check->context, x, x, table, heads));
    check_ok(check, vl_rotary_backward(check->context, dy, dy, table, heads));
    check_same_bits(check, "y in place", x, check, run->out[Y].tensor);
    check_same_bits(check, "dx in place", dy, check, run->out[DX].tensor);
}

static void verify(int64_t tokens, int64_t heads, int64_t size, VlDtype dtype) {
    Run run;
    run_begin(&run, tokens, heads, size, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, tokens, heads, size, dtype);
    naive.x = exact.x, naive.table = exact.table, naive.dy = exact.dy;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    output_check(check, "y", run.out[Y], exact.y, naive.y);
    output_check(check, "dx", run.out[DX], exact.dx, naive.dx);
    check_end(check);
}

static void test_rotary_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 2}, {3, 2, 6}, {7, 3, 64}, {65, 5, 34}, {2, 2, 2500}, {0, 2, 8}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i][0], shapes[i][1], shapes[i][2], VL_F32);
        verify(shapes[i][0], shapes[i][1], shapes[i][2], VL_BF16);
    }
    Check check;
    check_begin(&check, 8, 1);
    Problem p = problem_make(&check, 3, 2, 6, VL_F64);
    reference(&p, VL_F64);
    check_differences(&check, "dx", p.x, 36, 36, loss, &p, check_copy(&check, p.dx, 36));
    check_end(&check);
}

static void check_table(int64_t size, double theta, int64_t threads) {
    static const int64_t positions[] = {0, 1, 2, 3, 0, 1, 17, 4095, 131071, 70000};
    enum { TOKENS = sizeof positions / sizeof *positions };
    Check check;
    check_begin(&check, 9, threads);
    Output table = output_make(&check, vl_tensor(NULL, VL_F32, TOKENS, size), VL_WRITE);
    VlTensor position = check_upload_i64(&check, positions, TOKENS);
    check_ok(&check, vl_rotary_table(check.context, table.tensor, position, theta));
    double *want = check_zeros(&check, TOKENS * size), *got = check_download(&check, table.tensor);
    for (int64_t t = 0; t < TOKENS; t++) {
        for (int64_t i = 0; i < size / 2; i++) {
            double angle = (double)positions[t] * pow(theta, -2.0 * (double)i / (double)size);
            want[t * size + i] = cos(angle);
            want[t * size + size / 2 + i] = sin(angle);
        }
    }
    for (int64_t i = 0; i < TOKENS * size; i++) check_close(&check, "table", got + i, want + i, 1, 1e-6);
    check_end(&check);
}

static void test_table(void **state) {
    (void)state;
    check_table(2, 10000, 1);
    check_table(6, 10000, 2);
    check_table(128, 1e6, 2);
    check_table(1200, 1e4, 3);
}

static void test_threads(void **state) {
    (void)state;
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, two;
        run_begin(&one, 333, 3, 34, dtypes[i], 1);
        run_begin(&two, 333, 3, 34, dtypes[i], 2);
        outputs_same(&one.check, one.out, &two.check, two.out, OUTPUTS);
        check_end(&one.check);
        check_end(&two.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 10, 1);
    VlContext *context = check.context;
    VlTensor x = check_device(&check, VL_F32, 4, 24), y = check_device(&check, VL_F32, 4, 24);
    VlTensor half = check_device(&check, VL_BF16, 4, 24), table = check_device(&check, VL_F32, 4, 12);
    VlTensor positions = check_device(&check, VL_I64, 4), odd = check_device(&check, VL_F32, 4, 3);
    check_refused(vl_rotary_forward(context, half, x, table, 2), VL_INVALID,
                  "rotary_forward: y is [4,24] bf16, it must be as x [4,24] f32");
    check_refused(vl_rotary_forward(context, y, x, table, 3), VL_INVALID, "table is [4,12] f32, it must be [4,8] f32");
    check_refused(vl_rotary_forward(context, y, x, odd, 8), VL_INVALID, "8 heads of an even size");
    check_refused(vl_rotary_forward(context, y, x, table, 0), VL_INVALID, "0 heads");
    check_refused(vl_rotary_forward(context, VL_EMPTY, x, table, 2), VL_INVALID, "y is the empty view");
    check_refused(vl_rotary_backward(context, table, x, table, 2), VL_INVALID,
                  "rotary_backward: dx is [4,12] f32, it must be as dy [4,24] f32");
    VlTensor shifted = vl_reshape(vl_rows(vl_reshape(x, 96), 1, 72), 3, 24);
    check_refused(vl_rotary_forward(context, shifted, vl_rows(x, 0, 3), vl_rows(table, 0, 3), 2), VL_INVALID,
                  "overlap");
    check_refused(vl_rotary_table(context, table, x, 1e4), VL_INVALID, "positions is [4,24] f32");
    check_refused(vl_rotary_table(context, vl_rows(table, 0, 3), positions, 1e4), VL_INVALID, "table is [3,12] f32");
    check_refused(vl_rotary_table(context, odd, positions, 1e4), VL_INVALID, "even size");
    check_refused(vl_rotary_table(context, table, positions, 0), VL_INVALID, "theta is 0");
    check_refused(vl_rotary_table(context, table, positions, NAN), VL_INVALID, "theta is nan");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotary_gradient),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
