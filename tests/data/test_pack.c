#include "data/pack.h"

#include <sys/wait.h>

#include "data/media_write.h"
#include "data/packed.h"
#include "data/show.h"
#include "data/visual.h"
#include "tests/data/packing.h"

enum { PICTURES = 6, WIDTH = 40, HEIGHT = 32, TOWER = 28 };

static char *work;
static bool media_library = true;

// work/media: p0.png ... p5.png, and two videos as folders of pictures, v0 (3 frames) and v1 (9 frames).
static int set_up(void **state) {
    (void)state;
    uint8_t pixels[HEIGHT * WIDTH * 3];
    work = make_folder();
    for (int64_t n = 0; n < PICTURES + 12; n++) {
        char name[64];
        int64_t frame = n - PICTURES;
        for (int64_t i = 0; i < (int64_t)sizeof pixels; i++) pixels[i] = made_pixel(n * 3, i);
        if (frame < 0) snprintf(name, sizeof name, "media/p%d.png", (int)n);
        if (frame >= 0) snprintf(name, sizeof name, "media/v%d/%03d.png", frame >= 3, (int)frame);
        char folder[VL_PATH_MAX];
        const char *path = in_folder(work, name);
        assert_ok(vl_path_folder(folder, path));
        assert_ok(vl_make_folders(folder));
        VlStatus status = vl_media_write_png(path, HEIGHT, WIDTH, pixels);
        if (status == VL_UNSUPPORTED) media_library = false;
        if (media_library) assert_ok(status);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    remove_folder(work);
    return 0;
}

static void need_media(void) {
    if (!media_library) skip();
}

// A list of `count` annotations: texts, pictures and videos, some of which share their files. One in `missing_every`
// pictures names a file that is not there.
static int64_t missing_every;
static void write_annotations(const char *path, int64_t count, bool lines) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    if (!lines) fputs("[\n", file);
    for (int64_t i = 0; i < count; i++) {
        bool missing = missing_every && i % missing_every == 0;
        if (i && !lines) fputs(",\n", file);
        if (i % 5 == 0) {
            fprintf(file, "{\"id\":\"t%d\",%s}", (int)i, TURNS(""));
        } else if (i % 5 == 1) {
            fprintf(file, "{\"id\":%d,\"video\":\"v%d\",\"kind\":\"order\",%s}", (int)i, (int)(i / 5 % 2),
                    TURNS("<video>\\n"));
        } else {
            fprintf(file, "{\"id\":\"p%d\",\"image\":\"p%d.png\",%s}", (int)i, missing ? 99 : (int)(i / 7 % PICTURES),
                    TURNS("<image>\\n"));
        }
        if (lines) fputc('\n', file);
    }
    if (!lines) fputs("]\n", file);
    assert_int_equal(fclose(file), 0);
}

static VlPackOptions make_options(const char *annotations, const char *shards) {
    return (VlPackOptions){.annotations = in_folder(work, annotations),
                           .media = in_folder(work, "media"),
                           .shards = in_folder(work, shards),
                           .model = MODEL,
                           .aspect = VL_ASPECT_PAD,
                           .protocol = VL_PROTOCOL_AV,
                           .num_frames = 4,
                           .threads = 2,
                           .bad_samples = 100,
                           .bad_in_a_row = 10};
}

static void assert_same_folder(const char *a, const char *b) {
    char **names_a, **names_b, path_a[VL_PATH_MAX], path_b[VL_PATH_MAX];
    int64_t count_a, count_b;
    assert_ok(vl_list_folder(a, &names_a, &count_a));
    assert_ok(vl_list_folder(b, &names_b, &count_b));
    assert_int_equal(count_a, count_b);
    for (int64_t i = 0; i < count_a; i++) {
        assert_string_equal(names_a[i], names_b[i]);
        assert_ok(vl_path_join(path_a, a, names_a[i]));
        assert_ok(vl_path_join(path_b, b, names_b[i]));
        assert_same_file(path_a, path_b);
    }
    vl_free_names(names_a, count_a);
    vl_free_names(names_b, count_b);
}

