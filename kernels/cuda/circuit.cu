// The quotients of a plonky2 circuit's constraints by Z: one kernel for each kind of gate, and one for the permutation argument, which divides.
//
// Columns of an oracle lie one after another, 2^log_leaves words each. A quotient's points are the first n_points positions of every column: cosets
// of G in bit-reversed order. wires, products and fixed (constants, then sigmas) are the first columns of such oracles, canonical or not.
//
// sums: n_points words for one alpha, then as many for another. Launches on one stream add to them in turn; the last one, quotient_finish, replaces
// them by the quotients. weights: the powers of both alphas side by side, of the terms that a kernel computes; the second ones are zero if there is
// no second alpha. sums overlap nothing else. Stored values are canonical.
//
// Grid: one thread a point, 256 a block. What all threads read at once (tables, weights) lies in global memory and is the same for a whole warp.
// CPU twins: kernels/src/cpu/circuit/quotient.rs and gates/; tables are written by kernels/src/cuda/circuit/gates.rs and quotient.rs.
#pragma once
#include "poseidon.cuh"

// Words of a gate's table: its selector's column, its first constant's column, three sizes, the number of other values of the selector; then these
// values, then what else the gate needs.
constexpr u32 GATE_SELECTOR = 0, GATE_CONSTANTS = 1, GATE_SIZES = 2, GATE_N_OTHERS = 5, GATE_OTHERS = 6;

// A gate's wires and constants at one point.
struct GatePoint {
    const u64 *wires, *fixed, *table;
    u32 log_leaves;

    __device__ __forceinline__ u64 wire(u32 index) const { return wires[(u64)index << log_leaves]; }
    __device__ __forceinline__ Ext pair(u32 first) const { return {wire(first), wire(first + 1)}; }
    __device__ __forceinline__ u64 constant(u32 index) const { return fixed[(table[GATE_CONSTANTS] + index) << log_leaves]; }
    __device__ __forceinline__ u32 size(u32 index) const { return (u32)table[GATE_SIZES + index]; }
    __device__ __forceinline__ const u64* extras() const { return table + GATE_OTHERS + table[GATE_N_OTHERS]; }

    // The product of the other values' differences from the selector.
    __device__ __forceinline__ u64 filter() const {
        u64 selector = fixed[table[GATE_SELECTOR] << log_leaves], product = 1;
#pragma unroll 1
        for (u32 i = 0; i < (u32)table[GATE_N_OTHERS]; i++) product = gl_mul(product, gl_sub(table[GATE_OTHERS + i], selector));
        return product;
    }
};

// Terms times powers of two alphas.
struct WeightedTerms {
    const u64* weights;
    Wide first = {0, 0, 0}, second = {0, 0, 0};

    __device__ __forceinline__ void add_at(u32 term, u64 value) {
        wide_add_product(first, value, weights[2 * term]);
        wide_add_product(second, value, weights[2 * term + 1]);
    }
    // The next term.
    __device__ __forceinline__ void add(u64 value) {
        add_at(0, value);
        weights += 2;
    }
    __device__ __forceinline__ void add(Ext value) {
        add(value.c0);
        add(value.c1);
    }
};

// w_i - h_i; extras: the four elements of the public inputs' hash.
__device__ __forceinline__ void public_input_gate(const GatePoint& gate, WeightedTerms& terms) {
    for (u32 i = 0; i < DIGEST_WORDS; i++) terms.add(gl_sub(gate.wire(i), gate.extras()[i]));
}

// c_i - w_i. Sizes: constants.
__device__ __forceinline__ void constant_gate(const GatePoint& gate, WeightedTerms& terms) {
    for (u32 i = 0; i < gate.size(0); i++) terms.add(gl_sub(gate.constant(i), gate.wire(i)));
}

// out - (c_0 * x * y + c_1 * z); wires x, y, z, out. Sizes: operations.
__device__ __forceinline__ void arithmetic_gate(const GatePoint& gate, WeightedTerms& terms) {
    u64 c0 = gate.constant(0), c1 = gate.constant(1);
    for (u32 wire = 0; wire < 4 * gate.size(0); wire += 4) {
        u64 product = gl_mul(gate.wire(wire), gate.wire(wire + 1));
        u64 value = gl_mul_add(product, c0, gl_mul(gate.wire(wire + 2), c1));
        terms.add(gl_sub(gate.wire(wire + 3), value));
    }
}

