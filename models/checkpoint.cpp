// checkpoint.cpp - models as safetensors files: what is written, what is accepted, and networks built from it.
// SPDX-License-Identifier: MIT
#include "tweedie/models/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tweedie/core/detail/parse_number.h"
#include "tweedie/core/files/checksum.h"
#include "tweedie/core/files/safetensors.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/energy_network.h"
#include "tweedie/models/score_network.h"

namespace tweedie {

namespace {

constexpr std::string_view kFormat = "1";
constexpr std::string_view kConfig = "config.";

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

bool is_own_key(std::string_view key) {
  return key == "tweedie.format" || key == "step" || key == "rng" || key == "crc32c" || starts_with(key, kConfig);
}

std::uint32_t add_text(std::uint32_t crc, std::string_view text) {
  crc = crc32c(std::as_bytes(std::span(text)), crc);
  return crc32c(std::as_bytes(std::span("", 1)), crc);  // the end of a text counts: "ab", "c" is not "a", "bc"
}

// crc32c over (name, type, shape, bytes) of the tensors by name, then (key, value) of the metadata but the checksum itself.
// It covers all that the file says, whatever the order of its JSON.
std::string checksum(const std::map<std::string_view, const NamedTensor*>& tensors, const SafetensorsMetadata& metadata) {
  std::uint32_t crc = 0;
  for (const auto& [name, tensor] : tensors) {
    crc = add_text(add_text(crc, name), dtype_name(tensor->dtype));
    crc = crc32c(tensor->bytes, add_text(crc, shape_text(tensor->shape)));
  }
  for (const auto& [key, value] : metadata) {
    if (key != "crc32c") crc = add_text(add_text(crc, key), value);
  }
  std::string text(8, '0');
  for (int i = 0; i < 8; ++i) text[static_cast<std::size_t>(i)] = "0123456789abcdef"[(crc >> (28 - 4 * i)) & 15];
  return text;
}

template <class S>
Buffer<S> copy(std::span<const S> values) {
  Buffer<S> buffer(static_cast<Index>(values.size()));
  std::copy(values.begin(), values.end(), buffer.begin());
  return buffer;
}

template <class S>
Checkpoint::Tensor make_tensor(const std::string& name, std::vector<Index> shape, std::span<const S> values) {
  const Index count = static_cast<Index>(values.size());
  Index size = 1;
  for (const Index n : shape) size = size > 0 && n >= 1 && n <= count / size ? size * n : 0;
  check(size == count && count > 0, "Checkpoint::set: ", name, " of shape ", shape_text(shape), " does not fit ", count,
        " values");
  return {std::move(shape), copy(values)};
}

// --- reading ---------------------------------------------------------------------------------------------------------

void read_tensors(const SafetensorsFile& file, Checkpoint& checkpoint) {
  for (const auto& [name, view] : file.tensors()) {
    Checkpoint::Tensor tensor{view.shape, {}};
    if (view.dtype == Dtype::f32) {
      Buffer<float> values(view.size());
      file.read<float>(name, view.shape, values.span());
      tensor.values = std::move(values);
    } else if (view.dtype == Dtype::f64) {
      Buffer<double> values(view.size());
      file.read<double>(name, view.shape, values.span());
      tensor.values = std::move(values);
    } else {
      fail<ModelFileError>(file.name(), ": tensor ", name, " has type ", dtype_name(view.dtype),
                           ", expected F32 or F64; convert it before saving (in PyTorch: tensor.float())");
    }
    checkpoint.tensors.emplace(name, std::move(tensor));
  }
}

void verify_checksum(const SafetensorsFile& file) {
  std::map<std::string, NamedTensor, std::less<>> named;
  std::map<std::string_view, const NamedTensor*> by_name;
  for (const auto& [name, view] : file.tensors()) {
    const auto at = named.emplace(name, NamedTensor{name, view.dtype, view.shape, view.bytes}).first;
    by_name.emplace(at->first, &at->second);
  }
  const std::string found = checksum(by_name, file.metadata());
  check<ModelFileError>(found == file.meta("crc32c"), file.name(), ": the checksum is ", found, ", the file says ",
                        file.meta("crc32c"), "; the file is damaged, take it from its source again");
}

void read_metadata(const SafetensorsFile& file, Checkpoint& checkpoint) {
  const std::string& format = file.meta("tweedie.format");
  check<ModelFileError>(format == kFormat, file.name(), ": format version \"", format, "\", this program reads version ", kFormat,
                        "; use a newer tweedie");
  verify_checksum(file);
  for (const auto& [key, value] : file.metadata()) {
    if (starts_with(key, kConfig)) {
      checkpoint.config.emplace(key.substr(kConfig.size()), value);
    } else if (!is_own_key(key)) {
      checkpoint.metadata.emplace(key, value);
    }
  }
  const std::string& step = file.meta("step");
  const std::optional<std::int64_t> parsed = detail::parse_number<std::int64_t>(step);
  check<ModelFileError>(parsed.has_value() && *parsed >= 0, file.name(), ": step is \"", step, "\", expected a count");
  checkpoint.step = *parsed;
  if (const auto rng = file.metadata().find("rng"); rng != file.metadata().end()) {
    const std::string_view text = rng->second;
    const std::size_t colon = text.find(':');
    const auto key = detail::parse_number<std::uint64_t>(text.substr(0, colon));
    const auto splits = colon == text.npos ? std::nullopt : detail::parse_number<std::uint64_t>(text.substr(colon + 1));
    check<ModelFileError>(key.has_value() && splits.has_value(), file.name(), ": rng is \"", text, "\", expected key:splits");
    checkpoint.rng = Rng(*key, *splits);
  }
}

Checkpoint read(const SafetensorsFile& file) {
  Checkpoint checkpoint;
  if (file.metadata().find("tweedie.format") == file.metadata().end()) {
    // A state dict from elsewhere may carry metadata (PyTorch's "format": "pt"), but none of ours: that is a damaged model.
    for (const auto& [key, value] : file.metadata()) {
      check<ModelFileError>(!is_own_key(key), file.name(), ": has \"", key,
                            "\" but no \"tweedie.format\"; the file is damaged, take it from its source again");
    }
    checkpoint.state_dict = true;
    checkpoint.metadata = file.metadata();
  } else {
    read_metadata(file, checkpoint);
  }
  read_tensors(file, checkpoint);
  return checkpoint;
}

// --- networks --------------------------------------------------------------------------------------------------------

const Checkpoint::Tensor& find(const Checkpoint& checkpoint, std::string_view name) {
  const auto found = checkpoint.tensors.find(name);
  check<ModelFileError>(found != checkpoint.tensors.end(), "tensor ", name,
                        " is missing; is this a model of another network, or only a part of one?");
  return found->second;
}

const std::vector<Index>& matrix_shape(const Checkpoint& checkpoint, std::string_view name) {
  const std::vector<Index>& shape = find(checkpoint, name).shape;
  check<ModelFileError>(shape.size() == 2, "tensor ", name, " has shape ", shape_text(shape), ", expected a matrix");
  return shape;
}

bool is_layer_weight(std::string_view name) {
  constexpr std::string_view prefix = "network.", suffix = ".weight";
  if (name.size() <= prefix.size() + suffix.size() || !starts_with(name, prefix)) return false;
  const std::string_view index = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  return name.substr(name.size() - suffix.size()) == suffix && detail::parse_number<std::uint64_t>(index).has_value();
}

// The sizes of the chapter's network follow from its tensors' shapes. Nothing is believed that is not backed by bytes in the
// file: a configuration is compared with this, never taken for it.
ScoreNetworkOptions infer_options(const Checkpoint& checkpoint) {
  ScoreNetworkOptions options;
  const std::vector<Index>& embedding = matrix_shape(checkpoint, "noise_embedding.weight");  // (L, H)
  const std::vector<Index>& first = matrix_shape(checkpoint, "network.0.weight");            // (H, D + H)
  options.num_noise_levels = embedding[0];
  options.hidden_dim = embedding[1];
  options.data_dim = first[1] - options.hidden_dim;
  check<ModelFileError>(options.data_dim >= 1, "tensor network.0.weight has shape ", shape_text(first), ", expected (",
                        options.hidden_dim, ", data_dim + ", options.hidden_dim, ") to go with noise_embedding.weight of shape ",
                        shape_text(embedding));
  options.num_layers = std::count_if(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                                     [](const auto& entry) { return is_layer_weight(entry.first); });
  check<ModelFileError>(options.num_layers >= 2, "tensor network.2.weight is missing; the network has at least two layers");
  return options;
}

void compare(const Checkpoint& checkpoint, const char* name, Index from_tensors) {
  const auto found = checkpoint.config.find(name);
  check<ModelFileError>(found != checkpoint.config.end(), "config.", name, " is missing; the file was not written by tweedie");
  const std::optional<Index> said = detail::parse_number<Index>(found->second);
  check<ModelFileError>(said == from_tensors, "config.", name, " is \"", found->second, "\", the tensors' shapes say ",
                        from_tensors, "; some are missing or the file was put together from two");
}

// With fewer layers than the configuration says, names the first that is not there.
void name_missing_layer(const Checkpoint& checkpoint, Index layers) {
  const auto said = checkpoint.config.find("num_layers");
  if (said == checkpoint.config.end() || detail::parse_number<Index>(said->second).value_or(0) <= layers) return;
  for (Index i = 0; i <= layers; ++i) find(checkpoint, join("network.", 2 * i, ".weight"));
}

NoiseLevels read_levels(const Checkpoint& checkpoint, Index count) {
  const std::vector<double> sigmas = checkpoint.get("sigmas", {count});
  try {
    return NoiseLevels(sigmas);
  } catch (const UsageError& error) {
    fail<ModelFileError>("tensor sigmas holds no noise levels: ", error.what());
  }
}

// Before memory is taken for the network: every tensor is there in its shape.
void compare_shapes(const Checkpoint& checkpoint, const ParameterLayout& layout) {
  for (const ParameterTensor& tensor : layout) {
    const std::vector<Index>& found = find(checkpoint, tensor.name).shape;
    check<ModelFileError>(found == tensor.shape, "tensor ", tensor.name, " has shape ", shape_text(found), ", expected ",
                          shape_text(tensor.shape), " to go with the others; the file was put together from two models");
  }
}

// "network" of "network.0.weight".
std::string_view first_part(std::string_view name) { return name.substr(0, name.find('.')); }

void refuse_strangers(const Checkpoint& checkpoint, const ParameterLayout& layout, std::string_view buffer) {
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const std::string& tensor_name = name;
    bool known = name == buffer, relative = false;
    for (const ParameterTensor& own : layout) {
      known = known || own.name == tensor_name;
      relative = relative || first_part(own.name) == first_part(tensor_name);
    }
    // Our own files may hold more, such as the optimiser's state.
    const bool may_stand = !checkpoint.state_dict && !relative;
    check<ModelFileError>(known || may_stand, "tensor ", name, " of shape ", shape_text(tensor.shape),
                          " belongs to no part of the network; is this a model of another network?");
  }
}

std::unique_ptr<Network> make_score_network(const Checkpoint& checkpoint) {
  const ScoreNetworkOptions options = infer_options(checkpoint);
  if (!checkpoint.state_dict) {
    name_missing_layer(checkpoint, options.num_layers);
    compare(checkpoint, "num_layers", options.num_layers);
    compare(checkpoint, "data_dim", options.data_dim);
    compare(checkpoint, "hidden_dim", options.hidden_dim);
    compare(checkpoint, "num_noise_levels", options.num_noise_levels);
  }
  const ParameterLayout layout = NoiseConditionalScoreNetwork::layout_of(options);
  compare_shapes(checkpoint, layout);
  refuse_strangers(checkpoint, layout, "sigmas");
  return std::make_unique<NoiseConditionalScoreNetwork>(options, read_levels(checkpoint, options.num_noise_levels), Rng{0});
}

const std::string& config_text(const Checkpoint& checkpoint, std::string_view key) {
  const auto found = checkpoint.config.find(key);
  check<ModelFileError>(found != checkpoint.config.end(), "config.", key, " is missing; the file was not written by tweedie");
  return found->second;
}

// The options of a network for any noise level. A size is believed no further than the file's largest tensor has sides, so that
// not even the list of the tensors' names can grow beyond the file.
ContinuousNetworkOptions read_continuous_options(const Checkpoint& checkpoint) {
  Index longest = 0;
  for (const auto& entry : checkpoint.tensors) {
    for (const Index side : entry.second.shape) longest = std::max(longest, side);
  }
  const auto size = [&](const char* key) {
    const std::string& text = config_text(checkpoint, key);
    const std::optional<Index> value = detail::parse_number<Index>(text);
    check<ModelFileError>(value && *value >= 0 && *value <= std::max(longest, static_cast<Index>(checkpoint.tensors.size())),
                          "config.", key, " is \"", text, "\", no tensor of the file has that size (the longest side is ",
                          longest, "); the file is damaged or was put together from two");
    return *value;
  };
  const auto number = [&](const char* key) {
    const std::string& text = config_text(checkpoint, key);
    const std::optional<double> value = detail::parse_number<double>(text);
    check<ModelFileError>(value && std::isfinite(*value), "config.", key, " is \"", text, "\", expected a number");
    return *value;
  };
  const std::string& learned = config_text(checkpoint, "learned_variance");
  check<ModelFileError>(learned == "true" || learned == "false", "config.learned_variance is \"", learned,
                        "\", expected true or false");
  ContinuousNetworkOptions o;
  o.data_dim = size("data_dim");
  o.hidden_dim = size("hidden_dim");
  o.num_layers = size("num_layers");
  check<ModelFileError>(o.num_layers <= static_cast<Index>(checkpoint.tensors.size()), "config.num_layers is ", o.num_layers,
                        ", the file has ", checkpoint.tensors.size(), " tensors; some are missing");
  o.architecture = architecture(config_text(checkpoint, "architecture"));
  o.embedding = noise_embedding(config_text(checkpoint, "embedding"));
  o.num_frequencies = size("num_frequencies");
  o.embedding_dim = size("embedding_dim");
  o.fourier_scale = number("fourier_scale");
  o.parametrisation = parametrisation(config_text(checkpoint, "parametrisation"));
  o.sigma_min = number("sigma_min");
  o.sigma_max = number("sigma_max");
  o.sigma_data = number("sigma_data");
  o.num_classes = size("num_classes");
  o.covariate_dim = size("covariate_dim");
  o.learned_variance = learned == "true";
  return o;
}

template <class Made>
std::unique_ptr<Network> make_continuous(const Checkpoint& checkpoint) {
  constexpr const char* kFrequencies = "sigma_embedding.frequencies";
  try {
    const ContinuousNetworkOptions options = read_continuous_options(checkpoint);
    const ParameterLayout layout = Made::layout_of(options);
    compare_shapes(checkpoint, layout);
    refuse_strangers(checkpoint, layout, kFrequencies);
    auto network = std::make_unique<Made>(options, checkpoint.get(kFrequencies, {options.num_frequencies}), Rng{0});
    for (const auto& [key, value] : network->config()) {
      const std::string& said = config_text(checkpoint, key);
      check<ModelFileError>(said == value, "config.", key, " is \"", said, "\", what the file holds says \"", value,
                            "\"; the file is damaged or was put together from two");
    }
    return network;
  } catch (const UsageError& error) {
    fail<ModelFileError>("the configuration describes no network: ", error.what());
  }
}

// Every kind of network that a file may hold, by its name().
struct Kind {
  std::string_view name;
  std::unique_ptr<Network> (*make)(const Checkpoint&);
};
constexpr Kind kKinds[] = {
    {"noise_conditional_score_network", make_score_network},
    {"continuous_score_network", make_continuous<ContinuousScoreNetwork>},
    {"energy_network", make_continuous<EnergyNetwork>},
};

std::unique_ptr<Network> make_untrained(const Checkpoint& checkpoint) {
  if (checkpoint.state_dict) return make_score_network(checkpoint);  // PyTorch's files do not name their network
  const auto kind = checkpoint.config.find("network");
  check<ModelFileError>(kind != checkpoint.config.end(),
                        "config.network is missing; the file does not say what network it holds");
  std::string known;
  for (const Kind& k : kKinds) {
    if (k.name == kind->second) return k.make(checkpoint);
    known += join(known.empty() ? "" : ", ", k.name);
  }
  fail<ModelFileError>("config.network is \"", kind->second, "\", known are ", known, "; use a newer tweedie");
}

}  // namespace

