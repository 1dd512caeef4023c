// Collectives over the memory of GPUs: by NCCL where every rank has a GPU of its own; through pinned host memory and
// MPI where ranks share one, which NCCL refuses, or where a rank lacks the NCCL library.
//
// A collective is started: on a stream of its own it waits for all that the context's stream was given before, while
// the host and the context's stream go on. What it reads and writes must not be touched until vl_device_comm_wait has
// returned. All ranks start the same collectives in the same order. As with dist/comm.h nothing waits for ever: the
// communicator's time limit holds here too, and after an error nothing is carried out any more.
//
// A build without CUDA or NCCL's header has these functions too (dist/nccl_none.c): they refuse.
#ifndef VL_DIST_DEVICE_COMM_H
#define VL_DIST_DEVICE_COMM_H

#include "dist/comm.h"
#include "ops/context.h"

typedef struct VlDeviceComm VlDeviceComm;

// Makes one GPU of this machine the one of this thread, for the context that is created next: ranks on the same machine
// take its GPUs in turn. Without a GPU nothing is chosen: the context will say so. Collective.
VlStatus vl_device_comm_choose_gpu(VlComm *comm);

// Joins the GPUs of all ranks, each the one of its `context`. context and comm must live longer. Collective. Errors:
// VL_UNSUPPORTED (the build), VL_COMMUNICATION, VL_OUT_OF_MEMORY.
VlStatus vl_device_comm_open(VlDeviceComm **device_comm, VlContext *context, VlComm *comm);
// Leaves; collective, unless a call has failed: then what is under way is given up.
void vl_device_comm_close(VlDeviceComm *device_comm);
// "NCCL 2.28.9", or "host memory and MPI, as ranks share a GPU".
const char *vl_device_comm_describe(const VlDeviceComm *device_comm);

// data f32: becomes the sum over the ranks, the same bits on every rank. Collective.
VlStatus vl_device_comm_reduce(VlDeviceComm *device_comm, VlTensor data);
// all f32 [ranks * n, ...], mine [n, ...]: mine becomes the sum over the ranks of their rows [rank * n, rank * n + n)
// of `all`. `all` is read, or `mine` are those rows of it; then the others are left undefined. Collective.
VlStatus vl_device_comm_reduce_scatter(VlDeviceComm *device_comm, VlTensor mine, VlTensor all);
// mine f32 or bf16 [n, ...], all [ranks * n, ...] = every rank's rows in order of rank; `mine` may be its place in
// `all`. Collective.
VlStatus vl_device_comm_all_gather(VlDeviceComm *device_comm, VlTensor all, VlTensor mine);
// Rows to everybody: sent [rows, ...] holds send[r] rows for each rank r in turn, received [rows, ...] gets receive[r]
// rows of each rank r in turn; f32 or bf16. send and receive are host arrays of [ranks], read during the call. The
// tensors must not overlap. Collective.
VlStatus vl_device_comm_all_to_all(VlDeviceComm *device_comm, VlTensor received, const int64_t *receive, VlTensor sent,
                                   const int64_t *send);

// Waits until all collectives started so far have ended; the host then knows that they did. Collective in effect.
VlStatus vl_device_comm_wait(VlDeviceComm *device_comm);

#endif
