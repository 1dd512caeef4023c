// TensorBoard event files: TFRecord framing (length, masked CRC-32C of it, data, masked CRC-32C of that) around Event
// protocol buffers.
#ifndef VL_TRAIN_TENSORBOARD_H
#define VL_TRAIN_TENSORBOARD_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

// Creates FOLDER/events.out.tfevents.SECONDS.HOST with its version record.
VlStatus vl_tensorboard_open(FILE **file, const char *folder);
VlStatus vl_tensorboard_scalar(FILE *file, int64_t step, const char *tag, double value);

#endif
