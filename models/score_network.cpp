// score_network.cpp - the chapter's network: on the tape for training, on plain kernels for sampling.
// SPDX-License-Identifier: MIT
#include "tweedie/models/score_network.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/detail/linear_rows.h"
#include "tweedie/models/detail/mlp_trace.h"
#include "tweedie/models/detail/packed_mlp.h"
#include "tweedie/models/detail/perceptron.h"

namespace tweedie {

using detail::kBlockRows;
using detail::linear_rows;

namespace {

constexpr double kSameLevel = 0x1p-22;  // relative
constexpr double kRangeSlack = 1e-6;    // relative

// Where a sigma lies: sigma s(x, sigma) = near n_level(x) + far n_{level+1}(x), n_l the network's output at level l, which is
// sigma_l s(x, sigma_l). From D = x + sigma^2 s, linear in ln sigma: near = (1 - w) sigma_level / sigma, far = w sigma_{level+1}
// / sigma.
struct Place {
  std::int32_t level = 0;
  double near = 1;
  double far = 0;
};

Place locate(const NoiseLevels& levels, double sigma) {
  check(sigma >= levels.min() * (1 - kRangeSlack) && sigma <= levels.max() * (1 + kRangeSlack),
        "noise_conditional_score_network: sigma = ", sigma, " is outside the levels' range [", levels.min(), ", ", levels.max(),
        "]; train with levels that cover it");
  // The first level that is not larger than sigma, up to roundings.
  const std::span<const double> values = levels.values();
  const auto below =
      std::partition_point(values.begin(), values.end(), [&](double level) { return level > sigma * (1 + kSameLevel); });
  if (below == values.end()) return {static_cast<std::int32_t>(levels.size() - 1)};
  const auto level = static_cast<std::int32_t>(below - values.begin());
  if (level == 0 || *below >= sigma * (1 - kSameLevel)) return {level};
  const double above = *(below - 1);
  const double w = std::log(above / sigma) / std::log(above / *below);
  return {level - 1, (1 - w) * above / sigma, w * *below / sigma};
}

ScoreNetworkOptions with_levels(ScoreNetworkOptions options, const NoiseLevels& levels) {
  options.num_noise_levels = levels.size();
  options.sigma_min = levels.min();
  options.sigma_max = levels.max();
  return options;
}

// Scratch of one block of rows; grows to what the largest network needs and stays with the thread.
template <class S>
struct Workspace {
  Buffer<S> hidden, next;  // (kBlockRows, H)
  Buffer<S> near, far;     // (kBlockRows, D)
  Place places[kBlockRows];
  int level[kBlockRows];

