#include "train/convert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "train/convert_source.h"
#include "train/convert_stream.h"
#include "train/convert_write.h"

// ---- Comparing --------------------------------------------------------------------

// What both sides have, tensor by tensor. `what` says what is wrong with tensor i; NULL: nothing so far.
typedef struct Comparison {
    const VlConvertSource *mine, *theirs;
    const VlConvertTensor **others;
    const char **what;
    bool *differs;
    char (*hashes)[VL_HASH_TEXT];
} Comparison;

static void compare_headers(Comparison *comparison) {
    for (int64_t i = 0; i < comparison->mine->count; i++) {
        const VlConvertTensor *tensor = &comparison->mine->tensors[i];
        const VlConvertTensor *other = vl_convert_source_find(comparison->theirs, tensor->name);
        if (!other) {
            comparison->what[i] = "is missing";
        } else if (!vl_same_shape(tensor->shape, other->shape) || tensor->scalar != other->scalar) {
            comparison->what[i] = "has another shape";
        } else if (tensor->to != other->shape.dtype) {
            comparison->what[i] = "has another type";
        } else {
            comparison->others[i] = other;
        }
    }
}

// A tensor of theirs that is none of mine; *count of them.
static const char *find_additional(const Comparison *comparison, int64_t *count) {
    const char *first = NULL;
    *count = 0;
    for (int64_t i = 0; i < comparison->theirs->count; i++) {
        const char *name = comparison->theirs->tensors[i].name;
        if (vl_convert_source_find(comparison->mine, name)) continue;
        if (!first) first = name;
        ++*count;
    }
    return first;
}

static VlStatus judge(const Comparison *comparison, const char *to) {
    int64_t wrong = 0, additional = 0, first = -1;
    for (int64_t i = 0; i < comparison->mine->count; i++) {
        const VlConvertTensor *other = comparison->others[i];
        if (comparison->differs[i]) comparison->what[i] = "holds other values";
        if (!comparison->what[i] && other && other->hash && strcmp(other->hash, comparison->hashes[i]) != 0)
            comparison->what[i] = "does not match the hash in its table";
        if (!comparison->what[i]) continue;
        wrong++;
        if (first < 0) first = i;
    }
    const char *name = find_additional(comparison, &additional);
    if (wrong + additional == 0) return VL_OK;
    return vl_error(VL_FORMAT,
                    "%s: tensor %s %s; %" PRId64 " of %" PRId64 " tensors differ, %" PRId64 " are additional", to,
                    first >= 0 ? comparison->mine->tensors[first].name : name,
                    first >= 0 ? comparison->what[first] : "is additional", wrong, comparison->mine->count, additional);
}

static VlStatus read_document(const VlConvertDocument *document, char **text, int64_t *size) {
    enum { LIMIT = 1 << 30 };
    if (!document->text) return vl_read_file(document->path, LIMIT, text, size);
    *size = (int64_t)strlen(document->text);
    return vl_duplicate_string(text, document->text);
}

static VlStatus compare_documents(const VlConvertSource *mine, const VlConvertSource *theirs, const char *to) {
    for (int64_t i = 0; i < mine->documents; i++) {
        const VlConvertDocument *other = vl_convert_source_find_document(theirs, mine->document[i].name);
        char *a = NULL, *b = NULL;
        int64_t a_size = 0, b_size = 0;
        if (!other) return vl_error(VL_FORMAT, "%s: the file %s is missing", to, mine->document[i].name);
        VlStatus status = read_document(&mine->document[i], &a, &a_size);
        if (status == VL_OK) status = read_document(other, &b, &b_size);
        if (status == VL_OK && (a_size != b_size || memcmp(a, b, (size_t)a_size) != 0))
            status = vl_error(VL_FORMAT, "%s: the file %s differs", to, mine->document[i].name);
        vl_free(a);
        vl_free(b);
        VL_TRY(status);
    }
    return VL_OK;
}

static VlStatus compare(const VlConvertSource *mine, const VlConvertSource *theirs, const char *to,
                        char (*hashes)[VL_HASH_TEXT]) {
    Comparison comparison = {.mine = mine, .theirs = theirs, .hashes = hashes};
    VlStatus status;
    VL_TRY_GOTO(status, VL_NEW(&comparison.others, mine->count), done);
    VL_TRY_GOTO(status, VL_NEW(&comparison.what, mine->count), done);
    VL_TRY_GOTO(status, VL_NEW(&comparison.differs, mine->count), done);
    compare_headers(&comparison);
    VL_TRY_GOTO(status,
                vl_convert_stream(&(VlConvertStream){
                    .source = mine, .others = comparison.others, .hashes = hashes, .differs = comparison.differs}),
                done);
    VL_TRY_GOTO(status, judge(&comparison, to), done);
    status = compare_documents(mine, theirs, to);
done:
    vl_free(comparison.others);
    vl_free(comparison.what);
    vl_free(comparison.differs);
    return status;
}

