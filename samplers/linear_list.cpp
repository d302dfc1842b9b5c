// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/linear_list.h"

#include <algorithm>

namespace tweedie::detail {

namespace {

constexpr std::size_t kLaunchSteps = 4096;  // bounds the list's memory and the wait between two looks at the progress

bool uses_memory(const LinearStep& s) { return s.x_m != 0 || s.m_x != 0 || s.m_s != 0 || s.m_m != 0; }

bool uses_memory(const std::vector<ListedStep>& list) {
  return std::any_of(list.begin(), list.end(), [](const ListedStep& s) { return uses_memory(s.take); });
}

template <class S>
void advance(Chunk<S>& chunk, const LinearStep& step, MatrixX<S>& m) {
  const auto narrow = [](double v) { return static_cast<S>(v); };
  const S x_x = narrow(step.x_x), x_s = narrow(step.x_s), x_m = narrow(step.x_m), x_z = narrow(step.x_z);
  S* x = chunk.x.data();
  const S *s = chunk.s.data(), *z = chunk.z.data();
  if (m.empty()) {
    for (Index i = 0; i < chunk.size(); ++i) x[i] = x_x * x[i] + x_s * s[i];
  } else {
    const S m_x = narrow(step.m_x), m_s = narrow(step.m_s), m_m = narrow(step.m_m);
    for (Index i = 0; i < chunk.size(); ++i) {
      S& memory = m.data()[i];
      const S old = x[i];
      x[i] = x_x * old + x_s * s[i] + x_m * memory;
      memory = m_x * old + m_s * s[i] + m_m * memory;
    }
  }
  if (step.x_z == 0) return;
  for (Index i = 0; i < chunk.size(); ++i) x[i] += x_z * z[i];
}

}  // namespace

std::vector<double> evaluated(const std::vector<ListedStep>& list) {
  std::vector<double> sigma;
  for (const ListedStep& s : list) {
    if (s.take.evaluates() && (sigma.empty() || sigma.back() != s.take.sigma)) sigma.push_back(s.take.sigma);
  }
  return sigma;
}

template <class S>
void run_one_by_one(Chunk<S>& chunk, const std::vector<ListedStep>& list, Purpose purpose) {
  const Index rows = chunk.rows(), dim = chunk.x.cols();
  MatrixX<S> m = uses_memory(list) ? MatrixX<S>(rows, dim) : MatrixX<S>(), input;
  for (const ListedStep& listed : list) {
    const LinearStep& step = listed.take;
    if (step.evaluates() && step.input == 1) {
      chunk.score(step.sigma);
    } else if (step.evaluates()) {
      if (input.empty()) input = MatrixX<S>(rows, dim);
      for (Index i = 0; i < chunk.size(); ++i) input.data()[i] = static_cast<S>(step.input) * chunk.x.data()[i];
      chunk.score(input, step.sigma, chunk.s);
    }
    if (step.x_z != 0) chunk.normals(purpose, step.draw);
    advance(chunk, step, m);
    if (listed.ends) chunk.finish_step(listed.sigma);
  }
}

template void run_one_by_one(Chunk<float>&, const std::vector<ListedStep>&, Purpose);
template void run_one_by_one(Chunk<double>&, const std::vector<ListedStep>&, Purpose);

void run_at_once(Chunk<float>& chunk, const StepSource& source) {
  const std::int64_t save_every = chunk.options().save_every;
  Matrix memory = source.memory ? Matrix(chunk.rows(), chunk.x.cols()) : Matrix();
  std::vector<std::int32_t> diverged(static_cast<std::size_t>(chunk.rows()));
  std::vector<LinearStep> steps;
  std::int64_t done = 0;  // of the sampler's own
  for (std::int64_t next = 0; next < source.size;) {
    const std::int64_t first = next, before = done;
    steps.clear();
    while (next < source.size) {
      const ListedStep listed = source.step(next++);
      steps.push_back(listed.take);
      chunk.evaluations += listed.take.evaluates() ? 1 : 0;
      if (!listed.ends) continue;
      ++done;
      if (steps.size() >= kLaunchSteps || (save_every > 0 && done % save_every == 0)) break;
    }
    chunk.model().run_chain(
        {steps, source.purpose, chunk.rng().key(), static_cast<std::uint64_t>(chunk.first()), chunk.options().bound}, nullptr,
        chunk.x, memory, diverged);
    const std::int64_t worst = *std::min_element(diverged.begin(), diverged.end());
    if (worst < static_cast<std::int64_t>(steps.size())) chunk.diverged(source.place(first + worst));
    if (done > before) chunk.count_steps(done - before);
  }
}

void run_at_once(Chunk<float>& chunk, const std::vector<ListedStep>& list, Purpose purpose) {
  const auto step = [&](std::int64_t i) { return list[static_cast<std::size_t>(i)]; };
  const auto place = [&](std::int64_t i) { return step_place(step(i).step, chunk.options().steps, step(i).sigma); };
  run_at_once(chunk, {static_cast<std::int64_t>(list.size()), step, place, uses_memory(list), purpose});
}

}  // namespace tweedie::detail
