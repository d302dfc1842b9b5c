// ptx_sm90.h - what a kernel body sees of sm_90a beyond ptx.h: clusters, mbarriers, bulk copies, wgmma; simt::ClusterThread
// (kernels/simt/cluster.h) has the same member functions and says what each does.
//
// Compiled for anything but sm_90a the instructions are left out and run_cluster_kernel is empty: a device below never runs it.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/ptx.h"
#include "tweedie/kernels/math.h"

#ifdef __CUDACC__
#define TWEEDIE_NO_UNROLL _Pragma("unroll 1")
#else
#define TWEEDIE_NO_UNROLL
#endif

namespace tweedie::kernels::cuda {

/// The descriptor of a K-major matrix of bf16 at a shared address, rows of 64 numbers (128 bytes) in the swizzle of 128 bytes:
/// element (r, k) stands at r 128 + (k/8 ^ r mod 8) 16 + (k mod 8) 2. 32 bytes on: the next 16 columns. [PTX ISA, matrix
/// descriptor of wgmma: address >> 4 in bits 0-13; 1 in 16-29 where swizzled; bytes of 8 rows >> 4 in 32-45; in 62-63 swizzle 1,
/// 128 bytes]
TWEEDIE_MATH std::uint64_t swizzled_matrix(std::uint32_t address) {
  return (address & 0x3FFFFU) >> 4 | std::uint64_t{1} << 16 | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

}  // namespace tweedie::kernels::cuda

#ifdef __CUDACC__
#define TWEEDIE_D192                                                                 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define TWEEDIE_D256                                                                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define TWEEDIE_F8(i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define TWEEDIE_F32(i) TWEEDIE_F8(i), TWEEDIE_F8(i + 8), TWEEDIE_F8(i + 16), TWEEDIE_F8(i + 24)
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define TWEEDIE_SM90(...) asm volatile(__VA_ARGS__)
#else
#define TWEEDIE_SM90(...) static_cast<void>(0)
#endif

namespace tweedie::kernels::cuda {

struct DeviceThreadSm90 : DeviceThread {
  __device__ static std::uint32_t shared_address(const void* p) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
  }
  template <class T>
  __device__ T* dynamic_shared() const {  // swizzled panels start at multiples of 1024 bytes
    extern __shared__ __align__(1024) unsigned char dynamic_memory_1024[];
    return reinterpret_cast<T*>(dynamic_memory_1024);
  }

