#!/usr/bin/env bash
# Checks everything in this folder: deploy/check.sh [--write]
#
# The chart is linted and rendered with every file of helm/zkinfer/ci; what comes out is validated against the schemas of Kubernetes and judged (check/).
# Rules are tested by promtool; board, compose files and documents are compared with what they speak of. --write writes the tables of the chart's README.
# Nothing here runs on a cluster or in a container.
# Needs python3 with venv, and Debian for promtool. Packages are fetched once into target/deploy. Where they cannot be had, the reason is printed and the
# exit code is 77: not everything was checked. Whatever else fails is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Nothing is written beside the sources.
export PYTHONDONTWRITEBYTECODE=1
folder=$PWD/target/deploy
environment=$folder/environment

unavailable() {
    echo "not checked: $1" >&2
    exit 77
}

# Made anew when the list of packages has changed.
install_environment() {
    cmp -s deploy/check/requirements.txt "$environment/requirements.txt" && return 0
    rm -rf "$environment"
    mkdir -p "$folder"
    python3 -m venv "$environment" || unavailable "python3 cannot make an environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement deploy/check/requirements.txt ||
        unavailable "cannot install the packages of deploy/check/requirements.txt"
    cp deploy/check/requirements.txt "$environment/"
}

# promtool is part of Debian's package prometheus: unpacked, and not installed, since that would start a server.
unpack_promtool() {
    [[ -x $folder/promtool ]] && return 0
    command -v apt-get >/dev/null || unavailable "promtool: this is not a Debian"
    rm -rf "$folder/archive" && mkdir -p "$folder/archive"
    (cd "$folder/archive" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } 2>/dev/null) ||
        unavailable "promtool: cannot fetch Debian's package prometheus"
    dpkg --fsys-tarfile "$folder"/archive/prometheus_*.deb | tar --extract --directory "$folder/archive" ./usr/bin/promtool
    mv "$folder/archive/usr/bin/promtool" "$folder/promtool"
    rm -rf "$folder/archive"
}

install_environment
if [[ ${1-} == --write ]]; then
    exec "$environment/bin/python" deploy/check --write
fi
"$environment/bin/yamllint" --strict --config-file deploy/check/yamllint.yaml deploy/helm/zkinfer/{Chart.yaml,values.yaml,ci,files} deploy/{compose,prometheus}
"$environment/bin/python" deploy/check
unpack_promtool
"$folder/promtool" check rules deploy/prometheus/rules.yaml
(cd deploy/prometheus && "$folder/promtool" test rules rules_test.yaml)
