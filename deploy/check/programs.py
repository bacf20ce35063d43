"""Manifests set only environment variables that the programs read."""

import re

import yaml

import chart
from paths import DEPLOY, ROOT

# Read by libraries, not as options: the object stores' credentials, OpenTelemetry, Rust.
OTHERS = re.compile(r"^(AWS|AZURE|GOOGLE|OTEL)_|^RUST_BACKTRACE$")
OPTION = re.compile(r'env = "(\w+)"')


def options():
    """Environment variables that `zkinferd` reads."""
    return {name for path in (ROOT / "server/src").rglob("*.rs") for name in OPTION.findall(path.read_text())}


def used():
    """Variables that the chart and the compose files set."""
    names = set()
    for values in chart.value_sets().values():
        for _, document in chart.render(values):
            if document["kind"] in chart.objects.POD_KINDS:
                _, spec = chart.objects.pod_of(document)
                names |= {variable["name"] for container in spec["containers"] for variable in container.get("env", [])}
    for path in DEPLOY.glob("compose/*.yaml"):
        services = yaml.safe_load(path.read_text())["services"]
        names |= {name for key, service in services.items() if key not in ("postgres", "s3", "bucket") for name in service.get("environment", {})}
    return {name for name in names if not OTHERS.match(name)}


def problems():
    """Variables that nobody reads. Those that are awaited are told, and those that no longer need to be."""
    awaited = {line for line in (DEPLOY / "check/awaited.txt").read_text().splitlines() if line and not line.startswith("#")}
    known, names = options(), used()
    for name in sorted(awaited):
        if name in known:
            print(f"  check/awaited.txt: zkinferd reads {name}: take the line out")
        else:
            print(f"  {name} is set, and zkinferd does not read it yet")
    yield from (f"{name} is set, but no option of zkinferd reads it" for name in sorted(names - known - awaited))
    yield from (f"check/awaited.txt: {name} is set nowhere" for name in sorted(awaited - names))
