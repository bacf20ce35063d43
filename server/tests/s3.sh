#!/usr/bin/env bash
# Runs the conformance suite of artifact stores against S3: server/tests/s3.sh
#
# The S3 is moto's server, of the Python package registry, in an environment of its own in target/s3; it listens on loopback and ends with the script.
# Needs cargo and python3 with venv. Where moto cannot be had, the reason is printed and the exit code is 77: nothing was tested. Whatever fails
# later is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=$PWD/target/s3
version=5.2.5
bucket=zkinfer-test

unavailable() {
    echo "not tested on S3: $1" >&2
    exit 77
}

install_moto() {
    rm -rf "$folder/part" "$folder/moto-$version"
    mkdir -p "$folder"
    python3 -m venv "$folder/part" || unavailable "python3 has no venv"
    # Only what S3 needs: without the server's optional services.
    "$folder/part/bin/pip" install --quiet --disable-pip-version-check "moto[s3]==$version" flask flask-cors || unavailable "cannot fetch moto $version"
    mv "$folder/part" "$folder/moto-$version"
}

command -v python3 >/dev/null || unavailable "there is no python3"
[[ -d $folder/moto-$version ]] || install_moto

# A port that the system gives; the server writes the address where it listens, with a bucket in it.
rm -f "$folder/address"
"$folder/moto-$version/bin/python" - "$folder/address" "$bucket" >"$folder/log" 2>&1 <<'PY' &
import os, sys, threading, urllib.request
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

address_file, bucket = sys.argv[1:]
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request"}
urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT", headers=headers), timeout=30).read()
with open(address_file + ".part", "w") as file:
    file.write(address)
os.rename(address_file + ".part", address_file)
threading.Event().wait()
PY
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for ((waited = 0; waited < 600; waited++)); do
    [[ -f $folder/address ]] && break
    kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done
[[ -f $folder/address ]] || { echo "moto does not answer" >&2; exit 1; }

export ZKINFER_TEST_S3_URL=s3://$bucket AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
AWS_ENDPOINT_URL=$(<"$folder/address")
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
cargo test --release --locked --workspace --lib -- artifacts::tests::s3
