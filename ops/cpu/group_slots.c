#include <string.h>

#include "ops/cpu/cpu.h"

// A counting sort.
VlStatus vl_cpu_group_slots(VlContext *context, VlTensor offsets, VlTensor tokens, VlTensor places, VlTensor experts) {
    (void)context;
    int64_t count = offsets.dim[0] - 1, slots = tokens.dim[0], chosen = experts.dim[1];
    int64_t *begin = offsets.data, *token = tokens.data, *place = places.data;
    const int64_t *expert = experts.data;
    memset(begin, 0, (size_t)(count + 1) * sizeof *begin);
    for (int64_t r = 0; r < slots; r++) begin[expert[r] + 1]++;
    for (int64_t e = 0; e < count; e++) begin[e + 1] += begin[e];
    // A slot that is placed moves its expert's begin up by one: in the end it is the begin of the next.
    for (int64_t r = 0; r < slots; r++) {
        place[r] = begin[expert[r]]++;
        token[place[r]] = r / chosen;
    }
    memmove(begin + 1, begin, (size_t)count * sizeof *begin);
    begin[0] = 0;
    return VL_OK;
}
