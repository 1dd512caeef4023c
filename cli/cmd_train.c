#include <stdio.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "train/trainer.h"

VlStatus vl_cmd_train(int argc, char **argv, VlComm *comm) {
    VlConfig config;
    bool help, keys = false;
    int64_t positional;
    VlOption option[] = {
        {"keys", VL_OPTION_FLAG, &keys, NULL, "the keys of the configuration, their defaults and meaning", false}};
    VlCommand command = {"train",
                         "Trains one stage. A run whose output folder holds checkpoints continues from the newest one; "
                         "mpirun -n N vl2 train ... trains on N ranks.",
                         "CONFIG [key=value ...]",
                         0,
                         1000,
                         1,
                         option};
    VL_TRY(vl_options_parse(&command, argc, argv, &positional, &help));
    if (help || keys) {
        if (keys && vl_comm_rank(comm) == 0) vl_config_help(stdout);
        return VL_OK;
    }
    if (positional < 1) return vl_error(VL_USAGE, "vl2 train needs a configuration file; see vl2 train --help");
    VL_TRY(vl_config_load(&config, argv[0], positional - 1, (const char *const *)(argv + 1)));
    VlStatus status = vl_train(&config, comm);
    vl_config_free(&config);
    return status;
}
