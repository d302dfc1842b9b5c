#!/usr/bin/env bash
# setup.sh - installs, with apt, what building and testing tweedie needs on Debian 12 or newer. Does nothing where all is there.
#   scripts/setup.sh          what the library, the program and the tests need
#   scripts/setup.sh --ci     also the second compiler, the sanitizers' and the linter's packages
# SPDX-License-Identifier: MIT
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config git libeigen3-dev doctest-dev libbenchmark-dev libcli11-dev libcairo2-dev zlib1g-dev
  fonts-dejavu-core)
if [[ "${1:-}" == --ci ]]; then
  packages+=(clang clang-format libclang-rt-14-dev)
elif [[ -n "${1:-}" ]]; then
  echo "setup.sh: unknown option '$1'; the one there is: --ci" >&2
  exit 2
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$status" == installed ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi

root=()
if [[ $EUID -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "setup.sh: missing: ${missing[*]}. Install them as root (apt-get install ${missing[*]}), or install sudo." >&2
    exit 1
  fi
  root=(sudo)
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${root[@]}" apt-get update -q
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
