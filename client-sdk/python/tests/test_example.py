"""The example runs as it stands."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from daemon import Daemon

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digit.py"


def test_the_example_proves_a_digit_and_refuses_lies(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZKINFER_ADDRESS", daemon.address)
    ran = runpy.run_path(str(EXAMPLE))
    assert ran["proof"].output.argmax() == ran["label"] == 7
    assert ran["refusals"] == {
        "a changed proof": "PROOF_INVALID",
        "another use": "OTHER_NONCE",
        "another image": "OTHER_INPUT",
        "another model": "OTHER_MODEL",
    }
    printed = capsys.readouterr().out
    assert "100.0%" in printed and "accepted, with the input opened" in printed
