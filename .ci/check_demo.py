"""Checks what `zkinfer demo --json` printed: python3 .ci/check_demo.py FILE."""

import json
import sys

MAX_PROOF_BYTES = 200_000


def problems(report):
    """Everything that is wrong with the demo's report."""
    if report.get("ok") is not True:
        yield f"the demo did not succeed: {report}"
        return
    if report["predicted"] != report["label"]:
        yield f"the network read a {report['predicted']}, the label says {report['label']}"
    if report["proof_bytes"] > MAX_PROOF_BYTES:
        yield f"the proof has {report['proof_bytes']} bytes, more than {MAX_PROOF_BYTES}"
    if len(report["refusals"]) < 3 or not all(refusal["reason"] for refusal in report["refusals"]):
        yield f"not every lie was refused with a reason: {report['refusals']}"
    if not report["registration"]["stages"] or not report["proof"]["stages"]:
        yield "the report has no stage times"


def main():
    """Prints the figures of the demo; exits with 1 if one is wrong."""
    with open(sys.argv[1], encoding="utf-8") as file:
        report = json.load(file)
    found = list(problems(report))
    if found:
        sys.exit("\n".join(found))
    registration, proof = report["registration"]["wall_seconds"], report["proof"]["wall_seconds"]
    print(f"registration {registration:.1f} s, proof {proof:.1f} s, {report['proof_bytes']} bytes, verified in {report['verify_seconds'] * 1e3:.0f} ms")
    for refusal in report["refusals"]:
        print(f"refused ({refusal['reason']}): {refusal['lie']}")


main()
