// relative_bias and relative_gate against their definitions.
#include <math.h>
#include <stdlib.h>

#include "tests/ops/output.h"

// ---- relative_bias ---------------------------------------------------------

static int64_t bucket_of(int64_t distance, int64_t buckets, int64_t max_distance) {
    int64_t half = buckets / 2, exact = half / 2, start = distance > 0 ? half : 0, size = llabs(distance);
    if (size < exact) return start + size;
    double grown = log((double)size / (double)exact) / log((double)max_distance / (double)exact);
    int64_t far = exact + (int64_t)floor(grown * (double)(half - exact) + 1e-6);  // ratios that are whole stay whole
    return start + (far < half - 1 ? far : half - 1);
}

typedef struct BiasProblem {
    int64_t heads, buckets, most, reach;
    double *table, *dbias, *bias, *dtable;
} BiasProblem;

static void bias_reference(BiasProblem *p) {
    int64_t columns = 2 * p->reach + 1;
    for (int64_t i = 0; i < p->buckets * p->heads; i++) p->dtable[i] = 0;
    for (int64_t head = 0; head < p->heads; head++) {
        for (int64_t distance = -p->reach; distance <= p->reach; distance++) {
            int64_t at = head * columns + p->reach - distance;
            int64_t row = bucket_of(distance, p->buckets, p->most) * p->heads + head;
            p->bias[at] = p->table[row];
            p->dtable[row] += p->dbias[at];
        }
    }
}

static double bias_loss(void *problem) {
    BiasProblem *p = problem;
    bias_reference(p);
    return check_dot(p->bias, p->dbias, p->heads * (2 * p->reach + 1));
}

// shape: H, buckets, max_distance, L - 1.
static BiasProblem bias_make(Check *check, const int64_t shape[4], VlDtype dtype) {
    int64_t rows = shape[1] * shape[0], columns = shape[0] * (2 * shape[3] + 1);
    return (BiasProblem){.heads = shape[0],
                         .buckets = shape[1],
                         .most = shape[2],
                         .reach = shape[3],
                         .table = check_random(check, rows, 1, dtype),
                         .dbias = check_random(check, columns, 1, dtype == VL_F64 ? VL_F64 : VL_F32),
                         .bias = check_zeros(check, columns),
                         .dtable = check_zeros(check, rows)};
}

static void bias_verify(const int64_t shape[4], VlDtype dtype) {
    Check check;
    check_begin(&check, 93, 2);
    BiasProblem p = bias_make(&check, shape, dtype);
    bias_reference(&p);
    VlTensor table = check_upload(&check, p.table, dtype, p.buckets, p.heads);
    VlTensor dbias = check_upload(&check, p.dbias, VL_F32, p.heads, 2 * p.reach + 1);
    Output bias = output_make(&check, dbias, VL_WRITE);
    Output dtable = output_make(&check, vl_tensor(NULL, VL_F32, p.buckets, p.heads), VL_ADD);
    check_ok(&check, vl_relative_bias_forward(check.context, bias.tensor, table, p.most));
    check_ok(&check, vl_relative_bias_backward(check.context, dtable.tensor, dbias, p.most));
    check_tensor(&check, "bias", bias.tensor, p.bias, 0);
    output_check(&check, "dtable", dtable, p.dtable, p.dtable);
    check_end(&check);
}

static void test_relative_bias_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {{1, 4, 2, 0}, {3, 32, 20, 9}, {2, 16, 30, 100}, {12, 320, 800, 1495}};
    for (int i = 0; i < 4; i++) {
        bias_verify(shapes[i], VL_F32);
        bias_verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 94, 1);
    BiasProblem p = bias_make(&check, shapes[2], VL_F64);
    bias_reference(&p);
    check_differences(&check, "dtable", p.table, 32, 32, bias_loss, &p, check_copy(&check, p.dtable, 32));
    check_end(&check);
}

// ---- relative_gate ---------------------------------------------------------

typedef struct GateProblem {
    int64_t rows, heads, size, projected;
    double *q, *w, *bias, *scale, *dgate;
    double *gate, *dq, *dw, *dbias, *dscale;  // by gate_reference()
} GateProblem;

