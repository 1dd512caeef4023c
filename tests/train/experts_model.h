// A small mixture of experts to train.
#ifndef VL_TESTS_TRAIN_EXPERTS_MODEL_H
#define VL_TESTS_TRAIN_EXPERTS_MODEL_H

#include "tests/train/runs.h"

enum { EXPERTS = 4 };

// The golden model's folder at TO, without weights and with a configuration of EXPERTS experts.
static inline void make_experts_model(const char *to) {
    char path[VL_PATH_MAX];
    json_t *config;
    copy_tree(GOLDEN "/model_vl", to);
    join(path, to, "model.safetensors");
    assert_ok(vl_remove_tree(path));
    join(path, to, "config.json");
    assert_ok(vl_json_load(path, 1 << 20, &config));
    json_object_set_new(config, "model_type", json_string("videollama2_mixtral"));
    json_object_set_new(config, "intermediate_size", json_integer(24));
    json_object_set_new(config, "num_local_experts", json_integer(EXPERTS));
    json_object_set_new(config, "num_experts_per_tok", json_integer(2));
    assert_ok(vl_json_save(path, config, 0));
    json_decref(config);
}

#endif
