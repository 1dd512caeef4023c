#include "train/trainer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/pack.h"
#include "dist/buckets.h"
#include "optim/schedule.h"
#include "train/bench_machine.h"
#include "train/checkpoint.h"
#include "train/heldout.h"
#include "train/metrics.h"
#include "train/micro_batch.h"
#include "train/pack_sources.h"
#include "train/signals.h"

typedef struct Trainer {
    const VlConfig *config;
    VlComm *comm;
    VlModelSource base;
    VlModelConfig model_config;
    VlContext *context;
    VlVlm *model;
    VlOptimizer optimizer;
    VlBuckets *buckets;
    VlTokenizer *tokenizer;
    VlPreprocessConfig preprocess;
    char fingerprint[VL_PREPROCESSING_MAX];
    VlLoader *loader;
    VlHeldout heldout;
    bool has_heldout;
    VlSchedule schedule;
    VlProgress progress;
    VlMetrics metrics;
    VlMicroBatch micro;
    float *losses;
    int64_t losses_capacity;
    int64_t *bad_slots;   // [global_batch] 1: that slot of the step is empty
    double peak_flops;    // of all ranks, per second
    char *configuration;  // resolved, as YAML
    bool stopping;        // a signal has arrived somewhere
    int lock;             // rank 0: the descriptor of RUN/.lock, held as long as the run is at work; else -1
} Trainer;

static bool is_leader(const Trainer *trainer) { return vl_comm_rank(trainer->comm) == 0; }

// ------------------------------------------------------------------------------------------------------------- one
// step

// What the ranks tell each other before backward.
enum { LABELS, TOKENS, SAMPLES, BAD, INTERRUPTS, TERMINATIONS, COUNTS };

static VlStatus announce(void *user, int64_t first, int64_t count) {
    Trainer *trainer = user;
    const VlParams *params = vl_vlm_params(trainer->model);
    // The range up to the next trainable row, so that gaps between rows are covered too.
    int64_t begin = -1, end = params->trainable_elements;
    for (int64_t i = first; i < params->count; i++) {
        const VlParam *row = params->rows[i];
        if (!row->trainable) continue;
        if (i >= first + count) {
            end = row->offset;
            break;
        }
        if (begin < 0) begin = row->offset;
    }
    return begin < 0 ? VL_OK : vl_buckets_ready(trainer->buckets, begin, end - begin);
}

static void count_samples(const Trainer *trainer, const VlSample *samples, int64_t count, int64_t counts[COUNTS]) {
    memset(counts, 0, COUNTS * sizeof *counts);
    for (int64_t i = 0; i < count; i++) {
        counts[BAD] += samples[i].bad;
        counts[SAMPLES] += !samples[i].bad;
        counts[TOKENS] += vl_sample_expanded_tokens(&trainer->model_config, &samples[i]);
        for (int64_t t = 1; t < samples[i].tokens; t++)
            counts[LABELS] += samples[i].labels[t] >= 0 && samples[i].ids[t] >= 0;
    }
    counts[INTERRUPTS] = vl_signals_pending() == SIGINT;
    counts[TERMINATIONS] = vl_signals_pending() == SIGTERM;
}

static VlStatus name_bad_sample(const Trainer *trainer, const VlSample *sample) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, trainer->config->output, "quarantine.jsonl"));
    json_t *line = json_pack("{s:I, s:I, s:I, s:I, s:s, s:s}", "step", (json_int_t)trainer->progress.step + 1,
                             "position", (json_int_t)sample->position, "source", (json_int_t)sample->source, "index",
                             (json_int_t)sample->index, "id", sample->id ? sample->id : "", "reason",
                             sample->reason ? sample->reason : "unknown");
    VlStatus status = vl_json_append_line(path, line);
    json_decref(line);
    return status;
}

