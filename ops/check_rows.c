// Checks and scratch of the rows that move rows by index: embedding, gather_rows, splice.
#include "base/memory.h"
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/scratch_rows.h"

// At most as many rows of the table are moved as there are ids.
static void count_idle_rows(VlContext *context, VlTensor table, VlTensor ids) {
    int64_t idle = table.dim[0] - ids.dim[0];
    if (idle > 0) context->roofline.idle_bytes = idle * table.dim[1] * vl_dtype_size(table.dtype);
}

VlStatus vl_check_embedding_forward(VlContext *context, VlTensor y, VlTensor table, VlTensor ids) {
    VL_TRY(vl_check_floating(context, "table", table, 2));
    VL_TRY(vl_check_tensor(context, "ids", ids, VL_I64, VL_ANY));
    VL_TRY(vl_check_tensor(context, "y", y, table.dtype, ids.dim[0], table.dim[1]));
    VL_TRY(vl_check_apart("y", y, "table", table));
    VL_TRY(vl_check_indices(context, "ids", ids, table.dim[0]));
    count_idle_rows(context, table, ids);
    return VL_OK;
}

// While planning for it, too, context->device tells what the kernel will need.
static VlStatus push_sorting(VlContext *context, VlPlaces *places, int64_t rows, int64_t count) {
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    VL_TRY(vl_arena_push(&context->scratch, &places->loose, VL_I64, count));
    VL_TRY(vl_arena_push(&context->scratch, &places->totals, VL_I64, rows / VL_PLACES_TILE + 1));
    return VL_OK;
}

VlStatus vl_scratch_gather_rows(VlContext *context, VlPlaces *places, int64_t rows, int64_t count) {
    *places = (VlPlaces){.begin = VL_EMPTY};
    VL_TRY(vl_arena_push(&context->scratch, &places->begin, VL_I64, rows + 1));
    VL_TRY(vl_arena_push(&context->scratch, &places->places, VL_I64, count));
    return push_sorting(context, places, rows, count);
}

VlStatus vl_scratch_embedding(VlContext *context, VlEmbedding *scratch, int64_t tokens) {
    int64_t slots = 2;
    *scratch = (VlEmbedding){.words = VL_EMPTY};
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    while (slots / 2 <= tokens) slots *= 2;
    VL_TRY(vl_arena_push(&context->scratch, &scratch->words, VL_I64, slots));
    VL_TRY(vl_arena_push(&context->scratch, &scratch->slots, VL_I64, tokens));
    return vl_scratch_gather_rows(context, &scratch->places, slots, tokens);
}

VlStatus vl_check_embedding_backward(VlContext *context, VlTensor dtable, VlTensor dy, VlTensor ids) {
    VL_TRY(vl_check_floating(context, "dy", dy, 2));
    VL_TRY(vl_check_tensor(context, "ids", ids, VL_I64, dy.dim[0]));
    if (vl_is_empty(dtable)) return VL_OK;
    VL_TRY(vl_check_tensor(context, "dtable", dtable, VL_F32, VL_ANY, dy.dim[1]));
    VL_TRY(vl_check_apart("dtable", dtable, "dy", dy));
    VL_TRY(vl_check_indices(context, "ids", ids, dtable.dim[0]));
    count_idle_rows(context, dtable, ids);
    int64_t mark = vl_arena_mark(&context->scratch);
    VlEmbedding scratch;
    VlStatus status = vl_scratch_embedding(context, &scratch, dy.dim[0]);
    vl_arena_release(&context->scratch, mark);
    return status;
}

VlStatus vl_check_gather_rows_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor index) {
    VL_TRY(vl_check_floating(context, "x", x, 2));
    VL_TRY(vl_check_tensor(context, "index", index, VL_I64, VL_ANY));
    VL_TRY(vl_check_tensor(context, "y", y, x.dtype, index.dim[0], x.dim[1]));
    VL_TRY(vl_check_apart("y", y, "x", x));
    VL_TRY(vl_check_indices(context, "index", index, x.dim[0]));
    return VL_OK;
}

VlStatus vl_check_gather_rows_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor index) {
    VL_TRY(vl_check_floating(context, "dy", dy, 2));
    VL_TRY(vl_check_tensor(context, "index", index, VL_I64, dy.dim[0]));
    if (vl_is_empty(dx)) return VL_OK;
    VL_TRY(vl_check_tensor(context, "dx", dx, dy.dtype, VL_ANY, dy.dim[1]));
    VL_TRY(vl_check_apart("dx", dx, "dy", dy));
    VL_TRY(vl_check_indices(context, "index", index, dx.dim[0]));
    int64_t mark = vl_arena_mark(&context->scratch);
    VlPlaces places;
    VlStatus status = vl_scratch_gather_rows(context, &places, dx.dim[0], dy.dim[0]);
    vl_arena_release(&context->scratch, mark);
    return status;
}

