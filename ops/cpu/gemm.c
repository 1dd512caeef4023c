#include "ops/cpu/gemm.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>

#include "ops/cpu/blocks.h"

// What changed between oneDNN 2 and 3.
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t Layout;
static dnnl_status_t layout_create(Layout *layout, const dnnl_dims_t dims, dnnl_data_type_t type,
                                   const dnnl_dims_t strides) {
    return dnnl_memory_desc_create_with_strides(layout, 2, dims, type, strides);
}
static void layout_free(Layout *layout) { dnnl_memory_desc_destroy(*layout); }
static dnnl_status_t memory_create(dnnl_memory_t *memory, const Layout *layout, dnnl_engine_t engine, void *data) {
    return dnnl_memory_create(memory, *layout, engine, data);
}
static dnnl_status_t append_sum(dnnl_post_ops_t operations) {
    return dnnl_post_ops_append_sum(operations, 1.0f, 0, dnnl_data_type_undef);
}
static dnnl_status_t matmul_create(dnnl_primitive_desc_t *description, dnnl_engine_t engine, const Layout *layouts,
                                   bool bias, dnnl_primitive_attr_t attributes) {
    return dnnl_matmul_primitive_desc_create(description, engine, layouts[0], layouts[1], bias ? layouts[3] : NULL,
                                             layouts[2], attributes);
}
#else
typedef dnnl_memory_desc_t Layout;
static dnnl_status_t layout_create(Layout *layout, const dnnl_dims_t dims, dnnl_data_type_t type,
                                   const dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(layout, 2, dims, type, strides);
}
static void layout_free(Layout *layout) { (void)layout; }
static dnnl_status_t memory_create(dnnl_memory_t *memory, const Layout *layout, dnnl_engine_t engine, void *data) {
    return dnnl_memory_create(memory, layout, engine, data);
}
static dnnl_status_t append_sum(dnnl_post_ops_t operations) { return dnnl_post_ops_append_sum(operations, 1.0f); }
static dnnl_status_t matmul_create(dnnl_primitive_desc_t *description, dnnl_engine_t engine, const Layout *layouts,
                                   bool bias, dnnl_primitive_attr_t attributes) {
    dnnl_matmul_desc_t operation;
    dnnl_status_t status =
        dnnl_matmul_desc_init(&operation, &layouts[0], &layouts[1], bias ? &layouts[3] : NULL, &layouts[2]);
    return status ? status : dnnl_primitive_desc_create(description, &operation, attributes, engine, NULL);
}
#endif

static void prefill_f32(const VlGemm *gemm) {
    const float *bias = gemm->bias;
    for (int64_t i = 0; i < gemm->m; i++) {
        float *row = (float *)gemm->c + i * gemm->c_leading;
        if (gemm->add) {
            for (int64_t j = 0; j < gemm->n; j++) row[j] += bias[j];
        } else {
            memcpy(row, bias, (size_t)gemm->n * sizeof *row);
        }
    }
}

static dnnl_status_t multiply_f32(const VlGemm *gemm) {
    if (gemm->bias) prefill_f32(gemm);
    return dnnl_sgemm(gemm->a_transposed ? 'T' : 'N', gemm->b_transposed ? 'T' : 'N', gemm->m, gemm->n, gemm->k, 1.0f,
                      gemm->a, gemm->a_leading, gemm->b, gemm->b_leading, gemm->add || gemm->bias ? 1.0f : 0.0f,
                      gemm->c, gemm->c_leading);
}

static dnnl_data_type_t type_of(VlDtype dtype) { return dtype == VL_F32 ? dnnl_f32 : dnnl_bf16; }

static dnnl_status_t matrix_layout(Layout *layout, int64_t rows, int64_t columns, VlDtype dtype, bool transposed,
                                   int64_t leading) {
    const dnnl_dims_t dims = {rows, columns}, strides = {transposed ? 1 : leading, transposed ? leading : 1};
    return layout_create(layout, dims, type_of(dtype), strides);
}

enum { OPERANDS = 4 };  // a, b, c, bias