// Empty slots: named, counted in the order of positions, and too many of them end the run. Collective.
static VlStatus account_bad(Trainer *trainer, const VlSample *samples, int64_t count, int64_t bad) {
    VlProgress *progress = &trainer->progress;
    int64_t slots = progress->global_batch;
    if (bad == 0) {
        progress->bad_in_a_row = 0;
        return VL_OK;
    }
    VlStatus status = VL_OK;
    memset(trainer->bad_slots, 0, (size_t)slots * sizeof *trainer->bad_slots);
    const char *reason = "";
    for (int64_t i = 0; i < count && status == VL_OK; i++) {
        if (!samples[i].bad) continue;
        trainer->bad_slots[samples[i].position % slots] = 1;
        reason = samples[i].reason ? samples[i].reason : "";
        vl_log(VL_LOG_WARNING, "bad sample %" PRId64 " of source %" PRId64 ": %s", samples[i].index, samples[i].source,
               reason);
        status = name_bad_sample(trainer, &samples[i]);
    }
    VL_TRY(vl_comm_agree(trainer->comm, status));
    VL_TRY(vl_comm_reduce(trainer->comm, VL_SUM_I64, trainer->bad_slots, slots));
    int64_t longest = 0;
    for (int64_t i = 0; i < slots; i++) {
        progress->bad_in_a_row = trainer->bad_slots[i] ? progress->bad_in_a_row + 1 : 0;
        if (progress->bad_in_a_row > longest) longest = progress->bad_in_a_row;
    }
    progress->bad_samples += bad;
    if (progress->bad_samples > trainer->config->limits.bad_samples || longest > trainer->config->limits.bad_in_a_row) {
        return vl_error(
            VL_FORMAT,
            "%" PRId64 " samples could not be read, %" PRId64 " in a row; the limits are %" PRId64 " and %" PRId64
            ". %s/quarantine.jsonl names them; mend the data or raise limits.bad_samples, limits.bad_in_a_row",
            progress->bad_samples, longest, trainer->config->limits.bad_samples, trainer->config->limits.bad_in_a_row,
            trainer->config->output);
    }
    return VL_OK;
}

// Forward and backward over this rank's micro-batches; gradients are summed over the ranks while the last one is still
// running.
static VlStatus accumulate(Trainer *trainer, const VlSample *samples, int64_t count, double scale, double *loss) {
    VlGradientHook hook = {announce, trainer};
    for (int64_t begin = 0, end; begin < count; begin = end) {
        end = vl_micro_batch_end(&trainer->model_config, samples, count, begin, trainer->config->train.micro_tokens);
        const VlBatch *batch = &trainer->micro.batch;
        VlVlmForward forward;
        VL_TRY(vl_micro_batch_build(&trainer->micro, &trainer->model_config, &trainer->preprocess, end - begin,
                                    samples + begin));
        if (batch->sequences == 0) continue;
        VL_TRY(vl_reserve(&trainer->losses, &trainer->losses_capacity, batch->labels, (int64_t)sizeof(float)));
        VL_TRY(vl_vlm_prepare(trainer->model, batch, true));
        VL_TRY(vl_vlm_forward(trainer->model, batch, true, &forward));
        VlStatus status = vl_vlm_loss(trainer->model, batch, &forward, true, (float)scale, end == count ? &hook : NULL,
                                      trainer->losses);
        vl_vlm_release(trainer->model);
        VL_TRY(status);
        for (int64_t i = 0; i < batch->labels; i++) *loss += (double)trainer->losses[i];
    }
    return VL_OK;
}

// NaN or infinity in loss or gradient: the step is left out on all ranks alike, or the run ends. Every rank names its
// samples. Collective.
static VlStatus refuse_step(Trainer *trainer, const VlSample *samples, int64_t count, double loss, double norm) {
    char ids[512] = "";
    for (int64_t i = 0; i < count; i++) {
        size_t used = strlen(ids);
        snprintf(ids + used, sizeof ids - used, "%s%s", i ? ", " : "", samples[i].id ? samples[i].id : "?");
    }
    bool skip = strcmp(trainer->config->train.nonfinite, "skip") == 0;
    vl_log(VL_LOG_WARNING, "step %" PRId64 "%s: loss %g, gradient norm %g; samples: %s", trainer->progress.step + 1,
           skip ? " left out" : "", loss, norm, ids);
    trainer->progress.skipped += skip;
    VL_TRY(vl_comm_barrier(trainer->comm));
    if (skip) return VL_OK;
    return vl_error(VL_INVALID,
                    "step %" PRId64
                    ": loss %g, gradient norm %g; the warnings before this line name the samples. "
                    "Lower optim.lr, or set train.nonfinite to skip",
                    trainer->progress.step + 1, loss, norm);
}

