#!/usr/bin/env bash
# demo.sh - installs what is missing, builds Release, runs the tutorial end to end and trains on a real table.
#   scripts/demo.sh [DIR]     figures, samples and the summary go to DIR (default: demo)
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-demo}
scripts/setup.sh
cmake --preset release
cmake --build --preset release --target tweedie_program
tweedie=build/release/cli/tweedie

echo
"$tweedie" demo -o "$out"

echo
echo "A real table: the eruptions of Old Faithful (examples/data/faithful.csv, 272 rows), every fourth row held out"
awk 'NR == 1 || NR % 4 != 0' examples/data/faithful.csv > "$out/faithful_train.csv"
awk 'NR == 1 || NR % 4 == 0' examples/data/faithful.csv > "$out/faithful_held_out.csv"
"$tweedie" train "$out/faithful_train.csv" -o "$out/faithful.safetensors" --seed 1
"$tweedie" sample "$out/faithful.safetensors" -n 272 -o "$out/faithful_samples.csv" --seed 2
"$tweedie" eval "$out/faithful.safetensors" "$out/faithful_held_out.csv" --train "$out/faithful_train.csv" -n 2000
"$tweedie" plot "$out/faithful.safetensors" --kind samples --data examples/data/faithful.csv -n 272 -o "$out/faithful.png"
echo "Figures, samples and models are in $out/"
