// SPDX-License-Identifier: MIT
#include "tweedie/core/files/npz.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "tweedie/core/check.h"
#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/checksum.h"
#include "tweedie/core/files/detail/inflate.h"
#include "tweedie/core/files/detail/npy_rows.h"
#include "tweedie/core/files/json.h"

namespace tweedie {

namespace {

using detail::ZipMember;

constexpr std::uint32_t kLocalSignature = 0x04034B50;
constexpr std::uint32_t kCentralSignature = 0x02014B50;
constexpr std::uint32_t kEndSignature = 0x06054B50;
constexpr std::size_t kLocalSize = 30;
constexpr std::size_t kCentralSize = 46;
constexpr std::size_t kEndSize = 22;
constexpr std::size_t kMaxComment = 65'535;
constexpr std::uint32_t kInZip64 = 0xFFFFFFFF;  // the field's value stands in the zip64 extra field
constexpr unsigned kStored = 0;
constexpr unsigned kDeflated = 8;
constexpr unsigned kDescriptorFlag = 1u << 3;  // checksum and sizes follow the data, the local header has zeros
constexpr unsigned kUtf8Flag = 1u << 11;
constexpr unsigned kKnownFlags = kUtf8Flag | kDescriptorFlag | 1u << 1 | 1u << 2;  // 1 and 2: deflate's effort
constexpr std::size_t kMaxDescriptor = 24;
constexpr std::string_view kSuffix = ".npy";

template <class T>
T field(std::span<const std::byte> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}
std::uint32_t u32(std::span<const std::byte> bytes, std::size_t at) { return field<std::uint32_t>(bytes, at); }
unsigned u16(std::span<const std::byte> bytes, std::size_t at) { return field<std::uint16_t>(bytes, at); }

/// The position of the record that ends the archive: its comment must reach exactly to the end of the file.
std::size_t find_end(std::span<const std::byte> bytes, std::string_view name) {
  check<DataError>(bytes.size() >= kEndSize, name, ": ", bytes.size(), " bytes are too few for a .npz file: it is truncated");
  const std::size_t last = bytes.size() - kEndSize;
  const std::size_t first = last - std::min(last, kMaxComment);
  for (std::size_t at = last + 1; at-- > first;) {
    if (u32(bytes, at) == kEndSignature && at + kEndSize + u16(bytes, at + 20) == bytes.size()) return at;
  }
  fail<DataError>(name, ": it does not end as a .npz (zip) file does: it is truncated or of another kind");
}

/// A name that stays inside the archive wherever it might be unpacked.
bool is_safe_name(const std::string& name) {
  return is_utf8(name) && name.front() != '/' && name.find("..") == std::string::npos &&
         name.find_first_of(std::string_view("\\:\0", 3)) == std::string::npos;
}

void check_member_name(const std::string& member, std::string_view name) {
  const bool array = member.size() > kSuffix.size() && member.substr(member.size() - kSuffix.size()) == kSuffix;
  check<DataError>(array, name, ": a member of ", member.size(),
                   " bytes of name is no .npy array; an archive holds nothing else");
  check<DataError>(is_safe_name(member), name, ": a member's name is not UTF-8 or leads out of the archive");
}

/// Where the directory lies, and how many entries it has.
struct Directory {
  std::size_t begin;
  std::size_t end;
  std::size_t count;
};

Directory read_end(std::span<const std::byte> bytes, std::string_view name) {
  const std::size_t at = find_end(bytes, name);
  const std::size_t count = u16(bytes, at + 10);
  const std::size_t size = u32(bytes, at + 12);
  const std::size_t begin = u32(bytes, at + 16);
  check<DataError>(count != 0xFFFF && size != kInZip64 && begin != kInZip64, name,
                   ": it is a zip64 archive (over 4 GiB or 65,534 arrays), which we do not read; save the arrays as .npy files");
  check<DataError>(u16(bytes, at + 4) == 0 && u16(bytes, at + 6) == 0 && u16(bytes, at + 8) == count, name,
                   ": it is one part of a split archive");
  check<DataError>(begin <= at && size == at - begin, name, ": its directory claims bytes ", begin, " to ", begin + size,
                   " and must end at ", at, ": it is damaged");
  return {begin, at, count};
}

/// Reads the directory entry at `at`, puts `at` behind it and the member's name into `member_name`.
ZipMember read_entry(std::span<const std::byte> bytes, const Directory& directory, std::size_t& at, std::string& member_name,
                     std::string_view name) {
  check<DataError>(directory.end - at >= kCentralSize && u32(bytes, at) == kCentralSignature, name,
                   ": its directory is damaged at byte ", at);
  const std::size_t name_size = u16(bytes, at + 28);
  const std::size_t entry_size = kCentralSize + name_size + u16(bytes, at + 30) + u16(bytes, at + 32);
  check<DataError>(entry_size <= directory.end - at, name, ": its directory is damaged at byte ", at);
  member_name.assign(reinterpret_cast<const char*>(bytes.data()) + at + kCentralSize, name_size);
  check_member_name(member_name, name);

  const ZipMember member{.offset = u32(bytes, at + 42),
                         .compressed = u32(bytes, at + 20),
                         .size = u32(bytes, at + 24),
                         .crc = u32(bytes, at + 16),
                         .method = u16(bytes, at + 10),
                         .flags = u16(bytes, at + 8)};
  const auto refuse = [&](bool when, std::string_view why) {
    check<DataError>(!when, name, ": the member '", member_name, "' ", why);
  };
  constexpr unsigned kLink = 0120000;  // S_IFLNK among the mode bits in the external attributes
  refuse((member.flags & 1u) != 0, "is encrypted");
  refuse((member.flags & ~kKnownFlags) != 0, "has unknown flags");
  refuse((u32(bytes, at + 38) >> 16 & 0170000u) == kLink, "is a link");
  refuse(member.method != kStored && member.method != kDeflated,
         "is packed by another method than deflate; save it with numpy.savez or numpy.savez_compressed");
  refuse(member.compressed == kInZip64 || member.size == kInZip64 || member.offset == kInZip64,
         "is larger than 4 GiB (zip64), which we do not read; save it as a .npy file");
  refuse(member.method == kStored && member.compressed != member.size, "is stored with two different sizes: it is damaged");
  at += entry_size;
  return member;
}

/// Whether the local header's sizes are the directory's: as they are, in a zip64 extra field (numpy.savez always writes one),
/// or as zeros where they follow the data.
bool same_sizes(std::span<const std::byte> bytes, std::size_t local, std::span<const std::byte> extra, const ZipMember& member) {
  const std::uint32_t compressed = u32(bytes, local + 18);
  const std::uint32_t size = u32(bytes, local + 22);
  if (compressed == member.compressed && size == member.size) return true;
  if ((member.flags & kDescriptorFlag) != 0 && compressed == 0 && size == 0) return true;
  if (compressed != kInZip64 || size != kInZip64) return false;
  constexpr unsigned kZip64Field = 1;
  while (extra.size() >= 4 && 4 + u16(extra, 2) <= extra.size()) {
    const std::size_t field_size = u16(extra, 2);
    if (u16(extra, 0) == kZip64Field && field_size >= 16) {
      return field<std::uint64_t>(extra, 4) == member.size && field<std::uint64_t>(extra, 12) == member.compressed;
    }
    extra = extra.subspan(4 + field_size);
  }
  return (member.flags & kDescriptorFlag) != 0;  // a stream's writer did not know them either
}

/// Checks the local header against the directory and moves member.offset to the bytes themselves.
void read_local(std::span<const std::byte> bytes, const Directory& directory, const std::string& member_name, ZipMember& member,
                std::string_view name) {
  const auto need = [&](bool holds, std::string_view what) {
    check<DataError>(holds, name, ": the member '", member_name, "' ", what, ": it is damaged");
  };
  const std::size_t local = member.offset;
  need(local <= directory.begin && directory.begin - local >= kLocalSize, "begins outside the archive");
  need(u32(bytes, local) == kLocalSignature, "has no header where the directory says");
  const std::size_t name_size = u16(bytes, local + 26);
  const std::size_t extra_size = u16(bytes, local + 28);
  need(directory.begin - local - kLocalSize >= name_size + extra_size, "has a header that leads outside the archive");
  const std::string_view local_name(reinterpret_cast<const char*>(bytes.data()) + local + kLocalSize, name_size);
  need(local_name == member_name, "has another name in its header");
  need(u16(bytes, local + 6) == member.flags && u16(bytes, local + 8) == member.method, "has other flags in its header");
  const std::uint32_t crc = u32(bytes, local + 14);
  need(crc == member.crc || (crc == 0 && (member.flags & kDescriptorFlag) != 0), "has another checksum in its header");
  need(same_sizes(bytes, local, bytes.subspan(local + kLocalSize + name_size, extra_size), member),
       "has other sizes in its header");
  member.offset = local + kLocalSize + name_size + extra_size;
  need(member.compressed <= directory.begin - member.offset, "ends outside the archive");
}

std::string array_name(const std::string& member_name) { return member_name.substr(0, member_name.size() - kSuffix.size()); }

}  // namespace

NpzFile::NpzFile(const std::string& path) : NpzFile(read_file(path), path) {}

NpzFile::NpzFile(FileBytes bytes, std::string name) : bytes_(std::move(bytes)), name_(std::move(name)) { read_directory(); }

// The members must follow one another from the first byte to the directory, in its order: no overlaps, and no holes larger than
// the descriptor that a stream's writer leaves behind the data.
void NpzFile::read_directory() {
  const std::span<const std::byte> bytes = std::as_const(bytes_).span();
  const Directory directory = read_end(bytes, name_);
  std::size_t at = directory.begin;
  std::size_t free_from = 0;
  std::size_t gap = 0;
  std::string member_name;
  const auto check_gap = [&](std::size_t next) {
    check<DataError>(next >= free_from && next - free_from <= gap, name_, ": a member must begin or the directory stand at byte ",
                     free_from, ", not ", next, ": it is damaged");
  };
  for (std::size_t i = 0; i < directory.count; ++i) {
    ZipMember member = read_entry(bytes, directory, at, member_name, name_);
    check_gap(member.offset);
    read_local(bytes, directory, member_name, member, name_);
    free_from = member.offset + member.compressed;
    gap = (member.flags & kDescriptorFlag) != 0 ? kMaxDescriptor : 0;
    check<DataError>(members_.emplace(array_name(member_name), member).second, name_, ": two members are named '", member_name,
                     "'");
  }
  check<DataError>(at == directory.end, name_, ": ", directory.end - at, " bytes follow its directory: it is damaged");
  check_gap(directory.begin);
}

std::vector<std::string> NpzFile::names() const {
  std::vector<std::string> result;
  for (const auto& [array, member] : members_) result.push_back(array);
  return result;
}

bool NpzFile::contains(std::string_view name) const { return members_.find(name) != members_.end(); }

template <class S>
NpyArray<S> NpzFile::read_array(std::string_view name, const NpyOptions& options) const {
  const auto found = members_.find(name);
  if (found == members_.end()) {
    std::string known;
    for (const auto& [array, member] : members_) known += (known.empty() ? "" : ", ") + array;
    fail(name_, ": there is no array '", name, "'; it holds: ", known.empty() ? "nothing" : known);
  }
  const detail::ZipMember& member = found->second;
  const std::string full_name = join(name_, ": ", name);
  std::span<const std::byte> content = bytes_.span().subspan(member.offset, member.compressed);
  FileBytes unpacked;
  if (member.method == kDeflated) {
    unpacked = detail::inflate_exactly(content, member.size, full_name);
    content = std::as_const(unpacked).span();
  }
  check<DataError>(crc32(content) == member.crc, full_name, ": the checksum does not agree with the content: it is damaged");
  return parse_npy_array<S>(content, full_name, options);
}

template <class S>
MatrixX<S> NpzFile::read(std::string_view name, const NpyOptions& options) const {
  NpyArray<S> array = read_array<S>(name, options);
  check<DataError>(array.shape.size() <= 2, name_, ": ", name, " has ", array.shape.size(),
                   " dimensions, a table has 2: one row per sample; reshape it (x.reshape(len(x), -1))");
  return std::move(array.values);
}

template NpyArray<float> NpzFile::read_array(std::string_view, const NpyOptions&) const;
template NpyArray<double> NpzFile::read_array(std::string_view, const NpyOptions&) const;
template MatrixX<float> NpzFile::read(std::string_view, const NpyOptions&) const;
template MatrixX<double> NpzFile::read(std::string_view, const NpyOptions&) const;

// ---- writing ----

namespace {

/// Calls take(bytes) with the .npy file of an entry, in pieces.
template <class Take>
void for_npy_pieces(const NpzEntry& entry, Take&& take) {
  const auto all = [&take](std::string_view descr, auto values) {
    const std::string header = detail::npy_header(descr, values.rows(), values.cols(), {});
    take(std::as_bytes(std::span(header)));
    detail::for_pieces(values, take);
  };
  if (entry.is_double) {
    all("<f8", entry.doubles);
  } else {
    all("<f4", entry.floats);
  }
}

void put(std::string& out, std::size_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
}

constexpr std::size_t kVersion = 20;       // 2.0: deflate
constexpr std::size_t kDate = 1 << 5 | 1;  // 1 January 1980: the same arrays give the same file

/// What local header and directory entry have in common, from the flags to the length of the extra field.
void put_common(std::string& out, const std::string& member_name, const ZipMember& member) {
  put(out, member.flags, 2);
  put(out, member.method, 2);
  put(out, 0, 2);  // time
  put(out, kDate, 2);
  put(out, member.crc, 4);
  put(out, member.compressed, 4);
  put(out, member.size, 4);
  put(out, member_name.size(), 2);
  put(out, 0, 2);
}

std::string local_header(const std::string& member_name, const ZipMember& member) {
  std::string out;
  put(out, kLocalSignature, 4);
  put(out, kVersion, 2);
  put_common(out, member_name, member);
  return out + member_name;
}

std::string directory_entry(const std::string& member_name, const ZipMember& member) {
  std::string out;
  put(out, kCentralSignature, 4);
  put(out, kVersion, 2);
  put(out, kVersion, 2);
  put_common(out, member_name, member);
  put(out, 0, 2);  // comment
  put(out, 0, 2);  // disk
  put(out, 0, 2);  // internal attributes
  put(out, 0, 4);  // external attributes
  put(out, member.offset, 4);
  return out + member_name;
}

std::string end_record(std::size_t count, std::size_t size, std::size_t begin) {
  std::string out;
  put(out, kEndSignature, 4);
  put(out, 0, 4);  // disks
  put(out, count, 2);
  put(out, count, 2);
  put(out, size, 4);
  put(out, begin, 4);
  put(out, 0, 2);  // comment
  return out;
}

void check_room(std::size_t bytes, const std::string& path) {
  check(bytes < kInZip64, "write_npz: '", path, "' would have 4 GiB or more, which needs zip64; write .npy files");
}

}  // namespace

void write_npz(const std::string& path, std::span<const NpzEntry> entries, const NpzWriteOptions& options) {
  check(entries.size() < 0xFFFF, "write_npz: ", entries.size(), " arrays, the most is 65,534");
  std::set<std::string_view> names;
  for (const NpzEntry& entry : entries) {
    check(!entry.name.empty() && entry.name.size() < 1024 && names.insert(entry.name).second, "write_npz: the name '", entry.name,
          "' is empty, too long or stands twice");
    check(is_safe_name(entry.name), "write_npz: the name '", entry.name, "' cannot stand in an archive; use letters and digits");
  }

  AtomicFile file(path);
  std::string directory;
  std::size_t offset = 0;
  for (const NpzEntry& entry : entries) {
    const std::string member_name = entry.name + std::string(kSuffix);
    ZipMember member{.offset = offset, .method = options.compress ? kDeflated : kStored, .flags = kUtf8Flag};
    FileBytes plain;
    FileBytes packed;
    for_npy_pieces(entry, [&](std::span<const std::byte> piece) {
      member.crc = crc32(piece, member.crc);
      member.size += piece.size();
    });
    check_room(offset + member.size, path);
    member.compressed = member.size;
    if (options.compress) {
      plain = FileBytes(static_cast<Index>(member.size));
      std::byte* at = plain.data();
      for_npy_pieces(entry, [&](std::span<const std::byte> piece) { at = std::copy(piece.begin(), piece.end(), at); });
      packed = detail::deflate_all(std::as_const(plain).span());
      member.compressed = static_cast<std::size_t>(packed.size());
    }
    const std::string header = local_header(member_name, member);
    file.write(header);
    if (options.compress) {
      file.write(std::as_const(packed).span());
    } else {
      for_npy_pieces(entry, [&](std::span<const std::byte> piece) { file.write(piece); });
    }
    directory += directory_entry(member_name, member);
    offset += header.size() + member.compressed;
    check_room(offset + directory.size() + kEndSize, path);
  }
  file.write(directory);
  file.write(end_record(entries.size(), directory.size(), offset));
  file.commit();
}

}  // namespace tweedie
