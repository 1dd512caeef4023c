// From a medium's key to its row in the shard that is being written.
#ifndef VL_DATA_PACK_TABLE_H
#define VL_DATA_PACK_TABLE_H

#include <stdint.h>

#include "base/status.h"

// Zeroed, it is the empty table. The owner releases it with vl_pack_table_clear.
typedef struct VlPackTable {
    struct VlPackEntry {
        char *key;
        int32_t row;
    } * entry;  // open addressing, at most half full
    int64_t capacity, count;
} VlPackTable;

int32_t vl_pack_table_find(const VlPackTable *table, const char *key);  // -1: not there
VlStatus vl_pack_table_add(VlPackTable *table, const char *key, int32_t row);
void vl_pack_table_clear(VlPackTable *table);

#endif
