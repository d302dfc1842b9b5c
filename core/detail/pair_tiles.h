// pair_tiles.h - the bodies of pair_kernels.h over the widest vectors of the translation unit's flags. Nothing of the STL.
// SPDX-License-Identifier: MIT
#pragma once

#include <stdint.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "tweedie/core/detail/pair_kernels.h"

namespace tweedie::detail {
namespace {

#if defined(__AVX512F__)
constexpr int kPairBytes = 64;
#elif defined(__AVX2__)
constexpr int kPairBytes = 32;
#else
constexpr int kPairBytes = 16;
#endif
constexpr ptrdiff_t kLane = kPairBytes / 4;

typedef float VectorF __attribute__((vector_size(kPairBytes)));
typedef int32_t VectorI __attribute__((vector_size(kPairBytes)));
typedef float HalfF __attribute__((vector_size(kPairBytes / 2)));
typedef double VectorD __attribute__((vector_size(kPairBytes)));

inline VectorF load(const float* p) {
  VectorF v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, VectorF v) { __builtin_memcpy(p, &v, sizeof v); }

inline VectorD load_double(const float* p) {
  HalfF v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, VectorD);
}

inline VectorF root(VectorF x) {
#if defined(__AVX512F__)
  return (VectorF)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)x);
#elif defined(__AVX2__)
  return (VectorF)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (VectorF)_mm_sqrt_ps((__m128)x);
#else
  for (int i = 0; i < kLane; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

inline void squared_distances(const float* x, ptrdiff_t stride, ptrdiff_t rows, const float* yt, ptrdiff_t dim, float* squared) {
  constexpr ptrdiff_t kBlock = 4 * kLane;  // four accumulators in flight
  for (ptrdiff_t j = 0; j < kPairTile; j += kBlock) {
    for (ptrdiff_t i = 0; i < rows; ++i) {
      VectorF sum[4] = {};
      for (ptrdiff_t d = 0; d < dim; ++d) {
        const float value = x[i * stride + d];
        for (int k = 0; k < 4; ++k) {
          const VectorF difference = value - load(yt + d * kPairTile + j + k * kLane);
          sum[k] += difference * difference;
        }
      }
      for (int k = 0; k < 4; ++k) store(squared + i * kPairTile + j + k * kLane, sum[k]);
    }
  }
}

inline void square_root(float* tile, ptrdiff_t rows) {
  for (ptrdiff_t i = 0; i < rows * kPairTile; i += kLane) store(tile + i, root(load(tile + i)));
}

// exp(-t) = 2^-n e^r, n = round(t / ln 2), r = n ln 2 - t in [-ln2 / 2, ln2 / 2]; e^r = 1 + r + r^2 P(r), P minimax of
// degree 4 (relative error 3e-9). t is cut at 87, where exp(-t) = 1.6e-38 no longer counts in a mean of kernels.
inline VectorF exp_minus(VectorF t) {
  const VectorF limit = VectorF{} + 87.0F;
  const VectorI small = t < limit;
  t = (VectorF)(((VectorI)t & small) | ((VectorI)limit & ~small));
  const VectorI n = __builtin_convertvector(t * 1.44269504F + 0.5F, VectorI);
  const VectorF nf = __builtin_convertvector(n, VectorF);
  const VectorF r = (nf * 0.693359375F - t) + nf * -2.12194440e-4F;
  VectorF p = r * 0.00138146954308F + 0.00836877330866F;
  p = p * r + 0.0416683893893F;
  p = p * r + 0.166665201843F;
  p = p * r + 0.499999934371F;
  p = p * r * r + r + 1.0F;
  return p * (VectorF)((127 - n) << 23);
}

inline void gaussian(float* tile, ptrdiff_t rows, float scale) {
  for (ptrdiff_t i = 0; i < rows * kPairTile; i += kLane) store(tile + i, exp_minus(load(tile + i) * scale));
}

inline double tile_sum(const float* tile, ptrdiff_t rows, ptrdiff_t cols) {
  VectorD sum[2] = {};
  double rest = 0;
  for (ptrdiff_t i = 0; i < rows; ++i, tile += kPairTile) {
    ptrdiff_t j = 0;
    for (; j + kLane <= cols; j += kLane) {
      sum[0] += load_double(tile + j);
      sum[1] += load_double(tile + j + kLane / 2);
    }
    for (; j < cols; ++j) rest += static_cast<double>(tile[j]);
  }
  for (int l = 0; l < kLane / 2; ++l) rest += sum[0][l] + sum[1][l];
  return rest;
}

inline void tile_lowest(const float* tile, ptrdiff_t rows, float* lowest) {
  for (ptrdiff_t i = 0; i < rows; ++i) {
    VectorF low = load(tile + i * kPairTile);
    for (ptrdiff_t j = kLane; j < kPairTile; j += kLane) {
      const VectorF v = load(tile + i * kPairTile + j);
      const VectorI smaller = v < low;
      low = (VectorF)(((VectorI)v & smaller) | ((VectorI)low & ~smaller));
    }
    for (int l = 0; l < kLane; ++l) lowest[i] = low[l] < lowest[i] ? low[l] : lowest[i];
  }
}

// A register block is kRows rows of 16 lanes: 8 accumulators on every instruction set. The 64 products of a row are added in
// single precision and the rows in double.
inline void signed_products(const float* tile, const float* a, const float* b, ptrdiff_t panels, double factor, double* sums) {
  constexpr ptrdiff_t kVectors = kSignLanes / kLane, kRows = 8 / kVectors;
  for (ptrdiff_t p = 0; p < panels; ++p) {
    const float* const ap = a + p * kPairTile * kSignLanes;
    const float* const bp = b + p * kPairTile * kSignLanes;
    VectorD total[2 * kVectors] = {};
    for (ptrdiff_t i = 0; i < kPairTile; i += kRows) {
      VectorF sum[kRows][kVectors] = {};
      for (ptrdiff_t j = 0; j < kPairTile; ++j) {
        VectorF sign[kVectors];
        for (ptrdiff_t v = 0; v < kVectors; ++v) sign[v] = load(bp + j * kSignLanes + v * kLane);
        for (ptrdiff_t r = 0; r < kRows; ++r) {
          const float d = tile[(i + r) * kPairTile + j];
          for (ptrdiff_t v = 0; v < kVectors; ++v) sum[r][v] += d * sign[v];
        }
      }
      for (ptrdiff_t r = 0; r < kRows; ++r) {
        float row[kSignLanes];
        for (ptrdiff_t v = 0; v < kVectors; ++v) store(row + v * kLane, sum[r][v] * load(ap + (i + r) * kSignLanes + v * kLane));
        for (ptrdiff_t h = 0; h < 2 * kVectors; ++h) total[h] += load_double(row + h * kLane / 2);
      }
    }
    for (ptrdiff_t l = 0; l < kSignLanes; ++l) sums[p * kSignLanes + l] += factor * total[l / (kLane / 2)][l % (kLane / 2)];
  }
}

constexpr PairKernels kKernels = {squared_distances, square_root, gaussian, tile_sum, tile_lowest, signed_products};

}  // namespace
}  // namespace tweedie::detail