// The same in K.
__device__ __forceinline__ void arithmetic_extension_gate(const GatePoint& gate, WeightedTerms& terms) {
    u64 c0 = gate.constant(0), c1 = gate.constant(1);
    for (u32 wire = 0; wire < 8 * gate.size(0); wire += 8) {
        Ext product = ext_scale(ext_mul(gate.pair(wire), gate.pair(wire + 2)), c0);
        Ext value = ext_add(product, ext_scale(gate.pair(wire + 4), c1));
        terms.add(ext_sub(gate.pair(wire + 6), value));
    }
}

// out - c_0 * x * y in K; wires x, y, out. Sizes: operations.
__device__ __forceinline__ void mul_extension_gate(const GatePoint& gate, WeightedTerms& terms) {
    u64 c0 = gate.constant(0);
    for (u32 wire = 0; wire < 6 * gate.size(0); wire += 6) {
        Ext value = ext_scale(ext_mul(gate.pair(wire), gate.pair(wire + 2)), c0);
        terms.add(ext_sub(gate.pair(wire + 4), value));
    }
}

// sum_i base^i * l_i - w_0, then prod_(v < base) (l_i - v) for each limb; limbs are the wires after w_0. Sizes: base, limbs.
__device__ __forceinline__ void base_sum_gate(const GatePoint& gate, WeightedTerms& terms) {
    u32 base = gate.size(0), n_limbs = gate.size(1);
    u64 sum = 0;
    for (u32 i = n_limbs; i > 0; i--) sum = gl_mul_add(sum, base, gate.wire(i));
    terms.add(gl_sub(sum, gate.wire(0)));
    for (u32 i = 1; i <= n_limbs; i++) {
        u64 limb = gate.wire(i), product = limb;
        // Bases are 2 and 4.
#pragma unroll 1
        for (u32 value = 1; value < base; value++) product = gl_mul(product, gl_sub(limb, value));
        terms.add(product);
    }
}

// The multilinear polynomial of a list of 2^BITS wires at the wires `bits`, least significant first.
template <int BITS>
__device__ __forceinline__ u64 chosen_wire(const GatePoint& gate, u32 list, u32 bits) {
    if constexpr (BITS == 0) {
        return gate.wire(list);
    } else {
        u64 low = chosen_wire<BITS - 1>(gate, list, bits), high = chosen_wire<BITS - 1>(gate, list + (1 << (BITS - 1)), bits);
        return gl_mul_add(gate.wire(bits + BITS - 1), gl_sub(high, low), low);
    }
}

// For each copy: bits are bits, they make up the index, and they choose the claimed element.
template <int BITS>
__device__ __forceinline__ void random_access(const GatePoint& gate, WeightedTerms& terms) {
    u32 n_copies = gate.size(1), after_copies = n_copies * (2 + (1 << BITS));
#pragma unroll 1
    for (u32 copy = 0; copy < n_copies; copy++) {
        u32 first = copy * (2 + (1 << BITS)), bits = after_copies + gate.size(2) + copy * BITS;
        u64 index = 0;
        for (u32 bit = BITS; bit-- > 0;) index = gl_add(gl_add(index, index), gate.wire(bits + bit));
        for (u32 bit = 0; bit < BITS; bit++) {
            u64 value = gate.wire(bits + bit);
            terms.add(gl_sub(gl_mul(value, value), value));
        }
        terms.add(gl_sub(index, gate.wire(first)));
        terms.add(gl_sub(chosen_wire<BITS>(gate, first + 2, bits), gate.wire(first + 1)));
    }
}

// Wires of a copy: index, claimed element, list of 2^bits. After all copies: the constants, c_i - w_i; then each copy's bits.
// Sizes: bits (1 to 6), copies, constants.
__device__ __forceinline__ void random_access_gate(const GatePoint& gate, WeightedTerms& terms) {
    switch (gate.size(0)) {
        case 1: random_access<1>(gate, terms); break;
        case 2: random_access<2>(gate, terms); break;
        case 3: random_access<3>(gate, terms); break;
        case 4: random_access<4>(gate, terms); break;
        case 5: random_access<5>(gate, terms); break;
        case 6: random_access<6>(gate, terms); break;
    }
    u32 after_copies = gate.size(1) * (2 + (1 << gate.size(0)));
    for (u32 i = 0; i < gate.size(2); i++) terms.add(gl_sub(gate.constant(i), gate.wire(after_copies + i)));
}

