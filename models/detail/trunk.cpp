// trunk.cpp - the body of the networks for any noise level: on the tape for training, on plain kernels for sampling.
// SPDX-License-Identifier: MIT
#include "tweedie/models/detail/trunk.h"

#include <algorithm>
#include <array>
#include <numbers>
#include <numeric>

#include "tweedie/autodiff/ops.h"
#include "tweedie/core/files/checksum.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/detail/linear_rows.h"
#include "tweedie/models/detail/mlp_trace.h"
#include "tweedie/models/detail/noise_rows.h"

namespace tweedie::detail {

namespace {

constexpr double kRangeSlack = 1e-6;          // relative
constexpr double kNormEpsilon = 1e-6;         // beneath a row's variance
constexpr double kLowest = .1, kHighest = 8;  // frequencies of the log_sigma embedding

// Parts of one modulation of a residual block: shift, scale, gate; the output's has no gate.
constexpr Index kBlockParts = 3, kOutputParts = 2;

}  // namespace

std::vector<double> draw_frequencies(const ContinuousNetworkOptions& options, const Rng& rng) {
  check(options.num_frequencies >= 1, "network for any noise level: num_frequencies = ", options.num_frequencies,
        ", expected at least 1");
  const Index n = options.num_frequencies;
  MatrixD w(1, n);
  if (options.embedding == NoiseEmbedding::fourier) {
    rng.normals(Purpose::fourier, 0, 0, w.view());
    for (double& v : w.row(0)) v *= options.fourier_scale * 2 * std::numbers::pi / 4;
  } else {
    for (Index i = 0; i < n; ++i) {
      w(0, i) = kLowest * std::pow(kHighest / kLowest, n == 1 ? 0. : static_cast<double>(i) / static_cast<double>(n - 1));
    }
  }
  return {w.row(0).begin(), w.row(0).end()};
}

ParameterLayout Trunk::layout_of(const ContinuousNetworkOptions& o) {
  const auto at_least = [](const char* what, Index value, Index least) {
    check(value >= least, "network for any noise level: ", what, " = ", value, ", expected at least ", least);
  };
  const bool mlp = o.architecture == Architecture::mlp;
  at_least("data_dim", o.data_dim, 1);
  at_least("hidden_dim", o.hidden_dim, 1);
  at_least(mlp ? "num_layers (linear layers of an mlp)" : "num_layers (residual blocks)", o.num_layers, mlp ? 2 : 1);
  at_least("num_frequencies", o.num_frequencies, 1);
  at_least("embedding_dim", o.embedding_dim, 1);
  at_least("num_classes", o.num_classes, 0);
  at_least("covariate_dim", o.covariate_dim, 0);
  check(o.num_classes < INT32_MAX && o.num_frequencies < INT32_MAX, "network for any noise level: num_classes = ", o.num_classes,
        " and num_frequencies = ", o.num_frequencies, " must be below 2^31");

  const Index dim = o.data_dim, hidden = o.hidden_dim, embedding = o.embedding_dim;
  ParameterLayout layout;
  const auto linear = [&](const std::string& name, Index out, Index in) {
    layout.add(name + ".weight", {out, in});
    layout.add(name + ".bias", {out});
  };
  linear("sigma_embedding", embedding, 2 * o.num_frequencies);
  if (o.num_classes > 0) layout.add("label_embedding.weight", {o.num_classes + 1, embedding});
  if (o.covariate_dim > 0) {
    linear("covariate_embedding", embedding, o.covariate_dim);
    layout.add("covariate_embedding.null", {embedding});
  }
  if (mlp) {
    layout.add("embedding.weight", {hidden, embedding});
    for (Index i = 0; i < o.num_layers; ++i) {  // odd numbers are the activations, as in the chapter's network
      linear(join("network.", 2 * i), i + 1 == o.num_layers ? dim : hidden, i == 0 ? dim : hidden);
    }
  } else {
    linear("input", hidden, dim);
    for (Index i = 0; i < o.num_layers; ++i) {
      linear(join("blocks.", i, ".modulation"), kBlockParts * hidden, embedding);
      linear(join("blocks.", i, ".0"), hidden, hidden);
      linear(join("blocks.", i, ".2"), hidden, hidden);
    }
    linear("output.modulation", kOutputParts * hidden, embedding);
    linear("output", dim, hidden);
  }
  if (o.learned_variance) linear("log_variance", 1, 2 * o.num_frequencies);
  return layout;
}

Trunk::Trunk(const char* name, const ContinuousNetworkOptions& options, std::vector<double> frequencies)
    : name_(name), options_(options), frequencies_(std::move(frequencies)), layout_(layout_of(options)) {
  const auto positive = [&](const char* what, double value) {
    check(std::isfinite(value) && value > 0, name, ": ", what, " = ", value, ", expected a positive number");
  };
  positive("sigma_data", options.sigma_data);
  positive("fourier_scale", options.fourier_scale);
  positive("sigma_min", options.sigma_min);
  positive("sigma_max", options.sigma_max);
  check(options.sigma_min < options.sigma_max, name, ": sigma_min = ", options.sigma_min, " and sigma_max = ", options.sigma_max,
        "; give two rising numbers");
  check(static_cast<Index>(frequencies_.size()) == options.num_frequencies, name, ": ", frequencies_.size(),
        " frequencies, num_frequencies = ", options.num_frequencies);
  for (const double w : frequencies_) check(std::isfinite(w), name, ": a frequency is ", w, "; all must be finite");

  parts_.body = 2;
  if (options.num_classes > 0) parts_.label = parts_.body++;
  if (options.covariate_dim > 0) parts_.covariate = std::exchange(parts_.body, parts_.body + 3);
  if (options.learned_variance) parts_.log_variance = layout_.count() - 2;
  const auto modulate = [&](Index weight, Index bias) {
    modulations_.push_back({weight, bias, layout_[weight].rows, modulation_size_});
    modulation_size_ += layout_[weight].rows;
  };
  if (options.architecture == Architecture::mlp) {
    modulate(parts_.body, parts_.body + 2);
  } else {
    for (Index i = 0; i <= options.num_layers; ++i) modulate(parts_.body + 2 + 6 * i, parts_.body + 3 + 6 * i);
  }
}

void Trunk::initialise(const Rng& rng, const ParameterLayout& layout, float* flat) const {
  // Tensor t draws sub-draw t; a bias has the bound of the weight before it.
  double bound = 0;
  for (Index t = 0; t < layout.count(); ++t) {
    const ParameterTensor& tensor = layout[t];
    const Rows<float> rows = view(tensor, flat);
    const bool is_weight = tensor.shape.size() == 2;
    if (is_weight) bound = 1 / std::sqrt(static_cast<double>(tensor.cols));
    const auto sub_draw = static_cast<std::uint32_t>(t);
    if (t == parts_.label) {
      rng.normals(Purpose::initialise, 0, 0, rows, sub_draw);
      continue;
    }
    rng.uniforms(Purpose::initialise, 0, 0, rows, sub_draw);
    for (Index i = 0; i < tensor.size(); ++i) {
      rows.data()[i] = static_cast<float>(bound * (2 * static_cast<double>(rows.data()[i]) - 1));
    }
  }
  const auto zero = [&](Index t) { std::fill_n(flat + layout[t].offset, layout[t].size(), 0.f); };
  if (parts_.covariate >= 0) zero(parts_.covariate + 2);
  if (parts_.log_variance >= 0) zero(parts_.log_variance), zero(parts_.log_variance + 1);
  if (options_.architecture == Architecture::residual) {
    for (const Modulation& m : modulations_) zero(m.weight), zero(m.bias);
  }
  const Index last = (parts_.log_variance >= 0 ? parts_.log_variance : layout.count()) - 2;
  zero(last), zero(last + 1);
}

Strings Trunk::config() const {
  const ContinuousNetworkOptions& o = options_;
  // The frequencies are no option, but two networks that differ in them are not the same.
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(frequencies_)));
  return {{"data_dim", join(o.data_dim)},
          {"hidden_dim", join(o.hidden_dim)},
          {"num_layers", join(o.num_layers)},
          {"architecture", to_string(o.architecture)},
          {"embedding", to_string(o.embedding)},
          {"num_frequencies", join(o.num_frequencies)},
          {"embedding_dim", join(o.embedding_dim)},
          {"fourier_scale", join(o.fourier_scale)},
          {"parametrisation", to_string(o.parametrisation)},
          {"sigma_min", join(o.sigma_min)},
          {"sigma_max", join(o.sigma_max)},
          {"sigma_data", join(o.sigma_data)},
          {"num_classes", join(o.num_classes)},
          {"covariate_dim", join(o.covariate_dim)},
          {"learned_variance", o.learned_variance ? "true" : "false"},
          {"frequencies_crc32c", join(crc)}};
}

