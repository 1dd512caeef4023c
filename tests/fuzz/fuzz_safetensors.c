#include "base/memory.h"
#include "base/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    VlSafetensors set;
    if (vl_safetensors_open(&set, fuzz_file(0, data, size))) return 0;
    for (int64_t i = 0; i < set.count; i++) {
        const VlSafetensorsEntry *entry = &set.entries[i];
        char *values;
        if (vl_safetensors_find(&set, entry->name) != entry) abort();
        if (vl_bytes(entry->tensor) > (int64_t)size) abort();  // all of it lies in the file
        if (vl_allocate(&values, vl_elements(entry->tensor), 8)) abort();
        if (vl_safetensors_read(&set, entry, values)) abort();
        (void)vl_safetensors_read_as(&set, entry, VL_F64, values);
        vl_free(values);
    }
    vl_safetensors_close(&set);
    return 0;
}
