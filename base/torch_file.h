// A restricted reader of PyTorch's files (.pt, .pth, .bin): tensors and plain data. Nothing in them is ever executed.
//
// Such a file is a zip archive of stored (never compressed) records: ARCHIVE/data.pkl, a pickle that describes the
// objects, and ARCHIVE/data/KEY, the raw bytes of one storage each. The pickle is run by a machine that knows lists,
// tuples, sets, dictionaries, strings, bytes, numbers and the few names by which torch.save writes tensors; whatever
// else the pickle asks for is refused by its name. The format before PyTorch 1.6 (several pickles and the storages one
// behind the other, without any checksum) is read by the same machine. Refused too: TorchScript programs, compressed or
// encrypted records, big-endian files, views that repeat elements (expanded).
//
// Names of tensors are their paths: the keys of the dictionaries that lead to them, joined by dots ("model.encoder.w"
// in {"model": {"encoder.w": ...}}; positions for lists). A flat dictionary, as state_dict() gives, has its own names.
// What is no tensor (the `cfg` beside a `model`, say) is given as JSON.
#ifndef VL_BASE_TORCH_FILE_H
#define VL_BASE_TORCH_FILE_H

#include <jansson.h>

#include "base/files.h"
#include "base/tensor.h"
#include "base/zip.h"

typedef struct VlTorchEntry {
    char *name;
    VlTensor tensor;  // dtype and extents; data is NULL. A scalar ([]) is one extent of 1.
    bool scalar;
    int64_t offset;               // of the first element in the file, in bytes
    int64_t stride[VL_MAX_DIMS];  // in elements
    bool contiguous;              // the elements lie in the file as in a row-major tensor
} VlTorchEntry;

typedef struct VlTorchFile {
    int64_t count;
    VlTorchEntry *entries;  // sorted by name
    // What is no tensor: dictionaries are objects (keys that are numbers become text), lists, tuples and sets are
    // arrays, bytes are strings with one character U+0000..U+00FF a byte, numbers that JSON lacks are the strings
    // "nan", "inf" and "-inf". A tensor is left out of an object and is null in an array.
    json_t *data;
    VlZip records;  // tensors that are tied or are views share one
    bool legacy;    // no zip archive; a record is a storage then, named by its key
    VlReader reader;
} VlTorchFile;

// Opens a file and checks it before anything is used: the archive (records within the file, without overlap, named
// once, local headers equal to the directory, byte order), the pickle's CRC-32 and each step of it (bounded stack,
// memo, nesting and sizes), each tensor's extents, strides and offset against its storage. The storages' CRC-32 is
// left to vl_torch_verify. Errors: VL_IO, VL_FORMAT (damaged), VL_UNSUPPORTED (asks for more than tensors and plain
// data, or is in a form named above), VL_OUT_OF_MEMORY; the text names the file.
VlStatus vl_torch_open(VlTorchFile *file, const char *path);
const VlTorchEntry *vl_torch_find(const VlTorchFile *file, const char *name);  // NULL when absent
// Elements [begin, begin + count) in row-major order into host memory, whatever the strides. Any number of threads.
VlStatus vl_torch_read_part(const VlTorchFile *file, const VlTorchEntry *entry, int64_t begin, int64_t count,
                            void *data);
// Reads every record once and compares its CRC-32 with the archive's. VL_FORMAT names the record. The format before
// PyTorch 1.6 has no checksums: nothing is read.
VlStatus vl_torch_verify(const VlTorchFile *file);
void vl_torch_close(VlTorchFile *file);

#endif
