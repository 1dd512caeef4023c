#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/scratch_rows.h"

VlStatus vl_cpu_gather_rows_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor index) {
    int64_t bytes = y.dim[1] * vl_dtype_size(y.dtype);
    const int64_t *from = index.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(y)))
    for (int64_t i = 0; i < y.dim[0]; i++) {
        memcpy((char *)y.data + i * bytes, (const char *)x.data + from[i] * bytes, (size_t)bytes);
    }
    return VL_OK;
}

// places = the places of row 0, in rising order, then those of row 1, ...; those of row r start at begin[r]. A counting
// sort.
static void sort_places(int64_t *begin, int64_t *places, int64_t rows, const int64_t *index, int64_t count) {
    memset(begin, 0, (size_t)(rows + 1) * sizeof *begin);
    for (int64_t i = 0; i < count; i++) begin[index[i] + 1]++;
    for (int64_t r = 0; r < rows; r++) begin[r + 1] += begin[r];
    // Filled from the back, a row's end moves down to its begin, which is kept one row further.
    for (int64_t i = count - 1; i >= 0; i--) places[--begin[index[i] + 1]] = i;
    memmove(begin, begin + 1, (size_t)rows * sizeof *begin);
    begin[rows] = count;
}

static void sum_places(VlTensor dx, VlTensor dy, int64_t row, const int64_t *places, int64_t count) {
    int64_t columns = dx.dim[1];
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        float buffers[2][VL_BLOCK];
        int64_t width = vl_minimum(VL_BLOCK, columns - c);
        float *sum = vl_block_target(dx, row * columns + c, VL_WRITE, buffers[0]);
        memset(sum, 0, (size_t)width * sizeof *sum);
        for (int64_t i = 0; i < count; i++) {
            vl_block_sum(sum, sum, vl_block_read(dy, places[i] * columns + c, width, buffers[1]), width);
        }
        vl_block_write(dx, row * columns + c, width, VL_WRITE, sum);
    }
}

VlStatus vl_cpu_gather_rows_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor index) {
    if (vl_is_empty(dx)) return VL_OK;
    int64_t rows = dx.dim[0], mark = vl_arena_mark(&context->scratch);
    VlPlaces places;
    VL_TRY(vl_scratch_gather_rows(context, &places, rows, dy.dim[0]));
    const int64_t *first = places.begin.data, *place = places.places.data;
    sort_places(places.begin.data, places.places.data, rows, index.data, dy.dim[0]);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dx) + vl_elements(dy)))
    for (int64_t row = 0; row < rows; row++) {
        sum_places(dx, dy, row, place + first[row], first[row + 1] - first[row]);
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}
