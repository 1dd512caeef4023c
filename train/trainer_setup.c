// What stands before the first step: data, model, and the checkpoint that a run goes on from.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/pack.h"
#include "dist/device_comm.h"
#include "train/bench_machine.h"
#include "train/pack_sources.h"
#include "train/run_plan.h"
#include "train/sample_length.h"
#include "train/stage_needs.h"
#include "train/trainer_parts.h"

static VlStatus loader_options(VlTrainer *trainer, VlLoaderOptions *options) {
    const VlConfig *config = trainer->config;
    bool pretrain = strcmp(config->stage, "pretrain") == 0 || strcmp(config->stage, "audio-pretrain") == 0;
    bool plain = strcmp(config->data.labels, "plain") == 0 || (strcmp(config->data.labels, "stage") == 0 && pretrain);
    *options = (VlLoaderOptions){.mix = config->data.mix,
                                 .seed = (uint64_t)config->train.seed,
                                 .global_batch = config->train.global_batch,
                                 .rank = vl_comm_rank(trainer->comm),
                                 .ranks = vl_comm_size(trainer->comm),
                                 .threads = config->data.loader_threads,
                                 .prefetch = config->data.prefetch,
                                 .tokenizer = trainer->tokenizer,
                                 .mode = plain ? VL_PROMPT_TRAIN_PLAIN : VL_PROMPT_TRAIN_SFT,
                                 .max_tokens = config->data.max_tokens,
                                 .truncate_expanded = strcmp(config->data.truncate, "expanded") == 0,
                                 .num_frames = trainer->model_config.num_frames,
                                 .media_tokens = vl_media_tokens_of_user,
                                 .media_tokens_user = &trainer->model_config,
                                 .height = trainer->preprocess.height,
                                 .width = trainer->preprocess.width,
                                 .preprocessing = trainer->fingerprint,
                                 .sound = trainer->sound};
    return vl_protocol_parse(&options->protocol, config->data.protocol);
}

static VlStatus open_data(VlTrainer *trainer) {
    const VlConfig *config = trainer->config;
    VlLoaderOptions options;
    VlAspect aspect;
    VlSource *sources;
    if (config->data.sources == 0)
        return vl_error(VL_USAGE, "data.sources is empty: name at least one {annotations, media, shards}");
    VL_TRY(vl_aspect_parse(&aspect, config->data.aspect));
    VL_TRY(vl_tokenizer_load(&trainer->tokenizer, trainer->base.folder));
    VL_TRY(vl_preprocess_load(&trainer->preprocess, trainer->base.folder));
    VL_TRY(vl_model_config_check_frames(&trainer->model_config, trainer->preprocess.height, trainer->preprocess.width));
    VL_TRY(loader_options(trainer, &options));
    VL_TRY(vl_pack_fingerprint(&trainer->preprocess, aspect, options.protocol, trainer->model_config.num_frames,
                               trainer->fingerprint));
    if (trainer->model_config.has_audio) {
        vl_pack_sound_fingerprint(config->data.sound_seconds, strcmp(config->data.fbank_dtype, "bf16") == 0,
                                  trainer->sound);
    }
    VL_TRY(VL_NEW(&sources, config->data.sources));
    for (int64_t i = 0; i < config->data.sources; i++) {
        sources[i] = (VlSource){.shards = config->data.source[i].shards, .weight = config->data.source[i].weight};
    }
    options.sources = config->data.sources;
    options.source = sources;
    VlStatus status = vl_loader_open(&trainer->loader, &options);
    vl_free(sources);
    VL_TRY(status);
    trainer->has_heldout = config->heldout.annotations[0] != '\0';
    if (!trainer->has_heldout) return VL_OK;
    char shards[VL_PATH_MAX];
    VL_TRY(vl_path_join(shards, config->output, "heldout"));
    if (vl_trainer_leads(trainer)) status = vl_pack_heldout(config, shards);
    VL_TRY(vl_comm_agree(trainer->comm, status));
    options.mode = VL_PROMPT_TRAIN_SFT;
    return vl_heldout_open(&trainer->heldout, config->heldout.annotations, shards, &options, &trainer->preprocess,
                           config->train.micro_tokens, config->heldout.limit);
}

