// SPDX-License-Identifier: MIT
#include "tweedie/core/files/detail/inflate.h"

#include <algorithm>
#include <cstring>

#include "tweedie/core/check.h"

#ifdef TWEEDIE_HAVE_ZLIB
#include <zlib.h>
#endif

namespace tweedie::detail {

bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1F} && bytes[1] == std::byte{0x8B};
}

#ifdef TWEEDIE_HAVE_ZLIB

namespace {

constexpr std::size_t kMaxRatio = 1032;
constexpr std::size_t kFreeExpansion = std::size_t{64} << 20;
constexpr std::size_t kTrustedRatio = 200;

std::size_t expansion_limit(std::size_t compressed) { return std::max(kFreeExpansion, compressed * kTrustedRatio); }

/// zlib's inflate over a span, a piece of output at a time.
class Inflater {
 public:
  Inflater(std::span<const std::byte> input, int window_bits, std::string_view name) : input_(input), name_(name) {
    check<ResourceError>(inflateInit2(&stream_, window_bits) == Z_OK, name, ": out of memory while decompressing");
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  /// Fills `out` as far as the stream goes; fewer bytes than asked for mean that it has ended.
  std::size_t fill(std::span<std::byte> out) {
    std::size_t have = 0;
    while (have < out.size() && !ended_) {
      // zlib counts in 32 bits and does not write through next_in, whatever its type says.
      const std::size_t in = std::min(input_.size(), kPiece);
      const std::size_t room = std::min(out.size() - have, kPiece);
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input_.data()));
      stream_.avail_in = static_cast<uInt>(in);
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + have);
      stream_.avail_out = static_cast<uInt>(room);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      const std::size_t taken = in - stream_.avail_in;
      const std::size_t given = room - stream_.avail_out;
      input_ = input_.subspan(taken);
      have += given;
      check<ResourceError>(result != Z_MEM_ERROR, name_, ": out of memory while decompressing");
      check<DataError>(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR, name_,
                       ": the compressed data are damaged (", stream_.msg != nullptr ? stream_.msg : "zlib refuses them", ")");
      check<DataError>(result == Z_STREAM_END || taken > 0 || given > 0, name_,
                       ": the compressed data end before their content does: it is truncated");
      ended_ = result == Z_STREAM_END;
    }
    return have;
  }
  bool ended() const { return ended_; }
  std::span<const std::byte> rest() const { return input_; }
  void next_member() {
    check<DataError>(inflateReset(&stream_) == Z_OK, name_, ": the compressed data are damaged");
    ended_ = false;
  }

 private:
  static constexpr std::size_t kPiece = std::size_t{1} << 30;
  z_stream stream_{};
  std::span<const std::byte> input_;
  std::string_view name_;
  bool ended_ = false;
};

FileBytes resized(const FileBytes& bytes, std::size_t size) {
  FileBytes copy(static_cast<Index>(size));
  const std::size_t kept = std::min(size, static_cast<std::size_t>(bytes.size()));
  if (kept > 0) std::memcpy(copy.data(), bytes.data(), kept);
  return copy;
}

}  // namespace

FileBytes gunzip(std::span<const std::byte> bytes, std::string_view name) {
  constexpr int kGzip = 15 + 16;
  const std::size_t limit = expansion_limit(bytes.size());
  Inflater inflater(bytes, kGzip, name);
  FileBytes out(static_cast<Index>(std::min(limit + 1, 4 * bytes.size() + 4096)));
  std::size_t have = 0;
  for (;;) {
    have += inflater.fill(out.span().subspan(have));
    check<DataError>(have <= limit, name, ": ", bytes.size(), " compressed bytes expand to more than ", limit,
                     ": refused as a decompression bomb; decompress it yourself (gunzip) if you trust it");
    if (inflater.ended() && inflater.rest().empty()) return resized(out, have);
    if (inflater.ended()) {
      check<DataError>(is_gzip(inflater.rest()), name, ": ", inflater.rest().size(), " bytes follow the compressed data");
      inflater.next_member();
    }
    if (have == static_cast<std::size_t>(out.size())) out = resized(out, std::min(limit + 1, have * 2));
  }
}

FileBytes inflate_exactly(std::span<const std::byte> bytes, std::size_t size, std::string_view name) {
  check<DataError>(size / kMaxRatio <= bytes.size(), name, ": ", bytes.size(), " compressed bytes claim to hold ", size,
                   ", more than deflate can: it is damaged");
  check<DataError>(size <= expansion_limit(bytes.size()), name, ": ", bytes.size(), " compressed bytes hold ", size,
                   ": refused as a decompression bomb; save it with numpy.savez if you trust it");
  constexpr int kRaw = -15;
  Inflater inflater(bytes, kRaw, name);
  FileBytes out(static_cast<Index>(size));
  const std::size_t have = inflater.fill(out.span());
  check<DataError>(have == size, name, ": the compressed data hold ", have, " bytes instead of ", size, ": it is damaged");
  std::byte more{};
  check<DataError>(inflater.fill({&more, 1}) == 0, name, ": the compressed data hold more than ", size, " bytes: it is damaged");
  check<DataError>(inflater.rest().empty(), name, ": ", inflater.rest().size(), " bytes follow the compressed data");
  return out;
}

FileBytes deflate_all(std::span<const std::byte> bytes) {
  z_stream stream{};
  constexpr int kRaw = -15;
  constexpr int kMemoryLevel = 8;  // zlib's default
  check<ResourceError>(deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kRaw, kMemoryLevel, Z_DEFAULT_STRATEGY) == Z_OK,
                       "deflate: out of memory");
  const auto room = static_cast<std::size_t>(deflateBound(&stream, static_cast<uLong>(bytes.size())));
  if (bytes.size() > UINT32_MAX || room > UINT32_MAX) {
    deflateEnd(&stream);
    fail("write_npz: ", bytes.size(), " bytes are too many for a compressed member (4 GiB); write a .npy file");
  }
  FileBytes out;
  try {
    out = FileBytes(static_cast<Index>(room));
  } catch (...) {
    deflateEnd(&stream);
    throw;
  }
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(room);
  const int result = deflate(&stream, Z_FINISH);
  const std::size_t have = room - stream.avail_out;
  deflateEnd(&stream);
  check<ResourceError>(result == Z_STREAM_END, "deflate: zlib failed with code ", result);
  return resized(out, have);
}

#else

FileBytes gunzip(std::span<const std::byte>, std::string_view name) {
  fail<DataError>(name,
                  ": it is gzip-compressed, and this build has no zlib; decompress it (gunzip) or build with TWEEDIE_ZLIB=ON");
}
FileBytes inflate_exactly(std::span<const std::byte>, std::size_t, std::string_view name) {
  fail<DataError>(name, ": it is compressed, and this build has no zlib; save it with numpy.savez or build with TWEEDIE_ZLIB=ON");
}
FileBytes deflate_all(std::span<const std::byte>) {
  fail("write_npz: this build has no zlib; write without compression or build with TWEEDIE_ZLIB=ON");
}

#endif

}  // namespace tweedie::detail
