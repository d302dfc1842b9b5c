#!/usr/bin/env bash
# gpu_check.sh - on a machine with nvcc and a GPU: builds, runs every GPU test, compute-sanitizer's four tools over them and the
# benchmarks, PyTorch's beside ours, and writes build/gpu_report.json and build/gpu_report.md. Needs nothing from a network.
#   scripts/gpu_check.sh              everything
#   scripts/gpu_check.sh --quick      5 repeats instead of 20, without the largest batches
#   scripts/gpu_check.sh --dry-run    builds everything and stops before the device (for machines without one)
# Exit status: 0 all passed; 1 something failed; 2 usage or something to bring is missing; 6 no device.
#
# To bring: nvcc, g++ 12 or newer, cmake 3.25 or newer, python3 (for the report; with PyTorch for the comparison); and two header
# libraries, Eigen 3.4 (the folder with Eigen/Core) and doctest (doctest/doctest.h), installed or in one folder named by
#   TWEEDIE_HEADERS=/path/to/headers scripts/gpu_check.sh
# SPDX-License-Identifier: MIT
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

quick=() dry=0 repeats=20
for option in "$@"; do
  case $option in
    --quick) quick=(--quick) repeats=5 ;;
    --dry-run) dry=1 ;;
    *) echo "gpu_check.sh: unknown option '$option'; there are --quick and --dry-run" >&2; exit 2 ;;
  esac
done

build=build/gpu work=build/gpu_check
rm -rf "$work"
mkdir -p "$work"
steps=$work/steps.tsv
: >"$steps"
failed=0

say() { printf '%s\n' "$*"; }
record() { # step state seconds remark
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$steps"
  say "gpu_check: $1: $2${4:+ ($4)}"
  [[ $2 == failed ]] && failed=1
  return 0
}
slug() { tr -c 'a-zA-Z0-9\n' '_' <<<"$1"; }
# step NAME COMMAND...: runs it with its output in a log, records how it went, and shows the log's end where it failed.
step() {
  local name=$1 log start=$SECONDS
  log=$work/$(slug "$name").log
  shift
  if "$@" >"$log" 2>&1; then
    record "$name" passed $((SECONDS - start)) ""
  else
    local status=$?
    tail -n 25 "$log"
    record "$name" failed $((SECONDS - start)) "exit status $status, see $log"
    return 1
  fi
}
finish() {
  if command -v python3 >/dev/null; then
    python3 bench/gpu_report.py "$work" && say "gpu_check: the report is in build/gpu_report.md and build/gpu_report.json"
  else
    say "gpu_check: no python3, so no report; the steps are in $steps, the times in $work/tweedie.json"
  fi
  if [[ $failed -ne 0 ]]; then say "gpu_check: FAILED"; exit 1; fi
  say "gpu_check: passed"
  exit 0
}

