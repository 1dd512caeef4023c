#include "data/show.h"

#include <inttypes.h>

#include "base/memory.h"
#include "data/packed.h"

static const char *const modals[] = {"text", "image", "video", "audio"};

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
            fprintf(out, "<%s: %" PRId64 " tokens>", modals[sample->modal],
                    vl_sample_visual_tokens(rules, sample->modal, sample->frames));
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

static VlStatus show(const VlShard *shard, int64_t row, const VlSample *sample, const VlFrameTime *times,
                     const VlSampleRules *rules, bool cut, bool colour, FILE *out) {
    int64_t labelled = 0, visual = vl_sample_visual_tokens(rules, sample->modal, sample->frames);
    for (int64_t i = 0; i < sample->tokens; i++) labelled += sample->labels[i] != VL_LABEL_IGNORE;
    fprintf(out, "sample %" PRId64 " of %s, annotation %" PRId64 "\n", row, vl_shard_path(shard),
            vl_shard_row(shard, row)->number);
    fprintf(out, "id: %s\nkind: %s\nmodality: %s\n", sample->id, sample->kind[0] ? sample->kind : "-",
            modals[sample->modal]);
    fprintf(out, "frames: %" PRId64 " of %" PRId64 " x %" PRId64 " (height x width)\n", sample->frames, sample->height,
            sample->width);
    if (sample->modal == VL_MODAL_VIDEO) show_times(times, sample->frames, out);
    fprintf(out, "tokens: %" PRId64 " ids, %" PRId64 " with those of the medium, %" PRId64 " labelled%s\n",
            sample->tokens, sample->tokens + (visual ? visual - 1 : 0), labelled,
            cut ? ", cut to data.max_tokens" : "");
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

static void add_shard(const VlShard *shard, int64_t *samples, int64_t *bytes, int64_t *stored) {
    for (int64_t i = 0; i < vl_shard_header(shard)->samples; i++) samples[vl_shard_row(shard, i)->modality]++;
    *bytes += vl_shard_header(shard)->bytes;
    *stored += vl_shard_stored(shard);
}

static void show_totals(const VlShardHeader *header, const int64_t *samples, int64_t media, int64_t bytes,
                        int64_t stored, FILE *out) {
    fprintf(out,
            "samples: %" PRId64 " (%" PRId64 " text, %" PRId64 " image, %" PRId64 " video), media records: %" PRId64
            "\n",
            samples[VL_MODAL_TEXT] + samples[VL_MODAL_IMAGE] + samples[VL_MODAL_VIDEO], samples[VL_MODAL_TEXT],
            samples[VL_MODAL_IMAGE], samples[VL_MODAL_VIDEO], media);
    fprintf(out, "frames: at most %" PRId64 " of %" PRId64 " x %" PRId64 " (height x width)\n", header->num_frames,
            header->height, header->width);
    fprintf(out, "preprocessing: %s\n", header->preprocessing);
    fprintf(out, "bytes: %" PRId64 ", compressed to %" PRId64 " in chunks of %" PRId64 "\n", bytes, stored,
            header->chunk_bytes);
}

VlStatus vl_show_shard(const char *path, FILE *out) {
    VlShard *shard;
    int64_t samples[VL_MODAL_AUDIO + 1] = {0}, bytes = 0, stored = 0;
    VL_TRY(vl_shard_open(&shard, path));
    add_shard(shard, samples, &bytes, &stored);
    fprintf(out, "shard: %s\n", path);
    show_totals(vl_shard_header(shard), samples, vl_shard_header(shard)->media, bytes, stored, out);
    vl_shard_close(shard);
    return VL_OK;
}

VlStatus vl_show_packed(const char *folder, FILE *out) {
    VlPacked packed;
    int64_t samples[VL_MODAL_AUDIO + 1] = {0}, bytes = 0, stored = 0;
    VL_TRY(vl_packed_open(&packed, folder));
    for (int64_t i = 0; i < packed.shards; i++) add_shard(packed.shard[i], samples, &bytes, &stored);
    fprintf(out, "folder of %" PRId64 " shards: %s\n", packed.shards, folder);
    show_totals(vl_shard_header(packed.shard[0]), samples, packed.report.media, bytes, stored, out);
    fprintf(out, "left out: %" PRId64 " bad, %" PRId64 " with sound (see %s)\n", packed.report.bad,
            packed.report.unsupported, VL_PACK_QUARANTINE);
    vl_packed_close(&packed);
    return VL_OK;
}
