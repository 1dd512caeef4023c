#include "data/text.h"

#include "base/memory.h"

VlStatus vl_text_append(VlText *text, VlSpan piece) {
    int64_t needed;
    if (!vl_add(text->length, piece.length, &needed) || !vl_add(needed, 1, &needed)) {
        return vl_error(VL_INVALID, "a text would exceed 2^63 bytes");
    }
    VL_TRY(vl_reserve(&text->data, &text->capacity, needed, 1));
    if (piece.length > 0) memcpy(text->data + text->length, piece.data, (size_t)piece.length);
    text->length += piece.length;
    text->data[text->length] = 0;
    return VL_OK;
}

VlStatus vl_text_append_string(VlText *text, const char *piece) { return vl_text_append(text, vl_span_string(piece)); }

void vl_text_free(VlText *text) {
    vl_free(text->data);
    *text = (VlText){0};
}

int64_t vl_span_find(VlSpan text, VlSpan pattern, int64_t from) {
    if (from > text.length - pattern.length) return -1;
    const char *found = memmem(text.data + from, (size_t)(text.length - from), pattern.data, (size_t)pattern.length);
    return found ? found - text.data : -1;
}

VlStatus vl_text_append_replaced(VlText *text, VlSpan source, VlSpan pattern, VlSpan replacement) {
    int64_t from = 0, found;
    while ((found = vl_span_find(source, pattern, from)) >= 0) {
        VL_TRY(vl_text_append(text, vl_span(source.data + from, found - from)));
        VL_TRY(vl_text_append(text, replacement));
        from = found + pattern.length;
    }
    return vl_text_append(text, vl_span(source.data + from, source.length - from));
}

bool vl_split_next(VlSplit *split, VlSpan *part) {
    if (split->from > split->text.length) return false;
    int64_t found = vl_span_find(split->text, split->separator, split->from);
    int64_t end = found >= 0 ? found : split->text.length;
    *part = vl_span(split->text.data + split->from, end - split->from);
    split->from = found >= 0 ? end + split->separator.length : split->text.length + 1;
    return true;
}

// ---- UTF-8 -----------------------------------------------------------------

// Length of the well-formed sequence at `bytes` (`left` > 0 bytes remain). Where it is ill-formed: minus the length of
// the maximal part of it that starts a well-formed sequence (at least 1), which one replacement character stands for.
static int64_t sequence_length(const unsigned char *bytes, int64_t left) {
    unsigned char lead = bytes[0], low = 0x80, high = 0xbf;
    int64_t length;
    if (lead < 0x80) return 1;
    if (lead >= 0xc2 && lead <= 0xdf) {
        length = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        length = 3;
        if (lead == 0xe0) low = 0xa0;
        if (lead == 0xed) high = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        length = 4;
        if (lead == 0xf0) low = 0x90;
        if (lead == 0xf4) high = 0x8f;
    } else {
        return -1;
    }
    for (int64_t i = 1; i < length; i++) {
        if (i >= left || bytes[i] < low || bytes[i] > high) return -i;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

int64_t vl_utf8_valid_length(VlSpan text) {
    int64_t offset = 0;
    while (offset < text.length) {
        int64_t length = sequence_length((const unsigned char *)text.data + offset, text.length - offset);
        if (length < 0) return offset;
        offset += length;
    }
    return offset;
}

int64_t vl_utf8_settled_length(VlSpan bytes) {
    // A lone byte that starts no character is settled; only a started character can be at the end of its bytes.
    for (int64_t length = 1; length <= 3 && length <= bytes.length; length++) {
        const unsigned char *tail = (const unsigned char *)bytes.data + bytes.length - length;
        if (tail[0] < 0xc2 || tail[0] > 0xf4) continue;
        return sequence_length(tail, length) == -length ? bytes.length - length : bytes.length;
    }
    return bytes.length;
}

int64_t vl_utf8_decode(VlSpan text, int64_t offset, int32_t *code_point) {
    const unsigned char *bytes = (const unsigned char *)text.data + offset;
    if (bytes[0] < 0x80) {
        *code_point = bytes[0];
        return 1;
    }
    int64_t length = bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : 4;
    int32_t value = bytes[0] & (0x7f >> length);
    for (int64_t i = 1; i < length; i++) value = value << 6 | (bytes[i] & 0x3f);
    *code_point = value;
    return length;
}

int64_t vl_utf8_previous(VlSpan text, int64_t offset) {
    do {
        offset--;
    } while (offset > 0 && ((unsigned char)text.data[offset] & 0xc0) == 0x80);
    return offset;
}

VlStatus vl_text_append_lossy(VlText *text, VlSpan bytes) {
    int64_t offset = 0;
    while (offset < bytes.length) {
        VlSpan rest = vl_span(bytes.data + offset, bytes.length - offset);
        int64_t valid = vl_utf8_valid_length(rest);
        VL_TRY(vl_text_append(text, vl_span(rest.data, valid)));
        offset += valid;
        if (offset == bytes.length) break;
        VL_TRY(vl_text_append_string(text, "\xef\xbf\xbd"));
        offset -= sequence_length((const unsigned char *)bytes.data + offset, bytes.length - offset);
    }
    return VL_OK;
}

// ---- White space -----------------------------------------------------------

bool vl_is_white_space(int32_t code_point) {
    return (code_point >= 0x09 && code_point <= 0x0d) || code_point == 0x20 || code_point == 0x85 ||
           code_point == 0xa0 || code_point == 0x1680 || (code_point >= 0x2000 && code_point <= 0x200a) ||
           code_point == 0x2028 || code_point == 0x2029 || code_point == 0x202f || code_point == 0x205f ||
           code_point == 0x3000;
}

// Python counts the four information separators to white space as well.
static bool is_stripped(int32_t code_point) {
    return vl_is_white_space(code_point) || (code_point >= 0x1c && code_point <= 0x1f);
}

VlSpan vl_span_strip(VlSpan text) {
    int64_t begin = 0, end = text.length;
    int32_t code_point;
    while (begin < end) {
        int64_t length = vl_utf8_decode(text, begin, &code_point);
        if (!is_stripped(code_point)) break;
        begin += length;
    }
    while (end > begin) {
        int64_t previous = vl_utf8_previous(text, end);
        vl_utf8_decode(text, previous, &code_point);
        if (!is_stripped(code_point)) break;
        end = previous;
    }
    return vl_span(text.data + begin, end - begin);
}
