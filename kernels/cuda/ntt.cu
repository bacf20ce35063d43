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
// so that global memory is read and written in runs of 2^c. Steps of four stages hold 16 values a thread in registers. One or two stages that are
// left are done with the last step of four: for each, lanes of a warp exchange halves of their values, without a further trip through shared memory.
// Three, for which that costs more (counts.py compares), are a step of their own, as are all of a launch of fewer than four stages.
// Sizes 2^0 to 2^27 (indices of one column fit u32). Grid: tiles * columns * cosets, one dimension; a thread for each 16 values of a tile, one
// at least. In strided tiles of four or more rows' bits c mod 4 + r mod 4 <= 4. Shared memory: NTT_PADDED(2^(r+c)) words.
#pragma once
#include "gl64.cuh"

constexpr u32 NTT_LOW_BITS = 10;

// One word in 17 and one in 273 is left free: 16 elements that differ in four bits, no two of these equal modulo 4, lie in different banks.
// Places of elements without a common bit add up to the place of their sum.
__device__ __forceinline__ u32 ntt_padded(u32 element) { return element + (element >> 4) + (element >> 8); }

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

// The stages of 2^STAGES values, STRIDE apart, which make up `block` at `stage`. Loops of constant length only, so that values stay in registers.
template <int STAGES, int STRIDE>
__device__ __forceinline__ void ntt_split_values(u64* values, u32 stage, u32 block, const u64* low, const u64* high) {
#pragma unroll
    for (int done = 0; done < STAGES; done++) {
        const int half = (1 << STAGES) >> (done + 1);
        u64 twiddle = 0;
#pragma unroll
        for (int pair = 0; pair < (1 << STAGES) / 2; pair++) {
            const int part = pair / half, i = (2 * half * part + pair % half) * STRIDE;
            if (pair % half == 0) twiddle = ntt_twiddle(low, high, stage + done, (block << done) | part);
            u64 a = values[i], b = gl_mul(values[i + half * STRIDE], twiddle);
            values[i] = gl_add(a, b);
            values[i + half * STRIDE] = gl_sub(a, b);
        }
    }
}

__device__ __forceinline__ void ntt_join_pair(u64& a, u64& b, u64 twiddle) {
    u64 u = a, v = b;
    a = gl_add(u, v);
    b = gl_mul(gl_sub(u, v), twiddle);
}

// The values of one group, and the block of the tree that they make up at stage first_stage + done.
template <int STAGES>
struct NttGroup {
    u64 values[1 << STAGES];
    // Places in shared memory: of value 0, and how far from it each bit of a value's index is.
    u32 place, step[STAGES];
    u32 stage, block;

    __device__ __forceinline__ NttGroup(const NttTile& tile, u32 group, u32 done) {
        u32 position = tile.row_shift + tile.row_bits - done - STAGES;
        u32 base = ((group >> position) << (position + STAGES)) | (group & ((1u << position) - 1));
        place = ntt_padded(base);
#pragma unroll
        for (int bit = 0; bit < STAGES; bit++) step[bit] = ntt_padded(1u << (position + bit));
        stage = tile.first_stage + done;
        u32 row = (base >> tile.row_shift) & ((1u << tile.row_bits) - 1);
        u32 local = (ntt_block(tile, base) << done) | (row >> (tile.row_bits - done));
        block = (tile.coset << stage) | local;
    }

    __device__ __forceinline__ u32 place_of(int index) const {
        u32 sum = place;
#pragma unroll
        for (int bit = 0; bit < STAGES; bit++) sum += index >> bit & 1 ? step[bit] : 0;
        return sum;
    }

    __device__ __forceinline__ void load(const u64* shared) {
#pragma unroll
        for (int i = 0; i < 1 << STAGES; i++) values[i] = shared[place_of(i)];
    }

    __device__ __forceinline__ void store(u64* shared) const {
#pragma unroll
        for (int i = 0; i < 1 << STAGES; i++) shared[place_of(i)] = values[i];
    }

    __device__ __forceinline__ void split(const u64* low, const u64* high) { ntt_split_values<STAGES, 1>(values, stage, block, low, high); }