  static Workspace& mine(Index hidden_dim, Index data_dim) {
    static thread_local Workspace workspace;
    const auto grow = [](Buffer<S>& buffer, Index size) {
      if (buffer.size() < size) buffer = Buffer<S>(size);
    };
    grow(workspace.hidden, kBlockRows * hidden_dim);
    grow(workspace.next, kBlockRows * hidden_dim);
    grow(workspace.near, kBlockRows * data_dim);
    grow(workspace.far, kBlockRows * data_dim);
    return workspace;
  }
};

}  // namespace

template <class S>
struct NoiseConditionalScoreNetwork::Folded {
  Buffer<S> parameters;  // a copy, (layout().size())
  MatrixX<S> bias;       // (L, H): E W_e^T + b_0
};

// In float the whole network is one kernel.
template <>
struct NoiseConditionalScoreNetwork::Folded<float> {
  Buffer<float> parameters;
  Matrix bias;
  detail::PackedMlp packed;
};

ParameterLayout NoiseConditionalScoreNetwork::layout_of(const Options& options) {
  check(options.data_dim >= 1, "NoiseConditionalScoreNetwork: data_dim = ", options.data_dim,
        ", expected the number of the data's columns, at least 1");
  check(options.hidden_dim >= 1, "NoiseConditionalScoreNetwork: hidden_dim = ", options.hidden_dim, ", expected at least 1");
  check(options.num_layers >= 2, "NoiseConditionalScoreNetwork: num_layers = ", options.num_layers,
        ", expected at least 2: the first and the last linear layer");
  check(options.num_noise_levels >= 1, "NoiseConditionalScoreNetwork: num_noise_levels = ", options.num_noise_levels,
        ", expected at least 1");
  ParameterLayout layout;
  layout.add("noise_embedding.weight", {options.num_noise_levels, options.hidden_dim});
  for (Index i = 0; i < options.num_layers; ++i) {
    const Index in = i == 0 ? options.data_dim + options.hidden_dim : options.hidden_dim;
    const Index out = i + 1 == options.num_layers ? options.data_dim : options.hidden_dim;
    layout.add(join("network.", 2 * i, ".weight"), {out, in});  // odd numbers are PyTorch's SiLU modules
    layout.add(join("network.", 2 * i, ".bias"), {out});
  }
  return layout;
}

NoiseConditionalScoreNetwork::NoiseConditionalScoreNetwork(const Options& options, Rng rng)
    : NoiseConditionalScoreNetwork(options,
                                   NoiseLevels::geometric(options.sigma_max, options.sigma_min, options.num_noise_levels), rng) {}

NoiseConditionalScoreNetwork::NoiseConditionalScoreNetwork(const Options& options, NoiseLevels levels, Rng rng)
    : Network(layout_of(with_levels(options, levels))), options_(with_levels(options, levels)), levels_(std::move(levels)) {
  initialise(rng);
}

NoiseConditionalScoreNetwork::~NoiseConditionalScoreNetwork() = default;

void NoiseConditionalScoreNetwork::initialise(Rng rng) {
  // Tensor t draws sub-draw t. Linear layers: PyTorch's kaiming_uniform_(a = sqrt(5)) is U(+-1/sqrt(fan_in)).
  rng.normals(Purpose::initialise, 0, 0, view(layout()[0], parameters().data()), 0);
  double bound = 0;
  for (Index t = 1; t < layout().count(); ++t) {
    const bool is_weight = layout()[t].shape.size() == 2;
    if (is_weight) bound = 1 / std::sqrt(static_cast<double>(layout()[t].cols));  // its bias, which follows, has the same
    const Rows<float> tensor = view(layout()[t], parameters().data());
    rng.uniforms(Purpose::initialise, 0, 0, tensor, static_cast<std::uint32_t>(t));
    for (Index r = 0; r < tensor.rows(); ++r) {
      for (float& value : tensor.row(r)) value = static_cast<float>(bound * (2 * static_cast<double>(value) - 1));
    }
  }
  parameters_changed();
}

void NoiseConditionalScoreNetwork::parameters_changed() {
  Network::parameters_changed();
  folded_float_.reset();
  folded_double_.reset();
}

Strings NoiseConditionalScoreNetwork::config() const {
  return {{"data_dim", join(options_.data_dim)},     {"hidden_dim", join(options_.hidden_dim)},
          {"num_layers", join(options_.num_layers)}, {"num_noise_levels", join(options_.num_noise_levels)},
          {"sigma_min", join(options_.sigma_min)},   {"sigma_max", join(options_.sigma_max)}};
}

std::unique_ptr<Network> NoiseConditionalScoreNetwork::clone() const {
  auto copy = std::make_unique<NoiseConditionalScoreNetwork>(options_, levels_, Rng{0});
  std::copy(parameters().begin(), parameters().end(), copy->parameters().begin());
  copy->parameters_changed();
  copy->set_precision(precision());
  return copy;
}

// --- training: on the tape -------------------------------------------------------------------------------------------

template <class S>
VarX<S> NoiseConditionalScoreNetwork::scaled_score_on(TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x,
                                                      const NoiseInput<S>& noise) const {
  check(static_cast<Index>(parameters.size()) == layout().count(), name(), ": ", parameters.size(),
        " parameter tensors, expected ", layout().count());
  check(x.cols() == dim(), name(), ": x is ", shape(x.value()), ", the network's dimension is ", dim());
  check(static_cast<Index>(noise.sigma.size()) == x.rows(), name(), ": ", noise.sigma.size(), " noise levels for ", x.rows(),
        " rows; give one per row");
  check(noise.level.empty() || static_cast<Index>(noise.level.size()) == x.rows(), name(), ": ", noise.level.size(),
        " level indices for ", x.rows(), " rows; give one per row, or none");

  // The first layer's two halves: x W_x^T for each row, E W_e^T + b_0 for each level.
  const Index hidden_dim = options_.hidden_dim;
  const VarX<S> w_x = slice_cols(parameters[1], 0, dim());
  const VarX<S> level_bias = linear(parameters[0], slice_cols(parameters[1], dim(), hidden_dim), parameters[2]);  // (L, H)
  const VarX<S> from_x = matmul_nt(x, w_x);                                                                       // (B, H)
  const auto output_at = [&](std::span<const std::int32_t> level) {
    VarX<S> h = from_x + gather_rows(level_bias, level);
    for (std::size_t t = 3; t < parameters.size(); t += 2) h = linear(silu(h), parameters[t], parameters[t + 1]);
    return h;
  };
  if (!noise.level.empty()) {
    for (Index b = 0; b < x.rows(); ++b) {
      const Index level = noise.level[static_cast<std::size_t>(b)];
      const double sigma = static_cast<double>(noise.sigma[static_cast<std::size_t>(b)]);
      check(level >= 0 && level < levels_.size(), name(), ": level ", level, " in row ", b, ", there are ", levels_.size());
      check(std::abs(sigma - levels_[level]) <= kRangeSlack * levels_[level], name(), ": row ", b, " has sigma = ", sigma,
            " and level ", level, ", which is ", levels_[level], "; give the level's sigma, or no levels");
    }
    return output_at(noise.level);
  }

  // Any sigma: the denoiser between the two neighbouring levels.
  static thread_local std::vector<std::int32_t> level, next;
  static thread_local std::vector<S> near, far;
  level.clear(), next.clear(), near.clear(), far.clear();
  bool between = false;
  for (const S sigma : noise.sigma) {
    const Place place = locate(levels_, static_cast<double>(sigma));
    level.push_back(place.level);
    next.push_back(place.far == 0 ? place.level : place.level + 1);
    near.push_back(static_cast<S>(place.near));
    far.push_back(static_cast<S>(place.far));
    between = between || place.far != 0;
  }
  if (!between) return output_at(level);
  const auto column = [&](const std::vector<S>& values) { return tape.constant({values.data(), x.rows(), 1}); };
  return column(near) * output_at(level) + column(far) * output_at(next);
}

Var NoiseConditionalScoreNetwork::scaled_score(Tape& tape, std::span<const Var> parameters, Var x,
                                               const NoiseInput<float>& noise) const {
  return scaled_score_on(tape, parameters, x, noise);
}

VarD NoiseConditionalScoreNetwork::scaled_score(TapeD& tape, std::span<const VarD> parameters, VarD x,
                                                const NoiseInput<double>& noise) const {
  return scaled_score_on(tape, parameters, x, noise);
}

// --- inference: plain kernels over blocks of rows ----------------------------------------------------------------------

template <>
const Derived<NoiseConditionalScoreNetwork::Folded<float>>& NoiseConditionalScoreNetwork::cache() const {
  return folded_float_;
}

template <>
const Derived<NoiseConditionalScoreNetwork::Folded<double>>& NoiseConditionalScoreNetwork::cache() const {
  return folded_double_;
}

template <class S>
std::shared_ptr<const NoiseConditionalScoreNetwork::Folded<S>> NoiseConditionalScoreNetwork::folded() const {
  const auto build = [this] {
    Folded<S> folded;
    folded.parameters = Buffer<S>(layout().size());
    folded.bias = MatrixX<S>(levels_.size(), options_.hidden_dim);
    std::copy(parameters().begin(), parameters().end(), folded.parameters.begin());
    const S* flat = folded.parameters.data();
    const Index hidden_dim = options_.hidden_dim;
    linear_rows(
        levels_.size(), hidden_dim, hidden_dim, flat + layout()[0].offset, hidden_dim, flat + layout()[1].offset + dim(),
        dim() + hidden_dim, [&](Index) { return flat + layout()[2].offset; }, folded.bias.data());
    if constexpr (sizeof(S) == sizeof(float))
      folded.packed = detail::PackedMlp(layout(), flat, 1, options_.num_layers, dim(), precision());
    return folded;
  };
  return cache<S>().get(build, [&](const Folded<S>& folded) {
    if constexpr (sizeof(S) == sizeof(float)) return folded.packed.serves(precision());
    return true;
  });
}

// The network's output n_l(y) of at most kBlockRows rows, l = level(r): out (rows, D). `uniform`: all rows have one level.
template <class S>
struct NoiseConditionalScoreNetwork::Forward {
  const NoiseConditionalScoreNetwork& net;
  const Folded<S>& folded;
  Workspace<S>& work;
  bool uniform;

