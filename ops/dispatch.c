// The public functions: check, open the guard, hand over to the backend, close.
#include "base/clock.h"
#include "ops/backend.h"
#include "ops/profile.h"

static VlStatus finish(VlStatus status, const char *name, int line) {
    if (status == VL_OK) return VL_OK;
    vl_error_frame(status, name, __FILE__, line);
    return vl_error_context(status, "%s", name);
}

// The operation's time at the machine's limits, which is added to the roofline; 0 without rates. It has one product at
// most: the one whose count has changed since `before`.
static double add_to_roofline(VlContext *context, const VlFlops *before, int64_t bytes) {
    VlRoofline *roofline = &context->roofline;
    bytes -= roofline->idle_bytes;
    roofline->idle_bytes = 0;
    if (roofline->bytes_per_second <= 0) return 0;
    double moving = (double)bytes / roofline->bytes_per_second;
    for (int product = 0; product < VL_PRODUCTS; product++) {
        int64_t flops = 0;
        for (int pass = 0; pass < VL_PASSES; pass++) {
            flops += context->flops.of[product][pass] - before->of[product][pass];
        }
        double computing = (double)flops / roofline->flops_per_second[product];
        if (computing <= moving) continue;
        roofline->product_seconds[product] += computing;
        return computing;
    }
    roofline->memory_seconds += moving;
    return moving;
}

static VlStatus add_to_profile(VlContext *context, VlCall call, double begin, double limit) {
    VlProfileRow *row = &context->profile->open[call];
    VL_TRY(vl_device_wait(context));
    double seconds = vl_seconds() - begin - context->profile->overhead;
    row->calls++;
    row->seconds += seconds > 0 ? seconds : 0;
    row->limit += limit;
    return VL_OK;
}

// BYTES_OF(a, b, ...): the bytes of all tensors among the arguments. A macro does not call itself; it is named here,
// and called when AGAIN looks at the text anew, as often as the longest list of arguments needs.
#define AGAIN(...) AGAIN_1(AGAIN_1(AGAIN_1(__VA_ARGS__)))
#define AGAIN_1(...) AGAIN_2(AGAIN_2(AGAIN_2(__VA_ARGS__)))
#define AGAIN_2(...) AGAIN_3(AGAIN_3(AGAIN_3(__VA_ARGS__)))
#define AGAIN_3(...) __VA_ARGS__
#define NOTHING
#define SUM(argument, ...)                  \
    vl_bytes(_Generic((argument), VlTensor  \
                      : (argument), default \
                      : (VlTensor){0})) __VA_OPT__(+SUM_NAME NOTHING()(__VA_ARGS__))
#define SUM_NAME() SUM
#define BYTES_OF(...) AGAIN(SUM(__VA_ARGS__))

#define DISPATCH(name, parameters, names)                                                                            \
    VlStatus vl_##name parameters {                                                                                  \
        VlFlops before = context->flops;                                                                             \
        VlStatus status = vl_check_##name names;                                                                     \
        if (status == VL_OK) {                                                                                       \
            double limit = add_to_roofline(context, &before, BYTES_OF names);                                        \
            double begin = context->profile ? vl_seconds() : 0;                                                      \
            vl_device_open(context);                                                                                 \
            status = context->backend->ops.name names;                                                               \
            vl_device_close(context);                                                                                \
            if (status == VL_OK && context->profile) status = add_to_profile(context, VL_CALL_##name, begin, limit); \
        }                                                                                                            \
        return finish(status, #name, __LINE__);                                                                      \
    }
#define OP(name, forward, forward_names, backward, backward_names) \
    DISPATCH(name##_forward, forward, forward_names)               \
    DISPATCH(name##_backward, backward, backward_names)
#define OP_NO_GRADIENT(name, parameters, names, reason) DISPATCH(name, parameters, names)
#include "ops/ops_list.h"