static void test_content(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    VlPacked packed;
    VlShardScratch scratch = {0};
    VlVisualOptions visual = {
        .aspect = VL_ASPECT_PAD, .protocol = VL_PROTOCOL_AV, .num_frames = 4, .media = vl_media_defaults()};
    write_annotations(in_folder(work, "content.json"), 40, false);
    VlPackOptions options = make_options("content.json", "content");
    assert_ok(vl_preprocess_load(&visual.config, MODEL));
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.annotations, 40);
    assert_int_equal(report.samples, 40);
    assert_int_equal(report.texts, 8);
    assert_int_equal(report.videos, 8);
    assert_int_equal(report.images, 24);
    assert_int_equal(report.media, PICTURES + 2);  // each file once
    assert_int_equal(report.shards, 1);
    assert_int_equal(report.bad, 0);
    assert_ok(vl_packed_open(&packed, options.shards));
    assert_int_equal(packed.samples, 40);
    for (int64_t i = 0; i < 40; i++) {
        char name[64];
        int64_t row, frames = 0;
        uint8_t *levels = NULL;
        VlShardRecord record;
        const VlShard *shard = vl_packed_find(&packed, i, &row);
        assert_ok(vl_shard_read(shard, row, &scratch, true, &record));
        assert_int_equal(vl_shard_row(shard, row)->number, i);
        assert_true(vl_shard_row(shard, row)->tokens > 8);
        snprintf(name, sizeof name,
                 i % 5 == 0   ? "\"id\":\"t%d\""
                 : i % 5 == 1 ? "\"id\":\"%d\""
                              : "\"id\":\"p%d\"",
                 (int)i);
        assert_non_null(strstr(record.text, name));
        assert_int_equal(strstr(record.text, "\"kind\":\"order\"") != NULL, i % 5 == 1);
        if (i % 5) {
            bool video = i % 5 == 1;
            snprintf(name, sizeof name, video ? "media/v%d" : "media/p%d.png",
                     (int)(video ? i / 5 % 2 : i / 7 % PICTURES));
            VlFrameTime *stored, *times;
            assert_ok(vl_visual_read(&visual, in_folder(work, name), video ? VL_MODAL_VIDEO : VL_MODAL_IMAGE, &frames,
                                     &levels, &times));
            assert_int_equal(frames, video ? 4 : 1);
            assert_memory_equal(record.pixels, levels, (size_t)(frames * TOWER * TOWER * 3));
            assert_ok(vl_shard_read_times(shard, row, &scratch, &stored));
            assert_memory_equal(stored, times, (size_t)frames * sizeof *times);
            static const int64_t of_three[] = {0, 1, 1, 2}, of_nine[] = {1, 3, 5, 7};
            for (int64_t k = 0; video && k < frames; k++) {
                assert_int_equal(stored[k].index, (i / 5 % 2 ? of_nine : of_three)[k]);
            }
            if (!video) assert_int_equal(stored[0].index, 0);
            vl_free(stored);
            vl_free(times);
        }
        assert_int_equal(vl_shard_frames(shard, row), frames);
        vl_free(levels);
        vl_shard_record_free(&record);
    }
    vl_shard_scratch_free(&scratch);
    vl_packed_close(&packed);
    assert_ok(vl_pack_check(options.shards, 2, &report));
    assert_int_equal(report.samples, 40);
}

// Small shards, so that media are used across their borders.
static VlStatus pack_small(const char *annotations, const char *shards, int64_t threads, VlPackReport *report) {
    VlPackOptions options = make_options(annotations, shards);
    options.threads = threads;
    options.shard_bytes = 12000;
    return vl_pack(&options, report);
}

static void test_threads_and_form_change_nothing(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    VlPacked packed;
    write_annotations(in_folder(work, "many.json"), 200, false);
    write_annotations(in_folder(work, "many.jsonl"), 200, true);
    assert_ok(pack_small("many.json", "one", 1, &report));
    assert_true(report.shards > 5);
    assert_true(report.media > PICTURES + 2 && report.media < 160);
    assert_ok(pack_small("many.json", "five", 5, &report));
    assert_same_folder(in_folder(work, "one"), in_folder(work, "five"));
    assert_ok(pack_small("many.jsonl", "lines", 2, &report));
    assert_same_file(in_folder(work, "one/shard-00003.h5"), in_folder(work, "lines/shard-00003.h5"));
    assert_ok(vl_packed_open(&packed, in_folder(work, "one")));
    for (int64_t i = 0, row; i < 200; i++) {
        const VlShard *shard = vl_packed_find(&packed, i, &row);
        assert_int_equal(vl_shard_row(shard, row)->number, i);
    }
    vl_packed_close(&packed);
}

