// The CUDA backend of a build without CUDA: it refuses to open.
#include "ops/backend.h"

static VlStatus open_device(VlContext *context) {
    (void)context;
    return vl_error(VL_UNSUPPORTED,
                    "no CUDA device: this build has no CUDA; configure with -DVL_CUDA=ON, or use the device cpu");
}

const VlBackend vl_backend_cuda = {.name = "cuda", .open = open_device};
