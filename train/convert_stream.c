#include "train/convert_stream.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/pool.h"
#include "base/sparse.h"
#include "train/signals.h"

// Elements that pass at a time: a whole number of hash pieces for elements of any size.
enum { UNIT = 2 << 20, MOST_THREADS = 4, LARGEST_ELEMENT = 8 };

// The part of a tensor that a thread works on.
typedef struct Unit {
    VlTask task;
    const VlConvertStream *stream;
    int64_t tensor, begin, count;
    VlHash *out_pieces, *in_pieces;  // of this part; in_pieces NULL when they are the same
    char *in, *out, *other;          // UNIT elements of the largest type
    bool differs;
} Unit;

// ---- Casting ------------------------------------------------------------------

static float as_f32(const char *data, VlDtype dtype, int64_t i) {
    float value;
    vl_convert(&value, VL_F32, data + i * vl_dtype_size(dtype), dtype, 1);
    return value;
}

static bool is_finite(const char *data, VlDtype dtype, int64_t i) {
    if (dtype != VL_F64) return isfinite(as_f32(data, dtype, i)) != 0;
    double value;
    memcpy(&value, data + i * (int64_t)sizeof value, sizeof value);
    return isfinite(value) != 0;
}

// The first element that was finite in `in` and is infinite in `out`; -1 when there is none.
static int64_t find_overflow(const char *out, VlDtype to, const char *in, VlDtype from, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (isinf(as_f32(out, to, i)) && is_finite(in, from, i)) return i;
    }
    return -1;
}

// Whether any element has the exponent of infinity and NaN: quick, so that the search above is rarely needed.
static bool any_special(const char *data, VlDtype dtype, int64_t count) {
    uint32_t special = 0;
    if (dtype == VL_F32) {
        const uint32_t *bits = (const uint32_t *)(const void *)data;
        for (int64_t i = 0; i < count; i++) special |= (bits[i] & 0x7f800000u) == 0x7f800000u;
    } else {
        const uint16_t *bits = (const uint16_t *)(const void *)data;
        uint16_t mask = dtype == VL_BF16 ? 0x7f80u : 0x7c00u;
        for (int64_t i = 0; i < count; i++) special |= (bits[i] & mask) == mask;
    }
    return special != 0;
}

static VlStatus cast(const VlConvertTensor *tensor, const char *in, char *out, int64_t begin, int64_t count) {
    VlDtype from = tensor->shape.dtype;
    vl_convert(out, tensor->to, in, from, count);
    if (tensor->to == VL_F64 || !any_special(out, tensor->to, count)) return VL_OK;
    int64_t i = find_overflow(out, tensor->to, in, from, count);
    if (i < 0) return VL_OK;
    return vl_error(VL_INVALID, "tensor %s: element %lld is %g, which %s cannot hold; take another --dtype",
                    tensor->name, (long long)(begin + i), (double)as_f32(in, from, i), vl_dtype_name(tensor->to));
}

// ---- One part -----------------------------------------------------------------------

static const VlReader *find_range(const VlConvertTensor *tensor, int64_t begin, int64_t *offset) {
    if (!tensor->weights || tensor->weights->format != VL_WEIGHTS_SAFETENSORS) return NULL;
    const VlSafetensors *set = &tensor->weights->safetensors;
    const VlSafetensorsEntry *entry = &set->entries[tensor->entry->position];
    *offset = entry->offset + begin * vl_dtype_size(tensor->shape.dtype);
    return &set->readers[entry->file];
}

// Whether the part is known to be zeros without reading it.
static bool is_hole(const VlConvertTensor *tensor, int64_t begin, int64_t count) {
    int64_t offset = 0;
    const VlReader *reader = find_range(tensor, begin, &offset);
    return reader && vl_reader_is_hole(reader, offset, count * vl_dtype_size(tensor->shape.dtype));
}

static VlStatus read_part(const VlConvertTensor *tensor, int64_t begin, int64_t count, char *data) {
    if (tensor->weights) return vl_weights_read_part(tensor->weights, tensor->entry, begin, count, data);
    vl_init_values(tensor->init, tensor->name, tensor->seed, begin, count, (float *)(void *)data);
    return VL_OK;
}

