// The collectives over the memory of GPUs in a build without CUDA, or without NCCL's header: there are none.
#include "dist/device_comm.h"

static VlStatus absent(void) {
    return vl_error(VL_UNSUPPORTED,
                    "this build knows one GPU only: nccl.h was missing; install libnccl-dev and build again, or use "
                    "the device cpu");
}

VlStatus vl_device_comm_choose_gpu(VlComm *comm) {
    (void)comm;
    return VL_OK;
}

VlStatus vl_device_comm_open(VlDeviceComm **device_comm, VlContext *context, VlComm *comm) {
    (void)context;
    (void)comm;
    *device_comm = NULL;
    return absent();
}

void vl_device_comm_close(VlDeviceComm *device_comm) { (void)device_comm; }

const char *vl_device_comm_describe(const VlDeviceComm *device_comm) {
    (void)device_comm;
    return "none";
}

VlStatus vl_device_comm_reduce(VlDeviceComm *device_comm, VlTensor data) {
    (void)device_comm;
    (void)data;
    return absent();
}

VlStatus vl_device_comm_reduce_scatter(VlDeviceComm *device_comm, VlTensor mine, VlTensor all) {
    (void)device_comm;
    (void)mine;
    (void)all;
    return absent();
}

VlStatus vl_device_comm_all_gather(VlDeviceComm *device_comm, VlTensor all, VlTensor mine) {
    (void)device_comm;
    (void)all;
    (void)mine;
    return absent();
}

VlStatus vl_device_comm_all_to_all(VlDeviceComm *device_comm, VlTensor received, const int64_t *receive, VlTensor sent,
                                   const int64_t *send) {
    (void)device_comm;
    (void)received;
    (void)receive;
    (void)sent;
    (void)send;
    return absent();
}

VlStatus vl_device_comm_wait(VlDeviceComm *device_comm) {
    (void)device_comm;
    return absent();
}
