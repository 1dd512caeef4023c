#include "data/loader.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/deal.h"
#include "data/order.h"
#include "data/packed.h"
#include "data/sample_read.h"

// One sample of a batch on its way.
typedef struct Slot {
    VlTask task;
    VlLoader *loader;
    VlSample *sample;
    bool cut;
} Slot;

// One step's share of this rank.
typedef struct Batch {
    int64_t count, slot_capacity, sample_capacity;
    Slot *slot;        // [count]
    VlSample *sample;  // [count], by position
} Batch;

struct VlLoader {
    VlLoaderOptions options;
    VlSampleRules rules;
    int64_t sources;
    VlPacked *source;  // [sources]
    VlOrder *order;
    uint64_t data_hash;
    VlPool *pool;
    atomic_bool cancelled;  // what has not been read yet need not be
    pthread_mutex_t lock;   // of the scratch stack
    VlShardScratch **scratch;
    int64_t scratch_count;
    int64_t batches;  // ring: step s is batch[s % batches]
    Batch *batch;
    int64_t submitted;     // the first step that is not handed to the pool
    int64_t expected;      // the step that continues the run of steps; -1 before the first
    int64_t *cost, *rank;  // [global_batch] of the step being dealt
    VlOrderPlace *place;   // [global_batch]
    int64_t truncated;
    bool has_sound;
};

// ---- One sample ------------------------------------------------------------

static VlShardScratch *take_scratch(VlLoader *loader) {
    pthread_mutex_lock(&loader->lock);
    VL_ASSERT(loader->scratch_count > 0);
    VlShardScratch *scratch = loader->scratch[--loader->scratch_count];
    pthread_mutex_unlock(&loader->lock);
    return scratch;
}

static void give_scratch(VlLoader *loader, VlShardScratch *scratch) {
    pthread_mutex_lock(&loader->lock);
    loader->scratch[loader->scratch_count++] = scratch;
    pthread_mutex_unlock(&loader->lock);
}

// Leaves the slot empty, with the thread's error text as the reason.
static VlStatus make_bad(VlSample *sample) {
    char *reason;
    VlSample empty = {.position = sample->position, .source = sample->source, .index = sample->index, .bad = true};
    VL_TRY(vl_duplicate_string(&reason, vl_error_text()));
    vl_sample_clear(sample);
    *sample = empty;
    sample->reason = reason;
    return VL_OK;
}

static VlStatus read_slot(void *argument) {
    Slot *slot = argument;
    VlLoader *loader = slot->loader;
    int64_t row;
    if (atomic_load(&loader->cancelled)) return VL_OK;
    const VlShard *shard = vl_packed_find(&loader->source[slot->sample->source], slot->sample->index, &row);
    VlShardScratch *scratch = take_scratch(loader);
    VlStatus status = vl_sample_read(shard, row, &loader->rules, scratch, slot->sample, &slot->cut);
    give_scratch(loader, scratch);
    bool own_fault = status == VL_IO || status == VL_FORMAT || status == VL_INVALID;
    return own_fault ? make_bad(slot->sample) : status;
}

// ---- Batches ---------------------------------------------------------------

// Predicted from the index alone, hence the same on every rank whether the sample can be read or not.
static int64_t predict_cost(const VlLoader *loader, VlOrderPlace place) {
    int64_t row_number;
    const VlShard *shard = vl_packed_find(&loader->source[place.source], place.index, &row_number);
    const VlShardRow *row = vl_shard_row(shard, row_number);
    VlModal modal = (VlModal)row->modality;
    int64_t media = vl_sample_media_tokens(&loader->rules, modal, vl_shard_frames(shard, row_number),
                                           vl_shard_rows(shard, row_number));
    int64_t tokens = row->tokens + media - (modal != VL_MODAL_TEXT);
    return vl_deal_cost(tokens < loader->options.max_tokens ? tokens : loader->options.max_tokens);
}

