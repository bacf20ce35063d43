#!/usr/bin/env bash
# Writes package/zkinfer/v1 anew from the .proto files: client-sdk/python/generate.sh PYTHON [--check]
#
# PYTHON is an interpreter that has grpcio-tools in the version of requirements-dev.txt. With --check nothing is written, and it fails if what is
# committed differs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

python=$1
committed=package/zkinfer/v1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m grpc_tools.protoc -I ../../proto --python_out="$scratch" --pyi_out="$scratch" --grpc_python_out="$scratch" \
    ../../proto/zkinfer/v1/*.proto
# Files without a service have no use of a stub.
grep -L '^class' "$scratch"/zkinfer/v1/*_pb2_grpc.py | xargs -r rm
cp "$committed/__init__.py" "$scratch/zkinfer/v1/"
if [[ ${2:-} == --check ]]; then
    diff -r --exclude=__pycache__ "$committed" "$scratch/zkinfer/v1"
else
    rm -f "$committed"/*_pb2*
    cp "$scratch"/zkinfer/v1/*_pb2* "$committed/"
fi
