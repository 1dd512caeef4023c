#include "dist/comm.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "dist/transport.h"

enum { QUEUE = 1024 };

struct VlComm {
    int64_t rank, size;
    double timeout;
    bool threaded;  // several ranks: the fields below are in use
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    VlRequest queue[QUEUE];  // ring: requests [finished, submitted)
    int64_t submitted, finished;
    bool started, stopping;
    VlError error;  // the first one; nothing is carried out after it
};

static const char *collective_name(const VlRequest *request) {
    static const char *const names[] = {"all-reduce", "broadcast", "all-gather"};
    return names[request->collective];
}

// Carries out one request, piece by piece. Polling sleeps between tries, longer and longer, so that a waiting rank
// leaves its core to whoever computes.
static VlStatus carry_out(const VlComm *comm, VlRequest request, int64_t number, double timeout) {
    static const int64_t element[] = {4, 8, 8, 8, 8};
    int64_t size = request.collective == VL_REDUCE ? element[request.reduction] : 1;
    double begin = vl_seconds();
    for (int64_t left = request.count; left > 0;) {
        VlRequest piece = request;
        piece.count = left;
        piece.count = vl_transport_piece(&piece);
        VL_TRY(vl_transport_begin(&piece));
        bool done = false;
        for (long pause = 5000; !done;) {
            VL_TRY(vl_transport_poll(&done));
            if (done) break;
            if (vl_seconds() - begin > timeout) {
                return vl_error(VL_COMMUNICATION,
                                "rank %lld waited %.0f s in collective %lld (%s of %lld): another rank is "
                                "stuck or dead; look at its output",
                                (long long)comm->rank, timeout, (long long)number, collective_name(&request),
                                (long long)request.count);
            }
            nanosleep(&(struct timespec){0, pause}, NULL);
            if (pause < 500000) pause += pause / 4;
        }
        left -= piece.count;
        request.data = (char *)request.data + piece.count * size;
    }
    return VL_OK;
}

static void *communicate(void *argument) {
    VlComm *comm = argument;
    VlStatus status = vl_transport_start(&comm->rank, &comm->size);
    pthread_mutex_lock(&comm->lock);
    comm->started = true;
    if (status != VL_OK) comm->error = vl_error_take(status);
    pthread_cond_broadcast(&comm->changed);
    while (!comm->stopping || comm->finished < comm->submitted) {
        if (comm->finished == comm->submitted) {
            vl_wait_for_change(&comm->changed, &comm->lock);
            continue;
        }
        VlRequest request = comm->queue[comm->finished % QUEUE];
        double timeout = comm->timeout;
        if (comm->error.status == VL_OK) {
            pthread_mutex_unlock(&comm->lock);
            status = carry_out(comm, request, comm->finished, timeout);
            pthread_mutex_lock(&comm->lock);
            if (status != VL_OK) comm->error = vl_error_take(status);
        }
        comm->finished++;
        pthread_cond_broadcast(&comm->changed);
    }
    bool healthy = comm->error.status == VL_OK;
    pthread_mutex_unlock(&comm->lock);
    if (healthy) vl_transport_stop();
    return NULL;
}

bool vl_comm_launched(void) { return vl_transport_launched(); }

VlStatus vl_comm_open(VlComm **out, double timeout_seconds) {
    VlComm *comm;
    VL_TRY(VL_NEW(&comm, 1));
    comm->size = 1;
    comm->timeout = timeout_seconds > 0 ? timeout_seconds : 600;
    if (vl_transport_launched()) {
        pthread_mutex_init(&comm->lock, NULL);
        pthread_cond_init(&comm->changed, NULL);
        int code = pthread_create(&comm->thread, NULL, communicate, comm);
        if (code != 0) {
            vl_free(comm);
            return vl_error(VL_OUT_OF_MEMORY, "cannot start the communication thread: %s", strerror(code));
        }
        comm->threaded = true;
        pthread_mutex_lock(&comm->lock);
        while (!comm->started) vl_wait_for_change(&comm->changed, &comm->lock);
        VlError error = comm->error;
        pthread_mutex_unlock(&comm->lock);
        if (error.status != VL_OK) {
            vl_comm_close(comm);
            return vl_error_raise(&error);
        }
    }
    *out = comm;
    return VL_OK;
}

void vl_comm_set_timeout(VlComm *comm, double seconds) {
    if (comm->threaded) pthread_mutex_lock(&comm->lock);
    comm->timeout = seconds;
    if (comm->threaded) pthread_mutex_unlock(&comm->lock);
}

