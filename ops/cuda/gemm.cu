// cuBLASLt computes D[rows,columns] = op(A) op(B) + beta C in column-major matrices. A row-major matrix is the
// transpose of a column-major one with the same leading dimension, so that our c = a b is its D = c^T = b^T a^T: A is
// our b, B is our a, and a bias per column of c is its bias per row of D.
#include "ops/cuda/gemm.cuh"

extern "C" {
#include "base/log.h"
}

#include <string.h>

#include "ops/cuda/libraries.cuh"
#include "ops/cuda/numeric.cuh"

// ---- A kernel of our own ------------------------------------------------------

enum { TILE = 16 };

// For what cuBLASLt does not do: k = 0, a bf16 bias on f32, and layouts that it refuses. A block computes one tile of c
// after the other.
template <class Input, class Output>
static __global__ void tile_kernel(VlCudaGemm g, int64_t across, int64_t tiles) {
    VL_SHARED(float, a, TILE *(TILE + 1));
    VL_SHARED(float, b, TILE *(TILE + 1));
    int x = (int)threadIdx.x % TILE, y = (int)threadIdx.x / TILE;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        int64_t row = tile / across * TILE, column = tile % across * TILE;
        float sum = 0;
        for (int64_t begin = 0; begin < g.k; begin += TILE) {
            // Neighbouring threads read neighbours in memory: along k, or along the rows of what is transposed.
            int64_t a_row = row + (g.a_transposed ? x : y), a_k = begin + (g.a_transposed ? y : x);
            int64_t b_column = column + (g.b_transposed ? y : x), b_k = begin + (g.b_transposed ? x : y);
            int64_t a_at = g.a_transposed ? a_k * g.a_leading + a_row : a_row * g.a_leading + a_k;
            int64_t b_at = g.b_transposed ? b_column * g.b_leading + b_k : b_k * g.b_leading + b_column;
            bool a_in = a_row < g.m && a_k < g.k, b_in = b_column < g.n && b_k < g.k;
            a[(a_row - row) * (TILE + 1) + (a_k - begin)] = a_in ? to_float(((const Input *)g.a)[a_at]) : 0.0f;
            b[(b_column - column) * (TILE + 1) + (b_k - begin)] = b_in ? to_float(((const Input *)g.b)[b_at]) : 0.0f;
            __syncthreads();
            for (int i = 0; i < TILE; i++) sum += a[y * (TILE + 1) + i] * b[x * (TILE + 1) + i];
            __syncthreads();
        }
        if (row + y >= g.m || column + x >= g.n) continue;
        if (g.bias) sum += to_float(((const Input *)g.bias)[column + x]);
        put((Output *)g.c + (row + y) * g.c_leading + column + x, sum, g.add);
    }
}

static VlStatus multiply_in_tiles(VlContext *context, const VlCudaGemm &g) {
    int64_t across = (g.n + TILE - 1) / TILE, tiles = across * ((g.m + TILE - 1) / TILE);
    return with_type(g.input, [&](auto input) {
        return with_type(g.output, [&](auto output) {
            return launch(context, tile_kernel<decltype(input), decltype(output)>, blocks_for(tiles, 1),
                          dim3(TILE * TILE), 0, g, across, tiles);
        });
    });
}

// ---- Plans --------------------------------------------------------------------

// All that the choice of an algorithm depends on. Plans are found by its bytes: no padding.
typedef struct Key {
    int64_t m, n, k, a_leading, b_leading, c_leading;
    uint16_t a_aligned, b_aligned, c_aligned, bias_aligned;  // bytes, 0: no bias
    uint8_t a_transposed, b_transposed, add, input, output, unused[3];
} Key;
static_assert(sizeof(Key) == 6 * 8 + 4 * 2 + 8, "a key has no padding");

typedef struct Plan {
    bool taken, ours;  // ours: cuBLASLt has no algorithm
    Key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
} Plan;

enum { PLANS = 4096, WORKSPACE_ALIGNMENT = 256 };

struct VlCudaBlas {
    VlCublas cublas;
    cublasLtHandle_t handle;
    cublasLtMatmulPreference_t preference;
    Plan plans[PLANS];  // a hash table that is at most half full
    int64_t taken;
};

static VlStatus check(const VlCudaBlas *blas, cublasStatus_t code, const char *what) {
    if (code == CUBLAS_STATUS_SUCCESS) return VL_OK;
    VlStatus status = code == CUBLAS_STATUS_ALLOC_FAILED ? VL_OUT_OF_MEMORY : VL_INTERNAL;
    return vl_error(status, "cuBLASLt, %s: %s", what, blas->cublas.cublasLtGetStatusString(code));
}

