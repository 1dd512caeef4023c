#include <inttypes.h>
#include <stdio.h>

#include "base/pool.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "data/pack.h"
#include "train/pack_sources.h"

static VlStatus check(const char *folder) {
    VlPackReport report;
    VL_TRY(vl_pack_check(folder, vl_cpu_count(), &report));
    printf("%s: %" PRId64 " samples in %" PRId64 " shards, every byte as it was written\n", folder, report.samples,
           report.shards);
    return VL_OK;
}

VlStatus vl_cmd_pack(int argc, char **argv) {
    VlConfig config;
    bool help;
    int64_t positional;
    const char *folder = NULL;
    VlOption option[] = {
        {"check", VL_OPTION_STRING, &folder, "DIR", "read every byte of a packed folder again", false}};
    VlCommand command = {
        "pack",
        "Packs the annotations and media of data.sources into shards. What is complete is left as it is; "
        "an interrupted pack continues.",
        "CONFIG [key=value ...]",
        0,
        1000,
        1,
        option};
    VL_TRY(vl_options_parse(&command, argc, argv, &positional, &help));
    if (help) return VL_OK;
    if (folder && positional > 0)
        return vl_error(VL_USAGE, "vl2 pack: --check DIR stands alone, without '%s'", argv[0]);
    if (folder) return check(folder);
    if (positional < 1) return vl_error(VL_USAGE, "vl2 pack needs a configuration file; see vl2 pack --help");
    VL_TRY(vl_config_load(&config, argv[0], positional - 1, (const char *const *)(argv + 1)));
    VlStatus status = vl_pack_sources(&config);
    vl_config_free(&config);
    return status;
}
