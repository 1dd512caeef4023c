// vl2: finds the sub-command, and is the one place that ends the process.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "train/signals.h"

typedef struct Command {
    const char *name, *about;
    VlStatus (*run)(int argc, char **argv);
    VlStatus (*run_on_ranks)(int argc, char **argv, VlComm *comm);
} Command;

static const Command commands[] = {
    {"world", "make a small world of moving, sounding shapes: videos, pictures, annotations", vl_cmd_world, NULL},
    {"pack", "annotations and media -> shards", vl_cmd_pack, NULL},
    {"plan", "memory and FLOPs of a configuration, before anything is allocated", vl_cmd_plan, NULL},
    {"train", "one stage of the recipe; under mpirun on several ranks", NULL, vl_cmd_train},
    {"generate", "answer a question about a video, a picture or a text", vl_cmd_generate, NULL},
    {"parity", "logits, loss, features and gradients, to hold against a reference", vl_cmd_parity, NULL},
    {"convert", "Hugging Face layout <-> checkpoint, and one model from parts", vl_cmd_convert, NULL},
    {"info", "what a model folder, checkpoint, run or shard holds", vl_cmd_info, NULL},
    {"show", "one packed sample as training sees it", vl_cmd_show, NULL},
    {"probe", "one step of preprocessing, seen from outside", vl_cmd_probe, NULL},
    {"report", "held-out results of several runs side by side", vl_cmd_report, NULL},
    {"bench", "timings of the machine, of training and of the data side", vl_cmd_bench, NULL},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_version(void) {
    printf("vl2 %s (backends: cpu%s; MPI: %s; media: %s; CUDA: %s)\n", VL_VERSION,
#ifdef VL_HAVE_CUDA
           ", cuda",
#else
           "",
#endif
#ifdef VL_HAVE_MPI
           "yes",
#else
           "no",
#endif
#ifdef VL_HAVE_MEDIA
           "yes",
#else
           "no",
#endif
#ifdef VL_HAVE_CUDA
           "yes"
#else
           "no"
#endif
    );
}

static void print_help(void) {
    printf("usage: vl2 COMMAND ...\n\nTrains and runs VideoLLaMA 2 models.\n\n");
    for (int i = 0; i < COMMANDS; i++) printf("  %-10s %s\n", commands[i].name, commands[i].about);
    printf("\n  --version  what is built in\n  --help     this text; vl2 COMMAND --help for a command's own\n");
}

static int exit_code(VlStatus status) {
    if (status == VL_OK) return 0;
    if (status == VL_USAGE) return 2;
    if (status == VL_INTERRUPTED) return vl_signals_pending() == SIGINT ? 130 : 143;
    return 1;
}

// One line for all ranks: the others give rank 0 the time to speak, and to end them, before they speak themselves.
static void report(VlStatus status, int64_t rank) {
    if (rank > 0) nanosleep(&(struct timespec){2, 0}, NULL);
    fprintf(stderr, "\rvl2: %s%s\n", status == VL_INTERRUPTED ? "" : "error: ", vl_error_text());
    if (getenv("VL2_TRACE")) fputs(vl_error_frames(), stderr);
    fflush(stderr);
}

static VlStatus unknown_command(const char *word) {
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    const char *nearest = vl_nearest_word(word, names, COMMANDS);
    return vl_error(VL_USAGE, "unknown command '%s'%s%s; see vl2 --help", word, nearest ? "; nearest: " : "",
                    nearest ? nearest : "");
}

static int run_on_ranks(const Command *command, int argc, char **argv) {
    VlComm *comm = NULL;
    VlStatus status = vl_signals_catch();
    if (status == VL_OK) status = vl_comm_open(&comm, 0);
    int64_t rank = comm ? vl_comm_rank(comm) : 0;
    vl_log_configure(VL_LOG_INFO, (int)rank);
    if (status == VL_OK) status = command->run_on_ranks(argc, argv, comm);
    if (status == VL_INTERRUPTED) {  // every rank leaves in the same way
        if (rank == 0) report(status, 0);
        vl_comm_close(comm);
    } else if (status != VL_OK) {
        report(status, rank);
        vl_comm_abort(comm, exit_code(status));
        vl_comm_close(comm);  // one rank is still here
    } else {
        vl_comm_close(comm);
    }
    return exit_code(status);
}

// Threads that wait for one another by spinning slow ranks down many times over that share their processors; threads
// that sleep at once wait for the kernel a thousand times a step, and on a virtual machine, whose idle processor is
// given to others, far longer. So they spin for a while, then sleep: ranks for as long as being woken takes, some
// 100 us, a process of its own for some 10 ms. The OpenMP library reads its policy when it is loaded: so set it, unless
// the user has, and begin again.
static void wait_briefly(char **argv) {
    const char *spins = vl_comm_launched() ? "3000" : "300000";
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    if (setenv("OMP_WAIT_POLICY", "passive", 1) == 0 && setenv("GOMP_SPINCOUNT", spins, 1) == 0) {
        execv("/proc/self/exe", argv);
    }
}

int main(int argc, char **argv) {
    wait_briefly(argv);
    const char *fault = getenv("VL2_FAULT");
    if (fault) vl_fault_arm(strtoll(fault, NULL, 10));
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        print_version();
        return 0;
    }
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        if (commands[i].run_on_ranks) return run_on_ranks(&commands[i], argc - 2, argv + 2);
        VlStatus status = commands[i].run(argc - 2, argv + 2);
        if (fflush(stdout) != 0 && status == VL_OK) status = vl_error(VL_IO, "cannot write to standard output");
        if (status != VL_OK) report(status, 0);
        return exit_code(status);
    }
    VlStatus status = unknown_command(argv[1]);
    report(status, 0);
    return exit_code(status);
}
