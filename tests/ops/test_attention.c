// attention against f64, from the formula: p = softmax(q k^T / sqrt(D)) over the keys that a query sees, o = p v.
#include <math.h>
#include <string.h>

#include "tests/ops/check.h"

enum { MOST_SEQUENCES = 6, MOST_KEYS = 512 };

typedef struct Case {
    int64_t sequences, heads, kv_heads, head_size;
    int64_t queries[MOST_SEQUENCES], keys[MOST_SEQUENCES];
} Case;

static const Case cases[] = {
    {4, 4, 2, 8, {5, 0, 1, 7}, {5, 0, 1, 7}},       // the one for central differences: small
    {2, 6, 2, 64, {200, 90}, {200, 90}},            // several blocks of queries and of keys
    {3, 2, 1, 72, {130, 1, 66}, {130, 1, 66}},      // a head size that is no multiple of 16
    {1, 3, 3, 5, {65}, {65}},                       // odd, no groups
    {4, 4, 1, 16, {3, 1, 4, 0}, {10, 64, 2, 130}},  // other keys than queries; queries that see none
    {1, 8, 2, 64, {1}, {300}},                      // a decoding step
    {2, 5, 1, 33, {0, 0}, {0, 0}},                  // nothing
    {1, 2, 2, 130, {70}, {129}},
    {2, 4, 2, 16, {16, 64}, {16, 64}},  // 32 and 128 rows, none of them padding
    // Whole tiles of the GPU's kernels, one less, one more, with all widths of its tiles.
    {3, 2, 2, 24, {31, 32, 33}, {31, 32, 33}},
    {3, 4, 1, 64, {127, 128, 129}, {127, 128, 129}},
    {3, 8, 1, 80, {33, 63, 1}, {65, 64, 128}},
    {2, 2, 1, 96, {65, 129}, {129, 127}},
    {2, 4, 1, 128, {129, 5}, {129, 257}},
    {1, 2, 1, 256, {33}, {34}},
    {4, 2, 1, 40, {0, 129, 0, 3}, {64, 2, 129, 0}},  // keys without queries; most queries see no key
};
enum { CASES = sizeof cases / sizeof *cases };

typedef struct Problem {
    const Case *c;
    bool causal;
    VlDtype rounding;  // of every intermediate tensor: VL_F64 for none
    int64_t tq, tk, q_columns, k_columns;
    double *q, *k, *v, *d_o, *o, *lse, *dq, *dk, *dv;
} Problem;

