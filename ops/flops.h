// Model FLOPs, 2 per multiply-add of matrix products: by the operations that multiply, and by what for. Counted in
// front of every backend, where it is known which gradients a call wants: one addition for each product.
#ifndef VL_OPS_FLOPS_H
#define VL_OPS_FLOPS_H

#include <stdint.h>

typedef enum VlProduct {
    VL_PRODUCT_LINEAR,
    VL_PRODUCT_ATTENTION,
    VL_PRODUCT_BIASED_ATTENTION,
    VL_PRODUCT_CONVOLUTION1D,
    VL_PRODUCT_GROUPED_LINEAR,
    VL_PRODUCT_LINEAR_CROSS_ENTROPY,
    VL_PRODUCTS
} VlProduct;

typedef enum VlPass {
    VL_PASS_FORWARD,
    VL_PASS_INPUTS,   // gradients of inputs, attention's queries, keys and values among them
    VL_PASS_WEIGHTS,  // gradients of parameters
    VL_PASSES
} VlPass;

typedef struct VlFlops {
    int64_t of[VL_PRODUCTS][VL_PASSES];
} VlFlops;

static inline int64_t vl_flops_total(const VlFlops *flops) {
    int64_t total = 0;
    for (int product = 0; product < VL_PRODUCTS; product++) {
        for (int pass = 0; pass < VL_PASSES; pass++) total += flops->of[product][pass];
    }
    return total;
}

#endif
