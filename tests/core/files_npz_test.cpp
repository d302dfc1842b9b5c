// SPDX-License-Identifier: MIT
#include "tweedie/core/files/npz.h"

#include <cmath>

#include "files_support.h"
#include "tweedie/core/files/checksum.h"

using namespace files_test;

namespace {

std::string npy(int elements) {
  const Index shape[] = {elements};
  std::string file = detail::npy_header("|u1", shape);
  for (int i = 0; i < elements; ++i) file.push_back(static_cast<char>(i));
  return file;
}

/// A zip archive by hand; each field can be made to lie.
struct Zip {
  struct Member {
    std::string name = "x.npy";
    std::string content = npy(3);
    unsigned method = 0;
    unsigned flags = 0;
    std::string local_name{};  // like name when empty
    std::string local_extra{};
    std::string after{};           // between its data and what follows
    std::int64_t local_size = -1;  // like the content's when -1
    std::int64_t size = -1;
    std::int64_t compressed = -1;
    std::int64_t crc = -1;
    std::int64_t local_crc = -1;
    std::int64_t offset = -1;
    std::uint64_t attributes = 0;
    std::string local_signature = "PK\x03\x04";
    std::string signature = "PK\x01\x02";
  };
  std::vector<Member> members = {{}};
  std::string before{};
  std::string comment{};
  std::string after_directory{};
  std::int64_t count = -1;
  std::int64_t total = -1;
  std::int64_t directory_size = -1;
  std::int64_t directory_offset = -1;
  std::uint64_t disk = 0;

  std::string bytes() const {
    const auto real = [](std::int64_t lie, std::size_t truth) { return lie < 0 ? truth : static_cast<std::size_t>(lie); };
    std::string out = before;
    std::string directory;
    for (const Member& m : members) {
      const std::size_t crc = crc32(bytes_of(m.content));
      const std::size_t offset = out.size();
      const std::string& local_name = m.local_name.empty() ? m.name : m.local_name;
      const std::string common = le(m.flags, 2) + le(m.method, 2) + le(0, 4);
      out += m.local_signature + le(20, 2) + common + le(real(m.local_crc, real(m.crc, crc)), 4);
      out += le(real(m.local_size, m.content.size()), 4) + le(real(m.local_size, real(m.size, m.content.size())), 4);
      out += le(local_name.size(), 2) + le(m.local_extra.size(), 2) + local_name + m.local_extra + m.content + m.after;
      directory += m.signature + le(20, 2) + le(20, 2) + common + le(real(m.crc, crc), 4);
      directory += le(real(m.compressed, m.content.size()), 4) + le(real(m.size, m.content.size()), 4);
      directory += le(m.name.size(), 2) + le(0, 2) + le(0, 2) + le(0, 2) + le(0, 2) + le(m.attributes, 4);
      directory += le(real(m.offset, offset), 4) + m.name;
    }
    directory += after_directory;
    const std::size_t begin = out.size();
    const std::size_t entries = real(count, members.size());
    out += directory + "PK\x05\x06" + le(disk, 2) + le(0, 2) + le(entries, 2) + le(real(total, entries), 2);
    out += le(real(directory_size, directory.size()), 4) + le(real(directory_offset, begin), 4);
    return out + le(comment.size(), 2) + comment;
  }
};

std::string zip(const Zip& z) { return z.bytes(); }
std::string one(const Zip::Member& m) { return Zip{.members = {m}}.bytes(); }

NpzFile open(const std::string& bytes) { return NpzFile(file_bytes(bytes), "hostile.npz"); }

void read_all(const std::string& bytes) {
  const NpzFile file = open(bytes);
  for (const std::string& name : file.names()) {
    const NpyArray<double> array = file.read_array<double>(name);
    REQUIRE(array.values.size() > 0);
  }
}

#ifdef TWEEDIE_HAVE_ZLIB
// A raw deflate stream of npy(3): a stored block, which needs no compressor.
std::string stored_block(const std::string& content) {
  return "\x01" + le(content.size(), 2) + le(~content.size() & 0xFFFF, 2) + content;
}
Zip::Member deflated(const std::string& stream, std::size_t size) {
  Zip::Member m;
  m.method = 8;
  m.content = stream;
  m.size = static_cast<std::int64_t>(size);
  m.crc = crc32(bytes_of(npy(3)));
  return m;
}
#endif

}  // namespace

