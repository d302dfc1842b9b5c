// wgmma.h - wgmma in the executor: ClusterThread's members (cluster.h, which includes this) that multiply.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/simt/cluster.h"

namespace tweedie::kernels::simt {

inline void ClusterThread::issue(Product p) {
  if (!fenced_) fault(join("wgmma at line ", p.line, " with no wgmma_fence since the last wait"));
  auto& sums = sums_[p.d];
  const auto count = static_cast<std::size_t>(p.n) / 2;
  if (sums.empty()) sums.assign(p.d, p.d + count);
  if (sums.size() != count) fault(join("wgmma at line ", p.line, " on accumulators in flight with another shape"));
  std::memset(p.d, 0xFF, count * sizeof(float));
  if (thread() % 128 == 0) {
    p.bytes = matrix_bytes(p.b_matrix, p.n, p.line);
    if (p.a == nullptr) {
      const auto left = matrix_bytes(p.a_matrix, 64, p.line);
      p.bytes.insert(p.bytes.end(), left.begin(), left.end());
    }
  }
  products_.push_back(std::move(p));
}

/// The (rows, 16) of bf16 that a K-major matrix descriptor names [PTX ISA, matrix descriptor and strides of wgmma]: bits 0-13 the
/// address, 16-29 the step between 8 columns (no swizzle alone), 32-45 between 8 rows, all >> 4; 49-51 base offset; 62-63 the
/// swizzle: 0 none (8 rows of 16 bytes are consecutive), 1 of 128 bytes (rows of 128 bytes; address bits 4-6 ^= bits 7-9).
inline std::vector<unsigned char> ClusterThread::matrix_bytes(std::uint64_t matrix, int rows, int line) {
  const auto field = [matrix](int bit) { return static_cast<std::size_t>(matrix >> bit & 0x3FFFU) << 4; };
  const std::size_t start = field(0), columns = field(16), groups = field(32);
  const auto swizzle = static_cast<unsigned>(matrix >> 62);
  if (swizzle > 1 || (matrix >> 49 & 7U) != 0)
    fault(join("wgmma at line ", line, ": swizzle ", swizzle, " or a base offset, which this executor does not know"));
  if (swizzle == 1 && start % 1024 >= 128)
    fault(join("wgmma at line ", line, ": a swizzled matrix at ", start, ", not in the first row of 1024 bytes"));
  const auto& view = cluster_->states_[static_cast<std::size_t>(cluster_rank())].view;
  std::vector<unsigned char> bytes(static_cast<std::size_t>(rows) * 32);
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
    for (std::size_t half = 0; half < 2; ++half) {
      std::size_t at = start + r / 8 * groups + (swizzle == 1 ? r % 8 * 128 + half * 16 : half * columns + r % 8 * 16);
      if (swizzle == 1) at ^= (at >> 7 & 7U) << 4;
      if (at < 1024 || at - 1024 + 16 > view.size())
        fault(join("wgmma at line ", line, " reads address ", at, ", outside of shared memory"));
      std::memcpy(bytes.data() + r * 32 + half * 16, view.data() + at - 1024, 16);
    }
  }
  return bytes;
}

inline void ClusterThread::finish_products(int groups, int line) {
  fenced_ = false;
  gather("wgmma wait", line);
  // The first of the warpgroup that goes on multiplies for all.
  while (!products_.empty() && products_[0].group < groups) {
    multiply();
    for (int i = 0; i < 128; ++i) {
      ClusterThread& t = mate(i);
      float* const d = t.products_[0].d;
      t.products_.erase(t.products_.begin());
      if (std::any_of(t.products_.begin(), t.products_.end(), [d](const Product& p) { return p.d == d; })) continue;
      std::vector<float>& sums = t.sums_[d];
      const auto* const bytes = reinterpret_cast<const unsigned char*>(d);
      if (!std::all_of(bytes, bytes + sums.size() * sizeof(float), [](unsigned char byte) { return byte == 0xFF; })) {
        t.fault(join("wrote to accumulators before the wgmma wait of line ", line));
      }
      std::copy(sums.begin(), sums.end(), d);
      t.sums_.erase(d);
    }
  }
}

/// The oldest product of the warpgroup, for all its threads.
inline void ClusterThread::multiply() {
  const Product& first = mate(0).products_.empty() ? products_[0] : mate(0).products_[0];
  const auto n = static_cast<std::size_t>(first.n);
  const auto value = [](std::uint32_t half) { return static_cast<double>(__builtin_bit_cast(float, half << 16)); };
  std::vector<double> a(64 * 16), b(n * 16);
  auto now = matrix_bytes(first.b_matrix, first.n, first.line);
  if (first.a == nullptr) {
    const auto left = matrix_bytes(first.a_matrix, 64, first.line);
    now.insert(now.end(), left.begin(), left.end());
  }
  if (now != first.bytes) fault(join("shared memory of the wgmma of line ", first.line, " changed before its wait"));
  const auto decode = [&](std::size_t i) {
    std::uint16_t half;
    std::memcpy(&half, now.data() + 2 * i, sizeof half);
    return value(half);
  };
  for (std::size_t i = 0; i < n * 16; ++i) b[i] = decode(i);
  for (std::size_t i = 0; first.a == nullptr && i < 64 * 16; ++i) a[i] = decode(n * 16 + i);
  for (int i = 0; i < 128; ++i) {
    const ClusterThread& t = mate(i);
    const bool same = !t.products_.empty() && t.products_[0].n == first.n && t.products_[0].b_matrix == first.b_matrix &&
                      t.products_[0].a_matrix == first.a_matrix && t.products_[0].group == first.group &&
                      t.products_[0].line == first.line;
    if (!same) t.fault(join("the wgmma of line ", first.line, " is not the same in all threads of the warpgroup"));
    if (first.a == nullptr) continue;
    const Product& p = t.products_[0];
    if (std::memcmp(p.a, p.a_then, sizeof p.a_then) != 0)
      t.fault(join("wrote to registers of the wgmma of line ", p.line, " before its wait"));
    const int row = i / 32 * 16 + i % 32 / 4, column = 2 * (i % 4);
    for (int e = 0; e < 4; ++e) {
      const auto at = static_cast<std::size_t>((row + 8 * (e % 2)) * 16 + column + 8 * (e / 2));
      a[at] = value(p.a_then[e] & 0xFFFFU), a[at + 1] = value(p.a_then[e] >> 16);
    }
  }
  for (int i = 0; i < 128; ++i) {
    ClusterThread& t = mate(i);
    float* const sums = t.sums_[t.products_[0].d].data();
    for (std::size_t e = 0; e < n / 2; ++e) {
      const auto row = static_cast<std::size_t>(i / 32 * 16 + i % 32 / 4) + 8 * (e % 4 / 2),
                 column = e / 4 * 8 + static_cast<std::size_t>(2 * (i % 4)) + e % 2;
      double sum = sums[e];
      for (std::size_t k = 0; k < 16; ++k) sum += a[row * 16 + k] * b[column * 16 + k];
      sums[e] = static_cast<float>(sum);
    }
  }
}

}  // namespace tweedie::kernels::simt
