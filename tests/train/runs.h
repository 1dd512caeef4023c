// What the tests of this room share: the golden models and data, configurations, runs in this process, and what runs
// leave behind.
#ifndef VL_TESTS_TRAIN_RUNS_H
#define VL_TESTS_TRAIN_RUNS_H

#include <math.h>

#include "base/json.h"
#include "base/log.h"
#include "tests/base/support.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/pack_sources.h"
#include "train/trainer.h"

#define GOLDEN VL_SOURCE_DIR "/tests/golden/train"
enum { CURVE_STEPS = 64, MOST_OVERRIDES = 24 };

typedef struct Curve {
    int64_t steps;
    double loss[CURVE_STEPS], norm[CURVE_STEPS], rate[CURVE_STEPS];
} Curve;

static inline void join(char out[VL_PATH_MAX], const char *folder, const char *name) {
    assert_ok(vl_path_join(out, folder, name));
}

// The golden runs, as their README has them.
typedef struct GoldenRun {
    const char *name, *stage, *model, *protocol, *aspect;
    int batch, steps;
    double warmup;
    int every;  // steps between checkpoints
} GoldenRun;

static inline const GoldenRun *golden_run(const char *name) {
    static const GoldenRun runs[] = {
        {"pretrain", "pretrain", "model_vl", "vl2-main", "none", 16, 30, 0.03, 10},
        {"finetune", "finetune", "model_vl", "vl2-main", "pad", 16, 30, 0.03, 10},
        {"audio_pretrain", "audio-pretrain", "model_av", "vl2-av", "pad", 4, 20, 0.03, 10},
        {"audio_finetune", "audio-finetune", "model_av", "vl2-av", "pad", 6, 20, 0.1, 10},
        {"joint", "joint", "model_av", "vl2-av", "pad", 7, 12, 0.1, 4},
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        if (strcmp(runs[i].name, name) == 0) return &runs[i];
    }
    fail_msg("there is no golden run %s", name);
    return NULL;
}

// FOLDER/NAME.yaml: a golden run, on the device that VL_TEST_DEVICE names (cpu); shards in FOLDER/NAME-shards.
static inline void write_config(const char *folder, const char *name) {
    const GoldenRun *run = golden_run(name);
    char path[VL_PATH_MAX], text[8192], file[64];
    snprintf(file, sizeof file, "%s.yaml", name);
    join(path, folder, file);
    snprintf(text, sizeof text,
             "stage: %s\n"
             "model: {path: %s/%s}\n"
             "data:\n"
             "  sources: [{annotations: %s/data/%s.json, media: %s/data, shards: %s/%s-shards}]\n"
             "  frames: 4\n"
             "  aspect: %s\n"
             "  protocol: %s\n"
             "train: {steps: %d, global_batch: %d, dtype: f32}\n"
             "optim: {lr: 1.0e-3, warmup_ratio: %g}\n"
             "checkpoint: {every: %d, keep: 100}\n"
             "threads: 1\n"
             "device: %s\n",
             run->stage, GOLDEN, run->model, GOLDEN, name, GOLDEN, folder, name, run->aspect, run->protocol, run->steps,
             run->batch, run->warmup, run->every, getenv("VL_TEST_DEVICE") ? getenv("VL_TEST_DEVICE") : "cpu");
    put_file(path, text, (int64_t)strlen(text));
}

// Loads FOLDER/STAGE.yaml with overrides; a list that ends with NULL.
static inline VlStatus load_config(VlConfig *config, const char *folder, const char *stage, const char *output,
                                   const char *const *overrides) {
    char path[VL_PATH_MAX], name[128], where[VL_PATH_MAX + 16];
    const char *all[MOST_OVERRIDES];
    int64_t count = 0;
    snprintf(name, sizeof name, "%s.yaml", stage);
    join(path, folder, name);
    snprintf(where, sizeof where, "output=%s", output);
    all[count++] = where;
    for (; *overrides && count < MOST_OVERRIDES; overrides++) all[count++] = *overrides;
    return vl_config_load(config, path, count, all);
}

static inline void pack_stage(const char *folder, const char *stage) {
    VlConfig config;
    write_config(folder, stage);
    assert_ok(load_config(&config, folder, stage, "", (const char *const[]){NULL}));
    assert_ok(vl_pack_sources(&config));
    vl_config_free(&config);
}

