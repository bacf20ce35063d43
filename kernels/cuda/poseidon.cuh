// Poseidon of width 12 with plonky2's constants, by its fast partial rounds.
//
// The state is 12 values of F, canonical or not, before and after. Registers: the state is 24 of them; no function here spills.
// CPU twin: plonky2's Poseidon::poseidon; constants are generated from it (poseidon_constants.cuh).
#pragma once
#include "gl64.cuh"
#include "poseidon_constants.cuh"

constexpr int POSEIDON_WIDTH = 12;
constexpr int POSEIDON_RATE = 8;
constexpr int DIGEST_WORDS = 4;

__device__ __forceinline__ u64 poseidon_sbox(u64 x) {
    u64 x2 = gl_mul(x, x), x4 = gl_mul(x2, x2);
    return gl_mul(gl_mul(x, x2), x4);
}

// The circulant matrix with its diagonal, on 32-bit halves: row sums of both stay below 2^41, so that a single reduction is due.
__device__ __forceinline__ void poseidon_mds(u64* state) {
    constexpr u32 circulant[12] = POSEIDON_MDS_CIRCULANT;
    constexpr u32 diagonal[12] = POSEIDON_MDS_DIAGONAL;
    u32 low[12], high[12];
#pragma unroll
    for (int i = 0; i < 12; i++) {
        low[i] = (u32)state[i];
        high[i] = (u32)(state[i] >> 32);
    }
#pragma unroll
    for (int row = 0; row < 12; row++) {
        u64 low_sum = 0, high_sum = 0;
#pragma unroll
        for (int i = 0; i < 12; i++) {
            u32 factor = circulant[i] + (i == 0 ? diagonal[row] : 0);
            low_sum += (u64)low[(i + row) % 12] * factor;
            high_sum += (u64)high[(i + row) % 12] * factor;
        }
        // low_sum + 2^32 * high_sum; the part of high_sum above 2^32 is worth EPSILON each.
        u64 above = high_sum >> 32, folded = low_sum + (above << 32) - above, shifted = high_sum << 32, sum = folded + shifted;
        state[row] = sum < shifted ? sum + GL_EPSILON : sum;
    }
}

__device__ __forceinline__ void poseidon_full_rounds(u64* state, int first) {
#pragma unroll 1
    for (int round = first; round < first + 4; round++) {
#pragma unroll
        for (int i = 0; i < 12; i++) state[i] = poseidon_sbox(gl_add_canonical(state[i], POSEIDON_ROUND[12 * round + i]));
        poseidon_mds(state);
    }
}

__device__ __forceinline__ void poseidon_partial_rounds(u64* state) {
#pragma unroll
    for (int i = 0; i < 12; i++) state[i] = gl_add_canonical(state[i], POSEIDON_PARTIAL_FIRST[i]);
    u64 mixed[11];
#pragma unroll
    for (int column = 0; column < 11; column++) {
        Wide sum = {0, 0, 0};
#pragma unroll
        for (int row = 0; row < 11; row++) wide_add_product(sum, state[row + 1], POSEIDON_PARTIAL_INITIAL[row * 11 + column]);
        mixed[column] = wide_reduce(sum);
    }
#pragma unroll
    for (int i = 0; i < 11; i++) state[i + 1] = mixed[i];
#pragma unroll 1
    for (int round = 0; round < 22; round++) {
        u64 first = gl_add_canonical(poseidon_sbox(state[0]), POSEIDON_PARTIAL_ROUND[round]);
        Wide sum = {0, 0, 0};
        wide_add_product(sum, first, POSEIDON_MDS_CORNER);
#pragma unroll
        for (int i = 0; i < 11; i++) {
            wide_add_product(sum, state[i + 1], POSEIDON_PARTIAL_W[round * 11 + i]);
            state[i + 1] = gl_mul_add(first, POSEIDON_PARTIAL_V[round * 11 + i], state[i + 1]);
        }
        state[0] = wide_reduce(sum);
    }
}

__device__ __forceinline__ void poseidon_permute(u64* state) {
    poseidon_full_rounds(state, 0);
    poseidon_partial_rounds(state);
    poseidon_full_rounds(state, 26);
}
