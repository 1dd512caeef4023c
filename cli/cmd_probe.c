#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/probe_audio.h"
#include "cli/probe_media.h"
#include "cli/probe_text.h"

static const struct {
    const char *name;
    VlStatus (*run)(int argc, char **argv);
} probes[] = {
    {"tokenize", vl_probe_tokenize}, {"detokenize", vl_probe_detokenize}, {"prompt", vl_probe_prompt},
    {"frames", vl_probe_frames},     {"image", vl_probe_image},           {"video", vl_probe_video},
    {"audio", vl_probe_audio},
};
enum { PROBES = sizeof probes / sizeof probes[0] };

VlStatus vl_cmd_probe(int argc, char **argv) {
    const char *names[PROBES];
    for (int i = 0; i < PROBES; i++) names[i] = probes[i].name;
    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        printf("usage: vl2 probe WHAT ...\n\nOne step of preprocessing, seen from outside:");
        for (int i = 0; i < PROBES; i++) printf(" %s", names[i]);
        printf(".\nvl2 probe WHAT --help tells more.\n");
        return VL_OK;
    }
    for (int i = 0; i < PROBES && argc > 0; i++) {
        if (strcmp(argv[0], names[i]) == 0) return probes[i].run(argc - 1, argv + 1);
    }
    const char *nearest = argc > 0 ? vl_nearest_word(argv[0], names, PROBES) : NULL;
    return vl_error(VL_USAGE,
                    "vl2 probe: '%s' is none of tokenize, detokenize, prompt, frames, image, video, audio%s%s",
                    argc > 0 ? argv[0] : "", nearest ? "; nearest: " : "", nearest ? nearest : "");
}
