"""Board, rules and scaler read only metrics and labels that metrics.txt lists, and it lists no others; every alert has its section in the runbook.

What metrics.txt lists is what the service tells: the table of docs/OPERATIONS.md, which a test of the server holds to be true.
"""

import json
import re

import yaml

import chart
from paths import DEPLOY, ROOT

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
# Labels that Prometheus adds.
SCRAPED = {"namespace", "pod", "job", "instance", "le"}
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"\{([^}]*)\}")
RANGE = re.compile(r"\[[^\]]*\]")
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\(|[a-zA-Z0-9_:])")
WORDS = {"and", "or", "unless", "offset", "bool"}
TOLD = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*) \|", re.MULTILINE)
RUNBOOK_URL = "https://github.com/zkinfer/zkinfer/blob/main/deploy/RUNBOOK.md#"


def listed():
    """What metrics.txt lists: type and labels of each metric."""
    found = {}
    for line in (DEPLOY / "metrics.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, kind, *labels = line.split()
            found[name] = (kind, set(labels[0].split(",")) if labels else set())
    return found


def read_by(expression):
    """Names of metrics, and of labels, in an expression."""
    bare = STRING.sub('""', expression)
    labels = {label.strip() for match in GROUPING.finditer(bare) for label in match[2].split(",") if label.strip()}
    labels |= {re.split(r"[=!]", matcher)[0].strip() for match in SELECTOR.finditer(bare) for matcher in match[1].split(",") if matcher.strip()}
    for pattern in (GROUPING, SELECTOR, RANGE):
        bare = pattern.sub(" ", bare)
    bare = re.sub(r"\b[0-9][0-9a-z.]*\b", " ", bare)
    return set(NAME.findall(bare)) - WORDS, labels


def expressions():
    """Every expression, with where it stands; names that rules record."""
    rules = [rule for group in yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"] for rule in group["rules"]]
    found = [(f"rule {rule.get('alert') or rule['record']}", rule["expr"]) for rule in rules]
    board = json.loads((DEPLOY / "grafana/zkinfer.json").read_text())
    found += [(f"panel {panel['title']}", target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    for _, document in chart.render(chart.value_sets()["gpu"]):
        if document["kind"] == "ScaledObject":
            found += [(f"scaler of {document['metadata']['name']}", trigger["metadata"]["query"]) for trigger in document["spec"]["triggers"]]
    return found, rules, board


def scaler_problems():
    """Scalers that count tasks once for each replica: all replicas of a database tell the same number."""
    for name, values in chart.value_sets().items():
        for _, document in chart.render(values):
            if document["kind"] != "ScaledObject":
                continue
            for trigger in document["spec"]["triggers"]:
                query = trigger["metadata"]["query"]
                if "zkinfer_tasks" in read_by(query)[0] and not query.startswith("sum(max by (state) ("):
                    yield f"{name}: {document['metadata']['name']} scales on {query}: begin with sum(max by (state) (...))"


def problems():
    """Everything that is wrong with metrics, rules and board."""
    metrics = listed()
    series = {name + suffix: name for name, (kind, _) in metrics.items() for suffix in SUFFIXES[kind]}
    found, rules, board = expressions()
    recorded = {rule["record"] for rule in rules if "record" in rule}
    used, all_labels = set(), set.union(SCRAPED, *(labels for _, labels in metrics.values()))
    for where, expression in found:
        names, labels = read_by(expression)
        used |= names
        yield from (f"{where}: metrics.txt does not list {name}" for name in sorted(names - set(series) - recorded))
        own = set.union(SCRAPED, *(metrics[series[name]][1] for name in names if name in series)) if not names & recorded else all_labels
        yield from (f"{where}: metrics.txt lists no label {label}" for label in sorted(labels - own))
    read = {series[name] for name in used if name in series}
    yield from (f"metrics.txt lists {name}, which nobody reads" for name in sorted(set(metrics) - read))
    yield from scaler_problems()
    yield from told_problems(metrics)
    yield from alert_problems([rule for rule in rules if "alert" in rule])
    yield from board_problems(board)


def told_problems(metrics):
    """Metrics that the service does not tell, or tells otherwise."""
    operations = ROOT / "docs/OPERATIONS.md"
    if not operations.exists():
        print("  docs/OPERATIONS.md is not there: metrics.txt is compared with nothing")
        return
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in TOLD.findall(operations.read_text())}
    for name, (kind, labels) in metrics.items():
        if name.startswith("kubelet_"):
            continue
        if name not in told:
            yield f"metrics.txt lists {name}, which docs/OPERATIONS.md does not"
        elif told[name][0] != kind or labels - told[name][1]:
            yield f"metrics.txt: {name} is {kind} {sorted(labels)}, in docs/OPERATIONS.md {told[name][0]} {sorted(told[name][1])}"


def alert_problems(alerts):
    """Each alert has a severity, a section in the runbook, and a test."""
    headings = {line.removeprefix("## ").strip() for line in (DEPLOY / "RUNBOOK.md").read_text().splitlines() if line.startswith("## ")}
    tests = yaml.safe_load((DEPLOY / "prometheus/rules_test.yaml").read_text())["tests"]
    tested = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
    for alert in alerts:
        name = alert["alert"]
        if alert["labels"].get("severity") not in ("warning", "critical"):
            yield f"{name} has no severity"
        if alert["annotations"].get("runbook_url") != f"{RUNBOOK_URL}{name.lower()}" or name not in headings:
            yield f"{name} has no section in RUNBOOK.md, or does not point at it"
        if name not in tested:
            yield f"{name} fires in no test of rules_test.yaml"


def board_problems(board):
    """Panels have their own numbers and places, a title, a source and an expression."""
    panels = board["panels"]
    if len({panel["id"] for panel in panels}) != len(panels):
        yield "two panels have one number"
    cells = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        if own & cells or place["x"] + place["w"] > 24:
            yield f"panel {panel['title']} lies over another one, or beside the board"
        cells |= own
        targets = panel.get("targets", [])
        if panel["type"] != "row" and not (targets and all(target["expr"] and target["datasource"]["uid"] == "${datasource}" for target in targets)):
            yield f"panel {panel['title']} shows nothing, or from a source of its own"
