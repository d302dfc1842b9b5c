// device_score.cpp - the host's part of a score on a device: biases and preconditioning, rows up and down, chains in the
// perceptron's own terms.
// SPDX-License-Identifier: MIT
#include "tweedie/models/device_score.h"

#include <algorithm>
#include <charconv>
#include <mutex>
#include <utility>
#include <vector>

#include "tweedie/kernels/cuda/mlp_forward.h"
#include "tweedie/models/detail/device_score.h"
#include "tweedie/models/detail/perceptron.h"

namespace tweedie {

namespace {

using detail::Perceptron;
using detail::PerceptronRows;
using kernels::Precision;
using kernels::cuda::Device;
using kernels::cuda::DeviceBuffer;

constexpr Index kBlockRows = 1 << 14;     // of a call: two waves of tiles on a large device
constexpr Index kOwnNoiseRows = 1 << 12;  // of one whose rows have first biases of their own, 8 MB of them at a width of 256
constexpr Index kAlignment = 64;          // elements between which tensors begin, for wide copies

template <class S>
constexpr bool kSingle = sizeof(S) == sizeof(float);

// The kernels' descriptions of a perceptron: Mlp in float, MlpD in double.
template <class S>
using MlpOf = std::conditional_t<kSingle<S>, kernels::Mlp, kernels::cuda::MlpD>;

// A perceptron's weights on a device, and room for the rows of a call.
template <class S>
struct OnDevice {
  MlpOf<S> net;
  DeviceBuffer<S> weights, bias, x, probe, out, product, trace;

  OnDevice(const Network& network, const Perceptron& where, const std::shared_ptr<Device>& device) {
    std::vector<Index> offset;
    Index size = 0;
    const auto place = [&](Index count) {
      offset.push_back(size);
      size += (count + kAlignment - 1) / kAlignment * kAlignment;
    };
    const auto tensor = [&](Index i) { return network.layout()[where.first + i]; };
    for (Index i = 0; i < where.layers; ++i) {
      place(tensor(2 * i).rows * (i == 0 ? network.dim() : tensor(2 * i).cols));
      place(tensor(2 * i).rows);
    }
    Buffer<S> flat(size);
    net.layers = static_cast<int>(where.layers);
    weights = DeviceBuffer<S>(device, size);
    for (Index i = 0; i < where.layers; ++i) {
      const ParameterTensor& w = tensor(2 * i);
      const Index in = i == 0 ? network.dim() : w.cols;
      const float *from = network.parameters().data() + w.offset, *bias_from = from - w.offset + tensor(2 * i + 1).offset;
      const Index to = offset[static_cast<std::size_t>(2 * i)], bias_to = offset[static_cast<std::size_t>(2 * i + 1)];
      for (Index r = 0; r < w.rows; ++r) std::copy_n(from + r * w.cols, in, flat.data() + to + r * in);
      std::copy_n(bias_from, w.rows, flat.data() + bias_to);
      net.layer[i] = {weights.data() + to, weights.data() + bias_to, static_cast<int>(in), static_cast<int>(w.rows)};
    }
    weights.upload(flat.data(), size);
  }

  /// The perceptron with `rows` first biases from row `first` of `bias` on.
  MlpOf<S> with_bias(Index first, Index rows) const {
    MlpOf<S> at = net;
    at.layer[0].bias = bias.data() + first * at.layer[0].out;
    at.levels = static_cast<int>(rows);
    return at;
  }
};

// The noise levels of a list in turn, runs of equal ones as one.
std::vector<double> levels_of(std::span<const LinearStep> steps) {
  std::vector<double> sigma;
  for (const LinearStep& step : steps) {
    if (step.evaluates() && (sigma.empty() || sigma.back() != step.sigma)) sigma.push_back(step.sigma);
  }
  return sigma;
}

// A list of steps in the perceptron's terms. s = a input x + f F(c input x): x' = (x_x + x_s a input) x + x_s f F + ..., and so
// for m'. Noise alone takes an evaluation that does not count: merged into the step before, its rounding would depend on the
// cuts.
std::vector<kernels::cuda::ChainStep> in_network_terms(std::span<const LinearStep> list, const std::vector<double>& sigma,
                                                       const PerceptronRows& at) {
  const auto narrow = [](double v) { return static_cast<float>(v); };
  std::vector<kernels::cuda::ChainStep> steps;
  std::size_t level = 0;
  bool first = true;
  for (const LinearStep& s : list) {
    if (s.evaluates() && !std::exchange(first, false) && s.sigma != sigma[level]) ++level;
    const double a = at.x[level] * s.input, f = at.f[level];
    steps.push_back({static_cast<int>(level), narrow(at.input[level] * s.input), narrow(s.x_x + s.x_s * a), narrow(s.x_s * f),
                     narrow(s.x_m), narrow(s.x_z), narrow(s.m_x + s.m_s * a), narrow(s.m_s * f), narrow(s.m_m), s.draw});
  }
  return steps;
}

class DeviceScore final : public ScoreModel {
 public:
  DeviceScore(const Network& network, const Perceptron& where, std::shared_ptr<Device> device, Precision precision)
      : host_(network.clone()),
        device_(std::move(device)),
        precision_(precision),
        name_(join(network.name(), " on ", device_->name().substr(0, device_->name().find(',')))),
        single_(network, where, device_),
        double_(network, where, device_) {
    std::vector<int> row(kOwnNoiseRows);
    for (std::size_t r = 0; r < row.size(); ++r) row[r] = static_cast<int>(r);
    own_level_ = DeviceBuffer<int>(device_, kOwnNoiseRows);
    own_level_.upload(row.data(), kOwnNoiseRows);
    // One row now, so that what the kernels do not take is refused here.
    upload_bias<float>(MatrixD(1, single_.net.layer[0].out));
    sized(single_.x, dim()).upload(Matrix(1, dim()).data(), dim());
    sized(single_.out, dim());
    device_->mlp_forward({single_.with_bias(0, 1), 1, single_.x.data(), nullptr, 0, single_.out.data()}, precision_);
  }

