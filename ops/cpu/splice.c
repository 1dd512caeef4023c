#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"

// Row `source` of text or of media; NULL in a gradient that is not wanted.
static char *row_of(VlTensor text, VlTensor media, int64_t source, int64_t bytes) {
    if (vl_is_empty(source >= 0 ? text : media)) return NULL;
    return source >= 0 ? (char *)text.data + source * bytes : (char *)media.data + (-1 - source) * bytes;
}

VlStatus vl_cpu_splice_forward(VlContext *context, VlTensor y, VlTensor text, VlTensor media, VlTensor source) {
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
    int64_t bytes = dy.dim[1] * vl_dtype_size(dy.dtype);
    const int64_t *from = source.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dy)))
    for (int64_t t = 0; t < dy.dim[0]; t++) {
        char *to = row_of(dtext, dmedia, from[t], bytes);
        if (to) memcpy(to, (const char *)dy.data + t * bytes, (size_t)bytes);
    }
    return VL_OK;
}
