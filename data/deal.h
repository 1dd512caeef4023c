// Who works on which sample of a batch.
#ifndef VL_DATA_DEAL_H
#define VL_DATA_DEAL_H

#include <stdint.h>

#include "base/status.h"

// The predicted cost of training on a sequence, in units of its own: linear work per token, and attention that grows
// with the square. 0 <= tokens < 2^31.
int64_t vl_deal_cost(int64_t tokens);

// rank[i] in [0, ranks) for each of `count` samples: the costliest first, each to the rank with the least cost so far
// (ties: the lower sample, the lower rank). The greatest sum is at most 4/3 of the best possible (Graham, "Bounds on
// multiprocessing timing anomalies", 1969). A pure function of its arguments, so that every rank computes the same.
VlStatus vl_deal(const int64_t *cost, int64_t count, int64_t ranks, int64_t *rank);

#endif
