#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/scratch_rows.h"

// Every row of text (text_rows of them) and of media (the rest) must be named exactly once.
static VlStatus check_source(VlContext *context, VlTensor source, int64_t text_rows) {
    int64_t rows = source.dim[0], media_rows = rows - text_rows, mark = vl_arena_mark(&context->scratch);
    const int64_t *from = source.data;
    VlTensor used;
    VL_TRY(vl_scratch_splice(context, &used, rows));
    vl_arena_release(&context->scratch, mark);
    uint8_t *seen = used.data;
    memset(seen, 0, (size_t)rows);
    for (int64_t t = 0; t < rows; t++) {
        if (from[t] >= text_rows || from[t] < -media_rows) {
            return vl_error(VL_INVALID, "source[%lld] is %lld, it must be in [-%lld, %lld)", (long long)t,
                            (long long)from[t], (long long)media_rows, (long long)text_rows);
        }
        uint8_t *mine = seen + (from[t] >= 0 ? from[t] : text_rows - 1 - from[t]);
        if (*mine) {
            return vl_error(VL_INVALID,
                            "source[%lld] is %lld, which stands at an earlier place too: every row is used once",
                            (long long)t, (long long)from[t]);
        }
        *mine = 1;
    }
    return VL_OK;
}

// Row `source` of text or of media; NULL in a gradient that is not wanted.
static char *row_of(VlTensor text, VlTensor media, int64_t source, int64_t bytes) {
    if (vl_is_empty(source >= 0 ? text : media)) return NULL;
    return source >= 0 ? (char *)text.data + source * bytes : (char *)media.data + (-1 - source) * bytes;
}

VlStatus vl_cpu_splice_forward(VlContext *context, VlTensor y, VlTensor text, VlTensor media, VlTensor source) {
    VL_TRY(check_source(context, source, vl_is_empty(text) ? 0 : text.dim[0]));
    int64_t bytes = y.dim[1] * vl_dtype_size(y.dtype);
    const int64_t *from = source.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(y)))
    for (int64_t t = 0; t < y.dim[0]; t++) {
        memcpy((char *)y.data + t * bytes, row_of(text, media, from[t], bytes), (size_t)bytes);
    }
    return VL_OK;
}

VlStatus vl_cpu_splice_backward(VlContext *context, VlTensor dtext, VlTensor dmedia, VlTensor dy, VlTensor source) {
    if (vl_is_empty(dtext) && vl_is_empty(dmedia)) return VL_OK;
    int64_t media_rows = vl_is_empty(dmedia) ? 0 : dmedia.dim[0];
    VL_TRY(check_source(context, source, vl_is_empty(dtext) ? dy.dim[0] - media_rows : dtext.dim[0]));
    int64_t bytes = dy.dim[1] * vl_dtype_size(dy.dtype);
    const int64_t *from = source.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dy)))
    for (int64_t t = 0; t < dy.dim[0]; t++) {
        char *to = row_of(dtext, dmedia, from[t], bytes);
        if (to) memcpy(to, (const char *)dy.data + t * bytes, (size_t)bytes);
    }
    return VL_OK;
}
