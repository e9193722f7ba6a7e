"""Workers cost nothing before their first visit, and a checkpoint keeps those that were visited."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import DataLoader
from typing_extensions import override

from fedlightning.callbacks import FederatedCallback
from fedlightning.strategy import FederatedStrategy
from fedlightning.strategy.federation import Federation
from fedlightning.strategy.records import VisitRecord
from fedlightning.strategy.roster import roster_of_ordinary_loader
from fedlightning.workers import VirtualWorker
from tests.strategy.toys import Classifier, fit, loader, samples


class Listener(FederatedCallback):
    """Hears of visits."""

    @override
    def on_worker_end(self, trainer: Any, pl_module: Any, visit: VisitRecord) -> None: ...


def test_virtual_workers_are_made_when_they_are_first_visited() -> None:
    strategy = FederatedStrategy(10, cohort_size=2, rounds_per_epoch=1, local_steps=2)
    fit(strategy, module=Classifier, max_epochs=1, callbacks=[Listener()])
    assert tuple(strategy.federation.members.made()) == strategy.history[0].workers
    assert len(strategy.federation.members) == 10


def test_workers_that_exist_get_their_data_at_once() -> None:
    workers = [VirtualWorker(id=name) for name in ("alice", "bob", "carol")]
    fit(FederatedStrategy(workers, cohort_size=1, rounds_per_epoch=1), module=Classifier, max_epochs=1)
    assert all(worker.search("shard") for worker in workers)


@pytest.mark.parametrize(("drop_last", "batches"), [(False, [3, 3, 2]), (True, [2, 2, 2])])
def test_sizes_are_known_beforehand_and_hold_at_the_workers(drop_last: bool, batches: list[int]) -> None:
    roster = roster_of_ordinary_loader(loader(14, batch_size=2, drop_last=drop_last), 3, None, seed=0)
    assert list(roster.samples.values()) == [5, 5, 4]
    assert list(roster.batches.values()) == batches
    for name, count in roster.samples.items():
        worker, shard = roster.place(name)
        held = worker._objects[shard.id_at_location]  # type: ignore[attr-defined]  # it is a virtual one
        assert (held.num_samples, held.num_batches) == (count, roster.batches[name])


def test_what_was_kept_waits_for_the_first_visit() -> None:
    def federation() -> Federation:
        roster = roster_of_ordinary_loader(DataLoader(samples(12), batch_size=2), 4, None, seed=0)
        return Federation(roster, seed=0, optimizer_state="keep")

    first = federation()
    kept: dict[str, Any] = {"optimizers": [{0: {"step": 3}}], "precision": {}, "own": {}}
    memory = first.members["worker-2"].memory
    first.load_state_dict({"worker-2": {"memory": kept, "stream": {}}}, streams=False)
    second = federation()
    second.load_state_dict(first.state_dict(round=4), streams=False)
    assert second.members.made() == {}
    assert (
        second.state_dict(round=4)
        == first.state_dict(round=4)
        == {"worker-2": {"memory": kept, "stream": {}}}
    )
    worker, memory = second.members["worker-2"].worker, second.members["worker-2"].memory
    assert worker._objects[memory.id_at_location].state_dict(4) == kept  # type: ignore[attr-defined]  # a virtual one
