"""Processes that hear of the next cohort while they are at work, and read it beside, come to the same."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Subset

from fedlightning import FederatedStrategy
from fedlightning.algorithms import Median, Plan, PowerOfChoice
from fedlightning.data import Dirichlet
from fedlightning.strategy import NotFederatable, RoundFailed
from fedlightning.strategy.processes import cohort_rows, session
from fedlightning.strategy.processes.crew import PieceLost
from fedlightning.strategy.processes.packing import pack_shared
from fedlightning.strategy.processes.session import Session
from fedlightning.strategy.run import Run
from tests.strategy.spread_toys import both
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

pytestmark = pytest.mark.xdist_group("strategy processes")


class Told:
    """Note what sessions are asked for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.met, self.foretold, self.placed = 0, 0, 0
        meet, has_foretold, place = Session.meet, Session.has_foretold, Session.place

        def counted_meet(session: Session, *args: Any, **settings: Any) -> None:
            self.met += 1
            meet(session, *args, **settings)

        def counted(session: Session, *args: Any) -> bool:
            found = has_foretold(session, *args)
            self.foretold += found
            return found

        def counted_place(session: Session, *args: Any) -> Any:
            self.placed += 1
            return place(session, *args)

        patch.setattr(Session, "meet", counted_meet)
        patch.setattr(Session, "has_foretold", counted)
        patch.setattr(Session, "place", counted_place)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


@pytest.fixture
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let data sets of tests count as large ones."""
    monkeypatch.setattr(cohort_rows, "LEAST_BYTES", 1)


def part_of_samples() -> DataLoader[Any]:
    return DataLoader(Subset(samples(240), list(range(239, 39, -1))), batch_size=4, shuffle=True)


class Plain(Classifier):
    """Train on batches of one sample as well."""

    def __init__(self) -> None:
        super().__init__(partial(SGD, lr=0.05))
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class Changed(Plain):
    """Have its steps changed in each epoch, in which there are enough of them to be recorded."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.scale = by, 1.0

    def on_train_epoch_start(self) -> None:
        if self.by == "an attribute":
            self.scale = 1.0 + self.current_epoch
        else:
            self.net[0].weight.requires_grad_(self.current_epoch % 2 == 0)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1]) * self.scale


def test_a_process_that_has_ended_when_it_is_foretold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    foretell = Session.foretell

    def late(session: Session, *args: Any) -> None:
        process = session.processes[1]
        os.kill(process.pid, signal.SIGKILL)
        while process.alive:
            pass
        foretell(session, *args)

    monkeypatch.setattr(Session, "foretell", late)
    strategy = FederatedStrategy(100, cohort_size=20, seed=0, processes=2)
    with pytest.raises(RoundFailed, match="ended by signal 9") as caught:
        fit(strategy, module=Plain(), train=loader(200))
    assert isinstance(caught.value.__cause__, PieceLost)
    assert caught.value.__cause__.process == 1


SETTINGS: dict[str, dict[str, Any]] = {
    "the same number of samples each": {"train": lambda: loader(200)},
    "a part of a data set, of other sizes": {"train": part_of_samples, "partition": Dirichlet(alpha=1.0)},
    "more pieces than there is room for": {
        "train": lambda: loader(400),
        "workers": 400,
        "cohort_size": 80,
        "aggregation": Median(),
    },
}


@pytest.mark.usefixtures("small_counts")
@pytest.mark.parametrize("name", SETTINGS)
def test_bits_of_cohorts_that_are_placed_by_themselves_are_those_of_one_process(
    name: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"cohort_size": 5, "rounds_per_epoch": 6, **SETTINGS[name]}
    (module, strategy, memo), (other, spread, other_memo) = both(Plain, **settings)
    assert told.foretold > 0
    assert told.placed > told.foretold  # in vain for a round after the last
    assert_same_module(module, other)
    assert memo.entries == other_memo.entries
    assert strategy.history.visits == spread.history.visits


def test_all_rounds_but_the_first_are_foretold_where_the_data_has_its_place(told: Told) -> None:
    (module, _, _), (other, _, _) = both(Plain, train=lambda: loader(200), cohort_size=5, rounds_per_epoch=6)
    assert (told.met, told.foretold, told.placed) == (1, 11, 0)
    assert_same_module(module, other)


@pytest.mark.parametrize("by", ["an attribute", "what requires a gradient"])
def test_what_has_changed_after_a_cohort_was_foretold_is_seen(by: str, told: Told) -> None:
    (module, _, _), (other, _, _) = both(
        partial(Changed, by), train=lambda: loader(640, batch_size=2), cohort_size=5, rounds_per_epoch=2
    )
    assert told.foretold == 3
    assert_same_module(module, other)


