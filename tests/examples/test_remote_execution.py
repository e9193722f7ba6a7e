"""The script on remote execution shows what it says: who holds how much, step by step."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "remote_execution.py"


def test_every_step_is_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = [
        line for line in capsys.readouterr().out.splitlines() if "#objects" in line or "tensor" in line
    ]
    bob, alice = "<VirtualWorker id:bob #objects:{}>", "<VirtualWorker id:alice #objects:{}>"
    assert printed == [
        f"  we point to alice, who points to bob: {bob.format(1)} {alice.format(1)}",
        f"  after doubling: {bob.format(2)} {alice.format(2)}",
        f"  first it brings what alice had: {bob.format(2)}",
        "  then what bob had: tensor([2., 4., 6., 8.])",
        f"  the numbers are at {alice.format(1)} and bob has nothing left: {bob.format(0)}",
        f"  back at {bob.format(1)} and nothing at {alice.format(0)}",
        "  their sum with what was there: tensor([-0.1619,  1.6127,  3.3873,  5.1619])",
        f"We have let go of everything, and the owner's own data remains: {bob.format(1)} {alice.format(0)}",
    ]
