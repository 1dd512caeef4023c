// The registry: layout of the flat range, memory, initialisation, values in and out.
#include "tests/model/vision_parts.h"

static const VlInit ones = {.kind = VL_INIT_ONES}, normal = {.kind = VL_INIT_NORMAL, .scale = 0.5F};
static const VlInit uniform = {.kind = VL_INIT_UNIFORM, .scale = 0.25F};

static void add_rows(VlParams *params) {
    VlParam *row;
    assert_ok(vl_params_register(params, NULL, "tower.weight", VL_GROUP_VISION_TOWER, normal, true, 3, 5));
    assert_ok(vl_params_register(params, &row, "tower.unused", VL_GROUP_VISION_TOWER, normal, true, 7));
    row->unused = row->optional = true;
    assert_ok(vl_params_register(params, NULL, "connector.weight", VL_GROUP_CONNECTOR, uniform, true, 4, 2, 2, 1, 3));
    assert_ok(vl_params_register(params, NULL, "connector.bias", VL_GROUP_CONNECTOR, ones, false, 17));
    assert_ok(vl_params_register(params, NULL, "llm.weight", VL_GROUP_LLM, normal, true, 1000, 40));
}

static void layout(void **state) {
    (void)state;
    VlParams params = {0};
    add_rows(&params);
    vl_params_set_trainable(&params, VL_GROUP_BIT(VL_GROUP_VISION_TOWER) | VL_GROUP_BIT(VL_GROUP_CONNECTOR));
    static const int64_t offsets[] = {0, -1, 16, 64, -1};
    for (int64_t i = 0; i < 5; i++) {
        assert_int_equal(params.rows[i]->index, i);
        assert_int_equal(params.rows[i]->offset, offsets[i]);
        assert_int_equal(params.rows[i]->trainable, offsets[i] >= 0);
    }
    assert_int_equal(params.trainable_elements, 96);
    vl_params_set_trainable(&params, VL_GROUP_BIT(VL_GROUP_LLM));
    assert_int_equal(params.rows[4]->offset, 0);
    assert_int_equal(params.rows[0]->offset, -1);
    assert_int_equal(params.trainable_elements, 40000);
    assert_ptr_equal(vl_params_find(&params, "connector.bias"), params.rows[3]);
    assert_null(vl_params_find(&params, "connector"));
    assert_error(vl_params_register(&params, NULL, "llm.weight", VL_GROUP_LLM, normal, true, 2), VL_INVALID,
                 "llm.weight is registered twice");
    assert_error(vl_params_register(&params, NULL, "bad", VL_GROUP_LLM, normal, true, 2, 0), VL_INVALID, "bad");
    assert_error(vl_params_register(&params, NULL, "huge", VL_GROUP_LLM, normal, true, INT64_MAX / 2, 3), VL_INVALID,
                 "huge");
    assert_int_equal(params.count, 5);
    vl_params_free(NULL, &params);
}

// Joined rows are one tensor in memory, trained and frozen, whatever their extents.
static void joined(void **state) {
    (void)state;
    static const char *const names[] = {"before", "experts.0", "experts.1", "experts.2", "after"};
    for (int trained = 0; trained < 2; trained++) {
        VlContext *context = open_context(64);
        VlParams params = {0};
        for (int i = 0; i < 5; i++) {
            VlParam *row;
            assert_ok(vl_params_register(&params, &row, names[i], VL_GROUP_LLM, normal, true, 3, 5));
            row->joined = i == 2 || i == 3;
        }
        if (trained) vl_params_set_trainable(&params, VL_GROUP_BIT(VL_GROUP_LLM));
        assert_ok(vl_params_bind(context, &params, VL_BF16));
        static const int64_t offsets[] = {0, 16, 31, 46, 64};
        for (int i = 0; i < 5; i++) {
            const VlParam *row = params.rows[i];
            assert_int_equal(row->offset, trained ? offsets[i] : -1);
            assert_ptr_equal(row->value.data, (VlBf16 *)params.rows[0]->value.data + offsets[i]);
            if (trained) assert_ptr_equal(row->gradient.data, (float *)params.flat_gradient.data + offsets[i]);
            if (trained) assert_ptr_equal(row->remainder.data, (int16_t *)params.flat_remainder.data + offsets[i]);
        }
        assert_int_equal(params.trainable_elements, trained ? 80 : 0);
        assert_int_equal(trained ? params.trainable_bytes : params.frozen_bytes, 80 * 2);
        for (int i = 0; i < 5; i++) assert_ok(vl_params_initialise(context, &params, params.rows[i], 3));
        float *all = download(context, vl_tensor(params.rows[1]->value.data, VL_BF16, 3, 3, 5)), one[15];
        for (int i = 0; i < 3; i++) {
            float expected[15];
            vl_init_values(normal, names[i + 1], 3, 0, 15, expected);
            assert_ok(vl_params_get(context, params.rows[i + 1], one));
            for (int k = 0; k < 15; k++) {
                float upper = trained ? vl_f32_from_bf16(vl_halves_from_f32(expected[k]).upper)
                                      : vl_f32_from_bf16(vl_bf16_from_f32(expected[k]));
                if (all[15 * i + k] != upper || one[k] != (trained ? expected[k] : upper))
                    fail_msg("%s, element %d", names[i + 1], k);
            }
        }
        vl_free(all);
        vl_params_free(context, &params);
        vl_context_free(context);
    }
}

