// fiber.h - a stack of its own for each simulated CUDA thread, and the switch between them.
//
// x86-64: six callee-saved registers are pushed, the stack pointers exchanged, six popped. Elsewhere: ucontext. AddressSanitizer
// is told of every switch, so that its stack checks keep working. A kernel body changes no floating-point control word, so none
// is saved. SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "tweedie/core/check.h"

#if defined(__x86_64__) && !defined(TWEEDIE_SIMT_UCONTEXT)
#define TWEEDIE_SIMT_ASSEMBLY
#else
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define TWEEDIE_SIMT_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TWEEDIE_SIMT_ASAN
#endif
#endif
#ifdef TWEEDIE_SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace tweedie::kernels::simt {

#ifdef TWEEDIE_SIMT_ASSEMBLY
// noipa: the body says nothing of the registers that other threads write meanwhile; gcc must not conclude that it spares them.
#ifdef __clang__
#define TWEEDIE_SIMT_OPAQUE gnu::naked, gnu::noinline
#else
#define TWEEDIE_SIMT_OPAQUE gnu::naked, gnu::noinline, gnu::noipa
#endif
// switch_stack(save, next): rdi = where this side's stack pointer goes, rsi = the other side's.
[[TWEEDIE_SIMT_OPAQUE]] inline void switch_stack(void** /*save*/, void* /*next*/) {
  __asm__ volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#endif

/// One side of a pair of contexts: resume() runs the fiber until it calls pause() or its function returns.
class Fiber {
 public:
  static constexpr std::size_t kStack = std::size_t{256} << 10;  // sanitizers' frames are large

  Fiber() : stack_(new unsigned char[kStack]) {}
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
#ifdef TWEEDIE_SIMT_ASAN
    __asan_unpoison_memory_region(stack_.get(), kStack);
#endif
  }

  /// Makes the next resume() call function(argument). The function must not throw.
  void start(void (*function)(void*), void* argument) {
    function_ = function;
    argument_ = argument;
    done_ = false;
#ifdef TWEEDIE_SIMT_ASAN
    __asan_unpoison_memory_region(stack_.get(), kStack);
    fake_ = nullptr;
#endif
#ifdef TWEEDIE_SIMT_ASSEMBLY
    const std::uintptr_t top = (reinterpret_cast<std::uintptr_t>(stack_.get()) + kStack) & ~std::uintptr_t{15};
    auto* slot = reinterpret_cast<void**>(top);
    *--slot = nullptr;  // entry's "return address": it never returns, and the stack is aligned as after a call
    *--slot = reinterpret_cast<void*>(&Fiber::entry);
    for (int i = 0; i < 6; ++i) *--slot = nullptr;
    mine_ = slot;
#else
    getcontext(&mine_);
    mine_.uc_stack.ss_sp = stack_.get();
    mine_.uc_stack.ss_size = kStack;
    mine_.uc_link = nullptr;
    makecontext(&mine_, &Fiber::entry, 0);
#endif
  }

  void resume() {
    starting() = this;
#ifdef TWEEDIE_SIMT_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_.get(), kStack);
#endif
#ifdef TWEEDIE_SIMT_ASSEMBLY
    switch_stack(&theirs_, mine_);
#else
    swapcontext(&theirs_, &mine_);
#endif
#ifdef TWEEDIE_SIMT_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  /// From within: back to resume()'s caller.
  void pause() {
#ifdef TWEEDIE_SIMT_ASAN
    __sanitizer_start_switch_fiber(done_ ? nullptr : &fake_, their_bottom_, their_size_);
#endif
#ifdef TWEEDIE_SIMT_ASSEMBLY
    switch_stack(&mine_, theirs_);
#else
    swapcontext(&mine_, &theirs_);
#endif
#ifdef TWEEDIE_SIMT_ASAN
    __sanitizer_finish_switch_fiber(fake_, &their_bottom_, &their_size_);
#endif
  }

  bool done() const { return done_; }

 private:
  static Fiber*& starting() {
    static thread_local Fiber* fiber = nullptr;
    return fiber;
  }
  static void entry() {
    Fiber* const self = starting();
#ifdef TWEEDIE_SIMT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &self->their_bottom_, &self->their_size_);
#endif
    self->function_(self->argument_);
    self->done_ = true;
    self->pause();
  }

  std::unique_ptr<unsigned char[]> stack_;
  void (*function_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool done_ = true;
#ifdef TWEEDIE_SIMT_ASSEMBLY
  void *mine_ = nullptr, *theirs_ = nullptr;
#else
  ucontext_t mine_, theirs_;
#endif
#ifdef TWEEDIE_SIMT_ASAN
  void* fake_ = nullptr;
  const void* their_bottom_ = nullptr;
  std::size_t their_size_ = 0;
#endif
};

}  // namespace tweedie::kernels::simt
