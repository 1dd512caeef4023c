#include "train/config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/yaml.h"

typedef enum KeyType { KEY_TEXT, KEY_PATH, KEY_INTEGER, KEY_REAL, KEY_CHOICE, KEY_LIST } KeyType;

typedef struct Key {
    const char *name;
    KeyType type;
    size_t offset;
    const char *initial;
    double minimum, maximum;
    const char *choices;  // KEY_CHOICE: the words; KEY_LIST: what its members may be
    const char *doc;
} Key;

#define AT(field) offsetof(VlConfig, field)
static const Key keys[] = {
    {"stage", KEY_CHOICE, AT(stage), "finetune", 0, 0, "pretrain finetune audio-pretrain audio-finetune joint",
     "the stage of the recipe; sets defaults of other keys"},
    {"model.path", KEY_PATH, AT(model.path), "", 0, 0, NULL,
     "model folder in the Hugging Face layout, a checkpoint, or the output folder of an earlier stage"},
    {"data.frames", KEY_INTEGER, AT(data.frames), "0", 0, 1024, NULL, "frames of a video; 0: the model's num_frames"},
    {"data.aspect", KEY_CHOICE, AT(data.aspect), "pad", 0, 0, "pad none", "pad images to a square, or crop the centre"},
    {"data.protocol", KEY_CHOICE, AT(data.protocol), "vl2-av", 0, 0, "vl2-av vl2-main vl2-2024-06",
     "prompts, labels and frame sampling"},
    {"data.labels", KEY_CHOICE, AT(data.labels), "stage", 0, 0, "stage plain sft",
     "which text is labelled; stage: plain in pretrain and audio-pretrain, sft otherwise"},
    {"data.mix", KEY_TEXT, AT(data.mix), "proportional", 0, 0, NULL,
     "proportional, or a pattern of modalities such as av,av,a,v: av video with its sound, a audio, v video, i image, "
     "t text"},
    {"data.sound_seconds", KEY_REAL, AT(data.sound_seconds), "30", 1, 30, NULL,
     "what is heard of a sound: it is cut or padded to that; the reference has 30"},
    {"data.fbank_dtype", KEY_CHOICE, AT(data.fbank_dtype), "f32", 0, 0, "f32 bf16",
     "bf16: filter banks are rounded as the reference does before its audio tower"},
    {"data.truncate", KEY_CHOICE, AT(data.truncate), "expanded", 0, 0, "expanded text",
     "cut samples by their length with or without modality tokens"},
    {"data.max_tokens", KEY_INTEGER, AT(data.max_tokens), "2048", 2, 1 << 24, NULL, "longest sample"},
    {"data.prefetch", KEY_INTEGER, AT(data.prefetch), "2", 1, 64, NULL, "steps that the loader holds ready"},
    {"data.loader_threads", KEY_INTEGER, AT(data.loader_threads), "1", 1, 256, NULL,
     "threads that read ahead, per rank"},
    {"heldout.annotations", KEY_PATH, AT(heldout.annotations), "", 0, 0, NULL,
     "samples for the evaluation during training; empty: none"},
    {"heldout.media", KEY_PATH, AT(heldout.media), "", 0, 0, NULL, "folder of their media"},
    {"heldout.every", KEY_INTEGER, AT(heldout.every), "200", 0, 1e15, NULL,
     "steps between evaluations; 0: at the end only"},
    {"heldout.controls", KEY_CHOICE, AT(heldout.controls), "all", 0, 0, "all none",
     "all: at the end also without the media, from one frame, and so on, to see what the answers rest on"},
    {"heldout.limit", KEY_INTEGER, AT(heldout.limit), "0", 0, 1e15, NULL, "samples evaluated at most; 0: all"},
    {"train.trainable", KEY_LIST, AT(train.trainable), "connector,llm", 0, 0,
     "vision_tower connector llm audio_tower audio_projector", "the parts that train"},
    {"train.steps", KEY_INTEGER, AT(train.steps), "0", 0, 1e15, NULL, "optimizer steps; 0: as many as the epochs need"},
    {"train.epochs", KEY_INTEGER, AT(train.epochs), "1", 1, 1e9, NULL, "passes over the data"},
    {"train.global_batch", KEY_INTEGER, AT(train.global_batch), "128", 1, 1 << 24, NULL,
     "samples per step, of all ranks"},
    {"train.micro_tokens", KEY_INTEGER, AT(train.micro_tokens), "16384", 2, 1 << 28, NULL,
     "tokens that one rank packs into one forward and backward pass"},
    {"train.seed", KEY_INTEGER, AT(train.seed), "42", 0, 1e15, NULL, "order of samples and initial values"},
    {"train.dtype", KEY_CHOICE, AT(train.dtype), "bf16", 0, 0, "f32 bf16", "type of weights and activations"},
    {"train.layer_drop", KEY_REAL, AT(train.layer_drop), "0.0", 0, 0.999999, NULL,
     "probability with which a layer of the audio tower is left out of a step; the reference has 0.05"},
    {"train.nonfinite", KEY_CHOICE, AT(train.nonfinite), "stop", 0, 0, "stop skip",
     "what to do at a loss or gradient that is not finite: end the run, or leave the step out and count it"},
    {"optim.lr", KEY_REAL, AT(optim.lr), "2.0e-5", 0, 1e3, NULL, "highest learning rate"},
    {"optim.schedule", KEY_CHOICE, AT(optim.schedule), "cosine", 0, 0, "cosine linear constant",
     "its course after the warm-up"},
    {"optim.warmup_ratio", KEY_REAL, AT(optim.warmup_ratio), "0.03", 0, 1, NULL, "share of the steps that warm up"},
    {"optim.weight_decay", KEY_REAL, AT(optim.weight_decay), "0.0", 0, 10, NULL,
     "of matrices; biases and norms have none"},
    {"optim.beta1", KEY_REAL, AT(optim.beta1), "0.9", 0, 0.9999999, NULL, "AdamW's first moment"},
    {"optim.beta2", KEY_REAL, AT(optim.beta2), "0.999", 0, 0.9999999, NULL, "AdamW's second moment"},
    {"optim.eps", KEY_REAL, AT(optim.eps), "1.0e-8", 0, 1, NULL, "AdamW's epsilon"},
    {"optim.clip_norm", KEY_REAL, AT(optim.clip_norm), "1.0", 0, 1e9, NULL,
     "largest norm of the whole gradient; 0: not clipped"},
    {"parallel.timeout", KEY_REAL, AT(parallel.timeout), "600", 1, 1e6, NULL,
     "seconds after which a rank that waits for the others gives up"},
    {"checkpoint.every", KEY_INTEGER, AT(checkpoint.every), "500", 0, 1e15, NULL,
     "steps between checkpoints; 0: at the end only"},
    {"checkpoint.keep", KEY_INTEGER, AT(checkpoint.keep), "3", 1, 1e9, NULL, "checkpoints that are kept"},
    {"checkpoint.fallback", KEY_CHOICE, AT(checkpoint.fallback), "false", 0, 0, "true false",
     "continue from an earlier checkpoint when the newest one is damaged"},
    {"limits.bad_samples", KEY_INTEGER, AT(limits.bad_samples), "100", 0, 1e15, NULL,
     "unreadable samples that are put up with"},
    {"limits.bad_in_a_row", KEY_INTEGER, AT(limits.bad_in_a_row), "10", 0, 1e15, NULL,
     "unreadable samples in a row that are put up with"},
    {"device", KEY_CHOICE, AT(device), "auto", 0, 0, "auto cpu cuda",
     "where the model runs; auto: cuda where the build has it and the machine a device, else cpu"},
    {"threads", KEY_INTEGER, AT(threads), "0", 0, 4096, NULL, "threads of a rank; 0: the cores that it may use"},
    {"output", KEY_PATH, AT(output), "", 0, 0, NULL, "the run's folder"},
};
enum { KEYS = sizeof keys / sizeof keys[0] };

