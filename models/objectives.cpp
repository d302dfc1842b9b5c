// SPDX-License-Identifier: MIT
#include "tweedie/models/objectives.h"

#include <algorithm>
#include <cmath>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie {

namespace {

// What Denoising's options say of it: flow matching has a weight of its own.
Weighting weighting(const Objective& objective) {
  if (const auto* d = std::get_if<Denoising>(&objective)) return d->weighting;
  if (const auto* e = std::get_if<Explicit>(&objective)) return e->weighting;
  if (const auto* s = std::get_if<Sliced>(&objective)) return s->weighting;
  return Weighting::sigma_squared;
}

const char* name(Projection projection) {
  switch (projection) {
    case Projection::unit:
      return "unit";
    case Projection::gaussian:
      return "gaussian";
    case Projection::rademacher:
      return "rademacher";
  }
  fail("sliced score matching: unknown projection");
}

template <class T>
void ensure_size(Buffer<T>& buffer, Index size) {
  if (buffer.size() != size) buffer = Buffer<T>(size);
}

template <class S>
void ensure_shape(MatrixX<S>& matrix, Index rows, Index cols) {
  if (matrix.rows() != rows || matrix.cols() != cols) matrix = MatrixX<S>(rows, cols);
}

template <class S>
VarX<S> column(TapeX<S>& tape, const Buffer<S>& values) {
  return tape.constant_view(ConstRows<S>(values.data(), values.size(), 1));
}

}  // namespace

std::string describe(const Objective& objective) {
  std::string text;
  if (std::holds_alternative<Denoising>(objective)) text = "denoising";
  if (std::holds_alternative<Explicit>(objective)) text = "explicit";
  if (std::holds_alternative<FlowMatching>(objective)) text = "flow matching";
  if (const auto* sliced = std::get_if<Sliced>(&objective)) {
    text = join("sliced(", name(sliced->projection), sliced->variance_reduced ? ", variance_reduced" : "", ", ",
                sliced->num_projections, ")");
  }
  const auto* denoising = std::get_if<Denoising>(&objective);
  switch (weighting(objective)) {
    case Weighting::sigma_squared:
      return text;
    case Weighting::plain:
      return text + ", plain";
    case Weighting::v:
      return text + ", v";
    case Weighting::edm:
      return denoising == nullptr ? text + ", edm" : join(text, ", edm(", denoising->sigma_data, ")");
    case Weighting::likelihood:
      return denoising == nullptr || !denoising->process ? text + ", likelihood"
                                                         : join(text, ", likelihood(", describe(*denoising->process), ")");
  }
  fail("describe: unknown weighting");
}

void check_objective(const Objective& objective) {
  if (const auto* sliced = std::get_if<Sliced>(&objective)) {
    check(sliced->num_projections >= 1 && sliced->num_projections < Index{1} << 24, "sliced score matching: num_projections is ",
          sliced->num_projections, "; give 1 to 2^24 - 1");
  }
  const Weighting w = weighting(objective);
  if (const auto* denoising = std::get_if<Denoising>(&objective)) {
    check(w != Weighting::edm || (std::isfinite(denoising->sigma_data) && denoising->sigma_data > 0), "denoising: sigma_data is ",
          denoising->sigma_data, "; give the data's standard deviation, positive and finite");
    check(w != Weighting::likelihood || denoising->process.has_value(),
          "denoising: the likelihood weighting has no process; give Denoising::process, such as vp()");
    check(w == Weighting::likelihood || !denoising->process.has_value(), "denoising: a process (",
          denoising->process ? denoising->process->name() : "",
          ") is given and the weighting is not likelihood; leave it out or give Weighting::likelihood");
  } else if (w != Weighting::sigma_squared && w != Weighting::plain) {
    fail(describe(objective), ": this weighting belongs to denoising; give sigma_squared or plain");
  }
}

namespace {

// loss_weight() of checked options.
double weight_at(const Objective& objective, double sigma) {
  if (std::holds_alternative<FlowMatching>(objective)) return (1 + sigma) * (1 + sigma);
  switch (weighting(objective)) {
    case Weighting::sigma_squared:
      return 1;
    case Weighting::plain:
      return 1 / (sigma * sigma);
    case Weighting::v:
      return 1 + sigma * sigma;
    case Weighting::edm: {
      const double ratio = sigma / std::get<Denoising>(objective).sigma_data;
      return 1 + ratio * ratio;
    }
    case Weighting::likelihood: {
      const Process& p = *std::get<Denoising>(objective).process;
      const double t = p.time_of(sigma), std = p.sigma(t);
      return p.g_squared(t) / (std * std);
    }
  }
  fail("loss_weight: unknown weighting");
}

}  // namespace

