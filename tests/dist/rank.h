// What the programs that are one rank each share: a failed check ends all ranks.
#ifndef VL_TESTS_DIST_RANK_H
#define VL_TESTS_DIST_RANK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dist/comm.h"
#include "ops/context.h"

static VlComm *comm;
static int64_t rank, size;

#define CHECK(condition, ...)                                                          \
    do {                                                                               \
        if (!(condition)) {                                                            \
            printf("rank %lld, line %d: %s: ", (long long)rank, __LINE__, #condition); \
            printf(__VA_ARGS__);                                                       \
            printf("\n");                                                              \
            fflush(stdout);                                                            \
            vl_comm_abort(comm, 1);                                                    \
            _exit(1);                                                                  \
        }                                                                              \
    } while (0)
#define CHECK_OK(expression) CHECK((expression) == VL_OK, "%s", vl_error_text())

// The device on which memory lies: VL_TEST_DEVICE=cuda, or the CPU.
static inline VlDevice rank_device(void) {
    const char *device = getenv("VL_TEST_DEVICE");
    return device && strcmp(device, "cuda") == 0 ? VL_DEVICE_CUDA : VL_DEVICE_CPU;
}

#endif
