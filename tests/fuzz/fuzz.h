// What the fuzz targets share. A target hands one input to a reader and, where the reader accepts it, uses everything
// that it gives: libFuzzer makes the inputs (tests/fuzz/run), or tests/fuzz/replay.c those of the corpus.
#ifndef VL_TESTS_FUZZ_H
#define VL_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// A file in memory: content and path are replaced by each call for the same `file` (0 or 1).
static inline const char *fuzz_file(int file, const void *data, size_t size) {
    static char paths[2][64];
    static int descriptors[2];
    if (!descriptors[file]) {
        descriptors[file] = memfd_create("fuzz", 0);
        snprintf(paths[file], sizeof paths[file], "/proc/%d/fd/%d", (int)getpid(), descriptors[file]);
    }
    if (descriptors[file] < 0 || ftruncate(descriptors[file], 0) ||
        pwrite(descriptors[file], data, size, 0) != (ssize_t)size) {
        abort();
    }
    return paths[file];
}

#endif
