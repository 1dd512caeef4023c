// The decoder's steps, each as a stage through which text flows. Up to a Fuse or a ByteLevel, the stages see tokens;
// behind it they see one text that comes in pieces, and hold back what the next piece could change.
#include "data/token_stream.h"

#include "base/memory.h"
#include "data/tokenizer_parts.h"

// The reference's clean_up_tokenization_spaces, pair by pair.
static const char *const clean_up_pairs[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},   {" ,", ","},
                                                {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"},
                                                {" 've", "'ve"}, {" 're", "'re"}};
enum { CLEAN_UPS = sizeof clean_up_pairs / sizeof *clean_up_pairs };

typedef struct Stage {
    VlTextStepKind kind;
    VlSpan pattern, text;  // as in VlTextStep
    int64_t start, stop;   // of a Strip; `start` counts down where the text is joined
    bool joined;           // one text comes in, in pieces; else tokens
    VlText held;           // bytes that wait for what follows
    VlText made;           // room for one piece on its way out
} Stage;

struct VlTokenStream {
    const VlTokenizer *tokenizer;
    bool skip_special;
    int64_t taken;  // ids so far
    int64_t stages;
    Stage stage[VL_TOKENIZER_STEPS_LIMIT + CLEAN_UPS];
    VlText out;
};

// Hands a token, or a piece of the text, to a stage; behind the last one it is out.
static VlStatus put(VlTokenStream *stream, int64_t number, VlSpan piece);

static void drop_front(VlText *text, int64_t length) {
    if (length == 0) return;
    text->length -= length;
    memmove(text->data, text->data + length, (size_t)text->length);
}

static bool starts_with(VlSpan text, VlSpan start) {
    return text.length >= start.length && !memcmp(text.data, start.data, (size_t)start.length);
}

static bool ends_with(VlSpan text, VlSpan end) {
    return text.length >= end.length && !memcmp(text.data + text.length - end.length, end.data, (size_t)end.length);
}

// ---- Replace ---------------------------------------------------------------

static VlStatus replace_in_token(VlTokenStream *stream, int64_t number, VlSpan token) {
    Stage *stage = &stream->stage[number];
    stage->made.length = 0;
    VL_TRY(vl_text_append_replaced(&stage->made, token, stage->pattern, stage->text));
    return put(stream, number + 1, vl_text_span(&stage->made));
}

// Length of the longest end of `text` that the pattern could begin with, the whole pattern excepted.
static int64_t begun_length(VlSpan text, VlSpan pattern) {
    int64_t length = pattern.length - 1 < text.length ? pattern.length - 1 : text.length;
    while (length > 0 && memcmp(text.data + text.length - length, pattern.data, (size_t)length)) length--;
    return length;
}

static VlStatus replace_in_text(VlTokenStream *stream, int64_t number, VlSpan piece) {
    Stage *stage = &stream->stage[number];
    int64_t from = 0, found;
    VL_TRY(vl_text_append(&stage->held, piece));
    VlSpan held = vl_text_span(&stage->held);
    while ((found = vl_span_find(held, stage->pattern, from)) >= 0) {
        VL_TRY(put(stream, number + 1, vl_span(held.data + from, found - from)));
        VL_TRY(put(stream, number + 1, stage->text));
        from = found + stage->pattern.length;
    }
    VlSpan rest = vl_span(held.data + from, held.length - from);
    rest.length -= begun_length(rest, stage->pattern);
    VL_TRY(put(stream, number + 1, rest));
    drop_front(&stage->held, from + rest.length);
    return VL_OK;
}

// ---- Bytes -----------------------------------------------------------------

// The bytes that a token's characters stand for; a token with another character gives its own UTF-8. Appended to *out.
static VlStatus append_bytes(VlText *out, VlSpan token) {
    int64_t begin = out->length;
    for (int64_t offset = 0; offset < token.length;) {
        int32_t character;
        offset += vl_utf8_decode(token, offset, &character);
        int32_t byte = vl_byte_level_byte(character);
        if (byte < 0) {
            out->length = begin;
            return vl_text_append(out, token);
        }
        char single = (char)byte;
        VL_TRY(vl_text_append(out, vl_span(&single, 1)));
    }
    return VL_OK;
}

