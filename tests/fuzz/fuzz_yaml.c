#include "base/memory.h"
#include "base/yaml.h"
#include "tests/fuzz/fuzz.h"
#include "train/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static VlConfig config;  // large
    VlYaml *document;
    if (!vl_yaml_parse((const char *)data, (int64_t)size, "input", &document)) vl_yaml_free(document);
    if (vl_config_load(&config, fuzz_file(0, data, size), 0, NULL)) return 0;
    char *text;
    if (vl_config_dump(&config, &text)) abort();
    vl_free(text);
    vl_config_free(&config);
    return 0;
}
