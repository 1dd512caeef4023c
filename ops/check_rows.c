// Checks and scratch of the rows that move rows by index: embedding, gather_rows, splice.
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/scratch_rows.h"

VlStatus vl_check_embedding_forward(VlContext *context, VlTensor y, VlTensor table, VlTensor ids) {
    VL_TRY(vl_check_floating(context, "table", table, 2));
    VL_TRY(vl_check_tensor(context, "ids", ids, VL_I64, VL_ANY));
    VL_TRY(vl_check_tensor(context, "y", y, table.dtype, ids.dim[0], table.dim[1]));
    VL_TRY(vl_check_apart("y", y, "table", table));
    return VL_OK;
}

VlStatus vl_check_embedding_backward(VlContext *context, VlTensor dtable, VlTensor dy, VlTensor ids) {
    VL_TRY(vl_check_floating(context, "dy", dy, 2));
    VL_TRY(vl_check_tensor(context, "ids", ids, VL_I64, dy.dim[0]));
    if (vl_is_empty(dtable)) return VL_OK;
    VL_TRY(vl_check_tensor(context, "dtable", dtable, VL_F32, VL_ANY, dy.dim[1]));
    VL_TRY(vl_check_apart("dtable", dtable, "dy", dy));
    return VL_OK;
}

VlStatus vl_scratch_gather_rows(VlContext *context, VlTensor *begin, VlTensor *places, int64_t rows, int64_t count) {
    VL_TRY(vl_arena_push(&context->scratch, begin, VL_I64, rows + 1));
    VL_TRY(vl_arena_push(&context->scratch, places, VL_I64, count));
    return VL_OK;
}

VlStatus vl_check_gather_rows_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor index) {
    VL_TRY(vl_check_floating(context, "x", x, 2));
    VL_TRY(vl_check_tensor(context, "index", index, VL_I64, VL_ANY));
    VL_TRY(vl_check_tensor(context, "y", y, x.dtype, index.dim[0], x.dim[1]));
    VL_TRY(vl_check_apart("y", y, "x", x));
    return VL_OK;
}

VlStatus vl_check_gather_rows_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor index) {
    VL_TRY(vl_check_floating(context, "dy", dy, 2));
    VL_TRY(vl_check_tensor(context, "index", index, VL_I64, dy.dim[0]));
    if (vl_is_empty(dx)) return VL_OK;
    VL_TRY(vl_check_tensor(context, "dx", dx, dy.dtype, VL_ANY, dy.dim[1]));
    VL_TRY(vl_check_apart("dx", dx, "dy", dy));
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor begin, places;
    VlStatus status = vl_scratch_gather_rows(context, &begin, &places, dx.dim[0], dy.dim[0]);
    vl_arena_release(&context->scratch, mark);
    VL_TRY(status);
    return VL_OK;
}

VlStatus vl_scratch_splice(VlContext *context, VlTensor *used, int64_t rows) {
    VL_TRY(vl_arena_push(&context->scratch, used, VL_U8, rows));
    return VL_OK;
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
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor used;
    VlStatus status = vl_scratch_splice(context, &used, whole.dim[0]);
    vl_arena_release(&context->scratch, mark);
    VL_TRY(status);
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

VlStatus vl_check_splice_forward(VlContext *context, VlTensor y, VlTensor text, VlTensor media, VlTensor source) {
    static const char *const names[2] = {"text", "media"};
    const VlTensor parts[2] = {text, media};
    VL_TRY(check_splice(context, "y", y, names, parts, source));
    VL_TRY(check_rows("y", y, names, parts));
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
    return VL_OK;
}
