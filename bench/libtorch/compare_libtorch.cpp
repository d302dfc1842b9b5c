// compare_libtorch.cpp - LibTorch's side of the comparison (race.h): --style eager, as its users write it after the chapter's
// code, or best, as fast as its operations go (torch_best.h, torch_training.h, torch_likelihood.h). SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include "libtorch_agree.h"
#include "race.h"
#include "torch_best.h"
#include "torch_likelihood.h"
#include "torch_training.h"

namespace tweedie::race {
namespace {

struct Call {
  const Workload& w;
  bool best;
  long repeats;  // 0: the error is asked for
};

std::string version() { return "LibTorch " + std::string(TORCH_VERSION); }

// ---- Training

void time_training_eager(const Call& c, const Network& net) {
  ChapterNet module = chapter_module(net);
  torch::optim::Adam optimizer(module->parameters(), torch::optim::AdamOptions(1e-3));
  const torch::Tensor data = tensor(standard_rows(4 * c.w.rows, c.w.dim));
  std::int64_t batch = 0;
  double total = 0;
  torch::Tensor order;
  time_and_print(c.w, c.repeats, 1, version() + ", graph, optim::Adam", [&] {
    for (Index i = 0; i < c.w.steps; ++i, ++batch) {
      if (batch % 4 == 0) order = torch::randperm(data.size(0), torch::kInt64);
      const torch::Tensor x = data.index_select(0, order.slice(0, batch % 4 * c.w.rows, (batch % 4 + 1) * c.w.rows));
      const torch::Tensor level = torch::randint(module->sigmas.size(0), {x.size(0)}, torch::kInt64);
      const torch::Tensor sigma = sigma_of(module, level);
      const torch::Tensor eps = torch::randn_like(x);
      const torch::Tensor loss = chapter_loss(module, x + sigma * eps, level, sigma, eps);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
      total += loss.item<double>();
    }
    return c.w.steps;
  });
}

void time_training_best(const Call& c, const Network& net) {
  const c10::InferenceMode guard;
  ChapterTrainer trainer(chapter(net), c.w.rows);
  const torch::Tensor data = tensor(standard_rows(4 * c.w.rows, c.w.dim));
  const torch::Tensor sigmas = ChapterNet(chapter(net))->sigmas.unsqueeze(1);
  torch::Tensor level = torch::empty({c.w.rows}, torch::kInt64), order;
  torch::Tensor x = torch::empty({c.w.rows, c.w.dim}), eps = torch::empty_like(x), sigma = torch::empty({c.w.rows, 1});
  std::int64_t batch = 0;
  double total = trainer.loss_and_gradient(x.normal_(), level.zero_(), eps.normal_()).item<double>();
  time_and_print(c.w, c.repeats, 1, version() + ", by hand, fused Adam, products " + trainer.how(), [&] {
    for (Index i = 0; i < c.w.steps; ++i, ++batch) {
      if (batch % 4 == 0) order = torch::randperm(data.size(0), torch::kInt64);
      at::index_select_out(x, data, 0, order.narrow(0, batch % 4 * c.w.rows, c.w.rows));
      at::index_select_out(sigma, sigmas, 0, level.random_(0, sigmas.size(0)));
      x.addcmul_(eps.normal_(), sigma);
      total += trainer.loss_and_gradient(x, level, eps).item<double>();
      trainer.p.adam(1e-3);
    }
    return c.w.steps;
  });
}

double training_error(const Call& c, const Network& net) {
  const Batch batch = training_batch(net, c.w.rows);
  const std::vector<double> exact = exact_gradient(net, batch);
  const torch::Tensor x = tensor(batch.x), eps = tensor(batch.eps), level = levels_tensor(batch);
  if (c.best) {
    const c10::InferenceMode guard;
    ChapterTrainer trainer(chapter(net), c.w.rows);
    trainer.loss_and_gradient(x, level, eps);
    return relative_error(to_vector(trainer.p.d), exact);
  }
  ChapterNet module = chapter_module(net);
  chapter_loss(module, x, level, sigma_of(module, level), eps).backward();
  return relative_error(gradient_of(*module, net.layout()), exact);
}

// ---- Annealed Langevin: the state in fp32, in bf16 the network's weights and inputs rounded

torch::ScalarType type_of(const Workload& w) { return w.bf16 ? torch::kBFloat16 : torch::kFloat32; }

void time_langevin(const Call& c, const Network& net) {
  const std::vector<double> sigmas(net.levels()->values().begin(), net.levels()->values().end());
  const Index steps = net.levels()->size() * c.w.steps;
  ChapterNet module = chapter_module(net);
  if (!c.best) {
    const torch::NoGradGuard no_grad;
    module->to(type_of(c.w));
    return time_and_print(c.w, c.repeats, static_cast<double>(steps), version() + ", no_grad", [&] {
      torch::Tensor x = torch::randn({c.w.rows, c.w.dim}) * sigmas[0];
      for (std::size_t l = 0; l < sigmas.size(); ++l) {
        const double step = 2 * sigmas[l] * sigmas[l];
        const torch::Tensor level = torch::full({x.size(0)}, static_cast<std::int64_t>(l), torch::kInt64);
        for (Index t = 0; t < c.w.steps; ++t) {
          const torch::Tensor score = module->forward(x.to(type_of(c.w)), level);
          x = x + step / 2 * score + std::sqrt(step) * torch::randn_like(x);
        }
      }
      return steps;
    });
  }
  const c10::InferenceMode guard;
  FoldedChapter folded(module);
  folded.to(type_of(c.w));
  const torch::Tensor x = torch::empty({c.w.rows, c.w.dim});
  const Index few = std::max<Index>(1, c.w.steps / 10);
  const auto slots = fastest_slots(folded.layers, c.w.rows, [&](Slots& s) { langevin_best(folded, sigmas, few, s, x); });
  const std::string how = join(version(), ", folded, chunks of ", slots->chunk, ", layers ", slots->nets[0].how());
  time_and_print(c.w, c.repeats, static_cast<double>(steps), how, [&] {
    langevin_best(folded, sigmas, c.w.steps, *slots, x);
    return steps;
  });
}

double langevin_error(const Call& c, const Network& net) {
  const c10::InferenceMode guard;
  ChapterNet module = chapter_module(net);
  FoldedChapter folded(module);
  folded.to(type_of(c.w));
  module->to(type_of(c.w));
  FoldedMlp mlp(folded.layers, kErrorRows);
  const Matrix x = standard_rows(kErrorRows, c.w.dim);
  double worst = 0;
  const std::vector<double> sigmas = error_sigmas(c.w, net);
  for (std::size_t l = 0; l < sigmas.size(); ++l) {
    const auto level = static_cast<std::int64_t>(l);
    const torch::Tensor input = tensor(x).to(type_of(c.w)), levels = torch::full({kErrorRows}, level, torch::kInt64);
    const torch::Tensor score = c.best ? mlp(input, folded.bias[level]).to(torch::kFloat32) / sigmas[l]
                                       : module->forward(input, levels).to(torch::kFloat32);
    worst = std::max(worst, relative_error(to_vector(score), flat(exact_scores(net, x, sigmas[l]))));
  }
  return worst;
}

// ---- Heun

void time_heun(const Call& c, const Network& net) {
  const std::vector<double> sigmas = heun_schedule(c.w);
  const Index evaluations = 2 * c.w.steps - 1;
  EdmNet module = edm_module(net);
  if (!c.best) {
    const torch::NoGradGuard no_grad;
    const auto derivative = [&](const torch::Tensor& x, double sigma) {
      return -sigma * module->forward(x, torch::full({x.size(0)}, sigma));
    };
    return time_and_print(c.w, c.repeats, static_cast<double>(evaluations), version() + ", no_grad", [&] {
      torch::Tensor x = torch::randn({c.w.rows, c.w.dim}) * sigmas[0];
      for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        const double h = sigmas[i + 1] - sigmas[i];
        const torch::Tensor slope = derivative(x, sigmas[i]);
        const torch::Tensor next = x + h * slope;
        x = sigmas[i + 1] == 0 ? next : x + h * (.5 * slope + .5 * derivative(next, sigmas[i + 1]));
      }
      return evaluations;
    });
  }
  const c10::InferenceMode guard;
  FoldedEdm folded(module);
  std::vector<FoldedEdm::Level> levels;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) levels.push_back(folded.level(sigmas[i]));
  const torch::Tensor x = torch::empty({c.w.rows, c.w.dim});
  const auto slots = fastest_slots(folded.layers, c.w.rows, [&](Slots& s) { heun_best(levels, sigmas, s, x); });
  const std::string how = join(version(), ", folded, chunks of ", slots->chunk, ", layers ", slots->nets[0].how());
  time_and_print(c.w, c.repeats, static_cast<double>(evaluations), how, [&] {
    // The biases of the levels are part of a run: a user pays for them each time.
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) levels[i] = folded.level(sigmas[i]);
    heun_best(levels, sigmas, *slots, x);
    return evaluations;
  });
}

