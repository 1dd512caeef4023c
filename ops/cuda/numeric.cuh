// Numbers in kernels: bf16, the choice of a type at run time, and vectors of 16 bytes.
#ifndef VL_OPS_CUDA_NUMERIC_CUH
#define VL_OPS_CUDA_NUMERIC_CUH

#include "ops/cuda/device.cuh"
#include "ops/cuda/ptx.cuh"

struct Bf16 {
    uint16_t bits;
};

static __device__ __forceinline__ float to_float(float value) { return value; }
static __device__ __forceinline__ float to_float(Bf16 value) { return __uint_as_float((uint32_t)value.bits << 16); }

template <class T> __device__ T from_float(float value);
template <> __device__ __forceinline__ float from_float<float>(float value) { return value; }
template <> __device__ __forceinline__ Bf16 from_float<Bf16>(float value) { return Bf16{ptx_bf16_from_f32(value)}; }

// y = value, or y += value; the sum is rounded once.
template <class T> static __device__ __forceinline__ void put(T *y, float value, bool add) {
    *y = from_float<T>(add ? to_float(*y) + value : value);
}

// Calls function with a value of the tensor's type (f32 or bf16), whose content means nothing:
//   with_type(x.dtype, [&](auto type) { using T = decltype(type); return launch(context, kernel<T>, ...); })
template <class Function> static VlStatus with_type(VlDtype dtype, Function function) {
    return dtype == VL_F32 ? function(float{}) : function(Bf16{});
}
template <class T> static T *data_of(VlTensor tensor) { return (T *)tensor.data; }

// 16 bytes of T at once. Pointers must be aligned to 16 bytes: vectors_fit tells.
template <class T> struct alignas(16) Vector {
    static constexpr int COUNT = 16 / (int)sizeof(T);
    T at[COUNT];
};
template <class T> static __device__ __forceinline__ Vector<T> load_vector(const T *from) {
    return *reinterpret_cast<const Vector<T> *>(from);
}
template <class T> static __device__ __forceinline__ void store_vector(T *to, Vector<T> vector) {
    *reinterpret_cast<Vector<T> *>(to) = vector;
}
// Whether rows of `columns` elements of the tensor can be read as vectors of 16 bytes.
static inline bool vectors_fit(VlTensor tensor, int64_t columns) {
    return (uintptr_t)tensor.data % 16 == 0 && columns * vl_dtype_size(tensor.dtype) % 16 == 0;
}

#endif