  Index dim() const override { return host_->dim(); }
  double sigma_min() const override { return host_->sigma_min(); }
  double sigma_max() const override { return host_->sigma_max(); }
  Index num_classes() const override { return host_->num_classes(); }
  Index covariate_dim() const override { return host_->covariate_dim(); }
  Index least_rows() const override { return kBlockRows; }
  const char* name() const override { return name_.c_str(); }

  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override {
    check_rows(y, sigma, condition, out);
    for_blocks<float>(y, sigma, condition, [&](const Block<float>& block) {
      Matrix f(block.rows, dim());
      for (Index term = 0; term < block.at.terms; ++term) {
        device_->mlp_forward({single_.with_bias(term * block.at.rows, block.at.rows), block.rows, single_.x.data(),
                              block.at.rows == 1 ? nullptr : own_level_.data(), 0, single_.out.data()},
                             precision_);
        single_.out.download(f.data(), f.size());
        add_values<float>(block, term, y, f, out);
      }
    });
  }

  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override {
    check_rows(y, sigma, condition, out);
    differentiate(y, sigma, condition, MatrixD(y.rows(), y.cols()), out, nullptr, {});
  }

  bool has_jvp() const override { return true; }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
           Rows<double> score, Rows<double> out) const override {
    check_rows(y, sigma, condition, score);
    check_rows(v, sigma, condition, out);
    check(v.rows() == y.rows(), name(), ": jvp with v ", shape(v), ", y is ", shape(y), "; give them the same shape");
    differentiate(y, sigma, condition, v, score, &out, {});
  }

  void vjp(ConstRows<double>, std::span<const double>, const Condition*, ConstRows<double>, Rows<double>,
           Rows<double>) const override {
    fail(name(),
         ": devices have no transposed derivative (vjp), which posterior sampling needs; use the network itself "
         "(--device cpu), or a method without the score's derivative (RePaint imputation)");
  }

  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                  std::span<double> out) const override {
    check_rows(y, sigma, condition, score);
    check_traces(y, out);
    differentiate(y, sigma, condition, {}, score, nullptr, out);
  }

  bool has_chain(std::span<const double> sigma) const override {
    return device_->takes_chain(single_.net, precision_) &&
           host_->perceptron_rows(sigma, nullptr, static_cast<Index>(sigma.size())).terms == 1;
  }

  void run_chain(const LinearChain& chain, const Condition* condition, Rows<float> x, Rows<float> m,
                 std::span<std::int32_t> diverged) const override;

 private:
  // Rows [first, first + rows) of a call, x' = input y and the biases on the device.
  template <class S>
  struct Block {
    Index first, rows;
    PerceptronRows at;
  };

  template <class S>
  OnDevice<S>& here() const {
    if constexpr (kSingle<S>) {
      return single_;
    } else {
      return double_;
    }
  }

  // A buffer of at least `count` elements.
  template <class T>
  DeviceBuffer<T>& sized(DeviceBuffer<T>& buffer, Index count) const {
    if (buffer.size() < count) {
      buffer = DeviceBuffer<T>();  // its memory first
      buffer = DeviceBuffer<T>(device_, count);
    }
    return buffer;
  }

  template <class S>
  void upload_bias(const MatrixD& bias) const {
    const MatrixX<S> rounded(ConstRows<double>(bias.view()));
    sized(here<S>().bias, bias.size()).upload(rounded.data(), bias.size());
  }

