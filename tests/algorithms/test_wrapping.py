"""Whatever is done around an algorithm's part of a visit answers for it, and leaves personal models be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from typing_extensions import override

from fedlightning.algorithms.attacks import SignFlip
from fedlightning.algorithms.attacks.bad_workers import AttackedTraining, FlaggedTraining
from fedlightning.algorithms.postprocessing import Clip, Postprocessing, ProcessedTraining
from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining
from fedlightning.local.wrapping import WrappedProcedure

WRAPPERS: dict[str, Callable[[LocalProcedure | None], WrappedProcedure]] = {
    "attacked": lambda procedure: AttackedTraining(procedure, SignFlip()),
    "flagged": lambda procedure: FlaggedTraining(procedure, bad=True),
    "processed": lambda procedure: ProcessedTraining(Postprocessing([Clip(norm=1.0)]), procedure),
}


@dataclass(frozen=True)
class Within(LocalProcedure):
    """Answer yes to everything, and note who was made personal."""

    made: list[Any]

    @property
    @override
    def sends(self) -> bool:
        return True

    @property
    @override
    def revisits(self) -> bool:
        return True

    @override
    def run(self, local: LocalTraining) -> None:
        raise NotImplementedError

    @override
    def personalise(self, local: LocalModel) -> None:
        self.made.append(local)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_questions_are_passed_on(wrap: Callable[[LocalProcedure | None], WrappedProcedure]) -> None:
    within = Within([])
    wrapped, local = wrap(within), object()
    wrapped.personalise(local)  # type: ignore[arg-type]  # only passed on
    assert within.made == [local]
    assert wrapped.sends
    assert wrapped.revisits
    assert not wrap(None).revisits
