"""Cohorts in a fit: who is drawn trains, choosing leaves no trace, and a run that was cut goes on alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from fedlightning.algorithms import (
    ChosenBy,
    Draw,
    FixedOrder,
    OnlineWorkers,
    PoissonSampling,
    PowerOfChoice,
    RoundRobin,
    Sampling,
    TaggedWorkers,
    UniformSampling,
    WeightedSampling,
    uniform_cohort,
)
from fedlightning.data import FederatedDataLoader, FederatedDataset
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import VirtualWorker
from tests.strategy.sampling_toys import EVERY_OTHER, NAMES, Plain, Teacher, cohorts_of, fit, strategy
from tests.strategy.toys import Classifier, Memo, assert_same_module, loader, samples, trainer


@pytest.mark.parametrize("work", [{"local_steps": 2}, {"local_steps": 1}], ids=["local", "gradients"])
@pytest.mark.parametrize(
    ("sampling", "cohort_size"),
    [
        (UniformSampling(), 2),
        (ChosenBy(lambda draw: uniform_cohort(draw.workers, 2, seed=draw.seed, round=draw.round)), 2),
        (FixedOrder(NAMES[::-1]), None),
        (PowerOfChoice(6), 6),
        (PowerOfChoice(6, batches=1), 6),
        (PowerOfChoice(6, "reported"), 6),
        (TaggedWorkers("a", dict.fromkeys(NAMES, "a"), then=OnlineWorkers([NAMES])), 2),
    ],
    ids=["uniform", "function", "all in order", "pow-d", "cpow-d", "rpow-d", "nested"],
)
def test_ways_that_come_to_the_same_end_in_the_same_bits(
    sampling: Sampling, cohort_size: int | None, work: dict[str, int]
) -> None:
    """All have equal samples, so weights of one are those of samples; and evaluation must not be noticed."""
    usual, chosen = Memo(), Memo()
    expected, run = fit(strategy(None, cohort_size, **work), module=Teacher, logger=usual)
    module, other = fit(strategy(sampling, cohort_size, **work), module=Teacher, logger=chosen)
    assert_same_module(expected, module)
    assert usual.entries == chosen.entries
    assert cohorts_of(run.strategy.history) == cohorts_of(other.strategy.history)


def test_weights_given_with_a_cohort_are_those_of_the_average() -> None:
    def trained(chosen: dict[str, float]) -> dict[str, Tensor]:
        module, _ = fit(
            strategy(ChosenBy(lambda draw: chosen), None, rounds_per_epoch=1, local_steps=2),
            module=Plain,
            max_epochs=1,
        )
        return module.state_dict()

    one, other = trained({"worker-1": 1.0}), trained({"worker-4": 1.0})
    both = trained({"worker-4": 0.5, "worker-1": 1.5})
    for name, tensor in both.items():
        torch.testing.assert_close(tensor, 0.75 * one[name] + 0.25 * other[name])


def test_a_sequential_run_visits_in_the_order_that_is_meant() -> None:
    _, run = fit(
        strategy(FixedOrder(["worker-4", "worker-0", "worker-2"]), None, update="sequential"), max_epochs=2
    )
    assert cohorts_of(run.strategy.history) == [("worker-4",), ("worker-0",), ("worker-2",)] * 2


def test_owners_tags_say_who_takes_part() -> None:
    workers = [VirtualWorker(id=name) for name in ("ann", "bob", "carl")]
    x, y = samples(12).tensors
    placed = {
        worker: (worker.register(x[part], tags=tags), worker.register(y[part], tags=tags))
        for worker, part, tags in zip(
            workers, torch.arange(12).chunk(3), [("#heart",), ("#lung",), ("#heart", "#lung")], strict=True
        )
    }
    _, run = fit(
        FederatedStrategy(sampling=TaggedWorkers("#heart"), seed=0),
        train=FederatedDataLoader(FederatedDataset(placed), batch_size=2),
    )
    assert set(cohorts_of(run.strategy.history)) == {("ann", "carl")}


def fifth(draw: Draw) -> list[str]:
    return sorted(draw.workers, key=lambda name: draw.losses.reported.get(name, 9.0))[-2:]


RESUMED: dict[str, dict[str, Any]] = {
    "weighted": {"sampling": WeightedSampling()},
    "Poisson": {"sampling": PoissonSampling()},
    "round robin": {"sampling": RoundRobin()},
    "pow-d": {"sampling": PowerOfChoice(4)},
    "cpow-d": {"sampling": PowerOfChoice(4, batches=1), "local_steps": 1},
    "rpow-d": {"sampling": PowerOfChoice(4, "reported")},
    "function of losses": {"sampling": ChosenBy(fifth)},
    "online, sequential": {"sampling": EVERY_OTHER, "update": "sequential"},
}


@pytest.mark.parametrize("settings", RESUMED.values(), ids=RESUMED)
def test_a_run_goes_on_with_the_same_cohorts_and_bits(settings: dict[str, Any], tmp_path: Path) -> None:
    each = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    settings = {"rounds_per_epoch": 4, **settings}
    whole, run = fit(strategy(**settings), enable_checkpointing=True, callbacks=[each])
    assert len(list(tmp_path.glob("*.ckpt"))) == 8
    for step in (1, 3, 5):
        torch.manual_seed(99)
        module = Classifier()
        other = trainer(strategy(**settings))
        other.fit(
            module,
            loader(batch_size=3),
            loader(12, shuffle=False),
            ckpt_path=str(tmp_path / f"step={step}.ckpt"),
        )
        assert_same_module(whole, module)
        assert cohorts_of(other.strategy.history) == cohorts_of(run.strategy.history)


def test_another_way_of_sampling_is_another_run(tmp_path: Path) -> None:
    each = ModelCheckpoint(tmp_path, save_last=True)
    fit(strategy(RoundRobin()), enable_checkpointing=True, callbacks=[each], max_epochs=1)
    with pytest.raises(
        NotFederatable, match=r"its sampling is 'RoundRobin\(\)', and this fit has 'UniformSampling\(\)'"
    ):
        trainer(strategy(None)).fit(Classifier(), loader(batch_size=3), ckpt_path=str(tmp_path / "last.ckpt"))
