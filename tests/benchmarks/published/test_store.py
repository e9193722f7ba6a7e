"""What is finished is not run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.published.federation import Curve
from benchmarks.published.store import Store
from benchmarks.published.study import Job

RUNS: list[str] = []


@dataclass(frozen=True)
class Named(Job):
    name: str

    def run(self) -> Curve:
        if self.name == "fails":
            raise OSError("no more room")
        RUNS.append(self.name)
        return Curve([1], {"accuracy": [0.5]})


def test_a_study_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    RUNS.clear()
    path = tmp_path / "runs" / "full.jsonl"
    with pytest.raises(OSError, match="no more room"):
        Store(path).measure([Named("a"), Named("fails"), Named("b")])
    curves = Store(path).measure([Named("b"), Named("a"), Named("a")])
    assert RUNS == ["a", "b"]
    assert curves[Named("a")] == Curve([1], {"accuracy": [0.5]})
