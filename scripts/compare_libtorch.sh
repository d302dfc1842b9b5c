#!/usr/bin/env bash
# compare_libtorch.sh - tweedie against a current PyTorch wheel's LibTorch on this machine's CPU.
#   scripts/compare_libtorch.sh [--venv DIR] [options of bench/libtorch/race.py: --quick, --clock cpu, --write-readme, ...]
# Installs the wheel into a private environment (build/venv), builds the comparison in build/libtorch, checks that both sides compute
# the same, times them in alternation, writes build/libtorch/results.json and prints the tables. Nothing else of this project needs
# Python or the wheel. PIP_TORCH="torch==2.9.1" names another version, PIP_ARGS adds options of pip (an index, a folder of wheels).
# A wheel built with CUDA does as well: its CPU library is used, with the two small runtime packages that it is linked to.
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "$0")/.."

venv=build/venv
if [ "${1:-}" = --venv ]; then
  [ $# -ge 2 ] || { echo "compare_libtorch.sh: --venv needs a folder" >&2; exit 2; }
  venv=$2
  shift 2
fi
build=build/libtorch

# Where the wheel is; fails if it is not installed whole (its metadata come last).
torch_folder() {
  "$venv/bin/python" -c 'import importlib.metadata, importlib.util
importlib.metadata.version("torch")
print(importlib.util.find_spec("torch").submodule_search_locations[0])' 2>/dev/null
}

if ! torch_folder >/dev/null; then
  python3 -m venv "$venv" || { echo "compare_libtorch.sh: Python's venv is missing; apt-get install python3-venv" >&2; exit 1; }
  # --no-deps: the library alone is wanted, not what Python needs to import it.
  # shellcheck disable=SC2086
  "$venv/bin/pip" install --quiet --no-deps ${PIP_ARGS:-} "${PIP_TORCH:-torch}"
fi
torch=$(torch_folder)

# What libtorch_cpu.so is linked to and the wheel does not bring: the CUDA runtime and its profiler, for wheels built with CUDA.
if [ -e "$torch/lib/libtorch_cuda.so" ] && ! ls "$torch"/../nvidia/*/lib/libcudart.so* "$torch"/../nvidia/cuda_runtime/lib/libcudart.so* >/dev/null 2>&1; then
  mapfile -t needed < <("$venv/bin/python" - <<'PY'
import importlib.metadata as m
import re

for requirement in m.requires("torch"):
    toolkit = re.match(r"cuda-toolkit\[.*?\](==[\d.]+)", requirement)  # one package with parts
    single = re.match(r"(nvidia-cuda-(?:runtime|cupti)(?:-cu\d+)?==[\d.]+)", requirement)  # older: a package each
    if toolkit:
        print("cuda-toolkit[cudart,cupti]" + toolkit[1])
    if single:
        print(single[1])
PY
  )
  if [ ${#needed[@]} -eq 0 ]; then
    echo "compare_libtorch.sh: this wheel is built with CUDA and names no runtime package; name a CPU wheel by PIP_TORCH and PIP_ARGS" >&2
    exit 1
  fi
  # shellcheck disable=SC2086
  "$venv/bin/pip" install --quiet ${PIP_ARGS:-} "${needed[@]}"
fi

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTWEEDIE_LIBTORCH=ON -UTWEEDIE_TORCH_CMAKE \
  -DCMAKE_PREFIX_PATH="$torch/share/cmake" \
  -DTWEEDIE_TESTS=OFF -DTWEEDIE_EXAMPLES=OFF -DTWEEDIE_BENCH=OFF -DTWEEDIE_CLI=OFF -DTWEEDIE_PLOTS=OFF -DTWEEDIE_ZLIB=OFF \
  -DTWEEDIE_CUDA=OFF >/dev/null
cmake --build "$build" --target compare_tweedie compare_libtorch minimal_sampler -- -j "$(nproc)"
exec python3 bench/libtorch/race.py --build "$build" --torch-lib "$torch/lib" "$@"
