// linear_list.h - a sampler whose steps are linear, stated once: a list of linear_chain.h's steps that a CPU takes one by one and
// a device in one go. SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tweedie/models/linear_chain.h"
#include "tweedie/samplers/detail/chunks.h"

namespace tweedie::detail {

/// A step and its place among the sampler's own, which may be made of several.
struct ListedStep {
  LinearStep take;
  std::int64_t step;  // the sampler's, counted from 0
  double sigma;       // where it begins, for messages
  bool ends = true;   // whether it is that step's last
};

/// The noise levels that a list evaluates.
std::vector<double> evaluated(const std::vector<ListedStep>& list);

/// Takes the chunk's rows through the list, step by step.
template <class S>
void run_one_by_one(Chunk<S>& chunk, const std::vector<ListedStep>& list, Purpose purpose);

/// Steps by their number, made when they are needed.
struct StepSource {
  std::int64_t size;
  std::function<ListedStep(std::int64_t)> step;
  std::function<std::string(std::int64_t)> place;  // of a step, for messages
  bool memory;                                     // whether a step reads or writes m
  Purpose purpose;
};
/// Takes them by the model's run_chain(): in one call, or one for each saved state and each 4096 steps. Bounds are checked after
/// every step of the list.
void run_at_once(Chunk<float>& chunk, const StepSource& steps);
void run_at_once(Chunk<float>& chunk, const std::vector<ListedStep>& list, Purpose purpose);

}  // namespace tweedie::detail
