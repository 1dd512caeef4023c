#include "optim/schedule.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {"cosine", "linear", "constant"};

VlStatus vl_schedule_parse(const char *name, VlScheduleKind *kind) {
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *kind = (VlScheduleKind)i;
            return VL_OK;
        }
    }
    return vl_error(VL_USAGE, "unknown schedule '%s': cosine, linear or constant", name);
}

int64_t vl_schedule_warmup_steps(double ratio, int64_t steps) { return (int64_t)ceil(ratio * (double)steps); }

double vl_schedule_rate(const VlSchedule *schedule, int64_t step) {
    int64_t warmup = schedule->warmup_steps, span = schedule->steps - warmup;
    if (step < warmup) return schedule->learning_rate * (double)step / (double)(warmup > 1 ? warmup : 1);
    double progress = (double)(step - warmup) / (double)(span > 1 ? span : 1), factor = 1.0;
    if (schedule->kind == VL_SCHEDULE_COSINE) factor = 0.5 * (1.0 + cos(3.14159265358979323846 * progress));
    if (schedule->kind == VL_SCHEDULE_LINEAR) factor = (double)(schedule->steps - step) / (double)(span > 1 ? span : 1);
    return schedule->learning_rate * (factor > 0 ? factor : 0);
}
