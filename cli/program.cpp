// SPDX-License-Identifier: MIT
#include "tweedie/cli/program.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <new>

#include "tweedie/core/parallel.h"
#include "tweedie/kernels/cuda/device.h"
#include "tweedie/version.h"

namespace tweedie::cli {

namespace {

// An options file's lines without a section belong to the command that runs.
class OptionsFile : public CLI::ConfigBase {
 public:
  explicit OptionsFile(const CLI::App& program) : program_(program) {}
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> lines = CLI::ConfigBase::from_config(input);
    const std::vector<const CLI::App*> commands = program_.get_subcommands([](const CLI::App* app) { return app->parsed(); });
    for (CLI::ConfigItem& item : lines) {
      if (item.parents.empty() && !commands.empty()) item.parents = {commands.front()->get_name()};
    }
    return lines;
  }

 private:
  const CLI::App& program_;
};

// --hidden_dim is --hidden-dim: the names of the PyTorch code work as they are.
std::vector<std::string> with_dashes(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  for (std::string& argument : arguments) {
    if (argument == "--") break;
    if (argument.compare(0, 2, "--") != 0) continue;
    std::replace(argument.begin(), argument.begin() + static_cast<std::ptrdiff_t>(std::min(argument.find('='), argument.size())),
                 '_', '-');
  }
  return arguments;
}

// "--width,--hidden-dim [256]": names and default, without the parser's own words for types and ranges.
class HelpFormat : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_expected_min() == 0) return "";
    const std::string value = option->get_default_str();
    if (option->get_required()) return " (required)";
    return value.empty() || value == "\"\"" ? " ..." : join(" [", value, "]");
  }
};

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// What the parser says about an argument that nothing takes, with the option that was perhaps meant.
std::string explain(const CLI::App& program, const CLI::ParseError& error) {
  std::string text = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) == nullptr) return text;
  const std::vector<const CLI::App*> commands = program.get_subcommands([](const CLI::App* app) { return app->parsed(); });
  if (commands.empty()) return text;
  std::vector<std::string> names;
  for (const CLI::Option* option : commands.front()->get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  std::string_view last = text;
  last.remove_prefix(std::min(last.size(), last.find("--")));
  last = last.substr(0, last.find_first_of(" ="));
  const std::string meant = last.empty() ? "" : closest(last, names);
  return meant.empty() ? text : join(text, "; did you mean ", meant, "?");
}

int parse_failure(const CLI::App& program, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return program.exit(error);  // help and version
  const std::vector<const CLI::App*> commands = program.get_subcommands([](const CLI::App* app) { return app->parsed(); });
  const std::string name = commands.empty() ? "tweedie" : join("tweedie ", commands.front()->get_name());
  print_error(join(explain(program, error), " (see ", name, " --help)"));
  return 2;
}

