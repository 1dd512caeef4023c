// The whole model on tiny random weights: gradients against differences, packing, frozen parts, announcements, the
// cache, plans.
#include "tests/model/tiny_model.h"

// Sum of the losses with row moved by step * direction.
static double moved_loss(Tiny *tiny, VlParam *row, const float *values, const float *direction, float step,
                         const VlBatch *batch) {
    int64_t count = vl_elements(row->shape);
    float *moved;
    CHECK(VL_NEW(&moved, count));
    for (int64_t i = 0; i < count; i++) moved[i] = values[i] + step * direction[i];
    CHECK(vl_params_set(tiny->context, row, moved, VL_F32));
    double loss = tiny_loss(tiny, batch, false, NULL, NULL);
    CHECK(vl_params_set(tiny->context, row, values, VL_F32));
    vl_free(moved);
    return loss;
}

// Derivative of the loss along (gradient + a random direction of the same length), by differences and by the gradient.
static void check_row(Tiny *tiny, VlParam *row, const VlBatch *batch) {
    int64_t count = vl_elements(row->shape);
    float *gradient = tiny_gradient(tiny, row), *values, *direction;
    double norm = 0, random_norm = 0, expected = 0, length = 0;
    CHECK(VL_NEW(&values, count));
    CHECK(VL_NEW(&direction, count));
    CHECK(vl_params_get(tiny->context, row, values));
    VlRandom random = vl_random(3, vl_hash_string(row->name));
    for (int64_t i = 0; i < count; i++) {
        direction[i] = (float)vl_random_normal(&random);
        norm += (double)gradient[i] * gradient[i];
        random_norm += (double)direction[i] * direction[i];
    }
    if (!(norm > 1e-8)) fail_msg("%s has gradient %g: it takes no part", row->name, sqrt(norm));
    for (int64_t i = 0; i < count; i++) {
        direction[i] = (float)(gradient[i] / sqrt(norm) + direction[i] / sqrt(random_norm));
        length += (double)direction[i] * direction[i];
        expected += (double)gradient[i] * direction[i];
    }
    float step =
        (float)(fmin(1e-2, 0.05 / expected) / sqrt(length));  // the loss moves by 0.1 at most: f32 has to see it
    double found = (moved_loss(tiny, row, values, direction, step, batch) -
                    moved_loss(tiny, row, values, direction, -step, batch)) /
                   (2.0 * step);
    if (!(fabs(found - expected) <= 0.01 * fabs(expected) + 2e-3)) {
        fail_msg("%s: difference quotient %g, by the gradient %g", row->name, found, expected);
    }
    vl_free(gradient);
    vl_free(values);
    vl_free(direction);
}

// Rows of the groups `checked` (and of the embedding, when it is the head too).
static void check_gradients(VlGroups trainable, VlGroups checked, TinyKind kind) {
    Tiny tiny;
    TinySequences sequences;
    VlBatch batch;
    tiny_open(&tiny, trainable, kind);
    tiny.context->threads = 1;  // hundreds of tiny passes: a second thread would mostly wait
    tiny_sequences(&tiny, &sequences);
    CHECK(vl_batch_build(&batch, vl_vlm_config(tiny.model), 3, sequences.all));
    tiny_loss(&tiny, &batch, true, NULL, NULL);
    VlParams *params = vl_vlm_params(tiny.model);
    const VlParam *embedding = kind == TINY_TIED ? vl_params_find(params, "model.embed_tokens.weight") : NULL;
    int64_t rows = 0;
    for (int64_t i = 0; i < params->count; i++) {
        if (!params->rows[i]->trainable) continue;
        // Softmax does not see a bias that is the same for all keys: its gradient is zero. (In the language model the
        // rotation makes it another one for each position.)
        if (params->rows[i]->group == VL_GROUP_VISION_TOWER && strstr(params->rows[i]->name, "k_proj.bias")) continue;
        if (!(checked & VL_GROUP_BIT(params->rows[i]->group)) && params->rows[i] != embedding) continue;
        check_row(&tiny, params->rows[i], &batch);
        rows++;
    }
    assert_true(rows > 10);
    vl_batch_free(&batch);
    tiny_close(&tiny);
}