void Checkpoint::set(const std::string& name, std::vector<Index> shape, std::span<const float> values) {
  tensors.insert_or_assign(name, make_tensor(name, std::move(shape), values));
}

void Checkpoint::set(const std::string& name, std::vector<Index> shape, std::span<const double> values) {
  tensors.insert_or_assign(name, make_tensor(name, std::move(shape), values));
}

void Checkpoint::set_parameters(std::string_view prefix, const ParameterLayout& layout, std::span<const float> flat) {
  check(static_cast<Index>(flat.size()) == layout.size(), "Checkpoint::set_parameters: ", flat.size(), " values, the layout has ",
        layout.size());
  for (const ParameterTensor& tensor : layout) {
    set(join(prefix, tensor.name), tensor.shape,
        flat.subspan(static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.size())));
  }
}

bool Checkpoint::has(std::string_view name) const { return tensors.find(name) != tensors.end(); }

bool Checkpoint::has_prefix(std::string_view prefix) const {
  const auto first = tensors.lower_bound(prefix);
  return first != tensors.end() && starts_with(first->first, prefix);
}

std::vector<double> Checkpoint::get(std::string_view name, const std::vector<Index>& shape) const {
  const Tensor& tensor = find(*this, name);
  check<ModelFileError>(tensor.shape == shape, "tensor ", name, " has shape ", shape_text(tensor.shape), ", expected ",
                        shape_text(shape));
  return std::visit([](const auto& values) { return std::vector<double>(values.begin(), values.end()); }, tensor.values);
}

