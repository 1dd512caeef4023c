// Collectives over the memory of GPUs: which way they take, and the way of NCCL.
#include "dist/nccl.cuh"

extern "C" {
#include "base/files.h"
#include "base/log.h"
#include "base/random.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// ---- Who has which GPU -------------------------------------------------------

// The same for all processes of a machine, in containers too.
static int64_t machine_identity(void) {
    char name[256] = "", *boot;
    int64_t length;
    if (vl_read_file("/proc/sys/kernel/random/boot_id", sizeof name, &boot, &length) == VL_OK) {
        snprintf(name, sizeof name, "%s", boot);
        vl_free(boot);
    } else {
        vl_error_clear();
        gethostname(name, sizeof name - 1);
    }
    return (int64_t)vl_hash_string(name);
}

VlStatus vl_device_comm_choose_gpu(VlComm *comm) {
    int64_t mine = machine_identity(), earlier = 0, *all;
    VL_TRY(VL_NEW(&all, vl_comm_size(comm)));
    VlStatus status = vl_comm_gather_i64(comm, &mine, 1, all);
    for (int64_t rank = 0; rank < vl_comm_rank(comm); rank++) earlier += all[rank] == mine;
    vl_free(all);
    VL_TRY(status);
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
        cudaGetLastError();
        return VL_OK;
    }
    return vl_cuda_error(cudaSetDevice((int)(earlier % count)), "choosing a device");
}

// What the ranks tell each other of themselves. Parts of one GPU (MIG) have its address.
enum { MACHINE, ADDRESS, LACKS_NCCL, FACTS };

static VlStatus describe_device(const VlDeviceComm *device_comm, int64_t facts[FACTS]) {
    char address[64] = "";
    VL_TRY(vl_cuda_error(cudaDeviceGetPCIBusId(address, sizeof address, vl_cuda_state(device_comm->context)->device),
                         "asking for the device's address"));
    facts[MACHINE] = machine_identity();
    facts[ADDRESS] = (int64_t)vl_hash_string(address);
    return VL_OK;
}

// Why NCCL cannot be used, the same on all ranks; NULL: it can.
static const char *find_obstacle(const int64_t *all, int64_t size) {
    if (size == 1) return "there is one rank";
    for (const int64_t *facts = all; facts < all + size * FACTS; facts += FACTS) {
        for (const int64_t *other = all; other < facts; other += FACTS) {
            if (facts[MACHINE] == other[MACHINE] && facts[ADDRESS] == other[ADDRESS]) return "ranks share a GPU";
        }
    }
    for (int64_t rank = 0; rank < size; rank++) {
        if (all[rank * FACTS + LACKS_NCCL]) return "a rank lacks NCCL";
    }
    return NULL;
}

// ---- NCCL's answers ----------------------------------------------------------

static VlStatus nccl_error(const VlDeviceComm *device_comm, ncclResult_t code, const char *what) {
    const char *detail = device_comm->group ? device_comm->nccl.GetLastError(device_comm->group) : NULL;
    return vl_error(VL_COMMUNICATION, "NCCL, %s: %s%s%s; NCCL_DEBUG=INFO tells more", what,
                    device_comm->nccl.GetErrorString(code), detail && *detail ? ": " : "", detail ? detail : "");
}

// *settled: does NCCL do nothing of its own at present? Also where errors of other ranks come to light.
static VlStatus query_group(const VlDeviceComm *device_comm, const char *what, bool *settled) {
    ncclResult_t state = ncclInternalError, code = device_comm->nccl.CommGetAsyncError(device_comm->group, &state);
    *settled = code == ncclSuccess && state == ncclSuccess;
    if (code != ncclSuccess) return nccl_error(device_comm, code, what);
    return state == ncclSuccess || state == ncclInProgress ? VL_OK : nccl_error(device_comm, state, what);
}

// A call returns at once and may go on by itself; the next one has to wait for it.
static VlStatus settle(VlDeviceComm *device_comm, ncclResult_t code, const char *what) {
    if (code == ncclSuccess) return VL_OK;
    if (code != ncclInProgress) return nccl_error(device_comm, code, what);
    return wait_until(device_comm, what, [=](bool *settled) { return query_group(device_comm, what, settled); });
}

// ---- Opening and closing -----------------------------------------------------

