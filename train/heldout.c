#include "train/heldout.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/annotations.h"
#include "train/micro_batch.h"

static const char *const control_names[VL_CONTROL_COUNT] = {"none",     "text-only",  "one-frame",
                                                            "shuffled", "video-only", "audio-only"};

const char *vl_control_name(VlControl control) { return control_names[control]; }

// ---------------------------------------------------------------------------------------------------- kinds of
// questions

typedef struct Answer {
    int64_t kind;
    char *text;
} Answer;

static int by_kind_and_text(const void *a, const void *b) {
    const Answer *x = a, *y = b;
    return x->kind != y->kind ? (x->kind < y->kind ? -1 : 1) : strcmp(x->text, y->text);
}

static VlStatus find_kind(VlHeldout *heldout, const char *name, int64_t *kind) {
    for (*kind = 0; *kind < heldout->kinds; ++*kind) {
        if (strcmp(heldout->kind[*kind].name, name) == 0) return VL_OK;
    }
    VL_TRY(vl_reserve(&heldout->kind, &heldout->capacity, heldout->kinds + 1, (int64_t)sizeof *heldout->kind));
    VL_TRY(vl_duplicate_string(&heldout->kind[*kind].name, name));
    heldout->kinds++;
    return VL_OK;
}

// The answer is the text of the last turn.
static VlStatus add_answer(VlHeldout *heldout, const json_t *sample, Answer *answer) {
    const json_t *turns = json_object_get(sample, "conversations"), *kind = json_object_get(sample, "kind");
    const json_t *last = json_array_get(turns, json_array_size(turns) ? json_array_size(turns) - 1 : 0);
    const char *text = json_string_value(json_object_get(last, "value"));
    VL_TRY(find_kind(heldout, json_is_string(kind) ? json_string_value(kind) : "other", &answer->kind));
    heldout->kind[answer->kind].questions++;
    return vl_duplicate_string(&answer->text, text ? text : "");
}

static VlStatus read_answers(VlHeldout *heldout, const char *path, Answer **answers, int64_t *count) {
    VlAnnotations *list;
    VlAnnotation annotation;
    int64_t capacity = 0;
    VL_TRY(vl_annotations_open(&list, path));
    VlStatus status = VL_OK;
    while (status == VL_OK) {
        status = vl_annotations_next(list, &annotation);
        if (status != VL_OK || !annotation.object) break;
        status = vl_reserve(answers, &capacity, *count + 1, (int64_t)sizeof **answers);
        if (status == VL_OK && !annotation.problem) {
            status = add_answer(heldout, annotation.object, &(*answers)[*count]);
            if (status == VL_OK) ++*count;
        }
        json_decref(annotation.object);
    }
    vl_annotations_close(list);
    return status;
}

static VlStatus read_kinds(VlHeldout *heldout, const char *path) {
    Answer *answers = NULL;
    int64_t count = 0;
    VlStatus status = read_answers(heldout, path, &answers, &count);
    if (status == VL_OK && count > 0) {
        qsort(answers, (size_t)count, sizeof *answers, by_kind_and_text);
        for (int64_t i = 0, run = 0; i < count; i++) {
            run = i > 0 && by_kind_and_text(&answers[i - 1], &answers[i]) == 0 ? run + 1 : 1;
            VlHeldoutKind *kind = &heldout->kind[answers[i].kind];
            double share = (double)run / (double)kind->questions;
            if (share > kind->chance) kind->chance = share;
        }
    }
    for (int64_t i = 0; i < count; i++) vl_free(answers[i].text);
    vl_free(answers);
    return status;
}

