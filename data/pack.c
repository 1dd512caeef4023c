#include "data/pack.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/pack_manifest.h"
#include "data/pack_table.h"
#include "data/pack_worker.h"
#include "data/template.h"

enum {
    JOBS_MOST = 256,             // annotations read ahead
    SHARD_SAMPLES_MOST = 65536,  // bounds a shard's tables where samples are short texts
};

typedef struct Packer {
    const VlPackOptions *options;
    VlPackReport *report;
    VlPackContext context;
    VlPackManifest manifest;
    VlPool *pool;
    VlAnnotations *list;
    FILE *quarantine;
    int64_t shard_bytes;
    VlShardWriter *writer;  // NULL between two shards
    char shard_name[32];
    char sound[VL_SOUND_PREPROCESSING_MAX];
    VlPackTable table;          // media of the shard that is being written
    VlPackJob *job[JOBS_MOST];  // a ring of `jobs`, the oldest at `first`; the `scheduled` oldest have their media
    int64_t first, jobs, scheduled;
    VlPackMedium **medium;  // in flight
    int64_t media, media_most;
    bool ended;  // no annotations are left
} Packer;

VlStatus vl_pack_fingerprint(const VlPreprocessConfig *config, VlAspect aspect, VlProtocol protocol, int64_t num_frames,
                             char *text) {
    char levels[VL_PREPROCESS_FINGERPRINT];
    vl_preprocess_fingerprint(config, aspect, levels);
    // The branches main and av sample frames alike.
    const char *sampling = vl_protocol_name(protocol == VL_PROTOCOL_AV ? VL_PROTOCOL_MAIN : protocol);
    int length = snprintf(text, VL_PREPROCESSING_MAX, "%s; %" PRId64 " frames, %s", levels, num_frames, sampling);
    VL_ASSERT(length > 0 && length < VL_PREPROCESSING_MAX);
    return VL_OK;
}

void vl_pack_sound_fingerprint(double sound_seconds, bool sound_bf16, char *text) {
    int length = snprintf(text, VL_SOUND_PREPROCESSING_MAX, "kaldi, 128 bins, %.17g s, %s",
                          sound_seconds > 0 ? sound_seconds : VL_AUDIO_SECONDS, sound_bf16 ? "bf16" : "f32");
    VL_ASSERT(length > 0 && length < VL_SOUND_PREPROCESSING_MAX);
}

// ---- Shards ----------------------------------------------------------------

static VlStatus open_shard(Packer *packer) {
    char path[VL_PATH_MAX];
    VlShardHeader header = {.height = packer->context.visual.config.height,
                            .width = packer->context.visual.config.width,
                            .num_frames = packer->options->num_frames};
    memcpy(header.preprocessing, packer->manifest.preprocessing, sizeof header.preprocessing);
    memcpy(header.sound, packer->sound, sizeof header.sound);
    snprintf(packer->shard_name, sizeof packer->shard_name, "shard-%05lld.h5", (long long)packer->manifest.shards);
    VL_TRY(vl_path_join(path, packer->options->shards, packer->shard_name));
    return vl_shard_writer_open(&packer->writer, path, &header, packer->pool);
}

// Completes the shard and records it. What was read ahead has to look again for its media, which were this shard's.
static VlStatus close_shard(Packer *packer) {
    char path[VL_PATH_MAX];
    VlPackShard shard = {0};
    VlShard *opened;
    VlShardWriter *writer = packer->writer;
    packer->writer = NULL;
    vl_pack_table_clear(&packer->table);
    packer->scheduled = 0;
    VL_TRY(vl_shard_writer_commit(writer));
    memcpy(shard.name, packer->shard_name, sizeof shard.name);
    VL_TRY(vl_path_join(path, packer->options->shards, shard.name));
    VL_TRY(vl_shard_open(&opened, path));
    packer->report->bytes += vl_shard_header(opened)->bytes;
    packer->report->stored += vl_shard_stored(opened);
    packer->report->shards++;
    vl_shard_close(opened);
    VL_TRY(vl_pack_file_checksum(path, &shard.file_bytes, &shard.crc32c));
    VL_TRY(vl_pack_quarantine_sync(packer->quarantine, &shard.quarantine_bytes));
    shard.report = *packer->report;
    VL_TRY(vl_pack_manifest_add(&packer->manifest, &shard));
    return vl_pack_manifest_save(&packer->manifest, packer->options->shards);
}

