// Encoding, accessors and release; loading is in tokenizer_load.c, decoding in token_stream.c.
#include "data/tokenizer.h"

#include "base/memory.h"
#include "data/tokenizer_parts.h"

// What one call of vl_tokenizer_encode works with.
typedef struct Encoding {
    const VlTokenizer *tokenizer;
    VlAddedPieces pieces, inner;
    VlText normalized, spare;
    VlPretokenizerWalk walk;
    VlBpeScratch scratch;
    VlTokenIds *out;
} Encoding;

static VlStatus encode_words(Encoding *encoding, VlSpan text) {
    VlSpan word;
    vl_pretokenizer_walk_start(&encoding->walk, text);
    for (;;) {
        VL_TRY(vl_pretokenizer_walk_next(&encoding->walk, &word));
        if (word.length == 0) return VL_OK;
        VL_TRY(vl_bpe_encode(&encoding->tokenizer->bpe, &encoding->tokenizer->vocabulary, word, &encoding->scratch,
                             encoding->out));
    }
}

// A piece between added tokens: normalised, searched for the tokens that are found in normalised text, cut into words.
static VlStatus encode_plain(Encoding *encoding, VlSpan text) {
    const VlTokenizer *tokenizer = encoding->tokenizer;
    encoding->normalized.length = encoding->inner.count = 0;
    VL_TRY(vl_text_append(&encoding->normalized, text));
    VL_TRY(vl_normalize(&tokenizer->normalizer, &encoding->normalized, &encoding->spare));
    VL_TRY(vl_added_set_split(&tokenizer->added_normalized, vl_text_span(&encoding->normalized), &encoding->inner));
    for (int64_t i = 0; i < encoding->inner.count; i++) {
        const VlAddedPiece *piece = &encoding->inner.pieces[i];
        VL_TRY(piece->id >= 0 ? vl_token_ids_append(encoding->out, piece->id) : encode_words(encoding, piece->text));
    }
    return VL_OK;
}

static VlStatus encode_all(Encoding *encoding, VlSpan text, bool special) {
    const VlTokenizer *tokenizer = encoding->tokenizer;
    VL_TRY(vl_pretokenizer_walk_create(&tokenizer->pretokenizer, &encoding->walk));
    if (special) VL_TRY(vl_token_ids_append_all(encoding->out, tokenizer->prefix.ids, tokenizer->prefix.count));
    VL_TRY(vl_added_set_split(&tokenizer->added, text, &encoding->pieces));
    for (int64_t i = 0; i < encoding->pieces.count; i++) {
        const VlAddedPiece *piece = &encoding->pieces.pieces[i];
        VL_TRY(piece->id >= 0 ? vl_token_ids_append(encoding->out, piece->id) : encode_plain(encoding, piece->text));
    }
    return special ? vl_token_ids_append_all(encoding->out, tokenizer->suffix.ids, tokenizer->suffix.count) : VL_OK;
}

VlStatus vl_tokenizer_encode(const VlTokenizer *tokenizer, const char *text, int64_t length, bool special,
                             VlTokenIds *out) {
    VlSpan source = vl_span(text, length);
    if (length > VL_TOKENIZER_TEXT_LIMIT) {
        return vl_error(VL_INVALID, "a text of %lld bytes is too long for the tokenizer: at most %d", (long long)length,
                        VL_TOKENIZER_TEXT_LIMIT);
    }
    int64_t valid = vl_utf8_valid_length(source), count = out->count;
    if (valid < length) return vl_error(VL_INVALID, "the text is not UTF-8: its byte %lld is wrong", (long long)valid);
    Encoding encoding = {.tokenizer = tokenizer, .out = out};
    VlStatus status = encode_all(&encoding, source, special);
    if (status) out->count = count;
    vl_free(encoding.pieces.pieces);
    vl_free(encoding.inner.pieces);
    vl_text_free(&encoding.normalized);
    vl_text_free(&encoding.spare);
    vl_pretokenizer_walk_free(&encoding.walk);
    vl_bpe_scratch_free(&encoding.scratch);
    return status;
}

int64_t vl_tokenizer_count(const VlTokenizer *tokenizer) { return tokenizer->vocabulary.count; }

int64_t vl_tokenizer_find(const VlTokenizer *tokenizer, const char *token) {
    return vl_vocabulary_find(&tokenizer->vocabulary, vl_span_string(token));
}

static const VlToken *token_of(const VlTokenizer *tokenizer, int64_t id) {
    if (id < 0 || id >= tokenizer->vocabulary.count || !tokenizer->vocabulary.tokens[id].flags) return NULL;
    return &tokenizer->vocabulary.tokens[id];
}

const char *vl_tokenizer_token(const VlTokenizer *tokenizer, int64_t id, int64_t *length) {
    if (!token_of(tokenizer, id)) return NULL;
    VlSpan text = vl_vocabulary_text(&tokenizer->vocabulary, id);
    *length = text.length;
    return text.data;
}

bool vl_tokenizer_is_special(const VlTokenizer *tokenizer, int64_t id) {
    const VlToken *token = token_of(tokenizer, id);
    return token && (token->flags & VL_TOKEN_SPECIAL);
}

int64_t vl_tokenizer_bos(const VlTokenizer *tokenizer) { return tokenizer->bos; }
int64_t vl_tokenizer_eos(const VlTokenizer *tokenizer) { return tokenizer->eos; }
int64_t vl_tokenizer_pad(const VlTokenizer *tokenizer) { return tokenizer->pad; }
int64_t vl_tokenizer_unk(const VlTokenizer *tokenizer) { return tokenizer->unk; }
const char *vl_tokenizer_chat_template(const VlTokenizer *tokenizer) { return tokenizer->chat_template; }

static void free_steps(VlTextSteps *steps) {
    for (int64_t i = 0; i < steps->count; i++) {
        vl_free(steps->steps[i].text);
        vl_free(steps->steps[i].pattern);
    }
}

void vl_tokenizer_free(VlTokenizer *tokenizer) {
    if (!tokenizer) return;
    vl_vocabulary_free(&tokenizer->vocabulary);
    vl_merges_free(&tokenizer->bpe.merges);
    vl_added_set_free(&tokenizer->added);
    vl_added_set_free(&tokenizer->added_normalized);
    free_steps(&tokenizer->normalizer);
    free_steps(&tokenizer->decoder);
    pcre2_code_free(tokenizer->pretokenizer.pattern);
    vl_token_ids_free(&tokenizer->prefix);
    vl_token_ids_free(&tokenizer->suffix);
    vl_free(tokenizer->chat_template);
    vl_free(tokenizer);
}
