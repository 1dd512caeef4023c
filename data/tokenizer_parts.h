// The parts of a tokenizer, shared by the files tokenizer*.c only.
#ifndef VL_DATA_TOKENIZER_PARTS_H
#define VL_DATA_TOKENIZER_PARTS_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>

#include "data/text.h"
#include "data/tokenizer.h"

enum {
    VL_TOKEN_ID_LIMIT = 1 << 22,        // ids lie below it
    VL_TOKEN_BYTES_LIMIT = 1 << 10,     // longest text of an added token
    VL_TOKENIZER_TEXT_LIMIT = 1 << 30,  // longest text to encode, in bytes
    VL_TOKENIZER_STEPS_LIMIT = 16,      // components in a sequence
};

// ---- Vocabulary: text <-> id -----------------------------------------------
enum { VL_TOKEN_MODEL = 1, VL_TOKEN_ADDED = 2, VL_TOKEN_SPECIAL = 4 };

typedef struct VlToken {
    int64_t offset;  // of its text in VlVocabulary.texts
    int32_t length;
    uint32_t flags;  // 0: no token has this id
} VlToken;

typedef struct VlVocabulary {
    VlText texts;
    VlToken *tokens;  // by id
    int64_t count, capacity;
    int32_t *slots;  // open addressing; id + 1, 0 where free
    int64_t slot_count, used;
} VlVocabulary;

VlSpan vl_vocabulary_text(const VlVocabulary *vocabulary, int64_t id);
// Adds a token under an id that is free. Errors: VL_FORMAT (id out of range or taken, text there already).
VlStatus vl_vocabulary_add(VlVocabulary *vocabulary, VlSpan text, int64_t id, uint32_t flags, const char *name);
int32_t vl_vocabulary_find(const VlVocabulary *vocabulary, VlSpan text);        // -1 when absent
int32_t vl_vocabulary_find_model(const VlVocabulary *vocabulary, VlSpan text);  // only among the model's own tokens
void vl_vocabulary_free(VlVocabulary *vocabulary);

// ---- Merges: pair of ids -> rank and merged id --------------------------------
typedef struct VlMerge {
    uint64_t pair;  // left << 32 | right
    int32_t rank;
    int32_t id;  // -1: a free slot
} VlMerge;

typedef struct VlMerges {
    VlMerge *slots;
    int64_t slot_count;
} VlMerges;

VlStatus vl_merges_create(VlMerges *merges, int64_t count);                                   // room for `count` pairs
void vl_merges_set(VlMerges *merges, int32_t left, int32_t right, int32_t rank, int32_t id);  // the last one wins
const VlMerge *vl_merges_find(const VlMerges *merges, int32_t left, int32_t right);           // NULL when absent
void vl_merges_free(VlMerges *merges);

// ---- BPE ------------------------------------------------------------------------
typedef struct VlBpe {
    VlMerges merges;
    int32_t unknown;         // id of the model's unk_token; -1: none
    bool fuse_unknown;       // neighbouring unknown characters become one token
    bool ignore_merges;      // a word that is a token as a whole is not merged up
    bool has_byte_fallback;  // all of <0x00> ... <0xFF> are there; byte_ids holds them
    int32_t byte_ids[256];
} VlBpe;

typedef struct VlBpeSymbol {
    int32_t id;  // -1: merged into its left neighbour
    int32_t previous, next;
} VlBpeSymbol;

typedef struct VlBpeCandidate {
    int32_t rank, position, id;
} VlBpeCandidate;

// Room for one word, reused from word to word of a call.
typedef struct VlBpeScratch {
    VlBpeSymbol *symbols;
    int64_t symbol_count, symbol_capacity;
    VlBpeCandidate *heap;
    int64_t heap_count, heap_capacity;
} VlBpeScratch;

// Appends the ids of one word.
VlStatus vl_bpe_encode(const VlBpe *bpe, const VlVocabulary *vocabulary, VlSpan word, VlBpeScratch *scratch,
                       VlTokenIds *out);
void vl_bpe_scratch_free(VlBpeScratch *scratch);

// ---- Added tokens, found in the text before anything else happens to it -----------
typedef struct VlAddedToken {
    char *text;  // as it is searched for: normalised in the second set
    int64_t length;
    int32_t id;
    bool single_word, strip_left, strip_right;
} VlAddedToken;

typedef struct VlAddedSet {
    VlAddedToken *tokens;  // sorted bytewise by vl_added_set_sort
    int64_t count, capacity;
} VlAddedSet;

// One piece of a text: an added token (id >= 0) or plain text (id -1).
typedef struct VlAddedPiece {
    VlSpan text;
    int32_t id;
} VlAddedPiece;

typedef struct VlAddedPieces {
    VlAddedPiece *pieces;
    int64_t count, capacity;
} VlAddedPieces;