static void memory_of(VlDtype dtype) {
    VlContext *context = open_context(1 << 16);
    VlParams params = {0};
    add_rows(&params);
    vl_params_set_trainable(&params, VL_GROUP_BIT(VL_GROUP_CONNECTOR) | VL_GROUP_BIT(VL_GROUP_LLM));
    assert_ok(vl_params_bind(context, &params, dtype));
    int64_t size = vl_dtype_size(dtype), trainable = 48 + 32 + 40000;
    assert_int_equal(params.trainable_elements, trainable);
    assert_int_equal(params.frozen_bytes, (16 + 16) * size);
    assert_int_equal(params.trainable_bytes, trainable * size);
    assert_int_equal(params.gradient_bytes, trainable * 4);
    assert_int_equal(params.remainder_bytes, dtype == VL_F32 ? 0 : trainable * 2);
    assert_int_equal(vl_elements(params.flat_gradient), trainable);
    assert_int_equal(vl_elements(params.flat_value), trainable);
    assert_int_equal(vl_elements(params.flat_remainder), dtype == VL_F32 ? 0 : trainable);
    for (int64_t i = 0; i < params.count; i++) {
        VlParam *row = params.rows[i];
        assert_true(vl_same_shape(row->value, row->shape));
        assert_int_equal(row->value.dtype, dtype);
        assert_int_equal(vl_is_empty(row->gradient), !row->trainable);
        if (!row->trainable) continue;
        assert_ptr_equal(row->gradient.data, (float *)params.flat_gradient.data + row->offset);
        assert_ptr_equal(row->value.data, (char *)params.flat_value.data + row->offset * size);
        assert_int_equal(vl_is_empty(row->remainder), dtype == VL_F32);
        if (dtype == VL_F32) continue;
        assert_true(vl_same_shape(row->remainder, row->shape));
        assert_ptr_equal(row->remainder.data, (int16_t *)params.flat_remainder.data + row->offset);
    }
    vl_params_free(context, &params);
    vl_context_free(context);
}

static void memory(void **state) {
    (void)state;
    memory_of(VL_F32);
    memory_of(VL_BF16);
    VlContext *context = open_context(64);
    VlParams params = {0};
    assert_error(vl_params_bind(context, &params, VL_F16), VL_INVALID, "f16");
    vl_context_free(context);
}

static void planning(void **state) {
    (void)state;
    VlContext *context;
    VlParams params = {0};
    assert_ok(vl_context_create_plan(&context, VL_DEVICE_CPU, 0));
    assert_ok(vl_params_register(&params, NULL, "a", VL_GROUP_LLM, normal, true, 100000, 100000));
    vl_params_set_trainable(&params, VL_GROUP_BIT(VL_GROUP_LLM));
    assert_ok(vl_params_bind(context, &params, VL_BF16));
    assert_int_equal(params.gradient_bytes, 40000000000);
    assert_null(params.rows[0]->value.data);
    assert_ok(vl_params_initialise(context, &params, params.rows[0], 1));
    vl_params_free(context, &params);
    vl_context_free(context);
}

