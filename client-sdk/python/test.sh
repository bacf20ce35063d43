#!/usr/bin/env bash
# Tests the Python package against the real service: client-sdk/python/test.sh [PYTEST ARGUMENTS...]
#
# Builds zkinferd and the wheel with the workspace's own artefacts, installs the wheel in an environment of its own below target/python, compares the
# committed messages with the .proto files, checks form and types, and runs the tests. Needs cargo, and python3 of at least 3.10 with venv.
# Where Python or the packages of requirements-dev.txt cannot be had, the reason is printed and the exit code is 77: nothing was tested.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

package=client-sdk/python
folder=$PWD/target/python
python=$folder/venv/bin/python

unavailable() {
    echo "the Python package is not tested: $1" >&2
    exit 77
}

pip() { "$python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }

python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || unavailable "there is no python3 of at least 3.10 with venv"
mkdir -p "$folder"
[[ -x $python ]] || python3 -m venv "$folder/venv"
pip install -r "$package/requirements-dev.txt" || unavailable "pip cannot install $package/requirements-dev.txt"

# Chosen from the whole workspace, so that it is the one that the workspace's tests and commands are built with.
cargo build --release --locked --bin zkinferd
rm -rf "$folder/wheels"
PATH=$folder/venv/bin:$PATH maturin build --release --locked --strip --compatibility linux --manifest-path "$package/Cargo.toml" --out "$folder/wheels"
pip install "$folder"/wheels/*.whl || unavailable "pip cannot install what the wheel needs"
pip install --force-reinstall --no-deps "$folder"/wheels/*.whl

"$package/generate.sh" "$python" --check
export PYTHONDONTWRITEBYTECODE=1
export ZKINFERD=$PWD/target/release/zkinferd ZKINFER_TEST_CACHE=$folder/cache
cd "$package"
"$python" -m ruff format --no-cache --check --quiet package tests examples
"$python" -m ruff check --no-cache --quiet package tests examples
"$python" -m mypy --cache-dir "$folder/mypy" package/zkinfer tests examples
"$python" -m pytest "$@"