// ---- Samples ---------------------------------------------------------------

static VlPackJob *job_at(Packer *packer, int64_t place) { return packer->job[(packer->first + place) % JOBS_MOST]; }

static VlStatus read_ahead(Packer *packer) {
    while (packer->jobs < JOBS_MOST && !packer->ended) {
        VlAnnotation annotation;
        VL_TRY(vl_annotations_next(packer->list, &annotation));
        if (!annotation.object) {
            packer->ended = true;
            packer->report->list_offset = packer->report->list_bytes;
            break;
        }
        int64_t number = packer->report->annotations + packer->jobs;
        VlPackJob **job = &packer->job[(packer->first + packer->jobs) % JOBS_MOST];
        VlStatus status = vl_pack_job_create(job, &packer->context, &annotation, number);
        json_decref(annotation.object);
        VL_TRY(status);
        packer->jobs++;
        packer->report->list_offset = annotation.offset + annotation.size;
        if (!(*job)->reason) vl_pool_submit(packer->pool, &(*job)->task, false);
    }
    return VL_OK;
}

// Gives a job the medium in flight of its key, or a new one.
static VlStatus attach_medium(Packer *packer, VlPackJob *job) {
    for (int64_t i = 0; i < packer->media && !job->medium; i++) {
        if (!strcmp(packer->medium[i]->key, job->key)) job->medium = packer->medium[i];
    }
    if (!job->medium) {
        VL_TRY(vl_pack_medium_create(&job->medium, &packer->context, job));
        packer->medium[packer->media++] = job->medium;
        vl_pool_submit(packer->pool, &job->medium->task, false);
    }
    job->medium->users++;
    return VL_OK;
}

// Starts on media, as many as may be in flight, and always on that of the oldest annotation.
static VlStatus schedule(Packer *packer) {
    while (packer->scheduled < packer->jobs && (packer->media < packer->media_most || packer->scheduled == 0)) {
        VlPackJob *job = job_at(packer, packer->scheduled++);
        if (job->key && !job->medium && vl_pack_table_find(&packer->table, job->key) < 0) {
            VL_TRY(attach_medium(packer, job));
        }
    }
    return VL_OK;
}

// Waits for the medium before it is freed, with its last user.
static void release_medium(Packer *packer, VlPackJob *job) {
    VlPackMedium *medium = job->medium;
    job->medium = NULL;
    if (!medium || --medium->users > 0) return;
    VlError kept = vl_error_take(VL_OK);
    vl_pool_wait(packer->pool, &medium->task);
    vl_error_raise(&kept);
    for (int64_t i = 0; i < packer->media; i++) {
        if (packer->medium[i] == medium) packer->medium[i--] = packer->medium[--packer->media];
    }
    vl_pack_medium_free(medium);
}

// *row = the media record of the job's file in this shard, written if it is the first to need it. A file that cannot be
// read gives the job a reason.
static VlStatus find_media(Packer *packer, VlPackJob *job, int32_t *row) {
    *row = vl_pack_table_find(&packer->table, job->key);
    if (*row >= 0) return VL_OK;
    VL_ASSERT(job->medium);
    VlPackMedium *medium = job->medium;
    vl_pool_wait(packer->pool, &medium->task);
    if (medium->task.error.status) return vl_pack_job_blame(job, vl_error_raise(&medium->task.error));
    if (!packer->writer) VL_TRY(open_shard(packer));
    VlShardMedium record = {.frames = medium->frames,
                            .pixels = medium->levels,
                            .times = medium->times,
                            .rows = medium->rows,
                            .fbank = medium->fbank};
    VL_TRY(vl_shard_writer_media(packer->writer, &record, row));
    packer->report->media++;
    packer->report->silent += medium->silent;
    return vl_pack_table_add(&packer->table, job->key, *row);
}