static int64_t die_after;

static void die(void *user, const VlPackReport *report) {
    (void)user;
    if (report->annotations == die_after) _exit(9);
}

static void test_killed_pack_goes_on(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    missing_every = 9;
    write_annotations(in_folder(work, "killed.json"), 200, false);
    missing_every = 0;
    assert_ok(pack_small("killed.json", "whole", 2, &report));
    VlPackOptions options = make_options("killed.json", "killed");
    options.shard_bytes = 12000;
    options.progress = die;
    for (die_after = 1; die_after <= 200; die_after += 37) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            vl_pack(&options, &report);
            _exit(0);
        }
        int result;
        assert_int_equal(waitpid(child, &result, 0), child);
        assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 9);
        VlPacked packed;
        assert_status(vl_packed_open(&packed, options.shards), VL_FORMAT);
        assert_error_names("not packed to its end");
    }
    options.progress = NULL;
    assert_ok(vl_pack(&options, &report));
    assert_true(report.resumed_shards > 0 && report.resumed_shards < report.shards);
    assert_int_equal(report.samples + report.bad, 200);
    assert_in_range(report.bad, 10, 20);
    assert_same_folder(in_folder(work, "whole"), options.shards);
    // Once more: nothing is left to do. Without one of the shards: it and those behind it are made again.
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.resumed_shards, report.shards);
    assert_int_equal(unlink(in_folder(work, "killed/shard-00004.h5")), 0);
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.resumed_shards, 4);
    assert_same_folder(in_folder(work, "whole"), options.shards);
    // Another list, other options: not into the same folder.
    options.num_frames = 2;
    assert_status(vl_pack(&options, &report), VL_INVALID);
    assert_error_names("killed");
}

static const struct {
    const char *id, *annotation, *reason;
} bad[] = {
    {"missing", "\"image\":\"none.png\"," TURNS("<image>"), "none.png"},
    {"unreadable", "\"image\":\"text.png\"," TURNS("<image>"), "text.png"},
    {"empty folder", "\"video\":\"empty\"," TURNS("<video>"), "empty"},
    {"odd", "\"image\":\"p0.png\",\"conversations\":[{\"from\":\"human\",\"value\":\"<image>\"}]", ""},
    {"nothing said", "\"image\":\"p0.png\",\"conversations\":[]", "no turns"},
    {"no conversation", "\"image\":\"p0.png\"", "conversations"},
    {"no tag", "\"image\":\"p0.png\"," TURNS(""), "<image>"},
    {"two media", "\"image\":\"p0.png\",\"video\":\"v0\"," TURNS("<image>"), "one medium"},
    {"path", "\"image\":7," TURNS("<image>"), "image"},
    {"roles", "\"conversations\":[{\"from\":\"me\",\"value\":\"\"}]", "me"},
    {"sound", "\"audio\":\"a.wav\"," TURNS("<audio>"), "no audio tower"},
    {"both", "\"video\":\"v0\",\"va\":true," TURNS("<video>"), "no audio tower"},
    {"heard picture", "\"image\":\"p0.png\",\"va\":true," TURNS("<image>"), "no video"},
    {"heard image", "\"video\":\"p0.png\",\"va\":true," TURNS("<image>"), "no video"},
};
enum { BAD = sizeof bad / sizeof *bad };

static void write_bad(const char *path) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "{\"id\":\"first\",%s}\n", TURNS(""));
    for (int i = 0; i < BAD; i++) {
        fprintf(file, "{\"id\":\"%s\",%s}\n{\"id\":\"good %d\",%s}\n", bad[i].id, bad[i].annotation, i, TURNS(""));
    }
    fputs("7\n", file);
    assert_int_equal(fclose(file), 0);
}

