// Poseidon of width 12 with plonky2's constants. Partial rounds are taken three at a time.
//
// The state is 12 values of F, canonical or not, before and after. Registers: the state is 24 of them; no function here spills.
// M is the matrix of a round: a circulant, and more in the corner. Bounds that depend on its entries are asserted where these are generated.
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

// image = C * x for C_rj = c_(j-r mod 6) of six coefficients, by x^6 - 1 = (x^3 - 1)(x^3 + 1): on the sums of x_i and x_(i+3), and on the differences.
// The coefficients given are those of both, halved.
__device__ __forceinline__ void poseidon_cyclic_six(int* image, const int* x) {
    constexpr int cyclic[3] = POSEIDON_MDS_CYCLIC_3, negacyclic[3] = POSEIDON_MDS_NEGACYCLIC_3;
    int sum[3], difference[3];
#pragma unroll
    for (int i = 0; i < 3; i++) sum[i] = x[i] + x[i + 3], difference[i] = x[i] - x[i + 3];
#pragma unroll
    for (int row = 0; row < 3; row++) {
        int of_sums = 0, of_differences = 0;
#pragma unroll
        for (int i = 0; i < 3; i++) {
            int from = (i + row) % 3;
            of_sums += cyclic[i] * sum[from];
            of_differences += (i + row < 3 ? negacyclic[i] : -negacyclic[i]) * difference[from];
        }
        image[row] = of_sums + of_differences;
        image[row + 3] = of_sums - of_differences;
    }
}

// x = M * x in integers, for 0 <= x_i < 2^22. By x^12 - 1 = (x^6 - 1)(x^6 + 1), as above: what is left to multiply by are small powers of two.
// The image is below 264 * 2^22 < 2^31, since rows of M add up to 264 at most. Before it: sums of two and of four are below 2^24 and make at most
// 64 * 2^24 = 2^30, differences of four 11 * 2^23 and differences of two 25 * 2^22 in absolute value. So no sum here leaves an int.
__device__ __forceinline__ void poseidon_mds_small(int* x) {
    constexpr int negacyclic[6] = POSEIDON_MDS_NEGACYCLIC_6;
    int sum[6], difference[6], of_sums[6], corner = POSEIDON_MDS_CORNER * x[0];
#pragma unroll
    for (int i = 0; i < 6; i++) sum[i] = x[i] + x[i + 6], difference[i] = x[i] - x[i + 6];
    poseidon_cyclic_six(of_sums, sum);
#pragma unroll
    for (int row = 0; row < 6; row++) {
        int of_differences = 0;
#pragma unroll
        for (int i = 0; i < 6; i++) of_differences += (i + row < 6 ? negacyclic[i] : -negacyclic[i]) * difference[(i + row) % 6];
        x[row] = of_sums[row] + of_differences;
        x[row + 6] = of_sums[row] - of_differences;
    }
    x[0] += corner;
}

// low + 2^32 * high, for low + (high >> 32) * EPSILON < 2^63. A carry out of the upper half leaves less than 2^31 there, so that adding EPSILON for it
// does not carry.
__device__ __forceinline__ u64 poseidon_fold(u64 low, u64 high) {
    u64 folded = low + (high >> 32) * GL_EPSILON;
    u32 shifted = (u32)high, upper = (u32)(folded >> 32) + shifted, correction = upper < shifted ? (u32)GL_EPSILON : 0;
    return (((u64)upper << 32) | (u32)folded) + correction;
}

// state = M * state, on limbs of 22, 21 and 21 bits.
__device__ __forceinline__ void poseidon_mds(u64* state) {
    int low[12], middle[12], high[12];
#pragma unroll
    for (int i = 0; i < 12; i++) {
        low[i] = (int)(state[i] & 0x3FFFFF);
        middle[i] = (int)((state[i] >> 22) & 0x1FFFFF);
        high[i] = (int)(state[i] >> 43);
    }
    poseidon_mds_small(low);
    poseidon_mds_small(middle);
    poseidon_mds_small(high);
    // low + 2^22 * middle < 2^31 + 2^52. 2^43 * high is 2^64 * (high >> 21) and 2^32 times a half, for poseidon_fold.
#pragma unroll
    for (int i = 0; i < 12; i++)
        state[i] = poseidon_fold((u32)low[i] + ((u64)(u32)middle[i] << 22), ((u64)((u32)high[i] >> 21) << 32) | ((u32)high[i] << 11));
}