static const struct {
    const char *stage, *name, *value;
} stage_defaults[] = {
    {"pretrain", "train.trainable", "connector"},
    {"pretrain", "optim.lr", "1.0e-3"},
    {"pretrain", "data.aspect", "pad"},
    {"finetune", "train.trainable", "connector,llm"},
    {"finetune", "optim.lr", "2.0e-5"},
    {"audio-pretrain", "train.trainable", "audio_projector"},
    {"audio-pretrain", "optim.lr", "1.0e-3"},
    {"audio-finetune", "train.trainable", "audio_tower,audio_projector"},
    {"audio-finetune", "optim.lr", "2.0e-5"},
    {"joint", "train.trainable", "connector,llm,audio_tower,audio_projector"},
    {"joint", "optim.lr", "2.0e-5"},
};

// Where a value came from, for error texts: "FILE:LINE" or "command line".
typedef struct Place {
    const char *file;
    int64_t line;
} Place;

static VlStatus wrong(Place place, const char *format, ...) __attribute__((format(printf, 2, 3)));
static VlStatus wrong(Place place, const char *format, ...) {
    char text[700];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (place.line > 0) return vl_error(VL_USAGE, "%s:%" PRId64 ": %s", place.file, place.line, text);
    return vl_error(VL_USAGE, "%s: %s", place.file, text);
}