// After an error: ends what is under way, so that nothing waits for it.
static void give_up(VlDeviceComm *device_comm) {
    if (device_comm->group) device_comm->nccl.CommAbort(device_comm->group);
    device_comm->group = NULL;
}

static VlStatus join(VlDeviceComm *device_comm) {
    VlNccl *nccl = &device_comm->nccl;
    ncclUniqueId id = {};
    VlStatus status = VL_OK;
    if (device_comm->rank == 0) {
        ncclResult_t code = nccl->GetUniqueId(&id);
        if (code != ncclSuccess) status = nccl_error(device_comm, code, "making an identifier");
    }
    VL_TRY(vl_comm_agree(device_comm->comm, status));
    VL_TRY(vl_comm_broadcast(device_comm->comm, &id, sizeof id, 0));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    status = settle(
        device_comm,
        nccl->CommInitRankConfig(&device_comm->group, (int)device_comm->size, id, (int)device_comm->rank, &config),
        "joining the GPUs");
    if (status != VL_OK) give_up(device_comm);  // so that the others need not wait for this rank
    return vl_comm_agree(device_comm->comm, status);
}

static VlStatus open_stream(VlDeviceComm *device_comm) {
    VL_TRY(vl_cuda_error(cudaStreamCreateWithFlags(&device_comm->stream, cudaStreamNonBlocking), "making a stream"));
    VL_TRY(vl_cuda_error(cudaEventCreateWithFlags(&device_comm->ready, cudaEventDisableTiming), "making an event"));
    return vl_cuda_error(cudaEventCreateWithFlags(&device_comm->done, cudaEventDisableTiming), "making an event");
}

// By NCCL, or through host memory and MPI: all ranks alike.
static VlStatus choose_way(VlDeviceComm *device_comm, int64_t *all) {
    VlComm *comm = device_comm->comm;
    int64_t facts[FACTS] = {};
    char version[16] = "";
    VlStatus status = open_stream(device_comm);
    if (status == VL_OK) status = describe_device(device_comm, facts);
    VL_TRY(vl_comm_agree(comm, status));
    VlError missing = {};
    // In-switch sums (NVLS) are not the same twice (NCCL's issue 1497); a user who names algorithms may have them.
    if (!getenv("NCCL_ALGO")) setenv("NCCL_NVLS_ENABLE", "0", 0);
    if (device_comm->size > 1) missing = vl_error_take(vl_nccl_load(&device_comm->nccl, version));
    facts[LACKS_NCCL] = missing.status != VL_OK;
    VL_TRY(vl_comm_gather_i64(comm, facts, FACTS, all));
    const char *obstacle = find_obstacle(all, device_comm->size);
    if (!obstacle) {
        snprintf(device_comm->description, sizeof device_comm->description, "NCCL %s", version);
        return join(device_comm);
    }
    snprintf(device_comm->description, sizeof device_comm->description, "host memory and MPI, as %s", obstacle);
    if (missing.status != VL_OK) vl_log(VL_LOG_WARNING, "gradients take the slow way: %s", missing.text);
    return vl_comm_agree(comm, vl_stage_open(device_comm));
}

VlStatus vl_device_comm_open(VlDeviceComm **out, VlContext *context, VlComm *comm) {
    VlDeviceComm *device_comm;
    int64_t *all = NULL;
    *out = NULL;
    VL_TRY(VL_NEW(&device_comm, 1));
    device_comm->context = context;
    device_comm->comm = comm;
    device_comm->rank = vl_comm_rank(comm);
    device_comm->size = vl_comm_size(comm);
    VlStatus status = vl_comm_agree(comm, VL_NEW(&all, device_comm->size * FACTS));
    if (status == VL_OK) status = choose_way(device_comm, all);
    vl_free(all);
    if (status != VL_OK) {
        VlError error = device_comm->error = vl_error_take(status);
        vl_device_comm_close(device_comm);
        return vl_error_raise(&error);
    }
    *out = device_comm;
    return VL_OK;
}

const char *vl_device_comm_describe(const VlDeviceComm *device_comm) { return device_comm->description; }