static double dot(const double *a, const double *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

static double sum_of(const double *a, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += a[i];
    return sum;
}

// One query of one head against keys [first, first + keys): o and lse; with gradients dq, dk and dv.
static void one_query(const Problem *p, int64_t query, int64_t head, int64_t first, int64_t keys, bool gradients) {
    int64_t size = p->c->head_size, kv_head = head / (p->c->heads / p->c->kv_heads);
    double scale = 1 / sqrt((double)size), probability[MOST_KEYS], ds[MOST_KEYS], most = -INFINITY;
    const double *q = p->q + query * p->q_columns + head * size, *d_o = p->d_o + query * p->q_columns + head * size;
    double *o = p->o + query * p->q_columns + head * size, *dq = p->dq + query * p->q_columns + head * size;
    for (int64_t j = 0; j < keys; j++) {
        probability[j] = scale * dot(q, p->k + (first + j) * p->k_columns + kv_head * size, size);
        probability[j] = check_rounded(probability[j], p->rounding);
        if (probability[j] > most) most = probability[j];
    }
    for (int64_t j = 0; j < keys; j++) probability[j] = exp(probability[j] - most);
    double total = sum_of(probability, keys);
    p->lse[head * p->tq + query] = most + log(total);
    for (int64_t j = 0; j < keys; j++) probability[j] = check_rounded(probability[j] / total, p->rounding);
    for (int64_t d = 0; d < size; d++) {
        o[d] = 0;
        for (int64_t j = 0; j < keys; j++) {
            o[d] += probability[j] * p->v[(first + j) * p->k_columns + kv_head * size + d];
        }
        o[d] = check_rounded(o[d], p->rounding);
    }
    if (!gradients) return;
    double delta = dot(d_o, o, size);
    for (int64_t j = 0; j < keys; j++) {
        int64_t at = (first + j) * p->k_columns + kv_head * size;
        double dp = check_rounded(dot(d_o, p->v + at, size), p->rounding);
        ds[j] = check_rounded(probability[j] * (dp - delta), p->rounding);
        for (int64_t d = 0; d < size; d++) {
            p->dv[at + d] += probability[j] * d_o[d];
            p->dk[at + d] += scale * ds[j] * q[d];
            dq[d] += scale * ds[j] * p->k[at + d];
        }
    }
}

static void attend_f64(const Problem *p, bool gradients) {
    int64_t first_query = 0, first_key = 0;
    for (int64_t s = 0; s < p->c->sequences; s++) {
        for (int64_t i = 0; i < p->c->queries[s]; i++) {
            int64_t keys = p->c->keys[s] - (p->causal ? p->c->queries[s] - i - 1 : 0);
            for (int64_t h = 0; h < p->c->heads; h++) {
                one_query(p, first_query + i, h, first_key, keys < 0 ? 0 : keys, gradients);
            }
        }
        first_query += p->c->queries[s];
        first_key += p->c->keys[s];
    }
}

static Problem make_problem(Check *check, const Case *c, bool causal, VlDtype dtype) {
    Problem p = {.c = c, .causal = causal, .rounding = VL_F64};
    for (int64_t s = 0; s < c->sequences; s++) {
        p.tq += c->queries[s];
        p.tk += c->keys[s];
    }
    p.q_columns = c->heads * c->head_size;
    p.k_columns = c->kv_heads * c->head_size;
    p.q = check_random(check, p.tq * p.q_columns, 1.5, dtype);
    p.k = check_random(check, p.tk * p.k_columns, 1.5, dtype);
    p.v = check_random(check, p.tk * p.k_columns, 1, dtype);
    p.d_o = check_random(check, p.tq * p.q_columns, 1, dtype);
    return p;
}

static void make_results(Check *check, Problem *p) {
    p->o = check_zeros(check, p->tq * p->q_columns);
    p->lse = check_zeros(check, p->c->heads * p->tq);
    p->dq = check_zeros(check, p->tq * p->q_columns);
    p->dk = check_zeros(check, p->tk * p->k_columns);
    p->dv = check_zeros(check, p->tk * p->k_columns);
}

typedef struct Tensors {
    VlTensor q, k, v, d_o, o, lse, dq, dk, dv, cu_q, cu_k;
} Tensors;

static Tensors upload(Check *check, const Problem *p, VlDtype dtype) {
    int64_t offsets_q[MOST_SEQUENCES + 1] = {0}, offsets_k[MOST_SEQUENCES + 1] = {0}, sequences = p->c->sequences;
    for (int64_t s = 0; s < sequences; s++) {
        offsets_q[s + 1] = offsets_q[s] + p->c->queries[s];
        offsets_k[s + 1] = offsets_k[s] + p->c->keys[s];
    }
    return (Tensors){.q = check_upload(check, p->q, dtype, p->tq, p->q_columns),
                     .k = check_upload(check, p->k, dtype, p->tk, p->k_columns),
                     .v = check_upload(check, p->v, dtype, p->tk, p->k_columns),
                     .d_o = check_upload(check, p->d_o, dtype, p->tq, p->q_columns),
                     .o = check_output(check, dtype, p->tq, p->q_columns),
                     .lse = check_output(check, VL_F32, p->c->heads, p->tq),
                     .dq = check_output(check, dtype, p->tq, p->q_columns),
                     .dk = check_output(check, dtype, p->tk, p->k_columns),
                     .dv = check_output(check, dtype, p->tk, p->k_columns),
                     .cu_q = check_upload_i64(check, offsets_q, sequences + 1),
                     .cu_k = check_upload_i64(check, offsets_k, sequences + 1)};
}

static void run_forward(const Check *check, const Problem *p, const Tensors *t, VlTensor lse) {
    check_ok(check, vl_attention_forward(check->context, t->o, lse, t->q, t->k, t->v, t->cu_q, t->cu_k, p->c->heads,
                                         p->c->kv_heads, p->causal));
}

static void run_backward(const Check *check, const Problem *p, const Tensors *t) {
    check_ok(check, vl_attention_backward(check->context, t->dq, t->dk, t->dv, t->d_o, t->q, t->k, t->v, t->o, t->lse,
                                          t->cu_q, t->cu_k, p->c->heads, p->c->kv_heads, p->causal));
}

// -INFINITY in both counts as equal.
static void check_lse(Check *check, VlTensor lse, const double *want) {
    double *got = check_download(check, lse), *finite = check_copy(check, want, vl_elements(lse));
    for (int64_t i = 0; i < vl_elements(lse); i++) {
        if (isinf(want[i]) && isinf(got[i]) && want[i] < 0 && got[i] < 0) got[i] = finite[i] = 0;
    }
    check_close(check, "lse", got, finite, vl_elements(lse), 1e-5);
}

static void run_f32(uint64_t seed, const Case *c, bool causal) {
    Check check;
    check_begin(&check, seed, 2);
    Problem p = make_problem(&check, c, causal, VL_F32);
    make_results(&check, &p);
    attend_f64(&p, true);
    Tensors t = upload(&check, &p, VL_F32);
    run_forward(&check, &p, &t, t.lse);
    check_tensor(&check, "o", t.o, p.o, 1e-5);
    check_lse(&check, t.lse, p.lse);
    run_backward(&check, &p, &t);
    check_tensor(&check, "dq", t.dq, p.dq, 1e-5);
    check_tensor(&check, "dk", t.dk, p.dk, 1e-5);
    check_tensor(&check, "dv", t.dv, p.dv, 1e-5);
    check_filled(&check, t.o);
    run_forward(&check, &p, &t, VL_EMPTY);
    check_tensor(&check, "o without lse", t.o, p.o, 1e-5);
    check_end(&check);
}

static void run_bf16(uint64_t seed, const Case *c, bool causal) {
    Check check;
    check_begin(&check, seed, 2);
    Problem p = make_problem(&check, c, causal, VL_BF16), naive = p;
    make_results(&check, &p);
    attend_f64(&p, true);
    naive.rounding = VL_BF16;
    make_results(&check, &naive);
    attend_f64(&naive, true);
    check_round(naive.dq, p.tq * p.q_columns, VL_BF16);
    check_round(naive.dk, p.tk * p.k_columns, VL_BF16);
    check_round(naive.dv, p.tk * p.k_columns, VL_BF16);
    Tensors t = upload(&check, &p, VL_BF16);
    run_forward(&check, &p, &t, t.lse);
    check_bf16(&check, "o", t.o, naive.o, p.o);
    run_backward(&check, &p, &t);
    check_bf16(&check, "dq", t.dq, naive.dq, p.dq);
    check_bf16(&check, "dk", t.dk, naive.dk, p.dk);
    check_bf16(&check, "dv", t.dv, naive.dv, p.dv);
    check_end(&check);
}

static double loss(void *problem) {
    const Problem *p = problem;
    attend_f64(p, false);
    return dot(p->o, p->d_o, p->tq * p->q_columns);
}

static void test_attention_gradient(void **state) {
    (void)state;
    for (uint64_t i = 0; i < CASES; i++) {
        run_f32(600 + 2 * i, &cases[i], false);
        run_f32(601 + 2 * i, &cases[i], true);
    }
    for (int causal = 0; causal < 2; causal++) {
        Check check;
        check_begin(&check, 640, 1);
        Problem p = make_problem(&check, &cases[0], causal, VL_F32);
        make_results(&check, &p);
        attend_f64(&p, true);
        check_differences(&check, "dq", p.q, p.tq * p.q_columns, 60, loss, &p, p.dq);
        check_differences(&check, "dk", p.k, p.tk * p.k_columns, 60, loss, &p, p.dk);
        check_differences(&check, "dv", p.v, p.tk * p.k_columns, 60, loss, &p, p.dv);
        check_end(&check);
    }
}

static void test_bf16(void **state) {
    (void)state;
    for (uint64_t i = 0; i < CASES; i++) {
        run_bf16(660 + 2 * i, &cases[i], false);
        run_bf16(661 + 2 * i, &cases[i], true);
    }
}

// One and three threads give the same bits, and unwanted gradients leave the others as they are.
static void test_threads(void **state) {
    (void)state;
    for (uint64_t i = 0; i < CASES; i++) {
        Check checks[2];
        Tensors t[2];
        for (int r = 0; r < 2; r++) {
            check_begin(&checks[r], 680 + i, 1 + 2 * r);
            Problem p = make_problem(&checks[r], &cases[i], true, VL_F32);
            t[r] = upload(&checks[r], &p, VL_F32);
            run_forward(&checks[r], &p, &t[r], t[r].lse);
            run_backward(&checks[r], &p, &t[r]);
        }
        check_same_bits(&checks[0], "o", t[0].o, &checks[1], t[1].o);
        check_same_bits(&checks[0], "dq", t[0].dq, &checks[1], t[1].dq);
        check_same_bits(&checks[0], "dk", t[0].dk, &checks[1], t[1].dk);
        check_same_bits(&checks[0], "dv", t[0].dv, &checks[1], t[1].dv);
        for (int wanted = 0; wanted < 3; wanted++) {
            Problem p = {.c = &cases[i], .causal = true};
            Tensors only = t[1];
            only.dq = wanted == 0 ? check_filled(&checks[1], t[1].dq) : VL_EMPTY;
            only.dk = wanted == 1 ? check_filled(&checks[1], t[1].dk) : VL_EMPTY;
            only.dv = wanted == 2 ? check_filled(&checks[1], t[1].dv) : VL_EMPTY;
            run_backward(&checks[1], &p, &only);
        }
        check_same_bits(&checks[0], "dq", t[0].dq, &checks[1], t[1].dq);
        check_same_bits(&checks[0], "dk", t[0].dk, &checks[1], t[1].dk);
        check_same_bits(&checks[0], "dv", t[0].dv, &checks[1], t[1].dv);
        check_end(&checks[0]);
        check_end(&checks[1]);
    }
}

// Scores far from 0: the running maximum is needed.
static void test_large_scores(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 700, 2);
    Problem p = make_problem(&check, &cases[1], true, VL_F32);
    for (int64_t i = 0; i < p.tk * p.k_columns; i++)
        p.k[i] = check_rounded(p.k[i] * (1 + (double)(i / p.k_columns) / 4), VL_F32);
    make_results(&check, &p);
    attend_f64(&p, false);
    Tensors t = upload(&check, &p, VL_F32);
    run_forward(&check, &p, &t, t.lse);
    check_tensor(&check, "o", t.o, p.o, 1e-4);  // scores of some hundred have absolute errors of some 1e-5
    check_end(&check);
}

