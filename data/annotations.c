#include "data/annotations.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/memory.h"
#include "data/conversation.h"
#include "data/csv.h"

typedef enum Column { ID, KIND, VIDEO, IMAGE, AUDIO, SOUND, QUESTION, ANSWER, COLUMNS } Column;
static const char *const column_names[COLUMNS] = {"id",    "kind",  "video",    "image",
                                                  "audio", "sound", "question", "answer"};

struct VlAnnotations {
    VlJsonStream *stream;  // one of the two
    VlCsv *csv;
    int64_t place[COLUMNS];  // which cell of a row; -1: the table has no such column
    int64_t cells;           // of the header
    char problem[160];
};

// ---- Header ----------------------------------------------------------------

static VlStatus check_separator(const VlAnnotations *annotations, const VlCsvRow *header) {
    if (header->cells != 1 || header->cell[0].length == 0 || !strpbrk(header->cell[0].data, ";\t")) return VL_OK;
    return vl_error(VL_FORMAT, "%s: row 1: the columns are not separated by commas; save the table as 'CSV UTF-8'",
                    vl_csv_path(annotations->csv));
}

static VlStatus take_column(VlAnnotations *annotations, VlSpan name, int64_t place) {
    const char *path = vl_csv_path(annotations->csv);
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)(name.length < 60 ? name.length : 60), name.data);
    for (int i = 0; i < COLUMNS; i++) {
        if (!vl_span_equal(name, vl_span_string(column_names[i]))) continue;
        if (annotations->place[i] >= 0) {
            return vl_error(VL_FORMAT, "%s: row 1: the column '%s' stands there twice", path, column_names[i]);
        }
        annotations->place[i] = place;
        return VL_OK;
    }
    const char *nearest = vl_nearest_word(word, column_names, COLUMNS);
    return vl_error(VL_FORMAT,
                    "%s: row 1: the column '%s' is unknown%s%s; known are video, image, audio, sound, question, "
                    "answer, id, kind",
                    path, word, nearest ? "; nearest: " : "", nearest ? nearest : "");
}

static VlStatus read_header(VlAnnotations *annotations) {
    VlCsvRow header;
    VL_TRY(vl_csv_next(annotations->csv, &header));
    VL_TRY(check_separator(annotations, &header));
    for (int i = 0; i < COLUMNS; i++) annotations->place[i] = -1;
    for (int64_t i = 0; i < header.cells; i++) VL_TRY(take_column(annotations, header.cell[i], i));
    annotations->cells = header.cells;
    if (annotations->place[ANSWER] >= 0) return VL_OK;
    return vl_error(VL_FORMAT, "%s: %s; the first row names the columns, as in: video,question,answer",
                    vl_csv_path(annotations->csv), header.cells ? "there is no column 'answer'" : "it is empty");
}

// ---- Rows ------------------------------------------------------------------

static VlSpan cell_of(const VlAnnotations *annotations, const VlCsvRow *row, Column column) {
    int64_t place = annotations->place[column];
    return place < 0 || place >= row->cells ? vl_span("", 0) : row->cell[place];
}

static bool is_blank(VlSpan text) { return vl_span_strip(text).length == 0; }

// The column of the row's medium; ANSWER for text; COLUMNS for more than one.
static Column medium_of(const VlAnnotations *annotations, const VlCsvRow *row) {
    static const Column media[] = {VIDEO, IMAGE, AUDIO};
    Column found = ANSWER;
    for (int i = 0; i < 3; i++) {
        if (is_blank(cell_of(annotations, row, media[i]))) continue;
        found = found == ANSWER ? media[i] : COLUMNS;
    }
    return found;
}

static bool is_word(VlSpan cell, const char *word) {
    VlSpan stripped = vl_span_strip(cell);
    return stripped.length == (int64_t)strlen(word) && !strncasecmp(stripped.data, word, strlen(word));
}

// The row's own fault, in annotations->problem.
static bool find_problem(VlAnnotations *annotations, const VlCsvRow *row) {
    const char *what = NULL;
    if (row->cells != annotations->cells) {
        snprintf(annotations->problem, sizeof annotations->problem,
                 "it has %lld cells, and the header has %lld; cells that hold commas stand in quotes",
                 (long long)row->cells, (long long)annotations->cells);
        return true;
    }
    Column medium = medium_of(annotations, row);
    VlSpan sound = cell_of(annotations, row, SOUND);
    bool heard = is_word(sound, "yes");
    if (medium == COLUMNS) what = "it names more than one of video, image and audio; a sample has one medium";
    if (heard && medium != VIDEO) what = "its sound is 'yes', but it names no video";
    if (!heard && !is_word(sound, "no") && !is_blank(sound)) what = "its sound is neither 'yes' nor 'no'";
    if (is_blank(cell_of(annotations, row, ANSWER))) what = "its answer is empty";
    if (medium == ANSWER && is_blank(cell_of(annotations, row, QUESTION))) {
        what = "it has neither a medium nor a question";
    }
    if (what) snprintf(annotations->problem, sizeof annotations->problem, "%s", what);
    return what != NULL;
}