// The factor times each half of the value, added to the sums of halves.
__device__ __forceinline__ void poseidon_add_halves(u64& low, u64& high, u64 value, u32 factor) {
    low += (u64)(u32)value * factor;
    high += (value >> 32) * factor;
}

// low + 2^32 * high + row * state.
__device__ __forceinline__ u64 poseidon_row(const u64* state, const u32* row, u64 low, u64 high) {
#pragma unroll
    for (int i = 0; i < 12; i++) poseidon_add_halves(low, high, state[i], row[i]);
    return poseidon_fold(low, high);
}

// Partial rounds first, first + 1, first + 2. Constants of all elements but the first are moved ahead into the full round that follows, so that with s
// the state after the first S-box the second's input is (M s)_0, and its output that plus d1; the third's (M^2 s)_0 + M_00 d1, and its output that plus
// d2; and the state is M^3 s + M^2 e_0 d1 + M e_0 d2 in the end.
//
// Rows of M^3 and both further factors add up to less than 2^25: sums of halves are below 2^57, and low + (high >> 32) * EPSILON is below 2^58.
__device__ __forceinline__ void poseidon_three_partial_rounds(u64* state, int first) {
    constexpr u32 matrix[144] = POSEIDON_MDS, square[144] = POSEIDON_MDS_SQUARE, cube[144] = POSEIDON_MDS_CUBE;
    state[0] = poseidon_sbox(gl_add_canonical(state[0], POSEIDON_PARTIAL[first]));
    u64 second = poseidon_row(state, matrix, 0, 0);
    u64 d1 = gl_sub(poseidon_sbox(gl_add_canonical(second, POSEIDON_PARTIAL[first + 1])), second);
    u64 third = poseidon_row(state, square, (u64)(u32)d1 * matrix[0], (d1 >> 32) * matrix[0]);
    u64 d2 = gl_sub(poseidon_sbox(gl_add_canonical(third, POSEIDON_PARTIAL[first + 2])), third);
    u64 image[12];
#pragma unroll
    for (int row = 0; row < 12; row++) {
        u64 low = 0, high = 0;
        poseidon_add_halves(low, high, d1, square[12 * row]);
        poseidon_add_halves(low, high, d2, matrix[12 * row]);
        image[row] = poseidon_row(state, cube + 12 * row, low, high);
    }
#pragma unroll
    for (int i = 0; i < 12; i++) state[i] = image[i];
}

// All 22.
__device__ __forceinline__ void poseidon_partial_rounds(u64* state) {
#pragma unroll 1
    for (int first = 0; first < 21; first += 3) poseidon_three_partial_rounds(state, first);
    state[0] = poseidon_sbox(gl_add_canonical(state[0], POSEIDON_PARTIAL[21]));
    poseidon_mds(state);
}

// Four of the eight full rounds.
__device__ __forceinline__ void poseidon_full_rounds(u64* state, int first) {
#pragma unroll 1
    for (int round = first; round < first + 4; round++) {
#pragma unroll
        for (int i = 0; i < 12; i++) state[i] = poseidon_sbox(gl_add_canonical(state[i], POSEIDON_FULL[12 * round + i]));
        poseidon_mds(state);
    }
}

// Full rounds before and after are the same machine code: less of it to fetch.
__device__ __forceinline__ void poseidon_permute(u64* state) {
#pragma unroll 1
    for (int first = 0; first < 8; first += 4) {
        poseidon_full_rounds(state, first);
        if (first == 0) poseidon_partial_rounds(state);
    }
}
