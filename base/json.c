#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/memory.h"

static VlStatus parse(const char *text, int64_t size, const char *name, size_t flags, json_t **document) {
    json_error_t problem;
    if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
        return vl_error(VL_FORMAT, "%s: starts with a UTF-8 byte order mark, which JSON forbids; save it without",
                        name);
    }
    if (vl_fault_hit()) return vl_error(VL_OUT_OF_MEMORY, "%s: out of memory", name);
    json_t *parsed = json_loadb(text, (size_t)size, flags | JSON_REJECT_DUPLICATES, &problem);
    if (!parsed) {
        VlStatus status = json_error_code(&problem) == json_error_out_of_memory ? VL_OUT_OF_MEMORY : VL_FORMAT;
        return vl_error(status, "%s: line %d, column %d: %s", name, problem.line, problem.column, problem.text);
    }
    *document = parsed;
    return VL_OK;
}

VlStatus vl_json_parse(const char *text, int64_t size, const char *name, json_t **document) {
    return parse(text, size, name, 0, document);
}

VlStatus vl_json_load(const char *path, int64_t limit, json_t **document) {
    char *text;
    int64_t size;
    VL_TRY(vl_read_file(path, limit, &text, &size));
    VlStatus status = parse(text, size, path, 0, document);
    vl_free(text);
    return status;
}

VlStatus vl_json_save(const char *path, const json_t *document, size_t flags) {
    VlWriter writer;
    char *text = vl_fault_hit() ? NULL : json_dumps(document, flags);
    if (!text) return vl_error(VL_OUT_OF_MEMORY, "cannot turn a document for '%s' into JSON text", path);
    VlStatus status = vl_writer_open(&writer, path);
    if (!status) status = vl_writer_write(&writer, text, (int64_t)strlen(text));
    if (!status) status = vl_writer_write(&writer, "\n", 1);
    if (!status) {
        status = vl_writer_commit(&writer);
    } else {
        vl_writer_abandon(&writer);
    }
    vl_free(text);
    return status;
}

VlStatus vl_json_append_line(const char *path, const json_t *document) {
    char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;
    if (!text) return vl_error(VL_OUT_OF_MEMORY, "out of memory for a line of %s", path);
    size_t length = strlen(text);
    text[length] = '\n';  // in the place of the final zero: one write, so that a kill leaves no torn line
    int descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    bool written = descriptor >= 0 && write(descriptor, text, length + 1) == (ssize_t)(length + 1);
    if (descriptor >= 0) written &= close(descriptor) == 0;
    free(text);
    return written ? VL_OK : vl_error(VL_IO, "cannot append to %s: %s", path, strerror(errno));
}

// ---- Members ---------------------------------------------------------------

static const char *type_name(const json_t *value) {
    static const char *const names[] = {[JSON_OBJECT] = "an object",
                                        [JSON_ARRAY] = "an array",
                                        [JSON_STRING] = "a string",
                                        [JSON_INTEGER] = "an integer",
                                        [JSON_REAL] = "a number with a fraction",
                                        [JSON_TRUE] = "true",
                                        [JSON_FALSE] = "false",
                                        [JSON_NULL] = "null"};
    return names[json_typeof(value)];
}

// *value = the member, or NULL where it is absent and need not be there.
static VlStatus find_member(const json_t *object, const char *name, const char *key, bool required,
                            const json_t **value) {
    if (!json_is_object(object)) {
        return vl_error(VL_FORMAT, "%s: an object with the key \"%s\" was expected, not %s", name, key,
                        object ? type_name(object) : "nothing");
    }
    *value = json_object_get(object, key);
    if (json_is_null(*value)) *value = NULL;
    if (!*value && required) return vl_error(VL_FORMAT, "%s: the key \"%s\" is missing", name, key);
    return VL_OK;
}

static VlStatus wrong_type(const char *name, const char *key, const char *wanted, const json_t *value) {
    return vl_error(VL_FORMAT, "%s: \"%s\" must be %s, but is %s", name, key, wanted, type_name(value));
}