static int64_t *count_of(VlPackReport *report, const VlConversation *conversation) {
    switch (conversation->modal) {
    case VL_MODAL_IMAGE: return &report->images;
    case VL_MODAL_VIDEO: return conversation->with_audio ? &report->heard_videos : &report->videos;
    case VL_MODAL_AUDIO: return &report->sounds;
    default: return &report->texts;
    }
}

static VlStatus write_sample(Packer *packer, const VlPackJob *job, int32_t media) {
    VlPackReport *report = packer->report;
    VlShardSample sample = {.id = job->id,
                            .text = job->text,
                            .length = job->length,
                            .number = job->number,
                            .tokens = job->tokens,
                            .media = media,
                            .modality = job->conversation.modal};
    if (!packer->writer) VL_TRY(open_shard(packer));
    VL_TRY(vl_shard_writer_sample(packer->writer, &sample));
    report->samples++;
    report->bad_in_a_row = 0;
    *count_of(report, &job->conversation) += 1;
    return VL_OK;
}

static VlStatus quarantine(Packer *packer, const VlPackJob *job) {
    const VlPackOptions *options = packer->options;
    VlPackReport *report = packer->report;
    VL_TRY(vl_pack_quarantine_add(packer->quarantine, job->number, job->id, job->reason));
    report->bad++;
    report->bad_in_a_row++;
    if (report->bad <= options->bad_samples && report->bad_in_a_row <= options->bad_in_a_row) return VL_OK;
    bool in_a_row = report->bad_in_a_row > options->bad_in_a_row;
    return vl_error(
        VL_FORMAT,
        "%s: %lld samples %scould not be packed, over the limit %s of %lld; the last one is '%.80s': %.400s; "
        "all are in %s",
        options->annotations, (long long)(in_a_row ? report->bad_in_a_row : report->bad), in_a_row ? "in a row " : "",
        in_a_row ? "limits.bad_in_a_row" : "limits.bad_samples",
        (long long)(in_a_row ? options->bad_in_a_row : options->bad_samples), job->id, job->reason, VL_PACK_QUARANTINE);
}

// Packs or quarantines the oldest annotation, which leaves the ring.
static VlStatus finish_oldest(Packer *packer) {
    VlPackJob *job = job_at(packer, 0);
    int32_t media = -1;
    VL_TRY(vl_pool_wait(packer->pool, &job->task));
    if (!job->reason && job->key) VL_TRY(find_media(packer, job, &media));
    if (job->reason) {
        VL_TRY(quarantine(packer, job));
    } else {
        VL_TRY(write_sample(packer, job, media));
    }
    release_medium(packer, job);
    vl_pack_job_free(job);
    packer->first = (packer->first + 1) % JOBS_MOST;
    packer->jobs--;
    packer->scheduled--;
    packer->report->annotations++;
    if (!packer->writer) return VL_OK;
    bool full = vl_shard_writer_bytes(packer->writer) >= packer->shard_bytes ||
                vl_shard_writer_samples(packer->writer) >= SHARD_SAMPLES_MOST;
    return full ? close_shard(packer) : VL_OK;
}

static VlStatus pack_all(Packer *packer) {
    const VlPackOptions *options = packer->options;
    for (;;) {
        VL_TRY(read_ahead(packer));
        VL_TRY(schedule(packer));
        if (!packer->jobs) break;
        VL_TRY(finish_oldest(packer));
        if (options->progress) options->progress(options->progress_user, packer->report);
    }
    if (packer->writer) VL_TRY(close_shard(packer));
    if (!packer->report->samples) {
        return vl_error(VL_FORMAT, "%s: none of its %lld annotations could be packed; %s/%s says why",
                        options->annotations, (long long)packer->report->annotations, options->shards,
                        VL_PACK_QUARANTINE);
    }
    packer->manifest.complete = true;
    packer->manifest.report = *packer->report;
    return vl_pack_manifest_save(&packer->manifest, options->shards);
}

// ---- Begin and end ---------------------------------------------------------

