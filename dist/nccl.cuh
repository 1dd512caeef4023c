// What the files of the collectives over GPUs share. The sources are CUDA C++ and, for the tests, C++ for the host, as
// those of ops/cuda.
#ifndef VL_DIST_NCCL_CUH
#define VL_DIST_NCCL_CUH

#include <nccl.h>

#include "ops/cuda/device.cuh"

extern "C" {
#include "base/clock.h"
#include "base/memory.h"
#include "dist/device_comm.h"
}

#include <time.h>

// The functions of NCCL that are used. They are looked up when several ranks have GPUs, so that the program starts and
// trains on one GPU without the library.
#define NCCL_FUNCTIONS(FUNCTION) \
    FUNCTION(GetVersion)         \
    FUNCTION(GetUniqueId)        \
    FUNCTION(CommInitRankConfig) \
    FUNCTION(CommGetAsyncError)  \
    FUNCTION(CommFinalize)       \
    FUNCTION(CommDestroy)        \
    FUNCTION(CommAbort)          \
    FUNCTION(GetErrorString)     \
    FUNCTION(GetLastError)       \
    FUNCTION(AllReduce)          \
    FUNCTION(ReduceScatter)      \
    FUNCTION(AllGather)          \
    FUNCTION(Send)               \
    FUNCTION(Recv)               \
    FUNCTION(GroupStart)         \
    FUNCTION(GroupEnd)

typedef struct VlNccl {
#define FUNCTION(name) decltype(&nccl##name) name;
    NCCL_FUNCTIONS(FUNCTION)
#undef FUNCTION
} VlNccl;

// Loads libnccl.so.2; *version as "2.28.9". Errors: VL_UNSUPPORTED, with what to do.
VlStatus vl_nccl_load(VlNccl *nccl, char version[16]);

// Pinned host memory of the staged collectives: pieces on their way from the device through MPI and back.
enum { VL_STAGE_PIECES = 4, VL_STAGE_BYTES = 16 << 20 };
typedef struct VlStage {
    char *memory;  // [VL_STAGE_PIECES * VL_STAGE_BYTES]; NULL where NCCL is used
    cudaEvent_t copied[VL_STAGE_PIECES];
    VlTensor piece[VL_STAGE_PIECES];  // where each is from
    int64_t filled, sent;             // pieces in use, and those given to MPI
} VlStage;

struct VlDeviceComm {
    VlContext *context;
    VlComm *comm;
    int64_t rank, size;
    cudaStream_t stream;      // of the collectives
    cudaEvent_t ready;        // the context's stream has come to where a collective was started
    cudaEvent_t done;         // the collectives' stream has come to where the host waits
    int64_t started, waited;  // collectives
    char last[64];            // the one started last
    VlError error;            // the first one; nothing is carried out after it
    VlNccl nccl;
    ncclComm_t group;  // NULL where MPI is used
    VlStage stage;
    char description[64];
};

// The collectives through host memory (nccl_staged.cu). They are called on the collectives' stream after `ready`.
VlStatus vl_stage_open(VlDeviceComm *device_comm);
void vl_stage_close(VlDeviceComm *device_comm);
VlStatus vl_stage_reduce(VlDeviceComm *device_comm, VlTensor data);
VlStatus vl_stage_reduce_scatter(VlDeviceComm *device_comm, VlTensor mine, VlTensor all);
VlStatus vl_stage_all_gather(VlDeviceComm *device_comm, VlTensor all, VlTensor mine);
VlStatus vl_stage_all_to_all(VlDeviceComm *device_comm, VlTensor received, const int64_t *receive, VlTensor sent,
                             const int64_t *send_rows);
// Gives everything that is still in host memory to MPI, and what MPI gives back to the stream.
VlStatus vl_stage_finish(VlDeviceComm *device_comm);

// Of the first extent.
static inline int64_t vl_nccl_row_bytes(VlTensor tensor) {
    int64_t bytes = vl_dtype_size(tensor.dtype);
    for (int32_t d = 1; d < tensor.dims; d++) bytes *= tensor.dim[d];
    return bytes;
}

// Calls finished(&flag) until the flag is set, within the communicator's time limit. It sleeps between the calls,
// longer and longer, and so leaves the core to whoever computes.
template <class Finished>
static VlStatus wait_until(VlDeviceComm *device_comm, const char *what, Finished finished) {
    double begin = vl_seconds(), limit = vl_comm_timeout(device_comm->comm);
    for (long pause = 5000;;) {
        bool flag = false;
        VL_TRY(finished(&flag));
        if (flag) return VL_OK;
        if (vl_seconds() - begin > limit) {
            return vl_error(VL_COMMUNICATION,
                            "rank %lld waited %.0f s for %s: another rank is stuck or dead; look at its output",
                            (long long)device_comm->rank, limit, what);
        }
        struct timespec duration = {0, pause};
        nanosleep(&duration, NULL);
        if (pause < 500000) pause += pause / 4;
    }
}

// *happened: has the device come to where the event was recorded?
static inline VlStatus query_event(cudaEvent_t event, bool *happened) {
    cudaError_t code = cudaEventQuery(event);
    *happened = code == cudaSuccess;
    if (code != cudaErrorNotReady) return vl_cuda_error(code, "a collective");
    cudaGetLastError();
    return VL_OK;
}

#endif
