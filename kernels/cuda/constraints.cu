// Constraints: the interpreter of a compiled program, the factors of the quotients' domain, and divisions.
//
// A program is data (kernels/src/cpu/program.rs, uploaded by kernels/src/cuda/program.rs). An operand is a register, or a column if its highest
// bit is set. CPU twins: kernels/src/cpu/interpreter.rs, the quotients of sums.rs, divide of project.rs.
#pragma once
#include "gl64.cuh"

// Words of an instruction: opcode | to0 << 32, to1 | a0 << 32, a1 | b0 << 32, b1, x, y.
constexpr u32 INSTRUCTION_WORDS = 6;
constexpr u32 COLUMN_FLAG = 0x80000000u;
// Of opcodes with a rotation: 0 the same row, 1 the next, 2 the same row of the next group.
enum Opcode {
    OP_GATHER,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_ADD_SCALAR,
    OP_SUB_SCALAR,
    OP_MUL_SCALAR,
    OP_SCALAR_SUB,
    OP_BLEND,
    OP_PRODUCT,
    OP_ACCUMULATE,
    OP_ACCUMULATE_ONE,
    OP_STORE,
};

// Columns lie in four arrays; a table gives array << 56 | offset in words for each.
struct Columns {
    const u64 *first, *second, *third, *fourth, *table;

    __device__ __forceinline__ const u64* column(u32 index) const {
        u64 entry = table[index];
        u32 array = (u32)(entry >> 56);
        const u64* base = array == 0 ? first : array == 1 ? second : array == 2 ? third : fourth;
        return base + (entry & 0x00FFFFFFFFFFFFFFULL);
    }
};

// The position, in a domain of cosets of G in bit-reversed order, of the row `step` rows further.
__device__ __forceinline__ u32 rotated_position(u32 position, u32 step, u32 log_rows) {
    u32 mask = (1u << log_rows) - 1;
    return (position & ~mask) | reverse_bits((reverse_bits(position & mask, log_rows) + step) & mask, log_rows);
}

// Registers of one thread, at a stride: in shared memory, or in global memory if they are too many.
struct Machine {
    u64* registers;
    u64 stride;
    const Columns* columns;
    u32 point;

    __device__ __forceinline__ u64 read(u32 operand) const {
        return operand & COLUMN_FLAG ? columns->column(operand & ~COLUMN_FLAG)[point] : registers[operand * stride];
    }
    __device__ __forceinline__ void write(u32 target, u64 value) const { registers[target * stride] = value; }
};

__device__ __forceinline__ void interpret_step(const Machine& machine, const u64* __restrict__ words, u32 first_output, u32 log_rows, u32 period) {
    u32 opcode = (u32)words[0], to0 = (u32)(words[0] >> 32), to1 = (u32)words[1], a0 = (u32)(words[1] >> 32);
    u32 a1 = (u32)words[2], b0 = (u32)(words[2] >> 32), b1 = (u32)words[3];
    u64 x = words[4], y = words[5];
    switch (opcode) {
        case OP_GATHER: {
            u32 step = x == 0 ? 0 : x == 1 ? 1 : period;
            machine.write(to0, machine.columns->column(a0 & ~COLUMN_FLAG)[rotated_position(machine.point, step, log_rows)]);
            break;
        }
        case OP_ADD: machine.write(to0, gl_add(machine.read(a0), machine.read(b0))); break;
        case OP_SUB: machine.write(to0, gl_sub(machine.read(a0), machine.read(b0))); break;
        case OP_MUL: machine.write(to0, gl_mul(machine.read(a0), machine.read(b0))); break;
        case OP_ADD_SCALAR: machine.write(to0, gl_add(machine.read(a0), x)); break;
        case OP_SUB_SCALAR: machine.write(to0, gl_sub(machine.read(a0), x)); break;
        case OP_MUL_SCALAR: machine.write(to0, gl_mul(machine.read(a0), x)); break;
        case OP_SCALAR_SUB: machine.write(to0, gl_sub(x, machine.read(a0))); break;
        case OP_BLEND: {
            Wide sum = {0, 0, 0};
            wide_add_product(sum, machine.read(a0), x);
            wide_add_product(sum, machine.read(b0), y);
            machine.write(to0, wide_reduce(sum));
            break;
        }
        case OP_PRODUCT: {
            Ext product = ext_mul({machine.read(a0), machine.read(a1)}, {machine.read(b0), machine.read(b1)});
            machine.write(to0, product.c0);
            machine.write(to1, product.c1);
            break;
        }
        case OP_ACCUMULATE:
        case OP_ACCUMULATE_ONE: {
            // Output to0 += (x, y) * value; a value in F has coordinate 1 left out.
            u32 sum0 = first_output + 2 * to0, sum1 = sum0 + 1;
            Ext value = opcode == OP_ACCUMULATE ? ext_mul({x, y}, {machine.read(a0), machine.read(a1)}) : ext_scale({x, y}, machine.read(a0));
            machine.write(sum0, gl_add(machine.read(sum0), value.c0));
            machine.write(sum1, gl_add(machine.read(sum1), value.c1));
            break;
        }
        // Word to0 of the outputs.
        case OP_STORE: machine.write(first_output + to0, machine.read(a0)); break;
    }
}

