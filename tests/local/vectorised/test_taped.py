"""Steps by tapes change no bit, and a tape holds no longer than what it was recorded from."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from fedlightning.local.tapes.readings import Readings
from fedlightning.local.tapes.tape import Tape
from fedlightning.local.vectorised import taped
from fedlightning.local.vectorised.taped import TapedSteps
from fedlightning.local.vectorised.training import VectorisedTraining
from tests.local.vectorised.toys import FEATURES, Cohort, Net, Outcome, assert_same_outcomes, streams

MAKES = {
    "sgd": partial(SGD, lr=0.1),
    "decay": partial(SGD, lr=0.1, weight_decay=0.1),
    "momentum": partial(SGD, lr=0.1, momentum=0.9),
    "adam": partial(Adam, lr=0.01, eps=1e-4),
}


@pytest.fixture
def plays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count steps that are played."""
    counted: list[int] = []
    played = taped._played

    def count(*args: Any) -> Any:
        counted.append(1)
        return played(*args)

    monkeypatch.setattr(taped, "_played", count)
    return counted


def fresh(
    module: Any, sizes: list[int], policy: Any = "keep", chunk: int = 3, *, draws: bool = False
) -> tuple[Cohort, VectorisedTraining]:
    cohort = Cohort(module, streams(sizes), policy)
    training = VectorisedTraining(cohort.module, cohort.optimizer, chunk=chunk, numbered=False, draws=draws)
    return cohort, training


def trained(
    make: Any, uses: int, monkeypatch: pytest.MonkeyPatch, body: nn.Module | None = None, chunk: int = 3
) -> tuple[list[Outcome], list[Outcome]]:
    """Train two rounds by both ways, with tapes where that many steps are enough for one."""
    monkeypatch.setattr(TapedSteps, "pay", lambda self, steps: steps >= uses)
    cohort, vectorised = fresh(Net(make, body), [9, 12, 3, 9, 13, 8, 12, 12], chunk=chunk)
    ours, theirs = [], []
    for round in range(2):
        visits = cohort.visits(round)
        ours += cohort.at_once(visits, training=vectorised)
        theirs += cohort.one_by_one(visits)
    return ours, theirs


class Convolves(nn.Module):
    """Convolve in two dimensions and pool, which a worker by itself does channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.conv(x.view(-1, 1, 2, FEATURES // 2)))
        return F.max_pool2d(hidden, (1, 2)).flatten(1)


@pytest.mark.parametrize(("chunk", "body"), [(3, None), (1, None), (1, Convolves)])
@pytest.mark.parametrize("name", MAKES)
def test_tapes_change_no_bit(
    name: str, chunk: int, body: Any, plays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_both(uses: int) -> tuple[list[Outcome], list[Outcome]]:
        return trained(MAKES[name], uses, monkeypatch, body and body(), chunk)

    by_tape, one_by_one = by_both(1)
    assert plays
    assert_same_outcomes(by_tape, one_by_one)
    played = len(plays)
    plainly, _ = by_both(10**6)
    assert len(plays) == played
    for ours, theirs in zip(by_tape, plainly, strict=True):
        assert all(map(torch.equal, ours.parameters, theirs.parameters))
        assert ours.report.loss is not None
        assert theirs.report.loss is not None
        assert torch.equal(ours.report.loss, theirs.report.loss)
        for mine, other in zip(ours.report.logs, theirs.report.logs, strict=True):
            assert (mine.name, mine.weight, mine.settings) == (other.name, other.weight, other.settings)
            assert mine.value is not None
            assert other.value is not None
            assert torch.equal(mine.value, other.value)


def test_a_shape_is_recorded_at_its_second_use(plays: list[int]) -> None:
    cohort, vectorised = fresh(Net(MAKES["sgd"]), [12] * 9)
    cohort.at_once(cohort.visits(), training=vectorised)
    assert len(plays) == 3 * 3 - 2


def test_short_rounds_play_what_lasts(plays: list[int]) -> None:
    cohort, vectorised = fresh(Net(MAKES["sgd"]), [8] * 3)
    assert taped.USES > 2
    for round in range(3):
        visits = cohort.visits(round)
        assert_same_outcomes(cohort.at_once(visits, training=vectorised), cohort.one_by_one(visits))
    assert len(plays) == 3 * 2 - 2


def test_short_rounds_record_once_what_does_not_last(plays: list[int]) -> None:
    cohort, vectorised = fresh(Configured(MAKES["sgd"]), [8] * 3)
    for round in range(3):
        visits = cohort.visits(round)
        assert_same_outcomes(cohort.at_once(visits, training=vectorised), cohort.one_by_one(visits))
    assert not plays
    assert not vectorised._kept_tapes.pay(taped.USES - 1)


class Configured(Net):
    """Reads a number of something of which nobody knows whether it changes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.options = {"factor": 2.0}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.options["factor"]