static VlStatus load_context(Packer *packer) {
    const VlPackOptions *options = packer->options;
    VlPackContext *context = &packer->context;
    VlTemplate shape;
    if (options->num_frames < 1 || options->num_frames > 1024 || options->threads < 1 || options->shard_bytes < 0) {
        return vl_error(VL_INVALID, "%lld frames, %lld threads, shards of %lld bytes: none may be below 1",
                        (long long)options->num_frames, (long long)options->threads, (long long)options->shard_bytes);
    }
    if (options->has_audio && options->sound_seconds != 0 &&
        !(options->sound_seconds >= 1 && options->sound_seconds <= VL_AUDIO_SECONDS)) {
        return vl_error(VL_INVALID, "sounds of %g seconds: 1 to %d are possible", options->sound_seconds,
                        VL_AUDIO_SECONDS);
    }
    context->media = options->media;
    context->protocol = options->protocol;
    context->visual = (VlVisualOptions){.aspect = options->aspect,
                                        .protocol = options->protocol,
                                        .num_frames = options->num_frames,
                                        .media = vl_media_defaults()};
    // Long films are decoded to their end; the answer must not depend on how busy the machine is.
    context->visual.media.max_seconds = 600;
    VL_TRY(vl_preprocess_load(&context->visual.config, options->model));
    context->audio = (VlAudioOptions){.window_start = VL_SOUND_WINDOW_AT_RANDOM,
                                      .seconds = options->sound_seconds,
                                      .bf16 = options->sound_bf16,
                                      .media = context->visual.media};
    if (options->has_audio) {
        vl_pack_sound_fingerprint(options->sound_seconds, options->sound_bf16, packer->sound);
        VL_TRY(vl_fbank_create(&context->fbank));
    }
    VL_TRY(vl_tokenizer_load(&context->tokenizer, options->model));
    if (options->protocol != VL_PROTOCOL_2024_06) {
        VL_TRY(vl_template_recognize(&shape, vl_tokenizer_chat_template(context->tokenizer)));
    }
    return vl_pack_fingerprint(&context->visual.config, options->aspect, options->protocol, options->num_frames,
                               packer->manifest.preprocessing);
}

static VlStatus hash_options(Packer *packer, char hash[17]) {
    const VlPackOptions *options = packer->options;
    static const char *const parts[] = {"tokenizer.json", "tokenizer_config.json"};
    char text[VL_PREPROCESSING_MAX + VL_SOUND_PREPROCESSING_MAX + 256], path[VL_PATH_MAX];
    uint32_t crc, model = 0;
    int64_t size;
    for (int i = 0; i < 2; i++) {
        VL_TRY(vl_path_join(path, options->model, parts[i]));
        VL_TRY(vl_pack_file_checksum(path, &size, &crc));
        model = model * 31 + crc;
    }
    VL_TRY(vl_pack_file_checksum(options->annotations, &size, &crc));
    packer->report->list_bytes = size;
    snprintf(text, sizeof text, "%s|%s|%s|%" PRIx32 "|%" PRIx32 "|%" PRId64 "|%" PRId64, packer->manifest.preprocessing,
             packer->sound, vl_protocol_name(options->protocol), model, crc, size, packer->shard_bytes);
    snprintf(hash, 17, "%016" PRIx64, vl_hash_string(text));
    return VL_OK;
}

// Keeps the complete shards of an earlier call, up to the first that is missing or of another size (--check and every
// read verify the bytes).
static VlStatus keep_shards(Packer *packer, VlPackManifest *earlier) {
    char path[VL_PATH_MAX];
    int64_t size = 0;
    for (int64_t i = 0; i < earlier->shards; i++) {
        VL_TRY(vl_path_join(path, packer->options->shards, earlier->shard[i].name));
        if (!vl_path_exists(path)) break;
        VL_TRY(vl_file_size(path, &size));
        if (size != earlier->shard[i].file_bytes) break;
        VL_TRY(vl_pack_manifest_add(&packer->manifest, &earlier->shard[i]));
    }
    packer->manifest.complete = earlier->complete && packer->manifest.shards == earlier->shards;
    packer->manifest.report = earlier->report;
    return VL_OK;
}

