// route against its definition: the choice by sorting, the weights from softmax over all experts.
#include <math.h>

#include "tests/ops/output.h"

typedef struct Problem {
    int64_t tokens, experts, chosen;
    double *logits, *dweights;
    int64_t *choice;            // by choose()
    double *weights, *dlogits;  // by reference()
} Problem;

static void choose(Problem *p) {
    for (int64_t t = 0; t < p->tokens; t++) {
        const double *logits = p->logits + t * p->experts;
        int64_t *choice = p->choice + t * p->chosen;
        for (int64_t e = 0; e < p->experts; e++) {
            int64_t before = 0;
            for (int64_t o = 0; o < p->experts; o++)
                before += logits[o] > logits[e] || (logits[o] == logits[e] && o < e);
            if (before < p->chosen) choice[before] = e;
        }
    }
}

static void reference(Problem *p, VlDtype type) {
    for (int64_t t = 0; t < p->tokens; t++) {
        const double *logits = p->logits + t * p->experts, *dweights = p->dweights + t * p->chosen;
        const int64_t *choice = p->choice + t * p->chosen;
        double *weights = p->weights + t * p->chosen, *dlogits = p->dlogits + t * p->experts;
        double all = 0, sum = 0;
        for (int64_t e = 0; e < p->experts; e++) all += exp(logits[e]);
        for (int64_t s = 0; s < p->chosen; s++) sum += exp(logits[choice[s]]) / all;
        for (int64_t s = 0; s < p->chosen; s++) weights[s] = exp(logits[choice[s]]) / all / sum;
        for (int64_t e = 0; e < p->experts; e++) dlogits[e] = 0;
        for (int64_t s = 0; s < p->chosen; s++) {
            for (int64_t o = 0; o < p->chosen; o++) {
                dlogits[choice[s]] += dweights[o] * weights[o] * ((double)(s == o) - weights[s]);
            }
        }
    }
    check_round(p->dlogits, p->tokens * p->experts, type);
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->weights, p->dweights, p->tokens * p->chosen);
}

// shape: T, E, S.
static Problem problem_make(Check *check, const int64_t shape[3], VlDtype dtype) {
    Problem p = {.tokens = shape[0],
                 .experts = shape[1],
                 .chosen = shape[2],
                 .logits = check_random(check, shape[0] * shape[1], 2.0, dtype),
                 .dweights = check_random(check, shape[0] * shape[2], 1.0, VL_F32),
                 .choice = check_random_indices(check, shape[0] * shape[2], 1),
                 .weights = check_zeros(check, shape[0] * shape[2]),
                 .dlogits = check_zeros(check, shape[0] * shape[1])};
    choose(&p);
    return p;
}

enum { WEIGHTS, DLOGITS, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    VlTensor experts;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const int64_t shape[3], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 91, threads);
    Problem p = run->problem = problem_make(check, shape, dtype);
    VlTensor logits = check_upload(check, p.logits, dtype, p.tokens, p.experts);
    VlTensor dweights = check_upload(check, p.dweights, VL_F32, p.tokens, p.chosen);
    run->experts = check_device(check, VL_I64, p.tokens, p.chosen);
    run->out[WEIGHTS] = output_make(check, dweights, VL_WRITE);
    run->out[DLOGITS] = output_make(check, logits, VL_WRITE);
    VlTensor weights = run->out[WEIGHTS].tensor;
    check_ok(check, vl_route_forward(check->context, weights, run->experts, logits));
    check_ok(check, vl_route_backward(check->context, run->out[DLOGITS].tensor, dweights, weights, run->experts));
    check_ok(check, vl_route_backward(check->context, VL_EMPTY, dweights, weights, run->experts));
}

static void verify(const int64_t shape[3], VlDtype dtype) {
    Run run;
    run_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, shape, dtype);
    naive.logits = exact.logits, naive.dweights = exact.dweights, naive.choice = exact.choice;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    check_index_tensor(check, "experts", run.experts, exact.choice);
    output_check(check, "weights", run.out[WEIGHTS], exact.weights, naive.weights);
    output_check(check, "dlogits", run.out[DLOGITS], exact.dlogits, naive.dlogits);
    check_end(check);
}

