"""Batched steps compiled by ``torch.compile``: one graph per shape, whoever's batches have it, in any round.

The first steps of a shape are taken uncompiled. They show what the module logs and which parameters its loss
depends on, and seldom shapes, such as those of last batches, are never compiled.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_unflatten

from fedlightning.local.stepping import loss_of
from fedlightning.local.vectorised.gradients import Gradients
from fedlightning.local.vectorised.logs import ChunkLogs, Notes
from fedlightning.local.vectorised.refusal import NotBatchable
from fedlightning.local.vectorised.stack import Places
from fedlightning.local.vectorised.stacked_batch import StackedBatch
from fedlightning.local.vectorised.step import apart

BACKEND: Any = "inductor"
"""What compiles graphs, as ``torch.compile(backend=...)``."""

USES_BEFORE = 3
"""Uncompiled steps of a shape before its graph is worth its seconds."""

MOST_GRAPHS = 8


def why_not_compilable(module: pl.LightningModule, *, draws: bool) -> str:
    """Say what keeps batched steps from being compiled; nothing if nothing does that can be seen.

    Args:
        module: The module.
        draws: Whether its steps draw random numbers.
    """
    if BACKEND == "inductor" and not _has_compiler():
        return "there is no C++ compiler on this machine (install g++)"
    if draws:
        return "training_step draws random numbers"
    if next(module.buffers(), None) is not None:
        return "the module has buffers"
    if type(module).log is not pl.LightningModule.log:
        return f"{type(module).__name__}.log"
    return ""


@dataclass(frozen=True)
class _Learned:
    """What uncompiled steps of a shape have shown.

    Args:
        notes: What the step logs.
        used: Which of the trained parameters its loss depends on.
    """

    notes: Notes
    used: tuple[int, ...]


class CompiledSteps:
    """Take batched steps by compiled graphs.

    Args:
        module: The module, which `why_not_compilable` says nothing of.
        places: Where its parameters are.
        passes_batch_idx: Whether ``training_step`` takes a ``batch_idx``.
    """

    def __init__(self, module: pl.LightningModule, places: Places, *, passes_batch_idx: bool) -> None:
        self._module = module
        self._names = places.trained_names
        self._passes_batch_idx = passes_batch_idx
        self._collector = _Collector()
        self._step = _Step(module)
        self._uses: dict[Any, int] = {}
        self._learned: dict[Any, _Learned] = {}
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def learn(self, batch: StackedBatch, gradients: Gradients, notes: Notes) -> None:
        """Take notice of an uncompiled step.

        Args:
            batch: Its batch.
            gradients: What it has computed.
            notes: What it has logged.

        Raises:
            NotBatchable: It has asked torchmetrics to count, which no graph does.
        """
        if notes.metrics:
            raise NotBatchable("torchmetrics in training_step")
        key = _key_of(batch)
        self._uses[key] = self._uses.get(key, 0) + 1
        self._learned[key] = _Learned(notes, tuple(gradients.known))

    def is_ready(self, batch: StackedBatch) -> bool:
        """Tell whether a step with such a batch is taken by a graph from now on."""
        key = _key_of(batch)
        return key in self._graphs or (
            self._uses.get(key, 0) >= USES_BEFORE and len(self._graphs) < MOST_GRAPHS
        )

    def gradients(self, batch: StackedBatch, parameters: Sequence[Tensor], logs: ChunkLogs) -> Gradients:
        """Take a step up to the gradients, and keep what is logged.

        Args:
            batch: The workers' batches.
            parameters: What they train, each of shape ``(workers, ...)``.
            logs: Where what is logged goes.

        Raises:
            NotBatchable: The step has logged something else than before.
        """
        key = _key_of(batch)
        learned = self._learned[key]
        if key not in self._graphs:
            self._graphs[key] = self._compiled(batch, learned)
        used = [parameters[n] for n in learned.used]
        rest = [tensor for n, tensor in enumerate(parameters) if n not in learned.used]
        with self._collecting():
            found, losses, values = self._graphs[key](used, rest, list(batch.tensors))
        if len(values) != learned.notes.tensors:
            raise NotBatchable("training_step logs now this, now that")
        losses, *values = apart([losses, *values], parameters)
        one = tree_unflatten([tensor[0] for tensor in batch.tensors], batch.structure)
        logs.repeat(learned.notes, one, batch.rows, values)
        whole: list[Tensor | None] = [None] * len(parameters)
        for n, gradient in zip(learned.used, found, strict=True):
            whole[n] = gradient
        return Gradients(losses, whole, [], values)

    def _compiled(self, batch: StackedBatch, learned: _Learned) -> Callable[..., Any]:
        """Return what takes used parameters, others and batches, and gives gradients, losses and logs."""
        step, collector, structure = self._step, self._collector, batch.structure
        numbers = (batch.batch_idx,) if self._passes_batch_idx else ()
        names = [self._names[n] for n in learned.used]
        other_names = [name for n, name in enumerate(self._names) if n not in learned.used]

        def of_one(used: list[Tensor], rest: list[Tensor], leaves: list[Tensor]) -> Any:
            collector.values.clear()
            own = dict(zip([*names, *other_names], [*used, *rest], strict=True))
            loss = loss_of(
                functional_call(step, own, (tree_unflatten(leaves, structure), *numbers)), required=True
            )
            values = [value.detach().reshape(()) for value in collector.values]
            # Emptied again, or the graph would have to hand out what has no meaning outside of it.
            collector.values.clear()
            assert loss is not None
            return loss.reshape(()), values

        differentiated = grad_and_value(of_one, has_aux=True)

        def of_all(used: list[Tensor], rest: list[Tensor], leaves: list[Tensor]) -> Any:
            found, (losses, values) = vmap(differentiated)(used, rest, leaves)
            return found, losses, values

        def of_the_only_one(used: list[Tensor], rest: list[Tensor], leaves: list[Tensor]) -> Any:
            # Without vmap, which knows no fast convolutions.
            parts = ([tensor[0] for tensor in tensors] for tensors in (used, rest, leaves))
            found, (loss, values) = differentiated(*parts)
            return [g.unsqueeze(0) for g in found], loss.unsqueeze(0), [v.unsqueeze(0) for v in values]

        several = len(batch.tensors[0]) > 1
        compiled: Callable[..., Any] = torch.compile(
            of_all if several else of_the_only_one, fullgraph=True, dynamic=False, backend=BACKEND
        )
        return compiled

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        # The same object each time: a graph holds for the function that it was traced with.
        kept = self._module.__dict__["log"]
        self._module.__dict__["log"] = self._collector.log
        try:
            yield
        finally:
            self._module.__dict__["log"] = kept


class _Collector:
    """Stand in for a module's ``log`` in a graph, where only values can be kept."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.log = self._log

    def _log(self, name: str, value: Any, *args: Any, **settings: Any) -> None:
        self.values.append(torch.as_tensor(value))


class _Step(nn.Module):
    """Be a module whose forward is another's training step, as ``functional_call`` wants it."""

    def __init__(self, module: pl.LightningModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any) -> Any:
        """Call the training step."""
        return self.module.training_step(*arguments)


def _key_of(batch: StackedBatch) -> Any:
    shapes = tuple((tensor.shape, tensor.dtype) for tensor in batch.tensors)
    return shapes, batch.structure, batch.batch_idx


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))
