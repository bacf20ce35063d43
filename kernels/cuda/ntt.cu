// Transforms between coefficients and values on a coset, values in bit-reversed order: the leaf order of plonky2's trees.
//
// The remainder tree of kernels/src/cpu/transform.rs (its CPU twin): stage l splits block T, of 2h values, h = n / 2^(l+1), by
// (a, b) -> (a + c*b, a - c*b), c = shift^h * R[T], R[T] = w_(2^(m+1))^rev_m(T) for any m with T < 2^m. Coset u of an extended domain is block u
// of the tree over the whole domain, so that T = u * 2^l + local block and all cosets share one shift.
//
// Twiddles in two levels: R[T] = R[T mod 2^10] * R[T - T mod 2^10]; low[l * 2^10 + i] = shift^h * R[i] (the coset costs nothing), high[j] =
// R[j * 2^10]. For the inverse both hold the inverses. All are canonical.
//
// A launch does r stages from l0 on tiles of 2^(r+c) <= 2^12 values in shared memory: 2^r rows at stride 2^(k-l0-r), 2^c neighbours of each,
// so that global memory is read and written in runs of 2^c. Steps of up to four stages hold 2, 4, 8 or 16 values a thread in registers.
// Sizes 2^0 to 2^27 (indices of one column fit u32). Grid: tiles * columns * cosets, one dimension; 256 threads or fewer, a power of two;
// shared memory: NTT_PADDED(2^(r+c)) words.
#pragma once
#include "gl64.cuh"

constexpr u32 NTT_LOW_BITS = 10;

// One word in 17 is left free, so that runs of 16 values begin in different banks.
__device__ __forceinline__ u32 ntt_padded(u32 element) { return element + (element >> 4); }

struct NttTile {
    u32 first_stage, row_bits;
    // Elements of a tile: row << row_shift | neighbour, or neighbour << row_bits | row when gathering (row_shift 0).
    u32 row_shift, tile_bits;
    // The block of stage first_stage that a row belongs to; when gathering it depends on the neighbour.
    u32 block, neighbour_bits, gathers;
    u32 coset;
};

__device__ __forceinline__ u32 ntt_block(const NttTile& tile, u32 element) {
    if (!tile.gathers) return tile.block;
    u32 neighbour = element >> tile.row_bits;
    return (reverse_bits(neighbour, tile.neighbour_bits) << (tile.first_stage - tile.neighbour_bits)) | tile.block;
}

__device__ __forceinline__ u64 ntt_twiddle(const u64* __restrict__ low, const u64* __restrict__ high, u32 stage, u32 block) {
    u64 twiddle = low[(stage << NTT_LOW_BITS) | (block & ((1u << NTT_LOW_BITS) - 1))];
    u32 above = block >> NTT_LOW_BITS;
    return above ? gl_mul(twiddle, high[above]) : twiddle;
}

// The values of one group, and the block of the tree that they make up at stage first_stage + done.
template <int STAGES>
struct NttGroup {
    u64 values[1 << STAGES];
    u32 base, stride, stage, block;

    __device__ __forceinline__ NttGroup(const NttTile& tile, u32 group, u32 done) {
        u32 position = tile.row_shift + tile.row_bits - done - STAGES;
        base = ((group >> position) << (position + STAGES)) | (group & ((1u << position) - 1));
        stride = 1u << position;
        stage = tile.first_stage + done;
        u32 row = (base >> tile.row_shift) & ((1u << tile.row_bits) - 1);
        u32 local = (ntt_block(tile, base) << done) | (row >> (tile.row_bits - done));
        block = (tile.coset << stage) | local;
    }

    __device__ __forceinline__ void load(const u64* shared) {
#pragma unroll
        for (int i = 0; i < 1 << STAGES; i++) values[i] = shared[ntt_padded(base + i * stride)];
    }

