// The steady-state training step allocates nothing: malloc and its kin are counted while the step runs.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "tweedie/autodiff/fused.h"
#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TWEEDIE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TWEEDIE_SANITIZED 1
#endif
#endif

using namespace tweedie;

namespace {
std::atomic<bool> counting{false};
std::atomic<long> allocations{0};
}  // namespace

#ifndef TWEEDIE_SANITIZED
// glibc's own names for its allocator: the program's definitions of malloc and its kin come first for every library in it.
// operator new calls malloc, so these see all of it.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

static void count() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
void* malloc(std::size_t size) {
  count();
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
  count();
  return __libc_calloc(n, size);
}
void* realloc(void* memory, std::size_t size) {
  count();
  return __libc_realloc(memory, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  count();
  return __libc_memalign(alignment, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  count();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t size) {
  count();
  *out = __libc_memalign(alignment, size);
  return *out == nullptr ? 12 /* ENOMEM */ : 0;
}
}
#endif

TEST_CASE("the steady-state training step allocates nothing") {
#ifdef TWEEDIE_SANITIZED
  std::printf("allocation count: skipped, the sanitizer owns malloc\n");
#else
  const Fused<float> doubled{
      .name = "doubled",
      .forward =
          [](std::span<const ConstRows<float> > x, Rows<float> y) {
            for (Index i = 0; i < y.size(); ++i) y.data()[i] = 2 * x[0].data()[i];
          },
      .backward =
          [](std::span<const ConstRows<float> >, ConstRows<float>, ConstRows<float> dy, std::span<const Rows<float> > dx) {
            for (Index i = 0; i < dy.size(); ++i) dx[0].data()[i] = 2 * dy.data()[i];
          },
      .recipe = {}};
  const Index B = 512, W = 256;
  Matrix x(B, 2), sigma(B, 1), noise(B, 2), table(10, W), w1(W, W + 2), b1(1, W), w2(W, W), b2(1, W), w3(2, W), b3(1, 2);
  Matrix* const all[] = {&x, &sigma, &noise, &table, &w1, &b1, &w2, &b2, &w3, &b3};
  for (Matrix* m : all) {
    for (Index i = 0; i < m->size(); ++i) m->data()[i] = .01F + static_cast<float>((i * 2654435761U) % 1000) / 10000;
  }
  std::vector<Matrix> gradients;
  for (Matrix* m : {&table, &w1, &b1, &w2, &b2, &w3, &b3}) gradients.emplace_back(m->rows(), m->cols());
  std::vector<Rows<float> > out(gradients.begin(), gradients.end());
  std::vector<std::int32_t> level(static_cast<std::size_t>(B));
  for (std::size_t i = 0; i < level.size(); ++i) level[i] = static_cast<std::int32_t>(i % 10);

  Tape tape;
  float loss = 0;
  const auto step = [&](Index batch) {
    tape.reset();
    const auto rows = [&](const Matrix& m) { return m.middle_rows(0, batch); };
    const Var p[] = {tape.parameter(table), tape.parameter(w1), tape.parameter(b1), tape.parameter(w2),
                     tape.parameter(b2),    tape.parameter(w3), tape.parameter(b3)};
    const Var vx = tape.constant_view(rows(x)), s = tape.constant(rows(sigma)), e = tape.constant_view(rows(noise));
    const Var embedding = gather_rows(p[0], std::span<const std::int32_t>(level).first(static_cast<std::size_t>(batch)));
    Var h = silu(linear(concat_cols({vx, embedding}), p[1], p[2]));
    h = fused(doubled, {silu(linear(h, p[3], p[4]))}, batch, W);
    const Var score = linear(h, p[5], p[6]) / s;
    const Var l = mean(sum_cols(square(score * s + e))) * .5;
    gradient(l, p, out);
    loss = l.item();
  };
  const auto allocations_of_steps = [&] {
    allocations = 0;
    counting = true;
    for (int i = 0; i < 5; ++i) {
      step(B);
      step(77);  // an epoch's last, smaller batch
    }
    counting = false;
    return allocations.load();
  };
  set_threads(1);
  allocations_of_steps();  // the tape's memory and the kernels' grow to their needs
  const Index bytes = tape.bytes();
  const float before = loss;
  CHECK(allocations_of_steps() == 0);
  CHECK(tape.bytes() == bytes);
  CHECK(loss == before);

  // With more threads each has packing memory of its own, which grows when the thread first gets a task of that shape. Who gets
  // which task is chance, so steady state is reached after some steps; it must be reached.
  set_threads(4);
  int windows = 1;
  while (allocations_of_steps() > 0 && windows < 100) ++windows;
  CHECK(windows < 100);
  CHECK(loss == before);
  set_threads(0);

  // The hook itself sees what operator new and aligned memory take.
  allocations = 0;
  counting = true;
  const Matrix probe(3, 3);
  void* volatile raw = ::operator new(8);
  counting = false;
  ::operator delete(raw);
  CHECK(allocations.load() == 2);
#endif
}
