"""Those with the highest loss take part: how it is measured, what that costs, and who cannot tell."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from fedlightning import Tolerance
from fedlightning.algorithms import Plan, PowerOfChoice, Sampling
from fedlightning.callbacks import FederatedCallback
from fedlightning.pointers.messages import Message, Run
from fedlightning.strategy import RoundFailed
from fedlightning.strategy.history import History
from fedlightning.workers import VirtualWorker, WorkerLost
from fedlightning.workers.reply import Failed, Reply
from tests.strategy.sampling_toys import NAMES, PARTS, Plain, Teacher, cohorts_of, fit, strategy
from tests.strategy.toys import loader, samples


class Judge(FederatedCallback):
    """Work out by hand, before each round, who should have been chosen."""

    def __init__(self) -> None:
        self.expected: list[tuple[str, ...]] = []

    @override
    def on_round_start(self, trainer: L.Trainer, pl_module: L.LightningModule, plan: Plan) -> None:
        losses = {}
        for name, part in PARTS.indices.items():
            x, y = samples()[list(part)]
            with torch.no_grad():
                losses[name] = float(nn.functional.cross_entropy(pl_module.net(x), y))
        worst = sorted(losses, key=losses.__getitem__)[-2:]
        self.expected.append(tuple(sorted(worst)))


@pytest.mark.parametrize("batches", [None, 9])
def test_those_with_the_highest_loss_of_the_global_model_take_part(batches: int | None) -> None:
    judge = Judge()
    _, run = fit(strategy(PowerOfChoice(6, batches=batches)), module=Plain, callbacks=[judge], max_epochs=3)
    assert cohorts_of(run.strategy.history) == judge.expected
    assert len(set(judge.expected)) > 1, "a test in which all rounds are alike shows little"


@pytest.mark.parametrize("batches", [None, 1])
def test_candidates_measure_on_several_loaders_as_they_train(batches: int | None) -> None:
    seen: list[tuple[int, ...]] = []

    class Both(Plain):
        @override
        def training_step(self, batch: dict[str, list[Tensor]], batch_idx: int) -> Tensor:
            if not self.training:
                seen.append(tuple(map(len, (batch["a"][1], batch["b"][1]))))
            first, second = (nn.functional.cross_entropy(self.net(x), y) for x, y in batch.values())
            return first + second

    _, run = fit(
        strategy(PowerOfChoice(6, batches=batches), partition=None, workers=6, rounds_per_epoch=3),
        module=Both,
        train={"a": loader(batch_size=3), "b": loader(18, batch_size=3)},
        max_epochs=1,
    )
    assert all(len(cohort) == 2 for cohort in cohorts_of(run.strategy.history))
    assert len(seen) == 3 * 6 * (batches or 2)


def test_a_few_batches_are_a_random_part_of_the_data() -> None:
    seen: list[tuple[int, ...]] = []

    class Watched(Plain):
        @override
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            if not self.training:
                seen.append(tuple(sorted(batch[1].tolist())))
            return super().training_step(batch, batch_idx)

    data = TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    fit(
        strategy(PowerOfChoice(6, batches=1), rounds_per_epoch=8),
        module=Watched,
        train=DataLoader(data, batch_size=2),
    )
    assert len(seen) == 6 * 16, "one batch of each candidate in each round"
    assert len(set(seen)) > 3, "not always the first"


def test_whoever_was_never_visited_goes_first_then_the_last_loss_decides() -> None:
    _, run = fit(
        strategy(PowerOfChoice(6, "reported"), local_steps=2, rounds_per_epoch=9),
        module=Plain,
        max_epochs=1,
    )
    history = run.strategy.history
    first = [name for cohort in cohorts_of(history)[:3] for name in cohort]
    assert sorted(first) == NAMES
    losses: dict[str, float] = {}
    for number, cohort in enumerate(cohorts_of(history)):
        if number >= 3:
            assert cohort == tuple(sorted(sorted(losses, key=losses.__getitem__)[-2:]))
        losses |= {v.worker: v.loss for v in history.visits if v.round == number and v.loss is not None}
    assert all(down == up for up, down in _module_sizes(history)), "nothing but the visits is sent"


def test_the_journey_to_candidates_is_counted() -> None:
    def moved(sampling: Sampling) -> tuple[int, int]:
        _, run = fit(strategy(sampling, local_steps=2, rounds_per_epoch=1), module=Plain, max_epochs=1)
        (record,) = run.strategy.history
        return record.bytes_up, record.bytes_down

    module_bytes = sum(p.numel() * p.element_size() for p in Plain().parameters())
    up, down = moved(PowerOfChoice(4, "reported"))
    evaluated_up, evaluated_down = moved(PowerOfChoice(4))
    assert evaluated_down - down == pytest.approx(4 * module_bytes, rel=0.05)
    assert 0 < evaluated_up - up < 4 * 100, "a number comes back from each"


def _module_sizes(history: History) -> list[tuple[int, int]]:
    visited = [sum(v.bytes_down for v in history.visits if v.round == r.round) for r in history]
    return [(record.bytes_down, total) for record, total in zip(history, visited, strict=True)]


class Deaf(VirtualWorker):
    """A worker that is lost when its loss is to be measured."""

    @override
    def submit(self, message: Message) -> Reply:
        if isinstance(message, Run) and message.program.endswith("measure_loss") and self.id == "worker-4":
            return Failed(WorkerLost(self.id, f"worker {self.id!r} is gone"))
        return super().submit(message)


def test_a_candidate_that_is_lost_is_none_where_that_is_tolerated() -> None:
    workers = [Deaf(id=name) for name in NAMES]
    with pytest.raises(RoundFailed, match="worker 'worker-4', round 0: worker 'worker-4' is gone"):
        fit(strategy(PowerOfChoice(6), workers=workers), module=Plain)
    with pytest.warns(UserWarning, match="round 0: worker 'worker-4' is no candidate"):
        _, run = fit(
            strategy(PowerOfChoice(6), 5, workers=workers, tolerance=Tolerance(on_lost="skip")),
            module=Plain,
            max_epochs=1,
        )
    assert {name for cohort in cohorts_of(run.strategy.history) for name in cohort} == set(NAMES) - {
        "worker-4"
    }


def test_a_step_that_raises_at_a_candidate_is_located_and_leaves_the_module_alone() -> None:
    class Fragile(Teacher):
        @override
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            if not self.training and batch_idx == 1:
                raise KeyError("field")
            return loss

    L.seed_everything(3, verbose=False)
    module = Fragile()
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(RoundFailed, match=r"worker 'worker-\d', round 0, local step 1: KeyError") as caught:
        fit(strategy(PowerOfChoice(6)), module=lambda: module)
    assert isinstance(caught.value, KeyError)
    assert module.training
    assert all(torch.equal(tensor, start[name]) for name, tensor in module.state_dict().items())
