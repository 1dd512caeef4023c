#include "train/tensor_hash.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "base/sparse.h"

enum { READ_PIECES = 4 };

static VlHash stored_form(XXH128_hash_t hash) {
    VlHash result;
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    memcpy(result.bytes, canonical.digest, sizeof result.bytes);
    return result;
}

static void print_hash(XXH128_hash_t hash, char hex[VL_HASH_TEXT]) {
    VlHash bytes = stored_form(hash);
    for (int i = 0; i < 16; i++) snprintf(hex + 2 * i, 3, "%02x", bytes.bytes[i]);
}

int64_t vl_hash_pieces(int64_t bytes) { return bytes / VL_HASH_PIECE + (bytes % VL_HASH_PIECE > 0); }

void vl_hash_pieces_of(const void *data, int64_t size, VlHash *pieces) {
    for (int64_t begin = 0; begin < size; begin += VL_HASH_PIECE) {
        int64_t length = size - begin < VL_HASH_PIECE ? size - begin : VL_HASH_PIECE;
        *pieces++ = stored_form(XXH3_128bits((const char *)data + begin, (size_t)length));
    }
}

static const char zeros[VL_HASH_PIECE];

void vl_hash_pieces_of_zeros(int64_t size, VlHash *pieces) {
    VlHash whole;
    if (size >= VL_HASH_PIECE) vl_hash_pieces_of(zeros, VL_HASH_PIECE, &whole);
    for (; size >= VL_HASH_PIECE; size -= VL_HASH_PIECE) *pieces++ = whole;
    vl_hash_pieces_of(zeros, size, pieces);
}

void vl_hash_tensor(const VlHash *pieces, int64_t count, char hex[VL_HASH_TEXT]) {
    vl_hash_bytes(pieces, count * (int64_t)sizeof *pieces, hex);
}

void vl_hash_bytes(const void *data, int64_t size, char hex[VL_HASH_TEXT]) {
    print_hash(XXH3_128bits(data, (size_t)size), hex);
}

VlStatus vl_hash_file(const char *path, char hex[VL_HASH_TEXT]) {
    enum { BLOCK = 4 << 20 };
    VlReader reader;
    char *block = NULL;
    VL_TRY(vl_reader_open(&reader, path));
    XXH3_state_t *state = XXH3_createState();
    VlStatus status =
        state ? VL_NEW(&block, BLOCK) : vl_error(VL_OUT_OF_MEMORY, "out of memory while hashing %s", path);
    if (status == VL_OK) XXH3_128bits_reset(state);
    for (int64_t offset = 0; offset < reader.size && status == VL_OK;) {
        int64_t size = reader.size - offset < BLOCK ? reader.size - offset : BLOCK;
        status = vl_reader_read(&reader, offset, block, size);
        if (status == VL_OK) XXH3_128bits_update(state, block, (size_t)size);
        offset += size;
    }
    if (status == VL_OK) print_hash(XXH3_128bits_digest(state), hex);
    vl_reader_close(&reader);
    XXH3_freeState(state);
    vl_free(block);
    return status;
}

VlStatus vl_hash_stored_tensor(const VlReader *reader, int64_t offset, int64_t bytes, char hex[VL_HASH_TEXT]) {
    enum { BLOCK = READ_PIECES * VL_HASH_PIECE };
    VlHash *pieces = NULL;
    char *block = NULL;
    VlStatus status;
    VL_TRY_GOTO(status, VL_NEW(&pieces, vl_hash_pieces(bytes)), done);
    VL_TRY_GOTO(status, VL_NEW(&block, bytes < BLOCK ? bytes : BLOCK), done);
    for (int64_t begin = 0; begin < bytes; begin += BLOCK) {
        int64_t size = bytes - begin < BLOCK ? bytes - begin : BLOCK;
        VlHash *here = pieces + begin / VL_HASH_PIECE;
        if (vl_reader_is_hole(reader, offset + begin, size)) {
            vl_hash_pieces_of_zeros(size, here);
            continue;
        }
        VL_TRY_GOTO(status, vl_reader_read(reader, offset + begin, block, size), done);
        vl_hash_pieces_of(block, size, here);
    }
    vl_hash_tensor(pieces, vl_hash_pieces(bytes), hex);
done:
    vl_free(pieces);
    vl_free(block);
    return status;
}
