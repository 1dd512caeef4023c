#include "data/deal.h"

#include <stdlib.h>

#include "base/memory.h"

// From this length on, attention's products cost as much as all others, for a model of 7e9 parameters with 32 layers of
// width 4096: 2 * 7e9 against 2 * 32 * 4096 multiplications per token and token looked at.
enum { EVEN_LENGTH = 53248 };

int64_t vl_deal_cost(int64_t tokens) { return tokens * (EVEN_LENGTH + tokens); }

typedef struct Piece {
    int64_t cost, number;
} Piece;

static int compare_pieces(const void *a, const void *b) {
    const Piece *first = a, *second = b;
    if (first->cost != second->cost) return first->cost > second->cost ? -1 : 1;
    return first->number < second->number ? -1 : first->number > second->number;
}

VlStatus vl_deal(const int64_t *cost, int64_t count, int64_t ranks, int64_t *rank) {
    Piece *piece = NULL;
    int64_t *load = NULL;
    VlStatus status;
    VL_TRY_GOTO(status, VL_NEW(&piece, count), done);
    VL_TRY_GOTO(status, VL_NEW(&load, ranks), done);
    for (int64_t i = 0; i < count; i++) piece[i] = (Piece){cost[i], i};
    qsort(piece, (size_t)count, sizeof *piece, compare_pieces);
    for (int64_t i = 0; i < count; i++) {
        int64_t least = 0;
        for (int64_t r = 1; r < ranks; r++) {
            if (load[r] < load[least]) least = r;
        }
        load[least] += piece[i].cost;
        rank[piece[i].number] = least;
    }
done:
    vl_free(piece);
    vl_free(load);
    return status;
}
