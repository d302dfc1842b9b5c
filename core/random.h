// random.h - counter-based random numbers: every draw is a pure function of (key, purpose, sub-draw, step, row, column).
//
//   Rng rng{42};
//   Rng training = rng.split();                      // an independent stream
//   rng.normals(Purpose::langevin, step, first_row, z);
//
// Nothing is consumed in sequence, so results do not depend on batch cuts, chunking, threads or where a run was resumed.
// Generator: Philox4x32-10 [Salmon et al. 2011]; the counter's layout is in philox.h. Normals by Box-Muller with our own log
// and sincos; they are compiled in the library, never inline, and give the same bits on host, executor and device.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "tweedie/core/detail/draws.h"
#include "tweedie/core/matrix.h"
#include "tweedie/core/philox.h"

namespace tweedie {

/// A stream of random numbers. Cheap to copy; a copy draws the same numbers.
class TWEEDIE_API Rng {
 public:
  explicit Rng(std::uint64_t seed) : key_(seed) {}
  /// The stream at a stored position (checkpoints).
  Rng(std::uint64_t key, std::uint64_t splits) : key_(key), splits_(splits) {}

  /// An independent stream, its key = Philox(key, ordinal of this split, Purpose::split).
  Rng split();
  std::uint64_t key() const { return key_; }
  std::uint64_t splits() const { return splits_; }

  /// Four 32-bit words of Philox: row < 2^44, block < 2^20, sub_draw < 2^24.
  void words(Purpose purpose, std::uint32_t step, std::uint64_t row, std::uint32_t block, std::uint32_t sub_draw,
             std::uint32_t out[4]) const;

  /// out(r, c) ~ N(0, 1), the draw of sample first_row + r, dimension c. S = float, double (double holds the float's value).
  template <class S>
  void normals(Purpose purpose, std::uint32_t step, std::uint64_t first_row, Rows<S> out, std::uint32_t sub_draw = 0) const;
  /// out(r, c) ~ U(0, 1], u = (word + 1) 2^-32 (rounded to S).
  template <class S>
  void uniforms(Purpose purpose, std::uint32_t step, std::uint64_t first_row, Rows<S> out, std::uint32_t sub_draw = 0) const;
  /// One integer in [0, n), without bias (rejection by sub-blocks); n >= 1.
  std::uint64_t integer(Purpose purpose, std::uint32_t step, std::uint64_t row, std::uint64_t n,
                        std::uint32_t sub_draw = 0) const;
  /// One uniform in (0, 1] with 53 bits.
  double uniform(Purpose purpose, std::uint32_t step, std::uint64_t row, std::uint32_t sub_draw = 0) const;

 private:
  std::uint64_t key_;
  std::uint64_t splits_ = 0;
};

extern template void Rng::normals(Purpose, std::uint32_t, std::uint64_t, Rows<float>, std::uint32_t) const;
extern template void Rng::normals(Purpose, std::uint32_t, std::uint64_t, Rows<double>, std::uint32_t) const;
extern template void Rng::uniforms(Purpose, std::uint32_t, std::uint64_t, Rows<float>, std::uint32_t) const;
extern template void Rng::uniforms(Purpose, std::uint32_t, std::uint64_t, Rows<double>, std::uint32_t) const;

/// A keyed permutation of [0, n): position -> element without a table, so that an epoch's order needs no memory and a resumed
/// run finds its place (a Feistel network over Philox words, cycle-walked to n).
class TWEEDIE_API Permutation {
 public:
  Permutation(const Rng& rng, std::uint32_t epoch, std::uint64_t n);
  std::uint64_t operator()(std::uint64_t position) const;
  /// Every position becomes its element: many at once take a tenth of the time each.
  void apply(std::span<std::uint64_t> positions) const;

 private:
  detail::Feistel network_;
};

}  // namespace tweedie
