// SPDX-License-Identifier: MIT
#include "tweedie/samplers/information.h"

#include <doctest/doctest.h>

#include <cmath>

#include "samplers/flow_support.h"
#include "samplers/information_support.h"
#include "tweedie/core/parallel.h"

using namespace tweedie;

namespace {
const Index kFirst[] = {0}, kSecond[] = {1};
}  // namespace

TEST_CASE("Fisher information across sigma: within 5 standard errors of quadrature") {
  for (const GaussianMixture& m : {GaussianMixture::gaussian(2, 1.5), GaussianMixture::three_gaussians()}) {
    const Matrix x = m.sample(20'000, Rng{3});
    for (const double sigma : {0., .05, .5, 5.}) {
      const FisherInformation j = fisher_information(m, x, sigma, Rng{4});
      CHECK(j.error < .02 * j.value);
      CHECK(std::abs(j.value - m.fisher_information(sigma).value) <= 5 * j.error);
    }
  }
}

TEST_CASE("entropy of Gaussians: closed form within .01 D nats and within 5 standard errors") {
  for (const Index dim : {1, 2, 5}) {
    const GaussianMixture m = test::correlated_gaussian(dim);
    const Index n = 200'000 / dim;  // .01 D nats are six standard errors and more
    const Matrix x = m.sample(n, Rng{7});
    const Information h = entropy(m, x, {.nodes = 32}, Rng{8});
    const double error = h.nats - test::gaussian_entropy(m.covariance(0));
    INFO("D = ", dim, ": error ", error, ", standard error ", h.standard_error);
    CHECK(std::abs(error) <= .01 * static_cast<double>(dim));
    CHECK(std::abs(error) <= 5 * h.standard_error);
    // All of it is the sample covariance's own: sqrt(D / 2N).
    CHECK(h.standard_error == doctest::Approx(std::sqrt(.5 * static_cast<double>(dim) / static_cast<double>(n))).epsilon(.03));
    CHECK(h.evaluations == 33);
  }
}

TEST_CASE("entropy of the built-in mixtures: quadrature within .01 D nats and within 5 standard errors") {
  for (const GaussianMixture& m : {GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal()}) {
    const Information h = entropy(m, m.sample(200'000, Rng{5}), {.nodes = 32}, Rng{6});
    const double error = h.nats - test::quadrature_entropy(m, 9, 400);
    INFO("error ", error, ", standard error ", h.standard_error);
    CHECK(std::abs(error) <= .02);
    CHECK(std::abs(error) <= 5 * h.standard_error);
    CHECK(h.standard_error <= .004);
  }
}

TEST_CASE("mutual information: Gaussians in closed form, the mixtures by quadrature, none between independent columns") {
  const GaussianMixture correlated({1}, {{1, 2}}, {{{1, .9}, {.9, 1.5}}});
  const double closed = -.5 * std::log(1 - .81 / 1.5);
  const Information i =
      mutual_information(correlated, MatrixD(correlated.sample(200'000, Rng{1}).view()), kFirst, kSecond, {.nodes = 32}, Rng{2});
  CHECK(std::abs(i.nats - closed) <= .01);
  CHECK(std::abs(i.nats - closed) <= 5 * i.standard_error);
  for (const GaussianMixture& m : {GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal()}) {
    const MatrixD x(m.sample(100'000, Rng{5}).view());
    const Information mi = mutual_information(m, x, kFirst, kSecond, {}, Rng{6});
    const double exact = test::quadrature_entropy(m.marginal(kFirst), 9, 1000) +
                         test::quadrature_entropy(m.marginal(kSecond), 9, 1000) - test::quadrature_entropy(m, 9, 400);
    INFO("exact ", exact, ", error ", mi.nats - exact, ", standard error ", mi.standard_error);
    CHECK(std::abs(mi.nats - exact) <= .02);
    CHECK(std::abs(mi.nats - exact) <= 5 * mi.standard_error);
    // Symmetric but for the order of the columns, which share the draws of eps.
    const Information back = mutual_information(m, x, kSecond, kFirst, {}, Rng{6});
    CHECK(std::abs(back.nats - mi.nats) <= 5 * (back.standard_error + mi.standard_error));
  }
  // Two bimodal columns that know nothing of each other: scores cancel exactly, what is left is the sample correlation's rho^2
  // / 2.
  const GaussianMixture independent = GaussianMixture::isotropic({1, 1, 1, 1}, {{-2, -3}, {2, -3}, {-2, 3}, {2, 3}}, .5);
  const Information none =
      mutual_information(independent, MatrixD(independent.sample(20'000, Rng{9}).view()), kFirst, kSecond, {}, Rng{3});
  CHECK(std::abs(none.nats) <= 2e-3);
}

TEST_CASE("groups of columns of a larger table: a chain of Gaussians") {
  // x0 - x1 - x2 with unit steps: I(x0; x1, x2) = I(x0; x1), column 3 is noise nobody asks for.
  const GaussianMixture chain({1}, MatrixD(1, 4), {{{1, 1, 1, 0}, {1, 2, 2, 0}, {1, 2, 3, 0}, {0, 0, 0, 9}}});
  const MatrixD x(chain.sample(200'000, Rng{2}).view());
  const Index both[] = {2, 1};
  const Information i = mutual_information(chain, x, kFirst, both, {.nodes = 32}, Rng{4});
  CHECK(std::abs(i.nats - .5 * std::log(2)) <= .01);
  CHECK(i.evaluations == 99);
}

TEST_CASE("the standard errors are honest: z-scores of repeated entropies and mutual informations") {
  // The mean square of 120 z is that of chi-squared with 120 degrees, whose tails of 3e-7 lie at .48 and 1.79. A single z, whose
  // standard error is estimated too, may reach more than a normal would: 6.
  const GaussianMixture m = GaussianMixture::three_gaussians();
  const double h = test::quadrature_entropy(m, 9, 300);
  const double mi =
      test::quadrature_entropy(m.marginal(kFirst), 9, 1000) + test::quadrature_entropy(m.marginal(kSecond), 9, 1000) - h;
  double square[2] = {}, mean[2] = {};
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    const MatrixD x(m.sample(1500, Rng{seed}).view());
    const Information e = entropy(m, x, {.nodes = 24}, Rng{100 + seed});
    const Information i = mutual_information(m, x, kFirst, kSecond, {.nodes = 24}, Rng{100 + seed});
    const double z[2] = {(e.nats - h) / e.standard_error, (i.nats - mi) / i.standard_error};
    for (int k = 0; k < 2; ++k) {
      CHECK(std::abs(z[k]) <= 6);
      mean[k] += z[k] / 120;
      square[k] += z[k] * z[k] / 120;
    }
  }
  for (int k = 0; k < 2; ++k) {
    INFO("mean of z ", mean[k], ", mean square ", square[k]);
    CHECK(std::abs(mean[k]) <= 5 / std::sqrt(120.));
    CHECK(square[k] >= .48);
    CHECK(square[k] <= 1.79);
  }
}

TEST_CASE("threads leave the bits alone, float rows are the double ones, wrong arguments are refused") {
  const GaussianMixture m = GaussianMixture::three_gaussians();
  const Matrix x = m.sample(3000, Rng{5});
  const Information reference = entropy(m, x, {.nodes = 8}, Rng{6});
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    CHECK(entropy(m, MatrixD(x.view()), {.nodes = 8}, Rng{6}).nats == reference.nats);
  }
  set_threads(0);
  CHECK_THROWS_AS(entropy(m, Matrix(100, 3), {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(entropy(m, Matrix(2, 2), {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(entropy(m, x, {.nodes = 1}, Rng{1}), UsageError);
  CHECK_THROWS_AS(entropy(m, x, {.sigma_min = 3, .sigma_max = 2}, Rng{1}), UsageError);
  CHECK_THROWS_AS(fisher_information(m, Matrix(1, 2), .1, Rng{1}), UsageError);
  CHECK_THROWS_AS(fisher_information(m, Matrix(9, 1), .1, Rng{1}), UsageError);
  const MatrixD wide(x.view());
  const Index beyond[] = {2};
  CHECK_THROWS_AS(mutual_information(m, wide, kFirst, kFirst, {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(mutual_information(m, wide, kFirst, beyond, {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(mutual_information(m, wide, kFirst, {}, {}, Rng{1}), UsageError);
  const GaussianMixture one = GaussianMixture::gaussian(1);
  CHECK_THROWS_AS(mutual_information(one, m, m, wide, kFirst, kSecond, {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(mutual_information(one, one, m, wide, kFirst, kFirst, {}, Rng{1}), UsageError);
  const FunctionScore broken(2, [](ConstRows<double> y, std::span<const double>, Rows<double> out) {
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = out(r, 1) = r == 5 ? std::nan("") : 0;
  });
  CHECK(test::message_of<DivergedError>([&] { entropy(broken, x, {}, Rng{1}); }).find("row 5 is not finite at sigma = ") !=
        std::string::npos);
}