static void test_gradients(void **state) {
    (void)state;
    check_gradients(TINY_BOTH, TINY_BOTH, TINY_PLAIN);
}

static void test_gradients_experts(void **state) {
    (void)state;
    const VlGroups llm = VL_GROUP_BIT(VL_GROUP_LLM);
    check_gradients(llm, llm, TINY_ALL_EXPERTS);
}

static void test_gradients_tied_and_tower(void **state) {
    (void)state;
    const VlGroups tower = VL_GROUP_BIT(VL_GROUP_VISION_TOWER);
    check_gradients(TINY_BOTH | tower, tower, TINY_TIED);
}

// Logits, losses and gradients of three packed sequences are those of the three alone.
static void check_packing(TinyKind kind) {
    Tiny packed, alone;
    TinySequences sequences;
    VlBatch batch, single;
    VlVlmForward forward;
    float *logits, *reference, losses[64], single_losses[64];
    tiny_open(&packed, TINY_BOTH, kind);
    tiny_open(&alone, TINY_BOTH, kind);
    tiny_sequences(&packed, &sequences);
    CHECK(vl_batch_build(&batch, vl_vlm_config(packed.model), 3, sequences.all));
    tiny_loss(&packed, &batch, true, NULL, losses);
    CHECK(VL_NEW(&logits, batch.tokens * TINY_VOCABULARY));
    CHECK(VL_NEW(&reference, batch.tokens * TINY_VOCABULARY));
    CHECK(vl_vlm_forward(packed.model, &batch, false, &forward));
    CHECK(vl_vlm_logits(packed.model, &forward, 0, batch.tokens, logits));
    vl_vlm_release(packed.model);
    int64_t labels = 0;
    for (int64_t s = 0; s < 3; s++) {
        CHECK(vl_batch_build(&single, vl_vlm_config(alone.model), 1, &sequences.all[s]));
        tiny_loss(&alone, &single, true, NULL, single_losses);
        CHECK(vl_vlm_forward(alone.model, &single, false, &forward));
        CHECK(vl_vlm_logits(alone.model, &forward, 0, single.tokens, reference));
        vl_vlm_release(alone.model);
        double error =
            relative_error(logits + batch.cu_seqlens[s] * TINY_VOCABULARY, reference, single.tokens * TINY_VOCABULARY);
        if (!(error <= 1e-5)) fail_msg("sequence %lld: logits differ by %g", (long long)s, error);
        error = relative_error(losses + labels, single_losses, single.labels);
        if (!(error <= 1e-5)) fail_msg("sequence %lld: losses differ by %g", (long long)s, error);
        labels += single.labels;
        vl_batch_free(&single);
    }
    assert_int_equal(labels, batch.labels);
    VlParams *params = vl_vlm_params(packed.model), *others = vl_vlm_params(alone.model);
    for (int64_t i = 0; i < params->count; i++) {
        if (!params->rows[i]->trainable) continue;
        float *a = tiny_gradient(&packed, params->rows[i]), *b = tiny_gradient(&alone, others->rows[i]);
        double error = relative_error(a, b, vl_elements(params->rows[i]->shape));
        if (!(error <= 1e-4)) fail_msg("%s: gradients differ by %g", params->rows[i]->name, error);
        vl_free(a);
        vl_free(b);
    }
    vl_free(logits);
    vl_free(reference);
    vl_batch_free(&batch);
    tiny_close(&packed);
    tiny_close(&alone);
}

static void test_packing(void **state) {
    (void)state;
    check_packing(TINY_PLAIN);
    check_packing(TINY_EXPERTS);
}