double loss_weight(const Objective& objective, double sigma) {
  check_objective(objective);
  check(std::isfinite(sigma) && sigma > 0, "loss_weight: sigma is ", sigma, "; give a positive finite number");
  return weight_at(objective, sigma);
}

// ---- Batches

template <class S>
void perturb(ConstRows<S> data, const NoiseLevels& levels, const Rng& rng, const PerturbOptions& options, BatchX<S>& batch) {
  const Index rows = data.rows(), dim = data.cols();
  const bool discrete = options.sampling.kind() == SigmaSampling::Kind::levels;
  ensure_shape(batch.x, rows, dim);
  ensure_shape(batch.eps, rows, dim);
  ensure_size(batch.sigma, rows);
  ensure_size(batch.level, discrete ? rows : 0);
  std::optional<SigmaSampling::Truncated> sigma_at;
  if (!discrete) sigma_at.emplace(options.sampling.truncated(levels.min(), levels.max()));
  parallel_for(rows, kLeafRows, [&](Index begin, Index end) {
    for (Index b = begin; b < end; ++b) {
      const std::uint64_t row = options.first_row + static_cast<std::uint64_t>(b);
      if (discrete) {
        const auto count = static_cast<std::uint64_t>(levels.size());
        const auto level = static_cast<Index>(rng.integer(Purpose::level, options.step, row, count));
        batch.level[b] = static_cast<std::int32_t>(level);
        batch.sigma[b] = static_cast<S>(levels[level]);
      } else {
        batch.sigma[b] = static_cast<S>((*sigma_at)(rng.uniform(Purpose::level, options.step, row)));
      }
      std::copy_n(data.row(b).begin(), dim, batch.x.row(b).begin());
    }
    rng.normals(Purpose::perturb, options.step, options.first_row + static_cast<std::uint64_t>(begin),
                batch.eps.middle_rows(begin, end - begin));
    S* x = batch.x.data() + begin * dim;
    kernels::dsm_perturb(end - begin, dim, x, batch.sigma.data() + begin, batch.eps.data() + begin * dim, x);
  });
}

Batch perturb(ConstRows<float> data, const NoiseLevels& levels, const Rng& rng, const PerturbOptions& options) {
  Batch batch;
  perturb(data, levels, rng, options, batch);
  return batch;
}

BatchD perturb(ConstRows<double> data, const NoiseLevels& levels, const Rng& rng, const PerturbOptions& options) {
  BatchD batch;
  perturb(data, levels, rng, options, batch);
  return batch;
}

namespace {

// Rows of normals onto the sphere of the given radius.
template <class S>
void normalise_rows(double radius, Rows<S> v) {
  for (Index r = 0; r < v.rows(); ++r) {
    double square = 0;
    for (const S z : v.row(r)) square += static_cast<double>(z) * static_cast<double>(z);
    // A row of exact zeros (probability below 2^-60 for D = 1) keeps to the first axis.
    if (square == 0) v(r, 0) = static_cast<S>(square = 1);
    const double scale = radius / std::sqrt(square);
    for (S& z : v.row(r)) z = static_cast<S>(scale * static_cast<double>(z));
  }
}

}  // namespace

template <class S>
void draw_directions(const Objective& objective, const Rng& rng, const PerturbOptions& options, BatchX<S>& batch) {
  const auto* sliced = std::get_if<Sliced>(&objective);
  const Index rows = batch.rows(), dim = batch.x.cols(), count = sliced == nullptr ? 0 : sliced->num_projections;
  check_objective(objective);
  ensure_shape(batch.directions, count * rows, count == 0 ? 0 : dim);
  if (sliced == nullptr) return;
  const double radius = sliced->variance_reduced ? std::sqrt(static_cast<double>(dim)) : 1;
  for (Index p = 0; p < count; ++p) {
    const Rows<S> block = batch.directions.middle_rows(p * rows, rows);
    const auto sub_draw = static_cast<std::uint32_t>(p);
    if (sliced->projection == Projection::rademacher) {
      rng.uniforms(Purpose::project, options.step, options.first_row, block, sub_draw);
      for (Index i = 0; i < block.size(); ++i) block.data()[i] = block.data()[i] > S(.5) ? S(1) : S(-1);
    } else {
      rng.normals(Purpose::project, options.step, options.first_row, block, sub_draw);
      if (sliced->projection == Projection::unit) normalise_rows(radius, block);
    }
  }
}