static VlStatus resume(Packer *packer) {
    const VlPackOptions *options = packer->options;
    VlPackManifest earlier;
    char path[VL_PATH_MAX], temporary[VL_PATH_MAX + 64];
    VL_TRY(hash_options(packer, packer->manifest.options));
    VL_TRY(vl_make_folders(options->shards));
    VL_TRY(vl_path_join(path, options->shards, VL_PACK_MANIFEST));
    if (!vl_path_exists(path)) return vl_pack_manifest_save(&packer->manifest, options->shards);
    VL_TRY(vl_pack_manifest_load(&earlier, options->shards));
    VlStatus status = VL_OK;
    if (strcmp(earlier.options, packer->manifest.options) != 0) {
        status =
            vl_error(VL_INVALID,
                     "%s holds shards of other annotations, another model's preprocessing or other options: remove the "
                     "folder, or choose another one",
                     options->shards);
    }
    if (!status) status = keep_shards(packer, &earlier);
    vl_pack_manifest_free(&earlier);
    snprintf(temporary, sizeof temporary, "%s/shard-%05lld.h5.tmp", options->shards,
             (long long)packer->manifest.shards);
    if (!status) unlink(temporary);  // what a killed pack left
    return status;
}

// Puts the counts and the list behind the last complete shard.
static VlStatus skip_packed(Packer *packer) {
    int64_t quarantine_bytes = 0, list_bytes = packer->report->list_bytes;
    if (packer->manifest.shards) {
        const VlPackShard *last = &packer->manifest.shard[packer->manifest.shards - 1];
        *packer->report = last->report;
        packer->report->resumed_shards = packer->manifest.shards;
        packer->report->list_bytes = list_bytes;
        quarantine_bytes = last->quarantine_bytes;
    }
    VL_TRY(vl_pack_quarantine_open(&packer->quarantine, packer->options->shards, quarantine_bytes));
    VL_TRY(vl_annotations_open(&packer->list, packer->options->annotations));
    for (int64_t i = 0; i < packer->report->annotations; i++) {
        VlAnnotation annotation;
        VL_TRY(vl_annotations_next(packer->list, &annotation));
        json_decref(annotation.object);
    }
    return VL_OK;
}

static VlStatus run(Packer *packer) {
    VL_TRY(load_context(packer));
    VL_TRY(resume(packer));
    if (packer->manifest.complete) {
        *packer->report = packer->manifest.report;
        packer->report->resumed_shards = packer->manifest.shards;
        return VL_OK;
    }
    VL_TRY(skip_packed(packer));
    VL_TRY(vl_pool_open(&packer->pool, packer->options->threads));
    packer->media_most = 2 * packer->options->threads;
    VL_TRY(VL_NEW(&packer->medium, packer->media_most + 1));
    return pack_all(packer);
}

VlStatus vl_pack(const VlPackOptions *options, VlPackReport *report) {
    Packer *packer;
    *report = (VlPackReport){0};
    VL_TRY(VL_NEW(&packer, 1));
    packer->options = options;
    packer->report = report;
    packer->shard_bytes = options->shard_bytes ? options->shard_bytes : (int64_t)256 << 20;
    VlStatus status = run(packer);
    vl_shard_writer_abandon(packer->writer);
    vl_pool_close(packer->pool);  // drops what has not begun, before its memory goes
    for (int64_t i = 0; i < packer->jobs; i++) vl_pack_job_free(job_at(packer, i));
    for (int64_t i = 0; i < packer->media; i++) vl_pack_medium_free(packer->medium[i]);
    vl_free(packer->medium);
    if (packer->quarantine) fclose(packer->quarantine);
    vl_annotations_close(packer->list);
    vl_pack_table_clear(&packer->table);
    vl_pack_manifest_free(&packer->manifest);
    vl_tokenizer_free(packer->context.tokenizer);
    vl_fbank_free(packer->context.fbank);
    vl_free(packer);
    return status;
}
