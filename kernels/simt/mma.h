// mma.h - the matrix instructions of a warp in the executor: Thread's members (executor.h, which includes this and has the
// fragments' places). SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/simt/executor.h"

namespace tweedie::kernels::simt {

inline void Thread::whole_warp(const char* what, int line) const {
  if (present() != ~0U) fault(join(what, " at line ", line, " in a warp of fewer than 32 threads"));
}

/// d (16, 8) += a (16, K) b (K, 8) of words that hold K / 8 numbers each: number(word, which) is one of them.
template <int K, class Number>
void Thread::mma_m16n8(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], int line, const Number& number) {
  struct Operands {
    std::uint32_t a[4], b[2];
  } mine;
  std::memcpy(mine.a, a, sizeof a);
  std::memcpy(mine.b, b, sizeof b);
  whole_warp("mma", line);
  std::memcpy(slot(lane()), &mine, sizeof mine);
  wait(Wait::warp, ~0U, line);
  constexpr int kHalf = K / 2, kInWord = K / 8;
  const int g = lane() / 4, t = lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + 8 * (i / 2), col = 2 * t + i % 2;
    double sum = d[i];
    for (int k = 0; k < K; ++k) {
      Operands left, right;
      std::memcpy(&left, slot(row % 8 * 4 + k % kHalf / kInWord), sizeof left);
      std::memcpy(&right, slot(col * 4 + k % kHalf / kInWord), sizeof right);
      sum += number(left.a[row / 8 + 2 * (k / kHalf)], k % kInWord) * number(right.b[k / kHalf], k % kInWord);
    }
    d[i] = static_cast<float>(sum);
  }
  wait(Wait::warp, ~0U, line);
}

inline void Thread::mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], int line) {
  mma_m16n8<8>(d, a, b, line,
               [](std::uint32_t word, int) { return static_cast<double>(__builtin_bit_cast(float, word & 0xFFFFE000U)); });
}

inline void Thread::mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], int line) {
  mma_m16n8<16>(d, a, b, line, [](std::uint32_t word, int which) {
    return static_cast<double>(__builtin_bit_cast(float, which == 0 ? word << 16 : word & 0xFFFF0000U));
  });
}

inline void Thread::mma_f64(double (&d)[2], double a, double b, int line) {
  whole_warp("mma", line);
  const double mine[2] = {a, b};
  std::memcpy(slot(lane()), mine, sizeof mine);
  wait(Wait::warp, ~0U, line);
  for (int i = 0; i < 2; ++i) {
    const int row = lane() / 4, col = 2 * (lane() % 4) + i;
    for (int k = 0; k < 4; ++k) {
      double left[2], right[2];
      std::memcpy(left, slot(row * 4 + k), sizeof left);
      std::memcpy(right, slot(col * 4 + k), sizeof right);
      d[i] = std::fma(left[0], right[1], d[i]);
    }
  }
  wait(Wait::warp, ~0U, line);
}

inline void Thread::load_matrix_x4(std::uint32_t (&to)[4], const void* row, int line) {
  whole_warp("ldmatrix", line);
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) fault(join("ldmatrix at line ", line, ": a row is not at 16 bytes"));
  std::memcpy(slot(lane()), &row, sizeof row);
  wait(Wait::warp, ~0U, line);
  for (int i = 0; i < 4; ++i) {
    const unsigned char* from;
    std::memcpy(&from, slot(8 * i + lane() / 4), sizeof from);
    std::memcpy(&to[i], from + 4 * (lane() % 4), 4);
  }
  wait(Wait::warp, ~0U, line);
}

}  // namespace tweedie::kernels::simt
