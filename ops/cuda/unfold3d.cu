// Both directions move elements between pixels, whose channels are neighbours, and rows of columns, where the taps of a
// channel are. A tile of taps and channels goes through shared memory, so that both sides are read and written in
// order.
#include "ops/cuda/numeric.cuh"

enum { ACROSS = 32, DOWN = 8, THREADS = ACROSS * DOWN, MOST_TAPS = 64, MOST_CHANNELS = 512, TILE = 4096 };

struct Unfold {
    int64_t extent[3], channels, kernel[3], padding, taps;
    int64_t grid[3];                       // blocks along t, h, w that have a row of columns
    int64_t blocks[3];                     // those with pixels, too
    int tile_taps, tile_channels, stride;  // of the tile: from one tap to the next
};

static __host__ __device__ int smaller(int64_t a, int64_t b) { return (int)(a < b ? a : b); }

static Unfold describe(VlTensor x, int64_t kt, int64_t kh, int64_t kw, int64_t padding) {
    Unfold u = {{}, x.dim[4], {kt, kh, kw}, padding, kt * kh * kw, {}, {}, 0, 0, 0};
    for (int i = 0; i < 3; i++) {
        u.extent[i] = x.dim[i + 1];
        u.grid[i] = (u.extent[i] + 2 * padding) / u.kernel[i];
        u.blocks[i] = (u.extent[i] + padding + u.kernel[i] - 1) / u.kernel[i];
    }
    u.tile_taps = smaller(u.taps, MOST_TAPS);
    u.tile_channels = smaller(TILE / u.tile_taps, MOST_CHANNELS);
    u.stride = u.tile_channels + 16 / (int)vl_dtype_size(x.dtype);  // taps of a channel in different banks
    return u;
}

// One block of the convolution, of those of a grid.
struct Place {
    int64_t n, block[3];
};
static __device__ __forceinline__ Place find_place(int64_t index, const int64_t (&blocks)[3]) {
    return {index / (blocks[0] * blocks[1] * blocks[2]),
            {index / (blocks[1] * blocks[2]) % blocks[0], index / blocks[2] % blocks[1], index % blocks[2]}};
}

// The first element of the pixel under a tap, or -1 outside of the image.
static __device__ __forceinline__ int64_t find_pixel(const Unfold &u, const Place &place, int64_t tap) {
    const int64_t offset[3] = {tap / (u.kernel[1] * u.kernel[2]), tap / u.kernel[2] % u.kernel[1], tap % u.kernel[2]};
    int64_t pixel = place.n;
#pragma unroll
    for (int i = 0; i < 3; i++) {
        int64_t at = place.block[i] * u.kernel[i] + offset[i] - u.padding;
        if (at < 0 || at >= u.extent[i]) return -1;
        pixel = pixel * u.extent[i] + at;
    }
    return pixel * u.channels;
}

template <class T>
static __global__ void unfold_kernel(T *columns, const T *x, Unfold u) {
    VL_DYNAMIC_SHARED(T, tile);
    Place place = find_place(blockIdx.x, u.grid);
    T *row = columns + blockIdx.x * u.channels * u.taps;
    for (int64_t c = 0; c < u.channels; c += u.tile_channels) {
        for (int64_t tap = 0; tap < u.taps; tap += u.tile_taps) {
            int width = smaller(u.channels - c, u.tile_channels), taps = smaller(u.taps - tap, u.tile_taps);
            for (int k = (int)threadIdx.x / ACROSS; k < taps; k += DOWN) {
                int64_t pixel = find_pixel(u, place, tap + k);
                for (int i = (int)threadIdx.x % ACROSS; i < width; i += ACROSS) {
                    tile[k * u.stride + i] = pixel < 0 ? T{} : x[pixel + c + i];
                }
            }
            __syncthreads();
            for (int i = (int)threadIdx.x; i < taps * width; i += THREADS) {
                row[(c + i / taps) * u.taps + tap + i % taps] = tile[i % taps * u.stride + i / taps];
            }
            __syncthreads();
        }
    }
}

VlStatus vl_cuda_unfold3d_forward(VlContext *context, VlTensor columns, VlTensor x, int64_t kt, int64_t kh, int64_t kw,
                                  int64_t padding) {
    Unfold u = describe(x, kt, kh, kw, padding);
    return with_type(x.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, unfold_kernel<T>, dim3((unsigned)columns.dim[0]), dim3(THREADS),
                      u.tile_taps * u.stride * (int64_t)sizeof(T), data_of<T>(columns), data_of<T>(x), u);
    });
}

// Stride is kernel, so every pixel is in one block; where the block has no row its gradient is zero.
template <class T>
static __global__ void fold_kernel(T *dx, const T *dcolumns, Unfold u) {
    VL_DYNAMIC_SHARED(T, tile);
    Place place = find_place(blockIdx.x, u.blocks);
    int64_t row = place.n;
    bool has_row = true;
    for (int i = 0; i < 3; i++) {
        has_row = has_row && place.block[i] < u.grid[i];
        row = row * u.grid[i] + place.block[i];
    }
    const T *from = dcolumns + row * u.channels * u.taps;
    for (int64_t c = 0; c < u.channels; c += u.tile_channels) {
        for (int64_t tap = 0; tap < u.taps; tap += u.tile_taps) {
            int width = smaller(u.channels - c, u.tile_channels), taps = smaller(u.taps - tap, u.tile_taps);
            for (int i = (int)threadIdx.x; has_row && i < taps * width; i += THREADS) {
                tile[i % taps * u.stride + i / taps] = from[(c + i / taps) * u.taps + tap + i % taps];
            }
            __syncthreads();
            for (int k = (int)threadIdx.x / ACROSS; k < taps; k += DOWN) {
                int64_t pixel = find_pixel(u, place, tap + k);
                for (int i = (int)threadIdx.x % ACROSS; pixel >= 0 && i < width; i += ACROSS) {
                    dx[pixel + c + i] = has_row ? tile[k * u.stride + i] : T{};
                }
            }
            __syncthreads();
        }
    }
}

VlStatus vl_cuda_unfold3d_backward(VlContext *context, VlTensor dx, VlTensor dcolumns, int64_t kt, int64_t kh,
                                   int64_t kw, int64_t padding) {
    if (vl_is_empty(dx)) return VL_OK;
    Unfold u = describe(dx, kt, kh, kw, padding);
    int64_t blocks = vl_elements(dx) ? dx.dim[0] * u.blocks[0] * u.blocks[1] * u.blocks[2] : 0;
    return with_type(dx.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, fold_kernel<T>, dim3((unsigned)blocks), dim3(THREADS),
                      u.tile_taps * u.stride * (int64_t)sizeof(T), data_of<T>(dx), data_of<T>(dcolumns), u);
    });
}