static void forget(VlCudaBlas *blas, Plan *plan) {
    if (plan->product) blas->cublas.cublasLtMatmulDescDestroy(plan->product);
    if (plan->a) blas->cublas.cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b) blas->cublas.cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->c) blas->cublas.cublasLtMatrixLayoutDestroy(plan->c);
    *plan = {};
}

// The largest power of 2 up to 64, which arenas give, that divides the address.
static uint16_t alignment_of(const void *address) {
    uintptr_t bits = (uintptr_t)address | 64;
    return (uint16_t)(bits & (~bits + 1));
}

static Key key_of(const VlCudaGemm &g) {
    Key key = {};
    key.m = g.m, key.n = g.n, key.k = g.k;
    key.a_leading = g.a_leading, key.b_leading = g.b_leading, key.c_leading = g.c_leading;
    key.a_aligned = alignment_of(g.a), key.b_aligned = alignment_of(g.b), key.c_aligned = alignment_of(g.c);
    key.bias_aligned = g.bias ? alignment_of(g.bias) : 0;
    key.a_transposed = g.a_transposed, key.b_transposed = g.b_transposed, key.add = g.add;
    key.input = (uint8_t)g.input, key.output = (uint8_t)g.output;
    return key;
}

// Where the key's plan is or goes: a place that is not taken, or the one with this key. Collisions go on to the next.
static Plan *place_of(VlCudaBlas *blas, const Key &key) {
    uint64_t hash = 14695981039346656037u;  // FNV-1a
    for (size_t i = 0; i < sizeof key; i++) hash = (hash ^ ((const uint8_t *)&key)[i]) * 1099511628211u;
    for (uint64_t i = hash ^ hash >> 32;; i++) {
        Plan *plan = &blas->plans[i % PLANS];
        if (!plan->taken || memcmp(&plan->key, &key, sizeof key) == 0) return plan;
    }
}

// ---- cuBLASLt -------------------------------------------------------------------

static cudaDataType type_of(VlDtype dtype) { return dtype == VL_F32 ? CUDA_R_32F : CUDA_R_16BF; }

template <class T>
static VlStatus set(const VlCudaBlas *blas, cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                    T value) {
    return check(blas, blas->cublas.cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value),
                 "describing a product");
}

template <class T>
static VlStatus prefer(const VlCudaBlas *blas, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    return check(blas,
                 blas->cublas.cublasLtMatmulPreferenceSetAttribute(blas->preference, attribute, &value, sizeof value),
                 "describing a preference");
}

// The stored matrix of `rows` rows and `columns` columns, or of their transpose, as its column-major transpose.
static VlStatus lay_out(const VlCudaBlas *blas, cublasLtMatrixLayout_t *layout, VlDtype dtype, int64_t rows,
                        int64_t columns, bool transposed, int64_t leading) {
    uint64_t height = (uint64_t)(transposed ? rows : columns), width = (uint64_t)(transposed ? columns : rows);
    return check(blas, blas->cublas.cublasLtMatrixLayoutCreate(layout, type_of(dtype), height, width, leading),
                 "describing a matrix");
}

