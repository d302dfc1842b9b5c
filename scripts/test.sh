#!/usr/bin/env bash
# test.sh - installs what is missing, builds Release and runs every test.
#   scripts/test.sh           everything
#   scripts/test.sh --quick   without the tests labelled "slow" (under three minutes)
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "$0")/.."

filter=()
case "${1:-}" in
  "") ;;
  --quick) filter=(-LE slow) ;;
  *) echo "test.sh: unknown option '$1'; the one there is: --quick" >&2; exit 2 ;;
esac

scripts/setup.sh
cmake --preset release
cmake --build --preset release
ctest --test-dir build/release --output-on-failure --no-tests=error -j "$(nproc)" "${filter[@]}"