// ---- Losses: each makes the row losses; their mean is the loss.

namespace {

template <class S>
LossX<S> mean_of(VarX<S> rows) {
  return {mean(rows), rows};
}

template <class S>
VarX<S> denoising_rows(VarX<S> scaled_score, const BatchX<S>& batch) {
  check(scaled_score.rows() == batch.rows() && scaled_score.cols() == batch.eps.cols(),
        "denoising score matching: the model's output is ", shape(scaled_score.value()), ", the batch ", shape(batch.eps));
  return .5 * sum_cols(square(scaled_score + scaled_score.tape().constant_view(batch.eps.view())));
}

// With u = score times a per-row factor c (c = 1 where `scale` is none): 1/2 |u|^2 + c tr(du/dx).
template <class S>
VarX<S> explicit_rows(VarX<S> u, VarX<S> x, VarX<S> scale) {
  check(u.rows() == x.rows() && u.cols() == x.cols(), "score_matching_loss: the score is ", shape(u.value()), ", x is ",
        shape(x.value()));
  check(x.differentiable(), "score_matching_loss: x is a constant on the tape; make it with tape.variable(x)");
  VarX<S> trace;
  const VarX<S> ones = u.tape().full(u.rows(), 1, S(1));
  for (Index i = 0; i < x.cols(); ++i) {
    // Rows do not mix, so the gradient of column i's sum holds each row's own ds_i/dx.
    const VarX<S> row_i = grad(slice_cols(u, i, 1), {x}, {.create_graph = true}, ones).front();
    const VarX<S> entry = slice_cols(row_i, i, 1);
    trace = trace ? trace + entry : entry;
  }
  return .5 * sum_cols(square(u)) + (scale ? scale * trace : trace);
}

// The same with v.(du/dx v) for the trace, averaged over the directions.
template <class S>
VarX<S> sliced_rows(VarX<S> u, VarX<S> x, ConstRows<S> directions, const Sliced& options, VarX<S> scale) {
  const Index rows = x.rows(), count = options.num_projections;
  check(u.rows() == rows && u.cols() == x.cols(), "sliced_score_matching_loss: the score is ", shape(u.value()), ", x is ",
        shape(x.value()));
  check(x.differentiable(), "sliced_score_matching_loss: x is a constant on the tape; make it with tape.variable(x)");
  check(count >= 1 && directions.rows() == count * rows && directions.cols() == x.cols() && directions.contiguous(),
        "sliced_score_matching_loss: the directions are ", shape(directions), ", expected (", count, " * ", rows, ", ", x.cols(),
        ") without gaps; draw_directions() makes them");
  VarX<S> total;
  for (Index p = 0; p < count; ++p) {
    const VarX<S> v = u.tape().constant_view(directions.middle_rows(p * rows, rows));
    const VarX<S> curvature = dot_cols(v, jvp(u, {x}, {v}));
    const VarX<S> norm = options.variance_reduced ? sum_cols(square(u)) : square(dot_cols(v, u));
    const VarX<S> loss = .5 * norm + (scale ? scale * curvature : curvature);
    total = total ? total + loss : loss;
  }
  return count == 1 ? total : total / static_cast<double>(count);
}

template <class S>
VarX<S> weighted(VarX<S> rows, const Objective& objective, const BatchX<S>& batch) {
  const bool flow = std::holds_alternative<FlowMatching>(objective);
  if (!flow && weighting(objective) == Weighting::sigma_squared) return rows;
  if (weighting(objective) == Weighting::plain) return rows / square(column(rows.tape(), batch.sigma));
  // In double whatever S is, into the thread's own memory: the tape copies it, and a training step allocates nothing.
  static thread_local Buffer<S> weights;
  ensure_size(weights, batch.rows());
  for (Index b = 0; b < batch.rows(); ++b) weights[b] = static_cast<S>(weight_at(objective, static_cast<double>(batch.sigma[b])));
  return rows * rows.tape().constant(ConstRows<S>(weights.data(), weights.size(), 1));
}

}  // namespace

