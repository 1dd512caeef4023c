// Cutting a text into words by the regular expression of a Split, and writing them in byte-level characters.
#include "base/memory.h"
#include "data/tokenizer_parts.h"

// Unicode's White_Space, for inside brackets. PCRE2's \s holds U+180E as well.
#define WHITE_SPACE "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

static VlStatus refuse(const char *name, const char *what, const char *pattern) {
    return vl_error(VL_UNSUPPORTED, "%s: %s in the pre_tokenizer's pattern is not supported: %.200s", name, what,
                    pattern);
}

// Copies one escape; `*from` stands behind its backslash.
static VlStatus translate_escape(VlText *out, const char **from, bool in_class, const char *pattern, const char *name) {
    char letter = *(*from)++;
    if (letter == 's') return vl_text_append_string(out, in_class ? WHITE_SPACE : "[" WHITE_SPACE "]");
    if (letter == 'S' && !in_class) return vl_text_append_string(out, "[^" WHITE_SPACE "]");
    bool is_letter = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z');
    bool is_digit = letter >= '0' && letter <= '9';
    if (letter == 0 || is_digit || (is_letter && !strchr("rntfvpPd", letter))) {
        char what[] = "the escape \\?";
        what[sizeof what - 2] = letter ? letter : ' ';
        return refuse(name, what, pattern);
    }
    char escape[] = {'\\', letter};
    return vl_text_append(out, vl_span(escape, 2));
}

static VlStatus translate(VlText *out, const char *pattern, const char *name) {
    bool in_class = false;
    for (const char *from = pattern; *from;) {
        char character = *from++;
        if (character == '\\') {
            VL_TRY(translate_escape(out, &from, in_class, pattern, name));
            continue;
        }
        if (in_class && character == '[') return refuse(name, "a class within a class", pattern);
        if (in_class && character == '&' && *from == '&') return refuse(name, "an intersection of classes", pattern);
        if (!in_class && (character == '^' || character == '$')) return refuse(name, "an anchor", pattern);
        VL_TRY(vl_text_append(out, vl_span(&character, 1)));
        if (!in_class && character == '[') {
            in_class = true;
            if (*from == '^') VL_TRY(vl_text_append(out, vl_span(from++, 1)));
            if (*from == ']') return refuse(name, "a class that starts with ']'", pattern);
        } else if (in_class && character == ']') {
            in_class = false;
        }
    }
    return VL_OK;
}

