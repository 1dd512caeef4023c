// A stand-in for the NCCL library: what the collectives move goes through host memory and MPI, which the program has
// initialised. They run on the streams of the stand-in for CUDA's runtime and, as NCCL's, hang until the communicator
// is aborted once something has gone wrong.
//
// Before a collective moves anything, each rank tells those that take part with it what it is about to do. So a count
// that differs, another collective, and a send or receive without its counterpart are errors: here, and, told by a
// message, on all other ranks. The counterpart may be any later call, leaving at the latest.
//
// VL_TEST_NCCL_FAIL=RANK:NUMBER: on this rank the collective of this number fails; 0 is joining, the first one is 1.
#include "nccl.h"

#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

namespace {

enum Kind : int64_t { JOIN, LEAVE, ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, GROUP };
const char *const kind_names[] = {"joining", "leaving", "all-reduce", "reduce-scatter", "all-gather", "send/receive"};

enum { HEADER_TAG = 7001, DATA_TAG, FAILURE_TAG };

// What a rank is about to do. Ranks in a group: what it sends to and wants from the one that is told; collectives: the
// bytes of a rank, twice; joining: the GPU and a hash of the identifier.
struct Header {
    int64_t kind, sent, wanted;
};

struct Part {
    char *memory = nullptr;
    size_t bytes = 0;
};

// A collective, or a group of sends and receives.
struct Work {
    Kind kind;
    cudaStream_t stream = nullptr;
    Part from, to;                      // collectives
    std::vector<Part> sends, receives;  // groups: [rank]
    enum { NEW, ASKED, MOVING } stage = NEW;
    std::vector<Header> mine, theirs;   // [rank]
    std::vector<MPI_Request> requests;  // all of which end the stage
    std::vector<char> outgoing, incoming;
};

size_t type_bytes(ncclDataType_t type) {
    switch (type) {
    case ncclInt8: return 1;
    case ncclInt64: return 8;
    case ncclFloat32: return 4;
    case ncclBfloat16: return 2;
    }
    return 0;
}

}  // namespace

struct ncclComm {
    int rank, ranks, device;
    int64_t identifier;
    ncclResult_t state = ncclInProgress;
    std::string text;  // of the error
    bool aborted = false;
    std::shared_ptr<Work> joining, leaving;
    std::vector<std::shared_ptr<Work>> launching;  // called, not yet on the stream
    int64_t launched = 0, under_way = 0;
    int fail_at = -1;
    MPI_Comm world = MPI_COMM_NULL;
    int64_t failure_heard = 0, failure_told = 1;
    MPI_Request listening = MPI_REQUEST_NULL;
    std::vector<MPI_Request> telling;
};

