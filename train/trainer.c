#include "train/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "train/trainer_parts.h"

static VlStatus save(VlTrainer *trainer) {
    return vl_checkpoint_save(trainer->comm, trainer->config->output, &trainer->optimizer, &trainer->base,
                              trainer->config->train.trainable, &trainer->progress, trainer->configuration,
                              trainer->config->checkpoint.keep);
}

static VlStatus evaluate(VlTrainer *trainer, VlControl control) {
    VlHeldout *heldout = &trainer->heldout;
    char path[VL_PATH_MAX], tag[128];
    VL_TRY(vl_heldout_evaluate(heldout, trainer->model, trainer->comm, control));
    if (!vl_trainer_leads(trainer)) return VL_OK;
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
static VlStatus evaluate_course(VlTrainer *trainer) {
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

// At its end: all controls side by side, unless they are not wanted.
static VlStatus evaluate_end(VlTrainer *trainer) {
    char *table;
    if (strcmp(trainer->config->heldout.controls, "none") == 0) return evaluate_course(trainer);
    for (int control = 0; control < VL_CONTROL_COUNT; control++) {
        if (vl_heldout_has_control(&trainer->heldout, (VlControl)control)) {
            VL_TRY(evaluate(trainer, (VlControl)control));
        }
    }
    if (!vl_trainer_leads(trainer)) return VL_OK;
    VL_TRY(vl_heldout_table(&trainer->heldout, &table));
    for (char *line = strtok(table, "\n"); line; line = strtok(NULL, "\n")) vl_log(VL_LOG_INFO, "%s", line);
    free(table);
    return VL_OK;
}

static VlStatus interrupted(VlTrainer *trainer, int64_t saved) {
    if (saved < trainer->progress.step) VL_TRY(save(trainer));
    return vl_error(VL_INTERRUPTED,
                    "interrupted; a checkpoint of step %" PRId64 " is saved in %s, the same command continues from it",
                    trainer->progress.step, trainer->config->output);
}

static VlStatus run(VlTrainer *trainer) {
    const VlConfig *config = trainer->config;
    VlProgress *progress = &trainer->progress;
    int64_t saved = progress->step > 0 ? progress->step : -1;
    while (progress->step < progress->steps) {
        VlStepMetrics metrics;
        VL_TRY(vl_trainer_step(trainer, &metrics));
        if (trainer->stopping) return interrupted(trainer, saved);
        if (vl_trainer_leads(trainer)) VL_TRY(vl_metrics_step(&trainer->metrics, &metrics));
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

static void close_trainer(VlTrainer *trainer) {
    if (trainer->lock >= 0) close(trainer->lock);
    if (trainer->has_heldout) vl_heldout_close(&trainer->heldout);
    vl_metrics_close(&trainer->metrics);
    vl_loader_close(trainer->loader);
    vl_tokenizer_free(trainer->tokenizer);
    vl_batch_free(&trainer->batch);
    vl_buckets_free(trainer->buckets);
    vl_optimizer_free(&trainer->optimizer);
    vl_vlm_free(trainer->model);
    if (trainer->context) vl_device_free(trainer->context, trainer->device_losses);
    vl_context_free(trainer->context);
    vl_free(trainer->losses);
    vl_free(trainer->bad_slots);
    vl_free(trainer->configuration);
    vl_free(trainer);
}

VlStatus vl_train(const VlConfig *config, VlComm *comm) {
    VlTrainer *trainer;
    VL_TRY(VL_NEW(&trainer, 1));
    trainer->config = config;
    trainer->comm = comm;
    trainer->lock = -1;
    vl_comm_set_timeout(comm, config->parallel.timeout);
    VlStatus status = vl_trainer_set_up(trainer);
    if (status == VL_OK) status = run(trainer);
    // After a failure the communication thread may still be at work on this memory; the program ends all ranks then.
    if (status == VL_OK || status == VL_INTERRUPTED || vl_comm_size(comm) == 1) close_trainer(trainer);
    return status;
}
