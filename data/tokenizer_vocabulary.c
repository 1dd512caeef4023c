// Two hash tables with open addressing: token text -> id, and pair of ids -> merge.
#include "base/memory.h"
#include "data/tokenizer_parts.h"

static uint64_t mix(uint64_t value) {
    value ^= value >> 32;
    value *= 0xd6e8feb86659fd93u;
    value ^= value >> 32;
    value *= 0xd6e8feb86659fd93u;
    return value ^ value >> 32;
}

static uint64_t hash_bytes(VlSpan text) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < text.length; i++) hash = (hash ^ (unsigned char)text.data[i]) * 0x100000001b3u;
    return mix(hash);
}

VlSpan vl_vocabulary_text(const VlVocabulary *vocabulary, int64_t id) {
    const VlToken *token = &vocabulary->tokens[id];
    return vl_span(vocabulary->texts.data + token->offset, token->length);
}

// The slot that holds `text`, or the free one where it belongs.
static int64_t find_slot(const VlVocabulary *vocabulary, VlSpan text) {
    int64_t mask = vocabulary->slot_count - 1, slot = (int64_t)(hash_bytes(text) & (uint64_t)mask);
    while (vocabulary->slots[slot] &&
           !vl_span_equal(vl_vocabulary_text(vocabulary, vocabulary->slots[slot] - 1), text)) {
        slot = (slot + 1) & mask;
    }
    return slot;
}

static VlStatus grow_slots(VlVocabulary *vocabulary) {
    if (vocabulary->used * 2 < vocabulary->slot_count) return VL_OK;
    int64_t grown = vocabulary->slot_count ? vocabulary->slot_count * 4 : 1024;
    int32_t *old = vocabulary->slots, *slots;
    VL_TRY(VL_NEW(&slots, grown));
    vocabulary->slots = slots;
    vocabulary->slot_count = grown;
    for (int64_t id = 0; id < vocabulary->count; id++) {
        if (vocabulary->tokens[id].flags) {
            slots[find_slot(vocabulary, vl_vocabulary_text(vocabulary, id))] = (int32_t)id + 1;
        }
    }
    vl_free(old);
    return VL_OK;
}

VlStatus vl_vocabulary_add(VlVocabulary *vocabulary, VlSpan text, int64_t id, uint32_t flags, const char *name) {
    if (id < 0 || id >= VL_TOKEN_ID_LIMIT) {
        return vl_error(VL_FORMAT, "%s: token \"%.80s\" has the id %lld, which is not in 0 to %d", name, text.data,
                        (long long)id, VL_TOKEN_ID_LIMIT - 1);
    }
    if (id < vocabulary->count && vocabulary->tokens[id].flags) {
        return vl_error(VL_FORMAT, "%s: the tokens \"%.80s\" and \"%.*s\" have the same id %lld", name, text.data,
                        (int)(vocabulary->tokens[id].length < 80 ? vocabulary->tokens[id].length : 80),
                        vl_vocabulary_text(vocabulary, id).data, (long long)id);
    }
    if (vl_vocabulary_find(vocabulary, text) >= 0) {
        return vl_error(VL_FORMAT, "%s: the token \"%.80s\" stands there under two ids", name, text.data);
    }
    VL_TRY(grow_slots(vocabulary));
    VL_TRY(vl_reserve(&vocabulary->tokens, &vocabulary->capacity, id + 1, sizeof *vocabulary->tokens));
    int64_t offset = vocabulary->texts.length;
    VL_TRY(vl_text_append(&vocabulary->texts, text));
    vocabulary->tokens[id] = (VlToken){.offset = offset, .length = (int32_t)text.length, .flags = flags};
    if (vocabulary->count <= id) vocabulary->count = id + 1;
    vocabulary->slots[find_slot(vocabulary, text)] = (int32_t)id + 1;
    vocabulary->used++;
    return VL_OK;
}

int32_t vl_vocabulary_find(const VlVocabulary *vocabulary, VlSpan text) {
    return vocabulary->slot_count ? vocabulary->slots[find_slot(vocabulary, text)] - 1 : -1;
}

int32_t vl_vocabulary_find_model(const VlVocabulary *vocabulary, VlSpan text) {
    int32_t id = vl_vocabulary_find(vocabulary, text);
    return id >= 0 && (vocabulary->tokens[id].flags & VL_TOKEN_MODEL) ? id : -1;
}

void vl_vocabulary_free(VlVocabulary *vocabulary) {
    vl_text_free(&vocabulary->texts);
    vl_free(vocabulary->tokens);
    vl_free(vocabulary->slots);
    *vocabulary = (VlVocabulary){0};
}

// ---- Merges ----------------------------------------------------------------

VlStatus vl_merges_create(VlMerges *merges, int64_t count) {
    int64_t slot_count = 16;
    while (slot_count < count * 2) slot_count *= 2;
    VL_TRY(VL_NEW(&merges->slots, slot_count));
    merges->slot_count = slot_count;
    for (int64_t i = 0; i < slot_count; i++) merges->slots[i].id = -1;
    return VL_OK;
}

static int64_t find_merge_slot(const VlMerges *merges, uint64_t pair) {
    int64_t mask = merges->slot_count - 1, slot = (int64_t)(mix(pair) & (uint64_t)mask);
    while (merges->slots[slot].id >= 0 && merges->slots[slot].pair != pair) slot = (slot + 1) & mask;
    return slot;
}

static uint64_t make_pair(int32_t left, int32_t right) { return (uint64_t)(uint32_t)left << 32 | (uint32_t)right; }

void vl_merges_set(VlMerges *merges, int32_t left, int32_t right, int32_t rank, int32_t id) {
    uint64_t pair = make_pair(left, right);
    merges->slots[find_merge_slot(merges, pair)] = (VlMerge){.pair = pair, .rank = rank, .id = id};
}

const VlMerge *vl_merges_find(const VlMerges *merges, int32_t left, int32_t right) {
    const VlMerge *merge = &merges->slots[find_merge_slot(merges, make_pair(left, right))];
    return merge->id >= 0 ? merge : NULL;
}

void vl_merges_free(VlMerges *merges) {
    vl_free(merges->slots);
    *merges = (VlMerges){0};
}