static void initialisation(void **state) {
    (void)state;
    VlContext *context = open_context(64);
    VlParams params = {0}, turned = {0};
    add_rows(&params);
    assert_ok(vl_params_register(&turned, NULL, "llm.weight", VL_GROUP_LLM, normal, true, 1000, 40));
    assert_ok(vl_params_bind(context, &params, VL_F32));
    assert_ok(vl_params_bind(context, &turned, VL_F32));
    static float a[40000], b[40000];
    assert_ok(vl_params_initialise(context, &params, params.rows[4], 5));
    assert_ok(vl_params_initialise(context, &turned, turned.rows[0], 5));
    assert_ok(vl_params_get(context, params.rows[4], a));
    assert_ok(vl_params_get(context, turned.rows[0], b));
    assert_memory_equal(a, b, sizeof a);
    double sum = 0, square = 0;
    for (int64_t i = 0; i < 40000; i++) sum += a[i], square += (double)a[i] * a[i];
    if (!(fabs(sum / 40000) < 0.01 && fabs(sqrt(square / 40000) - 0.5) < 0.01)) fail_msg("not normal(0, 0.5)");
    assert_ok(vl_params_initialise(context, &turned, turned.rows[0], 6));
    assert_ok(vl_params_get(context, turned.rows[0], b));
    assert_memory_not_equal(a, b, sizeof a);
    assert_ok(vl_params_initialise(context, &params, params.rows[2], 5));
    assert_ok(vl_params_get(context, params.rows[2], a));
    float low = 0, high = 0;
    for (int64_t i = 0; i < 48; i++) low = fminf(low, a[i]), high = fmaxf(high, a[i]);
    if (!(low >= -0.25F && low < -0.15F && high < 0.25F && high > 0.15F)) fail_msg("not uniform: %g to %g", low, high);
    assert_ok(vl_params_initialise(context, &params, params.rows[3], 5));
    assert_ok(vl_params_get(context, params.rows[3], a));
    for (int64_t i = 0; i < 17; i++) assert_true(a[i] == 1);
    vl_params_free(context, &params);
    vl_params_free(context, &turned);
    vl_context_free(context);
}

// In bf16 runs a trained parameter keeps what was set in its f32 master, a frozen one is rounded.
static void values(void **state) {
    (void)state;
    VlContext *context = open_context(64);
    VlParams params = {0};
    enum { COUNT = 300000 };
    assert_ok(vl_params_register(&params, NULL, "trained", VL_GROUP_LLM, normal, true, COUNT));
    assert_ok(vl_params_register(&params, NULL, "frozen", VL_GROUP_CONNECTOR, normal, true, COUNT));
    vl_params_set_trainable(&params, VL_GROUP_BIT(VL_GROUP_LLM));
    assert_ok(vl_params_bind(context, &params, VL_BF16));
    float *in = random_values(COUNT, 3), *out;
    in[7] = 1.00390625F;  // half-way between two bf16: of a trained parameter, away from zero
    assert_ok(VL_NEW(&out, COUNT));
    for (int i = 0; i < 2; i++) {
        assert_ok(vl_params_set(context, params.rows[i], in, VL_F32));
        assert_ok(vl_params_get(context, params.rows[i], out));
        float *stored = download(context, params.rows[i]->value);
        for (int64_t k = 0; k < COUNT; k++) {
            float rounded = vl_f32_from_bf16(i == 0 ? vl_halves_from_f32(in[k]).upper : vl_bf16_from_f32(in[k]));
            if (stored[k] != rounded || out[k] != (i == 0 ? in[k] : rounded)) fail_msg("row %d, element %d", i, (int)k);
        }
        vl_free(stored);
    }
    double pair[] = {8.5, -1};
    assert_ok(vl_params_set_part(context, params.rows[0], COUNT - 2, 2, pair, VL_F64));
    assert_ok(vl_params_get_part(context, params.rows[0], COUNT - 3, 3, out));
    assert_true(out[0] == in[COUNT - 3] && out[1] == 8.5F && out[2] == -1);
    vl_free(in);
    vl_free(out);
    vl_params_free(context, &params);
    vl_context_free(context);
}

static void groups(void **state) {
    (void)state;
    VlGroups found = 99;
    assert_ok(vl_groups_parse("connector, llm", &found));
    assert_int_equal(found, VL_GROUP_BIT(VL_GROUP_CONNECTOR) | VL_GROUP_BIT(VL_GROUP_LLM));
    assert_ok(vl_groups_parse("vision_tower,connector,llm,audio_tower,audio_projector", &found));
    assert_int_equal(found, (1 << VL_GROUP_COUNT) - 1);
    assert_ok(vl_groups_parse("", &found));
    assert_int_equal(found, 0);
    assert_error(vl_groups_parse("conector", &found), VL_INVALID, "nearest: connector");
    assert_error(vl_groups_parse("llm,,connector", &found), VL_INVALID, "''");
    assert_error(vl_groups_parse("llm,", &found), VL_INVALID, "''");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout),   cmocka_unit_test(joined),         cmocka_unit_test(memory),
        cmocka_unit_test(planning), cmocka_unit_test(initialisation), cmocka_unit_test(values),
        cmocka_unit_test(groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
