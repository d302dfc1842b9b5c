// Planted faults: would the check of objectives_test.cpp, the gradient at the exact score, see the mistakes one fears?
//
//   s = A x, A = -(C + sigma^2 I)^-1, x = x0 + sigma eps:   the gradients by A have mean 0
//   denoising   (sigma s + eps) x^T        explicit   s x^T + I        sliced   (v.s) v x^T + v v^T
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <string>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/models/objectives.h"

using namespace tweedie;

namespace {

constexpr double kSigma = .6;
constexpr Index kDim = 2, kRows = 200;

enum class Fault {
  denoising,  // without a fault
  noise_sign,
  sigma_missing,       // s + eps
  target_over_sigma,   // sigma s + eps / sigma
  noise_of_another,    // eps of the row before
  score_at_data,       // s(x0)
  variance_for_sigma,  // x0 + sigma^2 eps
  explicit_,           // without a fault
  explicit_half,       // |s|^2 for |s|^2 / 2
  trace_sign,
  trace_of_one_axis,
  sliced,          // without a fault
  sliced_half,     // (v.s)^2 for (v.s)^2 / 2
  two_directions,  // v.(ds/dx w), w another direction
  unit_reduced,    // |s|^2 / 2 + v.(ds/dx v) with unit v, not sqrt(D) times it
  count
};
constexpr std::size_t kFaults = static_cast<std::size_t>(Fault::count);

bool faultless(Fault f) { return f == Fault::denoising || f == Fault::explicit_ || f == Fault::sliced; }

using Square = std::array<double, kDim * kDim>;
using Point = std::array<double, kDim>;

struct Toy {
  MatrixD root{{1, 0}, {.5, .7}};  // C = root root^T
  Square a;
  Toy() {
    const double c00 = 1 + kSigma * kSigma, c01 = .5, c11 = .74 + kSigma * kSigma, det = c00 * c11 - c01 * c01;
    a = {-c11 / det, c01 / det, c01 / det, -c00 / det};
  }
  Point score(const Point& x) const { return {a[0] * x[0] + a[1] * x[1], a[2] * x[0] + a[3] * x[1]}; }
  BatchD batch(std::uint64_t seed, std::uint32_t step) const {
    MatrixD z(kRows, kDim), x0(kRows, kDim);
    Rng{seed}.normals<double>(Purpose::user, step, 0, z);
    for (Index r = 0; r < kRows; ++r) {
      x0(r, 0) = root(0, 0) * z(r, 0);
      x0(r, 1) = root(1, 0) * z(r, 0) + root(1, 1) * z(r, 1);
    }
    BatchD batch = perturb(x0, NoiseLevels({kSigma}), Rng{1000 + seed}, {.step = step});
    draw_directions(Sliced{}, Rng{1000 + seed}, {.step = step}, batch);
    return batch;
  }
};

// A batch's mean gradient, written out with one thing wrong.
Square gradient(const Toy& toy, const BatchD& b, Fault fault) {
  Square mean{};
  for (Index r = 0; r < kRows; ++r) {
    const Index other = (r + 1) % kRows;
    const Point eps{b.eps(r, 0), b.eps(r, 1)}, v{b.directions(r, 0), b.directions(r, 1)};
    const Point noise = fault == Fault::noise_of_another ? Point{b.eps(other, 0), b.eps(other, 1)} : eps;
    const Point second = fault == Fault::two_directions ? Point{b.directions(other, 0), b.directions(other, 1)} : v;
    Point x{b.x(r, 0), b.x(r, 1)};
    const double scale = fault == Fault::score_at_data        ? kSigma
                         : fault == Fault::variance_for_sigma ? kSigma - kSigma * kSigma
                                                              : 0;
    for (std::size_t i = 0; i < kDim; ++i) x[i] -= scale * eps[i];
    const Point s = toy.score(x);
    const double vs = v[0] * s[0] + v[1] * s[1];
    for (std::size_t i = 0; i < kDim; ++i) {
      for (std::size_t j = 0; j < kDim; ++j) {
        const double one = i == j ? 1 : 0;
        double g = 0;
        if (fault < Fault::explicit_) {
          const double target = fault == Fault::noise_sign          ? -noise[i]
                                : fault == Fault::target_over_sigma ? noise[i] / kSigma
                                                                    : noise[i];
          g = ((fault == Fault::sigma_missing ? 1 : kSigma) * s[i] + target) * x[j];
        } else if (fault < Fault::sliced) {
          const double trace = fault == Fault::trace_sign ? -one : fault == Fault::trace_of_one_axis && i == 1 ? 0 : one;
          g = (fault == Fault::explicit_half ? 2 : 1) * s[i] * x[j] + trace;
        } else {
          const double square = fault == Fault::unit_reduced ? s[i] * x[j] : vs * v[i] * x[j];
          g = (fault == Fault::sliced_half ? 2 : 1) * square + v[i] * second[j];
        }
        mean[kDim * i + j] += g / kRows;
      }
    }
  }
  return mean;
}

// By the library's loss, up to the objective's weight.
Square library_gradient(const Toy& toy, const BatchD& b, Fault fault) {
  TapeD tape;
  const VarD a = tape.variable(MatrixD{{toy.a[0], toy.a[1]}, {toy.a[2], toy.a[3]}}), x = tape.variable(b.x), s = matmul_nt(x, a);
  const VarD loss = fault == Fault::denoising   ? denoising_score_matching_loss(kSigma * s, b).mean
                    : fault == Fault::explicit_ ? score_matching_loss(s, x).mean
                                                : sliced_score_matching_loss(s, x, b.directions.view(), {}).mean;
  const VarD gradient = grad(loss, {a}).front();
  const double weight = fault == Fault::denoising ? kSigma : 1;
  Square g;
  for (Index i = 0; i < 4; ++i) g[static_cast<std::size_t>(i)] = gradient.value().data()[i] / weight;
  return g;
}

}  // namespace