int guarded(const std::function<int()>& body) {
  try {
    return body();
  } catch (const Error& error) {
    print_error(error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    print_error("out of memory; take a smaller batch, fewer samples or a narrower network");
    return 6;
  } catch (const std::exception& error) {
    print_error(join(error.what(), " (this is a defect of tweedie; please report it)"));
    return 1;
  }
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App program{
      "tweedie: score-based generative models from scratch.\n"
      "Learns the score grad log p of a table's rows and draws new rows from it.",
      "tweedie"};
  program.set_version_flag("--version", "tweedie " TWEEDIE_VERSION);
  program.option_defaults()->always_capture_default();
  program.formatter(std::make_shared<HelpFormat>());
  program.require_subcommand(0, 1);
  program.allow_config_extras(CLI::config_extras_mode::error);
  program.config_formatter(std::make_shared<OptionsFile>(program));
  program.set_config("--config", "",
                     "Options from a file: lines 'steps = 1000', or under [train], [sample], ...; the command line wins");
  program.footer(
      "Begin with:\n"
      "  tweedie demo                                        the tutorial end to end, with figures (under a minute)\n"
      "  tweedie train table.csv -o model.safetensors        learn a table\n"
      "  tweedie sample model.safetensors -n 1000 -o new.csv draw new rows\n"
      "Exit codes: 0 ok, 2 usage, 3 bad data, 4 bad model file, 5 diverged, 6 no device or memory, 7 files, 130 interrupted.");

  std::vector<Command> commands = {demo_command(program),   data_command(program),   train_command(program),
                                   ema_command(program),    sample_command(program), logp_command(program),
                                   impute_command(program), eval_command(program),   information_command(program)};
#ifdef TWEEDIE_HAVE_PLOTS
  commands.push_back(plot_command(program));
#endif
  commands.push_back(info_command(program));
  std::vector<std::string> names;
  for (Command& command : commands) {
    command.app->fallthrough();
    names.push_back(command.app->get_name());
  }

  return guarded([&] {
    if (argc < 2) {
      std::fputs(program.help().c_str(), stderr);
      return 2;
    }
    const std::vector<std::string> arguments = with_dashes(argc, argv);
    const std::string_view first = argv[1];
    const bool known = std::find(names.begin(), names.end(), first) != names.end();
    check(known || first.substr(0, 1) == "-", unknown("command", first, names));
    try {
      program.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    } catch (const CLI::ParseError& error) {
      return parse_failure(program, error);
    }
    for (const Command& command : commands) {
      if (command.app->parsed()) return command.run();
    }
    fail("no command is given; choose one of: ", listed(names));
  });
}

void add_common(CLI::App& app, Common& common) {
  const char* group = "Common options";
  app.add_option("--seed", common.seed, "Seed of every random number: the same seed gives the same bytes")->group(group);
  app.add_option("--threads", common.threads, "Threads; 0 is one per core. Results do not depend on it")
      ->check(CLI::Range(0, 4096))
      ->group(group);
  app.add_option("--device", common.device,
                 "Where to compute: auto | cpu | cuda | cuda:N; auto takes the first CUDA device where there is one")
      ->group(group);
  choose_from(app.add_option("--precision", common.precision,
                             "Sampling from a perceptron (--net ncsn, mlp): its products in fp32 | bf16 (faster where the "
                             "processor multiplies bf16: AVX512-BF16, AMX) | bf16x3 (near fp32; faster with AMX) | tf32 (CUDA "
                             "devices alone; training there too)")
                  ->group(group),
              "precision", {"fp32", "tf32", "bf16x3", "bf16"});
  app.add_flag("--json", common.json, "The result as one JSON object on standard output")->group(group);
  app.add_flag("-q,--quiet", common.console.quiet, "No messages and no progress bar")->group(group);
}

void begin(const Common& common, std::string_view what, bool samples) {
  find_device(common);
  check(samples || common.precision == "fp32", "--precision ", common.precision,
        " is for tweedie sample and tweedie demo, and for tweedie train on a CUDA device; this computes in fp32 and fp64: leave "
        "--precision out");
  common.console.note(join(what, "  (seed ", common.seed, ")"));
  set_threads(common.threads);
}

std::string find_device(const Common& common) {
  const std::string_view device = common.device;
  if (device == "cpu") return "cpu";
  if (device == "auto") return common.devices && kernels::cuda::device_count() > 0 ? "cuda:0" : "cpu";
  int index = 0;
  if (device != "cuda") {
    const std::string_view digits = device.substr(0, 5) == "cuda:" ? device.substr(5) : std::string_view();
    const char* const end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, index);
    check(!digits.empty() && error == std::errc() && stop == end && index >= 0,
          unknown("device", device, {"auto", "cpu", "cuda", "cuda:N"}));
  }
  kernels::cuda::open_device(index);  // says what is wrong before any work is done
  check(common.devices, "--device ", device, ": this is computed on the CPU; leave the option out");
  return join("cuda:", index);
}

void note_device(const Common& common, std::string_view device, std::string_view why) {
  const bool none = common.device == "auto" && device == "cpu" && why.empty();
  common.console.note(join("device: ", device, none ? " (no CUDA device)" : "", why.empty() ? "" : join(" (", why, ")")));
}

std::string closest(std::string_view name, const std::vector<std::string>& names) {
  std::string best;
  std::size_t least = 2 + name.size() / 3;
  for (const std::string& candidate : names) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string unknown(std::string_view what, std::string_view name, const std::vector<std::string>& names) {
  const std::string meant = closest(name, names);
  const std::string question = meant.empty() ? "; " : join("; did you mean '", meant, "'? ");
  return join("unknown ", what, " '", name, "'", question, "Choose one of: ", listed(names));
}

void choose_from(CLI::Option* option, std::string what, std::vector<std::string> names) {
  option->check(CLI::Validator(
      [what = std::move(what), names = std::move(names)](std::string& value) {
        return std::find(names.begin(), names.end(), value) != names.end() ? std::string() : unknown(what, value, names);
      },
      ""));
}

std::pair<double, double> parse_limits(const std::string& text, std::string_view option) {
  double lo = 0, hi = 0;
  const char* end = text.data() + text.size();
  const auto [comma, error] = std::from_chars(text.data(), end, lo);
  const bool first = error == std::errc() && comma != end && (*comma == ',' || *comma == ':' || *comma == ' ');
  const auto [last, error2] = first ? std::from_chars(comma + 1, end, hi) : std::from_chars_result{comma, error};
  check(first && error2 == std::errc() && last == end && std::isfinite(lo) && std::isfinite(hi) && lo < hi, option, " '", text,
        "' is no interval; write two rising numbers such as ", option, "=-3,3");
  return {lo, hi};
}

std::string output_path(const std::string& path) { return path == "-" ? "/dev/stdout" : path; }
bool is_stdout(const std::string& path) { return path == "-" || path == "/dev/stdout"; }
bool ends_with(std::string_view text, std::string_view ending) {
  return text.size() >= ending.size() && text.substr(text.size() - ending.size()) == ending;
}

}  // namespace tweedie::cli
