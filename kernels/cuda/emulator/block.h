// Blocks of threads on fibers: barriers, warps, shared memory, and the launch of a grid.
//
// Blocks run one at a time on each thread of the operating system, spread over several. A launch fails with a message, as a device would fail
// without one, for: threads that wait at different barriers, warp primitives outside their mask, too much shared memory, an impossible grid.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fiber.h"

namespace emulator {

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

enum class State { Running, AtBarrier, AtWarp, Done };

struct Thread : Fiber {
    State state = State::Done;
    // The generation of the barrier or warp that it waits to end.
    unsigned generation = 0;
    dim3 index;
    unsigned linear = 0;
};

struct Warp {
    uint64_t slots[2][32];
    uint32_t mask = 0, arrived = 0, generation = 0;
    char order;
};

constexpr size_t SHARED_BYTES = 320 << 10;
constexpr size_t MAX_DYNAMIC_BYTES = 232448;
constexpr size_t RED_ZONE_BYTES = 64;

struct SharedArray {
    const void* key;
    char* begin;
};

// The block that an operating system's thread runs.
struct Block {
    Fiber scheduler;
    const void* scheduler_stack = nullptr;
    size_t scheduler_bytes = 0;
    Thread* current = nullptr;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    dim3 index, size, grid;
    unsigned n_threads = 0, arrived = 0, generation = 0;
    char barrier_order, end_order;
    size_t shared_used = 0, dynamic_bytes = 0;
    char* shared = nullptr;
    std::vector<SharedArray> arrays;
    const std::function<void()>* body = nullptr;
    const char* name = "";
    std::string error;
};

inline thread_local Block* BLOCK = nullptr;

inline void to_scheduler(bool is_last) {
    Block* block = BLOCK;
    switch_fiber(*block->current, block->scheduler, block->scheduler_stack, block->scheduler_bytes, is_last);
}

[[noreturn]] inline void leave() {
    BLOCK->current->state = State::Done;
    release(&BLOCK->end_order);
    to_scheduler(true);
    __builtin_trap();
}

[[noreturn]] inline void fail(const std::string& message) {
    if (BLOCK->error.empty()) BLOCK->error = std::string(BLOCK->name) + ": " + message;
    leave();
}

inline void thread_entry() {
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &BLOCK->scheduler_stack, &BLOCK->scheduler_bytes);
#endif
    (*BLOCK->body)();
    leave();
}

inline void wait_in(State state, unsigned generation) {
    Thread* thread = BLOCK->current;
    thread->state = state;
    thread->generation = generation;
    to_scheduler(false);
    thread->state = State::Running;
}

inline void synchronize_block() {
    Block* block = BLOCK;
    unsigned generation = block->generation;
    release(&block->barrier_order);
    if (++block->arrived == block->n_threads) {
        block->arrived = 0;
        block->generation++;
    } else {
        while (block->generation == generation) wait_in(State::AtBarrier, generation);
    }
    acquire(&block->barrier_order);
}

struct Meeting {
    Warp* warp;
    unsigned lane;
    const uint64_t* values;
};

// Every lane of the mask brings a value and leaves with all of them. As on a device, that alone orders no accesses to memory.
inline Meeting meet(uint32_t mask, uint64_t value) {
    Block* block = BLOCK;
    unsigned linear = block->current->linear, lane = linear & 31;
    Warp* warp = &block->warps[linear >> 5];
    unsigned generation = warp->generation, present = block->n_threads - (linear & ~31u);
    if (present < 32 && mask >> present) fail("warp primitive whose mask names lanes that do not exist");
    if (!(mask >> lane & 1)) fail("warp primitive called by a lane outside its mask");
    if (warp->arrived && warp->mask != mask) fail("warp primitives with different masks at once");
    warp->mask = mask;
    warp->slots[generation & 1][lane] = value;
    if (++warp->arrived == static_cast<unsigned>(__builtin_popcount(mask))) {
        warp->arrived = 0;
        warp->generation++;
    } else {
        while (warp->generation == generation) wait_in(State::AtWarp, generation);
    }
    return {warp, lane, warp->slots[generation & 1]};
}

