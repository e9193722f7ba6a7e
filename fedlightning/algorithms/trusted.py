"""Programs of a worker that is trusted with the others' updates: it takes them in, and gives out their mean.

Updates come to it from worker to worker; the controller sees the mean alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fedlightning.algorithms.attacks import Collusion
from fedlightning.algorithms.combining import Combiner
from fedlightning.algorithms.opening import open_combiner
from fedlightning.algorithms.postprocessing import Postprocessing
from fedlightning.algorithms.robust import AggregationRule
from fedlightning.algorithms.update import Update, UpdateKind
from fedlightning.local.memory import WorkerMemory
from fedlightning.workers import program


@program(returns="module")
def copy_update(module: nn.Module, kind: UpdateKind, memory: WorkerMemory | None = None) -> Update:
    """Copy what a visit has left on a module, at the worker that was visited.

    Args:
        module: The module at the worker. Gradients that are copied are taken off it.
        kind: Whether its parameters or their gradients count.
        memory: The worker's memory, where an algorithm sends something beside the update.
    """
    update = Update.of(module, kind, None if memory is None else memory.outgoing).copied()
    if kind == "gradients":
        for parameter in module.parameters():
            parameter.grad = None
    return update


@program(returns="module")
def outgoing_update(memory: WorkerMemory) -> Update:
    """Return what goes up in place of a module, at the worker that was visited.

    Args:
        memory: The worker's memory, where it waits.
    """
    outgoing, memory.outgoing = memory.outgoing, {}
    return Update([], [], [], outgoing)


@program(returns="module")
def open_mean(
    rule: AggregationRule | None,
    start: Sequence[Tensor],
    chain: Postprocessing | None,
    trained: Sequence[int],
    collusion: Collusion | None = None,
    root: Update | None = None,
) -> Combiner:
    """Start to collect a round's updates, at the worker that is trusted; see `open_combiner`."""
    return open_combiner(rule, start, chain, trained, collusion, root)


@program(returns="module")
def add_update(mean: Combiner, update: Update, weight: float, block: int = 0) -> Combiner:
    """Take an update into the mean, at the worker that is trusted.

    The mean is returned, to stay there: as a result, it counts as something that all of them contributed to.

    Args:
        mean: The round's mean.
        update: One worker's update, which has come there directly.
        weight: Its weight.
        block: Number of its block.
    """
    mean.add(update, weight, block)
    return mean


@program(returns="module")
def mean_of(mean: Combiner) -> Update | None:
    """Return the round's mean to the controller; ``None`` where no update has come."""
    return mean.result()
