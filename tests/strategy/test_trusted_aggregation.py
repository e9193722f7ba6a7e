"""A trusted worker averages: the same bits, and no single update at the controller's door."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from fedlightning.algorithms import PoissonSampling, Update, UpdateMean
from fedlightning.strategy import FederatedStrategy, RoundFailed, Tolerance
from fedlightning.workers import Allow, AtLeast, RefusedByPolicy, Rules, VirtualWorker, WorkerLost
from fedlightning.workers.reply import Failed
from tests.strategy.test_tolerance import Fails
from tests.strategy.toys import assert_same_module, assert_same_optimizer, fit

WORK: dict[str, dict[str, Any]] = {
    "epochs": {},
    "kept state": {"optimizer_state": "keep"},
    "gradients": {"local_steps": 1},
    "server optimizer": {"server_optimizer": partial(torch.optim.Adam, lr=0.1)},
    "cohorts": {"cohort_size": 2, "rounds_per_epoch": 2},
}


def crew(policy: Any = None) -> list[VirtualWorker]:
    """Return three workers."""
    return [VirtualWorker(id=name, policy=policy) for name in ("alice", "bob", "carol")]


@pytest.mark.parametrize("work", WORK.values(), ids=list(WORK))
def test_the_trusted_worker_gives_the_same_bits(work: dict[str, Any]) -> None:
    direct, before = fit(FederatedStrategy(crew(), **work))
    trusted, after = fit(FederatedStrategy(crew(), aggregator=VirtualWorker(id="trusted"), **work))
    assert_same_module(direct, trusted)
    assert_same_optimizer(before.optimizers[0], after.optimizers[0])
    assert before.callback_metrics == after.callback_metrics


@pytest.mark.parametrize("work", WORK.values(), ids=list(WORK))
def test_no_single_update_reaches_the_controller(work: dict[str, Any]) -> None:
    """Owners let updates go to the trusted worker alone, and from there only a mean over two or more."""
    policy = Rules(
        Allow(to=("trusted",)),
        Allow(kinds=("metrics", "metadata")),
        AtLeast(2, programs=("fedlightning.algorithms.trusted:mean_of",)),
    )
    workers, aggregator = crew(policy), VirtualWorker(id="trusted")
    module, _ = fit(FederatedStrategy(workers, aggregator=aggregator, **work))
    assert_same_module(module, fit(FederatedStrategy(crew(), **work))[0])
    for worker in workers:
        sent = [entry for entry in worker.ledger.entries if entry.direction == "sent"]
        assert {entry.to for entry in sent if entry.kind == "module"} == {"trusted"}
        assert {entry.kind for entry in sent if entry.to == "controller"} <= {"metrics", "metadata"}
    left = [entry for entry in aggregator.ledger.entries if entry.kind == "module"]
    assert {entry.item for entry in left} == {"fedlightning.algorithms.trusted:mean_of"}
    assert all("aggregate over" in entry.rule for entry in left)


def test_without_the_trusted_worker_such_owners_refuse() -> None:
    workers = crew(Rules(Allow(to=("trusted",)), Allow(kinds=("metrics", "metadata")), AtLeast(2)))
    with pytest.raises(RefusedByPolicy):
        fit(FederatedStrategy(workers))


def test_nothing_piles_up_at_the_trusted_worker() -> None:
    aggregator = VirtualWorker(id="trusted")
    workers = crew()
    fit(FederatedStrategy(workers, aggregator=aggregator), max_epochs=3)
    gc.collect()
    assert len(aggregator) == 0
    assert not any(isinstance(v, nn.Module) for worker in workers for v in worker._objects.values())


def test_a_worker_may_be_the_trusted_one() -> None:
    workers = crew()
    module, _ = fit(FederatedStrategy(workers, aggregator=workers[1]))
    assert_same_module(module, fit(FederatedStrategy(crew()))[0])


@pytest.mark.parametrize("work", [{}, {"local_steps": 1}])
def test_failures_are_tolerated_as_without(work: dict[str, Any]) -> None:
    tolerance = Tolerance(on_error="skip", min_cohort=0)

    def run(aggregator: VirtualWorker | None) -> Any:
        strategy = FederatedStrategy(crew(), aggregator=aggregator, tolerance=tolerance, **work)
        return fit(strategy, module=partial(Fails, {1, 6, 7, 8, 9}))[0]

    assert_same_module(run(None), run(VirtualWorker(id="trusted")))
    with pytest.raises(RoundFailed, match="worker 'alice'"):
        fit(FederatedStrategy(crew(), aggregator=VirtualWorker(id="trusted")), module=partial(Fails, {1}))


def test_no_run_goes_on_without_its_trusted_worker() -> None:
    class Gone(VirtualWorker):
        def take_over(self, value: Any, arrival: Any) -> Any:
            Failed(WorkerLost(self.id, "gone")).wait()

    strategy = FederatedStrategy(
        crew(), aggregator=Gone(id="trusted"), tolerance=Tolerance(on_lost="skip", min_cohort=0)
    )
    with pytest.raises(WorkerLost, match="gone"):
        fit(strategy)


@pytest.mark.parametrize("work", WORK.values(), ids=list(WORK))
def test_whose_turn_it_is_combines_to_the_same_bits(work: dict[str, Any]) -> None:
    direct, before = fit(FederatedStrategy(crew(), **work))
    rotating, after = fit(FederatedStrategy(crew(), aggregator="rotating", **work))
    assert_same_module(direct, rotating)
    assert before.callback_metrics == after.callback_metrics


def test_each_round_another_one_gets_the_others_updates() -> None:
    workers = crew()
    fit(FederatedStrategy(workers, aggregator="rotating", rounds_per_epoch=2), max_epochs=2)
    combines = [
        {worker.id for worker in workers for entry in of_round(worker, number) if "Update" in entry.item}
        for number in range(4)
    ]
    assert combines == [{"alice"}, {"bob"}, {"carol"}, {"alice"}]
    for number, name in enumerate(["alice", "bob", "carol", "alice"]):
        for worker in workers:
            to = {e.to for e in worker.ledger.entries if e.round == number and e.kind == "module"}
            assert to == (set() if worker.id == name else {name})


def of_round(worker: VirtualWorker, number: int) -> list[Any]:
    return [e for e in worker.ledger.entries if e.round == number and e.direction == "received"]


def test_nobody_combines_what_nobody_sends() -> None:
    strategy = FederatedStrategy(5, aggregator="rotating", sampling=PoissonSampling(rate=0.1), seed=0)
    fit(strategy)
    assert any(not record.workers for record in strategy.history)
    assert any(record.workers for record in strategy.history)


def test_settings() -> None:
    with pytest.raises(ValueError, match="update='sequential' has nothing to average"):
        FederatedStrategy(aggregator=VirtualWorker(id="trusted"), update="sequential")
    with pytest.raises(ValueError, match="update='sequential' has nothing to average"):
        FederatedStrategy(aggregator="rotating", update="sequential")
    with pytest.raises(TypeError, match="aggregator must be a Worker"):
        FederatedStrategy(aggregator="trusted")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="the id 'bob' of another one"):
        FederatedStrategy(crew(), aggregator=VirtualWorker(id="bob"))


def test_a_mean_of_updates() -> None:
    mean = UpdateMean()
    assert mean.result() is None
    mean.add(Update([torch.zeros(2), torch.zeros(1)], [False, False], [torch.tensor(1)]), 1)
    mean.add(Update([torch.tensor([4.0, 8.0]), torch.zeros(1)], [True, False], [torch.tensor(5)]), 3)
    result = mean.result()
    assert result is not None
    assert result.tensors[0].tolist() == [3.0, 6.0]
    assert list(result.present) == [True, False]
    assert result.buffers[0].item() == 4