static VlStatus put_lossy(VlTokenStream *stream, int64_t number, int64_t length) {
    Stage *stage = &stream->stage[number];
    stage->made.length = 0;
    VL_TRY(vl_text_append_lossy(&stage->made, vl_span(stage->held.data, length)));
    drop_front(&stage->held, length);
    return put(stream, number + 1, vl_text_span(&stage->made));
}

static VlStatus byte_level(VlTokenStream *stream, int64_t number, VlSpan token) {
    VlText *held = &stream->stage[number].held;
    VL_TRY(append_bytes(held, token));
    return put_lossy(stream, number, vl_utf8_settled_length(vl_text_span(held)));
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
static VlStatus end_run(VlTokenStream *stream, int64_t number) {
    VlText *run = &stream->stage[number].held;
    int64_t length = run->length;
    if (length == 0) return VL_OK;
    run->length = 0;
    if (vl_utf8_valid_length(vl_span(run->data, length)) == length) {
        return put(stream, number + 1, vl_span(run->data, length));
    }
    for (int64_t i = 0; i < length; i++) VL_TRY(put(stream, number + 1, vl_span_string("\xef\xbf\xbd")));
    return VL_OK;
}

static VlStatus byte_fallback(VlTokenStream *stream, int64_t number, VlSpan token) {
    int byte = byte_of_token(token);
    if (byte >= 0) {
        char single = (char)byte;
        return vl_text_append(&stream->stage[number].held, vl_span(&single, 1));
    }
    VL_TRY(end_run(stream, number));
    return put(stream, number + 1, token);
}

// ---- Strip -----------------------------------------------------------------

// Takes up to `most` copies off the front and returns how many.
static int64_t strip_front(VlSpan *text, VlSpan content, int64_t most) {
    int64_t copies = 0;
    for (; copies < most && starts_with(*text, content); copies++) {
        *text = vl_span(text->data + content.length, text->length - content.length);
    }
    return copies;
}

static void strip_back(VlSpan *text, VlSpan content, int64_t most) {
    for (int64_t copies = 0; copies < most && ends_with(*text, content); copies++) text->length -= content.length;
}

static VlStatus strip_token(VlTokenStream *stream, int64_t number, VlSpan token) {
    const Stage *stage = &stream->stage[number];
    strip_front(&token, stage->text, stage->start);
    strip_back(&token, stage->text, stage->stop);
    return put(stream, number + 1, token);
}

// The copies at the end wait: they go if nothing follows.
static VlStatus strip_text(VlTokenStream *stream, int64_t number, VlSpan piece) {
    Stage *stage = &stream->stage[number];
    stage->start -= strip_front(&piece, stage->text, stage->start);
    if (piece.length == 0) return VL_OK;
    stage->start = 0;
    VL_TRY(vl_text_append(&stage->held, piece));
    VlSpan certain = vl_text_span(&stage->held);
    strip_back(&certain, stage->text, stage->stop);
    VL_TRY(put(stream, number + 1, certain));
    drop_front(&stage->held, certain.length);
    return VL_OK;
}

// ---- The whole -------------------------------------------------------------

static VlStatus put(VlTokenStream *stream, int64_t number, VlSpan piece) {
    if (number == stream->stages) return vl_text_append(&stream->out, piece);
    const Stage *stage = &stream->stage[number];
    switch (stage->kind) {
    case VL_STEP_REPLACE:
        return stage->joined ? replace_in_text(stream, number, piece) : replace_in_token(stream, number, piece);
    case VL_STEP_STRIP: return stage->joined ? strip_text(stream, number, piece) : strip_token(stream, number, piece);
    case VL_STEP_BYTE_LEVEL: return byte_level(stream, number, piece);
    case VL_STEP_BYTE_FALLBACK: return byte_fallback(stream, number, piece);
    case VL_STEP_FUSE: return put(stream, number + 1, piece);
    default: return vl_error(VL_INTERNAL, "step %d is no decoder", (int)stage->kind);
    }
}

// What a stage still holds when nothing follows.
static VlStatus finish_stage(VlTokenStream *stream, int64_t number) {
    const Stage *stage = &stream->stage[number];
    switch (stage->kind) {
    case VL_STEP_REPLACE: return stage->joined ? put(stream, number + 1, vl_text_span(&stage->held)) : VL_OK;
    case VL_STEP_BYTE_LEVEL: return put_lossy(stream, number, stage->held.length);
    case VL_STEP_BYTE_FALLBACK: return end_run(stream, number);
    default: return VL_OK;
    }
}

VlStatus vl_token_stream_open(VlTokenStream **out, const VlTokenizer *tokenizer, bool skip_special) {
    VlTokenStream *stream;
    bool joined = false;
    VL_TRY(VL_NEW(&stream, 1));
    stream->tokenizer = tokenizer;
    stream->skip_special = skip_special;
    for (int64_t i = 0; i < tokenizer->decoder.count; i++) {
        const VlTextStep *step = &tokenizer->decoder.steps[i];
        stream->stage[stream->stages++] = (Stage){.kind = step->kind,
                                                  .pattern = vl_span_string(step->pattern ? step->pattern : ""),
                                                  .text = vl_span_string(step->text ? step->text : ""),
                                                  .start = step->start,
                                                  .stop = step->stop,
                                                  .joined = joined};
        joined = joined || vl_step_joins(step->kind);
    }
    for (int64_t i = 0; i < (tokenizer->clean_up ? CLEAN_UPS : 0); i++) {
        stream->stage[stream->stages++] = (Stage){.kind = VL_STEP_REPLACE,
                                                  .pattern = vl_span_string(clean_up_pairs[i][0]),
                                                  .text = vl_span_string(clean_up_pairs[i][1]),
                                                  .joined = true};
    }
    *out = stream;
    return VL_OK;
}

static VlStatus take(VlTokenStream *stream, int64_t id) {
    const VlVocabulary *vocabulary = &stream->tokenizer->vocabulary;
    if (id < 0 || id > UINT32_MAX) {
        return vl_error(VL_INVALID,
                        "the id %lld at position %lld is no token id; take modality ids and -100 out before decoding",
                        (long long)id, (long long)stream->taken);
    }
    stream->taken++;
    if (id >= vocabulary->count || !vocabulary->tokens[id].flags) return VL_OK;
    if (stream->skip_special && (vocabulary->tokens[id].flags & VL_TOKEN_SPECIAL)) return VL_OK;
    return put(stream, 0, vl_vocabulary_text(vocabulary, id));
}

static VlStatus finish(VlTokenStream *stream) {
    for (int64_t i = 0; i < stream->stages; i++) VL_TRY(finish_stage(stream, i));
    return VL_OK;
}

VlStatus vl_token_stream_push(VlTokenStream *stream, int64_t id, VlSpan *piece) {
    stream->out.length = 0;
    VL_TRY(take(stream, id));
    *piece = vl_text_span(&stream->out);
    return VL_OK;
}

VlStatus vl_token_stream_finish(VlTokenStream *stream, VlSpan *piece) {
    stream->out.length = 0;
    VL_TRY(finish(stream));
    *piece = vl_text_span(&stream->out);
    return VL_OK;
}

void vl_token_stream_close(VlTokenStream *stream) {
    if (!stream) return;
    for (int64_t i = 0; i < stream->stages; i++) {
        vl_text_free(&stream->stage[i].held);
        vl_text_free(&stream->stage[i].made);
    }
    vl_text_free(&stream->out);
    vl_free(stream);
}

VlStatus vl_tokenizer_decode(const VlTokenizer *tokenizer, const int64_t *ids, int64_t count, bool skip_special,
                             char **text, int64_t *length) {
    VlTokenStream *stream;
    VL_TRY(vl_token_stream_open(&stream, tokenizer, skip_special));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < count; i++) VL_TRY_GOTO(status, take(stream, ids[i]), done);
    VL_TRY_GOTO(status, finish(stream), done);
    VL_TRY_GOTO(status, vl_text_append(&stream->out, vl_span("", 0)), done);
    *text = stream->out.data;
    *length = stream->out.length;
    stream->out = (VlText){0};
done:
    vl_token_stream_close(stream);
    return status;
}
