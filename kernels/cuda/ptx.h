// ptx.h - what a kernel body sees of its machine: `DeviceThread` under nvcc, simt::Thread on the host; the same member functions.
//
// Bodies are function objects with `template <class Ctx> TWEEDIE_KERNEL void operator()(Ctx& ctx) const` and use no other CUDA
// name. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define TWEEDIE_KERNEL __device__ __forceinline__
#define TWEEDIE_UNROLL _Pragma("unroll")
#define TWEEDIE_SHARED(Type, name, size) __shared__ __align__(16) Type name[size]
#else
#define TWEEDIE_KERNEL
#define TWEEDIE_UNROLL
/// A static shared array of the block: Type name[size].
#define TWEEDIE_SHARED(Type, name, size) \
  struct name##_tag {};                  \
  Type* const name = ctx.template shared<name##_tag, Type, size>()
#endif

#ifdef __CUDACC__
namespace tweedie::kernels::cuda {

struct DeviceThread {
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int block() const { return static_cast<int>(blockIdx.x); }
  __device__ int block_size() const { return static_cast<int>(blockDim.x); }
  __device__ int grid_size() const { return static_cast<int>(gridDim.x); }
  __device__ int lane() const { return static_cast<int>(threadIdx.x & 31U); }
  __device__ void sync() const { __syncthreads(); }
  __device__ void sync_warp(unsigned mask = ~0U) const { __syncwarp(mask); }
  template <class T>
  __device__ T shuffle(unsigned mask, T value, int source) const {
    return __shfl_sync(mask, value, source);
  }
  template <class T>
  __device__ T shuffle_xor(unsigned mask, T value, int bits) const {
    return __shfl_xor_sync(mask, value, bits);
  }
  template <class T>
  __device__ T shuffle_down(unsigned mask, T value, int delta) const {
    return __shfl_down_sync(mask, value, static_cast<unsigned>(delta));
  }
  template <class T>
  __device__ T shuffle_up(unsigned mask, T value, int delta) const {
    return __shfl_up_sync(mask, value, static_cast<unsigned>(delta));
  }
  __device__ unsigned ballot(unsigned mask, bool predicate) const { return __ballot_sync(mask, predicate); }
  __device__ bool any(unsigned mask, bool predicate) const { return __any_sync(mask, predicate) != 0; }
  __device__ bool all(unsigned mask, bool predicate) const { return __all_sync(mask, predicate) != 0; }
  template <class T>
  __device__ T* dynamic_shared() const {
    extern __shared__ __align__(16) unsigned char dynamic_memory[];
    return reinterpret_cast<T*>(dynamic_memory);
  }
  /// 16 bytes bypass L1, which then keeps biases and steps.
  template <int Bytes>
  __device__ void copy_async(void* to, const void* from, bool predicate = true) const {
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    if constexpr (Bytes == 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(predicate ? 16 : 0) : "memory");
      return;
    }
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(Bytes), "r"(predicate ? Bytes : 0)
                 : "memory");
  }
  __device__ void commit_async() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int Pending>
  __device__ void wait_async() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
  }
  /// x rounded to tf32's 10 bits, ties away from zero.
  __device__ std::uint32_t to_tf32(float x) const {
    std::uint32_t y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
  }
  /// 2^x, relative error 2^-22; 1 / x, relative error 2^-23; subnormal arguments and results are 0 [PTX ISA, ex2 and rcp].
  __device__ float exp2_approx(float x) const {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __device__ float reciprocal_approx(float x) const {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __device__ void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) const {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  __device__ void mma_f64(double (&d)[2], double a, double b) const {
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+d"(d[0]), "+d"(d[1])
                 : "d"(a), "d"(b));
  }
  /// (first, second) rounded to bf16's 7 bits, ties to even; first in the low half.
  __device__ std::uint32_t to_bf16x2(float first, float second) const {
    std::uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(second), "f"(first));
    return y;
  }
  /// tanh x, relative error 2^-11 [PTX ISA, tanh].
  __device__ float tanh_approx(float x) const {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  /// Four matrices of 8 rows of 16 bytes: see the executor's.
  __device__ void load_matrix_x4(std::uint32_t (&to)[4], const void* row) const {
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  }
  __device__ void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) const {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
};

template <class Body>
__global__ void run_kernel(const __grid_constant__ Body body) {
  DeviceThread ctx;
  body(ctx);
}

}  // namespace tweedie::kernels::cuda
#endif