def test_what_nobody_knows_of_may_change_between_rounds(plays: list[int]) -> None:
    module = Configured(MAKES["sgd"])
    cohort, vectorised = fresh(module, [12] * 9)
    for round in range(4):
        cohort.module.options["factor"] = 1.0 + round
        visits = cohort.visits(round)
        assert_same_outcomes(cohort.at_once(visits, training=vectorised), cohort.one_by_one(visits))
    assert len(plays) == 4 * (3 * 3 - 2)


class Doubles(Net):
    """Looks at a loss in Python."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * 2 if loss.item() > 1 else loss


@pytest.mark.parametrize("kind", [Configured, Doubles])
def test_steps_of_one_worker_are_recorded_only_where_all_that_they_read_is_known(
    kind: Any, plays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[int] = []
    add = Readings.add
    monkeypatch.setattr(Readings, "add", lambda self, watch: watched.append(1) or add(self, watch))
    cohort, vectorised = fresh(kind(MAKES["sgd"]), [12] * 9, chunk=1)
    for round in range(3):
        visits = cohort.visits(round)
        assert_same_outcomes(cohort.at_once(visits, training=vectorised), cohort.one_by_one(visits))
    assert not plays
    # Nobody looks again, not even in another round.
    assert len(watched) == 1
    assert not vectorised._kept_tapes.pay(10**6)


def test_steps_of_one_worker_that_compute_much_are_not_recorded(
    plays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taped, "MOST_BYTES", 64)
    by_tape, one_by_one = trained(MAKES["sgd"], 1, monkeypatch, chunk=1)
    assert not plays
    assert_same_outcomes(by_tape, one_by_one)


class Late(Net):
    """Reads a number in Python that changes between rounds."""

    factor = 1.0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        self.log("factor", self.factor)
        return super().training_step(batch, batch_idx) * self.factor


@pytest.mark.parametrize(("chunk", "steps"), [(3, 3 * 3), (1, 9 * 3)])
def test_what_changes_between_rounds_is_noticed(chunk: int, steps: int, plays: list[int]) -> None:
    cohort, vectorised = fresh(Late(MAKES["sgd"]), [12] * 9, chunk=chunk)
    for round, (factor, rate) in enumerate([(1.0, 0.1), (2.0, 0.1), (2.0, 0.3)]):
        cohort.module.factor = factor
        cohort.optimizer.param_groups[0]["lr"] = rate
        visits = cohort.visits(round)
        assert_same_outcomes(cohort.at_once(visits, training=vectorised), cohort.one_by_one(visits))
    assert len(plays) == 3 * (steps - 2)


def test_other_settings_within_a_round_are_noticed(plays: list[int]) -> None:
    # As a trial leaves tapes to the round that it was made for.
    tapes = TapedSteps(nn.Identity(), [], [])
    tapes.hold_for(0, [{"lr": 0.1}])
    tapes._tapes["a step"] = None
    tapes.hold_for(0, [{"lr": 0.1}])
    assert tapes._tapes
    tapes.hold_for(0, [{"lr": 0.2}])
    assert not tapes._tapes


class Counts(nn.Module):
    """Write to a tensor that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(FEATURES, 8)
        self.held = [torch.zeros((), dtype=torch.float64)]

    def forward(self, x: Tensor) -> Tensor:
        self.held[0].add_(1)
        hidden: Tensor = self.map(x)
        return hidden


