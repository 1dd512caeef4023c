// Files with holes: ranges of zeros that take no room on the disk.
#ifndef VL_BASE_SPARSE_H
#define VL_BASE_SPARSE_H

#include "base/files.h"

// Whether [offset, offset + size) of the file is a hole as a whole, so that it reads as zeros without a look at it.
// False where the file system cannot tell.
bool vl_reader_is_hole(const VlReader *reader, int64_t offset, int64_t size);

// Whether all bytes are zero.
bool vl_is_zero(const void *data, int64_t size);

// Writes data to [offset, offset + size) of a file in which nothing was written there before: blocks of 4096 bytes
// that hold zeros only are left out, and stay holes. Any number of threads at a time. `path` stands in error texts.
VlStatus vl_write_sparse(int descriptor, const char *path, int64_t offset, const void *data, int64_t size);

#endif