VlStatus vl_pretokenizer_compile(VlPretokenizer *pretokenizer, const char *pattern, const char *name) {
    VlText translated = {0};
    VlStatus status;
    VL_TRY_GOTO(status, translate(&translated, pattern, name), done);
    int code;
    PCRE2_SIZE offset;
    pretokenizer->pattern = pcre2_compile((PCRE2_SPTR)vl_text_span(&translated).data, (PCRE2_SIZE)translated.length,
                                          PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
    if (!pretokenizer->pattern) {
        PCRE2_UCHAR reason[128] = "";
        pcre2_get_error_message(code, reason, sizeof reason);
        status = vl_error(VL_FORMAT, "%s: the pre_tokenizer's pattern is no regular expression: %s: %.200s", name,
                          (const char *)reason, pattern);
        goto done;
    }
    pcre2_jit_compile(pretokenizer->pattern, PCRE2_JIT_COMPLETE);  // without it, matching is only slower
done:
    vl_text_free(&translated);
    return status;
}

VlStatus vl_pretokenizer_walk_create(const VlPretokenizer *pretokenizer, VlPretokenizerWalk *walk) {
    *walk = (VlPretokenizerWalk){.pretokenizer = pretokenizer, .match_begin = -1};
    if (!pretokenizer->pattern) return VL_OK;
    walk->match = vl_fault_hit() ? NULL : pcre2_match_data_create_from_pattern(pretokenizer->pattern, NULL);
    walk->context = pcre2_match_context_create(NULL);
    if (!walk->match || !walk->context) return vl_error(VL_OUT_OF_MEMORY, "out of memory for matching a pattern");
    return VL_OK;
}

void vl_pretokenizer_walk_start(VlPretokenizerWalk *walk, VlSpan text) {
    walk->text = text;
    walk->offset = 0;
    walk->match_begin = -1;
    if (!walk->context) return;
    // Enough for runs of white space of any length, which backtrack once over; not enough for a pattern that explodes.
    int64_t limit = 10000000 + 16 * text.length;
    pcre2_set_match_limit(walk->context, (uint32_t)(limit < UINT32_MAX ? limit : UINT32_MAX));
}

static VlStatus find_match(VlPretokenizerWalk *walk) {
    const pcre2_code *pattern = walk->pretokenizer->pattern;
    PCRE2_SPTR subject = (PCRE2_SPTR)walk->text.data;
    PCRE2_SIZE length = (PCRE2_SIZE)walk->text.length, offset = (PCRE2_SIZE)walk->offset;
    int code = pcre2_match(pattern, subject, length, offset, PCRE2_NO_UTF_CHECK, walk->match, walk->context);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT) {
        code = pcre2_match(pattern, subject, length, offset, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, walk->match,
                           walk->context);
    }
    if (code == PCRE2_ERROR_NOMATCH) {
        walk->match_begin = walk->match_end = walk->text.length;
        return VL_OK;
    }
    if (code < 0) {
        PCRE2_UCHAR reason[128] = "";
        pcre2_get_error_message(code, reason, sizeof reason);
        return vl_error(VL_INVALID, "the tokenizer's pattern fails at byte %lld of a text of %lld: %s",
                        (long long)walk->offset, (long long)walk->text.length, (const char *)reason);
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(walk->match);
    if (ends[1] <= ends[0]) {
        return vl_error(VL_FORMAT, "the tokenizer's pattern matches the empty string at byte %lld",
                        (long long)walk->offset);
    }
    walk->match_begin = (int64_t)ends[0];
    walk->match_end = (int64_t)ends[1];
    return VL_OK;
}

VlStatus vl_pretokenizer_walk_next(VlPretokenizerWalk *walk, VlSpan *word) {
    int64_t begin = walk->offset, end = walk->text.length;
    if (begin < end && walk->pretokenizer->pattern) {
        if (walk->match_begin < begin) VL_TRY(find_match(walk));
        end = walk->match_begin > begin ? walk->match_begin : walk->match_end;
    }
    walk->offset = end;
    *word = vl_span(walk->text.data + begin, end - begin);
    if (!walk->pretokenizer->byte_level) return VL_OK;
    walk->word.length = 0;
    for (int64_t i = 0; i < word->length; i++) {
        int32_t character = vl_byte_level_character((unsigned char)word->data[i]);
        char bytes[2] = {(char)(0xc0 | character >> 6), (char)(0x80 | (character & 0x3f))};
        char single = (char)character;
        VL_TRY(vl_text_append(&walk->word, character < 0x80 ? vl_span(&single, 1) : vl_span(bytes, 2)));
    }
    *word = vl_text_span(&walk->word);
    return VL_OK;
}

void vl_pretokenizer_walk_free(VlPretokenizerWalk *walk) {
    pcre2_match_data_free(walk->match);
    pcre2_match_context_free(walk->context);
    vl_text_free(&walk->word);
}

// ---- Byte-level characters -------------------------------------------------

// The bytes that stand for themselves are 0x21-0x7e, 0xa1-0xac, 0xae-0xff. The 68 others follow from U+0100 on, in
// order: 0x00-0x20 (33 of them), 0x7f-0xa0 (34), 0xad (1).
int32_t vl_byte_level_character(unsigned char byte) {
    if (byte <= 0x20) return 0x100 + byte;
    if (byte >= 0x7f && byte <= 0xa0) return 0x100 + 33 + (byte - 0x7f);
    return byte == 0xad ? 0x100 + 67 : byte;
}

int32_t vl_byte_level_byte(int32_t character) {
    if (character >= 0x100 && character <= 0x100 + 67) {
        int32_t place = character - 0x100;
        return place < 33 ? place : place < 67 ? 0x7f + place - 33 : 0xad;
    }
    bool itself = character >= 0 && character <= 0xff && vl_byte_level_character((unsigned char)character) == character;
    return itself ? character : -1;
}
