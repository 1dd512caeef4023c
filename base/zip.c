#include "base/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/memory.h"

// Sizes of the fixed parts of the format's structures (APPNOTE.TXT 6.3.10, section 4.3) and what begins them.
enum { LOCAL_SIZE = 30, ENTRY_SIZE = 46, END_SIZE = 22, END64_SIZE = 56, LOCATOR_SIZE = 20 };
enum { LOCAL_MARK = 0x04034b50, ENTRY_MARK = 0x02014b50, END_MARK = 0x06054b50, END64_MARK = 0x06064b50 };
enum { LOCATOR_MARK = 0x07064b50, EXTRA_64 = 1 };
enum { FLAG_ENCRYPTED = 1, FLAG_SIZES_FOLLOW = 8, FLAG_UTF8 = 0x800 };
enum { DIRECTORY_LIMIT = 100000000, PIECE = 1 << 20 };

static uint64_t little(const unsigned char *bytes, int count) {
    uint64_t value = 0;
    for (int i = count - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

static uint32_t u16(const unsigned char *bytes) { return (uint32_t)little(bytes, 2); }
static uint32_t u32(const unsigned char *bytes) { return (uint32_t)little(bytes, 4); }
static uint64_t u64(const unsigned char *bytes) { return little(bytes, 8); }

static int compare_names(const void *a, const void *b) {
    return strcmp(((const VlZipRecord *)a)->name, ((const VlZipRecord *)b)->name);
}

static int compare_headers(const void *a, const void *b) {
    const VlZipRecord *x = a, *y = b;
    return (x->header > y->header) - (x->header < y->header);
}

// ---- The end of the archive ------------------------------------------------

typedef struct Directory {
    uint64_t count, offset, bytes;
} Directory;

// The ZIP64 record stands between the directory and its locator, the locator in front of the end record at `end`.
static VlStatus read_end64(const VlReader *reader, int64_t end, Directory *directory) {
    unsigned char record[END64_SIZE + LOCATOR_SIZE];
    const unsigned char *locator = record + END64_SIZE;
    int64_t begin = end - (int64_t)sizeof record;
    if (begin < 0) return vl_error(VL_FORMAT, "the zip archive's ZIP64 record is missing");
    VL_TRY(vl_reader_read(reader, begin, record, (int64_t)sizeof record));
    if (u32(locator + 4) != 0 || u32(locator + 16) > 1 || u32(record + 16) != 0 || u32(record + 20) != 0) {
        return vl_error(VL_UNSUPPORTED, "the zip archive has several volumes");
    }
    if (u32(record) != END64_MARK || u64(record + 4) != END64_SIZE - 12 || u64(locator + 8) != (uint64_t)begin) {
        return vl_error(VL_FORMAT, "the zip archive's ZIP64 record is damaged or not where its locator says");
    }
    *directory = (Directory){.count = u64(record + 32), .bytes = u64(record + 40), .offset = u64(record + 48)};
    if (u64(record + 24) != directory->count) return vl_error(VL_UNSUPPORTED, "the zip archive has several volumes");
    if (directory->bytes > (uint64_t)begin || directory->offset != (uint64_t)begin - directory->bytes) {
        return vl_error(VL_FORMAT, "the zip archive's directory does not end at its ZIP64 record");
    }
    return VL_OK;
}

// A field of the end record agrees with the ZIP64 record, or says that it does not know.
static bool agrees(uint64_t field, uint64_t unknown, uint64_t value) { return field == unknown || field == value; }

static VlStatus find_directory(const VlReader *reader, Directory *directory) {
    unsigned char bytes[LOCATOR_SIZE + END_SIZE], *record = bytes + LOCATOR_SIZE;
    int64_t end = reader->size - END_SIZE;
    if (end < LOCATOR_SIZE) {
        return vl_error(VL_FORMAT, "truncated: %lld bytes are no zip archive", (long long)reader->size);
    }
    VL_TRY(vl_reader_read(reader, end - LOCATOR_SIZE, bytes, (int64_t)sizeof bytes));
    if (u32(record) != END_MARK || u16(record + 20) != 0) {
        return vl_error(VL_FORMAT, "truncated or damaged: it does not end with a zip archive's end record");
    }
    uint64_t count = u16(record + 10), size = u32(record + 12), offset = u32(record + 16);
    if (u16(record + 8) != count || (u16(record + 4) != 0 && u16(record + 4) != UINT16_MAX) ||
        (u16(record + 6) != 0 && u16(record + 6) != UINT16_MAX)) {
        return vl_error(VL_UNSUPPORTED, "the zip archive has several volumes");
    }
    if (u32(bytes) == LOCATOR_MARK) {
        VL_TRY(read_end64(reader, end, directory));
        if (!agrees(count, UINT16_MAX, directory->count) || !agrees(size, UINT32_MAX, directory->bytes) ||
            !agrees(offset, UINT32_MAX, directory->offset)) {
            return vl_error(VL_FORMAT, "the zip archive's two end records contradict each other");
        }
        return VL_OK;
    }
    *directory = (Directory){.count = count, .offset = offset, .bytes = size};
    if (size > (uint64_t)end || offset != (uint64_t)end - size) {
        return vl_error(VL_FORMAT, "the zip archive's directory does not end at its end record");
    }
    return VL_OK;
}

// ---- The directory ---------------------------------------------------------

// Takes what the fixed fields leave to the ZIP64 extra field. `fields`: pointers in the order of the format.
static VlStatus read_extra64(const unsigned char *extra, int64_t bytes, uint64_t *const fields[3]) {
    bool wanted = false;
    for (int i = 0; i < 3; i++) wanted |= *fields[i] == UINT32_MAX;
    while (wanted && bytes >= 4) {
        uint32_t kind = u16(extra), size = u16(extra + 2);
        extra += 4;
        bytes -= 4;
        if ((int64_t)size > bytes) return vl_error(VL_FORMAT, "its extra field is damaged");
        for (int i = 0; kind == EXTRA_64 && i < 3; i++) {
            if (*fields[i] != UINT32_MAX) continue;
            if (size < 8) return vl_error(VL_FORMAT, "its ZIP64 field is too short");
            *fields[i] = u64(extra);
            extra += 8;
            bytes -= 8;
            size -= 8;
        }
        if (kind == EXTRA_64) return VL_OK;
        extra += size;
        bytes -= size;
    }
    return VL_OK;
}

static VlStatus check_kind(uint32_t flags, uint32_t method) {
    if (flags & FLAG_ENCRYPTED) return vl_error(VL_UNSUPPORTED, "it is encrypted");
    if (flags & ~(uint32_t)(FLAG_SIZES_FOLLOW | FLAG_UTF8)) {
        return vl_error(VL_UNSUPPORTED, "its flags 0x%x are not known", flags);
    }
    if (method != 0) {
        return vl_error(VL_UNSUPPORTED, "it is compressed (method %u), which PyTorch never does", method);
    }
    return VL_OK;
}

// The local header must tell the same as the directory's `entry`; sets the content's offset.
static VlStatus check_local(const VlReader *reader, const unsigned char *entry, VlZipRecord *record) {
    unsigned char local[LOCAL_SIZE];
    char *name = NULL;
    int64_t name_bytes = (int64_t)strlen(record->name), end;
    VL_TRY(vl_reader_read(reader, record->header, local, LOCAL_SIZE));
    if (u32(local) != LOCAL_MARK)
        return vl_error(VL_FORMAT, "no local header stands at %lld", (long long)record->header);
    uint32_t flags = u16(local + 6), crc32_field = u32(local + 14);
    uint64_t stored = u32(local + 18), size = u32(local + 22), unused = 0;
    bool follow = (flags & FLAG_SIZES_FOLLOW) != 0;
    if (flags != u16(entry + 8) || u16(local + 8) != u16(entry + 10) || u16(local + 26) != name_bytes) {
        return vl_error(VL_FORMAT, "its local header contradicts the directory");
    }
    int64_t extra_bytes = u16(local + 28);
    VL_TRY(VL_NEW(&name, name_bytes + extra_bytes));
    VlStatus status = vl_reader_read(reader, record->header + LOCAL_SIZE, name, name_bytes + extra_bytes);
    if (!status && memcmp(name, record->name, (size_t)name_bytes)) {
        status = vl_error(VL_FORMAT, "its local header has another name");
    }
    if (!status) {
        status =
            read_extra64((unsigned char *)name + name_bytes, extra_bytes, (uint64_t *const[]){&size, &stored, &unused});
    }
    vl_free(name);
    VL_TRY(status);
    bool unstated = follow && crc32_field == 0 && stored == 0 && size == 0;
    if (!unstated && (crc32_field != record->crc32 || stored != size || size != (uint64_t)record->bytes)) {
        return vl_error(VL_FORMAT, "its local header states another size or CRC-32 than the directory");
    }
    record->offset = record->header + LOCAL_SIZE + name_bytes + extra_bytes;
    if (!vl_add(record->offset, record->bytes, &end)) return vl_error(VL_FORMAT, "its size overflows");
    return VL_OK;
}

// What the record `entry` of the directory says, its local header checked; the name is read already.
static VlStatus read_record(const VlReader *reader, const unsigned char *entry, VlZipRecord *record) {
    int64_t name_bytes = u16(entry + 28);
    uint64_t size = u32(entry + 24), stored = u32(entry + 20), header = u32(entry + 42);
    VL_TRY(check_kind(u16(entry + 8), u16(entry + 10)));
    VL_TRY(
        read_extra64(entry + ENTRY_SIZE + name_bytes, u16(entry + 30), (uint64_t *const[]){&size, &stored, &header}));
    if (stored != size) return vl_error(VL_FORMAT, "it is stored, but in another size than its own");
    if (size > (uint64_t)reader->size || header > (uint64_t)reader->size) {
        return vl_error(VL_FORMAT, "its %llu bytes at %llu lie outside the file of %lld", (unsigned long long)size,
                        (unsigned long long)header, (long long)reader->size);
    }
    record->header = (int64_t)header;
    record->bytes = (int64_t)size;
    record->crc32 = u32(entry + 16);
    return check_local(reader, entry, record);
}

static VlStatus read_directory(VlZip *zip, const VlReader *reader, const unsigned char *bytes, Directory directory) {
    const unsigned char *entry = bytes, *end = bytes + directory.bytes;
    VL_TRY(VL_NEW(&zip->records, (int64_t)directory.count));
    for (uint64_t i = 0; i < directory.count; i++) {
        int64_t left = end - entry;
        if (left < ENTRY_SIZE || u32(entry) != ENTRY_MARK) {
            return vl_error(VL_FORMAT, "record %llu of the zip archive's directory is damaged", (unsigned long long)i);
        }
        int64_t name_bytes = u16(entry + 28), behind = u16(entry + 30) + (int64_t)u16(entry + 32);
        if (left < ENTRY_SIZE + name_bytes + behind) {
            return vl_error(VL_FORMAT, "record %llu of the zip archive's directory is cut", (unsigned long long)i);
        }
        const char *name = (const char *)entry + ENTRY_SIZE;
        if (name_bytes == 0 || memchr(name, '\0', (size_t)name_bytes)) {
            return vl_error(VL_FORMAT, "the name of record %llu of the zip archive is empty or holds a zero byte",
                            (unsigned long long)i);
        }
        VlZipRecord *record = &zip->records[i];
        VL_TRY(vl_duplicate_bytes(&record->name, name, name_bytes));
        zip->count++;
        VL_TRY_CONTEXT(read_record(reader, entry, record), "record '%.200s'", record->name);
        entry += ENTRY_SIZE + name_bytes + behind;
    }
    if (entry != end) return vl_error(VL_FORMAT, "the zip archive's directory holds more than its records");
    return VL_OK;
}

// Contents lie one behind the other in front of the directory; what stands between them (padding, sizes that follow) is
// free.
static VlStatus check_layout(VlZip *zip, int64_t directory) {
    qsort(zip->records, (size_t)zip->count, sizeof *zip->records, compare_headers);
    for (int64_t i = 0; i < zip->count; i++) {
        const VlZipRecord *record = &zip->records[i];
        int64_t limit = i + 1 < zip->count ? record[1].header : directory, end = record->offset + record->bytes;
        if (end > limit) {
            return vl_error(VL_FORMAT, "record '%.200s' ends at %lld and overlaps '%.200s' at %lld", record->name,
                            (long long)end, i + 1 < zip->count ? record[1].name : "the directory", (long long)limit);
        }
    }
    qsort(zip->records, (size_t)zip->count, sizeof *zip->records, compare_names);
    for (int64_t i = 1; i < zip->count; i++) {
        if (!strcmp(zip->records[i - 1].name, zip->records[i].name)) {
            return vl_error(VL_FORMAT, "the record '%.200s' is in the zip archive twice", zip->records[i].name);
        }
    }
    return VL_OK;
}

static VlStatus open_zip(VlZip *zip, const VlReader *reader) {
    Directory directory = {0};
    unsigned char *bytes = NULL;
    VL_TRY(find_directory(reader, &directory));
    if (directory.bytes > DIRECTORY_LIMIT || directory.count > directory.bytes / ENTRY_SIZE) {
        return vl_error(VL_FORMAT,
                        "the zip archive's directory claims %llu records in %llu bytes; %d bytes are allowed",
                        (unsigned long long)directory.count, (unsigned long long)directory.bytes, DIRECTORY_LIMIT);
    }
    VL_TRY(VL_NEW(&bytes, (int64_t)directory.bytes));
    VlStatus status = vl_reader_read(reader, (int64_t)directory.offset, bytes, (int64_t)directory.bytes);
    if (!status) status = read_directory(zip, reader, bytes, directory);
    if (!status) status = check_layout(zip, (int64_t)directory.offset);
    vl_free(bytes);
    return status;
}

// ---- Public ----------------------------------------------------------------

VlStatus vl_zip_open(VlZip *zip, const VlReader *reader) {
    *zip = (VlZip){0};
    VlStatus status = open_zip(zip, reader);
    if (status) vl_zip_close(zip);
    return status;
}

const VlZipRecord *vl_zip_find(const VlZip *zip, const char *name) {
    VlZipRecord wanted = {.name = (char *)name};
    if (!zip->count) return NULL;
    return bsearch(&wanted, zip->records, (size_t)zip->count, sizeof *zip->records, compare_names);
}

static VlStatus compare_crc32(const VlZipRecord *record, uLong found) {
    if (found == record->crc32) return VL_OK;
    return vl_error(VL_FORMAT, "record '%.200s' is damaged: its CRC-32 is %08lx, the archive says %08lx", record->name,
                    found, (unsigned long)record->crc32);
}

VlStatus vl_zip_read(const VlReader *reader, const VlZipRecord *record, int64_t limit, char **data) {
    char *content;
    if (record->bytes > limit) {
        return vl_error(VL_FORMAT, "record '%.200s' has %lld bytes; at most %lld are allowed", record->name,
                        (long long)record->bytes, (long long)limit);
    }
    VL_TRY(VL_NEW(&content, record->bytes + 1));
    VlStatus status = vl_reader_read(reader, record->offset, content, record->bytes);
    if (!status) status = compare_crc32(record, crc32_z(0, (const Bytef *)content, (z_size_t)record->bytes));
    if (status) {
        vl_free(content);
        return status;
    }
    *data = content;
    return VL_OK;
}

VlStatus vl_zip_verify(const VlReader *reader, const VlZipRecord *record) {
    VlStatus status = VL_OK;
    uLong sum = 0;
    Bytef *piece;
    VL_TRY(VL_NEW(&piece, PIECE));
    for (int64_t begin = 0; begin < record->bytes && !status; begin += PIECE) {
        int64_t count = record->bytes - begin < PIECE ? record->bytes - begin : PIECE;
        status = vl_reader_read(reader, record->offset + begin, piece, count);
        if (!status) sum = crc32_z(sum, piece, (z_size_t)count);
    }
    vl_free(piece);
    return status ? status : compare_crc32(record, sum);
}

void vl_zip_close(VlZip *zip) {
    for (int64_t i = 0; i < zip->count; i++) vl_free(zip->records[i].name);
    vl_free(zip->records);
    *zip = (VlZip){0};
}
