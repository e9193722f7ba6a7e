"""The survey of hostile arguments notices what it is there to notice: harm is done to it, on purpose."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.workers.hostile import fence

HARM = """
import os, torch
from tests.workers.hostile import trial
from tests.workers.hostile.samples import Call
three = torch.ones(3)
trial.WORKER_OPERATIONS = {
    "reads beside": lambda x: torch.ops.aten._reshape_alias(x, (4,), (1,)) + 0,
    "reads behind": lambda x: torch.ops.aten._reshape_alias(x, (5000,), (1,)) + 0,
    "writes beside": lambda x: torch.ops.aten._reshape_alias(x, (4,), (1,)).fill_(7.0),
    "leaves uninitialised": lambda x: torch.empty_like(x),
    "ends the process": lambda x: os.abort(),
    "does no harm": lambda x: x + torch.rand(3),
}
calls = [Call(name, (three,), {}) for name in trial.WORKER_OPERATIONS]
for number, word in trial.try_all(calls).items():
    print(f"{calls[number].operation}: {word}")
"""
BESIDE = "depends on memory that is not the operands'"


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="the fence is C, for Linux")
def test_harm_is_noticed(capfd: pytest.CaptureFixture[str]) -> None:
    assert fence.run_behind("-c", HARM) == 0
    assert capfd.readouterr().out.splitlines() == [
        f"reads beside: {BESIDE}",
        "reads behind: SIGSEGV",
        "writes beside: SIGABRT",
        f"leaves uninitialised: {BESIDE}",
        "ends the process: SIGABRT",
    ]