double heun_error(const Call& c, const Network& net) {
  const c10::InferenceMode guard;
  EdmNet module = edm_module(net);
  FoldedEdm folded(module);
  FoldedMlp mlp(folded.layers, kErrorRows);
  const Matrix rows = standard_rows(kErrorRows, c.w.dim);
  const torch::Tensor x = tensor(rows);
  double worst = 0;
  for (const double sigma : error_sigmas(c.w, net)) {
    torch::Tensor score;
    if (c.best) {
      const FoldedEdm::Level l = folded.level(sigma);
      score = (x * l.a + mlp(x * l.c_in, l.bias) * l.b) / sigma;
    } else {
      score = module->forward(x, torch::full({kErrorRows}, sigma));
    }
    worst = std::max(worst, relative_error(to_vector(score), flat(exact_scores(net, rows, sigma))));
  }
  return worst;
}

// ---- Likelihood, normals

Densities likelihood(const Call& c, EdmNet& module, const Network& net, const torch::Tensor& x) {
  return c.best ? likelihood_best(module, edm(net), x, kLikelihoodTolerance)
                : likelihood_eager(module, edm(net), x, kLikelihoodTolerance);
}

void likelihood_call(const Call& c, const Network& net) {
  EdmNet module = edm_module(net);
  module->to(torch::kFloat64);
  if (c.repeats == 0) {
    const torch::Tensor x = tensor(likelihood_rows(kLikelihoodErrorRows));
    return print_error(
        c.w, largest_difference(to_vector(likelihood(c, module, net, x).nats), exact_log_density(net, kLikelihoodErrorRows)));
  }
  const torch::Tensor x = tensor(likelihood_rows(c.w.rows));
  const double nfe = likelihood(c, module, net, x).evaluations;
  time_and_print(c.w, c.repeats, nfe, version() + (c.best ? ", forward mode by hand" : ", a backward pass a dimension"), [&] {
    likelihood(c, module, net, x);
    return c.w.rows;
  });
}