// acc * alpha + c_i - acc' in K for coefficients of LIMBS limbs. Wires: output, alpha, old accumulator; coefficients; all accumulators but the
// last, which is the output.
template <int LIMBS>
__device__ __forceinline__ void reducing(const GatePoint& gate, WeightedTerms& terms) {
    u32 n = gate.size(0), coefficients = 6, accumulators = coefficients + LIMBS * n;
    Ext alpha = gate.pair(2), accumulator = gate.pair(4);
    for (u32 i = 0; i < n; i++) {
        Ext next = gate.pair(i + 1 == n ? 0 : accumulators + 2 * i), value = ext_mul(accumulator, alpha);
        value.c0 = gl_add(value.c0, gate.wire(coefficients + LIMBS * i));
        if (LIMBS == 2) value.c1 = gl_add(value.c1, gate.wire(coefficients + LIMBS * i + 1));
        terms.add(ext_sub(value, next));
        accumulator = next;
    }
}

// Sizes: coefficients, in F.
__device__ __forceinline__ void reducing_gate(const GatePoint& gate, WeightedTerms& terms) { reducing<1>(gate, terms); }

// Sizes: coefficients, in K.
__device__ __forceinline__ void reducing_extension_gate(const GatePoint& gate, WeightedTerms& terms) { reducing<2>(gate, terms); }

// Interpolation over a coset, by the recurrences of kernels/src/cpu/circuit/gates/interpolation.rs. Wires: shift; values; z; the value at z; the
// intermediate e; the intermediate p; z / shift. Sizes: points, degree, intermediates; extras: point and weight, for every point.
__device__ __forceinline__ void interpolation_gate(const GatePoint& gate, WeightedTerms& terms) {
    u32 n = gate.size(0), degree = gate.size(1), n_intermediates = gate.size(2);
    u32 z = 1 + 2 * n, evaluations = z + 4, products = evaluations + 2 * n_intermediates;
    Ext shifted = gate.pair(products + 2 * n_intermediates);
    terms.add(ext_sub(gate.pair(z), ext_scale(shifted, gate.wire(0))));
    Ext evaluation = {0, 0}, product = {1, 0};
    u32 intermediate = 0, until = degree;
#pragma unroll 1
    for (u32 i = 0; i < n; i++) {
        if (i == until && intermediate < n_intermediates) {
            Ext held_evaluation = gate.pair(evaluations + 2 * intermediate), held_product = gate.pair(products + 2 * intermediate);
            terms.add(ext_sub(held_evaluation, evaluation));
            terms.add(ext_sub(held_product, product));
            evaluation = held_evaluation;
            product = held_product;
            intermediate++;
            until += degree - 1;
        }
        Ext factor = {gl_sub(shifted.c0, gate.extras()[2 * i]), shifted.c1};
        Ext weighted = ext_mul(ext_scale(gate.pair(1 + 2 * i), gate.extras()[2 * i + 1]), product);
        // The product first: the other way round the kernel spills.
        product = ext_mul(product, factor);
        evaluation = ext_add(ext_mul(evaluation, factor), weighted);
    }
    terms.add(ext_sub(gate.pair(z + 2), evaluation));
}

// Wires of the Poseidon gate: input, output, swap flag, swapped differences, inputs of the S-boxes after the first round.
constexpr u32 POSEIDON_OUTPUT = POSEIDON_WIDTH, POSEIDON_SWAP = 2 * POSEIDON_WIDTH, POSEIDON_DELTA = POSEIDON_SWAP + 1;
constexpr u32 POSEIDON_S_BOXES = POSEIDON_DELTA + DIGEST_WORDS;