static VlStatus compare_part(Unit *unit, const char *out, int64_t bytes) {
    const VlConvertTensor *other = unit->stream->others[unit->tensor];
    if (!other) return VL_OK;
    if (!out && is_hole(other, unit->begin, unit->count)) return VL_OK;
    VL_TRY(read_part(other, unit->begin, unit->count, unit->other));
    unit->differs = out ? memcmp(out, unit->other, (size_t)bytes) != 0 : !vl_is_zero(unit->other, bytes);
    return VL_OK;
}

// Zeros that are a hole stay a hole.
static VlStatus pass_hole(Unit *unit, int64_t in_bytes, int64_t out_bytes) {
    vl_hash_pieces_of_zeros(out_bytes, unit->out_pieces);
    if (unit->in_pieces) vl_hash_pieces_of_zeros(in_bytes, unit->in_pieces);
    return unit->stream->others ? compare_part(unit, NULL, out_bytes) : VL_OK;
}

static VlStatus pass_part(void *argument) {
    Unit *unit = argument;
    const VlConvertTensor *tensor = &unit->stream->source->tensors[unit->tensor];
    int64_t in_bytes = unit->count * vl_dtype_size(tensor->shape.dtype);
    int64_t out_bytes = unit->count * vl_dtype_size(tensor->to);
    if (is_hole(tensor, unit->begin, unit->count)) return pass_hole(unit, in_bytes, out_bytes);
    VL_TRY(read_part(tensor, unit->begin, unit->count, unit->in));
    if (unit->in_pieces) vl_hash_pieces_of(unit->in, in_bytes, unit->in_pieces);
    const char *out = unit->in;
    if (tensor->to != tensor->shape.dtype) {
        VL_TRY(cast(tensor, unit->in, unit->out, unit->begin, unit->count));
        out = unit->out;
    }
    vl_hash_pieces_of(out, out_bytes, unit->out_pieces);
    if (unit->stream->others) return compare_part(unit, out, out_bytes);
    const VlConvertPlace *place = &unit->stream->places[unit->tensor];
    int64_t offset = place->offset + unit->begin * vl_dtype_size(tensor->to);
    VL_TRY(vl_write_sparse(place->descriptor, place->path, offset, out, out_bytes));
    // The disk begins now, not when memory is full of what waits for it.
    sync_file_range(place->descriptor, offset, out_bytes, SYNC_FILE_RANGE_WRITE);
    return VL_OK;
}

// ---- All of them -------------------------------------------------------------------

// The hashes of a tensor's pieces, while parts of it are on their way.
typedef struct Pieces {
    VlHash *out, *in;
} Pieces;

typedef struct Work {
    const VlConvertStream *stream;
    VlPool *pool;
    int64_t units, passed, bytes, total;
    Unit *unit;
    Pieces *pieces;  // [source->count]
} Work;

static VlStatus finish_tensor(Work *work, int64_t i) {
    const VlConvertTensor *tensor = &work->stream->source->tensors[i];
    Pieces *pieces = &work->pieces[i];
    int64_t elements = vl_elements(tensor->shape);
    char *hash = work->stream->hashes[i], in[VL_HASH_TEXT];
    vl_hash_tensor(pieces->out, vl_hash_pieces(elements * vl_dtype_size(tensor->to)), hash);
    memcpy(in, hash, sizeof in);
    if (pieces->in) vl_hash_tensor(pieces->in, vl_hash_pieces(elements * vl_dtype_size(tensor->shape.dtype)), in);
    vl_free(pieces->out);
    vl_free(pieces->in);
    *pieces = (Pieces){0};
    if (tensor->hash && strcmp(in, tensor->hash) != 0) {
        return vl_error(VL_FORMAT, "%s: %s does not match its hash: the checkpoint is damaged",
                        vl_weights_path(tensor->weights, tensor->entry->file), tensor->name);
    }
    return VL_OK;
}

static VlStatus finish_unit(Work *work, Unit *unit) {
    if (!unit->task.submitted) return VL_OK;
    VL_TRY(vl_pool_wait(work->pool, &unit->task));
    const VlConvertTensor *tensor = &work->stream->source->tensors[unit->tensor];
    if (unit->differs) work->stream->differs[unit->tensor] = true;
    work->bytes += unit->count * vl_dtype_size(tensor->to);
    if (unit->begin + unit->count < vl_elements(tensor->shape)) return VL_OK;
    vl_log_progress("%.1f of %.1f GB, %s", (double)work->bytes / 1e9, (double)work->total / 1e9, tensor->name);
    return finish_tensor(work, unit->tensor);
}

