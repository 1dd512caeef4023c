#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char error_text[1024];
static _Thread_local char error_frames[2048];

// Formats into `out`, as one line without control characters, whatever a library's message or a file's name holds.
static void format_line(char *out, size_t size, const char *format, va_list arguments) {
    if (vsnprintf(out, size, format, arguments) < 0) out[0] = '\0';
    for (char *c = out; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
    }
}

VlStatus vl_error(VlStatus status, const char *format, ...) {
    char text[sizeof error_text];  // an argument may be the text of the error before
    va_list arguments;
    va_start(arguments, format);
    format_line(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(error_text, text, sizeof error_text);
    error_frames[0] = '\0';
    return status;
}

VlStatus vl_error_context(VlStatus status, const char *format, ...) {
    char context[512];
    va_list arguments;
    va_start(arguments, format);
    format_line(context, sizeof context, format, arguments);
    va_end(arguments);
    char joined[sizeof context + sizeof error_text + 2];
    snprintf(joined, sizeof joined, "%s: %s", context, error_text);
    joined[sizeof error_text - 1] = '\0';
    memcpy(error_text, joined, sizeof error_text);
    return status;
}

VlStatus vl_error_frame(VlStatus status, const char *function, const char *file, int line) {
    size_t used = strlen(error_frames);
    snprintf(error_frames + used, sizeof error_frames - used, "  %s (%s:%d)\n", function, file, line);
    return status;
}

const char *vl_error_text(void) { return error_text; }

const char *vl_error_frames(void) { return error_frames; }

void vl_error_clear(void) {
    error_text[0] = '\0';
    error_frames[0] = '\0';
}

VlError vl_error_take(VlStatus status) {
    VlError error = {.status = status};
    memcpy(error.text, error_text, sizeof error.text);
    vl_error_clear();
    return error;
}

VlStatus vl_error_raise(const VlError *error) { return vl_error(error->status, "%s", error->text); }

static int64_t edit_distance(const char *a, const char *b) {
    enum { LIMIT = 64 };
    size_t length_a = strlen(a), length_b = strlen(b);
    if (length_a >= LIMIT || length_b >= LIMIT) return INT64_MAX;
    int64_t row[LIMIT + 1];
    for (size_t j = 0; j <= length_b; j++) row[j] = (int64_t)j;
    for (size_t i = 1; i <= length_a; i++) {
        int64_t diagonal = row[0];
        row[0] = (int64_t)i;
        for (size_t j = 1; j <= length_b; j++) {
            int64_t above = row[j];
            int64_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best) best = above + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[length_b];
}

const char *vl_nearest_word(const char *word, const char *const *candidates, int64_t count) {
    const char *best = NULL;
    int64_t best_distance = (int64_t)strlen(word) / 2 + 1;
    for (int64_t i = 0; i < count; i++) {
        int64_t distance = edit_distance(word, candidates[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = candidates[i];
        }
    }
    return best;
}

_Noreturn void vl_assert_failed(const char *condition, const char *file, int line) {
    fprintf(stderr, "vl2: internal error: %s does not hold at %s:%d; please report this\n", condition, file, line);
    abort();
}