static VlStatus compare_with(const VlConvertSource *mine, const char *to, char (*hashes)[VL_HASH_TEXT]) {
    VlConvertSource *theirs;
    VL_TRY(VL_NEW(&theirs, 1));
    VlStatus status = vl_convert_source_open(theirs, to);
    if (status == VL_OK) status = compare(mine, theirs, to, hashes);
    vl_convert_source_close(theirs);
    vl_free(theirs);
    return status;
}

// ---- The report -------------------------------------------------------------------

typedef struct Line {
    const VlConvertTensor *tensor;
    const char *hash;
} Line;

static int compare_lines(const void *a, const void *b) {
    return strcmp(((const Line *)a)->tensor->name, ((const Line *)b)->tensor->name);
}

static VlTensor as_sent(const VlConvertTensor *tensor) {
    VlTensor shape = tensor->shape;
    shape.dtype = tensor->to;
    return shape;
}

// "name bf16 [4096,32] hash", the line of a tensor under the hash of all.
static void print_line(char *text, size_t size, const Line *line) {
    int used = snprintf(text, size, "%s %s [", line->tensor->name, vl_dtype_name(line->tensor->to));
    const VlTensor shape = line->tensor->shape;
    for (int32_t i = 0; !line->tensor->scalar && i < shape.dims && used < (int)size; i++)
        used += snprintf(text + used, size - (size_t)used, "%s%" PRId64, i ? "," : "", shape.dim[i]);
    if (used < (int)size) snprintf(text + used, size - (size_t)used, "] %s\n", line->hash);
}

static VlStatus report_on(const VlConvertSource *source, char (*hashes)[VL_HASH_TEXT], VlConvertReport *report,
                          VlConvertVisit visit, void *user) {
    enum { LINE = 2048 };
    Line *lines;
    char *text = NULL;
    int64_t capacity = 0, used = 0;
    VL_TRY(VL_NEW(&lines, source->count));
    for (int64_t i = 0; i < source->count; i++) lines[i] = (Line){&source->tensors[i], hashes[i]};
    if (source->count) qsort(lines, (size_t)source->count, sizeof *lines, compare_lines);
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < source->count && status == VL_OK; i++) {
        const VlConvertTensor *tensor = lines[i].tensor;
        status = vl_reserve(&text, &capacity, used + LINE, 1);
        if (status != VL_OK) break;
        print_line(text + used, LINE, &lines[i]);
        used += (int64_t)strlen(text + used);
        report->tensors++;
        report->bytes += vl_bytes(as_sent(tensor));
        if (visit) visit(user, tensor->name, as_sent(tensor), tensor->scalar, lines[i].hash);
    }
    if (status == VL_OK) vl_hash_bytes(text ? text : "", used, report->hash);
    vl_free(text);
    vl_free(lines);
    return status;
}

// ---- All of it -------------------------------------------------------------------

static bool has_parts(const VlConvertOptions *options) {
    return !options->from || options->audio || options->audio_projector;
}

static VlStatus open_source(VlConvertSource *source, const VlConvertOptions *options) {
    if (!options->from) return vl_convert_source_compose(source, options);
    VL_TRY(vl_convert_source_open(source, options->from));
    return has_parts(options) ? vl_convert_source_add_audio(source, options) : VL_OK;
}

static VlStatus convert(const VlConvertOptions *options, const VlConvertSource *source, bool exists,
                        char (*hashes)[VL_HASH_TEXT], VlConvertReport *report) {
    VlConvertFormat format = options->format;
    if (format == VL_CONVERT_OTHER)
        format = source->checkpoint || has_parts(options) ? VL_CONVERT_HF : VL_CONVERT_CHECKPOINT;
    if (!exists) {
        VL_TRY(vl_convert_write(source, options->to, format, options->shard_bytes, hashes));
        report->written = true;
    }
    if (options->verify) {
        VL_TRY(compare_with(source, options->to, hashes));
        report->compared = true;
    }
    return VL_OK;
}

VlStatus vl_convert_model(const VlConvertOptions *options, VlConvertReport *report, VlConvertVisit visit, void *user) {
    VlConvertSource *source = NULL;
    char(*hashes)[VL_HASH_TEXT] = NULL;
    bool exists = vl_path_exists(options->to);
    *report = (VlConvertReport){0};
    if (exists && !options->verify) {
        return vl_error(VL_INVALID, "%s exists; it is not overwritten (--verify compares it with what would be made)",
                        options->to);
    }
    VlStatus status;
    VL_TRY_GOTO(status, VL_NEW(&source, 1), done);
    VL_TRY_GOTO(status, open_source(source, options), done);
    if (options->cast) VL_TRY_GOTO(status, vl_convert_source_cast(source, options->dtype), done);
    VL_TRY_GOTO(status, VL_NEW(&hashes, source->count), done);
    VL_TRY_GOTO(status, convert(options, source, exists, hashes, report), done);
    status = report_on(source, hashes, report, visit, user);
done:
    if (source) vl_convert_source_close(source);
    vl_free(source);
    vl_free(hashes);
    return status;
}
