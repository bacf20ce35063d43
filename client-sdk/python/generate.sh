#!/usr/bin/env bash
# Writes package/zkinfer/v1 anew from the .proto files: client-sdk/python/generate.sh PYTHON [--check]
#
# Of the .proto files those of the services that a client calls, and what these import.
# PYTHON is an interpreter that has grpcio-tools in the version of requirements-dev.txt. With --check nothing is written, and it fails if what is
# committed differs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

python=$1
committed=package/zkinfer/v1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

with_imports() {
    local imported
    echo "$1"
    sed -n 's|^import "\(zkinfer/.*\)";$|\1|p' "../../proto/$1" | while read -r imported; do with_imports "$imported"; done
}

mapfile -t files < <(for service in artifact model proof system webhook; do with_imports "zkinfer/v1/$service.proto"; done | sort -u)
"$python" -m grpc_tools.protoc -I ../../proto --python_out="$scratch" --pyi_out="$scratch" --grpc_python_out="$scratch" "${files[@]}"
# Files without a service have no use of a stub.
grep -L '^class' "$scratch"/zkinfer/v1/*_pb2_grpc.py | xargs -r rm
cp "$committed/__init__.py" "$scratch/zkinfer/v1/"
if [[ ${2:-} == --check ]]; then
    diff -r --exclude=__pycache__ "$committed" "$scratch/zkinfer/v1"
else
    rm -f "$committed"/*_pb2*
    cp "$scratch"/zkinfer/v1/*_pb2* "$committed/"
fi
