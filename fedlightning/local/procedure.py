"""What a worker does in a visit, where an algorithm wants something else than plain training.

The interface between algorithms and local work: a `LocalProcedure` is written by an algorithm, and works with
what a `LocalTraining` lets it do. How steps are taken lives in ``training`` and the modules beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Optimizer

from fedlightning.local.corrections import Correction, StepCounter, corrected
from fedlightning.local.known import known
from fedlightning.local.logs import LogRecorder
from fedlightning.local.memory import WorkerMemory
from fedlightning.local.visit_steps import VisitSteps
from fedlightning.workers.payload import payload_bytes


class LocalTraining:
    """What a procedure finds at a worker, and may do there.

    Args:
        module: The module, as it came.
        optimizers: Its optimizers, at the worker.
        memory: What the worker keeps between visits.
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
        steps: VisitSteps,
        logs: LogRecorder,
    ) -> None:
        self.module = module
        self.parameters: Sequence[Tensor] = known(module).parameters
        self.optimizers = optimizers
        self.sent = memory.outgoing
        self._memory = memory
        self._steps = steps
        self._logs = logs
        self._counter = StepCounter(self.parameters)

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

    def copy_parameters(self) -> list[Tensor]:
        """Return the parameters as they are now, detached."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def kept(self, name: str) -> list[Tensor] | None:
        """Return what an earlier visit has kept here under a name, or ``None``; not to be written to."""
        found = self._memory.own.get(name)
        return None if found is None else list(found)

    def keep(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Keep something at this worker for its next visit; it is part of checkpoints.

        Args:
            name: By which it is found again.
            tensors: Not to be written to any more.
        """
        self._memory.own[name] = [tensor.detach() for tensor in tensors]

    def train(self, correct: Correction | None = None) -> None:
        """Train on the visit's batches.

        Args:
            correct: Changes the gradients before each step of an optimizer; after clipping and unscaling, so
                that it acts on what the step would have used.
        """
        with corrected(self.optimizers, self._counter, correct):
            self._steps.take(self._logs)


class LocalProcedure(ABC):
    """What a worker is to do in a visit: a frozen dataclass of settings and tensors, sent with the module.

    It must not write to its own tensors: in one process all workers share them.
    """

    sends: ClassVar[bool] = False
    """Whether `run` leaves something in ``local.sent``, which is then averaged like the update."""

    @abstractmethod
    def run(self, local: LocalTraining) -> None:
        """Carry out the local work of one visit.

        Args:
            local: What there is to work with.
        """


@payload_bytes.register
def _(value: LocalProcedure) -> int:
    entries: Mapping[str, object] = {
        entry.name: getattr(value, entry.name)
        for entry in fields(value)  # type: ignore[arg-type]  # a dataclass, as the class asks
    }
    return payload_bytes(entries)
