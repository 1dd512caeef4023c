// What packed data holds, for people: `vl2 show` and `vl2 info`.
#ifndef VL_DATA_SHOW_H
#define VL_DATA_SHOW_H

#include <stdio.h>

#include "data/sample_read.h"

// One sample as training sees it: its text with what is not labelled in [brackets] (with `colour` dimmed instead, for a
// terminal), the medium as <video: 845 tokens>, then ids, labels, sizes, and what there is to say of its sound. Errors
// as vl_sample_read; VL_INVALID for a row that the shard does not have.
VlStatus vl_show_sample(const VlShard *shard, int64_t row, const VlSampleRules *rules, bool colour, FILE *out);

// Counts, sizes and preprocessing of one shard, or of a folder that `vl2 pack` wrote.
VlStatus vl_show_shard(const char *path, FILE *out);
VlStatus vl_show_packed(const char *folder, FILE *out);

#endif
