// continuous_network_test.cpp - the network for any noise level: tape = inference, gradients, parametrisations, conditions,
// files. SPDX-License-Identifier: MIT
#include "tweedie/models/continuous_network.h"

#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tweedie/autodiff/gradient_check.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/checkpoint.h"

using namespace tweedie;

namespace {

template <class S>
MatrixX<S> normal_matrix(Index rows, Index cols, std::uint64_t seed) {
  MatrixX<S> m(rows, cols);
  Rng(seed).normals(Purpose::user, 0, 0, m.view());
  return m;
}

// Zero layers would hide everything behind them: every tensor gets numbers of its own.
void randomise(Network& net, std::uint64_t seed) {
  for (Index t = 0; t < net.layout().count(); ++t) {
    const Rows<float> rows = view(net.layout()[t], net.parameters().data());
    Rng(seed).normals(Purpose::user, 1, 0, rows, static_cast<std::uint32_t>(t));
    const float scale = .8f / std::sqrt(static_cast<float>(rows.rows() == 1 ? 1 : rows.cols()));
    for (float& v : std::span(rows.data(), static_cast<std::size_t>(rows.size()))) v *= scale;
  }
  net.parameters_changed();
}

std::unique_ptr<const ContinuousScoreNetwork> make(const ContinuousNetworkOptions& options, std::uint64_t seed = 1) {
  auto net = std::make_unique<ContinuousScoreNetwork>(options, Rng(seed));
  randomise(*net, seed + 10);
  return net;
}

// All in one: residual blocks or an mlp, labels and covariates.
ContinuousNetworkOptions rich(Architecture architecture) {
  return {.data_dim = 3,
          .hidden_dim = 19,
          .num_layers = architecture == Architecture::mlp ? 4 : 2,
          .architecture = architecture,
          .num_frequencies = 5,
          .embedding_dim = 7,
          .num_classes = 4,
          .covariate_dim = 2};
}

template <class S>
std::vector<S> random_sigmas(Index rows) {
  std::vector<S> sigma;
  for (Index b = 0; b < rows; ++b) {
    sigma.push_back(static_cast<S>(.002 * std::pow(40000., Rng(9).uniform(Purpose::user, 0, static_cast<std::uint64_t>(b)))));
  }
  return sigma;
}

std::vector<std::int32_t> random_labels(Index rows, std::uint64_t count) {
  std::vector<std::int32_t> labels;
  for (Index b = 0; b < rows; ++b) {
    labels.push_back(static_cast<std::int32_t>(Rng(5).integer(Purpose::user, 0, static_cast<std::uint64_t>(b), count)));
  }
  return labels;
}

// scaled_score() on a tape of its own.
template <class S>
MatrixX<S> on_tape(const Network& net, const MatrixX<S>& x, const NoiseInput<S>& noise) {
  Buffer<S> flat(net.layout().size());
  std::copy(net.parameters().begin(), net.parameters().end(), flat.begin());
  TapeX<S> tape;
  const std::vector<VarX<S>> p = parameter_vars(tape, net.layout(), flat.data());
  return MatrixX<S>(net.scaled_score(tape, p, tape.constant(x), noise).value());
}

// The largest |a - b| sigma over the rows.
template <class S>
double difference(const MatrixX<S>& scaled, const MatrixX<S>& score, std::span<const S> sigma) {
  double worst = 0;
  for (Index b = 0; b < score.rows(); ++b) {
    const double s = static_cast<double>(sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(b)]);
    for (Index d = 0; d < score.cols(); ++d) {
      const double error = std::abs(static_cast<double>(scaled(b, d)) - s * static_cast<double>(score(b, d)));
      worst = std::max(worst, std::isnan(error) ? HUGE_VAL : error / std::max(1., std::abs(static_cast<double>(scaled(b, d)))));
    }
  }
  return worst;
}

template <class S>
bool same_bits(ConstRows<S> a, ConstRows<S> b) {
  for (Index r = 0; r < a.rows(); ++r) {
    if (std::memcmp(a.row(r).data(), b.row(r).data(), sizeof(S) * static_cast<std::size_t>(a.cols())) != 0) return false;
  }
  return true;
}

