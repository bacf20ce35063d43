#!/usr/bin/env bash
# Opens the dashboard in Chromium, over scripted workers: server/tests/dashboard/test.sh
#
# Needs cargo, python3 with venv, Debian's chromium (installed if it is missing, which takes root) and playwright from the package registry.
# Where these cannot be had, the reason is printed and the exit code is 77: nothing was tested. Whatever fails later is a failure.
# Screenshots are left in target/dashboard.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

folder=$PWD/target/dashboard

unavailable() {
    echo "the dashboard was not opened in a browser: $1" >&2
    exit 77
}

install_chromium() {
    command -v chromium >/dev/null && return 0
    command -v apt-get >/dev/null || unavailable "there is no chromium"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium ||
        unavailable "cannot install chromium"
}

install_playwright() {
    [[ -x $folder/venv/bin/playwright ]] && return 0
    rm -rf "$folder/venv"
    python3 -m venv "$folder/venv" || unavailable "python3 cannot make a virtual environment"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "playwright==$1" || unavailable "cannot install playwright"
}

mkdir -p "$folder"
install_chromium
install_playwright 1.65.2
# Chosen from the whole workspace, so that it is the one that the workspace's tests were built with.
cargo build --release --locked --example dashboard-scripted
"$folder/venv/bin/python" server/tests/dashboard/browser.py target/release/examples/dashboard-scripted "$(command -v chromium)" "$folder/screenshots"
