// Temporaries, as in ops/scratch.h, of the rows that move rows by index.
#ifndef VL_OPS_SCRATCH_ROWS_H
#define VL_OPS_SCRATCH_ROWS_H

#include "ops/context.h"

// The places in an index of M that name each of N rows. loose and totals are for CUDA, elsewhere they are empty.
enum { VL_PLACES_TILE = 2048 };
typedef struct VlPlaces {
    VlTensor begin;   // i64 [N+1]: where each row's places begin
    VlTensor places;  // i64 [M]: those of row 0, in rising order, then those of row 1, ...
    VlTensor loose;   // i64 [M]: the same before each row's are in order
    VlTensor totals;  // i64 [(N+1) / VL_PLACES_TILE, rounded up]: of tiles of begin
} VlPlaces;
VlStatus vl_scratch_gather_rows(VlContext *context, VlPlaces *places, int64_t rows, int64_t count);

// embedding_backward of T tokens; on the CPU nothing. S is a power of 2 above 2T.
typedef struct VlEmbedding {
    VlTensor words;   // i64 [S]: a hash table of the words that occur, each plus 1; 0 is a free slot
    VlTensor slots;   // i64 [T]: where the table has each token's word
    VlPlaces places;  // in slots
} VlEmbedding;
VlStatus vl_scratch_embedding(VlContext *context, VlEmbedding *scratch, int64_t tokens);

#endif