static void test_bad_samples(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    int64_t size;
    write_text(in_folder(work, "media/text.png"), "no picture");
    assert_ok(vl_make_folders(in_folder(work, "media/empty")));
    write_bad(in_folder(work, "bad.jsonl"));
    VlPackOptions options = make_options("bad.jsonl", "bad");
    assert_ok(vl_pack(&options, &report));
    assert_int_equal(report.samples, BAD + 1);
    assert_int_equal(report.bad, BAD + 1);
    char *lines = read_all(in_folder(work, "bad/quarantine.jsonl"), &size), *line = lines;
    for (int i = 0; i < BAD; i++) {
        char wanted[128], *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        snprintf(wanted, sizeof wanted, "{\"index\":%d,\"id\":\"%s\",\"reason\":\"", 2 * i + 1, bad[i].id);
        if (strncmp(line, wanted, strlen(wanted)) != 0) fail_msg("'%s' does not begin %s", wanted, line);
        if (!strstr(line + strlen(wanted), bad[i].reason)) fail_msg("'%s' is not in %s", bad[i].reason, line);
        line = end + 1;
    }
    vl_free(lines);
    assert_ok(vl_pack_check(options.shards, 1, &report));
    options = make_options("bad.jsonl", "bad-limit");
    options.bad_samples = 3;
    assert_status(vl_pack(&options, &report), VL_FORMAT);
    assert_error_names("limits.bad_samples of 3");
    assert_int_equal(report.bad, 4);
    write_text(in_folder(work, "row.jsonl"), "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":4}\n");
    options = make_options("row.jsonl", "bad-row");
    options.bad_in_a_row = 2;
    assert_status(vl_pack(&options, &report), VL_FORMAT);
    assert_error_names("limits.bad_in_a_row of 2");
    options = make_options("row.jsonl", "bad-all");
    assert_status(vl_pack(&options, &report), VL_FORMAT);
    assert_error_names("none of its 4");
    write_text(in_folder(work, "cut.json"), "[{\"id\":1,\"conversations\":[{\"from\"");
    options = make_options("cut.json", "bad-json");
    assert_status(vl_pack(&options, &report), VL_FORMAT);
    assert_error_names("cut.json");
}

// A table gives the bytes that the list with the same samples gives; its bad rows are named by their number.
static void test_table(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    int64_t size;
    write_annotations(in_folder(work, "as-list.json"), 5, false);
    write_text(in_folder(work, "table.csv"),
               "id,video,image,question,answer,kind\r\nt0,,,What?,That.,\r\n1,v0,,What?,That.,order\r\n"
               "p2,,p0.png,What?,That.,\r\np3,,p0.png,\"What?\",That.,\r\np4,,p0.png,What?,\"That.\",");
    VlPackOptions list = make_options("as-list.json", "as-list"), table = make_options("table.csv", "as-table");
    assert_ok(vl_pack(&list, &report));
    assert_ok(vl_pack(&table, &report));
    assert_int_equal(report.samples, 5);
    assert_same_file(in_folder(work, "as-list/shard-00000.h5"), in_folder(work, "as-table/shard-00000.h5"));
    write_text(in_folder(work, "rows.csv"),
               "image,question,answer\np0.png,What?,That.\np99.png,What?,That.\n\np0.png,What, where?,There.\n"
               ",,That.\np0.png,What?,\np1.png,,A caption.\n");
    table = make_options("rows.csv", "rows");
    assert_ok(vl_pack(&table, &report));
    assert_int_equal(report.samples, 2);
    assert_int_equal(report.bad, 4);
    char *lines = read_all(in_folder(work, "rows/quarantine.jsonl"), &size);
    assert_non_null(strstr(lines, "{\"index\":1,\"id\":\"row 3\",\"reason\":\"row 3: "));
    assert_non_null(strstr(lines, "p99.png"));
    assert_non_null(strstr(lines, "{\"index\":2,\"id\":\"row 5\",\"reason\":\"row 5: it has 4 cells"));
    assert_non_null(strstr(lines, "\"row 6: it has neither"));
    assert_non_null(strstr(lines, "\"row 7: its answer is empty\""));
    vl_free(lines);
    table.shards = in_folder(work, "rows-limit");
    table.bad_samples = 0;
    assert_status(vl_pack(&table, &report), VL_FORMAT);
    assert_error_names("the last one is 'row 3': row 3: ");
    write_text(in_folder(work, "cut.csv"), "image,answer\np0.png,That.\np0.png,\"That.");
    table = make_options("cut.csv", "cut-table");
    assert_status(vl_pack(&table, &report), VL_FORMAT);
    assert_error_names("cut.csv: row 3 (line 3): a cell begins with a quote");
}

