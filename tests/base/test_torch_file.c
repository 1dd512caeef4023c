// Files of PyTorch's that PyTorch 2.4.1 wrote (tests/golden/torch/make.py).
#include "base/dtype.h"
#include "base/torch_file.h"
#include "tests/base/support.h"

#define GOLDEN VL_SOURCE_DIR "/tests/golden/torch/"

static double element(const char *bytes, VlDtype dtype, int64_t i) {
    double value = 0;
    switch (dtype) {
    case VL_I64: return (double)((const int64_t *)(const void *)bytes)[i];
    case VL_I32: return ((const int32_t *)(const void *)bytes)[i];
    case VL_I16: return ((const int16_t *)(const void *)bytes)[i];
    case VL_I8: return ((const int8_t *)bytes)[i];
    case VL_U8:
    case VL_BOOL: return ((const uint8_t *)bytes)[i];
    default: vl_convert(&value, VL_F64, bytes + i * vl_dtype_size(dtype), dtype, 1); return value;
    }
}

typedef struct Expected {
    const char *name;
    VlDtype dtype;
    int32_t dims;
    int64_t dim[3];
    bool scalar, contiguous;
    int8_t values[24];
} Expected;

// Every element, read whole and in all parts.
static void check_tensor(const VlTorchFile *file, const Expected *expected) {
    const VlTorchEntry *entry = vl_torch_find(file, expected->name);
    if (!entry) fail_msg("%s: no tensor %s", file->reader.path, expected->name);
    VlTensor shape = {.dtype = expected->dtype, .dims = expected->dims};
    memcpy(shape.dim, expected->dim, sizeof expected->dim);
    if (!vl_same_shape(entry->tensor, shape) || entry->tensor.dtype != expected->dtype) {
        fail_msg("%s is %s, not %s", expected->name, vl_describe(entry->tensor), vl_describe(shape));
    }
    assert_int_equal(entry->scalar, expected->scalar);
    assert_int_equal(entry->contiguous, expected->contiguous);
    int64_t count = vl_elements(shape);
    _Alignas(8) char bytes[24 * 8];
    for (int64_t begin = 0; begin <= count; begin++) {
        for (int64_t length = 0; length <= count - begin; length++) {
            memset(bytes, 0x55, sizeof bytes);
            assert_ok(vl_torch_read_part(file, entry, begin, length, bytes));
            for (int64_t i = 0; i < length; i++) {
                double value = element(bytes, expected->dtype, i);
                if (!(value == expected->values[begin + i])) {
                    fail_msg("%s of %s: element %lld is %g, not %d", expected->name, file->reader.path,
                             (long long)(begin + i), value, expected->values[begin + i]);
                }
            }
            size_t used = (size_t)(length * vl_dtype_size(expected->dtype));
            if (used < sizeof bytes) assert_int_equal(bytes[used], 0x55);  // and not a byte more
        }
    }
    assert_error(vl_torch_read_part(file, entry, 0, count + 1, bytes), VL_INVALID, "are not within");
    assert_error(vl_torch_read_part(file, entry, -1, 1, bytes), VL_INVALID, "are not within");
    assert_error(vl_torch_read_part(file, entry, 1, INT64_MAX, bytes), VL_INVALID, "are not within");
}

#define SIX .values = {1, 2, 3, 4, 5, 6}, .contiguous = true
#define RAMP24 .values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}

