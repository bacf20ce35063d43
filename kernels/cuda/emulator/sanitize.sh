#!/usr/bin/env bash
# Runs the kernels under the sanitizers: kernels/cuda/emulator/sanitize.sh [address] [undefined] [thread], all three by default.
#
# The emulated driver is built with the sanitizer and given to the tests of the real host code, which is not instrumented itself: kernels out of
# bounds of device or shared memory, bad shifts and overflows, races within and between blocks. First each sanitizer must see a planted fault.
# Needs what build.sh needs, and cargo. Some minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

clang=${CLANG:-clang++-16}
runtime() { "$clang" "-print-file-name=libclang_rt.$1-x86_64.so"; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# planted SANITIZER FLAGS FAULT...: every fault must be reported, and the sound kernel must not.
planted() {
    local sanitizer=$1 flags=$2
    shift 2
    # shellcheck disable=SC2086 # flags are several words
    "$clang" -std=c++17 -O1 -g -pthread -Wno-unknown-pragmas -I. $flags -o "$scratch/planted" planted.cpp
    "$scratch/planted" sound
    for fault in "$@"; do
        if "$scratch/planted" "$fault" >"$scratch/log" 2>&1; then
            echo "$sanitizer did not see the planted fault $fault" >&2
            exit 1
        fi
        echo "$sanitizer sees $fault"
    done
}

for sanitizer in ${*:-address undefined thread}; do
    ./build.sh "$sanitizer"
    case $sanitizer in
        address)
            export ASAN_OPTIONS=detect_leaks=0
            preload=$(runtime asan)
            planted address "-fsanitize=address" shared_out_of_bounds global_out_of_bounds divergent_barrier
            ;;
        undefined)
            export UBSAN_OPTIONS=print_stacktrace=1
            preload=$(runtime ubsan_standalone)
            planted undefined "-fsanitize=undefined -fno-sanitize-recover=undefined" bad_shift
            ;;
        thread)
            # The host is not instrumented: what its allocator and locks do looks like races there.
            export TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1"
            preload=$(runtime tsan)
            planted thread "-fsanitize=thread -fsanitize-ignorelist=races_of_the_emulator.txt" shared_race warp_race global_race
            ;;
    esac
    ZKINFER_CUDA_EMULATOR=$(realpath "../../../target/cuda-emulator-$sanitizer") ZKINFER_CUDA_PRELOAD=$preload \
        cargo test --release --locked --workspace --features zkinfer-kernels/cuda --test cuda -- rounds_agree_with_the_reference transforms_of tops_of_trees every_gate_is_evaluated
done