void vl_device_comm_close(VlDeviceComm *device_comm) {
    if (!device_comm) return;
    VlNccl *nccl = &device_comm->nccl;
    if (device_comm->group && device_comm->error.status == VL_OK &&
        settle(device_comm, nccl->CommFinalize(device_comm->group), "leaving the GPUs") == VL_OK) {
        nccl->CommDestroy(device_comm->group);
        device_comm->group = NULL;
    }
    give_up(device_comm);
    if (device_comm->stream) cudaStreamSynchronize(device_comm->stream);
    vl_stage_close(device_comm);
    if (device_comm->ready) cudaEventDestroy(device_comm->ready);
    if (device_comm->done) cudaEventDestroy(device_comm->done);
    if (device_comm->stream) cudaStreamDestroy(device_comm->stream);
    vl_free(device_comm);
}

// ---- Starting and waiting ----------------------------------------------------

// The collectives' stream waits for what the context's stream was given so far.
static VlStatus begin(VlDeviceComm *device_comm, const char *name, int64_t count) {
    if (device_comm->error.status != VL_OK) return vl_error_raise(&device_comm->error);
    snprintf(device_comm->last, sizeof device_comm->last, "%s of %lld", name, (long long)count);
    device_comm->started++;
    VL_TRY(vl_cuda_error(cudaEventRecord(device_comm->ready, vl_cuda_state(device_comm->context)->stream),
                         "recording an event"));
    return vl_cuda_error(cudaStreamWaitEvent(device_comm->stream, device_comm->ready, 0), "waiting for an event");
}

// The first error stays, and ends everything.
static VlStatus end(VlDeviceComm *device_comm, VlStatus status) {
    if (status == VL_OK || device_comm->error.status != VL_OK) return status;
    device_comm->error = vl_error_take(status);
    give_up(device_comm);
    return vl_error_raise(&device_comm->error);
}

static VlStatus finish(VlDeviceComm *device_comm) {
    char what[128];
    snprintf(what, sizeof what, "its GPU's collectives %lld to %lld (%s)", (long long)device_comm->waited,
             (long long)device_comm->started - 1, device_comm->last);
    if (!device_comm->group) VL_TRY(vl_stage_finish(device_comm));
    VL_TRY(vl_cuda_error(cudaEventRecord(device_comm->done, device_comm->stream), "recording an event"));
    VlStatus status = wait_until(device_comm, what, [=](bool *happened) {
        bool settled;
        if (device_comm->group) VL_TRY(query_group(device_comm, device_comm->last, &settled));
        return query_event(device_comm->done, happened);
    });
    VL_TRY(status);
    device_comm->waited = device_comm->started;
    return VL_OK;
}

// The context's stream need not wait for `done`: what it is given from now on comes later.
VlStatus vl_device_comm_wait(VlDeviceComm *device_comm) {
    if (device_comm->error.status != VL_OK) return vl_error_raise(&device_comm->error);
    return device_comm->waited == device_comm->started ? VL_OK : end(device_comm, finish(device_comm));
}

// ---- Collectives -------------------------------------------------------------

static VlStatus check_same_rows(const char *name, VlTensor a, VlTensor b, int64_t rows_a, int64_t rows_b) {
    bool fits = a.dims > 0 && b.dims > 0 && a.dtype == b.dtype && (a.dtype == VL_F32 || a.dtype == VL_BF16) &&
                vl_nccl_row_bytes(a) == vl_nccl_row_bytes(b) && a.dim[0] == rows_a && b.dim[0] == rows_b;
    if (fits) return VL_OK;
    return vl_error(VL_INVALID, "%s: %s and %s do not fit: they must have %lld and %lld rows of one width, f32 or bf16",
                    name, vl_describe(a), vl_describe(b), (long long)rows_a, (long long)rows_b);
}

static VlStatus check_f32(const char *name, VlTensor tensor) {
    if (tensor.dtype == VL_F32) return VL_OK;
    return vl_error(VL_INVALID, "%s: %s must be f32", name, vl_describe(tensor));
}

VlStatus vl_device_comm_reduce(VlDeviceComm *device_comm, VlTensor data) {
    static const char *const name = "all-reduce";
    int64_t count = vl_elements(data);
    VL_TRY(check_f32(name, data));
    if (count == 0) return VL_OK;
    VlStatus status = begin(device_comm, name, count);
    if (status == VL_OK && device_comm->group) {
        ncclResult_t code = device_comm->nccl.AllReduce(data.data, data.data, (size_t)count, ncclFloat32, ncclSum,
                                                        device_comm->group, device_comm->stream);
        status = settle(device_comm, code, device_comm->last);
    } else if (status == VL_OK) {
        status = vl_stage_reduce(device_comm, data);
    }
    return end(device_comm, status);
}

