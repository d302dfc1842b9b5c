// SPDX-License-Identifier: MIT
#include "tweedie/samplers/likelihood.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "tweedie/samplers/detail/chunks.h"
#include "tweedie/samplers/detail/row_integrator.h"
#include "tweedie/samplers/detail/sigma_range.h"

namespace tweedie {

namespace {

constexpr const char* kName = "log_density";

// What x, the flow and its end mean.
struct Setting {
  detail::SigmaRange sigma;
  double alpha = 1;      // of x
  double prior_std = 0;  // of y at sigma.high
};

Setting setting(const ScoreModel& model, const LogDensityOptions& o) {
  if (o.process) {
    check(o.sigma_min == 0 && o.sigma_max == 0, kName, ": sigma_min = ", o.sigma_min, ", sigma_max = ", o.sigma_max,
          " beside a process, which has its own range; leave them 0 or leave out the process");
    const Process& p = *o.process;
    return {detail::within_model(model, p.ratio(p.t_min()), p.ratio(p.t_max()), kName), p.alpha(p.t_min()),
            p.prior_std() / p.alpha(p.t_max())};
  }
  const detail::SigmaRange range = detail::flow_range(model, o.sigma_min, o.sigma_max, kName);
  return {range, 1, range.high};
}

void check_options(const ScoreModel& model, ConstRows<double> x, const LogDensityOptions& o) {
  check(x.cols() == model.dim(), kName, ": x is ", shape(x), ", the model's dimension is ", model.dim());
  check(o.divergence == Divergence::exact || (o.probes >= 1 && o.probes < Index{1} << 24), kName, ": probes = ", o.probes,
        "; give 1 to 2^24 - 1");
  check(o.terminal == Terminal::prior || model.has_log_density(), kName, ": ", model.name(),
        " has no density of its own for Terminal::exact; use Terminal::prior");
}

// v (n, D), row i the probe of sample rows[i].
void draw_probes(const Rng& rng, Probe kind, std::span<const Index> rows, Index probe, Rows<double> v) {
  for (Index i = 0; i < v.rows(); ++i) {
    const Rows<double> one = v.middle_rows(i, 1);
    const auto row = static_cast<std::uint64_t>(rows[static_cast<std::size_t>(i)]);
    const auto draw = static_cast<std::uint32_t>(probe);
    if (kind == Probe::gaussian) {
      rng.normals<double>(Purpose::project, 0, row, one, draw);
    } else {
      rng.uniforms<double>(Purpose::project, 0, row, one, draw);
      for (double& u : one.row(0)) u = u <= .5 ? 1 : -1;
    }
  }
}

// State: y (D), the integral, and with hutchinson each probe's own integral.
detail::RowField field(const ScoreModel& model, const LogDensityOptions& o, const Rng& rng) {
  return [&model, &o, &rng](const detail::RowBatch& batch) {
    const Index n = batch.state.rows(), d = model.dim();
    const ConstRows<double> y = batch.state.middle_cols(0, d);
    MatrixD score(n, d);
    std::vector<double> trace(static_cast<std::size_t>(n));
    if (o.divergence == Divergence::exact) {
      model.divergence(y, batch.sigma, nullptr, score, trace);
    } else {
      MatrixD v(n, d), product(n, d);
      for (Index p = 0; p < o.probes; ++p) {
        draw_probes(rng, o.probe, batch.row, p, v);
        model.jvp(y, batch.sigma, nullptr, v, score, product);
        for (Index i = 0; i < n; ++i) {
          const auto r = static_cast<std::size_t>(i);
          double along = 0;
          for (Index j = 0; j < d; ++j) along += v(i, j) * product(i, j);
          batch.rate(i, d + 1 + p) = -batch.sigma[r] * batch.sigma[r] * along;
          trace[r] += along / static_cast<double>(o.probes);
        }
      }
    }
    for (Index i = 0; i < n; ++i) {
      const auto r = static_cast<std::size_t>(i);
      const double variance = batch.sigma[r] * batch.sigma[r];
      for (Index j = 0; j < d; ++j) batch.rate(i, j) = -variance * score(i, j);
      batch.rate(i, d) = -variance * trace[r];
    }
  };
}

std::vector<double> terminal_density(const ScoreModel& model, const LogDensityOptions& o, const Setting& at,
                                     ConstRows<double> y) {
  std::vector<double> out(static_cast<std::size_t>(y.rows()));
  if (o.terminal == Terminal::exact) {
    model.log_density(y, std::span<const double>(&at.sigma.high, 1), nullptr, out);
    return out;
  }
  const double constant = .5 * static_cast<double>(y.cols()) * std::log(2 * std::numbers::pi * at.prior_std * at.prior_std);
  for (Index r = 0; r < y.rows(); ++r) {
    double square = 0;
    for (const double v : y.row(r)) square += v * v;
    out[static_cast<std::size_t>(r)] = -.5 * square / (at.prior_std * at.prior_std) - constant;
  }
  return out;
}

// Standard deviation of the mean over the columns of `values`.
double standard_error(std::span<const double> values, double mean) {
  const double n = static_cast<double>(values.size());
  double square = 0;
  for (const double v : values) square += (v - mean) * (v - mean);
  return values.size() == 1 ? std::numeric_limits<double>::quiet_NaN() : std::sqrt(square / (n - 1) / n);
}

}  // namespace

LogDensity log_density(const ScoreModel& model, ConstRows<double> x, const LogDensityOptions& options, const Rng& rng) {
  check_options(model, x, options);
  const Setting at = setting(model, options);
  const double largest = std::max(at.sigma.high, detail::largest_entry<double>(x, kName) / at.alpha);
  const Index n = x.rows(), d = x.cols(), probes = options.divergence == Divergence::exact ? 0 : options.probes;
  MatrixD state(n, d + 1 + probes);
  for (Index r = 0; r < n; ++r) {
    for (Index j = 0; j < d; ++j) state(r, j) = x(r, j) / at.alpha;
  }
  std::vector<std::int64_t> evaluations(static_cast<std::size_t>(n));
  detail::integrate_rows({.name = kName,
                          .rtol = options.rtol,
                          .atol = options.atol,
                          .max_steps = options.max_steps,
                          .controlled = d + 1,
                          .bound = 1e6 * largest,
                          .bounded = d,
                          .chunk_rows = options.chunk_rows,
                          .least_rows = model.least_rows(),
                          .progress = &options.progress},
                         at.sigma.low, at.sigma.high, field(model, options, rng), state, evaluations);
  LogDensity result;
  result.nats = terminal_density(model, options, at, ConstRows<double>(state.view()).middle_cols(0, d));
  for (Index r = 0; r < n; ++r) {
    double& nats = result.nats[static_cast<std::size_t>(r)];
    nats += state(r, d) - static_cast<double>(d) * std::log(at.alpha);
    result.bits_per_dim.push_back(-nats / (static_cast<double>(d) * std::numbers::ln2));
    result.standard_error.push_back(
        probes == 0 ? 0 : standard_error(state.row(r).subspan(static_cast<std::size_t>(d + 1)), state(r, d)));
  }
  const detail::EvaluationCount total = detail::count(evaluations);
  result.evaluations = total.largest;
  result.mean_evaluations = total.mean;
  return result;
}

LogDensity log_density(const ScoreModel& model, ConstRows<double> x, const LogDensityOptions& options) {
  check(options.divergence == Divergence::exact, kName, ": hutchinson draws its probes from a stream; give an Rng");
  return log_density(model, x, options, Rng{0});
}

LogDensity log_density(const ScoreModel& model, ConstRows<float> x, const LogDensityOptions& options, const Rng& rng) {
  return log_density(model, MatrixD(x), options, rng);
}
LogDensity log_density(const ScoreModel& model, ConstRows<float> x, const LogDensityOptions& options) {
  return log_density(model, MatrixD(x), options);
}

double integrate_density(const ScoreModel& model, const Box& box, Index resolution, const LogDensityOptions& options) {
  check(model.dim() == 2, "integrate_density: the model's dimension is ", model.dim(),
        ", the box is a rectangle; give a model of two");
  check(box.x_max > box.x_min && box.y_max > box.y_min, "integrate_density: the box [", box.x_min, ", ", box.x_max, "] x [",
        box.y_min, ", ", box.y_max, "] is empty");
  check(resolution >= 1, "integrate_density: resolution = ", resolution, " must be at least 1");
  const double dx = (box.x_max - box.x_min) / static_cast<double>(resolution);
  const double dy = (box.y_max - box.y_min) / static_cast<double>(resolution);
  MatrixD grid(resolution * resolution, 2);
  for (Index r = 0; r < grid.rows(); ++r) {
    grid(r, 0) = box.x_min + (static_cast<double>(r % resolution) + .5) * dx;
    grid(r, 1) = box.y_min + (static_cast<double>(r / resolution) + .5) * dy;
  }
  double total = 0;
  for (const double nats : log_density(model, grid, options).nats) total += std::exp(nats) * dx * dy;
  return total;
}

const char* to_string(Divergence divergence) { return divergence == Divergence::exact ? "exact" : "hutchinson"; }
const char* to_string(Probe probe) { return probe == Probe::rademacher ? "rademacher" : "gaussian"; }
const char* to_string(Terminal terminal) { return terminal == Terminal::prior ? "prior" : "exact"; }

Divergence divergence(std::string_view name) {
  if (name == "exact") return Divergence::exact;
  if (name == "hutchinson") return Divergence::hutchinson;
  fail("divergence '", name, "' is unknown; choose exact or hutchinson");
}
Probe probe(std::string_view name) {
  if (name == "rademacher") return Probe::rademacher;
  if (name == "gaussian") return Probe::gaussian;
  fail("probe '", name, "' is unknown; choose rademacher or gaussian");
}
Terminal terminal(std::string_view name) {
  if (name == "prior") return Terminal::prior;
  if (name == "exact") return Terminal::exact;
  fail("terminal density '", name, "' is unknown; choose prior or exact");
}

}  // namespace tweedie
