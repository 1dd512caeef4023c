#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"

// One patch: `patch` pixels of a row of a channel at a time.
static void copy_patch(VlTensor columns, VlTensor pixels, int64_t patch, int64_t index) {
    int64_t channels = pixels.dim[1], height = pixels.dim[2], width = pixels.dim[3];
    int64_t down = height / patch, across = width / patch;
    int64_t n = index / (down * across), top = index / across % down * patch, left = index % across * patch;
    int64_t to = index * channels * patch * patch;
    for (int64_t channel = 0; channel < channels; channel++) {
        for (int64_t row = top; row < top + patch; row++, to += patch) {
            const float *from = (const float *)pixels.data + ((n * channels + channel) * height + row) * width + left;
            if (columns.dtype == VL_F32) {
                memcpy((float *)columns.data + to, from, (size_t)patch * sizeof *from);
            } else {
                vl_block_write(columns, to, patch, VL_WRITE, from);
            }
        }
    }
}

VlStatus vl_cpu_patches(VlContext *context, VlTensor columns, VlTensor pixels, int64_t patch) {
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(columns)))
    for (int64_t index = 0; index < columns.dim[0]; index++) copy_patch(columns, pixels, patch, index);
    return VL_OK;
}