static dnnl_status_t create_layouts(const VlGemm *gemm, Layout layouts[OPERANDS], int *made) {
    int64_t m = gemm->m, n = gemm->n, k = gemm->k;
    for (*made = 0; *made < OPERANDS; ++*made) {
        Layout *layout = &layouts[*made];
        dnnl_status_t status =
            *made == 0   ? matrix_layout(layout, m, k, gemm->input, gemm->a_transposed, gemm->a_leading)
            : *made == 1 ? matrix_layout(layout, k, n, gemm->input, gemm->b_transposed, gemm->b_leading)
            : *made == 2 ? matrix_layout(layout, m, n, gemm->output, false, gemm->c_leading)
                         : matrix_layout(layout, 1, n, gemm->input, false, n);
        if (status) return status;
    }
    return dnnl_success;
}

static dnnl_status_t create_primitive(dnnl_primitive_t *primitive, dnnl_engine_t engine, const VlGemm *gemm,
                                      const Layout *layouts) {
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t operations = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attributes);
    if (!status) status = dnnl_post_ops_create(&operations);
    if (!status && gemm->add) status = append_sum(operations);
    if (!status) status = dnnl_primitive_attr_set_post_ops(attributes, operations);
    if (!status) status = matmul_create(&description, engine, layouts, gemm->bias != NULL, attributes);
    if (!status) status = dnnl_primitive_create(primitive, description);
    if (description) dnnl_primitive_desc_destroy(description);
    if (operations) dnnl_post_ops_destroy(operations);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    return status;
}