static int set_text(json_t *object, const char *key, VlSpan text) {
    return json_object_set_new(object, key, json_stringn(text.data, (size_t)text.length));
}

static VlStatus word_question(VlSpan question, VlModal modal, VlText *out) {
    const char *tag = vl_modal_tag(modal);
    if (tag && vl_span_find(question, vl_span_string(tag), 0) < 0) {
        VL_TRY(vl_text_append_string(out, tag));
        if (question.length > 0) VL_TRY(vl_text_append_string(out, "\n"));
    }
    return vl_text_append(out, question);
}

static json_t *turn(const char *from, VlSpan text) {
    return json_pack("{s:s,s:s%}", "from", from, "value", text.data, (size_t)text.length);
}

static VlStatus word_row(const VlAnnotations *annotations, const VlCsvRow *row, json_t *object) {
    VlText question = {0};
    Column medium = medium_of(annotations, row);
    VlModal modal = medium == VIDEO   ? VL_MODAL_VIDEO
                    : medium == IMAGE ? VL_MODAL_IMAGE
                    : medium == AUDIO ? VL_MODAL_AUDIO
                                      : VL_MODAL_TEXT;
    VlStatus status = word_question(cell_of(annotations, row, QUESTION), modal, &question);
    bool failed = false;
    if (modal != VL_MODAL_TEXT) failed = set_text(object, vl_modal_name(modal), cell_of(annotations, row, medium));
    if (is_word(cell_of(annotations, row, SOUND), "yes")) failed |= json_object_set_new(object, "va", json_true());
    if (annotations->place[KIND] >= 0) failed |= set_text(object, "kind", cell_of(annotations, row, KIND));
    failed |= json_object_set_new(
        object, "conversations",
        json_pack("[o,o]", turn("human", vl_text_span(&question)), turn("gpt", cell_of(annotations, row, ANSWER))));
    vl_text_free(&question);
    VL_TRY(status);
    return failed ? vl_error(VL_OUT_OF_MEMORY, "out of memory for a row of a table") : VL_OK;
}

static VlStatus next_row(VlAnnotations *annotations, VlAnnotation *annotation) {
    VlCsvRow row;
    char number[32];
    VL_TRY(vl_csv_next(annotations->csv, &row));
    if (row.cells == 0) return VL_OK;
    annotation->row = row.number;
    annotation->offset = row.offset;
    annotation->size = row.size;
    if (find_problem(annotations, &row)) annotation->problem = annotations->problem;
    snprintf(number, sizeof number, "row %lld", (long long)row.number);
    VlSpan id =
        annotation->problem && row.cells != annotations->cells ? vl_span("", 0) : cell_of(annotations, &row, ID);
    json_t *object = json_object();
    if (!object || set_text(object, "id", is_blank(id) ? vl_span_string(number) : id)) {
        json_decref(object);
        return vl_error(VL_OUT_OF_MEMORY, "out of memory for a row of a table");
    }
    VlStatus status = annotation->problem ? VL_OK : word_row(annotations, &row, object);
    if (status) {
        json_decref(object);
        return status;
    }
    annotation->object = object;
    return VL_OK;
}

// ---- The whole -------------------------------------------------------------

static bool is_table(const char *path) {
    size_t length = strlen(path);
    return length > 4 && !strcasecmp(path + length - 4, ".csv");
}

VlStatus vl_annotations_open(VlAnnotations **out, const char *path) {
    VlAnnotations *annotations;
    VL_TRY(VL_NEW(&annotations, 1));
    VlStatus status =
        is_table(path) ? vl_csv_open(&annotations->csv, path) : vl_json_stream_open(&annotations->stream, path);
    if (!status && annotations->csv) status = read_header(annotations);
    if (status) {
        vl_annotations_close(annotations);
        return status;
    }
    *out = annotations;
    return VL_OK;
}

VlStatus vl_annotations_next(VlAnnotations *annotations, VlAnnotation *annotation) {
    *annotation = (VlAnnotation){0};
    if (annotations->csv) return next_row(annotations, annotation);
    return vl_json_stream_next(annotations->stream, &annotation->object, &annotation->offset, &annotation->size);
}

void vl_annotations_close(VlAnnotations *annotations) {
    if (!annotations) return;
    vl_json_stream_close(annotations->stream);
    vl_csv_close(annotations->csv);
    vl_free(annotations);
}
