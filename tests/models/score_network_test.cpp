// score_network_test.cpp - the chapter's network: tape = inference = the literal formula; interpolation; threads.
// SPDX-License-Identifier: MIT
#include "tweedie/models/score_network.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/gradient_check.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"

using namespace tweedie;

namespace {

template <class S>
MatrixX<S> normal_matrix(Index rows, Index cols, std::uint64_t seed, double scale = 1) {
  MatrixX<S> m(rows, cols);
  Rng(seed).normals(Purpose::user, 0, 0, m.view());
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<S>(scale * static_cast<double>(m.data()[i]));
  return m;
}

std::vector<std::int32_t> random_levels(Index rows, Index count) {
  std::vector<std::int32_t> level(static_cast<std::size_t>(rows));
  for (std::size_t b = 0; b < level.size(); ++b) {
    level[b] = static_cast<std::int32_t>(Rng(5).integer(Purpose::user, 0, b, static_cast<std::uint64_t>(count)));
  }
  return level;
}

template <class S>
std::vector<S> sigmas_of(const NoiseConditionalScoreNetwork& net, const std::vector<std::int32_t>& level) {
  std::vector<S> sigma;
  for (const std::int32_t l : level) sigma.push_back(static_cast<S>((*net.levels())[l]));
  return sigma;
}

// The network's output for one row, by plain loops in double over the literal [x, e] W^T + b form; and, with `magnitude`, what
// it would be if no term cancelled (|x|, |W|, |b|, and |silu(h)| <= |h|).
std::vector<double> plain_output(const NoiseConditionalScoreNetwork& net, std::span<const double> x, Index level,
                                 bool magnitude) {
  const auto value = [&](double v) { return magnitude ? std::abs(v) : v; };
  const float* flat = net.parameters().data();
  std::vector<double> h;
  for (const double v : x) h.push_back(value(v));
  for (const float v : view(net.layout()[0], flat).row(level)) h.push_back(value(static_cast<double>(v)));
  for (Index t = 1; t < net.layout().count(); t += 2) {
    const ConstRows<float> w = view(net.layout()[t], flat), b = view(net.layout()[t + 1], flat);
    std::vector<double> next;
    for (Index o = 0; o < w.rows(); ++o) {
      double sum = value(static_cast<double>(b(0, o)));
      for (Index i = 0; i < w.cols(); ++i) sum += value(static_cast<double>(w(o, i))) * h[static_cast<std::size_t>(i)];
      const bool last = t + 2 == net.layout().count();
      next.push_back(last || magnitude ? sum : sum / (1 + std::exp(-sum)));
    }
    h = std::move(next);
  }
  return h;
}

// |error| <= c u magnitude for one forward pass: a layer of K products adds (K + 4) u of its magnitude (kernels.h: gemm, bias,
// silu's 4 ULP) and silu stretches what came before by at most 1.1 (its largest slope).
double error_factor(const NoiseConditionalScoreNetwork& net) {
  double c = 0;
  for (Index t = 1; t < net.layout().count(); t += 2) c = 1.1 * c + static_cast<double>(net.layout()[t].cols) + 8;
  return c;
}

template <class S>
bool same_bits(ConstRows<S> a, ConstRows<S> b) {
  for (Index r = 0; r < a.rows(); ++r) {
    if (std::memcmp(a.row(r).data(), b.row(r).data(), sizeof(S) * static_cast<std::size_t>(a.cols())) != 0) return false;
  }
  return true;
}

struct Sizes {
  Index batch, dim, hidden, layers, levels;
};
const Sizes kSizes[] = {{1, 1, 1, 2, 1},    {3, 2, 16, 4, 10}, {16, 3, 17, 3, 2},  {17, 1, 33, 5, 7},   {64, 5, 8, 2, 3},
                        {65, 2, 64, 4, 10}, {127, 7, 3, 3, 4}, {128, 2, 20, 4, 5}, {129, 20, 12, 3, 5}, {300, 2, 40, 4, 10}};

NoiseConditionalScoreNetwork make(const Sizes& s, std::uint64_t seed = 1) {
  const double sigma_max = s.levels == 1 ? .5 : 10, sigma_min = s.levels == 1 ? .5 : .01;
  return NoiseConditionalScoreNetwork({.data_dim = s.dim,
                                       .hidden_dim = s.hidden,
                                       .num_layers = s.layers,
                                       .num_noise_levels = s.levels,
                                       .sigma_min = sigma_min,
                                       .sigma_max = sigma_max},
                                      Rng(seed));
}

template <class S>
void compare_with_plain(const Sizes& sizes) {
  const NoiseConditionalScoreNetwork net = make(sizes);
  const MatrixX<S> x = normal_matrix<S>(sizes.batch, sizes.dim, 3, 2);
  const std::vector<std::int32_t> level = random_levels(sizes.batch, sizes.levels);
  const std::vector<S> sigma = sigmas_of<S>(net, level);

  MatrixX<S> score(sizes.batch, sizes.dim);
  net.score(x, sigma, nullptr, score);

  const Buffer<S> flat = [&] {
    Buffer<S> copy(net.layout().size());
    std::copy(net.parameters().begin(), net.parameters().end(), copy.begin());
    return copy;
  }();
  TapeX<S> tape;
  const std::vector<VarX<S>> parameters = parameter_vars(tape, net.layout(), flat.data());
  const VarX<S> input = tape.constant(x);
  const VarX<S> scaled = net.scaled_score(tape, parameters, input, NoiseInput<S>{sigma, level});
  const VarX<S> scaled_by_sigma = net.scaled_score(tape, parameters, input, NoiseInput<S>{sigma});
  const VarX<S> unscaled = tape_score<S>(net, tape, parameters, input, NoiseInput<S>{sigma, level});

  const double u = std::numeric_limits<S>::epsilon() / 2;
  double worst = 0;
  for (Index b = 0; b < sizes.batch; ++b) {
    std::vector<double> row;
    for (const S v : x.row(b)) row.push_back(static_cast<double>(v));
    const Index l = level[static_cast<std::size_t>(b)];
    const std::vector<double> exact = plain_output(net, row, l, false), magnitude = plain_output(net, row, l, true);
    const double s = static_cast<double>(sigma[static_cast<std::size_t>(b)]);
    for (Index d = 0; d < sizes.dim; ++d) {
      const double allowed = (error_factor(net) + 4) * u * magnitude[static_cast<std::size_t>(d)];  // 4: the scaling by sigma
      const double n = exact[static_cast<std::size_t>(d)];
      const auto error = [&](double value) { return std::abs(value - n) / allowed; };
      worst = std::max({worst, error(static_cast<double>(scaled.value()(b, d))), error(s * static_cast<double>(score(b, d))),
                        error(s * static_cast<double>(unscaled.value()(b, d)))});
    }
  }
  CAPTURE(sizes.batch);
  CAPTURE(sizes.hidden);
  CHECK(worst <= 1);
  CHECK(same_bits<S>(scaled.value(), scaled_by_sigma.value()));
}

}  // namespace

