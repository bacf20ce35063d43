// Faults planted to show that the sanitizers and the emulator see what they should: planted FAULT. Exits with 0 if nobody complains.
#include <cstdio>

#include "device.h"

typedef unsigned long long u64;

__global__ void sound(u64* words) {
    SHARED_ARRAY(u64, shared, 64);
    shared[threadIdx.x] = threadIdx.x;
    __syncthreads();
    words[threadIdx.x] = shared[(threadIdx.x + 1) & 63];
    u64 word = words[threadIdx.x];
    __syncwarp(~0u);
    words[threadIdx.x ^ 1] = __shfl_xor_sync(~0u, word, 1);
}
// A shuffle alone orders nothing.
__global__ void warp_race(u64* words) {
    u64 word = words[threadIdx.x];
    words[threadIdx.x ^ 1] = __shfl_xor_sync(~0u, word, 1);
}
__global__ void shared_race(u64* words) {
    SHARED_ARRAY(u64, shared, 64);
    shared[threadIdx.x] = threadIdx.x;
    words[threadIdx.x] = shared[(threadIdx.x + 1) & 63];
}
__global__ void global_race(u64* words) { words[0] = threadIdx.x; }
__global__ void shared_out_of_bounds(u64* words) {
    SHARED_ARRAY(u64, shared, 64);
    shared[threadIdx.x + 1] = threadIdx.x;
    __syncthreads();
    words[threadIdx.x] = shared[threadIdx.x];
}
__global__ void global_out_of_bounds(u64* words) { words[threadIdx.x + 1] = threadIdx.x; }
__global__ void divergent_barrier(u64* words) {
    if (threadIdx.x >= 33) return;
    __syncthreads();
    words[threadIdx.x] = threadIdx.x;
}
__global__ void bad_shift(u64* words) { words[threadIdx.x] = 1 << (threadIdx.x + 1); }

EMULATED_KERNEL(sound);
EMULATED_KERNEL(warp_race);
EMULATED_KERNEL(shared_race);
EMULATED_KERNEL(global_race);
EMULATED_KERNEL(shared_out_of_bounds);
EMULATED_KERNEL(global_out_of_bounds);
EMULATED_KERNEL(divergent_barrier);
EMULATED_KERNEL(bad_shift);

int main(int count, char** words) {
    const emulator::Kernel* kernel = count == 2 ? emulator::find_kernel(words[1]) : nullptr;
    if (!kernel) return 2;
    u64* memory = new u64[64];
    void* arguments[] = {&memory};
    std::string error = kernel->run({"", {1, 1, 1}, {64, 1, 1}, 0, 1, 0}, arguments);
    delete[] memory;
    if (!error.empty()) printf("%s\n", error.c_str());
    return error.empty() ? 0 : 1;
}
