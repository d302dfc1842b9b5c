// program.h - the program `tweedie`: commands, their common options, exit codes.
//
// Exit codes: 0 ok, 2 usage, 3 bad data, 4 bad model file, 5 diverged, 6 no device or out of memory, 7 I/O, 130 interrupted.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/cli/console.h"
#include "tweedie/core/check.h"
#include "tweedie/core/random.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace tweedie::cli {

/// Parses the arguments, runs the command, returns the exit code. Throws nothing.
int run(int argc, char** argv);

/// What every command takes.
struct Common {
  Console console;
  std::uint64_t seed = 42;
  int threads = 0;
  std::string device = "auto";
  bool devices = false;  // whether the command computes on CUDA devices too
  std::string precision = "fp32";
  bool json = false;

  Rng rng() const { return Rng{seed}; }
};

/// A command: its place on the command line and what it does; run returns the exit code.
struct Command {
  CLI::App* app = nullptr;
  std::function<int()> run;
};

Command demo_command(CLI::App& program);
Command data_command(CLI::App& program);
Command train_command(CLI::App& program);
Command ema_command(CLI::App& program);
Command sample_command(CLI::App& program);
Command logp_command(CLI::App& program);
Command impute_command(CLI::App& program);
Command eval_command(CLI::App& program);
Command information_command(CLI::App& program);
#ifdef TWEEDIE_HAVE_PLOTS
Command plot_command(CLI::App& program);
#endif
Command info_command(CLI::App& program);

/// --seed, --threads, --device, --precision, --json, --quiet.
void add_common(CLI::App& app, Common& common);
/// Applies --threads, refuses devices that are not there and, unless the command `samples` from a network by use_precision(),
/// every precision but fp32; prints "seed ...".
void begin(const Common& common, std::string_view what, bool samples = false);
/// "cpu" or "cuda:N" for --device auto | cpu | cuda | cuda:N; auto is the first CUDA device, where there is one and the command
/// takes devices. Throws ResourceError for a device that is not there, UsageError for another word and for a CUDA device in a
/// command that takes none.
std::string find_device(const Common& common);
/// "device: cuda:0", with the reason for the CPU where `auto` chose it.
void note_device(const Common& common, std::string_view device, std::string_view why = "");

/// The name closest to `name`, or nothing when none is close (Levenshtein's distance <= 1 + a third of the length).
std::string closest(std::string_view name, const std::vector<std::string>& names);
/// "unknown sampler 'x'; did you mean 'y'? Choose one of: a, b".
std::string unknown(std::string_view what, std::string_view name, const std::vector<std::string>& names);
/// Refuses other values than `names`, listing them.
void choose_from(CLI::Option* option, std::string what, std::vector<std::string> names);
/// "-3,3" as two rising numbers; throws UsageError naming the option.
std::pair<double, double> parse_limits(const std::string& text, std::string_view option);
/// "a, b, c".
std::string listed(const std::vector<std::string>& names);
/// "-" is standard output.
std::string output_path(const std::string& path);
bool is_stdout(const std::string& path);
bool ends_with(std::string_view text, std::string_view ending);

}  // namespace tweedie::cli
