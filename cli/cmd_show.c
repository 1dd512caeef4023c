#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "data/show.h"
#include "train/micro_batch.h"
#include "train/model_source.h"

static VlStatus show(const char *path, int64_t number, const char *model, VlSampleRules *rules) {
    VlModelSource source;
    VlModelConfig config;
    VlTokenizer *tokenizer;
    VlShard *shard = NULL;
    VL_TRY(vl_model_source_open(&source, model, 0));
    VL_TRY(vl_model_config_load(&config, source.folder));
    if (source.frames > 0) config.num_frames = source.frames;
    VL_TRY(vl_tokenizer_load(&tokenizer, source.folder));
    rules->tokenizer = tokenizer;
    rules->media_tokens = vl_media_tokens_of_user;
    rules->media_tokens_user = &config;
    VlStatus status = vl_shard_open(&shard, path);
    if (status == VL_OK) status = vl_show_sample(shard, number, rules, isatty(STDOUT_FILENO) != 0, stdout);
    vl_shard_close(shard);
    vl_tokenizer_free(tokenizer);
    return status;
}

VlStatus vl_cmd_show(int argc, char **argv) {
    const char *model = NULL, *protocol = "vl2-av", *mode = "train-sft";
    bool help;
    int64_t positional;
    VlSampleRules rules = {.max_tokens = INT64_MAX, .truncate_expanded = true};
    const VlOption option[] = {
        {"model", VL_OPTION_STRING, &model, "DIR", "model folder, checkpoint or run, for the tokenizer", true},
        {"protocol", VL_OPTION_STRING, &protocol, "NAME", "vl2-av, vl2-main, vl2-2024-06 (vl2-av)", false},
        {"mode", VL_OPTION_STRING, &mode, "MODE", "train-plain or train-sft (train-sft)", false},
        {"max-tokens", VL_OPTION_INT64, &rules.max_tokens, "N", "cut as data.max_tokens does (not cut)", false}};
    const VlCommand command = {
        "show",
        "One packed sample as training sees it: text with the masked span marked, ids, labels, frames, sound, sizes.",
        "SHARD N",
        2,
        2,
        sizeof option / sizeof *option,
        option};
    VL_TRY(vl_options_parse(&command, argc, argv, &positional, &help));
    if (help) return VL_OK;
    char *end;
    int64_t number = strtoll(argv[1], &end, 10);
    if (*end || end == argv[1]) return vl_error(VL_USAGE, "vl2 show: '%s' is no sample's number", argv[1]);
    VL_TRY(vl_protocol_parse(&rules.prompt.protocol, protocol));
    VL_TRY(vl_prompt_mode_parse(&rules.prompt.mode, mode));
    return show(argv[0], number, model, &rules);
}
