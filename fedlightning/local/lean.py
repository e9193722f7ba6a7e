"""A local step where no hook is overridden: the numbers that `automatic` computes, with nothing in between.

The general loop is the reference: a test runs both and compares bits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)
from torch.optim import optimizer as torch_optimizer
from typing_extensions import override

from fedlightning.local.corrections import StepCorrection
from fedlightning.local.engine import Gradients, GradModeOff, backward, gradients_of
from fedlightning.local.logs import LogRecorder
from fedlightning.local.stepping import loss_of
from fedlightning.pointers.optimizers import bring_state_along

Group: TypeAlias = dict[str, Any]
"""Parameters and the settings that an optimizer has for them."""


class LeanOptimization:
    """Step an optimizer through the batches of a visit, each a step of its own.

    Args:
        module: The module at the worker; no hook of a step is overridden, nor any of a callback's.
        optimizer: Its optimizer, at the worker.
        logs: Records what the steps log.
    """

    def __init__(self, module: pl.LightningModule, optimizer: Optimizer, logs: LogRecorder) -> None:
        self._module = module
        self._optimizer = optimizer
        self._logs = logs
        self._device = module.device

    def step(self, batch: Any, batch_idx: int, *, passes_batch_idx: bool, last: bool) -> Tensor | None:
        """Train on one batch; as `AutomaticOptimization.step`."""
        if not _lies_at(self._device, batch):
            batch = move_data_to_device(batch, self._device)
        self._logs.start_step(batch)
        return self.take(batch, batch_idx, passes_batch_idx=passes_batch_idx)

    def take(self, batch: Any, batch_idx: int, *, passes_batch_idx: bool) -> Tensor | None:
        """Train on a batch that is on the module's device, and that the logs know of.

        Args:
            batch: The batch.
            batch_idx: Its number within the local epoch.
            passes_batch_idx: Whether ``training_step`` takes it.

        Returns:
            The loss, shape ``()``, without a graph; ``None`` where the module skips the step.
        """
        losses: list[Tensor] = []

        def closure() -> Tensor | None:
            loss = self._loss(batch, batch_idx, passes_batch_idx)
            self._optimizer.zero_grad()
            if loss is not None:
                losses.append(loss.detach().clone())
                backward(loss)
            return loss

        self._optimizer.step(closure)  # type: ignore[arg-type]  # torch has it that there is always a loss
        return losses[0] if losses else None

    def _loss(self, batch: Any, batch_idx: int, passes_batch_idx: bool) -> Tensor | None:
        module = self._module
        output = module.training_step(batch, batch_idx) if passes_batch_idx else module.training_step(batch)
        return loss_of(output, required=True)


class ByGradients(LeanOptimization):
    """Step along gradients that come straight from autograd: what is computed, and what is done with it.

    Attributes:
        only_reads: Whether gradients are the same after a step along them.
    """

    only_reads: ClassVar[bool] = False

    @override
    def take(self, batch: Any, batch_idx: int, *, passes_batch_idx: bool) -> Tensor | None:
        found = self.differentiate(batch, batch_idx, passes_batch_idx=passes_batch_idx)
        if found is None:
            self.skip()
            return None
        loss, gradients = found
        # A step may write to what the loss is a view of.
        kept = loss.clone()
        self.descend(gradients)
        return kept

    @abstractmethod
    def differentiate(
        self, batch: Any, batch_idx: int, *, passes_batch_idx: bool
    ) -> tuple[Tensor, Gradients] | None:
        """Compute the loss on a batch, without a graph, and its gradients; as `take`.

        Returns:
            Both; gradients are those of the tensors that `trained` returns. ``None`` where the module skips
            the step.
        """

    @abstractmethod
    def descend(self, gradients: Gradients) -> None:
        """Take the step that an optimizer takes by some gradients.

        Args:
            gradients: Of what is trained.
        """

    def skip(self) -> None:
        """Do what an optimizer does where there is no loss."""

    def trained(self) -> list[Tensor]:
        """Return what the optimizer steps now, in its order."""
        groups = self._optimizer.param_groups
        return [tensor for group in groups for tensor in group["params"] if tensor.requires_grad]


class LeanSGD(ByGradients):
    """Take the steps of SGD without momentum: gradients go right into the parameters, and are not stored."""

    only_reads = True

    @override
    def differentiate(
        self, batch: Any, batch_idx: int, *, passes_batch_idx: bool
    ) -> tuple[Tensor, Gradients] | None:
        loss = self._loss(batch, batch_idx, passes_batch_idx)
        return None if loss is None else (loss.detach(), gradients_of(loss, self.trained()))

    @override
    def descend(self, gradients: Gradients) -> None:
        groups = self._optimizer.param_groups
        with GradModeOff():
            if len(groups) == 1:
                _descend(self.trained(), gradients, groups[0])
            else:
                _descend_by_group(groups, gradients)
        count_as_step(self._optimizer)

    @staticmethod
    def fits(optimizer: Optimizer) -> bool:
        """Tell whether an optimizer is such an SGD, with nobody listening to its steps."""
        return (
            type(optimizer) is SGD
            and not is_listened_to(optimizer)
            and all(_is_plain(group) for group in optimizer.param_groups)
        )


class LeanStep(ByGradients):
    """Let an optimizer of torch's take its own steps, by gradients that come straight from autograd."""

    @override
    def differentiate(
        self, batch: Any, batch_idx: int, *, passes_batch_idx: bool
    ) -> tuple[Tensor, Gradients] | None:
        with torch.set_grad_enabled(True):  # as an optimizer asks for it, whatever a procedure has turned off
            loss = self._loss(batch, batch_idx, passes_batch_idx)
        if loss is None:
            return None
        # Dropped before there are others, so that these get their memory.
        for group in self._optimizer.param_groups:
            for tensor in group["params"]:
                tensor.grad = None
        return loss.detach(), gradients_of(loss, self.trained())

    @override
    def descend(self, gradients: Gradients) -> None:
        trained = self.trained()
        for tensor, gradient in zip(trained, gradients, strict=True):
            tensor.grad = None if gradient is None else _laid_out_like(tensor, gradient)
        self._step(trained)

    @override
    def skip(self) -> None:
        self._optimizer.zero_grad()
        self._optimizer.step()

    def _step(self, trained: list[Tensor]) -> None:
        """Step along the gradients of some tensors, which have them where a backward leaves them."""
        self._optimizer.step()

    @staticmethod
    def fits(optimizer: Optimizer) -> bool:
        """Tell whether an optimizer is one that needs no closure, with nobody listening to its steps."""
        return (
            type(optimizer) in _WITHOUT_CLOSURE
            and "zero_grad" not in vars(optimizer)
            and not is_listened_to(optimizer)
            and not any(group["differentiable"] for group in optimizer.param_groups)
            and not any(map(_is_watched, optimizer.param_groups))
        )