static inline VlStatus train_list(VlComm *comm, const char *folder, const char *stage, const char *output,
                                  const char *const *overrides) {
    VlConfig config;
    VL_TRY(load_config(&config, folder, stage, output, overrides));
    VlStatus status = vl_train(&config, comm);
    vl_config_free(&config);
    return status;
}
// Trains FOLDER/STAGE.yaml into `output` with overrides "key=value".
#define train(comm, folder, stage, output, ...) \
    train_list((comm), (folder), (stage), (output), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static inline double member(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("'%s' is no number", key);
    return json_number_value(value);
}

static inline void add_step(Curve *curve, const json_t *step) {
    assert_true(curve->steps < CURVE_STEPS);
    assert_int_equal((int64_t)member(step, "step"), curve->steps + 1);
    curve->loss[curve->steps] = member(step, "loss");
    curve->norm[curve->steps] = member(step, "grad_norm");
    curve->rate[curve->steps++] = member(step, "lr");
}

// The curve that a run left in metrics.jsonl.
static inline void read_curve(const char *run, Curve *curve) {
    char path[VL_PATH_MAX];
    VlJsonStream *stream;
    json_t *line;
    int64_t offset, size;
    *curve = (Curve){0};
    join(path, run, "metrics.jsonl");
    assert_ok(vl_json_stream_open(&stream, path));
    for (;;) {
        assert_ok(vl_json_stream_next(stream, &line, &offset, &size));
        if (!line) break;
        add_step(curve, line);
        json_decref(line);
    }
    vl_json_stream_close(stream);
}

static inline json_t *load_expected(const char *stage) {
    char path[VL_PATH_MAX];
    json_t *root;
    snprintf(path, sizeof path, "%s/expected/%s/expected.json", GOLDEN, stage);
    assert_ok(vl_json_load(path, 1 << 20, &root));
    return root;
}

static inline double relative(double value, double reference) {
    double scale = fabs(reference) > 0 ? fabs(reference) : 1;
    return fabs(value - reference) / scale;
}

// Largest relative distance of the losses of steps [begin, end) of two curves.
static inline double loss_distance(const Curve *a, const Curve *b, int64_t begin, int64_t end) {
    double worst = 0;
    assert_true(a->steps >= end && b->steps >= end);
    for (int64_t i = begin; i < end; i++) {
        double distance = relative(a->loss[i], b->loss[i]);
        if (!(distance <= worst)) worst = distance;
    }
    return worst;
}

static inline bool same_bits(const Curve *a, const Curve *b) {
    return a->steps == b->steps && memcmp(a->loss, b->loss, sizeof a->loss) == 0 &&
           memcmp(a->norm, b->norm, sizeof a->norm) == 0 && memcmp(a->rate, b->rate, sizeof a->rate) == 0;
}

// A run's trained weights (its newest checkpoint) as the model that they make.
typedef struct Weights {
    VlContext *context;
    VlVlm *model;
} Weights;

static inline void close_weights(Weights *weights) {
    vl_vlm_free(weights->model);
    vl_context_free(weights->context);
}

static inline void open_weights(Weights *weights, const char *path) {
    VlModelSource source;
    VlModelConfig config;
    VlComm *comm;
    assert_ok(vl_model_source_open(&source, path, 0));
    assert_ok(vl_model_config_load(&config, source.folder));
    assert_ok(vl_context_create(&weights->context, VL_DEVICE_CPU, 1));
    assert_ok(vl_vlm_create(&weights->model, weights->context, &config, 0));
    assert_ok(vl_params_bind(weights->context, vl_vlm_params(weights->model), VL_F32));
    assert_ok(vl_comm_open(&comm, 0));
    assert_ok(vl_model_source_load(&source, weights->context, weights->model, comm, false));
    vl_comm_close(comm);
}

static inline float *weight_values(const Weights *weights, const VlParam *param) {
    float *values;
    assert_ok(VL_NEW(&values, vl_elements(param->shape)));
    assert_ok(vl_params_get(weights->context, param, values));
    return values;
}

// Whether two runs, checkpoints or model folders hold the same bits in every parameter that takes part.
static inline bool same_weights(const char *a_path, const char *b_path) {
    Weights a, b;
    bool same = true;
    open_weights(&a, a_path);
    open_weights(&b, b_path);
    const VlParams *params = vl_vlm_params(a.model);
    for (int64_t i = 0; i < params->count; i++) {
        if (params->rows[i]->unused) continue;
        float *x = weight_values(&a, params->rows[i]);
        float *y = weight_values(&b, vl_vlm_params(b.model)->rows[i]);
        same &= memcmp(x, y, (size_t)vl_elements(params->rows[i]->shape) * sizeof *x) == 0;
        vl_free(x);
        vl_free(y);
    }
    close_weights(&a);
    close_weights(&b);
    return same;
}

static inline void copy_file(const char *from, const char *to) {
    char *data;
    int64_t size;
    assert_ok(vl_read_file(from, 1 << 28, &data, &size));
    put_file(to, data, size);
    vl_free(data);
}

// Copies a folder of files and folders.
static inline void copy_tree(const char *from, const char *to) {
    char **names, source[VL_PATH_MAX], target[VL_PATH_MAX];
    int64_t count;
    assert_ok(vl_make_folders(to));
    assert_ok(vl_list_folder(from, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        join(source, from, names[i]);
        join(target, to, names[i]);
        if (vl_path_is_folder(source)) {
            copy_tree(source, target);
        } else {
            copy_file(source, target);
        }
    }
    vl_free_names(names, count);
}

static inline void checkpoint_path(char out[VL_PATH_MAX], const char *run, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, "checkpoints/step-%08lld", (long long)step);
    join(out, run, name);
}

// A run as it was after `step`: its checkpoint of that step, and the metrics of all steps, as a run has them that was
// killed later.
static inline void copy_run_at(const char *from, int64_t step, const char *to) {
    char source[VL_PATH_MAX], target[VL_PATH_MAX];
    checkpoint_path(source, from, step);
    checkpoint_path(target, to, step);
    copy_tree(source, target);
    join(source, from, "metrics.jsonl");
    join(target, to, "metrics.jsonl");
    copy_file(source, target);
}

// Turns over one bit of a file's byte.
static inline void flip_byte(const char *path, int64_t offset) {
    char *data;
    int64_t size;
    assert_ok(vl_read_file(path, 1 << 28, &data, &size));
    assert_true(offset >= 0 && offset < size);
    data[offset] ^= 1;
    put_file(path, data, size);
    vl_free(data);
}

#endif
