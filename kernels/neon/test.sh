#!/usr/bin/env bash
# Runs the tests of the kernels on AArch64, where vectors are NEON, executed by qemu: kernels/neon/test.sh [FILTER...]
#
# Without filters: the unit tests that compute at every level, among them one proof of a circuit, and the conformance suite of layers. That of
# circuits takes many times as long: kernels/neon/test.sh conforms_in_circuits. Filters select from the unit tests and both suites.
# Needs cargo and a Debian on x86-64. The Rust compiler, its libraries for both architectures and LLVM are packages of Debian, unpacked into
# target/neon and not installed, since a machine may have others; the cross linker and qemu are installed if they are missing, which takes root.
# Where these packages cannot be had, the reason is printed and the exit code is 77: nothing was tested. Whatever fails later is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=aarch64-unknown-linux-gnu
folder=$PWD/target/neon
toolchain=$folder/toolchain
# An index of both architectures that leaves the system's alone.
apt=(-qq -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Architectures::=amd64 -o APT::Architectures::=arm64
    -o APT::Sandbox::User=)

unavailable() {
    echo "not tested on AArch64: $1" >&2
    exit 77
}

# The linker for AArch64 and its C library, qemu, and what LLVM links to.
install_tools() {
    local package missing=()
    for package in gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static libedit2 libxml2 libz3-4; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-upgrade "${missing[@]}" ||
        unavailable "cannot install ${missing[*]}"
}

# needed_by PACKAGE PREFIX: the package whose name begins so, among those that a package depends on.
needed_by() {
    apt-cache "${apt[@]}" depends "$1:amd64" | sed -n "s/^ *Depends: \($2[^ :]*\).*/\1/p" | head -n 1
}

unpack_toolchain() {
    local archive libraries llvm
    rm -rf "$folder/archives" "$toolchain.part"
    mkdir -p "$folder"/{archives,lists/partial,cache/archives/partial}
    apt-get "${apt[@]}" update || unavailable "cannot fetch the index of packages"
    libraries=$(needed_by libstd-rust-web-dev libstd-rust) && llvm=$(needed_by "${libraries:-none}" libllvm) && [[ -n $llvm ]] ||
        unavailable "Debian's index has no libstd-rust-web-dev"
    (cd "$folder/archives" && apt-get "${apt[@]}" download {rustc-web,"$libraries","$llvm"}:amd64 libstd-rust-web-dev:{amd64,arm64}) ||
        unavailable "cannot fetch the Rust compiler and its libraries"
    for archive in "$folder"/archives/*.deb; do dpkg -x "$archive" "$toolchain.part"; done
    mv "$toolchain.part" "$toolchain"
    rm -rf "$folder"/{archives,lists,cache}
}

command -v apt-get >/dev/null && [[ $(dpkg --print-architecture) == amd64 ]] || unavailable "this is not a Debian on x86-64"
install_tools
[[ -d $toolchain ]] || unpack_toolchain

export RUSTC=$toolchain/usr/bin/rustc LD_LIBRARY_PATH=$toolchain/usr/lib/x86_64-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
version=$("$RUSTC" --version | cut -d ' ' -f 2)
printf '%s\n' "$pinned" "$version" | sort --version-sort --check=quiet || unavailable "Debian's Rust is $version, the workspace needs $pinned"
test_kernels() { cargo test --release --locked -p zkinfer-kernels --target "$target" --target-dir "$folder/build" "$@"; }

(($#)) || set -- vector:: poseidon:: cpu::{transform,tree,wide,project,fri,circuit::gates}:: every_level_gives conforms_in_layers
test_kernels --lib --test conformance -- "$@"
