// Steps on polynomials in coefficient form: powers, evaluations, combinations, linear recurrences, folding.
//
// Elements of K lie by coordinate: n words of c0, then n words of c1. Values are canonical where they are stored.
// Grids are one-dimensional and cover their items with 256 threads a block.
// CPU twins: kernels/src/cpu/wide.rs, fri.rs, and the running sum of sums.rs.
#pragma once
#include "gl64.cuh"

__device__ __forceinline__ Ext ext_at(const u64* values, u64 n, u64 index) { return {values[index], values[n + index]}; }

__device__ __forceinline__ void ext_store(u64* values, u64 n, u64 index, Ext value) {
    values[index] = gl_canonical(value.c0);
    values[n + index] = gl_canonical(value.c1);
}

constexpr u32 POWERS_PER_THREAD = 16;

// powers[i] = base^i for i < n; squares hold base^(2^j) by coordinate, j < 32. One thread for 16 consecutive powers.
extern "C" __global__ void __launch_bounds__(256) ext_powers(const u64* __restrict__ squares, u64* __restrict__ powers, u32 n) {
    u32 thread = blockIdx.x * blockDim.x + threadIdx.x, first = thread * POWERS_PER_THREAD;
    if (first >= n) return;
    Ext base = ext_at(squares, 32, 0), power = {1, 0};
    for (u32 bit = 0; bit < 32; bit++)
        if (first >> bit & 1) power = ext_mul(power, ext_at(squares, 32, bit));
    for (u32 i = first; i < n && i < first + POWERS_PER_THREAD; i++) {
        ext_store(powers, n, i, power);
        power = ext_mul(power, base);
    }
}

// The sum of `value` over a block of 256 threads, in thread 0. Every thread calls it.
__device__ __forceinline__ u64 block_sum(u64 value, u64* shared) {
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (u32 distance = 16; distance; distance >>= 1) value = gl_add(value, __shfl_down_sync(0xffffffffu, value, distance));
    if (lane == 0) shared[warp] = value;
    __syncthreads();
    value = threadIdx.x < 8 ? shared[threadIdx.x] : 0;
    if (warp == 0)
        for (u32 distance = 4; distance; distance >>= 1) value = gl_add(value, __shfl_down_sync(0xffffffffu, value, distance));
    __syncthreads();
    return value;
}

// parts[column * n_chunks + chunk] = sum of coefficients * powers over a chunk of n / n_chunks rows; coordinate 1 follows after all columns.
// One block of 256 threads a column and chunk.
extern "C" __global__ void __launch_bounds__(256)
    evaluate_columns(const u64* __restrict__ coefficients, const u64* __restrict__ powers, u64* __restrict__ parts, u32 n, u32 n_chunks) {
    SHARED_ARRAY(u64, shared, 8);
    u32 column = blockIdx.x / n_chunks, chunk = blockIdx.x % n_chunks, rows = n / n_chunks;
    Wide c0 = {0, 0, 0}, c1 = {0, 0, 0};
    for (u32 row = chunk * rows + threadIdx.x; row < (chunk + 1) * rows; row += blockDim.x) {
        u64 coefficient = coefficients[(u64)column * n + row];
        wide_add_product(c0, coefficient, powers[row]);
        wide_add_product(c1, coefficient, powers[(u64)n + row]);
    }
    u64 sum0 = block_sum(wide_reduce(c0), shared), sum1 = block_sum(wide_reduce(c1), shared);
    if (threadIdx.x == 0) ext_store(parts, gridDim.x, blockIdx.x, {sum0, sum1});
}

// sums[chunk] = sum over the chunk's columns of weight * column, as 2n words; weights by coordinate, n_columns each. One thread a row and chunk.
extern "C" __global__ void __launch_bounds__(256) combine_columns(const u64* __restrict__ columns, const u64* __restrict__ weights,
                                                                  u64* __restrict__ sums, u32 n, u32 n_columns, u32 n_chunks) {
    u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    u32 row = (u32)(item % n), chunk = (u32)(item / n);
    if (chunk >= n_chunks) return;
    u32 per_chunk = (n_columns + n_chunks - 1) / n_chunks, first = chunk * per_chunk;
    Wide c0 = {0, 0, 0}, c1 = {0, 0, 0};
    // More at once spills on sm_100.
#pragma unroll 2
    for (u32 column = first; column < n_columns && column < first + per_chunk; column++) {
        u64 value = columns[(u64)column * n + row];
        wide_add_product(c0, value, weights[column]);
        wide_add_product(c1, value, weights[(u64)n_columns + column]);
    }
    ext_store(sums + 2 * (u64)chunk * n, n, row, {wide_reduce(c0), wide_reduce(c1)});
}