VlStatus vl_heldout_open(VlHeldout *heldout, const char *annotations, const char *shards, const VlLoaderOptions *loader,
                         const VlPreprocessConfig *preprocess, int64_t micro_tokens, int64_t limit) {
    VlSource source = {.shards = shards, .weight = 1};
    VlLoaderOptions options = *loader;
    options.sources = 1;
    options.source = &source;
    options.mix = "proportional";
    *heldout = (VlHeldout){.preprocess = *preprocess,
                           .global_batch = loader->global_batch,
                           .micro_tokens = micro_tokens,
                           .seed = loader->seed};
    VlStatus status = read_kinds(heldout, annotations);
    if (status == VL_OK) status = vl_loader_open(&heldout->loader, &options);
    if (status != VL_OK) {
        vl_heldout_close(heldout);
        return status;
    }
    heldout->samples = vl_loader_epoch_samples(heldout->loader);
    heldout->has_sound = vl_loader_has_sound(heldout->loader);
    if (limit > 0 && limit < heldout->samples) heldout->samples = limit;
    return VL_OK;
}

void vl_heldout_close(VlHeldout *heldout) {
    vl_loader_close(heldout->loader);
    for (int64_t i = 0; i < heldout->kinds; i++) vl_free(heldout->kind[i].name);
    vl_free(heldout->kind);
    *heldout = (VlHeldout){0};
}

// --------------------------------------------------------------------------------------------------------------
// controls

bool vl_heldout_has_control(const VlHeldout *heldout, VlControl control) {
    return heldout->has_sound || (control != VL_CONTROL_VIDEO_ONLY && control != VL_CONTROL_AUDIO_ONLY);
}

static void remove_medium(VlSample *sample) {
    int64_t kept = 0;
    for (int64_t i = 0; i < sample->tokens; i++) {
        if (sample->ids[i] < 0) continue;
        sample->ids[kept] = sample->ids[i];
        sample->labels[kept++] = sample->labels[i];
    }
    sample->tokens = kept;
    sample->frames = sample->rows = 0;
}

// What is left of a video without its sound is a video; of it without its frames, a sound.
static void remove_sense(VlSample *sample, VlControl control) {
    if (control == VL_CONTROL_VIDEO_ONLY && sample->frames > 0) {
        sample->rows = 0;
    } else if (control == VL_CONTROL_AUDIO_ONLY && sample->rows > 0) {
        for (int64_t i = 0; i < sample->tokens; i++) {
            if (sample->ids[i] < 0) sample->ids[i] = VL_AUDIO_ID;
        }
        sample->modal = VL_MODAL_AUDIO;
        sample->frames = 0;
    } else {
        remove_medium(sample);
    }
}

static VlStatus reorder(VlSample *sample, VlControl control, uint64_t seed) {
    int64_t size = sample->height * sample->width * 3;
    uint8_t *frames;
    VL_TRY(vl_allocate(&frames, sample->frames, size));
    memcpy(frames, sample->pixels, (size_t)(sample->frames * size));
    VlRandom random = vl_random(seed, (uint64_t)sample->position);
    for (int64_t i = 0; i < sample->frames; i++) {
        int64_t from = sample->frames / 2;
        if (control == VL_CONTROL_SHUFFLED)
            from = vl_permute(i, sample->frames, vl_hash_string("shuffle") ^ random.seed ^ random.stream << 20);
        memcpy(sample->pixels + i * size, frames + from * size, (size_t)size);
    }
    vl_free(frames);
    return VL_OK;
}

static VlStatus take_away(VlSample *sample, VlControl control, uint64_t seed) {
    if (sample->bad || (sample->frames == 0 && sample->rows == 0)) return VL_OK;
    switch (control) {
    case VL_CONTROL_TEXT_ONLY: remove_medium(sample); return VL_OK;
    case VL_CONTROL_VIDEO_ONLY:
    case VL_CONTROL_AUDIO_ONLY: remove_sense(sample, control); return VL_OK;
    case VL_CONTROL_ONE_FRAME:
    case VL_CONTROL_SHUFFLED: return sample->frames > 1 ? reorder(sample, control, seed) : VL_OK;
    default: return VL_OK;
    }
}

// ------------------------------------------------------------------------------------------------------------
// evaluation

enum { ANSWER_ROWS = 64 };  // label tokens whose logits are in memory together

