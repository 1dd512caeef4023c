#include "data/token_ids.h"

#include <string.h>

#include "base/memory.h"

VlStatus vl_token_ids_append(VlTokenIds *list, int64_t id) { return vl_token_ids_append_all(list, &id, 1); }

VlStatus vl_token_ids_append_all(VlTokenIds *list, const int64_t *ids, int64_t count) {
    if (count == 0) return VL_OK;
    VL_TRY(vl_reserve(&list->ids, &list->capacity, list->count + count, sizeof *list->ids));
    memcpy(list->ids + list->count, ids, (size_t)count * sizeof *ids);
    list->count += count;
    return VL_OK;
}

void vl_token_ids_free(VlTokenIds *list) {
    vl_free(list->ids);
    *list = (VlTokenIds){0};
}