VlStatus vl_json_get_int(const json_t *object, const char *name, const char *key, bool required, int64_t *out) {
    const json_t *value = NULL;
    VL_TRY(find_member(object, name, key, required, &value));
    if (value && !json_is_integer(value)) return wrong_type(name, key, "an integer", value);
    if (value) *out = json_integer_value(value);
    return VL_OK;
}

VlStatus vl_json_get_double(const json_t *object, const char *name, const char *key, bool required, double *out) {
    const json_t *value = NULL;
    VL_TRY(find_member(object, name, key, required, &value));
    if (value && !json_is_number(value)) return wrong_type(name, key, "a number", value);
    if (value) *out = json_number_value(value);
    return VL_OK;
}

VlStatus vl_json_get_bool(const json_t *object, const char *name, const char *key, bool required, bool *out) {
    const json_t *value = NULL;
    VL_TRY(find_member(object, name, key, required, &value));
    if (value && !json_is_boolean(value)) return wrong_type(name, key, "true or false", value);
    if (value) *out = json_is_true(value);
    return VL_OK;
}

VlStatus vl_json_get_string(const json_t *object, const char *name, const char *key, bool required, const char **out) {
    const json_t *value = NULL;
    VL_TRY(find_member(object, name, key, required, &value));
    if (value && !json_is_string(value)) return wrong_type(name, key, "a string", value);
    if (value) *out = json_string_value(value);
    return VL_OK;
}

// ---- Streams ---------------------------------------------------------------

enum { STREAM_PIECE = 1 << 16, ELEMENT_LIMIT = 64 << 20, DEPTH_LIMIT = 512 };

struct VlJsonStream {
    VlReader reader;
    char *buffer;  // the bytes [base, base + used) of the file
    int64_t capacity, base, used;
    int64_t position;  // of the next byte to look at, in the file
    int64_t elements;  // read so far
    bool array, finished;
};

// *byte = the byte at `offset`, which is at or behind `position`, or -1 behind the end of the file. Bytes from
// `position` on stay in the buffer.
static VlStatus stream_byte(VlJsonStream *stream, int64_t offset, int *byte) {
    if (offset >= stream->reader.size) {
        *byte = -1;
        return VL_OK;
    }
    if (offset >= stream->base + stream->used) {
        int64_t kept = stream->base + stream->used - stream->position;
        memmove(stream->buffer, stream->buffer + (stream->position - stream->base), (size_t)kept);
        stream->base = stream->position;
        stream->used = kept;
        VL_TRY(vl_reserve(&stream->buffer, &stream->capacity, kept + STREAM_PIECE, 1));
        int64_t wanted = stream->capacity - kept, left = stream->reader.size - stream->base - kept;
        if (wanted > left) wanted = left;
        VL_TRY(vl_reader_read(&stream->reader, stream->base + kept, stream->buffer + kept, wanted));
        stream->used += wanted;
    }
    *byte = (unsigned char)stream->buffer[offset - stream->base];
    return VL_OK;
}

