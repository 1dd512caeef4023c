// Ids to text: the decoder's steps work on the list of token texts, as the reference's do.
#include <stdlib.h>

#include "base/memory.h"
#include "data/tokenizer_parts.h"

// Token texts one after the other; token i ends at ends[i].
typedef struct TokenTexts {
    VlText bytes;
    int64_t *ends;
    int64_t count, capacity;
} TokenTexts;

static VlSpan token_at(const TokenTexts *tokens, int64_t index) {
    int64_t begin = index ? tokens->ends[index - 1] : 0;
    return vl_span(vl_text_span(&tokens->bytes).data + begin, tokens->ends[index] - begin);
}

// What was appended to the bytes since the last token becomes one.
static VlStatus end_token(TokenTexts *tokens) {
    VL_TRY(vl_reserve(&tokens->ends, &tokens->capacity, tokens->count + 1, sizeof *tokens->ends));
    tokens->ends[tokens->count++] = tokens->bytes.length;
    return VL_OK;
}

static void token_texts_free(TokenTexts *tokens) {
    vl_text_free(&tokens->bytes);
    vl_free(tokens->ends);
}

static VlStatus replace(const VlTextStep *step, const TokenTexts *in, TokenTexts *out) {
    for (int64_t i = 0; i < in->count; i++) {
        VL_TRY(vl_text_append_replaced(&out->bytes, token_at(in, i), vl_span_string(step->pattern),
                                       vl_span_string(step->text)));
        VL_TRY(end_token(out));
    }
    return VL_OK;
}

// All tokens become one: the bytes that their characters stand for. A token with another character gives its own UTF-8.
static VlStatus byte_level(const TokenTexts *in, TokenTexts *out) {
    VlText bytes = {0};
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < in->count; i++) {
        VlSpan token = token_at(in, i);
        int64_t begin = bytes.length;
        for (int64_t offset = 0; offset < token.length;) {
            int32_t character;
            offset += vl_utf8_decode(token, offset, &character);
            int32_t byte = vl_byte_level_byte(character);
            if (byte < 0) {
                bytes.length = begin;
                VL_TRY_GOTO(status, vl_text_append(&bytes, token), done);
                break;
            }
            char single = (char)byte;
            VL_TRY_GOTO(status, vl_text_append(&bytes, vl_span(&single, 1)), done);
        }
    }
    VL_TRY_GOTO(status, vl_text_append_lossy(&out->bytes, vl_text_span(&bytes)), done);
    VL_TRY_GOTO(status, end_token(out), done);
done:
    vl_text_free(&bytes);
    return status;
}

static int hex_digit(char character) {
    if (character >= '0' && character <= '9') return character - '0';
    if (character >= 'a' && character <= 'f') return character - 'a' + 10;
    return character >= 'A' && character <= 'F' ? character - 'A' + 10 : -1;
}