std::map<std::string, std::vector<double>> Trunk::buffers() const { return {{"sigma_embedding.frequencies", frequencies_}}; }

void Trunk::check_sigma(double sigma) const {
  check(sigma >= options_.sigma_min * (1 - kRangeSlack) && sigma <= options_.sigma_max * (1 + kRangeSlack), name_,
        ": sigma = ", sigma, " is outside the network's range [", options_.sigma_min, ", ", options_.sigma_max,
        "]; train with a range that covers it");
}

// --- on the tape -------------------------------------------------------------------------------------------------------

template <class S>
void Trunk::check_input(std::span<const VarX<S>> parameters, VarX<S> x, const NoiseInput<S>& noise) const {
  const Index rows = x.rows();
  check(static_cast<Index>(parameters.size()) == layout_.count(), name_, ": ", parameters.size(), " parameter tensors, expected ",
        layout_.count());
  check(x.cols() == options_.data_dim, name_, ": x is ", shape(x.value()), ", the network's dimension is ", options_.data_dim);
  check_noise(rows, noise);
}

template <class S>
void Trunk::check_noise(Index rows, const NoiseInput<S>& noise) const {
  check(static_cast<Index>(noise.sigma.size()) == rows, name_, ": ", noise.sigma.size(), " noise levels for ", rows,
        " rows; give one per row");
  for (const S sigma : noise.sigma) check_sigma(static_cast<double>(sigma));
  check(noise.dropped.empty() || static_cast<Index>(noise.dropped.size()) == rows, name_, ": ", noise.dropped.size(),
        " marks of dropped conditions for ", rows, " rows; give one per row, or none");
  if (noise.labels.empty() && noise.covariates.empty()) return;
  check(noise.labels.size() == static_cast<std::size_t>(options_.num_classes > 0 ? rows : 0), name_, ": ", noise.labels.size(),
        " labels for ", rows, " rows and a network of ", options_.num_classes,
        " classes; give one per row, or no condition at all");
  const ConstRows<S> c = noise.covariates;
  check(options_.covariate_dim == 0 ? c.empty() : c.rows() == rows && c.cols() == options_.covariate_dim, name_,
        ": the covariates are ", shape(c), ", expected (", rows, ", ", options_.covariate_dim, "), or no condition at all");
}