namespace {

// They stay: operations that were given up may still be on a stream.
std::vector<std::unique_ptr<ncclComm>> communicators;

struct Group {
    int depth = 0;
    ncclComm *comm = nullptr;
    std::shared_ptr<Work> work;
    ncclResult_t error = ncclSuccess;
} group;

bool failed(const ncclComm *comm) { return comm->state != ncclSuccess && comm->state != ncclInProgress; }

// The first error stays. The other ranks hear of it.
__attribute__((format(printf, 3, 4))) void fail(ncclComm *comm, ncclResult_t code, const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (failed(comm)) return;
    comm->state = code;
    comm->text = text;
    comm->telling.resize((size_t)comm->ranks, MPI_REQUEST_NULL);
    for (int peer = 0; peer < comm->ranks; peer++) {
        if (peer == comm->rank) continue;
        MPI_Isend(&comm->failure_told, 1, MPI_INT64_T, peer, FAILURE_TAG, MPI_COMM_WORLD, &comm->telling[(size_t)peer]);
    }
}

void listen(ncclComm *comm) {
    if (comm->listening == MPI_REQUEST_NULL) return;
    int heard = 0;
    MPI_Status status;
    MPI_Test(&comm->listening, &heard, &status);
    if (heard && !failed(comm)) {
        comm->state = ncclRemoteError;  // who failed has told all
        comm->text = "rank " + std::to_string(status.MPI_SOURCE) + " failed";
    }
}

bool ended(std::vector<MPI_Request> &requests) {
    int flag = 0;
    MPI_Testall((int)requests.size(), requests.data(), &flag, MPI_STATUSES_IGNORE);
    return flag != 0;
}

// ---- Telling what is to be done ----------------------------------------------

bool takes_part(const Work *work, size_t rank) {
    return work->kind != GROUP || work->sends[rank].memory || work->receives[rank].memory;
}

void ask(ncclComm *comm, Work *work, MPI_Comm world) {
    size_t ranks = (size_t)comm->ranks;
    work->mine.resize(ranks);
    work->theirs.resize(ranks);
    work->stage = Work::ASKED;
    for (size_t peer = 0; peer < ranks; peer++) {
        Header *mine = &work->mine[peer];
        *mine = {work->kind, (int64_t)work->from.bytes, (int64_t)work->from.bytes};
        if (work->kind == GROUP) *mine = {GROUP, (int64_t)work->sends[peer].bytes, (int64_t)work->receives[peer].bytes};
        if (work->kind == JOIN) *mine = {JOIN, comm->device, comm->identifier};
        if ((int)peer == comm->rank) work->theirs[peer] = *mine;
        if ((int)peer == comm->rank || !takes_part(work, peer)) continue;
        MPI_Request requests[2];
        MPI_Irecv(&work->theirs[peer], 3, MPI_INT64_T, (int)peer, HEADER_TAG, world, &requests[0]);
        MPI_Isend(mine, 3, MPI_INT64_T, (int)peer, HEADER_TAG, world, &requests[1]);
        work->requests.insert(work->requests.end(), requests, requests + 2);
    }
}

void compare(ncclComm *comm, const Work *work, size_t peer) {
    const Header &mine = work->mine[peer], &theirs = work->theirs[peer];
    if (mine.kind != theirs.kind) {
        fail(comm, ncclInvalidUsage, "%s here meets %s of rank %zu", kind_names[mine.kind], kind_names[theirs.kind],
             peer);
    } else if (work->kind == JOIN && mine.wanted != theirs.wanted) {
        fail(comm, ncclInvalidArgument, "rank %zu has another identifier", peer);
    } else if (work->kind == JOIN && mine.sent == theirs.sent && (int)peer != comm->rank) {
        fail(comm, ncclInvalidUsage, "Duplicate GPU detected: rank %zu has it too", peer);
    } else if (work->kind != JOIN && (mine.sent != theirs.wanted || mine.wanted != theirs.sent)) {
        fail(comm, ncclInvalidArgument,
             "%s of %lld bytes out, %lld in, where rank %zu has %lld in, %lld out: the counts differ",
             kind_names[mine.kind], (long long)mine.sent, (long long)mine.wanted, peer, (long long)theirs.wanted,
             (long long)theirs.sent);
    }
}

// ---- Moving ------------------------------------------------------------------

void move_group(ncclComm *comm, Work *work) {
    size_t leaving = 0, coming = 0;
    for (const Part &part : work->sends) leaving += part.bytes;
    for (const Part &part : work->receives) coming += part.bytes;
    work->outgoing.resize(leaving);
    work->incoming.resize(coming);
    char *out = work->outgoing.data(), *in = work->incoming.data();
    for (size_t peer = 0; peer < work->sends.size(); peer++) {
        const Part &send = work->sends[peer], &receive = work->receives[peer];
        if (!takes_part(work, peer)) continue;
        MPI_Request requests[2];
        if (send.memory) memcpy(out, send.memory, send.bytes);
        MPI_Irecv(in, (int)receive.bytes, MPI_BYTE, (int)peer, DATA_TAG, comm->world, &requests[0]);
        MPI_Isend(out, (int)send.bytes, MPI_BYTE, (int)peer, DATA_TAG, comm->world, &requests[1]);
        work->requests.insert(work->requests.end(), requests, requests + 2);
        out += send.bytes;
        in += receive.bytes;
    }
}

// Device memory is read here and written in `deliver`; in between it is protected.
void move(ncclComm *comm, Work *work) {
    MPI_Request request = MPI_REQUEST_NULL;
    int bytes = (int)work->from.bytes, count = (int)(work->to.bytes / sizeof(float));
    work->stage = Work::MOVING;
    work->requests.clear();
    if (work->kind == GROUP) return move_group(comm, work);
    work->outgoing.assign(work->from.memory, work->from.memory + work->from.bytes);
    work->incoming.resize(work->to.bytes);
    if (work->kind == ALL_REDUCE) {
        work->incoming = work->outgoing;
        MPI_Iallreduce(MPI_IN_PLACE, work->incoming.data(), count, MPI_FLOAT, MPI_SUM, comm->world, &request);
    } else if (work->kind == REDUCE_SCATTER) {
        MPI_Ireduce_scatter_block(work->outgoing.data(), work->incoming.data(), count, MPI_FLOAT, MPI_SUM, comm->world,
                                  &request);
    } else if (work->kind == ALL_GATHER) {
        MPI_Iallgather(work->outgoing.data(), bytes, MPI_BYTE, work->incoming.data(), bytes, MPI_BYTE, comm->world,
                       &request);
    }
    work->requests = {request};
}

void deliver(const Work *work) {
    const char *in = work->incoming.data();
    if (work->to.memory) memcpy(work->to.memory, in, work->to.bytes);
    for (const Part &receive : work->receives) {
        if (receive.memory) memcpy(receive.memory, in, receive.bytes);
        in += receive.bytes;
    }
}

// One step; true: the work has ended. After an error it never does, until the communicator is aborted.
bool advance(ncclComm *comm, Work *work) {
    if (comm->aborted) return true;
    listen(comm);
    if (failed(comm)) return false;
    if (work->stage == Work::NEW) ask(comm, work, comm->world);
    if (!ended(work->requests)) return false;
    if (work->stage == Work::ASKED) {
        for (size_t peer = 0; peer < work->mine.size(); peer++) {
            if (takes_part(work, peer)) compare(comm, work, peer);
        }
        if (failed(comm)) return false;
        move(comm, work);
        if (!ended(work->requests)) return false;
    }
    deliver(work);
    return true;
}

// ---- Communicators -----------------------------------------------------------

// Ends with a communicator of our own.
bool advance_joining(ncclComm *comm) {
    Work *work = comm->joining.get();
    listen(comm);
    if (failed(comm)) return false;
    if (work->stage == Work::NEW) ask(comm, work, MPI_COMM_WORLD);
    if (!ended(work->requests)) return false;
    if (work->stage == Work::ASKED) {
        for (size_t peer = 0; peer < work->mine.size(); peer++) compare(comm, work, peer);
        if (failed(comm)) return false;
        work->stage = Work::MOVING;
        work->requests = {MPI_REQUEST_NULL};
        MPI_Comm_idup(MPI_COMM_WORLD, &comm->world, work->requests.data());
        if (!ended(work->requests)) return false;
    }
    return true;
}

void launch(ncclComm *comm, const std::shared_ptr<Work> &work) {
    int64_t number = ++comm->launched;
    comm->under_way++;
    host_queue_until(work->stream, [comm, work, number] {
        if (number == comm->fail_at) fail(comm, ncclSystemError, "as the test wants");
        bool done = advance(comm, work.get());
        comm->under_way -= done;
        return done;
    });
}

// What a communicator does while it is asked. It says that it is still at work at least once.
void settle(ncclComm *comm) {
    if (comm->joining) {
        if (!advance_joining(comm)) return;
        comm->joining = nullptr;
    }
    if (comm->leaving && (comm->under_way || !advance(comm, comm->leaving.get()))) return;
    for (const auto &work : comm->launching) launch(comm, work);
    comm->launching.clear();
    if (!failed(comm)) comm->state = ncclSuccess;
}

ncclResult_t call(ncclComm *comm, const std::shared_ptr<Work> &work) {
    if (failed(comm)) return comm->state;
    if (comm->state == ncclInProgress || comm->leaving) {
        fail(comm, ncclInvalidUsage, "%s was called before the call before it had settled", kind_names[work->kind]);
        return comm->state;
    }
    comm->launching.push_back(work);
    return comm->state = ncclInProgress;
}

bool fits(const void *memory, size_t bytes) { return bytes <= INT_MAX && host_is_device(memory, bytes); }

ncclResult_t collective(Kind kind, const void *from, size_t from_bytes, void *to, size_t to_bytes, ncclComm *comm,
                        cudaStream_t stream) {
    if (group.depth) return ncclInvalidUsage;
    if (!fits(from, from_bytes) || !fits(to, to_bytes)) return ncclInvalidArgument;
    auto work = std::make_shared<Work>();
    work->kind = kind;
    work->stream = stream;
    work->from = {(char *)from, from_bytes};
    work->to = {(char *)to, to_bytes};
    return call(comm, work);
}

ncclResult_t exchange(const void *memory, size_t bytes, int peer, bool sends, ncclComm *comm, cudaStream_t stream) {
    if (!group.depth || (group.comm && group.comm != comm)) return ncclInvalidUsage;
    if (peer < 0 || peer >= comm->ranks || bytes == 0 || !fits(memory, bytes)) return ncclInvalidArgument;
    if (!group.work) {
        group.comm = comm;
        group.work = std::make_shared<Work>();
        group.work->kind = GROUP;
        group.work->stream = stream;
        group.work->sends.resize((size_t)comm->ranks);
        group.work->receives.resize((size_t)comm->ranks);
    }
    Part *part = &(sends ? group.work->sends : group.work->receives)[(size_t)peer];
    if (part->memory || stream != group.work->stream) return ncclInvalidUsage;
    *part = {(char *)memory, bytes};
    return ncclSuccess;
}

ncclResult_t note(ncclResult_t code) {
    if (code != ncclSuccess) group.error = code;
    return code;
}

}  // namespace

