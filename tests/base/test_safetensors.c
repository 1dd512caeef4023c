#include <math.h>

#include "base/safetensors.h"
#include "tests/base/support.h"

// ---- Files made by hand ----------------------------------------------------

// A file of a header's text, a number of data bytes (0, 1, 2, ...), and the length that the prefix claims
// (-1: the true one).
static const char *forge(void **state, const char *name, const char *header, int64_t data, int64_t claimed) {
    const char *path = scratch(state, name);
    int64_t length = (int64_t)strlen(header);
    char *bytes;
    uint64_t prefix = claimed < 0 ? (uint64_t)length : (uint64_t)claimed;
    assert_ok(VL_NEW(&bytes, 8 + length + data));
    memcpy(bytes, &prefix, 8);
    memcpy(bytes + 8, header, (size_t)length);
    for (int64_t i = 0; i < data; i++) bytes[8 + length + i] = (char)i;
    put_file(path, bytes, 8 + length + data);
    vl_free(bytes);
    return path;
}

static VlStatus open_and_close(const char *path) {
    VlSafetensors set;
    VlStatus status = vl_safetensors_open(&set, path);
    if (status) {  // nothing is left to free
        assert_null(set.entries);
        assert_null(set.readers);
    } else {
        vl_safetensors_close(&set);
    }
    return status;
}

static VlStatus open_forged(void **state, const char *header, int64_t data) {
    return open_and_close(forge(state, "forged.safetensors", header, data, -1));
}

#define F32_2(begin, end) "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" #begin "," #end "]}"

static void headers_are_accepted(void **state) {
    VlSafetensors set;
    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" F32_2(1, 9) ",\"a\":{\"data_offsets\":[0,1],\"shape\":[],"
        "\"dtype\":\"BOOL\"},\"empty\":{\"dtype\":\"I64\",\"shape\":[3,0,2],\"data_offsets\":[1,1]},"
        "\"end\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[9,9]}}   ";
    assert_ok(vl_safetensors_open(&set, forge(state, "good.safetensors", header, 9, -1)));
    assert_int_equal(set.count, 4);
    assert_string_equal(set.entries[0].name, "a");
    assert_string_equal(set.entries[1].name, "b");
    assert_string_equal(set.entries[2].name, "empty");
    assert_true(set.entries[0].scalar);
    assert_int_equal(set.entries[0].tensor.dims, 1);
    assert_int_equal(set.entries[0].tensor.dim[0], 1);
    const VlSafetensorsEntry *entry = vl_safetensors_find(&set, "b");
    assert_false(entry->scalar);
    assert_int_equal(entry->tensor.dtype, VL_F32);
    assert_int_equal(entry->offset, 8 + (int64_t)strlen(header) + 1);
    unsigned char bytes[8];
    assert_ok(vl_safetensors_read(&set, entry, bytes));
    for (int i = 0; i < 8; i++) assert_int_equal(bytes[i], i + 1);
    assert_ok(vl_safetensors_read(&set, vl_safetensors_find(&set, "empty"), NULL));
    assert_null(vl_safetensors_find(&set, "c"));
    vl_safetensors_close(&set);
    assert_ok(open_forged(state, "{}", 0));
}