// A phase of 100 in float would be off by 4e-6.
template <class S>
void Trunk::write_features(std::span<const S> sigma, S* out) const {
  const std::size_t n = frequencies_.size();
  double at[kLeafRows];
  for (std::size_t first = 0; first < sigma.size(); first += kLeafRows) {
    const std::size_t rows = std::min<std::size_t>(kLeafRows, sigma.size() - first);
    for (std::size_t b = 0; b < rows; ++b) at[b] = std::log(static_cast<double>(sigma[first + b]));
    S* const to = out + first * 2 * n;
    if constexpr (sizeof(S) == sizeof(float)) {
      kernels::fourier_features(static_cast<Index>(rows), static_cast<Index>(n), at, frequencies_.data(), to);
    } else {
      for (std::size_t b = 0; b < rows; ++b) {
        for (std::size_t i = 0; i < n; ++i) {
          to[2 * n * b + i] = std::cos(frequencies_[i] * at[b]);
          to[2 * n * b + n + i] = std::sin(frequencies_[i] * at[b]);
        }
      }
    }
  }
}

template <class S>
VarX<S> Trunk::features(TapeX<S>& tape, const NoiseInput<S>& noise) const {
  static thread_local std::vector<S> memory;
  const auto rows = static_cast<Index>(noise.sigma.size()), cols = 2 * options_.num_frequencies;
  memory.resize(static_cast<std::size_t>(rows * cols));
  S* const out = memory.data();
  tweedie::parallel_for(rows, kLeafRows, [&](Index begin, Index end) {
    const auto first = static_cast<std::size_t>(begin), count = static_cast<std::size_t>(end - begin);
    write_features<S>(noise.sigma.subspan(first, count), out + begin * cols);
  });
  return tape.constant({out, rows, cols});
}