static dnnl_status_t execute(dnnl_primitive_t primitive, dnnl_engine_t engine, const VlGemm *gemm,
                             const Layout *layouts) {
    static const int names[OPERANDS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
    void *data[OPERANDS] = {(void *)(uintptr_t)gemm->a, (void *)(uintptr_t)gemm->b, gemm->c,
                            (void *)(uintptr_t)gemm->bias};
    dnnl_exec_arg_t arguments[OPERANDS] = {0};
    dnnl_stream_t stream = NULL;
    dnnl_status_t status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    int count = 0, operands = gemm->bias ? OPERANDS : OPERANDS - 1;
    for (; !status && count < operands; count += !status) {
        arguments[count].arg = names[count];
        status = memory_create(&arguments[count].memory, &layouts[count], engine, data[count]);
    }
    if (!status) status = dnnl_primitive_execute(primitive, stream, operands, arguments);
    if (!status) status = dnnl_stream_wait(stream);
    for (int i = 0; i < count; i++) dnnl_memory_destroy(arguments[i].memory);
    if (stream) dnnl_stream_destroy(stream);
    return status;
}

// The code of a primitive comes from oneDNN's own cache: making one anew costs some 10 us. A primitive's temporary
// memory belongs to the thread that makes it, so each thread makes its own.
static dnnl_status_t multiply_bf16(const VlGemm *gemm, dnnl_engine_t engine) {
    Layout layouts[OPERANDS];
    int made = 0;
    dnnl_primitive_t primitive = NULL;
    dnnl_status_t status = create_layouts(gemm, layouts, &made);
    if (!status) status = create_primitive(&primitive, engine, gemm, layouts);
    if (!status) status = execute(primitive, engine, gemm, layouts);
    if (primitive) dnnl_primitive_destroy(primitive);
    for (int i = 0; i < made; i++) layout_free(&layouts[i]);
    return status;
}

typedef struct Tiles {
    int64_t rows, columns, row_tiles, column_tiles;
} Tiles;

// The longer side is halved until a tile is small enough for the caches and there are tiles for several threads, unless
// there is too little work in one.
static Tiles choose_tiles(int64_t m, int64_t n, int64_t k) {
    enum { LARGEST = 640, SMALLEST = 64, LEAST_WORK = 1 << 20, MUCH_WORK = 1 << 30, GRAIN = 16 };
    Tiles tiles = {m, n, 1, 1};
    int64_t enough = (double)m * (double)n * (double)k > MUCH_WORK ? 8 : 4;
    for (;;) {
        int64_t longer = tiles.rows > tiles.columns ? tiles.rows : tiles.columns;
        bool few = tiles.row_tiles * tiles.column_tiles < enough && longer > SMALLEST &&
                   tiles.rows * tiles.columns * k > 2 * LEAST_WORK;
        if (longer <= LARGEST && !few) return tiles;
        int64_t half = vl_divide_up(vl_divide_up(longer, 2), GRAIN) * GRAIN;
        if (tiles.rows > tiles.columns) {
            tiles.rows = half;
            tiles.row_tiles = vl_divide_up(m, half);
        } else {
            tiles.columns = half;
            tiles.column_tiles = vl_divide_up(n, half);
        }
    }
}

static VlGemm tile_of(const VlGemm *gemm, Tiles tiles, int64_t index) {
    int64_t i = index % tiles.row_tiles * tiles.rows, j = index / tiles.row_tiles * tiles.columns;
    int64_t in = vl_dtype_size(gemm->input), out = vl_dtype_size(gemm->output);
    VlGemm tile = *gemm;
    tile.m = vl_minimum(tiles.rows, gemm->m - i);
    tile.n = vl_minimum(tiles.columns, gemm->n - j);
    tile.a = (const char *)gemm->a + (gemm->a_transposed ? i : i * gemm->a_leading) * in;
    tile.b = (const char *)gemm->b + (gemm->b_transposed ? j * gemm->b_leading : j) * in;
    tile.c = (char *)gemm->c + (i * gemm->c_leading + j) * out;
    if (gemm->bias) tile.bias = (const char *)gemm->bias + j * in;
    return tile;
}

static VlStatus describe_failure(dnnl_status_t status, const VlGemm *gemm) {
    if (status == dnnl_out_of_memory) {
        return vl_error(VL_OUT_OF_MEMORY, "oneDNN has no memory for a product of %lld x %lld x %lld",
                        (long long)gemm->m, (long long)gemm->n, (long long)gemm->k);
    }
    return vl_error(VL_UNSUPPORTED, "oneDNN cannot multiply %s to %s on this processor (status %d)%s",
                    vl_dtype_name(gemm->input), vl_dtype_name(gemm->output), (int)status,
                    gemm->input == VL_BF16 ? "; bf16 needs AVX-512: use f32" : "");
}

// The product of no columns: what is added to it.
static void multiply_nothing(const VlGemm *gemm) {
    int64_t out = vl_dtype_size(gemm->output);
    for (int64_t i = 0; i < gemm->m; i++) {
        char *row = (char *)gemm->c + i * gemm->c_leading * out;
        if (!gemm->add) memset(row, 0, (size_t)(gemm->n * out));
        if (!gemm->bias) continue;
        VlTensor to = vl_tensor(row, gemm->output, gemm->n);
        for (int64_t j = 0; j < gemm->n; j += VL_BLOCK) {
            float values[VL_BLOCK];
            int64_t count = vl_minimum(VL_BLOCK, gemm->n - j);
            vl_convert(values, VL_F32, (const char *)gemm->bias + j * vl_dtype_size(gemm->input), gemm->input, count);
            vl_block_convert(to, j, count, VL_ADD, values);
        }
    }
}

VlStatus vl_gemm(VlContext *context, VlGemm gemm) {
    if (gemm.m == 0 || gemm.n == 0) return VL_OK;
    if (gemm.k == 0) {
        multiply_nothing(&gemm);
        return VL_OK;
    }
    context->multiplied += 2 * gemm.m * gemm.n * gemm.k;
    Tiles tiles = choose_tiles(gemm.m, gemm.n, gemm.k);
    int64_t count = tiles.row_tiles * tiles.column_tiles;
    dnnl_status_t failure = dnnl_success;
    dnnl_engine_t engine = NULL;
    if (gemm.input == VL_BF16) failure = dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (!failure) {
#pragma omp parallel num_threads((int)vl_minimum(context->threads, count))
        {
            int threads = omp_get_max_threads();
            omp_set_num_threads(1);  // each tile is one thread's; a team of one counts as no team for oneDNN
#pragma omp for schedule(dynamic, 1)
            for (int64_t t = 0; t < count; t++) {
                VlGemm tile = tile_of(&gemm, tiles, t);
                dnnl_status_t status = gemm.input == VL_BF16 ? multiply_bf16(&tile, engine) : multiply_f32(&tile);
                if (status) {
#pragma omp atomic write
                    failure = status;
                }
            }
            omp_set_num_threads(threads);
        }
    }
    if (engine) dnnl_engine_destroy(engine);
    return failure ? describe_failure(failure, &gemm) : VL_OK;
}
