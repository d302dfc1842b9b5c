// checkpoint_test.cpp - models to files and back, and what is refused.
// SPDX-License-Identifier: MIT
#include "tweedie/models/checkpoint.h"

#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/safetensors.h"
#include "tweedie/models/score_network.h"

using namespace tweedie;

namespace {

// A path of this test's own that goes with it.
class TemporaryFile {
 public:
  TemporaryFile() {
    static int count = 0;
    path_ = join("checkpoint_test_", getpid(), "_", count++, ".safetensors");
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

bool same(std::span<const float> a, std::span<const float> b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

FileBytes bytes_of(const Checkpoint& checkpoint) {
  const TemporaryFile file;
  write_checkpoint(file.path(), checkpoint);
  return read_file(file.path());
}

// The smallest network: 2 levels, 1 hidden unit, 1 dimension.
NoiseConditionalScoreNetwork tiny() {
  return NoiseConditionalScoreNetwork({.data_dim = 1, .hidden_dim = 1, .num_layers = 2, .num_noise_levels = 2}, Rng(3));
}

NoiseConditionalScoreNetwork small() {
  return NoiseConditionalScoreNetwork({.data_dim = 3, .hidden_dim = 8, .num_layers = 3, .num_noise_levels = 4}, Rng(3));
}

// The message with which a checkpoint makes no network.
std::string refusal(const Checkpoint& checkpoint, Weights weights = Weights::ema_if_stored) {
  try {
    make_network(checkpoint, weights);
  } catch (const ModelFileError& error) {
    return error.what();
  }
  return "accepted";
}

// The message with which a file is refused.
std::string file_refusal(const std::vector<NamedTensor>& tensors, const SafetensorsMetadata& metadata) {
  const TemporaryFile file;
  write_safetensors(file.path(), tensors, metadata);
  try {
    load_network(file.path());
  } catch (const ModelFileError& error) {
    return error.what();
  }
  return "accepted";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a network comes back as it was") {
  const TemporaryFile file;
  NoiseConditionalScoreNetwork net({.data_dim = 3, .hidden_dim = 8, .num_layers = 3}, NoiseLevels({3., 1. / 3, .1}), Rng(3));
  save(file.path(), net);
  const std::unique_ptr<Network> loaded = load_network(file.path());
  CHECK(same(net.parameters(), loaded->parameters()));
  CHECK(loaded->config() == net.config());
  CHECK(std::string(loaded->name()) == net.name());
  CHECK(std::equal(net.levels()->values().begin(), net.levels()->values().end(), loaded->levels()->values().begin()));  // exact
  const Matrix x{{1, 2, 3}, {-1, 0, 4}};
  Matrix a(2, 3), b(2, 3);
  const float sigma = .5f;
  net.score(x, std::span(&sigma, 1), nullptr, a);
  loaded->score(x, std::span(&sigma, 1), nullptr, b);
  CHECK(std::memcmp(a.data(), b.data(), sizeof(float) * 6) == 0);
}

TEST_CASE("the training's state, the table's scaling and free metadata come back as they were") {
  const NoiseConditionalScoreNetwork net = small();
  Checkpoint checkpoint = make_checkpoint(net);
  std::vector<float> ema(net.parameters().begin(), net.parameters().end());
  for (float& v : ema) v *= .5f;
  checkpoint.set_parameters("ema.", net.layout(), ema);
  checkpoint.set_parameters("optim.exp_avg.", net.layout(), ema);
  checkpoint.set("data.mean", {3}, std::vector<double>{.1, 1e300, -0.});
  checkpoint.step = 1234567890123;
  checkpoint.rng = Rng(0xFFFFFFFFFFFFFFFFull, 0xFFFFFFFFFFFFFFFEull);
  checkpoint.metadata["columns.names"] = "[\"a\",\"b\",\"\xC3\xA9\"]";
  checkpoint.metadata["engine"] = "tape, cpu avx2, fp32";
  checkpoint.metadata["empty"] = "";
  checkpoint.config["objective"] = "denoising";
  const Checkpoint back = read_checkpoint(bytes_of(checkpoint), "memory");
  CHECK(back.step == checkpoint.step);
  REQUIRE(back.rng.has_value());
  CHECK(back.rng->key() == checkpoint.rng->key());
  CHECK(back.rng->splits() == checkpoint.rng->splits());
  CHECK(back.config == checkpoint.config);
  CHECK(back.metadata == checkpoint.metadata);
  CHECK_FALSE(back.state_dict);
  CHECK(back.get("data.mean", {3}) == std::vector<double>{.1, 1e300, -0.});
  CHECK(std::signbit(back.get("data.mean", {3})[2]));
  CHECK(back.tensors.size() == checkpoint.tensors.size());
  std::vector<float> found(ema.size());
  back.get_parameters("optim.exp_avg.", net.layout(), found);
  CHECK(same(found, ema));

  CHECK(back.has("ema.network.0.bias"));
  CHECK_FALSE(back.has("ema.network.0"));
  CHECK(back.has_prefix("ema."));
  CHECK_FALSE(back.has_prefix("optim.exp_avg_sq."));
  CHECK(same(make_network(back)->parameters(), ema));
  CHECK(same(make_network(back, Weights::ema)->parameters(), ema));
  CHECK(same(make_network(back, Weights::raw)->parameters(), net.parameters()));
  const Checkpoint plain = make_checkpoint(net);
  CHECK(same(make_network(plain)->parameters(), net.parameters()));
  CHECK(contains(refusal(plain, Weights::ema), "ema.*"));
}

TEST_CASE("the same checkpoint gives the same bytes") {
  const NoiseConditionalScoreNetwork net = small();
  const FileBytes a = bytes_of(make_checkpoint(net)), b = bytes_of(read_checkpoint(bytes_of(make_checkpoint(net)), "memory"));
  REQUIRE(a.size() == b.size());
  CHECK(std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size())) == 0);
}

TEST_CASE("a state dict saved by PyTorch loads") {
  const std::string path = std::string(TWEEDIE_TEST_DATA) + "/golden/width64.safetensors";
  const Checkpoint checkpoint = read_checkpoint(path);
  CHECK(checkpoint.state_dict);
  const std::unique_ptr<Network> net = load_network(path);
  CHECK(net->config().at("data_dim") == "2");
  CHECK(net->config().at("hidden_dim") == "64");
  CHECK(net->config().at("num_layers") == "4");
  CHECK(net->config().at("num_noise_levels") == "10");
  CHECK(net->levels()->max() == doctest::Approx(10).epsilon(1e-6));
  CHECK(net->levels()->min() == doctest::Approx(.01).epsilon(1e-6));
  // PyTorch's metadata, and a model in double, are fine too.
  std::vector<NamedTensor> tensors;
  std::vector<std::vector<double>> wide;
  wide.reserve(checkpoint.tensors.size());
  for (const auto& [name, tensor] : checkpoint.tensors) {
    wide.push_back(checkpoint.get(name, tensor.shape));
    tensors.push_back(named_tensor<double>(name, tensor.shape, wide.back()));
  }
  const TemporaryFile file;
  write_safetensors(file.path(), tensors, {{"format", "pt"}});
  CHECK(same(load_network(file.path())->parameters(), net->parameters()));
}

TEST_CASE("every truncation and every changed byte of a small model is refused") {
  Checkpoint checkpoint = make_checkpoint(tiny());
  checkpoint.rng = Rng(1, 2);
  checkpoint.metadata["columns.names"] = "a";
  const FileBytes whole = bytes_of(checkpoint);
  CHECK(refusal(read_checkpoint(whole, "memory")) == "accepted");
  Index refused = 0, tried = 0;
  const auto try_bytes = [&](FileBytes bytes) {
    ++tried;
    try {
      make_network(read_checkpoint(std::move(bytes), "memory"));
    } catch (const ModelFileError& error) {
      refused += std::strlen(error.what()) > 10;
    }
  };
  for (Index size = 0; size < whole.size(); ++size) {
    FileBytes part(size);
    std::copy_n(whole.begin(), size, part.begin());
    try_bytes(std::move(part));
  }
  for (Index i = 0; i < whole.size(); ++i) {
    for (const unsigned flip : {0x01u, 0x20u, 0x80u, 0xFFu}) {
      FileBytes changed = whole;
      changed[i] ^= static_cast<std::byte>(flip);
      try_bytes(std::move(changed));
    }
  }
  CHECK(tried == 5 * whole.size());
  CHECK(refused == tried);
  FileBytes longer(whole.size() + 1);
  std::copy(whole.begin(), whole.end(), longer.begin());
  CHECK_THROWS_AS(read_checkpoint(std::move(longer), "memory"), ModelFileError);
}

TEST_CASE("a checkpoint that is no network says what is wrong") {
  const NoiseConditionalScoreNetwork net = small();
  const Checkpoint good = make_checkpoint(net);
  CHECK(refusal(good) == "accepted");

  for (const auto& entry : good.tensors) {  // each tensor missing, or of another size
    const std::string& name = entry.first;
    const Checkpoint::Tensor& tensor = entry.second;
    Checkpoint bad = good;
    bad.tensors.erase(name);
    const std::string missing = refusal(bad);
    CAPTURE(name);
    CAPTURE(missing);
    CHECK(contains(missing, "tensor " + name + " is missing"));

    bad = good;
    std::vector<Index> longer = tensor.shape;
    longer[0] += 1;
    Index size = 1;
    for (const Index n : longer) size *= n;
    bad.set(name, longer, std::vector<float>(static_cast<std::size_t>(size)));
    const std::string shaped = refusal(bad);
    CAPTURE(shaped);
    CHECK(shaped != "accepted");
    CHECK((contains(shaped, "has shape") || contains(shaped, "config.")));
  }

  const auto with_config = [&](const char* key, const char* value) {
    Checkpoint bad = good;
    bad.config[key] = value;
    return refusal(bad);
  };
  CHECK(contains(with_config("network", "transformer"), "config.network is \"transformer\""));
  CHECK(contains(with_config("hidden_dim", "9"), "config.hidden_dim is \"9\", the tensors' shapes say 8"));
  CHECK(contains(with_config("data_dim", "3x"), "config.data_dim"));
  CHECK(contains(with_config("num_layers", "99999999999999999999"), "config.num_layers"));
  CHECK(contains(with_config("num_layers", "4"), "tensor network.6.weight is missing"));
  CHECK(contains(with_config("num_noise_levels", ""), "config.num_noise_levels"));
  for (const char* key : {"network", "data_dim", "hidden_dim", "num_layers", "num_noise_levels"}) {
    Checkpoint bad = good;
    bad.config.erase(key);
    CHECK(contains(refusal(bad), join("config.", key, " is missing")));
  }

  Checkpoint bad = good;
  bad.set("network.1.weight", {8}, std::vector<float>(8));
  CHECK(refusal(bad) != "accepted");
  bad = good;
  bad.set("noise_embedding.bias", {8}, std::vector<float>(8));
  CHECK(contains(refusal(bad), "noise_embedding.bias"));
  bad = good;
  bad.set("sigmas", {4}, std::vector<float>{1, 2, 3, 4});
  CHECK(contains(refusal(bad), "tensor sigmas holds no noise levels"));
  bad = good;
  bad.set("network.0.bias", {8}, std::vector<double>(8, 1e300));  // finite in the file, infinite in fp32
  CHECK(contains(refusal(bad), "tensor network.0.bias holds a number that is not finite"));
  bad = good;
  bad.set("noise_embedding.weight", {32}, std::vector<float>(32));
  CHECK(contains(refusal(bad), "expected a matrix"));
  bad = good;
  bad.set("network.0.weight", {8, 8}, std::vector<float>(64));  // no room for the data
  CHECK(contains(refusal(bad), "tensor network.0.weight has shape (8, 8)"));
  bad = good;
  bad.set_parameters("ema.", net.layout(), net.parameters());
  bad.tensors.erase("ema.network.2.bias");
  CHECK(contains(refusal(bad), "tensor ema.network.2.bias is missing"));

  bad = good;  // a state dict of something else
  bad.state_dict = true;
  bad.set("attention.weight", {2}, std::vector<float>(2));
  CHECK(contains(refusal(bad), "attention.weight"));
}

TEST_CASE("files of another format, version or type are refused") {
  const Checkpoint good = make_checkpoint(small());
  const FileBytes bytes = bytes_of(good);
  const SafetensorsFile file(bytes, "memory");
  std::vector<NamedTensor> tensors;
  for (const auto& [name, view] : file.tensors()) tensors.push_back({name, view.dtype, view.shape, view.bytes});
  const SafetensorsMetadata metadata = file.metadata();
  CHECK(file_refusal(tensors, metadata) == "accepted");

  const auto changed = [&](const char* key, const char* value) {
    SafetensorsMetadata other = metadata;
    if (value == nullptr) {
      other.erase(key);
    } else {
      other[key] = value;
    }
    return file_refusal(tensors, other);
  };
  CHECK(contains(changed("tweedie.format", "2"), "format version \"2\""));
  CHECK(contains(changed("tweedie.format", ""), "format version \"\""));
  CHECK(contains(changed("tweedie.format", nullptr), "no \"tweedie.format\""));
  CHECK(contains(changed("crc32c", nullptr), "crc32c"));
  CHECK(contains(changed("crc32c", "00000000"), "the checksum is"));
  CHECK(contains(changed("step", "1"), "the checksum is"));
  CHECK(contains(changed("new key", "1"), "the checksum is"));
  CHECK(contains(changed("step", nullptr), "the checksum is"));

  const std::vector<std::int64_t> integers(3);
  std::vector<NamedTensor> typed = tensors;
  typed.push_back(named_tensor<std::int64_t>("num_batches_tracked", {3}, integers));
  CHECK(contains(file_refusal(typed, {}), "tensor num_batches_tracked has type I64, expected F32 or F64"));

  std::vector<float> weights(8, std::numeric_limits<float>::quiet_NaN());
  std::vector<NamedTensor> poisoned = tensors;
  for (NamedTensor& tensor : poisoned) {
    if (tensor.name == "network.0.bias") tensor.bytes = std::as_bytes(std::span<const float>(weights));
  }
  CHECK(contains(file_refusal(poisoned, {}), "network.0.bias"));
  weights.assign(8, std::numeric_limits<float>::infinity());
  CHECK(contains(file_refusal(poisoned, {}), "network.0.bias"));
}

TEST_CASE("errors of what load_network refuses begin with the file") {
  const TemporaryFile file;
  Checkpoint bad = make_checkpoint(small());
  bad.tensors.erase("network.4.bias");
  write_checkpoint(file.path(), bad);
  CHECK_THROWS_WITH_AS(
      load_network(file.path()),
      join(file.path(), ": tensor network.4.bias is missing; is this a model of another network, or only a part of one?").c_str(),
      ModelFileError);
  CHECK_THROWS_AS(load_network("no such directory/model.safetensors"), IoError);
  CHECK_THROWS_AS(save("no such directory/model.safetensors", small()), IoError);
}

TEST_CASE("what must not be written is not, and the old file stays") {
  const TemporaryFile file;
  const NoiseConditionalScoreNetwork net = small();
  save(file.path(), net);
  Checkpoint bad = make_checkpoint(net);
  std::vector<float> weights(8);
  weights[5] = std::numeric_limits<float>::quiet_NaN();
  bad.set("network.0.bias", {8}, weights);
  CHECK_THROWS_AS(write_checkpoint(file.path(), bad), DivergedError);
  for (const char* key : {"step", "rng", "crc32c", "tweedie.format", "config.data_dim"}) {
    bad = make_checkpoint(net);
    bad.metadata[key] = "1";
    CHECK_THROWS_AS(write_checkpoint(file.path(), bad), UsageError);
  }
  CHECK(same(load_network(file.path())->parameters(), net.parameters()));

  Checkpoint checkpoint;
  CHECK_THROWS_AS(checkpoint.set("a", {2}, std::vector<float>(3)), UsageError);
  CHECK_THROWS_AS(checkpoint.set("a", {0}, std::vector<float>()), UsageError);
  CHECK_THROWS_AS(checkpoint.set("a", {-1}, std::vector<float>(1)), UsageError);
  CHECK_THROWS_AS(checkpoint.set("a", {PTRDIFF_MAX, 2}, std::vector<float>(2)), UsageError);
  CHECK_THROWS_AS(checkpoint.set_parameters("", net.layout(), std::vector<float>(3)), UsageError);
  std::vector<float> short_buffer(3);
  CHECK_THROWS_AS(bad.get_parameters("", net.layout(), short_buffer), UsageError);
  CHECK_THROWS_AS(checkpoint.get("a", {2}), ModelFileError);
}