VlStatus vl_added_set_add(VlAddedSet *set, VlSpan text, const VlAddedToken *flags);
void vl_added_set_sort(VlAddedSet *set);
// Splits a text at the tokens of the set, the longest at the leftmost place first. No piece is empty.
VlStatus vl_added_set_split(const VlAddedSet *set, VlSpan text, VlAddedPieces *out);
void vl_added_set_free(VlAddedSet *set);

// ---- Normaliser, pre-tokeniser, decoder: short lists of steps ----------------------
typedef enum VlTextStepKind {
    VL_STEP_NFC,
    VL_STEP_PREPEND,        // `text` in front, unless empty
    VL_STEP_REPLACE,        // `pattern` by `text`
    VL_STEP_BYTE_LEVEL,     // decoder: characters to the bytes they stand for
    VL_STEP_BYTE_FALLBACK,  // decoder: runs of <0xNN> to the characters they encode
    VL_STEP_FUSE,           // decoder: all tokens become one
    VL_STEP_STRIP,  // decoder: up to `start` and `stop` copies of `text` (one character) off the ends of each token
} VlTextStepKind;

// Whether the decoder's steps behind it see one text, no longer tokens.
static inline bool vl_step_joins(VlTextStepKind kind) { return kind == VL_STEP_FUSE || kind == VL_STEP_BYTE_LEVEL; }

typedef struct VlTextStep {
    VlTextStepKind kind;
    char *text, *pattern;
    int64_t start, stop;
} VlTextStep;

typedef struct VlTextSteps {
    VlTextStep steps[VL_TOKENIZER_STEPS_LIMIT];
    int64_t count;
} VlTextSteps;

// *text becomes its normalised form; *spare is room that is reused.
VlStatus vl_normalize(const VlTextSteps *normalizer, VlText *text, VlText *spare);
// Canonical composition (NFC) of `source`, appended to *text. Linear in the length, whatever the combining marks.
VlStatus vl_text_append_nfc(VlText *text, VlSpan source);

typedef struct VlPretokenizer {
    pcre2_code *pattern;  // NULL: the text is one word
    bool byte_level;      // words are written in the 256 characters that stand for bytes
} VlPretokenizer;

// One walk over the words of a text.
typedef struct VlPretokenizerWalk {
    const VlPretokenizer *pretokenizer;
    pcre2_match_data *match;
    pcre2_match_context *context;
    VlSpan text;
    int64_t offset;                  // where the next word starts
    int64_t match_begin, match_end;  // a match at or behind `offset` that was found already; begin -1: none
    VlText word;                     // the word in byte-level characters
} VlPretokenizerWalk;

// Compiles the regular expression of a Split, after putting Unicode's white space for \s, whose meaning differs between
// engines. Errors: VL_UNSUPPORTED for constructs that PCRE2 reads in another way than the reference's engine
// (Oniguruma).
VlStatus vl_pretokenizer_compile(VlPretokenizer *pretokenizer, const char *pattern, const char *name);
// Room for walks (vl_pretokenizer_walk_free), and the start of one over `text`. vl_pretokenizer_walk_next gives the
// words in order; each lives until the next call; an empty one ends the walk.
VlStatus vl_pretokenizer_walk_create(const VlPretokenizer *pretokenizer, VlPretokenizerWalk *walk);
void vl_pretokenizer_walk_start(VlPretokenizerWalk *walk, VlSpan text);
VlStatus vl_pretokenizer_walk_next(VlPretokenizerWalk *walk, VlSpan *word);
void vl_pretokenizer_walk_free(VlPretokenizerWalk *walk);

// The 256 characters of byte-level vocabularies: printable bytes stand for themselves, the others lie from U+0100 on.
int32_t vl_byte_level_character(unsigned char byte);
int32_t vl_byte_level_byte(int32_t character);  // -1: no such character

// ---- The whole ------------------------------------------------------------------
struct VlTokenizer {
    VlVocabulary vocabulary;
    VlBpe bpe;
    VlAddedSet added, added_normalized;
    VlTextSteps normalizer, decoder;
    VlPretokenizer pretokenizer;
    VlTokenIds prefix, suffix;  // what the post-processor adds
    int32_t bos, eos, pad, unk;
    bool clean_up;  // decoded text loses the spaces before punctuation
    char *chat_template;
};

// tokenizer_load.c: tokenizer.json; tokenizer_components.c: the parts but the model; tokenizer_config.c:
// tokenizer_config.json.
VlStatus vl_tokenizer_load_components(VlTokenizer *tokenizer, const json_t *document, const char *name);
VlStatus vl_tokenizer_load_config(VlTokenizer *tokenizer, const char *path);
// Puts a token into the vocabulary (unless the model has it, under this id) and into the set that is searched for.
VlStatus vl_tokenizer_add_token(VlTokenizer *tokenizer, VlSpan text, int64_t id, bool special, bool normalized,
                                const VlAddedToken *flags, const char *name);

#endif
