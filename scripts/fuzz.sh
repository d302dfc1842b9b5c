#!/usr/bin/env bash
# fuzz.sh - builds the libFuzzer targets (clang) and runs them on their seed corpora.
#   scripts/fuzz.sh --replay          each seed and 20,000 mutations of them (CI)
#   scripts/fuzz.sh [SECONDS]         SECONDS a target, default 600; findings are left in build/fuzz/findings/
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
formats=(csv npy npz safetensors)
cmake --preset fuzz >/dev/null
cmake --build build/fuzz --target "${formats[@]/#/fuzz_}"

if [[ "$seconds" == --replay ]]; then
  ctest --test-dir build/fuzz -L fuzz --output-on-failure --no-tests=error
  exit
fi
mkdir -p build/fuzz/findings
for format in "${formats[@]}"; do
  nice -n 10 "build/fuzz/tests/fuzz/fuzz_$format" -max_total_time="$seconds" -rss_limit_mb=2048 -max_len=4096 -timeout=20 \
    -print_final_stats=1 -artifact_prefix="build/fuzz/findings/$format-" "build/fuzz/tests/fuzz/corpus/$format" "tests/fuzz/seeds/$format"
done
