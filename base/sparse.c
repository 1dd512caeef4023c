#include "base/sparse.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

enum { BLOCK = 4096 };

bool vl_reader_is_hole(const VlReader *reader, int64_t offset, int64_t size) {
    off_t data = lseek(reader->descriptor, offset, SEEK_DATA);
    if (data < 0) return errno == ENXIO && offset + size <= reader->size;  // no data up to the end of the file
    return data >= offset + size;
}

bool vl_is_zero(const void *data, int64_t size) {
    const char *bytes = data;
    // A first byte of zero, and each byte equal to the one before it.
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, (size_t)size - 1) == 0);
}

static VlStatus write_all(int descriptor, const char *path, int64_t offset, const char *data, int64_t size) {
    while (size > 0) {
        ssize_t put = vl_fault_hit() ? (errno = EIO, -1) : pwrite(descriptor, data, (size_t)size, offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return vl_error(VL_IO, "cannot write '%s': %s", path, strerror(errno));
        data += put;
        offset += put;
        size -= put;
    }
    return VL_OK;
}

VlStatus vl_write_sparse(int descriptor, const char *path, int64_t offset, const void *data, int64_t size) {
    const char *bytes = data;
    int64_t begin = 0;  // of what is to be written with the next call
    for (int64_t at = 0, length; at < size; at += length) {
        length = BLOCK - (offset + at) % BLOCK;
        if (length > size - at) length = size - at;
        if (!vl_is_zero(bytes + at, length)) continue;
        VL_TRY(write_all(descriptor, path, offset + begin, bytes + begin, at - begin));
        begin = at + length;
    }
    VL_TRY(write_all(descriptor, path, offset + begin, bytes + begin, size - begin));
    return VL_OK;
}
