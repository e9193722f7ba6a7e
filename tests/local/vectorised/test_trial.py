"""A trial finds out what cannot be done for several workers at once, says why, and changes nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.pool import RowPool
from fedlightning.local.one_by_one.training import OneByOne
from fedlightning.local.tapes.tape import Tape
from fedlightning.local.vectorised import timing, trial
from fedlightning.local.vectorised.chunks import Errand, SeparateErrands
from fedlightning.local.vectorised.lone import LoneStep
from fedlightning.local.vectorised.pace import TOO_SLOW
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.local.vectorised.training import VectorisedTraining
from fedlightning.local.vectorised.trial import examine
from tests.local.vectorised.toys import CLASSES, FEATURES, Cohort, Net, streams

PLAIN = partial(SGD, lr=0.1)
ROLLING = partial(SGD, lr=0.1, momentum=0.9)
ADAM = partial(Adam, lr=0.01)


class Asks(Net):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("as a number", loss.item())
        return loss


class Branches(Net):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * 2 if loss > 0 else loss


class Counts(Net):
    steps_seen = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        self.steps_seen += 1
        return super().training_step(batch, batch_idx)


class Keeps(Net):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.losses: list[Tensor] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss


class Measures(Net):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.accuracy = MulticlassAccuracy(CLASSES)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        share = self.accuracy(self.head(self.body(batch[0])), batch[1])
        return super().training_step(batch, batch_idx) * share


class RollsDice(Net):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * np.random.rand() * random.random()


class Shuffles(Net):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        x, y = batch
        order = torch.randperm(len(x))
        return super().training_step([x[order], y[order]], batch_idx) * order[0]


class Skips(Net):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        super().training_step(batch, batch_idx)
        return None


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.lstm(x.unsqueeze(-1))[0][:, -1]
        return last


class Clips(Net):
    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        return None


def hooked(make: Any) -> Net:
    module = Net(make)
    module.head.register_forward_hook(lambda *_: None)
    return module


REASONS: dict[str, tuple[Any, Any, str]] = {
    "item": (Asks, PLAIN, ".item()"),
    "branch": (Branches, PLAIN, "data-dependent control flow"),
    "count": (Counts, PLAIN, "changes self.steps_seen"),
    "list": (Keeps, PLAIN, "changes self.losses"),
    "torchmetric": (Measures, PLAIN, "computes with what a torchmetric returns"),
    "dice": (RollsDice, PLAIN, "NumPy or Python"),
    "order": (Shuffles, PLAIN, "randperm"),
    "no loss": (Skips, PLAIN, "skips a step"),
    "lstm": (lambda make: Net(make, Recurrent()), PLAIN, ""),
    "hook of Lightning": (Clips, PLAIN, "Clips.configure_gradient_clipping"),
    "hook of torch": (hooked, PLAIN, "forward hooks on head"),
    "lbfgs": (Net, LBFGS, "the optimizer LBFGS"),
}


def errands(cohort: Cohort, steps: int = 2) -> SeparateErrands:
    visits = cohort.visits(steps=steps)
    every = zip(cohort.data, cohort.memories[1], visits, strict=True)
    return SeparateErrands([Errand(*parts) for parts in every])


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_done_at_once_is_named(name: str) -> None:
    make_module, make, reason = REASONS[name]
    cohort = Cohort(make_module(make), streams([8, 8, 8]))
    found = examine(cohort.module, [cohort.optimizer], errands(cohort), True)
    assert found.reason
    assert reason in found.reason


def test_a_trial_changes_nothing() -> None:
    cohort = Cohort(Keeps(PLAIN), streams([8, 8, 8]), "keep")
    module, generators = cohort.module, (torch.get_rng_state(), random.getstate())
    before = deepcopy(module.state_dict())
    attributes = dict(vars(module))
    examine(module, [cohort.optimizer], errands(cohort), True)
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert vars(module) == attributes
    assert module.losses == []
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert all(not memory.state_dict(9)["optimizers"] for memory in cohort.memories[1])


def test_random_numbers_are_found() -> None:
    for body, draws in (
        (nn.Linear(FEATURES, 8), False),
        (nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout()), True),
    ):
        cohort = Cohort(Net(PLAIN, body), streams([8, 8, 8]))
        found = examine(cohort.module, [cohort.optimizer], errands(cohort), True)
        assert (found.reason, found.draws) == ("", draws)


def test_a_batch_number_that_is_never_read_does_not_part_the_workers() -> None:
    class Reads(Net):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
            return super().training_step(batch, 0) * (1 + batch_idx)

    class Ignores(Net):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
            return super().training_step(batch, 0)

    for kind, numbered in ((Reads, True), (Ignores, False)):
        cohort = Cohort(kind(PLAIN), streams([8, 8]))
        found = examine(cohort.module, [cohort.optimizer], errands(cohort), True)
        assert (found.reason, found.numbered) == ("", numbered)


@pytest.mark.parametrize(
    ("make", "limit"), [(PLAIN, timing.CLEARLY), (ROLLING, timing.CLEARLY), (ADAM, 1 / timing.CLEARLY)]
)
def test_what_has_to_be_clear_depends_on_what_is_expected(
    make: Any, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LONG_STEP", 10.0)
    monkeypatch.setattr(trial, "seconds_alone", lambda *_: 1.0)
    cohort = Cohort(Net(make), streams([8, 8, 8]))
    found = examine(cohort.module, [cohort.optimizer], errands(cohort), "auto")
    assert (found.reason, found.chunk, found.limit) == ("", 3, limit)
    assert examine(cohort.module, [cohort.optimizer], errands(cohort), True).limit is None


def test_small_steps_of_many_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LONG_STEP", 10.0)
    monkeypatch.setattr(trial, "seconds_alone", lambda *_: 1.0)
    dropping = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout())
    for workers, body, limit in (
        (timing.MANY, None, None),
        (timing.MANY - 1, None, timing.CLEARLY),
        (timing.MANY, dropping, timing.CLEARLY),  # no tape
    ):
        cohort = Cohort(Net(PLAIN, body), streams([8] * workers))
        found = examine(cohort.module, [cohort.optimizer], errands(cohort), "auto")
        assert (found.reason, found.chunk, found.limit) == ("", workers, limit)


@pytest.mark.parametrize(
    ("make", "long_step", "chunk"),
    [
        (PLAIN, 10.0, 2),
        (PLAIN, 0.0, 1),
        (ROLLING, 10.0, 0),
        (ROLLING, 0.0, 1),
        (ADAM, 10.0, 0),
        (ADAM, 0.0, 0),
    ],
)
def test_large_states_of_optimizers_speak_against_company(
    make: Any, long_step: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "LARGE_STATE", 1)
    monkeypatch.setattr(timing, "LARGE_MOMENTUM", 1)
    monkeypatch.setattr(trial, "LONG_STEP", long_step)
    monkeypatch.setattr(trial, "seconds_alone", lambda *_: 1.0)
    cohort = Cohort(Net(make), streams([8, 8]))
    found = examine(cohort.module, [cohort.optimizer], errands(cohort), "auto")
    assert (found.chunk, found.reason) == (chunk, "" if chunk else TOO_SLOW)
    assert examine(cohort.module, [cohort.optimizer], errands(cohort), 2).reason == ""


@pytest.mark.parametrize(
    ("make", "least"),
    [(PLAIN, None), (ROLLING, timing.LARGE_MOMENTUM), (ADAM, timing.LARGE_STATE)],
)
def test_how_large_a_state_is_too_large_depends_on_the_optimizer(make: Any, least: int | None) -> None:
    optimizer = make([nn.Parameter(torch.zeros(1))])
    sizes = [timing.LARGE_STATE - 1, timing.LARGE_STATE, timing.LARGE_MOMENTUM - 1, timing.LARGE_MOMENTUM]
    slower = [size for size in sizes if timing.is_clearly_slower(optimizer, size, is_long=False)]
    assert slower == [size for size in sizes if least is not None and size >= least]


def test_a_clock_that_does_not_move_speaks_against_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (timing, trial):
        monkeypatch.setattr(module, "process_time", lambda: 0.0)
    cohort = Cohort(Net(PLAIN), streams([8, 8, 8]))
    for wish in ("auto", True):
        found = examine(cohort.module, [cohort.optimizer], errands(cohort), wish)
        assert found.reason == ""
        assert found.limit is None or found.limit > 0


@pytest.mark.parametrize(
    ("workers", "size", "by_tape", "expected"),
    [
        (500, 2_440, 500, 500),  # next to nothing beside any cache
        (50, 796_840, 6, 10),
        (10, 796_840, 5, 10),
        (23, 796_840, 6, 8),  # three chunks alike, rather than 10, 10 and 3
        (10, 6_653_480, 2, 2),
        (5000, 40, 1000, 1000),
    ],
)
def test_sizes_say_how_many_take_their_steps_together(
    workers: int, size: int, by_tape: int, expected: int
) -> None:
    assert timing.usual_chunk(workers, size, by_tape=True) == by_tape
    assert timing.usual_chunk(workers, size, by_tape=False) == expected


@pytest.mark.parametrize("wish", ["auto", True])
def test_steps_that_draw_cannot_be_played_and_share_more(wish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PLAYED_STACK", 1)
    cohort = Cohort(Net(PLAIN), streams([8] * 12))
    played = examine(cohort.module, [cohort.optimizer], errands(cohort), wish)
    body = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, 8))
    drawing = Cohort(Net(PLAIN, body), streams([8] * 12))
    drawn = examine(drawing.module, [drawing.optimizer], errands(drawing), wish)
    assert (played.reason, drawn.reason) == ("", "")
    assert (played.chunk, drawn.chunk) == (2, 12)


@pytest.mark.parametrize(("other", "expected"), [(0.9, 8), (0.8, 4), (1.1, 8), (2.9, 8)])
def test_measurements_overrule_the_usual_chunk_only_where_they_are_clear(
    other: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {8: iter([9.0, 3.0, 1.0]), 4: iter([0.1, other, 3.0])}
    monkeypatch.setattr(timing, "_carry_out", lambda training, *_: next(seconds[training.chunk]))
    cohort = Cohort(Net(PLAIN), streams([8] * 12))
    made = []

    def make(chunk: int) -> VectorisedTraining:
        assert all(other() is None for other in made)  # nor is the memory of another still in use
        training = VectorisedTraining(
            cohort.module, cohort.optimizer, chunk=chunk, numbered=False, draws=False
        )
        made.append(ref(training))
        return training

    assert timing.best_chunk(make, (8, 4), errands(cohort)) == expected


def test_true_measures_long_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []

    def last(_: Any, chunks: Sequence[int], __: Any) -> int:
        asked.append([*chunks])
        return chunks[-1]

    monkeypatch.setattr(trial, "best_chunk", last)
    cohort = Cohort(Net(PLAIN), streams([8, 8, 8]))
    chunks = []
    for long_step in (10.0, 0.0):
        monkeypatch.setattr(trial, "LONG_STEP", long_step)
        chunks.append(examine(cohort.module, [cohort.optimizer], errands(cohort), True).chunk)
    assert (chunks, asked) == ([3, 1], [[3, 1]])


class Deep(Net):
    """Convolves, and counts how often it is asked to."""

    def __init__(self, make: Any) -> None:
        body = [
            nn.Unflatten(1, (1, FEATURES)),
            nn.Conv1d(1, 2, 3),
            nn.Flatten(),
            nn.Linear(2 * FEATURES - 4, 8),
        ]
        super().__init__(make, nn.Sequential(*body))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        TAKEN.append(len(batch[0]))
        return super().training_step(batch, batch_idx)


class Lazy(Deep):
    """Sets an attribute in its first step."""

    scale: float | None = None

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        if self.scale is None:
            self.scale = 0.5
        return super().training_step(batch, batch_idx) * self.scale


TAKEN: list[int] = []


@pytest.mark.parametrize(
    ("kind", "make", "wish", "steps"),
    [(Deep, PLAIN, "auto", 2), (Deep, PLAIN, True, 2), (Deep, ROLLING, "auto", 3), (Lazy, PLAIN, "auto", 4)],
    ids=["plain", "plain, in any case", "momentum", "lazy"],
)
def test_a_long_step_is_taken_once_by_each_way(
    kind: Any, make: Any, wish: Any, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LONG_STEP", 1e-9)
    TAKEN.clear()
    cohort = Cohort(kind(make), streams([8, 8]))
    found = examine(cohort.module, [cohort.optimizer], errands(cohort), wish)
    assert (found.reason, found.chunk) == ("", 1)
    assert (found.limit is None) == (wish is True)
    assert len(TAKEN) == steps


def test_what_a_step_in_a_stack_raises_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LONG_STEP", 1e-9)

    def refuse(*_: Any) -> Any:
        raise NotBatchable("no stack")

    monkeypatch.setattr(LoneStep, "gradients", refuse)
    cohort = Cohort(Deep(PLAIN), streams([8, 8]))
    assert examine(cohort.module, [cohort.optimizer], errands(cohort), "auto").reason == "no stack"


def test_visits_by_themselves_are_measured_as_they_would_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    visited: list[int] = []
    played: list[Tape] = []
    visit, play = OneByOne.visit, Tape.play

    def note(self: OneByOne, number: int) -> None:
        played.clear()
        visit(self, number)
        visited.append(len(played))

    def count(self: Tape) -> None:
        played.append(self)
        play(self)

    monkeypatch.setattr(OneByOne, "visit", note)
    monkeypatch.setattr(Tape, "play", count)
    cohort = Cohort(Net(PLAIN), streams([8, 8]))
    data = TensorDataset(torch.randn(20, FEATURES).double(), torch.randint(CLASSES, (20,)))
    names = ["ada", "bob"]
    pool = RowPool.of(data, {"ada": np.arange(10), "bob": np.arange(10, 20)}, LoaderSettings(batch_size=2))
    assert pool is not None
    five = np.array([5, 5])
    pooled = PooledErrands(
        pool, 0, cohort.visits()[0], names, first=five * 0, steps=five, samples=five * 2, every=five
    )
    assert timing.seconds_alone(cohort.module, cohort.optimizer, pooled) > 0
    # The first visit has two ordinary steps, one that is recorded, a trial of its tape, and one by it.
    assert visited == [2, 5]
    assert timing.seconds_alone(cohort.module, cohort.optimizer, errands(cohort)) > 0
    assert len(visited) == 2