static const Expected types[] = {
    {"bf16", VL_BF16, 2, {2, 3}, SIX},
    {"bool", VL_BOOL, 2, {2, 3}, .values = {1, 0, 1, 0, 0, 1}, .contiguous = true},
    {"column", VL_F32, 1, {4}, .values = {2, 8, 14, 20}},
    {"empty", VL_F32, 2, {0, 3}, .contiguous = true},
    {"every_second", VL_F32, 2, {2, 2}, .values = {6, 9, 18, 21}},
    {"f16", VL_F16, 2, {2, 3}, SIX},
    {"f32", VL_F32, 2, {2, 3}, SIX},
    {"f64", VL_F64, 2, {2, 3}, SIX},
    {"i16", VL_I16, 2, {2, 3}, SIX},
    {"i32", VL_I32, 2, {2, 3}, SIX},
    {"i64", VL_I64, 2, {2, 3}, SIX},
    {"i8", VL_I8, 2, {2, 3}, SIX},
    {"parameter", VL_F32, 1, {3}, .values = {5, 6, 7}, .contiguous = true},
    {"permuted", VL_F32, 3, {4, 2, 3}, .values = {0, 4, 8,  12, 16, 20, 1, 5, 9,  13, 17, 21,
                                                  2, 6, 10, 14, 18, 22, 3, 7, 11, 15, 19, 23}},
    {"scalar", VL_F32, 1, {1}, .scalar = true, .contiguous = true, .values = {7}},
    {"tail", VL_F16, 1, {4}, .values = {2, 3, 4, 5}, .contiguous = true},
    {"tied", VL_F32, 2, {4, 6}, RAMP24, .contiguous = true},
    {"transposed", VL_F32, 2, {6, 4}, .values = {0, 6, 12, 18, 1, 7,  13, 19, 2, 8,  14, 20,
                                                 3, 9, 15, 21, 4, 10, 16, 22, 5, 11, 17, 23}},
    {"u8", VL_U8, 2, {2, 3}, SIX},
    {"whole", VL_F32, 2, {4, 6}, RAMP24, .contiguous = true},
};
enum { TYPES = sizeof types / sizeof *types };

static void check_types(const char *path) {
    VlTorchFile file;
    assert_ok(vl_torch_open(&file, path));
    assert_int_equal(file.count, TYPES);
    for (int i = 0; i < TYPES; i++) {
        assert_string_equal(file.entries[i].name, types[i].name);  // sorted
        check_tensor(&file, &types[i]);
    }
    assert_int_equal(json_object_size(file.data), 0);
    assert_null(vl_torch_find(&file, "absent"));
    assert_int_equal(vl_torch_find(&file, "tied")->offset, vl_torch_find(&file, "whole")->offset);
    assert_ok(vl_torch_verify(&file));
    vl_torch_close(&file);
}

static void all_types_and_views_are_read(void **state) {
    (void)state;
    check_types(GOLDEN "types_2.pt");
    check_types(GOLDEN "types_3.pt");
    check_types(GOLDEN "types_4.pt");
    check_types(GOLDEN "types_5.pt");
}

static void the_old_format_is_read(void **state) {
    (void)state;
    check_types(GOLDEN "legacy.pt");
}

static void a_state_dict_has_its_own_names(void **state) {
    static const Expected expected[] = {
        {"first.bias", VL_F32, 1, {3}, .values = {10, 11, 12}, .contiguous = true},
        {"first.weight", VL_F32, 2, {3, 2}, .values = {0, 1, 2, 3, 4, 5}, .contiguous = true},
        {"norm.bias", VL_F32, 1, {3}, .values = {30, 31, 32}, .contiguous = true},
        {"norm.weight", VL_F32, 1, {3}, .values = {20, 21, 22}, .contiguous = true},
    };
    VlTorchFile file;
    (void)state;
    assert_ok(vl_torch_open(&file, GOLDEN "state_dict.pt"));
    assert_int_equal(file.count, 4);
    for (int i = 0; i < 4; i++) check_tensor(&file, &expected[i]);
    assert_int_equal(json_object_size(file.data), 0);
    vl_torch_close(&file);
}