TEST_CASE("tensors have PyTorch's names and shapes, in its order") {
  const NoiseConditionalScoreNetwork net({.data_dim = 2}, Rng(1));
  const std::vector<std::pair<std::string, std::vector<Index>>> expected = {{"noise_embedding.weight", {10, 256}},
                                                                            {"network.0.weight", {256, 258}},
                                                                            {"network.0.bias", {256}},
                                                                            {"network.2.weight", {256, 256}},
                                                                            {"network.2.bias", {256}},
                                                                            {"network.4.weight", {256, 256}},
                                                                            {"network.4.bias", {256}},
                                                                            {"network.6.weight", {2, 256}},
                                                                            {"network.6.bias", {2}}};
  REQUIRE(net.layout().count() == static_cast<Index>(expected.size()));
  for (Index t = 0; t < net.layout().count(); ++t) {
    CHECK(net.layout()[t].name == expected[static_cast<std::size_t>(t)].first);
    CHECK(net.layout()[t].shape == expected[static_cast<std::size_t>(t)].second);
  }
  CHECK(net.layout().size() == 10 * 256 + 258 * 256 + 256 + 2 * (256 * 256 + 256) + 2 * 256 + 2);
  CHECK(net.levels()->size() == 10);
  CHECK(net.sigma_max() == doctest::Approx(10).epsilon(1e-15));
  CHECK(net.sigma_min() == doctest::Approx(.01).epsilon(1e-15));
  CHECK(net.config() == Strings{{"data_dim", "2"},
                                {"hidden_dim", "256"},
                                {"num_layers", "4"},
                                {"num_noise_levels", "10"},
                                {"sigma_max", join(net.sigma_max())},
                                {"sigma_min", join(net.sigma_min())}});
}