  template <class Level>
  void operator()(ConstRows<S> y, const Level& level, S* out) const {
    if constexpr (sizeof(S) == sizeof(float)) {
      if (folded.packed.available()) {
        for (Index r = 0; r < y.rows() && !uniform; ++r) work.level[r] = level(r);
        const float* bias = uniform ? folded.bias.row(level(0)).data() : folded.bias.data();
        return folded.packed.forward(y.rows(), y.data(), y.stride(), bias, folded.bias.rows(), uniform ? nullptr : work.level,
                                     out);
      }
    }
    by_layers(y, level, out);
  }

  template <class Level>
  void by_layers(ConstRows<S> y, const Level& level, S* out) const {
    const S* flat = folded.parameters.data();
    const ParameterLayout& layout = net.layout();
    const Index rows = y.rows(), dim = net.dim(), hidden_dim = net.options_.hidden_dim;
    S *h = work.hidden.data(), *next = work.next.data();
    linear_rows(
        rows, dim, hidden_dim, y.data(), y.stride(), flat + layout[1].offset, dim + hidden_dim,
        [&](Index r) { return folded.bias.row(level(r)).data(); }, h);
    for (Index t = 3; t < layout.count(); t += 2) {
      kernels::silu(rows * hidden_dim, h, h);
      const ParameterTensor& w = layout[t];
      const S* bias = flat + layout[t + 1].offset;
      S* to = t + 2 < layout.count() ? next : out;
      linear_rows(
          rows, w.cols, w.rows, h, hidden_dim, flat + w.offset, w.cols, [&](Index) { return bias; }, to);
      std::swap(h, next);
    }
  }
};

template <class S>
void NoiseConditionalScoreNetwork::score_rows(ConstRows<S> y, std::span<const S> sigma, const Condition* condition,
                                              Rows<S> out) const {
  check_rows(y, sigma, condition, out);
  const bool uniform = sigma.size() == 1;
  const Place first = sigma.empty() ? Place{} : locate(levels_, static_cast<double>(sigma[0]));
  const std::shared_ptr<const Folded<S>> folded = this->folded<S>();
  // Blocks begin at multiples of kBlockRows; a row's bits depend on itself alone, as the kernels promise.
  parallel_for(y.rows(), kBlockRows, [&](Index begin, Index end) {
    Workspace<S>& work = Workspace<S>::mine(options_.hidden_dim, dim());
    const Forward<S> forward{*this, *folded, work, uniform};
    for (Index block = begin; block < end; block += kBlockRows) {
      const Index rows = std::min(kBlockRows, end - block);
      bool between = false;
      for (Index r = 0; r < rows; ++r) {
        work.places[r] = uniform ? first : locate(levels_, static_cast<double>(sigma[static_cast<std::size_t>(block + r)]));
        between = between || work.places[r].far != 0;
      }
      const ConstRows<S> rows_of_y = y.middle_rows(block, rows);
      forward(
          rows_of_y, [&](Index r) { return work.places[r].level; }, work.near.data());
      if (between) {
        const auto next = [&](Index r) { return work.places[r].level + (work.places[r].far != 0 ? 1 : 0); };
        forward(rows_of_y, next, work.far.data());
      }
      for (Index r = 0; r < rows; ++r) {
        const double at = static_cast<double>(sigma[uniform ? 0 : static_cast<std::size_t>(block + r)]);
        const S near = static_cast<S>(work.places[r].near / at), far = static_cast<S>(work.places[r].far / at);
        for (Index d = 0; d < dim(); ++d) {
          const Index i = r * dim() + d;
          out(block + r, d) = far == 0 ? near * work.near[i] : near * work.near[i] + far * work.far[i];
        }
      }
    }
  });
}

void NoiseConditionalScoreNetwork::score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition,
                                         Rows<float> out) const {
  score_rows(y, sigma, condition, out);
}