// What the largest step takes, and whether the device has it.
static VlStatus plan_memory(VlTrainer *trainer, VlMemoryPlan *plan) {
    VlPlanOptions options;
    VL_TRY(vl_run_plan_options(trainer->config, &trainer->model_config, vl_comm_size(trainer->comm),
                               trainer->context->device, &options));
    VL_TRY(vl_memory_plan(&trainer->model_config, &options, plan));
    return vl_run_check_memory(plan, trainer->context, vl_comm_size(trainer->comm));
}

// The same kind on all ranks; GPUs of one machine are dealt to its ranks in turn. Collective.
static VlStatus choose_device(VlTrainer *trainer, VlDevice *device) {
    VL_TRY(vl_comm_agree(trainer->comm, vl_device_choose(device, trainer->config->device)));
    int64_t common = *device;
    VL_TRY(vl_comm_reduce(trainer->comm, VL_MIN_I64, &common, 1));
    if (common != *device) vl_log(VL_LOG_WARNING, "a rank has no CUDA device: all compute on the CPU");
    *device = (VlDevice)common;
    if (*device == VL_DEVICE_CUDA && vl_comm_size(trainer->comm) > 1) {
        VL_TRY(vl_device_comm_choose_gpu(trainer->comm));
    }
    return VL_OK;
}

static VlStatus build_model(VlTrainer *trainer) {
    const VlConfig *config = trainer->config;
    VlGroups trainable;
    VlDevice device;
    VlMemoryPlan plan;
    VL_TRY(vl_groups_parse(config->train.trainable, &trainable));
    VL_TRY(choose_device(trainer, &device));
    VL_TRY(vl_context_create(&trainer->context, device, config->threads));
    VL_TRY(vl_vlm_create(&trainer->model, trainer->context, &trainer->model_config, trainable));
    VlParams *params = vl_vlm_params(trainer->model);
    if (params->trainable_elements == 0) {
        return vl_error(VL_USAGE, "train.trainable is [%s]: this model has nothing of that, and nothing would train",
                        config->train.trainable);
    }
    VL_TRY(plan_memory(trainer, &plan));
    VL_TRY(vl_params_bind(trainer->context, params, vl_config_dtype(config)));
    VlOptimizerSettings settings = {config->optim.beta1, config->optim.beta2, config->optim.eps,
                                    config->optim.weight_decay, config->optim.clip_norm};
    VL_TRY(vl_optimizer_create(&trainer->optimizer, trainer->context, params, settings));
    // The CPU's arenas grow with the batches that come: what is not touched takes no memory there.
    if (device != VL_DEVICE_CPU) {
        VL_TRY(vl_vlm_reserve(trainer->model, plan.activation_bytes, plan.scratch_bytes));
    }
    VL_TRY(vl_buckets_create(&trainer->buckets, trainer->context, trainer->comm, params->flat_gradient, 0));
    return vl_model_source_load(&trainer->base, trainer->context, trainer->model, trainer->comm, false);
}