TEST_CASE("levels of one's own replace the options'") {
  const ScoreNetwork net({.data_dim = 1, .hidden_dim = 4, .num_noise_levels = 10}, NoiseLevels({3, 2, .5}), Rng(1));
  CHECK(net.options().num_noise_levels == 3);
  CHECK(net.options().sigma_max == 3);
  CHECK(net.options().sigma_min == .5);
  CHECK(net.layout()[0].shape == std::vector<Index>{3, 4});
}

TEST_CASE("options that make no network are refused") {
  const auto refused = [](const ScoreNetworkOptions& options) {
    CHECK_THROWS_AS(NoiseConditionalScoreNetwork(options, Rng(1)), UsageError);
  };
  refused({});
  refused({.data_dim = -1});
  refused({.data_dim = 2, .hidden_dim = 0});
  refused({.data_dim = 2, .num_layers = 1});
  refused({.data_dim = 2, .num_noise_levels = 0});
  refused({.data_dim = 2, .sigma_min = 0});
  refused({.data_dim = 2, .sigma_min = 20});
}

TEST_CASE("initialisation has PyTorch's distributions") {
  // Means and variances lie within 6 standard errors (two-sided 2e-9 a check, 18 checks); bounds hold exactly.
  const NoiseConditionalScoreNetwork net({.data_dim = 2}, Rng(7));
  for (Index t = 0; t < net.layout().count(); ++t) {
    const ParameterTensor& tensor = net.layout()[t];
    CAPTURE(tensor.name);
    const bool embedding = t == 0;
    const double fan_in = t == 1 || t == 2 ? 258 : 256;
    const double bound = 1 / std::sqrt(fan_in), variance = embedding ? 1 : bound * bound / 3;
    // Var(v^2) / variance^2: 2 for a normal, 4/5 for a uniform.
    const double n = static_cast<double>(tensor.size()), kurtosis = embedding ? 2 : .8;
    double sum = 0, squares = 0, largest = 0;
    for (Index i = 0; i < tensor.size(); ++i) {
      const double v = static_cast<double>(net.parameters()[static_cast<std::size_t>(tensor.offset + i)]);
      sum += v, squares += v * v, largest = std::max(largest, std::abs(v));
    }
    CHECK(std::abs(sum / n) < 6 * std::sqrt(variance / n));
    if (n > 100) CHECK(std::abs(squares / n / variance - 1) < 6 * std::sqrt(kurtosis / n));
    if (!embedding) CHECK(largest <= bound * (1 + 1e-7));
  }
  const auto differ = [](const Network& a, const Network& b) {
    return !std::equal(a.parameters().begin(), a.parameters().end(), b.parameters().begin());
  };
  CHECK_FALSE(differ(net, NoiseConditionalScoreNetwork({.data_dim = 2}, Rng(7))));
  CHECK(differ(net, NoiseConditionalScoreNetwork({.data_dim = 2}, Rng(8))));
}

TEST_CASE("tape, inference and the literal formula agree, fp32") {
  for (const Sizes& sizes : kSizes) compare_with_plain<float>(sizes);
}

TEST_CASE("tape, inference and the literal formula agree, fp64") {
  for (const Sizes& sizes : kSizes) compare_with_plain<double>(sizes);
}