double vl_comm_timeout(VlComm *comm) {
    if (comm->threaded) pthread_mutex_lock(&comm->lock);
    double seconds = comm->timeout;
    if (comm->threaded) pthread_mutex_unlock(&comm->lock);
    return seconds;
}

void vl_comm_close(VlComm *comm) {
    if (!comm) return;
    if (comm->threaded) {
        pthread_mutex_lock(&comm->lock);
        comm->stopping = true;
        pthread_cond_broadcast(&comm->changed);
        pthread_mutex_unlock(&comm->lock);
        pthread_join(comm->thread, NULL);
        pthread_mutex_destroy(&comm->lock);
        pthread_cond_destroy(&comm->changed);
    }
    vl_free(comm);
}

void vl_comm_abort(VlComm *comm, int exit_code) {
    if (comm && comm->size > 1) {
        vl_transport_abort(exit_code);
        _exit(exit_code);
    }
}

int64_t vl_comm_rank(const VlComm *comm) { return comm->rank; }

int64_t vl_comm_size(const VlComm *comm) { return comm->size; }

static VlStatus submit(VlComm *comm, VlRequest request) {
    pthread_mutex_lock(&comm->lock);
    while (comm->submitted - comm->finished == QUEUE) vl_wait_for_change(&comm->changed, &comm->lock);
    comm->queue[comm->submitted++ % QUEUE] = request;
    pthread_cond_broadcast(&comm->changed);
    pthread_mutex_unlock(&comm->lock);
    return VL_OK;
}

// carry_out ends every request within the time limit, so this wait has an end.
VlStatus vl_comm_wait(VlComm *comm) {
    if (!comm->threaded) return VL_OK;
    pthread_mutex_lock(&comm->lock);
    int64_t target = comm->submitted;
    while (comm->finished < target) vl_wait_for_change(&comm->changed, &comm->lock);
    VlError error = comm->error;
    pthread_mutex_unlock(&comm->lock);
    return error.status == VL_OK ? VL_OK : vl_error_raise(&error);
}

VlStatus vl_comm_start_reduce(VlComm *comm, VlReduction reduction, void *data, int64_t count) {
    if (comm->size == 1 || count == 0) return VL_OK;
    return submit(comm, (VlRequest){.collective = VL_REDUCE, .reduction = reduction, .data = data, .count = count});
}

VlStatus vl_comm_reduce(VlComm *comm, VlReduction reduction, void *data, int64_t count) {
    VL_TRY(vl_comm_start_reduce(comm, reduction, data, count));
    return vl_comm_wait(comm);
}

VlStatus vl_comm_broadcast(VlComm *comm, void *data, int64_t bytes, int64_t root) {
    if (comm->size == 1 || bytes == 0) return VL_OK;
    VL_TRY(submit(comm, (VlRequest){.collective = VL_BROADCAST, .data = data, .count = bytes, .root = root}));
    return vl_comm_wait(comm);
}

VlStatus vl_comm_gather_i64(VlComm *comm, const int64_t *mine, int64_t count, int64_t *all) {
    int64_t bytes = count * (int64_t)sizeof *mine;
    if (comm->size == 1) {
        memcpy(all, mine, (size_t)bytes);
        return VL_OK;
    }
    if (count == 0) return VL_OK;
    VlRequest request = {.collective = VL_GATHER, .data = all, .mine = mine, .count = bytes};
    if (vl_transport_piece(&request) < bytes) {
        return vl_error(VL_INVALID, "an all-gather of %lld bytes a rank is larger than one piece", (long long)bytes);
    }
    VL_TRY(submit(comm, request));
    return vl_comm_wait(comm);
}

VlStatus vl_comm_barrier(VlComm *comm) {
    int64_t token = 0;
    return vl_comm_reduce(comm, VL_SUM_I64, &token, 1);
}

VlStatus vl_comm_agree(VlComm *comm, VlStatus status) {
    if (comm->size == 1) return status;
    VlError mine = vl_error_take(status);
    int64_t first = status == VL_OK ? comm->size : comm->rank;
    VL_TRY(vl_comm_reduce(comm, VL_MIN_I64, &first, 1));
    if (first == comm->size) return VL_OK;
    VlError theirs = mine;
    VL_TRY(vl_comm_broadcast(comm, &theirs, (int64_t)sizeof theirs, first));
    if (status != VL_OK) return vl_error_raise(&mine);
    return vl_error(theirs.status, "rank %lld: %s", (long long)first, theirs.text);
}
