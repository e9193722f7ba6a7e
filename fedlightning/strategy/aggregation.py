"""Where the updates of a round are combined: at the controller, or at a worker that is trusted with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from fedlightning.algorithms import (
    AggregationRule,
    Combiner,
    Extras,
    RuleCombiner,
    Update,
    UpdateKind,
    UpdateMean,
)
from fedlightning.algorithms.trusted import add_update, copy_update, mean_of, open_mean
from fedlightning.local.known import known
from fedlightning.local.memory import take_outgoing
from fedlightning.workers import Worker


@contextmanager
def afterwards(act: Callable[[Any], None], objects: Iterable[Any]) -> Iterator[None]:
    """Do something with some objects after the block, however it ends, but for a Ctrl-C.

    Then nobody waits for a worker, which may go on with its visit for long.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        for one in objects:
            act(one)
        raise
    for one in objects:
        act(one)


class Aggregation(ABC):
    """Collect the updates of one round."""

    @abstractmethod
    def fetched(
        self, worker: Worker, module: Any, kind: UpdateKind, memory: Any = None
    ) -> AbstractContextManager[None]:
        """Take the update of the visit that is the block, and the module away from its worker, in any case.

        Args:
            worker: The worker.
            module: Pointer to the module there.
            kind: What its update is.
            memory: Pointer to the worker's memory, where an algorithm sends something beside the update.
        """

    @abstractmethod
    def release(self, worker: Worker, pointer: Any) -> None:
        """Take away from a worker what was sent there for the visit.

        Args:
            worker: The worker.
            pointer: To what was sent.
        """

    @abstractmethod
    def add(self, module: nn.Module, kind: UpdateKind, weight: float) -> None:
        """Take what was fetched last into the mean.

        Args:
            module: The global module.
            kind: What its update is.
            weight: The weight of the update.
        """

    @abstractmethod
    def result(self) -> Update | None:
        """Return the mean; ``None`` where nothing was added."""


class AtController(Aggregation):
    """Every update comes to the controller, on the module itself, and is combined here.

    Args:
        rule: How; the weighted mean, unless given.
        start: What all workers start from, for rules that measure how far each has gone.
    """

    def __init__(self, rule: AggregationRule | None, start: Sequence[Tensor]) -> None:
        self._combiner: Combiner = UpdateMean() if rule is None else RuleCombiner(rule, start)
        self._extras: Extras | None = None

    @override
    @contextmanager
    def fetched(self, worker: Worker, module: Any, kind: UpdateKind, memory: Any = None) -> Iterator[None]:
        with afterwards(partial(self.release, worker), [module]):
            yield
            self._extras = None if memory is None else worker.run(take_outgoing, memory)

    @override
    def release(self, worker: Worker, pointer: Any) -> None:
        worker.get(pointer)

    @override
    def add(self, module: nn.Module, kind: UpdateKind, weight: float) -> None:
        tensors = known(module)
        update = Update.left_on(tensors.parameters, tensors.buffers, kind, self._extras)
        self._combiner.add(update, weight)

    @override
    def result(self) -> Update | None:
        return self._combiner.result()


class AtTrustedWorker(Aggregation):
    """Updates go from worker to worker; only their mean comes to the controller.

    Args:
        aggregator: The worker that is trusted with single updates. The others must reach it directly.
        rule: How they are combined; by the weighted mean, unless given.
        start: What all workers start from.
    """

    def __init__(self, aggregator: Worker, rule: AggregationRule | None, start: Sequence[Tensor]) -> None:
        self._aggregator = aggregator
        self._mean = aggregator.start(open_mean, rule, list(start) if rule is not None else [])
        self._update: Any = None

    @override
    @contextmanager
    def fetched(self, worker: Worker, module: Any, kind: UpdateKind, memory: Any = None) -> Iterator[None]:
        with afterwards(partial(self.release, worker), [module]):
            yield
            self._update = worker.start(copy_update, module, kind, memory).move(self._aggregator)

    @override
    def release(self, worker: Worker, pointer: Any) -> None:
        # It is not brought back: the controller has its own, and must not see what became of this one.
        worker.delete(pointer)

    @override
    def add(self, module: nn.Module, kind: UpdateKind, weight: float) -> None:
        self._mean = self._aggregator.start(add_update, self._mean, self._update, weight)
        self._update = None

    @override
    def result(self) -> Update | None:
        mean: Update | None = self._aggregator.run(mean_of, self._mean)
        return mean