TEST_CASE("gradients of the folded form are those of the literal concatenation") {
  const Sizes sizes{33, 3, 17, 4, 6};
  const NoiseConditionalScoreNetwork net = make(sizes);
  const MatrixD x = normal_matrix<double>(sizes.batch, sizes.dim, 3), weight = normal_matrix<double>(sizes.batch, sizes.dim, 4);
  const std::vector<std::int32_t> level = random_levels(sizes.batch, sizes.levels);
  const std::vector<double> sigma = sigmas_of<double>(net, level);
  Buffer<double> flat(net.layout().size());
  std::copy(net.parameters().begin(), net.parameters().end(), flat.begin());

  TapeD tape;
  std::vector<VarD> inputs = parameter_vars(tape, net.layout(), flat.data());
  const std::vector<VarD> p = inputs;
  const VarD input = tape.variable(x);
  inputs.push_back(input);
  VarD h = concat_cols({input, gather_rows(p[0], level)});
  for (std::size_t t = 1; t < p.size(); t += 2) {
    h = linear(h, p[t], p[t + 1]);
    if (t + 2 < p.size()) h = silu(h);
  }
  const VarD c = tape.constant(weight);
  const std::vector<VarD> literal = grad(sum(c * h), std::span<const VarD>(inputs));
  const VarD folded_output = net.scaled_score(tape, p, input, NoiseInput<double>{sigma, level});
  const std::vector<VarD> folded = grad(sum(c * folded_output), std::span<const VarD>(inputs));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    double largest = 0, error = 0;
    for (Index r = 0; r < literal[i].rows(); ++r) {
      for (Index k = 0; k < literal[i].cols(); ++k) {
        largest = std::max(largest, std::abs(literal[i].value()(r, k)));
        error = std::max(error, std::abs(literal[i].value()(r, k) - folded[i].value()(r, k)));
      }
    }
    CAPTURE(i);
    CHECK(largest > 0);
    // Sums of at most 33 x 17 terms in another order: 561 u = 6e-14 of the terms' magnitude, which is within 10 x the largest.
    CHECK(error <= 1e-12 * largest);
  }
}

TEST_CASE("every gradient, first and second order, against differences, also between levels") {
  const Sizes sizes{4, 2, 3, 2, 3};
  const NoiseConditionalScoreNetwork net = make(sizes);
  const std::vector<double> at_levels = sigmas_of<double>(net, {0, 2, 1, 2}), between = {.02, 5, .31622776601683794, 10};
  for (const std::vector<double>& sigma : {at_levels, between}) {
    const auto f = [&](std::span<const VarD> v) {
      return net.scaled_score(v[0].tape(), v.subspan(1), v[0], NoiseInput<double>{sigma});
    };
    const auto tensor = [&](Index t) { return MatrixD(view(net.layout()[t], net.parameters().data())); };
    const std::initializer_list<MatrixD> inputs = {
        normal_matrix<double>(4, 2, 3), tensor(0), tensor(1), tensor(2), tensor(3), tensor(4)};
    const GradientReport first = check_gradient(f, inputs);
    CAPTURE(first.worst);
    CHECK(first.error < 1e-7);  // reliability.md's mark for the five-point difference
    CHECK(first.entries > 0);
    const GradientReport second = check_second_order(f, inputs);
    CAPTURE(second.worst);
    CHECK(second.error < 1e-7);
  }
}

TEST_CASE("a row's bits depend on that row alone: batch cuts, one sigma or many, threads, in place, strides") {
  const Sizes sizes{517, 3, 40, 4, 10};
  const NoiseConditionalScoreNetwork net = make(sizes);
  const Matrix x = normal_matrix<float>(sizes.batch, sizes.dim, 3, 2);
  const std::vector<std::int32_t> level = random_levels(sizes.batch, sizes.levels);
  std::vector<float> sigma = sigmas_of<float>(net, level);
  for (std::size_t b = 0; b < sigma.size(); b += 3) sigma[b] = .02f + .01f * static_cast<float>(b);  // between levels
  Matrix whole(sizes.batch, sizes.dim);
  net.score(x, sigma, nullptr, whole);

  for (const Index cut : {1, 3, 16, 17, 64, 65, 128, 200}) {
    Matrix pieces(sizes.batch, sizes.dim);
    for (Index first = 0; first < sizes.batch; first += cut) {
      const Index n = std::min(cut, sizes.batch - first);
      const std::span<const float> s = std::span(sigma).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n));
      net.score(x.middle_rows(first, n), s, nullptr, pieces.middle_rows(first, n));
    }
    CAPTURE(cut);
    CHECK(same_bits<float>(whole, pieces));
  }
  const int before = threads();
  for (const int n : {1, 2, 4}) {
    set_threads(n);
    Matrix again(sizes.batch, sizes.dim);
    net.score(x, sigma, nullptr, again);
    CHECK(same_bits<float>(whole, again));
  }
  set_threads(before);

  Matrix in_place = x;
  net.score(in_place, sigma, nullptr, in_place);
  CHECK(same_bits<float>(whole, in_place));

  Matrix wide(sizes.batch, 7), wide_out(sizes.batch, 5);
  for (Index b = 0; b < sizes.batch; ++b) std::copy_n(x.row(b).data(), sizes.dim, wide.row(b).data() + 2);
  net.score(wide.view().middle_cols(2, 3), sigma, nullptr, wide_out.view().middle_cols(1, 3));
  CHECK(same_bits<float>(whole, wide_out.view().middle_cols(1, 3)));
  CHECK(wide_out(0, 0) == 0);
  CHECK(wide_out(0, 4) == 0);

  for (const float one : {10.f, .5f, .01f}) {
    Matrix single(sizes.batch, sizes.dim), many(sizes.batch, sizes.dim);
    const std::vector<float> all(static_cast<std::size_t>(sizes.batch), one);
    net.score(x, std::span(&one, 1), nullptr, single);
    net.score(x, all, nullptr, many);
    CHECK(same_bits<float>(single, many));
  }

  Matrix none(0, sizes.dim);
  net.score(none, {}, nullptr, none);  // no rows, no sigmas: nothing to do
}