// With the connector alone its gradients are those of training both, and nothing else has any.
static void check_frozen(TinyKind kind) {
    Tiny both, connector;
    TinySequences sequences;
    VlBatch batch;
    tiny_open(&both, TINY_BOTH, kind);
    tiny_open(&connector, VL_GROUP_BIT(VL_GROUP_CONNECTOR), kind);
    tiny_sequences(&both, &sequences);
    CHECK(vl_batch_build(&batch, vl_vlm_config(both.model), 3, sequences.all));
    double a = tiny_loss(&both, &batch, true, NULL, NULL), b = tiny_loss(&connector, &batch, true, NULL, NULL);
    assert_true(a == b);
    VlParams *rows = vl_vlm_params(connector.model), *others = vl_vlm_params(both.model);
    for (int64_t i = 0; i < rows->count; i++) {
        VlParam *row = rows->rows[i];
        assert_true(vl_is_empty(row->gradient) == (row->group != VL_GROUP_CONNECTOR));
        if (row->group != VL_GROUP_CONNECTOR) continue;
        float *mine = tiny_gradient(&connector, row), *reference = tiny_gradient(&both, others->rows[i]);
        double error = relative_error(mine, reference, vl_elements(row->shape));
        if (!(error <= 1e-5)) fail_msg("%s: gradients differ by %g", row->name, error);
        vl_free(mine);
        vl_free(reference);
    }
    vl_batch_free(&batch);
    tiny_close(&both);
    tiny_close(&connector);
}

static void test_frozen(void **state) {
    (void)state;
    check_frozen(TINY_PLAIN);
    check_frozen(TINY_EXPERTS);
}

// The same matrix of all experts lies in memory as one tensor, values and gradients, by the order of the experts.
static void test_experts_lie_together(void **state) {
    (void)state;
    static const char *const names[] = {"w1", "w3", "w2"};
    Tiny tiny;
    tiny_open(&tiny, TINY_BOTH, TINY_EXPERTS);
    for (int i = 0; i < 3; i++) {
        const VlParam *first = NULL;
        for (int64_t e = 0; e < 5; e++) {
            char name[128];
            snprintf(name, sizeof name, "model.layers.1.block_sparse_moe.experts.%lld.%s.weight", (long long)e,
                     names[i]);
            const VlParam *row = vl_params_find(vl_vlm_params(tiny.model), name);
            assert_non_null(row);
            if (e == 0) first = row;
            assert_ptr_equal(row->value.data, (float *)first->value.data + e * vl_elements(row->shape));
            assert_ptr_equal(row->gradient.data, (float *)first->gradient.data + e * vl_elements(row->shape));
        }
    }
    tiny_close(&tiny);
}

typedef struct Announced {
    int64_t next;  // all rows from here on were announced
    int64_t calls;
    uint64_t order;  // hash of the calls
} Announced;

static VlStatus record(void *user, int64_t first, int64_t count) {
    Announced *announced = user;
    assert_int_equal(first + count, announced->next);
    assert_true(count > 0);
    announced->next = first;
    announced->calls++;
    announced->order = announced->order * 1000003 + (uint64_t)(first * 4096 + count);
    return VL_OK;
}

// Every row once, from the last to the first, in the same calls whatever the batch holds.
static void check_announcements(TinyKind kind) {
    static const VlGroups groups[] = {TINY_BOTH, VL_GROUP_BIT(VL_GROUP_CONNECTOR), VL_GROUP_BIT(VL_GROUP_LLM)};
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        Tiny tiny;
        TinySequences sequences;
        tiny_open(&tiny, groups[g], kind);
        tiny_sequences(&tiny, &sequences);
        VlSequence unlabelled = sequences.all[1];
        unlabelled.labels = NULL;
        const VlSequence *batches[] = {sequences.all, sequences.all, &unlabelled, NULL};
        const int64_t counts[] = {3, 1, 1, 0};  // all, text only, nothing labelled, nothing at all
        uint64_t order = 0;
        for (int b = 0; b < 4; b++) {
            VlBatch batch;
            Announced announced = {.next = vl_vlm_params(tiny.model)->count};
            VlGradientHook hook = {record, &announced};
            CHECK(vl_batch_build(&batch, vl_vlm_config(tiny.model), counts[b], batches[b]));
            tiny_loss(&tiny, &batch, true, &hook, NULL);
            assert_int_equal(announced.next, 0);
            assert_int_equal(announced.calls, 1 + 3 + 1 + 2);
            if (b == 0) order = announced.order;
            assert_true(announced.order == order);
            vl_batch_free(&batch);
        }
        tiny_close(&tiny);
    }
}

static void test_announcements(void **state) {
    (void)state;
    check_announcements(TINY_PLAIN);
    check_announcements(TINY_EXPERTS);
}

