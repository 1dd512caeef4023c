// Temporaries, as in ops/scratch.h, of the rows that move rows by index.
#ifndef VL_OPS_SCRATCH_ROWS_H
#define VL_OPS_SCRATCH_ROWS_H

#include "ops/context.h"

// gather_rows_backward from N rows to M places: where each row's places begin (i64 [N+1]), and the places by row
// (i64 [M]).
VlStatus vl_scratch_gather_rows(VlContext *context, VlTensor *begin, VlTensor *places, int64_t rows, int64_t count);

// splice of T rows: which rows of text and media have been used (u8 [T]).
VlStatus vl_scratch_splice(VlContext *context, VlTensor *used, int64_t rows);

#endif
