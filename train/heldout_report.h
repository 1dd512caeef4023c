// The held-out results of several runs side by side: what each stage of a recipe has added.
#ifndef VL_TRAIN_HELDOUT_REPORT_H
#define VL_TRAIN_HELDOUT_REPORT_H

#include <stdint.h>

#include "base/status.h"

// *text = a table with one column per group of kinds of questions (names that are equal up to the first '-'): how many
// were asked and how often chance is right, as the last run has it; then for each run folder, by the name of its last
// part, how many are right of each group by the last evaluation in its heldout.jsonl, and below, where the same step
// was evaluated so, with the pictures alone and with the sounds alone. Owner frees *text with free(). Errors: VL_IO,
// VL_FORMAT (no such file, or not one of ours), VL_INVALID (a run without any evaluation).
VlStatus vl_heldout_report(int64_t runs, const char *const *run, char **text);

#endif
