// Fibers: one for each thread of a block, switched by hand, and known to the sanitizers.
//
// Under TSan every fiber is a thread of its own, ordered only by what the code under test does, so that a race is reported however the fibers
// happened to run. x86-64, System V calling convention.
#pragma once

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#include <cstddef>
#include <cstdlib>
#include <sys/mman.h>

#if __has_feature(address_sanitizer)
#define EMULATOR_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if __has_feature(thread_sanitizer)
#define EMULATOR_TSAN 1
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

namespace emulator {

constexpr size_t STACK_BYTES = 64 << 10;

// Zeroed pages; at `at`, fresh ones in place of those there.
inline char* pages(char* at, size_t bytes) {
    void* mapped = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);
    if (mapped == MAP_FAILED) abort();
    return static_cast<char*>(mapped);
}

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    void* fake_stack = nullptr;
    void* race_fiber = nullptr;
};

// Saves the callee-saved registers on the stack, and goes on where `to` was saved.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(.text
.weak emulator_switch
.type emulator_switch,@function
emulator_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
.size emulator_switch,.-emulator_switch
)");

// An edge of the order that TSan sees: what came before release(p) comes before what follows acquire(p).
inline void release([[maybe_unused]] void* address) {
#ifdef EMULATOR_TSAN
    __tsan_release(address);
#endif
}
inline void acquire([[maybe_unused]] void* address) {
#ifdef EMULATOR_TSAN
    __tsan_acquire(address);
#endif
}

// Prepares a fiber to begin in `entry` when it is first switched to.
inline void prepare(Fiber& fiber, void (*entry)()) {
#ifdef EMULATOR_TSAN
    pages(fiber.stack, STACK_BYTES);
    if (fiber.race_fiber) __tsan_destroy_fiber(fiber.race_fiber);
    fiber.race_fiber = __tsan_create_fiber(0);
#endif
    void** top = reinterpret_cast<void**>(fiber.stack + STACK_BYTES);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber.stack_pointer = top;
#ifdef EMULATOR_ASAN
    __asan_unpoison_memory_region(fiber.stack, STACK_BYTES);
    fiber.fake_stack = nullptr;
#endif
}

// Switches; `stack` and `bytes` are the target's. A fiber that switches for the last time gives up its fake stack.
inline void switch_fiber(Fiber& from, Fiber& to, [[maybe_unused]] const void* stack, [[maybe_unused]] size_t bytes, [[maybe_unused]] bool is_last) {
#ifdef EMULATOR_ASAN
    __sanitizer_start_switch_fiber(is_last ? nullptr : &from.fake_stack, stack, bytes);
#endif
#ifdef EMULATOR_TSAN
    __tsan_switch_to_fiber(to.race_fiber, 1 /* no synchronization */);
#endif
    emulator_switch(&from.stack_pointer, to.stack_pointer);
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

}  // namespace emulator
