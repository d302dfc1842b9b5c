#!/usr/bin/env python3
"""The classifier two-sample test beside scikit-learn's on ten pairs of sets.

    cmake --build --preset release --target study_c2st
    OMP_NUM_THREADS=1 python3 bench/study_c2st.py build/release/bench/study_c2st      # needs numpy and scikit-learn; some minutes

Writes the pairs as .npy into a temporary directory, runs the sbibm recipe [Lueckmann et al. 2021] with scikit-learn here and with
samplers/c2st.h in the given program, and prints both accuracies, their difference and both times.
SPDX-License-Identifier: MIT
"""
import math
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

ROWS = 10_000


def pairs():
    """(name, reference, samples), accuracies from .5 to .9."""
    rng = np.random.default_rng(7)

    def normal(dim):
        return rng.standard_normal((ROWS, dim))

    def moons(radius):
        angle = rng.uniform(-math.pi / 2, math.pi / 2, ROWS)
        length = 0.1 + radius * rng.standard_normal(ROWS)
        sign = np.where(rng.random(ROWS) < 0.5, -1, 1)
        return np.stack([sign * (length * np.cos(angle) + 0.25), length * np.sin(angle)], axis=1)

    def mixture(weight):
        narrow = rng.random((ROWS, 1)) < weight
        return np.where(narrow, 0.1, 1.0) * normal(2)

    correlated = np.array([[1.0, 0.6], [0.0, 0.8]])
    yield "2-D normal, equal laws", normal(2), normal(2)
    yield "2-D normal, shifted by .25", normal(2), normal(2) + [0.25, 0]
    yield "2-D normal, shifted by 1", normal(2), normal(2) + [1, 0]
    yield "2-D normal, shifted by 2.5", normal(2), normal(2) + [2.5, 0]
    yield "1-D normal, 1.5 times as wide", normal(1), 1.5 * normal(1)
    yield "2-D normal, correlation .6", normal(2), normal(2) @ correlated
    yield "two moons, twice as thick", moons(0.01), moons(0.02)
    yield "2-D mixture of .1 and 1, weights .5, .7", mixture(0.5), mixture(0.7)
    yield "5-D normal, 1.3 times as wide", normal(5), 1.3 * normal(5)
    yield "10-D normal, shifted by .1 in each", normal(10), normal(10) + 0.1


def sklearn_c2st(reference, samples, seed=1, folds=5):
    mean, deviation = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    dim = reference.shape[1]
    classifier = MLPClassifier(activation="relu", hidden_layer_sizes=(10 * dim, 10 * dim), max_iter=10_000, solver="adam",
                               random_state=seed)
    data = (np.concatenate([reference, samples]) - mean) / deviation
    target = np.concatenate([np.zeros(len(reference)), np.ones(len(samples))])
    scores = cross_val_score(classifier, data, target, cv=KFold(n_splits=folds, shuffle=True, random_state=seed),
                             scoring="accuracy")
    return scores.mean()


def main(program):
    worst = 0.0
    print(f"{'pair':42} {'scikit-learn':>12} {'seconds':>8} {'ours':>8} {'seconds':>8} {'difference':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for name, reference, samples in pairs():
            paths = [str(pathlib.Path(folder, part)) for part in ("reference.npy", "samples.npy")]
            reference, samples = reference.astype(np.float32), samples.astype(np.float32)
            np.save(paths[0], reference)
            np.save(paths[1], samples)
            start = time.perf_counter()
            theirs = sklearn_c2st(reference.astype(np.float64), samples.astype(np.float64))
            their_time = time.perf_counter() - start
            output = subprocess.run([program, *paths], check=True, capture_output=True, text=True).stdout.split()
            ours, our_time = float(output[0]), float(output[2])
            worst = max(worst, abs(ours - theirs))
            print(f"{name:42} {theirs:12.4f} {their_time:8.1f} {ours:8.4f} {our_time:8.2f} {ours - theirs:+11.4f}", flush=True)
    print(f"largest difference {worst:.4f}")
    return 0 if worst <= 0.01 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
