// A stranger's program: everything an embedding user touches crosses the library's boundary here, with the stranger's own
// compiler flags on this side. Exits 0 when all is as documented.
#include <tweedie/tweedie.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

using namespace tweedie;

namespace {

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "consumer: %s\n", what);
    std::exit(1);
  }
}

// The caller's own threads.
class Threads final : public Executor {
 public:
  int concurrency() const override { return 2; }
  void run(int count, void (*task)(void*, int), void* context) override {
    std::atomic<int> next{0};
    const auto work = [&] {
      for (int i = next++; i < count; i = next++) task(context, i);
    };
    std::thread other(work);
    work();
    other.join();
    ++runs;
  }
  std::atomic<int> runs{0};
};

bool same(const Matrix& a, const Matrix& b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  for (Index i = 0; i < a.size(); ++i) {
    if (a.data()[i] != b.data()[i]) return false;
  }
  return true;
}

}  // namespace

int main() {
  Rng rng{42};
  const Matrix data = datasets::three_gaussians(300, rng.split());
  // Eigen on this side, with this side's alignment, over the library's memory.
  const Eigen::MatrixXf copy = data.eigen();
  const Eigen::MatrixXf product = copy.transpose() * copy;
  require(std::abs(product(0, 1) - data.eigen().col(0).dot(data.eigen().col(1))) < 1e-1f, "Eigen over the library's rows");

  const NoiseLevels levels = NoiseLevels::geometric(10, .05, 6);
  ScoreNetwork net({.data_dim = 2, .hidden_dim = 32}, levels, rng.split());
  int reports = 0;
  const TrainingStep last =
      train(net, data, {.steps = 60, .batch = 64, .log_every = 20}, rng.split(), [&](const TrainingStep&) { ++reports; });
  require(std::isfinite(last.loss) && reports == 3, "training reports and a finite loss");

  AnnealedLangevinOptions options{.samples = 700, .steps_per_level = 10, .step_size_factor = .5};
  const Rng stream = rng.split();
  const Samples ours = annealed_langevin(net, levels, options, stream);
  const auto threads = std::make_shared<Threads>();
  set_executor(threads);
  const Samples theirs = annealed_langevin(net, levels, options, stream);
  set_executor(nullptr);
  require(threads->runs > 0, "the caller's executor ran the work");
  require(same(ours.x, theirs.x), "the caller's threads give the same bits");

  options.progress = [](const SamplingProgress& p) { return p.done == 0; };
  bool cancelled = false;
  try {
    annealed_langevin(net, levels, options, stream);
  } catch (const CancelledError&) {
    cancelled = true;
  }
  require(cancelled, "a sampler can be cancelled");

  // A score of one's own, and an error with a remedy that crosses the boundary as its own type.
  const FunctionScore own(2, [](ConstRows<double> y, std::span<const double>, Rows<double> out) { out.eigen() = -y.eigen(); });
  const Samples normal = langevin_dynamics(own, 1.0, data, {.step_size = .1, .num_steps = 50}, rng.split());
  require(std::isfinite(normal.x(0, 0)), "a lambda as a score");
  bool refused = false;
  try {
    NoiseLevels::geometric(.01, 10, 10);
  } catch (const UsageError&) {
    refused = true;
  }
  require(refused, "errors cross the boundary by type");

  // Devices answer in every build and on every machine: with or without nvcc there and a driver here.
  require(kernels::cuda::device_count() >= 0, "devices are counted");
  refused = false;
  try {
    kernels::cuda::open_device(99);
  } catch (const ResourceError&) {
    refused = true;
  }
  require(refused, "a device that is not there is a ResourceError");

  // Memory that one side makes and the other frees.
  std::vector<Matrix> moved;
  moved.push_back(datasets::three_gaussians(64, rng.split()));
  moved.push_back(std::move(moved.front()));

  save("consumer.safetensors", net);
  const std::unique_ptr<Network> again = load_network("consumer.safetensors");
  const Samples reloaded =
      annealed_langevin(*again, levels, {.samples = 700, .steps_per_level = 10, .step_size_factor = .5}, stream);
  require(same(ours.x, reloaded.x), "a saved and loaded network samples the same bits");
  std::remove("consumer.safetensors");
  std::printf("consumer of tweedie " TWEEDIE_VERSION ": ok\n");
}
