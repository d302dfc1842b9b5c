// evaluation.h - how far samples are from held-out rows, beside how far the training rows are.
// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <vector>

#include "tweedie/core/matrix.h"
#include "tweedie/core/random.h"

namespace tweedie::cli {

/// Distances of one set of rows to the held-out rows, all in scaled units.
struct Distances {
  double energy = 0;              // energy distance, V-statistic
  double sliced_wasserstein = 0;  // W1, 128 directions
  double mmd_squared = 0;         // V-statistic, bandwidth the median distance within the held-out rows
  std::vector<double> ks;         // (D) Kolmogorov-Smirnov statistic of each column
};
Distances distances(ConstRows<float> rows, ConstRows<float> held_out, Rng rng);

/// Do samples stand suspiciously near to training rows?
struct CopyCheck {
  double closest = 1;    // median distance from a sample to its nearest training row / the same of held-out rows: near 1 is right
  double ratio = 1;      // nearest_neighbour_ratio: samples to training rows / to held-out rows, equal numbers of both
  double identical = 0;  // part of the samples that equal a training row
  double identical_held_out = 0;
  bool copied() const { return closest < .5 || identical > 2 * identical_held_out + .05; }
};
CopyCheck copy_check(ConstRows<float> samples, ConstRows<float> train, ConstRows<float> held_out);

/// `count` places spread evenly over a table's rows, and the rows there.
std::vector<Index> spread_places(Index rows, Index count);
Matrix spread(ConstRows<float> rows, Index count);

}  // namespace tweedie::cli