static bool is_space(int byte) { return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r'; }

// Moves `position` to the next byte that is no space; *byte as above.
static VlStatus skip_spaces(VlJsonStream *stream, int *byte) {
    for (;; stream->position++) {
        VL_TRY(stream_byte(stream, stream->position, byte));
        if (!is_space(*byte)) return VL_OK;
    }
}

static VlStatus stream_error(const VlJsonStream *stream, const char *what) {
    return vl_error(VL_FORMAT, "%s: element %lld at byte %lld: %s", stream->reader.path,
                    (long long)stream->elements + 1, (long long)stream->position, what);
}

VlStatus vl_json_stream_open(VlJsonStream **stream, const char *path) {
    VlJsonStream *made;
    VlStatus status;
    int byte = -1;
    VL_TRY(VL_NEW(&made, 1));
    VL_TRY_GOTO(status, vl_reader_open(&made->reader, path), failed);
    VL_TRY_GOTO(status, vl_reserve(&made->buffer, &made->capacity, STREAM_PIECE, 1), failed);
    VL_TRY_GOTO(status, skip_spaces(made, &byte), failed);
    if (byte == 0xef || byte == 0xfe || byte == 0xff) {
        status = stream_error(made, "a byte order mark, which JSON forbids; save the file as UTF-8 without one");
        goto failed;
    }
    made->array = byte == '[';
    made->position += made->array;
    *stream = made;
    return VL_OK;
failed:
    vl_json_stream_close(made);
    return status;
}

// *end = the offset behind the element that begins at `position`: found by its brackets and quotes alone, for the
// parser to judge. A line of JSON lines ends with the line, so that a damaged one does not swallow the next.
static VlStatus find_end(VlJsonStream *stream, int64_t *end) {
    int64_t depth = 0;
    bool quoted = false, escaped = false;
    int byte = -1;
    for (int64_t offset = stream->position;; offset++) {
        VL_TRY(stream_byte(stream, offset, &byte));
        bool closes = !quoted && (byte == ']' || byte == '}');
        *end = offset;
        if (byte < 0 && quoted && stream->array) return stream_error(stream, "a string without end; is the file cut?");
        if (byte < 0 && depth && stream->array) return stream_error(stream, "it has no end; is the file cut?");
        if (byte < 0 || (!stream->array && byte == '\n')) return VL_OK;
        if (stream->array && !quoted && depth == 0 && (byte == ',' || closes)) return VL_OK;
        if (offset - stream->position >= ELEMENT_LIMIT) return stream_error(stream, "it is larger than 64 MiB");
        if (escaped) {
            escaped = false;
        } else if (byte == '\\' && quoted) {
            escaped = true;
        } else if (byte == '"') {
            quoted = !quoted;
        } else if (closes) {
            depth--;
        } else if (!quoted && (byte == '[' || byte == '{') && ++depth > DEPTH_LIMIT) {
            return stream_error(stream, "it is nested more than 512 deep");
        }
    }
}

// Moves `position` to the next element; *found = false at the end of the list.
static VlStatus find_begin(VlJsonStream *stream, bool *found) {
    int byte = -1;
    VL_TRY(skip_spaces(stream, &byte));
    *found = byte >= 0;
    if (!stream->array) return VL_OK;
    if (byte < 0) return stream_error(stream, "the array has no closing ']'; is the file cut?");
    if (byte == ']') {
        stream->position++;
        VL_TRY(skip_spaces(stream, &byte));
        if (byte >= 0) return stream_error(stream, "there is text behind the end of the array");
        *found = false;
    } else if (stream->elements) {
        if (byte != ',') return stream_error(stream, "a ',' or ']' was expected");
        stream->position++;
        VL_TRY(skip_spaces(stream, &byte));
    }
    return VL_OK;
}

VlStatus vl_json_stream_next(VlJsonStream *stream, json_t **element, int64_t *offset, int64_t *size) {
    bool found = false;
    int64_t end = 0;
    *element = NULL;
    if (stream->finished) return VL_OK;
    VL_TRY(find_begin(stream, &found));
    if (!found) {
        stream->finished = true;
        return VL_OK;
    }
    VL_TRY(find_end(stream, &end));
    const char *text = stream->buffer + (stream->position - stream->base);
    int64_t length = end - stream->position;
    while (length > 0 && is_space((unsigned char)text[length - 1])) length--;
    if (!length) return stream_error(stream, "a value was expected");
    VL_TRY_CONTEXT(parse(text, length, "its text", JSON_DECODE_ANY, element), "%s: element %lld at byte %lld",
                   stream->reader.path, (long long)stream->elements + 1, (long long)stream->position);
    *offset = stream->position;
    *size = length;
    stream->position = end;
    stream->elements++;
    return VL_OK;
}

void vl_json_stream_close(VlJsonStream *stream) {
    if (!stream) return;
    vl_reader_close(&stream->reader);
    vl_free(stream->buffer);
    vl_free(stream);
}
