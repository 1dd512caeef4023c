// An input that begins like a pickle becomes the pickle of an archive with true checksums; anything else, and the
// format before PyTorch 1.6, is a file as it is.
#include "base/memory.h"
#include "base/torch_file.h"
#include "tests/base/forge_zip.h"
#include "tests/fuzz/fuzz.h"

static void use(const VlTorchFile *file) {
    for (int64_t i = 0; i < file->count; i++) {
        const VlTorchEntry *entry = &file->entries[i];
        int64_t elements = vl_elements(entry->tensor);
        char *values;
        if (vl_torch_find(file, entry->name) != entry) abort();
        if (vl_bytes(entry->tensor) > file->reader.size) abort();  // never more than is stored
        if (vl_allocate(&values, elements, 8)) abort();
        if (vl_torch_read_part(file, entry, 0, elements, values)) abort();
        if (vl_torch_read_part(file, entry, elements / 3, elements - elements / 3, values)) abort();
        vl_free(values);
    }
    (void)vl_torch_verify(file);
}

static void open_and_use(const void *data, size_t size) {
    VlTorchFile file;
    if (vl_torch_open(&file, fuzz_file(0, data, size))) return;
    use(&file);
    vl_torch_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 2 && data[0] == 0x80 && data[2] != 0x8a) {
        ForgedZip zip = forge_torch(data, size);
        open_and_use(zip.bytes, zip.used);
        free(zip.bytes);
    } else {
        open_and_use(data, size);
    }
    return 0;
}
