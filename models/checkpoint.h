// checkpoint.h - a model, and what training needs to go on, in one safetensors file.
//
//   save("mixture.safetensors", net);
//   std::unique_ptr<Network> net = load_network("mixture.safetensors");
//
// Tensors under PyTorch's names (sigmas, noise_embedding.weight, network.{0,2,..}.{weight,bias}; weight (out, in)), so that
// state dicts go both ways, or for other networks under their layout's and their buffers()'s; then ema.<name>,
// optim.exp_avg.<name>, optim.exp_avg_sq.<name>, data.mean, data.std.
// Metadata, flat strings: tweedie.format = 1, config.<name>, rng, step, and what the caller adds (engine, columns.*), crc32c.
// The checksum covers names, types, shapes and bytes of all tensors and all other metadata. A plain state dict, saved as
// safetensors without metadata, loads as well: the sizes follow from the shapes. Every file is taken for hostile.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tweedie/core/files/file.h"
#include "tweedie/models/network.h"

namespace tweedie {

/// What one model file holds. Build one, add what should be kept, write it.
struct TWEEDIE_API Checkpoint {
  struct Tensor {
    std::vector<Index> shape;
    std::variant<Buffer<float>, Buffer<double>> values;
  };

  Strings config;    // of the network: config.<name>; "network" is the kind. Others may be added (objective, ...)
  Strings metadata;  // any other key, such as engine, columns.names; not a key of the format's own
  std::map<std::string, Tensor, std::less<>> tensors;
  std::int64_t step = 0;    // optimiser updates done
  std::optional<Rng> rng;   // the training stream
  bool state_dict = false;  // read from a file without metadata

  /// Adds or replaces a tensor; `values` has as many elements as the shape. Throws UsageError otherwise.
  void set(const std::string& name, std::vector<Index> shape, std::span<const float> values);
  void set(const std::string& name, std::vector<Index> shape, std::span<const double> values);
  /// All tensors of a layout under prefix + name, e.g. prefix "ema.".
  void set_parameters(std::string_view prefix, const ParameterLayout& layout, std::span<const float> flat);
  bool has(std::string_view name) const;
  /// Whether any tensor's name starts so, e.g. "ema.".
  bool has_prefix(std::string_view prefix) const;
  /// The tensor's values; throws ModelFileError that names the tensor if it is missing or of another shape.
  std::vector<double> get(std::string_view name, const std::vector<Index>& shape) const;
  /// All tensors of a layout back into `flat` (layout.size()); throws ModelFileError that names the tensor, both shapes and the
  /// remedy if one is missing, of another shape, or holds NaN or infinity.
  void get_parameters(std::string_view prefix, const ParameterLayout& layout, std::span<float> flat) const;
};

/// Which weights of a checkpoint a network gets.
enum class Weights {
  ema_if_stored,  // best.<name> (lowest validation loss) where the file has it, else the moving average, else the raw weights
  ema,            // throws ModelFileError if the file has none
  raw,
};

/// Configuration, levels and raw weights of a network.
TWEEDIE_API Checkpoint make_checkpoint(const Network& network);
/// The network that a checkpoint describes. Throws ModelFileError for an unknown kind, a configuration or tensor that is
/// missing, of a wrong shape, or not finite, and for tensors of another network.
TWEEDIE_API std::unique_ptr<Network> make_network(const Checkpoint& checkpoint, Weights weights = Weights::ema_if_stored);

/// Writes atomically: the file at `path` is the old one or the new one, whole. Throws IoError, UsageError for metadata under a
/// key of the format's own, and DivergedError for a tensor with NaN or infinity: no file is better than one that cannot load.
TWEEDIE_API void write_checkpoint(const std::string& path, const Checkpoint& checkpoint);
/// Throws IoError if the file cannot be opened, ModelFileError if it is damaged, of an unknown version or no model.
TWEEDIE_API Checkpoint read_checkpoint(const std::string& path);
/// The same for a file already in memory; `name` is for messages.
TWEEDIE_API Checkpoint read_checkpoint(FileBytes bytes, const std::string& name);

/// A network alone, by make_checkpoint and write_checkpoint.
TWEEDIE_API void save(const std::string& path, const Network& network);
/// read_checkpoint and make_network.
TWEEDIE_API std::unique_ptr<Network> load_network(const std::string& path, Weights weights = Weights::ema_if_stored);

}  // namespace tweedie
