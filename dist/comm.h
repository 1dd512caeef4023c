// Ranks and what they tell each other. One queue per rank: every collective call is carried out by one communication
// thread, in the order of the calls, which must be the same on all ranks. Nothing waits for ever: a collective that
// outlasts the time limit, or whose partner is gone, is an error that names it.
//
// Without mpirun there is one rank, no thread, and MPI is not initialised. A build without MPI refuses to run under
// mpirun.
#ifndef VL_DIST_COMM_H
#define VL_DIST_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct VlComm VlComm;

// Whether a launcher started this process as one of several ranks, or MPI was asked for.
bool vl_comm_launched(void);

// Joins the ranks that the launcher started (Open MPI's, MPICH's and Slurm's environment is recognised), or stays
// alone. Collective. timeout_seconds: the longest time that one collective may take; 0: 600. Errors: VL_COMMUNICATION,
// VL_UNSUPPORTED.
VlStatus vl_comm_open(VlComm **comm, double timeout_seconds);
// Another limit for the collectives from now on; the same on all ranks.
void vl_comm_set_timeout(VlComm *comm, double seconds);
double vl_comm_timeout(VlComm *comm);
// Leaves in an orderly way. Collective.
void vl_comm_close(VlComm *comm);
// Ends all ranks with `exit_code`, within seconds, whatever they are doing. Returns only when there is one rank.
void vl_comm_abort(VlComm *comm, int exit_code);

int64_t vl_comm_rank(const VlComm *comm);
int64_t vl_comm_size(const VlComm *comm);

typedef enum VlReduction { VL_SUM_F32, VL_SUM_F64, VL_SUM_I64, VL_MAX_I64, VL_MIN_I64 } VlReduction;

// data[count] (host memory) becomes the sum (or maximum, minimum) over the ranks, the same bits on every rank.
// Collective.
VlStatus vl_comm_reduce(VlComm *comm, VlReduction reduction, void *data, int64_t count);
// The root's bytes to everybody. Collective.
VlStatus vl_comm_broadcast(VlComm *comm, void *data, int64_t bytes, int64_t root);
// all[size * count] = every rank's mine[count], in order of rank. Collective.
VlStatus vl_comm_gather_i64(VlComm *comm, const int64_t *mine, int64_t count, int64_t *all);
VlStatus vl_comm_barrier(VlComm *comm);

// The same as vl_comm_reduce, but returns at once; `data` must not be touched until vl_comm_wait has returned, which
// waits for all reductions started so far. Collective.
VlStatus vl_comm_start_reduce(VlComm *comm, VlReduction reduction, void *data, int64_t count);
VlStatus vl_comm_wait(VlComm *comm);

// Agrees on a status: when any rank comes with an error, every rank leaves with one (its own, or "rank R: text").
// Collective.
VlStatus vl_comm_agree(VlComm *comm, VlStatus status);

#endif
