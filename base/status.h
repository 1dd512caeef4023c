// Status codes and the text of the last error of a thread.
//
// A function that can fail returns a VlStatus. The one that finds the failure words it with vl_error():
// what, where, which values, and what to do. Callers hand it upwards with VL_TRY, and may put a context in front
// with VL_TRY_CONTEXT ("shard a.h5: ..."). Only cli/main.c prints the text and ends the process.
#ifndef VL_BASE_STATUS_H
#define VL_BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum VlStatus {
    VL_OK = 0,
    VL_USAGE,    // a wrong command line or configuration: exit code 2
    VL_INVALID,  // an argument or combination of values that cannot be honoured
    VL_OUT_OF_MEMORY,
    VL_IO,           // the operating system refused to open, read, write, ...
    VL_FORMAT,       // a file's content is damaged or not what it claims to be
    VL_UNSUPPORTED,  // well-formed, but not in this build or version
    VL_COMMUNICATION,
    VL_INTERRUPTED,  // SIGINT or SIGTERM: exit code 130 or 143
    VL_INTERNAL,     // our own bug
} VlStatus;

// An error as a value, to carry it from a worker thread to the one that reports it.
typedef struct VlError {
    VlStatus status;
    char text[1024];
} VlError;

// Sets this thread's error text (printf format) and returns `status`. One line; ends in a hint where one is known.
VlStatus vl_error(VlStatus status, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Puts "text: " in front of this thread's error text and returns `status`.
VlStatus vl_error_context(VlStatus status, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Records the place through which an error passes; shown with VL2_TRACE=1. Returns `status`.
VlStatus vl_error_frame(VlStatus status, const char *function, const char *file, int line);

// This thread's error text; "" when there was none. Valid until the thread's next error.
const char *vl_error_text(void);
// The frames that the error passed through, one a line, innermost first.
const char *vl_error_frames(void);
void vl_error_clear(void);

// Moves this thread's error into a value, and back into (another) thread. vl_error_raise returns the status.
VlError vl_error_take(VlStatus status);
VlStatus vl_error_raise(const VlError *error);

// The word nearest to `word` among `count` candidates by edit distance, or NULL when none is near. For hints.
const char *vl_nearest_word(const char *word, const char *const *candidates, int64_t count);

#define VL_TRY(expression)                                                   \
    do {                                                                     \
        VlStatus vl_status_ = (expression);                                  \
        if (vl_status_ != VL_OK) {                                           \
            return vl_error_frame(vl_status_, __func__, __FILE__, __LINE__); \
        }                                                                    \
    } while (0)

// Hands an error upwards with a context in front of its text.
#define VL_TRY_CONTEXT(expression, ...)                               \
    do {                                                              \
        VlStatus vl_status_ = (expression);                           \
        if (vl_status_ != VL_OK) {                                    \
            vl_error_frame(vl_status_, __func__, __FILE__, __LINE__); \
            return vl_error_context(vl_status_, __VA_ARGS__);         \
        }                                                             \
    } while (0)

// For functions with one clean-up label: stores the status in `status` and jumps. Clean-up code must not call
// functions that overwrite the error text (vl_free, fclose and the like do not).
#define VL_TRY_GOTO(status, expression, label)                      \
    do {                                                            \
        (status) = (expression);                                    \
        if ((status) != VL_OK) {                                    \
            vl_error_frame((status), __func__, __FILE__, __LINE__); \
            goto label;                                             \
        }                                                           \
    } while (0)

// For our own bugs only, never for bad input: prints the place and aborts.
#define VL_ASSERT(condition) ((condition) ? (void)0 : vl_assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void vl_assert_failed(const char *condition, const char *file, int line);

#endif
