#include "data/show.h"

#include <inttypes.h>
#include <math.h>

#include "base/memory.h"
#include "data/fbank.h"
#include "data/packed.h"

// What the sample is: a video with its sound is one of its own.
static const char *modality_of(const VlSample *sample) {
    return sample->modal == VL_MODAL_VIDEO && sample->rows > 0 ? "video with its sound" : vl_modal_name(sample->modal);
}

// The text of a run of ids that are all labelled or all not; none of them is a modality's.
static VlStatus show_run(const VlSampleRules *rules, const int64_t *ids, int64_t count, bool labelled, bool colour,
                         FILE *out) {
    char *text;
    int64_t length;
    VL_TRY(vl_tokenizer_decode(rules->tokenizer, ids, count, false, &text, &length));
    if (!labelled) fputs(colour ? "\033[2m" : "[", out);
    fwrite(text, 1, (size_t)length, out);
    if (!labelled) fputs(colour ? "\033[0m" : "]", out);
    vl_free(text);
    return VL_OK;
}

static VlStatus show_text(const VlSample *sample, const VlSampleRules *rules, bool colour, FILE *out) {
    for (int64_t begin = 0, end; begin < sample->tokens; begin = end) {
        bool labelled = sample->labels[begin] != VL_LABEL_IGNORE;
        end = begin + 1;
        if (sample->ids[begin] < 0) {
            fprintf(out, "<%s: %" PRId64 " tokens>", modality_of(sample),
                    vl_sample_media_tokens(rules, sample->modal, sample->frames, sample->rows));
            continue;
        }
        while (end < sample->tokens && sample->ids[end] >= 0 && (sample->labels[end] != VL_LABEL_IGNORE) == labelled) {
            end++;
        }
        VL_TRY(show_run(rules, sample->ids + begin, end - begin, labelled, colour, out));
    }
    fputc('\n', out);
    return VL_OK;
}

static void show_numbers(const char *name, const int64_t *values, int64_t count, FILE *out) {
    fprintf(out, "%s:", name);
    for (int64_t i = 0; i < count; i++) fprintf(out, " %" PRId64, values[i]);
    fputc('\n', out);
}

// Each stored frame's number in its video, and when it is shown.
static void show_times(const VlFrameTime *times, int64_t count, FILE *out) {
    fputs("indices:", out);
    for (int64_t i = 0; i < count; i++) {
        if (times[i].index < 0) {
            fputs(" black", out);
        } else {
            fprintf(out, " %" PRId64 " (%.3f s)", times[i].index, times[i].seconds);
        }
    }
    fputc('\n', out);
}

// Digital silence gives the same value in every place.
static void show_sound(const VlSample *sample, FILE *out) {
    int64_t count = sample->rows * VL_FBANK_BINS;
    float least = sample->fbank[0], most = least;
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        least = fminf(least, sample->fbank[i]);
        most = fmaxf(most, sample->fbank[i]);
        sum += (double)sample->fbank[i];
    }
    double seconds = (double)((sample->rows - 1) * VL_FBANK_SHIFT + VL_FBANK_WINDOW) / VL_FBANK_RATE;
    fprintf(out, "sound: %.2f s, %" PRId64 " rows of %d bins, %g to %g, mean %g%s\n", seconds, sample->rows,
            (int)VL_FBANK_BINS, (double)least, (double)most, sum / (double)count, least == most ? " (silent)" : "");
}

static VlStatus show(const VlShard *shard, int64_t row, const VlSample *sample, const VlFrameTime *times,
                     const VlSampleRules *rules, bool cut, bool colour, FILE *out) {
    int64_t labelled = 0, media = vl_sample_media_tokens(rules, sample->modal, sample->frames, sample->rows);
    for (int64_t i = 0; i < sample->tokens; i++) labelled += sample->labels[i] != VL_LABEL_IGNORE;
    fprintf(out, "sample %" PRId64 " of %s, annotation %" PRId64 "\n", row, vl_shard_path(shard),
            vl_shard_row(shard, row)->number);
    fprintf(out, "id: %s\nkind: %s\nmodality: %s\n", sample->id, sample->kind[0] ? sample->kind : "-",
            modality_of(sample));
    fprintf(out, "frames: %" PRId64 " of %" PRId64 " x %" PRId64 " (height x width)\n", sample->frames, sample->height,
            sample->width);
    if (sample->modal == VL_MODAL_VIDEO) show_times(times, sample->frames, out);
    if (sample->rows) show_sound(sample, out);
    fprintf(out, "tokens: %" PRId64 " ids, %" PRId64 " with those of the medium, %" PRId64 " labelled%s\n",
            sample->tokens, sample->tokens + (media ? media - 1 : 0), labelled, cut ? ", cut to data.max_tokens" : "");
    VL_TRY(show_text(sample, rules, colour, out));
    show_numbers("ids", sample->ids, sample->tokens, out);
    show_numbers("labels", sample->labels, sample->tokens, out);
    return VL_OK;
}

