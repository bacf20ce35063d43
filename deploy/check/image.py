"""The Dockerfile: its stages exist, it builds with the pinned compiler, and what runs is nobody special and needs no shell."""

import json
import re

from paths import ROOT

# What a stage may be made from without being one of ours: with its registry, which not every engine adds by itself.
BASES = {"docker.io/library/rust:${RUST_VERSION}-slim-bookworm", "gcr.io/distroless/cc-debian12"}
FINAL = {"cpu": "build-cpu", "cuda": "build-cuda"}
LICENCE = re.search(r'^license = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def instructions():
    """Each instruction and its text, with continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        yield word, rest.strip()


def problems():
    """Everything that is wrong with the Dockerfile."""
    stages, current = {}, None
    for word, rest in instructions():
        if word == "FROM":
            base, _, current = rest.partition(" AS ")
            if base not in stages and base not in BASES:
                yield f"stage {current} is made from {base}, which is not there"
            stages[current] = {"base": base, "instructions": []}
        elif current:
            stages[current]["instructions"].append((word, rest))
            source = re.search(r"--from=(\S+)", rest)
            if source and source[1] not in stages:
                yield f"stage {current} copies from {source[1]}, which is not there"
    if list(stages)[-1] != "cpu":
        yield "the last stage, which is built if none is named, is not cpu"
    pinned = re.search(r'^channel = "(.*)"$', (ROOT / "rust-toolchain.toml").read_text(), re.MULTILINE)[1]
    if ("ARG", f"RUST_VERSION={pinned}") not in list(instructions()):
        yield f"RUST_VERSION is not {pinned}, as in rust-toolchain.toml"
    for name, build in FINAL.items():
        yield from (f"stage {name}: {problem}" for problem in final_problems(stages, name, build))


def final_problems(stages, name, build):
    """What is wrong with a stage that becomes an image."""
    chain, stage = [], name
    while stage in stages:
        chain = stages[stage]["instructions"] + chain
        stage = stages[stage]["base"]
    if any(word == "RUN" for word, _ in chain):
        yield "runs a command, for which it has no shell"
    if [rest for word, rest in chain if word == "USER"] != ["10001:10001"]:
        yield "does not run as user 10001"
    if not any(word == "COPY" and f"--from={build} " in rest for word, rest in chain):
        yield f"has no programs of {build}"
    if not any(word == "LABEL" and f'org.opencontainers.image.licenses="{LICENCE}"' in rest for word, rest in chain):
        yield f"its label of licences is not {LICENCE}, as in Cargo.toml"
    for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        texts = [rest for other, rest in chain if other == word]
        command = texts[-1][texts[-1].find("[") :] if texts else ""
        try:
            json.loads(command)
        except ValueError:
            yield f"{word} needs a shell, or is not there"
