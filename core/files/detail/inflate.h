// inflate.h - decompression with a bound on what comes out; needs a build with zlib.
//
// Deflate expands at most 1032-fold, so what a length claims beyond that is a lie. Below it, past 64 MiB in all, 200-fold is
// where real numbers end and bombs begin.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "tweedie/core/files/file.h"

namespace tweedie::detail {

/// Whether the bytes begin as a gzip file does.
bool is_gzip(std::span<const std::byte> bytes);
/// The content of a gzip file (all its members). Throws DataError when it is damaged, a bomb, or this build has no zlib.
FileBytes gunzip(std::span<const std::byte> bytes, std::string_view name);
/// A raw deflate stream that must give exactly `size` bytes; errors as for gunzip.
FileBytes inflate_exactly(std::span<const std::byte> bytes, std::size_t size, std::string_view name);
/// A raw deflate stream holding `bytes`; throws UsageError in a build without zlib.
FileBytes deflate_all(std::span<const std::byte> bytes);

}  // namespace tweedie::detail