void Checkpoint::get_parameters(std::string_view prefix, const ParameterLayout& layout, std::span<float> flat) const {
  check(static_cast<Index>(flat.size()) == layout.size(), "Checkpoint::get_parameters: ", flat.size(), " values, the layout has ",
        layout.size());
  for (const ParameterTensor& own : layout) {
    const std::string name = join(prefix, own.name);
    const Tensor& tensor = find(*this, name);
    check<ModelFileError>(tensor.shape == own.shape, "tensor ", name, " has shape ", shape_text(tensor.shape), ", expected ",
                          shape_text(own.shape), "; the file holds a network of other sizes");
    float* out = flat.data() + own.offset;
    std::visit(
        [&](const auto& values) {
          std::transform(values.begin(), values.end(), out, [](auto v) { return static_cast<float>(v); });
        },
        tensor.values);
    check<ModelFileError>(std::all_of(out, out + own.size(), [](float v) { return std::isfinite(v); }), "tensor ", name,
                          " holds a number that is not finite in fp32; the model diverged or the file is damaged");
  }
}

Checkpoint make_checkpoint(const Network& network) {
  Checkpoint checkpoint;
  checkpoint.config = network.config();
  checkpoint.config.insert_or_assign("network", network.name());
  if (const NoiseLevels* levels = network.levels()) checkpoint.set("sigmas", {levels->size()}, levels->values());
  for (const auto& [name, values] : network.buffers()) {
    checkpoint.set(name, {static_cast<Index>(values.size())}, std::span<const double>(values));
  }
  checkpoint.set_parameters("", network.layout(), network.parameters());
  return checkpoint;
}

