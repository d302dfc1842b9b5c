// SPDX-License-Identifier: MIT
#include "tweedie/samplers/probability_flow.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "tweedie/samplers/detail/chunks.h"
#include "tweedie/samplers/detail/row_integrator.h"
#include "tweedie/samplers/detail/sigma_range.h"

namespace tweedie {

namespace {

constexpr const char* kName = "probability_flow";
constexpr detail::Tableau kEuler{1, {0}, {{}}, {1}};
constexpr detail::Tableau kHeun{2, {0, 1}, {{}, {1}}, {.5, .5}};

const detail::Tableau& tableau(FlowMethod method) {
  switch (method) {
    case FlowMethod::euler:
      return kEuler;
    case FlowMethod::heun:
      return kHeun;
    case FlowMethod::dormand_prince:
      return detail::kDormandPrince;
  }
  fail("flow method: unknown kind");
}

// Where a flow starts and ends.
struct Way {
  double from, to;              // s = sigma / alpha
  double alpha_from, alpha_to;  // of the process there
};

Way way(const ScoreModel& model, const Process& process, bool to_data) {
  const double early = process.t_min_sampling(), late = process.t_max();
  const detail::SigmaRange range = detail::within_model(model, process.ratio(early), process.ratio(late), kName);
  if (to_data) return {range.high, range.low, process.alpha(late), process.alpha(early)};
  return {range.low, range.high, process.alpha(early), process.alpha(late)};
}

template <class S>
void scale(MatrixX<S>& x, double factor) {
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<S>(x.data()[i] * factor);
}

template <class S>
void check_options(const ProbabilityFlowOptions& o) {
  check(o.samples >= 0, kName, ": samples = ", o.samples, " must not be negative");
  check(o.steps >= 0, kName, ": steps = ", o.steps, " must not be negative");
  if (o.steps > 0) return;
  check(o.method == FlowMethod::dormand_prince, kName, ": ", to_string(o.method),
        " has no error estimate for steps of its own; give steps > 0 or use dormand_prince");
  check(o.save_every == 0, kName, ": rows that choose their own steps have no common trajectory; give steps > 0 with save_every");
  check(std::is_same_v<S, double> || (o.rtol >= 1e-6 && o.atol >= 1e-6), kName, ": rtol = ", o.rtol, ", atol = ", o.atol,
        "; float scores carry tolerances of 1e-6 at best: give double rows for less");
}

// `steps` equal steps in ln s of all rows together; state in S.
template <class S>
void fixed_steps(const ScoreModel& model, const Process& process, const Way& w, const ProbabilityFlowOptions& options,
                 FlowSamplesX<S>& samples) {
  const detail::Tableau& method = tableau(options.method);
  // A row of Dormand-Prince's seventh stage has weight 0: it serves the error estimate alone.
  const int stages = std::min(method.stages, 6);
  const double start = std::log(w.from), h = (std::log(w.to) - start) / static_cast<double>(options.steps);
  const auto sigma_at = [&](double step) {
    return std::clamp(std::exp(start + step * h), std::min(w.from, w.to), std::max(w.from, w.to));
  };
  const double largest = std::max(w.from, detail::largest_entry<S>(samples.x, kName));
  const detail::RunOptions run{.sampler = kName,
                               .steps = options.steps,
                               .save_every = options.save_every,
                               .trajectory_rows = options.trajectory_rows,
                               .chunk_rows = options.chunk_rows,
                               .bound = 1e6 * largest,
                               .remedy = "use more steps, or check the model",
                               .progress = &options.progress};
  detail::run_chunks<S>(model, run, Rng{0}, samples, [&](detail::Chunk<S>& chunk) {
    std::vector<MatrixX<S>> rate(static_cast<std::size_t>(stages), MatrixX<S>(chunk.rows(), chunk.x.cols()));
    MatrixX<S> trial(chunk.rows(), chunk.x.cols());
    const auto combine = [&](const double* weights, int count, S* out) {
      for (Index e = 0; e < chunk.size(); ++e) {
        S sum = 0;
        for (int j = 0; j < count; ++j) sum += static_cast<S>(h * weights[j]) * rate[static_cast<std::size_t>(j)].data()[e];
        out[e] = chunk.x.data()[e] + sum;
      }
    };
    for (Index step = 0; step < options.steps; ++step) {
      for (int i = 0; i < stages; ++i) {
        MatrixX<S>& k = rate[static_cast<std::size_t>(i)];
        const double sigma = sigma_at(static_cast<double>(step) + method.c[i]);
        combine(method.a[i], i, trial.data());
        chunk.score(ConstRows<S>(trial.view()), sigma, k.view());
        for (Index e = 0; e < k.size(); ++e) k.data()[e] *= static_cast<S>(-sigma * sigma);
      }
      combine(method.b, stages, chunk.x.data());
      chunk.finish_step([&] {
        Index row = 0;
        while (std::all_of(chunk.x.row(row).begin(), chunk.x.row(row).end(), [&](S v) { return std::abs(v) <= run.bound; }))
          ++row;
        return join("row ", chunk.first() + row, ", step ", step, " of ", options.steps,
                    " (sigma = ", sigma_at(static_cast<double>(step + 1)), ")");
      });
    }
  });
  samples.evaluations = options.steps * stages;  // also of no rows
  samples.mean_evaluations = static_cast<double>(samples.evaluations);
  for (std::size_t f = 0; f < samples.trajectory.size(); ++f) {
    const std::int64_t step = samples.trajectory_steps[f];
    const double alpha = step == 0               ? w.alpha_from
                         : step == options.steps ? w.alpha_to
                                                 : process.alpha(process.time_of(sigma_at(static_cast<double>(step))));
    scale(samples.trajectory[f], alpha);
  }
}

// Dormand-Prince 5(4), each row with its own step; state in double, score in S.
template <class S>
void own_steps(const ScoreModel& model, const Way& w, const ProbabilityFlowOptions& options, FlowSamplesX<S>& samples) {
  const double largest = std::max({w.from, w.to, detail::largest_entry<S>(samples.x, kName)});
  MatrixD state(ConstRows<S>(samples.x.view()));
  std::vector<std::int64_t> evaluations(static_cast<std::size_t>(state.rows()));
  const auto field = [&](const detail::RowBatch& batch) {
    const MatrixX<S> y(batch.state);
    MatrixX<S> s(y.rows(), y.cols());
    const std::vector<S> sigma(batch.sigma.begin(), batch.sigma.end());
    model.score(y, std::span<const S>(sigma), nullptr, s);
    for (Index r = 0; r < s.rows(); ++r) {
      const double variance = batch.sigma[static_cast<std::size_t>(r)] * batch.sigma[static_cast<std::size_t>(r)];
      for (Index j = 0; j < s.cols(); ++j) batch.rate(r, j) = -variance * static_cast<double>(s(r, j));
    }
  };
  detail::integrate_rows({.name = kName,
                          .rtol = options.rtol,
                          .atol = options.atol,
                          .max_steps = options.max_steps,
                          .bound = 1e6 * largest,
                          .chunk_rows = options.chunk_rows,
                          .least_rows = model.least_rows(),
                          .progress = &options.progress},
                         w.from, w.to, field, state, evaluations);
  samples.x = MatrixX<S>(ConstRows<double>(state.view()));
  const detail::EvaluationCount total = detail::count(evaluations);
  samples.evaluations = total.largest;
  samples.mean_evaluations = total.mean;
}

template <class S>
FlowSamplesX<S> flow(const ScoreModel& model, const Process& process, MatrixX<S> x, bool to_data,
                     const ProbabilityFlowOptions& options) {
  check_options<S>(options);
  check(x.cols() == model.dim(), kName, ": x is ", shape(x), ", the model's dimension is ", model.dim());
  const Way w = way(model, process, to_data);
  scale(x, 1 / w.alpha_from);
  FlowSamplesX<S> samples;
  samples.x = std::move(x);
  if (options.steps > 0) {
    fixed_steps(model, process, w, options, samples);
  } else {
    own_steps(model, w, options, samples);
  }
  scale(samples.x, w.alpha_to);
  return samples;
}

}  // namespace

const char* to_string(FlowMethod method) {
  switch (method) {
    case FlowMethod::euler:
      return "euler";
    case FlowMethod::heun:
      return "heun";
    case FlowMethod::dormand_prince:
      return "dormand_prince";
  }
  fail("flow method: unknown kind");
}

FlowMethod flow_method(std::string_view name) {
  for (const FlowMethod m : {FlowMethod::euler, FlowMethod::heun, FlowMethod::dormand_prince}) {
    if (name == to_string(m)) return m;
  }
  fail("flow method '", name, "' is unknown; choose one of: euler, heun, dormand_prince");
}

FlowSamples probability_flow(const ScoreModel& model, const Process& process, const ProbabilityFlowOptions& options,
                             const Rng& rng) {
  check_options<float>(options);
  return flow(model, process, detail::prior_draw<float>(options.samples, model.dim(), process.prior_std(), rng), true, options);
}

FlowSamples probability_flow(const ScoreModel& model, const Process& process, ConstRows<float> x,
                             const ProbabilityFlowOptions& options) {
  return flow(model, process, Matrix(x), true, options);
}
FlowSamplesD probability_flow(const ScoreModel& model, const Process& process, ConstRows<double> x,
                              const ProbabilityFlowOptions& options) {
  return flow(model, process, MatrixD(x), true, options);
}

FlowSamples encode(const ScoreModel& model, const Process& process, ConstRows<float> x, const ProbabilityFlowOptions& options) {
  return flow(model, process, Matrix(x), false, options);
}
FlowSamplesD encode(const ScoreModel& model, const Process& process, ConstRows<double> x, const ProbabilityFlowOptions& options) {
  return flow(model, process, MatrixD(x), false, options);
}

}  // namespace tweedie
