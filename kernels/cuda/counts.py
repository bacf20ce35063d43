#!/usr/bin/env python3
"""Counts the machine instructions of the hot kernels: kernels/cuda/counts.py [sm_90 ...]

Needs cuobjdump and nvdisasm: on PATH, or in the environment of build.sh after `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`. Loops are found by their backward
branches. A permutation: the straight code of merkle_level plus its three loops of 4, 22 and 4 rounds. A butterfly: the loop of ntt_forward that does
four stages (32 butterflies) on 16 values, on the path that needs no twiddle of the second level and on the one that needs all 15.
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


def describe(arch):
    code = functions(arch)
    total, bodies = permutation(code["merkle_level"])
    print(f"{arch} permutation: {total} instructions; a full round {bodies[0]}, a partial one {bodies[1]}")
    least, most, memory = butterfly(code["ntt_forward"])
    print(f"{arch} butterfly: {least:.1f} to {most:.1f} instructions, and {memory} to load and store a value once per launch")


for arch in sys.argv[1:] or ["sm_80", "sm_89", "sm_90", "sm_100"]:
    describe(arch)
