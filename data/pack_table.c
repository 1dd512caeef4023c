#include "data/pack_table.h"

#include <string.h>

#include "base/memory.h"
#include "base/random.h"

// The entry that holds the key, or the free one where it belongs.
static struct VlPackEntry *find_entry(const VlPackTable *table, const char *key) {
    int64_t at = (int64_t)(vl_hash_string(key) % (uint64_t)table->capacity);
    while (table->entry[at].key && strcmp(table->entry[at].key, key) != 0) at = (at + 1) % table->capacity;
    return &table->entry[at];
}

int32_t vl_pack_table_find(const VlPackTable *table, const char *key) {
    if (!table->capacity) return -1;
    const struct VlPackEntry *entry = find_entry(table, key);
    return entry->key ? entry->row : -1;
}

VlStatus vl_pack_table_add(VlPackTable *table, const char *key, int32_t row) {
    if (2 * (table->count + 1) > table->capacity) {
        VlPackTable grown = {.capacity = table->capacity ? 2 * table->capacity : 64, .count = table->count};
        VL_TRY(VL_NEW(&grown.entry, grown.capacity));
        for (int64_t i = 0; i < table->capacity; i++) {
            if (table->entry[i].key) *find_entry(&grown, table->entry[i].key) = table->entry[i];
        }
        vl_free(table->entry);
        *table = grown;
    }
    struct VlPackEntry *entry = find_entry(table, key);
    VL_ASSERT(!entry->key);
    VL_TRY(vl_duplicate_string(&entry->key, key));
    entry->row = row;
    table->count++;
    return VL_OK;
}

void vl_pack_table_clear(VlPackTable *table) {
    for (int64_t i = 0; i < table->capacity; i++) vl_free(table->entry[i].key);
    vl_free(table->entry);
    *table = (VlPackTable){0};
}