typedef struct Evaluation {
    VlHeldout *heldout;
    VlVlm *model;
    VlBatch batch;
    float *logits;  // [ANSWER_ROWS, vocabulary]
    float *losses;
    int64_t losses_capacity;
    int64_t *tally;   // [kinds][2]: asked, right
    double sum[2];    // losses, label tokens
    int64_t lost[2];  // samples that could not be read; that were cut, so that their answers are not whole
} Evaluation;

static bool is_likeliest(const float *logits, int64_t vocabulary, int64_t target) {
    bool likeliest = true;
    for (int64_t v = 0; v < vocabulary; v++) likeliest &= v == target || logits[target] > logits[v];
    return likeliest;
}

static VlStatus is_right(const Evaluation *evaluation, const VlVlmForward *forward, int64_t begin, int64_t end,
                         bool *right) {
    int64_t vocabulary = vl_vlm_config(evaluation->model)->decoder.vocabulary;
    const int64_t *targets = evaluation->batch.targets;
    bool answered = false;
    *right = true;
    for (int64_t t = begin, rows; t < end && *right; t += rows) {
        for (rows = 0; rows < ANSWER_ROWS && t + rows < end && targets[t + rows] != VL_IGNORE; rows++) continue;
        if (rows > 0) VL_TRY(vl_vlm_logits(evaluation->model, forward, t, rows, evaluation->logits));
        for (int64_t i = 0; i < rows && *right; i++)
            *right = is_likeliest(evaluation->logits + i * vocabulary, vocabulary, targets[t + i]);
        answered |= rows > 0;
        if (rows == 0) rows = 1;
    }
    *right &= answered;
    return VL_OK;
}

static VlStatus evaluate_batch(Evaluation *evaluation, int64_t count, const VlSample *samples) {
    VlHeldout *heldout = evaluation->heldout;
    const VlBatch *batch = &evaluation->batch;
    VlVlmForward forward;
    VL_TRY(vl_micro_batch_build(&evaluation->batch, vl_vlm_config(evaluation->model), &heldout->preprocess, count,
                                samples));
    if (batch->sequences == 0) return VL_OK;
    VL_TRY(vl_reserve(&evaluation->losses, &evaluation->losses_capacity, batch->labels, (int64_t)sizeof(float)));
    VL_TRY(vl_vlm_prepare(evaluation->model, batch, false));
    VL_TRY(vl_vlm_forward(evaluation->model, batch, false, &forward));
    VlStatus status = vl_vlm_loss(evaluation->model, batch, &forward, false, 1.0f, NULL, evaluation->losses);
    for (int64_t i = 0; i < batch->labels && status == VL_OK; i++) evaluation->sum[0] += (double)evaluation->losses[i];
    evaluation->sum[1] += (double)batch->labels;
    for (int64_t i = 0, sequence = 0; i < count && status == VL_OK; i++) {
        if (samples[i].bad) continue;
        int64_t kind = 0;
        bool right = false;
        while (kind < heldout->kinds &&
               strcmp(heldout->kind[kind].name, samples[i].kind[0] ? samples[i].kind : "other") != 0)
            kind++;
        if (kind < heldout->kinds) {
            status =
                is_right(evaluation, &forward, batch->cu_seqlens[sequence], batch->cu_seqlens[sequence + 1], &right);
            evaluation->tally[2 * kind] += 1;
            evaluation->tally[2 * kind + 1] += right;
        }
        sequence++;
    }
    vl_vlm_release(evaluation->model);
    return status;
}