static const Key *find_key(const char *name) {
    for (int64_t i = 0; i < KEYS; i++) {
        if (strcmp(keys[i].name, name) == 0) return &keys[i];
    }
    return NULL;
}

static bool is_section(const char *name) {
    size_t length = strlen(name);
    for (int64_t i = 0; i < KEYS; i++) {
        if (strncmp(keys[i].name, name, length) == 0 && keys[i].name[length] == '.') return true;
    }
    return false;
}

static VlStatus unknown_key(Place place, const char *name) {
    const char *names[KEYS + 1];
    for (int64_t i = 0; i < KEYS; i++) names[i] = keys[i].name;
    names[KEYS] = "data.sources";
    const char *nearest = vl_nearest_word(name, names, KEYS + 1);
    if (nearest) return wrong(place, "unknown key '%s'; the nearest is '%s'", name, nearest);
    return wrong(place, "unknown key '%s'; vl2 train --help lists them", name);
}

static bool has_word(const char *words, const char *word, size_t length) {
    for (const char *at = words; *at;) {
        size_t span = strcspn(at, " ");
        if (span == length && strncmp(at, word, length) == 0) return true;
        at += span + (at[span] == ' ');
    }
    return false;
}

// Words with commas between them; blanks around a word are dropped. `target` is as long as `text`.
static VlStatus set_list(const Key *key, char *target, const char *text, Place place) {
    size_t used = 0;
    for (const char *at = text + strspn(text, " "); *at || used > 0;) {
        size_t span = strcspn(at, ","), length = span;
        while (length > 0 && at[length - 1] == ' ') length--;
        if (!has_word(key->choices, at, length))
            return wrong(place, "%s: '%.*s' is none of: %s", key->name, (int)length, at, key->choices);
        memcpy(target + used, at, length);
        used += length;
        if (!at[span]) break;
        target[used++] = ',';
        at += span + 1 + strspn(at + span + 1, " ");
    }
    target[used] = '\0';
    return VL_OK;
}

static VlStatus set_text(const Key *key, char *target, size_t size, const char *text, Place place) {
    if (strlen(text) >= size) return wrong(place, "%s: the value is longer than %zu characters", key->name, size - 1);
    if (key->type == KEY_CHOICE && !has_word(key->choices, text, strlen(text))) {
        return wrong(place, "%s: '%s' is none of: %s", key->name, text, key->choices);
    }
    if (key->type == KEY_LIST) return set_list(key, target, text, place);
    memcpy(target, text, strlen(text) + 1);
    return VL_OK;
}

static VlStatus set_value(VlConfig *config, const Key *key, const char *text, Place place) {
    char *target = (char *)config + key->offset, *end;
    if (key->type != KEY_INTEGER && key->type != KEY_REAL) {
        return set_text(key, target, key->type == KEY_PATH ? VL_PATH_MAX : VL_CONFIG_TEXT, text, place);
    }
    errno = 0;
    double number = strtod(text, &end);
    if (end == text || *end || errno || !isfinite(number))
        return wrong(place, "%s: '%s' is no number", key->name, text);
    if (number < key->minimum || number > key->maximum) {
        return wrong(place, "%s: %s is outside of %.9g .. %.9g", key->name, text, key->minimum, key->maximum);
    }
    if (key->type == KEY_REAL) {
        memcpy(target, &number, sizeof number);
        return VL_OK;
    }
    int64_t integer = (int64_t)strtoll(text, &end, 10);
    if (*end || errno) return wrong(place, "%s: '%s' is no whole number", key->name, text);
    memcpy(target, &integer, sizeof integer);
    return VL_OK;
}