static int byte_of_token(VlSpan token) {
    if (token.length != 6 || memcmp(token.data, "<0x", 3) || token.data[5] != '>') return -1;
    int high = hex_digit(token.data[3]), low = hex_digit(token.data[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

// A run of bytes that is UTF-8 as a whole becomes its characters, else every byte of it becomes U+FFFD.
static VlStatus flush_bytes(VlText *run, TokenTexts *out) {
    if (run->length == 0) return VL_OK;
    if (vl_utf8_valid_length(vl_text_span(run)) == run->length) {
        VL_TRY(vl_text_append(&out->bytes, vl_text_span(run)));
        VL_TRY(end_token(out));
    } else {
        for (int64_t i = 0; i < run->length; i++) {
            VL_TRY(vl_text_append_string(&out->bytes, "\xef\xbf\xbd"));
            VL_TRY(end_token(out));
        }
    }
    run->length = 0;
    return VL_OK;
}

static VlStatus byte_fallback(const TokenTexts *in, TokenTexts *out) {
    VlText run = {0};
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < in->count; i++) {
        VlSpan token = token_at(in, i);
        int byte = byte_of_token(token);
        if (byte >= 0) {
            char single = (char)byte;
            VL_TRY_GOTO(status, vl_text_append(&run, vl_span(&single, 1)), done);
            continue;
        }
        VL_TRY_GOTO(status, flush_bytes(&run, out), done);
        VL_TRY_GOTO(status, vl_text_append(&out->bytes, token), done);
        VL_TRY_GOTO(status, end_token(out), done);
    }
    status = flush_bytes(&run, out);
done:
    vl_text_free(&run);
    return status;
}

static VlStatus strip(const VlTextStep *step, const TokenTexts *in, TokenTexts *out) {
    VlSpan content = vl_span_string(step->text);
    for (int64_t i = 0; i < in->count; i++) {
        VlSpan token = token_at(in, i);
        for (int64_t n = 0; n < step->start && token.length >= content.length &&
                            !memcmp(token.data, content.data, (size_t)content.length);
             n++) {
            token = vl_span(token.data + content.length, token.length - content.length);
        }
        for (int64_t n = 0; n < step->stop && token.length >= content.length &&
                            !memcmp(token.data + token.length - content.length, content.data, (size_t)content.length);
             n++) {
            token.length -= content.length;
        }
        VL_TRY(vl_text_append(&out->bytes, token));
        VL_TRY(end_token(out));
    }
    return VL_OK;
}

static VlStatus apply(const VlTextStep *step, const TokenTexts *in, TokenTexts *out) {
    switch (step->kind) {
    case VL_STEP_REPLACE: return replace(step, in, out);
    case VL_STEP_BYTE_LEVEL: return byte_level(in, out);
    case VL_STEP_BYTE_FALLBACK: return byte_fallback(in, out);
    case VL_STEP_FUSE: VL_TRY(vl_text_append(&out->bytes, vl_text_span(&in->bytes))); return end_token(out);
    case VL_STEP_STRIP: return strip(step, in, out);
    default: return vl_error(VL_INTERNAL, "step %d is no decoder", (int)step->kind);
    }
}

static VlStatus collect(const VlTokenizer *tokenizer, const int64_t *ids, int64_t count, bool skip_special,
                        TokenTexts *tokens) {
    const VlVocabulary *vocabulary = &tokenizer->vocabulary;
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] > UINT32_MAX) {
            return vl_error(VL_INVALID,
                            "the id %lld at position %lld is no token id; take modality ids and -100 out before "
                            "decoding",
                            (long long)ids[i], (long long)i);
        }
        if (ids[i] >= vocabulary->count || !vocabulary->tokens[ids[i]].flags) continue;
        if (skip_special && (vocabulary->tokens[ids[i]].flags & VL_TOKEN_SPECIAL)) continue;
        VL_TRY(vl_text_append(&tokens->bytes, vl_vocabulary_text(vocabulary, ids[i])));
        VL_TRY(end_token(tokens));
    }
    return VL_OK;
}

// The reference's clean_up_tokenization_spaces, pair by pair.
static VlStatus clean_up(VlText *text) {
    static const char *const pairs[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},   {" ,", ","},
                                           {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"},
                                           {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        VlText cleaned = {0};
        VlStatus status = vl_text_append_replaced(&cleaned, vl_text_span(text), vl_span_string(pairs[i][0]),
                                                  vl_span_string(pairs[i][1]));
        vl_text_free(status ? &cleaned : text);
        if (status) return status;
        *text = cleaned;
    }
    return VL_OK;
}

VlStatus vl_tokenizer_decode(const VlTokenizer *tokenizer, const int64_t *ids, int64_t count, bool skip_special,
                             char **text, int64_t *length) {
    TokenTexts tokens = {0}, next = {0};
    VlStatus status;
    VL_TRY_GOTO(status, collect(tokenizer, ids, count, skip_special, &tokens), done);
    for (int64_t i = 0; i < tokenizer->decoder.count; i++) {
        next.bytes.length = next.count = 0;
        VL_TRY_GOTO(status, apply(&tokenizer->decoder.steps[i], &tokens, &next), done);
        TokenTexts swapped = tokens;
        tokens = next;
        next = swapped;
    }
    if (tokenizer->clean_up) VL_TRY_GOTO(status, clean_up(&tokens.bytes), done);
    VL_TRY_GOTO(status, vl_text_append(&tokens.bytes, vl_span("", 0)), done);
    *text = tokens.bytes.data;
    *length = tokens.bytes.length;
    tokens.bytes = (VlText){0};
done:
    token_texts_free(&tokens);
    token_texts_free(&next);
    return status;
}