// What lanes of the mask did to memory before comes before what others do after.
inline void synchronize_warp(uint32_t mask) {
    Warp* warp = &BLOCK->warps[BLOCK->current->linear >> 5];
    release(&warp->order);
    meet(mask, 0);
    acquire(&warp->order);
}

// An array of shared memory, the same for every thread that asks with one key; red zones between arrays.
inline char* shared_array(const void* key, size_t bytes) {
    Block* block = BLOCK;
    for (const SharedArray& array : block->arrays)
        if (array.key == key) return array.begin;
    size_t begin = (block->shared_used + 15) & ~size_t(15), end = ((begin + bytes + 15) & ~size_t(15)) + RED_ZONE_BYTES;
    if (end > SHARED_BYTES) fail("out of shared memory");
    block->shared_used = end;
#ifdef EMULATOR_ASAN
    __asan_poison_memory_region(block->shared + begin + bytes, end - begin - bytes);
#endif
    block->arrays.push_back({key, block->shared + begin});
    return block->shared + begin;
}

inline char* shared_dynamic() {
    static char key;
    return shared_array(&key, BLOCK->dynamic_bytes);
}

// Shared memory begins as garbage, the same garbage every time.
inline void reset_shared(Block& block) {
    block.arrays.clear();
    block.shared_used = 0;
#ifdef EMULATOR_ASAN
    __asan_unpoison_memory_region(block.shared, SHARED_BYTES);
#endif
#ifdef EMULATOR_TSAN
    pages(block.shared, SHARED_BYTES);
#endif
    memset(block.shared, 0xA5, std::min(SHARED_BYTES, block.dynamic_bytes + 4096));
}

inline bool is_waiting(const Block& block, const Thread& thread) {
    if (thread.state == State::AtWarp) return block.warps[thread.linear >> 5].generation == thread.generation;
    return thread.state == State::AtBarrier && block.generation == thread.generation;
}

inline std::string deadlock(const Block& block) {
    unsigned at_barrier = 0, at_warp = 0, done = 0;
    for (const Thread& thread : block.threads) {
        at_barrier += thread.state == State::AtBarrier;
        at_warp += thread.state == State::AtWarp;
        done += &thread - block.threads.data() < block.n_threads && thread.state == State::Done;
    }
    return std::string(block.name) + ": deadlock: " + std::to_string(at_barrier) + " threads at __syncthreads, " + std::to_string(at_warp) +
           " at a warp primitive, " + std::to_string(done) + " of " + std::to_string(block.n_threads) + " finished";
}

inline void resume(Block& block, Thread& thread) {
    block.current = &thread;
    switch_fiber(block.scheduler, thread, thread.stack, STACK_BYTES, false);
}

// Runs a block to its end, or to an error. A seed other than 0 changes the order of threads in blocks of 2^k threads.
inline void run_block(Block& block, dim3 index, unsigned seed) {
    block.index = index;
    block.arrived = 0;
    for (Warp& warp : block.warps) warp.arrived = warp.mask = 0;
    reset_shared(block);
    unsigned n = block.n_threads, left = n;
    bool shuffles = seed && (n & (n - 1)) == 0;
    // An odd factor permutes the indices below a power of two.
    auto thread_at = [&](unsigned k) -> Thread& { return block.threads[shuffles ? ((k * 2654435761u) + seed) & (n - 1) : k]; };
    for (unsigned k = 0; k < n; k++) {
        Thread& thread = thread_at(k);
        thread.state = State::Running;
        prepare(thread, thread_entry);
        resume(block, thread);
        if (!block.error.empty()) return;
        if (thread.state != State::Done) continue;
        left--;
        // Its stack is warm in the cache: the next thread takes it.
        if (k + 1 < n) std::swap(thread.stack, thread_at(k + 1).stack);
    }
    while (left) {
        bool moved = false;
        for (unsigned k = 0; k < n; k++) {
            Thread& thread = thread_at(k);
            if (thread.state == State::Done || is_waiting(block, thread)) continue;
            resume(block, thread);
            moved = true;
            left -= thread.state == State::Done;
            if (!block.error.empty()) return;
        }
        if (!moved && left) {
            block.error = deadlock(block);
            return;
        }
    }
}