    __device__ __forceinline__ void store(u64* shared) const {
#pragma unroll
        for (int i = 0; i < 1 << STAGES; i++) shared[ntt_padded(base + i * stride)] = values[i];
    }
};

template <int STAGES>
__device__ __forceinline__ void ntt_split(u64* shared, const NttTile& tile, u32 done, const u64* low, const u64* high) {
    for (u32 g = threadIdx.x; g < 1u << (tile.tile_bits - STAGES); g += blockDim.x) {
        NttGroup<STAGES> group(tile, g, done);
        group.load(shared);
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) {
            const int half = (1 << STAGES) >> (stage + 1);
            u64 twiddle = 0;
            // Loops of constant length only, so that values stay in registers.
#pragma unroll
            for (int pair = 0; pair < (1 << STAGES) / 2; pair++) {
                const int block = pair / half, i = 2 * half * block + pair % half;
                if (pair % half == 0) twiddle = ntt_twiddle(low, high, group.stage + stage, (group.block << stage) | block);
                u64 a = group.values[i], b = gl_mul(group.values[i + half], twiddle);
                group.values[i] = gl_add(a, b);
                group.values[i + half] = gl_sub(a, b);
            }
        }
        group.store(shared);
    }
    __syncthreads();
}

template <int STAGES>
__device__ __forceinline__ void ntt_join(u64* shared, const NttTile& tile, u32 done, const u64* low, const u64* high) {
    for (u32 g = threadIdx.x; g < 1u << (tile.tile_bits - STAGES); g += blockDim.x) {
        NttGroup<STAGES> group(tile, g, done);
        group.load(shared);
#pragma unroll
        for (int stage = STAGES - 1; stage >= 0; stage--) {
            const int half = (1 << STAGES) >> (stage + 1);
            u64 twiddle = 0;
#pragma unroll
            for (int pair = 0; pair < (1 << STAGES) / 2; pair++) {
                const int block = pair / half, i = 2 * half * block + pair % half;
                if (pair % half == 0) twiddle = ntt_twiddle(low, high, group.stage + stage, (group.block << stage) | block);
                u64 u = group.values[i], v = group.values[i + half];
                group.values[i] = gl_add(u, v);
                group.values[i + half] = gl_mul(gl_sub(u, v), twiddle);
            }
        }
        group.store(shared);
    }
    __syncthreads();
}

// Position in the column of an element of a strided tile: `neighbours` counts tiles along the low part.
struct NttAddress {
    u32 base, row_stride_bits, neighbour_bits;

    __device__ __forceinline__ u32 at(u32 element) const {
        return base + ((element >> neighbour_bits) << row_stride_bits) + (element & ((1u << neighbour_bits) - 1));
    }
};

__device__ __forceinline__ NttAddress ntt_strided(NttTile& tile, u32 log_size, u32 index) {
    u32 below = log_size - tile.first_stage - tile.row_bits, neighbour_tiles = below - tile.neighbour_bits;
    tile.row_shift = tile.neighbour_bits;
    tile.block = index >> neighbour_tiles;
    u32 low = (index & ((1u << neighbour_tiles) - 1)) << tile.neighbour_bits;
    return {(tile.block << (log_size - tile.first_stage)) + low, below, tile.neighbour_bits};
}