// Runs a program at every point of a domain of 2^log_rows * n_cosets points, cosets of G in bit-reversed order. outputs: 2 * n_outputs columns
// of n_points words, from `initial`; in natural order if is_natural (one coset). Threads take points in turn. Registers: in shared memory
// ((n_registers + 2 * n_outputs) * blockDim.x words) if scratch_words is 0, else in scratch, of as many words for every thread.
extern "C" __global__ void __launch_bounds__(128)
    interpret(const u64* __restrict__ code, const u64* __restrict__ table, const u64* __restrict__ first, const u64* __restrict__ second,
              const u64* __restrict__ third, const u64* __restrict__ fourth, const u64* __restrict__ initial, u64* __restrict__ outputs,
              u64* __restrict__ scratch, u32 n_instructions, u32 n_registers, u32 n_outputs, u32 log_rows, u32 period, u32 n_points,
              u32 is_natural, u32 uses_scratch) {
    SHARED_DYNAMIC(u64, shared);
    u32 thread = blockIdx.x * blockDim.x + threadIdx.x, n_threads = gridDim.x * blockDim.x;
    Columns columns = {first, second, third, fourth, table};
    Machine machine = {uses_scratch ? scratch + thread : shared + threadIdx.x, uses_scratch ? n_threads : blockDim.x, &columns, 0};
    for (u32 point = thread; point < n_points; point += n_threads) {
        machine.point = point;
        for (u32 i = 0; i < 2 * n_outputs; i++) machine.write(n_registers + i, initial[i]);
        for (u32 i = 0; i < n_instructions; i++) interpret_step(machine, code + (u64)i * INSTRUCTION_WORDS, n_registers, log_rows, period);
        u32 position = is_natural ? reverse_bits(point, log_rows) : point;
        for (u32 i = 0; i < 2 * n_outputs; i++) outputs[(u64)i * n_points + position] = gl_canonical(machine.read(n_registers + i));
    }
}

// points[p] = shift * w^rev(p), w of order 2^log_size, log_size > 0; low and high are the twiddles of shift 1 (ntt.cu). One thread a point.
extern "C" __global__ void __launch_bounds__(256)
    coset_points(const u64* __restrict__ low, const u64* __restrict__ high, u64* __restrict__ points, u64 shift, u32 log_size) {
    u32 p = blockIdx.x * blockDim.x + threadIdx.x;
    if (p >> log_size) return;
    // Bit 0 of p stands for -1, the bits above for the twiddle of p / 2.
    u32 block = p >> 1, above = block >> 10;
    u64 point = gl_mul(shift, low[block & 1023]);
    if (above) point = gl_mul(point, high[above]);
    points[p] = gl_canonical(p & 1 ? gl_sub(0, point) : point);
}

constexpr u32 INVERSIONS_PER_THREAD = 8;

// inverses[i] = scale / (points[i] - root), scale0 in the first half of the n points, scale1 in the second. No point is root. One thread for 8
// points, n / 8 apart (n for n < 8: one point a thread), with one inversion. CPU twin: Factors::new in kernels/src/cpu/sums.rs.
extern "C" __global__ void __launch_bounds__(256)
    lagrange_factors(const u64* __restrict__ points, u64* __restrict__ inverses, u64 root, u64 scale0, u64 scale1, u32 n) {
    u32 thread = blockIdx.x * blockDim.x + threadIdx.x, n_threads = (n + INVERSIONS_PER_THREAD - 1) / INVERSIONS_PER_THREAD;
    if (thread >= n_threads) return;
    u64 prefix[INVERSIONS_PER_THREAD], product = 1;
#pragma unroll
    for (u32 k = 0; k < INVERSIONS_PER_THREAD; k++) {
        u32 i = thread + k * n_threads;
        prefix[k] = product;
        if (i < n) product = gl_mul(product, gl_sub(points[i], root));
    }
    u64 inverse = gl_inverse(product);
#pragma unroll
    for (int k = INVERSIONS_PER_THREAD - 1; k >= 0; k--) {
        u32 i = thread + k * n_threads;
        if (i >= n) continue;
        u64 single = gl_mul(inverse, prefix[k]);
        inverse = gl_mul(inverse, gl_sub(points[i], root));
        inverses[i] = gl_canonical(gl_mul(single, i < n / 2 ? scale0 : scale1));
    }
}