// The rows of the label embedding: the null row, the last, where there is no label or it is dropped.
template <class S>
void label_rows(const char* name, Index num_classes, const NoiseInput<S>& noise, std::vector<std::int32_t>& out) {
  const auto null = static_cast<std::int32_t>(num_classes);
  out.assign(noise.sigma.size(), null);
  for (std::size_t b = 0; b < noise.labels.size(); ++b) {
    if (!noise.dropped.empty() && noise.dropped[b] != 0) continue;
    check(noise.labels[b] >= 0 && noise.labels[b] < null, name, ": row ", b, " has label ", noise.labels[b], ", expected 0 to ",
          null - 1);
    out[b] = noise.labels[b];
  }
}

template <class S>
VarX<S> Trunk::embed(TapeX<S>& tape, std::span<const VarX<S>> p, const NoiseInput<S>& noise) const {
  VarX<S> e = linear(features(tape, noise), p[0], p[1]);  // (B, E)
  if (parts_.label >= 0) {
    static thread_local std::vector<std::int32_t> rows;
    label_rows(name_, options_.num_classes, noise, rows);
    e = e + gather_rows(p[static_cast<std::size_t>(parts_.label)], rows);
  }
  if (parts_.covariate >= 0) {
    const auto c = static_cast<std::size_t>(parts_.covariate);
    const VarX<S> null = p[c + 2];
    if (noise.covariates.empty()) return silu(e + null);
    VarX<S> from = linear(tape.constant(noise.covariates), p[c], p[c + 1]);
    if (!noise.dropped.empty()) {
      static thread_local std::vector<S> dropped;
      dropped.assign(noise.dropped.size(), S(0));
      std::transform(noise.dropped.begin(), noise.dropped.end(), dropped.begin(), [](std::int32_t d) { return S(d != 0); });
      const VarX<S> mark = tape.constant({dropped.data(), static_cast<Index>(dropped.size()), 1});
      from = (1 - mark) * from + mark * null;
    }
    e = e + from;
  }
  return silu(e);
}

template <class S>
VarX<S> Trunk::mlp(std::span<const VarX<S>> p, VarX<S> x, VarX<S> e) const {
  const auto first = static_cast<std::size_t>(parts_.body), end = first + 1 + 2 * static_cast<std::size_t>(options_.num_layers);
  VarX<S> h = matmul_nt(x, p[first + 1]) + linear(e, p[first], p[first + 2]);
  for (std::size_t t = first + 3; t < end; t += 2) h = linear(silu(h), p[t], p[t + 1]);
  return h;
}

namespace {

// (1 + scale) LN(h) + shift; m (B, 2 H or 3 H) holds shift, scale, ...
template <class S>
VarX<S> modulated_norm(VarX<S> h, VarX<S> m) {
  const Index n = h.cols();
  const VarX<S> centred = h - sum_cols(h) * (1. / static_cast<double>(n));
  const VarX<S> variance = sum_cols(square(centred)) * (1. / static_cast<double>(n));
  return centred * reciprocal(sqrt(variance + kNormEpsilon)) * (1 + slice_cols(m, n, n)) + slice_cols(m, 0, n);
}

// The same for one row without a tape.
template <class S>
void modulated_norm(Index n, const S* h, const S* m, S* out) {
  constexpr Index kLanes = 8;
  const auto lanes_sum = [&](const auto& term) {
    S lane[kLanes] = {};
    Index i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (Index l = 0; l < kLanes; ++l) lane[l] += term(h[i + l]);
    }
    for (Index l = 0; i < n; ++i, ++l) lane[l] += term(h[i]);
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
  };
  const S inverse = static_cast<S>(1. / static_cast<double>(n));
  const S mean = lanes_sum([](S v) { return v; }) * inverse;
  const S variance = lanes_sum([mean](S v) { return (v - mean) * (v - mean); }) * inverse;
  const S scale = S(1) / std::sqrt(variance + static_cast<S>(kNormEpsilon));
  for (Index i = 0; i < n; ++i) out[i] = (h[i] - mean) * scale * (S(1) + m[n + i]) + m[i];
}

}  // namespace

template <class S>
VarX<S> Trunk::residual(std::span<const VarX<S>> p, VarX<S> x, VarX<S> e) const {
  const Index hidden = options_.hidden_dim;
  std::size_t t = static_cast<std::size_t>(parts_.body);
  VarX<S> h = linear(x, p[t], p[t + 1]);
  t += 2;
  for (Index i = 0; i < options_.num_layers; ++i, t += 6) {
    const VarX<S> m = linear(e, p[t], p[t + 1]);
    const VarX<S> z = silu(linear(modulated_norm(h, m), p[t + 2], p[t + 3]));
    h = h + slice_cols(m, 2 * hidden, hidden) * linear(z, p[t + 4], p[t + 5]);
  }
  return linear(modulated_norm(h, linear(e, p[t], p[t + 1])), p[t + 2], p[t + 3]);
}