template <class S>
void tape_equals_inference(const ContinuousNetworkOptions& options, double allowed) {
  const auto owner = make(options);
  const ContinuousScoreNetwork& net = *owner;
  for (const Index rows : {1, 3, 128, 200}) {
    const MatrixX<S> x = normal_matrix<S>(rows, options.data_dim, 3);
    const Matrix covariates = normal_matrix<float>(rows, 2, 4);
    const MatrixX<S> wide(covariates.view());
    const std::vector<std::int32_t> labels = random_labels(rows, 4);
    const std::vector<S> sigma = random_sigmas<S>(rows);
    MatrixX<S> score(rows, options.data_dim);
    CAPTURE(rows);

    net.score(x, sigma, nullptr, score);
    CHECK(difference<S>(on_tape<S>(net, x, {sigma}), score, sigma) < allowed);
    if (options.num_classes == 0) continue;
    const Condition each{labels, covariates};
    net.score(x, sigma, &each, score);
    CHECK(difference<S>(on_tape<S>(net, x, {sigma, {}, labels, wide}), score, sigma) < allowed);
    // One sigma and one condition for all: the embedding is computed once, and gives the same bits.
    const std::vector<std::int32_t> all_labels(static_cast<std::size_t>(rows), labels[0]);
    Matrix all_covariates(rows, 2);
    for (Index b = 0; b < rows; ++b) std::copy_n(covariates.row(0).data(), 2, all_covariates.row(b).data());
    const std::vector<S> all_sigma(static_cast<std::size_t>(rows), sigma[0]);
    const Condition one{std::span(labels).first(1), covariates.middle_rows(0, 1)}, all{all_labels, all_covariates};
    MatrixX<S> again(rows, options.data_dim);
    net.score(x, std::span(sigma).first(1), &one, score);
    net.score(x, all_sigma, &all, again);
    CHECK(same_bits<S>(score, again));
  }
}