TEST_CASE("between levels the denoiser is linear in ln sigma, and continuous at the levels") {
  const Sizes sizes{9, 2, 20, 3, 5};
  const NoiseConditionalScoreNetwork net = make(sizes);
  const NoiseLevels& levels = *net.levels();
  const MatrixD x = normal_matrix<double>(sizes.batch, sizes.dim, 3, 2);
  const auto denoiser = [&](double sigma) {
    MatrixD d(sizes.batch, sizes.dim);
    net.score(x, std::span(&sigma, 1), nullptr, d);
    for (Index i = 0; i < d.size(); ++i) d.data()[i] = x.data()[i] + sigma * sigma * d.data()[i];
    return d;
  };
  const auto largest_difference = [](const MatrixD& a, const MatrixD& b) {
    double d = 0;
    for (Index i = 0; i < a.size(); ++i) d = std::max(d, std::abs(a.data()[i] - b.data()[i]));
    return d;
  };
  for (Index l = 0; l + 1 < levels.size(); ++l) {
    const MatrixD upper = denoiser(levels[l]), lower = denoiser(levels[l + 1]);
    const double jump = largest_difference(upper, lower);
    CHECK(jump > 0);
    for (const double w : {1e-5, .25, .5, .9, 1 - 1e-5}) {
      const double sigma = std::exp((1 - w) * std::log(levels[l]) + w * std::log(levels[l + 1]));
      MatrixD expected(sizes.batch, sizes.dim);
      for (Index i = 0; i < x.size(); ++i) expected.data()[i] = (1 - w) * upper.data()[i] + w * lower.data()[i];
      // D = x + sigma^2 s is taken apart and put together again: a few u of |x| <= 10 and sigma n <= 100.
      CHECK(largest_difference(denoiser(sigma), expected) < 1e-12);
    }
    // Within 2^-22 a sigma is the level; just outside, the difference is that of the line: w jump, w = 3e-7 / ln(ratio).
    const double ratio = std::log(levels[l] / levels[l + 1]);
    CHECK(largest_difference(denoiser(levels[l] * (1 - 3e-7)), upper) < 1.01 * jump * 3e-7 / ratio + 1e-6 * levels[l]);
    CHECK(largest_difference(denoiser(levels[l + 1] * (1 + 3e-7)), lower) < 1.01 * jump * 3e-7 / ratio + 1e-6 * levels[l]);
  }

  // A float's rounding of a level, in double, costs one evaluation and gives the level's output.
  const double rounded = static_cast<double>(static_cast<float>(levels[2]));
  MatrixD at(sizes.batch, sizes.dim), near(sizes.batch, sizes.dim);
  net.score(x, std::span(&levels.values()[2], 1), nullptr, at);
  net.score(x, std::span(&rounded, 1), nullptr, near);
  for (Index i = 0; i < at.size(); ++i)
    CHECK(near.data()[i] * rounded == doctest::Approx(at.data()[i] * levels[2]).epsilon(1e-14));
}

