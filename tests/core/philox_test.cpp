// The vectors are Random123's published known answers (kat_vectors, philox4x32 10).
// SPDX-License-Identifier: MIT
#include "tweedie/core/philox.h"

#include <doctest/doctest.h>

using namespace tweedie;

namespace {
constexpr bool same(PhiloxWords a, PhiloxWords b) {
  return a.v[0] == b.v[0] && a.v[1] == b.v[1] && a.v[2] == b.v[2] && a.v[3] == b.v[3];
}
// The compiler evaluates these too.
static_assert(same(philox4x32({{0, 0, 0, 0}}, 0), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));
static_assert(same(philox4x32({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffffffffffff),
                   {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}));
static_assert(same(philox4x32({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0x299f31d0a4093822),
                   {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));
}  // namespace

TEST_CASE("Philox4x32-10 gives Random123's known answers at run time") {
  volatile std::uint32_t zero = 0;
  CHECK(same(philox4x32({{zero, zero, zero, zero}}, zero), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));
  volatile std::uint32_t pi0 = 0x243f6a88;
  CHECK(same(philox4x32({{pi0, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0x299f31d0a4093822),
             {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));
}

TEST_CASE("the counter's fields do not overlap") {
  const PhiloxWords c = philox_counter(Purpose::user, 0xffffffff, (std::uint64_t{1} << 44) - 1, 0, 0);
  CHECK(same(c, {{0xffffffff, 0xffffffff, 0xfff00000, 0xff000000}}));
  const PhiloxWords d = philox_counter(Purpose::split, 0, 0, (1U << 20) - 1, (1U << 24) - 1);
  CHECK(same(d, {{0, 0, 0x000fffff, 0x00ffffff}}));
}