static VlStatus train_step(Trainer *trainer, VlStepMetrics *metrics) {
    VlSample *samples;
    int64_t count, counts[COUNTS];
    double begin = vl_seconds(), wait = 0, loss = 0, norm = 0;
    VL_TRY(
        vl_comm_agree(trainer->comm, vl_loader_next(trainer->loader, trainer->progress.step, &samples, &count, &wait)));
    count_samples(trainer, samples, count, counts);
    VL_TRY(vl_comm_reduce(trainer->comm, VL_SUM_I64, counts, COUNTS));
    trainer->stopping = counts[INTERRUPTS] + counts[TERMINATIONS] > 0;
    if (trainer->stopping) {
        vl_signals_adopt(counts[INTERRUPTS] > 0 ? SIGINT : SIGTERM);
        return VL_OK;
    }
    VL_TRY(account_bad(trainer, samples, count, counts[BAD]));

    VL_TRY(vl_optimizer_clear_gradients(&trainer->optimizer));
    trainer->context->flops = 0;
    double scale = counts[LABELS] > 0 ? 1.0 / (double)counts[LABELS] : 0.0;
    VL_TRY(accumulate(trainer, samples, count, scale, &loss));
    VL_TRY(vl_buckets_finish(trainer->buckets));
    double sums[] = {loss, (double)trainer->context->flops};
    VL_TRY(vl_comm_reduce(trainer->comm, VL_SUM_F64, sums, 2));
    loss = sums[0] * scale;
    VL_TRY(vl_optimizer_gradient_norm(&trainer->optimizer, &norm));

    double rate = vl_schedule_rate(&trainer->schedule, trainer->progress.step);
    if (!isfinite(loss) || !isfinite(norm)) {
        VL_TRY(refuse_step(trainer, samples, count, loss, norm));
    } else if (counts[LABELS] > 0) {
        VL_TRY(vl_optimizer_step(&trainer->optimizer, rate, norm));
    } else {
        vl_log(VL_LOG_WARNING, "step %" PRId64 " has no label token and changes nothing: see data.max_tokens",
               trainer->progress.step + 1);
    }
    double seconds = vl_seconds() - begin;
    *metrics = (VlStepMetrics){.step = ++trainer->progress.step,
                               .loss = loss,
                               .grad_norm = norm,
                               .lr = rate,
                               .tokens = counts[TOKENS],
                               .label_tokens = counts[LABELS],
                               .samples = counts[SAMPLES],
                               .seconds = seconds,
                               .tokens_per_s = (double)counts[TOKENS] / seconds,
                               .mfu = trainer->peak_flops > 0 ? sums[1] / seconds / trainer->peak_flops : 0,
                               .data_wait = wait / seconds};
    return VL_OK;
}

// ----------------------------------------------------------------------------------------------------------------- a
// run

static VlStatus save(Trainer *trainer) {
    return vl_checkpoint_save(trainer->comm, trainer->config->output, &trainer->optimizer, &trainer->base,
                              trainer->config->train.trainable, &trainer->progress, trainer->configuration,
                              trainer->config->checkpoint.keep);
}

static VlStatus evaluate(Trainer *trainer, VlControl control) {
    VlHeldout *heldout = &trainer->heldout;
    char path[VL_PATH_MAX], tag[128];
    VL_TRY(vl_heldout_evaluate(heldout, trainer->model, trainer->comm, control));
    if (!is_leader(trainer)) return VL_OK;
    VL_TRY(vl_path_join(path, trainer->config->output, "heldout.jsonl"));
    VL_TRY(vl_heldout_record(heldout, path, trainer->progress.step, control));
    for (int64_t i = 0; i < heldout->kinds; i++) {
        snprintf(tag, sizeof tag, "heldout/%s/%s", vl_control_name(control), heldout->kind[i].name);
        VL_TRY(vl_metrics_scalar(&trainer->metrics, trainer->progress.step, tag,
                                 heldout->kind[i].result[control].accuracy));
    }
    snprintf(tag, sizeof tag, "heldout/%s/loss", vl_control_name(control));
    return vl_metrics_scalar(&trainer->metrics, trainer->progress.step, tag, heldout->loss[control]);
}

// In the course of a run: the samples as they are.
static VlStatus evaluate_course(Trainer *trainer) {
    VL_TRY(evaluate(trainer, VL_CONTROL_NONE));
    const VlHeldout *heldout = &trainer->heldout;
    vl_log(VL_LOG_INFO, "held-out samples at step %" PRId64 ": loss %.4f", trainer->progress.step,
           heldout->loss[VL_CONTROL_NONE]);
    for (int64_t i = 0; i < heldout->kinds; i++) {
        const VlHeldoutResult *result = &heldout->kind[i].result[VL_CONTROL_NONE];
        vl_log(VL_LOG_INFO, "  %-22s %5.1f %% (%4.1f .. %4.1f)  of %" PRId64 ", chance %.1f %%", heldout->kind[i].name,
               100 * result->accuracy, 100 * result->low, 100 * result->high, result->asked,
               100 * heldout->kind[i].chance);
    }
    return VL_OK;
}