static void plain_data_is_given_as_json(void **state) {
    static const char *const paths[] = {GOLDEN "nested_2.pt", GOLDEN "nested_4.pt"};
    static const char expected[] =
        "{\"cfg\": {\"encoder_layers\": 12, \"dropout\": 0.1, \"activation_fn\": \"gelu\", \"deep_norm\": true, "
        "\"none\": null, \"text\": \"\xc3\xa4\xe2\x82\xac\", \"list\": [1, [2, 3], [4]], \"big\": 4611686018427387904, "
        "\"negative\": -1099511627776, \"inf\": \"inf\", \"bytes\": \"\\u0000\xc3\xa4z\", \"size\": [2, 3]}, "
        "\"model\": {\"steps\": [null, 5]}, \"label_dict\": {\"0\": \"zero\", \"1\": \"one\"}}";
    json_t *wanted = json_loads(expected, JSON_ALLOW_NUL, NULL);
    assert_non_null(wanted);
    (void)state;
    for (int i = 0; i < 2; i++) {
        VlTorchFile file;
        assert_ok(vl_torch_open(&file, paths[i]));
        assert_int_equal(file.count, 2);
        check_tensor(&file,
                     &(Expected){"model.encoder.w", VL_F32, 2, {2, 2}, .values = {1, 2, 3, 4}, .contiguous = true});
        check_tensor(&file, &(Expected){"model.steps.0", VL_F32, 1, {1}, .values = {9}, .contiguous = true});
        if (!json_equal(file.data, wanted)) fail_msg("%s: %s", paths[i], json_dumps(file.data, 0));
        vl_torch_close(&file);
    }
    json_decref(wanted);
}

// ---- Damage ----------------------------------------------------------------

typedef struct Bytes {
    char *data;
    int64_t size;
} Bytes;

// The file is refused, or found damaged when verified, or is what it was.
static void refused_or_the_same(const char *path, const VlTorchFile *good, const char *what, int64_t place) {
    VlTorchFile file;
    VlStatus status = vl_torch_open(&file, path);
    if (status) {
        if (status != VL_FORMAT && status != VL_UNSUPPORTED)
            fail_msg("%s %lld: status %d", what, (long long)place, status);
        assert_true(vl_error_text()[0] && !strchr(vl_error_text(), '\n'));
        assert_null(file.entries);
        return;
    }
    if (vl_torch_verify(&file) == VL_OK) {
        if (file.count != good->count) fail_msg("%s %lld: %lld tensors", what, (long long)place, (long long)file.count);
        for (int64_t i = 0; i < file.count; i++) {
            _Alignas(8) char one[192], two[192];
            const VlTorchEntry *entry = &file.entries[i], *wanted = &good->entries[i];
            int64_t count = vl_elements(entry->tensor);
            assert_string_equal(entry->name, wanted->name);
            assert_true(vl_same_shape(entry->tensor, wanted->tensor) && vl_bytes(entry->tensor) <= 192);
            assert_ok(vl_torch_read_part(&file, entry, 0, count, one));
            assert_ok(vl_torch_read_part(good, wanted, 0, count, two));
            if (memcmp(one, two, (size_t)vl_bytes(entry->tensor))) {
                fail_msg("%s %lld: other values in %s", what, (long long)place, entry->name);
            }
        }
    }
    vl_torch_close(&file);
}

static void every_cut_is_refused(void **state) {
    static const char *const paths[] = {GOLDEN "state_dict.pt", GOLDEN "nested_4.pt", GOLDEN "legacy.pt"};
    for (int i = 0; i < 3; i++) {
        Bytes all;
        VlTorchFile file;
        const char *path = scratch(state, "cut.pt");
        assert_ok(vl_read_file(paths[i], 1 << 20, &all.data, &all.size));
        for (int64_t size = 0; size < all.size; size++) {
            put_file(path, all.data, size);
            VlStatus status = vl_torch_open(&file, path);
            if (status != VL_FORMAT) fail_msg("%s cut at %lld: status %d", paths[i], (long long)size, (int)status);
        }
        put_file(path, all.data, all.size);
        assert_ok(vl_torch_open(&file, path));
        vl_torch_close(&file);
        vl_free(all.data);
    }
}

static void every_damaged_byte_is_noticed(void **state) {
    static const unsigned char flips[] = {0x01, 0x80, 0xff};
    Bytes all;
    VlTorchFile good;
    assert_ok(vl_torch_open(&good, GOLDEN "state_dict.pt"));
    assert_ok(vl_read_file(GOLDEN "state_dict.pt", 1 << 20, &all.data, &all.size));
    const char *path = scratch(state, "flip.pt");
    for (int64_t place = 0; place < all.size; place++) {
        for (size_t i = 0; i < sizeof flips; i++) {
            all.data[place] = (char)((unsigned char)all.data[place] ^ flips[i]);
            put_file(path, all.data, all.size);
            refused_or_the_same(path, &good, "byte", place);
            all.data[place] = (char)((unsigned char)all.data[place] ^ flips[i]);
        }
    }
    vl_free(all.data);
    vl_torch_close(&good);
}

