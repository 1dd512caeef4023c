#include "data/sample_read.h"

#include "base/json.h"
#include "base/memory.h"

int64_t vl_sample_media_tokens(const VlSampleRules *rules, VlModal modal, int64_t frames, int64_t rows) {
    return modal == VL_MODAL_TEXT ? 0 : rules->media_tokens(rules->media_tokens_user, modal, frames, rows);
}

static VlStatus take_text(const json_t *record, const VlShardRow *row, VlSample *sample, VlConversation *conversation) {
    const char *id = "", *kind = "", *name = "its text record";
    VL_TRY(vl_json_get_string(record, name, "id", true, &id));
    VL_TRY(vl_json_get_string(record, name, "kind", true, &kind));
    VL_TRY(vl_duplicate_string(&sample->id, id));
    VL_TRY(vl_duplicate_string(&sample->kind, kind));
    VL_TRY(vl_conversation_from_json(conversation, record, name));
    if ((int32_t)conversation->modal != row->modality || vl_conversation_is_heard(conversation) != (sample->rows > 0)) {
        return vl_error(VL_FORMAT, "its text record and the shard's index name different modalities: pack it again");
    }
    sample->modal = conversation->modal;
    return VL_OK;
}

// How many of `count` ids stay. The span of `media` tokens stands in the place of id number `place` (-1: there is
// none).
static VlStatus choose_length(const VlSampleRules *rules, int64_t count, int64_t place, int64_t media, int64_t *kept) {
    int64_t room = rules->max_tokens;
    if (rules->truncate_expanded && place >= 0) room -= media - 1;
    *kept = count < room ? count : room;
    if (place < *kept) return VL_OK;
    return vl_error(VL_INVALID,
                    "data.max_tokens is %lld, too few for the %lld tokens before its medium and the medium's own %lld",
                    (long long)rules->max_tokens, (long long)place, (long long)(rules->truncate_expanded ? media : 1));
}

static VlStatus take_prompt(const VlSampleRules *rules, const VlPrompt *prompt, VlSample *sample, bool *cut) {
    const VlTokenIds *ids = &prompt->input_ids;
    int64_t place = -1, kept = 0, wanted = sample->modal == VL_MODAL_TEXT ? 0 : 1;
    if (prompt->mismatch) return vl_error(VL_INVALID, "the token counts of its turns disagree with the whole prompt's");
    if (prompt->media != wanted || prompt->labels.count != ids->count) {
        return vl_error(VL_INVALID, "its prompt holds %lld media; %lld is needed", (long long)prompt->media,
                        (long long)wanted);
    }
    for (int64_t i = 0; i < ids->count; i++) {
        if (ids->ids[i] < 0) place = i;
    }
    int64_t media = vl_sample_media_tokens(rules, sample->modal, sample->frames, sample->rows);
    if (place >= 0 && media == 0) {
        return vl_error(VL_INVALID, "its %lld frames and %lld rows of sound give no token", (long long)sample->frames,
                        (long long)sample->rows);
    }
    VL_TRY(choose_length(rules, ids->count, place, media, &kept));
    VL_TRY(VL_NEW(&sample->ids, kept));
    VL_TRY(VL_NEW(&sample->labels, kept));
    for (int64_t i = 0; i < kept; i++) {
        sample->ids[i] = ids->ids[i];
        sample->labels[i] = prompt->labels.ids[i];
    }
    sample->tokens = kept;
    *cut = kept < ids->count;
    return VL_OK;
}

static VlStatus word(const VlShardRow *row, const VlSampleRules *rules, const char *text, int64_t length,
                     VlSample *sample, bool *cut) {
    json_t *record;
    VlConversation conversation = {0};
    VlPrompt prompt = {0};
    VL_TRY(vl_json_parse(text, length, "its text record", &record));
    VlStatus status = take_text(record, row, sample, &conversation);
    json_decref(record);
    if (!status) status = vl_prompt_make(rules->tokenizer, &rules->prompt, &conversation, &prompt);
    if (!status) status = take_prompt(rules, &prompt, sample, cut);
    vl_prompt_free(&prompt);
    vl_conversation_free(&conversation);
    return status;
}

VlStatus vl_sample_read(const VlShard *shard, int64_t index, const VlSampleRules *rules, VlShardScratch *scratch,
                        VlSample *sample, bool *cut) {
    const VlShardRow *row = vl_shard_row(shard, index);
    VlShardRecord record;
    *cut = false;
    VL_TRY(vl_shard_read(shard, index, scratch, true, &record));
    sample->pixels = record.pixels;
    sample->fbank = record.fbank;
    sample->frames = vl_shard_frames(shard, index);
    sample->rows = vl_shard_rows(shard, index);
    if (sample->frames) {
        sample->height = vl_shard_header(shard)->height;
        sample->width = vl_shard_header(shard)->width;
    }
    VlStatus status = word(row, rules, record.text, record.length, sample, cut);
    vl_free(record.text);
    VL_TRY_CONTEXT(status, "shard %s, sample %lld (annotation %lld)", vl_shard_path(shard), (long long)index,
                   (long long)row->number);
    return VL_OK;
}