static void one_gate(GateProblem *p, int64_t row) {
    int64_t head = row % p->heads, half = p->projected / 2;
    const double *q = p->q + row * p->size;
    double sum[2] = {0}, d = p->dgate[row];
    for (int64_t n = 0; n < p->projected; n++) {
        sum[n / half] += check_dot(q, p->w + n * p->size, p->size) + p->bias[n];
    }
    double a = 1 / (1 + exp(-sum[0])), b = 1 / (1 + exp(-sum[1])), scale = p->scale[head];
    p->gate[row] = a * (b * scale - 1) + 2;
    double slope[2] = {d * (b * scale - 1) * a * (1 - a), d * a * scale * b * (1 - b)};
    p->dscale[head] += d * a * b;
    for (int64_t n = 0; n < p->projected; n++) {
        p->dbias[n] += slope[n / half];
        for (int64_t i = 0; i < p->size; i++) {
            p->dw[n * p->size + i] += slope[n / half] * q[i];
            p->dq[row * p->size + i] += slope[n / half] * p->w[n * p->size + i];
        }
    }
}

static void gate_reference(GateProblem *p, VlDtype type) {
    for (int64_t i = 0; i < p->rows * p->heads * p->size; i++) p->dq[i] = 0;
    for (int64_t i = 0; i < p->projected * p->size; i++) p->dw[i] = 0;
    for (int64_t i = 0; i < p->projected; i++) p->dbias[i] = 0;
    for (int64_t i = 0; i < p->heads; i++) p->dscale[i] = 0;
    for (int64_t row = 0; row < p->rows * p->heads; row++) one_gate(p, row);
    check_round(p->dq, p->rows * p->heads * p->size, type);
}

static double gate_loss(void *problem) {
    GateProblem *p = problem;
    gate_reference(p, VL_F64);
    return check_dot(p->gate, p->dgate, p->rows * p->heads);
}

// shape: T, H, D, 2N.
static GateProblem gate_make(Check *check, const int64_t shape[4], VlDtype dtype) {
    int64_t values = shape[0] * shape[1] * shape[2], weights = shape[3] * shape[2], gates = shape[0] * shape[1];
    return (GateProblem){.rows = shape[0],
                         .heads = shape[1],
                         .size = shape[2],
                         .projected = shape[3],
                         .q = check_random(check, values, 1, dtype),
                         .w = check_random(check, weights, 0.3, dtype),
                         .bias = check_random(check, shape[3], 1, dtype),
                         .scale = check_random(check, shape[1], 1, dtype),
                         .dgate = check_random(check, gates, 1, dtype == VL_F64 ? VL_F64 : VL_F32),
                         .gate = check_zeros(check, gates),
                         .dq = check_zeros(check, values),
                         .dw = check_zeros(check, weights),
                         .dbias = check_zeros(check, shape[3]),
                         .dscale = check_zeros(check, shape[1])};
}

enum { GATE, DQ, DQ_ADDED, DW, DBIAS, DSCALE, OUTPUTS };
typedef struct Run {
    Check check;
    GateProblem problem;
    Output out[OUTPUTS];
} Run;

static void gate_begin(Run *run, const int64_t shape[4], VlDtype dtype, int64_t threads) {
    Check *check = &run->check;
    check_begin(check, 95, threads);
    GateProblem p = run->problem = gate_make(check, shape, dtype);
    VlContext *c = check->context;
    VlTensor q = check_upload(check, p.q, dtype, p.rows, p.heads * p.size);
    VlTensor w = check_upload(check, p.w, dtype, p.projected, p.size);
    VlTensor bias = check_upload(check, p.bias, dtype, p.projected);
    VlTensor scale = check_upload(check, p.scale, dtype, p.heads);
    VlTensor dgate = check_upload(check, p.dgate, VL_F32, p.rows, p.heads);
    run->out[GATE] = output_make(check, dgate, VL_WRITE);
    run->out[DQ] = output_make(check, q, VL_WRITE);
    run->out[DQ_ADDED] = output_make(check, q, VL_ADD);
    run->out[DW] = output_make(check, vl_tensor(NULL, VL_F32, p.projected, p.size), VL_ADD);
    run->out[DBIAS] = output_make(check, vl_tensor(NULL, VL_F32, p.projected), VL_ADD);
    run->out[DSCALE] = output_make(check, vl_tensor(NULL, VL_F32, p.heads), VL_ADD);
    check_ok(check, vl_relative_gate_forward(c, run->out[GATE].tensor, q, w, bias, scale));
    check_ok(check, vl_relative_gate_backward(c, run->out[DQ].tensor, VL_EMPTY, VL_EMPTY, VL_EMPTY, dgate, q, w, bias,
                                              scale, VL_WRITE));
    check_ok(check, vl_relative_gate_backward(c, run->out[DQ_ADDED].tensor, run->out[DW].tensor, run->out[DBIAS].tensor,
                                              run->out[DSCALE].tensor, dgate, q, w, bias, scale, VL_ADD));
}