static VlStatus set_source(VlConfig *config, const VlYaml *node, Place place) {
    static const char *const fields[] = {"annotations", "media", "shards", "weight"};
    if (node->kind != VL_YAML_MAP)
        return wrong(place, "data.sources: each entry is a map with annotations, media, shards, weight");
    VL_TRY(vl_reserve(&config->data.source, &config->data.sources_capacity, config->data.sources + 1,
                      (int64_t)sizeof(VlConfigSource)));
    VlConfigSource *source = &config->data.source[config->data.sources];
    *source = (VlConfigSource){.weight = 1};
    char *paths[] = {source->annotations, source->media, source->shards};
    for (int64_t i = 0; i < node->count; i++) {
        const VlYaml *value = &node->children[i];
        Place here = {place.file, value->line};
        int64_t field = 0;
        while (field < 4 && strcmp(node->keys[i], fields[field]) != 0) field++;
        if (field == 4) {
            const char *nearest = vl_nearest_word(node->keys[i], fields, 4);
            return wrong(here, "unknown key '%s' in data.sources; %s%s", node->keys[i],
                         nearest ? "the nearest is " : "there are annotations, media, shards, weight",
                         nearest ? nearest : "");
        }
        if (value->kind != VL_YAML_SCALAR) return wrong(here, "data.sources: %s is no single value", fields[field]);
        Key key = {.name = fields[field], .type = field < 3 ? KEY_PATH : KEY_REAL, .minimum = 1e-9, .maximum = 1e9};
        if (field < 3) {
            VL_TRY(set_text(&key, paths[field], VL_PATH_MAX, value->scalar, here));
        } else {
            char *end;
            source->weight = strtod(value->scalar, &end);
            if (*end || !(source->weight >= key.minimum && source->weight <= key.maximum)) {
                return wrong(here, "data.sources: weight '%s' is no positive number", value->scalar);
            }
        }
    }
    if (!source->shards[0])
        return wrong(place, "data.sources: an entry without 'shards', the folder that vl2 pack writes");
    config->data.sources++;
    return VL_OK;
}

// A list of scalars as one text with commas.
static VlStatus join_list(const VlYaml *node, const Key *key, char text[VL_CONFIG_TEXT], Place place) {
    size_t used = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < node->count; i++) {
        const VlYaml *item = &node->children[i];
        if (item->kind != VL_YAML_SCALAR)
            return wrong((Place){place.file, item->line}, "%s: an entry is no single value", key->name);
        int written = snprintf(text + used, VL_CONFIG_TEXT - used, "%s%s", i ? "," : "", item->scalar);
        if (written < 0 || used + (size_t)written >= VL_CONFIG_TEXT)
            return wrong(place, "%s: the list is too long", key->name);
        used += (size_t)written;
    }
    return VL_OK;
}

static VlStatus apply(VlConfig *config, const VlYaml *node, const char *prefix, const char *file) {
    for (int64_t i = 0; i < node->count; i++) {
        const VlYaml *value = &node->children[i];
        char name[VL_CONFIG_TEXT], list[VL_CONFIG_TEXT];
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", node->keys[i]);
        Place place = {file, value->line};
        const Key *key = find_key(name);
        if (strcmp(name, "include") == 0) continue;
        if (strcmp(name, "data.sources") == 0) {
            if (value->kind != VL_YAML_LIST) return wrong(place, "data.sources is a list");
            config->data.sources = 0;
            for (int64_t j = 0; j < value->count; j++)
                VL_TRY(set_source(config, &value->children[j], (Place){file, value->children[j].line}));
        } else if (key && value->kind == VL_YAML_SCALAR) {
            VL_TRY(set_value(config, key, value->scalar, place));
        } else if (key && value->kind == VL_YAML_LIST && (key->type == KEY_LIST || key->type == KEY_TEXT)) {
            VL_TRY(join_list(value, key, list, place));
            VL_TRY(set_value(config, key, list, place));
        } else if (key) {
            return wrong(place, "%s is no single value", name);
        } else if (is_section(name)) {
            if (value->kind != VL_YAML_MAP) return wrong(place, "%s is a map of keys", name);
            VL_TRY(apply(config, value, name, file));
        } else {
            return unknown_key(place, name);
        }
    }
    return VL_OK;
}