void time_normals(const Call& c) {
  const c10::InferenceMode guard;
  torch::Tensor z = torch::empty({c.w.rows, c.w.dim});
  time_and_print(c.w, c.repeats, 0, version() + (c.best ? ", normal_" : ", randn"), [&] {
    for (Index i = 0; i < c.w.steps; ++i) {
      if (c.best) {
        z.normal_();
      } else {
        z = torch::randn({c.w.rows, c.w.dim});
      }
    }
    return c.w.steps * z.numel();
  });
}

// ---- Time to quality: what train() of ours does with the same numbers, the average of the weights included

void train_to_quality(const Arguments& a) {
  const Matrix rows = GaussianMixture::tutorial().sample(kTableRows, Rng{42});
  const std::unique_ptr<Network> like = load_network(a.text("models") + "/q1.safetensors");
  const ContinuousScoreNetwork& ours = edm(*like);
  const long steps = a.number("steps");
  const bool best = a.text("style") == "best";
  torch::manual_seed(static_cast<std::uint64_t>(a.number("seed")));
  const double begin = wall_now(), cpu = cpu_now();
  const torch::Tensor data = tensor(rows);
  EdmNet module(ours);
  const auto draw = [&](torch::Tensor& sigma, torch::Tensor& eps) {
    sigma = draw_sigmas(ours, kQualityBatch);
    const torch::Tensor x = data.index_select(0, torch::randint(data.size(0), {kQualityBatch}, torch::kInt64));
    eps = torch::randn_like(x);
    return x + sigma.unsqueeze(-1) * eps;
  };
  torch::Tensor sigma, eps;
  double total = 0;
  if (best) {
    const std::unique_ptr<Network> start = make_network(checkpoint_of(*module, ours));
    const c10::InferenceMode guard;
    EdmTrainer trainer(edm(*start), edm_module(*start), kQualityBatch);
    const torch::Tensor average = trainer.p.flat.clone();
    for (long i = 0; i < steps; ++i) {
      const torch::Tensor x = draw(sigma, eps);
      total += trainer.loss_and_gradient(x, sigma, eps).item<double>();
      trainer.p.adam(quality_rate(i, steps));
      average.lerp_(trainer.p.flat, 1 - ema_decay(kQualityEma, true, i));
    }
    const std::vector<double> values = to_vector(average);
    std::copy(values.begin(), values.end(), like->parameters().begin());
    like->parameters_changed();
  } else {
    torch::optim::Adam optimizer(module->parameters(), torch::optim::AdamOptions(kQualityRate));
    std::vector<torch::Tensor> average;
    for (const torch::Tensor& p : module->parameters()) average.push_back(p.detach().clone());
    const double variance = module->sigma_data * module->sigma_data;
    for (long i = 0; i < steps; ++i) {
      const torch::Tensor x = draw(sigma, eps);
      const torch::Tensor weight = (sigma * sigma + variance) / variance;
      const torch::Tensor loss = (.5 * weight * (module->scaled_score(x, sigma) + eps).pow(2).sum(-1)).mean();
      optimizer.zero_grad();
      loss.backward();
      static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(quality_rate(i, steps));
      optimizer.step();
      total += loss.item<double>();
      const torch::NoGradGuard no_grad;
      const double decay = ema_decay(kQualityEma, true, i);
      for (std::size_t t = 0; t < average.size(); ++t) average[t].mul_(decay).add_(module->parameters()[t], 1 - decay);
    }
    const torch::NoGradGuard no_grad;
    for (std::size_t t = 0; t < average.size(); ++t) module->parameters()[t].copy_(average[t]);
  }
  const double seconds = wall_now() - begin, cpu_seconds = cpu_now() - cpu;
  write_checkpoint(a.text("out"), best ? make_checkpoint(*like) : checkpoint_of(*module, ours));
  std::printf("{\"seconds\": %.4g, \"cpu\": %.4g, \"steps\": %ld, \"mean_loss\": %.4g}\n", seconds, cpu_seconds, steps,
              total / static_cast<double>(steps));
}

