"""What a worker does in a visit, where an algorithm wants something else than plain training.

The interface between algorithms and local work: a `LocalProcedure` is written by an algorithm, and works with
what a `LocalModel` or `LocalTraining` lets it do. How steps are taken lives in ``visit_steps``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlightning.local.aside import Aside
from fedlightning.local.automatic import LossTerm
from fedlightning.local.corrections import Correction, StepCorrection, StepCounter
from fedlightning.local.known import known
from fedlightning.local.logs import LogRecorder
from fedlightning.local.memory import Own, WorkerMemory
from fedlightning.local.streams import Stream
from fedlightning.local.visit_steps import VisitSteps
from fedlightning.workers.payload import payload_bytes

Patterns = Sequence[str]
"""Which tensors of a module: names of parts, of parameters or buffers, with ``*`` for anything."""


def matches(name: str, patterns: Patterns) -> bool:
    """Tell whether a parameter or buffer is meant.

    Args:
        name: Its dotted name.
        patterns: Names of parts (``"head"`` means all of it) or of tensors (``"*.bias"``).

    Example:
        >>> matches("head.weight", ["head"]), matches("header.weight", ["head"])
        (True, False)
    """
    return any(name.startswith(f"{pattern}.") or fnmatchcase(name, pattern) for pattern in patterns)


class LocalModel:
    """The module at a worker, and what the worker keeps of its own for it.

    Args:
        module: The module, as it came.
        own: What earlier visits have kept here.
        stream: The worker's training batches.

    Attributes:
        module: The module.
        parameters: All of its parameters, frozen ones as well, in order; a procedure may write to them.
    """

    def __init__(self, module: pl.LightningModule, own: Own, stream: Stream) -> None:
        self.module = module
        self.parameters: Sequence[Tensor] = known(module).parameters
        self._own = own
        self._stream = stream

    def copy_parameters(self) -> list[Tensor]:
        """Return the parameters as they are now, detached."""
        return [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def write_parameters(self, values: Sequence[Tensor]) -> None:
        """Set all parameters, in place."""
        torch._foreach_copy_(list(self.parameters), list(values))

    def positions(self, patterns: Patterns) -> set[int]:
        """Return the positions of the parameters that are meant."""
        names = enumerate(name for name, _ in self.module.named_parameters())
        return {position for position, name in names if matches(name, patterns)}

    def copy(self, patterns: Patterns) -> list[Tensor]:
        """Return the parameters and buffers that are meant as they are now, detached."""
        return [tensor.detach().clone() for tensor in self._meant(patterns)]

    @torch.no_grad()
    def write(self, patterns: Patterns, values: Sequence[Tensor] | None) -> None:
        """Set the parameters and buffers that are meant, in place.

        Args:
            patterns: Which.
            values: What `copy` of the same patterns returned; ``None`` to leave them.
        """
        for tensor, value in zip(self._meant(patterns), values or (), strict=values is not None):
            tensor.copy_(value)

    def norm_layers(self) -> list[str]:
        """Return the names of all parts that normalise."""
        return [name for name, part in self.module.named_modules() if isinstance(part, _NORM_LAYERS)]

    def kept(self, name: str) -> list[Tensor] | None:
        """Return what an earlier visit has kept here under a name, or ``None``; not to be written to."""
        found = self._own.get(name)
        # From a checkpoint it comes onto the CPU.
        return None if found is None else [tensor.to(self.module.device) for tensor in found]

    def batches(self, count: int) -> Iterator[Any]:
        """Yield the first batches of the worker's training data, without passing over them for training."""
        return (batch for _, batch in self._stream.peek(count))

    def _meant(self, patterns: Patterns) -> list[Tensor]:
        # Looked up each time: modules exchange buffers, rather than fill them.
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return [tensor for name, tensor in named if matches(name, patterns)]


