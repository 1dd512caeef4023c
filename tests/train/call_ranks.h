// A program that trains, under mpirun.
#ifndef VL_TESTS_TRAIN_CALL_RANKS_H
#define VL_TESTS_TRAIN_CALL_RANKS_H

#include "tests/process.h"

// `count` ranks of a program that share `folder`, in `mode` (NULL: it has none): each must say that it is done. What
// they found within which distance is printed.
static inline void call_ranks(Process *process, double limit, const char *count, const char *program,
                              const char *folder, const char *mode) {
    int code = process_call(process, limit, "mpirun", "-n", count, "--oversubscribe", "--mca", "mpi_yield_when_idle",
                            "1", program, folder, mode);
    int done = occurrences(process->out, "rank done");
    if (code != 0 || done != atoi(count)) {
        fail_msg("%s ranks: exit code %d, %d done: %s%s", count, code, done, process->out, process->err);
    }
    for (char *rest = process->out, *line; (line = strsep(&rest, "\n"));) {
        if (strstr(line, "within")) print_message("%s ranks: %s\n", count, line);
    }
}

#endif
