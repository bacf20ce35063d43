// What translated PTX needs (ptx_to_cpp.py): memory by address, carries, bit fields, and warp primitives of 32 bits.
#pragma once
#include "device.h"

namespace {
using namespace emulator;
typedef unsigned __int128 u128;
typedef __int128 s128;

// Global memory.
template <class Word>
Word& global_word(uint64_t address) {
    if (address % alignof(Word)) fail("misaligned access");
    return *reinterpret_cast<Word*>(address);
}

// Shared memory, by its offset in the block's arena.
template <class Word>
Word& shared_word(uint32_t offset) {
    if (offset % alignof(Word)) fail("misaligned shared access");
    if (offset + sizeof(Word) > SHARED_BYTES) fail("shared access out of the arena");
    return *reinterpret_cast<Word*>(BLOCK->shared + offset);
}
[[maybe_unused]] uint32_t shared_offset(char* pointer) { return static_cast<uint32_t>(pointer - BLOCK->shared); }

// The modes of shfl.sync: up, down, bfly, idx; `clamp` holds the segment mask and the bound as the instruction does.
[[maybe_unused]] uint32_t shuffle(int mode, uint32_t value, uint32_t b, uint32_t clamp, uint32_t mask, bool& is_inside) {
    Meeting meeting = meet(mask, value);
    unsigned lane = meeting.lane, segment = clamp >> 8 & 31, bound = clamp & 31;
    unsigned most = (lane & segment) | (bound & ~segment & 31), least = lane & segment;
    int source;
    switch (mode) {
        case 0:
            source = static_cast<int>(lane) - static_cast<int>(b);
            is_inside = source >= static_cast<int>(most);
            break;
        case 1:
            source = static_cast<int>(lane + b);
            is_inside = source <= static_cast<int>(most);
            break;
        case 2:
            source = static_cast<int>(lane ^ b);
            is_inside = source <= static_cast<int>(most);
            break;
        default:
            source = static_cast<int>(least | (b & ~segment & 31));
            is_inside = source <= static_cast<int>(most);
    }
    return static_cast<uint32_t>(meeting.values[(is_inside ? source : static_cast<int>(lane)) & 31]);
}

template <class Word>
Word add_carry(Word a, Word b, bool carry, bool& out) {
    Word once, twice;
    bool first = __builtin_add_overflow(a, b, &once);
    out = __builtin_add_overflow(once, static_cast<Word>(carry), &twice) | first;
    return twice;
}
template <class Word>
Word sub_carry(Word a, Word b, bool borrow, bool& out) {
    Word once, twice;
    bool first = __builtin_sub_overflow(a, b, &once);
    out = __builtin_sub_overflow(once, static_cast<Word>(borrow), &twice) | first;
    return twice;
}

[[maybe_unused]] uint64_t high_product(uint64_t a, uint64_t b) { return static_cast<uint64_t>(static_cast<u128>(a) * b >> 64); }
[[maybe_unused]] uint32_t high_product(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }
[[maybe_unused]] int64_t high_product(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<s128>(a) * b >> 64); }
[[maybe_unused]] int32_t high_product(int32_t a, int32_t b) { return static_cast<int32_t>(static_cast<int64_t>(a) * b >> 32); }

// Shifts by the width or more are defined.
template <class Word>
Word shift_left(Word a, uint32_t n) {
    return n >= sizeof(Word) * 8 ? 0 : a << n;
}
template <class Word>
Word shift_right(Word a, uint32_t n) {
    return n >= sizeof(Word) * 8 ? (a < 0 ? static_cast<Word>(-1) : 0) : a >> n;
}
template <class Word>
Word field_mask(uint32_t length) {
    return length >= sizeof(Word) * 8 ? ~static_cast<Word>(0) : (static_cast<Word>(1) << length) - 1;
}
template <class Word>
Word insert_field(Word a, Word b, uint32_t position, uint32_t length) {
    Word mask = shift_left(field_mask<Word>(length & 255), position & 255);
    return (shift_left(a, position & 255) & mask) | (b & ~mask);
}
template <class Word>
Word extract_field(Word a, uint32_t position, uint32_t length) {
    return shift_right(a, position & 255) & field_mask<Word>(length & 255);
}
[[maybe_unused]] uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
    uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t select = selector >> 4 * i & 15, byte = bytes >> 8 * (select & 7) & 255;
        if (select & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << 8 * i;
    }
    return result;
}
[[maybe_unused]] uint32_t look_up(uint32_t a, uint32_t b, uint32_t c, int table) {
    uint32_t result = 0;
    for (int i = 0; i < 8; i++)
        if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return result;
}

// A kernel that takes its parameters as cuLaunchKernel does.
[[maybe_unused]] bool add_translated(const char* name, std::vector<size_t> parameter_bytes, void (*body)(void**)) {
    auto run_with = [=](Launch launch, void** arguments) {
        launch.name = name;
        return run(launch, [=] { body(arguments); });
    };
    kernels().push_back({name, parameter_bytes, run_with});
    return true;
}
}  // namespace