// ---- NCCL's functions --------------------------------------------------------

ncclResult_t ncclGetVersion(int *version) { return *version = 22809, ncclSuccess; }

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    snprintf(id->internal, sizeof id->internal, "process %lld, time %lld", (long long)getpid(), (long long)time(NULL));
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    }
    return "unknown result code";
}

const char *ncclGetLastError(ncclComm_t comm) { return comm ? comm->text.c_str() : ""; }

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) {
    int mpi_rank, mpi_ranks, fail_rank, fail_at;
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &mpi_ranks);
    if (config->size != sizeof *config || config->blocking != 0 || rank != mpi_rank || ranks != mpi_ranks) {
        return ncclInvalidArgument;
    }
    const char *in_switch = getenv("NCCL_NVLS_ENABLE");  // whose sums are not the same twice
    if (!in_switch || strcmp(in_switch, "0") != 0) return ncclInvalidUsage;
    auto comm = std::make_unique<ncclComm>();
    comm->rank = rank;
    comm->ranks = ranks;
    comm->identifier = (int64_t)std::hash<std::string>()(std::string(id.internal, sizeof id.internal));
    if (cudaGetDevice(&comm->device) != cudaSuccess) return ncclUnhandledCudaError;
    comm->joining = std::make_shared<Work>();
    comm->joining->kind = JOIN;
    const char *wish = getenv("VL_TEST_NCCL_FAIL");
    if (wish && sscanf(wish, "%d:%d", &fail_rank, &fail_at) == 2 && fail_rank == rank) comm->fail_at = fail_at;
    MPI_Irecv(&comm->failure_heard, 1, MPI_INT64_T, MPI_ANY_SOURCE, FAILURE_TAG, MPI_COMM_WORLD, &comm->listening);
    *out = comm.get();
    communicators.push_back(std::move(comm));
    if ((*out)->fail_at == 0) fail(*out, ncclSystemError, "as the test wants");
    return failed(*out) ? (*out)->state : ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state) {
    if (comm->aborted) return ncclInvalidArgument;
    listen(comm);
    *state = comm->state;
    if (comm->state == ncclInProgress) settle(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    auto work = std::make_shared<Work>();
    work->kind = LEAVE;
    ncclResult_t code = call(comm, work);
    if (code != ncclInProgress) return code;
    comm->launching.clear();  // it waits for all streams, and is on none
    comm->leaving = work;
    return code;
}

// For one that has left.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (!comm->leaving || comm->state != ncclSuccess) return ncclInvalidUsage;
    return ncclCommAbort(comm);
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    if (comm->listening != MPI_REQUEST_NULL) {
        MPI_Cancel(&comm->listening);
        MPI_Wait(&comm->listening, MPI_STATUS_IGNORE);
    }
    comm->aborted = true;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclFloat32 || operation != ncclSum) return ncclInvalidArgument;
    return collective(ALL_REDUCE, from, count * 4, to, count * 4, comm, stream);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                               ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclFloat32 || operation != ncclSum) return ncclInvalidArgument;
    return collective(REDUCE_SCATTER, from, count * 4 * (size_t)comm->ranks, to, count * 4, comm, stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    size_t bytes = count * type_bytes(type);
    return collective(ALL_GATHER, from, bytes, to, bytes * (size_t)comm->ranks, comm, stream);
}

ncclResult_t ncclGroupStart() {
    if (group.depth++ == 0) group = {1, nullptr, nullptr, ncclSuccess};
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    if (group.depth == 0) return ncclInvalidUsage;
    if (--group.depth > 0) return ncclSuccess;
    if (group.error != ncclSuccess) return group.error;
    return group.work ? call(group.comm, group.work) : ncclSuccess;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return note(exchange(from, count * type_bytes(type), peer, true, comm, stream));
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return note(exchange(to, count * type_bytes(type), peer, false, comm, stream));
}
