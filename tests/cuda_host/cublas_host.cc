// Matrix products of the stand-in for cuBLASLt, and the place of ops/cuda/libraries.cu. It is stricter than cuBLASLt: a
// matrix that is not all in one allocation of device memory, a pointer less aligned than was promised, a scheme of
// reduction that rounds to the output's type, and a description that the algorithm was not chosen for are errors.
#include <cublasLt.h>
#include <string.h>

#include <vector>

#include "ops/cuda/libraries.cuh"

extern "C" {
#include "base/dtype.h"
}

enum { WORKSPACE = 4096, COLUMNS = 256, PIECE = 64 };

struct cublasLtContext {
    int opened;
};

struct HostProduct {
    cublasOperation_t operations[2];
    cublasLtEpilogue_t epilogue;
    const void *bias;
};

struct HostMatrix {  // column-major
    cudaDataType type;
    int64_t rows, columns, leading;

    int64_t size() const { return type == CUDA_R_32F ? 4 : 2; }
    int64_t bytes() const { return ((columns - 1) * leading + rows) * size(); }
    float at(const void *data, int64_t row, int64_t column) const {
        int64_t place = column * leading + row;
        return type == CUDA_R_32F ? ((const float *)data)[place] : vl_f32_from_bf16(((const VlBf16 *)data)[place]);
    }
};

struct HostPreference {
    uint64_t workspace;
    uint32_t schemes, aligned[4];
};

// All that an algorithm was chosen for.
struct Choice {
    int64_t m, n, k;
    uint16_t aligned[4];
    uint8_t operations[2], types[2], bias;

    bool operator==(const Choice &) const = default;
};
static_assert(sizeof(Choice) <= sizeof(cublasLtMatmulAlgo_t));

