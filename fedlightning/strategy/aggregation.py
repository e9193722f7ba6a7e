"""Where the updates of a round are combined: at the controller, or at a worker that is trusted with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from fedlightning.algorithms import (
    AggregationRule,
    Extras,
    Update,
    UpdateKind,
    UpdateMean,
)
from fedlightning.algorithms.attacks import Collusion
from fedlightning.algorithms.opening import open_combiner
from fedlightning.algorithms.postprocessing import Postprocessing
from fedlightning.algorithms.trusted import add_update, copy_update, mean_of, open_mean, outgoing_update
from fedlightning.local.known import known
from fedlightning.local.memory import take_outgoing
from fedlightning.local.vectorised.training import TrainedChunk
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
    def add(self, module: nn.Module, kind: UpdateKind, weight: float, block: int) -> None:
        """Take what was fetched last into the mean.

        Args:
            module: The global module.
            kind: What its update is.
            weight: The weight of the update.
            block: Number of the block of the cohort that its worker is in.
        """

    @property
    def takes_means(self) -> bool:
        """Whether nobody asks for single updates, and the mean of some will do."""
        return False

    def add_update(self, update: Update, weight: float, block: int, *, whole: bool = False) -> None:
        """Take an update into the mean, or the mean of a block of them.

        Args:
            update: Made in another process; not kept.
            weight: Its weight, or that of all that are in it.
            block: Number of the block.
            whole: Whether all of the block is in it.

        Raises:
            NotImplementedError: Updates go elsewhere.
        """
        raise NotImplementedError

    def end_block(self) -> None:  # noqa: B027 - it only makes the next block begin quicker
        """Hear that nothing more will be added to the block at hand."""

    def add_chunk(self, chunk: TrainedChunk, weights: Mapping[int, float], block: int) -> None:
        """Take parameters of visits that were carried out together into the mean.

        Args:
            chunk: The visits.
            weights: Weights of their updates, by row; those that are not in it do not count.
            block: Number of the chunk: as much as a block, its mean is taken before that of all.

        Raises:
            NotImplementedError: Updates go elsewhere, and come from one worker at a time.
        """
        raise NotImplementedError

    @abstractmethod
    def result(self) -> Update | None:
        """Return the mean; ``None`` where nothing was added."""


class AtController(Aggregation):
    """Every update comes to the controller, on the module itself, and is combined here.

    Args:
        rule: How; the weighted mean, unless given.
        start: What all workers start from, for rules that measure how far each has gone.
        chain: How updates are processed before they leave; they then come without the module.
        trained: Positions of the trained parameters.
        collusion: What bad workers agree to send, in a simulation that has some.
        root: What was trained on the server's own data, for a rule that needs it.
    """

    def __init__(
        self,
        rule: AggregationRule | None,
        start: Sequence[Tensor],
        chain: Postprocessing | None = None,
        trained: Sequence[int] = (),
        collusion: Collusion | None = None,
        root: Update | None = None,
    ) -> None:
        self._combiner = open_combiner(rule, start, chain, trained, collusion, root)
        self._processed = chain is not None
        self._takes_means = rule is None and chain is None and collusion is None
        self._extras: Extras | None = None

    @override
    @contextmanager
    def fetched(self, worker: Worker, module: Any, kind: UpdateKind, memory: Any = None) -> Iterator[None]:
        with afterwards(worker.delete if self._processed else worker.get, [module]):
            yield
            self._extras = None if memory is None else worker.run(take_outgoing, memory)

    @override
    def release(self, worker: Worker, pointer: Any) -> None:
        worker.get(pointer)

    @property
    @override
    def takes_means(self) -> bool:
        return self._takes_means

    @override
    def add(self, module: nn.Module, kind: UpdateKind, weight: float, block: int) -> None:
        if self._processed:
            update = Update([], [], [], self._extras or {})
        else:
            tensors = known(module)
            update = Update.left_on(tensors.parameters, tensors.buffers, kind, self._extras)
        self._combiner.add(update, weight, block)

    @override
    def add_update(self, update: Update, weight: float, block: int, *, whole: bool = False) -> None:
        if whole and isinstance(self._combiner, UpdateMean):
            self._combiner.add_block(update, weight, block)
        else:
            self._combiner.add(update, weight, block)

    @override
    def end_block(self) -> None:
        if isinstance(self._combiner, UpdateMean):
            self._combiner.end_block()

    @override
    def add_chunk(self, chunk: TrainedChunk, weights: Mapping[int, float], block: int) -> None:
        updates = list(updates_of(chunk, weights, means=self._takes_means))
        whole = len(updates) == 1 and len(weights) == len(chunk.numbers)
        for update, weight in updates:
            self.add_update(update, weight, block, whole=whole)

    @override
    def result(self) -> Update | None:
        return self._combiner.result()


def updates_of(
    chunk: TrainedChunk, weights: Mapping[int, float], *, means: bool
) -> Iterator[tuple[Update, float]]:
    """Yield what visits that were carried out together have come to, with weights.

    Args:
        chunk: The visits.
        weights: Weights of their updates, by row; those that are not in it do not count.
        means: Whether the mean of all will do, where there is a quick one.
    """
    if means and not chunk.stack.buffers and len(weights) == len(chunk.numbers):
        mean = chunk.mean_parameters(list(weights.values()))
        yield Update(mean, [True] * len(mean), []), sum(weights.values())
        return
    for row, weight in weights.items():
        parameters, buffers = chunk.parameters_of(row), chunk.buffers_of(row)
        yield Update(parameters, [True] * len(parameters), buffers), weight


class AtTrustedWorker(Aggregation):
    """Updates go from worker to worker; only their mean comes to the controller.

    Args:
        aggregator: The worker that is trusted with single updates. The others must reach it directly.
        rule: How they are combined; by the weighted mean, unless given.
        start: What all workers start from, where a rule or a chain needs it.
        chain: How updates are processed before they leave.
        trained: Positions of the trained parameters.
        collusion: What bad workers agree to send, in a simulation that has some.
        root: What was trained on the server's own data, for a rule that needs it.
    """

    def __init__(
        self,
        aggregator: Worker,
        rule: AggregationRule | None,
        start: Sequence[Tensor],
        chain: Postprocessing | None = None,
        trained: Sequence[int] = (),
        collusion: Collusion | None = None,
        root: Update | None = None,
    ) -> None:
        self._aggregator = aggregator
        self._processed = chain is not None
        self._mean = aggregator.start(open_mean, rule, list(start), chain, list(trained), collusion, root)
        self._update: Any = None

    @override
    @contextmanager
    def fetched(self, worker: Worker, module: Any, kind: UpdateKind, memory: Any = None) -> Iterator[None]:
        with afterwards(partial(self.release, worker), [module]):
            yield
            if self._processed:
                update = worker.start(outgoing_update, memory)
            else:
                update = worker.start(copy_update, module, kind, memory)
            self._update = update.move(self._aggregator)

    @override
    def release(self, worker: Worker, pointer: Any) -> None:
        # It is not brought back: the controller has its own, and must not see what became of this one.
        worker.delete(pointer)

    @override
    def add(self, module: nn.Module, kind: UpdateKind, weight: float, block: int) -> None:
        self._mean = self._aggregator.start(add_update, self._mean, self._update, weight, block)
        self._update = None

    @override
    def result(self) -> Update | None:
        mean: Update | None = self._aggregator.run(mean_of, self._mean)
        return mean