TEST_CASE("npz: members by name, stored") {
  const NpzFile file = open(zip({.members = {{}, {.name = "b.npy", .content = npy(2)}}, .comment = "made by hand"}));
  CHECK(file.names() == std::vector<std::string>{"b", "x"});
  CHECK(file.contains("b"));
  CHECK_FALSE(file.contains("c"));
  const Matrix x = file.read<float>("x");
  CHECK(shape(x) == "(3, 1)");
  CHECK(x(2, 0) == 2);
  CHECK(holds(message_of<UsageError>([&] { (void)file.read<float>("c"); }), "it holds: b, x"));
  CHECK(open(zip({.members = {}})).names().empty());
}

TEST_CASE("npz: what numpy.savez writes: zip64 fields in the local header alone") {
  const std::string content = npy(3);
  Zip::Member m;
  m.local_size = 0xFFFFFFFF;
  m.local_extra = le(1, 2) + le(16, 2) + le(content.size(), 8) + le(content.size(), 8);
  CHECK(open(one(m)).read<double>("x")(1, 0) == 1);
  m.local_extra = le(0x5455, 2) + le(1, 2) + "t" + m.local_extra;  // behind another field
  CHECK(open(one(m)).read<double>("x")(1, 0) == 1);
}

TEST_CASE("npz: sizes behind the data, as a stream's writer leaves them") {
  Zip::Member m;
  m.flags = 8;
  m.local_size = 0;
  m.local_crc = 0;
  m.after = "PK\x07\x08" + std::string(12, '\0');
  CHECK(open(zip({.members = {m, {.name = "y.npy"}}})).read<double>("y")(2, 0) == 2);
}

