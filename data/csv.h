// Rows of a table in comma-separated form (RFC 4180), one at a time: memory does not grow with the file.
//
// UTF-8, with or without a byte order mark. A row ends with LF, CRLF or CR; empty lines are skipped. A cell with a
// comma, a quote or a line break stands in quotes, quotes in it are doubled. What a spreadsheet would guess at is
// refused: a quote inside a cell that does not begin with one, text behind a closing quote, bytes that are no UTF-8.
#ifndef VL_DATA_CSV_H
#define VL_DATA_CSV_H

#include "data/text.h"

typedef struct VlCsv VlCsv;

typedef struct VlCsvRow {
    int64_t number;  // as a spreadsheet counts: the first row is 1, empty lines count, line breaks in cells do not
    int64_t offset, size;  // of its text in the file
    int64_t cells;         // 0: the table is at its end
    const VlSpan *cell;    // valid until the next call
} VlCsvRow;

// The owner closes it with vl_csv_close. Errors: VL_IO; VL_FORMAT for UTF-16.
VlStatus vl_csv_open(VlCsv **csv, const char *path);
// Errors: VL_IO; VL_FORMAT naming file, row and line (damaged quotes, not UTF-8, zero bytes, a row over 64 MiB or of
// more than 1000 cells).
VlStatus vl_csv_next(VlCsv *csv, VlCsvRow *row);
const char *vl_csv_path(const VlCsv *csv);
void vl_csv_close(VlCsv *csv);

#endif