class CorrectedSGD(LeanSGD):
    """Take the steps of SGD without momentum by gradients that an algorithm corrects.

    Args:
        module: As for `LeanOptimization`.
        optimizer: As for `LeanOptimization`.
        logs: As for `LeanOptimization`.
        correction: What is done right before each step.
    """

    def __init__(
        self, module: pl.LightningModule, optimizer: Optimizer, logs: LogRecorder, correction: StepCorrection
    ) -> None:
        super().__init__(module, optimizer, logs)
        self._correction = correction

    @override
    def _loss(self, batch: Any, batch_idx: int, passes_batch_idx: bool) -> Tensor | None:
        with torch.set_grad_enabled(True):  # as an optimizer asks for it, whatever a procedure has turned off
            return super()._loss(batch, batch_idx, passes_batch_idx)

    @override
    def take(self, batch: Any, batch_idx: int, *, passes_batch_idx: bool) -> Tensor | None:
        loss = self._loss(batch, batch_idx, passes_batch_idx)
        if loss is None:
            return None
        kept = loss.detach().clone()
        # Gradients are stored here: a correction may drop some, and writes to each without touching others.
        optimizer = self._optimizer
        optimizer.zero_grad()
        backward(loss)
        self._correction.before_step(optimizer)
        with GradModeOff():
            for group in optimizer.param_groups:
                tensors = group["params"]
                _descend(tensors, [tensor.grad for tensor in tensors], group)
        count_as_step(optimizer)
        return kept


