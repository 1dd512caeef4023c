// The input is a tokenizer.json; behind a zero byte, which JSON cannot hold, may stand a tokenizer_config.json.
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "data/tokenizer.h"
#include "tests/fuzz/fuzz.h"

static char folder[] = "/tmp/vl_fuzz_XXXXXX";

static void remove_folder(void) {
    char path[64];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    unlink(path);
    rmdir(folder);
}

static void link_file(const char *name, const char *target) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (symlink(target, path)) abort();
}

static void use(const VlTokenizer *tokenizer) {
    static const char *const texts[] = {"", "Hello, world! It's 2024.\n\n", "<s>a</s>  \xc3\xa9t\xc3\xa9 \xe4\xb8\xad"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        VlTokenIds ids = {0};
        char *text;
        int64_t length;
        if (!vl_tokenizer_encode(tokenizer, texts[i], (int64_t)strlen(texts[i]), true, &ids) &&
            !vl_tokenizer_decode(tokenizer, ids.ids, ids.count, i & 1, &text, &length)) {
            vl_free(text);
        }
        vl_token_ids_free(&ids);
    }
    int64_t length;
    for (int64_t id = -1; id <= vl_tokenizer_count(tokenizer) && id < 100; id++) {
        const char *token = vl_tokenizer_token(tokenizer, id, &length);
        if (token && memchr(token, 0xff, (size_t)length)) abort();  // UTF-8 has no such byte; all of it is there
        (void)vl_tokenizer_is_special(tokenizer, id);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *end = memchr(data, 0, size);
    size_t json = end ? (size_t)(end - data) : size;
    const char *files[2] = {fuzz_file(0, data, json),
                            end ? fuzz_file(1, end + 1, size - json - 1) : fuzz_file(1, "{}", 2)};
    static bool made;
    if (!made) {
        if (!mkdtemp(folder)) abort();
        link_file("tokenizer.json", files[0]);
        link_file("tokenizer_config.json", files[1]);
        atexit(remove_folder);
        made = true;
    }
    VlTokenizer *tokenizer;
    if (vl_tokenizer_load(&tokenizer, folder)) return 0;
    use(tokenizer);
    vl_tokenizer_free(tokenizer);
    return 0;
}
