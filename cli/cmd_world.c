#include <inttypes.h>
#include <stdio.h>

#include "base/pool.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "data/world.h"

VlStatus vl_cmd_world(int argc, char **argv) {
    const char *folder = NULL;
    VlWorldOptions options = {.seed = 1, .samples = 2000, .heldout = 800, .threads = vl_cpu_count()};
    VlWorldReport report;
    bool help;
    VlOption option[] = {
        {"out", VL_OPTION_STRING, &folder, "DIR", "folder of the world", true},
        {"seed", VL_OPTION_INT64, &options.seed, "N", "another seed, another world (1)", false},
        {"samples", VL_OPTION_INT64, &options.samples, "N", "clips to train on; six times as many pictures (2000)",
         false},
        {"heldout", VL_OPTION_INT64, &options.heldout, "N", "questions held out (800)", false},
        {"threads", VL_OPTION_INT64, &options.threads, "N", "threads that render and encode (all cores)", false},
    };
    VlCommand command = {"world",
                         "Makes a small world of moving, sounding shapes: videos and pictures, LLaVA-style annotations "
                         "for every stage, held-out questions, and a model folder to be trained from nothing.",
                         NULL,
                         0,
                         0,
                         sizeof option / sizeof option[0],
                         option};
    VL_TRY(vl_options_parse(&command, argc, argv, NULL, &help));
    if (help) return VL_OK;
    VL_TRY(vl_world_make(folder, &options, &report));
    printf("%s: %" PRId64 " clips, %" PRId64 " pictures, %" PRId64 " sounds; samples: %" PRId64 " things, %" PRId64
           " warmup, %" PRId64 " texts, %" PRId64 " pretrain, %" PRId64 " finetune, %" PRId64
           " audio-pretrain, %" PRId64 " audio-finetune, %" PRId64 " joint, %" PRId64 " heldout; %" PRId64 " tokens\n",
           folder, report.clips, report.pictures, report.sounds, report.things, report.warmup, report.texts,
           report.pretrain, report.finetune, report.audio_pretrain, report.audio_finetune, report.joint, report.heldout,
           report.vocabulary);
    return VL_OK;
}