static VlStatus describe(const VlCudaBlas *blas, Plan *plan, const VlCudaGemm &g) {
    VL_TRY(check(blas, blas->cublas.cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "describing a product"));
    VL_TRY(set(blas, plan->product, CUBLASLT_MATMUL_DESC_TRANSA, g.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
    VL_TRY(set(blas, plan->product, CUBLASLT_MATMUL_DESC_TRANSB, g.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
    if (g.bias) {
        VL_TRY(set(blas, plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS));
        VL_TRY(set(blas, plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias));
    }
    VL_TRY(lay_out(blas, &plan->a, g.input, g.k, g.n, g.b_transposed, g.b_leading));
    VL_TRY(lay_out(blas, &plan->b, g.input, g.m, g.k, g.a_transposed, g.a_leading));
    VL_TRY(lay_out(blas, &plan->c, g.output, g.m, g.n, false, g.c_leading));
    return VL_OK;
}

// The fastest algorithm by cuBLASLt's own estimate, of those whose sums have one order.
static VlStatus choose(const VlCudaBlas *blas, Plan *plan, const Key &key, int64_t workspace) {
    VL_TRY(prefer(blas, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (uint64_t)workspace));
    VL_TRY(prefer(blas, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    VL_TRY(prefer(blas, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)key.b_aligned));
    VL_TRY(prefer(blas, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)key.a_aligned));
    VL_TRY(prefer(blas, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)key.c_aligned));
    VL_TRY(prefer(blas, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)key.c_aligned));
    cublasLtMatmulHeuristicResult_t found = {};
    int count = 0;
    cublasStatus_t code = blas->cublas.cublasLtMatmulAlgoGetHeuristic(
        blas->handle, plan->product, plan->a, plan->b, plan->c, plan->c, blas->preference, 1, &found, &count);
    bool refused = code == CUBLAS_STATUS_NOT_SUPPORTED;
    if (!refused) VL_TRY(check(blas, code, "choosing an algorithm"));
    plan->ours = refused || count == 0 || found.state != CUBLAS_STATUS_SUCCESS;
    if (plan->ours) {
        vl_log(VL_LOG_WARNING,
               "cuBLASLt has no product of [%lld,%lld] and [%lld,%lld] in %s: a slow one of our own serves",
               (long long)key.m, (long long)key.k, (long long)key.k, (long long)key.n,
               vl_dtype_name((VlDtype)key.input));
    }
    plan->algorithm = found.algo;
    return VL_OK;
}

static VlStatus find_plan(VlCudaBlas *blas, Plan **out, const VlCudaGemm &g, int64_t workspace) {
    Key key = key_of(g);
    Plan *plan = place_of(blas, key);
    if (!plan->taken && blas->taken == PLANS / 2) {
        for (int64_t i = 0; i < PLANS; i++) forget(blas, &blas->plans[i]);
        blas->taken = 0;
        plan = place_of(blas, key);
    }
    *out = plan;
    if (plan->taken) return VL_OK;
    VlStatus status = describe(blas, plan, g);
    if (status == VL_OK) status = choose(blas, plan, key, workspace);
    if (status != VL_OK) {
        forget(blas, plan);
        return status;
    }
    plan->taken = true;
    plan->key = key;
    blas->taken++;
    return VL_OK;
}

static VlStatus multiply(VlContext *context, const VlCudaGemm &g) {
    VlCudaState *state = vl_cuda_state(context);
    VlCudaBlas *blas = state->blas;
    VlTensor scratch;
    VL_TRY(vl_scratch_gemm(context, &scratch));
    uintptr_t workspace =
        ((uintptr_t)scratch.data + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    int64_t bytes = vl_bytes(scratch) - WORKSPACE_ALIGNMENT;
    Plan *plan;
    VL_TRY(find_plan(blas, &plan, g, bytes));
    if (plan->ours) return multiply_in_tiles(context, g);
    if (g.bias) VL_TRY(set(blas, plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias));
    const float alpha = 1, beta = g.add ? 1 : 0;
    cublasStatus_t code = blas->cublas.cublasLtMatmul(blas->handle, plan->product, &alpha, g.b, plan->a, g.a, plan->b,
                                                      &beta, g.c, plan->c, g.c, plan->c, &plan->algorithm,
                                                      (void *)workspace, (size_t)bytes, state->stream);
    if (code != CUBLAS_STATUS_SUCCESS) {
        return vl_error(VL_INTERNAL, "cuBLASLt, a product of [%lld,%lld] and [%lld,%lld]: %s", (long long)g.m,
                        (long long)g.k, (long long)g.k, (long long)g.n, blas->cublas.cublasLtGetStatusString(code));
    }
    return state->waits ? vl_cuda_wait(context) : VL_OK;
}

VlStatus vl_cuda_gemm(VlContext *context, const VlCudaGemm &gemm) {
    VlCudaGemm rest = gemm;
    if (gemm.m == 0 || gemm.n == 0) return VL_OK;
    if (gemm.k == 0) return multiply_in_tiles(context, gemm);
    if (gemm.bias && gemm.input != gemm.output) {  // cuBLASLt's bias is of c's type
        rest.k = 0;
        VL_TRY(multiply_in_tiles(context, rest));
        rest = gemm;
        rest.bias = NULL;
        rest.add = true;
    }
    int64_t mark = vl_arena_mark(&context->scratch);
    VlStatus status = multiply(context, rest);
    vl_arena_release(&context->scratch, mark);
    return status;
}

// ---- Opening --------------------------------------------------------------------

VlStatus vl_cuda_blas_open(struct VlCudaBlas **blas) {
    *blas = NULL;
    VlCudaBlas *made;
    VL_TRY(VL_NEW(&made, 1));
    VlStatus status = vl_cuda_load_cublas(&made->cublas);
    if (status == VL_OK) status = check(made, made->cublas.cublasLtCreate(&made->handle), "opening it");
    if (status == VL_OK) {
        status = check(made, made->cublas.cublasLtMatmulPreferenceCreate(&made->preference), "making a preference");
    }
    if (status != VL_OK) {
        vl_cuda_blas_close(made);
        return status;
    }
    *blas = made;
    return VL_OK;
}

void vl_cuda_blas_close(struct VlCudaBlas *blas) {
    if (!blas) return;
    for (int64_t i = 0; i < PLANS; i++) forget(blas, &blas->plans[i]);
    if (blas->preference) blas->cublas.cublasLtMatmulPreferenceDestroy(blas->preference);
    if (blas->handle) blas->cublas.cublasLtDestroy(blas->handle);
    vl_free(blas);
}
