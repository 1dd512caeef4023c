#include "data/frames.h"

#include <math.h>

#include "media_fixture.h"

static VlFrameRequest request(VlProtocol protocol, VlFrameKind kind, int64_t count, double fps, int64_t num_frames) {
    return (VlFrameRequest){.protocol = protocol,
                            .kind = kind,
                            .count = count,
                            .fps = fps,
                            .start = NAN,
                            .end = NAN,
                            .num_frames = num_frames};
}

static void expect(VlFrameRequest wanted, int64_t count, const int64_t *indices) {
    int64_t *found = NULL, sampled = 0;
    must(vl_frames_sample(&wanted, &found, &sampled));
    assert_int_equal(sampled, count);
    assert_memory_equal(found, indices, (size_t)count * sizeof *found);
    vl_free(found);
}

static void expect_error(VlFrameRequest wanted) {
    int64_t *found = NULL, sampled = 0;
    assert_int_equal(vl_frames_sample(&wanted, &found, &sampled), VL_INVALID);
    assert_null(found);
}

static double number(const json_t *line, const char *key) {
    const json_t *value = json_object_get(line, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void golden_cases(void **state) {
    (void)state;
    VlJsonStream *stream;
    int64_t cases = 0, offset, size;
    must(vl_json_stream_open(&stream, GOLDEN "/frames/cases.jsonl"));
    for (json_t *line;; cases++) {
        must(vl_json_stream_next(stream, &line, &offset, &size));
        if (!line) break;
        VlFrameRequest wanted = {.count = json_integer_value(json_object_get(line, "n")),
                                 .fps = number(line, "fps"),
                                 .start = number(line, "s"),
                                 .end = number(line, "e"),
                                 .num_frames = json_integer_value(json_object_get(line, "num_frames"))};
        must(vl_protocol_parse(&wanted.protocol, json_string_value(json_object_get(line, "protocol"))));
        must(vl_frame_kind_parse(&wanted.kind, json_string_value(json_object_get(line, "kind"))));
        const json_t *list = json_object_get(line, "indices");
        int64_t indices[VL_MAX_FRAMES], count = (int64_t)json_array_size(list);
        for (int64_t i = 0; i < count; i++) indices[i] = json_integer_value(json_array_get(list, (size_t)i));
        expect(wanted, count, indices);
        json_decref(line);
    }
    vl_json_stream_close(stream);
    assert_int_equal(cases, 40);
}

static void bounds_are_ordered(void **state) {
    (void)state;
    VlFrameRequest wanted = request(VL_PROTOCOL_MAIN, VL_FRAMES_UNIFORM, 100, 10.0, 2);
    // Frames 19 to 48 are 30 frames; the middles of both halves, rounded half to even, after the small shift.
    wanted.start = 4.9;
    wanted.end = 2.0;
    expect(wanted, 2, (int64_t[]){19 + 7, 19 + 22});
    wanted.start = wanted.end = 3.0;  // one second: frames 29 to 39
    expect(wanted, 2, (int64_t[]){29 + 3, 29 + 8});
    wanted.start = -5.0;
    wanted.end = 1.0;  // frames 0 to 9
    expect(wanted, 2, (int64_t[]){2, 7});
    wanted.start = 9.0;
    wanted.end = NAN;  // frames 89 to 99
    expect(wanted, 2, (int64_t[]){92, 97});
}

static void gifs_collapse(void **state) {
    (void)state;
    VlFrameRequest wanted = request(VL_PROTOCOL_MAIN, VL_FRAMES_UNIFORM, 3, 25.0, 6);
    expect(wanted, 6, (int64_t[]){0, 1, 1, 1, 2, 2});
    wanted.collapse = true;
    expect(wanted, 6, (int64_t[]){0, 1, 2, VL_BLACK_FRAME, VL_BLACK_FRAME, VL_BLACK_FRAME});
    wanted.protocol = VL_PROTOCOL_2024_06;  // nothing is appended
    expect(wanted, 3, (int64_t[]){0, 1, 2});
}

static void mvbench_formula(void **state) {
    (void)state;
    VlFrameRequest wanted = request(VL_PROTOCOL_2024_06, VL_FRAMES_MVBENCH, 101, 10.0, 4);
    expect(wanted, 4, (int64_t[]){12, 37, 62, 87});
    wanted.start = 2.0;
    wanted.end = 6.05;  // 60.5 rounds to 60
    expect(wanted, 4, (int64_t[]){25, 35, 45, 55});
    wanted.start = 50.0;
    wanted.end = 60.0;
    expect_error(wanted);
}

static void one_frame_a_second(void **state) {
    (void)state;
    expect(request(VL_PROTOCOL_MAIN, VL_FRAMES_UNIFORM, 10, 3.9, 0), 3, (int64_t[]){1, 4, 7});
    expect(request(VL_PROTOCOL_AV, VL_FRAMES_FPS, 10, 3.9, 5), 5, (int64_t[]){1, 4, 7, -1, -1});
    expect(request(VL_PROTOCOL_MAIN, VL_FRAMES_FPS, 5, 30.0, 0), 1, (int64_t[]){2});
    int64_t *found = NULL, sampled = 0;
    VlFrameRequest wanted = request(VL_PROTOCOL_MAIN, VL_FRAMES_FPS, 400, 1.0, 0);
    must(vl_frames_sample(&wanted, &found, &sampled));
    assert_int_equal(sampled, VL_MAX_FRAMES);
    assert_int_equal(found[31], 31);
    vl_free(found);
    wanted.protocol = VL_PROTOCOL_2024_06;  // spread over the whole video instead
    must(vl_frames_sample(&wanted, &found, &sampled));
    assert_int_equal(sampled, VL_MAX_FRAMES);
    assert_int_equal(found[1], 12);
    assert_int_equal(found[31], 399);
    vl_free(found);
}

static void impossible_requests(void **state) {
    (void)state;
    VlFrameRequest wanted = request(VL_PROTOCOL_MAIN, VL_FRAMES_UNIFORM, 100, 10.0, 8);
    wanted.start = 20.0;
    wanted.end = 30.0;
    expect_error(wanted);  // behind the end
    wanted.start = 0.0;
    wanted.end = 0.05;
    expect_error(wanted);  // the end is before the first frame
    wanted.end = 5.0;
    wanted.protocol = VL_PROTOCOL_2024_06;
    expect_error(wanted);  // has no bounds
    expect_error(request(VL_PROTOCOL_MAIN, VL_FRAMES_FPS, 100, 0.9, 0));
    expect_error(request(VL_PROTOCOL_MAIN, VL_FRAMES_FPS, 100, NAN, 0));
    expect_error(request(VL_PROTOCOL_MAIN, VL_FRAMES_UNIFORM, 0, 25.0, 8));
    expect_error(request(VL_PROTOCOL_MAIN, VL_FRAMES_UNIFORM, 10, 25.0, -1));
    expect_error(request(VL_PROTOCOL_MAIN, VL_FRAMES_UNIFORM, 10, 25.0, INT64_MAX));
    expect_error(request(VL_PROTOCOL_2024_06, VL_FRAMES_MVBENCH, 10, 25.0, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_cases),       cmocka_unit_test(bounds_are_ordered),
                                       cmocka_unit_test(gifs_collapse),      cmocka_unit_test(mvbench_formula),
                                       cmocka_unit_test(one_frame_a_second), cmocka_unit_test(impossible_requests)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