static VlStatus evaluate_all(Evaluation *evaluation, VlControl control) {
    VlHeldout *heldout = evaluation->heldout;
    const VlModelConfig *config = vl_vlm_config(evaluation->model);
    for (int64_t step = 0; step * heldout->global_batch < heldout->samples; step++) {
        VlSample *samples;
        int64_t count;
        double wait;
        VL_TRY(vl_loader_next(heldout->loader, step, &samples, &count, &wait));
        while (count > 0 && samples[count - 1].position >= heldout->samples) count--;
        for (int64_t i = 0; i < count; i++) {
            if (samples[i].bad)
                vl_log(VL_LOG_WARNING, "held-out sample %" PRId64 ": %s", samples[i].index, samples[i].reason);
            evaluation->lost[0] += samples[i].bad;
            VL_TRY(take_away(&samples[i], control, heldout->seed));
        }
        for (int64_t begin = 0, end; begin < count; begin = end) {
            end = vl_micro_batch_end(config, samples, count, begin, heldout->micro_tokens);
            VL_TRY(evaluate_batch(evaluation, end - begin, samples + begin));
        }
    }
    evaluation->lost[1] = vl_loader_truncated(heldout->loader);
    return VL_OK;
}

// An accuracy over fewer or other questions than were asked for is none.
static VlStatus refuse_loss(const int64_t lost[2]) {
    if (lost[0] > 0) {
        return vl_error(VL_FORMAT,
                        "%" PRId64
                        " held-out samples could not be read; mend them and remove the run's folder "
                        "heldout, it is packed again",
                        lost[0]);
    }
    if (lost[1] > 0) {
        return vl_error(VL_INVALID,
                        "%" PRId64 " held-out samples are longer than data.max_tokens; raise it, or leave them out",
                        lost[1]);
    }
    return VL_OK;
}

static void conclude(VlHeldoutResult *result) {
    double n = (double)result->asked, z = 1.959963984540054;
    result->accuracy = result->low = result->high = 0;
    if (result->asked == 0) return;
    double p = (double)result->right / n, centre = (p + z * z / (2 * n)) / (1 + z * z / n);
    double half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    result->accuracy = p;
    result->low = centre - half;
    result->high = centre + half;
}

VlStatus vl_heldout_evaluate(VlHeldout *heldout, VlVlm *model, VlComm *comm, VlControl control) {
    Evaluation evaluation = {.heldout = heldout, .model = model};
    VlStatus status = VL_NEW(&evaluation.tally, 2 * heldout->kinds);
    if (status == VL_OK) status = VL_NEW(&evaluation.logits, ANSWER_ROWS * vl_vlm_config(model)->decoder.vocabulary);
    if (status == VL_OK) status = evaluate_all(&evaluation, control);
    status = vl_comm_agree(comm, status);
    if (status == VL_OK) status = vl_comm_reduce(comm, VL_SUM_I64, evaluation.tally, 2 * heldout->kinds);
    if (status == VL_OK) status = vl_comm_reduce(comm, VL_SUM_F64, evaluation.sum, 2);
    if (status == VL_OK) status = vl_comm_reduce(comm, VL_SUM_I64, evaluation.lost, 2);
    if (status == VL_OK) status = refuse_loss(evaluation.lost);
    for (int64_t i = 0; i < heldout->kinds && status == VL_OK; i++) {
        VlHeldoutResult *result = &heldout->kind[i].result[control];
        *result = (VlHeldoutResult){.asked = evaluation.tally[2 * i], .right = evaluation.tally[2 * i + 1]};
        conclude(result);
    }
    heldout->loss[control] = evaluation.sum[1] > 0 ? evaluation.sum[0] / evaluation.sum[1] : 0;
    vl_batch_free(&evaluation.batch);
    vl_free(evaluation.tally);
    vl_free(evaluation.logits);
    vl_free(evaluation.losses);
    return status;
}

VlStatus vl_heldout_record(const VlHeldout *heldout, const char *path, int64_t step, VlControl control) {
    json_t *kinds = json_object();
    for (int64_t i = 0; i < heldout->kinds; i++) {
        const VlHeldoutKind *kind = &heldout->kind[i];
        const VlHeldoutResult *result = &kind->result[control];
        json_object_set_new(kinds, kind->name,
                            json_pack("{s:I, s:I, s:f, s:f, s:f, s:f}", "asked", (json_int_t)result->asked, "right",
                                      (json_int_t)result->right, "accuracy", result->accuracy, "low", result->low,
                                      "high", result->high, "chance", kind->chance));
    }
    double loss = heldout->loss[control];
    json_t *line = json_pack("{s:I, s:s, s:o, s:o}", "step", (json_int_t)step, "control", control_names[control],
                             "loss", isfinite(loss) ? json_real(loss) : json_null(), "kinds", kinds);
    VlStatus status = vl_json_append_line(path, line);
    json_decref(line);
    return status;
}

