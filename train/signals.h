// SIGINT and SIGTERM ask the run to save a checkpoint and end; a second one ends it at once.
#ifndef VL_TRAIN_SIGNALS_H
#define VL_TRAIN_SIGNALS_H

#include "base/status.h"

// From now on a thread of its own takes both signals; the others never see them, as a handler that ran on the stack of
// a thread in the middle of a matrix product would destroy what oneDNN keeps below its stack pointer. To be called
// before any other thread is started: they inherit the mask. Errors: VL_OUT_OF_MEMORY.
VlStatus vl_signals_catch(void);
// 0, or the number of the first signal that has arrived.
int vl_signals_pending(void);
// A signal that another rank has received becomes this one's too, unless it has one of its own.
void vl_signals_adopt(int number);

#endif
