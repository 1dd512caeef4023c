// Hashes of stored tensors: of XXH3-128, cut into pieces, so that pieces are hashed in parallel, in any order, while
// they pass, and holes of a file need not be read.
#ifndef VL_TRAIN_TENSOR_HASH_H
#define VL_TRAIN_TENSOR_HASH_H

#include "base/files.h"

enum { VL_HASH_PIECE = 1 << 20, VL_HASH_TEXT = 33 };

// XXH3-128 as it is stored: 16 bytes, the highest first.
typedef struct VlHash {
    uint8_t bytes[16];
} VlHash;

// The number of pieces of a tensor of so many bytes: VL_HASH_PIECE bytes each, the last one shorter.
int64_t vl_hash_pieces(int64_t bytes);
// The hashes of the pieces of `size` bytes that begin at the first byte of a piece.
void vl_hash_pieces_of(const void *data, int64_t size, VlHash *pieces);
// The same for `size` bytes of zeros.
void vl_hash_pieces_of_zeros(int64_t size, VlHash *pieces);
// A tensor's hash: XXH3-128 of the hashes of its pieces, one after the other, as 32 hexadecimal digits.
void vl_hash_tensor(const VlHash *pieces, int64_t count, char hex[VL_HASH_TEXT]);

// XXH3-128 of bytes, and of a file, as 32 hexadecimal digits.
void vl_hash_bytes(const void *data, int64_t size, char hex[VL_HASH_TEXT]);
VlStatus vl_hash_file(const char *path, char hex[VL_HASH_TEXT]);

// The hash of a tensor of `bytes` bytes at `offset` of a file.
VlStatus vl_hash_stored_tensor(const VlReader *reader, int64_t offset, int64_t bytes, char hex[VL_HASH_TEXT]);

#endif