VlStatus vl_device_comm_reduce_scatter(VlDeviceComm *device_comm, VlTensor mine, VlTensor all) {
    static const char *const name = "reduce-scatter";
    int64_t count = vl_elements(mine), rows = mine.dims ? mine.dim[0] : 0;
    VL_TRY(check_f32(name, mine));
    VL_TRY(check_same_rows(name, mine, all, rows, rows * device_comm->size));
    if (count == 0) return VL_OK;
    VlStatus status = begin(device_comm, name, count);
    if (status == VL_OK && device_comm->group) {
        ncclResult_t code = device_comm->nccl.ReduceScatter(all.data, mine.data, (size_t)count, ncclFloat32, ncclSum,
                                                            device_comm->group, device_comm->stream);
        status = settle(device_comm, code, device_comm->last);
    } else if (status == VL_OK) {
        status = vl_stage_reduce_scatter(device_comm, mine, all);
    }
    return end(device_comm, status);
}

VlStatus vl_device_comm_all_gather(VlDeviceComm *device_comm, VlTensor all, VlTensor mine) {
    static const char *const name = "all-gather";
    int64_t bytes = vl_bytes(mine), rows = mine.dims ? mine.dim[0] : 0;
    VL_TRY(check_same_rows(name, mine, all, rows, rows * device_comm->size));
    if (bytes == 0) return VL_OK;
    VlStatus status = begin(device_comm, name, vl_elements(mine));
    if (status == VL_OK && device_comm->group) {
        ncclResult_t code = device_comm->nccl.AllGather(mine.data, all.data, (size_t)bytes, ncclInt8,
                                                        device_comm->group, device_comm->stream);
        status = settle(device_comm, code, device_comm->last);
    } else if (status == VL_OK) {
        status = vl_stage_all_gather(device_comm, all, mine);
    }
    return end(device_comm, status);
}

// Rank by rank what goes there and what comes from there; where nothing does, neither side calls.
static ncclResult_t exchange(VlDeviceComm *device_comm, char *to, const int64_t *receive, const char *from,
                             const int64_t *send, int64_t row_bytes) {
    const VlNccl *nccl = &device_comm->nccl;
    ncclResult_t refused = nccl->GroupStart();
    auto note = [&](ncclResult_t code) {
        if (refused == ncclSuccess && code != ncclInProgress) refused = code;
    };
    for (int64_t rank = 0; rank < device_comm->size; rank++) {
        size_t leaving = (size_t)(send[rank] * row_bytes), coming = (size_t)(receive[rank] * row_bytes);
        if (leaving) note(nccl->Send(from, leaving, ncclInt8, (int)rank, device_comm->group, device_comm->stream));
        if (coming) note(nccl->Recv(to, coming, ncclInt8, (int)rank, device_comm->group, device_comm->stream));
        from += leaving;
        to += coming;
    }
    ncclResult_t ended = nccl->GroupEnd();
    return refused != ncclSuccess ? refused : ended;
}

VlStatus vl_device_comm_all_to_all(VlDeviceComm *device_comm, VlTensor received, const int64_t *receive, VlTensor sent,
                                   const int64_t *send) {
    static const char *const name = "all-to-all";
    int64_t leaving = 0, coming = 0;
    for (int64_t rank = 0; rank < device_comm->size; rank++) {
        if (send[rank] < 0 || receive[rank] < 0 || !vl_add(leaving, send[rank], &leaving) ||
            !vl_add(coming, receive[rank], &coming)) {
            return vl_error(VL_INVALID, "%s: %lld rows to rank %lld, %lld from there: no valid counts", name,
                            (long long)send[rank], (long long)rank, (long long)receive[rank]);
        }
    }
    VL_TRY(check_same_rows(name, received, sent, coming, leaving));
    VlStatus status = begin(device_comm, name, leaving);
    if (status == VL_OK && device_comm->group) {
        status = settle(device_comm,
                        exchange(device_comm, (char *)received.data, receive, (const char *)sent.data, send,
                                 vl_nccl_row_bytes(sent)),
                        device_comm->last);
    } else if (status == VL_OK) {
        status = vl_stage_all_to_all(device_comm, received, receive, sent, send);
    }
    return end(device_comm, status);
}
