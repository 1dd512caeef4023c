// The time of operations at the limits of a machine (Williams, Waterman, Patterson, "Roofline", 2009): each takes as
// long as its products or as moving all of its tensors once, whichever is longer. Counted where rates are given: while
// planning for a GPU, and in a profile.
#ifndef VL_OPS_ROOFLINE_H
#define VL_OPS_ROOFLINE_H

#include "ops/flops.h"

typedef struct VlRoofline {
    double flops_per_second[VL_PRODUCTS], bytes_per_second;  // the machine; bytes_per_second 0: nothing is counted
    double product_seconds[VL_PRODUCTS];                     // of operations that their products bind
    double memory_seconds;                                   // of all others
    int64_t idle_bytes;  // of the operation that runs next: rows of its table that it leaves alone
} VlRoofline;

static inline double vl_roofline_seconds(const VlRoofline *roofline) {
    double seconds = roofline->memory_seconds;
    for (int product = 0; product < VL_PRODUCTS; product++) seconds += roofline->product_seconds[product];
    return seconds;
}

// Counts from 0 again, for the same machine.
static inline void vl_roofline_clear(VlRoofline *roofline) {
    for (int product = 0; product < VL_PRODUCTS; product++) roofline->product_seconds[product] = 0;
    roofline->memory_seconds = 0;
}

#endif
