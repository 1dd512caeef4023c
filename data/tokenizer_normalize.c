// The normaliser's steps.
#include <utf8proc.h>

#include "base/memory.h"
#include "data/tokenizer_parts.h"

typedef struct CodePoints {
    utf8proc_int32_t *values;
    int64_t count, capacity;
} CodePoints;

// Canonical decomposition, in the order of the text.
static VlStatus decompose(VlSpan source, CodePoints *points) {
    for (int64_t offset = 0; offset < source.length;) {
        int32_t code_point;
        offset += vl_utf8_decode(source, offset, &code_point);
        VL_TRY(vl_reserve(&points->values, &points->capacity, points->count + 16, sizeof *points->values));
        int boundary = UTF8PROC_BOUNDCLASS_START;
        utf8proc_ssize_t added =
            utf8proc_decompose_char(code_point, points->values + points->count, 16, UTF8PROC_DECOMPOSE, &boundary);
        if (added < 0 || added > 16) {
            return vl_error(VL_INTERNAL, "U+%04X cannot be decomposed: %s", (unsigned)code_point,
                            utf8proc_errmsg(added));
        }
        points->count += added;
    }
    return VL_OK;
}

// Sorts one run of combining marks stably by combining class, by counting: quadratic sorts would let a hostile text
// hang us.
static VlStatus sort_marks(utf8proc_int32_t *marks, int64_t count, CodePoints *spare) {
    int64_t starts[257] = {0};
    VL_TRY(vl_reserve(&spare->values, &spare->capacity, count, sizeof *spare->values));
    for (int64_t i = 0; i < count; i++) starts[utf8proc_get_property(marks[i])->combining_class + 1]++;
    for (int i = 0; i < 256; i++) starts[i + 1] += starts[i];
    for (int64_t i = 0; i < count; i++) {
        spare->values[starts[utf8proc_get_property(marks[i])->combining_class]++] = marks[i];
    }
    memcpy(marks, spare->values, (size_t)count * sizeof *marks);
    return VL_OK;
}

static VlStatus order_marks(CodePoints *points, CodePoints *spare) {
    int64_t begin = 0;  // of the present run of marks
    int last = 0;
    bool ordered = true;
    for (int64_t i = 0; i <= points->count; i++) {
        int class = i < points->count ? utf8proc_get_property(points->values[i])->combining_class : 0;
        if (class == 0) {
            if (!ordered) VL_TRY(sort_marks(points->values + begin, i - begin, spare));
            begin = i + 1;
            ordered = true;
        } else if (class < last) {
            ordered = false;
        }
        last = class;
    }
    return VL_OK;
}

VlStatus vl_text_append_nfc(VlText *text, VlSpan source) {
    bool ascii = true;
    for (int64_t i = 0; i < source.length && ascii; i++) ascii = (unsigned char)source.data[i] < 0x80;
    if (ascii) return vl_text_append(text, source);
    CodePoints points = {0}, spare = {0};
    VlStatus status;
    VL_TRY_GOTO(status, decompose(source, &points), done);
    VL_TRY_GOTO(status, order_marks(&points, &spare), done);
    utf8proc_ssize_t count = utf8proc_normalize_utf32(points.values, points.count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (count < 0) {
        status = vl_error(VL_INTERNAL, "canonical composition failed: %s", utf8proc_errmsg(count));
        goto done;
    }
    for (int64_t i = 0; i < count; i++) {
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t length = utf8proc_encode_char(points.values[i], bytes);
        VL_TRY_GOTO(status, vl_text_append(text, vl_span((const char *)bytes, length)), done);
    }
done:
    vl_free(points.values);
    vl_free(spare.values);
    return status;
}

static VlStatus apply(const VlTextStep *step, VlSpan source, VlText *out) {
    switch (step->kind) {
    case VL_STEP_NFC: return vl_text_append_nfc(out, source);
    case VL_STEP_PREPEND:
        if (source.length > 0) VL_TRY(vl_text_append_string(out, step->text));
        return vl_text_append(out, source);
    case VL_STEP_REPLACE:
        return vl_text_append_replaced(out, source, vl_span_string(step->pattern), vl_span_string(step->text));
    default: return vl_error(VL_INTERNAL, "step %d is no normaliser", (int)step->kind);
    }
}

VlStatus vl_normalize(const VlTextSteps *normalizer, VlText *text, VlText *spare) {
    for (int64_t i = 0; i < normalizer->count; i++) {
        spare->length = 0;
        VL_TRY(apply(&normalizer->steps[i], vl_text_span(text), spare));
        VlText swapped = *text;
        *text = *spare;
        *spare = swapped;
    }
    return VL_OK;
}
