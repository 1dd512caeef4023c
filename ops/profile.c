#include "ops/profile.h"

const char *vl_call_name(VlCall call) {
    static const char *const names[] = {
#define OP(name, forward, forward_names, backward, backward_names) #name "_forward", #name "_backward",
#define OP_NO_GRADIENT(name, parameters, names, reason) #name,
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT
    };
    return names[call];
}

void vl_profile_charge(VlProfile *profile, int64_t part) {
    if (!profile) return;
    for (int call = 0; call < VL_CALLS; call++) {
        VlProfileRow *row = &profile->of[part][call], *open = &profile->open[call];
        row->calls += open->calls;
        row->seconds += open->seconds;
        row->limit += open->limit;
        *open = (VlProfileRow){0};
    }
}