template <class S>
LossX<S> denoising_score_matching_loss(VarX<S> scaled_score, const BatchX<S>& batch, const Denoising& options) {
  check_objective(options);
  return mean_of(weighted(denoising_rows(scaled_score, batch), options, batch));
}

template <class S>
LossX<S> denoising_score_matching_loss(VarX<S> scaled_score, const BatchX<S>& batch, Weighting weighting) {
  return denoising_score_matching_loss(scaled_score, batch, Denoising{.weighting = weighting});
}

template <class S>
LossX<S> denoising_score_matching_epsilon(VarX<S> epsilon, const BatchX<S>& batch) {
  check(epsilon.rows() == batch.rows() && epsilon.cols() == batch.eps.cols(),
        "denoising_score_matching_epsilon: the model's output is ", shape(epsilon.value()), ", the batch ", shape(batch.eps));
  return mean_of(sum_cols(square(epsilon - epsilon.tape().constant_view(batch.eps.view()))));
}

template <class S>
LossX<S> score_matching_loss(VarX<S> score, VarX<S> x) {
  return mean_of(explicit_rows(score, x, VarX<S>{}));
}

template <class S>
LossX<S> sliced_score_matching_loss(VarX<S> score, VarX<S> x, std::type_identity_t<ConstRows<S>> directions,
                                    const Sliced& options) {
  return mean_of(sliced_rows(score, x, directions, options, VarX<S>{}));
}

template <class S>
LossX<S> objective_loss(const Objective& objective, const Network& network, TapeX<S>& tape, std::span<const VarX<S>> parameters,
                        const BatchX<S>& batch) {
  check_objective(objective);
  const VarX<S> log_variance = network.log_variance(tape, parameters, batch.noise());
  if (std::holds_alternative<Denoising>(objective) || std::holds_alternative<FlowMatching>(objective)) {
    const VarX<S> x = tape.constant_view(batch.x.view());
    VarX<S> rows = weighted(denoising_rows(network.scaled_score(tape, parameters, x, batch.noise()), batch), objective, batch);
    if (log_variance) {
      check(log_variance.rows() == batch.rows() && log_variance.cols() == 1, "objective_loss: the network's log-variance is ",
            shape(log_variance.value()), ", the batch has ", batch.rows(), " rows");
      rows = exp(-log_variance) * rows + .5 * static_cast<double>(batch.x.cols()) * log_variance;
    }
    return mean_of(rows);
  }
  if (log_variance) {
    fail("objective_loss: ", describe(objective),
         " has no use for a learned log-variance; build the network without it, or train by denoising");
  }
  const VarX<S> x = tape.parameter(batch.x.view());
  const VarX<S> u = network.scaled_score(tape, parameters, x, batch.noise());
  const VarX<S> sigma = column(tape, batch.sigma);
  const auto* sliced = std::get_if<Sliced>(&objective);
  const VarX<S> rows =
      sliced == nullptr ? explicit_rows(u, x, sigma) : sliced_rows(u, x, batch.directions.view(), *sliced, sigma);
  return mean_of(weighted(rows, objective, batch));
}

Var denoising_loss(Tape& tape, const Network& network, std::span<const Var> parameters, const Batch& batch) {
  return objective_loss<float>(Denoising{}, network, tape, parameters, batch).mean;
}

#define TWEEDIE_INSTANTIATE(S)                                                                            \
  template void perturb(ConstRows<S>, const NoiseLevels&, const Rng&, const PerturbOptions&, BatchX<S>&); \
  template void draw_directions(const Objective&, const Rng&, const PerturbOptions&, BatchX<S>&);         \
  template LossX<S> denoising_score_matching_loss(VarX<S>, const BatchX<S>&, Weighting);                  \
  template LossX<S> denoising_score_matching_loss(VarX<S>, const BatchX<S>&, const Denoising&);           \
  template LossX<S> denoising_score_matching_epsilon(VarX<S>, const BatchX<S>&);                          \
  template LossX<S> score_matching_loss(VarX<S>, VarX<S>);                                                \
  template LossX<S> sliced_score_matching_loss(VarX<S>, VarX<S>, ConstRows<S>, const Sliced&);            \
  template LossX<S> objective_loss(const Objective&, const Network&, TapeX<S>&, std::span<const VarX<S>>, const BatchX<S>&);
TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
#undef TWEEDIE_INSTANTIATE

}  // namespace tweedie
