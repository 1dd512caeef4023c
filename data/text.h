// A growing byte string, and the few operations on UTF-8 text that prompts and tokenizers need. Text may hold zero
// bytes: its length counts, not a terminator.
#ifndef VL_DATA_TEXT_H
#define VL_DATA_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"

// A view of bytes that someone else owns.
typedef struct VlSpan {
    const char *data;
    int64_t length;
} VlSpan;

static inline VlSpan vl_span(const char *data, int64_t length) { return (VlSpan){data, length}; }
static inline VlSpan vl_span_string(const char *text) { return (VlSpan){text, (int64_t)strlen(text)}; }
static inline bool vl_span_equal(VlSpan a, VlSpan b) {
    return a.length == b.length && (a.length == 0 || !memcmp(a.data, b.data, (size_t)a.length));
}

// Zeroed, it is the empty string. The owner frees it with vl_text_free. A zero byte always follows the content.
typedef struct VlText {
    char *data;
    int64_t length, capacity;
} VlText;

static inline VlSpan vl_text_span(const VlText *text) { return (VlSpan){text->data ? text->data : "", text->length}; }
VlStatus vl_text_append(VlText *text, VlSpan piece);
VlStatus vl_text_append_string(VlText *text, const char *piece);
void vl_text_free(VlText *text);

// Appends `source` with every copy of `pattern` (not empty; found from left to right, without overlap) replaced.
VlStatus vl_text_append_replaced(VlText *text, VlSpan source, VlSpan pattern, VlSpan replacement);

// Where `pattern` (not empty) first stands in `text` at or after `from`; -1 when nowhere.
int64_t vl_span_find(VlSpan text, VlSpan pattern, int64_t from);

// Walks over the parts of a text between separators (not empty): "a,b,,c" has four, the empty text has one.
typedef struct VlSplit {
    VlSpan text, separator;
    int64_t from;  // start of the next part; beyond the text's length: none is left
} VlSplit;
static inline VlSplit vl_split(VlSpan text, const char *separator) {
    return (VlSplit){text, vl_span_string(separator), 0};
}
bool vl_split_next(VlSplit *split, VlSpan *part);  // false: none is left

// The text without the white space at both ends, as Python's str.strip() takes it off.
VlSpan vl_span_strip(VlSpan text);

// Length of valid UTF-8 at the start of `text`: text.length when all of it is valid (no surrogates, nothing over
// U+10FFFF).
int64_t vl_utf8_valid_length(VlSpan text);
// Length of the start of `bytes` whose reading no byte behind them can change: all but an unfinished character at the
// end.
int64_t vl_utf8_settled_length(VlSpan bytes);
// Decodes the code point at `offset` of valid UTF-8 and returns its length in bytes (1 to 4).
int64_t vl_utf8_decode(VlSpan text, int64_t offset, int32_t *code_point);
// Offset where the code point that ends before `offset` (> 0) starts.
int64_t vl_utf8_previous(VlSpan text, int64_t offset);
// Appends `bytes` with every maximal ill-formed part replaced by U+FFFD (Unicode 15, section 3.9).
VlStatus vl_text_append_lossy(VlText *text, VlSpan bytes);

// Unicode's White_Space property.
bool vl_is_white_space(int32_t code_point);

#endif
