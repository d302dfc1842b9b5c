// study_c2st.cpp - the classifier two-sample test of two .npy files; bench/study_c2st.py runs it beside scikit-learn.
//
//   build/release/bench/study_c2st REFERENCE.npy SAMPLES.npy [SEED]      prints: accuracy standard-error seconds epochs...
//
// One thread, so that the seconds compare.
// SPDX-License-Identifier: MIT
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "tweedie/core/files/npy.h"
#include "tweedie/core/parallel.h"
#include "tweedie/samplers/c2st.h"

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s REFERENCE.npy SAMPLES.npy [SEED]\n", argv[0]);
    return 2;
  }
  tweedie::set_threads(1);
  const tweedie::Matrix reference = tweedie::read_npy<float>(argv[1]), samples = tweedie::read_npy<float>(argv[2]);
  const auto start = std::chrono::steady_clock::now();
  const tweedie::C2st result =
      tweedie::c2st(reference, samples, {}, tweedie::Rng{argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%.5f %.5f %.3f", result.accuracy, result.standard_error, seconds.count());
  for (const int epochs : result.epochs) std::printf(" %d", epochs);
  std::printf("\n");
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "study_c2st: %s\n", e.what());
  return 1;
}
