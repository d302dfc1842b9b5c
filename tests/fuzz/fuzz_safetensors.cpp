// Any bytes as a model: the tensors cover the data without gaps, and what was read, written again, reads as the same.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "fuzz.h"
#include "tweedie/core/files/safetensors.h"

using namespace tweedie;

namespace {

std::vector<NamedTensor> named(const SafetensorsFile& file) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : file.tensors()) tensors.push_back({name, tensor.dtype, tensor.shape, tensor.bytes});
  return tensors;
}

void check_same(const SafetensorsFile& a, const SafetensorsFile& b) {
  FUZZ_CHECK(a.metadata() == b.metadata());
  FUZZ_CHECK(a.tensors().size() == b.tensors().size());
  for (const auto& [name, tensor] : a.tensors()) {
    const TensorView& other = b.at(name);
    FUZZ_CHECK(tensor.dtype == other.dtype && tensor.shape == other.shape);
    FUZZ_CHECK(std::equal(tensor.bytes.begin(), tensor.bytes.end(), other.bytes.begin(), other.bytes.end()));
  }
}

void rewrite(const SafetensorsFile& file) {
  const std::vector<NamedTensor> tensors = named(file);
  if (std::any_of(tensors.begin(), tensors.end(), [](const NamedTensor& t) { return t.name == "__metadata__"; })) return;
  const SafetensorsLayout layout = safetensors_layout(tensors, file.metadata());
  FileBytes bytes(static_cast<Index>(layout.header.size() + file.data().size()));
  std::byte* at = bytes.data();
  std::memcpy(at, layout.header.data(), layout.header.size());
  at += layout.header.size();
  for (const std::size_t i : layout.order) at = std::copy(tensors[i].bytes.begin(), tensors[i].bytes.end(), at);
  FUZZ_CHECK(at == bytes.end());
  check_same(file, SafetensorsFile(std::move(bytes), "again", {.allow_non_finite = true}));
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  bool loaded = false;
  try {
    const SafetensorsFile file(fuzz::copy(data, size), "fuzz", {.allow_non_finite = true});
    loaded = true;
    std::size_t sum = 0;
    for (const auto& [name, tensor] : file.tensors()) sum += tensor.bytes.size();
    FUZZ_CHECK(sum == file.data().size());
    rewrite(file);
  } catch (const Error&) {
    FUZZ_CHECK(!loaded);
  }
  return 0;
}
