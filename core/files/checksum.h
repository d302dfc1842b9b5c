// checksum.h - the two cyclic redundancy checks that our files carry.
//
// crc32c: polynomial 0x1EDC6F41 (Castagnoli; RFC 3720, B.4), for checkpoints. crc32: 0x04C11DB7 (ISO 3309), for zip and gzip.
// Both reflected, started and finished with all ones; "123456789" gives E3069283 and CBF43926.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tweedie/core/export.h"

namespace tweedie {

/// The checksum of `bytes`. To go on from earlier bytes, pass their checksum: crc32c(b, crc32c(a)) is that of a then b.
TWEEDIE_API std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);
TWEEDIE_API std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t before = 0);

}  // namespace tweedie
