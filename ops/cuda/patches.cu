#include "ops/cuda/rows.cuh"

// A row of threads has one row of the pixels of one channel of a patch: `line` counts these within the columns.
template <class T>
static __global__ void patches_kernel(T *columns, const float *pixels, int64_t lines, int64_t channels, int64_t height,
                                      int64_t width, int64_t patch) {
    int64_t line = grid_row();
    if (line >= lines) return;
    int64_t down = height / patch, across = width / patch;
    int64_t row = line % patch, channel = line / patch % channels, index = line / (patch * channels);
    int64_t n = index / (down * across), top = index / across % down * patch, left = index % across * patch;
    const float *from = pixels + ((n * channels + channel) * height + top + row) * width + left;
    for (int64_t i = threadIdx.x; i < patch; i += blockDim.x) columns[line * patch + i] = from_float<T>(from[i]);
}

VlStatus vl_cuda_patches(VlContext *context, VlTensor columns, VlTensor pixels, int64_t patch) {
    int64_t lines = columns.dim[0] * pixels.dim[1] * patch;
    RowGrid grid = row_grid(lines, patch, 1);
    return with_type(columns.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, patches_kernel<T>, grid.grid, grid.block, 0, data_of<T>(columns), data_of<float>(pixels),
                      lines, pixels.dim[1], pixels.dim[2], pixels.dim[3], patch);
    });
}
