// biased_attention against f64, from the formula: p = softmax(q k^T / sqrt(D) + gate * bias[distance]), o = p v.
#include <math.h>

#include "tests/ops/output.h"

enum { MOST_SEQUENCES = 4, MOST_KEYS = 512 };

typedef struct Case {
    int64_t sequences, heads, head_size, reach;  // reach: L - 1
    int64_t length[MOST_SEQUENCES];
} Case;

static const Case cases[] = {
    {3, 2, 8, 9, {5, 1, 7}},              // the one for central differences: small
    {2, 3, 64, 199, {200, 90}},           // several blocks of queries and of keys; the longest is as long as can be
    {3, 2, 24, 300, {130, 0, 66}},        // a head size that is no multiple of 16
    {1, 1, 5, 64, {65}},                  // odd
    {4, 4, 16, 16, {16, 15, 17, 2}},      // whole tiles, one less, one more
    {4, 1, 40, 128, {127, 128, 129, 0}},  // the same of the GPU's kernels
    {3, 2, 72, 70, {63, 64, 65}},
    {2, 1, 12, 40, {32, 33}},
};
enum { CASES = sizeof cases / sizeof *cases };

typedef struct Problem {
    const Case *c;
    int64_t rows, columns;
    VlDtype rounding;
    double *q, *k, *v, *d_o, *bias, *gate;
    double *o, *dq, *dk, *dv, *dbias, *dgate;  // by reference()
} Problem;

static void one_query(const Problem *p, int64_t first, int64_t length, int64_t i, int64_t head) {
    int64_t size = p->c->head_size, distances = 2 * p->c->reach + 1;
    double probability[MOST_KEYS], total = 0, most = -INFINITY, scale = 1 / sqrt((double)size), delta = 0;
    int64_t at = (first + i) * p->columns + head * size, row = (first + i) * p->c->heads + head;
    const double *bias = p->bias + head * distances + p->c->reach;
    for (int64_t j = 0; j < length; j++) {
        int64_t key = (first + j) * p->columns + head * size;
        probability[j] =
            check_rounded(scale * check_dot(p->q + at, p->k + key, size) + p->gate[row] * bias[i - j], p->rounding);
        if (probability[j] > most) most = probability[j];
    }
    for (int64_t j = 0; j < length; j++) total += probability[j] = exp(probability[j] - most);
    for (int64_t j = 0; j < length; j++) {
        probability[j] = check_rounded(probability[j] / total, p->rounding);
        for (int64_t d = 0; d < size; d++) {
            p->o[at + d] += probability[j] * p->v[(first + j) * p->columns + head * size + d];
        }
    }
    check_round(p->o + at, size, p->rounding);
    for (int64_t d = 0; d < size; d++) delta += p->d_o[at + d] * p->o[at + d];
    for (int64_t j = 0; j < length; j++) {
        int64_t key = (first + j) * p->columns + head * size;
        double dp = check_rounded(check_dot(p->d_o + at, p->v + key, size), p->rounding);
        double ds = check_rounded(probability[j] * (dp - delta), p->rounding);
        p->dgate[row] += ds * bias[i - j];
        p->dbias[head * distances + p->c->reach + i - j] += ds * p->gate[row];
        for (int64_t d = 0; d < size; d++) {
            p->dq[at + d] += scale * ds * p->k[key + d];
            p->dk[key + d] += scale * ds * p->q[at + d];
            p->dv[key + d] += probability[j] * p->d_o[at + d];
        }
    }
}

static void reference(Problem *p, VlDtype rounding) {
    int64_t values = p->rows * p->columns, first = 0;
    p->rounding = rounding;
    for (int64_t i = 0; i < values; i++) p->o[i] = p->dq[i] = p->dk[i] = p->dv[i] = 0;
    for (int64_t i = 0; i < p->c->heads * (2 * p->c->reach + 1); i++) p->dbias[i] = 0;
    for (int64_t i = 0; i < p->rows * p->c->heads; i++) p->dgate[i] = 0;
    for (int64_t s = 0; s < p->c->sequences; first += p->c->length[s++]) {
        for (int64_t i = 0; i < p->c->length[s]; i++) {
            for (int64_t head = 0; head < p->c->heads; head++) one_query(p, first, p->c->length[s], i, head);
        }
    }
    check_round(p->dq, values, rounding);
    check_round(p->dk, values, rounding);
    check_round(p->dv, values, rounding);
}

