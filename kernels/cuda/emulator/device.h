// CUDA's words and functions for the host compiler: included before the kernels' source, which is compiled unmodified.
//
// Only what the kernels use. Not modelled: cp.async, TMA, cooperative groups, fences between blocks that spin.
#pragma once
#include <tuple>

#include "block.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define threadIdx (emulator::BLOCK->current->index)
#define blockIdx (emulator::BLOCK->index)
#define blockDim (emulator::BLOCK->size)
#define gridDim (emulator::BLOCK->grid)
#define SHARED_ARRAY(Type, name, length) \
    static char name##_key;              \
    Type(&name)[length] = *reinterpret_cast<Type(*)[length]>(emulator::shared_array(&name##_key, sizeof(Type) * (length)))
#define SHARED_DYNAMIC(Type, name) Type* name = reinterpret_cast<Type*>(emulator::shared_dynamic())
#define __syncthreads() emulator::synchronize_block()
#define __syncwarp(mask) emulator::synchronize_warp(mask)

namespace emulator {

// What the lane `source_of(lane)` brings; of one that did not take part: undefined in CUDA, conspicuous here.
template <class Value, class Source>
Value shuffled(unsigned mask, Value value, Source source_of) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    Meeting meeting = meet(mask, bits);
    unsigned source = source_of(meeting.lane);
    bits = meeting.warp->mask >> source & 1 ? meeting.values[source] : 0xDEADDEADDEADDEADull;
    memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace emulator

template <class Value>
Value __shfl_down_sync(unsigned mask, Value value, unsigned distance) {
    return emulator::shuffled(mask, value, [=](unsigned lane) { return lane + distance > 31 ? lane : lane + distance; });
}

template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, unsigned distance) {
    return emulator::shuffled(mask, value, [=](unsigned lane) { return (lane ^ distance) & 31; });
}

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
    x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
    x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(x);
}

template <class Value>
Value atomicMin(Value* address, Value value) {
    Value old = __atomic_load_n(address, __ATOMIC_ACQUIRE);
    while (value < old && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
    return old;
}

template <class Value>
Value atomicMax(Value* address, Value value) {
    Value old = __atomic_load_n(address, __ATOMIC_ACQUIRE);
    while (old < value && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
    return old;
}

namespace emulator {

// A kernel as cuLaunchKernel sees it: sizes of its parameters, and how to run it with pointers to them.
struct Kernel {
    std::string name;
    std::vector<size_t> parameter_bytes;
    std::function<std::string(Launch, void**)> run;
};

inline std::vector<Kernel>& kernels() {
    static std::vector<Kernel> all;
    return all;
}

inline const Kernel* find_kernel(const std::string& name) {
    for (const Kernel& kernel : kernels())
        if (kernel.name == name) return &kernel;
    return nullptr;
}

template <class... Parameters>
bool add_kernel(const char* name, void (*function)(Parameters...)) {
    auto run_with = [name, function](Launch launch, void** arguments) {
        [[maybe_unused]] size_t next = 0;
        // Braces: evaluated from left to right.
        std::tuple<Parameters...> values{*static_cast<Parameters*>(arguments[next++])...};
        launch.name = name;
        return run(launch, [&] { std::apply(function, values); });
    };
    kernels().push_back({name, {sizeof(Parameters)...}, run_with});
    return true;
}

}  // namespace emulator

#define EMULATED_KERNEL(name) static const bool name##_is_added = emulator::add_kernel(#name, name)