template <class S>
VarX<S> Trunk::forward(TapeX<S>& tape, std::span<const VarX<S>> p, VarX<S> scaled_x, const NoiseInput<S>& noise) const {
  const VarX<S> e = embed(tape, p, noise);
  return options_.architecture == Architecture::mlp ? mlp(p, scaled_x, e) : residual(p, scaled_x, e);
}

template <class S>
VarX<S> Trunk::log_variance(TapeX<S>& tape, std::span<const VarX<S>> p, const NoiseInput<S>& noise) const {
  if (parts_.log_variance < 0) return {};
  const auto t = static_cast<std::size_t>(parts_.log_variance);
  return linear(features(tape, noise), p[t], p[t + 1]);
}

PackedMlp Trunk::pack(const float* flat, kernels::Precision precision) const {
  if (options_.architecture != Architecture::mlp) return {};
  return {layout_, flat, parts_.body + 1, options_.num_layers, options_.data_dim, precision};
}

// --- plain kernels over blocks of rows ---------------------------------------------------------------------------------

// Scratch of one block of rows; grows to what the largest network needs and stays with the thread.
template <class S>
struct Trunk::Workspace {
  Buffer<S> x, f;                             // (kBlockRows, D)
  Buffer<S> hidden, next, third;              // (kBlockRows, H)
  Buffer<S> features, embedding, modulation;  // (kBlockRows, 2 num_frequencies), (kBlockRows, E), (kBlockRows, widest modulation)
  NoiseRows<S> noise;

  static void grow(Buffer<S>& buffer, Index size) {
    if (buffer.size() < size) buffer = Buffer<S>(size);
  }
  static Workspace& mine(const ContinuousNetworkOptions& o) {
    static thread_local Workspace w;
    for (Buffer<S>* b : {&w.x, &w.f}) grow(*b, kBlockRows * o.data_dim);
    for (Buffer<S>* b : {&w.hidden, &w.next, &w.third}) grow(*b, kBlockRows * o.hidden_dim);
    grow(w.features, kBlockRows * 2 * o.num_frequencies);
    grow(w.embedding, kBlockRows * o.embedding_dim);
    grow(w.modulation, kBlockRows * kBlockParts * o.hidden_dim);
    return w;
  }
};

// e of the noise's rows, (rows, E).
template <class S>
void Trunk::embed_rows(const S* flat, const NoiseInput<S>& noise, S* features, S* out) const {
  const auto rows = static_cast<Index>(noise.sigma.size()), size = options_.embedding_dim, in = 2 * options_.num_frequencies;
  const auto tensor = [&](Index t) { return flat + layout_[t].offset; };
  write_features<S>(noise.sigma, features);
  linear_rows(
      rows, in, size, features, in, tensor(0), in, [&](Index) { return tensor(1); }, out);
  const auto add = [&](Index row, const S* from) {
    for (Index i = 0; i < size; ++i) out[row * size + i] += from[i];
  };
  if (parts_.label >= 0) {
    for (Index r = 0; r < rows; ++r) {
      const Index label = noise.labels.empty() ? options_.num_classes : noise.labels[static_cast<std::size_t>(r)];
      add(r, tensor(parts_.label) + label * size);
    }
  }
  if (parts_.covariate >= 0) {
    const ConstRows<S> c = noise.covariates;
    for (Index r = 0; r < rows; ++r) add(r, tensor(parts_.covariate + (c.empty() ? 2 : 1)));
    if (!c.empty()) {
      kernels::gemm({.m = rows, .n = size, .k = c.cols(), .transpose_b = true, .beta = 1}, c.data(), c.stride(),
                    tensor(parts_.covariate), c.cols(), out, size);
    }
  }
  kernels::silu(rows * size, out, out);
}

// The body over one block: F from x', with one set of modulations for all rows (`one`, modulation_size_) or the rows' embedding.
template <class S>
struct Trunk::Pass {
  const Trunk& trunk;
  const S* flat;
  const PackedMlp* packed;
  const S* one;
  Workspace<S>& work;

  const S* tensor(Index t) const { return flat + trunk.layout_[t].offset; }

