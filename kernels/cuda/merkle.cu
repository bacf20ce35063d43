// Merkle trees with plonky2's digests: leaves, levels, and the answer to a query.
//
// Digests lie level after level, leaves' first: 4 words each, canonical. One thread a digest, 256 threads a block, a grid that covers them.
// CPU twin: kernels/src/cpu/tree.rs.
#pragma once
#include "poseidon.cuh"

// Digest of a leaf of `length` values, read by at(index): copied if it is at most 4 long, else absorbed in overwrite mode.
template <class At>
__device__ __forceinline__ void hash_leaf(u64* digest, u32 length, At at) {
    u64 state[POSEIDON_WIDTH];
#pragma unroll
    for (int i = 0; i < POSEIDON_WIDTH; i++) state[i] = 0;
    if (length <= DIGEST_WORDS) {
#pragma unroll
        for (u32 i = 0; i < DIGEST_WORDS; i++)
            if (i < length) state[i] = at(i);
    } else {
#pragma unroll 1
        for (u32 first = 0; first < length; first += POSEIDON_RATE) {
#pragma unroll
            for (u32 i = 0; i < POSEIDON_RATE; i++)
                if (first + i < length) state[i] = at(first + i);
            poseidon_permute(state);
        }
    }
#pragma unroll
    for (int i = 0; i < DIGEST_WORDS; i++) digest[i] = gl_canonical(state[i]);
}

// Leaf i is row i of `n_columns` columns of `n_leaves` values, column after column. columns and digests do not overlap.
extern "C" __global__ void __launch_bounds__(256)
    merkle_column_leaves(const u64* __restrict__ columns, u64* __restrict__ digests, u32 n_leaves, u32 n_columns) {
    u32 leaf = blockIdx.x * blockDim.x + threadIdx.x;
    if (leaf >= n_leaves) return;
    hash_leaf(digests + (u64)leaf * DIGEST_WORDS, n_columns, [=](u32 column) { return columns[(u64)column * n_leaves + leaf]; });
}

// Leaf i is a coset of 2^log_arity elements of K: values hold coordinate 0 of all n_leaves * 2^log_arity points, then coordinate 1.
extern "C" __global__ void __launch_bounds__(256)
    merkle_coset_leaves(const u64* __restrict__ values, u64* __restrict__ digests, u32 n_leaves, u32 log_arity) {
    u32 leaf = blockIdx.x * blockDim.x + threadIdx.x;
    if (leaf >= n_leaves) return;
    u64 n_values = (u64)n_leaves << log_arity, first = (u64)leaf << log_arity;
    hash_leaf(digests + (u64)leaf * DIGEST_WORDS, 2u << log_arity, [=](u32 i) { return values[(i & 1) * n_values + first + (i >> 1)]; });
}

// Parent `node` of children 2 * node and 2 * node + 1.
__device__ __forceinline__ void hash_pair(const u64* children, u64* parents, u32 node) {
    u64 state[POSEIDON_WIDTH];
#pragma unroll
    for (int i = 0; i < POSEIDON_WIDTH; i++) state[i] = i < 2 * DIGEST_WORDS ? children[(u64)node * 2 * DIGEST_WORDS + i] : 0;
    poseidon_permute(state);
#pragma unroll
    for (int i = 0; i < DIGEST_WORDS; i++) parents[(u64)node * DIGEST_WORDS + i] = gl_canonical(state[i]);
}

// Parent i of children 2i and 2i + 1. parents does not overlap children.
extern "C" __global__ void __launch_bounds__(256) merkle_level(const u64* __restrict__ children, u64* __restrict__ parents, u32 n_parents) {
    u32 node = blockIdx.x * blockDim.x + threadIdx.x;
    if (node < n_parents) hash_pair(children, parents, node);
}

// All levels above one of n_digests, up to that of n_cap < n_digests; both are powers of two. digests holds the levels one after another, that of
// n_digests first and given. One block of any size: it writes a level, waits, and reads it.
extern "C" __global__ void __launch_bounds__(256) merkle_top(u64* digests, u32 n_digests, u32 n_cap) {
#pragma unroll 1
    for (u32 n_parents = n_digests / 2; n_parents >= n_cap && n_parents > 0; n_parents /= 2) {
        u64* parents = digests + (u64)2 * n_parents * DIGEST_WORDS;
#pragma unroll 1
        for (u32 node = threadIdx.x; node < n_parents; node += blockDim.x) hash_pair(digests, parents, node);
        __syncthreads();
        digests = parents;
    }
}

// Answers to queries: for each of n_queries leaves its row of `length` words, read by at(leaf, i), then the `height` siblings from the leaf up. One
// thread a word, in a grid that covers them; leaves[q] < n_leaves. Nothing overlaps answers.
template <class At>
__device__ __forceinline__ void answer_queries(const u64* __restrict__ digests, const u64* __restrict__ leaves, u64* __restrict__ answers,
                                               u32 n_leaves, u32 length, u32 height, u32 n_queries, At at) {
    u32 n_words = length + height * DIGEST_WORDS, index = blockIdx.x * blockDim.x + threadIdx.x;
    u32 query = index / n_words, i = index % n_words;
    if (query >= n_queries) return;
    u32 leaf = (u32)leaves[query];
    if (i < length) {
        answers[index] = at(leaf, i);
    } else {
        u32 level = (i - length) / DIGEST_WORDS, word = (i - length) % DIGEST_WORDS;
        // Levels of n, n/2, ... digests: level l begins at 2n - (2n >> l).
        u64 begin = 2 * (u64)n_leaves - (2 * (u64)n_leaves >> level);
        answers[index] = digests[(begin + ((leaf >> level) ^ 1)) * DIGEST_WORDS + word];
    }
}

// Of a tree over rows, as merkle_column_leaves.
extern "C" __global__ void __launch_bounds__(256)
    merkle_column_answers(const u64* __restrict__ columns, const u64* __restrict__ digests, const u64* __restrict__ leaves,
                          u64* __restrict__ answers, u32 n_leaves, u32 n_columns, u32 height, u32 n_queries) {
    answer_queries(digests, leaves, answers, n_leaves, n_columns, height, n_queries,
                   [=](u32 leaf, u32 column) { return columns[(u64)column * n_leaves + leaf]; });
}

// Of a tree over cosets, as merkle_coset_leaves; the coordinates of a point side by side.
extern "C" __global__ void __launch_bounds__(256)
    merkle_coset_answers(const u64* __restrict__ values, const u64* __restrict__ digests, const u64* __restrict__ leaves,
                         u64* __restrict__ answers, u32 n_leaves, u32 log_arity, u32 height, u32 n_queries) {
    u64 n_values = (u64)n_leaves << log_arity;
    answer_queries(digests, leaves, answers, n_leaves, 2u << log_arity, height, n_queries,
                   [=](u32 leaf, u32 i) { return values[(i & 1) * n_values + ((u64)leaf << log_arity) + (i >> 1)]; });
}