static void damaged_prefixes_are_refused(void **state) {
    const char *path = scratch(state, "short");
    assert_ok(vl_write_file(path, "", 0));
    assert_error(open_and_close(path), VL_FORMAT, "truncated: it has 0 bytes, fewer than the 8");
    assert_ok(vl_write_file(path, "1234567", 7));
    assert_error(open_and_close(path), VL_FORMAT, "truncated: it has 7 bytes");
    assert_error(open_and_close(forge(state, "f", "{}", 0, 3)), VL_FORMAT, "claims 3 bytes, but only 2 follow");
    assert_error(open_and_close(forge(state, "f", "{}", 0, 100000001)), VL_FORMAT, "at most 100000000 are allowed");
    assert_error(open_and_close(forge(state, "f", "{}", 0, INT64_MAX)), VL_FORMAT, "9223372036854775807 bytes");
    assert_ok(vl_write_file(path, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
    assert_error(open_and_close(path), VL_FORMAT, "18446744073709551615 bytes");
    assert_error(open_and_close(forge(state, "f", "", 0, -1)), VL_FORMAT, "does not begin with '{'");
}

static void damaged_headers_are_refused(void **state) {
    static const struct {
        const char *header, *reason;
    } cases[] = {
        {"[]", "does not begin with '{'"},
        {" {}", "does not begin with '{'"},
        {"{", "header: line 1"},
        {"{} {}", "end of file expected"},
        {"{\"a\xff\":1}", "unable to decode byte 0xff"},
        {"{\"a\":" F32_2(0, 8) ",\"a\":" F32_2(8, 16) "}", "duplicate object key"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "duplicate object key"},
        {"{\"a\":7}", "tensor 'a': its description is no JSON object"},
        {"{\"a\":{}}", "tensor 'a': \"dtype\" is missing"},
        {"{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", "\"dtype\" is missing or is no string"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "\"shape\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", "\"shape\" is missing or is no list"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", "no integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "the extent -2 is negative"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "\"data_offsets\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "not two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", "not two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,\"8\"]}}", "not two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", "unknown key \"x\""},
        {"{\"__metadata__\":[]}", "\"__metadata__\" is no object"},
        {"{\"__metadata__\":{\"a\":1}}", "\"__metadata__\": \"a\" is no string"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", "too big integer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_error(open_forged(state, cases[i].header, 8), VL_FORMAT, cases[i].reason);
    }
    assert_error(open_forged(state, "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8),
                 VL_UNSUPPORTED, "tensor 'a': the dtype \"F8_E4M3\" is not supported");
    assert_error(open_forged(state, "{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8),
                 VL_UNSUPPORTED, "\"f32\"");
    assert_error(open_forged(state, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,2,2,2,1],\"data_offsets\":[0,8]}}", 8),
                 VL_UNSUPPORTED, "6 extents");
}

static void nested_bombs_are_refused(void **state) {
    enum { DEPTH = 5000000 };
    char *header;
    assert_ok(VL_NEW(&header, DEPTH + 6));
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', DEPTH);
    assert_error(open_forged(state, header, 0), VL_FORMAT, "maximum parsing depth");
    memset(header + 5, ' ', DEPTH);
    for (int i = 0; i < DEPTH / 5; i++) memcpy(header + 5 * i, "{\"a\":", 5);
    assert_error(open_forged(state, header, 0), VL_FORMAT, "maximum parsing depth");
    vl_free(header);
}

static void false_offsets_are_refused(void **state) {
    static const struct {
        const char *header, *reason;
    } cases[] = {
        {"{\"a\":" F32_2(-8, 0) "}", "[-8, 0) are negative or run backwards"},
        {"{\"a\":" F32_2(8, 0) "}", "[8, 0) are negative or run backwards"},
        {"{\"a\":" F32_2(0, 7) "}", "[2] f32 needs 8 bytes, but its offsets [0, 7) hold 7"},
        {"{\"a\":" F32_2(0, 16) "}", "needs 8 bytes, but its offsets [0, 16) hold 16"},
        {"{\"a\":" F32_2(0, 8) ",\"b\":" F32_2(4, 12) "}", "tensor 'b' begins at 4, which overlaps"},
        {"{\"a\":" F32_2(0, 8) ",\"b\":" F32_2(0, 8) "}", "begins at 0, which overlaps"},
        {"{\"a\":" F32_2(0, 8) ",\"b\":" F32_2(9, 17) "}", "tensor 'b' begins at 9, which leaves a hole"},
        {"{\"a\":" F32_2(8, 16) "}", "tensor 'a' begins at 8, which leaves a hole"},
        {"{\"a\":" F32_2(0, 8) ",\"b\":" F32_2(8, 16) ",\"c\":" F32_2(16, 24) "}",
         "truncated: the tensors need 24 bytes, but the file holds 16"},
        {"{\"a\":" F32_2(0, 8) "}", "8 bytes behind the last tensor belong to none"},
        {"{}", "16 bytes behind the last tensor belong to none"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,16]}}", "its size overflows"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", "its size overflows"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,9223372036854775807]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[16],\"data_offsets\":[9223372036854775807,9223372036854775807]}}",
         "needs 16 bytes, but"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,9223372036854775807]}}",
         "truncated: the tensors need 9223372036854775807"},
        {"{\"a\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[4,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[16],"
         "\"data_offsets\":[0,16]}}",
         "tensor 'a' begins at 4, which overlaps"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_error(open_forged(state, cases[i].header, 16), VL_FORMAT, cases[i].reason);
    }
}

