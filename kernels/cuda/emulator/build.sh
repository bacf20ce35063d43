#!/usr/bin/env bash
# Builds the emulated driver: kernels/cuda/emulator/build.sh [address|undefined|thread|ptx] -> target/cuda-emulator[-KIND]/libcuda.so.1
#
# The kernels' source is compiled unmodified by the host compiler; with a sanitizer; or, for ptx, the PTX that nvcc makes of it is translated to C++,
# which tests the compiler's work and the inline PTX, for which the host compiler takes other code. ptx needs ../build.sh to have run, and takes two
# minutes. Tests run on a driver with LD_LIBRARY_PATH set to its folder, which kernels/tests/cuda.rs does.
# Needs clang++-16 (Debian: clang-16, and libclang-rt-16-dev for the sanitizers), or the compiler in $CLANG.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

kind=${1:-}
out=../../../target/cuda-emulator${kind:+-$kind}
mkdir -p "$out"

translate() {
    local nvcc
    nvcc=$(compgen -G "${ZKINFER_NVCC_ENV:-../../../target/nvcc}/lib/python3*/site-packages/nvidia/cu13/bin/nvcc")
    "$nvcc" -O3 -std=c++17 -ptx -arch=compute_80 ../zkinfer.cu -o "$out/kernels.ptx"
    python3 ptx_to_cpp.py "$out/kernels.ptx" >"$out/kernels.cpp"
}

# Every kernel by its name, in a file beside the library.
include_source() {
    echo '#include "device.h"'
    echo '#include "../zkinfer.cu"'
    cat ../*.cu | tr '\n' ' ' | grep -oE '__global__ void (__launch_bounds__\([0-9, ]+\) +)?[a-z0-9_]+\(' | grep -oE '[a-z0-9_]+\($' | tr -d '(' | sed 's/.*/EMULATED_KERNEL(&);/'
}

if [[ $kind == ptx ]]; then translate; else include_source >"$out/kernels.cpp"; fi
flags=(-std=c++17 -O2 -g -fPIC -shared -pthread -Wall -Wextra -Wno-unknown-pragmas -Wno-pass-failed -I. "-Wl,-soname,libcuda.so.1")
case $kind in
    "") ;;
    ptx) flags+=(-O1 -Wno-unused -Wno-tautological-compare) ;;
    address) flags+=(-O1 -fsanitize=address -shared-libsan) ;;
    undefined) flags+=(-O1 -fsanitize=undefined -fno-sanitize-recover=undefined -shared-libsan) ;;
    thread) flags+=(-O1 -fsanitize=thread -shared-libsan "-fsanitize-ignorelist=$PWD/races_of_the_emulator.txt") ;;
    *) echo "unknown kind $kind" >&2; exit 2 ;;
esac
"${CLANG:-clang++-16}" "${flags[@]}" -o "$out/libcuda.so.1" driver.cpp "$out/kernels.cpp"
ls -l "$out/libcuda.so.1"
