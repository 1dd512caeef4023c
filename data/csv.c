#include "data/csv.h"

#include "base/files.h"
#include "base/memory.h"

enum { PIECE = 1 << 16, ROW_LIMIT = 64 << 20, CELLS_LIMIT = 1000, END = -1 };

struct VlCsv {
    VlReader reader;
    char *buffer;  // [PIECE]: the bytes [base, base + used) of the file
    int64_t base, used, position;
    int64_t row, line;          // where `position` is, counted from 1
    int64_t row_line;           // where the present row began
    VlText text;                // the row's cells, one behind the other
    int64_t ends[CELLS_LIMIT];  // cell i ends at ends[i]
    int64_t cells;
    VlSpan cell[CELLS_LIMIT];
};

static VlStatus row_error(const VlCsv *csv, const char *what) {
    return vl_error(VL_FORMAT, "%s: row %lld (line %lld): %s", csv->reader.path, (long long)csv->row,
                    (long long)csv->row_line, what);
}

// *byte = the next one, END behind the file.
static VlStatus peek(VlCsv *csv, int *byte) {
    *byte = END;
    if (csv->position >= csv->reader.size) return VL_OK;
    if (csv->position >= csv->base + csv->used) {
        int64_t left = csv->reader.size - csv->position;
        csv->base = csv->position;
        csv->used = left < PIECE ? left : PIECE;
        VL_TRY(vl_reader_read(&csv->reader, csv->base, csv->buffer, csv->used));
    }
    *byte = (unsigned char)csv->buffer[csv->position - csv->base];
    return VL_OK;
}

static VlStatus take(VlCsv *csv, int *byte) {
    VL_TRY(peek(csv, byte));
    if (*byte != END) csv->position++;
    if (*byte == '\n') csv->line++;
    return VL_OK;
}

static VlStatus append(VlCsv *csv, int byte) {
    char single = (char)byte;
    if (byte == 0) return row_error(csv, "a zero byte; this is no text file");
    if (csv->text.length >= ROW_LIMIT) {
        return row_error(csv, "it is larger than 64 MiB; is a closing quote missing?");
    }
    return vl_text_append(&csv->text, vl_span(&single, 1));
}

// `byte` is behind a cell. *last = the row ends with it.
static VlStatus end_cell(VlCsv *csv, int byte, bool *last) {
    int64_t begin = csv->cells ? csv->ends[csv->cells - 1] : 0;
    VlSpan cell = vl_span(vl_text_span(&csv->text).data + begin, csv->text.length - begin);
    if (csv->cells == CELLS_LIMIT) return row_error(csv, "it has more than 1000 cells");
    if (vl_utf8_valid_length(cell) < cell.length) {
        return row_error(csv, "it is not UTF-8; save the table as 'CSV UTF-8'");
    }
    csv->ends[csv->cells++] = csv->text.length;
    *last = byte != ',';
    int next;
    if (byte != '\r') return VL_OK;
    VL_TRY(peek(csv, &next));
    if (next == '\n') return take(csv, &next);
    csv->line++;
    return VL_OK;
}

static bool ends_cell(int byte) { return byte == ',' || byte == '\n' || byte == '\r' || byte == END; }

// A cell whose opening quote is taken; *byte = what is behind the closing one.
static VlStatus read_quoted(VlCsv *csv, int *byte) {
    for (;;) {
        VL_TRY(take(csv, byte));
        if (*byte == END) return row_error(csv, "a cell begins with a quote and has no closing one");
        if (*byte == '"') {
            VL_TRY(take(csv, byte));
            if (ends_cell(*byte)) return VL_OK;
            if (*byte != '"') {
                return row_error(csv, "text behind a closing quote; a quote in a cell is written twice: \"\"");
            }
        }
        VL_TRY(append(csv, *byte));
    }
}

static VlStatus read_plain(VlCsv *csv, int *byte) {
    while (!ends_cell(*byte)) {
        if (*byte == '"') {
            return row_error(csv,
                             "a quote inside a cell; put the whole cell in quotes and write each quote in it twice");
        }
        VL_TRY(append(csv, *byte));
        VL_TRY(take(csv, byte));
    }
    return VL_OK;
}

static VlStatus read_row(VlCsv *csv) {
    int byte;
    bool last = false;
    csv->text.length = csv->cells = 0;
    csv->row_line = csv->line;
    while (!last) {
        VL_TRY(take(csv, &byte));
        VL_TRY(byte == '"' ? read_quoted(csv, &byte) : read_plain(csv, &byte));
        VL_TRY(end_cell(csv, byte, &last));
    }
    return VL_OK;
}

static VlStatus skip_empty_lines(VlCsv *csv) {
    int byte;
    for (;;) {
        VL_TRY(peek(csv, &byte));
        if (byte != '\n' && byte != '\r') return VL_OK;
        bool last;
        VL_TRY(take(csv, &byte));
        csv->text.length = csv->cells = 0;
        VL_TRY(end_cell(csv, byte, &last));
        csv->row++;
    }
}

VlStatus vl_csv_next(VlCsv *csv, VlCsvRow *row) {
    *row = (VlCsvRow){0};
    VL_TRY(skip_empty_lines(csv));
    if (csv->position >= csv->reader.size) return VL_OK;
    int64_t offset = csv->position;
    VL_TRY(read_row(csv));
    for (int64_t i = 0, begin = 0; i < csv->cells; begin = csv->ends[i++]) {
        csv->cell[i] = vl_span(vl_text_span(&csv->text).data + begin, csv->ends[i] - begin);
    }
    *row = (VlCsvRow){csv->row++, offset, csv->position - offset, csv->cells, csv->cell};
    return VL_OK;
}

static VlStatus skip_mark(VlCsv *csv) {
    char mark[3] = "";
    if (csv->reader.size >= 3) VL_TRY(vl_reader_read(&csv->reader, 0, mark, 3));
    if (!memcmp(mark, "\xef\xbb\xbf", 3)) csv->position = 3;
    if (memcmp(mark, "\xff\xfe", 2) && memcmp(mark, "\xfe\xff", 2)) return VL_OK;
    return vl_error(VL_FORMAT, "%s is UTF-16; save the table as 'CSV UTF-8'", csv->reader.path);
}

VlStatus vl_csv_open(VlCsv **out, const char *path) {
    VlCsv *csv;
    VlStatus status;
    VL_TRY(VL_NEW(&csv, 1));
    csv->row = csv->line = 1;
    VL_TRY_GOTO(status, vl_reader_open(&csv->reader, path), failed);
    VL_TRY_GOTO(status, VL_NEW(&csv->buffer, PIECE), failed);
    VL_TRY_GOTO(status, skip_mark(csv), failed);
    *out = csv;
    return VL_OK;
failed:
    vl_csv_close(csv);
    return status;
}

const char *vl_csv_path(const VlCsv *csv) { return csv->reader.path; }

void vl_csv_close(VlCsv *csv) {
    if (!csv) return;
    vl_reader_close(&csv->reader);
    vl_free(csv->buffer);
    vl_text_free(&csv->text);
    vl_free(csv);
}