  // Row r's part of modulation k is begin + r * stride.
  struct Modulated {
    const S* begin;
    Index stride;
    const S* row(Index r) const { return begin + r * stride; }
  };
  Modulated modulation(Index k, Index rows) const {
    const Modulation& m = trunk.modulations_[static_cast<std::size_t>(k)];
    if (one != nullptr) return {one + m.offset, 0};
    const Index in = trunk.options_.embedding_dim;
    linear_rows(
        rows, in, m.width, work.embedding.data(), in, tensor(m.weight), in, [&](Index) { return tensor(m.bias); },
        work.modulation.data());
    return {work.modulation.data(), m.width};
  }

  // to = from W^T + b of tensors t and t + 1.
  void layer(Index t, Index rows, const S* from, S* to) const {
    const ParameterTensor& w = trunk.layout_[t];
    const S* bias = tensor(t + 1);
    linear_rows(
        rows, w.cols, w.rows, from, w.cols, tensor(t), w.cols, [&](Index) { return bias; }, to);
  }

  void mlp(Index rows, const S* x, S* out) const {
    const Index first = trunk.parts_.body, hidden = trunk.options_.hidden_dim, end = first + 1 + 2 * trunk.options_.num_layers;
    S *h = work.hidden.data(), *next = work.next.data();
    const ParameterTensor& w = trunk.layout_[first + 1];
    const Modulated bias = modulation(0, rows);
    if constexpr (sizeof(S) == sizeof(float)) {
      if (packed != nullptr && packed->available()) {
        static constexpr auto own = [] {
          std::array<int, kBlockRows> level{};
          std::iota(level.begin(), level.end(), 0);
          return level;
        }();
        const bool alike = bias.stride == 0;
        return packed->forward(rows, x, w.cols, bias.begin, alike ? 1 : rows, alike ? nullptr : own.data(), out);
      }
    }
    linear_rows(
        rows, w.cols, hidden, x, w.cols, tensor(first + 1), w.cols, [&](Index r) { return bias.row(r); }, h);
    for (Index t = first + 3; t < end; t += 2) {
      kernels::silu(rows * hidden, h, h);
      layer(t, rows, h, t + 2 < end ? next : out);
      std::swap(h, next);
    }
  }

  void residual(Index rows, const S* x, S* out) const {
    const Index hidden = trunk.options_.hidden_dim;
    S *h = work.hidden.data(), *z = work.next.data(), *y = work.third.data();
    Index t = trunk.parts_.body;
    layer(t, rows, x, h);
    t += 2;
    for (Index i = 0; i < trunk.options_.num_layers; ++i, t += 6) {
      const Modulated m = modulation(i, rows);
      for (Index r = 0; r < rows; ++r) modulated_norm(hidden, h + r * hidden, m.row(r), z + r * hidden);
      layer(t + 2, rows, z, y);
      kernels::silu(rows * hidden, y, y);
      layer(t + 4, rows, y, z);
      for (Index r = 0; r < rows; ++r) {
        const S* gate = m.row(r) + 2 * hidden;
        for (Index c = 0; c < hidden; ++c) h[r * hidden + c] += gate[c] * z[r * hidden + c];
      }
    }
    const Modulated m = modulation(trunk.options_.num_layers, rows);
    for (Index r = 0; r < rows; ++r) modulated_norm(hidden, h + r * hidden, m.row(r), z + r * hidden);
    layer(t + 2, rows, z, out);
  }
};

Perceptron Trunk::perceptron() const {
  if (options_.architecture != Architecture::mlp) return {};
  return {.first = parts_.body + 1, .layers = options_.num_layers};
}

MatrixD Trunk::first_bias(const double* flat, std::span<const double> sigma, const Condition* condition, Index rows) const {
  for (const double s : sigma) check_sigma(s);
  const Index n = alike(sigma, condition) ? 1 : rows, in = options_.embedding_dim;
  const Modulation& m = modulations_[0];
  MatrixD features(n, 2 * options_.num_frequencies), embedding(n, in), bias(n, m.width);
  NoiseRows<double> noise;
  embed_rows(flat, noise.take(sigma, condition, 0, n), features.data(), embedding.data());
  linear_rows(
      n, in, m.width, embedding.data(), in, flat + layout_[m.weight].offset, in,
      [&](Index) { return flat + layout_[m.bias].offset; }, bias.data());
  return bias;
}

