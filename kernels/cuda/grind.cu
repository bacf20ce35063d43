// Proof of work: the smallest nonce of a range whose challenge has no bit of `mask` set.
//
// The challenge is word 7 of the permutation of a prepared state with the nonce at word `position` < 8, as plonky2's Challenger gives it.
// *best starts at 2^64 - 1 or at an earlier answer. One thread a nonce, 256 a block; first + count <= p. CPU twin: grind in kernels/src/cpu/fri.rs.
#pragma once
#include "poseidon.cuh"

extern "C" __global__ void __launch_bounds__(256) grind_nonces(const u64* __restrict__ prepared, u64* best, u64 first, u64 mask, u32 count, u32 position) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    u64 state[POSEIDON_WIDTH];
#pragma unroll
    for (u32 i = 0; i < POSEIDON_WIDTH; i++) state[i] = i == position ? first + index : prepared[i];
    poseidon_permute(state);
    if ((gl_canonical(state[7]) & mask) == 0) atomicMin(best, first + index);
}
