// JSON through jansson, with error texts that name the file and the key. Values are jansson's json_t; the one who
// loads a document releases it with json_decref.
#ifndef VL_BASE_JSON_H
#define VL_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

// A document from a file of at most `limit` bytes. Duplicate keys and trailing text are errors (VL_FORMAT).
VlStatus vl_json_load(const char *path, int64_t limit, json_t **document);
// A document from memory; `name` stands in error texts.
VlStatus vl_json_parse(const char *text, int64_t size, const char *name, json_t **document);
VlStatus vl_json_save(const char *path, const json_t *document, size_t flags);  // atomic; flags as json_dumps

// Appends the document as one line to a file of JSON lines, in one write. NULL (no memory for it): VL_OUT_OF_MEMORY.
VlStatus vl_json_append_line(const char *path, const json_t *document);

// Member `key` of an object, with its type checked. A missing key or null keeps *out if `required` is false.
// `name` stands in error texts (the file, say). Strings belong to the document.
VlStatus vl_json_get_int(const json_t *object, const char *name, const char *key, bool required, int64_t *out);
VlStatus vl_json_get_double(const json_t *object, const char *name, const char *key, bool required, double *out);
VlStatus vl_json_get_bool(const json_t *object, const char *name, const char *key, bool required, bool *out);
VlStatus vl_json_get_string(const json_t *object, const char *name, const char *key, bool required, const char **out);

// Reads a list of any length one element at a time, in bounded memory: a JSON array, or JSON lines.
typedef struct VlJsonStream VlJsonStream;
VlStatus vl_json_stream_open(VlJsonStream **stream, const char *path);
// The next element and the byte range of its text in the file; *element = NULL at the end. Errors name the element's
// number.
VlStatus vl_json_stream_next(VlJsonStream *stream, json_t **element, int64_t *offset, int64_t *size);
void vl_json_stream_close(VlJsonStream *stream);

#endif
