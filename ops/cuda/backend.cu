// The CUDA backend: the device, its memory, copies, and the table of operations.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/cuda/indices.cuh"
#include "ops/cuda/staging.cuh"

VlStatus vl_cuda_error(cudaError_t code, const char *what) {
    if (code == cudaSuccess) return VL_OK;
    VlStatus status = code == cudaErrorMemoryAllocation ? VL_OUT_OF_MEMORY : VL_INTERNAL;
    return vl_error(status, "CUDA, %s: %s (%s)", what, cudaGetErrorString(code), cudaGetErrorName(code));
}

// ---- Waiting, and what it finds ------------------------------------------------

VlStatus vl_cuda_wait(VlContext *context) {
    VlCudaState *state = vl_cuda_state(context);
    VlCudaFault fault = {};
    VL_TRY(vl_cuda_error(cudaMemcpyAsync(&fault, state->fault, sizeof fault, cudaMemcpyDeviceToHost, state->stream),
                         "reading the device's faults"));
    VL_TRY(vl_cuda_error(cudaStreamSynchronize(state->stream), "waiting for the device"));
    if (!fault.taken) return VL_OK;
    VL_TRY(
        vl_cuda_error(cudaMemsetAsync(state->fault, 0, sizeof fault, state->stream), "clearing the device's faults"));
    return vl_error(VL_INVALID, "element %lld of an index tensor is %lld, it must be in [0, %lld)",
                    (long long)fault.position, (long long)fault.value, (long long)fault.bound);
}

static const int64_t *indices(VlContext *context, VlTensor tensor) {
    return vl_cuda_indices_find(vl_cuda_state(context)->indices, tensor);
}

// ---- Memory and copies -------------------------------------------------------

static VlStatus allocate(VlContext *context, int64_t bytes, void **memory) {
    VlCudaState *state = vl_cuda_state(context);
    *memory = NULL;
    if (bytes < 0 || bytes > INT64_MAX / 2) {
        return vl_error(VL_INVALID, "cannot allocate %lld bytes: no valid size", (long long)bytes);
    }
    size_t size = (size_t)(bytes ? bytes : 1);
    cudaError_t code = cudaMalloc(memory, size);
    if (code == cudaErrorMemoryAllocation) {
        size_t left = 0, whole = 0;
        cudaGetLastError();
        cudaMemGetInfo(&left, &whole);
        return vl_error(VL_OUT_OF_MEMORY,
                        "out of device memory: %lld MiB were asked for, %lld of the device's %lld MiB are free; "
                        "`vl2 plan` tells what a configuration needs",
                        (long long)(size >> 20), (long long)(left >> 20), (long long)(whole >> 20));
    }
    VL_TRY(vl_cuda_error(code, "allocating memory"));
    vl_cuda_indices_forget(state->indices, *memory, (int64_t)size);
    code = cudaMemsetAsync(*memory, 0, size, state->stream);
    if (code == cudaSuccess) return VL_OK;
    cudaFree(*memory);
    *memory = NULL;
    return vl_cuda_error(code, "zeroing memory");
}

static void release(VlContext *context, void *memory) {
    (void)context;
    cudaFree(memory);  // waits for what still uses it
}

static VlStatus memory(VlContext *context, int64_t *left, int64_t *whole) {
    (void)context;
    size_t free_bytes = 0, all_bytes = 0;
    VL_TRY(vl_cuda_error(cudaMemGetInfo(&free_bytes, &all_bytes), "asking for the device's memory"));
    *left = (int64_t)free_bytes;
    *whole = (int64_t)all_bytes;
    return VL_OK;
}

static VlStatus copy_to_host(VlContext *context, void *host, VlTensor from) {
    if (vl_bytes(from) == 0) return VL_OK;
    VL_TRY(vl_cuda_error(cudaMemcpyAsync(host, from.data, (size_t)vl_bytes(from), cudaMemcpyDeviceToHost,
                                         vl_cuda_state(context)->stream),
                         "a copy to the host"));
    return vl_cuda_wait(context);
}

