#include "model/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"

static int64_t likeliest(const float *logits, int64_t vocabulary) {
    int64_t best = 0;
    for (int64_t i = 1; i < vocabulary; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

// By logit, largest first; equal ones by id, so that the order is unique.
static int compare_logits(const void *a, const void *b, void *logits_pointer) {
    const float *logits = logits_pointer;
    int64_t i = *(const int64_t *)a, k = *(const int64_t *)b;
    if (logits[i] != logits[k]) return logits[i] > logits[k] ? -1 : 1;
    return i < k ? -1 : i > k;
}

static int64_t sample(const VlGenerateOptions *options, const float *logits, int64_t vocabulary, int64_t draw,
                      int64_t *order) {
    for (int64_t i = 0; i < vocabulary; i++) order[i] = i;
    qsort_r(order, (size_t)vocabulary, sizeof *order, compare_logits, (void *)logits);
    double largest = logits[order[0]], total = 0, kept = 0;
    int64_t candidates = 0, most = options->top_k > 0 && options->top_k < vocabulary ? options->top_k : vocabulary;
    for (int64_t i = 0; i < most; i++) total += exp((logits[order[i]] - largest) / options->temperature);
    while (candidates < most && kept < options->top_p * total) {
        kept += exp((logits[order[candidates++]] - largest) / options->temperature);
    }
    VlRandom random = {.seed = options->seed, .position = (uint64_t)draw};
    double left = vl_random_uniform(&random) * kept;
    for (int64_t i = 0; i < candidates - 1; i++) {
        left -= exp((logits[order[i]] - largest) / options->temperature);
        if (left < 0) return order[i];
    }
    return order[candidates - 1];
}

VlStatus vl_generate_choose(const VlGenerateOptions *options, const float *logits, int64_t vocabulary, int64_t draw,
                            int64_t *order, int64_t *id) {
    for (int64_t i = 0; i < vocabulary; i++) {
        if (!isfinite(logits[i])) {
            return vl_error(VL_INVALID, "the logit of token %lld is not finite: check the weights", (long long)i);
        }
    }
    *id = options->temperature == 0 ? likeliest(logits, vocabulary) : sample(options, logits, vocabulary, draw, order);
    return VL_OK;
}

static bool is_stop(const VlGenerateOptions *options, int64_t id) {
    for (int64_t i = 0; i < options->stops; i++) {
        if (options->stop[i] == id) return true;
    }
    return false;
}

static VlStatus check_options(const VlGenerateOptions *options) {
    if (options->max_new_tokens < 1) {
        return vl_error(VL_INVALID, "max_new_tokens is %lld: give 1 or more", (long long)options->max_new_tokens);
    }
    if (!(options->temperature >= 0) || !isfinite(options->temperature)) {
        return vl_error(VL_INVALID, "temperature is %g: give 0 (the likeliest token) or more", options->temperature);
    }
    if (!(options->top_p > 0 && options->top_p <= 1)) {
        return vl_error(VL_INVALID, "top_p is %g: give a number in (0,1]", options->top_p);
    }
    if (options->top_k < 0) return vl_error(VL_INVALID, "top_k is %lld: give 0 or more", (long long)options->top_k);
    if (!(options->repetition_penalty >= 0) || !isfinite(options->repetition_penalty)) {
        return vl_error(VL_INVALID, "repetition_penalty is %g: give a number above 0", options->repetition_penalty);
    }
    return VL_OK;
}

// Makes the ids that the answer holds less likely. `seen` is room for vocabulary numbers. Source: Keskar et al.,
// "CTRL", 2019, with Hugging Face's rule for logits below zero.
static void penalise(double penalty, float *logits, int64_t vocabulary, const int64_t *ids, int64_t count,
                     int64_t *seen) {
    if (penalty == 0 || penalty == 1) return;
    memset(seen, 0, (size_t)vocabulary * sizeof *seen);
    for (int64_t i = 0; i < count; i++) {
        float *logit = &logits[ids[i]];
        if (seen[ids[i]]++) continue;
        *logit = (float)(*logit < 0 ? *logit * penalty : *logit / penalty);
    }
}

// Runs a piece of the sequence and leaves the logits of its last token on the host.
static VlStatus advance(VlVlm *model, const VlBatch *batch, VlKvCache *cache, float *logits) {
    VlVlmForward forward;
    VL_TRY(vl_vlm_forward_cached(model, batch, cache, &forward));
    VlStatus status = vl_vlm_logits(model, &forward, batch->tokens - 1, 1, logits);
    vl_vlm_release(model);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

static VlStatus decode(VlVlm *model, const VlBatch *prompt, VlKvCache *cache, const VlGenerateOptions *options,
                       float *logits, int64_t *order, int64_t *ids, int64_t *count) {
    int64_t vocabulary = vl_vlm_config(model)->decoder.vocabulary;
    int64_t boundaries[2] = {0, 1}, id, position, source = 0, target = VL_IGNORE;
    VlBatch next = {.sequences = 1,
                    .tokens = 1,
                    .cu_seqlens = boundaries,
                    .positions = &position,
                    .text_tokens = 1,
                    .text_ids = &id,
                    .source = &source,
                    .targets = &target};
    const VlBatch *piece = prompt;
    for (*count = 0; *count < options->max_new_tokens;) {
        VL_TRY(advance(model, piece, cache, logits));
        penalise(options->repetition_penalty, logits, vocabulary, ids, *count, order);
        VL_TRY(vl_generate_choose(options, logits, vocabulary, *count, order, &id));
        ids[(*count)++] = id;
        if (options->token) VL_TRY(options->token(options->user, id));
        if (is_stop(options, id)) break;
        position = cache->length;
        piece = &next;
    }
    return VL_OK;
}

VlStatus vl_generate(VlVlm *model, const VlSequence *prompt, const VlGenerateOptions *options, int64_t *ids,
                     int64_t *count) {
    VlStatus status;
    const VlModelConfig *config = vl_vlm_config(model);
    VlContext *context = vl_vlm_context(model);
    int64_t vocabulary = config->decoder.vocabulary, capacity, *order = NULL;
    float *logits = NULL;
    VlBatch batch = {0};
    VlKvCache cache = {0};
    *count = 0;
    VL_TRY(check_options(options));
    VL_TRY_CONTEXT(vl_batch_build(&batch, config, 1, prompt), "prompt");
    if (batch.tokens == 0)
        VL_TRY_GOTO(status, vl_error(VL_INVALID, "the prompt is empty: give at least one token"), done);
    if (!vl_add(batch.tokens, options->max_new_tokens, &capacity)) {
        VL_TRY_GOTO(status, vl_error(VL_INVALID, "max_new_tokens is too large"), done);
    }
    status = vl_model_config_check_length(config, capacity);
    if (status != VL_OK) {
        status = vl_error_context(status, "a prompt of %lld tokens and max_new_tokens %lld", (long long)batch.tokens,
                                  (long long)options->max_new_tokens);
        goto done;
    }
    VL_TRY_GOTO(status, VL_NEW(&logits, vocabulary), done);
    VL_TRY_GOTO(status, VL_NEW(&order, vocabulary), done);
    VL_TRY_GOTO(status, vl_vlm_prepare(model, &batch, false), done);
    VL_TRY_GOTO(status, vl_kv_cache_create(context, &cache, &config->decoder, capacity, vl_vlm_params(model)->dtype),
                done);
    VL_TRY_GOTO(status, decode(model, &batch, &cache, options, logits, order, ids, count), done);
done:
    vl_kv_cache_free(context, &cache);
    vl_batch_free(&batch);
    vl_free(order);
    vl_free(logits);
    return status;
}
