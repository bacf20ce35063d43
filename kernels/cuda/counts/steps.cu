// What counts.py compiles and counts, and nothing launches: a step of four stages, alone and with the 1, 2 or 3 stages that are left, by shuffles
// or through shared memory; and two steps of four with either exchange between them. Tiles do not gather.
#include "../ntt.cu"

template <int LEFT>
__device__ __forceinline__ void split_by_shuffles(u64* shared, const NttTile& tile, const u64* low, const u64* high) {
    NttGroup<4> group(tile, ntt_group_of_thread(tile.row_shift, LEFT), tile.row_bits - LEFT - 4);
    group.load(shared);
    group.split(low, high);
    if constexpr (LEFT > 0) ntt_split_left<LEFT>(group, {tile.row_shift, tile.row_shift & 3}, low, high);
    group.store(shared);
    __syncthreads();
}

template <int LEFT>
__device__ __forceinline__ void split_by_memory(u64* shared, const NttTile& tile, const u64* low, const u64* high) {
    NttGroup<4> group(tile, threadIdx.x, tile.row_bits - LEFT - 4);
    group.load(shared);
    group.split(low, high);
    group.store(shared);
    __syncthreads();
    ntt_split<LEFT>(shared, tile, tile.row_bits - LEFT, low, high);
}

template <int LEFT>
__device__ __forceinline__ void join_by_shuffles(u64* shared, const NttTile& tile, const u64* low, const u64* high) {
    u32 first = tile.row_shift + tile.row_bits - LEFT - 4;
    NttGroup<4> group(tile, ntt_group_of_thread(first, LEFT), LEFT);
    NttLanes lanes = {first + 4, first & 3};
    group.load(shared);
    group.join(low, high);
    if (LEFT > 0) ntt_join_left<0>(group, lanes, low, high);
    if (LEFT > 1) ntt_join_left<1>(group, lanes, low, high);
    if (LEFT > 2) ntt_join_left<2>(group, lanes, low, high);
    group.store(shared);
    __syncthreads();
}

template <int LEFT>
__device__ __forceinline__ void join_by_memory(u64* shared, const NttTile& tile, const u64* low, const u64* high) {
    NttGroup<4> group(tile, threadIdx.x, LEFT);
    group.load(shared);
    group.join(low, high);
    group.store(shared);
    __syncthreads();
    ntt_join<LEFT>(shared, tile, 0, low, high);
}

// The second and the third step of a full tile.
__device__ __forceinline__ void pair_by_memory(u64* shared, const NttTile& tile, const u64* low, const u64* high) {
    NttGroup<4> second(tile, threadIdx.x, 4);
    second.load(shared);
    second.split(low, high);
    second.store(shared);
    __syncthreads();
    NttGroup<4> third(tile, threadIdx.x, 8);
    third.load(shared);
    third.split(low, high);
    third.store(shared);
    __syncthreads();
}

__device__ __forceinline__ void pair_by_shuffles(u64* shared, const NttTile& tile, const u64* low, const u64* high) {
    NttGroup<4> group(tile, threadIdx.x, 4);
    NttLanes lanes = {0, 0};
    group.load(shared);
    group.split(low, high);
    __syncwarp(ntt_lanes_of_warp());
    ntt_exchange<0>(group, lanes, 0);
    ntt_exchange<1>(group, lanes, 1);
    ntt_exchange<2>(group, lanes, 2);
    ntt_exchange<3>(group, lanes, 3);
    group.stage += 4;
    group.block = (group.block << 4) | (threadIdx.x & 15);
    group.split(low, high);
    group.store(shared);
    __syncthreads();
}

#define COUNTED(name, function)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) name(NttTile tile, const u64* __restrict__ low, const u64* __restrict__ high) { \
        SHARED_DYNAMIC(u64, shared);                                                                                                  \
        tile.gathers = 0;                                                                                                             \
        function(shared, tile, low, high);                                                                                            \
    }

COUNTED(split_alone, split_by_shuffles<0>)
COUNTED(split_1_by_shuffles, split_by_shuffles<1>)
COUNTED(split_2_by_shuffles, split_by_shuffles<2>)
COUNTED(split_3_by_shuffles, split_by_shuffles<3>)
COUNTED(split_1_by_memory, split_by_memory<1>)
COUNTED(split_2_by_memory, split_by_memory<2>)
COUNTED(split_3_by_memory, split_by_memory<3>)
COUNTED(join_alone, join_by_shuffles<0>)
COUNTED(join_1_by_shuffles, join_by_shuffles<1>)
COUNTED(join_2_by_shuffles, join_by_shuffles<2>)
COUNTED(join_3_by_shuffles, join_by_shuffles<3>)
COUNTED(join_1_by_memory, join_by_memory<1>)
COUNTED(join_2_by_memory, join_by_memory<2>)
COUNTED(join_3_by_memory, join_by_memory<3>)
COUNTED(pairs_by_shuffles, pair_by_shuffles)
COUNTED(pairs_by_memory, pair_by_memory)