static void test_route_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1}, {5, 8, 2},  {33, 3, 3},    {300, 64, 6},
                                        {0, 8, 2}, {7, 40, 1}, {3, 100, 100}, {2500, 8, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        verify(shapes[i], VL_F32);
        verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 92, 1);
    Problem p = problem_make(&check, shapes[1], VL_F64);
    reference(&p, VL_F64);
    check_differences(&check, "dlogits", p.logits, 40, 40, loss, &p, check_copy(&check, p.dlogits, 40));
    check_end(&check);
}

// Of equals the lower index; nothing overflows; a logit that is no number is chosen, so that the loss is none either.
static void test_special(void **state) {
    (void)state;
    enum { ROWS = 6 };
    static const double logits[ROWS * 4] = {1,         3,         3,    2,          //
                                            0,         0,         0,    0,          //
                                            -1e4,      1e4,       -1e4, 9e3,        //
                                            -INFINITY, -INFINITY, 5,    -INFINITY,  //
                                            1,         NAN,       2,    3,          //
                                            NAN,       INFINITY,  NAN,  7};
    static const int64_t want[ROWS * 2] = {1, 2, 0, 1, 1, 3, 2, 0, 1, 3, 0, 1};
    static const double weights[4 * 2] = {0.5, 0.5, 0.5, 0.5, 1, 0, 1, 0};
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Check check;
        check_begin(&check, 93, 1);
        VlTensor experts = check_device(&check, VL_I64, ROWS, 2), got = check_output(&check, VL_F32, ROWS, 2);
        check_ok(&check,
                 vl_route_forward(check.context, got, experts, check_upload(&check, logits, dtypes[i], ROWS, 4)));
        check_index_tensor(&check, "experts", experts, want);
        check_tensor(&check, "weights", vl_rows(got, 0, 4), weights, 1e-7);
        const double *rest = check_download(&check, vl_rows(got, 4, 2));
        for (int w = 0; w < 4; w++) assert_true(isnan(rest[w]));
        check_end(&check);
    }
}

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[3] = {4000, 8, 2};
    static const VlDtype dtypes[] = {VL_F32, VL_BF16};
    for (int i = 0; i < 2; i++) {
        Run one, more;
        run_begin(&one, shape, dtypes[i], 1);
        run_begin(&more, shape, dtypes[i], 3);
        outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
        check_end(&more.check);
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const int64_t above[] = {0, 3, 5, 1, 2, 0};
    Check check;
    check_begin(&check, 94, 1);
    VlContext *c = check.context;
    VlTensor logits = check_device(&check, VL_F32, 3, 5), weights = check_device(&check, VL_F32, 3, 2);
    VlTensor experts = check_device(&check, VL_I64, 3, 2), dweights = check_device(&check, VL_F32, 3, 2);
    VlTensor many = check_device(&check, VL_F32, 3, 6), names = check_device(&check, VL_I64, 3, 6);
    check_refused(vl_route_forward(c, many, names, logits), VL_INVALID,
                  "route_forward: weights are [3,6] f32, a token has at least one expert and at most the 5");
    check_refused(vl_route_forward(c, vl_tensor(NULL, VL_F32, 3, 0), vl_tensor(NULL, VL_I64, 3, 0), logits), VL_INVALID,
                  "at least one expert");
    check_refused(vl_route_forward(c, weights, names, logits), VL_INVALID, "experts is [3,6] i64, it must be [3,2]");
    check_refused(vl_route_forward(c, check_device(&check, VL_BF16, 3, 2), experts, logits), VL_INVALID,
                  "weights is [3,2] bf16, it must be [3,any] f32");
    check_refused(vl_route_forward(c, vl_tensor(logits.data, VL_F32, 3, 2), experts, logits), VL_INVALID, "overlap");
    check_refused(vl_route_forward(c, vl_tensor(experts.data, VL_F32, 3, 2), experts, logits), VL_INVALID, "overlap");
    check_refused(vl_route_backward(c, logits, dweights, weights, vl_reshape(check_upload_i64(&check, above, 6), 3, 2)),
                  VL_INVALID, "route_backward: experts[2] is 5, it must be in [0, 5)");
    check_refused(vl_route_backward(c, logits, dweights, many, experts), VL_INVALID, "weights is [3,6] f32");
    check_refused(vl_route_backward(c, vl_tensor(weights.data, VL_F32, 3, 2), dweights, weights, experts), VL_INVALID,
                  "overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_gradient),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
