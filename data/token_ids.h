// A growing list of token ids. Ids below zero are no text: -100 marks an unlabelled position, -200, -201 and -202 stand
// for the features of an image, a video, a sound.
#ifndef VL_DATA_TOKEN_IDS_H
#define VL_DATA_TOKEN_IDS_H

#include <stdint.h>

#include "base/status.h"

// Zeroed, it is the empty list. The owner frees it with vl_token_ids_free.
typedef struct VlTokenIds {
    int64_t *ids;
    int64_t count, capacity;
} VlTokenIds;

VlStatus vl_token_ids_append(VlTokenIds *list, int64_t id);
VlStatus vl_token_ids_append_all(VlTokenIds *list, const int64_t *ids, int64_t count);
void vl_token_ids_free(VlTokenIds *list);

#endif