    __device__ __forceinline__ void join(const u64* low, const u64* high) {
#pragma unroll
        for (int done = STAGES - 1; done >= 0; done--) {
            const int half = (1 << STAGES) >> (done + 1);
            u64 twiddle = 0;
#pragma unroll
            for (int pair = 0; pair < (1 << STAGES) / 2; pair++) {
                const int part = pair / half, i = 2 * half * part + pair % half;
                if (pair % half == 0) twiddle = ntt_twiddle(low, high, stage + done, (block << done) | part);
                ntt_join_pair(values[i], values[i + half], twiddle);
            }
        }
    }
};

// The group of this thread in a step beside which `left` stages are done: bits first .. first + left of its index are those of the thread's that are
// equal to them modulo 4, so that lanes of one warp differ in them; these change places, so that banks remain different.
__device__ __forceinline__ u32 ntt_group_of_thread(u32 first, u32 left) {
    u32 distance = first & ~3u, mask = ((1u << left) - 1) << (first & 3);
    u32 differing = (threadIdx.x ^ (threadIdx.x >> distance)) & mask;
    return threadIdx.x ^ differing ^ (differing << distance);
}

// Bits of an element that lanes differ in: bit first_bit + k of the element is bit first_lane_bit + k of the lane.
struct NttLanes {
    u32 first_bit, first_lane_bit;

    __device__ __forceinline__ u32 bit(u32 k) const { return threadIdx.x >> (first_lane_bit + k) & 1; }
};

// Lanes that exist: of a block smaller than a warp not all.
__device__ __forceinline__ u32 ntt_lanes_of_warp() { return blockDim.x < 32 ? (1u << blockDim.x) - 1 : 0xffffffffu; }

// Bit BIT of a value's index changes places with the lanes' bit k: a lane keeps one half of its values and gets the same half of another lane's.
template <int BIT>
__device__ __forceinline__ void ntt_exchange(NttGroup<4>& group, const NttLanes& lanes, u32 k) {
    u32 mask = ntt_lanes_of_warp();
    // All bits set in the upper lane of two. A mask, no condition: the compiler would compute that again for every value.
    u64 upper = 0 - (u64)lanes.bit(k);
#pragma unroll
    for (int i = 0; i < 16; i++) {
        if (i >> BIT & 1) continue;
        u64 &a = group.values[i], &b = group.values[i | 1 << BIT];
        u64 received = __shfl_xor_sync(mask, b ^ ((a ^ b) & upper), 1u << (lanes.first_lane_bit + k));
        a ^= (a ^ received) & upper;
        b = received ^ ((b ^ received) & upper);
    }
    u32 step = ntt_padded(1u << (lanes.first_bit + k));
    group.place += (group.step[BIT] - step) & (u32)upper;
    group.step[BIT] = step;
}

// The LEFT stages below a step of four. All exchanges come first: then stages share twiddles as in a step.
template <int LEFT>
__device__ __forceinline__ void ntt_split_left(NttGroup<4>& group, const NttLanes& lanes, const u64* low, const u64* high) {
    // What others have loaded is stored to after the exchanges, and shuffles order no accesses to memory.
    __syncwarp(ntt_lanes_of_warp());
    ntt_exchange<3>(group, lanes, LEFT - 1);
    if constexpr (LEFT > 1) ntt_exchange<2>(group, lanes, LEFT - 2);
    if constexpr (LEFT > 2) ntt_exchange<1>(group, lanes, LEFT - 3);
    // Upper bits of the row that the step's value had are the lane's now, lower ones still a value's.
    constexpr int ROW_BITS = 4 - LEFT;
    u32 block = group.block;
#pragma unroll
    for (int k = LEFT - 1; k >= 0; k--) block = (block << 1) | lanes.bit(k);
#pragma unroll
    for (int row = 0; row < 1 << ROW_BITS; row++)
        ntt_split_values<LEFT, 1 << ROW_BITS>(group.values + row, group.stage + 4, (block << ROW_BITS) | row, low, high);
}

// Stage K above a step of four, counted from it: one block, since the bits above are the lane's.
template <int K>
__device__ __forceinline__ void ntt_join_left(NttGroup<4>& group, const NttLanes& lanes, const u64* low, const u64* high) {
    // Once, before the first exchange: as in ntt_split_left.
    if constexpr (K == 0) __syncwarp(ntt_lanes_of_warp());
    ntt_exchange<K>(group, lanes, K);
    u64 twiddle = ntt_twiddle(low, high, group.stage - 1 - K, group.block >> (K + 1));
#pragma unroll
    for (int i = 0; i < 16; i++)
        if (!(i >> K & 1)) ntt_join_pair(group.values[i], group.values[i | 1 << K], twiddle);
}

