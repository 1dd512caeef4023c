// Collectives over the memory of GPUs through pinned host memory and MPI: where ranks share a GPU.
#include "dist/nccl.cuh"

static char *place(const VlStage *stage, int64_t piece) { return stage->memory + piece * VL_STAGE_BYTES; }

VlStatus vl_stage_open(VlDeviceComm *device_comm) {
    VlStage *stage = &device_comm->stage;
    VL_TRY(vl_cuda_error(cudaMallocHost((void **)&stage->memory, (size_t)VL_STAGE_PIECES * VL_STAGE_BYTES),
                         "pinned host memory"));
    for (int64_t i = 0; i < VL_STAGE_PIECES; i++) {
        VL_TRY(vl_cuda_error(cudaEventCreateWithFlags(&stage->copied[i], cudaEventDisableTiming), "making an event"));
    }
    return VL_OK;
}

void vl_stage_close(VlDeviceComm *device_comm) {
    VlStage *stage = &device_comm->stage;
    for (int64_t i = 0; i < VL_STAGE_PIECES; i++) {
        if (stage->copied[i]) cudaEventDestroy(stage->copied[i]);
    }
    if (stage->memory) cudaFreeHost(stage->memory);
}

static VlStatus copy(VlDeviceComm *device_comm, void *to, const void *from, int64_t bytes, cudaMemcpyKind kind) {
    return vl_cuda_error(cudaMemcpyAsync(to, from, (size_t)bytes, kind, device_comm->stream), "a copy between ranks");
}

// ---- Sums: pieces wait in host memory, on several of which device, MPI and device work at a time ----

// Gives MPI the next piece.
static VlStatus send(VlDeviceComm *device_comm) {
    VlStage *stage = &device_comm->stage;
    int64_t piece = stage->sent++;
    return vl_comm_start_reduce(device_comm->comm, VL_SUM_F32, place(stage, piece), vl_elements(stage->piece[piece]));
}

VlStatus vl_stage_finish(VlDeviceComm *device_comm) {
    VlStage *stage = &device_comm->stage;
    while (stage->sent < stage->filled) {
        cudaEvent_t copied = stage->copied[stage->sent];
        VL_TRY(wait_until(device_comm, "its GPU", [=](bool *flag) { return query_event(copied, flag); }));
        VL_TRY(send(device_comm));
    }
    VL_TRY(vl_comm_wait(device_comm->comm));
    for (int64_t i = 0; i < stage->filled; i++) {
        VlTensor piece = stage->piece[i];
        VL_TRY(copy(device_comm, piece.data, place(stage, i), vl_bytes(piece), cudaMemcpyHostToDevice));
    }
    stage->filled = stage->sent = 0;  // the next copy to these places is behind those on the stream
    return VL_OK;
}

static VlStatus reduce_piece(VlDeviceComm *device_comm, VlTensor data) {
    VlStage *stage = &device_comm->stage;
    if (stage->filled == VL_STAGE_PIECES) VL_TRY(vl_stage_finish(device_comm));
    int64_t piece = stage->filled++;
    stage->piece[piece] = data;
    VL_TRY(copy(device_comm, place(stage, piece), data.data, vl_bytes(data), cudaMemcpyDeviceToHost));
    VL_TRY(vl_cuda_error(cudaEventRecord(stage->copied[piece], device_comm->stream), "recording an event"));
    for (bool copied = true; copied && stage->sent < stage->filled;) {
        VL_TRY(query_event(stage->copied[stage->sent], &copied));
        if (copied) VL_TRY(send(device_comm));
    }
    return VL_OK;
}

VlStatus vl_stage_reduce(VlDeviceComm *device_comm, VlTensor data) {
    const int64_t length = VL_STAGE_BYTES / (int64_t)sizeof(float);
    for (int64_t begin = 0, left = vl_elements(data); left > 0; begin += length, left -= length) {
        VlTensor piece = {(float *)data.data + begin, VL_F32, 1, {left < length ? left : length}};
        VL_TRY(reduce_piece(device_comm, piece));
    }
    return VL_OK;
}

// ---- The others: one piece at a time -----------------------------------------

static VlStatus drain(VlDeviceComm *device_comm) {
    VL_TRY(vl_cuda_error(cudaEventRecord(device_comm->done, device_comm->stream), "recording an event"));
    return wait_until(device_comm, "its GPU", [=](bool *flag) { return query_event(device_comm->done, flag); });
}