static VlStatus submit_step(VlLoader *loader, int64_t step) {
    const VlLoaderOptions *options = &loader->options;
    Batch *batch = &loader->batch[step % loader->batches];
    int64_t count = 0;
    for (int64_t i = 0; i < options->global_batch; i++) {
        loader->place[i] = vl_order_at(loader->order, step * options->global_batch + i);
        loader->cost[i] = predict_cost(loader, loader->place[i]);
    }
    VL_TRY(vl_deal(loader->cost, options->global_batch, options->ranks, loader->rank));
    for (int64_t i = 0; i < options->global_batch; i++) count += loader->rank[i] == options->rank;
    VL_TRY(vl_reserve(&batch->slot, &batch->slot_capacity, count, (int64_t)sizeof *batch->slot));
    VL_TRY(vl_reserve(&batch->sample, &batch->sample_capacity, count, (int64_t)sizeof *batch->sample));
    for (int64_t i = 0; i < options->global_batch; i++) {
        if (loader->rank[i] != options->rank) continue;
        VlSample *sample = &batch->sample[batch->count];
        Slot *slot = &batch->slot[batch->count++];
        *sample = (VlSample){.position = step * options->global_batch + i,
                             .source = loader->place[i].source,
                             .index = loader->place[i].index};
        *slot = (Slot){.task = {.run = read_slot, .argument = slot}, .loader = loader, .sample = sample};
        vl_pool_submit(loader->pool, &slot->task, false);
    }
    return VL_OK;
}

static void clear_batch(Batch *batch) {
    for (int64_t i = 0; i < batch->count; i++) vl_sample_clear(&batch->sample[i]);
    batch->count = 0;
}

// Drops what was read ahead, to begin at another step.
static void rewind_to(VlLoader *loader, int64_t step) {
    atomic_store(&loader->cancelled, true);
    for (int64_t i = 0; i < loader->batches; i++) {
        Batch *batch = &loader->batch[i];
        for (int64_t k = 0; k < batch->count; k++) vl_pool_wait(loader->pool, &batch->slot[k].task);
        clear_batch(batch);
    }
    atomic_store(&loader->cancelled, false);
    loader->submitted = step;
}

VlStatus vl_loader_next(VlLoader *loader, int64_t step, VlSample **samples, int64_t *count, double *wait_seconds) {
    double begin = vl_seconds();
    if (step < 0 || step > (INT64_MAX >> 1) / loader->options.global_batch) {
        return vl_error(VL_INVALID, "the loader has no step %lld", (long long)step);
    }
    if (step == loader->expected) {
        clear_batch(&loader->batch[(step + loader->batches - 1) % loader->batches]);  // what was handed out before
    } else {
        rewind_to(loader, step);
    }
    loader->expected = -1;  // an error below leaves a clean start
    while (loader->submitted < step + loader->batches) {
        VL_TRY(submit_step(loader, loader->submitted));
        loader->submitted++;
    }
    Batch *batch = &loader->batch[step % loader->batches];
    for (int64_t i = 0; i < batch->count; i++) {
        VL_TRY_CONTEXT(vl_pool_wait(loader->pool, &batch->slot[i].task), "reading the samples of step %lld",
                       (long long)step);
        loader->truncated += batch->slot[i].cut;
    }
    loader->expected = step + 1;
    *samples = batch->sample;
    *count = batch->count;
    *wait_seconds = vl_seconds() - begin;
    return VL_OK;
}

int64_t vl_loader_epoch_samples(const VlLoader *loader) { return vl_order_samples(loader->order); }

uint64_t vl_loader_data_hash(const VlLoader *loader) { return loader->data_hash; }

int64_t vl_loader_truncated(const VlLoader *loader) { return loader->truncated; }

bool vl_loader_has_sound(const VlLoader *loader) { return loader->has_sound; }

// ---- Opening and closing ---------------------------------------------------

