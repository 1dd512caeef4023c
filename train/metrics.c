#include "train/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/tensorboard.h"

enum { LINE_EVERY_SECONDS = 10 };

// Writes the lines of steps up to `step` of an existing file back in its place.
static VlStatus keep_lines(const char *path, int64_t step) {
    char *text;
    int64_t size, kept = 0;
    if (!vl_path_exists(path)) return VL_OK;
    VL_TRY(vl_read_file(path, INT64_MAX - 1, &text, &size));
    for (int64_t begin = 0; begin < size;) {
        const char *end = memchr(text + begin, '\n', (size_t)(size - begin));
        const char *mark = strstr(text + begin, "\"step\":");
        int64_t number = INT64_MAX;
        if (!end || !mark || mark > end || sscanf(mark + 7, "%" SCNd64, &number) != 1 || number > step) break;
        begin = kept = end - text + 1;
    }
    VlStatus status = vl_write_file(path, text, kept);
    vl_free(text);
    return status;
}

VlStatus vl_metrics_open(VlMetrics *metrics, const char *run, int64_t step, int64_t last_step) {
    char path[VL_PATH_MAX], folder[VL_PATH_MAX];
    *metrics = (VlMetrics){.last_step = last_step, .started = vl_seconds()};
    static const char *const records[] = {"heldout.jsonl", "quarantine.jsonl", "metrics.jsonl"};
    for (int i = 0; i < 3; i++) {
        VL_TRY(vl_path_join(path, run, records[i]));
        // A finished run evaluates once more at its end.
        VL_TRY(keep_lines(path, i == 0 && step == last_step ? step - 1 : step));
    }
    VL_TRY(vl_path_join(folder, run, "tensorboard"));
    metrics->lines = fopen(path, "ab");
    if (!metrics->lines) return vl_error(VL_IO, "cannot open %s: %s", path, strerror(errno));
    return vl_tensorboard_open(&metrics->events, folder);
}

static void number(FILE *file, const char *key, double value) {
    if (isfinite(value)) {
        fprintf(file, ", \"%s\": %.17g", key, value);
    } else {
        fprintf(file, ", \"%s\": null", key);
    }
}

static void show(VlMetrics *metrics, const VlStepMetrics *step) {
    double left = metrics->mean_seconds * (double)(metrics->last_step - step->step);
    char text[256];
    snprintf(text, sizeof text,
             "step %" PRId64 "/%" PRId64
             "  loss %.4f  norm %.3f  lr %.2e  %.0f tokens/s  MFU %.1f %%  %d:%02d:%02d left",
             step->step, metrics->last_step, step->loss, step->grad_norm, step->lr, step->tokens_per_s, 100 * step->mfu,
             (int)(left / 3600), (int)(left / 60) % 60, (int)left % 60);
    if (vl_log_is_terminal()) {
        char bar[21] = "....................";
        int64_t filled = 20 * step->step / (metrics->last_step > 0 ? metrics->last_step : 1);
        for (int64_t i = 0; i < filled && i < 20; i++) bar[i] = '#';
        vl_log_progress("[%s] %s", bar, text);
        if (step->step == metrics->last_step) vl_log(VL_LOG_INFO, "%s", text);
    } else if (metrics->done == 1 || step->step == metrics->last_step ||
               vl_seconds() - metrics->started >= LINE_EVERY_SECONDS) {
        metrics->started = vl_seconds();
        vl_log(VL_LOG_INFO, "%s", text);
    }
}

VlStatus vl_metrics_step(VlMetrics *metrics, const VlStepMetrics *step) {
    FILE *file = metrics->lines;
    if (!file) return VL_OK;
    metrics->done++;
    metrics->mean_seconds +=
        (step->seconds - metrics->mean_seconds) / (double)(metrics->done < 20 ? metrics->done : 20);
    fprintf(file, "{\"step\": %" PRId64, step->step);
    number(file, "loss", step->loss);
    number(file, "grad_norm", step->grad_norm);
    number(file, "lr", step->lr);
    fprintf(file, ", \"tokens\": %" PRId64 ", \"label_tokens\": %" PRId64 ", \"samples\": %" PRId64, step->tokens,
            step->label_tokens, step->samples);
    number(file, "seconds", step->seconds);
    number(file, "tokens_per_s", step->tokens_per_s);
    number(file, "mfu", step->mfu);
    number(file, "data_wait", step->data_wait);
    fputs("}\n", file);
    if (fflush(file) != 0) return vl_error(VL_IO, "cannot write metrics.jsonl: %s", strerror(errno));
    VL_TRY(vl_metrics_scalar(metrics, step->step, "train/loss", step->loss));
    VL_TRY(vl_metrics_scalar(metrics, step->step, "train/grad_norm", step->grad_norm));
    VL_TRY(vl_metrics_scalar(metrics, step->step, "train/lr", step->lr));
    VL_TRY(vl_metrics_scalar(metrics, step->step, "train/tokens_per_s", step->tokens_per_s));
    show(metrics, step);
    return VL_OK;
}

VlStatus vl_metrics_scalar(VlMetrics *metrics, int64_t step, const char *tag, double value) {
    return metrics->events ? vl_tensorboard_scalar(metrics->events, step, tag, value) : VL_OK;
}

void vl_metrics_close(VlMetrics *metrics) {
    if (metrics->lines) fclose(metrics->lines);
    if (metrics->events) fclose(metrics->events);
    *metrics = (VlMetrics){0};
}