// A run goes on as the run that it is: what would change its course silently is refused.
static VlStatus check_continuation(const VlTrainer *trainer, const VlCheckpointInfo *info, const char *path) {
    const VlConfig *config = trainer->config;
    const VlProgress *was = &info->progress, *is = &trainer->progress;
    if (was->seed != is->seed || was->global_batch != is->global_batch || was->steps != is->steps) {
        return vl_error(VL_INVALID,
                        "%s was made with train.seed %" PRId64 ", train.global_batch %" PRId64 " and %" PRId64
                        " steps, this configuration has %" PRId64 ", %" PRId64 " and %" PRId64
                        ": take the same values, or another output folder",
                        path, was->seed, was->global_batch, was->steps, is->seed, is->global_batch, is->steps);
    }
    if (was->data_hash != is->data_hash) {
        return vl_error(VL_INVALID,
                        "%s was made on other data: data.sources, or how samples are chosen, cut and labelled, have "
                        "changed since; take another output folder",
                        path);
    }
    if (strcmp(info->trainable, config->train.trainable) != 0) {
        return vl_error(VL_INVALID, "%s trained '%s', this configuration '%s': take another output folder", path,
                        info->trainable, config->train.trainable);
    }
    if (strcmp(info->base, trainer->base.path) != 0) {
        return vl_error(VL_INVALID, "%s started from %s, this configuration from %s: take another output folder", path,
                        info->base, trainer->base.path);
    }
    if (strcmp(info->base_hash, trainer->base.hash) != 0) {
        return vl_error(VL_INVALID, "%s has changed since %s was trained upon it: take another output folder",
                        trainer->base.path, path);
    }
    return VL_OK;
}

static VlStatus continue_run(VlTrainer *trainer) {
    char path[VL_PATH_MAX];
    int64_t before = -1;
    for (;;) {
        VlCheckpointInfo info;
        VL_TRY(vl_checkpoint_newest(trainer->config->output, before, path));
        if (!path[0]) return VL_OK;
        VlStatus status = vl_comm_agree(trainer->comm, vl_checkpoint_info(path, &info));
        if (status == VL_OK) {
            VL_TRY(vl_comm_agree(trainer->comm, check_continuation(trainer, &info, path)));
            status = vl_checkpoint_verify(trainer->comm, path);
        }
        if (status == VL_OK) {
            trainer->progress = info.progress;
            VL_TRY(vl_checkpoint_load(trainer->context, path, vl_vlm_params(trainer->model), &trainer->optimizer));
            vl_log(VL_LOG_INFO, "continuing from %s", path);
            return VL_OK;
        }
        if (strcmp(trainer->config->checkpoint.fallback, "true") != 0) {
            return vl_error_context(status, "checkpoint.fallback=true continues from the one before it");
        }
        vl_log(VL_LOG_WARNING, "%s; falling back to the checkpoint before it", vl_error_text());
        before = vl_checkpoint_step(path);
    }
}

// A hash of the samples and of the rules that turn them into steps: under other ones the step is no cursor.
static uint64_t course_hash(const VlTrainer *trainer) {
    const VlConfig *config = trainer->config;
    uint64_t hash = vl_loader_data_hash(trainer->loader);
    char rules[6 * VL_CONFIG_TEXT];
    snprintf(rules, sizeof rules, "%s|%s|%s|%s|%s|%" PRId64, config->stage, config->data.labels, config->data.mix,
             config->data.truncate, config->data.protocol, config->data.max_tokens);
    hash = hash * 31 + vl_hash_string(rules);
    for (int64_t i = 0; i < config->data.sources; i++) {
        snprintf(rules, sizeof rules, "%.17g", config->data.source[i].weight);
        hash = hash * 31 + vl_hash_string(rules);
    }
    return hash;
}

static VlStatus plan_run(VlTrainer *trainer) {
    const VlConfig *config = trainer->config;
    int64_t epoch = vl_loader_epoch_samples(trainer->loader), batch = config->train.global_batch;
    int64_t steps = config->train.steps > 0 ? config->train.steps : (epoch * config->train.epochs + batch - 1) / batch;
    trainer->progress = (VlProgress){
        .global_batch = batch, .seed = config->train.seed, .steps = steps, .data_hash = course_hash(trainer)};
    trainer->schedule = (VlSchedule){.learning_rate = config->optim.lr,
                                     .steps = steps,
                                     .warmup_steps = vl_schedule_warmup_steps(config->optim.warmup_ratio, steps)};
    VL_TRY(vl_schedule_parse(config->optim.schedule, &trainer->schedule.kind));
    VL_TRY(VL_NEW(&trainer->bad_slots, batch));
    return continue_run(trainer);
}