# ---- what must be there
missing=()
for tool in nvcc g++ cmake; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [[ ${#missing[@]} -gt 0 ]]; then
  echo "gpu_check.sh: not on PATH: ${missing[*]}. Install them, or add their folders (nvcc is usually in /usr/local/cuda/bin)." >&2
  exit 2
fi

# ---- headers: from TWEEDIE_HEADERS, as packages that CMake finds; else as they are installed
packages=()
if [[ -n ${TWEEDIE_HEADERS:-} ]]; then
  first_folder() { # file candidates...: the first candidate that holds the file
    local file=$1 folder
    shift
    for folder in "$@"; do
      if [[ -e $folder/$file ]]; then (cd "$folder" && pwd) && return 0; fi
    done
    return 1
  }
  package() { # name target folder: a find_package() configuration for one folder of headers
    mkdir -p "$work/cmake/$1"
    printf 'set(%s_VERSION %s)\nif(NOT TARGET %s)\n  add_library(%s INTERFACE IMPORTED)\n  target_include_directories(%s INTERFACE "%s")\nendif()\n' \
      "$1" "$4" "$2" "$2" "$2" "$3" >"$work/cmake/$1/$1Config.cmake"
    # shellcheck disable=SC2016
    printf 'set(PACKAGE_VERSION %s)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n' "$4" >"$work/cmake/$1/$1ConfigVersion.cmake"
    packages+=("-D$1_DIR=$PWD/$work/cmake/$1")
  }
  eigen=$(first_folder Eigen/Core "$TWEEDIE_HEADERS" "$TWEEDIE_HEADERS/eigen3") || missing+=("Eigen/Core")
  doctest=$(first_folder doctest/doctest.h "$TWEEDIE_HEADERS" "$TWEEDIE_HEADERS/doctest") || missing+=("doctest/doctest.h")
  if [[ ${#missing[@]} -gt 0 ]]; then
    echo "gpu_check.sh: TWEEDIE_HEADERS=$TWEEDIE_HEADERS holds no ${missing[*]}. Copy the folders Eigen/ and doctest/ there (on Debian they come" >&2
    echo "from libeigen3-dev, /usr/include/eigen3/Eigen, and doctest-dev, /usr/include/doctest)." >&2
    exit 2
  fi
  package Eigen3 Eigen3::Eigen "$eigen" 3.4.0
  package doctest doctest::doctest "$doctest" 2.4.9
fi

# ---- the device
device="" architectures=()
if command -v nvidia-smi >/dev/null; then
  device=$(nvidia-smi --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
fi
if [[ -n $device && $dry -eq 0 ]]; then
  capability=$(cut -d, -f2 <<<"$device" | tr -d ' .')
  [[ $capability == 90 ]] && capability=90a  # wgmma and the multicast copies are sm_90a's alone
  architectures=("-DTWEEDIE_CUDA_ARCHITECTURES=$capability-real")
elif [[ $dry -eq 0 ]]; then
  echo "gpu_check.sh: no CUDA device (nvidia-smi names none). Run this on a machine with one, or with --dry-run to build alone." >&2
  exit 6
fi
say "gpu_check: device: ${device:-none (dry run)}"
printf '{"device": "%s", "nvcc": "%s", "host": "%s", "cores": %s, "commit": "%s", "date": "%s"}\n' "${device:-none}" \
  "$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')" "$(uname -srm)" "$(nproc)" \
  "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" "$(date -u +%Y-%m-%dT%H:%MZ)" >"$work/machine.json"

if [[ $dry -eq 1 ]]; then architectures=(-DTWEEDIE_CUDA_ARCHITECTURES=90a-real); fi

# ---- build
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
rm -f "$build/CMakeCache.txt"
if ! step configure cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DTWEEDIE_CUDA=ON -DTWEEDIE_TESTS=ON -DTWEEDIE_CLI=OFF \
  -DTWEEDIE_PLOTS=OFF -DTWEEDIE_ZLIB=OFF -DTWEEDIE_BENCH=OFF -DTWEEDIE_EXAMPLES=OFF "${architectures[@]}" "${packages[@]}"; then
  say "gpu_check: where a package was not found: bring Eigen's and doctest's headers and name their folder by TWEEDIE_HEADERS"
  finish
fi
step build cmake --build "$build" --target gpu_tests cuda_bench -j "$(nproc)" || finish

tests=(runtime device fault)
for test in "${tests[@]}"; do
  compgen -G "tests/gpu/${test}_gpu_test.c*" >/dev/null || record "test $test" failed 0 "tests/gpu has no such file"
done
for file in tests/gpu/*_gpu_test.c*; do
  name=$(basename "$file")
  [[ " ${tests[*]} " == *" ${name%%_gpu_test*} "* ]] || tests=("${name%%_gpu_test*}" "${tests[@]}")
done

if [[ $dry -eq 1 ]]; then
  step "tests say that they are skipped" bash -c "'$build/tests/gpu_tests' --no-intro | grep 'skipped: no CUDA device'"
  for what in tests compute-sanitizer benchmarks "PyTorch comparison"; do record "$what" "not run" 0 "dry run"; done
  finish
fi

# ---- tests: a test that finds no device is a failure here
# shellcheck disable=SC2317  # called by step
run_test() {
  "$build/tests/gpu_tests" --no-intro "$@" 2>&1 | tee "$work/last_test"
  [[ ${PIPESTATUS[0]} -eq 0 ]] && ! grep -q 'skipped: no CUDA device' "$work/last_test"
}
for test in "${tests[@]}"; do step "test $test" run_test "--source-file=*/${test}_gpu_test.c*"; done

# ---- compute-sanitizer: the same tests but the planted fault and the many blocks
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    step "compute-sanitizer $tool" compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 "$build/tests/gpu_tests" \
      --no-intro '--source-file-exclude=*/fault_gpu_test.cu' '--test-case-exclude=gpu large*'
  done
else
  record compute-sanitizer failed 0 "compute-sanitizer is not on PATH; it comes with the CUDA toolkit"
fi

# ---- benchmarks
bench=$(find "$build" -name cuda_bench -type f -perm -u+x | head -n 1)
step "benchmark model" "$bench" model "$work/chapter.safetensors" &&
  step "benchmark answers" "$bench" answers "$work/chapter.safetensors" "$work/answers.safetensors"
# shellcheck disable=SC2016
step "benchmarks" bash -c '"$0" time "$1" --repeats "$2" "${@:4}" >"$3"' "$bench" "$work/chapter.safetensors" "$repeats" "$work/tweedie.json" "${quick[@]}"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  # shellcheck disable=SC2016
  step "PyTorch comparison" bash -c 'python3 bench/compare_torch_cuda.py "$0" "$1" --repeats "$2" "${@:4}" >"$3"' "$work/chapter.safetensors" \
    "$work/answers.safetensors" "$repeats" "$work/torch.json" "${quick[@]}"
else
  record "PyTorch comparison" "not run" 0 "python3 has no PyTorch with CUDA"
fi
finish
