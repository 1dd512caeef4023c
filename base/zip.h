// The directory of a zip archive whose records are all stored (not compressed), as PyTorch writes them.
//
// libzip is not used: it does not tell where a record's bytes lie in the file (they are read at offsets, by several
// threads, from files of 100 GB), and it accepts what has to be refused here (records that overlap, local headers that
// differ from the directory). Without decompression the format is small.
#ifndef VL_BASE_ZIP_H
#define VL_BASE_ZIP_H

#include "base/files.h"

typedef struct VlZipRecord {
    char *name;
    int64_t header;         // offset of the local header in the file
    int64_t offset, bytes;  // of the content
    uint32_t crc32;         // as the archive states it
} VlZipRecord;

typedef struct VlZip {
    int64_t count;
    VlZipRecord *records;  // sorted by name
} VlZip;

// Reads the directory of an archive (ZIP64 too) and checks it: it ends the file (no comment), every record is stored,
// plain, lies in front of the directory, overlaps no other and has a name of its own, and its local header says what
// the directory says. Contents are not read. Errors: VL_FORMAT (damaged), VL_UNSUPPORTED (compressed, encrypted, in
// several volumes), VL_IO.
VlStatus vl_zip_open(VlZip *zip, const VlReader *reader);
const VlZipRecord *vl_zip_find(const VlZip *zip, const char *name);  // NULL when absent
// The content (a zero byte follows it), its CRC-32 checked; more than `limit` bytes: VL_FORMAT. Free with vl_free.
VlStatus vl_zip_read(const VlReader *reader, const VlZipRecord *record, int64_t limit, char **data);
// Reads the content once and compares its CRC-32.
VlStatus vl_zip_verify(const VlReader *reader, const VlZipRecord *record);
void vl_zip_close(VlZip *zip);

#endif