TEST_CASE("without a fault the gradients written out are the library's") {
  const Toy toy;
  const BatchD batch = toy.batch(1, 0);
  for (const Fault fault : {Fault::denoising, Fault::explicit_, Fault::sliced}) {
    const Square ours = gradient(toy, batch, fault), library = library_gradient(toy, batch, fault);
    for (std::size_t i = 0; i < 4; ++i) CHECK(ours[i] == doctest::Approx(library[i]).epsilon(1e-12));
  }
}

TEST_CASE("planted faults of the objectives are found in 99 of 100 seeds, and none is seen where none is") {
  // Student t with 59 degrees of freedom: |t| > 6 has probability 1.3e-7, of 4 entries and 300 faultless runs 1.6e-4. The
  // faultless runs are counted, two of 100 may be seen.
  const Toy toy;
  constexpr std::uint32_t kBatches = 60;
  std::array<int, kFaults> found{};
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    std::array<Square, kFaults> sums{}, squares{};
    for (std::uint32_t k = 0; k < kBatches; ++k) {
      const BatchD batch = toy.batch(seed, k);
      for (std::size_t f = 0; f < kFaults; ++f) {
        const Square g = gradient(toy, batch, static_cast<Fault>(f));
        for (std::size_t i = 0; i < g.size(); ++i) sums[f][i] += g[i], squares[f][i] += g[i] * g[i];
      }
    }
    for (std::size_t f = 0; f < kFaults; ++f) {
      double worst = 0;
      for (std::size_t i = 0; i < 4; ++i) {
        const double mean = sums[f][i] / kBatches, variance = squares[f][i] / kBatches - mean * mean;
        worst = std::max(worst, std::abs(mean) / std::sqrt(variance / (kBatches - 1)));
      }
      found[f] += worst > 6;
    }
  }
  for (std::size_t f = 0; f < kFaults; ++f) {
    const Fault fault = static_cast<Fault>(f);
    CAPTURE(f);
    CAPTURE(found[f]);
    CHECK((faultless(fault) ? found[f] <= 2 : found[f] >= 99));
  }
}