// At its end: all controls side by side.
static VlStatus evaluate_end(Trainer *trainer) {
    char *table;
    for (int control = 0; control < VL_CONTROL_COUNT; control++) VL_TRY(evaluate(trainer, (VlControl)control));
    if (!is_leader(trainer)) return VL_OK;
    VL_TRY(vl_heldout_table(&trainer->heldout, &table));
    for (char *line = strtok(table, "\n"); line; line = strtok(NULL, "\n")) vl_log(VL_LOG_INFO, "%s", line);
    free(table);
    return VL_OK;
}

static VlStatus interrupted(Trainer *trainer, int64_t saved) {
    if (saved < trainer->progress.step) VL_TRY(save(trainer));
    return vl_error(VL_INTERRUPTED,
                    "interrupted; a checkpoint of step %" PRId64 " is saved in %s, the same command continues from it",
                    trainer->progress.step, trainer->config->output);
}

static VlStatus run(Trainer *trainer) {
    const VlConfig *config = trainer->config;
    VlProgress *progress = &trainer->progress;
    int64_t saved = progress->step > 0 ? progress->step : -1;
    while (progress->step < progress->steps) {
        VlStepMetrics metrics;
        VL_TRY(train_step(trainer, &metrics));
        if (trainer->stopping) return interrupted(trainer, saved);
        if (is_leader(trainer)) VL_TRY(vl_metrics_step(&trainer->metrics, &metrics));
        bool last = progress->step == progress->steps;
        if (trainer->has_heldout && config->heldout.every > 0 && progress->step % config->heldout.every == 0 && !last) {
            VL_TRY(evaluate_course(trainer));
        }
        if (last || (config->checkpoint.every > 0 && progress->step % config->checkpoint.every == 0)) {
            VL_TRY(save(trainer));
            saved = progress->step;
        }
    }
    if (saved < progress->step) VL_TRY(save(trainer));
    if (trainer->has_heldout) VL_TRY(evaluate_end(trainer));
    int64_t cut = vl_loader_truncated(trainer->loader);
    if (cut > 0) vl_log(VL_LOG_INFO, "%" PRId64 " samples were cut to data.max_tokens", cut);
    return VL_OK;
}

// -----------------------------------------------------------------------------------------------------------------
// set-up

static int64_t visual_tokens(void *user, int64_t frames) { return vl_model_visual_tokens(user, frames); }

static VlStatus loader_options(Trainer *trainer, VlLoaderOptions *options) {
    const VlConfig *config = trainer->config;
    bool plain = strcmp(config->data.labels, "plain") == 0 ||
                 (strcmp(config->data.labels, "stage") == 0 && strcmp(config->stage, "pretrain") == 0);
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
                                 .visual_tokens = visual_tokens,
                                 .visual_tokens_user = &trainer->model_config,
                                 .height = trainer->preprocess.height,
                                 .width = trainer->preprocess.width,
                                 .preprocessing = trainer->fingerprint};
    return vl_protocol_parse(&options->protocol, config->data.protocol);
}

static VlStatus open_data(Trainer *trainer) {
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
    if (is_leader(trainer)) status = vl_pack_heldout(config, shards);
    VL_TRY(vl_comm_agree(trainer->comm, status));
    options.mode = VL_PROMPT_TRAIN_SFT;
    return vl_heldout_open(&trainer->heldout, config->heldout.annotations, shards, &options, &trainer->preprocess,
                           config->train.micro_tokens, config->heldout.limit);
}

static VlStatus build_model(Trainer *trainer) {
    const VlConfig *config = trainer->config;
    VlGroups trainable;
    VL_TRY(vl_groups_parse(config->train.trainable, &trainable));
    VL_TRY(vl_context_create(&trainer->context, "cpu", config->threads));
    VL_TRY(vl_vlm_create(&trainer->model, trainer->context, &trainer->model_config, trainable));
    VlParams *params = vl_vlm_params(trainer->model);
    if (params->trainable_elements == 0) {
        return vl_error(VL_USAGE, "train.trainable is [%s]: this model has nothing of that, and nothing would train",
                        config->train.trainable);
    }
    VL_TRY(vl_params_bind(trainer->context, params, vl_config_dtype(config)));
    VlOptimizerSettings settings = {config->optim.beta1, config->optim.beta2, config->optim.eps,
                                    config->optim.weight_decay, config->optim.clip_norm};
    VL_TRY(vl_optimizer_create(&trainer->optimizer, trainer->context, params, settings));
    VL_TRY(vl_buckets_create(&trainer->buckets, trainer->context, trainer->comm, params->flat_gradient, 0));
    return vl_model_source_load(&trainer->base, trainer->context, trainer->model, trainer->comm, false);
}

