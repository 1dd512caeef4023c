// The environment of programs that run on stand-ins for CUDA and NCCL (tests/cuda_host).
#ifndef VL_TESTS_STAND_INS_H
#define VL_TESTS_STAND_INS_H

#include "tests/process.h"

// For the programs that are started next: so many GPUs in the machine; streams that are "eager" or as late as can be
// ("lazy"); the folder of NCCL's library.
static inline void use_stand_ins(const char *gpus, const char *streams, const char *library) {
    setenv("VL_TEST_DEVICE", "cuda", 1);
    setenv("VL_TEST_GPUS", gpus, 1);
    setenv("VL_TEST_STREAMS", streams, 1);
    static const char *own;  // what the libraries of the machine need
    static char path[4096];
    if (!own) own = getenv("LD_LIBRARY_PATH") ? strdup(getenv("LD_LIBRARY_PATH")) : "";
    snprintf(path, sizeof path, "%s:%s", library, own);
    setenv("LD_LIBRARY_PATH", path, 1);
    unsetenv("VL_TEST_NCCL_FAIL");
    unsetenv("VL_TEST_SHARED");
}

#endif
