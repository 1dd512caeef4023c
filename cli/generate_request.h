// A request for `vl2 generate --ids`: token ids and media in files, as JSON.
#ifndef VL_CLI_GENERATE_REQUEST_H
#define VL_CLI_GENERATE_REQUEST_H

#include "model/batch_build.h"

#define VL_NOT_GIVEN INT64_MIN  // no number that anyone would ask for

typedef struct VlGenerateRequest {
    VlSequence prompt;
    int64_t *ids;            // prompt.ids
    VlMedium medium;         // prompt.medium
    int64_t max_new_tokens;  // VL_NOT_GIVEN: the request does not say
} VlGenerateRequest;

// Reads {"input_ids": [..], "pixel_values": "FILE.safetensors", "fbank": "FILE.safetensors", "max_new_tokens": N}; the
// files' names are relative to the request's folder. Free with vl_generate_request_free. Errors: VL_IO, VL_FORMAT
// naming the key.
VlStatus vl_generate_request_load(VlGenerateRequest *request, const char *path, const VlModelConfig *config);
void vl_generate_request_free(VlGenerateRequest *request);

#endif
