"""Cohorts by a function of the user's, whose answer is checked."""

from __future__ import annotations

import pytest

from fedlightning.algorithms import ChosenBy, Cohort, Draw
from tests.algorithms.sampling.drawing import GivenLosses, cohorts, pool_of


def test_names_and_weights_are_taken_as_they_come() -> None:
    for choice, expected in (
        (["w01", "w00"], Cohort(("w01", "w00"))),
        ({"w01": 2, "w00": 1.5}, Cohort(("w01", "w00"), (2.0, 1.5))),
        (Cohort(("w00",)), Cohort(("w00",))),
        ((), Cohort(())),
    ):
        (cohort,) = cohorts(ChosenBy(lambda draw, choice=choice: choice), pool_of(2), None, 1)
        assert cohort == expected


def test_the_function_sees_the_draw() -> None:
    def busy(draw: Draw) -> list[str]:
        count = draw.generator().integers(1, 4)
        known = [name for name in draw.workers if name in draw.losses.reported]
        return [*known, *draw.workers[:count]][:1]

    (cohort,) = cohorts(ChosenBy(busy), pool_of(3), 1, 1, losses=GivenLosses(reported={"w02": 1.0}))
    assert cohort.workers == ("w02",)


def test_answers_are_checked() -> None:
    with pytest.raises(ValueError, match=r"function of ChosenBy names \['eve'\]"):
        cohorts(ChosenBy(lambda draw: ["eve"]), pool_of(2), None, 1)
    with pytest.raises(ValueError, match=r"\['w00'\] are in the cohort more than once"):
        cohorts(ChosenBy(lambda draw: ["w00", "w00"]), pool_of(2), None, 1)
    with pytest.raises(TypeError, match="function must take a Draw"):
        ChosenBy(["w00"])