static VlStatus fail_at_once(void *user, int64_t first, int64_t count) {
    (void)user;
    return vl_error(VL_COMMUNICATION, "rows %lld+%lld: the link is down", (long long)first, (long long)count);
}

// An error of the listener ends the pass, and the arenas are whole after the release.
static void test_hook_error(void **state) {
    (void)state;
    Tiny tiny;
    TinySequences sequences;
    VlBatch batch;
    VlVlmForward forward;
    float losses[64];
    VlGradientHook hook = {fail_at_once, NULL};
    tiny_open(&tiny, TINY_BOTH, TINY_PLAIN);
    tiny_sequences(&tiny, &sequences);
    CHECK(vl_batch_build(&batch, vl_vlm_config(tiny.model), 3, sequences.all));
    CHECK(vl_vlm_prepare(tiny.model, &batch, true));
    CHECK(vl_vlm_forward(tiny.model, &batch, true, &forward));
    assert_int_equal(vl_vlm_loss(tiny.model, &batch, &forward, true, 1, &hook, losses), VL_COMMUNICATION);
    vl_vlm_release(tiny.model);
    assert_int_equal(tiny.context->activations.used, 0);
    assert_int_equal(tiny.context->scratch.used, 0);
    vl_batch_free(&batch);
    tiny_close(&tiny);
}

// The arenas bound by the plan are used to the last byte, and a batch without values plans the same. FLOPs: the plan
// sees the packed sequences as one.
static void check_plan(Tiny *tiny, const VlBatch *batch) {
    VlContext *plan;
    VlVlm *planned;
    VlVlmForward forward;
    float losses[64];
    VlBatch shapes = *batch;
    shapes.positions = shapes.text_ids = shapes.source = shapes.targets = NULL;
    shapes.pixels = NULL;
    CHECK(vl_context_create_plan(&plan, VL_DEVICE_CPU, tiny->context->threads));
    CHECK(vl_vlm_create(&planned, plan, vl_vlm_config(tiny->model), TINY_BOTH));
    CHECK(vl_params_bind(plan, vl_vlm_params(planned), VL_F32));
    CHECK(vl_vlm_plan(planned, &shapes, true));
    CHECK(vl_arena_bind(tiny->context, &tiny->context->activations, "activations", plan->activations.peak));
    CHECK(vl_arena_bind(tiny->context, &tiny->context->scratch, "scratch", plan->scratch.peak));
    tiny->context->flops = (VlFlops){0};
    CHECK(vl_vlm_forward(tiny->model, batch, true, &forward));
    CHECK(vl_vlm_loss(tiny->model, batch, &forward, true, 1, NULL, losses));
    vl_vlm_release(tiny->model);
    assert_int_equal(tiny->context->activations.peak, plan->activations.peak);
    assert_int_equal(tiny->context->scratch.peak, plan->scratch.peak);
    assert_true(vl_flops_total(&tiny->context->flops) > 0 && vl_flops_total(&plan->flops) > 0);
    if (batch->sequences == 1 && batch->visuals == 0)
        assert_int_equal(vl_flops_total(&tiny->context->flops), vl_flops_total(&plan->flops));
    vl_arena_unbind(tiny->context, &tiny->context->activations);
    vl_arena_unbind(tiny->context, &tiny->context->scratch);
    vl_vlm_free(planned);
    vl_context_free(plan);
}

static void test_plan(void **state) {
    (void)state;
    static const TinyKind kinds[] = {TINY_PLAIN, TINY_EXPERTS};
    for (int k = 0; k < 2; k++) {
        Tiny tiny;
        TinySequences sequences;
        tiny_open(&tiny, TINY_BOTH, kinds[k]);
        tiny_sequences(&tiny, &sequences);
        for (int64_t count = 1; count <= 3; count += 2) {
            VlBatch batch;
            CHECK(vl_batch_build(&batch, vl_vlm_config(tiny.model), count, sequences.all));
            check_plan(&tiny, &batch);
            vl_batch_free(&batch);
        }
        tiny_close(&tiny);
    }
}