// Four stages from `done` on, and all that are left after them if these are one or two.
__device__ __forceinline__ void ntt_split_four(u64* shared, const NttTile& tile, u32 done, const u64* low, const u64* high) {
    u32 after = tile.row_bits - done - 4, left = after < 3 ? after : 0;
    NttGroup<4> group(tile, ntt_group_of_thread(tile.row_shift, left), done);
    NttLanes lanes = {tile.row_shift, tile.row_shift & 3};
    group.load(shared);
    group.split(low, high);
    // Exclusive cases in this order: in another, ntt_forward spills.
    if (left == 2) ntt_split_left<2>(group, lanes, low, high);
    else if (left == 1) ntt_split_left<1>(group, lanes, low, high);
    group.store(shared);
    __syncthreads();
}

// Four stages down to `done`, and all that are left before them if these are one or two.
__device__ __forceinline__ void ntt_join_four(u64* shared, const NttTile& tile, u32 done, const u64* low, const u64* high) {
    u32 left = done < 3 ? done : 0, first = tile.row_shift + tile.row_bits - done - 4;
    NttGroup<4> group(tile, ntt_group_of_thread(first, left), done);
    NttLanes lanes = {first + 4, first & 3};
    group.load(shared);
    group.join(low, high);
    if (left > 0) ntt_join_left<0>(group, lanes, low, high);
    if (left > 1) ntt_join_left<1>(group, lanes, low, high);
    group.store(shared);
    __syncthreads();
}

template <int STAGES>
__device__ __forceinline__ void ntt_split(u64* shared, const NttTile& tile, u32 done, const u64* low, const u64* high) {
    for (u32 g = threadIdx.x; g < 1u << (tile.tile_bits - STAGES); g += blockDim.x) {
        NttGroup<STAGES> group(tile, g, done);
        group.load(shared);
        group.split(low, high);
        group.store(shared);
    }
    __syncthreads();
}

template <int STAGES>
__device__ __forceinline__ void ntt_join(u64* shared, const NttTile& tile, u32 done, const u64* low, const u64* high) {
    for (u32 g = threadIdx.x; g < 1u << (tile.tile_bits - STAGES); g += blockDim.x) {
        NttGroup<STAGES> group(tile, g, done);
        group.load(shared);
        group.join(low, high);
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
extern "C" __global__ void __launch_bounds__(256, 3)
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
    for (u32 done = 0; done + 4 <= row_bits; done += 4) ntt_split_four(shared, tile, done, low, high);
    // As in ntt_split_four.
    if ((row_bits & 3) == 3) ntt_split<3>(shared, tile, row_bits - 3, low, high);
    else if (row_bits == 2) ntt_split<2>(shared, tile, 0, low, high);
    else if (row_bits == 1) ntt_split<1>(shared, tile, 0, low, high);
    for (u32 i = threadIdx.x; i < 1u << tile_bits; i += blockDim.x) to[address.at(i)] = gl_canonical(shared[ntt_padded(i)]);
}

// Values to coefficients, transform t at offset t * 2^k of both, multiplied by scale (canonical; 1/n in the last launch, else 1).
// gathers = 1, in the first launch only: source holds values in natural order; tiles are made of 2^c neighbours of the source, and source and
// destination do not overlap. Else in place is allowed.
extern "C" __global__ void __launch_bounds__(256, 3)
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
    for (u32 done = row_bits; done >= 4; done -= 4) ntt_join_four(shared, tile, done - 4, low, high);
    if ((row_bits & 3) == 3) ntt_join<3>(shared, tile, 0, low, high);
    if (row_bits == 2) ntt_join<2>(shared, tile, 0, low, high);
    if (row_bits == 1) ntt_join<1>(shared, tile, 0, low, high);
    for (u32 i = threadIdx.x; i < 1u << tile_bits; i += blockDim.x) {
        u32 position = gathers ? (ntt_block(tile, i) << row_bits) | (i & ((1u << row_bits) - 1)) : address.at(i);
        to[position] = gl_canonical(gl_mul(shared[ntt_padded(i)], scale));
    }
}