// ---- What it is

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += ' ';
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out;
}

void print_info() {
  std::printf("{\"version\": \"%s\", \"capability\": \"%s\", \"config\": \"%s\", \"parallel\": \"%s\"}\n", TORCH_VERSION,
              at::get_cpu_capability().c_str(), escaped(at::show_config()).c_str(), escaped(at::get_parallel_info()).c_str());
}

int run(const Arguments& a) {
  if (a.command() == "info") return print_info(), 0;
  const auto threads = static_cast<int>(a.number("threads"));
  set_threads(threads);
  at::set_num_threads(threads);
  if (a.command() == "agree") return agree(a.text("models"));
  const std::string style = a.text("style");
  check(style == "eager" || style == "best", "--style ", style, " is unknown; give eager or best");
  if (a.command() == "q1") return train_to_quality(a), 0;
  const bool timed = a.command() == "time";
  check(timed || a.command() == "error", "command '", a.command(), "' is unknown; race.h lists them");
  const Call c{a.workload(), style == "best", timed ? a.number("repeats") : 0};
  torch::manual_seed(1);
  const std::unique_ptr<Network> net = c.w.kind == Kind::normals ? nullptr : load_network(a.model(c.w));
  switch (c.w.kind) {
    case Kind::training:
      if (!timed) return print_error(c.w, training_error(c, *net)), 0;
      return c.best ? time_training_best(c, *net) : time_training_eager(c, *net), 0;
    case Kind::langevin:
      return timed ? time_langevin(c, *net) : print_error(c.w, langevin_error(c, *net)), 0;
    case Kind::heun:
      return timed ? time_heun(c, *net) : print_error(c.w, heun_error(c, *net)), 0;
    case Kind::likelihood:
      return likelihood_call(c, *net), 0;
    case Kind::normals:
      check(timed, "normals have no error in double; they are held against their law by the tests");
      return time_normals(c), 0;
  }
  return 0;
}

}  // namespace
}  // namespace tweedie::race

int main(int argc, char** argv) { return tweedie::race::main_with(argc, argv, tweedie::race::run); }
