// The learning rate of a step, as Hugging Face transformers computes it (optimization.py:
// get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup, get_constant_schedule_with_warmup).
#ifndef VL_OPTIM_SCHEDULE_H
#define VL_OPTIM_SCHEDULE_H

#include <stdint.h>

#include "base/status.h"

typedef enum VlScheduleKind { VL_SCHEDULE_COSINE, VL_SCHEDULE_LINEAR, VL_SCHEDULE_CONSTANT } VlScheduleKind;

typedef struct VlSchedule {
    VlScheduleKind kind;
    double learning_rate;
    int64_t steps, warmup_steps;
} VlSchedule;

VlStatus vl_schedule_parse(const char *name, VlScheduleKind *kind);  // cosine, linear, constant
// ceil(ratio * steps), as TrainingArguments.get_warmup_steps.
int64_t vl_schedule_warmup_steps(double ratio, int64_t steps);
// `step` counts from 0: the first step of a run with warm-up has rate 0.
double vl_schedule_rate(const VlSchedule *schedule, int64_t step);

#endif
