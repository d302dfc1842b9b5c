// runtime.h - what runs kernels: memory, one queue of work, launches, graphs. Two types are Runtimes: CudaRuntime
// (cuda_runtime.h, nvcc only) and simt::SimtRuntime (simt/runtime.h), the same over the host executor.
//
//   allocate(bytes) -> void*       at a 256-byte boundary; its contents mean nothing
//   release(memory) noexcept
//   upload(to, from, bytes)        from the host; `from` may change once it returns
//   download(to, from, bytes)      to the host; waits for all earlier work
//   zero(to, bytes)
//   synchronize()                  waits; errors of earlier work surface here, in download() or at a later launch
//   launch(name, grid, block, shared_bytes, body)    body(ctx) in every thread (ptx.h); with Body::kCluster in
//                                   clusters of as many blocks (ptx_sm90.h)
//   capture(record) -> Graph       what record() launches and zeroes, not done yet; nothing else may be called in it
//   replay(graph)                  does it, with the pointers and sizes of the capture; the graph outlives it
//   name()                         "cuda:0, NVIDIA H200, sm_90"
//   max_shared_bytes()             of one block
//   multiprocessors()
//
// Every failure is a ResourceError that names operation, kernel and remedy. One thread at a time. SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstddef>
#include <string>

#include "tweedie/kernels/cuda/ptx_sm90.h"

namespace tweedie::kernels::cuda {

namespace detail {
struct EmptyBody {
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx&) const {}
};
}  // namespace detail

template <class R>
concept Runtime = requires(R& r, void* to, const void* from, std::size_t bytes, const typename R::Graph& graph,
                           void (*record)()) {
  { r.allocate(bytes) } -> std::same_as<void*>;
  { r.release(to) }
  noexcept;
  r.upload(to, from, bytes);
  r.download(to, from, bytes);
  r.zero(to, bytes);
  r.synchronize();
  r.launch("name", 1, 1, 0, detail::EmptyBody{});
  { r.capture(record) } -> std::same_as<typename R::Graph>;
  r.replay(graph);
  { r.name() } -> std::convertible_to<const std::string&>;
  { r.max_shared_bytes() } -> std::same_as<int>;
  { r.multiprocessors() } -> std::same_as<int>;
};

/// `launch` as the launchers of the kernels take it. `runtime` outlives it.
template <class R>
auto launcher(R& runtime) {
  return [&runtime](const char* name, int grid, int block, int shared_bytes, const auto& body) {
    runtime.launch(name, grid, block, shared_bytes, body);
  };
}

}  // namespace tweedie::kernels::cuda
