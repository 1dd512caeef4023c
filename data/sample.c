#include "data/sample.h"

#include "base/memory.h"

void vl_sample_clear(VlSample *sample) {
    vl_free(sample->id);
    vl_free(sample->kind);
    vl_free(sample->ids);
    vl_free(sample->labels);
    vl_free(sample->pixels);
    vl_free(sample->fbank);
    vl_free(sample->reason);
    *sample = (VlSample){0};
}
