#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors_internal.h"

VlStatus vl_safetensors_create(VlSafetensorsWriter *writer, const char *path) {
    *writer = (VlSafetensorsWriter){0};
    VL_TRY(vl_writer_open(&writer->writer, path));
    return VL_OK;
}

VlStatus vl_safetensors_declare(VlSafetensorsWriter *writer, const char *name, VlTensor shape) {
    int64_t bytes;
    if (writer->header_end) return vl_error(VL_INVALID, "tensor '%s' is declared behind the header", name);
    if (!strcmp(name, "__metadata__")) return vl_error(VL_INVALID, "a tensor cannot be named __metadata__");
    if (vl_is_empty(shape) || !vl_safetensors_bytes(shape, &bytes) || !vl_add(writer->data_end, bytes, &bytes)) {
        return vl_error(VL_INVALID, "tensor '%s' of shape %s cannot be written", name, vl_describe(shape));
    }
    VL_TRY(vl_reserve(&writer->entries, &writer->capacity, writer->count + 1, (int64_t)sizeof *writer->entries));
    VlSafetensorsEntry *entry = &writer->entries[writer->count];
    *entry = (VlSafetensorsEntry){.tensor = shape, .offset = writer->data_end};
    entry->tensor.data = NULL;
    VL_TRY(vl_duplicate_string(&entry->name, name));
    writer->count++;
    writer->data_end = bytes;
    return VL_OK;
}

VlStatus vl_safetensors_declare_scalar(VlSafetensorsWriter *writer, const char *name, VlDtype dtype) {
    VL_TRY(vl_safetensors_declare(writer, name, vl_tensor(NULL, dtype, 1)));
    writer->entries[writer->count - 1].scalar = true;
    return VL_OK;
}

static json_t *describe_entry(const VlSafetensorsEntry *entry) {
    json_t *shape = json_array();
    for (int32_t i = 0; shape && !entry->scalar && i < entry->tensor.dims; i++) {
        if (json_array_append_new(shape, json_integer(entry->tensor.dim[i]))) {
            json_decref(shape);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", vl_safetensors_dtypes[entry->tensor.dtype], "shape", shape,
                     "data_offsets", (json_int_t)entry->offset, (json_int_t)(entry->offset + vl_bytes(entry->tensor)));
}

// The header's JSON text (of jansson's allocator, freed with vl_free).
static VlStatus make_header(const VlSafetensorsWriter *writer, char **text) {
    VlStatus status = VL_OK;
    // Readers of the Hugging Face libraries refuse files that do not name their framework.
    json_t *header = vl_fault_hit() ? NULL : json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    if (!header) return vl_error(VL_OUT_OF_MEMORY, "out of memory for a header");
    for (int64_t i = 0; i < writer->count; i++) {
        const char *name = writer->entries[i].name;
        if (json_object_get(header, name)) {
            VL_TRY_GOTO(status, vl_error(VL_INVALID, "tensor '%s' is declared twice", name), done);
        }
        if (json_object_set_new(header, name, describe_entry(&writer->entries[i]))) {
            VL_TRY_GOTO(status, vl_error(VL_INVALID, "tensor '%s': the name is no UTF-8, or memory is out", name),
                        done);
        }
    }
    *text = json_dumps(header, JSON_COMPACT);
    if (!*text) status = vl_error(VL_OUT_OF_MEMORY, "out of memory for a header");
done:
    json_decref(header);
    return status;
}

VlStatus vl_safetensors_begin(VlSafetensorsWriter *writer) {
    static const char spaces[8] = "        ";
    VlStatus status;
    char *text = NULL;
    unsigned char prefix[8];
    VL_TRY_CONTEXT(make_header(writer, &text), "%s", writer->writer.path);
    int64_t length = (int64_t)strlen(text), padding = -length & 7;
    if (length + padding > VL_SAFETENSORS_HEADER_LIMIT) {
        VL_TRY_GOTO(
            status,
            vl_error(VL_INVALID, "%s: the header of %lld tensors has %lld bytes; at most %d are allowed",
                     writer->writer.path, (long long)writer->count, (long long)length, VL_SAFETENSORS_HEADER_LIMIT),
            done);
    }
    for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)(length + padding) >> (8 * i));
    VL_TRY_GOTO(status, vl_writer_write(&writer->writer, prefix, 8), done);
    VL_TRY_GOTO(status, vl_writer_write(&writer->writer, text, length), done);
    VL_TRY_GOTO(status, vl_writer_write(&writer->writer, spaces, padding), done);
    writer->header_end = writer->writer.offset;
    writer->data_end += writer->header_end;
done:
    vl_free(text);
    return status;
}

VlStatus vl_safetensors_write(VlSafetensorsWriter *writer, const void *data, int64_t bytes) {
    if (!writer->header_end || bytes < 0 || bytes > writer->data_end - writer->writer.offset) {
        return vl_error(VL_INVALID, "%s: %lld bytes are more than the declared tensors still need", writer->writer.path,
                        (long long)bytes);
    }
    return vl_writer_write(&writer->writer, data, bytes);
}

VlStatus vl_safetensors_make_hole(VlSafetensorsWriter *writer) {
    VL_ASSERT(writer->header_end && writer->writer.offset == writer->header_end);
    if (vl_fault_hit() || ftruncate(writer->writer.descriptor, writer->data_end) != 0)
        return vl_error(VL_IO, "cannot extend '%s': %s", writer->writer.path, strerror(errno));
    writer->writer.offset = writer->data_end;
    return VL_OK;
}

VlStatus vl_safetensors_commit(VlSafetensorsWriter *writer) {
    VlStatus status;
    if (!writer->header_end || writer->writer.offset != writer->data_end) {
        status = vl_error(VL_INVALID, "%s: %lld of %lld declared bytes were written", writer->writer.path,
                          (long long)writer->writer.offset, (long long)writer->data_end);
    } else {
        status = vl_writer_commit(&writer->writer);
    }
    vl_safetensors_abandon(writer);
    return status;
}

void vl_safetensors_abandon(VlSafetensorsWriter *writer) {
    vl_writer_abandon(&writer->writer);
    vl_safetensors_free_entries(&writer->entries, writer->count);
    *writer = (VlSafetensorsWriter){0};
}

VlStatus vl_safetensors_save(const char *path, int64_t count, const char *const *names, const VlTensor *tensors) {
    VlStatus status;
    VlSafetensorsWriter writer;
    VL_TRY(vl_safetensors_create(&writer, path));
    for (int64_t i = 0; i < count; i++) {
        VL_TRY_GOTO(status, vl_safetensors_declare(&writer, names[i], tensors[i]), failed);
    }
    VL_TRY_GOTO(status, vl_safetensors_begin(&writer), failed);
    for (int64_t i = 0; i < count; i++) {
        VL_TRY_GOTO(status, vl_safetensors_write(&writer, tensors[i].data, vl_bytes(tensors[i])), failed);
    }
    return vl_safetensors_commit(&writer);
failed:
    vl_safetensors_abandon(&writer);
    return status;
}