TEST_CASE("between levels the tape is the inference path") {
  const Sizes sizes{40, 2, 20, 3, 5};
  const NoiseConditionalScoreNetwork net = make(sizes);
  const MatrixD x = normal_matrix<double>(sizes.batch, sizes.dim, 3, 2);
  std::vector<double> sigma;
  for (Index b = 0; b < sizes.batch; ++b)
    sigma.push_back(.01 * std::pow(1000., Rng(9).uniform(Purpose::user, 0, static_cast<std::uint64_t>(b))));
  sigma[3] = 10, sigma[4] = .01;
  MatrixD score(sizes.batch, sizes.dim);
  net.score(x, sigma, nullptr, score);
  Buffer<double> flat(net.layout().size());
  std::copy(net.parameters().begin(), net.parameters().end(), flat.begin());
  TapeD tape;
  const std::vector<VarD> p = parameter_vars(tape, net.layout(), flat.data());
  const VarD on_tape = tape_score<double>(net, tape, p, tape.constant(x), NoiseInput<double>{sigma});
  for (Index b = 0; b < sizes.batch; ++b) {
    // n <= 10, so |s| <= 10 / sigma; both sum some twenty products a layer.
    for (Index d = 0; d < sizes.dim; ++d)
      CHECK(std::abs(on_tape.value()(b, d) - score(b, d)) * sigma[static_cast<std::size_t>(b)] < 1e-13 * 10);
  }
}

TEST_CASE("double and float agree to a float's rounding") {
  const Sizes sizes{50, 2, 64, 4, 10};
  const NoiseConditionalScoreNetwork net = make(sizes);
  const Matrix x = normal_matrix<float>(sizes.batch, sizes.dim, 3, 2);
  const float sigma = .7f;
  const double sigma_d = static_cast<double>(sigma);
  Matrix single(sizes.batch, sizes.dim);
  MatrixD twice(sizes.batch, sizes.dim);
  net.score(x, std::span(&sigma, 1), nullptr, single);
  net.score(MatrixD(x.view()), std::span(&sigma_d, 1), nullptr, twice);
  for (Index b = 0; b < sizes.batch; ++b) {
    std::vector<double> row(x.row(b).begin(), x.row(b).end());
    for (Index d = 0; d < sizes.dim; ++d) {
      double magnitude = 0;  // the interpolation mixes two neighbouring levels, with factors below sigma_level / sigma < 3
      for (Index l = 0; l < sizes.levels; ++l)
        magnitude = std::max(magnitude, 3 * plain_output(net, row, l, true)[static_cast<std::size_t>(d)]);
      const double difference = std::abs(static_cast<double>(single(b, d)) - twice(b, d));
      CHECK(difference * sigma_d <= 2 * (error_factor(net) + 8) * 0x1p-24 * magnitude);
    }
  }
}

TEST_CASE("wrong arguments say what is wrong") {
  const Sizes sizes{4, 2, 8, 3, 10};
  const NoiseConditionalScoreNetwork net = make(sizes);
  const MatrixD x(4, 2);
  MatrixD out(4, 2), narrow(4, 1);
  const auto score = [&](const MatrixD& y, std::vector<double> sigma, MatrixD& to) { net.score(y, sigma, nullptr, to); };
  CHECK_THROWS_AS(score(narrow, {1}, narrow), UsageError);
  CHECK_THROWS_AS(score(x, {1}, narrow), UsageError);
  CHECK_THROWS_AS(score(x, {1, 1}, out), UsageError);
  CHECK_THROWS_AS(score(x, {}, out), UsageError);
  for (const double sigma : {10.001, .00999, 0., -1., 1e300, std::nan("")}) {
    try {
      score(x, {sigma}, out);
      FAIL("accepted sigma ", sigma);
    } catch (const UsageError& error) {
      CHECK(std::string(error.what()).find(join("[", net.sigma_min(), ", ", net.sigma_max(), "]")) != std::string::npos);
    }
  }
  score(x, {10 * (1 + 9e-7)}, out);  // roundings are not refused
  score(x, {.01 * (1 - 9e-7)}, out);
  const std::vector<std::int32_t> label = {1};
  const Condition condition{label, {}}, empty{};
  const double one = 1;
  CHECK_THROWS_AS(net.score(x, std::span(&one, 1), &condition, out), UsageError);
  net.score(x, std::span(&one, 1), &empty, out);

  TapeD tape;
  Buffer<double> flat(net.layout().size());
  const std::vector<VarD> p = parameter_vars(tape, net.layout(), flat.data());
  const VarD input = tape.constant(x);
  const std::vector<double> sigma = {10, 10, 10, 10};
  const auto run = [&](std::span<const VarD> parameters, VarD v, std::vector<double> s, std::vector<std::int32_t> l) {
    return net.scaled_score(tape, parameters, v, NoiseInput<double>{s, l});
  };
  run(p, input, sigma, {0, 0, 0, 0});
  CHECK_THROWS_AS(run(std::span(p).subspan(1), input, sigma, {}), UsageError);
  CHECK_THROWS_AS(run(p, tape.constant(narrow), sigma, {}), UsageError);
  CHECK_THROWS_AS(run(p, input, {10}, {}), UsageError);
  CHECK_THROWS_AS(run(p, input, sigma, {0}), UsageError);
  CHECK_THROWS_AS(run(p, input, sigma, {0, 0, 0, 10}), UsageError);
  CHECK_THROWS_AS(run(p, input, sigma, {0, 0, 0, -1}), UsageError);
  CHECK_THROWS_AS(run(p, input, sigma, {0, 0, 0, 1}), UsageError);  // level 1 is not sigma 10
  CHECK_THROWS_AS(run(p, input, {10, 10, 10, 11}, {}), UsageError);
}