// Coefficients to values. Column q, coset u are read from source + (u64)(expands ? q : q * cosets + u) * 2^k and written to destination +
// (q * cosets + u) * 2^k. In place is allowed unless it expands: a block reads its tile before it writes it.
extern "C" __global__ void __launch_bounds__(256)
    ntt_forward(const u64* source, u64* destination, const u64* __restrict__ low, const u64* __restrict__ high, u32 log_size, u32 log_cosets,
                u32 first_stage, u32 row_bits, u32 neighbour_bits, u32 expands) {
    SHARED_DYNAMIC(u64, shared);
    u32 tile_bits = row_bits + neighbour_bits, tiles_bits = log_size - tile_bits;
    u32 transform = blockIdx.x >> tiles_bits, index = blockIdx.x & ((1u << tiles_bits) - 1);
    NttTile tile = {first_stage, row_bits, 0, tile_bits, 0, neighbour_bits, 0, transform & ((1u << log_cosets) - 1)};
    NttAddress address = ntt_strided(tile, log_size, index);
    const u64* from = source + ((u64)(expands ? transform >> log_cosets : transform) << log_size);
    u64* to = destination + ((u64)transform << log_size);
    for (u32 i = threadIdx.x; i < 1u << tile_bits; i += blockDim.x) shared[ntt_padded(i)] = from[address.at(i)];
    __syncthreads();
    u32 done = 0;
    for (; done + 4 <= row_bits; done += 4) ntt_split<4>(shared, tile, done, low, high);
    if (row_bits - done == 3) ntt_split<3>(shared, tile, done, low, high);
    if (row_bits - done == 2) ntt_split<2>(shared, tile, done, low, high);
    if (row_bits - done == 1) ntt_split<1>(shared, tile, done, low, high);
    for (u32 i = threadIdx.x; i < 1u << tile_bits; i += blockDim.x) to[address.at(i)] = gl_canonical(shared[ntt_padded(i)]);
}

// Values to coefficients, transform t at offset t * 2^k of both, multiplied by scale (canonical; 1/n in the last launch, else 1).
// gathers = 1, in the first launch only: source holds values in natural order; tiles are made of 2^c neighbours of the source, and source and
// destination do not overlap. Else in place is allowed.
extern "C" __global__ void __launch_bounds__(256)
    ntt_inverse(const u64* source, u64* destination, const u64* __restrict__ low, const u64* __restrict__ high, u64 scale, u32 log_size,
                u32 first_stage, u32 row_bits, u32 neighbour_bits, u32 gathers) {
    SHARED_DYNAMIC(u64, shared);
    u32 tile_bits = row_bits + neighbour_bits, tiles_bits = log_size - tile_bits;
    u32 transform = blockIdx.x >> tiles_bits, index = blockIdx.x & ((1u << tiles_bits) - 1);
    NttTile tile = {first_stage, row_bits, 0, tile_bits, 0, neighbour_bits, gathers, 0};
    NttAddress address = {0, 0, 0};
    const u64* from = source + ((u64)transform << log_size);
    u64* to = destination + ((u64)transform << log_size);
    if (gathers) {
        tile.block = reverse_bits(index, tiles_bits);
        for (u32 i = threadIdx.x; i < 1u << tile_bits; i += blockDim.x) {
            // Natural index: reversed row, tile, neighbour, from the top.
            u32 neighbour = i & ((1u << neighbour_bits) - 1), reversed_row = i >> neighbour_bits;
            u32 natural = (reversed_row << (log_size - row_bits)) | (index << neighbour_bits) | neighbour;
            shared[ntt_padded((neighbour << row_bits) | reverse_bits(reversed_row, row_bits))] = from[natural];
        }
    } else {
        address = ntt_strided(tile, log_size, index);
        for (u32 i = threadIdx.x; i < 1u << tile_bits; i += blockDim.x) shared[ntt_padded(i)] = from[address.at(i)];
    }
    __syncthreads();
    u32 done = row_bits;
    for (; done >= 4; done -= 4) ntt_join<4>(shared, tile, done - 4, low, high);
    if (done == 3) ntt_join<3>(shared, tile, 0, low, high);
    if (done == 2) ntt_join<2>(shared, tile, 0, low, high);
    if (done == 1) ntt_join<1>(shared, tile, 0, low, high);
    for (u32 i = threadIdx.x; i < 1u << tile_bits; i += blockDim.x) {
        u32 position = gathers ? (ntt_block(tile, i) << row_bits) | (i & ((1u << row_bits) - 1)) : address.at(i);
        to[position] = gl_canonical(gl_mul(shared[ntt_padded(i)], scale));
    }
}