class Aside(Plain):
    """Look at a tensor that no optimizer steps."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        return loss * 2 if self.aside.requires_grad else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return SGD(self.net.parameters(), lr=0.05)


class FreezesAside(L.Callback):
    """Freeze that tensor for some rounds."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        pl_module.aside.requires_grad_(trainer.global_step % 3 == 0)


def test_what_requires_a_gradient_though_it_is_not_stepped_is_seen(told: Told) -> None:
    modules = []
    for count in (None, 2):
        strategy = FederatedStrategy(40, cohort_size=5, rounds_per_epoch=6, seed=0, processes=count)
        module, _ = fit(strategy, module=Aside, train=loader(640), callbacks=[FreezesAside()])
        modules.append(module)
    assert told.foretold == 11
    assert_same_module(*modules)


@pytest.mark.usefixtures("small_counts")
def test_nothing_is_foretold_where_losses_decide(told: Told) -> None:
    (module, _, _), (other, _, _) = both(
        Plain,
        train=lambda: loader(200),
        cohort_size=5,
        rounds_per_epoch=3,
        sampling=PowerOfChoice(candidates=10),
    )
    assert (told.met, told.foretold, told.placed) == (6, 0, 0)
    assert_same_module(module, other)


@pytest.mark.usefixtures("small_counts")
@pytest.mark.parametrize("is_room", [True, False])
def test_all_samples_are_placed_when_cohorts_have_taken_more(
    is_room: bool, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(value: Any) -> Any:
        raise OSError("no space left on device")

    monkeypatch.setattr(cohort_rows, "MOST_TIMES", 0.5)  # five cohorts of an eighth each
    if not is_room:
        monkeypatch.setattr(
            session, "pack_shared", lambda new: none_left(new) if len(new) > 1 else pack_shared(new)
        )
    (module, _, _), (other, _, _) = both(Plain, train=lambda: loader(200), cohort_size=5, rounds_per_epoch=6)
    assert (told.met, told.foretold, told.placed) == (1, 11, 5 if is_room else 13)
    assert_same_module(module, other)


@pytest.mark.usefixtures("small_counts")
@pytest.mark.parametrize("wrong", ["round", "workers", "steps"])
def test_a_round_that_was_foretold_wrongly_is_made_as_it_is(
    wrong: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_after = Run._plan_after

    def mistaken(run: Run) -> Plan:
        plan = plan_after(run)
        if plan.round % 2:
            return plan
        if wrong == "round":
            return Plan(plan.round + 1, plan.assignments, plan.seed)
        first, *rest = plan.assignments
        changed = first._replace(first_step=first.first_step + 1)
        return Plan(plan.round, tuple(rest) if wrong == "workers" else (changed, *rest), plan.seed)

    monkeypatch.setattr(Run, "_plan_after", mistaken)
    (module, _, _), (other, _, _) = both(Plain, train=lambda: loader(200), cohort_size=5, rounds_per_epoch=6)
    assert (told.met, told.foretold) == (6, 6)
    assert_same_module(module, other)


@pytest.mark.usefixtures("small_counts")
def test_a_run_goes_on_amid_an_epoch_with_another_number_of_processes(tmp_path: Path) -> None:
    def part(count: int | None, rounds: int, path: Any = None) -> L.LightningModule:
        torch.manual_seed(3)
        module = Plain()
        strategy = FederatedStrategy(40, cohort_size=5, rounds_per_epoch=5, seed=0, processes=count)
        run = trainer(strategy, max_epochs=-1, max_steps=rounds)
        run.fit(module, loader(200), ckpt_path=path)
        run.save_checkpoint(tmp_path / f"{count}-{rounds}.ckpt")
        return module

    whole = part(None, 8)
    part(2, 3)
    assert_same_module(part(None, 8, tmp_path / "2-3.ckpt"), whole)
    part(None, 3)
    assert_same_module(part(2, 8, tmp_path / "None-3.ckpt"), whole)


@pytest.mark.usefixtures("small_counts")
@pytest.mark.parametrize("late", [False, True])
def test_no_memory_for_a_cohort_is_told_as_for_a_data_set(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cohort_rows.SharedMemory
    before = [1] if late else []

    def none_left(nbytes: int) -> Any:
        if before:
            before.pop()
            return made(nbytes)
        raise OSError("no space left on device")

    monkeypatch.setattr(cohort_rows, "SharedMemory", none_left)
    strategy = FederatedStrategy(40, cohort_size=5, rounds_per_epoch=3, seed=0, processes=2)
    with pytest.raises(NotFederatable, match="the data cannot be sent to another process: OSError: no space"):
        trainer(strategy).fit(Plain(), loader(200))