// s * (s - 1); s * (right - left) - delta; the input of every S-box after the first round; the output. Rounds are taken as they are defined, every
// one with the whole matrix.
__device__ __forceinline__ void poseidon_gate(const GatePoint& gate, WeightedTerms& terms) {
    u64 state[POSEIDON_WIDTH], swap = gate.wire(POSEIDON_SWAP);
    terms.add(gl_sub(gl_mul(swap, swap), swap));
#pragma unroll
    for (u32 i = 0; i < POSEIDON_WIDTH; i++) state[i] = gate.wire(i);
#pragma unroll
    for (u32 left = 0; left < DIGEST_WORDS; left++) {
        u32 right = left + DIGEST_WORDS;
        u64 delta = gate.wire(POSEIDON_DELTA + left);
        terms.add(gl_sub(gl_mul(swap, gl_sub(state[right], state[left])), delta));
        state[left] = gl_add(state[left], delta);
        state[right] = gl_sub(state[right], delta);
    }
    u32 s_box = POSEIDON_S_BOXES;
#pragma unroll 1
    for (u32 round = 0; round < 30; round++) {
        u32 is_full = round < 4 || round >= 26;
#pragma unroll
        for (u32 i = 0; i < POSEIDON_WIDTH; i++) {
            state[i] = gl_add_canonical(state[i], POSEIDON_ROUND[12 * round + i]);
            if (i > 0 && !is_full) continue;
            if (round > 0) {
                u64 held = gate.wire(s_box++);
                terms.add(gl_sub(state[i], held));
                state[i] = held;
            }
            state[i] = poseidon_sbox(state[i]);
        }
        poseidon_mds(state);
    }
#pragma unroll
    for (u32 i = 0; i < POSEIDON_WIDTH; i++) terms.add(gl_sub(state[i], gate.wire(POSEIDON_OUTPUT + i)));
}

// out - M * in in K, coordinate by coordinate.
__device__ __forceinline__ void poseidon_mds_gate(const GatePoint& gate, WeightedTerms& terms) {
#pragma unroll 1
    for (u32 limb = 0; limb < 2; limb++) {
        u64 image[POSEIDON_WIDTH];
#pragma unroll
        for (u32 i = 0; i < POSEIDON_WIDTH; i++) image[i] = gate.wire(2 * i + limb);
        poseidon_mds(image);
#pragma unroll
        for (u32 i = 0; i < POSEIDON_WIDTH; i++)
            terms.add_at(2 * i + limb, gl_sub(gate.wire(2 * (POSEIDON_WIDTH + i) + limb), image[i]));
    }
}

#define GATE_PARAMETERS                                                                                                               \
    const u64 *__restrict__ wires, const u64 *__restrict__ fixed, const u64 *__restrict__ table, const u64 *__restrict__ weights,     \
        u64 *__restrict__ sums, u32 n_points, u32 log_leaves
#define GATE_ARGUMENTS wires, fixed, table, weights, sums, n_points, log_leaves

// Adds filter * (sum of weight * constraint) to both sums. Every kernel of a gate is this, with the gate's constraints in plonky2's order.
template <void (*constraints)(const GatePoint&, WeightedTerms&)>
__device__ __forceinline__ void add_gate(GATE_PARAMETERS) {
    u32 point = blockIdx.x * blockDim.x + threadIdx.x;
    if (point >= n_points) return;
    GatePoint gate = {wires + point, fixed + point, table, log_leaves};
    WeightedTerms terms = {weights};
    constraints(gate, terms);
    u64 filter = gate.filter();
    sums[point] = gl_canonical(gl_mul_add(filter, wide_reduce(terms.first), sums[point]));
    sums[n_points + point] = gl_canonical(gl_mul_add(filter, wide_reduce(terms.second), sums[n_points + point]));
}