void NoiseConditionalScoreNetwork::score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                         Rows<double> out) const {
  score_rows(y, sigma, condition, out);
}

void NoiseConditionalScoreNetwork::divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                              Rows<double> score, std::span<double> out) const {
  check_rows(y, sigma, condition, score);
  check_traces(y, out);
  const bool uniform = sigma.size() == 1;
  const Place first = sigma.empty() ? Place{} : locate(levels_, sigma[0]);
  const std::shared_ptr<const Folded<double>> folded = this->folded<double>();
  const detail::TracedMlp mlp{layout(), folded->parameters.data(), 1, options_.num_layers, dim()};
  parallel_for(y.rows(), kBlockRows, [&](Index begin, Index end) {
    Workspace<double>& work = Workspace<double>::mine(options_.hidden_dim, dim());
    double near_trace[kBlockRows], far_trace[kBlockRows];
    for (Index block = begin; block < end; block += kBlockRows) {
      const Index rows = std::min(kBlockRows, end - block);
      bool between = false;
      for (Index r = 0; r < rows; ++r) {
        work.places[r] = uniform ? first : locate(levels_, sigma[static_cast<std::size_t>(block + r)]);
        between = between || work.places[r].far != 0;
      }
      const double* x = y.data() + block * y.stride();
      const auto bias_at = [&](Index next) {
        return
            [&, next](Index r) { return folded->bias.row(work.places[r].level + (work.places[r].far != 0 ? next : 0)).data(); };
      };
      mlp_trace(mlp, rows, x, y.stride(), bias_at(0), work.near.data(), near_trace);
      if (between) mlp_trace(mlp, rows, x, y.stride(), bias_at(1), work.far.data(), far_trace);
      for (Index r = 0; r < rows; ++r) {
        const double at = sigma[uniform ? 0 : static_cast<std::size_t>(block + r)];
        const double near = work.places[r].near / at, far = work.places[r].far / at;
        const auto combined = [&](double a, const double* b) { return far == 0 ? near * a : near * a + far * *b; };
        for (Index d = 0; d < dim(); ++d) {
          const Index i = r * dim() + d;
          score(block + r, d) = combined(work.near[i], &work.far[i]);
        }
        out[static_cast<std::size_t>(block + r)] = combined(near_trace[r], far_trace + r);
      }
    }
  });
}

