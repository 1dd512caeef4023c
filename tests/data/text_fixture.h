// Model folders for the tests of tokenizers and prompts, made from the compressed golden files.
#ifndef VL_TESTS_DATA_TEXT_FIXTURE_H
#define VL_TESTS_DATA_TEXT_FIXTURE_H

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/files.h"
#include "base/memory.h"
#include "data/token_ids.h"

#define GOLDEN VL_SOURCE_DIR "/tests/golden"

static inline void must(VlStatus status) {
    if (status) fail_msg("%s", vl_error_text());
}

// The content of a .zst file; a zero byte follows; free() it.
static inline char *read_compressed(const char *path, size_t *size) {
    char *packed;
    int64_t packed_size;
    must(vl_read_file(path, 64 << 20, &packed, &packed_size));
    unsigned long long content = ZSTD_getFrameContentSize(packed, (size_t)packed_size);
    assert_true(content < (64u << 20));
    char *text = malloc(content + 1);
    assert_non_null(text);
    *size = ZSTD_decompress(text, content, packed, (size_t)packed_size);
    assert_int_equal(*size, content);
    text[content] = 0;
    vl_free(packed);
    return text;
}

static inline void make_folder(char folder[VL_PATH_MAX]) {
    strcpy(folder, "/tmp/vl-text-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static inline void put_file(const char *folder, const char *name, const char *text, int64_t size) {
    char path[VL_PATH_MAX];
    must(vl_path_join(path, folder, name));
    must(vl_write_file(path, text, size));
}

// folder/tokenizer.json and tokenizer_config.json of a golden tokenizer; with another chat template unless it is NULL.
static inline void put_tokenizer(const char *folder, const char *name, const char *chat_template) {
    char path[VL_PATH_MAX];
    size_t size;
    snprintf(path, sizeof path, "%s/tokenizer/%s/tokenizer.json.zst", GOLDEN, name);
    char *text = read_compressed(path, &size);
    put_file(folder, "tokenizer.json", text, (int64_t)size);
    free(text);
    snprintf(path, sizeof path, "%s/tokenizer/%s/tokenizer_config.json", GOLDEN, name);
    json_error_t problem;
    json_t *config = json_load_file(path, JSON_DECODE_INT_AS_REAL, &problem);
    assert_non_null(config);
    if (chat_template) json_object_set_new(config, "chat_template", json_string(chat_template));
    text = json_dumps(config, 0);
    put_file(folder, "tokenizer_config.json", text, (int64_t)strlen(text));
    free(text);
    json_decref(config);
}

// The lines of a compressed file of JSON lines, as an array.
static inline json_t *read_cases(const char *path) {
    size_t size;
    char *text = read_compressed(path, &size), *rest = text, *line;
    json_t *cases = json_array();
    while ((line = strsep(&rest, "\n"))) {
        if (!*line) continue;
        json_error_t problem;
        json_t *one = json_loads(line, JSON_ALLOW_NUL, &problem);
        if (!one) fail_msg("%s: %s", path, problem.text);
        json_array_append_new(cases, one);
    }
    free(text);
    return cases;
}

static inline bool same_ids(const json_t *expected, const VlTokenIds *found) {
    if ((int64_t)json_array_size(expected) != found->count) return false;
    for (int64_t i = 0; i < found->count; i++) {
        if (json_integer_value(json_array_get(expected, (size_t)i)) != found->ids[i]) return false;
    }
    return true;
}

#endif
