// Runs a target over the files of a folder, without libFuzzer: every crash that was found stays a test.
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "tests/fuzz/fuzz.h"

static VlStatus replay(const char *folder, int64_t *count) {
    char **names, path[VL_PATH_MAX];
    VL_TRY(vl_list_folder(folder, &names, count));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < *count && !status; i++) {
        char *data;
        int64_t size;
        status = vl_path_join(path, folder, names[i]);
        if (!status) status = vl_read_file(path, 1 << 20, &data, &size);
        if (status) break;
        fprintf(stderr, "%s\n", names[i]);
        LLVMFuzzerTestOneInput((uint8_t *)data, (size_t)size);
        vl_free(data);
    }
    vl_free_names(names, *count);
    return status;
}

int main(int count, char **arguments) {
    int64_t files = 0;
    if (count != 2 || replay(arguments[1], &files) || !files) {
        fprintf(stderr, "usage: %s FOLDER (with at least one file): %s\n", arguments[0], vl_error_text());
        return 1;
    }
    return 0;
}
