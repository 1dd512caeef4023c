#include <math.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "data/conversation.h"
#include "data/fbank.h"
#include "data/pack_manifest.h"

// One shard on its way through a thread.
typedef struct Check {
    VlTask task;
    const char *folder;
    const VlPackShard *shard;
} Check;

static VlStatus check_text(const VlShard *shard, int64_t row, const char *text, int64_t length) {
    json_t *record;
    VlConversation conversation = {0};
    VL_TRY(vl_json_parse(text, length, "its text record", &record));
    VlStatus status = vl_conversation_from_json(&conversation, record, "its text record");
    bool heard = vl_shard_rows(shard, row) > 0;
    if (!status && ((int32_t)conversation.modal != vl_shard_row(shard, row)->modality ||
                    vl_conversation_is_heard(&conversation) != heard)) {
        status = vl_error(VL_FORMAT, "its text record and the index name different modalities");
    }
    vl_conversation_free(&conversation);
    json_decref(record);
    return status;
}

static VlStatus check_bank(const float *fbank, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(fbank[i])) return vl_error(VL_FORMAT, "its filter bank holds a value that is not finite");
    }
    return VL_OK;
}

static VlStatus check_records(const VlShard *shard) {
    VlShardScratch scratch = {0};
    VlStatus status = VL_OK;
    for (int64_t row = 0; !status && row < vl_shard_header(shard)->samples; row++) {
        VlShardRecord record;
        status = vl_shard_read(shard, row, &scratch, true, &record);
        if (status) break;
        status = check_text(shard, row, record.text, record.length);
        if (!status) status = check_bank(record.fbank, vl_shard_rows(shard, row) * VL_FBANK_BINS);
        if (status) vl_error_context(status, "shard %s, sample %lld", vl_shard_path(shard), (long long)row);
        vl_shard_record_free(&record);
    }
    vl_shard_scratch_free(&scratch);
    return status;
}

static VlStatus check_shard(void *argument) {
    Check *check = argument;
    VlShard *shard;
    char path[VL_PATH_MAX];
    int64_t size;
    uint32_t crc;
    VL_TRY(vl_path_join(path, check->folder, check->shard->name));
    VL_TRY(vl_pack_file_checksum(path, &size, &crc));
    if (size != check->shard->file_bytes || crc != check->shard->crc32c) {
        return vl_error(
            VL_FORMAT,
            "shard %s: %lld bytes with checksum %08x, but %lld bytes with %08x were packed: it is damaged; remove "
            "it and pack again",
            path, (long long)size, crc, (long long)check->shard->file_bytes, check->shard->crc32c);
    }
    VL_TRY(vl_shard_open(&shard, path));
    VlStatus status = check_records(shard);
    vl_shard_close(shard);
    return status;
}

static VlStatus check_all(const VlPackManifest *manifest, const char *folder, VlPool *pool, Check *checks) {
    if (!manifest->complete) {
        return vl_error(VL_FORMAT, "%s is not packed to its end: run vl2 pack again, it goes on where it stopped",
                        folder);
    }
    for (int64_t i = 0; i < manifest->shards; i++) {
        checks[i] = (Check){.task = {.run = check_shard, .argument = &checks[i]}, .folder = folder};
        checks[i].shard = &manifest->shard[i];
        vl_pool_submit(pool, &checks[i].task, false);
    }
    for (int64_t i = 0; i < manifest->shards; i++) VL_TRY(vl_pool_wait(pool, &checks[i].task));
    return VL_OK;
}

VlStatus vl_pack_check(const char *folder, int64_t threads, VlPackReport *report) {
    VlPackManifest manifest;
    VlPool *pool = NULL;
    Check *checks = NULL;
    VlStatus status;
    *report = (VlPackReport){0};
    VL_TRY(vl_pack_manifest_load(&manifest, folder));
    *report = manifest.report;
    VL_TRY_GOTO(status, VL_NEW(&checks, manifest.shards), done);
    VL_TRY_GOTO(status, vl_pool_open(&pool, threads), done);
    VL_TRY_GOTO(status, check_all(&manifest, folder, pool, checks), done);
done:
    vl_pool_close(pool);
    vl_free(checks);
    vl_pack_manifest_free(&manifest);
    return status;
}
