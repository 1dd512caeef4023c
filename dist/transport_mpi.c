#include "dist/transport.h"

#include <stdlib.h>
#include <string.h>

static bool named_in_environment(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS", "VL2_MPI"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (getenv(names[i])) return true;
    }
    return false;
}

bool vl_transport_launched(void) { return named_in_environment(); }

#ifdef VL_HAVE_MPI

#include <mpi.h>

// One piece stays below 2^30 elements: MPI counts are int.
enum { PIECE = 1 << 28 };

static MPI_Request pending = MPI_REQUEST_NULL;

static VlStatus check(int code, const char *call) {
    if (code == MPI_SUCCESS) return VL_OK;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    return vl_error(VL_COMMUNICATION, "%s failed: %.*s", call, length, text);
}

VlStatus vl_transport_start(int64_t *rank, int64_t *size) {
    int provided, mpi_rank, mpi_size;
    VL_TRY(check(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread"));
    if (provided < MPI_THREAD_SERIALIZED) {
        return vl_error(VL_COMMUNICATION,
                        "this MPI does not allow calls from a thread of their own "
                        "(MPI_THREAD_SERIALIZED); build it with thread support");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    VL_TRY(check(MPI_Comm_rank(MPI_COMM_WORLD, &mpi_rank), "MPI_Comm_rank"));
    VL_TRY(check(MPI_Comm_size(MPI_COMM_WORLD, &mpi_size), "MPI_Comm_size"));
    *rank = mpi_rank;
    *size = mpi_size;
    return VL_OK;
}

int64_t vl_transport_piece(const VlRequest *request) { return request->count < PIECE ? request->count : PIECE; }

VlStatus vl_transport_begin(const VlRequest *request) {
    static const MPI_Datatype types[] = {MPI_FLOAT, MPI_DOUBLE, MPI_INT64_T, MPI_INT64_T, MPI_INT64_T};
    static const MPI_Op operators[] = {MPI_SUM, MPI_SUM, MPI_SUM, MPI_MAX, MPI_MIN};
    int count = (int)request->count;
    switch (request->collective) {
    case VL_REDUCE:
        return check(MPI_Iallreduce(MPI_IN_PLACE, request->data, count, types[request->reduction],
                                    operators[request->reduction], MPI_COMM_WORLD, &pending),
                     "MPI_Iallreduce");
    case VL_BROADCAST:
        return check(MPI_Ibcast(request->data, count, MPI_BYTE, (int)request->root, MPI_COMM_WORLD, &pending),
                     "MPI_Ibcast");
    case VL_GATHER:
        return check(
            MPI_Iallgather(request->mine, count, MPI_BYTE, request->data, count, MPI_BYTE, MPI_COMM_WORLD, &pending),
            "MPI_Iallgather");
    }
    return vl_error(VL_INTERNAL, "unknown collective %d", (int)request->collective);
}

VlStatus vl_transport_poll(bool *done) {
    int flag = 0;
    VL_TRY(check(MPI_Test(&pending, &flag, MPI_STATUS_IGNORE), "MPI_Test"));
    *done = flag != 0;
    return VL_OK;
}

void vl_transport_stop(void) { MPI_Finalize(); }

void vl_transport_abort(int exit_code) { MPI_Abort(MPI_COMM_WORLD, exit_code); }

#else

static VlStatus absent(void) {
    return vl_error(VL_UNSUPPORTED,
                    "launched by mpirun, but this build has no MPI: install libopenmpi-dev and build with "
                    "-DVL_MPI=ON, or start vl2 without mpirun");
}

VlStatus vl_transport_start(int64_t *rank, int64_t *size) {
    *rank = 0;
    *size = 1;
    return absent();
}
int64_t vl_transport_piece(const VlRequest *request) { return request->count; }
VlStatus vl_transport_begin(const VlRequest *request) {
    (void)request;
    return absent();
}
VlStatus vl_transport_poll(bool *done) {
    *done = false;
    return absent();
}
void vl_transport_stop(void) {}
void vl_transport_abort(int exit_code) { (void)exit_code; }

#endif