static double loss(void *problem) {
    Problem *p = problem;
    reference(p, VL_F64);
    return check_dot(p->o, p->d_o, p->rows * p->columns);
}

static Problem problem_make(Check *check, const Case *c, VlDtype dtype) {
    Problem p = {.c = c, .columns = c->heads * c->head_size};
    for (int64_t s = 0; s < c->sequences; s++) p.rows += c->length[s];
    int64_t values = p.rows * p.columns, biases = c->heads * (2 * c->reach + 1), gates = p.rows * c->heads;
    VlDtype exact = dtype == VL_F64 ? VL_F64 : VL_F32;
    p.q = check_random(check, values, 1.5, dtype);
    p.k = check_random(check, values, 1.5, dtype);
    p.v = check_random(check, values, 1, dtype);
    p.d_o = check_random(check, values, 1, dtype);
    p.bias = check_random(check, biases, 1, exact);
    p.gate = check_random(check, gates, 1, exact);
    p.o = check_zeros(check, values);
    p.dq = check_zeros(check, values);
    p.dk = check_zeros(check, values);
    p.dv = check_zeros(check, values);
    p.dbias = check_zeros(check, biases);
    p.dgate = check_zeros(check, gates);
    return p;
}

enum { O, DQ, DK, DV, DBIAS, DGATE, OUTPUTS };
typedef struct Run {
    Check check;
    Problem problem;
    Output out[OUTPUTS];
} Run;

static void run_begin(Run *run, const Case *c, VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 90, threads);
    Problem p = run->problem = problem_make(check, c, dtype);
    int64_t offsets[MOST_SEQUENCES + 1] = {0};
    for (int64_t s = 0; s < c->sequences; s++) offsets[s + 1] = offsets[s] + c->length[s];
    VlTensor cu = check_upload_i64(check, offsets, c->sequences + 1);
    VlTensor q = check_upload(check, p.q, dtype, p.rows, p.columns);
    VlTensor k = check_upload(check, p.k, dtype, p.rows, p.columns);
    VlTensor v = check_upload(check, p.v, dtype, p.rows, p.columns);
    VlTensor d_o = check_upload(check, p.d_o, dtype, p.rows, p.columns);
    VlTensor bias = check_upload(check, p.bias, VL_F32, c->heads, 2 * c->reach + 1);
    VlTensor gate = check_upload(check, p.gate, VL_F32, p.rows, c->heads);
    VlTensor lse = check_output(check, VL_F32, c->heads, p.rows), *none = &(VlTensor){0};
    for (int i = O; i <= DV; i++) run->out[i] = output_make(check, q, VL_WRITE);
    run->out[DBIAS] = output_make(check, bias, VL_ADD);
    run->out[DGATE] = output_make(check, gate, VL_WRITE);
    VlTensor o = run->out[O].tensor;
    check_ok(check, vl_biased_attention_forward(check->context, o, lse, q, k, v, bias, gate, cu, c->heads));
    check_ok(check, vl_biased_attention_backward(check->context, run->out[DQ].tensor, run->out[DK].tensor,
                                                 run->out[DV].tensor, run->out[DBIAS].tensor, run->out[DGATE].tensor,
                                                 d_o, q, k, v, o, lse, bias, gate, cu, c->heads));
    VlTensor dgate = output_make(check, gate, VL_WRITE).tensor;
    check_ok(check, vl_biased_attention_backward(check->context, *none, *none, *none, *none, dgate, d_o, q, k, v, o,
                                                 lse, bias, gate, cu, c->heads));
    check_same_bits(check, "dgate alone", dgate, check, run->out[DGATE].tensor);
}