detail::Perceptron NoiseConditionalScoreNetwork::perceptron() const { return {.first = 1, .layers = options_.num_layers}; }

detail::PerceptronRows NoiseConditionalScoreNetwork::perceptron_rows(std::span<const double> sigma, const Condition*,
                                                                     Index rows) const {
  const std::shared_ptr<const Folded<double>> folded = this->folded<double>();
  std::vector<Place> places;
  for (const double s : sigma) places.push_back(locate(levels_, s));
  detail::PerceptronRows result;
  result.rows = sigma.size() == 1 ? 1 : rows;
  result.terms = std::any_of(places.begin(), places.end(), [](const Place& place) { return place.far != 0; }) ? 2 : 1;
  const auto n = static_cast<std::size_t>(result.rows);
  result.x.assign(n, 0);
  result.input.assign(n, 1);
  result.bias = MatrixD(result.terms * result.rows, options_.hidden_dim);
  for (Index term = 0; term < result.terms; ++term) {
    for (Index r = 0; r < result.rows; ++r) {
      const auto at = static_cast<std::size_t>(r);
      const Place& place = places[at];
      result.f.push_back((term == 0 ? place.near : place.far) / sigma[at]);
      const auto bias = folded->bias.row(place.level + (place.far != 0 ? term : 0));
      std::copy(bias.begin(), bias.end(), result.bias.row(term * result.rows + r).begin());
    }
  }
  return result;
}

}  // namespace tweedie
