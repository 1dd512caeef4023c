// A run from within: what its set-up, its steps and its course share.
#ifndef VL_TRAIN_TRAINER_PARTS_H
#define VL_TRAIN_TRAINER_PARTS_H

#include "data/shard.h"
#include "dist/buckets.h"
#include "optim/schedule.h"
#include "train/checkpoint.h"
#include "train/heldout.h"
#include "train/metrics.h"
#include "train/micro_batch.h"

typedef struct VlTrainer {
    const VlConfig *config;
    VlComm *comm;
    VlModelSource base;
    VlModelConfig model_config;
    VlContext *context;
    VlVlm *model;
    VlOptimizer optimizer;
    VlBuckets *buckets;
    VlTokenizer *tokenizer;
    VlPreprocessConfig preprocess;
    char fingerprint[VL_PREPROCESSING_MAX];
    char sound[VL_SOUND_PREPROCESSING_MAX];  // "": the model has no audio tower
    VlLoader *loader;
    VlHeldout heldout;
    bool has_heldout;
    VlSchedule schedule;
    VlProgress progress;
    VlMetrics metrics;
    VlBatch batch;        // the micro-batch at work
    void *device_losses;  // [losses_capacity] f32: of a step's labels, in the order of the micro-batches
    float *losses;        // the same on the host
    int64_t losses_capacity;
    int64_t *bad_slots;   // [global_batch] 1: that slot of the step is empty
    double peak_flops;    // of all ranks, per second
    char *configuration;  // resolved, as YAML
    bool stopping;        // a signal has arrived somewhere
    int lock;             // rank 0: the descriptor of RUN/.lock, held as long as the run is at work; else -1
} VlTrainer;

// Rank 0 writes what a run writes once.
static inline bool vl_trainer_leads(const VlTrainer *trainer) { return vl_comm_rank(trainer->comm) == 0; }

// Data, model, optimizer and records of the run that trainer->config asks for, and its state from the newest checkpoint
// where there is one. What it opens is closed with the trainer, after an error too. Collective.
VlStatus vl_trainer_set_up(VlTrainer *trainer);

// One optimizer step: samples, forward, backward, sums over the ranks, update. When a signal has arrived on any rank it
// sets trainer->stopping and does nothing else. Collective.
VlStatus vl_trainer_step(VlTrainer *trainer, VlStepMetrics *metrics);

#endif