def lean_optimization(
    module: pl.LightningModule,
    optimizer: Optimizer,
    logs: LogRecorder,
    correction: StepCorrection | None = None,
) -> LeanOptimization:
    """Choose the leanest way to step an optimizer that gives the same bits as its own.

    Args:
        module: As for `LeanOptimization`.
        optimizer: As for `LeanOptimization`.
        logs: As for `LeanOptimization`.
        correction: What is done right before each step; `CorrectedSGD` does it, any other has to be heard.
    """
    if not LeanSGD.fits(optimizer):
        # A correction that has to be heard wants a closure: it acts between that and the step.
        alone = correction is None and LeanStep.fits(optimizer)
        return (LeanStep if alone else LeanOptimization)(module, optimizer, logs)
    if correction is not None:
        return CorrectedSGD(module, optimizer, logs, correction)
    return LeanSGD(module, optimizer, logs)


def _descend_by_group(groups: Sequence[Group], gradients: Gradients) -> None:
    first = 0
    for group in groups:
        own = [tensor for tensor in group["params"] if tensor.requires_grad]
        _descend(own, gradients[first : first + len(own)], group)
        first += len(own)


def _descend(tensors: list[Tensor], gradients: Gradients, group: Group) -> None:
    used = [gradient for gradient in gradients if gradient is not None]
    if len(used) < len(tensors):
        tensors = [tensor for tensor, own in zip(tensors, gradients, strict=True) if own is not None]
    if not used:
        return
    if group["weight_decay"]:
        used = list(torch._foreach_add(used, tensors, alpha=group["weight_decay"]))
    torch._foreach_add_(tensors, used, alpha=-group["lr"])


def _is_plain(group: Group) -> bool:
    return (
        not group["momentum"]
        and not group["maximize"]
        and not group["differentiable"]
        and not group["fused"]
        and isinstance(group["lr"], float | int)
        and isinstance(group["weight_decay"], float | int)
        and not _is_watched(group)
    )


def _is_watched(group: Group) -> bool:
    return any(tensor._post_accumulate_grad_hooks for tensor in group["params"])


def _laid_out_like(tensor: Tensor, gradient: Tensor) -> Tensor:
    # As autograd does before it stores a gradient.
    if gradient.layout is not torch.strided or gradient.stride() == tensor.stride():
        return gradient
    return torch.empty_like(tensor, requires_grad=False).copy_(gradient)


def is_listened_to(optimizer: Optimizer) -> bool:
    """Tell whether anybody wants to hear of an optimizer's steps."""
    # Private to torch, like the two below: nothing public tells whether a step has hooks.
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        # Our own has nothing to do for a module that is here as a whole, as it is in a program.
        or any(hook is not bring_state_along for hook in torch_optimizer._global_optimizer_pre_hooks.values())
        or torch_optimizer._global_optimizer_post_hooks
    )


def count_as_step(optimizer: Optimizer) -> None:
    """Let an optimizer know that its parameters were stepped, though not by itself."""
    # A scheduler of torch warns if it is stepped before its optimizer, which it knows by this.
    optimizer._opt_called = True  # type: ignore[attr-defined]  # set by torch, declared nowhere


def _lies_at(device: torch.device, batch: Any) -> bool:
    # As the batches of tensors in memory do; Lightning's own way takes as long as a small forward.
    if type(batch) is not list:
        return False
    return not [part for part in batch if type(part) is not Tensor or part.device != device]


_WITHOUT_CLOSURE = frozenset(
    (SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad, Adadelta, Rprop, ASGD),
)
