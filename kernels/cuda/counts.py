#!/usr/bin/env python3
"""Counts the machine instructions of the hot kernels: kernels/cuda/counts.py [sm_90 ...]

Needs the compiler of build.sh, cuobjdump and nvdisasm: on PATH, or in the environment of build.sh, the latter two after `pip install
nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`. Loops are found by their backward branches. A permutation: the straight code of merkle_level, its 8
full rounds, 7 times three partial rounds, and the last one of these. A butterfly: the loop of ntt_forward over steps of four stages (32
butterflies on 16 values), without the stages that are left, on the path that needs no twiddle of the second level and on the one that needs all
15. A point of a circuit's quotient: each kernel's straight code and its loops as often as plonky2's recursion circuits of 135 wires run them
(GATES). The loops are cut otherwise on sm_100, for which it is not counted. Stages that are left beside a step of four: counts/steps.cu,
compiled here, with them and without.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

STEPS = pathlib.Path(__file__).with_name("counts") / "steps.cu"
FATBIN = pathlib.Path(__file__).with_name("zkinfer.fatbin")
ENVIRONMENT = pathlib.Path(os.environ.get("ZKINFER_NVCC_ENV", FATBIN.parent / "../../target/nvcc"))
TOOLS = [str(path) for path in ENVIRONMENT.glob("lib/python3*/site-packages/nvidia/cu13/bin")]
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *TOOLS])
LINE = re.compile(r"\s+/\*([0-9a-f]{4,6})\*/\s+((?:@!?U?P\d+ )?)([A-Z0-9_.]+)(.*);")


def functions(binary, *options):
    """Instructions (address, opcode, operands, is_predicated) of every kernel."""
    text = subprocess.run(["cuobjdump", "-sass", *options, binary], capture_output=True, text=True, check=True).stdout
    found, name = {}, None
    for line in text.splitlines():
        if "Function :" in line:
            name = line.split(":")[1].strip()
            found[name] = []
        elif name and (match := LINE.match(line)) and match[3] != "NOP":
            found[name].append((int(match[1], 16), match[3], match[4], bool(match[2])))
    return found


def branches(code):
    """(address, target, is_predicated) of every branch."""
    for address, opcode, operands, is_predicated in code:
        if opcode.startswith("BRA") and (target := re.search(r"0x([0-9a-f]+)", operands)):
            yield address, int(target[1], 16), is_predicated


def loops(code):
    """(first, last) addresses of every loop, in order."""
    return sorted((target, address) for address, target, _ in branches(code) if target < address)


def length(code, span):
    return sum(span[0] <= address <= span[1] for address, *_ in code)


def permutation(code):
    """Twice the outer loop, of which a forward branch leaves out the partial rounds once."""
    both, full, partial = loops(code)[:3]
    jump = next((address + 1, target - 1) for address, target, _ in branches(code) if address < partial[0] and partial[1] < target)
    whole, full, partial, once = (length(code, span) for span in (both, full, partial, jump))
    return len(code) - whole + 2 * (whole - once - full) + 8 * full + once - partial + 7 * partial, full, partial


def within(code, span, opcodes):
    return sum(span[0] <= address <= span[1] and opcode.split(".")[0] in opcodes for address, opcode, *_ in code)


def skipped(code, span):
    """Addresses of the multiplications by twiddles of the second level: what forward branches jump over that holds no loop and no shuffle."""
    found = set()
    for address, target, is_predicated in branches(code):
        jumped = (address + 1, target - 1)
        if is_predicated and span[0] <= address < target <= span[1] and not within(code, jumped, {"SHFL", "BAR"}):
            if not any(address < first < target for first, _ in loops(code)):
                found |= {other for other, *_ in code if address < other < target}
    return found


def stages_left(code, span):
    """Addresses of the stages that are left beside a step: what forward branches jump over that holds shuffles."""
    found = set()
    for address, target, _ in branches(code):
        if span[0] <= address < target <= span[1] and within(code, (address, target - 1), {"SHFL"}):
            found |= {other for other, *_ in code if address < other < target}
    return found


def butterfly(code):
    """Per butterfly: least, most; and per value: load and store."""
    spans = loops(code)
    # The largest loop is the one over steps of four stages.
    steps = max(spans, key=lambda span: length(code, span))
    left = stages_left(code, steps)
    most = length(code, steps) - len(left)
    return (most - len(skipped(code, steps) - left)) / 32, most / 32, length(code, spans[0]) + length(code, spans[-1])


# For which a warp has the unit of shared memory and shuffles: two for 64 bits, one for 32.
CYCLES = {"LDS": 2, "STS": 2, "SHFL": 1}


def executed(code, iterations):
    """What a thread of a kernel of counts/steps.cu executes, its loop `iterations` times, without and with twiddles of the second level; cycles."""
    everything = (0, code[-1][0])
    second_level = skipped(code, everything)
    spans = loops(code[:-1])
    times = lambda address: iterations if any(first <= address <= last for first, last in spans) else 1
    most = sum(times(address) for address, *_ in code)
    least = most - sum(times(address) for address in second_level)
    return least, most, sum(CYCLES.get(opcode.split(".")[0], 0) * times(address) for address, opcode, *_ in code)


def compare_exchanges(arch):
    """Prints what stages beside a step of four cost a thread by shuffles and through shared memory, and the same of two whole steps."""
    with tempfile.TemporaryDirectory() as folder:
        binary = pathlib.Path(folder) / "steps.cubin"
        subprocess.run(["nvcc", "-O3", "-std=c++17", "-cubin", f"-arch={arch}", STEPS, "-o", binary], check=True)
        code = functions(binary)
    for name, direction in (("split", "forward"), ("join", "inverse")):
        alone = executed(code[f"{name}_alone"], 1)
        for left in 1, 2, 3:
            for way in "shuffles", "memory":
                counts = executed(code[f"{name}_{left}_by_{way}"], 16 >> left)
                least, most, cycles = (with_them - without for with_them, without in zip(counts, alone))
                print(f"{arch} {direction}, stages left {left}, by {way:8} {least:5} to {most} instructions, {cycles} cycles")
    for way in "shuffles", "memory":
        least, most, cycles = executed(code[f"pairs_by_{way}"], 1)
        print(f"{arch} two steps of four, exchange by {way:8} {least:5} to {most} instructions, {cycles} cycles")


# Iterations of each outermost loop of a gate's kernel that is run, by its place among them (the sum of limbs takes four at a time); the last loop
# is the filter's, over the gates that share a selector.
FILTER = 5
GATES = {
    "gate_arithmetic": {0: 20},
    "gate_arithmetic_extension": {0: 10},
    "gate_base_sum": {0: 15, 1: 3, 3: 63},
    "gate_constant": {0: 2 / 4},
    "gate_interpolation": {0: 16},
    "gate_mul_extension": {0: 13},
    "gate_poseidon_mds": {0: 2},
    "gate_public_input": {},
    "gate_reducing": {0: 43},
    "gate_reducing_extension": {0: 32},
}


def outermost(code):
    """Spans of loops that lie in no other."""
    spans = loops(code)
    return [span for span in spans if not any(other[0] <= span[0] and span[1] <= other[1] and other != span for other in spans)]


def run_through(code, iterations):
    """All straight code, and each loop as often as it is run, the last one for the filter."""
    spans = outermost(code)
    straight = len(code) - sum(length(code, span) for span in spans)
    return straight + FILTER * length(code, spans[-1]) + sum(times * length(code, spans[index]) for index, times in iterations.items())


def poseidon_gate(code):
    """8 full rounds, and 22 that jump over the other eleven elements."""
    rounds = outermost(code)[0]
    jumps = [
        sum(address < other < target for other, *_ in code)
        for address, target, is_predicated in branches(code)
        if is_predicated and rounds[0] <= address <= rounds[1] and address < target
    ]
    full = length(code, rounds)
    partial = full - sum(sorted(jumps)[-11:])
    return run_through(code, {}) + 8 * full + 22 * partial


def random_access_gate(code):
    """Four copies of lists of 2^4, and the filter; what runs once is left out, since it lies among code for other sizes.

    The loop of this size loads 16 entries, 4 bits, index and element, and two weights for each of 6 terms.
    """
    loads = lambda span: sum(span[0] <= address <= span[1] and opcode.startswith("LDG") for address, opcode, *_ in code)
    of_size = next(span for span in outermost(code) if loads(span) == 34)
    return 4 * length(code, of_size) + FILTER * length(code, outermost(code)[-1])


def finish(code):
    """Two challenges, ten chunks each, eight wires a chunk."""
    challenge, chunk, wire = (length(code, span) for span in loops(code)[:3])
    return len(code) - challenge + 2 * (challenge - chunk + 10 * (chunk - wire + 8 * wire))


def quotient(found):
    """Instructions of a point, by kernel."""
    counts = {name: run_through(found[name], iterations) for name, iterations in GATES.items()}
    counts["gate_poseidon"] = poseidon_gate(found["gate_poseidon"])
    counts["gate_random_access"] = random_access_gate(found["gate_random_access"])
    counts["quotient_finish"] = finish(found["quotient_finish"])
    return counts


def describe(arch):
    code = functions(FATBIN, "-arch", arch)
    if arch != "sm_100":
        points = quotient(code)
        print(f"{arch} point of a circuit's quotient: {sum(points.values()):.0f} instructions")
        for name, count in sorted(points.items()):
            print(f"    {name:26} {count:7.0f}")
    total, full, partial = permutation(code["merkle_level"])
    print(f"{arch} permutation: {total} instructions; a full round {full}, three partial ones {partial}")
    least, most, memory = butterfly(code["ntt_forward"])
    print(f"{arch} butterfly: {least:.1f} to {most:.1f} instructions, and {memory} to load and store a value once per launch")
    compare_exchanges(arch)


for arch in sys.argv[1:] or ["sm_80", "sm_89", "sm_90", "sm_100"]:
    describe(arch)