enum { INCLUDES = 16 };

typedef struct Documents {
    int64_t count;
    VlYaml *document[INCLUDES];  // the included one before the one that includes it
    char path[INCLUDES][VL_PATH_MAX];
} Documents;

static VlStatus read_documents(Documents *documents, const char *path, int64_t depth) {
    VlYaml *document;
    if (depth >= INCLUDES || documents->count >= INCLUDES) {
        return vl_error(VL_USAGE, "%s: more than %d files include one another", path, (int)INCLUDES);
    }
    VlStatus status = vl_yaml_load(path, &document);
    if (status == VL_FORMAT || status == VL_IO) return vl_error_context(VL_USAGE, "configuration");
    VL_TRY(status);
    const VlYaml *include = document->kind == VL_YAML_MAP ? vl_yaml_find(document, "include") : NULL;
    if (document->kind != VL_YAML_MAP || (include && include->kind != VL_YAML_SCALAR)) {
        vl_yaml_free(document);
        return vl_error(VL_USAGE, "%s: a configuration is a map of keys%s", path,
                        include ? "; include names one file" : "");
    }
    if (include) {
        char folder[VL_PATH_MAX], other[VL_PATH_MAX];
        status = vl_path_folder(folder, path);
        if (status == VL_OK) status = vl_path_join(other, folder, include->scalar);
        if (status == VL_OK) status = read_documents(documents, other, depth + 1);
        if (status != VL_OK || documents->count >= INCLUDES) {
            vl_yaml_free(document);
            return status != VL_OK ? status : vl_error(VL_USAGE, "%s: too many files include one another", path);
        }
    }
    snprintf(documents->path[documents->count], VL_PATH_MAX, "%s", path);
    documents->document[documents->count++] = document;
    return VL_OK;
}

static VlStatus apply_overrides(VlConfig *config, int64_t count, const char *const *overrides, bool stage_only) {
    Place place = {"command line", 0};
    for (int64_t i = 0; i < count; i++) {
        const char *equals = strchr(overrides[i], '=');
        if (!equals) return wrong(place, "'%s' is no key=value", overrides[i]);
        char name[VL_CONFIG_TEXT];
        snprintf(name, sizeof name, "%.*s", (int)(equals - overrides[i]), overrides[i]);
        if (stage_only && strcmp(name, "stage") != 0) continue;
        const Key *key = find_key(name);
        if (strcmp(name, "data.sources") == 0)
            return wrong(place, "data.sources is a list of maps: it is given in a file");
        if (!key) return unknown_key(place, name);
        char text[VL_PATH_MAX];
        size_t length = strlen(equals + 1);
        if (length >= sizeof text)
            return wrong(place, "%s: the value is longer than %zu characters", name, sizeof text - 1);
        bool brackets = key->type == KEY_LIST && length >= 2 && equals[1] == '[' && equals[length] == ']';
        snprintf(text, sizeof text, "%.*s", (int)(brackets ? length - 2 : length), equals + 1 + brackets);
        VL_TRY(set_value(config, key, text, place));
    }
    return VL_OK;
}

// The stage comes first, whoever names it, because its defaults lie below everything that is written out.
static VlStatus resolve(VlConfig *config, const Documents *documents, int64_t count, const char *const *overrides) {
    Place built_in = {"built-in default", 0};
    for (int64_t i = 0; i < KEYS; i++) VL_TRY(set_value(config, &keys[i], keys[i].initial, built_in));
    for (int64_t i = 0; i < documents->count; i++) {
        const VlYaml *stage = vl_yaml_find(documents->document[i], "stage");
        Place place = {documents->path[i], stage ? stage->line : 0};
        if (stage && stage->kind == VL_YAML_SCALAR) VL_TRY(set_value(config, find_key("stage"), stage->scalar, place));
    }
    VL_TRY(apply_overrides(config, count, overrides, true));
    for (size_t i = 0; i < sizeof stage_defaults / sizeof stage_defaults[0]; i++) {
        if (strcmp(stage_defaults[i].stage, config->stage) != 0) continue;
        VL_TRY(set_value(config, find_key(stage_defaults[i].name), stage_defaults[i].value, built_in));
    }
    for (int64_t i = 0; i < documents->count; i++)
        VL_TRY(apply(config, documents->document[i], "", documents->path[i]));
    return apply_overrides(config, count, overrides, false);
}

