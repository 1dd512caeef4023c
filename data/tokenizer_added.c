// Finding added tokens in a text: leftmost first, the longest at one place.
#include <stdlib.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "data/tokenizer_parts.h"

VlStatus vl_added_set_add(VlAddedSet *set, VlSpan text, const VlAddedToken *flags) {
    VL_TRY(vl_reserve(&set->tokens, &set->capacity, set->count + 1, sizeof *set->tokens));
    VlAddedToken token = *flags;
    VL_TRY(vl_duplicate_bytes(&token.text, text.data, text.length));
    token.length = text.length;
    set->tokens[set->count++] = token;
    return VL_OK;
}

static int compare_tokens(const void *a, const void *b) {
    const VlAddedToken *left = a, *right = b;
    int64_t common = left->length < right->length ? left->length : right->length;
    int order = memcmp(left->text, right->text, (size_t)common);
    if (order) return order;
    if (left->length != right->length) return left->length < right->length ? -1 : 1;
    return left->id < right->id ? -1 : left->id > right->id;
}

void vl_added_set_sort(VlAddedSet *set) {
    if (set->count > 1) qsort(set->tokens, (size_t)set->count, sizeof *set->tokens, compare_tokens);
}

// First index in [low, high) whose byte at `depth` is at least `byte`; a token that ends there counts as smaller.
static int64_t lower_bound(const VlAddedSet *set, int64_t low, int64_t high, int64_t depth, int byte) {
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const VlAddedToken *token = &set->tokens[middle];
        int found = token->length > depth ? (unsigned char)token->text[depth] : -1;
        if (found < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// The longest token at `offset`, by narrowing the sorted range byte by byte; NULL when none stands there.
static const VlAddedToken *match_at(const VlAddedSet *set, VlSpan text, int64_t offset) {
    const VlAddedToken *best = NULL;
    int64_t low = 0, high = set->count;
    for (int64_t depth = 0; offset + depth < text.length && low < high; depth++) {
        int byte = (unsigned char)text.data[offset + depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
        if (low < high && set->tokens[low].length == depth + 1) best = &set->tokens[low];
    }
    return best;
}

static bool is_word_character(int32_t code_point) {
    utf8proc_category_t category = utf8proc_category(code_point);
    bool circled = (code_point >= 0x24b6 && code_point <= 0x24e9) || (code_point >= 0x1f130 && code_point <= 0x1f149) ||
                   (code_point >= 0x1f150 && code_point <= 0x1f169) || (code_point >= 0x1f170 && code_point <= 0x1f189);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC ||
           code_point == 0x200c || code_point == 0x200d || circled;
}

static bool stands_alone(VlSpan text, int64_t begin, int64_t end) {
    int32_t before = ' ', after = ' ';
    if (begin > 0) vl_utf8_decode(text, vl_utf8_previous(text, begin), &before);
    if (end < text.length) vl_utf8_decode(text, end, &after);
    return !is_word_character(before) && !is_word_character(after);
}

static void widen(const VlAddedToken *token, VlSpan text, int64_t floor, int64_t *begin, int64_t *end) {
    int32_t code_point;
    while (token->strip_left && *begin > floor) {
        int64_t previous = vl_utf8_previous(text, *begin);
        vl_utf8_decode(text, previous, &code_point);
        if (!vl_is_white_space(code_point)) break;
        *begin = previous;
    }
    while (token->strip_right && *end < text.length) {
        int64_t length = vl_utf8_decode(text, *end, &code_point);
        if (!vl_is_white_space(code_point)) break;
        *end += length;
    }
}

static VlStatus add_piece(VlAddedPieces *out, VlSpan text, int64_t begin, int64_t end, int32_t id) {
    if (begin >= end) return VL_OK;
    VL_TRY(vl_reserve(&out->pieces, &out->capacity, out->count + 1, sizeof *out->pieces));
    out->pieces[out->count++] = (VlAddedPiece){vl_span(text.data + begin, end - begin), id};
    return VL_OK;
}

VlStatus vl_added_set_split(const VlAddedSet *set, VlSpan text, VlAddedPieces *out) {
    int64_t plain = 0, offset = 0;
    while (set->count > 0 && offset < text.length) {
        const VlAddedToken *token = match_at(set, text, offset);
        if (!token) {
            offset++;
            continue;
        }
        int64_t begin = offset, end = offset + token->length;
        offset = end;
        if (token->single_word && !stands_alone(text, begin, end)) continue;
        widen(token, text, plain, &begin, &end);
        VL_TRY(add_piece(out, text, plain, begin, -1));
        VL_TRY(add_piece(out, text, begin, end, token->id));
        plain = end;
        if (offset < end) offset = end;
    }
    return add_piece(out, text, plain, text.length, -1);
}

void vl_added_set_free(VlAddedSet *set) {
    for (int64_t i = 0; i < set->count; i++) vl_free(set->tokens[i].text);
    vl_free(set->tokens);
    *set = (VlAddedSet){0};
}