// ------------------------------------------------------------------------------------------------------------
// table

static size_t group_length(const char *name) { return strcspn(name, "-"); }

bool vl_heldout_same_group(const char *a, const char *b) {
    return group_length(a) == group_length(b) && strncmp(a, b, group_length(a)) == 0;
}

static void print_row(const VlHeldout *heldout, FILE *file, const char *name, const VlHeldoutKind *kind) {
    const VlHeldoutResult *whole = &kind->result[VL_CONTROL_NONE];
    fprintf(file, "%-22s %6" PRId64 "  %6.1f %%   %5.1f %% (%5.1f .. %5.1f)", name, whole->asked, 100 * kind->chance,
            100 * whole->accuracy, 100 * whole->low, 100 * whole->high);
    for (int control = VL_CONTROL_NONE + 1; control < VL_CONTROL_COUNT; control++) {
        if (vl_heldout_has_control(heldout, (VlControl)control))
            fprintf(file, "  %8.1f %%", 100 * kind->result[control].accuracy);
    }
    fputc('\n', file);
}

// The kinds of one group together; its chance is that of the mixture. `first` is the group's first kind.
static int64_t sum_group(const VlHeldout *heldout, int64_t first, VlHeldoutKind *sum) {
    int64_t kinds = 0;
    *sum = (VlHeldoutKind){0};
    for (int64_t i = 0; i < heldout->kinds; i++) {
        const VlHeldoutKind *kind = &heldout->kind[i];
        if (!vl_heldout_same_group(kind->name, heldout->kind[first].name)) continue;
        if (i < first) return 0;  // that kind has stood for the group
        kinds++;
        sum->questions += kind->questions;
        sum->chance += kind->chance * (double)kind->questions;
        for (int control = 0; control < VL_CONTROL_COUNT; control++) {
            sum->result[control].asked += kind->result[control].asked;
            sum->result[control].right += kind->result[control].right;
        }
    }
    sum->chance /= (double)sum->questions;
    for (int control = 0; control < VL_CONTROL_COUNT; control++) conclude(&sum->result[control]);
    return kinds;
}

VlStatus vl_heldout_table(const VlHeldout *heldout, char **text) {
    size_t size = 0;
    *text = NULL;
    FILE *file = open_memstream(text, &size);
    if (!file) return vl_error(VL_OUT_OF_MEMORY, "out of memory for the table of held-out results");
    fprintf(file, "%-22s %6s  %8s   %-25s", "held-out questions", "asked", "chance", "right (95 % interval)");
    for (int control = VL_CONTROL_NONE + 1; control < VL_CONTROL_COUNT; control++) {
        if (vl_heldout_has_control(heldout, (VlControl)control)) fprintf(file, "  %10s", control_names[control]);
    }
    fputc('\n', file);
    for (int64_t i = 0; i < heldout->kinds; i++) print_row(heldout, file, heldout->kind[i].name, &heldout->kind[i]);
    for (int64_t i = 0; i < heldout->kinds; i++) {
        VlHeldoutKind sum;
        if (sum_group(heldout, i, &sum) < 2) continue;
        char name[64];
        snprintf(name, sizeof name, "all of %.*s", (int)group_length(heldout->kind[i].name), heldout->kind[i].name);
        print_row(heldout, file, name, &sum);
    }
    if (fclose(file) == 0) return VL_OK;
    free(*text);
    *text = NULL;
    return vl_error(VL_OUT_OF_MEMORY, "out of memory for the table of held-out results");
}
