// linear_cross_entropy against f64: losses = logsumexp(x w^T) - (x w^T)[target], and their gradients times a scale.
#include <math.h>

#include "tests/ops/check.h"

typedef struct Problem {
    int64_t rows, width, vocabulary;
    double *x, *w, scale;
    int64_t *targets;
    VlDtype rounding;  // of logits and their gradients: VL_F64 for none
} Problem;

enum { MOST_VOCABULARY = 20000 };

// losses[rows]; dx and dw += unless NULL.
static void lose_f64(const Problem *p, double *losses, double *dx, double *dw) {
    static double logits[MOST_VOCABULARY];
    for (int64_t i = 0; i < p->rows; i++) {
        const double *x = p->x + i * p->width;
        double most = -INFINITY, total = 0;
        for (int64_t j = 0; j < p->vocabulary; j++) {
            logits[j] = check_rounded(check_dot(x, p->w + j * p->width, p->width), p->rounding);
            if (logits[j] > most) most = logits[j];
        }
        for (int64_t j = 0; j < p->vocabulary; j++) total += exp(logits[j] - most);
        losses[i] = most + log(total) - logits[p->targets[i]];
        for (int64_t j = 0; dx && j < p->vocabulary; j++) {
            double d = p->scale * (exp(logits[j] - most) / total - (j == p->targets[i]));
            d = check_rounded(d, p->rounding);
            for (int64_t c = 0; c < p->width; c++) {
                dx[i * p->width + c] += d * p->w[j * p->width + c];
                dw[j * p->width + c] += d * x[c];
            }
        }
    }
}

static Problem make_problem(Check *check, const int64_t *shape, VlDtype dtype) {
    return (Problem){.rows = shape[0],
                     .width = shape[1],
                     .vocabulary = shape[2],
                     .x = check_random(check, shape[0] * shape[1], 1, dtype),
                     .w = check_random(check, shape[2] * shape[1], 0.5, dtype),
                     .scale = 0.375,
                     .targets = check_random_indices(check, shape[0], shape[2]),
                     .rounding = VL_F64};
}

