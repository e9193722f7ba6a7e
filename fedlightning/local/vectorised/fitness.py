"""What keeps a module's local steps from being taken for several workers at once, as far as can be seen.

What shows only in running it (a value asked for, a branch on data, a tensor kept on the module) is found by a
trial, in ``trial``.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Sequence

import lightning.pytorch as pl
from torch import nn
from torch.optim import Optimizer

from fedlightning.local.known import known
from fedlightning.local.vectorised.optimizers import why_not_stackable
from fedlightning.local.visit import Visit

_MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def why_not_batchable(module: pl.LightningModule, optimizers: Sequence[Optimizer], visit: Visit) -> str:
    """Say what stands in the way of taking the steps of several workers as one.

    Args:
        module: The module, attached to a Trainer.
        optimizers: Its optimizers.
        visit: Any of the visits.

    Returns:
        The reason, in a few words; empty if there is none that can be seen.
    """
    reason = known(module).why_not_lean
    if reason:
        return reason
    if len(optimizers) != 1:
        return f"{len(optimizers)} optimizers"
    if visit.accumulate > 1:
        return "accumulate_grad_batches"
    if visit.keeps_buffers:
        return "buffers that stay at the workers"
    if visit.keeps_gradients or visit.seed is None:
        return "a single worker, which trains as an ordinary fit does"
    return why_not_stackable(optimizers[0]) or _hooks_of(module)


def reads_batch_idx(module: pl.LightningModule) -> bool:
    """Tell whether ``training_step`` may look at its ``batch_idx``; many only take it.

    Workers whose batches have different numbers take no step together if it does.
    """
    step = getattr(type(module), "training_step", None)
    if not inspect.isfunction(step) or "training_step" in vars(module) or hasattr(step, "__wrapped__"):
        return True
    names = step.__code__.co_varnames[: step.__code__.co_argcount]
    if len(names) < 3 or step.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        return True
    name = names[2]
    return name in step.__code__.co_cellvars or any(
        instruction.argval == name or (isinstance(instruction.argval, tuple) and name in instruction.argval)
        for instruction in dis.get_instructions(step)
        if instruction.opname.startswith(("LOAD_FAST", "LOAD_CLOSURE"))
    )


def _hooks_of(module: nn.Module) -> str:
    for path, child in module.named_modules():
        for kind in _MODULE_HOOKS:
            if getattr(child, kind):
                return f"{kind.strip('_').replace('_', ' ')} on {path or type(module).__name__}"
    for name, parameter in module.named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return f"hooks on the gradient of {name}"
    return ""
