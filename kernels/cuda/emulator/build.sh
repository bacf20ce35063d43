#!/usr/bin/env bash
# Builds the emulated driver: kernels/cuda/emulator/build.sh [address|undefined|thread] -> target/cuda-emulator[-SANITIZER]/libcuda.so.1
#
# The kernels' source is compiled unmodified by the host compiler. Tests run on it with LD_LIBRARY_PATH set to that folder, which kernels/tests/cuda.rs does.
# Needs clang++-16 (Debian: clang-16, and libclang-rt-16-dev for the sanitizers), or the compiler in $CLANG.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

sanitizer=${1:-}
out=../../../target/cuda-emulator${sanitizer:+-$sanitizer}
mkdir -p "$out"

# Every kernel by its name, in a file beside the library.
{
    echo '#include "device.h"'
    echo '#include "../zkinfer.cu"'
    cat ../*.cu | tr '\n' ' ' | grep -oE '__global__ void (__launch_bounds__\([0-9]+\) +)?[a-z0-9_]+\(' | grep -oE '[a-z0-9_]+\($' | tr -d '(' | sed 's/.*/EMULATED_KERNEL(&);/'
} >"$out/kernels.cpp"

flags=(-std=c++17 -O2 -g -fPIC -shared -pthread -Wall -Wextra -Wno-unknown-pragmas -Wno-pass-failed -I. "-Wl,-soname,libcuda.so.1")
case $sanitizer in
    "") ;;
    address) flags+=(-O1 -fsanitize=address -shared-libsan) ;;
    undefined) flags+=(-O1 -fsanitize=undefined -fno-sanitize-recover=undefined -shared-libsan) ;;
    thread) flags+=(-O1 -fsanitize=thread -shared-libsan "-fsanitize-ignorelist=$PWD/races_of_the_emulator.txt") ;;
    *) echo "unknown sanitizer $sanitizer" >&2; exit 2 ;;
esac
"${CLANG:-clang++-16}" "${flags[@]}" -o "$out/libcuda.so.1" driver.cpp "$out/kernels.cpp"
ls -l "$out/libcuda.so.1"
