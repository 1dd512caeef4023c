#include "base/json.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *document;
    VlJsonStream *stream;
    int64_t offset, bytes, before = 0;
    if (!vl_json_parse((const char *)data, (int64_t)size, "input", &document)) json_decref(document);
    if (vl_json_stream_open(&stream, fuzz_file(0, data, size))) return 0;
    while (!vl_json_stream_next(stream, &document, &offset, &bytes) && document) {
        if (offset < before || bytes < 1 || offset + bytes > (int64_t)size) abort();
        before = offset + bytes;
        json_decref(document);
    }
    vl_json_stream_close(stream);
    return 0;
}