VlStatus vl_cuda_load_cublas(VlCublas *cublas) {
#define FUNCTION(name) cublas->name = name;
    VL_CUBLAS_FUNCTIONS(FUNCTION)
#undef FUNCTION
    return VL_OK;
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : status ? "an invalid value" : "success";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    *handle = new cublasLtContext{1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

// ---- Descriptions -----------------------------------------------------------

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *product, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    *product = NULL;
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_INVALID_VALUE;
    *product = new HostProduct{{CUBLAS_OP_N, CUBLAS_OP_N}, CUBLASLT_EPILOGUE_DEFAULT, NULL};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
    delete product;
    return CUBLAS_STATUS_SUCCESS;
}

// A value of the attribute's own size.
template <class T>
static cublasStatus_t take(T *to, const void *value, size_t bytes) {
    if (!value || bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, sizeof *to);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(&product->operations[0], value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(&product->operations[1], value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(&product->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(&product->bias, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *matrix, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
    *matrix = new HostMatrix{type, (int64_t)rows, (int64_t)columns, leading};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matrix) {
    delete matrix;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    *preference = new HostPreference{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return take(&preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return take(&preference->schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return take(&preference->aligned[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return take(&preference->aligned[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return take(&preference->aligned[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return take(&preference->aligned[3], value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

// ---- The choice of an algorithm -----------------------------------------------

static bool is_sound(const HostMatrix &matrix) {
    return matrix.rows > 0 && matrix.columns > 0 && matrix.leading >= matrix.rows;
}

// What is to be multiplied; false where the matrices do not fit together.
static bool make_choice(Choice *choice, const HostProduct &product, const HostMatrix &a, const HostMatrix &b,
                        const HostMatrix &c, const HostMatrix &d) {
    bool turned[2] = {product.operations[0] == CUBLAS_OP_T, product.operations[1] == CUBLAS_OP_T};
    *choice = {};
    choice->m = d.rows;
    choice->n = d.columns;
    choice->k = turned[0] ? a.rows : a.columns;
    for (int i = 0; i < 2; i++) choice->operations[i] = (uint8_t)product.operations[i];
    choice->types[0] = (uint8_t)a.type;
    choice->types[1] = (uint8_t)d.type;
    choice->bias = product.epilogue == CUBLASLT_EPILOGUE_BIAS;
    return is_sound(a) && is_sound(b) && is_sound(c) && is_sound(d) && (turned[0] ? a.columns : a.rows) == choice->m &&
           (turned[1] ? b.columns : b.rows) == choice->k && (turned[1] ? b.rows : b.columns) == choice->n &&
           c.rows == d.rows && c.columns == d.columns && c.leading == d.leading && a.type == b.type &&
           c.type == d.type && (a.type != CUDA_R_32F || d.type == CUDA_R_32F) && (!choice->bias || product.bias);
}

static bool odd(const HostMatrix &matrix) { return matrix.leading * matrix.size() % 4 != 0; }

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int *found) {
    const uint32_t rounding = CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    Choice choice;
    *found = 0;
    if (!handle || asked < 1 || preference->schemes & rounding) return CUBLAS_STATUS_INVALID_VALUE;
    if (!make_choice(&choice, *product, *a, *b, *c, *d)) return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 4; i++) choice.aligned[i] = (uint16_t)preference->aligned[i];
    // Nothing promises that these are done: rows of bf16 that begin between words, a bias of another type than D's, a
    // bias that is not aligned.
    if (odd(*a) || odd(*b) || odd(*d) || preference->workspace < WORKSPACE) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (choice.bias && (d->type != a->type || (uintptr_t)product->bias % 16)) return CUBLAS_STATUS_NOT_SUPPORTED;
    results[0] = {};
    memcpy(&results[0].algo, &choice, sizeof choice);
    results[0].workspaceSize = WORKSPACE;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

// ---- The product ----------------------------------------------------------------

struct Product {
    HostProduct product;
    HostMatrix a, b, d;
    const void *a_data, *b_data;
    void *d_data;
    int64_t k;
    float alpha, beta;
};

static void store(const Product &p, int64_t row, int64_t column, double sum) {
    double value = (double)p.alpha * sum;
    if (p.beta != 0) value += (double)(p.beta * p.d.at(p.d_data, row, column));
    if (p.product.epilogue == CUBLASLT_EPILOGUE_BIAS) {
        const void *bias = p.product.bias;
        value += (double)(p.d.type == CUDA_R_32F ? ((const float *)bias)[row]
                                                 : vl_f32_from_bf16(((const VlBf16 *)bias)[row]));
    }
    int64_t place = column * p.d.leading + row;
    if (p.d.type == CUDA_R_32F) {
        ((float *)p.d_data)[place] = (float)value;
    } else {
        ((VlBf16 *)p.d_data)[place] = vl_bf16_from_f32((float)value);
    }
}

// Up to COLUMNS rows of one column of D; a [k][rows of D], b [k]. Pieces along k in f32, their sums in f64.
static void multiply_block(double *sums, const float *a, int64_t a_leading, const float *b, int64_t k, int64_t count) {
    for (int64_t i = 0; i < count; i++) sums[i] = 0;
    for (int64_t begin = 0; begin < k; begin += PIECE) {
        float piece[COLUMNS] = {};
        for (int64_t at = begin; at < k && at < begin + PIECE; at++) {
            for (int64_t i = 0; i < count; i++) piece[i] += a[at * a_leading + i] * b[at];
        }
        for (int64_t i = 0; i < count; i++) sums[i] += (double)piece[i];
    }
}

static void multiply(const Product &p) {
    std::vector<float> a((size_t)(p.k * p.d.rows)), b((size_t)(p.k * p.d.columns));
    bool a_turned = p.product.operations[0] == CUBLAS_OP_T, b_turned = p.product.operations[1] == CUBLAS_OP_T;
#pragma omp parallel for
    for (int64_t at = 0; at < p.k; at++) {
        for (int64_t i = 0; i < p.d.rows; i++) {
            a[(size_t)(at * p.d.rows + i)] = a_turned ? p.a.at(p.a_data, at, i) : p.a.at(p.a_data, i, at);
        }
    }
#pragma omp parallel for
    for (int64_t j = 0; j < p.d.columns; j++) {
        for (int64_t at = 0; at < p.k; at++) {
            b[(size_t)(j * p.k + at)] = b_turned ? p.b.at(p.b_data, j, at) : p.b.at(p.b_data, at, j);
        }
    }
#pragma omp parallel for collapse(2)
    for (int64_t begin = 0; begin < p.d.rows; begin += COLUMNS) {
        for (int64_t j = 0; j < p.d.columns; j++) {
            double sums[COLUMNS];
            int64_t left = p.d.rows - begin, count = left < COLUMNS ? left : (int64_t)COLUMNS;
            multiply_block(sums, a.data() + begin, p.d.rows, b.data() + j * p.k, p.k, count);
            for (int64_t i = 0; i < count; i++) store(p, begin + i, j, sums[i]);
        }
    }
}

static bool apart(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes) {
    return (const char *)a + a_bytes <= (const char *)b || (const char *)b + b_bytes <= (const char *)a;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    Choice choice, chosen;
    if (!handle || !algorithm || c != d) return CUBLAS_STATUS_INVALID_VALUE;
    if (!make_choice(&choice, *product, *a_layout, *b_layout, *c_layout, *d_layout)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&chosen, algorithm, sizeof chosen);
    memcpy(choice.aligned, chosen.aligned, sizeof choice.aligned);
    if (choice != chosen) return CUBLAS_STATUS_INVALID_VALUE;
    const void *const data[] = {a, b, d};
    const HostMatrix *const layouts[] = {a_layout, b_layout, d_layout};
    for (int i = 0; i < 3; i++) {
        if ((uintptr_t)data[i] % chosen.aligned[i == 2 ? 3 : i] != 0) return CUBLAS_STATUS_INVALID_VALUE;
        if (!host_is_device(data[i], (size_t)layouts[i]->bytes())) return CUBLAS_STATUS_INVALID_VALUE;
        if (!apart(data[i], layouts[i]->bytes(), workspace, WORKSPACE)) return CUBLAS_STATUS_INVALID_VALUE;
        if (i < 2 && !apart(data[i], layouts[i]->bytes(), d, d_layout->bytes())) return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (choice.bias && !host_is_device(product->bias, (size_t)(d_layout->rows * d_layout->size()))) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (workspace_bytes < WORKSPACE || (uintptr_t)workspace % 256) return CUBLAS_STATUS_INVALID_VALUE;
    if (!host_is_device(workspace, workspace_bytes)) return CUBLAS_STATUS_INVALID_VALUE;
    Product p = {
        *product, *a_layout, *b_layout, *d_layout, a, b, d, choice.k, *(const float *)alpha, *(const float *)beta};
    cudaError_t code = host_queue(stream, [p, workspace] {
        memset(workspace, 0xff, WORKSPACE);
        multiply(p);
    });
    return code == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