  template <class S, class Body>
  void for_blocks(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, const Body& body) const {
    OnDevice<S>& device = here<S>();
    const bool alike =
        sigma.size() == 1 && (condition == nullptr || (condition->labels.size() <= 1 && condition->covariates.rows() <= 1));
    const Index most = alike ? kBlockRows : kOwnNoiseRows;
    for (Index first = 0; first < y.rows(); first += most) {
      const Index rows = std::min(most, y.rows() - first);
      const auto from = static_cast<std::size_t>(first), count = static_cast<std::size_t>(rows);
      Condition part;
      if (condition != nullptr) {
        part = *condition;
        if (part.labels.size() > 1) part.labels = part.labels.subspan(from, count);
        if (part.covariates.rows() > 1) part.covariates = part.covariates.middle_rows(first, rows);
      }
      const std::span<const S> noise = sigma.size() == 1 ? sigma : sigma.subspan(from, count);
      const std::vector<double> wide(noise.begin(), noise.end());
      const Block<S> block{first, rows, host_->perceptron_rows(wide, condition == nullptr ? nullptr : &part, rows)};
      MatrixX<S> x(rows, dim());
      for (Index r = 0; r < rows; ++r) {
        const S input = static_cast<S>(block.at.input[block.at.rows == 1 ? 0 : static_cast<std::size_t>(r)]);
        for (Index d = 0; d < dim(); ++d) x(r, d) = input * y(first + r, d);
      }
      const std::lock_guard lock(mutex_);
      upload_bias<S>(block.at.bias);
      sized(device.x, x.size()).upload(x.data(), x.size());
      sized(device.out, x.size());
      body(block);
    }
  }

  // The coefficient of row r of a block, from (terms rows) of them.
  template <class S>
  static double of_row(const Block<S>& block, const std::vector<double>& all, Index r, Index term = 0) {
    return all[static_cast<std::size_t>(block.at.rows == 1 ? term : term * block.at.rows + r)];
  }

  // out = x y + f_0 F_0, then out += f_1 F_1. `out` may be y.
  template <class S>
  static void add_values(const Block<S>& block, Index term, ConstRows<S> y, const MatrixX<S>& f, Rows<S> out) {
    for (Index r = 0; r < block.rows; ++r) {
      const S a = static_cast<S>(of_row(block, block.at.x, r)), b = static_cast<S>(of_row(block, block.at.f, r, term));
      if (term > 0 && b == 0) continue;
      for (Index d = 0; d < f.cols(); ++d) {
        S& to = out(block.first + r, d);
        to = (term == 0 ? a * y(block.first + r, d) : to) + b * f(r, d);
      }
    }
  }

  // score and, of J = x I + sum_t f_t input J_F: with v (B, D) jvp = J v, where it is asked for; without v trace = tr J.
  void differentiate(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                     Rows<double> score, const Rows<double>* jvp, std::span<double> trace) const {
    const bool traced = v.rows() == 0;
    for_blocks<double>(y, sigma, condition, [&](const Block<double>& block) {
      MatrixD f(block.rows, dim()), product(block.rows, dim());
      std::vector<double> part(static_cast<std::size_t>(block.rows));
      if (!traced) {
        const MatrixD probe(v.middle_rows(block.first, block.rows));
        sized(double_.probe, probe.size()).upload(probe.data(), probe.size());
        sized(double_.product, probe.size());
      } else {
        sized(double_.trace, block.rows);
      }
      for (Index term = 0; term < block.at.terms; ++term) {
        device_->mlp_divergence({double_.with_bias(term * block.at.rows, block.at.rows), block.rows, double_.x.data(), nullptr,
                                 traced ? nullptr : double_.probe.data(), double_.out.data(),
                                 traced ? nullptr : double_.product.data(), traced ? double_.trace.data() : nullptr});
        double_.out.download(f.data(), f.size());
        if (jvp != nullptr) double_.product.download(product.data(), product.size());
        if (traced) double_.trace.download(part.data(), block.rows);
        add_values<double>(block, term, y, f, score);
        for (Index r = 0; r < block.rows; ++r) {
          const double a = term == 0 ? of_row(block, block.at.x, r) : 0;
          const double b = of_row(block, block.at.f, r, term) * of_row(block, block.at.input, r);
          if (traced) {
            double& to = trace[static_cast<std::size_t>(block.first + r)];
            to = (term == 0 ? 0 : to) + a * static_cast<double>(dim()) + b * part[static_cast<std::size_t>(r)];
          } else if (jvp != nullptr) {
            for (Index d = 0; d < dim(); ++d) {
              double& to = (*jvp)(block.first + r, d);
              to = (term == 0 ? 0 : to) + a * v(block.first + r, d) + b * product(r, d);
            }
          }
        }
      }
    });
  }

