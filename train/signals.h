// SIGINT and SIGTERM ask the run to save a checkpoint and end; a second one ends it at once.
#ifndef VL_TRAIN_SIGNALS_H
#define VL_TRAIN_SIGNALS_H

void vl_signals_catch(void);
// 0, or the number of the signal that has arrived.
int vl_signals_pending(void);
// The signal of another rank is this one's too, unless it has its own: so that all ranks end with the same exit code.
void vl_signals_adopt(int number);

#endif
