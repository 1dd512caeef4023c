// Zip archives made by hand, with true checksums around any content: for what PyTorch would never write.
#ifndef VL_TESTS_BASE_FORGE_ZIP_H
#define VL_TESTS_BASE_FORGE_ZIP_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { FORGED_RECORDS = 8 };

// A record begins at local[i] with its local header; entry[i] is its row in the directory. Tests damage them there.
typedef struct ForgedZip {
    unsigned char *bytes;
    size_t used;
    int records;
    size_t local[FORGED_RECORDS], entry[FORGED_RECORDS], end;
    struct {
        char name[64];
        uint32_t crc32;
        size_t bytes;
    } record[FORGED_RECORDS];
} ForgedZip;

static inline void forge_bytes(ForgedZip *zip, const void *bytes, size_t count) {
    unsigned char *grown = realloc(zip->bytes, zip->used + count + 1);
    if (!grown) abort();
    zip->bytes = grown;
    if (count) memcpy(grown + zip->used, bytes, count);
    zip->used += count;
}

static inline void forge_number(ForgedZip *zip, uint64_t value, size_t count) {
    unsigned char bytes[8];
    for (size_t i = 0; i < count; i++) bytes[i] = (unsigned char)(value >> (8 * i));
    forge_bytes(zip, bytes, count);
}

// The fields that a local header and a row of the directory share, from "version needed" to the length of the name.
static inline void forge_fields(ForgedZip *zip, int i) {
    forge_number(zip, 0, 2);  // version
    forge_number(zip, 0, 2);  // flags
    forge_number(zip, 0, 2);  // method
    forge_number(zip, 0, 4);  // time and date
    forge_number(zip, zip->record[i].crc32, 4);
    forge_number(zip, zip->record[i].bytes, 4);
    forge_number(zip, zip->record[i].bytes, 4);
    forge_number(zip, strlen(zip->record[i].name), 2);
}

static inline void forge_record(ForgedZip *zip, const char *name, const void *content, size_t bytes) {
    int i = zip->records++;
    if (i >= FORGED_RECORDS || strlen(name) >= sizeof zip->record[i].name) abort();
    strcpy(zip->record[i].name, name);
    zip->record[i].bytes = bytes;
    zip->record[i].crc32 = (uint32_t)crc32_z(0, content, bytes);
    zip->local[i] = zip->used;
    forge_bytes(zip, "PK\3\4", 4);
    forge_fields(zip, i);
    forge_number(zip, 0, 2);  // no extra field
    forge_bytes(zip, name, strlen(name));
    forge_bytes(zip, content, bytes);
}

static inline void forge_end(ForgedZip *zip) {
    size_t begin = zip->used;
    for (int i = 0; i < zip->records; i++) {
        zip->entry[i] = zip->used;
        forge_bytes(zip, "PK\1\2", 4);
        forge_number(zip, 0, 2);  // version made by
        forge_fields(zip, i);
        forge_number(zip, 0, 2);  // no extra field
        forge_number(zip, 0, 2);  // no comment
        forge_number(zip, 0, 8);  // volume, attributes
        forge_number(zip, zip->local[i], 4);
        forge_bytes(zip, zip->record[i].name, strlen(zip->record[i].name));
    }
    zip->end = zip->used;
    forge_bytes(zip, "PK\5\6", 4);
    forge_number(zip, 0, 4);
    forge_number(zip, (uint64_t)zip->records, 2);
    forge_number(zip, (uint64_t)zip->records, 2);
    forge_number(zip, zip->end - begin, 4);
    forge_number(zip, begin, 4);
    forge_number(zip, 0, 2);
}

// A file of PyTorch's around a pickle: with one storage, "0", of eight floats 0, 1, 2, ...
static inline ForgedZip forge_torch(const void *pickle, size_t bytes) {
    ForgedZip zip = {0};
    float values[8];
    for (int i = 0; i < 8; i++) values[i] = (float)i;
    forge_record(&zip, "archive/data.pkl", pickle, bytes);
    forge_record(&zip, "archive/byteorder", "little", 6);
    forge_record(&zip, "archive/data/0", values, sizeof values);
    forge_record(&zip, "archive/version", "3\n", 2);
    forge_end(&zip);
    return zip;
}

#endif
