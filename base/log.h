// Log lines on standard error. The one sink of the program: everything that is not a command's result goes here.
#ifndef VL_BASE_LOG_H
#define VL_BASE_LOG_H

#include <stdbool.h>

typedef enum VlLogLevel { VL_LOG_DEBUG, VL_LOG_INFO, VL_LOG_WARNING, VL_LOG_ERROR } VlLogLevel;

// Lines below `level` are dropped. Default: VL_LOG_INFO. Rank > 0 shows warnings only, with its number in front.
void vl_log_configure(VlLogLevel level, int rank);
void vl_log(VlLogLevel level, const char *format, ...) __attribute__((format(printf, 2, 3)));

// A progress bar: on a terminal one line that is redrawn, elsewhere nothing. Text without a newline; "" ends it.
void vl_log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool vl_log_is_terminal(void);

#endif