static void gate_verify(const int64_t shape[4], VlDtype dtype) {
    Run run;
    gate_begin(&run, shape, dtype, 2);
    Check *check = &run.check;
    GateProblem exact = run.problem, naive = gate_make(check, shape, dtype);
    naive.q = exact.q, naive.w = exact.w, naive.bias = exact.bias, naive.scale = exact.scale, naive.dgate = exact.dgate;
    gate_reference(&exact, VL_F64);
    gate_reference(&naive, dtype);
    output_check(check, "gate", run.out[GATE], exact.gate, exact.gate);
    output_check(check, "dq", run.out[DQ], exact.dq, naive.dq);
    output_check(check, "dq added", run.out[DQ_ADDED], exact.dq, naive.dq);
    output_check(check, "dw", run.out[DW], exact.dw, exact.dw);
    output_check(check, "dbias", run.out[DBIAS], exact.dbias, exact.dbias);
    output_check(check, "dscale", run.out[DSCALE], exact.dscale, exact.dscale);
    check_end(check);
}

static void test_relative_gate_gradient(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {{1, 1, 1, 2}, {5, 2, 8, 8}, {33, 3, 5, 4}, {300, 12, 64, 8}, {0, 2, 4, 8}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        gate_verify(shapes[i], VL_F32);
        gate_verify(shapes[i], VL_BF16);
    }
    Check check;
    check_begin(&check, 96, 1);
    GateProblem p = gate_make(&check, shapes[1], VL_F64);
    gate_reference(&p, VL_F64);
    double *dq = check_copy(&check, p.dq, 80), *dw = check_copy(&check, p.dw, 64);
    double *dbias = check_copy(&check, p.dbias, 8), *dscale = check_copy(&check, p.dscale, 2);
    check_differences(&check, "dq", p.q, 80, 40, gate_loss, &p, dq);
    check_differences(&check, "dw", p.w, 64, 40, gate_loss, &p, dw);
    check_differences(&check, "dbias", p.bias, 8, 8, gate_loss, &p, dbias);
    check_differences(&check, "dscale", p.scale, 2, 2, gate_loss, &p, dscale);
    check_end(&check);
}

// ---- Both ------------------------------------------------------------------

static void test_threads(void **state) {
    (void)state;
    static const int64_t shape[4] = {1000, 4, 32, 8};
    Run one, more;
    gate_begin(&one, shape, VL_BF16, 1);
    gate_begin(&more, shape, VL_BF16, 3);
    outputs_same(&one.check, one.out, &more.check, more.out, OUTPUTS);
    check_end(&more.check);
    check_end(&one.check);
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 97, 1);
    VlContext *c = check.context;
    VlTensor table = check_device(&check, VL_F32, 8, 2), odd = check_device(&check, VL_F32, 6, 2);
    VlTensor bias = check_device(&check, VL_F32, 2, 5), even = check_device(&check, VL_F32, 2, 4);
    check_refused(vl_relative_bias_forward(c, even, table, 20), VL_INVALID, "bias is [2,4] f32, it must have an odd");
    check_refused(vl_relative_bias_forward(c, bias, odd, 20), VL_INVALID, "table is [6,2] f32, its rows");
    check_refused(vl_relative_bias_forward(c, bias, table, 2), VL_INVALID, "max_distance is 2, with 8 buckets");
    check_refused(vl_relative_bias_backward(c, table, even, 20), VL_INVALID, "dbias is [2,4] f32");
    VlTensor q = check_device(&check, VL_F32, 3, 8), w = check_device(&check, VL_F32, 8, 4);
    VlTensor b = check_device(&check, VL_F32, 8), scale = check_device(&check, VL_F32, 2);
    VlTensor gate = check_device(&check, VL_F32, 3, 2), three = check_device(&check, VL_F32, 3);
    check_refused(vl_relative_gate_forward(c, gate, q, check_device(&check, VL_F32, 8, 3), b, scale), VL_INVALID,
                  "w is [8,3] f32, it must have an even number of rows");
    check_refused(vl_relative_gate_forward(c, gate, q, check_device(&check, VL_F32, 7, 4), b, scale), VL_INVALID,
                  "even number");
    check_refused(vl_relative_gate_forward(c, gate, q, w, b, three), VL_INVALID, "scale is [3] f32");
    check_refused(vl_relative_gate_forward(c, q, q, w, b, scale), VL_INVALID, "gate is [3,8] f32");
    check_refused(vl_relative_gate_backward(c, q, VL_EMPTY, VL_EMPTY, VL_EMPTY, gate, q, w, b, scale, VL_WRITE),
                  VL_INVALID, "overlap");
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relative_bias_gradient),
        cmocka_unit_test(test_relative_gate_gradient),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
