#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "train/heldout_report.h"

enum { MOST_RUNS = 64 };

VlStatus vl_cmd_report(int argc, char **argv) {
    int64_t runs;
    bool help;
    char *text;
    VlCommand command = {"report",
                         "Prints the held-out results of the output folders of several runs side by side, by group of "
                         "kinds of questions.",
                         "RUN ...",
                         1,
                         MOST_RUNS,
                         0,
                         NULL};
    VL_TRY(vl_options_parse(&command, argc, argv, &runs, &help));
    if (help) return VL_OK;
    VL_TRY(vl_heldout_report(runs, (const char *const *)argv, &text));
    fputs(text, stdout);
    free(text);
    return VL_OK;
}