// rows, width, vocabulary: more than one block of rows, a vocabulary longer than the pieces that are summed, one row,
// none.
static const int64_t shapes[][3] = {{3, 4, 5}, {600, 9, 37}, {5, 33, 2500}, {1, 1, 1}, {0, 4, 7}, {7, 3, 20000}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void run(uint64_t seed, const int64_t *shape, VlDtype dtype) {
    Check check;
    check_begin(&check, seed, 2);
    Problem p = make_problem(&check, shape, dtype), naive = p;
    naive.rounding = dtype;
    int64_t m = p.rows, c = p.width, v = p.vocabulary;
    double *losses = check_zeros(&check, m), *dx = check_zeros(&check, m * c),
           *dw = check_random(&check, v * c, 1, VL_F32);
    double *naive_losses = check_zeros(&check, m), *naive_dx = check_zeros(&check, m * c);
    double *naive_dw = check_copy(&check, dw, v * c);
    VlTensor x = check_upload(&check, p.x, dtype, m, c), w = check_upload(&check, p.w, dtype, v, c);
    VlTensor targets = check_upload_i64(&check, p.targets, m);
    VlTensor got_losses = check_output(&check, VL_F32, m), got_dx = check_output(&check, dtype, m, c);
    VlTensor got_dw = check_upload(&check, dw, VL_F32, v, c);
    lose_f64(&p, losses, dx, dw);
    lose_f64(&naive, naive_losses, naive_dx, naive_dw);
    check_round(naive_dx, m * c, dtype);
    VlContext *context = check.context;
    check_ok(&check, vl_linear_cross_entropy(context, got_losses, got_dx, got_dw, x, w, targets, (float)p.scale));
    assert_int_equal(vl_flops_total(&context->flops), 3 * 2 * m * c * v);
    if (dtype == VL_F32) {
        check_tensor(&check, "losses", got_losses, losses, 1e-5);
        check_tensor(&check, "dx", got_dx, dx, 1e-5);
        check_tensor(&check, "dw", got_dw, dw, 1e-5);
    } else {
        check_bf16(&check, "losses", got_losses, naive_losses, losses);
        check_bf16(&check, "dx", got_dx, naive_dx, dx);
        check_bf16(&check, "dw", got_dw, naive_dw, dw);
    }
    VlTensor again = check_output(&check, VL_F32, m), again_dx = check_output(&check, dtype, m, c);
    check_ok(&check, vl_linear_cross_entropy(context, again, VL_EMPTY, VL_EMPTY, x, w, targets, 1));
    assert_int_equal(vl_flops_total(&context->flops), 4 * 2 * m * c * v);
    check_same_bits(&check, "losses without gradients", again, &check, got_losses);
    check_ok(&check, vl_linear_cross_entropy(context, again, again_dx, VL_EMPTY, x, w, targets, (float)p.scale));
    check_same_bits(&check, "dx without dw", again_dx, &check, got_dx);
    check_end(&check);
}

static double loss(void *problem) {
    const Problem *p = problem;
    double losses[8];
    assert_in_range(p->rows, 0, 8);
    lose_f64(p, losses, NULL, NULL);
    double sum = 0;
    for (int64_t i = 0; i < p->rows; i++) sum += p->scale * losses[i];
    return sum;
}

static void test_linear_cross_entropy_gradient(void **state) {
    (void)state;
    for (uint64_t s = 0; s < SHAPES; s++) run(800 + s, shapes[s], VL_F32);
    Check check;
    check_begin(&check, 810, 1);
    Problem p = make_problem(&check, shapes[0], VL_F32);
    double losses[3], *dx = check_zeros(&check, 12), *dw = check_zeros(&check, 20);
    lose_f64(&p, losses, dx, dw);
    check_differences(&check, "dx", p.x, 12, 100, loss, &p, dx);
    check_differences(&check, "dw", p.w, 20, 100, loss, &p, dw);
    check_end(&check);
}

static void test_bf16(void **state) {
    (void)state;
    for (uint64_t s = 0; s < SHAPES; s++) run(820 + s, shapes[s], VL_BF16);
}

// Logits of some hundred: no overflow, and the loss of a certain row is 0.
static void test_large_logits(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 830, 2);
    double values[] = {300, -300, 120};
    int64_t indices[] = {0};
    double one[] = {1};
    VlTensor x = check_upload(&check, one, VL_F32, 1, 1), w = check_upload(&check, values, VL_F32, 3, 1);
    VlTensor losses = check_output(&check, VL_F32, 1), dw = check_device(&check, VL_F32, 3, 1);
    VlTensor targets = check_upload_i64(&check, indices, 1);
    check_ok(&check, vl_linear_cross_entropy(check.context, losses, VL_EMPTY, dw, x, w, targets, 1));
    assert_true(check_download(&check, losses)[0] == 0);
    for (int i = 0; i < 3; i++) assert_true(check_download(&check, dw)[i] == 0);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    for (int type = 0; type < 2; type++) {
        VlDtype dtype = type ? VL_BF16 : VL_F32;
        Check checks[2];
        VlTensor losses[2], dx[2], dw[2];
        for (int t = 0; t < 2; t++) {
            check_begin(&checks[t], 840, 1 + 2 * t);
            static const int64_t shape[] = {600, 40, 1100};
            Problem p = make_problem(&checks[t], shape, dtype);
            VlTensor x = check_upload(&checks[t], p.x, dtype, 600, 40),
                     w = check_upload(&checks[t], p.w, dtype, 1100, 40);
            VlTensor targets = check_upload_i64(&checks[t], p.targets, 600);
            losses[t] = check_output(&checks[t], VL_F32, 600);
            dx[t] = check_output(&checks[t], dtype, 600, 40);
            dw[t] = check_device(&checks[t], VL_F32, 1100, 40);
            check_ok(&checks[t], vl_linear_cross_entropy(checks[t].context, losses[t], dx[t], dw[t], x, w, targets, 1));
        }
        check_same_bits(&checks[0], "losses", losses[0], &checks[1], losses[1]);
        check_same_bits(&checks[0], "dx", dx[0], &checks[1], dx[1]);
        check_same_bits(&checks[0], "dw", dw[0], &checks[1], dw[1]);
        check_end(&checks[0]);
        check_end(&checks[1]);
    }
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 850, 1);
    Problem p = make_problem(&check, shapes[0], VL_F32);
    VlTensor x = check_upload(&check, p.x, VL_F32, 3, 4), w = check_upload(&check, p.w, VL_F32, 5, 4);
    VlTensor losses = check_output(&check, VL_F32, 3), none = VL_EMPTY;
    VlContext *context = check.context;
    int64_t wrong[][3] = {{0, 5, 1}, {0, 1, -1}};
    static const char *const texts[] = {"targets[1] is 5", "targets[2] is -1"};
    for (int i = 0; i < 2; i++) {
        VlTensor targets = check_upload_i64(&check, wrong[i], 3);
        check_refused(vl_linear_cross_entropy(context, losses, none, none, x, w, targets, 1), VL_INVALID, texts[i]);
    }
    VlTensor targets = check_upload_i64(&check, p.targets, 3);
    check_refused(vl_linear_cross_entropy(context, losses, none, x, x, w, targets, 1), VL_INVALID, "dw is [3,4] f32");
    check_refused(vl_linear_cross_entropy(context, losses, x, none, x, w, targets, 1), VL_INVALID, "overlap");
    check_refused(vl_linear_cross_entropy(context, losses, none, none, x, w, vl_rows(targets, 0, 2), 1), VL_INVALID,
                  "targets is [2] i64");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_cross_entropy_gradient),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_large_logits),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
