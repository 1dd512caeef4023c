// The sub-commands of vl2. Each takes the words behind its name. Results go to standard output, everything else to the
// log.
#ifndef VL_CLI_COMMANDS_H
#define VL_CLI_COMMANDS_H

#include "dist/comm.h"

// Those that run on several ranks.
VlStatus vl_cmd_train(int argc, char **argv, VlComm *comm);

VlStatus vl_cmd_pack(int argc, char **argv);
VlStatus vl_cmd_plan(int argc, char **argv);
VlStatus vl_cmd_generate(int argc, char **argv);
VlStatus vl_cmd_parity(int argc, char **argv);
VlStatus vl_cmd_convert(int argc, char **argv);
VlStatus vl_cmd_info(int argc, char **argv);
VlStatus vl_cmd_show(int argc, char **argv);
VlStatus vl_cmd_probe(int argc, char **argv);
VlStatus vl_cmd_world(int argc, char **argv);
VlStatus vl_cmd_report(int argc, char **argv);
VlStatus vl_cmd_bench(int argc, char **argv);

#endif
