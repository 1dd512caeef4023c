// Programs that a test starts: their exit code, their output, their time.
#ifndef VL_TESTS_PROCESS_H
#define VL_TESTS_PROCESS_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEST_SKIPPED = 77, PROCESS_TEXT = 1 << 16 };

typedef struct Process {
    pid_t pid;
    FILE *files[2];  // standard output, standard error
    double begin, seconds;
    char out[PROCESS_TEXT], err[PROCESS_TEXT];  // after process_finish; what is longer is cut
} Process;

static inline double process_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static inline void process_sleep(double seconds) {
    struct timespec time = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&time, NULL);
}

// Starts argv[0] (found in PATH) in a process group of its own. file_limit > 0: no file may grow beyond so many bytes;
// writes past it fail, as on a full disk.
static inline void process_start(Process *process, const char *const *argv, int64_t file_limit) {
    *process = (Process){.files = {tmpfile(), tmpfile()}, .begin = process_clock()};
    assert_true(process->files[0] && process->files[1]);
    fflush(NULL);
    process->pid = fork();
    assert_true(process->pid >= 0);
    if (process->pid > 0) return;
    setpgid(0, 0);
    dup2(fileno(process->files[0]), STDOUT_FILENO);
    dup2(fileno(process->files[1]), STDERR_FILENO);
    if (file_limit > 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)file_limit, (rlim_t)file_limit});
    }
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static inline void process_read(FILE *file, char *text) {
    rewind(file);
    size_t size = fread(text, 1, PROCESS_TEXT - 1, file);
    text[size] = '\0';
    fclose(file);
}

// Waits; the exit code, or 128 + the signal that ended it. After `limit` seconds, which are meant for a machine of
// one's own and last eight times as long on one that others load, the whole group is killed: -1.
static inline int process_finish(Process *process, double limit) {
    enum { PATIENCE = 8 };
    int state = 0;
    pid_t done = 0;
    while ((done = waitpid(process->pid, &state, WNOHANG)) == 0) {
        if (process_clock() - process->begin > PATIENCE * limit) break;
        process_sleep(0.005);
    }
    process->seconds = process_clock() - process->begin;
    if (done == 0) {
        kill(-process->pid, SIGKILL);
        waitpid(process->pid, &state, 0);
    }
    process_read(process->files[0], process->out);
    process_read(process->files[1], process->err);
    if (done == 0) return -1;
    return WIFSIGNALED(state) ? 128 + WTERMSIG(state) : WEXITSTATUS(state);
}

static inline int process_run(Process *process, double limit, const char *const *argv) {
    process_start(process, argv, 0);
    return process_finish(process, limit);
}
#define process_call(process, limit, ...) process_run((process), (limit), (const char *const[]){__VA_ARGS__, NULL})

// Whether a program is in PATH.
static inline bool process_exists(const char *name) {
    static Process process;
    char command[256];
    snprintf(command, sizeof command, "command -v %s", name);
    return process_call(&process, 10, "sh", "-c", command) == 0;
}

static inline int occurrences(const char *text, const char *word) {
    int count = 0;
    for (; (text = strstr(text, word)); text++) count++;
    return count;
}

static inline int count_lines(const char *text) {
    int lines = 0;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}

#endif