// sums[0] += sums[1] + ... + sums[n_chunks - 1], each of n_words words. One thread a word.
extern "C" __global__ void __launch_bounds__(256) sum_chunks(u64* sums, u32 n_words, u32 n_chunks) {
    u32 word = blockIdx.x * blockDim.x + threadIdx.x;
    if (word >= n_words) return;
    u64 sum = sums[word];
    for (u32 chunk = 1; chunk < n_chunks; chunk++) sum = gl_add(sum, sums[(u64)chunk * n_words + word]);
    sums[word] = gl_canonical(sum);
}

// target = target * (a0, a1) + values * (b0, b1), elements of K. One thread an element; target and values do not overlap.
extern "C" __global__ void __launch_bounds__(256)
    ext_scale_add(u64* __restrict__ target, const u64* __restrict__ values, u64 a0, u64 a1, u64 b0, u64 b1, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    ext_store(target, n, i, ext_add(ext_mul(ext_at(target, n, i), {a0, a1}), ext_mul(ext_at(values, n, i), {b0, b1})));
}

// Element of step j of a recurrence over n elements, from the first or from the last.
__device__ __forceinline__ u32 step_index(u32 j, u32 n, u32 descends) { return descends ? n - 1 - j : j; }

// Totals of a recurrence carry <- carry * ratio + (value + offset) over chunks of `length` steps, each from carry 0. One thread a chunk.
extern "C" __global__ void __launch_bounds__(256)
    recurrence_totals(const u64* __restrict__ values, u64* __restrict__ totals, u64 ratio0, u64 ratio1, u64 offset0, u64 offset1, u32 n,
                      u32 length, u32 descends) {
    u32 chunk = blockIdx.x * blockDim.x + threadIdx.x, n_chunks = (n + length - 1) / length;
    if (chunk >= n_chunks) return;
    Ext carry = {0, 0};
    for (u32 j = chunk * length; j < n && j < (chunk + 1) * length; j++) {
        Ext value = ext_add(ext_at(values, n, step_index(j, n, descends)), {offset0, offset1});
        carry = ext_add(ext_mul(carry, {ratio0, ratio1}), value);
    }
    ext_store(totals, n_chunks, chunk, carry);
}

// results = the carry before each step, given the carry before each chunk (`carries`, n_chunks elements). In place is allowed. One thread a
// chunk. The first chunk's carry is read like the others.
extern "C" __global__ void __launch_bounds__(256)
    recurrence_apply(const u64* values, u64* results, const u64* __restrict__ carries, u64 ratio0, u64 ratio1, u64 offset0, u64 offset1, u32 n,
                     u32 length, u32 descends) {
    u32 chunk = blockIdx.x * blockDim.x + threadIdx.x, n_chunks = (n + length - 1) / length;
    if (chunk >= n_chunks) return;
    Ext carry = ext_at(carries, n_chunks, chunk);
    for (u32 j = chunk * length; j < n && j < (chunk + 1) * length; j++) {
        u32 i = step_index(j, n, descends);
        Ext value = ext_add(ext_at(values, n, i), {offset0, offset1});
        ext_store(results, n, i, carry);
        carry = ext_add(ext_mul(carry, {ratio0, ratio1}), value);
    }
}

// folded[i] = sum over j < 2^log_arity of beta^j * coefficients[i * 2^log_arity + j], for i < n. One thread an element.
extern "C" __global__ void __launch_bounds__(256) fold_coefficients(const u64* __restrict__ coefficients, u64* __restrict__ folded, u64 beta0,
                                                                    u64 beta1, u32 n, u32 log_arity) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 length = (u64)n << log_arity, first = (u64)i << log_arity;
    Ext sum = {0, 0};
    for (u32 j = 1u << log_arity; j-- > 0;) sum = ext_add(ext_mul(sum, {beta0, beta1}), ext_at(coefficients, length, first + j));
    ext_store(folded, n, i, sum);
}

// folded[row] = ratios[row / period] * source[reversed (row mod period)]: source is a column of n = 2^log_size values in bit-reversed order,
// ratios are n / period elements of K. One thread a row. CPU twin: fold in kernels/src/cpu/project.rs.
extern "C" __global__ void __launch_bounds__(256) fold_column(const u64* __restrict__ source, const u64* __restrict__ ratios,
                                                              u64* __restrict__ folded, u32 log_size, u32 period) {
    u32 row = blockIdx.x * blockDim.x + threadIdx.x, n = 1u << log_size;
    if (row >= n) return;
    u64 value = source[reverse_bits(row % period, log_size)];
    ext_store(folded, n, row, ext_scale(ext_at(ratios, n / period, row / period), value));
}