static void test_flops(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 701, 1);
    const Case *c = &cases[4];
    int64_t pairs[2] = {3 * 10 + 64 + 4 * 2, (8 + 9 + 10) + 64 + (1 + 2)};
    for (int causal = 0; causal < 2; causal++) {
        Problem p = make_problem(&check, c, causal, VL_F32);
        Tensors t = upload(&check, &p, VL_F32);
        check.context->flops = (VlFlops){0};
        run_forward(&check, &p, &t, t.lse);
        assert_int_equal(vl_flops_total(&check.context->flops), 2 * 2 * pairs[causal] * c->heads * c->head_size);
        run_backward(&check, &p, &t);
        assert_int_equal(vl_flops_total(&check.context->flops), 6 * 2 * pairs[causal] * c->heads * c->head_size);
    }
    check_end(&check);
    VlContext *plan;
    assert_int_equal(vl_context_create_plan(&plan, VL_DEVICE_CPU, 2), VL_OK);
    VlTensor x = vl_tensor(NULL, VL_BF16, 100, 64), cu = vl_tensor(NULL, VL_I64, 3),
             lse = vl_tensor(NULL, VL_F32, 4, 100);
    assert_int_equal(vl_attention_forward(plan, x, lse, x, x, x, cu, cu, 4, 4, true), VL_OK);
    assert_int_equal(vl_flops_total(&plan->flops), 2 * 2 * (2 * 1275) * 64);
    assert_true(plan->scratch.peak > 0 && plan->scratch.used == 0);
    vl_context_free(plan);
}

