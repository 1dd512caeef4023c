#include "ops/cuda/libraries.cuh"

#include <dlfcn.h>
#include <stdio.h>

#define TEXT_OF(word) #word
#define TEXT(macro) TEXT_OF(macro)

VlStatus vl_cuda_load_cublas(VlCublas *cublas) {
    static const char name[] = "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR);
    static const char *const folders[] = {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/lib/"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof folders / sizeof *folders; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s%s", folders[i], name);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    if (!library) {
        return vl_error(VL_UNSUPPORTED,
                        "%s was not found: install CUDA's cuBLAS, or name its folder in LD_LIBRARY_PATH", name);
    }
#define FUNCTION(function)                                                    \
    cublas->function = (decltype(cublas->function))dlsym(library, #function); \
    if (!cublas->function) return vl_error(VL_UNSUPPORTED, "%s has no " #function, name);
    VL_CUBLAS_FUNCTIONS(FUNCTION)
#undef FUNCTION
    return VL_OK;
}
