#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static VlLogLevel sink_level = VL_LOG_INFO;
static int sink_rank = 0;
static bool progress_shown = false;

void vl_log_configure(VlLogLevel level, int rank) {
    pthread_mutex_lock(&sink_lock);
    sink_level = level;
    sink_rank = rank;
    pthread_mutex_unlock(&sink_lock);
}

static void end_progress(void) {
    if (progress_shown) fputs("\r\033[K", stderr);
    progress_shown = false;
}

void vl_log(VlLogLevel level, const char *format, ...) {
    static const char *const prefixes[] = {"debug: ", "", "warning: ", "error: "};
    pthread_mutex_lock(&sink_lock);
    if (level >= sink_level && (sink_rank == 0 || level >= VL_LOG_WARNING)) {
        end_progress();
        if (sink_rank > 0) fprintf(stderr, "rank %d: ", sink_rank);
        fputs(prefixes[level], stderr);
        va_list arguments;
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
        fflush(stderr);
    }
    pthread_mutex_unlock(&sink_lock);
}

bool vl_log_is_terminal(void) { return isatty(STDERR_FILENO) != 0; }

void vl_log_progress(const char *format, ...) {
    if (!vl_log_is_terminal()) return;
    pthread_mutex_lock(&sink_lock);
    if (sink_rank == 0 && sink_level <= VL_LOG_INFO) {
        end_progress();
        va_list arguments;
        va_start(arguments, format);
        progress_shown = vfprintf(stderr, format, arguments) > 0;
        va_end(arguments);
        fflush(stderr);
    }
    pthread_mutex_unlock(&sink_lock);
}