std::unique_ptr<Network> make_network(const Checkpoint& checkpoint, Weights weights) {
  std::unique_ptr<Network> network = make_untrained(checkpoint);
  const bool stored = checkpoint.has_prefix("ema.");
  check<ModelFileError>(stored || weights != Weights::ema,
                        "the moving average is asked for and the file has none (no tensor ema.*); take the raw weights");
  const char* prefix = stored && weights != Weights::raw ? "ema." : "";
  if (weights == Weights::ema_if_stored && checkpoint.has_prefix("best.")) prefix = "best.";
  checkpoint.get_parameters(prefix, network->layout(), network->parameters());
  network->parameters_changed();
  return network;
}

void write_checkpoint(const std::string& path, const Checkpoint& checkpoint) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    std::visit(
        [&, &tensor_name = name, &shape = tensor.shape](const auto& values) {
          check<DivergedError>(std::all_of(values.begin(), values.end(), [](auto v) { return std::isfinite(v); }),
                               "write_checkpoint: tensor ", tensor_name, " holds NaN or infinity; ", path, " is left as it was");
          tensors.push_back(named_tensor(tensor_name, shape, values.span()));
        },
        tensor.values);
  }
  SafetensorsMetadata metadata;
  for (const auto& [key, value] : checkpoint.metadata) {
    check(!is_own_key(key), "write_checkpoint: metadata \"", key,
          "\" is a key of the format's own; use the field, or another key");
    metadata.emplace(key, value);
  }
  for (const auto& [key, value] : checkpoint.config) metadata.emplace(join(kConfig, key), value);
  metadata.emplace("tweedie.format", kFormat);
  metadata.emplace("step", join(checkpoint.step));
  if (checkpoint.rng) metadata.emplace("rng", join(checkpoint.rng->key(), ':', checkpoint.rng->splits()));

  std::map<std::string_view, const NamedTensor*> by_name;
  for (const NamedTensor& tensor : tensors) by_name.emplace(tensor.name, &tensor);
  metadata.emplace("crc32c", checksum(by_name, metadata));
  write_safetensors(path, tensors, metadata);
}

Checkpoint read_checkpoint(const std::string& path) { return read(SafetensorsFile(path)); }

Checkpoint read_checkpoint(FileBytes bytes, const std::string& name) { return read(SafetensorsFile(std::move(bytes), name)); }

void save(const std::string& path, const Network& network) { write_checkpoint(path, make_checkpoint(network)); }

std::unique_ptr<Network> load_network(const std::string& path, Weights weights) {
  const Checkpoint checkpoint = read_checkpoint(path);
  try {
    return make_network(checkpoint, weights);
  } catch (const ModelFileError& error) {
    fail<ModelFileError>(path, ": ", error.what());
  }
}

}  // namespace tweedie