static VlStatus check_options(const VlLoaderOptions *options) {
    if (options->sources < 1 || options->global_batch < 1 || options->ranks < 1 || options->rank < 0 ||
        options->rank >= options->ranks || options->prefetch < 1 || options->max_tokens < 1 ||
        options->num_frames < 1) {
        return vl_error(VL_INVALID,
                        "the loader cannot work with %lld sources, global_batch %lld, rank %lld of %lld, %lld steps "
                        "ahead, max_tokens %lld, %lld frames",
                        (long long)options->sources, (long long)options->global_batch, (long long)options->rank,
                        (long long)options->ranks, (long long)options->prefetch, (long long)options->max_tokens,
                        (long long)options->num_frames);
    }
    return VL_OK;
}

// A shard of texts and pictures is good for any model that takes such pictures, whether it hears or not.
static VlStatus check_sound(const VlLoaderOptions *options, const VlShard *shard) {
    const VlShardHeader *header = vl_shard_header(shard);
    const char *sound = options->sound ? options->sound : "";
    if (!vl_shard_has_sound(shard) || strcmp(header->sound, sound) == 0) return VL_OK;
    if (!*sound) {
        return vl_error(VL_INVALID,
                        "shard %s holds sounds, but the model has no audio tower: take one whose config.json names an "
                        "mm_audio_tower, or leave the source out",
                        vl_shard_path(shard));
    }
    return vl_error(VL_INVALID,
                    "shard %s holds sounds made by '%s', but this run needs '%s' (data.sound_seconds, "
                    "data.fbank_dtype): pack the source again with this configuration",
                    vl_shard_path(shard), header->sound, sound);
}

static VlStatus check_shard(const VlLoaderOptions *options, const VlShard *shard) {
    const VlShardHeader *header = vl_shard_header(shard);
    VL_TRY(check_sound(options, shard));
    if (!vl_shard_has_frames(shard) ||
        (strcmp(header->preprocessing, options->preprocessing) == 0 && header->height == options->height &&
         header->width == options->width && header->num_frames == options->num_frames)) {
        return VL_OK;
    }
    return vl_error(VL_INVALID,
                    "shard %s holds frames made by '%s' (%lld of %lld x %lld), but this run needs '%s' (%lld of %lld x "
                    "%lld): pack the source again with this configuration",
                    vl_shard_path(shard), header->preprocessing, (long long)header->num_frames,
                    (long long)header->height, (long long)header->width, options->preprocessing,
                    (long long)options->num_frames, (long long)options->height, (long long)options->width);
}

// The modality of every sample of a source, for vl_order_create.
static VlStatus list_modalities(const VlPacked *packed, uint8_t **out) {
    uint8_t *modality;
    int64_t row;
    VL_TRY(VL_NEW(&modality, packed->samples));
    for (int64_t i = 0; i < packed->samples; i++) {
        const VlShard *shard = vl_packed_find(packed, i, &row);
        modality[i] = (uint8_t)vl_shard_row(shard, row)->modality;
        if (modality[i] == VL_MODAL_VIDEO && vl_shard_rows(shard, row) > 0) modality[i] = VL_ORDER_AV;
    }
    *out = modality;
    return VL_OK;
}

static VlStatus make_order(VlLoader *loader) {
    const VlLoaderOptions *options = &loader->options;
    VlOrderSource *sources;
    VlStatus status = VL_OK;
    VL_TRY(VL_NEW(&sources, options->sources));
    for (int64_t s = 0; s < options->sources && !status; s++) {
        uint8_t *modality = NULL;
        status = list_modalities(&loader->source[s], &modality);
        sources[s] = (VlOrderSource){
            .samples = loader->source[s].samples, .weight = options->source[s].weight, .modality = modality};
    }
    if (!status) status = vl_order_create(&loader->order, sources, options->sources, options->mix, options->seed);
    for (int64_t s = 0; s < options->sources; s++) vl_free((void *)sources[s].modality);
    vl_free(sources);
    return status;
}

