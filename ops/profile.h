// Where the time of a run goes. With a profile in the context every operation is waited for and timed, and its time at
// the machine's limits is counted beside it, where context->roofline has rates. The sum is longer than a run without
// one on a device that works while the host goes on.
#ifndef VL_OPS_PROFILE_H
#define VL_OPS_PROFILE_H

#include "ops/ops.h"

// One per public function.
typedef enum VlCall {
#define OP(name, forward, forward_names, backward, backward_names) VL_CALL_##name##_forward, VL_CALL_##name##_backward,
#define OP_NO_GRADIENT(name, parameters, names, reason) VL_CALL_##name,
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT
    VL_CALLS
} VlCall;
const char *vl_call_name(VlCall call);  // "linear_forward"

typedef struct VlProfileRow {
    int64_t calls;
    double seconds, limit;  // taken; by the roofline
} VlProfileRow;

// Rows of what was not charged to a part yet, and of each part; parts are numbered by who charges.
enum { VL_PROFILE_PARTS = 8 };
struct VlProfile {
    double overhead;  // seconds of launching and waiting, taken off every call
    VlProfileRow open[VL_CALLS], of[VL_PROFILE_PARTS][VL_CALLS];
};

// What ran since the last call was the part's. Does nothing without a profile.
void vl_profile_charge(VlProfile *profile, int64_t part);

#endif
