#include "base/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/files.h"
#include "base/memory.h"

static const char no_tags[] = "tags (\"!...\") are not supported";
static const char no_anchors[] = "anchors (\"&name\") and aliases (\"*name\") are not supported";

enum { FILE_LIMIT = 1 << 20, DEPTH_LIMIT = 64 };

typedef struct Source {
    yaml_parser_t parser;
    const char *name;
} Source;

typedef struct Key {
    const char *text;
    int64_t line;
} Key;

static VlStatus wrong(const Source *source, int64_t line, const char *what) {
    return vl_error(VL_FORMAT, "%s:%lld: %s", source->name, (long long)line, what);
}

static int64_t line_of(const yaml_event_t *event) { return (int64_t)event->start_mark.line + 1; }

// The next event, to be released with yaml_event_delete.
static VlStatus next_event(Source *source, yaml_event_t *event) {
    if (vl_fault_hit()) return vl_error(VL_OUT_OF_MEMORY, "%s: out of memory", source->name);
    if (yaml_parser_parse(&source->parser, event)) return VL_OK;
    const yaml_parser_t *parser = &source->parser;
    if (parser->error == YAML_MEMORY_ERROR) return vl_error(VL_OUT_OF_MEMORY, "%s: out of memory", source->name);
    if (parser->error == YAML_READER_ERROR) {
        return vl_error(VL_FORMAT, "%s: byte %zu: %s", source->name, parser->problem_offset, parser->problem);
    }
    return vl_error(VL_FORMAT, "%s:%zu: %s%s%s", source->name, parser->problem_mark.line + 1,
                    parser->context ? parser->context : "", parser->context ? ": " : "", parser->problem);
}

static VlStatus fill_node(Source *source, const yaml_event_t *event, int64_t depth, VlYaml *node);

static VlStatus fill_scalar(Source *source, const yaml_event_t *event, VlYaml *node) {
    const char *text = (const char *)event->data.scalar.value;
    int64_t length = (int64_t)event->data.scalar.length;
    if (event->data.scalar.anchor) return wrong(source, node->line, no_anchors);
    if (event->data.scalar.tag) return wrong(source, node->line, no_tags);
    if (memchr(text, 0, (size_t)length)) return wrong(source, node->line, "a zero byte in a text");
    node->kind = VL_YAML_SCALAR;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    VL_TRY(vl_duplicate_bytes(&node->scalar, text, length));
    return VL_OK;
}

