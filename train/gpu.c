#include "train/gpu.h"

#include <ctype.h>
#include <string.h>

#define GIB ((int64_t)1 << 30)
#define DRIVER (3 * GIB / 4)

// NVIDIA's data sheets of the SXM modules; the memory is what a program finds free on an empty one.
static const VlGpu gpus[] = {{"a100", 79 * GIB, 312e12, 19.5e12, 2.04e12, DRIVER},
                             {"h100", 79 * GIB, 989e12, 67e12, 3.35e12, DRIVER},
                             {"h200", 139 * GIB, 989e12, 67e12, 4.8e12, DRIVER}};
enum { GPUS = sizeof gpus / sizeof *gpus };

const VlGpuShares vl_gpu_limits = {1, 1, 1};
const VlGpuShares vl_gpu_expected = {0.70, 0.40, 0.85};

VlStatus vl_gpu_parse(const VlGpu **gpu, const char *name) {
    const char *names[GPUS];
    *gpu = NULL;
    for (int i = 0; i < GPUS; i++) {
        names[i] = gpus[i].name;
        if (strcmp(name, gpus[i].name) == 0) *gpu = &gpus[i];
    }
    if (*gpu) return VL_OK;
    const char *nearest = vl_nearest_word(name, names, GPUS);
    return vl_error(VL_USAGE, "GPU '%s' is unknown; possible are: a100, h100, h200%s%s", name,
                    nearest ? "; nearest: " : "", nearest ? nearest : "");
}

const VlGpu *vl_gpu_of_model(const char *model) {
    char name[8];
    for (int i = 0; i < GPUS; i++) {
        size_t length = strlen(gpus[i].name);
        for (size_t c = 0; c <= length; c++) name[c] = (char)toupper((unsigned char)gpus[i].name[c]);
        if (strstr(model, name)) return &gpus[i];
    }
    return NULL;
}

VlRoofline vl_gpu_roofline(const VlGpu *gpu, VlDtype dtype, VlGpuShares shares) {
    VlRoofline roofline = {.bytes_per_second = gpu->bandwidth * shares.bandwidth};
    double peak = dtype == VL_BF16 ? gpu->bf16 : gpu->f32;
    for (int product = 0; product < VL_PRODUCTS; product++) {
        bool attention = product == VL_PRODUCT_ATTENTION || product == VL_PRODUCT_BIASED_ATTENTION;
        roofline.flops_per_second[product] = peak * (attention ? shares.attention : shares.gemm);
    }
    return roofline;
}
