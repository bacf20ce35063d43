"""Documents: the values that they show are accepted, and their links lead somewhere."""

import re

import yaml

import chart
from paths import CHART, DEPLOY, ROOT

TUTORIAL = ROOT / "docs/TUTORIAL-KUBERNETES.md"
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Written by others, and there when the service tells of itself.
LATER = {ROOT / "docs/OPERATIONS.md"}


def anchor(heading):
    """As hosts of Markdown make it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def shown_values():
    """Each set of values that a document shows, completed by those that it leaves out."""
    blocks = [yaml.safe_load(text) for text in BLOCK.findall(TUTORIAL.read_text()) if text.startswith("# values")]
    first, standalone, gpu = blocks
    yield "tutorial", first
    yield "tutorial, one pod", standalone
    yield "tutorial, GPUs", chart.over(first, gpu)
    for block in BLOCK.findall((CHART / "README.md").read_text()):
        yield "README.md of the chart", chart.over(chart.value_sets()["gpu"], yaml.safe_load(block))


def problems():
    """Everything that is wrong with the documents."""
    for name, values in shown_values():
        try:
            for template, document in chart.render(values):
                yield from (f"{name}: {template}: {problem}" for problem in chart.schema_problems(document, set()))
        except chart.HelmError as error:
            yield f"{name}: the values are refused: {error}"
    for path in [TUTORIAL, *DEPLOY.rglob("*.md")]:
        yield from (f"{path.relative_to(ROOT)}: {problem}" for problem in link_problems(path))


def link_problems(path):
    """Links to files and headings that are not there."""
    for link in LINK.findall(CODE.sub("", path.read_text())):
        if "://" in link:
            continue
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists():
            if target not in LATER:
                yield f"{link} leads nowhere"
        elif heading and heading not in {anchor(line.lstrip("#")) for line in target.read_text().splitlines() if line.startswith("#")}:
            yield f"{link}: no such heading"