VlStatus vl_config_load(VlConfig *config, const char *path, int64_t overrides, const char *const *override) {
    Documents documents = {0};
    *config = (VlConfig){0};
    VlStatus status = path ? read_documents(&documents, path, 0) : VL_OK;
    if (status == VL_OK) status = resolve(config, &documents, overrides, override);
    for (int64_t i = 0; i < documents.count; i++) vl_yaml_free(documents.document[i]);
    if (status != VL_OK) vl_config_free(config);
    return status;
}

void vl_config_free(VlConfig *config) {
    vl_free(config->data.source);
    *config = (VlConfig){0};
}

VlStatus vl_config_need_model(const VlConfig *config) {
    if (config->model.path[0]) return VL_OK;
    return vl_error(VL_USAGE, "model.path is missing: a model folder, a checkpoint, or a run's output folder");
}

VlDtype vl_config_dtype(const VlConfig *config) { return strcmp(config->train.dtype, "bf16") == 0 ? VL_BF16 : VL_F32; }

// YAML double-quoted form of a text.
static void print_quoted(FILE *file, const char *text) {
    fputc('"', file);
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\') fputc('\\', file);
        if ((unsigned char)*c < 0x20) {
            fprintf(file, "\\x%02x", (unsigned)*c);
        } else {
            fputc(*c, file);
        }
    }
    fputc('"', file);
}

static void print_value(FILE *file, const VlConfig *config, const Key *key) {
    const char *at = (const char *)config + key->offset;
    int64_t integer;
    double real;
    switch (key->type) {
    case KEY_INTEGER:
        memcpy(&integer, at, sizeof integer);
        fprintf(file, "%" PRId64, integer);
        break;
    case KEY_REAL:
        memcpy(&real, at, sizeof real);
        fprintf(file, "%.17g", real);
        break;
    case KEY_LIST: fprintf(file, "[%s]", at); break;
    default: print_quoted(file, at);
    }
}

static void print_sources(FILE *file, const VlConfig *config) {
    fputs("  sources:\n", file);
    for (int64_t i = 0; i < config->data.sources; i++) {
        const VlConfigSource *source = &config->data.source[i];
        fputs("    - {annotations: ", file);
        print_quoted(file, source->annotations);
        fputs(", media: ", file);
        print_quoted(file, source->media);
        fputs(", shards: ", file);
        print_quoted(file, source->shards);
        fprintf(file, ", weight: %.17g}\n", source->weight);
    }
}

VlStatus vl_config_dump(const VlConfig *config, char **text) {
    size_t size = 0;
    *text = NULL;
    FILE *file = open_memstream(text, &size);
    if (!file) return vl_error(VL_OUT_OF_MEMORY, "out of memory for the resolved configuration");
    char section[VL_CONFIG_TEXT] = "";
    for (int64_t i = 0; i < KEYS; i++) {
        const char *dot = strchr(keys[i].name, '.');
        size_t length = dot ? (size_t)(dot - keys[i].name) : 0;
        if (dot && (strncmp(section, keys[i].name, length) != 0 || section[length])) {
            snprintf(section, sizeof section, "%.*s", (int)length, keys[i].name);
            fprintf(file, "%s:\n", section);
            if (strcmp(section, "data") == 0 && config->data.sources > 0) print_sources(file, config);
        }
        fprintf(file, "%s%s: ", dot ? "  " : "", dot ? dot + 1 : keys[i].name);
        print_value(file, config, &keys[i]);
        fputc('\n', file);
    }
    if (fclose(file) != 0) {
        free(*text);
        *text = NULL;
        return vl_error(VL_OUT_OF_MEMORY, "out of memory for the resolved configuration");
    }
    return VL_OK;
}

void vl_config_help(FILE *file) {
    fputs(
        "Keys of the configuration (default; what it is):\n"
        "  include                  another file whose keys this one overrides\n"
        "  data.sources             list of {annotations, media, shards, weight}\n",
        file);
    for (int64_t i = 0; i < KEYS; i++) {
        fprintf(file, "  %-24s %s%s%s; %s\n", keys[i].name, *keys[i].initial ? keys[i].initial : "(empty)",
                keys[i].choices ? " of " : "", keys[i].choices ? keys[i].choices : "", keys[i].doc);
    }
}
