// Products of rows that are sorted by expert. Only the device knows how many rows an expert has: a launch has as many
// blocks as there can be tiles, and each finds its tile from the offsets.
#ifndef VL_OPS_CUDA_GROUPED_LINEAR_CUH
#define VL_OPS_CUDA_GROUPED_LINEAR_CUH

#include "ops/cuda/device.cuh"

struct Experts {
    const int64_t *offsets;
    int64_t count, rows;  // experts; rows of all
};

// Rows [first, end) of one expert.
struct ExpertRows {
    int64_t expert, first, end;
};

static __device__ __forceinline__ ExpertRows rows_of(const Experts &e, int64_t expert) {
    return {expert, max(e.offsets[expert], (int64_t)0), min(e.offsets[expert + 1], e.rows)};
}

// Tiles of HEIGHT rows, or fewer at an expert's end: as many as there are at most, and the one with this number.
template <int HEIGHT>
static int64_t most_row_tiles(const Experts &e) {
    return e.rows / HEIGHT + (e.rows < e.count ? e.rows : e.count);
}
template <int HEIGHT>
static __device__ __forceinline__ bool find_rows(ExpertRows *tile, const Experts &e, int64_t number) {
    for (int64_t expert = 0; expert < e.count; expert++) {
        *tile = rows_of(e, expert);
        int64_t tiles = tile->end > tile->first ? (tile->end - tile->first + HEIGHT - 1) / HEIGHT : 0;
        tile->first += number * HEIGHT;
        if (number < tiles) return true;
        number -= tiles;
    }
    return false;
}

// The same products on tensor cores (grouped_linear_tiles.cu), for bf16 with rows that are whole pieces of 16 bytes.
bool vl_cuda_grouped_fits(VlTensor w, VlTensor a, VlTensor b);
VlStatus vl_cuda_grouped_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor offsets, VlMode mode);
VlStatus vl_cuda_grouped_inputs(VlContext *context, VlTensor dx, VlTensor dy, VlTensor w, VlTensor offsets,
                                VlMode mode);
VlStatus vl_cuda_grouped_weights(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x, VlTensor offsets);

#endif
