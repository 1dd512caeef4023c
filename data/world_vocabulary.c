// Byte pair encoding over the words of a few texts: the most frequent pair of neighbouring tokens is merged, again and
// again, until each word is one token (Sennrich et al., "Neural machine translation of rare words with subword units",
// 2016).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/text.h"
#include "data/world_parts.h"

enum { PIECES = 48 };  // longest word, in bytes

// A word with the space before it, as the tokens that it consists of so far.
typedef struct Word {
    char *text;
    int64_t uses;
    int64_t pieces;
    int32_t piece[PIECES];
} Word;

typedef struct Merge {
    int32_t left, right, merged;
} Merge;

typedef struct Trainer {
    int64_t words, words_capacity;
    Word *word;
    int64_t tokens, tokens_capacity;
    char **token;  // in the printable alphabet
    int64_t merges, merges_capacity;
    Merge *merge;
    VlWorldVocabulary *vocabulary;
    int64_t first;
} Trainer;

// Byte-level BPE writes each byte as a printable character: those that are none, in their order, as U+0100 and on.
static void byte_name(int byte, char name[4]) {
    int code = byte, others = 0;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte && !printable) code = 256 + others;
        others += !printable;
    }
    if (code < 0x80) {
        snprintf(name, 4, "%c", code);
    } else {
        snprintf(name, 4, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 0x3f));
    }
}

static VlStatus add_token(Trainer *trainer, const char *text) {
    VL_TRY(
        vl_reserve(&trainer->token, &trainer->tokens_capacity, trainer->tokens + 1, (int64_t)sizeof *trainer->token));
    VL_TRY(vl_duplicate_string(&trainer->token[trainer->tokens], text));
    json_int_t id = trainer->first + trainer->tokens++;
    if (json_object_set_new(trainer->vocabulary->tokens, text, json_integer(id)) != 0) {
        return vl_error(VL_OUT_OF_MEMORY, "out of memory for a vocabulary");
    }
    return VL_OK;
}

// ---- Words -----------------------------------------------------------------

