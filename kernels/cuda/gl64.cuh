// The Goldilocks field F, p = 2^64 - 2^32 + 1, and its quadratic extension K = F[phi]/(phi^2 - 7).
//
// A value is any u64, canonical or not; gl_canonical makes the representative below p, and kernels apply it to what they store.
// CPU twin: plonky2_field's GoldilocksField and QuadraticExtension.
#pragma once

typedef unsigned long long u64;
typedef unsigned int u32;

// The emulator defines its own shared memory before this file.
#ifndef SHARED_ARRAY
#define SHARED_ARRAY(Type, name, length) __shared__ Type name[length]
#define SHARED_DYNAMIC(Type, name)                              \
    extern __shared__ __align__(16) unsigned char name##_raw[]; \
    Type* name = reinterpret_cast<Type*>(name##_raw)
#endif

constexpr u64 GL_ORDER = 0xFFFFFFFF00000001ULL;
// 2^64 modulo p.
constexpr u64 GL_EPSILON = 0xFFFFFFFFULL;

__device__ __forceinline__ u64 gl_canonical(u64 a) { return a >= GL_ORDER ? a - GL_ORDER : a; }

// A carry is worth 2^64 = EPSILON; adding it can carry once more.
__device__ __forceinline__ u64 gl_add(u64 a, u64 b) {
    u64 sum = a + b, once = sum < a ? GL_EPSILON : 0, twice = sum + once;
    return twice < once ? twice + GL_EPSILON : twice;
}

// As gl_add, for b < p: one correction is enough.
__device__ __forceinline__ u64 gl_add_canonical(u64 a, u64 b) {
    u64 sum = a + b;
    return sum < a ? sum + GL_EPSILON : sum;
}

__device__ __forceinline__ u64 gl_sub(u64 a, u64 b) {
    u64 difference = a - b, once = a < b ? GL_EPSILON : 0, twice = difference - once;
    return difference < once ? twice - GL_EPSILON : twice;
}

// low + 2^64 * high, any u64 each. With high = h1 * 2^32 + h0, 2^64 = EPSILON and 2^96 = -1: d = low + h0 * EPSILON - h1.
//
// One correction is enough. -2^32 < -h1 <= d <= (2^64 - 1) + EPSILON^2 = 2^65 - 2^33, so that d = n * 2^64 + r with n in {-1, 0, 1}, the carry of the
// sum less the borrow of h1, and d = r + n * EPSILON modulo p. n = 1: r <= 2^64 - 2^33, hence r + EPSILON < 2^64. n = -1: r > 2^64 - 2^32, hence
// r - EPSILON > 0. Neither carries again.
__device__ __forceinline__ u64 gl_reduce(u64 low, u64 high) {
#if defined(__CUDA_ARCH__)
    u32 r0 = (u32)low, r1 = (u32)(low >> 32), h0 = (u32)high, h1 = (u32)(high >> 32);
    asm("{\n\t.reg .u32 n, n0, n1;\n\t"
        "mad.lo.cc.u32 %0, %2, 0xffffffff, %0;\n\tmadc.hi.cc.u32 %1, %2, 0xffffffff, %1;\n\taddc.u32 n, 0, 0;\n\t"
        "sub.cc.u32 %0, %0, %3;\n\tsubc.cc.u32 %1, %1, 0;\n\tsubc.u32 n, n, 0;\n\t"
        // n * EPSILON, of which the halves are -n and the sign of n.
        "neg.s32 n0, n;\n\tshr.s32 n1, n, 31;\n\tadd.cc.u32 %0, %0, n0;\n\taddc.u32 %1, %1, n1;\n\t}"
        : "+r"(r0), "+r"(r1)
        : "r"(h0), "r"(h1));
    return ((u64)r1 << 32) | r0;
#else
    u64 h1 = high >> 32, h0 = high & GL_EPSILON;
    u64 product = h0 * GL_EPSILON, sum = low + product, r = sum - h1;
    bool carries = sum < product, borrows = sum < h1;
    if (carries == borrows) return r;
    return carries ? r + GL_EPSILON : r - GL_EPSILON;
#endif
}

__device__ __forceinline__ u64 gl_mul(u64 a, u64 b) { return gl_reduce(a * b, __umul64hi(a, b)); }

// a * b + c: fits 128 bits.
__device__ __forceinline__ u64 gl_mul_add(u64 a, u64 b, u64 c) {
    u64 low = a * b, high = __umul64hi(a, b), sum = low + c;
    return gl_reduce(sum, high + (sum < low));
}

// Square and multiply: a^exponent.
__device__ __forceinline__ u64 gl_power(u64 a, u64 exponent) {
    u64 result = 1;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) result = gl_mul(result, a);
        a = gl_mul(a, a);
    }
    return result;
}

// a^(p - 2); 0 for 0.
__device__ __forceinline__ u64 gl_inverse(u64 a) { return gl_power(a, GL_ORDER - 2); }

// An integer sum of at most 2^32 products: low + 2^64 * high + 2^128 * carries.
struct Wide {
    u64 low, high;
    u32 carries;
};

__device__ __forceinline__ void wide_add_product(Wide& sum, u64 a, u64 b) {
#if defined(__CUDA_ARCH__)
    asm("mad.lo.cc.u64 %0, %3, %4, %0;\n\tmadc.hi.cc.u64 %1, %3, %4, %1;\n\taddc.u32 %2, %2, 0;"
        : "+l"(sum.low), "+l"(sum.high), "+r"(sum.carries)
        : "l"(a), "l"(b));
#else
    u64 low = a * b, high = __umul64hi(a, b);
    sum.low += low;
    u64 carry = sum.low < low;
    sum.high += carry;
    sum.carries += sum.high < carry;
    sum.high += high;
    sum.carries += sum.high < high;
#endif
}

// 2^128 = -2^32.
__device__ __forceinline__ u64 wide_reduce(const Wide& sum) { return gl_sub(gl_reduce(sum.low, sum.high), (u64)sum.carries << 32); }

// c0 + phi * c1.
struct Ext {
    u64 c0, c1;
};

__device__ __forceinline__ Ext ext_add(Ext a, Ext b) { return {gl_add(a.c0, b.c0), gl_add(a.c1, b.c1)}; }
__device__ __forceinline__ Ext ext_sub(Ext a, Ext b) { return {gl_sub(a.c0, b.c0), gl_sub(a.c1, b.c1)}; }
__device__ __forceinline__ Ext ext_scale(Ext a, u64 scalar) { return {gl_mul(a.c0, scalar), gl_mul(a.c1, scalar)}; }
__device__ __forceinline__ Ext ext_mul(Ext a, Ext b) {
    Wide c0 = {0, 0, 0}, c1 = {0, 0, 0};
    wide_add_product(c0, a.c0, b.c0);
    wide_add_product(c0, gl_mul(a.c1, 7), b.c1);
    wide_add_product(c1, a.c0, b.c1);
    wide_add_product(c1, a.c1, b.c0);
    return {wide_reduce(c0), wide_reduce(c1)};
}

// The low `bits` bits of `index`, reversed; bits <= 32.
__device__ __forceinline__ u32 reverse_bits(u32 index, u32 bits) { return bits ? __brev(index) >> (32 - bits) : 0; }