static VlStatus open_sources(VlLoader *loader) {
    const VlLoaderOptions *options = &loader->options;
    VL_TRY(VL_NEW(&loader->source, options->sources));
    for (int64_t s = 0; s < options->sources; s++) {
        VlPacked *packed = &loader->source[s];
        VL_TRY(vl_packed_open(packed, options->source[s].shards));
        loader->sources++;
        for (int64_t i = 0; i < packed->shards; i++) {
            VL_TRY(check_shard(options, packed->shard[i]));
            loader->has_sound |= vl_shard_has_sound(packed->shard[i]);
            uint32_t words[4];
            vl_philox(words, loader->data_hash, (uint64_t)s, vl_shard_checksum(packed->shard[i]));
            loader->data_hash = (uint64_t)words[1] << 32 | words[0];
        }
    }
    return make_order(loader);
}

static VlStatus make_buffers(VlLoader *loader) {
    const VlLoaderOptions *options = &loader->options;
    loader->batches = options->prefetch + 1;
    VL_TRY(VL_NEW(&loader->batch, loader->batches));
    VL_TRY(VL_NEW(&loader->cost, options->global_batch));
    VL_TRY(VL_NEW(&loader->rank, options->global_batch));
    VL_TRY(VL_NEW(&loader->place, options->global_batch));
    VL_TRY(VL_NEW(&loader->scratch, options->threads));
    for (int64_t i = 0; i < options->threads; i++) {
        VL_TRY(VL_NEW(&loader->scratch[i], 1));
        loader->scratch_count++;
    }
    return VL_OK;
}

VlStatus vl_loader_open(VlLoader **out, const VlLoaderOptions *options) {
    VlLoader *loader;
    VlStatus status;
    VL_TRY(check_options(options));
    VL_TRY(VL_NEW(&loader, 1));
    pthread_mutex_init(&loader->lock, NULL);
    loader->options = *options;
    loader->expected = -1;
    loader->rules = (VlSampleRules){.tokenizer = options->tokenizer,
                                    .prompt = {.protocol = options->protocol, .mode = options->mode},
                                    .max_tokens = options->max_tokens,
                                    .truncate_expanded = options->truncate_expanded,
                                    .media_tokens = options->media_tokens,
                                    .media_tokens_user = options->media_tokens_user};
    VL_TRY_GOTO(status, vl_pool_open(&loader->pool, options->threads), failed);
    VL_TRY_GOTO(status, make_buffers(loader), failed);
    VL_TRY_GOTO(status, open_sources(loader), failed);
    loader->options.source = NULL;  // the caller's, as the names in it: needed no longer
    loader->options.preprocessing = loader->options.sound = loader->options.mix = NULL;
    *out = loader;
    return VL_OK;
failed:
    vl_loader_close(loader);
    return status;
}

void vl_loader_close(VlLoader *loader) {
    if (!loader) return;
    atomic_store(&loader->cancelled, true);
    vl_pool_close(loader->pool);
    for (int64_t i = 0; loader->batch && i < loader->batches; i++) {
        clear_batch(&loader->batch[i]);
        vl_free(loader->batch[i].slot);
        vl_free(loader->batch[i].sample);
    }
    for (int64_t i = 0; i < loader->scratch_count; i++) {
        vl_shard_scratch_free(loader->scratch[i]);
        vl_free(loader->scratch[i]);
    }
    for (int64_t s = 0; s < loader->sources; s++) vl_packed_close(&loader->source[s]);
    vl_order_free(loader->order);
    vl_free(loader->scratch);
    vl_free(loader->source);
    vl_free(loader->batch);
    vl_free(loader->cost);
    vl_free(loader->rank);
    vl_free(loader->place);
    pthread_mutex_destroy(&loader->lock);
    vl_free(loader);
}
