// One stage of the recipe, from its configuration to its last checkpoint.
#ifndef VL_TRAIN_TRAINER_H
#define VL_TRAIN_TRAINER_H

#include "dist/comm.h"
#include "train/config.h"

// Trains, or continues the run that config->output holds from its newest checkpoint. The configuration needs
// model.path, data.sources (packed) and output. Collective. Errors: what the parts report; VL_INTERRUPTED after a
// signal, with a checkpoint saved.
VlStatus vl_train(const VlConfig *config, VlComm *comm);

#endif
