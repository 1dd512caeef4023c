// What the tests of pictures and videos share.
#ifndef VL_TESTS_DATA_MEDIA_FIXTURE_H
#define VL_TESTS_DATA_MEDIA_FIXTURE_H

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
// clang-format on

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "data/clip.h"

#define GOLDEN VL_SOURCE_DIR "/tests/golden"
#define MEDIA VL_SOURCE_DIR "/examples/media"

static inline void must(VlStatus status) {
    if (status != VL_OK) fail_msg("%s", vl_error_text());
}

// Fails with VL_UNSUPPORTED where the build has no media libraries: the program is then skipped as a whole.
static inline bool media_is_missing(void) {
    VlImage image;
    VlMediaOptions options = vl_media_defaults();
    VlStatus status = vl_image_read(MEDIA "/mask.png", &options, &image);
    vl_image_free(&image);
    return status == VL_UNSUPPORTED;
}

static inline json_t *load_json(const char *path) {
    json_t *document = NULL;
    must(vl_json_load(path, 64 << 20, &document));
    return document;
}

static inline void *load_tensor(const VlSafetensors *set, const char *name, int64_t number, VlTensor *shape) {
    char text[64];
    void *data;
    snprintf(text, sizeof text, "%s.%lld", name, (long long)number);
    const VlSafetensorsEntry *entry = vl_safetensors_find(set, text);
    if (!entry) return NULL;
    *shape = entry->tensor;
    must(vl_allocate(&data, vl_bytes(entry->tensor), 1));
    must(vl_safetensors_read(set, entry, data));
    return data;
}

static inline void make_folder(char *folder) {
    strcpy(folder, "/tmp/vl-media-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static inline void put_file(const char *folder, const char *name, const void *data, int64_t size, char *path) {
    must(vl_path_join(path, folder, name));
    must(vl_write_file(path, data, size));
}

#endif
