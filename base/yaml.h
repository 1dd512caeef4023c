// YAML through libyaml, as a tree that knows the line of every node, for error texts.
#ifndef VL_BASE_YAML_H
#define VL_BASE_YAML_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef enum VlYamlKind { VL_YAML_SCALAR, VL_YAML_LIST, VL_YAML_MAP } VlYamlKind;

typedef struct VlYaml {
    VlYamlKind kind;
    int64_t line;   // from 1
    char *scalar;   // VL_YAML_SCALAR: its text
    bool quoted;    // the scalar stood in quotes: a string even if it looks like a number
    int64_t count;  // VL_YAML_LIST, VL_YAML_MAP: children
    char **keys;    // VL_YAML_MAP: one per child
    struct VlYaml *children;
} VlYaml;

// One document; more than one, aliases, duplicate keys, keys that are no scalars: VL_FORMAT with path and line.
VlStatus vl_yaml_load(const char *path, VlYaml **document);
VlStatus vl_yaml_parse(const char *text, int64_t size, const char *name, VlYaml **document);
void vl_yaml_free(VlYaml *document);
const VlYaml *vl_yaml_find(const VlYaml *map, const char *key);  // NULL when absent

#endif
