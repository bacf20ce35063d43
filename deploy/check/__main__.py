"""Checks deploy/, or with --write writes what is generated in it. See deploy/check.sh."""

import sys

import chart
import compose
import documents
import image
import metrics
import programs
import readme

PARTS = [
    ("values", chart.value_problems),
    ("rendered objects", chart.object_problems),
    ("refusals", chart.refusal_problems),
    ("reach of the pods", chart.reach_problems),
    ("README of the chart", readme.problems),
    ("documents", documents.problems),
    ("metrics, board and alerts", metrics.problems),
    ("image", image.problems),
    ("compose files", compose.problems),
    ("options of the programs", programs.problems),
]


def main():
    """Exits with 1 if anything is wrong."""
    if sys.argv[1:] == ["--write"]:
        readme.write()
        return
    n_problems = 0
    for name, find in PARTS:
        found = list(find())
        n_problems += len(found)
        print(f"{name}: {'all right' if not found else f'{len(found)} problems'}")
        for problem in found:
            print(f"  {problem}")
    if n_problems:
        sys.exit(1)


main()