// text and media: the two sides, under their names; either may be the empty view.
static VlStatus check_splice(VlContext *context, const char *whole_name, VlTensor whole, const char *const names[2],
                             const VlTensor parts[2], VlTensor source) {
    VL_TRY(vl_check_floating(context, whole_name, whole, 2));
    VL_TRY(vl_check_tensor(context, "source", source, VL_I64, whole.dim[0]));
    for (int i = 0; i < 2; i++) {
        if (vl_is_empty(parts[i])) continue;
        VL_TRY(vl_check_tensor(context, names[i], parts[i], whole.dtype, VL_ANY, whole.dim[1]));
        VL_TRY(vl_check_apart(whole_name, whole, names[i], parts[i]));
    }
    return VL_OK;
}

static VlStatus check_rows(const char *whole_name, VlTensor whole, const char *const names[2],
                           const VlTensor parts[2]) {
    int64_t text_rows = vl_is_empty(parts[0]) ? 0 : parts[0].dim[0];
    int64_t media_rows = vl_is_empty(parts[1]) ? 0 : parts[1].dim[0];
    if (text_rows + media_rows == whole.dim[0]) return VL_OK;
    return vl_error(VL_INVALID, "%s is %s, it must have the rows of %s %s and of %s %s", whole_name, vl_describe(whole),
                    names[0], vl_describe(parts[0]), names[1], vl_describe(parts[1]));
}

// Every row of text (text_rows of them) and of media (the rest) is named exactly once. seen[rows] is zero.
static VlStatus check_once(const int64_t *source, int64_t rows, int64_t text_rows, uint8_t *seen) {
    int64_t media_rows = rows - text_rows;
    for (int64_t t = 0; t < rows; t++) {
        if (source[t] >= text_rows || source[t] < -media_rows) {
            return vl_error(VL_INVALID, "source[%lld] is %lld, it must be in [-%lld, %lld)", (long long)t,
                            (long long)source[t], (long long)media_rows, (long long)text_rows);
        }
        uint8_t *mine = seen + (source[t] >= 0 ? source[t] : text_rows - 1 - source[t]);
        if (*mine) {
            return vl_error(VL_INVALID,
                            "source[%lld] is %lld, which stands at an earlier place too: every row is used once",
                            (long long)t, (long long)source[t]);
        }
        *mine = 1;
    }
    return VL_OK;
}

// As far as vl_indices knows source.
static VlStatus check_source(VlContext *context, VlTensor source, int64_t text_rows) {
    uint8_t *seen = NULL;
    vl_device_open(context);
    const int64_t *known = vl_indices(context, source);
    VlStatus status = known ? VL_NEW(&seen, source.dim[0]) : VL_OK;
    if (known && status == VL_OK) status = check_once(known, source.dim[0], text_rows, seen);
    vl_device_close(context);
    vl_free(seen);
    return status;
}

VlStatus vl_check_splice_forward(VlContext *context, VlTensor y, VlTensor text, VlTensor media, VlTensor source) {
    static const char *const names[2] = {"text", "media"};
    const VlTensor parts[2] = {text, media};
    VL_TRY(check_splice(context, "y", y, names, parts, source));
    VL_TRY(check_rows("y", y, names, parts));
    VL_TRY(check_source(context, source, vl_is_empty(text) ? 0 : text.dim[0]));
    return VL_OK;
}

// A gradient may be empty because it is not wanted: its rows are those that the other leaves.
VlStatus vl_check_splice_backward(VlContext *context, VlTensor dtext, VlTensor dmedia, VlTensor dy, VlTensor source) {
    static const char *const names[2] = {"dtext", "dmedia"};
    const VlTensor parts[2] = {dtext, dmedia};
    VL_TRY(check_splice(context, "dy", dy, names, parts, source));
    if (!vl_is_empty(dtext) && !vl_is_empty(dmedia)) VL_TRY(check_rows("dy", dy, names, parts));
    for (int i = 0; i < 2; i++) {
        if (vl_is_empty(parts[i]) || parts[i].dim[0] <= dy.dim[0]) continue;
        return vl_error(VL_INVALID, "%s is %s, it has more rows than dy %s", names[i], vl_describe(parts[i]),
                        vl_describe(dy));
    }
    if (vl_is_empty(dtext) && vl_is_empty(dmedia)) return VL_OK;
    int64_t media_rows = vl_is_empty(dmedia) ? 0 : dmedia.dim[0];
    VL_TRY(check_source(context, source, vl_is_empty(dtext) ? dy.dim[0] - media_rows : dtext.dim[0]));
    return VL_OK;
}