// Every flipped byte of every file that was packed is found.
static void test_check(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    int64_t size;
    write_annotations(in_folder(work, "check.json"), 30, false);
    assert_ok(pack_small("check.json", "check", 2, &report));
    assert_ok(vl_pack_check(in_folder(work, "check"), 2, &report));
    char path[VL_PATH_MAX];
    assert_ok(vl_path_join(path, in_folder(work, "check"), "shard-00001.h5"));
    vl_free(read_all(path, &size));
    for (int64_t offset = 0; offset < size; offset += 61) {
        flip(path, offset, 1 << (offset % 8));
        assert_status(vl_pack_check(in_folder(work, "check"), 2, &report), VL_FORMAT);
        assert_error_names("shard-00001.h5");
        flip(path, offset, 1 << (offset % 8));
    }
    assert_ok(vl_pack_check(in_folder(work, "check"), 2, &report));
    assert_ok(vl_remove_tree(path));
    assert_status(vl_pack_check(in_folder(work, "check"), 2, &report), VL_IO);
    write_text(in_folder(work, "check/pack.json"), "{\"format\":\"vl2 pack\",\"version\":1,\"shards\":3}");
    assert_status(vl_pack_check(in_folder(work, "check"), 2, &report), VL_UNSUPPORTED);
    assert_error_names("remove the folder and pack again");
    write_text(in_folder(work, "check/pack.json"), "{\"format\":\"vl2 pack\",\"version\":2,\"shards\":3}");
    assert_status(vl_pack_check(in_folder(work, "check"), 2, &report), VL_FORMAT);
    write_text(in_folder(work, "check/pack.json"), "[]");
    assert_status(vl_pack_check(in_folder(work, "check"), 2, &report), VL_FORMAT);
    assert_status(vl_pack_check(in_folder(work, "nowhere"), 2, &report), VL_IO);
}

static int64_t four_each(void *user, VlModal modal, int64_t frames, int64_t rows) {
    (void)user;
    return 4 * (modal == VL_MODAL_IMAGE ? 4 : frames) + rows / 16;
}

static void test_show(void **state) {
    (void)state;
    need_media();
    VlPackReport report;
    VlShard *shard;
    VlTokenizer *tokenizer;
    char *text = NULL;
    size_t size;
    write_annotations(in_folder(work, "show.json"), 5, false);
    VlPackOptions options = make_options("show.json", "show");
    assert_ok(vl_pack(&options, &report));
    assert_ok(vl_shard_open(&shard, in_folder(work, "show/shard-00000.h5")));
    assert_ok(vl_tokenizer_load(&tokenizer, MODEL));
    VlSampleRules rules = {.tokenizer = tokenizer,
                           .prompt = {.protocol = VL_PROTOCOL_AV, .mode = VL_PROMPT_TRAIN_SFT},
                           .max_tokens = 2048,
                           .truncate_expanded = true,
                           .media_tokens = four_each};
    FILE *out = open_memstream(&text, &size);
    assert_ok(vl_show_sample(shard, 1, &rules, false, out));
    fclose(out);
    // ChatML: the user's turn is masked, the answer with its end is labelled.
    assert_non_null(strstr(text, "<video: 16 tokens>[\nWhat?<|im_end|>\n<|im_start|>assistant\n]That.<|im_end|>"));
    assert_non_null(strstr(text, "kind: order"));
    assert_non_null(strstr(text, "frames: 4 of 28 x 28"));
    assert_non_null(strstr(text, "\nids: "));
    free(text);
    text = NULL;
    out = open_memstream(&text, &size);
    assert_ok(vl_show_packed(options.shards, out));
    assert_ok(vl_show_shard(vl_shard_path(shard), out));
    assert_status(vl_show_sample(shard, 5, &rules, false, out), VL_INVALID);
    fclose(out);
    assert_non_null(
        strstr(text, "samples: 5 (1 text, 3 image, 1 video, 0 audio, 0 video with its sound), media records: 2"));
    free(text);
    vl_tokenizer_free(tokenizer);
    vl_shard_close(shard);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_threads_and_form_change_nothing),
        cmocka_unit_test(test_killed_pack_goes_on),
        cmocka_unit_test(test_bad_samples),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_show),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