std::string refusal(const Checkpoint& checkpoint) {
  try {
    make_network(checkpoint);
  } catch (const ModelFileError& error) {
    return error.what();
  }
  return "accepted";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("tape and inference agree") {
  // fp64: sums of a few hundred terms of order 1 in a dozen layers: 1e-13. fp32: the same times 2^29.
  for (const Architecture architecture : {Architecture::mlp, Architecture::residual}) {
    CAPTURE(std::string(to_string(architecture)));
    tape_equals_inference<double>(rich(architecture), 1e-12);
    tape_equals_inference<float>(rich(architecture), 1e-5);
    tape_equals_inference<float>({.data_dim = 2, .architecture = architecture}, 1e-5);
    tape_equals_inference<double>({.data_dim = 1, .hidden_dim = 1, .num_layers = 2, .architecture = architecture}, 1e-12);
  }
}

TEST_CASE("every gradient, first and second order, against differences") {
  for (const Architecture architecture : {Architecture::mlp, Architecture::residual}) {
    ContinuousNetworkOptions options = rich(architecture);
    options.data_dim = 2, options.hidden_dim = 3, options.num_frequencies = 2, options.embedding_dim = 2;
    options.num_layers = architecture == Architecture::mlp ? 3 : 1;
    options.num_classes = 2, options.covariate_dim = 1, options.learned_variance = true;
    const auto owner = make(options);
    const ContinuousScoreNetwork& net = *owner;
    const std::vector<double> sigma = {.002, .3, 2, 80};
    const std::vector<std::int32_t> labels = {0, 1, 1, 0}, dropped = {0, 0, 1, 0};
    const MatrixD covariates = normal_matrix<double>(4, 1, 5);
    const NoiseInput<double> noise{sigma, {}, labels, covariates, dropped};
    // The parameters as one (1, P) input, cut into the tensors.
    const auto cut = [&](VarD flat) {
      std::vector<VarD> p;
      for (const ParameterTensor& t : net.layout()) p.push_back(reshape(slice_cols(flat, t.offset, t.size()), t.rows, t.cols));
      return p;
    };
    const auto f = [&](std::span<const VarD> v) { return net.scaled_score(v[0].tape(), cut(v[1]), v[0], noise); };
    const auto u = [&](std::span<const VarD> v) { return net.log_variance(v[0].tape(), cut(v[0]), noise); };
    MatrixD flat(1, net.layout().size());
    std::copy(net.parameters().begin(), net.parameters().end(), flat.data());
    const MatrixD x = normal_matrix<double>(4, 2, 3);
    CAPTURE(std::string(to_string(architecture)));
    const GradientReport first = check_gradient(f, {x, flat});
    CAPTURE(first.worst);
    CHECK(first.error < 1e-7);                          // reliability.md's mark for the five-point difference
    CHECK(first.entries == 2 * 8 * (8 + flat.size()));  // in reverse and forward mode
    const GradientReport second = check_second_order(f, {x, flat});
    CAPTURE(second.worst);
    CHECK(second.error < 1e-7);
    CHECK(check_gradient(u, {flat}).error < 1e-7);
  }
}

TEST_CASE("jvp, vjp and divergence are those of the scores by differences, conditions and all") {
  const auto owner = make(rich(Architecture::residual));
  const ContinuousScoreNetwork& net = *owner;
  const Index rows = 70, dim = 3;
  const MatrixD y = normal_matrix<double>(rows, dim, 2), v = normal_matrix<double>(rows, dim, 3);
  const Matrix covariates = normal_matrix<float>(rows, 2, 4);
  const std::vector<std::int32_t> labels = random_labels(rows, 4);
  const Condition condition{labels, covariates};
  const std::vector<double> sigma(static_cast<std::size_t>(rows), .7);
  MatrixD s(rows, dim), jv(rows, dim), vj(rows, dim), at(rows, dim), moved = y, difference_v(rows, dim);
  std::vector<double> trace(static_cast<std::size_t>(rows)), expected(static_cast<std::size_t>(rows));
  net.jvp(y, sigma, &condition, v, s, jv);
  net.vjp(y, sigma, &condition, v, s, vj);
  net.divergence(y, sigma, &condition, s, trace);
  // Five points, h = 1e-3: truncation h^4/30 of a fifth derivative, which reaches some 1e2 at these weights; rounding 1e-13.
  constexpr double h = 1e-3, allowed = 1e-8;
  double jv_error = 0, vj_error = 0, trace_error = 0;
  MatrixD vj_expected(rows, dim);
  for (Index d = 0; d < dim; ++d) {
    MatrixD column(rows, dim);
    for (const double step : {-2., -1., 1., 2.}) {
      for (Index b = 0; b < rows; ++b) moved(b, d) = y(b, d) + step * h;
      net.score(moved, sigma, &condition, at);
      const double w = (std::abs(step) == 1 ? 8. : -1.) * (step > 0 ? 1 : -1) / (12 * h);
      for (Index i = 0; i < column.size(); ++i) column.data()[i] += w * at.data()[i];
    }
    for (Index b = 0; b < rows; ++b) {
      moved(b, d) = y(b, d);
      expected[static_cast<std::size_t>(b)] += column(b, d);
      for (Index i = 0; i < dim; ++i) {
        difference_v(b, i) += column(b, i) * v(b, d);
        vj_expected(b, d) += column(b, i) * v(b, i);
      }
    }
  }
  for (Index i = 0; i < jv.size(); ++i) {
    jv_error = std::max(jv_error, std::abs(jv.data()[i] - difference_v.data()[i]));
    vj_error = std::max(vj_error, std::abs(vj.data()[i] - vj_expected.data()[i]));
  }
  for (std::size_t b = 0; b < trace.size(); ++b) trace_error = std::max(trace_error, std::abs(trace[b] - expected[b]));
  CHECK(jv_error < allowed);
  CHECK(vj_error < allowed);
  CHECK(trace_error < allowed);
}

TEST_CASE("the parametrisations are one another's affine functions of one raw output") {
  // Same weights, so the same F; u is what the definitions by x0 give (process.h's conversions), where they do not cancel.
  const Index rows = 40;
  const MatrixD x = normal_matrix<double>(rows, 2, 3);
  ContinuousNetworkOptions options{.data_dim = 2, .hidden_dim = 8, .sigma_data = 1};
  const auto net_of = [&](Parametrisation p) {
    ContinuousNetworkOptions o = options;
    o.parametrisation = p;
    return make(o);
  };
  for (const double sigma : {.1, .7, 3.}) {
    const auto score = [&](Parametrisation p) {
      MatrixD out(rows, 2);
      net_of(p)->score(x, std::span(&sigma, 1), nullptr, out);
      return out;
    };
    MatrixD raw = score(Parametrisation::epsilon);  // s = -F / sigma
    for (double& v : std::span(raw.data(), static_cast<std::size_t>(raw.size()))) v *= -sigma;
    const double alpha = 1 / std::hypot(1, sigma);
    MatrixD vp_x = x, expected(rows, 2);
    for (double& v : std::span(vp_x.data(), static_cast<std::size_t>(vp_x.size()))) v *= alpha;
    for (const Prediction p : {Prediction::score, Prediction::epsilon, Prediction::x0, Prediction::v}) {
      CAPTURE(std::string(to_string(p)));
      const bool v = p == Prediction::v;  // of VP: x, alpha and sigma scaled; its score is sigma-for-sigma the same, over alpha
      convert<double>(p, Prediction::score, v ? alpha : 1, v ? alpha * sigma : sigma, v ? vp_x : x, raw, expected);
      const MatrixD found = score(parametrisation(p));
      for (Index i = 0; i < raw.size(); ++i) {
        const double s = expected.data()[i] * (v ? alpha : 1);
        CHECK(found.data()[i] == doctest::Approx(s).epsilon(1e-12).scale(1 / sigma));
      }
    }
    // edm at sigma_data = 1 is v with F of the other sign.
    const MatrixD edm = score(Parametrisation::edm);
    for (Index i = 0; i < raw.size(); ++i) {
      const double d = x.data()[i] / (1 + sigma * sigma) + sigma / std::hypot(1, sigma) * raw.data()[i];  // c_skip x + c_out F
      CHECK(edm.data()[i] == doctest::Approx((d - x.data()[i]) / (sigma * sigma)).epsilon(1e-12).scale(1 / sigma / sigma));
    }
  }
}

TEST_CASE("preconditioning holds at the ends of the range: no cancellation, an untrained network is the linear score") {
  const ContinuousNetworkOptions options{.data_dim = 2, .hidden_dim = 8, .sigma_min = 1e-6, .sigma_max = 1e6, .sigma_data = .5};
  const ContinuousScoreNetwork fresh(options, Rng(1));
  const auto owner = make(options);
  const ContinuousScoreNetwork& net = *owner;
  const Matrix x = normal_matrix<float>(20, 2, 3);
  const MatrixD wide(x.view());
  Matrix out(20, 2);
  MatrixD exact(20, 2);
  for (const double sigma : {1e-6, 1e-3, .5, 80., 1e6}) {
    const float sigma_f = static_cast<float>(sigma);
    const double at = static_cast<double>(sigma_f);
    fresh.score(x, std::span(&sigma_f, 1), nullptr, out);
    for (Index i = 0; i < x.size(); ++i) {
      CHECK(out.data()[i] == doctest::Approx(-wide.data()[i] / (at * at + .25)).epsilon(1e-6));
    }
    // u = sigma s in float against double: what a float's rounding costs must not grow as sigma shrinks.
    net.score(x, std::span(&sigma_f, 1), nullptr, out);
    net.score(wide, std::span(&at, 1), nullptr, exact);
    for (Index i = 0; i < x.size(); ++i) {
      CHECK(std::abs(static_cast<double>(out.data()[i]) - exact.data()[i]) * at < 1e-5 * std::max(1., std::abs(wide.data()[i])));
    }
  }
}

TEST_CASE("conditions: null without one, dropped rows are null, labels and covariates count") {
  for (const Architecture architecture : {Architecture::mlp, Architecture::residual}) {
    const auto owner = make(rich(architecture));
    const ContinuousScoreNetwork& net = *owner;
    CHECK(net.num_classes() == 4);
    CHECK(net.covariate_dim() == 2);
    const Index rows = 6;
    const MatrixD x = normal_matrix<double>(rows, 3, 3), covariates = normal_matrix<double>(rows, 2, 4);
    const std::vector<double> sigma = random_sigmas<double>(rows);
    const std::vector<std::int32_t> labels = {0, 1, 2, 3, 0, 1}, other = {1, 2, 3, 0, 1, 2}, dropped = {0, 1, 0, 1, 0, 1};
    const MatrixD null = on_tape<double>(net, x, {sigma});
    const MatrixD with = on_tape<double>(net, x, {sigma, {}, labels, covariates});
    const MatrixD some = on_tape<double>(net, x, {sigma, {}, labels, covariates, dropped});
    const MatrixD relabelled = on_tape<double>(net, x, {sigma, {}, other, covariates});
    MatrixD shifted = covariates;
    for (double& v : std::span(shifted.data(), static_cast<std::size_t>(shifted.size()))) v += .5;
    const MatrixD moved = on_tape<double>(net, x, {sigma, {}, labels, shifted});
    for (Index b = 0; b < rows; ++b) {
      CHECK(same_bits<double>(some.middle_rows(b, 1), (b % 2 == 1 ? null : with).middle_rows(b, 1)));
      for (const MatrixD* m : {&null, &relabelled, &moved}) {
        CHECK_FALSE(same_bits<double>(with.middle_rows(b, 1), m->middle_rows(b, 1)));
      }
    }
    // An empty condition is none.
    MatrixD a(rows, 3), c(rows, 3);
    const Condition empty{};
    net.score(x, sigma, &empty, a);
    net.score(x, sigma, nullptr, c);
    CHECK(same_bits<double>(a, c));
  }
}

TEST_CASE("a row's bits depend on that row alone: batch cuts, threads, in place, strides") {
  for (const Architecture architecture : {Architecture::mlp, Architecture::residual}) {
    const auto owner = make(rich(architecture));
    const ContinuousScoreNetwork& net = *owner;
    const Index rows = 300;
    const Matrix x = normal_matrix<float>(rows, 3, 3), covariates = normal_matrix<float>(rows, 2, 4);
    const std::vector<float> sigma = random_sigmas<float>(rows);
    const std::vector<std::int32_t> labels = random_labels(rows, 4);
    const Condition condition{labels, covariates};
    Matrix whole(rows, 3), again(rows, 3);
    net.score(x, sigma, &condition, whole);
    for (const Index cut : {1, 17, 64, 129}) {
      for (Index first = 0; first < rows; first += cut) {
        const Index n = std::min(cut, rows - first);
        const auto at = static_cast<std::size_t>(first), count = static_cast<std::size_t>(n);
        const Condition part{std::span(labels).subspan(at, count), covariates.middle_rows(first, n)};
        net.score(x.middle_rows(first, n), std::span(sigma).subspan(at, count), &part, again.middle_rows(first, n));
      }
      CHECK(same_bits<float>(whole, again));
    }
    const int before = threads();
    for (const int n : {1, 3}) {
      set_threads(n);
      Matrix other(rows, 3);
      net.score(x, sigma, &condition, other);
      CHECK(same_bits<float>(whole, other));
    }
    set_threads(before);
    Matrix in_place = x;
    net.score(in_place, sigma, &condition, in_place);
    CHECK(same_bits<float>(whole, in_place));
    Matrix wide(rows, 7), wide_out(rows, 5);
    for (Index b = 0; b < rows; ++b) std::copy_n(x.row(b).data(), 3, wide.row(b).data() + 2);
    net.score(wide.view().middle_cols(2, 3), sigma, &condition, wide_out.view().middle_cols(1, 3));
    CHECK(same_bits<float>(whole, wide_out.view().middle_cols(1, 3)));
    Matrix none(0, 3);
    net.score(none, {}, nullptr, none);
  }
}

TEST_CASE("a network comes back from its file as it was, and clones are apart") {
  for (const Architecture architecture : {Architecture::mlp, Architecture::residual}) {
    ContinuousNetworkOptions options = rich(architecture);
    options.parametrisation = Parametrisation::v;
    options.learned_variance = true;
    options.sigma_data = 1. / 3;
    for (const NoiseEmbedding embedding : {NoiseEmbedding::fourier, NoiseEmbedding::log_sigma}) {
      options.embedding = embedding;
      const auto owner = make(options, 3);
      const ContinuousScoreNetwork& net = *owner;
      const std::string path = join("continuous_network_test_", getpid(), ".safetensors");
      save(path, net);
      const std::unique_ptr<Network> loaded = load_network(path), clone = net.clone();
      std::remove(path.c_str());
      const MatrixD x = normal_matrix<double>(5, 3, 3);
      const double sigma = .3;
      MatrixD a(5, 3), b(5, 3);
      net.score(x, std::span(&sigma, 1), nullptr, a);
      for (const Network* other : {loaded.get(), clone.get()}) {
        CHECK(other->config() == net.config());
        CHECK(other->buffers() == net.buffers());
        CHECK(std::string(other->name()) == net.name());
        other->score(x, std::span(&sigma, 1), nullptr, b);
        CHECK(same_bits<double>(a, b));
      }
      randomise(*clone, 99);
      clone->score(x, std::span(&sigma, 1), nullptr, b);
      CHECK_FALSE(same_bits<double>(a, b));
    }
  }
}

TEST_CASE("a checkpoint that is no such network says what is wrong") {
  ContinuousNetworkOptions options = rich(Architecture::residual);
  options.learned_variance = true;
  const auto owner = make(options);
  const ContinuousScoreNetwork& net = *owner;
  const Checkpoint good = make_checkpoint(net);
  CHECK(refusal(good) == "accepted");
  for (const auto& entry : good.tensors) {
    const std::string& name = entry.first;
    CAPTURE(name);
    Checkpoint bad = good;
    bad.tensors.erase(name);
    CHECK(contains(refusal(bad), "tensor " + name + " is missing"));
    bad = good;
    std::vector<Index> longer = entry.second.shape;
    longer[0] += 1;
    Index size = 1;
    for (const Index n : longer) size *= n;
    bad.set(name, longer, std::vector<float>(static_cast<std::size_t>(size)));
    CHECK(contains(refusal(bad), "tensor " + name + " has shape"));
    // Numbers that are not finite never reach a network (writing refuses them; this is a file from elsewhere).
    bad = good;
    bad.set(name, entry.second.shape,
            std::vector<double>(static_cast<std::size_t>(
                                    name == "sigma_embedding.frequencies" ? 5 : net.layout()[net.layout().index(name)].size()),
                                std::numeric_limits<double>::quiet_NaN()));
    CHECK(refusal(bad) != "accepted");
  }
  for (const auto& entry : good.config) {
    CAPTURE(entry.first);
    Checkpoint bad = good;
    bad.config.erase(entry.first);
    CHECK(contains(refusal(bad), "config." + entry.first + " is missing"));
    for (const char* value : {"", "-1", "99999999999999999999", "4611686018427387904", "1e400", "nan", "0x", "no"}) {
      const bool real = entry.first.rfind("sigma_", 0) == 0 || entry.first == "fourier_scale";
      if (real && std::string(value) == "4611686018427387904") continue;  // a large number, but a number
      CAPTURE(std::string(value));
      bad.config[entry.first] = value;
      CHECK(refusal(bad) != "accepted");
    }
  }
  Checkpoint bad = good;
  bad.set("blocks.7.0.bias", {19}, std::vector<float>(19));
  CHECK(contains(refusal(bad), "tensor blocks.7.0.bias"));
  bad = good;
  bad.set("sigma_embedding.frequencies", {5}, std::vector<double>{1, 2, 3, 4, 5});
  CHECK(contains(refusal(bad), "frequencies_crc32c"));
  bad = good;
  bad.set("ema.input.bias", {19}, std::vector<float>(19));  // an average with parts missing
  CHECK(contains(refusal(bad), "ema."));
  bad = good;
  bad.config["network"] = "transformer";
  CHECK(contains(refusal(bad), "noise_conditional_score_network, continuous_score_network"));
}

TEST_CASE("options that make no network, and arguments that do not fit, are refused") {
  const auto refused = [](const ContinuousNetworkOptions& options) {
    CHECK_THROWS_AS(ContinuousScoreNetwork(options, Rng(1)), UsageError);
  };
  refused({});
  refused({.data_dim = 2, .hidden_dim = 0});
  refused({.data_dim = 2, .num_layers = 1});
  refused({.data_dim = 2, .num_layers = 0, .architecture = Architecture::residual});
  refused({.data_dim = 2, .num_frequencies = 0});
  refused({.data_dim = 2, .embedding_dim = 0});
  refused({.data_dim = 2, .fourier_scale = 0});
  refused({.data_dim = 2, .sigma_min = 0});
  refused({.data_dim = 2, .sigma_min = 90});
  refused({.data_dim = 2, .sigma_max = HUGE_VAL});
  refused({.data_dim = 2, .sigma_data = std::nan("")});
  refused({.data_dim = 2, .num_classes = -1});
  refused({.data_dim = 2, .covariate_dim = -1});
  CHECK_THROWS_AS(ContinuousScoreNetwork({.data_dim = 2, .num_frequencies = 2}, {1.}, Rng(1)), UsageError);
  CHECK_THROWS_AS(parametrisation("karras"), UsageError);
  CHECK_THROWS_AS(architecture("transformer"), UsageError);
  CHECK_THROWS_AS(noise_embedding("none"), UsageError);

  const auto owner = make(rich(Architecture::mlp)), plain_owner = make({.data_dim = 3, .hidden_dim = 4});
  const ContinuousScoreNetwork& plain = *plain_owner;
  const ContinuousScoreNetwork& net = *owner;
  MatrixD x(4, 3), out(4, 3);
  const double one = 1, beyond = 81, below = .0019;
  const std::span<const double> sigma(&one, 1);
  CHECK_THROWS_AS(net.score(x, std::span(&beyond, 1), nullptr, out), UsageError);
  CHECK_THROWS_AS(net.score(x, std::span(&below, 1), nullptr, out), UsageError);
  const std::vector<std::int32_t> labels = {0, 1, 2, 3}, wrong = {0, 1, 2, 4}, few = {0, 1};
  const Matrix covariates(4, 2), narrow(4, 1), two(2, 2);
  const auto throws = [&](const Network& network, const Condition& condition) {
    CHECK_THROWS_AS(network.score(x, sigma, &condition, out), UsageError);
    CHECK_THROWS_AS(network.jvp(x, sigma, &condition, x, out, out), UsageError);
  };
  throws(net, {wrong, covariates});
  throws(net, {few, covariates});
  throws(net, {labels, {}});
  throws(net, {{}, covariates});
  throws(net, {labels, narrow});
  throws(net, {labels, two});
  throws(plain, {labels, {}});
  throws(plain, {{}, covariates});
  const std::vector<double> sigmas(4, 1.);
  const MatrixD wide(covariates.view());
  const auto tape_throws = [&](const NoiseInput<double>& noise) { CHECK_THROWS_AS(on_tape<double>(net, x, noise), UsageError); };
  tape_throws({sigma});
  tape_throws({sigmas, {}, labels});
  tape_throws({sigmas, {}, wrong, wide});
  tape_throws({sigmas, {}, few, wide});
  tape_throws({sigmas, {}, labels, wide, few});
}

TEST_CASE("the deviation of data; the log-variance is none unless asked for and zero at first") {
  CHECK(data_deviation(Matrix{{1, 0}, {3, 4}}) == doctest::Approx(std::sqrt((1. + 4.) / 2)));
  CHECK_THROWS_AS(data_deviation(Matrix{{1, 0}}), DataError);
  CHECK_THROWS_AS(data_deviation(Matrix{{1, 2}, {1, 2}}), DataError);
  CHECK_THROWS_AS(data_deviation(Matrix{{1, 2}, {1, std::nanf("")}}), DataError);
  const std::vector<float> sigma = {.1f, 1};
  for (const bool learned : {false, true}) {
    const ContinuousScoreNetwork net({.data_dim = 1, .hidden_dim = 4, .learned_variance = learned}, Rng(1));
    Tape tape;
    const std::vector<Var> p = parameter_vars(tape, net.layout(), net.parameters().data());
    const Var u = net.log_variance(tape, p, {sigma});
    CHECK(static_cast<bool>(u) == learned);
    if (learned) CHECK((u.rows() == 2 && u.cols() == 1 && u.value()(0, 0) == 0 && u.value()(1, 0) == 0));
  }
}
