"""What a process does between rounds."""

from __future__ import annotations

from typing import Any

import pytest

from fedlightning.strategy.processes.messages import AsForetold, Begin, Data, LetGo, Prepare
from fedlightning.strategy.processes.resident import may_change_readings


def begin(**parts: bytes) -> Begin:
    """Return a message that a round begins, of which this has changed."""
    return Begin(parts, [], (0, 0), b"", processed=False, keeps_settings=False, retries=0)


@pytest.mark.parametrize(
    ("message", "may"),
    [
        (begin(), False),
        (AsForetold([], frozenset()), False),
        (begin(optimizers=b""), True),
        (Data(0, b"", [], 0), True),
        (Prepare(b""), True),
        (LetGo([]), True),
    ],
    ids=["the same again", "as foretold", "other settings", "data", "a trainer", "gone"],
)
def test_what_brings_objects_along_may_change_what_steps_read(message: Any, may: bool) -> None:
    assert may_change_readings(message) is may
