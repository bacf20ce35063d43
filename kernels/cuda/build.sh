#!/usr/bin/env bash
# Compiles the kernels to kernels/cuda/zkinfer.fatbin, which the crate embeds: kernels/cuda/build.sh [--check]
#
# --check compiles to a scratch file instead and fails if it differs from the committed one. Either way registers and spills of every kernel are
# printed, and a spill or a stack frame in any kernel is an error.
# Needs python3 and a host g++; the compiler comes from the Python package registry, pinned, into a virtual environment (250 MB) at
# $ZKINFER_NVCC_ENV, by default target/nvcc. PTX of 13.0 loads on drivers from 580 on; later compilers emit PTX that such a driver refuses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

environment=${ZKINFER_NVCC_ENV:-../../target/nvcc}
if [[ ! -x $environment/bin/pip ]]; then python3 -m venv "$environment"; fi
nvcc=$(compgen -G "$environment/lib/python3*/site-packages/nvidia/cu13/bin/nvcc" || true)
if [[ -z $nvcc ]]; then
    "$environment/bin/pip" install --quiet nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
    nvcc=$(compgen -G "$environment/lib/python3*/site-packages/nvidia/cu13/bin/nvcc")
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
targets=(-gencode arch=compute_80,code=compute_80)
for capability in 80 89 90 100; do targets+=(-gencode "arch=compute_$capability,code=sm_$capability"); done
"$nvcc" -O3 -std=c++17 -fatbin -Xfatbin -compress-all "${targets[@]}" -Xptxas -v zkinfer.cu -o "$scratch/zkinfer.fatbin" 2>"$scratch/log" ||
    { cat "$scratch/log" >&2; exit 1; }

python3 - "$scratch/log" <<'PY'
import re, sys

entry = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
frame = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
usage = re.compile(r"Used (\d+) registers")
kernel, bad = None, []
for line in open(sys.argv[1]):
    if found := entry.search(line):
        kernel = found.groups()
    elif found := frame.search(line):
        sizes = [int(size) for size in found.groups()]
        if any(sizes):
            bad.append(kernel)
    elif found := usage.search(line):
        print(f"{kernel[0]:24} {kernel[1]:7} {found.group(1):>4} registers, stack {sizes[0]}, spills {sizes[1]}/{sizes[2]}")
for name, capability in bad:
    print(f"{name} spills or keeps an array in memory on {capability}", file=sys.stderr)
sys.exit(bool(bad))
PY

if [[ ${1:-} == --check ]]; then
    cmp "$scratch/zkinfer.fatbin" zkinfer.fatbin
else
    mv "$scratch/zkinfer.fatbin" zkinfer.fatbin
fi
ls -l zkinfer.fatbin
