// One step of a run.
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/signals.h"
#include "train/trainer_parts.h"

// What the ranks tell each other before backward.
enum { LABELS, TOKENS, SAMPLES, BAD, INTERRUPTS, TERMINATIONS, COUNTS };

static VlStatus announce(void *user, int64_t first, int64_t count) {
    VlTrainer *trainer = user;
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

static void count_samples(const VlTrainer *trainer, const VlSample *samples, int64_t count, int64_t counts[COUNTS]) {
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

static VlStatus name_bad_sample(const VlTrainer *trainer, const VlSample *sample) {
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
static VlStatus account_bad(VlTrainer *trainer, const VlSample *samples, int64_t count, int64_t bad) {
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

// Room for the losses of this rank's samples: it grows before a step, never within one.
static VlStatus reserve_losses(VlTrainer *trainer, int64_t labels) {
    if (labels <= trainer->losses_capacity) return VL_OK;
    int64_t capacity = 2 * labels;
    vl_device_free(trainer->context, trainer->device_losses);
    vl_free(trainer->losses);
    trainer->device_losses = NULL;
    trainer->losses = NULL;
    trainer->losses_capacity = 0;
    VL_TRY(VL_NEW(&trainer->losses, capacity));
    VL_TRY(vl_device_allocate(trainer->context, capacity * (int64_t)sizeof(float), &trainer->device_losses));
    trainer->losses_capacity = capacity;
    return VL_OK;
}

// Queues forward and backward over this rank's micro-batches; gradients are summed over the ranks while the last one is
// still running. *labels losses then lie on the device.
static VlStatus accumulate(VlTrainer *trainer, const VlSample *samples, int64_t count, double scale, int64_t *labels) {
    VlGradientHook hook = {announce, trainer};
    VlTensor losses = vl_tensor(trainer->device_losses, VL_F32, trainer->losses_capacity);
    *labels = 0;
    for (int64_t begin = 0, end; begin < count; begin = end) {
        end = vl_micro_batch_end(&trainer->model_config, samples, count, begin, trainer->config->train.micro_tokens);
        VlBatch *batch = &trainer->batch;
        VlVlmForward forward;
        VL_TRY(vl_micro_batch_build(batch, &trainer->model_config, &trainer->preprocess, end - begin, samples + begin));
        if (batch->sequences == 0) continue;
        VL_ASSERT(batch->labels <= trainer->losses_capacity - *labels);
        VL_TRY(vl_vlm_prepare(trainer->model, batch, true));
        VL_TRY(vl_vlm_forward(trainer->model, batch, true, &forward));
        VlStatus status = vl_vlm_device_loss(trainer->model, batch, &forward, true, (float)scale,
                                             end == count ? &hook : NULL, vl_rows(losses, *labels, batch->labels));
        vl_vlm_release(trainer->model);
        VL_TRY(status);
        *labels += batch->labels;
    }
    return VL_OK;
}

// The gradient's norm and the sum of the losses: the one place where a step waits for the device.
static VlStatus read_results(VlTrainer *trainer, int64_t labels, double *norm, double *loss) {
    VL_TRY(vl_optimizer_gradient_norm(&trainer->optimizer, norm));
    *loss = 0;
    if (labels == 0) return VL_OK;
    VL_TRY(vl_copy_to_host(trainer->context, trainer->losses, vl_tensor(trainer->device_losses, VL_F32, labels)));
    for (int64_t i = 0; i < labels; i++) *loss += (double)trainer->losses[i];
    return VL_OK;
}

// NaN or infinity in loss or gradient: the step is left out on all ranks alike, or the run ends. Every rank names its
// samples. Collective.
static VlStatus refuse_step(VlTrainer *trainer, const VlSample *samples, int64_t count, double loss, double norm) {
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

VlStatus vl_trainer_step(VlTrainer *trainer, VlStepMetrics *metrics) {
    VlSample *samples;
    int64_t count, counts[COUNTS];
    double begin = vl_seconds(), wait = 0, loss = 0, norm = 0;
    VL_TRY(
        vl_comm_agree(trainer->comm, vl_loader_next(trainer->loader, trainer->progress.step, &samples, &count, &wait)));
    count_samples(trainer, samples, count, counts);
    int64_t labels = counts[LABELS];  // of this rank
    VL_TRY(vl_comm_reduce(trainer->comm, VL_SUM_I64, counts, COUNTS));
    trainer->stopping = counts[INTERRUPTS] + counts[TERMINATIONS] > 0;
    if (trainer->stopping) {
        vl_signals_adopt(counts[INTERRUPTS] > 0 ? SIGINT : SIGTERM);
        return VL_OK;
    }
    VL_TRY(account_bad(trainer, samples, count, counts[BAD]));

    VL_TRY(reserve_losses(trainer, labels));
    VL_TRY(vl_optimizer_clear_gradients(&trainer->optimizer));
    trainer->context->flops = (VlFlops){0};
    double scale = counts[LABELS] > 0 ? 1.0 / (double)counts[LABELS] : 0.0;
    vl_vlm_drop_layers(trainer->model, trainer->config->train.layer_drop, (uint64_t)trainer->progress.seed,
                       trainer->progress.step);
    VlStatus status = accumulate(trainer, samples, count, scale, &labels);
    vl_vlm_drop_layers(trainer->model, 0, 0, 0);
    VL_TRY(status);
    VL_TRY(vl_buckets_finish(trainer->buckets));
    VL_TRY(read_results(trainer, labels, &norm, &loss));
    double sums[] = {loss, (double)vl_flops_total(&trainer->context->flops)};
    VL_TRY(vl_comm_reduce(trainer->comm, VL_SUM_F64, sums, 2));
    loss = sums[0] * scale;

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
