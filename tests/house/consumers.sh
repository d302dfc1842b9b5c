#!/usr/bin/env bash
# consumers.sh - builds and runs a stranger's project (tests/house/consumer) against the library, each way a stranger would.
#   static        find_package on the installed static library, with the consumer's own baseline flags, under ASan
#   native_asan   the same installed library, the consumer with -march=native, under ASan: Eigen's alignment differs on the two sides
#   shared        an Eigen-only shared build, installed; checks SONAME and that only tweedie's symbols are visible
#   subdirectory  FetchContent / add_subdirectory on the sources, nothing installed
#   pkg_config    one g++ line with pkg-config's flags
# SPDX-License-Identifier: MIT
set -euo pipefail
kind=$1 source=$2 build=$3
here=$source/tests/house/consumer
work=$build/consumers/$kind
rm -rf "$work"
mkdir -p "$work"

install_static() { cmake --install "$build" --prefix "$work/install" >"$work/install.log"; }
build_consumer() { # flags for cmake...
  cmake -S "$here" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@" >"$work/configure.log" || { cat "$work/configure.log"; exit 1; }
  cmake --build "$work/build" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
}

case $kind in
  static)
    install_static
    build_consumer -DCMAKE_PREFIX_PATH="$work/install" -DCMAKE_CXX_FLAGS="-fsanitize=address"
    "$work/build/consumer"
    ;;
  native_asan)
    install_static
    build_consumer -DCMAKE_PREFIX_PATH="$work/install" -DCMAKE_CXX_FLAGS="-march=native -fsanitize=address"
    "$work/build/consumer"
    ;;
  shared)
    cmake -S "$source" -B "$work/library" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DTWEEDIE_CUDA_ARCHITECTURES=90a-real -DTWEEDIE_ZLIB=OFF -DTWEEDIE_CLI=OFF \
      -DTWEEDIE_PLOTS=OFF -DTWEEDIE_TESTS=OFF -DTWEEDIE_EXAMPLES=OFF -DTWEEDIE_BENCH=OFF >"$work/library.log"
    cmake --build "$work/library" >>"$work/library.log" || { tail -n 50 "$work/library.log"; exit 1; }
    cmake --install "$work/library" --prefix "$work/install" >>"$work/library.log"
    build_consumer -DCMAKE_PREFIX_PATH="$work/install"
    "$work/build/consumer"
    link=$(find "$work/install" -name libtweedie.so)
    [[ -n "$link" ]] || { echo "no libtweedie.so under $work/install"; exit 1; }
    library=$(readlink -f "$link")
    dynamic=$(readelf -d "$library")
    grep 'SONAME.*\[libtweedie\.so\.[0-9]' <<<"$dynamic" || { echo "no versioned SONAME in $library"; exit 1; }
    # Visible: tweedie's own names (and type information, vtables, guard variables of them), nothing of Eigen or the standard library.
    foreign=$(nm -D --defined-only -C "$library" | cut -c20- | grep -v 'tweedie::' | grep -vE '^(_init|_fini|__bss_start|_edata|_end)$' || true)
    eigen=$(nm -D --defined-only -C "$library" | grep -E 'tweedie_eigen|Eigen::' || true)
    if [[ -n "$foreign$eigen" ]]; then
      printf 'symbols that should be hidden:\n%s\n%s\n' "$foreign" "$eigen" | head -n 20
      exit 1
    fi
    ;;
  subdirectory)
    build_consumer -DTWEEDIE_SOURCE="$source"
    "$work/build/consumer"
    ;;
  pkg_config)
    install_static
    pc=$(dirname "$(find "$work/install" -name tweedie.pc)")
    # shellcheck disable=SC2046
    g++ -O2 "$here/main.cpp" -o "$work/consumer" $(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs tweedie)
    "$work/consumer"
    ;;
  *) echo "consumers.sh: unknown kind '$kind'" >&2; exit 2 ;;
esac
