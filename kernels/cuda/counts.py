#!/usr/bin/env python3
"""Counts the machine instructions of the hot kernels: kernels/cuda/counts.py [sm_90 ...]

Needs cuobjdump and nvdisasm: on PATH, or in the environment of build.sh after `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`. Loops are found by their backward
branches. A permutation: the straight code of merkle_level plus its three loops of 4, 22 and 4 rounds. A butterfly: the loop of ntt_forward that does
four stages (32 butterflies) on 16 values, on the path that needs no twiddle of the second level and on the one that needs all 15. A point of a
circuit's quotient: each kernel's straight code and its loops as often as plonky2's recursion circuits of 135 wires run them (GATES). The loops
are cut otherwise on sm_100, for which it is not counted.
"""
import os
import pathlib
import re
import subprocess
import sys

FATBIN = pathlib.Path(__file__).with_name("zkinfer.fatbin")
ENVIRONMENT = pathlib.Path(os.environ.get("ZKINFER_NVCC_ENV", FATBIN.parent / "../../target/nvcc"))
TOOLS = [str(path) for path in ENVIRONMENT.glob("lib/python3*/site-packages/nvidia/cu13/bin")]
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *TOOLS])
LINE = re.compile(r"\s+/\*([0-9a-f]{4,6})\*/\s+((?:@!?U?P\d+ )?)([A-Z0-9_.]+)(.*);")


def functions(arch):
    """Instructions (address, opcode, operands, is_predicated) of every kernel."""
    text = subprocess.run(["cuobjdump", "-sass", "-arch", arch, FATBIN], capture_output=True, text=True, check=True).stdout
    found, name = {}, None
    for line in text.splitlines():
        if "Function :" in line:
            name = line.split(":")[1].strip()
            found[name] = []
        elif name and (match := LINE.match(line)) and match[3] != "NOP":
            found[name].append((int(match[1], 16), match[3], match[4], bool(match[2])))
    return found


def loops(code):
    """(first, last) addresses of every loop, in order."""
    result = []
    for address, opcode, operands, _ in code:
        if opcode.startswith("BRA") and (target := re.search(r"0x([0-9a-f]+)", operands)):
            if int(target[1], 16) < address:
                result.append((int(target[1], 16), address))
    return sorted(result)


def length(code, span):
    return sum(span[0] <= address <= span[1] for address, *_ in code)


def permutation(code):
    bodies = [length(code, span) for span in loops(code)[:3]]
    return len(code) + sum((rounds - 1) * body for rounds, body in zip((4, 22, 4), bodies)), bodies


def skipped(code, span):
    """Instructions of a loop that its forward branches jump over: the second level of the twiddles."""
    total = 0
    for address, opcode, operands, is_predicated in code:
        if span[0] <= address <= span[1] and opcode.startswith("BRA") and is_predicated:
            target = int(re.search(r"0x([0-9a-f]+)", operands)[1], 16)
            if address < target <= span[1]:
                total += sum(address < other < target for other, *_ in code)
    return total


def butterfly(code):
    """Per butterfly: least, most; and per value: load and store."""
    spans = loops(code)
    # The largest loop is the four stages' over stages; the loop over groups lies in it.
    outer = max(spans, key=lambda span: length(code, span))
    group = max((span for span in spans if outer[0] <= span[0] and span[1] <= outer[1] and span != outer), key=lambda span: length(code, span))
    most = length(code, group)
    return (most - skipped(code, group)) / 32, most / 32, length(code, spans[0]) + length(code, spans[-1])


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
    jumps = []
    for address, opcode, operands, is_predicated in code:
        if rounds[0] <= address <= rounds[1] and opcode.startswith("BRA") and is_predicated:
            target = int(re.search(r"0x([0-9a-f]+)", operands)[1], 16)
            jumps.append(sum(address < other < target for other, *_ in code))
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
    code = functions(arch)
    if arch != "sm_100":
        points = quotient(code)
        print(f"{arch} point of a circuit's quotient: {sum(points.values()):.0f} instructions")
        for name, count in sorted(points.items()):
            print(f"    {name:26} {count:7.0f}")
    total, bodies = permutation(code["merkle_level"])
    print(f"{arch} permutation: {total} instructions; a full round {bodies[0]}, a partial one {bodies[1]}")
    least, most, memory = butterfly(code["ntt_forward"])
    print(f"{arch} butterfly: {least:.1f} to {most:.1f} instructions, and {memory} to load and store a value once per launch")


for arch in sys.argv[1:] or ["sm_80", "sm_89", "sm_90", "sm_100"]:
    describe(arch)