// Two programs in one folder would undo each other's files.
static VlStatus lock_output(VlTrainer *trainer) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, trainer->config->output, ".lock"));
    trainer->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (trainer->lock < 0) return vl_error(VL_IO, "cannot open %s: %s", path, strerror(errno));
    if (flock(trainer->lock, LOCK_EX | LOCK_NB) == 0) return VL_OK;
    return vl_error(VL_INVALID,
                    "another vl2 is at work in %s; wait for it, or take another output folder (several ranks "
                    "are started with mpirun)",
                    trainer->config->output);
}

static VlStatus open_output(VlTrainer *trainer) {
    VL_TRY(vl_make_folders(trainer->config->output));
    VL_TRY(lock_output(trainer));
    return vl_checkpoint_clean(trainer->config->output);
}

// Once it is sure that this run goes on in this folder: a run that is refused leaves the records of the other one
// alone.
static VlStatus open_records(VlTrainer *trainer) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, trainer->config->output, "config.resolved.yaml"));
    VL_TRY(vl_write_file(path, trainer->configuration, (int64_t)strlen(trainer->configuration)));
    return vl_metrics_open(&trainer->metrics, trainer->config->output, trainer->progress.step, trainer->progress.steps);
}

VlStatus vl_trainer_set_up(VlTrainer *trainer) {
    const VlConfig *config = trainer->config;
    VL_TRY(vl_config_need_model(config));
    if (!config->output[0]) return vl_error(VL_USAGE, "output is missing: the folder of this run");
    VL_TRY(vl_model_source_open(&trainer->base, config->model.path, config->train.seed));
    VL_TRY(vl_model_config_load(&trainer->model_config, trainer->base.folder));
    VlStatus status =
        vl_trainer_leads(trainer) ? vl_stage_check(config->stage, &trainer->base, &trainer->model_config) : VL_OK;
    VL_TRY(vl_comm_agree(trainer->comm, status));
    int64_t frames = config->data.frames > 0 ? config->data.frames : trainer->base.frames;
    if (frames > 0) trainer->model_config.num_frames = frames;
    VL_TRY(vl_sample_check_longest(config, &trainer->model_config));
    VL_TRY(vl_config_dump(config, &trainer->configuration));
    status = vl_trainer_leads(trainer) ? open_output(trainer) : VL_OK;
    VL_TRY(vl_comm_agree(trainer->comm, status));
    VL_TRY(vl_comm_agree(trainer->comm, open_data(trainer)));
    VL_TRY(vl_comm_agree(trainer->comm, build_model(trainer)));
    VL_TRY(vl_model_source_identify(&trainer->base, trainer->comm));
    VL_TRY(plan_run(trainer));
    if (vl_trainer_leads(trainer)) VL_TRY(open_records(trainer));
    double peak;
    VL_TRY(vl_peak_flops(trainer->context, vl_config_dtype(config), &peak));
    VL_TRY(vl_comm_reduce(trainer->comm, VL_SUM_F64, &peak, 1));
    trainer->peak_flops = peak;
    const VlParams *params = vl_vlm_params(trainer->model);
    vl_log(VL_LOG_INFO,
           "stage %s: %" PRId64 " steps of %" PRId64 " samples (%" PRId64 " samples a pass), %" PRId64
           " rank(s) of %" PRId64 " thread(s) on %s%s%s, %.1f M trained elements (%s), peak %.0f GFLOP/s",
           config->stage, trainer->progress.steps, config->train.global_batch, vl_loader_epoch_samples(trainer->loader),
           vl_comm_size(trainer->comm), trainer->context->threads, vl_device_name(trainer->context->device),
           trainer->context->model[0] ? ", " : "", trainer->context->model, (double)params->trainable_elements / 1e6,
           config->train.trainable, peak / 1e9);
    return VL_OK;
}
