// Finds NCCL when it is needed.
#include <dlfcn.h>

#include "dist/nccl.cuh"

#include <stdio.h>

enum { LEAST_VERSION = 21400 };  // the first in which no call blocks when told so

// The library stays loaded: it has threads of its own.
VlStatus vl_nccl_load(VlNccl *nccl, char version[16]) {
    static const char *const hint = "put the folder of libnccl.so.2 into LD_LIBRARY_PATH";
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return vl_error(VL_UNSUPPORTED, "NCCL is missing (%s); %s", dlerror(), hint);
#define FUNCTION(name)                                               \
    nccl->name = (decltype(nccl->name))dlsym(library, "nccl" #name); \
    if (!nccl->name) return vl_error(VL_UNSUPPORTED, "NCCL lacks nccl" #name ": it is not 2.14 or later; %s", hint);
    NCCL_FUNCTIONS(FUNCTION)
#undef FUNCTION
    int code = 0;
    if (nccl->GetVersion(&code) != ncclSuccess || code < LEAST_VERSION) {
        return vl_error(VL_UNSUPPORTED, "NCCL has version number %d: it is not 2.14 or later; %s", code, hint);
    }
    snprintf(version, 16, "%d.%d.%d", code / 10000, code / 100 % 100, code % 100);
    return VL_OK;
}