// Every prefix of a good file, and every good file with one byte changed, is opened or refused, never worse.
static void damaged_files_do_no_harm(void **state) {
    const char *path = scratch(state, "damaged.safetensors");
    const char *names[2] = {"first", "second"};
    float values[6] = {1, 2, 3, 4, 5, 6};
    const VlTensor tensors[2] = {vl_tensor(values, VL_F32, 2, 2), vl_tensor(values, VL_BF16, 3)};
    char *good;
    int64_t size, refused = 0;
    assert_ok(vl_safetensors_save(path, 2, names, tensors));
    assert_ok(vl_read_file(path, 10000, &good, &size));
    for (int64_t i = 0; i < size; i++) {
        put_file(path, good, i);
        assert_int_equal(open_and_close(path), VL_FORMAT);
        for (int bit = 0; bit < 8; bit++) {
            good[i] ^= (char)(1 << bit);
            put_file(path, good, size);
            VlStatus status = open_and_close(path);
            assert_true(status == VL_OK || status == VL_FORMAT || status == VL_UNSUPPORTED);
            refused += status != VL_OK;
            good[i] ^= (char)(1 << bit);
        }
    }
    assert_true(refused > size * 4);
    vl_free(good);
}

// ---- Sets of shards --------------------------------------------------------

static VlStatus open_index(void **state, const char *text) {
    const char *path = scratch(state, "model.safetensors.index.json");
    assert_ok(vl_write_file(path, text, (int64_t)strlen(text)));
    return open_and_close(path);
}

static void shards_are_joined_by_an_index(void **state) {
    VlSafetensors set;
    forge(state, "one.safetensors", "{\"b\":" F32_2(0, 8) ",\"d\":" F32_2(8, 16) "}", 16, -1);
    forge(state, "two.safetensors", "{\"c\":" F32_2(0, 8) ",\"a\":" F32_2(8, 16) "}", 16, -1);
    assert_ok(open_index(state,
                         "{\"metadata\":{\"total_size\":32},\"weight_map\":{\"a\":\"two.safetensors\",\"b\":"
                         "\"one.safetensors\",\"c\":\"two.safetensors\",\"d\":\"one.safetensors\"}}"));
    assert_ok(vl_safetensors_open(&set, *state));  // the folder leads to the index
    assert_int_equal(set.count, 4);
    assert_int_equal(set.files, 2);
    unsigned char bytes[8];
    for (int i = 0; i < 4; i++) {
        const char name[2] = {(char)('a' + i), '\0'};
        assert_string_equal(set.entries[i].name, name);
        assert_ok(vl_safetensors_read(&set, vl_safetensors_find(&set, name), bytes));
        assert_int_equal(bytes[0], i == 0 || i == 3 ? 8 : 0);
    }
    vl_safetensors_close(&set);
    assert_ok(vl_safetensors_open(&set, scratch(state, "one.safetensors")));
    assert_int_equal(set.count, 2);
    vl_safetensors_close(&set);
}

static void false_indexes_are_refused(void **state) {
    forge(state, "one.safetensors", "{\"a\":" F32_2(0, 8) "}", 8, -1);
    forge(state, "two.safetensors", "{\"b\":" F32_2(0, 8) "}", 8, -1);
    forge(state, "again.safetensors", "{\"a\":" F32_2(0, 8) ",\"c\":" F32_2(8, 16) "}", 16, -1);
#define ONE "\"a\":\"one.safetensors\""
#define TWO "\"b\":\"two.safetensors\""
    static const struct {
        const char *index, *reason;
    } cases[] = {
        {"{}", "\"weight_map\" is missing"},
        {"{\"weight_map\":[]}", "\"weight_map\" is missing or is no object"},
        {"{\"weight_map\":{\"a\":1}}", "the file of 'a' is no string"},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "\"../one.safetensors\", which is no file name inside"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "\"/etc/passwd\", which is no file name inside"},
        {"{\"weight_map\":{\"a\":\"sub/one.safetensors\"}}", "no file name inside"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "no file name inside"},
        {"{\"weight_map\":{\"a\":\"\"}}", "no file name inside"},
        {"{\"weight_map\":{" ONE "," ONE "}}", "duplicate object key"},
        {"{\"weight_map\":{" ONE "," TWO ",\"c\":\"two.safetensors\"}}",
         "tensor 'c' is not in two.safetensors, which the index names"},
        {"{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}",
         "tensor 'a' is in one.safetensors, but the index names two.safetensors"},
        {"{\"weight_map\":{\"x\":\"one.safetensors\"," TWO "}}", "tensor 'a' of one.safetensors is not in the index"},
        {"{\"weight_map\":{" ONE ",\"c\":\"again.safetensors\"}}", "tensor 'a' is in two shards"},
        {"[[[[", "index.json: line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_error(open_index(state, cases[i].index), VL_FORMAT, cases[i].reason);
    }
    assert_error(open_index(state, "{\"weight_map\":{\"a\":\"none.safetensors\"}}"), VL_IO,
                 "none.safetensors': No such");
    assert_error(open_and_close("/proc/self/fd"), VL_IO, "holds neither model.safetensors nor");
    assert_error(open_and_close(scratch(state, "missing")), VL_IO, "No such file");
    assert_ok(open_index(state, "{\"metadata\":{\"total_size\":15},\"weight_map\":{" ONE "," TWO "}}"));
    assert_ok(open_index(state, "{\"metadata\":{},\"weight_map\":{" ONE "," TWO "}}"));
}