// `exchange` gives each piece of `bytes` bytes from device memory (NULL: this rank has none) to the other ranks, in
// host memory, and what it leaves there goes to device memory (NULL: nowhere).
template <class Exchange>
static VlStatus through_host(VlDeviceComm *device_comm, char *to, const char *from, int64_t bytes, Exchange exchange) {
    char *host = device_comm->stage.memory;
    for (int64_t done = 0, length; done < bytes; done += length) {
        length = bytes - done;
        if (length > VL_STAGE_BYTES) length = VL_STAGE_BYTES;
        if (from) VL_TRY(copy(device_comm, host, from + done, length, cudaMemcpyDeviceToHost));
        VL_TRY(drain(device_comm));
        VL_TRY(exchange(host, length));
        if (to) VL_TRY(copy(device_comm, to + done, host, length, cudaMemcpyHostToDevice));
    }
    return VL_OK;
}

VlStatus vl_stage_reduce_scatter(VlDeviceComm *device_comm, VlTensor mine, VlTensor all) {
    VlComm *comm = device_comm->comm;
    int64_t bytes = vl_bytes(mine);
    VL_TRY(vl_stage_finish(device_comm));
    for (int64_t rank = 0; rank < device_comm->size; rank++) {
        char *to = rank == device_comm->rank ? (char *)mine.data : NULL;
        VL_TRY(through_host(device_comm, to, (const char *)all.data + rank * bytes, bytes,
                            [=](char *host, int64_t length) {
                                return vl_comm_reduce(comm, VL_SUM_F32, host, length / (int64_t)sizeof(float));
                            }));
    }
    return VL_OK;
}

// Bytes of one rank: from its device memory to that of those that want them.
static VlStatus broadcast(VlDeviceComm *device_comm, char *to, const char *from, int64_t bytes, int64_t root) {
    VlComm *comm = device_comm->comm;
    return through_host(device_comm, to, device_comm->rank == root ? from : NULL, bytes,
                        [=](char *host, int64_t length) { return vl_comm_broadcast(comm, host, length, root); });
}

VlStatus vl_stage_all_gather(VlDeviceComm *device_comm, VlTensor all, VlTensor mine) {
    int64_t bytes = vl_bytes(mine);
    VL_TRY(vl_stage_finish(device_comm));
    for (int64_t root = 0; root < device_comm->size; root++) {
        VL_TRY(broadcast(device_comm, (char *)all.data + root * bytes, (const char *)mine.data, bytes, root));
    }
    return VL_OK;
}

// rows[r * ranks + q]: what rank r sends to rank q. Whether this rank expects what it is to get.
static VlStatus check_rows(const VlDeviceComm *device_comm, const int64_t *rows, const int64_t *receive) {
    for (int64_t root = 0; root < device_comm->size; root++) {
        int64_t given = rows[root * device_comm->size + device_comm->rank];
        if (given == receive[root]) continue;
        return vl_error(VL_COMMUNICATION, "all-to-all: rank %lld sends %lld rows to rank %lld, which expects %lld",
                        (long long)root, (long long)given, (long long)device_comm->rank, (long long)receive[root]);
    }
    return VL_OK;
}

static VlStatus exchange_rows(VlDeviceComm *device_comm, const int64_t *rows, int64_t row_bytes, char *to,
                              const char *from) {
    for (int64_t root = 0; root < device_comm->size; root++) {
        for (int64_t rank = 0; rank < device_comm->size; rank++) {
            int64_t bytes = rows[root * device_comm->size + rank] * row_bytes;
            bool wanted = rank == device_comm->rank;
            VL_TRY(broadcast(device_comm, wanted ? to : NULL, from, bytes, root));
            if (wanted) to += bytes;
            if (root == device_comm->rank) from += bytes;
        }
    }
    return VL_OK;
}

VlStatus vl_stage_all_to_all(VlDeviceComm *device_comm, VlTensor received, const int64_t *receive, VlTensor sent,
                             const int64_t *send_rows) {
    int64_t size = device_comm->size, *rows;
    VL_TRY(vl_stage_finish(device_comm));
    VL_TRY(VL_NEW(&rows, size * size));
    VlStatus status = vl_comm_gather_i64(device_comm->comm, send_rows, size, rows);
    if (status == VL_OK) status = vl_comm_agree(device_comm->comm, check_rows(device_comm, rows, receive));
    if (status == VL_OK) {
        status =
            exchange_rows(device_comm, rows, vl_nccl_row_bytes(sent), (char *)received.data, (const char *)sent.data);
    }
    vl_free(rows);
    return status;
}