namespace {
std::vector<Fixture> hostile_archives() {
  const std::string good = zip({});
  const std::size_t size = npy(3).size();
  std::string bad_npy = npy(3);
  bad_npy[1] = 'n';
  std::string flipped = good;
  flipped[30 + 5 + 130] ^= 1;  // a data byte
  std::vector<Fixture> f = {
      {"empty file", "", "too few"},
      {"a .npy file", npy(3), "does not end as"},
      {"no end record", good.substr(0, good.size() - 22), "does not end as"},
      {"a byte behind the end", good + "x", "does not end as"},
      {"a comment cut off", zip({.comment = "hello"}).substr(0, good.size() + 3), "does not end as"},
      {"a byte before the archive", zip({.before = "x"}), "must begin"},
      {"a script before the archive", zip({.before = "#!/bin/sh\n"}), "must begin"},
      {"one entry too few in the count", zip({.members = {{}, {.name = "y.npy"}}, .count = 1}), "follow its directory"},
      {"one entry too many in the count", zip({.count = 2}), "directory is damaged"},
      {"65,000 entries claimed", zip({.count = 65'000}), "directory is damaged"},
      {"two different counts", zip({.total = 2}), "split archive"},
      {"another disk", zip({.disk = 1}), "split archive"},
      {"a zip64 count", zip({.count = 0xFFFF}), "zip64"},
      {"a zip64 directory", zip({.directory_offset = 0xFFFFFFFF}), "zip64"},
      {"a directory beyond the file", zip({.directory_offset = 0x7FFFFFFF}), "must end at"},
      {"a directory of the wrong size", zip({.directory_size = 1}), "must end at"},
      {"a directory of 4 GiB", zip({.directory_size = 0xFFFFFFFE}), "must end at"},
      {"bytes behind the directory", zip({.after_directory = "junk"}), "follow its directory"},
      {"a wrong entry signature", one({.signature = "PK\x01\x03"}), "directory is damaged"},
      {"a wrong local signature", one({.local_signature = "PK\x03\x05"}), "no header where"},
      {"a name in the local header alone", one({.local_name = "y.npy"}), "another name"},
      {"a longer local name", one({.local_name = "xx.npy"}), "another name"},
      {"an offset beyond the archive", one({.offset = 0x7FFFFFFF}), "must begin"},
      {"an offset into the data", one({.offset = 10}), "must begin"},
      {"two members on the same bytes", zip({.members = {{}, {.name = "y.npy", .local_name = "y.npy", .offset = 0}}}),
       "must begin"},
      {"a hole between members", zip({.members = {{.after = "hole"}, {.name = "y.npy"}}}), "must begin"},
      {"a hole before the directory", one({.after = "hole"}), "directory stand"},
      {"a descriptor of 25 bytes", one({.flags = 8, .after = std::string(25, '\0')}), "directory stand"},
      {"two members of one name", zip({.members = {{}, {}}}), "two members are named 'x.npy'"},
      {"a size larger than stored", one({.size = 1000}), "two different sizes"},
      {"a stored size of 4 GiB less one", one({.size = 0xFFFFFFFE, .compressed = 0xFFFFFFFE}), "other sizes"},
      {"sizes beyond the archive", one({.local_size = 100'000, .size = 100'000, .compressed = 100'000}), "ends outside"},
      {"a zip64 size", one({.size = 0xFFFFFFFF, .compressed = 0xFFFFFFFF}), "larger than 4 GiB"},
      {"local sizes in no zip64 field", one({.local_size = 0xFFFFFFFF}), "other sizes"},
      {"local sizes in a zip64 field cut short",
       one({.local_extra = le(1, 2) + le(8, 2) + le(size, 8), .local_size = 0xFFFFFFFF}), "other sizes"},
      {"local sizes in a field longer than the extra", one({.local_extra = le(1, 2) + le(99, 2), .local_size = 0xFFFFFFFF}),
       "other sizes"},
      {"lying zip64 sizes", one({.local_extra = le(1, 2) + le(16, 2) + le(size + 1, 8) + le(size, 8), .local_size = 0xFFFFFFFF}),
       "other sizes"},
      {"another checksum in the local header", one({.local_crc = 5}), "another checksum"},
      {"a wrong checksum", one({.crc = 5}), "checksum does not agree"},
      {"a flipped data byte", flipped, "checksum does not agree"},
      {"encrypted", one({.flags = 1}), "encrypted"},
      {"unknown flags", one({.flags = 1u << 13}), "unknown flags"},
      {"bzip2 inside", one({.method = 12}), "another method"},
      {"an unknown method", one({.method = 99}), "another method"},
      {"a link", one({.attributes = 0120777ull << 16}), "is a link"},
      {"a parent directory", one({.name = "../x.npy"}), "leads out"},
      {"a parent directory inside", one({.name = "a/../../x.npy"}), "leads out"},
      {"an absolute path", one({.name = "/etc/x.npy"}), "leads out"},
      {"a drive", one({.name = "c:x.npy"}), "leads out"},
      {"a backslash", one({.name = "..\\x.npy"}), "leads out"},
      {"a name that is not UTF-8", one({.name = "\xFF.npy"}), "not UTF-8"},
      {"a NUL in a name", one({.name = std::string("a\0.npy", 6)}), "not UTF-8"},
      {"a directory entry", one({.name = "dir/"}), "no .npy array"},
      {"an empty name", one({.name = ""}), "no .npy array"},
      {"the suffix alone", one({.name = ".npy"}), "no .npy array"},
      {"a script", one({.name = "setup.py"}), "no .npy array"},
      {"a member that is no array", one({.content = bad_npy}), "does not begin"},
      {"an empty member", one({.content = ""}), "does not begin"},
      {"a truncated array", one({.content = npy(3).substr(0, size - 1)}), "truncated"},
      {"a zip within", one({.content = good}), "does not begin"},
  };
#ifdef TWEEDIE_HAVE_ZLIB
  const std::string content = npy(3);
  const std::string block = stored_block(content);
  std::string bad_block = block;
  bad_block[0] = '\x07';  // block type 3
  f.insert(f.end(), {{"deflate: cut off", one(deflated(block.substr(0, 50), size)), "truncated"},
                     {"deflate: nothing", one(deflated("", 0)), "truncated"},
                     {"deflate: an unknown block", one(deflated(bad_block, size)), "damaged"},
                     {"deflate: more than claimed", one(deflated(block, size - 1)), "hold more than"},
                     {"deflate: less than claimed", one(deflated(block, size + 1)), "instead of"},
                     {"deflate: a gigabyte from nothing", one(deflated(block, 1 << 30)), "more than deflate can"},
                     {"deflate: bytes behind the stream", one(deflated(block + "tail", size)), "follow the compressed data"},
                     {"deflate: another content", one(deflated(stored_block(std::string(size, 'x')), size)), "checksum"}});
#else
  f.push_back({"deflate without zlib", one({.method = 8}), "no zlib"});
#endif
  return f;
}
}  // namespace

TEST_CASE("npz: hostile archives are refused, each for its reason") {
  check_refused<DataError>("npz", hostile_archives(), read_all);
}

TEST_CASE("npz: every truncation is refused, every flip loads the same or is refused") {
  const std::string valid = zip({.members = {{}, {.name = "y.npy", .content = npy(2)}}});
  const Outcome cuts = try_truncations(valid, read_all);
  CHECK(cuts.loaded == 0);
  // Contents are under a checksum and names stand twice: what loads has other dates, versions or attributes.
  const Outcome flips = try_flips(valid, [](const std::string& bytes) {
    const NpzFile file = open(bytes);
    const MatrixD x = file.read<double>("x");
    const MatrixD y = file.read<double>("y");
    REQUIRE(file.names().size() == 2);
    REQUIRE((x.size() == 3 && x(0, 0) == 0 && x(1, 0) == 1 && x(2, 0) == 2));
    REQUIRE((y.size() == 2 && y(0, 0) == 0 && y(1, 0) == 1));
  });
  CHECK(flips.refused > 5 * flips.loaded);
#ifdef TWEEDIE_HAVE_ZLIB
  const std::string packed = one(deflated(stored_block(npy(3)), npy(3).size()));
  read_all(packed);
  CHECK(try_truncations(packed, read_all).loaded == 0);
  try_flips(packed, read_all);
#endif
}

TEST_CASE("npz: round trips") {
  const TempDir dir;
  const Matrix x{{1, NAN}, {3, 4}};
  MatrixD logp(5000, 2);
  for (Index i = 0; i < logp.size(); ++i) logp.data()[i] = std::sqrt(static_cast<double>(i));
  const NpzEntry entries[] = {{"x", x}, {"logp", logp}, {"half", ConstRows<double>(logp.view()).middle_cols(1, 1)}};
  const auto check_file = [&](const std::string& path) {
    const NpzFile file(path);
    CHECK(file.names() == std::vector<std::string>{"half", "logp", "x"});
    CHECK(std::memcmp(file.read<float>("x").data(), x.data(), 16) == 0);
    CHECK(std::memcmp(file.read<double>("logp").data(), logp.data(), 80'000) == 0);
    CHECK(file.read<double>("half")(4999, 0) == logp(4999, 1));
  };
  write_npz(dir / "a.npz", entries);
  check_file(dir / "a.npz");
  write_npz(dir / "b.npz", entries);
  CHECK(slurp(dir / "a.npz") == slurp(dir / "b.npz"));  // no dates in it
#ifdef TWEEDIE_HAVE_ZLIB
  write_npz(dir / "c.npz", entries, {.compress = true});
  check_file(dir / "c.npz");
  CHECK(std::filesystem::file_size(dir / "c.npz") < std::filesystem::file_size(dir / "a.npz"));
#else
  CHECK(holds(message_of<UsageError>([&] { write_npz(dir / "c.npz", entries, {.compress = true}); }), "no zlib"));
#endif
}

TEST_CASE("npz: the writer refuses unusable names and leaves nothing behind") {
  const TempDir dir;
  const Matrix x{{1}};
  for (const char* name : {"", "../x", "/x", "a:b", "\xFF"}) {
    CAPTURE(name);
    const NpzEntry entries[] = {{name, x}};
    CHECK_THROWS_AS(write_npz(dir / "x.npz", entries), UsageError);
  }
  const NpzEntry twice[] = {{"x", x}, {"x", x}};
  CHECK_THROWS_AS(write_npz(dir / "x.npz", twice), UsageError);
  const Matrix nothing(0, 2);
  const NpzEntry empty[] = {{"x", x}, {"y", nothing}};
  CHECK_THROWS_AS(write_npz(dir / "x.npz", empty), UsageError);
  CHECK(dir.entries() == 0);
  CHECK_THROWS_AS(NpzFile(dir / "x.npz"), IoError);
}

#ifdef TWEEDIE_HAVE_ZLIB
TEST_CASE("npz: a decompression bomb is refused, an honest array of zeros is not") {
  const TempDir dir;
  const MatrixD zeros(1 << 20, 1);  // 8 MiB, which deflate packs about 1000-fold
  const NpzEntry entries[] = {{"z", zeros}};
  write_npz(dir / "z.npz", entries, {.compress = true});
  CHECK(NpzFile(dir / "z.npz").read<double>("z").size() == 1 << 20);
  const MatrixD many(9 << 20, 1);  // 72 MiB
  const NpzEntry bomb[] = {{"z", many}};
  write_npz(dir / "bomb.npz", bomb, {.compress = true});
  CHECK(holds(message_of<DataError>([&] { (void)NpzFile(dir / "bomb.npz").read<double>("z"); }), "decompression bomb"));
}
#endif