static int compare_keys(const void *a, const void *b) {
    const Key *x = a, *y = b;
    int order = strcmp(x->text, y->text);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static VlStatus check_keys(const Source *source, Key *keys, int64_t count) {
    if (count) qsort(keys, (size_t)count, sizeof *keys, compare_keys);
    for (int64_t i = 1; i < count; i++) {
        if (!strcmp(keys[i].text, keys[i - 1].text)) {
            return vl_error(VL_FORMAT, "%s:%lld: the key '%.200s' stands here for the second time; first in line %lld",
                            source->name, (long long)keys[i].line, keys[i].text, (long long)keys[i - 1].line);
        }
    }
    return VL_OK;
}

static VlStatus fill_list(Source *source, int64_t depth, VlYaml *node) {
    int64_t capacity = 0;
    node->kind = VL_YAML_LIST;
    for (;;) {
        yaml_event_t event;
        VL_TRY(next_event(source, &event));
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        VlStatus status = VL_OK;
        if (!end) {
            status = vl_reserve(&node->children, &capacity, node->count + 1, (int64_t)sizeof *node->children);
            if (!status) status = fill_node(source, &event, depth + 1, &node->children[node->count++]);
        }
        yaml_event_delete(&event);
        if (end || status) return status;
    }
}

// Appends one key and its value; `event` is the key's.
static VlStatus add_member(Source *source, const yaml_event_t *event, int64_t depth, VlYaml *node,
                           int64_t capacity[2]) {
    yaml_event_t value;
    VlYaml key = {.line = line_of(event)};
    if (event->type != YAML_SCALAR_EVENT) return wrong(source, key.line, "a key must be a plain word");
    VL_TRY(vl_reserve(&node->children, &capacity[0], node->count + 1, (int64_t)sizeof *node->children));
    VL_TRY(vl_reserve(&node->keys, &capacity[1], node->count + 1, (int64_t)sizeof *node->keys));
    VL_TRY(fill_scalar(source, event, &key));
    node->keys[node->count] = key.scalar;
    VlYaml *child = &node->children[node->count++];
    VL_TRY(next_event(source, &value));
    VlStatus status = fill_node(source, &value, depth + 1, child);
    yaml_event_delete(&value);
    return status;
}

static VlStatus fill_map(Source *source, int64_t depth, VlYaml *node) {
    VlStatus status = VL_OK;
    int64_t capacity[2] = {0}, key_capacity = 0;
    Key *keys = NULL;
    node->kind = VL_YAML_MAP;
    for (bool end = false; !end && !status;) {
        yaml_event_t event;
        VL_TRY_GOTO(status, next_event(source, &event), done);
        end = event.type == YAML_MAPPING_END_EVENT;
        if (!end) {
            int64_t line = line_of(&event);
            status = vl_reserve(&keys, &key_capacity, node->count + 1, (int64_t)sizeof *keys);
            if (!status) status = add_member(source, &event, depth, node, capacity);
            if (!status) keys[node->count - 1] = (Key){node->keys[node->count - 1], line};
        }
        yaml_event_delete(&event);
    }
    if (!status) status = check_keys(source, keys, node->count);
done:
    vl_free(keys);
    return status;
}

static VlStatus fill_node(Source *source, const yaml_event_t *event, int64_t depth, VlYaml *node) {
    node->line = line_of(event);
    if (depth > DEPTH_LIMIT) return wrong(source, node->line, "nested more than 64 deep");
    switch (event->type) {
    case YAML_SCALAR_EVENT: return fill_scalar(source, event, node);
    case YAML_SEQUENCE_START_EVENT:
        if (event->data.sequence_start.anchor) break;
        if (event->data.sequence_start.tag) return wrong(source, node->line, no_tags);
        return fill_list(source, depth, node);
    case YAML_MAPPING_START_EVENT:
        if (event->data.mapping_start.anchor) break;
        if (event->data.mapping_start.tag) return wrong(source, node->line, no_tags);
        return fill_map(source, depth, node);
    default: break;
    }
    return wrong(source, node->line, no_anchors);
}

// Reads the next event and checks that it is of the wanted type.
static VlStatus expect(Source *source, yaml_event_type_t type, const char *otherwise) {
    yaml_event_t event;
    VL_TRY(next_event(source, &event));
    bool good = event.type == type;
    int64_t line = line_of(&event);
    yaml_event_delete(&event);
    return good ? VL_OK : wrong(source, line, otherwise);
}

static VlStatus parse_document(Source *source, VlYaml *root) {
    yaml_event_t event;
    VL_TRY(expect(source, YAML_STREAM_START_EVENT, "no YAML"));
    VL_TRY(expect(source, YAML_DOCUMENT_START_EVENT, "the file is empty"));
    VL_TRY(next_event(source, &event));
    VlStatus status = fill_node(source, &event, 0, root);
    yaml_event_delete(&event);
    VL_TRY(status);
    VL_TRY(expect(source, YAML_DOCUMENT_END_EVENT, "text behind the end of the document"));
    VL_TRY(expect(source, YAML_STREAM_END_EVENT, "a second document; only one is allowed"));
    return VL_OK;
}

VlStatus vl_yaml_parse(const char *text, int64_t size, const char *name, VlYaml **document) {
    Source source = {.name = name};
    VlYaml *root;
    if (size > FILE_LIMIT) return vl_error(VL_FORMAT, "%s: larger than 1 MiB", name);
    VL_TRY(VL_NEW(&root, 1));
    if (vl_fault_hit() || !yaml_parser_initialize(&source.parser)) {
        vl_free(root);
        return vl_error(VL_OUT_OF_MEMORY, "%s: out of memory", name);
    }
    yaml_parser_set_input_string(&source.parser, (const unsigned char *)text, (size_t)size);
    VlStatus status = parse_document(&source, root);
    yaml_parser_delete(&source.parser);
    if (status) {
        vl_yaml_free(root);
    } else {
        *document = root;
    }
    return status;
}

VlStatus vl_yaml_load(const char *path, VlYaml **document) {
    char *text;
    int64_t size;
    VL_TRY(vl_read_file(path, FILE_LIMIT, &text, &size));
    VlStatus status = vl_yaml_parse(text, size, path, document);
    vl_free(text);
    return status;
}

static void free_content(VlYaml *node) {
    for (int64_t i = 0; i < node->count; i++) {
        free_content(&node->children[i]);
        if (node->keys) vl_free(node->keys[i]);
    }
    vl_free(node->scalar);
    vl_free(node->keys);
    vl_free(node->children);
}

void vl_yaml_free(VlYaml *document) {
    if (!document) return;
    free_content(document);
    vl_free(document);
}

const VlYaml *vl_yaml_find(const VlYaml *map, const char *key) {
    if (map->kind != VL_YAML_MAP) return NULL;
    for (int64_t i = 0; i < map->count; i++) {
        if (!strcmp(map->keys[i], key)) return &map->children[i];
    }
    return NULL;
}