template <class S, class Run>
void Trunk::run_blocks(const S* flat, const PackedMlp* packed, ConstRows<S> y, std::span<const S> sigma,
                       const Condition* condition, const Run& run) const {
  const Index dim = options_.data_dim;
  for (const S s : sigma) check_sigma(static_cast<double>(s));
  // With one noise level and one condition for all rows, what they make is computed once.
  const bool alike = Trunk::alike(sigma, condition);
  static thread_local Buffer<S> shared;
  if (alike) {
    Workspace<S>& work = Workspace<S>::mine(options_);
    Workspace<S>::grow(shared, modulation_size_);
    embed_rows(flat, work.noise.take(sigma, condition, 0, 1), work.features.data(), work.embedding.data());
    for (const Modulation& m : modulations_) {
      linear_rows(
          1, options_.embedding_dim, m.width, work.embedding.data(), options_.embedding_dim, flat + layout_[m.weight].offset,
          options_.embedding_dim, [&](Index) { return flat + layout_[m.bias].offset; }, shared.data() + m.offset);
    }
  }
  const S* const one = alike ? shared.data() : nullptr;
  // Blocks begin at multiples of kBlockRows; a row's bits depend on itself alone, as the kernels promise.
  tweedie::parallel_for(y.rows(), kBlockRows, [&](Index begin, Index end) {
    Workspace<S>& work = Workspace<S>::mine(options_);
    const Pass<S> pass{*this, flat, packed, one, work};
    for (Index first = begin; first < end; first += kBlockRows) {
      const Index rows = std::min(kBlockRows, end - first);
      if (!alike) {
        embed_rows(flat, work.noise.take(sigma, condition, first, rows), work.features.data(), work.embedding.data());
      }
      for (Index r = 0; r < rows; ++r) {
        const S scale =
            static_cast<S>(c_in(static_cast<double>(sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(first + r)])));
        for (Index d = 0; d < dim; ++d) work.x[r * dim + d] = scale * y(first + r, d);
      }
      run(pass, first, rows);
    }
  });
}

template <class S>
void Trunk::for_blocks(const S* flat, const PackedMlp* packed, ConstRows<S> y, std::span<const S> sigma,
                       const Condition* condition, const std::function<void(Index, ConstRows<S>, ConstRows<S>)>& body) const {
  const Index dim = options_.data_dim;
  run_blocks(flat, packed, y, sigma, condition, [&](const Pass<S>& pass, Index first, Index rows) {
    S *const x = pass.work.x.data(), *const f = pass.work.f.data();
    if (options_.architecture == Architecture::mlp) {
      pass.mlp(rows, x, f);
    } else {
      pass.residual(rows, x, f);
    }
    body(first, {x, rows, dim}, {f, rows, dim});
  });
}

void Trunk::for_traced_blocks(const double* flat, ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                              const std::function<void(Index, ConstRows<double>, const double*)>& body) const {
  const Index dim = options_.data_dim;
  const TracedMlp mlp{layout_, flat, parts_.body + 1, options_.num_layers, dim};
  run_blocks(flat, nullptr, y, sigma, condition, [&](const Pass<double>& pass, Index first, Index rows) {
    double trace[kBlockRows];
    const auto bias = pass.modulation(0, rows);
    mlp_trace(
        mlp, rows, pass.work.x.data(), dim, [&](Index r) { return bias.row(r); }, pass.work.f.data(), trace);
    body(first, {pass.work.f.data(), rows, dim}, trace);
  });
}

#define TWEEDIE_INSTANTIATE(S)                                                                                    \
  template void Trunk::check_noise(Index, const NoiseInput<S>&) const;                                            \
  template void Trunk::write_features(std::span<const S>, S*) const;                                              \
  template void Trunk::check_input(std::span<const VarX<S>>, VarX<S>, const NoiseInput<S>&) const;                \
  template VarX<S> Trunk::forward(TapeX<S>&, std::span<const VarX<S>>, VarX<S>, const NoiseInput<S>&) const;      \
  template VarX<S> Trunk::log_variance(TapeX<S>&, std::span<const VarX<S>>, const NoiseInput<S>&) const;          \
  template void Trunk::for_blocks(const S*, const PackedMlp*, ConstRows<S>, std::span<const S>, const Condition*, \
                                  const std::function<void(Index, ConstRows<S>, ConstRows<S>)>&) const;
TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
#undef TWEEDIE_INSTANTIATE

}  // namespace tweedie::detail
