// What carries the collectives of comm.c: MPI where it is built in and the process was launched with it.
#ifndef VL_DIST_TRANSPORT_H
#define VL_DIST_TRANSPORT_H

#include "dist/comm.h"

typedef enum VlCollective { VL_REDUCE, VL_BROADCAST, VL_GATHER } VlCollective;

typedef struct VlRequest {
    VlCollective collective;
    VlReduction reduction;  // VL_REDUCE
    void *data;
    const void *mine;  // VL_GATHER: this rank's part
    int64_t count;     // elements; bytes for VL_BROADCAST and VL_GATHER
    int64_t root;
} VlRequest;

// All but `launched` and `abort` are called from one thread only, the one that called start.
bool vl_transport_launched(void);  // did a launcher start this process as one of several ranks, or ask for MPI?
VlStatus vl_transport_start(int64_t *rank, int64_t *size);
VlStatus vl_transport_begin(const VlRequest *request);  // starts a piece of a request
VlStatus vl_transport_poll(bool *done);                 // is it complete?
int64_t vl_transport_piece(const VlRequest *request);   // how many of request->count one piece can carry
void vl_transport_stop(void);
void vl_transport_abort(int exit_code);

#endif
