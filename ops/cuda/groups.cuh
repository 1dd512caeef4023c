// Groups of neighbouring elements: up to 16 bytes at a time where the memory is aligned, one by one where it is not. A
// kernel is written once over groups of N and instantiated for both.
#ifndef VL_OPS_CUDA_GROUPS_CUH
#define VL_OPS_CUDA_GROUPS_CUH

#include "ops/cuda/numeric.cuh"

// A number that a generic lambda gets as a value and can still use as a constant.
template <int VALUE>
struct Number {
    __host__ __device__ constexpr operator int() const { return VALUE; }
};

template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Group {
    T at[N];
};
template <int N>
struct Floats {
    float at[N];
};
template <int INPUTS, int N>
struct Inputs {  // what a kernel of several inputs has loaded
    Floats<N> of[INPUTS];
};

template <int N, class T>
static __device__ __forceinline__ Group<T, N> load_group(const T *from) {
    return *reinterpret_cast<const Group<T, N> *>(from);
}
template <class T, int N>
static __device__ __forceinline__ void store_group(T *to, Group<T, N> group) {
    *reinterpret_cast<Group<T, N> *>(to) = group;
}
template <class T, int N>
static __device__ __forceinline__ Floats<N> widen(Group<T, N> group) {
    Floats<N> values;
    for (int k = 0; k < N; k++) values.at[k] = to_float(group.at[k]);
    return values;
}
template <int N, class T>
static __device__ __forceinline__ Floats<N> load_floats(const T *from) {
    return widen(load_group<N>(from));
}
template <int N>
static __device__ __forceinline__ void store_floats(float *to, Floats<N> values) {
    Group<float, N> group;
    for (int k = 0; k < N; k++) group.at[k] = values.at[k];
    store_group(to, group);
}
template <int N>
static __device__ __forceinline__ void store_floats(Bf16 *to, Floats<N> values) {
    if constexpr (N % 2) {
        for (int k = 0; k < N; k++) to[k] = from_float<Bf16>(values.at[k]);
    } else {
        Group<uint32_t, N / 2> pairs;
        for (int k = 0; k < N; k += 2) pairs.at[k / 2] = ptx_pack_bf16(values.at[k], values.at[k + 1]);
        *reinterpret_cast<Group<uint32_t, N / 2> *>(to) = pairs;
    }
}
// Writes, or adds; sums are rounded once.
template <int N, class T>
static __device__ __forceinline__ void put_floats(T *to, Floats<N> values, bool add) {
    if (add) {
        Floats<N> before = load_floats<N>(to);
        for (int k = 0; k < N; k++) values.at[k] += before.at[k];
    }
    store_floats(to, values);
}

// ---- Element by element ------------------------------------------------------

enum { GROUP_THREADS = 256, GROUP_BATCH = 2 };

// For all groups of N in [0, count), then one by one for what is left: finish(start, load(start, n), n) with n a
// Number. Two groups are loaded before the first is finished. Output may take the place of input.
template <int N, class Load, class Finish>
static __device__ __forceinline__ void for_groups(int64_t count, Load load, Finish finish) {
    Number<N> whole;
    Number<1> single;
    int64_t groups = count / N, stride = grid_stride(), i = grid_index();
    for (; i + stride < groups; i += GROUP_BATCH * stride) {
        auto first = load(i * N, whole), second = load((i + stride) * N, whole);
        finish(i * N, first, whole);
        finish((i + stride) * N, second, whole);
    }
    if (i < groups) finish(i * N, load(i * N, whole), whole);
    int64_t left = groups * N + grid_index();
    if (N > 1 && left < count) finish(left, load(left, single), single);
}

// The grid of a kernel that goes by for_groups<N>.
static inline dim3 blocks_for_groups(int64_t count, int64_t n) {
    return blocks_for((count + n - 1) / n, GROUP_THREADS * GROUP_BATCH);
}

// Whether all tensors begin at a multiple of 16 bytes; empty views do.
template <class... Tensors>
static bool aligned(Tensors... tensors) {
    return (... && ((uintptr_t)tensors.data % 16 == 0));
}

// function(n) with the number of elements to a group: N where memory is aligned, else 1.
template <int N, class Function>
static VlStatus with_groups_of(bool are_aligned, Function function) {
    return are_aligned ? function(Number<N>{}) : function(Number<1>{});
}
// with_type and with_groups_of 16 bytes:
//   with_groups(x.dtype, aligned(y, x), [&](auto type, auto n) { using T = decltype(type); ... kernel<T, n> ... })
template <class Function>
static VlStatus with_groups(VlDtype dtype, bool are_aligned, Function function) {
    return with_type(dtype, [&](auto type) {
        return with_groups_of<16 / (int)sizeof type>(are_aligned, [&](auto n) { return function(type, n); });
    });
}

#endif