  std::unique_ptr<const Network> host_;
  std::shared_ptr<Device> device_;
  Precision precision_;
  std::string name_;
  DeviceBuffer<int> own_level_;  // row r has level r
  mutable std::mutex mutex_;     // of the device and of what follows
  mutable OnDevice<float> single_;
  mutable OnDevice<double> double_;
  mutable DeviceBuffer<kernels::cuda::ChainStep> steps_;
  mutable DeviceBuffer<float> memory_;
  mutable DeviceBuffer<int> diverged_;
};

void DeviceScore::run_chain(const LinearChain& chain, const Condition* condition, Rows<float> x, Rows<float> m,
                            std::span<std::int32_t> diverged) const {
  const Index rows = x.rows();
  check_rows<float>(x, std::vector<float>{1}, condition, x);
  check(m.empty() || (m.rows() == rows && m.cols() == x.cols()), name(), ": run_chain with m ", shape(m), ", x is ", shape(x),
        "; give them the same shape, or no m");
  check(static_cast<Index>(diverged.size()) == rows, name(), ": run_chain with room for ", diverged.size(),
        " rows in `diverged`, x has ", rows);
  check(condition == nullptr || (condition->labels.size() <= 1 && condition->covariates.rows() <= 1), name(),
        ": run_chain takes one condition for all rows; run the rows of each condition apart");
  std::vector<double> sigma = levels_of(chain.steps);
  if (sigma.empty()) sigma.push_back(sigma_max());  // of steps without a score
  const PerceptronRows at = host_->perceptron_rows(sigma, condition, static_cast<Index>(sigma.size()));
  check(at.terms == 1, name(), ": run_chain between the network's levels; ask has_chain() first");
  if (rows == 0) return;

  const std::vector<kernels::cuda::ChainStep> steps = in_network_terms(chain.steps, sigma, at);
  const auto count = static_cast<Index>(steps.size());
  Matrix state{ConstRows<float>(x)}, memory{ConstRows<float>(m)};
  const std::lock_guard lock(mutex_);
  upload_bias<float>(at.bias);
  sized(steps_, std::max<Index>(count, 1)).upload(steps.data(), count);
  sized(single_.x, state.size()).upload(state.data(), state.size());
  if (!memory.empty()) sized(memory_, memory.size()).upload(memory.data(), memory.size());
  sized(diverged_, rows);
  device_->sample_chain(
      {single_.with_bias(0, at.rows), rows, static_cast<int>(count), steps_.data(), chain.purpose, chain.key, chain.first_row,
       single_.x.data(), memory.empty() ? nullptr : memory_.data(), static_cast<float>(chain.bound), diverged_.data()},
      precision_);
  single_.x.download(state.data(), state.size());
  if (!memory.empty()) memory_.download(memory.data(), memory.size());
  diverged_.download(diverged.data(), rows);
  for (Index r = 0; r < rows; ++r) {
    std::copy_n(state.row(r).data(), x.cols(), x.row(r).data());
    if (!memory.empty()) std::copy_n(memory.row(r).data(), x.cols(), m.row(r).data());
  }
}

}  // namespace

namespace {

Perceptron perceptron_of(const Network& network) {
  const Perceptron where = network.perceptron();
  check(where.layers > 0, "on_device: ", network.name(),
        " is no perceptron, and devices compute those alone; train one with --net mlp (or the chapter's, --net ncsn), or use "
        "--device cpu");
  check(where.layers <= kernels::Mlp::kMaxLayers, "on_device: ", where.layers, " layers; the kernels take at most ",
        kernels::Mlp::kMaxLayers, "; train a network of fewer, or use --device cpu");
  return where;
}

}  // namespace

std::unique_ptr<ScoreModel> detail::on_device(const Network& network, std::shared_ptr<Device> device, Precision precision) {
  return std::make_unique<DeviceScore>(network, perceptron_of(network), std::move(device), precision);
}

std::unique_ptr<ScoreModel> on_device(const Network& network, const std::string& device, Precision precision) {
  int index = 0;
  if (device != "cuda") {
    constexpr std::string_view kPrefix = "cuda:";
    const char *const begin = device.data() + std::min(kPrefix.size(), device.size()), *const end = device.data() + device.size();
    const auto [last, error] = std::from_chars(begin, end, index);
    check(device.starts_with(kPrefix) && error == std::errc() && last == end && index >= 0, "on_device: device '", device,
          "' is unknown; give cuda, or cuda:N for the N-th one, counted from 0");
  }
  perceptron_of(network);  // a network that is none needs no device
  return detail::on_device(network, kernels::cuda::open_device(index), precision);
}

}  // namespace tweedie
