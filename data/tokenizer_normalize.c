// The normaliser's steps.
#include <utf8proc.h>

#include "base/memory.h"
#include "data/tokenizer_parts.h"

typedef struct CodePoints {
    utf8proc_int32_t *values;
    int64_t count, capacity;
} CodePoints;

// The reference normalises by the tables of Unicode 9. Characters that later versions (up to 18) gave a combining class
// or a decomposition, and the first parts of such decompositions, are to it what unassigned ones are: they stay as they
// are, nothing moves past them and nothing composes with them.
static const int32_t later_than_tables[][2] = {
    {0x05c8, 0x05c9},   {0x07fd, 0x07fd},   {0x0897, 0x089f},   {0x08ca, 0x08d3},   {0x09fe, 0x09fe},
    {0x0c3c, 0x0c3c},   {0x0d3b, 0x0d3c},   {0x0eba, 0x0eba},   {0x1715, 0x1715},   {0x1abf, 0x1af0},
    {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x105c9, 0x105c9}, {0x105d2, 0x105d2}, {0x105da, 0x105da},
    {0x105e4, 0x105e4}, {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac}, {0x10ecb, 0x10ecf},
    {0x10ef0, 0x10efb}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070},
    {0x1133b, 0x1133b}, {0x11382, 0x11385}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e}, {0x11390, 0x11391},
    {0x113c2, 0x113c2}, {0x113c5, 0x113c5}, {0x113c7, 0x113c8}, {0x113ce, 0x113d0}, {0x1145e, 0x1145e},
    {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943},
    {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42},
    {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x1611e, 0x1611e}, {0x16121, 0x16129},
    {0x1612f, 0x1612f}, {0x16d63, 0x16d63}, {0x16d67, 0x16d6a}, {0x16ff0, 0x16ff1}, {0x1d127, 0x1d128},
    {0x1d250, 0x1d252}, {0x1d25b, 0x1d25c}, {0x1d25f, 0x1d25f}, {0x1d280, 0x1d281}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef},
    {0x1e6e3, 0x1e6e3}, {0x1e6e6, 0x1e6e6}, {0x1e6ee, 0x1e6ef}, {0x1e6f5, 0x1e6f5}};

static bool is_later(int32_t code_point) {
    int64_t low = 0, high = sizeof later_than_tables / sizeof *later_than_tables;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (code_point > later_than_tables[middle][1]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < (int64_t)(sizeof later_than_tables / sizeof *later_than_tables) &&
           code_point >= later_than_tables[low][0];
}

static int combining_class(int32_t code_point) {
    return is_later(code_point) ? 0 : utf8proc_get_property(code_point)->combining_class;
}

// Canonical decomposition, in the order of the text.
static VlStatus decompose(VlSpan source, CodePoints *points) {
    for (int64_t offset = 0; offset < source.length;) {
        int32_t code_point;
        offset += vl_utf8_decode(source, offset, &code_point);
        VL_TRY(vl_reserve(&points->values, &points->capacity, points->count + 16, sizeof *points->values));
        if (is_later(code_point)) {
            points->values[points->count++] = code_point;
            continue;
        }
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
    for (int64_t i = 0; i < count; i++) starts[combining_class(marks[i]) + 1]++;
    for (int i = 0; i < 256; i++) starts[i + 1] += starts[i];
    for (int64_t i = 0; i < count; i++) {
        spare->values[starts[combining_class(marks[i])]++] = marks[i];
    }
    memcpy(marks, spare->values, (size_t)count * sizeof *marks);
    return VL_OK;
}

static VlStatus order_marks(CodePoints *points, CodePoints *spare) {
    int64_t begin = 0;  // of the present run of marks
    int last = 0;
    bool ordered = true;
    for (int64_t i = 0; i <= points->count; i++) {
        int class = i < points->count ? combining_class(points->values[i]) : 0;
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

static VlStatus append_composed(VlText *text, utf8proc_int32_t *values, int64_t count) {
    utf8proc_ssize_t composed = utf8proc_normalize_utf32(values, count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (composed < 0) return vl_error(VL_INTERNAL, "canonical composition failed: %s", utf8proc_errmsg(composed));
    for (int64_t i = 0; i < composed; i++) {
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t length = utf8proc_encode_char(values[i], bytes);
        VL_TRY(vl_text_append(text, vl_span((const char *)bytes, length)));
    }
    return VL_OK;
}

// Each later character alone, and each stretch between two of them.
static VlStatus compose(VlText *text, CodePoints *points) {
    for (int64_t begin = 0, end; begin < points->count; begin = end) {
        bool alone = is_later(points->values[begin]);
        for (end = begin + 1; !alone && end < points->count && !is_later(points->values[end]);) end++;
        VL_TRY(append_composed(text, points->values + begin, end - begin));
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
    VL_TRY_GOTO(status, compose(text, &points), done);
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