class LocalTraining(LocalModel):
    """What a procedure finds at a worker in a visit, and may do there.

    Args:
        module: The module, as it came.
        optimizers: Its optimizers, at the worker.
        memory: What the worker keeps between visits.
        stream: The worker's batches.
        steps: Those of the visit.
        logs: Records what they log.

    Attributes:
        module: The module.
        parameters: All of its parameters, frozen ones as well, in order; a procedure may write to them.
        sent: What goes up beside the update, by name: one tensor per parameter, or any other number of them.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        optimizers: Sequence[Optimizer],
        memory: WorkerMemory,
        stream: Stream,
        steps: VisitSteps,
        logs: LogRecorder,
    ) -> None:
        super().__init__(module, memory.own, stream)
        self.optimizers = optimizers
        self.sent = memory.outgoing
        self._memory = memory
        self._steps = steps
        self._logs = logs
        self._counter = StepCounter(self.parameters)

    @property
    def length(self) -> int:
        """Batches of the visit."""
        return self._steps.count

    @property
    def accumulated(self) -> int:
        """Batches whose gradients are accumulated into one step, under automatic optimization."""
        return self._steps.accumulated

    @property
    def steps(self) -> int:
        """Steps of the optimizers so far, counted by the parameter that took the most."""
        return max(self._counter.steps, default=0)

    @property
    def distances(self) -> list[float]:
        """Sum of the learning rates of each parameter's steps so far; 0 for one that took none."""
        return list(self._counter.distances)

    @property
    def trained(self) -> list[int]:
        """Positions of the parameters that are no frozen ones."""
        return [position for position, tensor in enumerate(self.parameters) if tensor.requires_grad]

    @property
    def groups(self) -> dict[int, dict[str, Any]]:
        """The settings of the optimizer's group that each parameter is in, by position, as they are now."""
        positions = {tensor: position for position, tensor in enumerate(self.parameters)}
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return {positions[parameter]: group for group in groups for parameter in group["params"]}

    def keep(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Keep something at this worker for its next visit; it is part of checkpoints.

        Args:
            name: By which it is found again.
            tensors: Not to be written to any more.
        """
        self._memory.own[name] = [tensor.detach() for tensor in tensors]

    def train(
        self,
        correct: Correction | None = None,
        *,
        add_to_loss: LossTerm | None = None,
        first: int = 0,
        steps: int | None = None,
    ) -> None:
        """Train on batches of the visit, each once.

        Args:
            correct: Changes the gradients before each step of an optimizer; after clipping and unscaling, so
                that it acts on what the step would have used.
            add_to_loss: A term for each batch's loss, asked for once ``training_step`` has returned; not
                under manual optimization, where that is too late.
            first: Number of the first batch within the visit. Going back needs a procedure that ``revisits``.
            steps: How many; ``None`` for all that follow.
        """
        self._steps.take(self._logs, first, steps, add_to_loss, StepCorrection(self._counter, correct))

    def alter_batches(self, alter: Callable[[Any], Any]) -> None:
        """Train on something else from here on, as a bad worker would.

        Args:
            alter: Returns what is trained on, given a batch.
        """
        self._steps.alter = alter

    def train_only(self, positions: set[int], *, first: int = 0, steps: int | None = None) -> None:
        """Train some of the parameters; the optimizers pass over the others, weight decay and all.

        Args:
            positions: Which.
            first: As in `train`.
            steps: As in `train`.
        """

        def drop(stepped: Sequence[int], gradients: Sequence[Tensor]) -> None:
            for position in set(stepped) - positions:
                self.parameters[position].grad = None

        self.train(drop, first=first, steps=steps)

    def aside(self) -> AbstractContextManager[None, None]:
        """Train something beside the module within the block: nobody is told of losses, logs and metrics.

        The block may be entered again; the optimizers then go on with the states that they had in it.
        Parameters are for the procedure to exchange and to put back; buffers are put back.
        """
        return Aside(self.module, self.optimizers, self._steps)


class LocalProcedure(ABC):
    """What a worker is to do in a visit: a frozen dataclass of settings and tensors, sent with the module.

    It must not write to its own tensors: in one process all workers share them.
    """

    @property
    def sends(self) -> bool:
        """Whether `run` leaves something in ``local.sent``, which is then averaged like the update."""
        return False

    @property
    def revisits(self) -> bool:
        """Whether `run` trains on a batch more than once; a visit's batches are then held in memory."""
        return False

    @abstractmethod
    def run(self, local: LocalTraining) -> None:
        """Carry out the local work of one visit.

        Args:
            local: What there is to work with.
        """

    def personalise(self, local: LocalModel) -> None:  # noqa: B027 - most algorithms have nothing personal
        """Turn the global module into what this worker itself would use, to be evaluated there.

        Args:
            local: The module, and what the worker keeps.
        """


_NORM_LAYERS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


@payload_bytes.register
def _(value: LocalProcedure) -> int:
    entries: Mapping[str, object] = {
        entry.name: getattr(value, entry.name)
        for entry in fields(value)  # type: ignore[arg-type]  # a dataclass, as the class asks
    }
    return payload_bytes(entries)