static VlStatus copy_from_host(VlContext *context, VlTensor to, const void *host) {
    VlCudaState *state = vl_cuda_state(context);
    int64_t bytes = vl_bytes(to);
    if (bytes == 0) return VL_OK;
    if (to.dtype == VL_I64) {
        VL_TRY(vl_cuda_indices_keep(state->indices, to, (const int64_t *)host));
    } else {
        vl_cuda_indices_forget(state->indices, to.data, bytes);
    }
    VL_TRY(vl_cuda_staging_copy(state->staging, state->stream, to.data, host, bytes));
    return state->waits ? vl_cuda_wait(context) : VL_OK;
}

// ---- The device --------------------------------------------------------------

static VlStatus open_stream(VlContext *context, VlCudaState *state) {
    cudaDeviceProp properties;
    VL_TRY(vl_cuda_error(cudaGetDevice(&state->device), "choosing a device"));
    VL_TRY(vl_cuda_error(cudaGetDeviceProperties(&properties, state->device), "asking the device"));
    if (properties.sharedMemPerBlockOptin < MOST_SHARED) {
        return vl_error(VL_UNSUPPORTED,
                        "%s: a block has %lld bytes of shared memory, kernels take up to %d, as GPUs of compute "
                        "capability 8.0, 9.0 and 10.0 have; use the device cpu",
                        properties.name, (long long)properties.sharedMemPerBlockOptin, MOST_SHARED);
    }
    state->processors = properties.multiProcessorCount;
    snprintf(context->model, sizeof context->model, "%.*s", (int)sizeof context->model - 1, properties.name);
    VL_TRY(vl_cuda_error(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking), "making a stream"));
    VL_TRY(vl_cuda_error(cudaMalloc((void **)&state->fault, sizeof *state->fault), "allocating memory"));
    return vl_cuda_error(cudaMemsetAsync(state->fault, 0, sizeof *state->fault, state->stream), "zeroing memory");
}

static void close_device(VlContext *context) {
    VlCudaState *state = vl_cuda_state(context);
    if (!state) return;
    if (state->stream) cudaStreamSynchronize(state->stream);
    vl_cuda_blas_close(state->blas);
    vl_cuda_staging_free(state->staging);
    vl_cuda_indices_free(state->indices);
    cudaFree(state->fault);
    if (state->stream) cudaStreamDestroy(state->stream);
    vl_free(state);
    context->state = NULL;
}

// The number of devices, or 0 and why.
static int count_devices(const char **why) {
    int count = 0, driver = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaSuccess && count > 0) return count;
    cudaGetLastError();
    bool none = cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0;
    *why = none                  ? "this machine has no NVIDIA driver"
           : code == cudaSuccess ? "the driver lists none"
                                 : cudaGetErrorString(code);
    return 0;
}

static bool present(void) {
    const char *why;
    return count_devices(&why) > 0;
}

static VlStatus open_parts(VlContext *context, VlCudaState *state) {
    VL_TRY(open_stream(context, state));
    VL_TRY(vl_cuda_indices_create(&state->indices));
    VL_TRY(vl_cuda_staging_create(&state->staging));
    VL_TRY(vl_cuda_blas_open(&state->blas));
    return VL_OK;
}

static VlStatus open_device(VlContext *context) {
    const char *why, *guard = getenv("VL2_GUARD");
    if (count_devices(&why) == 0) {
        return vl_error(VL_UNSUPPORTED, "no CUDA device: %s; use the device cpu", why);
    }
    VlCudaState *state;
    VL_TRY(VL_NEW(&state, 1));
    context->state = state;
    state->waits = guard && strcmp(guard, "1") == 0;
    VlStatus status = open_parts(context, state);
    if (status != VL_OK) close_device(context);
    return status;
}

// A row without its backward does not link.
const VlBackend vl_backend_cuda = {
    .name = "cuda",
    .present = present,
    .open = open_device,
    .close = close_device,
    .allocate = allocate,
    .release = release,
    .copy_to_host = copy_to_host,
    .copy_from_host = copy_from_host,
    .indices = indices,
    .wait = vl_cuda_wait,
    .memory = memory,
    .ops =
        {
#define OP(name, forward, forward_names, backward, backward_names) \
    .name##_forward = &vl_cuda_##name##_forward, .name##_backward = &vl_cuda_##name##_backward,
#define OP_NO_GRADIENT(name, parameters, names, reason) .name = &vl_cuda_##name,
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT
        },
};