// Blocks are kept between launches: their stacks are many pages.
struct BlockPool {
    std::mutex mutex;
    std::vector<Block*> free;

    Block* take() {
        std::lock_guard<std::mutex> lock(mutex);
        if (free.empty()) return new Block;
        Block* block = free.back();
        free.pop_back();
        return block;
    }
    void give(Block* block) {
        std::lock_guard<std::mutex> lock(mutex);
        free.push_back(block);
    }
};

inline BlockPool& block_pool() {
    static BlockPool* pool = new BlockPool;
    return *pool;
}

inline void set_up(Block& block, const char* name, dim3 grid, dim3 size, size_t dynamic_bytes, const std::function<void()>& body) {
    unsigned n = size.x * size.y * size.z;
    block.body = &body;
    block.name = name;
    block.error.clear();
    block.size = size;
    block.grid = grid;
    block.n_threads = n;
    block.dynamic_bytes = dynamic_bytes;
    if (!block.shared) block.shared = pages(nullptr, SHARED_BYTES);
    block.warps.resize((n + 31) / 32);
    for (size_t known = block.threads.size(); known < n; known++) {
        block.threads.emplace_back();
        block.threads.back().stack = pages(nullptr, STACK_BYTES);
    }
    for (unsigned i = 0; i < n; i++) {
        block.threads[i].linear = i;
        block.threads[i].index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    }
    for (Thread& thread : block.threads) thread.state = State::Done;
#ifdef EMULATOR_TSAN
    block.scheduler.race_fiber = __tsan_get_current_fiber();
#endif
}

struct Launch {
    const char* name;
    dim3 grid, size;
    size_t dynamic_bytes;
    // Threads of the operating system; 0 for one a core.
    unsigned n_workers, seed;
};

inline bool is_possible(const Launch& launch) {
    const dim3 &grid = launch.grid, &size = launch.size;
    unsigned long threads = static_cast<unsigned long>(size.x) * size.y * size.z;
    return grid.x && grid.y && grid.z && grid.x < 1u << 31 && grid.y < 65536 && grid.z < 65536 && threads && threads <= 1024 && size.z <= 64 &&
           launch.dynamic_bytes <= MAX_DYNAMIC_BYTES;
}

// Runs a grid; the message of the first error, or nothing.
inline std::string run(const Launch& launch, const std::function<void()>& body) {
    const dim3 grid = launch.grid;
    if (!is_possible(launch)) return std::string(launch.name) + ": impossible launch configuration";
    uint64_t n_blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    unsigned n_workers = launch.n_workers ? launch.n_workers : std::max(1u, std::thread::hardware_concurrency());
    n_workers = static_cast<unsigned>(std::min<uint64_t>(n_workers, n_blocks));
    std::atomic<uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::vector<std::string> errors(n_workers);
    auto work = [&](unsigned worker) {
        Block* block = BLOCK = block_pool().take();
        set_up(*block, launch.name, grid, launch.size, launch.dynamic_bytes, body);
        for (uint64_t i; !failed && (i = next++) < n_blocks;) {
            dim3 index = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                          static_cast<unsigned>(i / (static_cast<uint64_t>(grid.x) * grid.y))};
            run_block(*block, index, launch.seed);
            if (!block->error.empty()) failed = true;
        }
        acquire(&block->end_order);
        errors[worker] = block->error;
#ifdef EMULATOR_ASAN
        __asan_unpoison_memory_region(block->shared, SHARED_BYTES);
#endif
        block_pool().give(block);
    };
    std::vector<std::thread> workers;
    for (unsigned worker = 1; worker < n_workers; worker++) workers.emplace_back(work, worker);
    work(0);
    for (std::thread& worker : workers) worker.join();
    for (const std::string& error : errors)
        if (!error.empty()) return error;
    return {};
}

}  // namespace emulator
