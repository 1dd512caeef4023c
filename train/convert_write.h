// What a conversion writes: a model folder or a checkpoint that is there whole or not at all.
#ifndef VL_TRAIN_CONVERT_WRITE_H
#define VL_TRAIN_CONVERT_WRITE_H

#include "train/convert_source.h"

// Writes `source` as a new folder `to`: as PATH.tmp first, which an earlier conversion may have left unfinished, then
// fsynced and renamed. `hashes` [source->count] are given back. Errors: VL_INVALID when `to` exists or another program
// is writing it; those of vl_convert_stream. Nothing is left behind after an error.
VlStatus vl_convert_write(const VlConvertSource *source, const char *to, VlConvertFormat format, int64_t shard_bytes,
                          char (*hashes)[VL_HASH_TEXT]);

#endif