// A run goes on as the run that it is: what would change its course silently is refused.
static VlStatus check_continuation(const Trainer *trainer, const VlCheckpointInfo *info, const char *path) {
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

static VlStatus continue_run(Trainer *trainer) {
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
static uint64_t course_hash(const Trainer *trainer) {
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

static VlStatus plan_run(Trainer *trainer) {
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
static VlStatus lock_output(Trainer *trainer) {
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

static VlStatus open_output(Trainer *trainer) {
    VL_TRY(vl_make_folders(trainer->config->output));
    VL_TRY(lock_output(trainer));
    return vl_checkpoint_clean(trainer->config->output);
}

// Once it is sure that this run goes on in this folder: a run that is refused leaves the records of the other one
// alone.
static VlStatus open_records(Trainer *trainer) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, trainer->config->output, "config.resolved.yaml"));
    VL_TRY(vl_write_file(path, trainer->configuration, (int64_t)strlen(trainer->configuration)));
    return vl_metrics_open(&trainer->metrics, trainer->config->output, trainer->progress.step, trainer->progress.steps);
}

static VlStatus prepare(Trainer *trainer) {
    const VlConfig *config = trainer->config;
    VL_TRY(vl_config_need_model(config));
    if (!config->output[0]) return vl_error(VL_USAGE, "output is missing: the folder of this run");
    VL_TRY(vl_model_source_open(&trainer->base, config->model.path, config->train.seed));
    VL_TRY(vl_model_config_load(&trainer->model_config, trainer->base.folder));
    int64_t frames = config->data.frames > 0 ? config->data.frames : trainer->base.frames;
    if (frames > 0) trainer->model_config.num_frames = frames;
    VL_TRY(vl_config_dump(config, &trainer->configuration));
    VlStatus status = is_leader(trainer) ? open_output(trainer) : VL_OK;
    VL_TRY(vl_comm_agree(trainer->comm, status));
    VL_TRY(vl_comm_agree(trainer->comm, open_data(trainer)));
    VL_TRY(vl_comm_agree(trainer->comm, build_model(trainer)));
    VL_TRY(vl_model_source_identify(&trainer->base, trainer->comm));
    VL_TRY(plan_run(trainer));
    if (is_leader(trainer)) VL_TRY(open_records(trainer));
    double peak;
    VL_TRY(vl_measure_gemm_peak(trainer->context, vl_config_dtype(config), 1024, 0.3, &peak));
    VL_TRY(vl_comm_reduce(trainer->comm, VL_SUM_F64, &peak, 1));
    trainer->peak_flops = peak;
    const VlParams *params = vl_vlm_params(trainer->model);
    vl_log(VL_LOG_INFO,
           "stage %s: %" PRId64 " steps of %" PRId64 " samples (%" PRId64 " samples a pass), %" PRId64
           " rank(s) of %" PRId64 " thread(s), %.1f M trained elements (%s), peak %.0f GFLOP/s",
           config->stage, trainer->progress.steps, config->train.global_batch, vl_loader_epoch_samples(trainer->loader),
           vl_comm_size(trainer->comm), trainer->context->threads, (double)params->trainable_elements / 1e6,
           config->train.trainable, peak / 1e9);
    return VL_OK;
}

static void close_trainer(Trainer *trainer) {
    if (trainer->lock >= 0) close(trainer->lock);
    if (trainer->has_heldout) vl_heldout_close(&trainer->heldout);
    vl_metrics_close(&trainer->metrics);
    vl_loader_close(trainer->loader);
    vl_tokenizer_free(trainer->tokenizer);
    vl_micro_batch_free(&trainer->micro);
    vl_buckets_free(trainer->buckets);
    vl_optimizer_free(&trainer->optimizer);
    vl_vlm_free(trainer->model);
    vl_context_free(trainer->context);
    vl_free(trainer->losses);
    vl_free(trainer->bad_slots);
    vl_free(trainer->configuration);
    vl_free(trainer);
}

VlStatus vl_train(const VlConfig *config, VlComm *comm) {
    Trainer *trainer;
    VL_TRY(VL_NEW(&trainer, 1));
    trainer->config = config;
    trainer->comm = comm;
    trainer->lock = -1;
    vl_comm_set_timeout(comm, config->parallel.timeout);
    VlStatus status = prepare(trainer);
    if (status == VL_OK) status = run(trainer);
    // After a failure the communication thread may still be at work on this memory; the program ends all ranks then.
    if (status == VL_OK || status == VL_INTERRUPTED || vl_comm_size(comm) == 1) close_trainer(trainer);
    return status;
}
