#include "ops/cuda/row_index.cuh"

VlStatus vl_cuda_embedding_forward(VlContext *context, VlTensor y, VlTensor table, VlTensor ids) {
    return vl_cuda_take_rows(context, y, table, ids);
}

enum { THREADS = 256 };

// A word's slot in the hash table: the first free one, or the one that has it, from the word's own on. Which of several
// words gets a slot depends on the launch's timing; what is summed does not.
static __global__ void slot_kernel(int64_t *slots, unsigned long long *words, const int64_t *ids, int64_t tokens,
                                   int64_t count, int64_t bound, VlCudaFault *fault) {
    for (int64_t t = grid_index(); t < tokens; t += grid_stride()) {
        slots[t] = -1;
        if (!index_fits(fault, t, ids[t], bound)) continue;
        unsigned long long key = (unsigned long long)ids[t] + 1;
        int64_t slot = (int64_t)(key * 0x9e3779b97f4a7c15u >> 20) & (count - 1);  // Fibonacci hashing
        for (unsigned long long taken; (taken = atomicCAS(words + slot, 0ull, key)) != 0 && taken != key;) {
            slot = (slot + 1) & (count - 1);
        }
        slots[t] = slot;
    }
}

// The rows of threads at a word's first place add all of its places.
template <class T, int N>
static __global__ void add_kernel(float *dtable, const T *dy, const int64_t *ids, const int64_t *slots,
                                  const int64_t *begin, const int64_t *places, int64_t count, int64_t columns) {
    int64_t at = grid_row();
    if (at >= begin[count]) return;
    int64_t slot = slots[places[at]], word = ids[places[at]];
    if (begin[slot] != at) return;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        float *to = dtable + word * columns + c;
        Floats<N> sum = load_floats<N>(to);
        add_places<T>(sum, dy, columns, c, places + at, begin[slot + 1] - at);
        store_floats(to, sum);
    }
}

static VlStatus add_rows(VlContext *context, VlTensor dtable, VlTensor dy, VlTensor ids, const VlEmbedding &scratch) {
    int64_t columns = dy.dim[1];
    return with_groups(dy.dtype, rows_aligned(columns, dtable, dy), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(dy.dim[0], columns, n);
        return launch(context, add_kernel<T, n>, grid.grid, grid.block, 0, data_of<float>(dtable), data_of<T>(dy),
                      data_of<int64_t>(ids), data_of<int64_t>(scratch.slots), data_of<int64_t>(scratch.places.begin),
                      data_of<int64_t>(scratch.places.places), scratch.words.dim[0], columns);
    });
}

static VlStatus add_words(VlContext *context, VlTensor dtable, VlTensor dy, VlTensor ids, const VlEmbedding &scratch) {
    int64_t tokens = dy.dim[0], count = scratch.words.dim[0];
    VL_TRY(vl_cuda_zero(context, scratch.words));
    VL_TRY(launch(context, slot_kernel, blocks_for(tokens, THREADS), dim3(THREADS), 0, data_of<int64_t>(scratch.slots),
                  data_of<unsigned long long>(scratch.words), data_of<int64_t>(ids), tokens, count, dtable.dim[0],
                  vl_cuda_state(context)->fault));
    VL_TRY(vl_cuda_sort_places(context, scratch.places, scratch.slots, count));
    return add_rows(context, dtable, dy, ids, scratch);
}

VlStatus vl_cuda_embedding_backward(VlContext *context, VlTensor dtable, VlTensor dy, VlTensor ids) {
    if (vl_is_empty(dtable)) return VL_OK;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlEmbedding scratch;
    VL_TRY(vl_scratch_embedding(context, &scratch, dy.dim[0]));
    VlStatus status = add_words(context, dtable, dy, ids, scratch);
    vl_arena_release(&context->scratch, mark);
    return status;
}