  __device__ int cluster_rank() const {
    std::uint32_t rank = 0;
    TWEEDIE_SM90("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return static_cast<int>(rank);
  }
  __device__ void cluster_sync() const {
    TWEEDIE_SM90("barrier.cluster.arrive.release;\n barrier.cluster.wait.acquire;" ::: "memory");
  }
  template <class T>
  __device__ T* peer(T* here, int rank) const {
    std::uint64_t there = 0;
    TWEEDIE_SM90("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(here), "r"(rank));
    return reinterpret_cast<T*>(there);
  }
  __device__ void sync_warpgroup() const { asm volatile("bar.sync %0, 128;" ::"r"(1 + thread() / 128) : "memory"); }

  __device__ void barrier_init(std::uint64_t* barrier, int arrivals) const {
    TWEEDIE_SM90("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
  }
  __device__ void fence_barrier_init() const { TWEEDIE_SM90("fence.mbarrier_init.release.cluster;" ::: "memory"); }
  __device__ void barrier_arrive(std::uint64_t* barrier) const {
    TWEEDIE_SM90("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
  }
  /// At the peer too without a fence of the whole device (release at cluster scope is one): what it tells is that products have
  /// read a panel, and they have when their wait is over.
  __device__ void barrier_arrive(std::uint64_t* barrier, int rank) const {
    TWEEDIE_SM90(
        "{\n .reg .b32 there;\n mapa.shared::cluster.u32 there, %0, %1;\n"
        " mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(barrier)),
        "r"(rank)
        : "memory");
  }
  __device__ void barrier_expect(std::uint64_t* barrier, int bytes) const {
    TWEEDIE_SM90("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
  }
  __device__ void barrier_wait(std::uint64_t* barrier, unsigned parity) const {
    TWEEDIE_SM90(
        "{\n .reg .pred over;\nagain:\n mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%0], %1;\n"
        " @!over bra again;\n}" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
  }

  __device__ void copy_bulk(void* to, const void* from, int bytes, std::uint64_t* barrier) const {
    TWEEDIE_SM90(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
  }
  __device__ void copy_bulk(void* to, const void* from, int bytes, std::uint64_t* barrier, unsigned mask) const {
    TWEEDIE_SM90(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
            shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(barrier)), "h"(static_cast<std::uint16_t>(mask))
        : "memory");
  }
  __device__ void fence_async_proxy() const { TWEEDIE_SM90("fence.proxy.async;" ::: "memory"); }

  template <int N>
  __device__ void wgmma(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b) const {
    static_assert(N == 256, "the shape in use");
    TWEEDIE_SM90("{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" TWEEDIE_D256
                 "}, {%128, %129, %130, %131}, %132, p, 1, 1, 0;\n}"
                 : TWEEDIE_F32(0), TWEEDIE_F32(32), TWEEDIE_F32(64), TWEEDIE_F32(96)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
  template <int N>
  __device__ void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b) const {
    static_assert(N == 192 || N == 256, "the shapes in use");
    if constexpr (N == 192) {
      TWEEDIE_SM90(
          "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" TWEEDIE_D192
          "}, %96, %97, p, 1, 1, 0, 0;\n}"
          : TWEEDIE_F32(0), TWEEDIE_F32(32), TWEEDIE_F32(64)
          : "l"(a), "l"(b));
    } else {
      TWEEDIE_SM90(
          "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" TWEEDIE_D256
          "}, %128, %129, p, 1, 1, 0, 0;\n}"
          : TWEEDIE_F32(0), TWEEDIE_F32(32), TWEEDIE_F32(64), TWEEDIE_F32(96)
          : "l"(a), "l"(b));
    }
  }
  /// Registers that a product reads or writes while the compiler sees no use of them: no access moves across this.
  /// Of an address: its origin is forgotten, so that many loads from it share one register pair instead of one each.
  __device__ static void pin(const float*& p) { asm volatile("" : "+l"(p)); }
  template <int N>
  __device__ static void pin(float (&d)[N]) {
    TWEEDIE_UNROLL
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
  }
  template <int N>
  __device__ static void pin(std::uint32_t (&a)[N][4]) {
    TWEEDIE_UNROLL
    for (int i = 0; i < 4 * N; ++i) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
  }
  __device__ void wgmma_fence() const { TWEEDIE_SM90("wgmma.fence.sync.aligned;" ::: "memory"); }
  __device__ void wgmma_commit() const { TWEEDIE_SM90("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  template <int Pending>
  __device__ void wgmma_wait() const {
    TWEEDIE_SM90("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
  }
  template <int Count>
  __device__ void increase_registers() const {
    TWEEDIE_SM90("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
  }
  template <int Count>
  __device__ void decrease_registers() const {
    TWEEDIE_SM90("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
  }
};

/// A body in clusters of Body::kCluster blocks of Body::kThreads threads; launched as any kernel, with a grid of whole clusters.
template <class Body>
__global__ void
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
__cluster_dims__(Body::kCluster, 1, 1)
#endif
    __launch_bounds__(Body::kThreads, 1) run_cluster_kernel(const __grid_constant__ Body body) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  DeviceThreadSm90 ctx;
  body(ctx);
#endif
}

/// The kernel that runs a body.
template <class Body>
constexpr auto kernel_of() {
  void (*kernel)(const Body) = nullptr;
  if constexpr (requires { Body::kCluster; }) {
    kernel = &run_cluster_kernel<Body>;
  } else {
    kernel = &run_kernel<Body>;
  }
  return kernel;
}

}  // namespace tweedie::kernels::cuda
#undef TWEEDIE_D192
#undef TWEEDIE_D256
#undef TWEEDIE_F8
#undef TWEEDIE_F32
#undef TWEEDIE_SM90
#endif