// d0^2 - 7 * d1^2.
__device__ __forceinline__ u64 ext_norm(u64 d0, u64 d1) { return gl_sub(gl_mul(d0, d0), gl_mul(7, gl_mul(d1, d1))); }

// quotients = numerator / denominator over K, n elements by coordinate: values hold numerator and denominator, 4n words. *vanishes becomes 1 if a
// denominator is zero (the quotients of its thread are then meaningless). One thread for 8 elements with one inversion:
// 1/d = (d0 - phi*d1) / (d0^2 - 7*d1^2).
extern "C" __global__ void __launch_bounds__(256)
    divide_columns(const u64* __restrict__ values, u64* __restrict__ quotients, u64* vanishes, u32 n) {
    u32 thread = blockIdx.x * blockDim.x + threadIdx.x, n_threads = (n + INVERSIONS_PER_THREAD - 1) / INVERSIONS_PER_THREAD;
    if (thread >= n_threads) return;
    const u64* denominators = values + 2 * (u64)n;
    u64 prefix[INVERSIONS_PER_THREAD], product = 1;
#pragma unroll
    for (u32 k = 0; k < INVERSIONS_PER_THREAD; k++) {
        u32 i = thread + k * n_threads;
        prefix[k] = product;
        if (i < n) product = gl_mul(product, ext_norm(denominators[i], denominators[(u64)n + i]));
    }
    if (gl_canonical(product) == 0) atomicMax(vanishes, (u64)1);
    u64 inverse = gl_inverse(product);
#pragma unroll
    for (int k = INVERSIONS_PER_THREAD - 1; k >= 0; k--) {
        u32 i = thread + k * n_threads;
        if (i >= n) continue;
        u64 single = gl_mul(inverse, prefix[k]);
        // Computed again: eight norms beside eight products would not fit the registers of sm_80.
        inverse = gl_mul(inverse, ext_norm(denominators[i], denominators[(u64)n + i]));
        Ext conjugate = {denominators[i], gl_sub(0, denominators[(u64)n + i])};
        Ext quotient = ext_scale(ext_mul({values[i], values[(u64)n + i]}, conjugate), single);
        quotients[i] = gl_canonical(quotient.c0);
        quotients[(u64)n + i] = gl_canonical(quotient.c1);
    }
}

// From the interpreter's sums to q_S and the constraints' quotient at n points (two cosets of G), 4n words by coordinate.
// sums: 2 * n_outputs columns: summands, then the constraints of each domain (every, first, last, step; missing ones are zero). running: S, 2n
// words. factors: points, L_0, L_(n-1), n words each. (step0, step1) = total / rows; inverse_z of either coset. One thread a point.
extern "C" __global__ void __launch_bounds__(256)
    finish_quotients(const u64* __restrict__ sums, const u64* __restrict__ running, const u64* __restrict__ factors, u64* __restrict__ quotients,
                     u64 step0, u64 step1, u64 last_root, u64 inverse_z0, u64 inverse_z1, u32 n_outputs, u32 log_rows) {
    u32 point = blockIdx.x * blockDim.x + threadIdx.x, n = 2u << log_rows;
    if (point >= n) return;
    u64 inverse_z = point >> log_rows ? inverse_z1 : inverse_z0;
    u32 next = rotated_position(point, 1, log_rows);
    Ext sum = ext_sub({running[next], running[(u64)n + next]}, {running[point], running[(u64)n + point]});
    sum = ext_add(sum, {step0, step1});
    Ext constraints = {0, 0};
    for (u32 output = 0; output < n_outputs; output++) {
        Ext value = {sums[(u64)(2 * output) * n + point], sums[(u64)(2 * output + 1) * n + point]};
        if (output == 0) sum = ext_sub(sum, value);
        if (output == 1) constraints = ext_add(constraints, value);
        if (output == 2 || output == 3) constraints = ext_add(constraints, ext_scale(value, factors[(u64)(output - 1) * n + point]));
        if (output == 4) constraints = ext_add(constraints, ext_scale(value, gl_sub(factors[point], last_root)));
    }
    sum = ext_scale(sum, inverse_z);
    constraints = ext_scale(constraints, inverse_z);
    quotients[point] = gl_canonical(sum.c0);
    quotients[(u64)n + point] = gl_canonical(sum.c1);
    quotients[2 * (u64)n + point] = gl_canonical(constraints.c0);
    quotients[3 * (u64)n + point] = gl_canonical(constraints.c1);
}
