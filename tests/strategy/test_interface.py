"""The strategy reaches data and module through the Worker interface alone."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import pytest
from torchmetrics.classification import MulticlassAUROC
from typing_extensions import override

from fedlightning.pointers.messages import Delete, Message, Put, Run
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import KeepData, RefusedByPolicy, VirtualWorker
from fedlightning.workers.reply import Reply
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer


class Recorder(VirtualWorker):
    """A virtual worker that keeps the messages it was sent."""

    def __init__(self, **settings: Any) -> None:
        self.messages: list[Message] = []
        super().__init__(**settings)

    @override
    def submit(self, message: Message) -> Reply:
        if not isinstance(message, Delete):
            self.messages.append(message)
        return super().submit(message)

    def in_round(self, number: int) -> list[str]:
        """Return what happened in a round, in words."""
        return [_words(message) for message in self.messages if message.round == number]


def _words(message: Message) -> str:
    if isinstance(message, Run):
        return f"run {message.program.split(':')[1]}"
    if isinstance(message, Put):
        return f"send {type(message.value).__name__}"
    return type(message).__name__.lower()


@pytest.mark.parametrize(
    ("settings", "procedure"),
    [
        ({"local_steps": 1}, ["send Classifier", "run compute_gradients", "get"]),
        ({}, ["send Classifier", "send Adam", "run train_locally", "get", "get"]),
    ],
)
@pytest.mark.parametrize("update", ["averaged", "sequential"])
def test_each_visit_is_the_tutorials_procedure(
    update: Any, settings: dict[str, Any], procedure: list[str]
) -> None:
    workers = [Recorder(id=name) for name in ("alice", "bob")]
    fit(FederatedStrategy(workers, update=update, **settings), max_epochs=1)
    rounds = (0, 1) if update == "sequential" else (0,)
    for number in rounds:
        visits = [worker.in_round(number) for worker in workers]
        assert Counter(map(tuple, visits))[tuple(procedure)] == (1 if update == "sequential" else 2)


@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("settings", [{"local_steps": 1}, {}])
def test_data_that_never_leaves_trains_to_the_same_bits(update: Any, settings: dict[str, Any]) -> None:
    def run(policy: Any) -> tuple[Any, FederatedStrategy]:
        workers = [VirtualWorker(id=name, policy=policy) for name in ("alice", "bob")]
        strategy = FederatedStrategy(workers, update=update, seed=0, **settings)
        return fit(strategy)[0], strategy

    (free, _), (private, strategy) = run(None), run(KeepData())
    assert_same_module(free, private)
    for member in strategy.federation.members.values():
        with pytest.raises(RefusedByPolicy, match="private data stays"):
            member.worker.get(member.shard)
        sent = {entry.kind for entry in member.worker.ledger.entries if entry.direction == "sent"}
        assert sent - {"metadata"} == {"module", "metrics"}


class Scored(Classifier):
    """Keep every prediction, or counts at thresholds."""

    def __init__(self, thresholds: int | None) -> None:
        super().__init__()
        self.train_accuracy = MulticlassAUROC(3, thresholds=thresholds)


@pytest.mark.parametrize("settings", [{"local_steps": 1}, {}])
@pytest.mark.parametrize("workers", [("alice",), ("alice", "bob")])
def test_metrics_that_keep_predictions_stay(workers: tuple[str, ...], settings: dict[str, Any]) -> None:
    def run(thresholds: int | None) -> None:
        strategy = FederatedStrategy(
            [VirtualWorker(id=name, policy=KeepData()) for name in workers], **settings
        )
        fit(strategy, module=Scored(thresholds), max_epochs=1)

    with pytest.raises(
        RefusedByPolicy, match=r"'train_accuracy' has kept values per sample: give it thresholds="
    ):
        run(None)
    run(5)


def test_bytes_are_those_of_the_module() -> None:
    strategy = FederatedStrategy(2, rounds_per_epoch=1)
    module, _ = fit(strategy, module=Classifier(dropout=0.0), max_epochs=1)
    tensors = [*module.parameters(), *module.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    (record,) = strategy.history
    # Up: the module, and a few logged numbers per worker.
    assert 2 * size < record.bytes_up < 2 * size + 4096
    assert record.bytes_down >= 2 * size
    for summary in strategy.federation_summary():
        assert summary.sent_bytes >= size


def test_summary() -> None:
    strategy = FederatedStrategy(3)
    module, _ = fit(strategy)
    summaries = strategy.federation_summary()
    assert [s.worker for s in summaries] == ["worker-0", "worker-1", "worker-2"]
    assert sum(s.samples for s in summaries) == 30
    assert sum((Counter(s.label_counts) for s in summaries), Counter()) == {0: 10, 1: 10, 2: 10}
    assert all(0 <= s.metrics["val/acc"] <= 1 for s in summaries)
    assert module.training is True
    assert "log" not in vars(module)


def test_workers_do_not_hold_the_data_of_earlier_fits() -> None:
    workers = [VirtualWorker(id=name) for name in ("alice", "bob")]
    run = trainer(FederatedStrategy(workers), max_epochs=1)
    held = []
    for _ in range(3):
        run.fit_loop.max_epochs += 1
        run.fit(Classifier(), loader())
        gc.collect()
        held.append([len(worker) for worker in workers])
    assert held[0] == held[1] == held[2]