static void verify(const Case *c, VlDtype dtype) {
    static const char *const names[OUTPUTS] = {"o", "dq", "dk", "dv", "dbias", "dgate"};
    Run run;
    run_begin(&run, c, dtype, 2);
    Check *check = &run.check;
    Problem exact = run.problem, naive = problem_make(check, c, dtype);
    naive.q = exact.q, naive.k = exact.k, naive.v = exact.v, naive.d_o = exact.d_o;
    naive.bias = exact.bias, naive.gate = exact.gate;
    reference(&exact, VL_F64);
    reference(&naive, dtype);
    const double *want[] = {exact.o, exact.dq, exact.dk, exact.dv}, *rough[] = {naive.o, naive.dq, naive.dk, naive.dv};
    for (int i = O; i <= DV; i++) output_check(check, names[i], run.out[i], want[i], rough[i]);
    // In bf16, o is rounded before delta is taken from it: f32 outputs feel that too.
    double tolerance = dtype == VL_BF16 ? 1e-2 : 1e-5;
    int64_t biases = vl_elements(run.out[DBIAS].tensor);
    for (int64_t i = 0; i < biases; i++) exact.dbias[i] += run.out[DBIAS].start[i];
    check_tensor(check, names[DBIAS], run.out[DBIAS].tensor, exact.dbias, tolerance);
    check_tensor(check, names[DGATE], run.out[DGATE].tensor, exact.dgate, tolerance);
    check_end(check);
}

static void test_biased_attention_gradient(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        verify(&cases[i], VL_F32);
        verify(&cases[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 91, 1);
    Problem p = problem_make(&check, &cases[0], VL_F64);
    int64_t values = p.rows * p.columns, biases = 2 * 19, gates = p.rows * 2;
    reference(&p, VL_F64);
    double *dq = check_copy(&check, p.dq, values), *dk = check_copy(&check, p.dk, values);
    double *dv = check_copy(&check, p.dv, values), *dbias = check_copy(&check, p.dbias, biases);
    double *dgate = check_copy(&check, p.dgate, gates);
    check_differences(&check, "dq", p.q, values, 40, loss, &p, dq);
    check_differences(&check, "dk", p.k, values, 40, loss, &p, dk);
    check_differences(&check, "dv", p.v, values, 40, loss, &p, dv);
    check_differences(&check, "dbias", p.bias, biases, 40, loss, &p, dbias);
    check_differences(&check, "dgate", p.gate, gates, 40, loss, &p, dgate);
    check_end(&check);
}

static void test_threads(void **state) {
    (void)state;
    for (int i = 1; i < CASES; i++) {
        Run one, more;
        run_begin(&one, &cases[i], VL_F32, 1);
        run_begin(&more, &cases[i], VL_F32, 3);
        outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
        check_end(&more.check);
        check_end(&one.check);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const int64_t offsets[] = {0, 2, 6};
    Check check;
    check_begin(&check, 92, 1);
    VlContext *c = check.context;
    VlTensor q = check_device(&check, VL_F32, 6, 8), o = check_device(&check, VL_F32, 6, 8);
    VlTensor bias = check_device(&check, VL_F32, 2, 7), narrow = check_device(&check, VL_F32, 2, 5);
    VlTensor even = check_device(&check, VL_F32, 2, 8), gate = check_device(&check, VL_F32, 6, 2);
    VlTensor cu = check_upload_i64(&check, offsets, 3), flat = check_device(&check, VL_F32, 12);
    check_ok(&check, vl_biased_attention_forward(c, o, VL_EMPTY, q, q, q, bias, gate, cu, 2));
    check_refused(vl_biased_attention_forward(c, o, VL_EMPTY, q, q, q, narrow, gate, cu, 2), VL_INVALID,
                  "sequence 1 has 4 rows, bias [2,5] f32 serves 3 at most");
    check_refused(vl_biased_attention_forward(c, o, VL_EMPTY, q, q, q, even, gate, cu, 2), VL_INVALID, "odd number");
    check_refused(vl_biased_attention_forward(c, o, VL_EMPTY, q, q, q, bias, flat, cu, 2), VL_INVALID, "gate is [12]");
    check_refused(vl_biased_attention_forward(c, q, VL_EMPTY, q, q, q, bias, gate, cu, 2), VL_INVALID, "overlap");
    check_refused(vl_biased_attention_backward(c, o, VL_EMPTY, VL_EMPTY, narrow, VL_EMPTY, q, q, q, q, q,
                                               check_device(&check, VL_F32, 2, 6), bias, gate, cu, 2),
                  VL_INVALID, "dbias is [2,5] f32");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_biased_attention_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