VlStatus vl_show_sample(const VlShard *shard, int64_t row, const VlSampleRules *rules, bool colour, FILE *out) {
    VlSample sample = {0};
    VlShardScratch scratch = {0};
    VlFrameTime *times = NULL;
    bool cut = false;
    if (row < 0 || row >= vl_shard_header(shard)->samples) {
        return vl_error(VL_INVALID, "shard %s has samples 0 to %" PRId64 ", not %" PRId64, vl_shard_path(shard),
                        vl_shard_header(shard)->samples - 1, row);
    }
    VlStatus status = vl_sample_read(shard, row, rules, &scratch, &sample, &cut);
    if (!status) status = vl_shard_read_times(shard, row, &scratch, &times);
    if (!status) status = show(shard, row, &sample, times, rules, cut, colour, out);
    vl_free(times);
    vl_sample_clear(&sample);
    vl_shard_scratch_free(&scratch);
    return status;
}

// ---- Whole shards ----------------------------------------------------------

typedef struct Totals {
    int64_t samples, of[VL_MODAL_AUDIO + 1], heard;  // of each modality; of the videos, with their sound
    int64_t bytes, stored;
} Totals;

static void add_shard(const VlShard *shard, Totals *totals) {
    for (int64_t i = 0; i < vl_shard_header(shard)->samples; i++) {
        VlModal modal = (VlModal)vl_shard_row(shard, i)->modality;
        totals->samples++;
        totals->of[modal]++;
        totals->heard += modal == VL_MODAL_VIDEO && vl_shard_rows(shard, i) > 0;
    }
    totals->bytes += vl_shard_header(shard)->bytes;
    totals->stored += vl_shard_stored(shard);
}

static void show_totals(const VlShardHeader *header, const Totals *totals, int64_t media, FILE *out) {
    fprintf(out,
            "samples: %" PRId64 " (%" PRId64 " text, %" PRId64 " image, %" PRId64 " video, %" PRId64 " audio, %" PRId64
            " video with its sound), media records: %" PRId64 "\n",
            totals->samples, totals->of[VL_MODAL_TEXT], totals->of[VL_MODAL_IMAGE],
            totals->of[VL_MODAL_VIDEO] - totals->heard, totals->of[VL_MODAL_AUDIO], totals->heard, media);
    fprintf(out, "frames: at most %" PRId64 " of %" PRId64 " x %" PRId64 " (height x width)\n", header->num_frames,
            header->height, header->width);
    fprintf(out, "preprocessing: %s\n", header->preprocessing);
    if (header->sound[0]) fprintf(out, "sound: %s\n", header->sound);
    fprintf(out, "bytes: %" PRId64 ", compressed to %" PRId64 " in chunks of %" PRId64 "\n", totals->bytes,
            totals->stored, header->chunk_bytes);
}

VlStatus vl_show_shard(const char *path, FILE *out) {
    VlShard *shard;
    Totals totals = {0};
    VL_TRY(vl_shard_open(&shard, path));
    add_shard(shard, &totals);
    fprintf(out, "shard: %s\n", path);
    show_totals(vl_shard_header(shard), &totals, vl_shard_header(shard)->media, out);
    vl_shard_close(shard);
    return VL_OK;
}

VlStatus vl_show_packed(const char *folder, FILE *out) {
    VlPacked packed;
    Totals totals = {0};
    VL_TRY(vl_packed_open(&packed, folder));
    for (int64_t i = 0; i < packed.shards; i++) add_shard(packed.shard[i], &totals);
    fprintf(out, "folder of %" PRId64 " shards: %s\n", packed.shards, folder);
    show_totals(vl_shard_header(packed.shard[0]), &totals, packed.report.media, out);
    fprintf(out, "silent: %" PRId64 " videos without a sound track\n", packed.report.silent);
    fprintf(out, "left out: %" PRId64 " bad (see %s)\n", packed.report.bad, VL_PACK_QUARANTINE);
    vl_packed_close(&packed);
    return VL_OK;
}