// Without checksums, damage may go unnoticed; it must do no harm.
static void damage_of_the_old_format_does_no_harm(void **state) {
    Bytes all;
    assert_ok(vl_read_file(GOLDEN "legacy.pt", 1 << 20, &all.data, &all.size));
    const char *path = scratch(state, "flip.pt");
    for (int64_t place = 0; place < all.size; place++) {
        VlTorchFile file;
        all.data[place] = (char)~all.data[place];
        put_file(path, all.data, all.size);
        VlStatus status = vl_torch_open(&file, path);
        if (status == VL_OK) {
            for (int64_t i = 0; i < file.count; i++) {
                char *values;
                assert_ok(vl_allocate(&values, vl_elements(file.entries[i].tensor), 8));
                assert_ok(vl_torch_read_part(&file, &file.entries[i], 0, vl_elements(file.entries[i].tensor), values));
                vl_free(values);
            }
            vl_torch_close(&file);
        } else if (status != VL_FORMAT && status != VL_UNSUPPORTED) {
            fail_msg("byte %lld: status %d with '%s'", (long long)place, (int)status, vl_error_text());
        }
        all.data[place] = (char)~all.data[place];
    }
    vl_free(all.data);
}

static void bytes_behind_the_end_are_refused(void **state) {
    Bytes all;
    VlTorchFile file;
    const char *path = scratch(state, "long.pt");
    assert_ok(vl_read_file(GOLDEN "legacy.pt", 1 << 20, &all.data, &all.size));
    put_file(path, all.data, all.size + 1);  // with the zero byte that follows the content
    assert_error(vl_torch_open(&file, path), VL_FORMAT, "1 bytes behind the last storage belong to none");
    vl_free(all.data);
}

static void damaged_values_are_found_by_verify(void **state) {
    Bytes all;
    VlTorchFile file;
    assert_ok(vl_torch_open(&file, GOLDEN "state_dict.pt"));
    int64_t place = vl_torch_find(&file, "norm.bias")->offset + 4;
    vl_torch_close(&file);
    assert_ok(vl_read_file(GOLDEN "state_dict.pt", 1 << 20, &all.data, &all.size));
    all.data[place] ^= 1;
    put_file(scratch(state, "bad.pt"), all.data, all.size);
    assert_ok(vl_torch_open(&file, scratch(state, "bad.pt")));
    assert_error(vl_torch_verify(&file), VL_FORMAT, "record 'state_dict/data/3' is damaged: its CRC-32 is");
    vl_torch_close(&file);
    vl_free(all.data);
}

static void what_is_no_such_file_is_told(void **state) {
    VlTorchFile file;
    const char *path = scratch(state, "x.pt");
    put_file(path, "", 0);
    assert_error(vl_torch_open(&file, path), VL_FORMAT, "does not begin like a file of PyTorch's");
    put_file(path, "version https://git-lfs.github.com/spec/v1\n", 43);
    assert_error(vl_torch_open(&file, path), VL_FORMAT, "pointer of Git LFS");
    put_file(path, "\x80\x02}.", 4);
    assert_error(vl_torch_open(&file, path), VL_FORMAT, "does not begin like a file of PyTorch's");
    assert_error(vl_torch_open(&file, scratch(state, "none.pt")), VL_IO, "none.pt");
    assert_error(vl_torch_open(&file, *state), VL_IO, "a folder");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_types_and_views_are_read),
        cmocka_unit_test(the_old_format_is_read),
        cmocka_unit_test(a_state_dict_has_its_own_names),
        cmocka_unit_test(plain_data_is_given_as_json),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_damaged_byte_is_noticed),
        cmocka_unit_test(damage_of_the_old_format_does_no_harm),
        cmocka_unit_test(bytes_behind_the_end_are_refused),
        cmocka_unit_test(damaged_values_are_found_by_verify),
        cmocka_unit_test(what_is_no_such_file_is_told),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
