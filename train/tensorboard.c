#include "train/tensorboard.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/files.h"

typedef struct Record {
    unsigned char bytes[512];
    size_t size;
} Record;

static void put_bytes(Record *record, const void *bytes, size_t size) {
    VL_ASSERT(record->size + size <= sizeof record->bytes);
    memcpy(record->bytes + record->size, bytes, size);
    record->size += size;
}

static void put_varint(Record *record, uint64_t value) {
    do {
        unsigned char byte = (unsigned char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        put_bytes(record, &byte, 1);
        value >>= 7;
    } while (value);
}

// Wire types of protocol buffers: 0 varint, 1 fixed 64 bits, 2 length-delimited, 5 fixed 32 bits. Hosts are
// little-endian.
static void put_key(Record *record, unsigned field, unsigned wire) { put_varint(record, field << 3 | wire); }

static void put_message(Record *record, unsigned field, const void *bytes, size_t size) {
    put_key(record, field, 2);
    put_varint(record, size);
    put_bytes(record, bytes, size);
}

static uint32_t masked_crc(const void *bytes, size_t size) {
    uint32_t crc = vl_crc32c(0, bytes, (int64_t)size);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static VlStatus write_record(FILE *file, const Record *record) {
    uint64_t size = record->size;
    uint32_t head = masked_crc(&size, sizeof size), tail = masked_crc(record->bytes, record->size);
    if (fwrite(&size, sizeof size, 1, file) != 1 || fwrite(&head, sizeof head, 1, file) != 1 ||
        fwrite(record->bytes, record->size, 1, file) != 1 || fwrite(&tail, sizeof tail, 1, file) != 1 ||
        fflush(file) != 0) {
        return vl_error(VL_IO, "cannot write the TensorBoard event file: %s", strerror(errno));
    }
    return VL_OK;
}

static void put_wall_time(Record *record) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    double seconds = (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
    put_key(record, 1, 1);
    put_bytes(record, &seconds, sizeof seconds);
}

VlStatus vl_tensorboard_open(FILE **file, const char *folder) {
    char name[256], host[128] = "host", path[VL_PATH_MAX];
    gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, "events.out.tfevents.%010" PRId64 ".%s.%ld", (int64_t)time(NULL), host, (long)getpid());
    VL_TRY(vl_make_folders(folder));
    VL_TRY(vl_path_join(path, folder, name));
    *file = fopen(path, "wb");
    if (!*file) return vl_error(VL_IO, "cannot create %s: %s", path, strerror(errno));
    Record event = {0};
    put_wall_time(&event);
    put_message(&event, 3, "brain.Event:2", 13);
    return write_record(*file, &event);
}

VlStatus vl_tensorboard_scalar(FILE *file, int64_t step, const char *tag, double value) {
    Record entry = {0}, summary = {0}, event = {0};
    float single = (float)value;
    size_t length = strlen(tag);
    put_message(&entry, 1, tag, length < 200 ? length : 200);
    put_key(&entry, 2, 5);
    put_bytes(&entry, &single, sizeof single);
    put_message(&summary, 1, entry.bytes, entry.size);
    put_wall_time(&event);
    put_key(&event, 2, 0);
    put_varint(&event, (uint64_t)step);
    put_message(&event, 5, summary.bytes, summary.size);
    return write_record(file, &event);
}