static VlStatus add_word(Trainer *trainer, const char *text, int64_t length) {
    for (int64_t i = 0; i < trainer->words; i++) {
        if ((int64_t)strlen(trainer->word[i].text) == length && !memcmp(trainer->word[i].text, text, (size_t)length)) {
            trainer->word[i].uses++;
            return VL_OK;
        }
    }
    if (length > PIECES)
        return vl_error(VL_INVALID, "a word of %lld bytes in the texts of the world", (long long)length);
    VL_TRY(vl_reserve(&trainer->word, &trainer->words_capacity, trainer->words + 1, (int64_t)sizeof *trainer->word));
    Word *word = &trainer->word[trainer->words];
    *word = (Word){.uses = 1, .pieces = length};
    for (int64_t i = 0; i < length; i++) word->piece[i] = (uint8_t)text[i];
    VL_TRY(vl_duplicate_bytes(&word->text, text, length));
    trainer->words++;
    return VL_OK;
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// As the pre-tokeniser splits: letters with one space before them.
static VlStatus add_words(Trainer *trainer, const char *text) {
    for (int64_t i = 0; text[i];) {
        int64_t begin = i, letters = text[i] == ' ' && is_letter(text[i + 1]) ? i + 1 : i;
        for (i = letters; is_letter(text[i]);) i++;
        if (i == letters) {
            i++;
        } else {
            VL_TRY(add_word(trainer, text + begin, i - begin));
        }
    }
    return VL_OK;
}

// An answer follows upon a space, whatever stands before the conversation's text in the annotation.
static VlStatus add_sample(Trainer *trainer, const json_t *sample) {
    const json_t *turns = json_object_get(sample, "conversations");
    for (size_t i = 0; i < json_array_size(turns); i++) {
        const char *text = json_string_value(json_object_get(json_array_get(turns, i), "value"));
        VlText spaced = {0};
        VlStatus status = vl_text_append_string(&spaced, " ");
        if (status == VL_OK) status = vl_text_append_string(&spaced, text ? text : "");
        if (status == VL_OK) status = add_words(trainer, spaced.data);
        vl_text_free(&spaced);
        VL_TRY(status);
    }
    return VL_OK;
}

// ---- Merges ----------------------------------------------------------------

typedef struct Pair {
    int32_t left, right;
    int64_t uses;
} Pair;

static int by_tokens(const void *a, const void *b) {
    const Pair *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

// The most frequent pair, the one of the lowest tokens among equals; uses 0 when every word is one token.
static VlStatus find_pair(const Trainer *trainer, Pair *best) {
    Pair *pairs = NULL;
    int64_t count = 0, capacity = 0;
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < trainer->words && status == VL_OK; i++) {
        const Word *word = &trainer->word[i];
        for (int64_t j = 0; j + 1 < word->pieces && status == VL_OK; j++) {
            status = vl_reserve(&pairs, &capacity, count + 1, (int64_t)sizeof *pairs);
            if (status == VL_OK) pairs[count++] = (Pair){word->piece[j], word->piece[j + 1], word->uses};
        }
    }
    *best = (Pair){0};
    if (status == VL_OK && count > 0) qsort(pairs, (size_t)count, sizeof *pairs, by_tokens);
    for (int64_t begin = 0, end; begin < count && status == VL_OK; begin = end) {
        Pair sum = pairs[begin];
        for (end = begin + 1; end < count && by_tokens(&pairs[begin], &pairs[end]) == 0; end++)
            sum.uses += pairs[end].uses;
        if (sum.uses > best->uses) *best = sum;
    }
    vl_free(pairs);
    return status;
}

static void merge_pair(Trainer *trainer, const Merge *merge) {
    for (int64_t i = 0; i < trainer->words; i++) {
        Word *word = &trainer->word[i];
        int64_t kept = 0;
        for (int64_t j = 0; j < word->pieces; kept++) {
            bool hit = j + 1 < word->pieces && word->piece[j] == merge->left && word->piece[j + 1] == merge->right;
            word->piece[kept] = hit ? merge->merged : word->piece[j];
            j += hit ? 2 : 1;
        }
        word->pieces = kept;
    }
}

static int64_t count_pieces(const Trainer *trainer) {
    int64_t count = 0;
    for (int64_t i = 0; i < trainer->words; i++) count += trainer->word[i].pieces;
    return count;
}

// Two pairs can make the same token; then a pair that was merged before may stand there again, and is merged as
// encoding will do it: the earliest merges first.
static void repeat_merges(Trainer *trainer) {
    int64_t before;
    do {
        before = count_pieces(trainer);
        for (int64_t i = 0; i < trainer->merges; i++) merge_pair(trainer, &trainer->merge[i]);
    } while (count_pieces(trainer) < before);
}

static VlStatus add_merge(Trainer *trainer, Pair pair) {
    char joined[4 * PIECES], text[4 * PIECES + 1];
    snprintf(joined, sizeof joined, "%s%s", trainer->token[pair.left], trainer->token[pair.right]);
    snprintf(text, sizeof text, "%s %s", trainer->token[pair.left], trainer->token[pair.right]);
    if (json_array_append_new(trainer->vocabulary->merges, json_string(text)) != 0) {
        return vl_error(VL_OUT_OF_MEMORY, "out of memory for a vocabulary");
    }
    const json_t *present = json_object_get(trainer->vocabulary->tokens, joined);
    int64_t merged = present ? json_integer_value(present) - trainer->first : trainer->tokens;
    if (!present) VL_TRY(add_token(trainer, joined));
    VL_TRY(
        vl_reserve(&trainer->merge, &trainer->merges_capacity, trainer->merges + 1, (int64_t)sizeof *trainer->merge));
    trainer->merge[trainer->merges++] = (Merge){pair.left, pair.right, (int32_t)merged};
    repeat_merges(trainer);
    return VL_OK;
}

static VlStatus train(Trainer *trainer) {
    for (int byte = 0; byte < 256; byte++) {
        char name[4];
        byte_name(byte, name);
        VL_TRY(add_token(trainer, name));
    }
    for (;;) {
        Pair pair;
        VL_TRY(find_pair(trainer, &pair));
        if (pair.uses == 0) return VL_OK;
        VL_TRY(add_merge(trainer, pair));
    }
}

VlStatus vl_world_vocabulary_make(VlWorldVocabulary *vocabulary, int64_t first, json_t *const *annotations,
                                  int64_t count) {
    Trainer trainer = {.vocabulary = vocabulary, .first = first};
    *vocabulary = (VlWorldVocabulary){json_object(), json_array()};
    VlStatus status = vocabulary->tokens && vocabulary->merges ? VL_OK : vl_error(VL_OUT_OF_MEMORY, "out of memory");
    for (int64_t i = 0; i < count; i++) {
        for (size_t j = 0; j < json_array_size(annotations[i]) && status == VL_OK; j++) {
            status = add_sample(&trainer, json_array_get(annotations[i], j));
        }
    }
    if (status == VL_OK) status = train(&trainer);
    for (int64_t i = 0; i < trainer.words; i++) vl_free(trainer.word[i].text);
    for (int64_t i = 0; i < trainer.tokens; i++) vl_free(trainer.token[i]);
    vl_free(trainer.word);
    vl_free(trainer.token);
    vl_free(trainer.merge);
    if (status != VL_OK) vl_world_vocabulary_free(vocabulary);
    return status;
}

void vl_world_vocabulary_free(VlWorldVocabulary *vocabulary) {
    json_decref(vocabulary->tokens);
    json_decref(vocabulary->merges);
    *vocabulary = (VlWorldVocabulary){0};
}
