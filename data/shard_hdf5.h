// The shard writer's part of HDF5: types, and the zstd filter. Nothing else includes this.
#ifndef VL_DATA_SHARD_HDF5_H
#define VL_DATA_SHARD_HDF5_H

#include <hdf5.h>

#include "data/shard.h"

enum { VL_SHARD_ZSTD_FILTER = 32015, VL_SHARD_ID_MAX = 255 };

// Switches HDF5's own messages off, and makes the zstd filter known to it, so that no plugin has to be installed.
VlStatus vl_shard_hdf5_start(void);

// The text of HDF5's innermost error, for our own texts; the buffer is the caller's. Returns `text`.
const char *vl_shard_hdf5_reason(char *text, int64_t size);

// Compound types, memory and file alike (little-endian). The caller closes them; negative on failure.
hid_t vl_shard_row_type(void);
hid_t vl_shard_media_type(void);
hid_t vl_shard_chunk_type(void);

#endif