static void test_refusals(void **state) {
    (void)state;
    Check check;
    check_begin(&check, 702, 1);
    Problem p = make_problem(&check, &cases[0], true, VL_F32);
    Tensors t = upload(&check, &p, VL_F32);
    VlContext *context = check.context;
    int64_t offsets[][5] = {{0, 5, 4, 6, 13}, {1, 5, 5, 6, 13}, {0, 5, 5, 6, 14}};
    static const char *const texts[] = {"cu_q[2] is 4", "cu_q runs from 1 to 13", "cu_q runs from 0 to 14"};
    for (int i = 0; i < 3; i++) {
        VlTensor cu_q = check_upload_i64(&check, offsets[i], 5);
        check_refused(vl_attention_forward(context, t.o, t.lse, t.q, t.k, t.v, cu_q, t.cu_k, 4, 2, true), VL_INVALID,
                      texts[i]);
    }
    check_refused(vl_attention_forward(context, t.o, t.lse, t.q, t.k, t.v, t.cu_q, t.cu_k, 4, 3, true), VL_INVALID,
                  "4 heads and 3");
    check_refused(vl_attention_forward(context, t.o, t.lse, t.q, t.k, t.v, t.cu_q, t.cu_k, 4, 4, true), VL_INVALID,
                  "[13,32] f32");
    check_refused(vl_attention_forward(context, t.q, t.lse, t.q, t.k, t.v, t.cu_q, t.cu_k, 4, 2, true), VL_INVALID,
                  "overlap");
    VlArena kept = context->scratch;
    context->scratch.size = 64;
    check_refused(
        vl_attention_backward(context, t.dq, t.dk, t.dv, t.d_o, t.q, t.k, t.v, t.o, t.lse, t.cu_q, t.cu_k, 4, 2, true),
        VL_OUT_OF_MEMORY, "arena scratch is full");
    context->scratch = kept;
    check_end(&check);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_gradient), cmocka_unit_test(test_bf16),  cmocka_unit_test(test_threads),
        cmocka_unit_test(test_large_scores),       cmocka_unit_test(test_flops), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
