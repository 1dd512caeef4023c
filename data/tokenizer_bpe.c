// Byte pair encoding of one word: the pair with the lowest rank is merged first, the leftmost one among equals.
// Candidates wait in a heap and symbols form a doubly linked list, so a word of n symbols takes O(n log n).
#include "base/memory.h"
#include "data/tokenizer_parts.h"

static bool comes_before(VlBpeCandidate a, VlBpeCandidate b) {
    return a.rank != b.rank ? a.rank < b.rank : a.position < b.position;
}

static VlStatus heap_push(VlBpeScratch *scratch, VlBpeCandidate candidate) {
    VL_TRY(vl_reserve(&scratch->heap, &scratch->heap_capacity, scratch->heap_count + 1, sizeof *scratch->heap));
    int64_t place = scratch->heap_count++;
    while (place > 0 && comes_before(candidate, scratch->heap[(place - 1) / 2])) {
        scratch->heap[place] = scratch->heap[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    scratch->heap[place] = candidate;
    return VL_OK;
}

static VlBpeCandidate heap_pop(VlBpeScratch *scratch) {
    VlBpeCandidate top = scratch->heap[0], last = scratch->heap[--scratch->heap_count];
    int64_t place = 0, child;
    while ((child = place * 2 + 1) < scratch->heap_count) {
        if (child + 1 < scratch->heap_count && comes_before(scratch->heap[child + 1], scratch->heap[child])) child++;
        if (!comes_before(scratch->heap[child], last)) break;
        scratch->heap[place] = scratch->heap[child];
        place = child;
    }
    scratch->heap[place] = last;
    return top;
}

static VlStatus add_symbol(VlBpeScratch *scratch, int32_t id) {
    VL_TRY(
        vl_reserve(&scratch->symbols, &scratch->symbol_capacity, scratch->symbol_count + 1, sizeof *scratch->symbols));
    int32_t place = (int32_t)scratch->symbol_count++;
    scratch->symbols[place] = (VlBpeSymbol){.id = id, .previous = place - 1, .next = -1};
    if (place > 0) scratch->symbols[place - 1].next = place;
    return VL_OK;
}

// One symbol per character; bytes where a character has no token and the model falls back to bytes; else the unknown
// token.
static VlStatus split_characters(const VlBpe *bpe, const VlVocabulary *vocabulary, VlSpan word, VlBpeScratch *scratch) {
    bool unknown_waits = false;  // held back, so that the next one can fuse with it
    for (int64_t offset = 0, length; offset < word.length; offset += length) {
        int32_t code_point;
        length = vl_utf8_decode(word, offset, &code_point);
        int32_t id = vl_vocabulary_find_model(vocabulary, vl_span(word.data + offset, length));
        if (id >= 0) {
            if (unknown_waits) VL_TRY(add_symbol(scratch, bpe->unknown));
            unknown_waits = false;
            VL_TRY(add_symbol(scratch, id));
        } else if (bpe->has_byte_fallback) {
            for (int64_t i = 0; i < length; i++) {
                VL_TRY(add_symbol(scratch, bpe->byte_ids[(unsigned char)word.data[offset + i]]));
            }
        } else if (bpe->unknown >= 0) {
            if (unknown_waits && !bpe->fuse_unknown) VL_TRY(add_symbol(scratch, bpe->unknown));
            unknown_waits = true;
        } else {
            return vl_error(VL_INVALID,
                            "the character U+%04X is in no token, and the tokenizer has neither byte fallback nor "
                            "an unknown token",
                            (unsigned)code_point);
        }
    }
    if (unknown_waits) VL_TRY(add_symbol(scratch, bpe->unknown));
    return VL_OK;
}

static VlStatus push_pair(const VlBpe *bpe, VlBpeScratch *scratch, int32_t left) {
    if (left < 0 || scratch->symbols[left].next < 0) return VL_OK;
    int32_t right = scratch->symbols[left].next;
    const VlMerge *merge = vl_merges_find(&bpe->merges, scratch->symbols[left].id, scratch->symbols[right].id);
    if (!merge) return VL_OK;
    return heap_push(scratch, (VlBpeCandidate){.rank = merge->rank, .position = left, .id = merge->id});
}

static VlStatus merge_all(const VlBpe *bpe, VlBpeScratch *scratch) {
    VlBpeSymbol *symbols = scratch->symbols;
    scratch->heap_count = 0;
    for (int64_t i = 0; i + 1 < scratch->symbol_count; i++) VL_TRY(push_pair(bpe, scratch, (int32_t)i));
    while (scratch->heap_count > 0) {
        VlBpeCandidate top = heap_pop(scratch);
        int32_t left = top.position, right = symbols[left].next;
        if (symbols[left].id < 0 || right < 0) continue;
        const VlMerge *merge = vl_merges_find(&bpe->merges, symbols[left].id, symbols[right].id);
        if (!merge || merge->id != top.id) continue;  // a neighbour has changed since the candidate was pushed
        symbols[left].id = top.id;
        symbols[left].next = symbols[right].next;
        symbols[right].id = -1;
        if (symbols[left].next >= 0) symbols[symbols[left].next].previous = left;
        VL_TRY(push_pair(bpe, scratch, symbols[left].previous));
        VL_TRY(push_pair(bpe, scratch, left));
    }
    return VL_OK;
}

VlStatus vl_bpe_encode(const VlBpe *bpe, const VlVocabulary *vocabulary, VlSpan word, VlBpeScratch *scratch,
                       VlTokenIds *out) {
    if (bpe->ignore_merges) {
        int32_t id = vl_vocabulary_find_model(vocabulary, word);
        if (id >= 0) return vl_token_ids_append(out, id);
    }
    scratch->symbol_count = 0;
    VL_TRY(split_characters(bpe, vocabulary, word, scratch));
    VL_TRY(merge_all(bpe, scratch));
    for (int64_t i = 0; i < scratch->symbol_count; i++) {
        if (scratch->symbols[i].id >= 0) VL_TRY(vl_token_ids_append(out, scratch->symbols[i].id));
    }
    return VL_OK;
}

void vl_bpe_scratch_free(VlBpeScratch *scratch) {
    vl_free(scratch->symbols);
    vl_free(scratch->heap);
    *scratch = (VlBpeScratch){0};
}