def test_steps_that_cannot_be_made_again_are_taken_as_ever(
    plays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = Counts()
    by_tape, one_by_one = trained(MAKES["sgd"], 1, monkeypatch, body)
    assert not plays
    assert_same_outcomes(by_tape, one_by_one)


def _fail(tape: Tape) -> None:
    raise RuntimeError


def _do_nothing(tape: Tape) -> None:
    pass


@pytest.mark.parametrize("play", [_fail, _do_nothing])
@pytest.mark.parametrize("name", MAKES)
def test_tapes_that_come_to_something_else_are_not_played(
    name: str, play: Any, plays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tape, "play", play)
    by_tape, one_by_one = trained(MAKES[name], 1, monkeypatch)
    assert not plays
    assert_same_outcomes(by_tape, one_by_one)


class Shows(Net):
    """Logs what it trains, and its batch: what a step writes to, and what the next one does."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        self.log("bias", self.head.bias[0])
        self.log("first", batch[0][0, 0])
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("uses", [1, 10**6])
def test_what_is_logged_is_what_it_was_at_the_time(
    uses: int, plays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TapedSteps, "pay", lambda self, steps: steps >= uses)
    cohort, vectorised = fresh(Shows(MAKES["sgd"]), [12] * 9)
    visits = cohort.visits()
    assert_same_outcomes(cohort.at_once(visits, training=vectorised), cohort.one_by_one(visits))
    assert bool(plays) == (uses == 1)


class Averages(nn.Module):
    """Multiply by a buffer that stays as it is, and change another in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.map = nn.Linear(FEATURES, 8)
        self.register_buffer("scale", torch.linspace(0, 1, 8))
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        hidden: Tensor = self.map(x - self.mean) * self.scale
        return hidden


class Exchanges(Averages):
    """Put another tensor in the place of a buffer."""

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        hidden: Tensor = self.map(x - self.mean) * self.scale
        return hidden


@pytest.mark.parametrize(("chunk", "body"), [(3, Averages), (3, Exchanges), (1, Averages)])
def test_buffers_change_as_ever(
    chunk: int, body: Any, plays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_tape, one_by_one = trained(MAKES["sgd"], 1, monkeypatch, body(), chunk)
    assert plays
    assert_same_outcomes(by_tape, one_by_one)


def test_one_worker_draws_its_own_random_numbers_again(plays: list[int]) -> None:
    drops = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.3))
    cohort, vectorised = fresh(Net(MAKES["sgd"], drops), [9, 12, 9, 8], chunk=1, draws=True)
    for round in range(2):
        visits = cohort.visits(round)
        state = torch.get_rng_state()
        by_tape = cohort.at_once(visits, training=vectorised)
        assert torch.equal(torch.get_rng_state(), state)
        assert_same_outcomes(by_tape, cohort.one_by_one(visits))
    assert plays
    assert vectorised.draws_made == sum(visit.steps for visit in visits) * 2


def test_normalized_batches_and_random_numbers_of_several_are_not_recorded(plays: list[int]) -> None:
    norm = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8))
    cohort, vectorised = fresh(Net(MAKES["sgd"], norm), [12] * 9)
    cohort.at_once(cohort.visits(), training=vectorised)
    cohort = Cohort(Net(MAKES["sgd"]), streams([12] * 9))
    cohort.at_once(cohort.visits(), chunk=3, draws=True)
    assert not plays
