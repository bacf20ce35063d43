"""The table of values in the chart's README, written from values.yaml: each value with the comment right above it."""

import json
import re

import yaml

from paths import CHART

README = CHART / "README.md"
BEGIN, END = "<!-- values:begin (written by deploy/check.sh --write) -->", "<!-- values:end -->"
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")


def comments(text):
    """The comment right above each key, by the key's full name."""
    found, above, path = {}, [], []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            above.append(stripped.removeprefix("#").strip())
            continue
        match = KEY.match(line)
        if match:
            depth = len(match[1]) // 2
            path = [*path[:depth], match[2]]
            if above:
                found[".".join(path)] = " ".join(above)
        above = []
    return found


def leaves(values, prefix=""):
    """Each value that is no group of others, by its full name. Maps with a comment of their own are one value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        is_group = isinstance(value, dict) and value and key not in ("resources", "labels")
        if is_group:
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def table():
    """The generated part of the README, without its markers, and the names of values without description."""
    text = (CHART / "values.yaml").read_text()
    described = comments(text)
    rows, silent = ["| value | default | |", "|---|---|---|"], []
    for name, value in leaves(yaml.safe_load(text)):
        if name not in described:
            silent.append(name)
        default = json.dumps(value).replace("|", "\\|")
        rows.append(f"| `{name}` | `{default}` | {described.get(name, '').replace('|', chr(92) + '|')} |")
    return "\n".join(rows), silent


def parts():
    """The README before the table, and after it."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return before, after


def write():
    """Writes the table."""
    before, after = parts()
    README.write_text(f"{before}{BEGIN}\n{table()[0]}\n{END}{after}")


def problems():
    """Values without description, and a table that is not what values.yaml says."""
    generated, silent = table()
    yield from (f"values.yaml: no comment right above {name}" for name in silent)
    if f"{BEGIN}\n{generated}\n{END}" not in README.read_text():
        yield "README.md: the table is not that of values.yaml: deploy/check.sh --write"
