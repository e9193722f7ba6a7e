"""Models meet at a third place: the average is right, and no single one of them reaches the controller."""

from __future__ import annotations

import runpy
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fedlightning as fl
from fedlightning.workers import RefusedByPolicy

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "trusted_aggregator.py"
SAMPLES = {
    name: (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)), torch.arange(8) % 3)
    for seed, name in enumerate(("north", "south", "west"))
}


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="trusted_aggregator")


class Round:
    """One round of the example, with everybody who took part."""

    def __init__(self, example: dict[str, Any]) -> None:
        policy = example["AGREEMENT"]
        self.model = nn.Linear(4, 3)
        self.clinics = [fl.VirtualWorker(id=name, policy=policy) for name in SAMPLES]
        self.aggregator = fl.VirtualWorker(id="aggregator", policy=policy)
        data = {clinic: [clinic.register(part) for part in SAMPLES[clinic.id]] for clinic in self.clinics}
        self.gathered = example["round_of"](self.model, data, self.aggregator)


@pytest.fixture
def done(example: dict[str, Any]) -> Round:
    return Round(example)


def left(worker: fl.Worker) -> set[tuple[str, str]]:
    """What left a worker, and where it went."""
    return {(entry.kind, entry.to) for entry in worker.ledger.entries if entry.direction == "sent"}


def test_the_average_is_that_of_models_trained_here(done: Round, example: dict[str, Any]) -> None:
    models = [deepcopy(done.model) for _ in SAMPLES]
    for model, samples in zip(models, SAMPLES.values(), strict=True):
        example["train"](model, *samples)
    average = done.aggregator.run(example["average"], done.gathered)
    for parameter, *others in zip(
        average.parameters(), *(model.parameters() for model in models), strict=True
    ):
        assert torch.equal(parameter, torch.stack(others).mean(0))


def test_no_single_model_is_sent_to_the_controller(done: Round, example: dict[str, Any]) -> None:
    done.aggregator.run(example["average"], done.gathered)
    for clinic in done.clinics:
        assert left(clinic) == {("metrics", "controller"), ("module", "aggregator")}
    assert left(done.aggregator) == {("module", "controller")}
    ((entry, (times, _)),) = (
        (entry, counts)
        for entry, counts in done.aggregator.ledger.entries.items()
        if entry.direction == "sent"
    )
    assert (entry.item, times) == ("trusted_aggregator:average", 1)


def test_the_models_are_at_the_aggregator_only(done: Round) -> None:
    assert len(done.aggregator) == 3
    # Inputs and labels, which the clinic has registered.
    assert [len(clinic) for clinic in done.clinics] == [2, 2, 2]


def test_a_single_model_is_refused(done: Round) -> None:
    for pointer in done.gathered:
        with pytest.raises(RefusedByPolicy, match="only aggregates over 3 may leave"):
            pointer.get()


def test_an_average_over_two_is_refused(done: Round, example: dict[str, Any]) -> None:
    with pytest.raises(RefusedByPolicy, match="of 2 worker"):
        done.aggregator.run(example["average"], done.gathered[:2])


def test_a_model_may_go_to_nobody_else(example: dict[str, Any]) -> None:
    clinic, stranger = fl.VirtualWorker(id="north", policy=example["AGREEMENT"]), fl.VirtualWorker(id="eve")
    samples = [clinic.register(part) for part in SAMPLES["north"]]
    model = clinic.send(nn.Linear(4, 3))
    clinic.run(example["train"], model, *samples)
    for take in (model.get, lambda: model.move(stranger), lambda: samples[0].move(stranger)):
        with pytest.raises(RefusedByPolicy):
            take()