static VlStatus begin_tensor(Work *work, int64_t i) {
    const VlConvertTensor *tensor = &work->stream->source->tensors[i];
    int64_t elements = vl_elements(tensor->shape);
    Pieces *pieces = &work->pieces[i];
    VL_TRY(VL_NEW(&pieces->out, vl_hash_pieces(elements * vl_dtype_size(tensor->to))));
    if (tensor->hash && tensor->to != tensor->shape.dtype)
        VL_TRY(VL_NEW(&pieces->in, vl_hash_pieces(elements * vl_dtype_size(tensor->shape.dtype))));
    return elements == 0 ? finish_tensor(work, i) : VL_OK;
}

static VlStatus submit(Work *work, int64_t i, int64_t begin, int64_t count) {
    const VlConvertTensor *tensor = &work->stream->source->tensors[i];
    Unit *unit = &work->unit[work->passed++ % work->units];
    if (vl_signals_pending()) return vl_error(VL_INTERRUPTED, "interrupted; nothing was left behind");
    VL_TRY(finish_unit(work, unit));
    if (!unit->in) {
        VL_TRY(vl_allocate(&unit->in, UNIT, LARGEST_ELEMENT));
        VL_TRY(vl_allocate(&unit->out, UNIT, LARGEST_ELEMENT));
        VL_TRY(vl_allocate(&unit->other, UNIT, LARGEST_ELEMENT));
    }
    const Pieces *pieces = &work->pieces[i];
    unit->task = (VlTask){.run = pass_part, .argument = unit};
    unit->stream = work->stream;
    unit->tensor = i;
    unit->begin = begin;
    unit->count = count;
    unit->differs = false;
    unit->out_pieces = pieces->out + begin * vl_dtype_size(tensor->to) / VL_HASH_PIECE;
    unit->in_pieces = pieces->in ? pieces->in + begin * vl_dtype_size(tensor->shape.dtype) / VL_HASH_PIECE : NULL;
    vl_pool_submit(work->pool, &unit->task, false);
    return VL_OK;
}

static VlStatus pass_all(Work *work) {
    const VlConvertSource *source = work->stream->source;
    for (int64_t i = 0; i < source->count; i++) {
        work->total += vl_elements(source->tensors[i].shape) * vl_dtype_size(source->tensors[i].to);
    }
    for (int64_t i = 0; i < source->count; i++) {
        int64_t elements = vl_elements(source->tensors[i].shape);
        if (work->stream->others && !work->stream->others[i]) continue;
        VL_TRY(begin_tensor(work, i));
        for (int64_t begin = 0; begin < elements; begin += UNIT)
            VL_TRY(submit(work, i, begin, elements - begin < UNIT ? elements - begin : UNIT));
    }
    for (int64_t i = 0; i < work->units; i++) VL_TRY(finish_unit(work, &work->unit[work->passed++ % work->units]));
    return VL_OK;
}

VlStatus vl_convert_stream(const VlConvertStream *stream) {
    Work work = {.stream = stream};
    int64_t threads = 2 * vl_cpu_count() < MOST_THREADS ? 2 * vl_cpu_count() : MOST_THREADS;
    VlStatus status;
    work.units = threads + 1;
    VL_TRY_GOTO(status, VL_NEW(&work.pieces, stream->source->count), done);
    VL_TRY_GOTO(status, VL_NEW(&work.unit, work.units), done);
    VL_TRY_GOTO(status, vl_pool_open(&work.pool, threads), done);
    status = pass_all(&work);
done:
    vl_pool_close(work.pool);
    vl_log_progress("%s", "");
    for (int64_t i = 0; work.unit && i < work.units; i++) {
        vl_free(work.unit[i].in);
        vl_free(work.unit[i].out);
        vl_free(work.unit[i].other);
    }
    for (int64_t i = 0; work.pieces && i < stream->source->count; i++) {
        vl_free(work.pieces[i].out);
        vl_free(work.pieces[i].in);
    }
    vl_free(work.unit);
    vl_free(work.pieces);
    return status;
}