extern "C" __global__ void __launch_bounds__(256) gate_public_input(GATE_PARAMETERS) { add_gate<public_input_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_constant(GATE_PARAMETERS) { add_gate<constant_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_arithmetic(GATE_PARAMETERS) { add_gate<arithmetic_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_arithmetic_extension(GATE_PARAMETERS) { add_gate<arithmetic_extension_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_mul_extension(GATE_PARAMETERS) { add_gate<mul_extension_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_base_sum(GATE_PARAMETERS) { add_gate<base_sum_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_random_access(GATE_PARAMETERS) { add_gate<random_access_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_reducing(GATE_PARAMETERS) { add_gate<reducing_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_reducing_extension(GATE_PARAMETERS) { add_gate<reducing_extension_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_interpolation(GATE_PARAMETERS) { add_gate<interpolation_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_poseidon(GATE_PARAMETERS) { add_gate<poseidon_gate>(GATE_ARGUMENTS); }
extern "C" __global__ void __launch_bounds__(256) gate_poseidon_mds(GATE_PARAMETERS) { add_gate<poseidon_mds_gate>(GATE_ARGUMENTS); }

// previous * prod (w + beta*k*x + gamma) - next * prod (w + beta*sigma + gamma) over a chunk of wires.
__device__ __forceinline__ u64 permutation_term(const u64* wires, const u64* sigmas, const u64* shifts, u32 log_leaves, u32 n_wires, u64 beta,
                                                u64 beta_x, u64 gamma, u64 previous, u64 next) {
#pragma unroll 1
    for (u32 i = 0; i < n_wires; i++) {
        u64 shifted = gl_add(wires[(u64)i << log_leaves], gamma);
        previous = gl_mul(previous, gl_mul_add(beta_x, shifts[i], shifted));
        next = gl_mul(next, gl_mul_add(beta, sigmas[(u64)i << log_leaves], shifted));
    }
    return gl_sub(previous, next);
}

// sums = (sums + weighted checks of the partial products) / Z + L_0 / Z * weighted (product - 1), the quotients.
//
// sigmas: the fixed columns from the first sigma on. points: x; lagrange: 1 / (n * (x - 1)) = L_0 / Z, n = 2^log_rows; n_points words each.
// table: beta and gamma of each challenge, k of each routed wire, 1/Z on each coset. weights: of all L_0 terms, then of the checks, challenge by
// challenge. products: Z of each challenge, then the partial products, challenge by challenge.
extern "C" __global__ void __launch_bounds__(256)
    quotient_finish(const u64* __restrict__ wires, const u64* __restrict__ sigmas, const u64* __restrict__ products, const u64* __restrict__ points,
                    const u64* __restrict__ lagrange, const u64* __restrict__ table, const u64* __restrict__ weights, u64* __restrict__ sums,
                    u32 n_challenges, u32 n_partial, u32 chunk_length, u32 n_routed, u32 log_rows, u32 log_leaves, u32 n_points) {
    u32 point = blockIdx.x * blockDim.x + threadIdx.x;
    if (point >= n_points) return;
    const u64 *shifts = table + 2 * n_challenges, *inverse_z = shifts + n_routed;
    u32 mask = (1u << log_rows) - 1;
    u32 next_point = (point & ~mask) | reverse_bits((reverse_bits(point & mask, log_rows) + 1) & mask, log_rows);
    WeightedTerms firsts = {weights}, terms = {weights + 2 * n_challenges};
    for (u32 challenge = 0; challenge < n_challenges; challenge++) {
        u64 beta = table[2 * challenge], gamma = table[2 * challenge + 1], beta_x = gl_mul(beta, points[point]);
        u64 previous = products[((u64)challenge << log_leaves) + point];
        firsts.add(gl_sub(previous, 1));
        for (u32 chunk = 0; chunk <= n_partial; chunk++) {
            u32 column = chunk < n_partial ? n_challenges + challenge * n_partial + chunk : challenge;
            u64 next = products[((u64)column << log_leaves) + (chunk < n_partial ? point : next_point)];
            u32 first = chunk * chunk_length, n_wires = n_routed - first < chunk_length ? n_routed - first : chunk_length;
            u64 offset = ((u64)first << log_leaves) + point;
            terms.add(permutation_term(wires + offset, sigmas + offset, shifts + first, log_leaves, n_wires, beta, beta_x, gamma, previous, next));
            previous = next;
        }
    }
    u64 l0 = lagrange[point], scale = inverse_z[point >> log_rows];
    u64 first = gl_add(sums[point], wide_reduce(terms.first)), second = gl_add(sums[n_points + point], wide_reduce(terms.second));
    sums[point] = gl_canonical(gl_mul_add(first, scale, gl_mul(wide_reduce(firsts.first), l0)));
    sums[n_points + point] = gl_canonical(gl_mul_add(second, scale, gl_mul(wide_reduce(firsts.second), l0)));
}
