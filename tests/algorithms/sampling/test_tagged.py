"""Cohorts by tag, of a mapping or of what lies at the workers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedlightning.algorithms import OnlineWorkers, RoundRobin, TaggedWorkers
from tests.algorithms.sampling.drawing import BOUND, cohorts, deviations, participations, pool_of

TAGS = {"w00": ["gpu"], "w02": ["gpu", "eu"], "w03": {"eu"}, "w04": ("eu", "gpu")}


def test_only_those_with_the_tag_take_part_equally_often() -> None:
    counts = participations(cohorts(TaggedWorkers("gpu", TAGS), pool_of(5), 2, 3000))
    assert set(counts) == {"w00", "w02", "w04"}
    assert all(deviations(count, 3000, 2 / 3) < BOUND for count in counts.values())


def test_of_several_tags_all_are_wanted() -> None:
    sampling = TaggedWorkers(["eu", "gpu"], TAGS, then=RoundRobin())
    assert cohorts(sampling, pool_of(5), 1, 2)[1].workers == ("w04",)
    assert sampling.eligible(pool_of(5)) == ["w02", "w04"]
    assert sampling.mean_size(pool_of(5), 3) == 2


def test_without_a_mapping_the_workers_are_asked() -> None:
    asked = []

    def tagged(tags: tuple[str, ...]) -> set[str]:
        asked.append(tags)
        return {"w01"}

    sampling = TaggedWorkers("#heart")
    assert cohorts(sampling, replace(pool_of(3), tagged=tagged), None, 1)[0].workers == ("w01",)
    assert asked == [("#heart",)]
    with pytest.raises(ValueError, match=r"these are virtual ones that hold nothing yet. Give a mapping"):
        sampling.check(pool_of(3), None)


def test_ways_of_sampling_nest() -> None:
    sampling = OnlineWorkers([["w00", "w01"], ["w03"]], then=TaggedWorkers("gpu", TAGS))
    assert [c.workers for c in cohorts(sampling, pool_of(5), None, 2)] == [("w00",), ()]
    assert sampling.eligible(pool_of(5)) == ["w00"]


def test_tags_that_nobody_carries() -> None:
    with pytest.raises(ValueError, match="tag='tpu': none of the 5 workers whom"):
        TaggedWorkers("tpu", TAGS).check(pool_of(5), None)
    with pytest.raises(ValueError, match=r"tags names \['w03', 'w04'\]"):
        TaggedWorkers("gpu", TAGS).check(pool_of(3), None)
    for tag in ("", [], [""]):
        with pytest.raises(ValueError, match="must be a tag, or several"):
            TaggedWorkers(tag, TAGS)