// ---- Reading and writing ---------------------------------------------------

static void what_is_written_is_read(void **state) {
    const char *path = scratch(state, "round.safetensors");
    unsigned char bytes[VL_DTYPE_COUNT][5 * 8], back[5 * 8];
    const char *names[VL_DTYPE_COUNT];
    VlTensor tensors[VL_DTYPE_COUNT];
    VlSafetensors set;
    for (int i = 0; i < VL_DTYPE_COUNT; i++) {
        for (int j = 0; j < 40; j++) bytes[i][j] = (unsigned char)(17 * i + j);
        names[i] = vl_dtype_name((VlDtype)i);
        tensors[i] = vl_tensor(bytes[i], (VlDtype)i, 5, 1, 1);
    }
    assert_ok(vl_safetensors_save(path, VL_DTYPE_COUNT, names, tensors));
    assert_ok(vl_safetensors_open(&set, path));
    assert_int_equal(set.count, VL_DTYPE_COUNT);
    for (int i = 0; i < VL_DTYPE_COUNT; i++) {
        const VlSafetensorsEntry *entry = vl_safetensors_find(&set, names[i]);
        assert_int_equal(entry->tensor.dtype, i);
        assert_true(vl_same_shape(entry->tensor, tensors[i]));
        assert_ok(vl_safetensors_read(&set, entry, back));
        assert_memory_equal(back, bytes[i], (size_t)vl_bytes(tensors[i]));
        assert_ok(vl_safetensors_read_part(&set, entry, 2, 3, back));
        assert_memory_equal(back, bytes[i] + 2 * vl_dtype_size((VlDtype)i), (size_t)(3 * vl_dtype_size((VlDtype)i)));
    }
    const VlSafetensorsEntry *entry = vl_safetensors_find(&set, "f32");
    assert_error(vl_safetensors_read_part(&set, entry, 3, 3, back), VL_INVALID, "[3, +3) are not within [5,1,1] f32");
    assert_error(vl_safetensors_read_part(&set, entry, -1, 3, back), VL_INVALID, "[-1, +3)");
    assert_error(vl_safetensors_read_part(&set, entry, 1, INT64_MAX, back), VL_INVALID, "are not within");
    assert_error(vl_safetensors_read_as(&set, entry, VL_I32, back), VL_INVALID,
                 "'f32' is f32 and cannot be read as i32");
    assert_error(vl_safetensors_read_as(&set, vl_safetensors_find(&set, "u8"), VL_F32, back), VL_INVALID,
                 "'u8' is u8 and cannot be read as f32");
    vl_safetensors_close(&set);
}

static void the_header_is_as_others_write_it(void **state) {
    const char *path = scratch(state, "header.safetensors"), *name = "weight \"q\"";
    const char *expected =
        "{\"__metadata__\":{\"format\":\"pt\"},\"weight \\\"q\\\"\":{\"dtype\":\"BF16\",\"shape\":[2,3],"
        "\"data_offsets\":[0,12]}}";
    uint16_t values[6] = {1, 2, 3, 4, 5, 6};
    char *data;
    int64_t size, length = 0;
    assert_ok(vl_safetensors_save(path, 1, &name, &(VlTensor){values, VL_BF16, 2, {2, 3}}));
    assert_ok(vl_read_file(path, 10000, &data, &size));
    memcpy(&length, data, 8);
    assert_int_equal(length % 8, 0);
    assert_int_equal(size, 8 + length + 12);
    assert_memory_equal(data + 8, expected, strlen(expected));
    for (int64_t i = 8 + (int64_t)strlen(expected); i < 8 + length; i++) assert_int_equal(data[i], ' ');
    assert_memory_equal(data + 8 + length, values, 12);
    vl_free(data);
}