static int64_t planned_flops(VlGroups trainable, const VlBatch *batch, bool backward) {
    VlContext *plan;
    VlVlm *planned;
    VlModelConfig config = tiny_config(TINY_PLAIN);
    CHECK(vl_context_create_plan(&plan, VL_DEVICE_CPU, 1));
    CHECK(vl_vlm_create(&planned, plan, &config, trainable));
    CHECK(vl_params_bind(plan, vl_vlm_params(planned), VL_F32));
    CHECK(vl_vlm_plan(planned, batch, backward));
    int64_t flops = vl_flops_total(&plan->flops);
    vl_vlm_free(planned);
    vl_context_free(plan);
    return flops;
}

// Nothing is computed that no gradient needs: FLOPs of text and of a video, by what trains.
static void test_no_needless_work(void **state) {
    (void)state;
    Tiny tiny = {0};
    TinySequences sequences;
    VlBatch text, video;
    VlModelConfig config = tiny_config(TINY_PLAIN);
    const VlGroups connector = VL_GROUP_BIT(VL_GROUP_CONNECTOR), llm = VL_GROUP_BIT(VL_GROUP_LLM);
    tiny_sequences(&tiny, &sequences);
    CHECK(vl_batch_build(&text, &config, 1, &sequences.all[0]));
    CHECK(vl_batch_build(&video, &config, 1, &sequences.all[1]));
    VlBatch unlabelled = text;
    unlabelled.labels = 0;

    int64_t nothing = planned_flops(0, &text, true);
    assert_int_equal(planned_flops(connector, &text, true), nothing);
    assert_true(planned_flops(llm, &text, true) > 2 * nothing);
    assert_int_equal(planned_flops(llm | connector, &text, true), planned_flops(llm, &text, true));
    assert_int_equal(planned_flops(llm, &unlabelled, true), planned_flops(0, &unlabelled, true));
    // The input gradients of the language model cost about what its forward pass costs; its weights' gradients once
    // more.
    assert_true(planned_flops(connector, &video, true) > planned_flops(0, &video, true));
    assert_true(planned_flops(llm | connector, &video, true) > planned_flops(connector, &video, true));
    assert_true(planned_flops(llm | connector, &video, true) > planned_flops(llm, &video, true));
    vl_batch_free(&text);
    vl_batch_free(&video);
}

// The whole way from nothing to gradients of one batch, for the n-th failing allocation.
static VlStatus run_all(TinyKind kind) {
    VlModelConfig config = tiny_config(kind);
    VlStatus status;
    VlContext *context;
    VlVlm *model = NULL;
    VlBatch batch = {0};
    VlVlmForward forward;
    float losses[64];
    VlSequence sequence = {8, tiny_text_ids, tiny_text_labels, 0, NULL};
    VL_TRY(vl_context_create(&context, VL_DEVICE_CPU, 1));
    VL_TRY_GOTO(status, vl_vlm_create(&model, context, &config, TINY_BOTH), done);
    VL_TRY_GOTO(status, vl_params_bind(context, vl_vlm_params(model), VL_F32), done);
    VL_TRY_GOTO(status, vl_batch_build(&batch, &config, 1, &sequence), done);
    VL_TRY_GOTO(status, vl_vlm_prepare(model, &batch, true), done);
    VL_TRY_GOTO(status, vl_vlm_forward(model, &batch, true, &forward), done);
    status = vl_vlm_loss(model, &batch, &forward, true, 1, NULL, losses);
    vl_vlm_release(model);
done:
    vl_batch_free(&batch);
    vl_vlm_free(model);
    vl_context_free(context);
    return status;
}

static void check_faults(TinyKind kind) {
    int64_t failures = 0;
    for (;; failures++) {
        assert_true(failures < 100000);
        vl_fault_arm(failures);
        VlStatus status = run_all(kind);
        vl_fault_arm(-1);
        if (status == VL_OK) break;
        if (!vl_error_text()[0]) fail_msg("failure %lld has no text", (long long)failures);
    }
    assert_true(failures > 100);
}

static void test_faults(void **state) {
    (void)state;
    check_faults(TINY_PLAIN);
    check_faults(TINY_EXPERTS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_gradients_tied_and_tower),
        cmocka_unit_test(test_gradients_experts),
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_experts_lie_together),
        cmocka_unit_test(test_announcements),
        cmocka_unit_test(test_hook_error),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_no_needless_work),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
