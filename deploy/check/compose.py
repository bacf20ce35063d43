"""The compose files: their form, and that what they point at is there."""

import re

import yaml
from compose_spec import PyCompose

import objects
from paths import DEPLOY

# What zkinferd waits as an api unless it is told otherwise.
API_PAUSE = 5
VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


def interpolated(text):
    """With defaults for variables that have one, and a word for those that must be given."""
    return VARIABLE.sub(lambda match: match[3] if match[2] == "-" else "given", text)


def problems():
    """Everything that is wrong with the compose files, each over compose.yaml."""
    base = yaml.safe_load(interpolated((DEPLOY / "compose/compose.yaml").read_text()))
    for path in sorted(DEPLOY.glob("compose/*.yaml")):
        text = interpolated(path.read_text())
        if "${" in text:
            yield f"{path.name}: a variable has neither default nor message"
        parsed = yaml.safe_load(text)
        try:
            # Merge keys and anchors are resolved first.
            PyCompose.from_yaml(yaml.safe_dump(parsed))
        except ValueError as error:
            yield f"{path.name}: {error}"
        yield from (f"{path.name}: {problem}" for problem in reference_problems(base, parsed))


def reference_problems(base, parsed):
    """Services and volumes that are pointed at, and every program's confinement."""
    services = {**base["services"], **parsed["services"]}
    volumes = {**base["volumes"], **(parsed.get("volumes") or {})}
    for name, service in parsed["services"].items():
        for other in service.get("depends_on", {}):
            if other not in services:
                yield f"{name} depends on {other}, which is not there"
        for mount in service.get("volumes", []):
            if mount.split(":")[0] not in volumes:
                yield f"{name} mounts {mount}, which is no volume"
        health = service.get("healthcheck", {}).get("test", [])
        if "pg_isready" in health and "--host" not in health:
            yield f"{name} is asked on its socket, where it answers before others reach it"
        environment = service.get("environment", {})
        if "ZKINFER_DRAIN_SECONDS" in environment:
            pause = {"ZKINFER_DRAIN_PAUSE_SECONDS": API_PAUSE} if environment.get("ZKINFER_ROLE") == "api" else {}
            grace, needed = service["stop_grace_period"], objects.seconds_to_end({**pause, **environment})
            if int(grace.removesuffix("s")) <= needed:
                yield f"{name} is killed after {grace}, but may take {needed} seconds to end"
        is_program = name in base["services"] and name != "postgres" and parsed is base
        if is_program and not (service.get("read_only") and service.get("cap_drop") == ["ALL"]):
            yield f"{name} may write to its image, or has privileges"