static void types_are_converted_on_the_way(void **state) {
    enum { COUNT = (1 << 18) + 77 };  // more than one piece
    const char *path = scratch(state, "convert.safetensors"), *name = "x";
    VlBf16 *values;
    float *single;
    double *wide;
    VlSafetensors set;
    assert_ok(VL_NEW(&values, COUNT));
    assert_ok(VL_NEW(&single, COUNT));
    assert_ok(VL_NEW(&wide, COUNT));
    for (int i = 0; i < COUNT; i++) values[i] = vl_bf16_from_f32((float)(i % 1000) - 500.0f);
    assert_ok(vl_safetensors_save(path, 1, &name, &(VlTensor){values, VL_BF16, 1, {COUNT}}));
    assert_ok(vl_safetensors_open(&set, path));
    assert_ok(vl_safetensors_read_as(&set, &set.entries[0], VL_F32, single));
    assert_ok(vl_safetensors_read_as(&set, &set.entries[0], VL_F64, wide));
    for (int i = 0; i < COUNT; i++) {
        assert_true(single[i] == vl_f32_from_bf16(values[i]));
        assert_true(wide[i] == (double)single[i]);
    }
    assert_ok(vl_safetensors_read_as(&set, &set.entries[0], VL_BF16, single));
    assert_memory_equal(single, values, COUNT * sizeof *values);
    vl_safetensors_close(&set);
    vl_free(values);
    vl_free(single);
    vl_free(wide);
}

static void wrong_use_of_the_writer_is_told(void **state) {
    VlSafetensorsWriter writer;
    const char *path = scratch(state, "wrong.safetensors");
    const char bytes[16] = "";
    const VlTensor shape = vl_tensor(NULL, VL_F32, 2);
    int64_t before = count_names(*state);
    assert_ok(vl_safetensors_create(&writer, path));
    assert_error(vl_safetensors_declare(&writer, "__metadata__", shape), VL_INVALID, "cannot be named");
    assert_error(vl_safetensors_declare(&writer, "a", VL_EMPTY), VL_INVALID, "'a' of shape [] f32");
    assert_error(vl_safetensors_declare(&writer, "a", vl_tensor(NULL, VL_F32, INT64_MAX / 2)), VL_INVALID,
                 "cannot be written");
    assert_error(vl_safetensors_write(&writer, bytes, 1), VL_INVALID, "1 bytes are more than");
    assert_ok(vl_safetensors_declare(&writer, "a", shape));
    assert_ok(vl_safetensors_declare(&writer, "b", shape));
    assert_ok(vl_safetensors_begin(&writer));
    assert_error(vl_safetensors_declare(&writer, "c", shape), VL_INVALID, "declared behind the header");
    assert_ok(vl_safetensors_write(&writer, bytes, 12));  // pieces need not respect tensors
    assert_error(vl_safetensors_write(&writer, bytes, 5), VL_INVALID, "5 bytes are more than");
    assert_error(vl_safetensors_commit(&writer), VL_INVALID, "declared bytes were written");
    vl_safetensors_abandon(&writer);
    assert_ok(vl_safetensors_create(&writer, path));
    assert_ok(vl_safetensors_declare(&writer, "a", shape));
    assert_ok(vl_safetensors_declare(&writer, "a", shape));
    assert_error(vl_safetensors_begin(&writer), VL_INVALID, "tensor 'a' is declared twice");
    vl_safetensors_abandon(&writer);
    assert_ok(vl_safetensors_create(&writer, path));
    assert_ok(vl_safetensors_declare(&writer, "\xff", shape));
    assert_error(vl_safetensors_begin(&writer), VL_INVALID, "no UTF-8");
    vl_safetensors_abandon(&writer);
    assert_error(vl_safetensors_create(&writer, scratch(state, "none/x")), VL_IO, "No such file");
    vl_safetensors_abandon(&writer);
    assert_int_equal(count_names(*state), before);
    assert_ok(vl_safetensors_save(path, 0, NULL, NULL));
    assert_ok(open_and_close(path));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_accepted),           cmocka_unit_test(damaged_prefixes_are_refused),
        cmocka_unit_test(damaged_headers_are_refused),    cmocka_unit_test(nested_bombs_are_refused),
        cmocka_unit_test(false_offsets_are_refused),      cmocka_unit_test(damaged_files_do_no_harm),
        cmocka_unit_test(shards_are_joined_by_an_index),  cmocka_unit_test(false_indexes_are_refused),
        cmocka_unit_test(what_is_written_is_read),        cmocka_unit_test(the_header_is_as_others_write_it),
        cmocka_unit_test(types_are_converted_on_the_way), cmocka_unit_test(wrong_use_of_the_writer_is_told),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