TEST_CASE("many threads may ask at once, from the first call on") {
  const Sizes sizes{300, 2, 32, 4, 10};
  const NoiseConditionalScoreNetwork fresh = make(sizes), net = make(sizes);
  const Matrix x = normal_matrix<float>(sizes.batch, sizes.dim, 3, 2);
  constexpr int kThreads = 6;
  std::vector<Matrix> expected, found;
  for (int t = 0; t < kThreads; ++t) {
    expected.emplace_back(sizes.batch, sizes.dim);
    found.emplace_back(sizes.batch, sizes.dim);
    const float sigma = .02f * static_cast<float>(t + 1);
    net.score(x, std::span(&sigma, 1), nullptr, expected.back());
  }
  std::vector<std::thread> workers;
  for (int t = 0; t < kThreads; ++t) {
    workers.emplace_back([&, t] {
      const float sigma = .02f * static_cast<float>(t + 1);
      for (int repeat = 0; repeat < 5; ++repeat)
        fresh.score(x, std::span(&sigma, 1), nullptr, found[static_cast<std::size_t>(t)]);
      MatrixD wide(sizes.batch, sizes.dim);
      const double sigma_d = static_cast<double>(sigma);
      fresh.score(MatrixD(x.view()), std::span(&sigma_d, 1), nullptr, wide);
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (std::size_t t = 0; t < kThreads; ++t) CHECK(same_bits<float>(expected[t], found[t]));
}

TEST_CASE("parameters_changed() is what makes new weights count; clones are apart") {
  const Sizes sizes{10, 2, 16, 3, 10};
  NoiseConditionalScoreNetwork net = make(sizes, 1);
  const NoiseConditionalScoreNetwork other = make(sizes, 2);
  const std::unique_ptr<Network> clone = net.clone();
  const Matrix x = normal_matrix<float>(sizes.batch, sizes.dim, 3);
  const MatrixD wide_x(x.view());
  const auto scores = [&](const Network& network) {
    const float sigma = .3f;
    const double sigma_d = .3;
    Matrix out(sizes.batch, sizes.dim);
    MatrixD wide(sizes.batch, sizes.dim);
    network.score(x, std::span(&sigma, 1), nullptr, out);
    network.score(wide_x, std::span(&sigma_d, 1), nullptr, wide);
    return std::pair(out, wide);
  };
  const auto equal = [](const auto& a, const auto& b) {
    return same_bits<float>(a.first, b.first) && same_bits<double>(a.second, b.second);
  };
  const auto first = scores(net), second = scores(other);
  CHECK_FALSE(equal(first, second));
  std::copy(other.parameters().begin(), other.parameters().end(), net.parameters().begin());
  net.parameters_changed();
  CHECK(equal(scores(net), second));
  CHECK(equal(scores(*clone), first));
  net.initialise(Rng(1));
  CHECK(equal(scores(net), first));
}
